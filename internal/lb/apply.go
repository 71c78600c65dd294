package lb

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"slipway/internal/lb/forward"
)

// plan is a checked and compiled snapshot; executing it cannot fail but for
// sockets.
type plan struct {
	snapshot *Snapshot
	confs    map[string]*groupConf
	groups   map[string]*group // old ones where they exist
	used     map[string]bool
	tables   []*table
	owners   []*LoadBalancer // of tables
}

// plan checks everything before anything changes. The caller holds p.mu.
func (p *Process) plan(s *Snapshot) (*plan, error) {
	pl := &plan{snapshot: s, confs: map[string]*groupConf{}, groups: map[string]*group{}, used: map[string]bool{}}
	for i := range s.TargetGroups {
		tg := &s.TargetGroups[i]
		conf, err := compileGroup(tg)
		if err != nil {
			return nil, err
		}
		if pl.confs[tg.ARN] != nil {
			return nil, fmt.Errorf("target group %s is there twice", tg.ARN)
		}
		if err := checkTargets(tg); err != nil {
			return nil, err
		}
		pl.confs[tg.ARN] = conf
		if pl.groups[tg.ARN] = p.groups[tg.ARN]; pl.groups[tg.ARN] == nil {
			g := &group{arn: tg.ARN, targets: map[targetKey]*target{}}
			g.conf.Store(conf)
			g.view.Store(&groupView{})
			pl.groups[tg.ARN] = g
		}
	}
	seen := map[string]bool{}
	for i := range s.LoadBalancers {
		b := &s.LoadBalancers[i]
		for j := range b.Listeners {
			l := &b.Listeners[j]
			if _, err := netip.ParseAddrPort(l.Address); err != nil {
				return nil, fmt.Errorf("listener %s: address: %w", l.ARN, err)
			}
			if seen[l.ARN] {
				return nil, fmt.Errorf("listener %s is there twice", l.ARN)
			}
			seen[l.ARN] = true
			t, err := compileTable(b, l, pl.groups)
			if err != nil {
				return nil, err
			}
			pl.tables, pl.owners = append(pl.tables, t), append(pl.owners, b)
			pl.uses(t, b.ARN)
		}
	}
	return pl, nil
}

// uses marks the groups that a table's rules name.
func (pl *plan) uses(t *table, lb string) {
	for i := range t.rules {
		if f := t.rules[i].action.forward; f != nil {
			for _, g := range f.groups {
				pl.used[g.arn] = true
				pl.confs[g.arn].lbARN = lb
			}
		}
	}
}

func checkTargets(tg *TargetGroup) error {
	seen := map[targetKey]bool{}
	for _, t := range tg.Targets {
		if _, err := netip.ParseAddr(t.IP); err != nil {
			return fmt.Errorf("target group %s: target %s: %w", tg.Name, t.ID, err)
		}
		if t.Port < 1 || t.Port > 65535 {
			return fmt.Errorf("target group %s: target %s: port %d", tg.Name, t.ID, t.Port)
		}
		if t.State != Registered && t.State != Draining {
			return fmt.Errorf("target group %s: target %s: state %q", tg.Name, t.ID, t.State)
		}
		k := targetKey{t.ID, t.Port}
		if seen[k] {
			return fmt.Errorf("target group %s: target %s port %d is there twice", tg.Name, t.ID, t.Port)
		}
		seen[k] = true
	}
	return nil
}

// execute makes the plan live. Groups first: a rule never meets a group without
// its targets. The caller holds p.mu.
func (p *Process) execute(pl *plan) {
	for i := range pl.snapshot.LoadBalancers {
		p.balancer(&pl.snapshot.LoadBalancers[i])
	}
	for i := range pl.snapshot.TargetGroups {
		tg := &pl.snapshot.TargetGroups[i]
		g := pl.groups[tg.ARN]
		g.conf.Store(pl.confs[tg.ARN])
		g.used = pl.used[tg.ARN]
		p.applyTargets(g, tg.Targets)
	}
	for arn, g := range p.groups {
		if pl.groups[arn] == nil {
			p.applyTargets(g, nil)
		}
	}
	p.groups = pl.groups
	p.applyListeners(pl)
}

func (p *Process) applyTargets(g *group, want []Target) {
	keep := map[targetKey]bool{}
	now := p.clock.Now()
	for _, w := range want {
		k := targetKey{w.ID, w.Port}
		keep[k] = true
		t := g.targets[k]
		if t != nil && t.conf.IP != w.IP {
			p.leave(t)
			t = nil
		}
		if t == nil {
			t = newTarget(g, w, p.sweeper, now, p.targetIdle)
			p.serial++
			t.serial = p.serial
			g.targets[k] = t
		}
		if b := p.balancers[g.conf.Load().lbARN]; b != nil {
			t.ep.CountIn(&b.conns)
		}
		p.setDraining(t, w, now)
		p.setChecks(t, g.used)
	}
	for k, t := range g.targets {
		if !keep[k] {
			delete(g.targets, k)
			p.leave(t)
		}
	}
	g.refresh()
}

