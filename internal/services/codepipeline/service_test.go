package codepipeline

import (
	"strings"
	"testing"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/awserr"
)

func TestPipelineDelivers(t *testing.T) {
	w := newWorld(t).start()
	w.create(declaration())
	w.until("executions", w.statuses, "Succeeded")
	if got := w.stages(); got != "Source:Succeeded Build:Succeeded Deploy:Succeeded" {
		t.Error(got)
	}
	e := w.list()[0]
	if *e.Trigger.TriggerType != "CreatePipeline" || *e.SourceRevisions[0].RevisionId != "c1" || *e.SourceRevisions[0].RevisionSummary != "message of c1" {
		t.Errorf("%+v", e)
	}
	if w.builds["todo:1"].revision != "c1" || w.deploys["d-1"].revision != "built todo:1" {
		t.Errorf("built %+v, deployed %+v", w.builds["todo:1"], w.deploys["d-1"])
	}
	w.push("c2")
	w.until("executions", w.statuses, "Succeeded Succeeded")
	if e = w.list()[0]; *e.Trigger.TriggerType != "CloudWatchEvent" || *e.SourceRevisions[0].RevisionId != "c2" {
		t.Errorf("%+v", e)
	}
	actions := call(t, w.svc.listActionExecutions, &api.ListActionExecutionsInput{PipelineName: new("todo"), Filter: &api.ActionExecutionFilter{PipelineExecutionId: e.PipelineExecutionId}}).ActionExecutionDetails
	if len(actions) != 3 || *actions[0].ActionName != "Deploy" || *actions[0].Output.ExecutionResult.ExternalExecutionId != "d-2" || !strings.HasPrefix(*actions[1].Input.InputArtifacts[0].S3location.Key, "todo/SourceOutp/") {
		t.Errorf("%+v", actions)
	}
}

// A pipeline that exists before its branch starts with the first push.
func TestFirstPush(t *testing.T) {
	w := newWorld(t).start()
	w.head = ""
	w.create(declaration())
	w.until("executions", w.statuses, "Failed")
	a := w.state().StageStates[0].ActionStates[0].LatestExecution
	if *a.ErrorDetails.Message != "The branch main does not exist in the repository todo" || *a.ErrorDetails.Code != "RevisionUnavailable" {
		t.Errorf("%+v", a.ErrorDetails)
	}
	w.push("c1")
	w.until("executions", w.statuses, "Succeeded Failed")
}

// What was pushed while the server was away starts the pipeline, once.
func TestPushWhileAway(t *testing.T) {
	w := newWorld(t).start()
	w.create(declaration())
	w.until("executions", w.statuses, "Succeeded")
	w.stop()
	w.push("c2")
	w.start()
	w.until("executions", w.statuses, "Succeeded Succeeded")
	w.stop()
	w.start()
	w.push("c2")
	w.push("c3")
	w.until("executions", w.statuses, "Succeeded Succeeded Succeeded")
}

func TestBuildFails(t *testing.T) {
	w := newWorld(t).start()
	w.auto = false
	w.create(declaration())
	w.building("todo:1")
	w.end("Failed", "Error while executing command: go test. Reason: exit status 1")
	w.until("executions", w.statuses, "Failed")
	a := w.state().StageStates[1].ActionStates[0].LatestExecution
	if *a.ErrorDetails.Message != "Build terminated with state: FAILED. Phase: BUILD, Code: COMMAND_EXECUTION_ERROR, Message: Error while executing command: go test. Reason: exit status 1" {
		t.Error(*a.ErrorDetails.Message)
	}
	w.auto = true
	id := w.list()[0].PipelineExecutionId
	call(t, w.svc.retryStageExecution, &api.RetryStageExecutionInput{PipelineName: new("todo"), StageName: new("Build"), PipelineExecutionId: id, RetryMode: new("FAILED_ACTIONS")})
	w.until("executions", w.statuses, "Succeeded")
	if len(w.builds) != 2 || *w.state().StageStates[1].RetryStageMetadata.ManualStageRetryAttempt != 1 {
		t.Errorf("%d builds", len(w.builds))
	}
}

// Waiting executions are superseded by newer ones; the one inside is not.
func TestSuperseding(t *testing.T) {
	w := newWorld(t).start()
	w.auto = false
	w.create(declaration())
	w.building("todo:1")
	for i, c := range []string{"c2", "c3"} {
		w.push(c)
		w.until("executions", w.statuses, []string{"InProgress InProgress", "InProgress Superseded InProgress"}[i])
	}
	w.until("what waits", func() string {
		if in := w.state().StageStates[1].InboundExecution; in != nil {
			return *in.PipelineExecutionId
		}
		return ""
	}, *w.list()[0].PipelineExecutionId)
	w.auto = true
	w.end("Succeeded", "")
	w.until("executions", w.statuses, "Succeeded Superseded Succeeded")
}

