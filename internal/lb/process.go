package lb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"slipway/internal/clock"
	"slipway/internal/lb/forward"
)

// Process is the load balancer at run time. Apply, Health, Metrics and Watch are
// safe for concurrent use; Run must run for anything to be checked or served.
type Process struct {
	clock   clock.Clock
	log     *slog.Logger
	state   *stateFile
	sweeper *forward.Sweeper
	open    opener
	broker  broker
	started time.Time
	sealer  sealer // of stickiness cookies
	logDir  string

	ctx   context.Context // set by Run before ready: checks live in it
	ready chan struct{}   // closed when the stored configuration is in force
	wg    sync.WaitGroup
	kick  chan struct{} // a listener failed: try again

	mu        sync.Mutex
	applied   int64
	balancers map[string]*balancer
	groups    map[string]*group
	listeners map[string]*listener
	stopping  bool
	departed  []departed // for the metrics
	serial    int64      // the last that was given to a balancer or target
}

// NewProcess loads the last good configuration from the state file, if there is
// one. Call Run next.
func NewProcess(statePath string, open opener, clk clock.Clock, log *slog.Logger) (*Process, error) {
	st, err := openState(statePath)
	if err != nil {
		return nil, err
	}
	secret, err := st.secret()
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	seal, err := newSealer(secret)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return &Process{
		clock: clk, log: log, state: st, sweeper: forward.NewSweeper(), open: open, started: clk.Now(), sealer: seal,
		logDir: statePath + ".access", kick: make(chan struct{}, 1),
		balancers: map[string]*balancer{}, groups: map[string]*group{}, listeners: map[string]*listener{},
		ready: make(chan struct{}),
	}, nil
}

// drainTime is how long requests may take to finish when the process stops.
const drainTime = 30 * time.Second

// Run serves until the context ends; then it stops listening, lets requests finish
// and returns.
func (p *Process) Run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	p.ctx = work
	p.spawn(p.sweeper.Run)
	p.spawn(p.retryListeners)
	p.spawn(p.flushLogs)
	if s, err := p.state.load(); err != nil {
		p.log.Error("the stored configuration cannot be read; waiting for a new one", "error", err)
	} else if s != nil {
		if _, err := p.install(s, false); err != nil {
			p.log.Error("the stored configuration cannot be applied; waiting for a new one", "error", err)
		}
	}
	close(p.ready)
	<-ctx.Done()
	p.shutdown()
	cancel()
	p.wg.Wait()
	return p.state.Close()
}

// spawn runs f until Run ends.
func (p *Process) spawn(f func(context.Context) error) {
	ctx := p.ctx
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		if err := f(ctx); err != nil {
			p.log.Error("a part of the load balancer failed", "error", err)
		}
	}()
}

func (p *Process) shutdown() {
	p.mu.Lock()
	p.stopping = true
	ls := p.listeners
	p.listeners = map[string]*listener{}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	var wg sync.WaitGroup
	for _, l := range ls {
		wg.Go(func() { l.close(ctx) })
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		for _, t := range g.targets {
			t.end()
		}
	}
}

// end stops the checks and closes the connections at once.
func (t *target) end() {
	t.mu.Lock()
	stop, timer := t.stop, t.cutTimer
	t.stop, t.cutTimer = nil, nil
	t.mu.Unlock()
	if stop != nil {
		stop()
	}
	if timer != nil {
		timer()
	}
	t.ep.Close()
	t.ep.Cut()
}

// ErrStale refuses a snapshot that is older than the one in force.
var ErrStale = errors.New("the snapshot is older than the configuration in force")

// Apply is Client.Apply's other end. A snapshot with any mistake changes nothing.
func (p *Process) Apply(s *Snapshot) (Applied, error) {
	<-p.ready
	return p.install(s, true)
}

func (p *Process) install(s *Snapshot, save bool) (Applied, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopping {
		return Applied{}, errors.New("the load balancer is stopping")
	}
	if s.Version < p.applied {
		return Applied{}, fmt.Errorf("%w: %d, %d is", ErrStale, s.Version, p.applied)
	}
	pl, err := p.plan(s)
	if err != nil {
		return Applied{}, err
	}
	if save {
		if err := p.state.save(s); err != nil {
			return Applied{}, fmt.Errorf("store the configuration: %w", err)
		}
	}
	p.applied = s.Version
	p.execute(pl)
	out := Applied{Version: s.Version}
	for arn, l := range p.listeners {
		if l.err != nil {
			if out.ListenerErrors == nil {
				out.ListenerErrors = map[string]string{}
			}
			out.ListenerErrors[arn] = l.err.Error()
		}
	}
	p.broker.publish(Event{Kind: EventApplied, Time: p.clock.Now(), Version: s.Version})
	return out, nil
}

// Health returns every target's state.
func (p *Process) Health() []TargetHealth {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.healthLocked()
}

func (p *Process) healthLocked() []TargetHealth {
	out := []TargetHealth{}
	for _, g := range p.groups {
		for _, t := range g.targets {
			out = append(out, t.health())
		}
	}
	return out
}

// Info returns who this is.
func (p *Process) Info() Info {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Info{PID: os.Getpid(), Started: p.started, Applied: p.applied}
}

// Metrics returns all counters.
func (p *Process) Metrics() Metrics {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := Metrics{Started: p.started, At: p.clock.Now(), LoadBalancers: []LBMetrics{}, Targets: []TargetMetrics{}}
	p.forgetDeparted()
	for _, b := range p.balancers {
		m.LoadBalancers = append(m.LoadBalancers, b.metrics())
	}
	for _, g := range p.groups {
		for _, t := range g.targets {
			m.Targets = append(m.Targets, t.metrics())
		}
	}
	for _, d := range p.departed {
		if d.lb != nil {
			b := d.lb.metrics()
			b.Gone = true
			m.LoadBalancers = append(m.LoadBalancers, b)
		} else {
			m.Targets = append(m.Targets, d.target.metrics())
		}
	}
	return m
}

// departed is a balancer or a target that left the configuration: its last
// counts are still to be read.
type departed struct {
	at     time.Time
	lb     *balancer
	target *target
}

// depart remembers what left.
func (p *Process) depart(lb *balancer, t *target) {
	p.forgetDeparted()
	p.departed = append(p.departed, departed{at: p.clock.Now(), lb: lb, target: t})
}

func (p *Process) forgetDeparted() {
	now := p.clock.Now()
	p.departed = slices.DeleteFunc(p.departed, func(d departed) bool { return now.Sub(d.at) > remembered })
}

// remembered is how long departed ones are: longer than between two readings.
const remembered = 2 * time.Minute

func (b *balancer) metrics() LBMetrics {
	c := b.stats.counters()
	put(c, "NewConnectionCount", b.conns.New.Load())
	put(c, "RejectedConnectionCount", b.conns.Rejected.Load())
	put(c, "ProcessedBytes", b.conns.Processed.Load())
	put(c, "ClientTLSNegotiationErrorCount", b.conns.TLSErrors.Load())
	return LBMetrics{ARN: b.arn, Serial: b.serial, Counters: c, PaidRules: float64(b.stats.paidRules.Load()), ActiveConnections: b.conns.TakePeak()}
}

func (t *target) metrics() TargetMetrics {
	h, g := t.health(), t.group
	_, open := g.candidates()
	return TargetMetrics{
		LoadBalancer: g.conf.Load().lbARN, TargetGroup: g.arn, ID: h.ID, Port: h.Port, Serial: t.serial, Zone: h.Zone, State: h.State, FailOpen: open,
		Counters: t.stats.counters(), ResponseTime: t.stats.histogram(),
	}
}
