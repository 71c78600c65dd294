package codebuild

import (
	"strconv"
	"strings"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
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
		BuildID: row.ID, BuildARN: ptr.Value(b.API.Arn), Project: ptr.Value(b.API.ProjectName),
		Buildspec: ptr.Value(b.API.Source.Buildspec), TimeoutSeconds: int(ptr.Value(b.API.TimeoutInMinutes)) * 60,
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
	out := build.Source{Identifier: ptr.Value(src.SourceIdentifier)}
	switch t := ptr.Value(src.Type); t {
	case api.SourceTypeNoSource:
	case api.SourceTypeS3, api.SourceTypeCodepipeline:
		bucket, key, ok := strings.Cut(strings.TrimPrefix(ptr.Value(src.Location), "arn:aws:s3:::"), "/")
		if !ok || key == "" {
			return out, awserr.New(api.ErrCodeInvalidInputException, "Invalid project source: location must be a valid S3 source, bucket/path/object.zip")
		}
		out.Bucket, out.Key = bucket, key
		if v := ptr.Value(b.API.SourceVersion); t == api.SourceTypeS3 && out.Identifier == "" && !strings.HasPrefix(v, "arn:") {
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
	return &build.Artifact{Identifier: ptr.Value(a.ArtifactIdentifier), Type: ptr.Value(a.Type), Packaging: ptr.Value(a.Packaging), OverrideName: ptr.Value(a.OverrideArtifactName)}
}

// environment is the project's variables, then the ones that CodeBuild sets.
func environment(row *buildRow) []build.EnvVar {
	b := &row.Doc
	var env []build.EnvVar
	for _, v := range b.API.Environment.EnvironmentVariables {
		env = append(env, build.EnvVar{Name: ptr.Value(v.Name), Value: ptr.Value(v.Value), Type: ptr.Value(v.Type)})
	}
	set := func(name, value string) {
		if value != "" {
			env = append(env, build.EnvVar{Name: name, Value: value})
		}
	}
	arn := ptr.Value(b.API.Arn)
	set("AWS_DEFAULT_REGION", row.Region)
	set("AWS_REGION", row.Region)
	set("CODEBUILD_BUILD_ARN", arn)
	set("CODEBUILD_BUILD_ID", row.ID)
	set("CODEBUILD_BUILD_IMAGE", ptr.Value(b.API.Environment.Image))
	set("CODEBUILD_BUILD_NUMBER", strconv.FormatInt(ptr.Value(b.API.BuildNumber), 10))
	set("CODEBUILD_INITIATOR", ptr.Value(b.API.Initiator))
	set("CODEBUILD_KMS_KEY_ID", ptr.Value(b.API.EncryptionKey))
	set("CODEBUILD_PROJECT_ARN", strings.TrimSuffix(strings.Replace(arn, ":build/", ":project/", 1), row.ID)+ptr.Value(b.API.ProjectName))
	set("CODEBUILD_RESOLVED_SOURCE_VERSION", ptr.Value(b.API.ResolvedSourceVersion))
	set("CODEBUILD_SOURCE_VERSION", ptr.Value(b.API.SourceVersion))
	set("CODEBUILD_START_TIME", strconv.FormatInt(b.QueuedAt.UnixMilli(), 10))
	if l := b.API.Logs; l != nil {
		set("CODEBUILD_LOG_PATH", ptr.Value(l.StreamName))
	}
	if t := ptr.Value(b.API.Source.Type); t != api.SourceTypeCodepipeline && t != api.SourceTypeNoSource {
		set("CODEBUILD_SOURCE_REPO_URL", ptr.Value(b.API.Source.Location))
	}
	if ptr.Value(b.API.ServiceRole) != "" {
		set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", credentialsPath+b.Door)
	}
	return env
}
