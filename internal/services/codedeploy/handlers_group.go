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

func (s *Service) registerGroups(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreateDeploymentGroup, s.createDeploymentGroup)
	dispatch.Register(m, api.OpUpdateDeploymentGroup, s.updateDeploymentGroup)
	dispatch.Register(m, api.OpGetDeploymentGroup, s.getDeploymentGroup)
	dispatch.Register(m, api.OpBatchGetDeploymentGroups, s.batchGetDeploymentGroups)
	dispatch.Register(m, api.OpListDeploymentGroups, s.listDeploymentGroups)
	dispatch.Register(m, api.OpDeleteDeploymentGroup, s.deleteDeploymentGroup)
	dispatch.Register(m, api.OpTagResource, s.tagResource)
	dispatch.Register(m, api.OpUntagResource, s.untagResource)
	dispatch.Register(m, api.OpListTagsForResource, s.listTagsForResource)
}

func newScaling(group, name string, termination bool) ScalingGroup {
	a := ScalingGroup{Name: name, HookID: newUUID()}
	a.Hook = hookName(hookPrefix, group, a.HookID)
	if termination {
		a.TerminationID = newUUID()
		a.TerminationHook = hookName(terminationHookPrefix, group, a.TerminationID)
	}
	return a
}

func (s *Service) createDeploymentGroup(ctx context.Context, in *api.CreateDeploymentGroupInput) (*api.CreateDeploymentGroupOutput, error) {
	if err := validApplicationName(in.ApplicationName); err != nil {
		return nil, err
	}
	if err := validGroupName(in.DeploymentGroupName); err != nil {
		return nil, err
	}
	if len(in.EcsServices) > 0 {
		return nil, awserr.New(api.ErrCodeInvalidECSServiceException, "ecsServices is for the ECS compute platform.")
	}
	if in.BlueGreenDeploymentConfiguration != nil {
		return nil, notBuilt("Slipway does not do blue/green deployments yet: leave blueGreenDeploymentConfiguration out.")
	}
	set := Settings{
		ConfigName: ptr.Value(in.DeploymentConfigName), EC2TagFilters: in.Ec2TagFilters, OnPremisesFilters: in.OnPremisesInstanceTagFilters,
		ServiceRoleARN: ptr.Value(in.ServiceRoleArn), Triggers: in.TriggerConfigurations, Alarms: in.AlarmConfiguration,
		AutoRollback: in.AutoRollbackConfiguration, Style: in.DeploymentStyle, LoadBalancer: in.LoadBalancerInfo,
		OutdatedStrategy: ptr.Value(in.OutdatedInstancesStrategy), TerminationHook: ptr.Value(in.TerminationHookEnabled),
	}
	if in.Ec2TagSet != nil {
		set.EC2TagSet = in.Ec2TagSet.Ec2TagSetList
	}
	if in.OnPremisesTagSet != nil {
		set.OnPremisesTagSet = in.OnPremisesTagSet.OnPremisesTagSetList
	}
	if set.ConfigName == "" {
		set.ConfigName = defaultConfig
	}
	if err := set.check(); err != nil {
		return nil, err
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	own := s.as(ctx, id.Account, id.Region)
	if err := s.checkScaling(own, in.AutoScalingGroups); err != nil {
		return nil, err
	}
	g := Group{ID: newUUID(), Application: *in.ApplicationName, Name: *in.DeploymentGroupName, CreatedAt: s.clock.Now(), Settings: set, Tags: tags}
	for _, name := range unique(in.AutoScalingGroups) {
		g.Scaling = append(g.Scaling, newScaling(g.Name, name, set.TerminationHook))
	}
	row, err := s.insertGroup(ctx, id, g)
	if err != nil {
		return nil, err
	}
	if err := s.ensureHooks(own, row); err != nil {
		s.undoGroup(own, row)
		return nil, hookError(err)
	}
	return &api.CreateDeploymentGroupOutput{DeploymentGroupId: &g.ID}, nil
}

func (s *Service) insertGroup(ctx context.Context, id caller.Identity, g Group) (row *groupRow, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		if _, err := application(tx, id, &g.Application); err != nil {
			return err
		}
		if _, err := config(tx, id, g.Settings.ConfigName); err != nil {
			return err
		}
		n, err := groups.Count(tx, store.Query{Account: id.Account, Region: id.Region, Parent: g.Application})
		if err != nil {
			return err
		}
		if n >= maxGroups {
			return awserr.New(api.ErrCodeDeploymentGroupLimitExceededException, "An application has at most %d deployment groups.", maxGroups)
		}
		row, err = groups.Insert(tx, id.Account, id.Region, groupRowID(g.Application, g.Name), g, "Created", nil)
		if errors.Is(err, store.ErrExists) {
			return awserr.New(api.ErrCodeDeploymentGroupAlreadyExistsException, "A deployment group named %s already exists in application %s.", g.Name, g.Application)
		}
		return err
	})
	return row, err
}

