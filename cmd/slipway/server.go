package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"slipway/internal/admin"
	"slipway/internal/aws/dispatch"
	"slipway/internal/cli"
	"slipway/internal/clock"
	"slipway/internal/hostinfo"
	"slipway/internal/httpguard"
	"slipway/internal/lazyre"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox"
	"slipway/internal/machine/simulated"
	"slipway/internal/services/codecommit"
	"slipway/internal/services/sns"
	"slipway/internal/store"
)

// vpcEndpoint is where instances and builds find the API.
const vpcEndpoint = "172.31.0.2:4566"

// server is everything that `slipway server` runs.
type server struct {
	opts     cli.ServerOptions
	log      *slog.Logger
	clock    clock.Clock
	store    store.Store
	driver   machine.Driver
	mux      *dispatch.Mux
	balancer *balancer // nil with simulated machines
	endpoint string
	services
	runners []runner
	resets  []func() error // of what is kept beside the rows; ephemeral servers only
}

// runner is something that works until its context ends.
type runner struct {
	name string
	run  func(context.Context) error
}

// serve is `slipway server`: it returns when ctx ends or a part fails.
// Instances and load balancers outlive it.
func serve(ctx context.Context, o cli.ServerOptions) error {
	started := time.Now()
	level := slog.LevelInfo
	if o.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	if err := checkOptions(o); err != nil {
		return err
	}
	fresh, err := hostinfo.Claim(o.DataDir)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return fmt.Errorf("the API endpoint cannot listen on %s: %w; end what uses it or give another address with --listen", o.Listen, err)
	}
	defer listener.Close()
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return hostinfo.Explain(o.DataDir, err)
	}
	lock, err := hostinfo.Lock(o.DataDir)
	if err != nil {
		return hostinfo.Explain(o.DataDir, err)
	}
	defer lock.Close()
	// What an earlier server said of itself is void: this one is not ready.
	if err := hostinfo.RemoveRunning(o.DataDir); err != nil {
		return hostinfo.Explain(o.DataDir, err)
	}
	s := &server{opts: o, log: log, endpoint: "http://" + reachable(listener.Addr())}
	if err := s.open(ctx); err != nil {
		err = errors.Join(err, s.close())
		if fresh && s.driver == nil {
			// Nothing was kept yet, and nothing runs: leave no half-made data.
			err = errors.Join(err, hostinfo.Discard(o.DataDir))
		}
		return explain(o.DataDir, err)
	}
	err = s.run(ctx, listener, started)
	return explain(o.DataDir, errors.Join(err, s.close()))
}

// explain says what can be done about an error of the data directory.
func explain(dir string, err error) error {
	if errors.Is(err, store.ErrFull) {
		return fmt.Errorf("%w: make room in %s, or give another with --data-dir", err, dir)
	}
	return hostinfo.Explain(dir, err)
}

// reachable is where clients on this machine find a listener.
func reachable(a net.Addr) string {
	t, ok := a.(*net.TCPAddr)
	if !ok || !t.IP.IsUnspecified() {
		return a.String()
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(t.Port))
}

// maxTimeScale is as fast as waiting makes sense: a day in 86 milliseconds.
const maxTimeScale = 1_000_000

var validRegion = lazyre.New(`^[a-z]{2,}(-[a-z]+)+-[0-9]{1,2}$`)

func checkOptions(o cli.ServerOptions) error {
	host, port, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return fmt.Errorf("--listen %q is no address such as 127.0.0.1:4566: %w", o.Listen, err)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("--listen %q: %q is no port number (0 to 65535)", o.Listen, port)
	}
	ip := net.ParseIP(host)
	if o.Auth == "any" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("--auth any takes any credentials, so it is allowed on loopback addresses only, not on %s", o.Listen)
	}
	if o.Auth != "any" && o.Auth != "verify" {
		return fmt.Errorf("--auth must be verify or any, not %q", o.Auth)
	}
	if o.Machines != "sandbox" && o.Machines != "simulated" {
		return fmt.Errorf("--machines must be sandbox or simulated, not %q", o.Machines)
	}
	if o.Machines == "sandbox" && os.Getuid() != 0 {
		return errors.New("instances need root: run it with sudo. (--machines=simulated needs no root; nothing boots then.)")
	}
	// Written so that NaN is refused.
	if !(o.TimeScale >= 1 && o.TimeScale <= maxTimeScale) {
		return fmt.Errorf("--time-scale must be a number from 1 to %d, not %v", maxTimeScale, o.TimeScale)
	}
	if o.PortShift < 0 || o.PortShift > 65535-1023 {
		return fmt.Errorf("--port-shift must be 0 to %d, not %d", 65535-1023, o.PortShift)
	}
	if !validRegion.MatchString(o.Region) {
		return fmt.Errorf("--region %q is no region such as us-east-1", o.Region)
	}
	if lb := net.ParseIP(o.LBAddress); lb == nil || lb.To4() == nil || !lb.IsLoopback() {
		return fmt.Errorf("--lb-address must be an IPv4 loopback address, not %q", o.LBAddress)
	}
	if len(o.Account) != 12 || strings.Trim(o.Account, "0123456789") != "" {
		return fmt.Errorf("--account must have twelve digits, not %q", o.Account)
	}
	return nil
}

