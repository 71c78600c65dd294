package codepipeline

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// action is one action under way, as its provider gets it.
type action struct {
	key  store.Key // of the pipeline
	exec *Execution
	decl *api.ActionDeclaration
	run  ActionRun // a copy
}

// outcome is what a step made of it.
type outcome struct {
	run      ActionRun
	revision *Revision
}

// provider takes an action one step further: starts the work, or asks how it
// goes. It may be called twice for the same state. An AWS error fails the
// action, another is tried again.
type provider struct {
	step func(*Service, context.Context, *action) (*outcome, error)
	// head is the newest revision of a source; nil for other actions.
	head func(*Service, context.Context, store.Key, *api.ActionDeclaration) (string, error)
	// required configuration.
	required []string
	minIn    int
	maxIn    int
	minOut   int
	maxOut   int
	timeout  time.Duration
}

// providers by "category/owner/provider" (AWS: "Pipeline structure reference",
// "Action structure reference").
var providers map[string]provider

func init() { // here, because stepping refers to the table again
	build := provider{step: (*Service).stepBuild, required: []string{"ProjectName"}, minIn: 1, maxIn: 5, maxOut: 5, timeout: 36 * time.Hour}
	providers = map[string]provider{
		"Source/AWS/CodeCommit": {step: (*Service).stepCodeCommit, head: (*Service).headCodeCommit, required: []string{"RepositoryName", "BranchName"},
			minOut: 1, maxOut: 1, timeout: time.Hour},
		"Source/AWS/S3": {step: (*Service).stepS3Source, head: (*Service).headS3, required: []string{"S3Bucket", "S3ObjectKey"},
			minOut: 1, maxOut: 1, timeout: time.Hour},
		"Build/AWS/CodeBuild": build,
		"Test/AWS/CodeBuild":  build,
		"Deploy/AWS/CodeDeploy": {step: (*Service).stepDeploy, required: []string{"ApplicationName", "DeploymentGroupName"},
			minIn: 1, maxIn: 1, timeout: 5 * 24 * time.Hour},
		"Deploy/AWS/S3":       {step: (*Service).stepS3Deploy, required: []string{"BucketName", "Extract"}, minIn: 1, maxIn: 1, timeout: 90 * time.Minute},
		"Approval/AWS/Manual": {step: (*Service).stepApproval, timeout: 7 * 24 * time.Hour},
	}
}

func providerOf(decl *api.ActionDeclaration) (provider, bool) {
	t := decl.ActionTypeId
	p, ok := providers[ptr.Value(t.Category)+"/"+ptr.Value(t.Owner)+"/"+ptr.Value(t.Provider)]
	return p, ok && ptr.Value(t.Version) == "1"
}

// head is the newest revision of a source.
func (s *Service) head(ctx context.Context, key store.Key, decl *api.ActionDeclaration) (string, error) {
	p, ok := providerOf(decl)
	if !ok || p.head == nil {
		return "", nil
	}
	return p.head(s, ctx, key, decl)
}

// Error codes of actions (AWS: FailureType).
const (
	jobFailed           = "JobFailed"
	configurationError  = "ConfigurationError"
	revisionUnavailable = "RevisionUnavailable"
)

// act takes an action one step further.
func (s *Service) act(ctx context.Context, a *action) (*outcome, error) {
	p, ok := providerOf(a.decl)
	if !ok {
		return a.fail(configurationError, "Slipway has no provider for this action"), nil
	}
	limit := p.timeout
	if m := ptr.Value(a.decl.TimeoutInMinutes); m > 0 {
		limit = time.Duration(m) * time.Minute
	}
	if s.deps.Clock.Since(a.run.Started) > limit {
		return a.fail(jobFailed, fmt.Sprintf("The action timed out after %s", limit)), nil
	}
	if a.run.Resolved == nil {
		config, err := a.exec.resolve(a.decl.Configuration)
		if err != nil {
			return a.fail(configurationError, err.Error()), nil
		}
		a.run.Resolved, a.run.Inputs = config, map[string]Artifact{}
		for _, in := range a.decl.InputArtifacts {
			art, ok := a.exec.Artifacts[ptr.Value(in.Name)]
			if !ok {
				return a.fail(configurationError, fmt.Sprintf("The input artifact %s does not exist", ptr.Value(in.Name))), nil
			}
			a.run.Inputs[ptr.Value(in.Name)] = art
		}
	}
	out, err := p.step(s, s.as(ctx, a.key), a)
	if e := awserr.As(err); e != nil && (e.Status < 500 || e.Status == 501) {
		code := configurationError
		if ptr.Value(a.decl.ActionTypeId.Category) == api.ActionCategorySource {
			code = revisionUnavailable
		}
		return a.fail(code, e.Message), nil
	}
	return out, err
}

// fail ends the action.
func (a *action) fail(code, message string) *outcome {
	a.run.Status, a.run.ErrorCode, a.run.Error = api.ActionExecutionStatusFailed, code, message
	return &outcome{run: a.run}
}

// succeed ends the action.
func (a *action) succeed(summary string) *outcome {
	a.run.Status, a.run.Summary = api.ActionExecutionStatusSucceeded, summary
	return &outcome{run: a.run}
}

// wait leaves the action as it is.
func (a *action) wait() *outcome { return &outcome{run: a.run} }

// input is the one input artifact, or the primary one.
func (a *action) input() (string, Artifact) {
	name := a.run.Resolved["PrimarySource"]
	if name == "" {
		name = ptr.Value(a.decl.InputArtifacts[0].Name)
	}
	return name, a.run.Inputs[name]
}

// output is where an output artifact goes: AWS's form of the key, with names
// cut short, and a last part that belongs to the action's run.
func (a *action) output(name string) Artifact {
	return Artifact{Bucket: bucket(&a.exec.Declaration, a.key.Region), Key: cut(a.exec.Pipeline, 20) + "/" + cut(name, 10) + "/" + derived(a.run.ID, name)[:7]}
}

func cut(s string, n int) string { return s[:min(n, len(s))] }

// sourceName says which source an action reads.
func sourceName(decl *api.ActionDeclaration) string {
	c := decl.Configuration
	if ptr.Value(decl.ActionTypeId.Provider) == "S3" {
		return "s3://" + c["S3Bucket"] + "/" + c["S3ObjectKey"]
	}
	return c["RepositoryName"] + ":" + c["BranchName"]
}

func newUUID() string { return derived(rand.Text()) }
