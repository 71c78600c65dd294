package codepipeline

import (
	"context"
	"io"
	"log/slog"
	"sync"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/git"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// Repositories are what CodeCommit source actions read.
type Repositories interface {
	// Commit resolves a commit id, branch or tag.
	Commit(ctx context.Context, account, region, repository, spec string) (*git.Commit, error)
	// Archive writes a commit's files as a ZIP.
	Archive(ctx context.Context, account, region, repository, commit string, w io.Writer) error
}

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock // nil: clock.Real
	// Mux is where the service reaches S3 (artifacts), CodeBuild, CodeDeploy
	// and SNS (approvals).
	Mux *dispatch.Mux
	// Repositories is *codecommit.Service.
	Repositories Repositories
	Log          *slog.Logger // nil: slog.Default
}

// Service is CodePipeline. Its methods are safe for concurrent use.
type Service struct {
	deps       Deps
	controller *reconcile.Controller

	mu sync.Mutex
	// looked are the pipelines whose sources have not moved since we looked.
	looked map[store.Key]bool
	// owners lead from a build or deployment under way to its pipeline.
	owners map[string]store.Key
	// objects are the pipelines that an object ("bucket/key") starts.
	objects map[string]map[store.Key]bool
}

// New makes the service; Register and Run bring it to life.
func New(d Deps) *Service {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	d.Log = d.Log.With("service", "codepipeline")
	s := &Service{deps: d, looked: map[store.Key]bool{}, owners: map[string]store.Key{}, objects: map[string]map[store.Key]bool{}}
	s.controller = &reconcile.Controller{Name: "codepipeline-pipelines", Store: d.Store, Clock: d.Clock, Kind: pipelines.Kind,
		Reconcile: s.reconcile, Log: d.Log, Watch: map[string]func(store.Event) []store.Key{
			executions.Kind:         s.ofExecution,
			"codecommit:branch":     s.ofBranch,
			"s3:object":             s.ofObject,
			"codebuild:build":       s.ofExternal,
			"codedeploy:deployment": s.ofExternal,
		}}
	return s
}

// Run drives executions until ctx ends. Builds and deployments then go on,
// and the next Run finds them.
func (s *Service) Run(ctx context.Context) error { return s.controller.Run(ctx) }

func (s *Service) ofExecution(ev store.Event) []store.Key {
	return []store.Key{pipelines.Key(ev.Key.Account, ev.Key.Region, ev.Parent)}
}

// ofBranch has every pipeline near a branch that moved look at its sources.
func (s *Service) ofBranch(ev store.Event) []store.Key {
	rows, err := pipelines.Select(context.Background(), s.deps.Store, store.Query{Account: ev.Key.Account, Region: ev.Key.Region})
	if err != nil {
		s.deps.Log.Error("pipelines of a branch not found", "branch", ev.Key.ID, "error", err)
	}
	keys := make([]store.Key, len(rows))
	for i, row := range rows {
		keys[i] = row.Key
		s.forget(row.Key)
	}
	return keys
}

// ofObject has the pipelines of an object look at it.
func (s *Service) ofObject(ev store.Event) []store.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []store.Key
	for key := range s.objects[ev.Key.ID] {
		keys = append(keys, key)
		delete(s.looked, key)
	}
	return keys
}

// watch remembers the objects that a pipeline starts from; those of an older
// version of it cost a look in vain.
func (s *Service) watch(key store.Key, d *api.PipelineDeclaration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range d.Stages[0].Actions {
		c := d.Stages[0].Actions[i].Configuration
		if c["S3Bucket"] == "" {
			continue
		}
		id := c["S3Bucket"] + "/" + c["S3ObjectKey"]
		if s.objects[id] == nil {
			s.objects[id] = map[store.Key]bool{}
		}
		s.objects[id][key] = true
	}
}

// forget makes the next look at a pipeline ask its sources.
func (s *Service) forget(key store.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.looked, key)
}

func (s *Service) ofExternal(ev store.Event) []store.Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key, ok := s.owners[ev.Key.ID]; ok {
		return []store.Key{key}
	}
	return nil
}

// own remembers whose a build or deployment is, until over.
func (s *Service) own(external string, key store.Key, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if over {
		delete(s.owners, external)
	} else if external != "" {
		s.owners[external] = key
	}
}

// as is the context of a call on a pipeline's behalf. CodeBuild shows the
// principal's id as the initiator of a build.
func (s *Service) as(ctx context.Context, key store.Key) context.Context {
	ctx = caller.ForService(ctx, "codepipeline", key.Account, key.Region)
	id := caller.From(ctx)
	id.PrincipalID = "codepipeline/" + key.ID
	return caller.With(ctx, id)
}