// setDraining moves a target in or out of draining.
func (p *Process) setDraining(t *target, w Target, now time.Time) {
	t.mu.Lock()
	was := t.draining
	t.draining = w.State == Draining
	if t.draining && !was {
		since := w.DrainingSince
		if since.IsZero() || since.After(now) {
			since = now
		}
		t.since = since
		left := max(t.group.conf.Load().delay-now.Sub(since), 0)
		timer := time.AfterFunc(p.clock.Real(left), func() { t.ep.Cut(); p.delayOver(t) })
		t.cutTimer = timer.Stop
	}
	if !t.draining && was {
		if t.cutTimer != nil {
			t.cutTimer()
			t.cutTimer = nil
		}
		// Registered anew: it starts over like any new target.
		t.drained, t.state, t.since, t.good, t.bad = false, StateInitial, now, 0, 0
		t.ok.Store(false)
		t.setReason("Elb.RegistrationInProgress", "Target registration is in progress")
	}
	changed := t.draining != was
	t.mu.Unlock()
	if !changed {
		return
	}
	if t.draining {
		t.group.refresh()
		p.publishHealth(t)
		// Drain last: it may find nothing in flight and say so at once.
		t.ep.Drain()
		return
	}
	t.ep.Undrain()
	p.publishHealth(t)
}

// setChecks starts or stops a target's health checks: only registered targets of
// groups in use are checked.
func (p *Process) setChecks(t *target, used bool) {
	t.mu.Lock()
	want := used && !t.draining
	stop := t.stop
	if want == (stop != nil) {
		t.mu.Unlock()
		if !used && !t.draining {
			p.unused(t)
		}
		return
	}
	if !want {
		t.stop = nil
		t.mu.Unlock()
		stop()
		if !used {
			p.unused(t)
		}
		return
	}
	if t.state == StateUnused {
		t.state, t.since = StateInitial, p.clock.Now()
		t.setReason("Elb.RegistrationInProgress", "Target registration is in progress")
	}
	ctx, cancel := context.WithCancel(p.ctx)
	t.stop = cancel
	t.mu.Unlock()
	c := &checker{t: t, clock: p.clock, changed: p.targetChanged, first: true}
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		_ = c.Run(ctx) // it returns nil only
	}()
}

func (p *Process) unused(t *target) {
	t.mu.Lock()
	if t.state == StateUnused {
		t.mu.Unlock()
		return
	}
	t.state, t.since, t.good, t.bad = StateUnused, p.clock.Now(), 0, 0
	t.setReason("Target.NotInUse", "Target group is not configured to receive traffic from the load balancer")
	t.ok.Store(false)
	t.mu.Unlock()
	p.publishHealth(t)
}

// leave lets a target go that the snapshot no longer names: its machine is gone, or
// was drained before.
func (p *Process) leave(t *target) {
	t.mu.Lock()
	if t.stop != nil {
		t.stop()
		t.stop = nil
	}
	t.draining = true
	if t.cutTimer != nil {
		t.cutTimer()
		t.cutTimer = nil
	}
	t.mu.Unlock()
	p.depart(nil, t)
	t.ep.Lose()
}

// targetIdle is called, also by the hot path, when a draining target has no request
// left.
func (p *Process) targetIdle(t *target) { p.finishDrain(t) }

// delayOver is called when the deregistration delay has passed.
func (p *Process) delayOver(t *target) { p.finishDrain(t) }

// finishDrain says once that a target is drained. It must not take p.mu: Apply
// holds that when nothing is in flight.
func (p *Process) finishDrain(t *target) {
	t.mu.Lock()
	first := t.draining && !t.drained
	if first {
		t.drained = true
	}
	t.mu.Unlock()
	if !first {
		return
	}
	h := t.health()
	p.broker.publish(Event{Kind: EventDrained, Time: p.clock.Now(), Health: &h})
}

// targetChanged publishes a transition and lets the group see it.
func (p *Process) targetChanged(t *target) {
	p.mu.Lock()
	t.group.refresh()
	p.mu.Unlock()
	p.publishHealth(t)
}

func (p *Process) publishHealth(t *target) {
	h := t.health()
	p.broker.publish(Event{Kind: EventHealth, Time: p.clock.Now(), Health: &h})
}

func (p *Process) balancer(b *LoadBalancer) *balancer {
	r := p.balancers[b.ARN]
	if r == nil {
		p.serial++
		r = &balancer{arn: b.ARN, name: b.Name, serial: p.serial}
		p.balancers[b.ARN] = r
	}
	p.setAccessLog(r, b)
	return r
}

var _ forward.Router = (*front)(nil)
