package codebuild

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// Register serves the operations that are built.
func (s *Service) Register(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreateProject, s.createProject)
	dispatch.Register(m, api.OpUpdateProject, s.updateProject)
	dispatch.Register(m, api.OpDeleteProject, s.deleteProject)
	dispatch.Register(m, api.OpBatchGetProjects, s.batchGetProjects)
	dispatch.Register(m, api.OpListProjects, s.listProjects)
	dispatch.Register(m, api.OpInvalidateProjectCache, s.invalidateProjectCache)
	dispatch.Register(m, api.OpStartBuild, s.startBuild)
	dispatch.Register(m, api.OpRetryBuild, s.retryBuild)
	dispatch.Register(m, api.OpStopBuild, s.stopBuild)
	dispatch.Register(m, api.OpBatchGetBuilds, s.batchGetBuilds)
	dispatch.Register(m, api.OpBatchDeleteBuilds, s.batchDeleteBuilds)
	dispatch.Register(m, api.OpListBuilds, s.listBuilds)
	dispatch.Register(m, api.OpListBuildsForProject, s.listBuildsForProject)
	s.registerReports(m)
}

func arn(id caller.Identity, kind, name string) string {
	return "arn:aws:codebuild:" + id.Region + ":" + id.Account + ":" + kind + "/" + name
}

func invalid(format string, args ...any) error {
	return awserr.New(api.ErrCodeInvalidInputException, format, args...)
}

var projectName = lazyre.New(`^[A-Za-z0-9][A-Za-z0-9_-]{1,149}$`)

// noProject is AWS's answer where a project is missing.
func noProject(id caller.Identity, name string) error {
	return awserr.New(api.ErrCodeResourceNotFoundException, "Project cannot be found: %s", arn(id, "project", name))
}

// nameOf takes a name or an ARN of that kind.
func nameOf(id caller.Identity, kind, s string) string {
	return strings.TrimPrefix(s, arn(id, kind, ""))
}

func checkProject(p *api.Project) error {
	if !projectName.MatchString(ptr.Value(p.Name)) {
		return invalid("Project name must be 2 to 150 of the characters A-Z, a-z, 0-9, - and _, and start with a letter or a digit: %q", ptr.Value(p.Name))
	}
	if p.Source == nil || p.Artifacts == nil || p.Environment == nil {
		return invalid("A project needs source, artifacts and environment")
	}
	pipelined := ptr.Value(p.Source.Type) == api.SourceTypeCodepipeline
	if pipelined != (ptr.Value(p.Artifacts.Type) == api.ArtifactsTypeCodepipeline) {
		return invalid("Invalid project: if one of source and artifacts is of type CODEPIPELINE, the other must be, too")
	}
	if ptr.Value(p.Source.Type) == api.SourceTypeNoSource && ptr.Value(p.Source.Buildspec) == "" {
		return invalid("Invalid project source: a buildspec is required with source type NO_SOURCE")
	}
	if ptr.Value(p.Artifacts.Type) == api.ArtifactsTypeS3 && ptr.Value(p.Artifacts.Location) == "" {
		return invalid("Invalid artifacts: location is required with artifacts type S3")
	}
	for _, v := range p.Environment.EnvironmentVariables {
		if strings.HasPrefix(ptr.Value(v.Name), reserved) {
			return invalid("Invalid environment variable: %s begins with %s, which is reserved", ptr.Value(v.Name), reserved)
		}
	}
	return nil
}

// complete fills in what AWS answers where nothing was said.
func complete(p *api.Project) {
	p.TimeoutInMinutes = def(p.TimeoutInMinutes, 60)
	p.QueuedTimeoutInMinutes = def(p.QueuedTimeoutInMinutes, 480)
	if p.Cache == nil {
		p.Cache = &api.ProjectCache{Type: new(api.CacheTypeNoCache)}
	}
	p.Environment.PrivilegedMode = def(p.Environment.PrivilegedMode, false)
	p.Environment.ImagePullCredentialsType = def(p.Environment.ImagePullCredentialsType, "CODEBUILD")
	if p.Environment.EnvironmentVariables == nil {
		p.Environment.EnvironmentVariables = []api.EnvironmentVariable{}
	}
	for i := range p.Environment.EnvironmentVariables {
		v := &p.Environment.EnvironmentVariables[i]
		v.Type = def(v.Type, "PLAINTEXT")
	}
	if p.Artifacts != nil && ptr.Value(p.Artifacts.Type) == api.ArtifactsTypeS3 {
		p.Artifacts.Name = def(p.Artifacts.Name, ptr.Value(p.Name))
		p.Artifacts.NamespaceType = def(p.Artifacts.NamespaceType, api.ArtifactNamespaceNone)
		p.Artifacts.Packaging = def(p.Artifacts.Packaging, api.ArtifactPackagingNone)
	}
	p.EncryptionKey = def(p.EncryptionKey, "arn:aws:kms:"+strings.Join(strings.Split(ptr.Value(p.Arn), ":")[3:5], ":")+":alias/aws/s3")
	p.ProjectVisibility = def(p.ProjectVisibility, "PRIVATE")
	p.Badge = &api.ProjectBadge{BadgeEnabled: new(false)}
}

