package codedeploy

import (
	"context"
	"errors"
	"slices"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Register adds the operations of both services, the public one and the
// host agents', to the mux.
func (s *Service) Register(m *dispatch.Mux) {
	s.registerAgentAPI(m)
	s.registerGroups(m)
	s.registerConfigs(m)
	s.registerRevisions(m)
	s.registerDeployments(m)
	s.registerTargets(m)
	s.registerOnPremises(m)
	dispatch.Register(m, api.OpCreateApplication, s.createApplication)
	dispatch.Register(m, api.OpGetApplication, s.getApplication)
	dispatch.Register(m, api.OpBatchGetApplications, s.batchGetApplications)
	dispatch.Register(m, api.OpListApplications, s.listApplications)
	dispatch.Register(m, api.OpUpdateApplication, s.updateApplication)
	dispatch.Register(m, api.OpDeleteApplication, s.deleteApplication)
}

func (s *Service) createApplication(ctx context.Context, in *api.CreateApplicationInput) (*api.CreateApplicationOutput, error) {
	if err := validApplicationName(in.ApplicationName); err != nil {
		return nil, err
	}
	switch platform := ptr.Value(in.ComputePlatform); platform {
	case "", api.ComputePlatformServer:
	case api.ComputePlatformLambda, api.ComputePlatformEcs:
		return nil, notBuilt("Slipway does not deploy to the %s compute platform: use Server.", platform)
	default:
		return nil, awserr.New(api.ErrCodeInvalidComputePlatformException, "computePlatform must be Server, Lambda or ECS, not %.40q.", platform)
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	id, name := caller.From(ctx), *in.ApplicationName
	app := Application{ID: newUUID(), Name: name, ComputePlatform: api.ComputePlatformServer, CreatedAt: s.clock.Now(), Tags: tags}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		n, err := applications.Count(tx, store.Query{Account: id.Account, Region: id.Region})
		if err != nil {
			return err
		}
		if n >= maxApplications {
			return awserr.New(api.ErrCodeApplicationLimitExceededException, "An account has at most %d applications in a region.", maxApplications)
		}
		_, err = applications.Insert(tx, id.Account, id.Region, name, app, "Created", nil)
		if errors.Is(err, store.ErrExists) {
			return awserr.New(api.ErrCodeApplicationAlreadyExistsException, "An application named %s already exists.", name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateApplicationOutput{ApplicationId: &app.ID}, nil
}

// application reads an application, or answers that it does not exist.
func application(r store.Reader, id caller.Identity, name *string) (*store.Row[Application], error) {
	if err := validApplicationName(name); err != nil {
		return nil, err
	}
	row, err := applications.Get(r, id.Account, id.Region, *name)
	return row, orElse(err, noApplication(*name))
}

func (s *Service) findApplication(ctx context.Context, name *string) (*store.Row[Application], error) {
	return find(ctx, s.store, func(r store.Reader) (*store.Row[Application], error) {
		return application(r, caller.From(ctx), name)
	})
}

func renderApplication(a *Application) api.ApplicationInfo {
	return api.ApplicationInfo{
		ApplicationId: new(a.ID), ApplicationName: new(a.Name), CreateTime: optTime(a.CreatedAt),
		LinkedToGitHub: new(false), ComputePlatform: new(a.ComputePlatform),
	}
}

func (s *Service) getApplication(ctx context.Context, in *api.GetApplicationInput) (*api.GetApplicationOutput, error) {
	row, err := s.findApplication(ctx, in.ApplicationName)
	if err != nil {
		return nil, err
	}
	return &api.GetApplicationOutput{Application: new(renderApplication(&row.Doc))}, nil
}

func (s *Service) batchGetApplications(ctx context.Context, in *api.BatchGetApplicationsInput) (*api.BatchGetApplicationsOutput, error) {
	if len(in.ApplicationNames) == 0 {
		return nil, awserr.New(api.ErrCodeApplicationNameRequiredException, "applicationNames must name at least one application.")
	}
	if err := checkBatch(len(in.ApplicationNames), "applicationNames"); err != nil {
		return nil, err
	}
	out := &api.BatchGetApplicationsOutput{}
	for _, name := range in.ApplicationNames {
		row, err := s.findApplication(ctx, &name)
		if err != nil {
			return nil, err
		}
		out.ApplicationsInfo = append(out.ApplicationsInfo, renderApplication(&row.Doc))
	}
	return out, nil
}

func (s *Service) listApplications(ctx context.Context, in *api.ListApplicationsInput) (*api.ListApplicationsOutput, error) {
	id := caller.From(ctx)
	rows, err := applications.Select(ctx, s.store, store.Query{Account: id.Account, Region: id.Region})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(rows))
	for i, row := range rows {
		names[i] = row.Doc.Name
	}
	names, next, err := page(names, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListApplicationsOutput{Applications: names, NextToken: next}, nil
}

// updateApplication renames an application and everything under it.
func (s *Service) updateApplication(ctx context.Context, in *api.UpdateApplicationInput) (*api.UpdateApplicationOutput, error) {
	id := caller.From(ctx)
	if in.NewApplicationName != nil {
		if err := validApplicationName(in.NewApplicationName); err != nil {
			return nil, err
		}
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		row, err := application(tx, id, in.ApplicationName)
		if err != nil || in.NewApplicationName == nil || *in.NewApplicationName == row.ID {
			return err
		}
		old, name := row.ID, *in.NewApplicationName
		if _, err := applications.Get(tx, id.Account, id.Region, name); err == nil {
			return awserr.New(api.ErrCodeApplicationAlreadyExistsException, "An application named %s already exists.", name)
		}
		if err := applications.Delete(tx, row, "Renamed", nil); err != nil {
			return err
		}
		row.Doc.Name = name
		if _, err := applications.Insert(tx, id.Account, id.Region, name, row.Doc, "Renamed", nil); err != nil {
			return err
		}
		return renameUnder(tx, id, old, name)
	})
	return &api.UpdateApplicationOutput{}, err
}

// renameUnder moves groups, revisions and deployments to the new name of
// their application.
func renameUnder(tx store.Tx, id caller.Identity, old, name string) error {
	q := store.Query{Account: id.Account, Region: id.Region, Parent: old}
	gs, err := groups.List(tx, q)
	if err != nil {
		return err
	}
	for _, g := range gs {
		if err := renameDeployments(tx, id, g.ID, func(d *Deployment) { d.Application = name }); err != nil {
			return err
		}
		if err := groups.Delete(tx, g, "Renamed", nil); err != nil {
			return err
		}
		g.Doc.Application = name
		if _, err := groups.Insert(tx, id.Account, id.Region, groupRowID(name, g.Doc.Name), g.Doc, "Renamed", nil); err != nil {
			return err
		}
	}
	rs, err := revisions.List(tx, q)
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := revisions.Delete(tx, r, "Renamed", nil); err != nil {
			return err
		}
		r.Doc.Application = name
		if _, err := revisions.Insert(tx, id.Account, id.Region, revisionRowID(name, &r.Doc.Location), r.Doc, "Renamed", nil); err != nil {
			return err
		}
	}
	return nil
}

func renameDeployments(tx store.Tx, id caller.Identity, parent string, change func(*Deployment)) error {
	ds, err := deployments.List(tx, store.Query{Account: id.Account, Region: id.Region, Parent: parent})
	if err != nil {
		return err
	}
	for _, d := range ds {
		change(&d.Doc)
		if err := deployments.Save(tx, d, "Renamed", nil); err != nil {
			return err
		}
	}
	return nil
}

// deleteApplication removes an application with its groups, revisions and
// deployments. One that does not exist is no error, as with AWS.
func (s *Service) deleteApplication(ctx context.Context, in *api.DeleteApplicationInput) (*api.DeleteApplicationOutput, error) {
	if err := validApplicationName(in.ApplicationName); err != nil {
		return nil, err
	}
	id, name := caller.From(ctx), *in.ApplicationName
	var hooks []ScalingGroup
	err := s.store.Update(ctx, func(tx store.Tx) error {
		hooks = nil
		row, err := applications.Get(tx, id.Account, id.Region, name)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		q := store.Query{Account: id.Account, Region: id.Region, Parent: name}
		gs, err := groups.List(tx, q)
		if err != nil {
			return err
		}
		for _, g := range gs {
			hooks = append(hooks, g.Doc.Scaling...)
			if err := s.dropGroup(tx, g); err != nil {
				return err
			}
		}
		rs, err := revisions.List(tx, q)
		if err != nil {
			return err
		}
		for _, r := range rs {
			if err := revisions.Delete(tx, r, "Deleted", nil); err != nil {
				return err
			}
		}
		return applications.Delete(tx, row, "Deleted", nil)
	})
	if err != nil {
		return nil, err
	}
	s.removeHooks(s.as(ctx, id.Account, id.Region), slices.Clone(hooks))
	return &api.DeleteApplicationOutput{}, nil
}
