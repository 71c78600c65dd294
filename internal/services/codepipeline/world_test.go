package codepipeline

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/api/codebuild"
	"slipway/internal/api/codedeploy"
	api "slipway/internal/api/codepipeline"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/git"
	"slipway/internal/store"
)

const (
	testAccount = "123456789012"
	testRegion  = "us-east-1"
)

// world is everything around the service. It outlives restarts of it.
type world struct {
	t     *testing.T
	store store.Store

	mu      sync.Mutex
	head    string            // of main in the repository todo; "" before the first push
	objects map[string]string // "bucket/key" -> content
	builds  map[string]*job   // by id
	tokens  map[string]string // idempotency token -> build
	deploys map[string]*job
	busy    string // a deployment that occupies the group
	auto    bool   // builds and deployments succeed by themselves
	lost    int    // so many answers of CreateDeployment get lost

	svc  *Service
	stop func()
}

type job struct {
	status, description, message, revision string
}

type dummy struct{ State string }

var (
	branchRows = store.NewTable[dummy]("codecommit:branch", nil)
	buildRows  = store.NewTable[dummy]("codebuild:build", nil)
	deployRows = store.NewTable[dummy]("codedeploy:deployment", nil)
)

func newWorld(t *testing.T) *world {
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: st, head: "c1", auto: true, objects: map[string]string{}, builds: map[string]*job{}, tokens: map[string]string{}, deploys: map[string]*job{}}
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) start() *world {
	mux := dispatch.New()
	w.fakes(mux)
	w.svc = New(Deps{Store: w.store, Mux: mux, Repositories: w, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil))})
	w.svc.Register(mux)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(s *Service) { done <- s.Run(ctx) }(w.svc)
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = nil
	}
	return w
}