// open opens state and machines and puts the services together.
func (s *server) open(ctx context.Context) (err error) {
	if err := s.openStore(ctx); err != nil {
		return err
	}
	if err := s.openDriver(ctx); err != nil {
		return err
	}
	s.mux = dispatch.New()
	return s.wire()
}

// openStore opens the rows, and the clock: where a faster clock has written
// times that are still to come, time goes on from there.
func (s *server) openStore(ctx context.Context) (err error) {
	s.clock = clock.Real
	o := store.Options{Dir: s.opts.DataDir, Ephemeral: s.opts.Ephemeral}
	if s.store, err = store.Open(ctx, o); err != nil {
		return err
	}
	last, err := s.store.LastTime(ctx)
	if err != nil {
		return err
	}
	ahead := last.After(time.Now().Add(time.Second))
	if s.opts.TimeScale == 1 && !ahead {
		return nil
	}
	start := time.Time{}
	if ahead {
		start = last
	}
	s.clock = clock.Scaled(s.opts.TimeScale, start)
	if s.opts.Ephemeral {
		s.store.Close()
	} else if err := s.store.Close(); err != nil {
		return err
	}
	o.Clock = s.clock
	s.store, err = store.Open(ctx, o)
	return err
}

func (s *server) openDriver(ctx context.Context) error {
	if s.opts.Machines == "simulated" {
		s.driver = simulated.New(simulated.Options{Clock: s.clock})
		return nil
	}
	d, err := sandbox.Open(ctx, sandbox.Options{DataDir: s.dir("machines"), Clock: s.clock, Log: s.log, Hide: []string{s.opts.DataDir}, ReachHost: s.opts.ReachHost})
	if err != nil {
		return err
	}
	s.driver = d
	if s.balancer, err = newBalancer(s.dir("lb"), d, s.opts.TimeScale, s.log); err != nil {
		return err
	}
	return nil
}

// dir is a directory of the data directory; whoever uses it makes it.
func (s *server) dir(name string) string { return filepath.Join(s.opts.DataDir, name) }

func (s *server) close() error {
	var errs []error
	if s.driver != nil {
		errs = append(errs, s.driver.Close())
	}
	errs = append(errs, s.services.close())
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	errs = append(errs, hostinfo.RemoveRunning(s.opts.DataDir))
	return errors.Join(errs...)
}

// bodyIdle is how long a request's body may stand still.
const bodyIdle = time.Minute

// guarded is the public door, and the same door for instances and builds
// (inside), which have no business with shells, faults and the event stream.
func (s *server) guarded(h http.Handler, inside bool) http.Handler {
	h = httpguard.Patient(h, bodyIdle)
	if inside {
		open := h
		h = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if p := r.URL.Path; strings.HasPrefix(p, admin.Prefix) && !strings.HasPrefix(p, sns.PagesPrefix) && p != admin.Prefix+"health" {
				http.Error(w, "only the host may use "+admin.Prefix, http.StatusForbidden)
				return
			}
			open.ServeHTTP(w, r)
		})
	}
	if s.opts.Auth == "any" {
		h = httpguard.KnownHosts(h, ".amazonaws.com", ".localstack.cloud")
	}
	return h
}

