package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"slipway/internal/api/codebuild"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
	"slipway/internal/api/logs"
	"slipway/internal/aws/ptr"
)

// view is what is going on in one pipeline, gathered through the API.
type view struct {
	Pipeline  string
	Execution string
	Status    string // of the newest execution
	Stages    []stageView
}

type stageView struct {
	Name, Execution, Status, Summary, Error string
	Revision                                string // the commit, shortened
	Build                                   *buildView
	Deploy                                  *deployView
}

type buildView struct {
	ID, Status, Phase, LastLine string
	Done, Total                 int
	Phases                      []string // "BUILD SUCCEEDED 1.2s"
}

type deployView struct {
	ID, Status, Message string
	Rollback            string // the deployment that rolls this one back
	Targets             []targetView
}

type targetView struct {
	Instance, Status, Event, Error string
	Done, Total                    int
	Events                         []string // "ApplicationStart Succeeded 0.3s"
}

// buildPhases is how many phases a build goes through.
const buildPhases = 11

func observe(ctx context.Context, s *session, name string) (*view, error) {
	st, err := call(ctx, s, codepipeline.OpGetPipelineState, &codepipeline.GetPipelineStateInput{Name: &name})
	if err != nil {
		return nil, err
	}
	v := &view{Pipeline: name}
	list, err := call(ctx, s, codepipeline.OpListPipelineExecutions, &codepipeline.ListPipelineExecutionsInput{PipelineName: &name, MaxResults: new(int64(1))})
	if err != nil {
		return nil, err
	}
	if len(list.PipelineExecutionSummaries) > 0 {
		newest := list.PipelineExecutionSummaries[0]
		v.Execution, v.Status = ptr.Value(newest.PipelineExecutionId), ptr.Value(newest.Status)
	}
	for _, stage := range st.StageStates {
		sv := stageView{Name: ptr.Value(stage.StageName)}
		if stage.LatestExecution != nil {
			sv.Execution, sv.Status = ptr.Value(stage.LatestExecution.PipelineExecutionId), ptr.Value(stage.LatestExecution.Status)
		}
		for _, a := range stage.ActionStates {
			if a.LatestExecution == nil || sv.Execution != v.Execution {
				continue
			}
			e := a.LatestExecution
			sv.Summary = ptr.Value(e.Summary)
			if r := a.CurrentRevision; r != nil {
				sv.Revision = ptr.Value(r.RevisionId)
				sv.Revision = sv.Revision[:min(8, len(sv.Revision))]
			}
			if e.ErrorDetails != nil {
				sv.Error = ptr.Value(e.ErrorDetails.Message)
			}
			ext := ptr.Value(e.ExternalExecutionId)
			switch {
			case strings.HasPrefix(ext, "d-"):
				sv.Deploy, err = observeDeploy(ctx, s, ext)
			case strings.Contains(ext, ":"):
				sv.Build, err = observeBuild(ctx, s, ext)
			}
			if err != nil {
				return nil, err
			}
		}
		if sv.Execution != v.Execution {
			sv.Status, sv.Summary = "", ""
		}
		v.Stages = append(v.Stages, sv)
	}
	return v, nil
}

func observeBuild(ctx context.Context, s *session, id string) (*buildView, error) {
	out, err := call(ctx, s, codebuild.OpBatchGetBuilds, &codebuild.BatchGetBuildsInput{Ids: []string{id}})
	if err != nil || len(out.Builds) == 0 {
		return nil, err
	}
	b := out.Builds[0]
	v := &buildView{ID: id, Status: ptr.Value(b.BuildStatus), Phase: ptr.Value(b.CurrentPhase), Total: buildPhases}
	for _, p := range b.Phases {
		if p.PhaseStatus == nil || *p.PhaseStatus == "IN_PROGRESS" {
			continue
		}
		v.Done++
		took := ""
		if p.StartTime != nil && p.EndTime != nil {
			took = " " + short(p.EndTime.Sub(*p.StartTime))
		}
		v.Phases = append(v.Phases, ptr.Value(p.PhaseType)+" "+*p.PhaseStatus+took)
	}
	if b.Logs != nil && b.Logs.GroupName != nil && b.Logs.StreamName != nil && v.Status == "IN_PROGRESS" {
		ev, err := call(ctx, s, logs.OpGetLogEvents, &logs.GetLogEventsInput{LogGroupName: b.Logs.GroupName, LogStreamName: b.Logs.StreamName, Limit: new(int64(5)), StartFromHead: new(false)})
		if err == nil {
			for _, e := range ev.Events {
				if line := strings.TrimSpace(ptr.Value(e.Message)); line != "" {
					v.LastLine = line
				}
			}
		}
	}
	return v, nil
}

