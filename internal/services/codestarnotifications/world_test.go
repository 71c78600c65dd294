package codestarnotifications

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"slipway/internal/api/codebuild"
	"slipway/internal/api/codecommit"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
	"slipway/internal/aws/ptr"
	"slipway/internal/statechange"
	"slipway/internal/store"
)

const (
	account  = "123456789012"
	region   = "eu-west-1"
	pipeline = "arn:aws:codepipeline:eu-west-1:123456789012:todo"
	topic    = "arn:aws:sns:eu-west-1:123456789012:news"
)

// world is the service over a store that survives its deaths, among services
// that only know their names.
type world struct {
	t     *testing.T
	store store.Store
	mux   *dispatch.Mux
	kill  func()

	mu     sync.Mutex
	sent   []string // messages, in their order
	who    caller.Identity
	refuse error
	hold   chan struct{} // Publish waits for it where set
}

func newWorld(t *testing.T) *world {
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: st}
	t.Cleanup(func() {
		if w.kill != nil {
			w.kill()
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	w.wire()
	return w
}

// wire makes a service and all that it calls.
func (w *world) wire() *Service {
	w.mux = dispatch.New()
	missing := func(code string) error { return awserr.New(code, "no such thing").WithStatus(400) }
	dispatch.Register(w.mux, codepipeline.OpGetPipeline, func(_ context.Context, in *codepipeline.GetPipelineInput) (*codepipeline.GetPipelineOutput, error) {
		if *in.Name != "todo" {
			return nil, missing("PipelineNotFoundException")
		}
		return nil, nil
	})
	dispatch.Register(w.mux, codebuild.OpBatchGetProjects, func(_ context.Context, in *codebuild.BatchGetProjectsInput) (*codebuild.BatchGetProjectsOutput, error) {
		out := &codebuild.BatchGetProjectsOutput{}
		if in.Names[0] == "todo" {
			out.Projects = []codebuild.Project{{}}
		}
		return out, nil
	})
	dispatch.Register(w.mux, codedeploy.OpGetApplication, func(_ context.Context, in *codedeploy.GetApplicationInput) (*codedeploy.GetApplicationOutput, error) {
		return nil, nil
	})
	dispatch.Register(w.mux, codecommit.OpGetRepository, func(_ context.Context, in *codecommit.GetRepositoryInput) (*codecommit.GetRepositoryOutput, error) {
		return nil, missing("RepositoryDoesNotExistException")
	})
	dispatch.Register(w.mux, sns.OpPublish, w.publish)
	s := New(Deps{Store: w.store, Mux: w.mux, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil))})
	s.Register(w.mux)
	return s
}

func (w *world) publish(ctx context.Context, in *sns.PublishInput) (*sns.PublishOutput, error) {
	w.mu.Lock()
	hold := w.hold
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refuse != nil {
		return nil, w.refuse
	}
	if *in.TopicArn != topic || in.Subject != nil {
		w.t.Errorf("published %+v", in)
	}
	w.who = caller.From(ctx)
	w.sent = append(w.sent, *in.Message)
	return &sns.PublishOutput{MessageId: new("m")}, nil
}

func (w *world) refusing(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refuse = err
}

func (w *world) holding(c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hold = c
}

// run starts the service; w.kill ends it.
func (w *world) run() {
	s := w.wire()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.kill = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.kill = nil
	}
}

func (w *world) messages() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.sent)
}

// until waits for a condition that comes by itself.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-deadline:
			w.t.Fatalf("%s: not in a minute; sent: %q", what, w.messages())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (w *world) count(kind string) int {
	n := 0
	err := w.store.View(w.t.Context(), func(r store.Reader) (err error) {
		n, err = r.Count(store.Query{Kind: kind})
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
	return n
}

type dummy struct{}

var executions = store.NewTable[dummy]("codepipeline:execution", nil)

// emit writes a change of a pipeline as CodePipeline does.
func (w *world) emit(arn, state string) {
	w.t.Helper()
	var d statechange.Detail
	d.Add(statechange.Change{Source: "aws.codepipeline", DetailType: "CodePipeline Pipeline Execution State Change", Resource: arn, Resources: []string{arn}},
		map[string]any{"pipeline": "todo", "state": state, "version": statechange.Number(3)}, map[string]string{"failedStage": "Build"})
	err := w.store.Update(context.Background(), func(tx store.Tx) error {
		row, err := executions.Get(tx, account, region, "e")
		if errors.Is(err, store.ErrNotFound) {
			_, err = executions.Insert(tx, account, region, "e", dummy{}, "Started", d)
			return err
		}
		if err != nil {
			return err
		}
		return executions.Save(tx, row, state, d)
	})
	if err != nil {
		w.t.Error(err)
	}
}

func try[I, O any](w *world, op *model.Op[I, O], in *I) (*O, error) {
	ctx := caller.With(w.t.Context(), caller.Identity{Account: account, Region: region, AccessKeyID: "AKIA", PrincipalARN: "arn:aws:iam::123456789012:user/me"})
	return dispatch.Call(ctx, w.mux, op, in)
}

func call[I, O any](w *world, op *model.Op[I, O], in *I) *O {
	w.t.Helper()
	out, err := try(w, op, in)
	if err != nil {
		w.t.Fatalf("%s: %v", op.Name, err)
	}
	return out
}

func request() *api.CreateNotificationRuleInput {
	return &api.CreateNotificationRuleInput{Name: new("news"), Resource: new(pipeline), DetailType: new("FULL"), EventTypeIds: []string{"codepipeline-pipeline-pipeline-execution-failed"},
		Targets: []api.Target{{TargetType: new("SNS"), TargetAddress: new(topic)}}}
}

// create makes a rule of that name.
func (w *world) create(name string, change func(*api.CreateNotificationRuleInput)) *string {
	w.t.Helper()
	in := request()
	in.Name = &name
	if change != nil {
		change(in)
	}
	return call(w, api.OpCreateNotificationRule, in).Arn
}

func (w *world) status() string {
	w.t.Helper()
	out := call(w, api.OpListTargets, &api.ListTargetsInput{Filters: []api.ListTargetsFilter{{Name: new("TARGET_ADDRESS"), Value: new(topic)}}})
	if len(out.Targets) != 1 {
		w.t.Fatalf("targets: %+v", out.Targets)
	}
	return ptr.Value(out.Targets[0].TargetStatus)
}
