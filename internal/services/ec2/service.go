package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/machine"
	"slipway/internal/reconcile"
	"slipway/internal/services/ec2/imds"
	"slipway/internal/store"
)

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store    store.Store
	Clock    clock.Clock
	Mux      *dispatch.Mux  // to call IAM, STS and SSM
	Machines machine.Driver // boots the instances
	Log      *slog.Logger   // nil: slog.Default
	// StrictImages refuses an AMI id that is not registered; otherwise it
	// stands for the default image, with a warning on the instance.
	StrictImages bool
	// Endpoint is the API's URL as seen inside the instances; "" means
	// "http://172.31.0.2:4566".
	Endpoint string
	// Agents run in every instance, by name; nil means the CodeDeploy agent.
	Agents []machine.AgentCommand
}

// Service is EC2. All methods are safe for concurrent use.
type Service struct {
	Deps
	controller *reconcile.Controller
	imds       *imds.Handler
	// causes are the ends of machines as the driver's events told them, by
	// id, until the controller has written them down: the driver's status
	// may follow its event.
	causes sync.Map
}

// New makes the service; Register and Run bring it to life.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = clock.Real
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	if deps.Endpoint == "" {
		deps.Endpoint = "http://172.31.0.2:4566"
	}
	if deps.Agents == nil {
		deps.Agents = []machine.AgentCommand{{Name: "codedeploy-agent", Args: []string{machine.SlipwayBinary, "agent", "codedeploy"}}}
	}
	s := &Service{Deps: deps}
	s.imds = imds.New((*metadataSource)(s), deps.Log)
	s.controller = &reconcile.Controller{
		Name: "ec2:instance", Store: deps.Store, Clock: deps.Clock, Kind: instances.Kind,
		Workers: 8, Reconcile: s.reconcile, Log: deps.Log,
	}
	return s
}

// Metadata is the handler of the instance metadata service; it knows the
// caller by its source address.
func (s *Service) Metadata() http.Handler { return s.imds }

// Run keeps machines and rows in agreement and serves the instance metadata
// until ctx ends. Machines go on running afterwards.
func (s *Service) Run(ctx context.Context) error {
	events, cancel := s.Machines.Events()
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.controller.Run(ctx) })
	g.Go(func() error { return s.watchMachines(ctx, events) })
	g.Go(func() error { return s.removeOrphans(ctx) })
	g.Go(func() error { return s.serveMetadata(ctx) })
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// watchMachines turns a machine's exit into a look at its row, at once.
func (s *Service) watchMachines(ctx context.Context, events <-chan machine.Event) error {
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				return nil
			}
			if ev.Type != machine.EventExited {
				continue
			}
			s.causes.Store(ev.ID, ev.Cause)
			if key, ok := s.keyOfMachine(ctx, ev.ID); ok {
				s.controller.Enqueue(key)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// keyOfMachine finds the row of a machine: by the labels that it was booted
// with, else by its id in any account.
func (s *Service) keyOfMachine(ctx context.Context, id string) (store.Key, bool) {
	if st, err := s.Machines.Status(id); err == nil && st.Spec.Labels[labelAccount] != "" {
		return instances.Key(st.Spec.Labels[labelAccount], st.Spec.Labels[labelRegion], id), true
	}
	rows, err := instances.Select(ctx, s.Store, store.Query{Prefix: id, Limit: 1})
	if err != nil || len(rows) == 0 {
		return store.Key{}, false
	}
	return rows[0].Key, true
}

// removeOrphans destroys machines of ours that have no living row: what a
// crash between two steps, or a lost data directory, left behind.
func (s *Service) removeOrphans(ctx context.Context) error {
	for _, st := range s.Machines.List() {
		if st.Spec.Kind != machine.KindInstance || st.Spec.Labels[labelAccount] == "" {
			continue
		}
		row, err := instances.Find(ctx, s.Store, st.Spec.Labels[labelAccount], st.Spec.Labels[labelRegion], st.ID)
		if err == nil && row.Doc.State != stateTerminated {
			continue
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("ec2: looking for orphaned machines: %w", err)
		}
		s.Log.Warn("destroying a machine that has no instance", "id", st.ID)
		if err := s.Machines.Destroy(ctx, st.ID); err != nil && ctx.Err() == nil {
			s.Log.Error("could not destroy an orphaned machine", "id", st.ID, "error", err)
		}
	}
	return nil
}

// serveMetadata answers at the address where every EC2 instance looks for it.
func (s *Service) serveMetadata(ctx context.Context) error {
	ln, err := s.Machines.ListenVPC(ctx, "tcp", "169.254.169.254:80")
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("ec2: instance metadata service: %w", err)
	}
	srv := &http.Server{Handler: s.imds, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("ec2: instance metadata service: %w", err)
	}
	return nil
}

// where is the account and region of a request.
func where(ctx context.Context) (account, region string) {
	id := caller.From(ctx)
	return id.Account, id.Region
}

// convert copies between API shapes that share their members' names.
func convert[T any](from any) (T, error) {
	var to T
	raw, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(raw, &to)
	}
	if err != nil {
		return to, awserr.New("InternalError", "An internal error has occurred").WithStatus(500).WithCause(err)
	}
	return to, nil
}