func def[T any](p *T, v T) *T {
	if p == nil {
		return &v
	}
	return p
}

func (s *Service) createProject(ctx context.Context, in *api.CreateProjectInput) (*api.CreateProjectOutput, error) {
	id, now := caller.From(ctx), s.deps.Clock.Now()
	p := api.Project{
		Name: in.Name, Description: in.Description, Source: in.Source, SecondarySources: in.SecondarySources, SourceVersion: in.SourceVersion,
		SecondarySourceVersions: in.SecondarySourceVersions, Artifacts: in.Artifacts, SecondaryArtifacts: in.SecondaryArtifacts, Cache: in.Cache,
		Environment: in.Environment, ServiceRole: in.ServiceRole, TimeoutInMinutes: in.TimeoutInMinutes, QueuedTimeoutInMinutes: in.QueuedTimeoutInMinutes,
		EncryptionKey: in.EncryptionKey, Tags: in.Tags, VpcConfig: in.VpcConfig, LogsConfig: in.LogsConfig, FileSystemLocations: in.FileSystemLocations,
		BuildBatchConfig: in.BuildBatchConfig, ConcurrentBuildLimit: in.ConcurrentBuildLimit, AutoRetryLimit: in.AutoRetryLimit,
		Arn: new(arn(id, "project", ptr.Value(in.Name))), Created: &now, LastModified: &now,
	}
	if err := checkProject(&p); err != nil {
		return nil, err
	}
	complete(&p)
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		_, err := projects.Insert(tx, id.Account, id.Region, *p.Name, Project{API: p}, "Created", nil)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return nil, awserr.New(api.ErrCodeResourceAlreadyExistsException, "Project already exists: %s", *p.Arn)
	}
	if err != nil {
		return nil, err
	}
	return &api.CreateProjectOutput{Project: &p}, nil
}

// updateProject replaces the members that are given.
func (s *Service) updateProject(ctx context.Context, in *api.UpdateProjectInput) (*api.UpdateProjectOutput, error) {
	id := caller.From(ctx)
	name := nameOf(id, "project", ptr.Value(in.Name))
	row, err := projects.Modify(ctx, s.deps.Store, id.Account, id.Region, name, "Updated", func(doc *Project) error {
		p := &doc.API
		set(&p.Description, in.Description)
		set(&p.Source, in.Source)
		set(&p.SourceVersion, in.SourceVersion)
		set(&p.Artifacts, in.Artifacts)
		set(&p.Cache, in.Cache)
		set(&p.Environment, in.Environment)
		set(&p.ServiceRole, in.ServiceRole)
		set(&p.TimeoutInMinutes, in.TimeoutInMinutes)
		set(&p.QueuedTimeoutInMinutes, in.QueuedTimeoutInMinutes)
		set(&p.EncryptionKey, in.EncryptionKey)
		set(&p.VpcConfig, in.VpcConfig)
		set(&p.LogsConfig, in.LogsConfig)
		set(&p.BuildBatchConfig, in.BuildBatchConfig)
		set(&p.ConcurrentBuildLimit, in.ConcurrentBuildLimit)
		set(&p.AutoRetryLimit, in.AutoRetryLimit)
		setList(&p.SecondarySources, in.SecondarySources)
		setList(&p.SecondarySourceVersions, in.SecondarySourceVersions)
		setList(&p.SecondaryArtifacts, in.SecondaryArtifacts)
		setList(&p.Tags, in.Tags)
		setList(&p.FileSystemLocations, in.FileSystemLocations)
		if ptr.Value(p.ConcurrentBuildLimit) == -1 { // AWS: -1 removes the limit
			p.ConcurrentBuildLimit = nil
		}
		if err := checkProject(p); err != nil {
			return err
		}
		complete(p)
		p.LastModified = new(s.deps.Clock.Now())
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, noProject(id, name)
	}
	if err != nil {
		return nil, err
	}
	return &api.UpdateProjectOutput{Project: &row.Doc.API}, nil
}

func set[T any](to **T, v *T) {
	if v != nil {
		*to = v
	}
}

func setList[T any](to *[]T, v []T) {
	if v != nil {
		*to = v
	}
}

// deleteProject also forgets the builds that are over, as AWS does.
func (s *Service) deleteProject(ctx context.Context, in *api.DeleteProjectInput) (*api.DeleteProjectOutput, error) {
	id := caller.From(ctx)
	name := nameOf(id, "project", ptr.Value(in.Name))
	volume := ""
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := projects.Get(tx, id.Account, id.Region, name)
		if errors.Is(err, store.ErrNotFound) {
			return nil // deleting what is not there succeeds
		}
		if err != nil {
			return err
		}
		volume = cacheVolume(row)
		past, err := builds.List(tx, store.Query{Account: id.Account, Region: id.Region, Parent: name})
		if err != nil {
			return err
		}
		for _, b := range past {
			if b.Doc.Cleaned {
				if err := builds.Delete(tx, b, "Deleted", nil); err != nil {
					return err
				}
			}
		}
		return projects.Delete(tx, row, "Deleted", nil)
	})
	if err == nil && volume != "" {
		if err := s.deps.Machines.RemoveVolume(ctx, volume); err != nil {
			s.deps.Log.Warn("cache of a deleted project not removed", "project", name, "error", err)
		}
	}
	return nil, err
}

