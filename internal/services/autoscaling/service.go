package autoscaling

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock   // nil: clock.Real
	Mux   *dispatch.Mux // to call EC2 and ELBv2
	Log   *slog.Logger  // nil: slog.Default
	// Pick chooses among equals, a number below n; nil: at random. Tests fix it.
	Pick func(n int) int
}

// Service is EC2 Auto Scaling. All methods are safe for concurrent use.
type Service struct {
	Deps
	controller *reconcile.Controller
	notifier   *reconcile.Controller
	policies   *reconcile.Controller
	schedules  *reconcile.Controller
}

// New makes the service; Register and Run bring it to life.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = clock.Real
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	if deps.Pick == nil {
		deps.Pick = rand.IntN
	}
	s := &Service{Deps: deps}
	s.controller = &reconcile.Controller{
		Name: "autoscaling:group", Store: deps.Store, Clock: deps.Clock, Kind: groups.Kind, Workers: 4, Reconcile: s.reconcile, Log: deps.Log,
		Watch: map[string]func(store.Event) []store.Key{
			instances.Kind: byParent,
			intents.Kind:   byParent,
			hooks.Kind:     byParent,
			refreshes.Kind: byParent,
			"ec2:instance": func(ev store.Event) []store.Key { return s.groupOf(ev.Key, ev.Key.ID) },
			"elbv2:target": s.groupOfTarget,
		},
	}
	s.notifier = &reconcile.Controller{
		Name: "autoscaling:activity", Store: deps.Store, Clock: deps.Clock, Kind: activities.Kind, Workers: 2, Reconcile: s.notifyActivity, Log: deps.Log,
	}
	s.policies = &reconcile.Controller{
		Name: "autoscaling:policy", Store: deps.Store, Clock: deps.Clock, Kind: policies.Kind, Workers: 2, Reconcile: s.reconcilePolicy, Log: deps.Log,
		Watch: map[string]func(store.Event) []store.Key{groups.Kind: s.policiesOf},
	}
	s.schedules = &reconcile.Controller{
		Name: "autoscaling:schedule", Store: deps.Store, Clock: deps.Clock, Kind: schedules.Kind, Workers: 2, Reconcile: s.reconcileSchedule, Log: deps.Log,
		Watch: map[string]func(store.Event) []store.Key{groups.Kind: s.schedulesOf},
	}
	return s
}

// Run keeps every group at its desired capacity, and its topics informed,
// until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.controller.Run(ctx) })
	g.Go(func() error { return s.notifier.Run(ctx) })
	g.Go(func() error { return s.policies.Run(ctx) })
	g.Go(func() error { return s.schedules.Run(ctx) })
	return g.Wait()
}

// byParent leads from a row of a group to the group.
func byParent(ev store.Event) []store.Key {
	if ev.Parent == "" {
		return nil
	}
	return []store.Key{groups.Key(ev.Key.Account, ev.Key.Region, ev.Parent)}
}

// groupOf finds the group of an instance, by its row.
func (s *Service) groupOf(key store.Key, instance string) []store.Key {
	var out []store.Key
	// A failure here is no loss: the store is gone, and with it the controller.
	_ = s.Store.View(context.Background(), func(r store.Reader) error {
		rec, err := r.Get(instances.Key(key.Account, key.Region, instance))
		if err == nil && rec.Parent != "" {
			out = []store.Key{groups.Key(key.Account, key.Region, rec.Parent)}
		}
		return nil
	})
	return out
}

// groupOfTarget reads the instance out of a target's id, "arn|instance|port".
func (s *Service) groupOfTarget(ev store.Event) []store.Key {
	parts := strings.Split(ev.Key.ID, "|")
	if len(parts) < 2 || !strings.HasPrefix(parts[1], "i-") {
		return nil
	}
	return s.groupOf(ev.Key, parts[1])
}

// where is the account and region of a request.
func where(ctx context.Context) (account, region string) {
	id := caller.From(ctx)
	return id.Account, id.Region
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// orNil is nil for the zero value: absent on the wire.
func orNil[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
