package codebuild

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// How CodePipeline, which calls as this principal, starts a build of a
// project whose source and artifacts are of type CODEPIPELINE. On AWS that is
// private between the two:
//
//   - sourceLocationOverride, secondarySourcesOverride: "bucket/key" of the input
//   - artifactsOverride, secondaryArtifactsOverride: location, path and name of the output
//   - environmentVariablesOverride: may hold CODEBUILD_RESOLVED_SOURCE_VERSION
//   - PrincipalID of the caller: the build's initiator, "codepipeline/<pipeline>"
const pipelinePrincipal = "service/codepipeline.amazonaws.com"

// tokenLife is how long an idempotency token is remembered.
const tokenLife = 5 * time.Minute

func (s *Service) startBuild(ctx context.Context, in *api.StartBuildInput) (*api.StartBuildOutput, error) {
	id := caller.From(ctx)
	name := nameOf(id, "project", ptr.Value(in.ProjectName))
	project, err := projects.Find(ctx, s.deps.Store, id.Account, id.Region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noProject(id, name)
	}
	if err != nil {
		return nil, err
	}
	b, err := s.requested(id, project, in)
	if err != nil {
		return nil, err
	}
	if err := s.resolve(ctx, id, b); err != nil {
		return nil, err
	}
	row, err := s.insert(ctx, id, name, b, ptr.Value(in.IdempotencyToken))
	if err != nil {
		return nil, err
	}
	return &api.StartBuildOutput{Build: &row.Doc.API}, nil
}

// requested is the build that a project and overrides make; it has no number yet.
func (s *Service) requested(id caller.Identity, project *projectRow, in *api.StartBuildInput) (*Build, error) {
	p, now := &project.Doc.API, s.deps.Clock.Now()
	uuid := newUUID()
	bid := project.ID + ":" + uuid
	b := &Build{Request: *in, ByPipeline: id.PrincipalARN == pipelinePrincipal, QueuedAt: now, Door: token()}
	src := *p.Source
	set(&src.Type, in.SourceTypeOverride)
	set(&src.Location, in.SourceLocationOverride)
	set(&src.Auth, in.SourceAuthOverride)
	set(&src.Buildspec, in.BuildspecOverride)
	set(&src.GitCloneDepth, in.GitCloneDepthOverride)
	env := *p.Environment
	set(&env.Type, in.EnvironmentTypeOverride)
	set(&env.Image, in.ImageOverride)
	set(&env.ComputeType, in.ComputeTypeOverride)
	set(&env.PrivilegedMode, in.PrivilegedModeOverride)
	var err error
	if env.EnvironmentVariables, err = b.variables(p.Environment.EnvironmentVariables, in.EnvironmentVariablesOverride); err != nil {
		return nil, err
	}
	b.Artifacts, b.Secondary = p.Artifacts, p.SecondaryArtifacts
	set(&b.Artifacts, in.ArtifactsOverride)
	setList(&b.Secondary, in.SecondaryArtifactsOverride)
	a := &b.API
	a.Id, a.Arn, a.ProjectName = &bid, new(arn(id, "build", bid)), &project.ID
	a.Source, a.Environment = &src, &env
	a.SecondarySources, a.SecondarySourceVersions = p.SecondarySources, p.SecondarySourceVersions
	setList(&a.SecondarySources, in.SecondarySourcesOverride)
	setList(&a.SecondarySourceVersions, in.SecondarySourcesVersionOverride)
	a.SourceVersion = p.SourceVersion
	set(&a.SourceVersion, in.SourceVersion)
	a.Cache = p.Cache
	set(&a.Cache, in.CacheOverride)
	a.ServiceRole, a.EncryptionKey, a.VpcConfig = p.ServiceRole, p.EncryptionKey, p.VpcConfig
	set(&a.ServiceRole, in.ServiceRoleOverride)
	set(&a.EncryptionKey, in.EncryptionKeyOverride)
	a.TimeoutInMinutes, a.QueuedTimeoutInMinutes = p.TimeoutInMinutes, p.QueuedTimeoutInMinutes
	set(&a.TimeoutInMinutes, in.TimeoutInMinutesOverride)
	set(&a.QueuedTimeoutInMinutes, in.QueuedTimeoutInMinutesOverride)
	a.BuildStatus, a.BuildComplete, a.StartTime, a.Initiator = new(api.StatusTypeInProgress), new(false), &now, new(initiator(id))
	a.Artifacts = shown(b.Artifacts)
	for i := range b.Secondary {
		a.SecondaryArtifacts = append(a.SecondaryArtifacts, *shown(&b.Secondary[i]))
	}
	logsConfig := p.LogsConfig
	set(&logsConfig, in.LogsConfigOverride)
	a.Logs = logsLocation(id, project.ID, uuid, logsConfig)
	if ptr.Value(a.Cache.Type) == api.CacheTypeS3 || ptr.Value(a.Cache.Type) == api.CacheTypeLocal && slices.Contains(a.Cache.Modes, api.CacheModeLocalCustomCache) {
		b.Cache = cacheVolume(project)
	}
	b.enter(api.BuildPhaseTypeSubmitted, now)
	b.leave(api.BuildPhaseTypeSubmitted, api.StatusTypeSucceeded, now)
	b.enter(api.BuildPhaseTypeQueued, now)
	return b, b.check()
}

