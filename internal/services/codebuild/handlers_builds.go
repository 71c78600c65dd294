package codebuild

import (
	"context"
	"errors"
	"slices"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func noBuild(id caller.Identity, build string) error {
	return awserr.New(api.ErrCodeResourceNotFoundException, "Build does not exist: %s", arn(id, "build", build))
}

// retryBuild starts the same build again, from the same commit.
func (s *Service) retryBuild(ctx context.Context, in *api.RetryBuildInput) (*api.RetryBuildOutput, error) {
	id := caller.From(ctx)
	old, err := builds.Find(ctx, s.deps.Store, id.Account, id.Region, nameOf(id, "build", ptr.Value(in.Id)))
	if errors.Is(err, store.ErrNotFound) {
		return nil, noBuild(id, ptr.Value(in.Id))
	}
	if err != nil {
		return nil, err
	}
	if !old.Doc.Complete() {
		return nil, invalid("Build %s is still in progress", old.ID)
	}
	if old.Doc.ByPipeline {
		return nil, invalid("Build %s was started by CodePipeline: retry the pipeline's stage", old.ID)
	}
	again := old.Doc.Request
	again.IdempotencyToken = in.IdempotencyToken
	if v := old.Doc.API.ResolvedSourceVersion; v != nil {
		again.SourceVersion = v
	}
	out, err := s.startBuild(ctx, &again)
	if err != nil {
		return nil, err
	}
	return &api.RetryBuildOutput{Build: out.Build}, nil
}

// stopBuild ends a build that waits at once; a running one when its runner
// has ended the phase.
func (s *Service) stopBuild(ctx context.Context, in *api.StopBuildInput) (*api.StopBuildOutput, error) {
	id := caller.From(ctx)
	row, err := s.change(ctx, builds.Key(id.Account, id.Region, nameOf(id, "build", ptr.Value(in.Id))), "StopRequested", func(_ store.Tx, row *buildRow) error {
		b := &row.Doc
		if !b.StopAt.IsZero() {
			return errOver // or will be soon
		}
		b.StopAt = s.deps.Clock.Now()
		if b.LaunchedAt.IsZero() {
			b.finish(api.StatusTypeStopped, b.StopAt)
		}
		return nil
	})
	if errors.Is(err, errOver) {
		err = nil
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil, noBuild(id, ptr.Value(in.Id))
	}
	if err != nil {
		return nil, err
	}
	return &api.StopBuildOutput{Build: &row.Doc.API}, nil
}

func (s *Service) batchGetBuilds(ctx context.Context, in *api.BatchGetBuildsInput) (*api.BatchGetBuildsOutput, error) {
	id := caller.From(ctx)
	out := &api.BatchGetBuildsOutput{Builds: []api.Build{}, BuildsNotFound: []string{}}
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		for _, b := range in.Ids {
			row, err := builds.Get(r, id.Account, id.Region, nameOf(id, "build", b))
			switch {
			case errors.Is(err, store.ErrNotFound):
				out.BuildsNotFound = append(out.BuildsNotFound, b)
			case err != nil:
				return err
			default:
				out.Builds = append(out.Builds, row.Doc.API)
			}
		}
		return nil
	})
	return out, err
}

func (s *Service) batchDeleteBuilds(ctx context.Context, in *api.BatchDeleteBuildsInput) (*api.BatchDeleteBuildsOutput, error) {
	id := caller.From(ctx)
	out := &api.BatchDeleteBuildsOutput{BuildsDeleted: []string{}, BuildsNotDeleted: []api.BuildNotDeleted{}}
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		for _, b := range in.Ids {
			row, err := builds.Get(tx, id.Account, id.Region, nameOf(id, "build", b))
			switch {
			case errors.Is(err, store.ErrNotFound):
				out.BuildsDeleted = append(out.BuildsDeleted, arn(id, "build", nameOf(id, "build", b)))
				continue
			case err != nil:
				return err
			case !row.Doc.Cleaned:
				out.BuildsNotDeleted = append(out.BuildsNotDeleted, api.BuildNotDeleted{Id: new(b), StatusCode: new("BUILD_IN_PROGRESS")})
				continue
			}
			if err := builds.Delete(tx, row, "Deleted", nil); err != nil {
				return err
			}
			out.BuildsDeleted = append(out.BuildsDeleted, ptr.Value(row.Doc.API.Arn))
		}
		return nil
	})
	return out, err
}

func (s *Service) listBuilds(ctx context.Context, in *api.ListBuildsInput) (*api.ListBuildsOutput, error) {
	ids, next, err := s.buildIDs(ctx, "", in.SortOrder, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListBuildsOutput{Ids: ids, NextToken: next}, nil
}

func (s *Service) listBuildsForProject(ctx context.Context, in *api.ListBuildsForProjectInput) (*api.ListBuildsForProjectOutput, error) {
	id := caller.From(ctx)
	name := nameOf(id, "project", ptr.Value(in.ProjectName))
	if _, err := projects.Find(ctx, s.deps.Store, id.Account, id.Region, name); errors.Is(err, store.ErrNotFound) {
		return nil, noProject(id, name)
	} else if err != nil {
		return nil, err
	}
	ids, next, err := s.buildIDs(ctx, name, in.SortOrder, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListBuildsForProjectOutput{Ids: ids, NextToken: next}, nil
}

// buildIDs lists builds, the newest first unless asked otherwise.
func (s *Service) buildIDs(ctx context.Context, project string, order, token *string) ([]string, *string, error) {
	id := caller.From(ctx)
	rows, err := builds.Select(ctx, s.deps.Store, store.Query{Account: id.Account, Region: id.Region, Parent: project})
	if err != nil {
		return nil, nil, err
	}
	slices.SortStableFunc(rows, func(a, b *buildRow) int { return a.Doc.QueuedAt.Compare(b.Doc.QueuedAt) })
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	if ptr.Value(order) != api.SortOrderTypeAscending {
		slices.Reverse(ids)
	}
	return page(ids, token)
}
