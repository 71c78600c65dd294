package codepipeline

import (
	"errors"
	"slices"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/ptr"
	"slipway/internal/statechange"
	"slipway/internal/store"
)

// executionDetail goes into the events of execution rows.
type executionDetail struct {
	Stage  string `json:"stage,omitempty"`
	Action string `json:"action,omitempty"`
	statechange.Detail
}

// saveExecution saves an execution and tells, in its event, what of AWS's
// state changes lie between the stored row and this one.
func saveExecution(tx store.Tx, row *executionRow, event string, detail executionDetail) error {
	before, err := executions.Get(tx, row.Account, row.Region, row.ID)
	if errors.Is(err, store.ErrNotFound) {
		return store.ErrConflict // deleted since it was read
	}
	if err != nil {
		return err
	}
	detail.Changes = changes(row, &before.Doc)
	return executions.Save(tx, row, event, detail)
}

// States of AWS's events by ours (AWS: "Monitoring CodePipeline events").
var (
	executionStates = map[string]string{
		api.PipelineExecutionStatusInProgress: "STARTED", api.PipelineExecutionStatusStopping: "STOPPING", api.PipelineExecutionStatusStopped: "STOPPED",
		api.PipelineExecutionStatusSucceeded: "SUCCEEDED", api.PipelineExecutionStatusSuperseded: "SUPERSEDED",
		api.PipelineExecutionStatusFailed: "FAILED", api.PipelineExecutionStatusCancelled: "CANCELED",
	}
	actionStates = map[string]string{
		api.ActionExecutionStatusInProgress: "STARTED", api.ActionExecutionStatusSucceeded: "SUCCEEDED",
		api.ActionExecutionStatusFailed: "FAILED", api.ActionExecutionStatusAbandoned: "ABANDONED",
	}
)

// teller writes the changes of one execution.
type teller struct {
	row *executionRow
	e   *Execution
	statechange.Detail
}

// changes lists what happened to an execution: ends from the inside to the
// outside, then beginnings from the outside to the inside. before is nil for a
// new execution.
func changes(row *executionRow, before *Execution) []statechange.Change {
	t := &teller{row: row, e: &row.Doc}
	fresh := before == nil
	if fresh {
		before = &Execution{Stages: make([]StageRun, len(t.e.Stages))}
		copy(before.Stages, t.e.Stages) // a rollback begins with the stages of another execution
	}
	ended := t.e.Status != before.Status && t.e.Status != api.PipelineExecutionStatusInProgress
	resumed := false
	for i := range t.e.Stages {
		t.actionsEnded(i, &before.Stages[i])
	}
	for i := range t.e.Stages {
		was, is := &before.Stages[i], &t.e.Stages[i]
		stopping := ended && t.e.Status == api.PipelineExecutionStatusStopping && i == t.e.At && is.Status == api.StageExecutionStatusInProgress
		switch {
		case stopping:
			t.stage(i, "STOPPING")
		case is.Status != was.Status && is.Status != api.StageExecutionStatusInProgress && is.Status != "":
			t.stage(i, executionStates[is.Status])
		}
		resumed = resumed || retries(is) > retries(was)
	}
	switch {
	case ended:
		t.pipeline(executionStates[t.e.Status])
	case fresh:
		t.pipeline("STARTED")
	case t.e.Status != before.Status || resumed:
		t.pipeline("RESUMED")
	}
	for i := range t.e.Stages {
		was, is := &before.Stages[i], &t.e.Stages[i]
		switch {
		case retries(is) > retries(was):
			t.stage(i, "RESUMED")
		case is.Status == api.StageExecutionStatusInProgress && was.Status != is.Status:
			t.stage(i, "STARTED")
		}
		for j := range is.Actions {
			if a := &is.Actions[j]; a.ID != "" && a.ID != was.Actions[j].ID {
				t.action(i, a, "STARTED")
			}
		}
	}
	return t.Changes
}

func retries(st *StageRun) int64 { return st.AutoRetries + st.ManualRetries }