// undoGroup takes a group back that could not be finished. It has a context
// of its own, so that a caller who hangs up leaves nothing half-made.
func (s *Service) undoGroup(ctx context.Context, row *groupRow) {
	ctx = context.WithoutCancel(ctx)
	s.removeHooks(ctx, row.Doc.Scaling)
	err := s.store.Update(ctx, func(tx store.Tx) error {
		fresh, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		return groups.Delete(tx, fresh, "Deleted", nil)
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.log.Error("a deployment group that could not be finished stays", "group", row.ID, "error", err)
	}
}

// hookError is what the API answers when a lifecycle hook cannot be put.
func hookError(err error) error {
	e := awserr.As(err)
	switch {
	case e == nil:
		return err
	case e.Code == "LimitExceeded":
		return awserr.New(api.ErrCodeLifecycleHookLimitExceededException, "%s", e.Message)
	}
	return awserr.New(api.ErrCodeInvalidAutoScalingGroupException, "The lifecycle hook could not be put on the Auto Scaling group: %s", e.Message)
}

func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (s *Service) updateDeploymentGroup(ctx context.Context, in *api.UpdateDeploymentGroupInput) (*api.UpdateDeploymentGroupOutput, error) {
	if in.BlueGreenDeploymentConfiguration != nil {
		return nil, notBuilt("Slipway does not do blue/green deployments yet: leave blueGreenDeploymentConfiguration out.")
	}
	if in.NewDeploymentGroupName != nil {
		if err := validGroupName(in.NewDeploymentGroupName); err != nil {
			return nil, err
		}
	}
	id := caller.From(ctx)
	own := s.as(ctx, id.Account, id.Region)
	if err := s.checkScaling(own, in.AutoScalingGroups); err != nil {
		return nil, err
	}
	var row *groupRow
	var gone []ScalingGroup
	err := s.store.Update(ctx, func(tx store.Tx) (err error) {
		if row, err = group(tx, id, in.ApplicationName, in.CurrentDeploymentGroupName); err != nil {
			return err
		}
		g := &row.Doc
		g.Settings.merge(in)
		if err := g.Settings.check(); err != nil {
			return err
		}
		if _, err := config(tx, id, g.Settings.ConfigName); err != nil {
			return err
		}
		gone = g.rescale(in.AutoScalingGroups)
		if name := in.NewDeploymentGroupName; name != nil && *name != g.Name {
			row, err = renameGroup(tx, id, row, *name)
			return err
		}
		return groups.Save(tx, row, "Updated", nil)
	})
	if err != nil {
		return nil, err
	}
	left := s.removeHooks(own, gone)
	if err := s.ensureHooks(own, row); err != nil {
		return nil, hookError(err) // the controller goes on trying
	}
	return &api.UpdateDeploymentGroupOutput{HooksNotCleanedUp: left}, nil
}

func renameGroup(tx store.Tx, id caller.Identity, row *groupRow, name string) (*groupRow, error) {
	app := row.Doc.Application
	if _, err := groups.Get(tx, id.Account, id.Region, groupRowID(app, name)); err == nil {
		return nil, awserr.New(api.ErrCodeDeploymentGroupAlreadyExistsException, "A deployment group named %s already exists in application %s.", name, app)
	}
	if err := renameDeployments(tx, id, row.ID, func(d *Deployment) { d.Group = name }); err != nil {
		return nil, err
	}
	if err := groups.Delete(tx, row, "Renamed", nil); err != nil {
		return nil, err
	}
	row.Doc.Name = name
	return groups.Insert(tx, id.Account, id.Region, groupRowID(app, name), row.Doc, "Renamed", nil)
}

// group reads a deployment group, or answers what is missing.
func group(r store.Reader, id caller.Identity, app, name *string) (*groupRow, error) {
	if _, err := application(r, id, app); err != nil {
		return nil, err
	}
	if err := validGroupName(name); err != nil {
		return nil, err
	}
	row, err := groups.Get(r, id.Account, id.Region, groupRowID(*app, *name))
	return row, orElse(err, noGroup(*name))
}

func renderPast(p *Past) *api.LastDeploymentInfo {
	if p == nil {
		return nil
	}
	return &api.LastDeploymentInfo{DeploymentId: new(p.ID), Status: new(p.Status), CreateTime: optTime(p.CreatedAt), EndTime: optTime(p.EndedAt)}
}

// renderGroup is a group in AWS's shape; attempted is the current state of
// its last deployment.
func renderGroup(r store.Reader, row *groupRow) (api.DeploymentGroupInfo, error) {
	g := &row.Doc
	set := &g.Settings
	info := api.DeploymentGroupInfo{
		ApplicationName: new(g.Application), DeploymentGroupId: new(g.ID), DeploymentGroupName: new(g.Name),
		DeploymentConfigName: new(set.ConfigName), Ec2TagFilters: set.EC2TagFilters, OnPremisesInstanceTagFilters: set.OnPremisesFilters,
		ServiceRoleArn: ptr.NonZero(set.ServiceRoleARN), TriggerConfigurations: set.Triggers, AlarmConfiguration: set.Alarms,
		AutoRollbackConfiguration: set.AutoRollback, DeploymentStyle: set.Style, OutdatedInstancesStrategy: ptr.NonZero(set.OutdatedStrategy),
		LoadBalancerInfo: set.LoadBalancer, ComputePlatform: new(api.ComputePlatformServer), TerminationHookEnabled: new(set.TerminationHook),
		LastSuccessfulDeployment: renderPast(g.Succeeded), LastAttemptedDeployment: renderPast(g.Attempted),
	}
	if set.OutdatedStrategy == "" {
		info.OutdatedInstancesStrategy = new(api.OutdatedInstancesStrategyUpdate)
	}
	if len(set.EC2TagSet) > 0 {
		info.Ec2TagSet = &api.EC2TagSet{Ec2TagSetList: set.EC2TagSet}
	}
	if len(set.OnPremisesTagSet) > 0 {
		info.OnPremisesTagSet = &api.OnPremisesTagSet{OnPremisesTagSetList: set.OnPremisesTagSet}
	}
	for _, a := range g.Scaling {
		info.AutoScalingGroups = append(info.AutoScalingGroups, api.AutoScalingGroup{Name: new(a.Name), Hook: new(a.Hook), TerminationHook: ptr.NonZero(a.TerminationHook)})
	}
	if g.Succeeded != nil {
		info.TargetRevision = g.Succeeded.Revision
	}
	if g.Attempted != nil {
		d, err := deployments.Get(r, row.Account, row.Region, g.Attempted.ID)
		if err == nil {
			past := d.Doc.past()
			info.LastAttemptedDeployment = renderPast(&past)
		} else if !errors.Is(err, store.ErrNotFound) {
			return info, err
		}
	}
	return info, nil
}

func (s *Service) getDeploymentGroup(ctx context.Context, in *api.GetDeploymentGroupInput) (*api.GetDeploymentGroupOutput, error) {
	info, err := find(ctx, s.store, func(r store.Reader) (api.DeploymentGroupInfo, error) {
		row, err := group(r, caller.From(ctx), in.ApplicationName, in.DeploymentGroupName)
		if err != nil {
			return api.DeploymentGroupInfo{}, err
		}
		return renderGroup(r, row)
	})
	if err != nil {
		return nil, err
	}
	return &api.GetDeploymentGroupOutput{DeploymentGroupInfo: &info}, nil
}

func (s *Service) batchGetDeploymentGroups(ctx context.Context, in *api.BatchGetDeploymentGroupsInput) (*api.BatchGetDeploymentGroupsOutput, error) {
	if err := checkBatch(len(in.DeploymentGroupNames), "deploymentGroupNames"); err != nil {
		return nil, err
	}
	out := &api.BatchGetDeploymentGroupsOutput{}
	err := s.store.View(ctx, func(r store.Reader) error {
		if _, err := application(r, caller.From(ctx), in.ApplicationName); err != nil {
			return err
		}
		for _, name := range in.DeploymentGroupNames {
			row, err := group(r, caller.From(ctx), in.ApplicationName, &name)
			if awserr.Is(err, api.ErrCodeDeploymentGroupDoesNotExistException) {
				out.ErrorMessage = new(awserr.As(err).Message)
				continue
			}
			if err != nil {
				return err
			}
			info, err := renderGroup(r, row)
			if err != nil {
				return err
			}
			out.DeploymentGroupsInfo = append(out.DeploymentGroupsInfo, info)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) listDeploymentGroups(ctx context.Context, in *api.ListDeploymentGroupsInput) (*api.ListDeploymentGroupsOutput, error) {
	id := caller.From(ctx)
	var names []string
	err := s.store.View(ctx, func(r store.Reader) error {
		if _, err := application(r, id, in.ApplicationName); err != nil {
			return err
		}
		rows, err := groups.List(r, store.Query{Account: id.Account, Region: id.Region, Parent: *in.ApplicationName})
		for _, row := range rows {
			names = append(names, row.Doc.Name)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	names, next, err := page(names, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListDeploymentGroupsOutput{ApplicationName: in.ApplicationName, DeploymentGroups: names, NextToken: next}, nil
}

// dropGroup removes a group's row and what is kept for it, and stops what
// runs in it. Its deployments stay as history.
func (s *Service) dropGroup(tx store.Tx, row *groupRow) error {
	known, err := hosts.List(tx, store.Query{Account: row.Account, Region: row.Region, Parent: row.Doc.ID})
	if err != nil {
		return err
	}
	for _, h := range known {
		if err := hosts.Delete(tx, h, "Deleted", nil); err != nil {
			return err
		}
	}
	ds, err := deployments.List(tx, store.Query{Account: row.Account, Region: row.Region, Parent: row.ID})
	if err != nil {
		return err
	}
	for _, d := range ds {
		if d.Doc.Terminal() || d.Doc.Stop != nil {
			continue
		}
		d.Doc.Stop = &Stop{At: s.clock.Now(), Cause: ErrorInfo{api.ErrorCodeDeploymentGroupMissing, "The deployment group " + row.Doc.Name + " was deleted, so the deployment was stopped."}}
		if err := deployments.Save(tx, d, "StopRequested", nil); err != nil {
			return err
		}
	}
	return groups.Delete(tx, row, "Deleted", nil)
}

func (s *Service) deleteDeploymentGroup(ctx context.Context, in *api.DeleteDeploymentGroupInput) (*api.DeleteDeploymentGroupOutput, error) {
	id := caller.From(ctx)
	var scaling []ScalingGroup
	err := s.store.Update(ctx, func(tx store.Tx) error {
		scaling = nil
		row, err := group(tx, id, in.ApplicationName, in.DeploymentGroupName)
		if awserr.Is(err, api.ErrCodeDeploymentGroupDoesNotExistException) || awserr.Is(err, api.ErrCodeApplicationDoesNotExistException) {
			return nil // as with AWS: it is gone, which is what was asked for
		}
		if err != nil {
			return err
		}
		scaling = row.Doc.Scaling
		return s.dropGroup(tx, row)
	})
	if err != nil {
		return nil, err
	}
	return &api.DeleteDeploymentGroupOutput{HooksNotCleanedUp: s.removeHooks(s.as(ctx, id.Account, id.Region), scaling)}, nil
}