// handler is the one public door: git, what AWS has no API for, and AWS's API.
func (s *server) handler(started time.Time) http.Handler {
	adm := s.admin(started)
	mux := http.NewServeMux()
	mux.Handle(codecommit.Prefix, s.codecommit.Git())
	mux.Handle(admin.Prefix, adm)
	mux.Handle(sns.PagesPrefix, s.sns.Pages())
	mux.Handle("GET /_localstack/health", adm.LocalStackHealth(s.built()))
	api := s.mux.Handler(dispatch.Config{
		Keys: s.iam, AuthAny: s.opts.Auth == "any", Account: s.opts.Account, Now: time.Now, Log: s.log,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only these paths are ours, and a bucket cannot have their names: an
		// object's key may hold what ServeMux would clean, such as "//".
		if strings.HasPrefix(r.URL.Path, admin.Prefix) || r.URL.Path == "/_localstack/health" || strings.HasPrefix(r.URL.Path, codecommit.Prefix) {
			mux.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	})
}

// run serves until ctx ends.
func (s *server) run(ctx context.Context, listener net.Listener, started time.Time) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	vpc, err := s.driver.ListenVPC(ctx, "tcp", vpcEndpoint)
	if err != nil {
		return fmt.Errorf("the API endpoint inside the instances' network: %w", err)
	}
	defer vpc.Close()
	door := s.handler(started)
	newServer := func(inside bool) *http.Server {
		return &http.Server{
			Handler: s.guarded(door, inside), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
			ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), BaseContext: func(net.Listener) context.Context { return ctx },
		}
	}
	servers := map[net.Listener]*http.Server{listener: newServer(false), vpc: newServer(true)}
	var wg sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	for l, srv := range servers {
		start("API endpoint", func(context.Context) error { return ignoreClosed(srv.Serve(l)) })
	}
	start("machines", s.driver.Run)
	if s.balancer != nil {
		start("load balancer process", s.balancer.Run)
	}
	for _, r := range s.runners {
		start(r.name, func(ctx context.Context) error { return s.outlast(ctx, r) })
	}
	err = hostinfo.WriteRunning(s.opts.DataDir, hostinfo.Running{PID: os.Getpid(), Endpoint: s.endpoint, Started: started, Version: version()})
	if err == nil {
		s.log.Info("ready", "endpoint", s.endpoint, "machines", s.driver.Name(), "took", time.Since(started))
		if s.opts.Ready != nil {
			s.opts.Ready(s.endpoint)
		}
		<-ctx.Done()
	} else {
		cancel(err)
	}
	stop, done := context.WithTimeout(context.Background(), 3*time.Second)
	defer done()
	for _, srv := range servers {
		wg.Go(func() {
			if err := srv.Shutdown(stop); err != nil {
				srv.Close() // long polls and shells do not end by themselves
			}
		})
	}
	wg.Wait()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// fullPause is how long a part waits that found no room on the disk.
const fullPause = time.Second

// outlast runs a part again that ended because the disk was full: somebody
// will make room, and what reads and serves must not end before that.
func (s *server) outlast(ctx context.Context, r runner) error {
	for {
		err := r.run(ctx)
		if ctx.Err() != nil || !errors.Is(err, store.ErrFull) {
			return err
		}
		s.log.Error("there is no room on the disk of the data directory; make some, it goes on by itself then", "part", r.name, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fullPause):
		}
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (s *server) admin(started time.Time) *admin.Handler {
	d := admin.Deps{
		Store: s.store, Driver: s.driver, Log: s.log, Version: version(), Started: started, PID: os.Getpid(),
		AnyCredentials: s.opts.Auth == "any",
		Secret: func(ctx context.Context, id string) (string, error) {
			c, err := s.iam.Lookup(ctx, id, "")
			return c.Secret, err
		},
		Listeners: func(ctx context.Context) (any, error) { return s.elbv2.Listeners(ctx) },
	}
	if s.opts.Ephemeral {
		d.Reset = s.reset
	}
	h := admin.New(d)
	s.routes(h)
	return h
}

// reset destroys all machines and forgets all rows: the freshly started
// state. Services make anew what they expect to find.
func (s *server) reset(ctx context.Context) error {
	for _, m := range s.driver.List() {
		if err := s.driver.Destroy(ctx, m.ID); err != nil {
			return err
		}
	}
	if err := s.store.Reset(ctx); err != nil {
		return err
	}
	for _, reset := range s.resets {
		if err := reset(); err != nil {
			return err
		}
	}
	return nil
}