func observeDeploy(ctx context.Context, s *session, id string) (*deployView, error) {
	out, err := call(ctx, s, codedeploy.OpGetDeployment, &codedeploy.GetDeploymentInput{DeploymentId: &id})
	if err != nil {
		return nil, err
	}
	d := out.DeploymentInfo
	v := &deployView{ID: id, Status: ptr.Value(d.Status)}
	if d.ErrorInformation != nil {
		v.Message = ptr.Value(d.ErrorInformation.Message)
	}
	if d.RollbackInfo != nil {
		v.Rollback = ptr.Value(d.RollbackInfo.RollbackDeploymentId)
	}
	ids, err := call(ctx, s, codedeploy.OpListDeploymentTargets, &codedeploy.ListDeploymentTargetsInput{DeploymentId: &id})
	if err != nil || len(ids.TargetIds) == 0 {
		return v, err
	}
	targets, err := call(ctx, s, codedeploy.OpBatchGetDeploymentTargets, &codedeploy.BatchGetDeploymentTargetsInput{DeploymentId: &id, TargetIds: ids.TargetIds[:min(25, len(ids.TargetIds))]})
	if err != nil {
		return v, err
	}
	for _, t := range targets.DeploymentTargets {
		if t.InstanceTarget != nil {
			v.Targets = append(v.Targets, observeTarget(t.InstanceTarget))
		}
	}
	return v, nil
}

func observeTarget(t *codedeploy.InstanceTarget) targetView {
	tv := targetView{Instance: ptr.Value(t.TargetId), Status: ptr.Value(t.Status), Total: len(t.LifecycleEvents)}
	if i := strings.LastIndexByte(tv.Instance, '/'); i >= 0 {
		tv.Instance = tv.Instance[i+1:]
	}
	for _, e := range t.LifecycleEvents {
		name, status := ptr.Value(e.LifecycleEventName), ptr.Value(e.Status)
		switch status {
		case "Succeeded", "Failed", "Skipped":
			tv.Done++
			took := ""
			if e.StartTime != nil && e.EndTime != nil {
				took = " " + short(e.EndTime.Sub(*e.StartTime))
			}
			tv.Events = append(tv.Events, name+" "+status+took)
		case "InProgress":
			tv.Event = name
		}
		if status == "Failed" && e.Diagnostics != nil {
			tv.Error = fmt.Sprintf("%s: %s %s", name, ptr.Value(e.Diagnostics.ScriptName), ptr.Value(e.Diagnostics.Message))
			if tail := strings.TrimSpace(ptr.Value(e.Diagnostics.LogTail)); tail != "" {
				tv.Error += "\n" + tail
			}
		}
	}
	return tv
}

// fraction is how far the execution is, from 0 to 1. A third goes to the
// build and two thirds to the deployment, which is about what they take.
func (v *view) fraction() float64 {
	if v.Status == "Succeeded" {
		return 1
	}
	var f float64
	for _, st := range v.Stages {
		share, own := 0.05, 0.0
		switch {
		case st.Build != nil:
			share, own = 0.35, float64(st.Build.Done)/float64(st.Build.Total)
		case st.Deploy != nil:
			share = 0.6
			for _, t := range st.Deploy.Targets {
				if t.Total > 0 {
					own += float64(t.Done) / float64(t.Total) / float64(len(st.Deploy.Targets))
				}
			}
		}
		if st.Status == "Succeeded" {
			own = 1
		}
		f += share * own
	}
	return min(f, 0.99)
}

// ended tells whether the newest execution is over.
func (v *view) ended() bool {
	switch v.Status {
	case "Succeeded", "Failed", "Stopped", "Superseded", "Cancelled":
		return true
	}
	return false
}

// short writes a duration as people read it.
func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return "0s"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return d.Truncate(time.Minute).String()
}