// actionsEnded tells of the actions of a stage that have ended since, also of
// those that a retry has put aside in the same step.
func (t *teller) actionsEnded(i int, was *StageRun) {
	is := &t.e.Stages[i]
	for j := range was.Actions {
		old := &was.Actions[j]
		now := &is.Actions[j]
		if old.ID != now.ID {
			if n := slices.IndexFunc(is.Past, func(p ActionRun) bool { return p.ID == old.ID && p.ID != "" }); n >= 0 {
				now = &is.Past[n]
			}
		}
		if old.ID == now.ID && old.Status != now.Status && now.Status != api.ActionExecutionStatusInProgress {
			t.action(i, now, actionStates[now.Status])
		}
	}
}

func (t *teller) add(kind string, detail, more any) {
	arn := "arn:aws:codepipeline:" + t.row.Region + ":" + t.row.Account + ":" + t.e.Pipeline
	t.Add(statechange.Change{Source: "aws.codepipeline", DetailType: "CodePipeline " + kind + " Execution State Change", Resource: arn, Resources: []string{arn}}, detail, more)
}

// executionNote is what the details of all three kinds have, in AWS's order.
type executionNote struct {
	Pipeline    string             `json:"pipeline"`
	ExecutionID string             `json:"execution-id"`
	StartTime   string             `json:"start-time"`
	Trigger     *triggerNote       `json:"execution-trigger,omitempty"`
	Stage       string             `json:"stage,omitempty"`
	Result      *resultNote        `json:"execution-result,omitempty"`
	Inputs      []artifactNote     `json:"input-artifacts,omitempty"`
	Outputs     []artifactNote     `json:"output-artifacts,omitempty"`
	ActionID    string             `json:"action-execution-id,omitempty"`
	Action      string             `json:"action,omitempty"`
	State       string             `json:"state"`
	Region      string             `json:"region,omitempty"`
	Type        *typeNote          `json:"type,omitempty"`
	Version     statechange.Number `json:"version"`
	Attempt     statechange.Number `json:"pipeline-execution-attempt"`
	Comments    string             `json:"stop-execution-comments,omitempty"`
}

type triggerNote struct {
	Type   string `json:"trigger-type"`
	Detail string `json:"trigger-detail,omitempty"`
}

type resultNote struct {
	URL       string `json:"external-execution-url,omitempty"`
	Summary   string `json:"external-execution-summary,omitempty"`
	ID        string `json:"external-execution-id,omitempty"`
	ErrorCode string `json:"error-code,omitempty"`
}

type typeNote struct {
	Owner    string `json:"owner"`
	Provider string `json:"provider"`
	Category string `json:"category"`
	Version  string `json:"version"`
}

type artifactNote struct {
	Name string `json:"name"`
	S3   struct {
		Bucket string `json:"bucket"`
		Key    string `json:"key"`
	} `json:"s3location"`
}

func (t *teller) note(state string) executionNote {
	n := executionNote{Pipeline: t.e.Pipeline, ExecutionID: t.e.ID, StartTime: statechange.Time(t.e.Started), State: state,
		Version: statechange.Number(ptr.Value(t.e.Declaration.Version)), Attempt: 1}
	for i := range t.e.Stages {
		n.Attempt += statechange.Number(retries(&t.e.Stages[i]))
	}
	return n
}

func (t *teller) pipeline(state string) {
	n := t.note(state)
	var more any
	switch state {
	case "STARTED":
		n.Trigger = &triggerNote{t.e.TriggerType, t.e.TriggerDetail}
	case "STOPPING":
		n.Comments = t.e.Stop.Reason
	case "FAILED":
		more = t.failures()
	}
	t.add("Pipeline", n, more)
}

// failedAction says why an action failed.
type failedAction struct {
	Action      string `json:"action"`
	Information string `json:"additionalInformation"`
}

// failures are what AWS adds to the failure of an execution.
func (t *teller) failures() any {
	st := &t.e.Stages[t.e.At]
	out := struct {
		Count  int            `json:"failedActionCount"`
		Failed []failedAction `json:"failedActions"`
		Stage  string         `json:"failedStage"`
	}{Failed: []failedAction{}, Stage: st.Name}
	for i := range st.Actions {
		if a := &st.Actions[i]; a.Status == api.ActionExecutionStatusFailed {
			out.Failed = append(out.Failed, failedAction{a.Name, a.why()})
		}
	}
	out.Count = len(out.Failed)
	return out
}

