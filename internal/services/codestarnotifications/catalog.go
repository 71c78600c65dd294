package codestarnotifications

import (
	"encoding/json"
	"strings"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/statechange"
)

// eventType is what a rule can ask for.
type eventType struct{ id, name string }

// family is the event types of one service and one kind of resource.
type family struct {
	service  string // as AWS spells it
	resource string
	source   string // of the changes, and in ARNs
	types    []eventType
}

// catalog are AWS's event types (Developer Tools console user guide,
// "Notification concepts"). Comments, approvals and pull requests of
// repositories do not exist here: such rules are kept and never fire.
var catalog = []family{
	{"CodeBuild", "Project", "codebuild", []eventType{
		{"codebuild-project-build-phase-failure", "Build phase: Failure"},
		{"codebuild-project-build-phase-success", "Build phase: Success"},
		{"codebuild-project-build-state-failed", "Build state: Failed"},
		{"codebuild-project-build-state-in-progress", "Build state: In-progress"},
		{"codebuild-project-build-state-stopped", "Build state: Stopped"},
		{"codebuild-project-build-state-succeeded", "Build state: Succeeded"},
	}},
	{"CodeCommit", "Repository", "codecommit", []eventType{
		{"codecommit-repository-approvals-rule-override", "Approvals: Rule override"},
		{"codecommit-repository-approvals-status-changed", "Approvals: Status changed"},
		{"codecommit-repository-branches-and-tags-created", "Branches and tags: Created"},
		{"codecommit-repository-branches-and-tags-deleted", "Branches and tags: Deleted"},
		{"codecommit-repository-branches-and-tags-updated", "Branches and tags: Updated"},
		{"codecommit-repository-comments-on-commits", "Comments: On commits"},
		{"codecommit-repository-comments-on-pull-requests", "Comments: On pull requests"},
		{"codecommit-repository-pull-request-created", "Pull request: Created"},
		{"codecommit-repository-pull-request-merged", "Pull request: Merged"},
		{"codecommit-repository-pull-request-source-updated", "Pull request: Source updated"},
		{"codecommit-repository-pull-request-status-changed", "Pull request: Status changed"},
	}},
	{"CodeDeploy", "Application", "codedeploy", []eventType{
		{"codedeploy-application-deployment-failed", "Deployment: Failed"},
		{"codedeploy-application-deployment-started", "Deployment: Started"},
		{"codedeploy-application-deployment-succeeded", "Deployment: Succeeded"},
	}},
	{"CodePipeline", "Pipeline", "codepipeline", []eventType{
		{"codepipeline-pipeline-action-execution-canceled", "Action execution: Canceled"},
		{"codepipeline-pipeline-action-execution-failed", "Action execution: Failed"},
		{"codepipeline-pipeline-action-execution-started", "Action execution: Started"},
		{"codepipeline-pipeline-action-execution-succeeded", "Action execution: Succeeded"},
		{"codepipeline-pipeline-manual-approval-failed", "Manual approval: Failed"},
		{"codepipeline-pipeline-manual-approval-needed", "Manual approval: Needed"},
		{"codepipeline-pipeline-manual-approval-succeeded", "Manual approval: Succeeded"},
		{"codepipeline-pipeline-pipeline-execution-canceled", "Pipeline execution: Canceled"},
		{"codepipeline-pipeline-pipeline-execution-failed", "Pipeline execution: Failed"},
		{"codepipeline-pipeline-pipeline-execution-resumed", "Pipeline execution: Resumed"},
		{"codepipeline-pipeline-pipeline-execution-started", "Pipeline execution: Started"},
		{"codepipeline-pipeline-pipeline-execution-succeeded", "Pipeline execution: Succeeded"},
		{"codepipeline-pipeline-pipeline-execution-superseded", "Pipeline execution: Superseded"},
		{"codepipeline-pipeline-stage-execution-canceled", "Stage execution: Canceled"},
		{"codepipeline-pipeline-stage-execution-failed", "Stage execution: Failed"},
		{"codepipeline-pipeline-stage-execution-resumed", "Stage execution: Resumed"},
		{"codepipeline-pipeline-stage-execution-started", "Stage execution: Started"},
		{"codepipeline-pipeline-stage-execution-succeeded", "Stage execution: Succeeded"},
	}},
}

// known finds an event type by its id.
var known = func() map[string]api.EventTypeSummary {
	m := map[string]api.EventTypeSummary{}
	for _, f := range catalog {
		for _, t := range f.types {
			m[t.id] = api.EventTypeSummary{EventTypeId: new(t.id), ServiceName: new(f.service), EventTypeName: new(t.name), ResourceType: new(f.resource)}
		}
	}
	return m
}()

// watched are the kinds of rows whose events tell changes.
var watched = []string{"codebuild:build", "codecommit:branch", "codedeploy:deployment", "codepipeline:execution"}

// note is what of a change's detail tells its event type.
type note struct {
	State string // of pipelines and deployments
	Type  struct{ Category string }
	Build string `json:"build-status"`
	Phase string `json:"completed-phase-status"`
	Event string // of repositories
}

// typesOf are the event types that a change is; a rule that asks for several
// of them gets one message.
func typesOf(c *statechange.Change) ([]string, error) {
	var n note
	if err := json.Unmarshal(c.Detail, &n); err != nil {
		return nil, err
	}
	all := map[string][]string{
		"CodeBuild Build State Change": {"codebuild-project-build-state-" + map[string]string{"IN_PROGRESS": "in-progress", "SUCCEEDED": "succeeded", "STOPPED": "stopped",
			"FAILED": "failed", "FAULT": "failed", "TIMED_OUT": "failed"}[n.Build]},
		"CodeBuild Build Phase Change":                    {"codebuild-project-build-phase-" + map[bool]string{true: "success", false: "failure"}[n.Phase == "SUCCEEDED"]},
		"CodeCommit Repository State Change":              {"codecommit-repository-branches-and-tags-" + strings.ToLower(strings.TrimPrefix(n.Event, "reference"))},
		"CodeDeploy Deployment State-change Notification": {"codedeploy-application-deployment-" + map[string]string{"START": "started", "SUCCESS": "succeeded", "FAILURE": "failed"}[n.State]},
		"CodePipeline Pipeline Execution State Change":    {"codepipeline-pipeline-pipeline-execution-" + strings.ToLower(n.State)},
		"CodePipeline Stage Execution State Change":       {"codepipeline-pipeline-stage-execution-" + strings.ToLower(n.State)},
		"CodePipeline Action Execution State Change":      {"codepipeline-pipeline-action-execution-" + strings.ToLower(n.State)},
	}[c.DetailType]
	if c.DetailType == "CodePipeline Action Execution State Change" && n.Type.Category == "Approval" {
		all = append(all, "codepipeline-pipeline-manual-approval-"+map[string]string{"STARTED": "needed", "SUCCEEDED": "succeeded", "FAILED": "failed"}[n.State])
	}
	var out []string
	for _, id := range all {
		if _, ok := known[id]; ok { // a stop, for example, is nobody's event type
			out = append(out, id)
		}
	}
	return out, nil
}
