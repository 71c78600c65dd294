package codepipeline

import (
	"encoding/json"
	"strings"
	"testing"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/statechange"
	"slipway/internal/store"
)

// told lists the changes of all executions, "Kind[ stage[/action]] STATE".
func (w *world) told() []string {
	w.t.Helper()
	var out []string
	err := w.store.View(w.t.Context(), func(r store.Reader) error {
		evs, err := r.Events(0, 1000, executions.Kind)
		for _, ev := range evs {
			all, err := statechange.Of(ev)
			if err != nil {
				return err
			}
			for _, c := range all {
				var d struct{ Stage, Action, State string }
				if err := json.Unmarshal(c.Detail, &d); err != nil {
					return err
				}
				if c.Resource != "arn:aws:codepipeline:"+testRegion+":"+testAccount+":todo" || c.Source != "aws.codepipeline" {
					w.t.Errorf("%+v", c)
				}
				line := strings.Fields(c.DetailType)[1]
				if d.Stage != "" {
					line += " " + d.Stage
				}
				if d.Action != "" {
					line += "/" + d.Action
				}
				if len(c.More) > 0 && d.State == "FAILED" {
					line += " " + string(c.More)
				}
				out = append(out, line+" "+d.State)
			}
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
	return out
}

func (w *world) tells(want ...string) {
	w.t.Helper()
	if got := w.told(); strings.Join(got, "\n") != strings.Join(want, "\n") {
		w.t.Errorf("told:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Each change is told once, in the order in which AWS's come.
func TestChangesAreTold(t *testing.T) {
	w := newWorld(t).start()
	w.auto = false
	w.create(declaration())
	w.building("todo:1")
	w.end("Failed", "exit status 1")
	w.until("executions", w.statuses, "Failed")
	const why = "Build terminated with state: FAILED. Phase: BUILD, Code: COMMAND_EXECUTION_ERROR, Message: exit status 1"
	source := `{"sourceActions":[{"sourceActionName":"Source","sourceActionProvider":"CodeCommit","sourceActionVariables":{"BranchName":"main","CommitId":"c1","RepositoryName":"todo"}}]}`
	failed := []string{"Pipeline STARTED", "Stage Source STARTED", "Action Source/Source STARTED", "Action Source/Source SUCCEEDED", "Stage Source SUCCEEDED",
		"Stage Build STARTED", "Action Build/Build STARTED", `Action Build/Build {"additionalInformation":"` + why + `"} FAILED`,
		"Stage Build " + source + " FAILED",
		`Pipeline {"failedActionCount":1,"failedActions":[{"action":"Build","additionalInformation":"` + why + `"}],"failedStage":"Build"} FAILED`}
	w.tells(failed...)
	w.auto = true
	call(t, w.svc.retryStageExecution, &api.RetryStageExecutionInput{PipelineName: new("todo"), StageName: new("Build"), PipelineExecutionId: w.list()[0].PipelineExecutionId, RetryMode: new("FAILED_ACTIONS")})
	w.until("executions", w.statuses, "Succeeded")
	w.tells(append(failed, "Pipeline RESUMED", "Stage Build RESUMED", "Action Build/Build STARTED", "Action Build/Build SUCCEEDED", "Stage Build SUCCEEDED",
		"Stage Deploy STARTED", "Action Deploy/Deploy STARTED", "Action Deploy/Deploy SUCCEEDED", "Stage Deploy SUCCEEDED", "Pipeline SUCCEEDED")...)
}

func TestStopsAreTold(t *testing.T) {
	w := newWorld(t).start()
	w.auto = false
	w.create(declaration())
	w.building("todo:1")
	began := w.told()
	call(t, w.svc.stopPipelineExecution, &api.StopPipelineExecutionInput{PipelineName: new("todo"), PipelineExecutionId: w.list()[0].PipelineExecutionId, Abandon: new(true), Reason: new("enough")})
	w.until("executions", w.statuses, "Stopped")
	w.tells(append(began, "Stage Build STOPPING", "Pipeline STOPPING", "Action Build/Build ABANDONED", "Stage Build STOPPED", "Pipeline STOPPED")...)
}
