package codedeploy

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerDeployments(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreateDeployment, s.createDeployment)
	dispatch.Register(m, api.OpGetDeployment, s.getDeployment)
	dispatch.Register(m, api.OpBatchGetDeployments, s.batchGetDeployments)
	dispatch.Register(m, api.OpListDeployments, s.listDeployments)
	dispatch.Register(m, api.OpStopDeployment, s.stopDeployment)
	dispatch.Register(m, api.OpContinueDeployment, s.continueDeployment)
}

func (s *Service) createDeployment(ctx context.Context, in *api.CreateDeploymentInput) (*api.CreateDeploymentOutput, error) {
	if err := validApplicationName(in.ApplicationName); err != nil {
		return nil, err
	}
	for _, err := range []error{validDescription(in.Description), validAutoRollback(in.AutoRollbackConfiguration), validFileExists(in.FileExistsBehavior), validAlarms(in.OverrideAlarmConfiguration)} {
		if err != nil {
			return nil, err
		}
	}
	if in.TargetInstances != nil {
		return nil, awserr.New(api.ErrCodeInvalidTargetInstancesException, "targetInstances is for blue/green deployments, which Slipway does not do yet.")
	}
	id := caller.From(ctx)
	var deployment string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		row, err := group(tx, id, in.ApplicationName, in.DeploymentGroupName)
		if err != nil {
			return err
		}
		if err := validRevision(in.Revision); err != nil {
			return err
		}
		if err := free(tx, row); err != nil {
			return err
		}
		d, err := s.requested(tx, id, &row.Doc, in)
		if err != nil {
			return err
		}
		deployment = d.ID
		if err := noteRevision(tx, id, d.Application, d.Revision, "", true, d.CreatedAt); err != nil {
			return err
		}
		return s.insertDeployment(tx, id.Account, id.Region, row, &d)
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateDeploymentOutput{DeploymentId: &deployment}, nil
}

// free makes sure that no deployment to the whole group runs.
func free(tx store.Reader, row *groupRow) error {
	if row.Doc.Active == "" {
		return nil
	}
	d, err := deployments.Get(tx, row.Account, row.Region, row.Doc.Active)
	if errors.Is(err, store.ErrNotFound) || err == nil && d.Doc.Terminal() {
		return nil
	}
	if err != nil {
		return err
	}
	return awserr.New(api.ErrCodeDeploymentLimitExceededException, "The Deployment Group '%s' already has an active Deployment '%s'", row.Doc.Name, d.ID)
}

// requested is the deployment that a CreateDeployment asks for; what it does
// not say comes from the group.
func (s *Service) requested(tx store.Reader, id caller.Identity, g *Group, in *api.CreateDeploymentInput) (Deployment, error) {
	d := s.fromGroup(g)
	d.ID, d.Creator, d.Description = newDeploymentID(), api.DeploymentCreatorUser, ptr.Value(in.Description)
	if id.UserAgent == "cloudformation.amazonaws.com" {
		d.Creator = api.DeploymentCreatorCloudFormation
	}
	if in.DeploymentConfigName != nil {
		d.ConfigName = *in.DeploymentConfigName
	}
	c, err := config(tx, id, d.ConfigName)
	if err != nil {
		return d, err
	}
	d.Minimum, d.Zonal = c.Minimum, c.Zonal
	d.Revision = normalRevision(in.Revision)
	d.RevisionKey = contentKey(d.Revision, "")
	d.IgnoreStopFailures, d.OutdatedOnly = ptr.Value(in.IgnoreApplicationStopFailures), ptr.Value(in.UpdateOutdatedInstancesOnly)
	d.FileExists = ptr.Value(in.FileExistsBehavior)
	if in.AutoRollbackConfiguration != nil {
		d.AutoRollback = in.AutoRollbackConfiguration
	}
	if in.OverrideAlarmConfiguration != nil {
		d.Alarms, d.OverrideAlarms = in.OverrideAlarmConfiguration, in.OverrideAlarmConfiguration
	}
	return d, nil
}

func newDeploymentID() string { return derivedID(rand.Text()) }

// deployment reads a deployment, or answers that it does not exist.
func deployment(r store.Reader, id caller.Identity, name *string) (*deploymentRow, error) {
	if err := validDeploymentID(name); err != nil {
		return nil, err
	}
	row, err := deployments.Get(r, id.Account, id.Region, *name)
	return row, orElse(err, noDeployment(*name))
}

func (s *Service) getDeployment(ctx context.Context, in *api.GetDeploymentInput) (*api.GetDeploymentOutput, error) {
	info, err := find(ctx, s.store, func(r store.Reader) (*api.DeploymentInfo, error) {
		row, err := deployment(r, caller.From(ctx), in.DeploymentId)
		if err != nil {
			return nil, err
		}
		return renderDeployment(r, row)
	})
	if err != nil {
		return nil, err
	}
	return &api.GetDeploymentOutput{DeploymentInfo: info}, nil
}