// check refuses what cannot be built before anything is started.
func (b *Build) check() error {
	all := append([]api.ProjectSource{*b.API.Source}, b.API.SecondarySources...)
	for i := range all {
		if _, err := source(b, &all[i]); err != nil && !(ptr.Value(all[i].Type) == api.SourceTypeCodepipeline && !b.ByPipeline) {
			return err
		}
	}
	if ptr.Value(b.API.Source.Type) == api.SourceTypeCodepipeline && !b.ByPipeline {
		return invalid("Project source type CODEPIPELINE: the build can be started by CodePipeline only; give sourceTypeOverride and artifactsOverride to start it by hand")
	}
	if b.Artifacts != nil && ptr.Value(b.Artifacts.Type) == api.ArtifactsTypeCodepipeline && !b.ByPipeline {
		return invalid("Invalid artifacts: type CODEPIPELINE is for builds that CodePipeline starts; give artifactsOverride")
	}
	return nil
}

// variables are the project's with overrides merged in by name.
func (b *Build) variables(project, overrides []api.EnvironmentVariable) ([]api.EnvironmentVariable, error) {
	out := slices.Clone(project)
	for _, v := range overrides {
		v.Type = def(v.Type, "PLAINTEXT")
		if b.ByPipeline && ptr.Value(v.Name) == "CODEBUILD_RESOLVED_SOURCE_VERSION" {
			b.API.ResolvedSourceVersion = v.Value
			continue
		}
		if strings.HasPrefix(ptr.Value(v.Name), reserved) {
			return nil, invalid("Invalid environment variable: %s begins with %s, which is reserved", ptr.Value(v.Name), reserved)
		}
		i := slices.IndexFunc(out, func(o api.EnvironmentVariable) bool { return ptr.Value(o.Name) == ptr.Value(v.Name) })
		if i < 0 {
			out = append(out, v)
		} else {
			out[i] = v
		}
	}
	return out, nil
}

// initiator is who the build says started it.
func initiator(id caller.Identity) string {
	if id.PrincipalARN == pipelinePrincipal {
		return id.PrincipalID
	}
	parts := strings.SplitN(id.PrincipalARN, ":", 6)
	who := strings.TrimPrefix(parts[len(parts)-1], "user/")
	if who == "" {
		return "unknown"
	}
	return who
}

// shown is an artifact before it exists.
func shown(a *api.ProjectArtifacts) *api.BuildArtifacts {
	if a == nil {
		return nil
	}
	out := &api.BuildArtifacts{ArtifactIdentifier: a.ArtifactIdentifier, OverrideArtifactName: a.OverrideArtifactName, EncryptionDisabled: a.EncryptionDisabled}
	if ptr.Value(a.Location) != "" {
		out.Location = new("arn:aws:s3:::" + strings.Join(slices.DeleteFunc([]string{ptr.Value(a.Location), strings.Trim(ptr.Value(a.Path), "/"), ptr.Value(a.Name)}, func(p string) bool { return p == "" }), "/"))
	}
	return out
}

// logsLocation is where the build's log goes; no stream where logs are off.
func logsLocation(id caller.Identity, project, uuid string, c *api.LogsConfig) *api.LogsLocation {
	cw := &api.CloudWatchLogsConfig{Status: new(api.LogsConfigStatusTypeEnabled)}
	if c != nil {
		set(&cw, c.CloudWatchLogs)
	}
	l := &api.LogsLocation{CloudWatchLogs: cw, S3Logs: &api.S3LogsConfig{Status: new(api.LogsConfigStatusTypeDisabled)}}
	if ptr.Value(cw.Status) != api.LogsConfigStatusTypeEnabled {
		return l
	}
	group, stream := "/aws/codebuild/"+project, uuid
	if cw.GroupName != nil {
		group = *cw.GroupName
	}
	if ptr.Value(cw.StreamName) != "" {
		stream = *cw.StreamName + "/" + uuid
	}
	l.GroupName, l.StreamName = &group, &stream
	l.CloudWatchLogsArn = new("arn:aws:logs:" + id.Region + ":" + id.Account + ":log-group:" + group + ":log-stream:" + stream)
	return l
}

