package codedeploy

import (
	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// overview counts targets by status.
func overview(rows []*targetRow) *api.DeploymentOverview {
	var n [6]int64
	for _, row := range rows {
		switch row.Doc.Status {
		case api.TargetStatusPending:
			n[0]++
		case api.TargetStatusInProgress:
			n[1]++
		case api.TargetStatusSucceeded:
			n[2]++
		case api.TargetStatusFailed:
			n[3]++
		case api.TargetStatusSkipped:
			n[4]++
		case api.TargetStatusReady:
			n[5]++
		}
	}
	return &api.DeploymentOverview{Pending: &n[0], InProgress: &n[1], Succeeded: &n[2], Failed: &n[3], Skipped: &n[4], Ready: &n[5]}
}

func renderError(e *ErrorInfo) *api.ErrorInformation {
	if e == nil {
		return nil
	}
	return &api.ErrorInformation{Code: new(e.Code), Message: new(e.Message)}
}

// renderDeployment is a deployment in AWS's shape.
func renderDeployment(r store.Reader, row *deploymentRow) (*api.DeploymentInfo, error) {
	d := &row.Doc
	info := &api.DeploymentInfo{
		ApplicationName: new(d.Application), DeploymentGroupName: new(d.Group), DeploymentConfigName: new(d.ConfigName),
		DeploymentId: new(d.ID), PreviousRevision: d.PreviousRevision, Revision: d.Revision, Status: new(d.Status),
		ErrorInformation: renderError(d.Error), CreateTime: optTime(d.CreatedAt), StartTime: optTime(d.StartedAt),
		CompleteTime: optTime(d.CompletedAt), Description: ptr.NonZero(d.Description), Creator: new(d.Creator),
		IgnoreApplicationStopFailures: new(d.IgnoreStopFailures), AutoRollbackConfiguration: d.AutoRollback,
		UpdateOutdatedInstancesOnly: new(d.OutdatedOnly), DeploymentStyle: d.Style, InstanceTerminationWaitTimeStarted: new(false),
		LoadBalancerInfo: d.LoadBalancer, FileExistsBehavior: new(d.FileExists), ComputePlatform: new(api.ComputePlatformServer),
		OverrideAlarmConfiguration: d.OverrideAlarms,
	}
	if d.FileExists == "" {
		info.FileExistsBehavior = new(api.FileExistsBehaviorDisallow)
	}
	if d.RollbackOf != "" || d.RollbackID != "" || d.RollbackMessage != "" {
		info.RollbackInfo = &api.RollbackInfo{
			RollbackDeploymentId: ptr.NonZero(d.RollbackID), RollbackTriggeringDeploymentId: ptr.NonZero(d.RollbackOf), RollbackMessage: ptr.NonZero(d.RollbackMessage),
		}
	}
	if d.Root != "" || len(d.FollowOns) > 0 {
		info.RelatedDeployments = &api.RelatedDeployments{
			AutoUpdateOutdatedInstancesRootDeploymentId: ptr.NonZero(d.Root), AutoUpdateOutdatedInstancesDeploymentIds: d.FollowOns,
		}
	}
	if d.Halted != nil && !d.Terminal() {
		info.DeploymentStatusMessages = []string{d.Halted.Message + " The targets under way are waited for."}
	}
	if d.Stop != nil && !d.Terminal() {
		info.DeploymentStatusMessages = append(info.DeploymentStatusMessages, d.Stop.Cause.Message+" The lifecycle events under way are waited for.")
	}
	rows, err := targetsOf(r, row.Account, row.Region, row.ID)
	if err != nil {
		return nil, err
	}
	if !d.StartedAt.IsZero() || d.Terminal() {
		info.DeploymentOverview = overview(rows)
	}
	return info, nil
}

func renderEvents(t *Target) []api.LifecycleEvent {
	events := make([]api.LifecycleEvent, len(t.Events))
	for i := range t.Events {
		e := &t.Events[i]
		events[i] = api.LifecycleEvent{LifecycleEventName: new(e.Name), Status: new(e.Status)}
		if e.Status == api.LifecycleEventStatusSkipped {
			continue
		}
		started := e.AckedAt
		if started.IsZero() && (serverSide(e.Name) || !e.EndedAt.IsZero()) {
			started = e.ReadyAt
		}
		events[i].StartTime, events[i].EndTime = optTime(started), optTime(e.EndedAt)
		if d := e.Diagnostics; d != nil {
			events[i].Diagnostics = &api.Diagnostics{ErrorCode: new(d.ErrorCode), ScriptName: new(d.Script), Message: new(d.Message), LogTail: new(d.LogTail)}
		}
	}
	return events
}

func renderTarget(row *targetRow) api.DeploymentTarget {
	t := &row.Doc
	return api.DeploymentTarget{
		DeploymentTargetType: new(api.DeploymentTargetTypeInstanceTarget),
		InstanceTarget: &api.InstanceTarget{
			DeploymentId: new(t.Deployment), TargetId: new(t.Instance), TargetArn: new(targetARN(row)), Status: new(t.Status),
			LastUpdatedAt: optTime(t.UpdatedAt), LifecycleEvents: renderEvents(t),
		},
	}
}

func targetARN(row *targetRow) string { return row.Doc.HostARN }

func renderInstance(row *targetRow) api.InstanceSummary {
	t := &row.Doc
	return api.InstanceSummary{
		DeploymentId: new(t.Deployment), InstanceId: new(targetARN(row)), Status: new(t.Status),
		LastUpdatedAt: optTime(t.UpdatedAt), LifecycleEvents: renderEvents(t),
	}
}
