package codebuild

import (
	"strconv"
	"strings"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
)

// Paths inside a build's machine.
const (
	runDir     = "/codebuild/run"
	eventsFile = runDir + "/events"
	pidFile    = runDir + "/pid"
	cacheMount = "/codebuild/cache"
)

// reserved is the beginning of variable names that only CodeBuild sets.
const reserved = "CODEBUILD_"

// job is the runner's task. credentials may be nil (a project without a role).
func (s *Service) job(row *buildRow, credentials *build.Credentials) (build.Job, error) {
	b := &row.Doc
	j := build.Job{
		BuildID: row.ID, BuildARN: str(b.API.Arn), Project: str(b.API.ProjectName),
		Buildspec: str(b.API.Source.Buildspec), TimeoutSeconds: int(num(b.API.TimeoutInMinutes)) * 60,
		Endpoint: s.deps.Endpoint, Region: row.Region, Credentials: credentials,
	}
	if b.Cache != "" {
		j.CacheDir = cacheMount
	}
	var err error
	if j.Source, err = source(b, b.API.Source); err != nil {
		return j, err
	}
	for i := range b.API.SecondarySources {
		src, err := source(b, &b.API.SecondarySources[i])
		if err != nil {
			return j, err
		}
		j.SecondarySources = append(j.SecondarySources, src)
	}
	j.Artifacts = artifact(b.Artifacts)
	for i := range b.Secondary {
		j.SecondaryArtifacts = append(j.SecondaryArtifacts, *artifact(&b.Secondary[i]))
	}
	j.Env = environment(row)
	return j, nil
}

// source is where the runner finds a source.
func source(b *Build, src *api.ProjectSource) (build.Source, error) {
	out := build.Source{Identifier: str(src.SourceIdentifier)}
	switch t := str(src.Type); t {
	case api.SourceTypeNoSource:
	case api.SourceTypeS3, api.SourceTypeCodepipeline:
		bucket, key, ok := strings.Cut(strings.TrimPrefix(str(src.Location), "arn:aws:s3:::"), "/")
		if !ok || key == "" {
			return out, awserr.New(api.ErrCodeInvalidInputException, "Invalid project source: location must be a valid S3 source, bucket/path/object.zip")
		}
		out.Bucket, out.Key = bucket, key
		if v := str(b.API.SourceVersion); t == api.SourceTypeS3 && out.Identifier == "" && !strings.HasPrefix(v, "arn:") {
			out.VersionID = v
		}
	case api.SourceTypeCodecommit:
		out.URL = "http://" + doorAddress + sourcePath + b.Door + "/" + out.Identifier
	default:
		return out, unsupportedSource(t)
	}
	return out, nil
}

func unsupportedSource(t string) error {
	return awserr.New(api.ErrCodeInvalidInputException, "Slipway does not build from sources of type %s yet; it builds from CODEPIPELINE, CODECOMMIT, S3 and NO_SOURCE.", t)
}

func artifact(a *api.ProjectArtifacts) *build.Artifact {
	if a == nil {
		return nil
	}
	return &build.Artifact{Identifier: str(a.ArtifactIdentifier), Type: str(a.Type), Packaging: str(a.Packaging), OverrideName: flag(a.OverrideArtifactName)}
}

// environment is the project's variables, then the ones that CodeBuild sets.
func environment(row *buildRow) []build.EnvVar {
	b := &row.Doc
	var env []build.EnvVar
	for _, v := range b.API.Environment.EnvironmentVariables {
		env = append(env, build.EnvVar{Name: str(v.Name), Value: str(v.Value), Type: str(v.Type)})
	}
	set := func(name, value string) {
		if value != "" {
			env = append(env, build.EnvVar{Name: name, Value: value})
		}
	}
	arn := str(b.API.Arn)
	set("AWS_DEFAULT_REGION", row.Region)
	set("AWS_REGION", row.Region)
	set("CODEBUILD_BUILD_ARN", arn)
	set("CODEBUILD_BUILD_ID", row.ID)
	set("CODEBUILD_BUILD_IMAGE", str(b.API.Environment.Image))
	set("CODEBUILD_BUILD_NUMBER", strconv.FormatInt(num(b.API.BuildNumber), 10))
	set("CODEBUILD_INITIATOR", str(b.API.Initiator))
	set("CODEBUILD_KMS_KEY_ID", str(b.API.EncryptionKey))
	set("CODEBUILD_PROJECT_ARN", strings.TrimSuffix(strings.Replace(arn, ":build/", ":project/", 1), row.ID)+str(b.API.ProjectName))
	set("CODEBUILD_RESOLVED_SOURCE_VERSION", str(b.API.ResolvedSourceVersion))
	set("CODEBUILD_SOURCE_VERSION", str(b.API.SourceVersion))
	set("CODEBUILD_START_TIME", strconv.FormatInt(b.QueuedAt.UnixMilli(), 10))
	if l := b.API.Logs; l != nil {
		set("CODEBUILD_LOG_PATH", str(l.StreamName))
	}
	if t := str(b.API.Source.Type); t != api.SourceTypeCodepipeline && t != api.SourceTypeNoSource {
		set("CODEBUILD_SOURCE_REPO_URL", str(b.API.Source.Location))
	}
	if str(b.API.ServiceRole) != "" {
		set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", credentialsPath+b.Door)
	}
	return env
}