// An answer that gets lost does not lead to a second deployment.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t).start()
	w.lost = 1
	w.create(declaration())
	w.until("executions", w.statuses, "Succeeded")
	if len(w.deploys) != 1 {
		t.Errorf("%d deployments", len(w.deploys))
	}
}

func TestDeployFails(t *testing.T) {
	w := newWorld(t).start()
	w.create(declaration())
	w.until("executions", w.statuses, "Succeeded")
	w.busy = "d-9"
	w.push("c2")
	w.until("executions", w.statuses, "Failed Succeeded")
	if m := *w.state().StageStates[2].ActionStates[0].LatestExecution.ErrorDetails.Message; !strings.Contains(m, "already has an active Deployment 'd-9'") {
		t.Error(m)
	}
	w.busy = ""
	out := call(t, w.svc.rollbackStage, &api.RollbackStageInput{PipelineName: new("todo"), StageName: new("Deploy"), TargetPipelineExecutionId: w.list()[1].PipelineExecutionId})
	w.until("executions", w.statuses, "Succeeded Failed Succeeded")
	if e := w.list()[0]; *e.PipelineExecutionId != *out.PipelineExecutionId || *e.ExecutionType != "ROLLBACK" || w.deploys["d-2"].revision != "built todo:1" {
		t.Errorf("%+v %+v", e, w.deploys["d-2"])
	}
}

func TestApprovalTransitionsAndVariables(t *testing.T) {
	w := newWorld(t).start()
	d := declaration()
	d.Stages[1].Actions[0].Namespace = new("Built")
	approve := act("Ask", "Approval", "Manual", "", "", map[string]string{"CustomData": "#{Built.TAG} by #{codepipeline.PipelineExecutionId} in #{variables.Where}"})
	d.Variables = []api.PipelineVariableDeclaration{{Name: new("Where"), DefaultValue: new("test")}}
	d.Stages[2].Actions[0].RunOrder = new(int64(2))
	d.Stages[2].Actions = append(d.Stages[2].Actions, approve)
	w.create(d)
	token := func() string {
		if e := w.state().StageStates[2].ActionStates[1].LatestExecution; e != nil && e.Token != nil {
			return "asked"
		}
		return ""
	}
	w.until("approval", token, "asked")
	a := w.state().StageStates[2].ActionStates[1].LatestExecution
	in := &api.PutApprovalResultInput{PipelineName: new("todo"), StageName: new("Deploy"), ActionName: new("Ask"), Token: new("wrong"), Result: &api.ApprovalResult{Status: new("Approved"), Summary: new("fine")}}
	if _, err := try(t, w.svc.putApprovalResult, in); !awserr.Is(err, "InvalidApprovalTokenException") {
		t.Error(err)
	}
	in.Token = a.Token
	call(t, w.svc.putApprovalResult, in)
	w.until("executions", w.statuses, "Succeeded")
	if _, err := try(t, w.svc.putApprovalResult, in); !awserr.Is(err, "ApprovalAlreadyCompletedException") {
		t.Error(err)
	}
	e := w.list()[0]
	for _, x := range call(t, w.svc.listActionExecutions, &api.ListActionExecutionsInput{PipelineName: new("todo")}).ActionExecutionDetails {
		if *x.ActionName == "Ask" && x.Input.ResolvedConfiguration["CustomData"] != "v7 by "+*e.PipelineExecutionId+" in test" {
			t.Errorf("%q", x.Input.ResolvedConfiguration)
		}
	}
	call(t, w.svc.disableStageTransition, &api.DisableStageTransitionInput{PipelineName: new("todo"), StageName: new("Build"), TransitionType: new("Inbound"), Reason: new("freeze")})
	w.push("c2")
	w.until("stages", func() string {
		st := w.state().StageStates[1]
		if st.InboundExecution == nil {
			return ""
		}
		return *st.InboundTransitionState.DisabledReason
	}, "freeze")
	id := w.list()[0].PipelineExecutionId
	call(t, w.svc.stopPipelineExecution, &api.StopPipelineExecutionInput{PipelineName: new("todo"), PipelineExecutionId: id})
	w.until("executions", w.statuses, "Stopped Succeeded")
}

// An update ends what runs on the old structure, after its actions.
func TestUpdateWhileRunning(t *testing.T) {
	w := newWorld(t).start()
	w.auto = false
	w.create(declaration())
	w.building("todo:1")
	call(t, w.svc.updatePipeline, &api.UpdatePipelineInput{Pipeline: declaration()})
	w.until("executions", w.statuses, "InProgress")
	w.end("Succeeded", "")
	w.until("executions", w.statuses, "Cancelled")
}
