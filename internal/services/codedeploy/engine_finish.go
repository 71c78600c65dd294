package codedeploy

import (
	"errors"
	"fmt"
	"slices"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// finish ends a deployment: its group learns of it, and the rollback that it
// calls for is created in the same transaction.
func (s *Service) finish(tx store.Tx, row *deploymentRow, rows []*targetRow, end ending, now time.Time) error {
	d := &row.Doc
	d.Status, d.Error, d.CompletedAt = end.Status, end.Error, now
	group, err := groupByID(tx, row.Account, row.Region, d.Application, d.GroupID)
	if errors.Is(err, store.ErrNotFound) {
		group = nil
	} else if err != nil {
		return err
	}
	if group != nil && d.WholeGroup() {
		if group.Doc.Active == d.ID {
			group.Doc.Active = ""
		}
		past := d.past()
		group.Doc.Attempted = &past
		if d.Status == api.DeploymentStatusSucceeded && d.Root == "" {
			group.Doc.Succeeded = &past
		}
	}
	back := s.rollback(d, group, rows, now)
	if group != nil && d.WholeGroup() {
		if err := groups.Save(tx, group, "DeploymentEnded", nil); err != nil {
			return err
		}
	}
	if err := deployments.Save(tx, row, d.Status, stateChanged(row)); err != nil {
		return err
	}
	if back == nil {
		return nil
	}
	return s.insertDeployment(tx, row.Account, row.Region, group, back)
}

func (d *Deployment) past() Past {
	return Past{
		ID: d.ID, Status: d.Status, CreatedAt: d.CreatedAt, EndedAt: d.CompletedAt, Revision: d.Revision,
		Version: d.Version, FileExists: d.FileExists, RevisionKey: d.RevisionKey,
	}
}

// rollback makes the deployment that undoes d, or nil; d says why.
// AWS: "Redeploy and roll back a deployment".
func (s *Service) rollback(d *Deployment, group *groupRow, rows []*targetRow, now time.Time) *Deployment {
	event := ""
	switch {
	case d.Status == api.DeploymentStatusFailed:
		event = api.AutoRollbackEventDeploymentFailure
	case d.Status == api.DeploymentStatusStopped && d.Stop != nil:
		event = d.Stop.Trigger
	}
	if event == "" || d.Creator == api.DeploymentCreatorCodeDeployRollback || !d.WholeGroup() || d.Root != "" {
		return nil
	}
	c := d.AutoRollback
	wanted := c != nil && ptr.Value(c.Enabled) && slices.Contains(c.Events, event) || d.Stop != nil && d.Stop.Rollback
	if !wanted {
		return nil
	}
	began := slices.ContainsFunc(rows, func(r *targetRow) bool { return !r.Doc.StartedAt.IsZero() })
	switch {
	case group == nil:
		d.RollbackMessage = "There is no rollback: the deployment group was deleted."
		return nil
	case !began:
		d.RollbackMessage = "There is no rollback: the deployment changed no instance."
		return nil
	case group.Doc.Succeeded == nil:
		d.RollbackMessage = "There is no rollback: no earlier deployment to this group succeeded."
		return nil
	}
	last := group.Doc.Succeeded
	b := *d
	b.ID = derivedID(d.ID, "rollback")
	b.Status, b.Creator = api.DeploymentStatusCreated, api.DeploymentCreatorCodeDeployRollback
	b.Description = fmt.Sprintf("Automatic rollback of deployment %s to the revision of deployment %s", d.ID, last.ID)
	b.PreviousRevision, b.Revision, b.Version, b.RevisionKey, b.FileExists = d.Revision, last.Revision, last.Version, last.RevisionKey, last.FileExists
	b.CreatedAt, b.StartedAt, b.CompletedAt = now, time.Time{}, time.Time{}
	b.Error, b.Stop, b.Halted, b.OutdatedOnly, b.TargetGroups = nil, nil, nil, false, nil
	b.RollbackOf, b.RollbackID, b.RollbackMessage = d.ID, "", ""
	b.FollowOns, b.FollowedUp = nil, false
	d.RollbackID = b.ID
	d.RollbackMessage = fmt.Sprintf("Deployment %s rolls back to the revision of deployment %s.", b.ID, last.ID)
	return &b
}

// insertDeployment adds a created deployment and makes it its group's active
// one. A derived id that exists already is the same deployment.
func (s *Service) insertDeployment(tx store.Tx, account, region string, group *groupRow, d *Deployment) error {
	_, err := deployments.Insert(tx, account, region, d.ID, *d, api.DeploymentStatusCreated, nil)
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	if !d.WholeGroup() {
		return nil
	}
	fresh, err := groups.Get(tx, account, region, group.ID)
	if err != nil {
		return err
	}
	past := d.past()
	fresh.Doc.Active, fresh.Doc.Attempted = d.ID, &past
	return groups.Save(tx, fresh, "DeploymentCreated", nil)
}
