package codedeploy

import (
	api "slipway/internal/api/codedeploy"
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
	return &api.ErrorInformation{Code: ptr(e.Code), Message: ptr(e.Message)}
}

// renderDeployment is a deployment in AWS's shape.
func renderDeployment(r store.Reader, row *deploymentRow) (*api.DeploymentInfo, error) {
	d := &row.Doc
	info := &api.DeploymentInfo{
		ApplicationName: ptr(d.Application), DeploymentGroupName: ptr(d.Group), DeploymentConfigName: ptr(d.ConfigName),
		DeploymentId: ptr(d.ID), PreviousRevision: d.PreviousRevision, Revision: d.Revision, Status: ptr(d.Status),
		ErrorInformation: renderError(d.Error), CreateTime: optTime(d.CreatedAt), StartTime: optTime(d.StartedAt),
		CompleteTime: optTime(d.CompletedAt), Description: opt(d.Description), Creator: ptr(d.Creator),
		IgnoreApplicationStopFailures: ptr(d.IgnoreStopFailures), AutoRollbackConfiguration: d.AutoRollback,
		UpdateOutdatedInstancesOnly: ptr(d.OutdatedOnly), DeploymentStyle: d.Style, InstanceTerminationWaitTimeStarted: ptr(false),
		LoadBalancerInfo: d.LoadBalancer, FileExistsBehavior: ptr(d.FileExists), ComputePlatform: ptr(api.ComputePlatformServer),
		OverrideAlarmConfiguration: d.OverrideAlarms,
	}
	if d.FileExists == "" {
		info.FileExistsBehavior = ptr(api.FileExistsBehaviorDisallow)
	}
	if d.RollbackOf != "" || d.RollbackID != "" || d.RollbackMessage != "" {
		info.RollbackInfo = &api.RollbackInfo{
			RollbackDeploymentId: opt(d.RollbackID), RollbackTriggeringDeploymentId: opt(d.RollbackOf), RollbackMessage: opt(d.RollbackMessage),
		}
	}
	if d.Root != "" || len(d.FollowOns) > 0 {
		info.RelatedDeployments = &api.RelatedDeployments{
			AutoUpdateOutdatedInstancesRootDeploymentId: opt(d.Root), AutoUpdateOutdatedInstancesDeploymentIds: d.FollowOns,
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
		events[i] = api.LifecycleEvent{LifecycleEventName: ptr(e.Name), Status: ptr(e.Status)}
		if e.Status == api.LifecycleEventStatusSkipped {
			continue
		}
		started := e.AckedAt
		if started.IsZero() && (serverSide(e.Name) || !e.EndedAt.IsZero()) {
			started = e.ReadyAt
		}
		events[i].StartTime, events[i].EndTime = optTime(started), optTime(e.EndedAt)
		if d := e.Diagnostics; d != nil {
			events[i].Diagnostics = &api.Diagnostics{ErrorCode: ptr(d.ErrorCode), ScriptName: ptr(d.Script), Message: ptr(d.Message), LogTail: ptr(d.LogTail)}
		}
	}
	return events
}

func renderTarget(row *targetRow) api.DeploymentTarget {
	t := &row.Doc
	return api.DeploymentTarget{
		DeploymentTargetType: ptr(api.DeploymentTargetTypeInstanceTarget),
		InstanceTarget: &api.InstanceTarget{
			DeploymentId: ptr(t.Deployment), TargetId: ptr(t.Instance), TargetArn: ptr(targetARN(row)), Status: ptr(t.Status),
			LastUpdatedAt: optTime(t.UpdatedAt), LifecycleEvents: renderEvents(t),
		},
	}
}

func targetARN(row *targetRow) string { return row.Doc.HostARN }

func renderInstance(row *targetRow) api.InstanceSummary {
	t := &row.Doc
	return api.InstanceSummary{
		DeploymentId: ptr(t.Deployment), InstanceId: ptr(targetARN(row)), Status: ptr(t.Status),
		LastUpdatedAt: optTime(t.UpdatedAt), LifecycleEvents: renderEvents(t),
	}
}