func (w *world) locked(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func (w *world) emit(table store.Table[dummy], id string) {
	w.t.Helper()
	err := w.store.Update(context.Background(), func(tx store.Tx) error {
		row, err := table.Get(tx, testAccount, testRegion, id)
		if err == nil {
			return table.Save(tx, row, "Changed", nil)
		}
		_, err = table.Insert(tx, testAccount, testRegion, id, dummy{}, "Created", nil)
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// push moves the branch.
func (w *world) push(commit string) {
	w.locked(func() { w.head = commit })
	w.emit(branchRows, "todo/main")
}

// end ends the builds and deployments under way.
func (w *world) end(status, message string) {
	var ids []string
	w.locked(func() {
		for id, j := range w.builds {
			if j.status == "IN_PROGRESS" {
				j.status, j.message = strings.ToUpper(status), message
				ids = append(ids, id)
			}
		}
		for id, j := range w.deploys {
			if j.status == "InProgress" {
				j.status, j.message = status, message
				ids = append(ids, id)
			}
		}
	})
	for _, id := range ids {
		w.emit(buildRows, id)
		w.emit(deployRows, id)
	}
}

func (w *world) Commit(_ context.Context, _, _, repository, spec string) (*git.Commit, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if spec == "refs/heads/main" {
		spec = w.head
	}
	if repository != "todo" || spec == "" {
		return nil, awserr.New("CommitDoesNotExistException", "nothing there")
	}
	at := time.Unix(1700000000, 0)
	return &git.Commit{ID: spec, Message: "message of " + spec + "\n", Author: git.Person{When: at}, Committer: git.Person{When: at}}, nil
}

func (w *world) Archive(_ context.Context, _, _, _, commit string, to io.Writer) error {
	_, err := io.WriteString(to, "zip of "+commit)
	return err
}

func (w *world) fakes(mux *dispatch.Mux) {
	dispatch.Register(mux, s3.OpPutObject, func(_ context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
		b, err := io.ReadAll(in.Body)
		w.locked(func() { w.objects[*in.Bucket+"/"+*in.Key] = string(b) })
		return &s3.PutObjectOutput{ETag: new("etag")}, err
	})
	dispatch.Register(mux, codebuild.OpStartBuild, w.startBuild)
	dispatch.Register(mux, codebuild.OpBatchGetBuilds, func(_ context.Context, in *codebuild.BatchGetBuildsInput) (*codebuild.BatchGetBuildsOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		j := w.builds[in.Ids[0]]
		b := codebuild.Build{Id: &in.Ids[0], BuildStatus: new(j.status), BuildComplete: new(j.status != "IN_PROGRESS")}
		if j.message != "" {
			b.Phases = []codebuild.BuildPhase{{PhaseType: new("BUILD"), PhaseStatus: new("FAILED"), Contexts: []codebuild.PhaseContext{{StatusCode: new("COMMAND_EXECUTION_ERROR"), Message: new(j.message)}}}}
		}
		b.ExportedEnvironmentVariables = []codebuild.ExportedEnvironmentVariable{{Name: new("TAG"), Value: new("v7")}}
		return &codebuild.BatchGetBuildsOutput{Builds: []codebuild.Build{b}}, nil
	})
	dispatch.Register(mux, codedeploy.OpCreateDeployment, w.createDeployment)
	dispatch.Register(mux, codedeploy.OpListDeployments, func(context.Context, *codedeploy.ListDeploymentsInput) (*codedeploy.ListDeploymentsOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		out := &codedeploy.ListDeploymentsOutput{}
		for id := range w.deploys {
			out.Deployments = append(out.Deployments, id)
		}
		return out, nil
	})
	dispatch.Register(mux, codedeploy.OpGetDeployment, func(_ context.Context, in *codedeploy.GetDeploymentInput) (*codedeploy.GetDeploymentOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		j := w.deploys[*in.DeploymentId]
		d := &codedeploy.DeploymentInfo{Status: new(j.status), Description: new(j.description)}
		if j.message != "" {
			d.ErrorInformation = &codedeploy.ErrorInformation{Message: new(j.message)}
		}
		return &codedeploy.GetDeploymentOutput{DeploymentInfo: d}, nil
	})
}

func (w *world) startBuild(ctx context.Context, in *codebuild.StartBuildInput) (*codebuild.StartBuildOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.objects[*in.SourceLocationOverride] == "" {
		w.t.Errorf("a build of %s, which is not there", *in.SourceLocationOverride)
	}
	if who := caller.From(ctx).PrincipalID; who != "codepipeline/todo" {
		w.t.Errorf("the build is started by %q", who)
	}
	id := w.tokens[*in.IdempotencyToken]
	if id == "" {
		id = fmt.Sprintf("todo:%d", len(w.builds)+1)
		w.tokens[*in.IdempotencyToken] = id
		w.builds[id] = &job{status: "IN_PROGRESS", revision: *in.EnvironmentVariablesOverride[0].Value}
		if w.auto {
			w.builds[id].status = "SUCCEEDED"
		}
		a := in.ArtifactsOverride
		w.objects[*a.Location+"/"+*a.Path+"/"+*a.Name] = "built " + id
	}
	return &codebuild.StartBuildOutput{Build: &codebuild.Build{Id: &id}}, nil
}

func (w *world) createDeployment(_ context.Context, in *codedeploy.CreateDeploymentInput) (*codedeploy.CreateDeploymentOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.busy != "" {
		return nil, awserr.New("DeploymentLimitExceededException", "The Deployment Group 'todo' already has an active Deployment '%s'", w.busy)
	}
	l := in.Revision.S3Location
	if w.objects[*l.Bucket+"/"+*l.Key] == "" {
		w.t.Errorf("a deployment of %s, which is not there", *l.Key)
	}
	id := fmt.Sprintf("d-%d", len(w.deploys)+1)
	w.deploys[id] = &job{status: "InProgress", description: *in.Description, revision: w.objects[*l.Bucket+"/"+*l.Key]}
	if w.auto {
		w.deploys[id].status = "Succeeded"
	}
	if w.lost > 0 {
		w.lost--
		return nil, fmt.Errorf("the answer got lost")
	}
	return &codedeploy.CreateDeploymentOutput{DeploymentId: &id}, nil
}

func call[I, O any](t *testing.T, h func(context.Context, *I) (*O, error), in *I) *O {
	t.Helper()
	out, err := try(t, h, in)
	if err != nil {
		t.Fatalf("%T: %v", in, err)
	}
	return out
}

func try[I, O any](t *testing.T, h func(context.Context, *I) (*O, error), in *I) (*O, error) {
	return h(caller.With(t.Context(), caller.Identity{Account: testAccount, Region: testRegion, PrincipalARN: "arn:aws:iam::123456789012:user/ann"}), in)
}

func act(name, category, provider, in, out string, config map[string]string) api.ActionDeclaration {
	a := api.ActionDeclaration{Name: &name, Configuration: config, ActionTypeId: &api.ActionTypeId{Category: &category, Owner: new("AWS"), Provider: &provider, Version: new("1")}}
	if in != "" {
		a.InputArtifacts = []api.InputArtifact{{Name: &in}}
	}
	if out != "" {
		a.OutputArtifacts = []api.OutputArtifact{{Name: &out}}
	}
	return a
}

// declaration is the pipeline that slipway up makes.
func declaration() *api.PipelineDeclaration {
	return &api.PipelineDeclaration{Name: new("todo"), RoleArn: new("arn:aws:iam::123456789012:role/pipeline"), PipelineType: new("V2"),
		ArtifactStore: &api.ArtifactStore{Type: new("S3"), Location: new("artifacts")},
		Stages: []api.StageDeclaration{
			{Name: new("Source"), Actions: []api.ActionDeclaration{act("Source", "Source", "CodeCommit", "", "SourceOutput",
				map[string]string{"RepositoryName": "todo", "BranchName": "main", "PollForSourceChanges": "false"})}},
			{Name: new("Build"), Actions: []api.ActionDeclaration{act("Build", "Build", "CodeBuild", "SourceOutput", "BuildOutput", map[string]string{"ProjectName": "todo"})}},
			{Name: new("Deploy"), Actions: []api.ActionDeclaration{act("Deploy", "Deploy", "CodeDeploy", "BuildOutput", "", map[string]string{"ApplicationName": "todo", "DeploymentGroupName": "todo"})}},
		}}
}

func (w *world) create(d *api.PipelineDeclaration) {
	w.t.Helper()
	call(w.t, w.svc.createPipeline, &api.CreatePipelineInput{Pipeline: d})
}

// list is the executions, the newest first.
func (w *world) list() []api.PipelineExecutionSummary {
	return call(w.t, w.svc.listPipelineExecutions, &api.ListPipelineExecutionsInput{PipelineName: new("todo")}).PipelineExecutionSummaries
}

// statuses are the statuses of the executions, the newest first.
func (w *world) statuses() string {
	var out []string
	for _, e := range w.list() {
		out = append(out, *e.Status)
	}
	return strings.Join(out, " ")
}

// stages is what GetPipelineState shows: "Source:Succeeded Build:InProgress Deploy:".
func (w *world) stages() string {
	var out []string
	for _, st := range w.state().StageStates {
		s := *st.StageName + ":"
		if st.LatestExecution != nil {
			s += *st.LatestExecution.Status
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// building waits until the first stage is done and the build has started. A
// stage is in progress before its action's provider has answered.
func (w *world) building(id string) {
	w.t.Helper()
	w.until("stages", w.stages, "Source:Succeeded Build:InProgress Deploy:")
	w.until("build", func() string {
		if e := w.state().StageStates[1].ActionStates[0].LatestExecution; e != nil && e.ExternalExecutionId != nil {
			return *e.ExternalExecutionId
		}
		return ""
	}, id)
}

func (w *world) state() *api.GetPipelineStateOutput {
	return call(w.t, w.svc.getPipelineState, &api.GetPipelineStateInput{Name: new("todo")})
}

func (w *world) until(what string, got func() string, want string) {
	w.t.Helper()
	sub := w.store.Subscribe()
	defer sub.Close()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	for got() != want {
		next, stop := context.WithTimeout(ctx, 20*time.Millisecond)
		_, _ = sub.Next(next)
		stop()
		if ctx.Err() != nil {
			w.t.Fatalf("%s: %s, never %s", what, got(), want)
		}
	}
}
