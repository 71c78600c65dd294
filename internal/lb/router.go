package lb

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync/atomic"

	"slipway/internal/lb/forward"
	"slipway/internal/lb/h1"
)

// front is a listener's router: the rules in force and where its figures go. It
// implements forward.Router.
type front struct {
	lb     *balancer
	table  atomic.Pointer[table]
	sealer sealer
	log    *slog.Logger
}

// balancer is a load balancer at run time.
type balancer struct {
	arn, name              string
	serial                 int64
	stats                  lbStats
	conns                  forward.Counters
	explainedAt, explained atomic.Int64
	log                    atomic.Pointer[accessLog] // nil when access logs are off
}

// table is a listener's configuration, compiled. Immutable.
type table struct {
	listener Listener
	rules    []rule // ascending priority, the default rule last
	options  forward.Options
	tls      *tls.Config
	ports    map[string]string // AWS's port -> the real one, of the balancer's listeners
}

// What an Exchange's Note holds.
const (
	noteRule     = iota // priority of the matched rule, -1 before one matched
	noteFailOpen        // 1 when the target was chosen though unhealthy
	noteAction          // index into actionNames
)

var actionNames = [...]string{"-", "forward", "fixed-response", "redirect"}

// Route implements forward.Router.
func (f *front) Route(x *forward.Exchange) {
	t := f.table.Load()
	evaluated := int64(0)
	for i := range t.rules {
		r := &t.rules[i]
		if r.priority != 0 {
			evaluated++
		}
		if r.matches(x) {
			f.lb.stats.evaluated(evaluated)
			x.Note[noteRule] = r.priority
			f.act(x, &r.action)
			return
		}
	}
	f.lb.stats.evaluated(evaluated)
	f.unavailable(x, "no rule matches")
}

func (f *front) unavailable(x *forward.Exchange, why string) {
	x.Action, x.Cause = forward.ActionReply, why
	x.Reply = forward.Reply{Status: 503, HTML: true}
}

func (f *front) act(x *forward.Exchange, a *compiledAction) {
	switch {
	case a.fixed != nil:
		x.Action, x.Note[noteAction] = forward.ActionReply, 2
		f.lb.stats.fixed.Add(1)
		x.Reply = forward.Reply{Status: a.fixed.StatusCode, ContentType: a.fixed.ContentType, Body: a.fixed.Body}
	case a.redirect != nil:
		x.Action, x.Note[noteAction] = forward.ActionReply, 3
		if redirect(x, a.redirect, f.table.Load().ports) {
			f.lb.stats.redirects.Add(1)
			return
		}
		f.lb.stats.redirectLimit.Add(1)
		x.Cause = "the redirect's Location is over 8 KiB or malformed"
		x.Reply = forward.Reply{Status: 500, HTML: true}
	default:
		x.Note[noteAction] = 1
		f.forward(x, a.forward)
	}
}

func (f *front) forward(x *forward.Exchange, fw *compiledForward) {
	g := f.stickyGroup(x, fw)
	if g == nil {
		f.unavailable(x, "no target group has a weight above 0")
		return
	}
	t, open := f.stickyTarget(x, g), false
	if t == nil {
		t, open = g.pick(x.Start, nil)
	}
	if t == nil {
		x.Tag = g
		f.unavailable(x, "the target group has no registered targets")
		return
	}
	f.chose(x, t, open)
}

func (f *front) chose(x *forward.Exchange, t *target, open bool) {
	x.Action, x.Endpoint, x.Tag = forward.ActionForward, t.ep, t
	x.Note[noteFailOpen] = 0
	if open {
		x.Note[noteFailOpen] = 1
	}
}

// Another implements forward.Router: nothing was sent to the target, so another one
// of the group may have the request. (AWS answers 502 here; no request that could
// be served is to be lost.)
func (f *front) Another(x *forward.Exchange) bool {
	failed := x.Tag.(*target)
	t, open := failed.group.pick(x.Start, func(o *target) bool { return o == failed })
	if t == nil {
		return false
	}
	failed.stats.failed(x) // the rest of the request is the other one's
	x.ConnErrors, x.TLSErrors = 0, 0
	failed.ep.Release()
	f.chose(x, t, open)
	return true
}

// Response implements forward.Router.
func (f *front) Response(x *forward.Exchange) { f.setCookies(x) }

// Done implements forward.Router.
func (f *front) Done(x *forward.Exchange) {
	s := &f.lb.stats
	if x.Req.Class != h1.Compliant {
		s.desync.Add(1)
	}
	if x.Client.Addr().Is6() {
		s.ipv6.Add(1)
		s.ipv6Bytes.Add(x.BytesIn + x.BytesOut)
	}
	if x.Action == forward.ActionForward {
		f.forwarded(x)
	} else {
		s.selfMade(x.Status)
	}
	if l := f.lb.log.Load(); l != nil {
		l.write(x)
	}
}

func (f *front) forwarded(x *forward.Exchange) {
	s := &f.lb.stats
	s.requests.Add(1)
	if x.Req.Invalid > 0 {
		if x.Options.DropInvalid {
			s.dropped.Add(1)
		} else {
			s.forwardedInvalid.Add(1)
		}
	}
	t := x.Tag.(*target)
	t.stats.requests.Add(1)
	t.stats.failed(x)
	t.stats.failOpen.Add(int64(x.Note[noteFailOpen]))
	if x.FromTarget != 0 {
		t.stats.codes[x.FromTarget/100].Add(1)
		t.stats.observe(x.FirstByte.Sub(x.Sent))
	} else {
		s.selfMade(x.Status)
		f.explain(x, t)
	}
	t.ep.Release()
}

const explanationsPerSecond = 10

// explain logs why a target's request ended with an error that the load balancer
// made: AWS leaves its users guessing. At most a few per second.
func (f *front) explain(x *forward.Exchange, t *target) {
	if x.Status < 500 {
		return
	}
	now := x.Start.Unix()
	if f.lb.explainedAt.Swap(now) != now {
		f.lb.explained.Store(0)
	}
	if f.lb.explained.Add(1) > explanationsPerSecond {
		return
	}
	f.log.Warn("a request failed at its target", "status", x.Status, "cause", x.Cause, "target", t.conf.ID, "address", t.ep.Addr,
		"group", t.group.arn, "trace", string(x.Trace), "retried", x.Retried)
}

// compileTable checks and compiles a listener.
func compileTable(b *LoadBalancer, l *Listener, groups map[string]*group) (*table, error) {
	t := &table{listener: *l, ports: map[string]string{}}
	for _, o := range b.Listeners {
		if _, port, err := net.SplitHostPort(o.Address); err == nil {
			t.ports[strconv.Itoa(o.Port)] = port
		}
	}
	for i := range l.Rules {
		r, err := compileRule(&l.Rules[i])
		if err != nil {
			return nil, err
		}
		if r.action, err = compileActions(l.Rules[i].Actions, groups); err != nil {
			return nil, fmt.Errorf("rule %s: %w", l.Rules[i].ARN, err)
		}
		t.rules = append(t.rules, r)
	}
	sortRules(t.rules)
	last := rule{}
	var err error
	if last.action, err = compileActions(l.DefaultActions, groups); err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.ARN, err)
	}
	t.rules = append(t.rules, last)
	if t.options, err = compileOptions(b, l); err != nil {
		return nil, err
	}
	if l.Protocol == "HTTPS" {
		if t.tls, err = compileTLS(l, b.Attributes["routing.http2.enabled"] != "false"); err != nil {
			return nil, err
		}
	}
	return t, nil
}
