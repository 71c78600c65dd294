package codebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/git"
	"slipway/internal/machine"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// Repositories are the git repositories that a build can have as its source.
// *codecommit.Service is one.
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
	// Mux is where the service reaches STS (the build's role), S3 (artifacts)
	// and CloudWatch Logs.
	Mux *dispatch.Mux
	// Machines boots one machine of KindBuild per build.
	Machines machine.Driver
	// Repositories serve sources of type CODECOMMIT; nil: there are none.
	Repositories Repositories
	Log          *slog.Logger // nil: slog.Default
	// Endpoint is the API's URL as machines see it; "" means
	// "http://172.31.0.2:4566".
	Endpoint string
	// MaxBuilds is how many builds run at once, the others wait in QUEUED;
	// 0 means 8.
	MaxBuilds int
	// Free is how many bytes the disk has left on which builds write; ok is
	// false, or Free nil, if that is not known.
	Free func() (bytes uint64, ok bool)
}

// Service is CodeBuild. Its methods are safe for concurrent use.
type Service struct {
	deps       Deps
	controller *reconcile.Controller

	mu   sync.Mutex
	runs map[store.Key]bool // builds that a goroutine of ours follows
	work sync.WaitGroup
	ctx  context.Context // of Run; nil before
}

// New makes the service; Register and Run bring it to life.
func New(d Deps) *Service {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	d.Log = d.Log.With("service", "codebuild")
	if d.Endpoint == "" {
		d.Endpoint = "http://" + machine.VPCHost + ":4566"
	}
	if d.MaxBuilds <= 0 {
		d.MaxBuilds = 8
	}
	s := &Service{deps: d, runs: map[store.Key]bool{}}
	s.controller = &reconcile.Controller{Name: "codebuild-builds", Store: d.Store, Clock: d.Clock, Kind: builds.Kind,
		Reconcile: s.reconcile, Log: d.Log}
	return s
}

// Run drives builds until ctx ends. What runs in machines then goes on, and
// the next Run follows it.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	defer s.work.Wait()
	g.Go(func() error { return s.removeOrphans(ctx) })
	g.Go(func() error { return s.serveDoor(ctx) })
	g.Go(func() error { return s.controller.Run(ctx) })
	err := g.Wait()
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// stopPatience is how long a runner may take to end after StopBuild, in real
// time, before its machine is taken away.
const stopPatience = 20 * time.Second

// reconcile sees to it that a build is followed, stopped or cleaned up.
func (s *Service) reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := builds.Find(ctx, s.deps.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	b := &row.Doc
	switch {
	case b.Cleaned:
		return 0, nil
	case b.Complete():
		return 0, s.clean(ctx, row)
	case !b.StopAt.IsZero() && !b.LaunchedAt.IsZero():
		return s.stop(ctx, row)
	}
	if s.follow(key) {
		return s.watchdog(ctx, row)
	}
	if waited := s.deps.Clock.Since(b.QueuedAt); waited > time.Duration(ptr.Value(b.API.QueuedTimeoutInMinutes))*time.Minute {
		return 0, s.end(ctx, key, api.StatusTypeTimedOut, because("BUILD_QUEUE_TIMED_OUT", "The build waited in the queue longer than its time limit."))
	}
	return 200 * time.Millisecond, nil
}

// inClock is a time of the machines, which live in real time, on our clock.
func (s *Service) inClock(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (float64(time.Hour) / float64(s.deps.Clock.Real(time.Hour))))
}

// watchdog ends a build whose runner did not keep its own time limit.
func (s *Service) watchdog(ctx context.Context, row *buildRow) (time.Duration, error) {
	if row.Doc.LaunchedAt.IsZero() {
		return 0, nil
	}
	limit := s.inClock(time.Duration(ptr.Value(row.Doc.API.TimeoutInMinutes))*time.Minute + time.Minute)
	left := limit - s.deps.Clock.Since(row.Doc.LaunchedAt)
	if left > 0 {
		return left, nil
	}
	return 0, s.end(ctx, row.Key, api.StatusTypeTimedOut, because("BUILD_TIMED_OUT", "Build has timed out."))
}

