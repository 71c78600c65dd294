package elbv2

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"slipway/internal/lb"
	"slipway/internal/store"
)

// Run drives the data plane until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	sub := s.deps.Store.Subscribe(balancers.Kind, listeners.Kind, rules.Kind, groups.Kind, targets.Kind)
	defer sub.Close()
	instances := s.deps.Store.Subscribe("ec2:instance")
	defer instances.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { s.listen(ctx, sub) })
	wg.Go(func() { s.followInstances(ctx, instances) })
	if s.deps.LB != nil {
		wg.Go(func() { s.followHealth(ctx) })
	}
	s.Resync()
	s.applyLoop(ctx)
	return nil
}

// listen turns events into requests to apply. Changes of a target's health
// come from the data plane and are not sent back to it.
func (s *Service) listen(ctx context.Context, sub *store.Subscription) {
	for {
		ev, err := sub.Next(ctx)
		switch {
		case errors.Is(err, store.ErrLagged):
			s.Resync()
		case err != nil:
			return
		case ev.Type != eventHealth:
			s.Resync()
		}
	}
}

// Events of target rows that the data plane causes.
const (
	eventHealth  = "Health"
	eventDrained = "Drained"
)

// retryApply is how soon a configuration is sent again that the lb process
// could not take, because it is being restarted.
const retryApply = 100 * time.Millisecond

// applyLoop sends the configuration whenever something changed, and removes
// targets whose deregistration delay is over.
func (s *Service) applyLoop(ctx context.Context) {
	timer := s.deps.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	fails := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-timer.C:
		case <-retry.C:
		}
		next, err := s.expire(ctx)
		if err == nil {
			_, err = s.apply(ctx)
		}
		if err == nil {
			fails = 0
		} else if ctx.Err() == nil {
			// While it is being started nobody need know.
			if fails++; fails == 10 {
				s.deps.Log.Warn("elbv2: the load balancer process does not take the configuration; trying on", "error", err)
			}
			retry.Reset(retryApply)
		}
		timer.Reset(next)
	}
}

// expire deletes the targets whose delay is over and returns when the next
// one will be.
func (s *Service) expire(ctx context.Context) (next time.Duration, err error) {
	next = time.Hour
	rows, err := targets.Select(ctx, s.deps.Store, store.Query{})
	if err != nil {
		return next, err
	}
	for _, row := range rows {
		if row.Doc.DrainingSince.IsZero() {
			continue
		}
		left, err := s.delayLeft(ctx, row)
		if err != nil {
			return next, err
		}
		if left > 0 {
			next = min(next, left)
			continue
		}
		err = s.deps.Store.Update(ctx, func(tx store.Tx) error { return targets.Delete(tx, row, eventDrained, nil) })
		if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return next, err
		}
	}
	return max(next, 10*time.Millisecond), nil
}

// delayLeft is how much of its deregistration delay a draining target has.
func (s *Service) delayLeft(ctx context.Context, row *store.Row[Target]) (time.Duration, error) {
	g, err := groups.Find(ctx, s.deps.Store, row.Account, row.Region, row.Doc.TargetGroup)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	seconds, err := strconv.Atoi(groupAttribute(&g.Doc, "deregistration_delay.timeout_seconds"))
	if err != nil {
		return 0, err
	}
	return s.deps.Clock.Until(row.Doc.DrainingSince.Add(time.Duration(seconds) * time.Second)), nil
}

// apply sends the whole configuration and notes which listeners failed.
func (s *Service) apply(ctx context.Context) (lb.Applied, error) {
	s.applying.Lock()
	defer s.applying.Unlock()
	if s.deps.LB == nil {
		return lb.Applied{}, s.simulate(ctx)
	}
	snap, err := s.snapshot(ctx)
	if err != nil {
		return lb.Applied{}, err
	}
	// Versions must grow over restarts of this process too.
	s.version = max(s.version+1, time.Now().UnixNano())
	snap.Version = s.version
	applied, err := s.deps.LB.Apply(ctx, snap)
	if err != nil {
		return applied, err
	}
	return applied, s.noteListeners(ctx, func(arn string) (string, bool) { return applied.ListenerErrors[arn], true })
}

