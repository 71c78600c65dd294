package codedeploy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerRevisions(m *dispatch.Mux) {
	dispatch.Register(m, api.OpRegisterApplicationRevision, s.registerApplicationRevision)
	dispatch.Register(m, api.OpGetApplicationRevision, s.getApplicationRevision)
	dispatch.Register(m, api.OpBatchGetApplicationRevisions, s.batchGetApplicationRevisions)
	dispatch.Register(m, api.OpListApplicationRevisions, s.listApplicationRevisions)
	dispatch.Register(m, api.OpListGitHubAccountTokenNames, s.listGitHubAccountTokenNames)
}

func revisionRowID(app string, r *api.RevisionLocation) string { return app + "/" + revisionKey(r) }

// noteRevision registers a revision, or notes that it was used again.
func noteRevision(tx store.Tx, id caller.Identity, app string, loc *api.RevisionLocation, description string, used bool, now time.Time) error {
	row, err := revisions.Get(tx, id.Account, id.Region, revisionRowID(app, loc))
	fresh := errors.Is(err, store.ErrNotFound)
	if err != nil && !fresh {
		return err
	}
	r := Revision{Application: app, Location: *loc, RegisteredAt: now}
	if !fresh {
		r = row.Doc
	}
	if description != "" {
		r.Description = description
	}
	if used {
		if r.FirstUsedAt.IsZero() {
			r.FirstUsedAt = now
		}
		r.LastUsedAt = now
	}
	if fresh {
		_, err = revisions.Insert(tx, id.Account, id.Region, revisionRowID(app, loc), r, "Registered", nil)
		return err
	}
	row.Doc = r
	return revisions.Save(tx, row, "Used", nil)
}

func (s *Service) registerApplicationRevision(ctx context.Context, in *api.RegisterApplicationRevisionInput) (*api.RegisterApplicationRevisionOutput, error) {
	if err := validDescription(in.Description); err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	err := s.store.Update(ctx, func(tx store.Tx) error {
		if _, err := application(tx, id, in.ApplicationName); err != nil {
			return err
		}
		if err := validRevision(in.Revision); err != nil {
			return err
		}
		return noteRevision(tx, id, *in.ApplicationName, normalRevision(in.Revision), ptr.Value(in.Description), false, s.clock.Now())
	})
	if err != nil {
		return nil, err
	}
	return &api.RegisterApplicationRevisionOutput{}, nil
}

// normalRevision fills in the type of a valid revision.
func normalRevision(r *api.RevisionLocation) *api.RevisionLocation {
	c := *r
	if c.S3Location != nil {
		c.RevisionType, c.GitHubLocation = new(api.RevisionLocationTypeS3), nil
	} else {
		c.RevisionType = new(api.RevisionLocationTypeGitHub)
	}
	return &c
}

func (s *Service) revision(r store.Reader, id caller.Identity, app *string, loc *api.RevisionLocation) (*Revision, *api.GenericRevisionInfo, error) {
	if _, err := application(r, id, app); err != nil {
		return nil, nil, err
	}
	if err := validRevision(loc); err != nil {
		return nil, nil, err
	}
	row, err := revisions.Get(r, id.Account, id.Region, revisionRowID(*app, loc))
	if err != nil {
		return nil, nil, orElse(err, awserr.New(api.ErrCodeRevisionDoesNotExistException, "The revision is not registered with application %s.", *app))
	}
	rev := &row.Doc
	info := &api.GenericRevisionInfo{
		Description: ptr.NonZero(rev.Description), RegisterTime: optTime(rev.RegisteredAt), FirstUsedTime: optTime(rev.FirstUsedAt),
		LastUsedTime: optTime(rev.LastUsedAt), DeploymentGroups: []string{},
	}
	gs, err := groups.List(r, store.Query{Account: id.Account, Region: id.Region, Parent: *app})
	for _, g := range gs {
		if g.Doc.Succeeded != nil && revisionKey(g.Doc.Succeeded.Revision) == revisionKey(loc) {
			info.DeploymentGroups = append(info.DeploymentGroups, g.Doc.Name)
		}
	}
	return rev, info, err
}