func (s *Service) batchGetDeployments(ctx context.Context, in *api.BatchGetDeploymentsInput) (*api.BatchGetDeploymentsOutput, error) {
	if len(in.DeploymentIds) == 0 {
		return nil, awserr.New(api.ErrCodeDeploymentIdRequiredException, "deploymentIds must name at least one deployment.")
	}
	if len(in.DeploymentIds) > 25 {
		return nil, awserr.New(api.ErrCodeBatchLimitExceededException, "deploymentIds has %d entries; at most 25 are allowed.", len(in.DeploymentIds))
	}
	out := &api.BatchGetDeploymentsOutput{DeploymentsInfo: []api.DeploymentInfo{}}
	err := s.store.View(ctx, func(r store.Reader) error {
		for _, name := range in.DeploymentIds {
			row, err := deployment(r, caller.From(ctx), &name)
			if awserr.Is(err, api.ErrCodeDeploymentDoesNotExistException) {
				continue
			}
			if err != nil {
				return err
			}
			info, err := renderDeployment(r, row)
			if err != nil {
				return err
			}
			out.DeploymentsInfo = append(out.DeploymentsInfo, *info)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// listDeployments lists the newest first.
func (s *Service) listDeployments(ctx context.Context, in *api.ListDeploymentsInput) (*api.ListDeploymentsOutput, error) {
	id := caller.From(ctx)
	for _, status := range in.IncludeOnlyStatuses {
		if !slices.Contains(deploymentStatuses, status) {
			return nil, awserr.New(api.ErrCodeInvalidDeploymentStatusException, "includeOnlyStatuses has the unknown status %.40q.", status)
		}
	}
	if t := in.CreateTimeRange; t != nil && t.Start != nil && t.End != nil && t.End.Before(*t.Start) {
		return nil, awserr.New(api.ErrCodeInvalidTimeRangeException, "createTimeRange ends before it starts.")
	}
	q := store.Query{Account: id.Account, Region: id.Region}
	switch {
	case in.ApplicationName != nil && in.DeploymentGroupName == nil:
		return nil, awserr.New(api.ErrCodeDeploymentGroupNameRequiredException, "applicationName needs deploymentGroupName.")
	case in.ApplicationName == nil && in.DeploymentGroupName != nil:
		return nil, awserr.New(api.ErrCodeApplicationNameRequiredException, "deploymentGroupName needs applicationName.")
	case in.ApplicationName != nil:
		q.Parent = groupRowID(*in.ApplicationName, *in.DeploymentGroupName)
	}
	var rows []*deploymentRow
	err := s.store.View(ctx, func(r store.Reader) (err error) {
		if in.ApplicationName != nil {
			if _, err := group(r, id, in.ApplicationName, in.DeploymentGroupName); err != nil {
				return err
			}
		}
		rows, err = deployments.List(r, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(row *deploymentRow) bool {
		d, t := &row.Doc, in.CreateTimeRange
		return len(in.IncludeOnlyStatuses) > 0 && !slices.Contains(in.IncludeOnlyStatuses, d.Status) ||
			t != nil && t.Start != nil && d.CreatedAt.Before(*t.Start) || t != nil && t.End != nil && d.CreatedAt.After(*t.End)
	})
	slices.SortStableFunc(rows, func(a, b *deploymentRow) int { return b.Doc.CreatedAt.Compare(a.Doc.CreatedAt) })
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	ids, next, err := page(ids, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListDeploymentsOutput{Deployments: ids, NextToken: next}, nil
}

var deploymentStatuses = []string{
	api.DeploymentStatusCreated, api.DeploymentStatusQueued, api.DeploymentStatusInProgress, api.DeploymentStatusBaking,
	api.DeploymentStatusSucceeded, api.DeploymentStatusFailed, api.DeploymentStatusStopped, api.DeploymentStatusReady,
}

// stopDeployment: what agents are doing is waited for, nothing else begins.
func (s *Service) stopDeployment(ctx context.Context, in *api.StopDeploymentInput) (*api.StopDeploymentOutput, error) {
	id := caller.From(ctx)
	var status string
	err := s.store.Update(ctx, func(tx store.Tx) error {
		row, err := deployment(tx, id, in.DeploymentId)
		if err != nil {
			return err
		}
		d := &row.Doc
		if d.Terminal() {
			return awserr.New(api.ErrCodeDeploymentAlreadyCompletedException, "The deployment %s has already completed with status %s.", d.ID, d.Status)
		}
		status = api.StopStatusPending
		if d.Stop != nil {
			return nil
		}
		now := s.clock.Now()
		stop := &Stop{At: now, Trigger: api.AutoRollbackEventDeploymentStopOnRequest, Rollback: ptr.Value(in.AutoRollbackEnabled),
			Cause: ErrorInfo{api.ErrorCodeManualStop, "The deployment was stopped by " + who(id) + "."}}
		if d.Status != api.DeploymentStatusInProgress {
			d.Stop = stop
			status = api.StopStatusSucceeded
			return s.finish(tx, row, nil, ending{api.DeploymentStatusStopped, &stop.Cause}, now)
		}
		rows, err := targetsOf(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		c := &change{s: s, tx: tx, row: row, rows: rows, now: now}
		c.see(seen{stop: stop})
		c.decide()
		if c.ending != nil {
			status = api.StopStatusSucceeded
		}
		return c.save()
	})
	if err != nil {
		return nil, err
	}
	message := "The deployment is stopped."
	if status == api.StopStatusPending {
		message = "No further lifecycle events begin; those under way on instances are waited for."
	}
	return &api.StopDeploymentOutput{Status: &status, StatusMessage: &message}, nil
}

func who(id caller.Identity) string {
	if id.PrincipalARN == "" {
		return "a request"
	}
	return id.PrincipalARN
}

func (s *Service) continueDeployment(ctx context.Context, in *api.ContinueDeploymentInput) (*api.ContinueDeploymentOutput, error) {
	row, err := find(ctx, s.store, func(r store.Reader) (*deploymentRow, error) { return deployment(r, caller.From(ctx), in.DeploymentId) })
	if err != nil {
		return nil, err
	}
	if row.Doc.Terminal() {
		return nil, awserr.New(api.ErrCodeDeploymentAlreadyCompletedException, "The deployment %s has already completed with status %s.", row.ID, row.Doc.Status)
	}
	return nil, awserr.New(api.ErrCodeUnsupportedActionForDeploymentTypeException, "Only blue/green deployments wait to be continued; %s is in place.", row.ID)
}