// stop asks the runner to end, and ends the build without it after a while.
func (s *Service) stop(ctx context.Context, row *buildRow) (time.Duration, error) {
	s.follow(row.Key)
	if s.deps.Clock.Since(row.Doc.StopAt) > s.inClock(stopPatience) {
		return 0, s.end(ctx, row.Key, api.StatusTypeStopped, because("", "The build was stopped."))
	}
	_, err := s.deps.Machines.Exec(ctx, machineID(row.ID), machine.ExecSpec{Args: []string{"sh", "-c", `kill -TERM "$(cat ` + pidFile + `)"`}, Timeout: 5 * time.Second})
	if err != nil && ctx.Err() == nil {
		s.deps.Log.Debug("runner could not be told to stop", "build", row.ID, "error", err)
	}
	return s.inClock(5 * time.Second), nil
}

// end gives a build its final status from outside.
func (s *Service) end(ctx context.Context, key store.Key, status string, why api.PhaseContext) error {
	_, err := s.change(ctx, key, "Completed", func(_ store.Tx, row *buildRow) error {
		row.Doc.finish(status, s.deps.Clock.Now(), why)
		return nil
	})
	if errors.Is(err, errOver) {
		return nil
	}
	return err
}

// follow makes sure that a goroutine drives the build. It is false where
// there are too many already.
func (s *Service) follow(key store.Key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs[key] {
		return true
	}
	if len(s.runs) >= s.deps.MaxBuilds || s.ctx == nil || s.ctx.Err() != nil {
		return false
	}
	s.runs[key] = true
	ctx := s.ctx
	s.work.Go(func() {
		s.drive(ctx, key)
		s.mu.Lock()
		delete(s.runs, key)
		s.mu.Unlock()
		s.controller.Enqueue(key)
	})
	return true
}

// clean gives back what a build had.
func (s *Service) clean(ctx context.Context, row *buildRow) error {
	if err := s.deps.Machines.Destroy(ctx, machineID(row.ID)); err != nil {
		return fmt.Errorf("destroy the machine of %s: %w", row.ID, err)
	}
	return s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := builds.Get(tx, row.Account, row.Region, row.ID)
		if err != nil || row.Doc.Cleaned {
			return err
		}
		if err := release(tx, row); err != nil {
			return err
		}
		row.Doc.Cleaned = true
		return builds.Save(tx, row, "Cleaned", nil)
	})
}

func release(tx store.Tx, row *buildRow) error {
	if lease, err := leases.Get(tx, "", "", row.Doc.Address); err == nil && lease.Doc.Build == row.ID {
		if err := leases.Delete(tx, lease, "Released", nil); err != nil {
			return err
		}
	}
	if door, err := doors.Get(tx, "", "", row.Doc.Door); err == nil {
		return doors.Delete(tx, door, "Closed", nil)
	}
	return nil
}

const labelBuild, labelAccount, labelRegion = "codebuild:build", "codebuild:account", "codebuild:region"

// removeOrphans destroys machines of ours whose build is over or unknown:
// what a lost data directory or a deleted build left behind.
func (s *Service) removeOrphans(ctx context.Context) error {
	for _, st := range s.deps.Machines.List() {
		l := st.Spec.Labels
		if st.Spec.Kind != machine.KindBuild || l[labelBuild] == "" {
			continue
		}
		row, err := builds.Find(ctx, s.deps.Store, l[labelAccount], l[labelRegion], l[labelBuild])
		if err == nil && !row.Doc.Cleaned {
			continue
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := s.deps.Machines.Destroy(ctx, st.ID); err != nil && ctx.Err() == nil {
			s.deps.Log.Error("could not destroy an orphaned machine", "id", st.ID, "error", err)
		}
	}
	return nil
}

// serveDoor answers machines at the address where containers look for their
// credentials.
func (s *Service) serveDoor(ctx context.Context) error {
	ln, err := s.deps.Machines.ListenVPC(ctx, "tcp", doorAddress)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("codebuild: container credentials: %w", err)
	}
	srv := &http.Server{Handler: s.door(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.deps.Log.Handler(), slog.LevelDebug)}
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	if err := srv.Serve(ln); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("codebuild: container credentials: %w", err)
	}
	return nil
}

// as is the context of a call on the service's own behalf.
func (s *Service) as(ctx context.Context, key store.Key) context.Context {
	return caller.ForService(ctx, "codebuild", key.Account, key.Region)
}

// machineID names a build's machine after its UUID.
func machineID(build string) string { return "build-" + build[strings.LastIndexByte(build, ':')+1:] }