func (s *Service) getApplicationRevision(ctx context.Context, in *api.GetApplicationRevisionInput) (*api.GetApplicationRevisionOutput, error) {
	out := &api.GetApplicationRevisionOutput{ApplicationName: in.ApplicationName}
	err := s.store.View(ctx, func(r store.Reader) error {
		rev, info, err := s.revision(r, caller.From(ctx), in.ApplicationName, in.Revision)
		if err == nil {
			out.Revision, out.RevisionInfo = &rev.Location, info
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) batchGetApplicationRevisions(ctx context.Context, in *api.BatchGetApplicationRevisionsInput) (*api.BatchGetApplicationRevisionsOutput, error) {
	if len(in.Revisions) == 0 {
		return nil, awserr.New(api.ErrCodeRevisionRequiredException, "revisions must name at least one revision.")
	}
	if err := checkBatch(len(in.Revisions), "revisions"); err != nil {
		return nil, err
	}
	out := &api.BatchGetApplicationRevisionsOutput{ApplicationName: in.ApplicationName}
	err := s.store.View(ctx, func(r store.Reader) error {
		for i := range in.Revisions {
			rev, info, err := s.revision(r, caller.From(ctx), in.ApplicationName, &in.Revisions[i])
			if awserr.Is(err, api.ErrCodeRevisionDoesNotExistException) {
				out.ErrorMessage = new(awserr.As(err).Message)
				continue
			}
			if err != nil {
				return err
			}
			out.Revisions = append(out.Revisions, api.RevisionInfo{RevisionLocation: &rev.Location, GenericRevisionInfo: info})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) listApplicationRevisions(ctx context.Context, in *api.ListApplicationRevisionsInput) (*api.ListApplicationRevisionsOutput, error) {
	if in.S3KeyPrefix != nil && in.S3Bucket == nil {
		return nil, awserr.New(api.ErrCodeBucketNameFilterRequiredException, "s3KeyPrefix needs s3Bucket.")
	}
	key, err := sortKey(in.SortBy)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	var rows []*store.Row[Revision]
	deployed := map[string]bool{}
	err = s.store.View(ctx, func(r store.Reader) error {
		if _, err := application(r, id, in.ApplicationName); err != nil {
			return err
		}
		q := store.Query{Account: id.Account, Region: id.Region, Parent: *in.ApplicationName}
		gs, err := groups.List(r, q)
		if err != nil {
			return err
		}
		for _, g := range gs {
			if g.Doc.Succeeded != nil {
				deployed[revisionKey(g.Doc.Succeeded.Revision)] = true
			}
		}
		rows, err = revisions.List(r, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r *store.Row[Revision]) bool { return !revisionWanted(in, &r.Doc, deployed) })
	slices.SortStableFunc(rows, func(a, b *store.Row[Revision]) int {
		if in.SortOrder != nil && *in.SortOrder == api.SortOrderDescending {
			a, b = b, a
		}
		return key(&a.Doc).Compare(key(&b.Doc))
	})
	ids := make([]string, len(rows))
	byID := map[string]api.RevisionLocation{}
	for i, row := range rows {
		ids[i], byID[row.ID] = row.ID, row.Doc.Location
	}
	ids, next, err := page(ids, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &api.ListApplicationRevisionsOutput{NextToken: next, Revisions: []api.RevisionLocation{}}
	for _, i := range ids {
		out.Revisions = append(out.Revisions, byID[i])
	}
	return out, nil
}

func sortKey(by *string) (func(*Revision) time.Time, error) {
	switch ptr.Value(by) {
	case "", api.ApplicationRevisionSortByRegisterTime:
		return func(r *Revision) time.Time { return r.RegisteredAt }, nil
	case api.ApplicationRevisionSortByFirstUsedTime:
		return func(r *Revision) time.Time { return r.FirstUsedAt }, nil
	case api.ApplicationRevisionSortByLastUsedTime:
		return func(r *Revision) time.Time { return r.LastUsedAt }, nil
	}
	return nil, awserr.New(api.ErrCodeInvalidSortByException, "sortBy must be registerTime, firstUsedTime or lastUsedTime, not %.40q.", *by)
}

func revisionWanted(in *api.ListApplicationRevisionsInput, r *Revision, deployed map[string]bool) bool {
	is := deployed[revisionKey(&r.Location)]
	switch ptr.Value(in.Deployed) {
	case api.ListStateFilterActionInclude:
		if !is {
			return false
		}
	case api.ListStateFilterActionExclude:
		if is {
			return false
		}
	}
	if in.S3Bucket == nil {
		return true
	}
	l := r.Location.S3Location
	return l != nil && ptr.Value(l.Bucket) == *in.S3Bucket && strings.HasPrefix(ptr.Value(l.Key), ptr.Value(in.S3KeyPrefix))
}

// listGitHubAccountTokenNames: there are no stored tokens, public
// repositories need none.
func (s *Service) listGitHubAccountTokenNames(context.Context, *api.ListGitHubAccountTokenNamesInput) (*api.ListGitHubAccountTokenNamesOutput, error) {
	return &api.ListGitHubAccountTokenNamesOutput{TokenNameList: []string{}}, nil
}
