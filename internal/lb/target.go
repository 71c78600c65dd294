package lb

import (
	"crypto/tls"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"slipway/internal/lb/forward"
)

// target is a registered address at run time. It lives as long as successive
// snapshots name the same (group, ID, port, IP).
type target struct {
	conf  Target
	group *group
	ep    *forward.Endpoint
	stats targetStats
	// serial tells it from a former target with the same identity.
	serial int64
	hash   uint64 // identifies it in cookies

	ok        atomic.Bool  // may be chosen: healthy
	rampSince atomic.Int64 // slow start began, Unix ns; 0 none

	mu        sync.Mutex // guards what follows
	state     HealthState
	reason    string
	text      string
	since     time.Time
	good, bad int
	draining  bool
	drained   bool
	stop      func()      // ends the health checks; nil while none run
	cutTimer  func() bool // stops the timer of the deregistration delay
}

type targetKey struct {
	id   string
	port int
}

// group is a target group at run time.
type group struct {
	arn     string
	conf    atomic.Pointer[groupConf]
	view    atomic.Pointer[groupView]
	turn    atomic.Uint64
	used    bool // a listener's action names it
	targets map[targetKey]*target
}

// groupConf is a target group's configuration, compiled.
type groupConf struct {
	TargetGroup
	check     checkConf
	least     bool
	slowStart time.Duration
	delay     time.Duration
	minOK     int // fewer healthy targets than this: all take traffic
	sticky    stickyConf
	lbARN     string
}

// groupView is who takes requests now. Immutable.
type groupView struct {
	healthy []*target
	all     []*target // registered and not draining
	ramping bool
}

func newTarget(g *group, c Target, sweeper *forward.Sweeper, now time.Time, changed func(*target)) *target {
	t := &target{conf: c, group: g, state: StateInitial, since: now, hash: hash(g.arn, c.ID, strconv.Itoa(c.Port), c.IP)}
	t.setReason("Elb.RegistrationInProgress", "Target registration is in progress")
	var tc *tls.Config
	if g.conf.Load().Protocol == "HTTPS" {
		// ALB does not verify targets' certificates (user guide, "Target groups").
		tc = &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(8), MinVersion: tls.VersionTLS10}
	}
	t.ep = forward.NewEndpoint(sweeper, net.JoinHostPort(c.IP, strconv.Itoa(c.Port)), tc, func() { changed(t) })
	t.ep.Owner = t
	return t
}

func (t *target) setReason(code, text string) { t.reason, t.text = code, text }

// health returns a copy for the outside.
func (t *target) health() TargetHealth {
	conf := t.group.conf.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	h := TargetHealth{
		TargetGroup: t.group.arn, ID: t.conf.ID, Port: t.conf.Port, Zone: t.conf.Zone,
		HealthCheckPort: strconv.Itoa(conf.check.portOf(t.conf.Port)),
		State:           t.state, Reason: t.reason, Description: t.text, Since: t.since, InFlight: t.ep.InFlight(),
	}
	if t.draining {
		h.State, h.Reason, h.Description = StateDraining, "Target.DeregistrationInProgress", "Target deregistration is in progress"
		h.Drained = t.drained
	}
	return h
}

// refresh recomputes who takes requests. The caller holds the process's lock or is
// the only one to change the group's targets.
func (g *group) refresh() {
	v := &groupView{}
	slow := g.conf.Load().slowStart > 0
	for _, t := range g.targets {
		t.mu.Lock()
		draining := t.draining
		t.mu.Unlock()
		if draining {
			continue
		}
		v.all = append(v.all, t)
		if t.ok.Load() {
			v.healthy = append(v.healthy, t)
			v.ramping = v.ramping || slow && t.rampSince.Load() != 0
		}
	}
	sortTargets(v.all)
	sortTargets(v.healthy)
	g.view.Store(v)
}

// candidates returns who may take a request and whether it is everybody because
// too few are healthy.
func (g *group) candidates() ([]*target, bool) {
	v := g.view.Load()
	if len(v.healthy) == 0 || len(v.healthy) < g.conf.Load().minOK {
		return v.all, len(v.all) > 0
	}
	return v.healthy, false
}

// pick acquires a target by the group's algorithm; nil when there is none. Targets
// for which skip is true are taken only when nobody else is there.
func (g *group) pick(now time.Time, skip func(*target) bool) (chosen *target, failOpen bool) {
	set, open := g.candidates()
	if len(set) == 0 {
		return nil, false
	}
	if t := g.choose(set, now, skip); t != nil {
		return t, open
	}
	return nil, false
}

func (g *group) choose(set []*target, now time.Time, skip func(*target) bool) *target {
	conf := g.conf.Load()
	n := len(set)
	start := int(g.turn.Add(1) % uint64(n))
	if conf.least {
		best := -1
		var least int64
		for i := range n {
			t := set[(start+i)%n]
			if skip != nil && skip(t) {
				continue
			}
			if f := t.ep.InFlight(); best < 0 || f < least {
				best, least = (start+i)%n, f
			}
		}
		if best >= 0 && set[best].ep.Acquire() {
			return set[best]
		}
	}
	ramping := conf.slowStart > 0 && g.view.Load().ramping
	for pass := range 2 {
		for i := range n {
			t := set[(start+i)%n]
			if skip != nil && skip(t) {
				continue
			}
			if pass == 0 && ramping && t.heldBack(conf.slowStart, now) {
				continue
			}
			if t.ep.Acquire() {
				return t
			}
		}
	}
	return nil
}