func (s *Service) batchGetProjects(ctx context.Context, in *api.BatchGetProjectsInput) (*api.BatchGetProjectsOutput, error) {
	id := caller.From(ctx)
	out := &api.BatchGetProjectsOutput{Projects: []api.Project{}, ProjectsNotFound: []string{}}
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		for _, n := range in.Names {
			row, err := projects.Get(r, id.Account, id.Region, nameOf(id, "project", n))
			switch {
			case errors.Is(err, store.ErrNotFound):
				out.ProjectsNotFound = append(out.ProjectsNotFound, n)
			case err != nil:
				return err
			default:
				out.Projects = append(out.Projects, row.Doc.API)
			}
		}
		return nil
	})
	return out, err
}

func (s *Service) listProjects(ctx context.Context, in *api.ListProjectsInput) (*api.ListProjectsOutput, error) {
	id := caller.From(ctx)
	rows, err := projects.Select(ctx, s.deps.Store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	switch ptr.Value(in.SortBy) {
	case api.ProjectSortByTypeCreatedTime:
		slices.SortStableFunc(rows, func(a, b *projectRow) int { return a.Created.Compare(b.Created) })
	case api.ProjectSortByTypeLastModifiedTime:
		slices.SortStableFunc(rows, func(a, b *projectRow) int { return a.Doc.API.LastModified.Compare(*b.Doc.API.LastModified) })
	}
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.ID
	}
	if ptr.Value(in.SortOrder) == api.SortOrderTypeDescending {
		slices.Reverse(names)
	}
	names, next, err := page(names, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListProjectsOutput{Projects: names, NextToken: next}, nil
}

func (s *Service) invalidateProjectCache(ctx context.Context, in *api.InvalidateProjectCacheInput) (*api.InvalidateProjectCacheOutput, error) {
	id := caller.From(ctx)
	name, old := nameOf(id, "project", ptr.Value(in.ProjectName)), ""
	_, err := projects.Modify(ctx, s.deps.Store, id.Account, id.Region, name, "CacheInvalidated", func(p *Project) error {
		old = cacheVolume(&projectRow{Key: projects.Key(id.Account, id.Region, name), Doc: *p})
		p.CacheGeneration++
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, noProject(id, name)
	}
	if err != nil {
		return nil, err
	}
	if err := s.deps.Machines.RemoveVolume(ctx, old); err != nil { // a running build uses it: it stays until the project goes
		s.deps.Log.Debug("old cache not removed", "project", name, "error", err)
	}
	return nil, nil
}

// pageSize is how many names or ids one answer has, as on AWS.
const pageSize = 100

// page cuts one answer from all ids; the token is the last id of the one before.
func page(all []string, token *string) ([]string, *string, error) {
	if ptr.Value(token) != "" {
		last, err := base64.RawURLEncoding.DecodeString(*token)
		i := slices.Index(all, string(last))
		if err != nil || i < 0 {
			return nil, nil, invalid("The next token is not valid")
		}
		all = all[i+1:]
	}
	if len(all) <= pageSize {
		return all, nil, nil
	}
	return all[:pageSize], new(base64.RawURLEncoding.EncodeToString([]byte(all[pageSize-1]))), nil
}