// why is what an action's provider said of its failure.
func (a *ActionRun) why() string {
	if a.Summary != "" {
		return a.Summary
	}
	return a.Error
}

func (t *teller) stage(i int, state string) {
	n := t.note(state)
	n.Stage = t.e.Stages[i].Name
	t.add("Stage", n, t.sources())
}

// sourceAction is what AWS adds to the events of stages.
type sourceAction struct {
	Name      string            `json:"sourceActionName"`
	Provider  string            `json:"sourceActionProvider"`
	Variables map[string]string `json:"sourceActionVariables"`
}

// sources are the sources of the execution that were read already, or nil.
func (t *teller) sources() any {
	var out []sourceAction
	for j, decl := range t.e.Declaration.Stages[0].Actions {
		a := &t.e.Stages[0].Actions[j]
		if a.Status != api.ActionExecutionStatusSucceeded {
			continue
		}
		vars := map[string]string{}
		for _, k := range []string{"RepositoryName", "BranchName", "CommitId", "VersionId", "ETag"} {
			if v := a.Variables[k]; v != "" {
				vars[k] = v
			}
		}
		out = append(out, sourceAction{a.Name, ptr.Value(decl.ActionTypeId.Provider), vars})
	}
	if out == nil {
		return nil
	}
	return map[string]any{"sourceActions": out}
}

func (t *teller) action(stage int, a *ActionRun, state string) {
	n := t.note(state)
	n.StartTime, n.Stage, n.ActionID, n.Action, n.Region = statechange.Time(a.Started), t.e.Stages[stage].Name, a.ID, a.Name, t.row.Region
	var decl api.ActionDeclaration
	actions := t.e.Declaration.Stages[stage].Actions
	if j := slices.IndexFunc(actions, func(d api.ActionDeclaration) bool { return ptr.Value(d.Name) == a.Name }); j >= 0 {
		decl = actions[j]
	}
	kind, inputs := ptr.Value(decl.ActionTypeId), a.Inputs
	if inputs == nil { // the action's first step, a little later, notes them
		inputs = map[string]Artifact{}
		for _, in := range decl.InputArtifacts {
			if art, ok := t.e.Artifacts[ptr.Value(in.Name)]; ok {
				inputs[ptr.Value(in.Name)] = art
			}
		}
	}
	n.Type = &typeNote{ptr.Value(kind.Owner), ptr.Value(kind.Provider), ptr.Value(kind.Category), ptr.Value(kind.Version)}
	n.Inputs, n.Outputs = artifactNotes(inputs), artifactNotes(a.Outputs)
	if state != "STARTED" && (a.External != "" || a.Summary != "" || a.ErrorCode != "") {
		n.Result = &resultNote{a.URL, a.why(), a.External, a.ErrorCode}
	}
	t.add("Action", n, t.actionMore(a, &decl, state))
}

// actionMore is what goes with an action's change: why it failed, and what
// the declaration of an approval tells those who are to decide.
func (t *teller) actionMore(a *ActionRun, decl *api.ActionDeclaration, state string) any {
	more := map[string]string{}
	if state == "FAILED" {
		more["additionalInformation"] = a.why()
	}
	if ptr.Value(ptr.Value(decl.ActionTypeId).Category) == api.ActionCategoryApproval {
		config := a.Resolved
		if config == nil {
			config, _ = t.e.resolve(decl.Configuration) // a variable without a value fails the action soon
		}
		for k, name := range map[string]string{"CustomData": "customData", "ExternalEntityLink": "externalEntityLink"} {
			if v := config[k]; v != "" {
				more[name] = v
			}
		}
	}
	if len(more) == 0 {
		return nil
	}
	return more
}

func artifactNotes(m map[string]Artifact) []artifactNote {
	var out []artifactNote
	for _, name := range slices.Sorted(mapKeys(m)) {
		n := artifactNote{Name: name}
		n.S3.Bucket, n.S3.Key = m[name].Bucket, m[name].Key
		out = append(out, n)
	}
	return out
}