// cacheVolume names the volume that a project's builds share. Without a name
// from the user's hand in it, it is a good volume name for every project.
func cacheVolume(p *projectRow) string {
	sum := sha256.Sum256([]byte(p.Account + "/" + p.Region + "/" + p.ID + "/" + strconv.FormatInt(p.Doc.CacheGeneration, 10)))
	return "build-cache-" + hex.EncodeToString(sum[:10])
}

// resolve pins the sources in repositories to commits: a retry builds the same.
func (s *Service) resolve(ctx context.Context, id caller.Identity, b *Build) error {
	pin := func(src *api.ProjectSource, version string) (string, error) {
		if s.deps.Repositories == nil {
			return "", unsupportedSource(ptr.Value(src.Type))
		}
		if version == "" {
			version = "HEAD"
		}
		c, err := s.deps.Repositories.Commit(ctx, id.Account, id.Region, repositoryName(src), strings.TrimPrefix(version, "refs/heads/"))
		if e := awserr.As(err); e != nil {
			return "", invalid("Invalid project source: %s", e.Message)
		}
		if err != nil {
			return "", err
		}
		return c.ID, nil
	}
	if ptr.Value(b.API.Source.Type) == api.SourceTypeCodecommit {
		commit, err := pin(b.API.Source, ptr.Value(b.API.SourceVersion))
		if err != nil {
			return err
		}
		b.API.ResolvedSourceVersion = &commit
	}
	for i := range b.API.SecondarySources {
		src := &b.API.SecondarySources[i]
		if ptr.Value(src.Type) != api.SourceTypeCodecommit {
			continue
		}
		at := slices.IndexFunc(b.API.SecondarySourceVersions, func(v api.ProjectSourceVersion) bool {
			return ptr.Value(v.SourceIdentifier) == ptr.Value(src.SourceIdentifier)
		})
		version := ""
		if at >= 0 {
			version = ptr.Value(b.API.SecondarySourceVersions[at].SourceVersion)
		}
		commit, err := pin(src, version)
		if err != nil {
			return err
		}
		v := api.ProjectSourceVersion{SourceIdentifier: src.SourceIdentifier, SourceVersion: &commit}
		if b.API.SecondarySourceVersions = slices.Clone(b.API.SecondarySourceVersions); at < 0 {
			b.API.SecondarySourceVersions = append(b.API.SecondarySourceVersions, v)
		} else {
			b.API.SecondarySourceVersions[at] = v
		}
	}
	return nil
}

// insert numbers and writes the build, or finds the one that the token made.
func (s *Service) insert(ctx context.Context, id caller.Identity, project string, b *Build, token string) (*buildRow, error) {
	var row *buildRow
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		if token != "" {
			old, err := tokens.Get(tx, id.Account, id.Region, project+"/"+token)
			if err == nil && (b.ByPipeline || s.deps.Clock.Since(old.Doc.At) < tokenLife) {
				row, err = builds.Get(tx, id.Account, id.Region, old.Doc.Build)
				return err
			}
			if err == nil {
				err = tokens.Delete(tx, old, "Expired", nil)
			}
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		p, err := projects.Get(tx, id.Account, id.Region, project)
		if errors.Is(err, store.ErrNotFound) {
			return noProject(id, project)
		}
		if err != nil {
			return err
		}
		if limit := ptr.Value(p.Doc.API.ConcurrentBuildLimit); limit > 0 {
			n, err := builds.Count(tx, store.Query{Account: id.Account, Region: id.Region, Parent: project, State: api.StatusTypeInProgress})
			if err != nil {
				return err
			}
			if int64(n) >= limit {
				return awserr.New(api.ErrCodeAccountLimitExceededException, "Cannot have more than %d active builds for the project %s", limit, project)
			}
		}
		p.Doc.Builds++
		b.API.BuildNumber = new(p.Doc.Builds)
		if err := projects.Save(tx, p, "BuildStarted", nil); err != nil {
			return err
		}
		if _, err := doors.Insert(tx, "", "", b.Door, Door{id.Account, id.Region, *b.API.Id}, "Opened", nil); err != nil {
			return err
		}
		if token != "" {
			if _, err := tokens.Insert(tx, id.Account, id.Region, project+"/"+token, Token{*b.API.Id, s.deps.Clock.Now()}, "Created", nil); err != nil {
				return err
			}
		}
		told := changes(&buildRow{Key: builds.Key(id.Account, id.Region, *b.API.Id), Doc: *b}, told{})
		row, err = builds.Insert(tx, id.Account, id.Region, *b.API.Id, *b, "Created", told)
		return err
	})
	return row, err
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// token is a secret of 128 bits.
func token() string { return strings.ToLower(rand.Text()) }