// noteListeners writes the state of listening sockets into the rows where it
// changed; of says what is known of a listener.
func (s *Service) noteListeners(ctx context.Context, of func(arn string) (string, bool)) error {
	rows, err := listeners.Select(ctx, s.deps.Store, store.Query{})
	if err != nil {
		return err
	}
	for _, row := range rows {
		msg, known := of(row.ID)
		if !known || row.Doc.Error == msg {
			continue
		}
		_, err := listeners.Modify(ctx, s.deps.Store, row.Account, row.Region, row.ID, eventHealth, func(l *Listener) error {
			if l.Error == msg {
				return store.ErrUnchanged
			}
			l.Error = msg
			return nil
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// snapshot builds the data plane's configuration from the rows.
func (s *Service) snapshot(ctx context.Context) (lb.Snapshot, error) {
	var snap lb.Snapshot
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		bs, err := balancers.List(r, store.Query{})
		if err != nil {
			return err
		}
		for _, b := range bs {
			out := lb.LoadBalancer{ARN: b.ID, Name: b.Doc.Name, Attributes: b.Doc.Attributes}
			ls, err := listeners.List(r, store.Query{Parent: b.ID})
			if err != nil {
				return err
			}
			for _, l := range ls {
				lr, err := rules.List(r, store.Query{Parent: l.ID})
				if err != nil {
					return err
				}
				out.Listeners = append(out.Listeners, s.lbListener(b, l, lr))
			}
			snap.LoadBalancers = append(snap.LoadBalancers, out)
		}
		gs, err := groups.List(r, store.Query{})
		if err != nil {
			return err
		}
		for _, g := range gs {
			ts, err := targets.List(r, store.Query{Parent: g.ID})
			if err != nil {
				return err
			}
			snap.TargetGroups = append(snap.TargetGroups, lbGroup(g, ts))
		}
		return nil
	})
	return snap, err
}

// simulate stands in for the data plane: registered targets of groups in use
// are healthy, deregistered ones are drained.
func (s *Service) simulate(ctx context.Context) error {
	return s.deps.Store.Update(ctx, func(tx store.Tx) error {
		used, err := groupsInUse(tx)
		if err != nil {
			return err
		}
		rows, err := targets.List(tx, store.Query{})
		if err != nil {
			return err
		}
		for _, row := range rows {
			t := &row.Doc
			before := *t
			switch {
			case !t.DrainingSince.IsZero():
				if err := targets.Delete(tx, row, eventDrained, nil); err != nil {
					return err
				}
				continue
			case t.IP == "":
			case used[t.TargetGroup] == nil:
				t.State, t.Reason, t.Description = stateUnused, "Target.NotInUse", describe["Target.NotInUse"]
			default:
				t.State, t.Reason, t.Description = stateHealthy, "", ""
			}
			if *t != before {
				if err := targets.Save(tx, row, eventHealth, nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// followHealth writes what the data plane says into the target rows.
func (s *Service) followHealth(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.deps.LB.Watch(ctx, func(ev lb.Event) error { return s.note(ctx, ev) })
		if ctx.Err() != nil {
			return
		}
		s.deps.Log.Debug("elbv2: watching the load balancer process again", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Service) note(ctx context.Context, ev lb.Event) error {
	switch ev.Kind {
	case lb.EventListener:
		return s.noteListeners(ctx, func(arn string) (string, bool) { return ev.Error, arn == ev.Listener })
	case lb.EventHealth, lb.EventDrained:
		if ev.Health == nil {
			return nil
		}
		return s.noteTarget(ctx, *ev.Health, ev.Kind == lb.EventDrained)
	}
	return nil
}

func (s *Service) noteTarget(ctx context.Context, h lb.TargetHealth, drained bool) error {
	drained = drained || h.Drained
	id := targetID(h.TargetGroup, h.ID, int64(h.Port))
	parts := strings.Split(h.TargetGroup, ":") // arn:aws:elasticloadbalancing:REGION:ACCOUNT:...
	if len(parts) < 6 {
		return nil
	}
	err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
		row, err := targets.Get(tx, parts[4], parts[3], id)
		if err != nil {
			return err
		}
		t := &row.Doc
		before := *t
		switch {
		case !t.DrainingSince.IsZero():
			if !drained || h.State != lb.StateDraining {
				return nil // an old word about a target that was deregistered since
			}
			return targets.Delete(tx, row, eventDrained, nil)
		case h.State == lb.StateDraining || t.IP == "":
			return nil // registered again since, or its instance is stopped
		default:
			t.State, t.Reason, t.Description = string(h.State), h.Reason, h.Description
		}
		if *t == before {
			return nil
		}
		return targets.Save(tx, row, eventHealth, nil)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
