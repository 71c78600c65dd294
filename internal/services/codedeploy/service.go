package codedeploy

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// Deps is what the service needs.
type Deps struct {
	Store store.Store
	// Mux is where the service reaches EC2, Auto Scaling, ELB, S3, Logs, SNS
	// and CloudWatch.
	Mux   *dispatch.Mux
	Clock clock.Clock // nil: clock.Real
	// Dir is a directory of the service's own, made if missing (0700). It
	// holds the key that signs deployment specifications (0600).
	Dir string
	Log *slog.Logger // nil: slog.Default
	// AnyHost lets every caller act for every instance: for a server that
	// does not verify signatures (loopback only).
	AnyHost bool
}

// Service is CodeDeploy. Its methods are safe for concurrent use.
type Service struct {
	store   store.Store
	mux     *dispatch.Mux
	clock   clock.Clock
	log     *slog.Logger
	anyHost bool
	signer  *signer
	hub     *hub
	look    lookout
	patient patience

	deployments *reconcile.Controller
	groups      *reconcile.Controller
}

// New makes the service; it makes or loads the signing key.
func New(deps Deps) (*Service, error) {
	s := &Service{store: deps.Store, mux: deps.Mux, clock: deps.Clock, log: deps.Log, anyHost: deps.AnyHost, hub: newHub()}
	if s.clock == nil {
		s.clock = clock.Real
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.log = s.log.With("service", "codedeploy")
	var err error
	if s.signer, err = loadSigner(deps.Dir); err != nil {
		return nil, fmt.Errorf("codedeploy: %w", err)
	}
	// Agents live in the machine's time, whatever the rate of our clock: what
	// they are given must not shrink with it.
	inStore := func(d time.Duration) time.Duration {
		return time.Duration(float64(d) * (float64(time.Hour) / float64(s.clock.Real(time.Hour))))
	}
	s.patient = patience{Pickup: inStore(5 * time.Minute), Event: inStore(time.Hour), Traffic: inStore(time.Hour)}
	s.deployments = &reconcile.Controller{
		Name: "codedeploy-deployments", Store: s.store, Clock: s.clock, Kind: deployments.Kind, Log: s.log,
		Reconcile: s.reconcileDeployment, Watch: s.deploymentWatches(),
	}
	s.groups = &reconcile.Controller{
		Name: "codedeploy-groups", Store: s.store, Clock: s.clock, Kind: groups.Kind, Log: s.log,
		Reconcile: s.reconcileGroup, Watch: s.groupWatches(),
	}
	return s, nil
}

// Run drives deployments until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{s.deployments.Run, s.groups.Run, s.hub.run(s.store), s.narrate} {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != context.Canceled {
		return err
	}
	return nil
}

// as is the context of a call on the service's own behalf.
func (s *Service) as(ctx context.Context, account, region string) context.Context {
	return caller.ForService(ctx, "codedeploy", account, region)
}
