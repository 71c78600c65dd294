package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	elbv2 "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

// apply does one step of a plan. Each step checks in its transaction that
// the instance is still where the plan saw it; if not, it does nothing and
// the next plan decides anew.
func (s *Service) apply(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	switch a.verb {
	case doRun:
		return s.runIntent(ctx, row, a.intent)
	case doLaunch:
		return s.launch(ctx, row, w, a)
	case doHold:
		return s.hold(ctx, row, w, a)
	case doResolve:
		return s.change(ctx, row, a.instance, "HookTimedOut", func(_ store.Tx, i *Instance) error {
			for n := range i.Actions {
				if c := &i.Actions[n]; c.Hook == a.hook && c.Result == "" && !c.deadline().After(w.now) {
					c.Result, c.TimedOut = c.Default, true
				}
			}
			return nil
		})
	case doProceed:
		return s.change(ctx, row, a.instance, "Proceeding", func(tx store.Tx, i *Instance) error {
			i.Actions = nil
			i.to(a.state)
			return progress(tx, row.Account, row.Region, i.Activity, statusInProgress, 70, w.now, "")
		})
	case doEnter:
		return s.enter(ctx, row, a.instance)
	case doFail:
		return s.failLaunch(ctx, row, w, a)
	case doTerminate:
		return s.terminate(ctx, row, w, a)
	case doUnhealthy:
		return s.change(ctx, row, a.instance, "Unhealthy", func(_ store.Tx, i *Instance) error {
			i.Health, i.Unhealthy, i.Now = "Unhealthy", a.cause, i.Now || a.now
			return nil
		})
	case doCounted:
		return s.change(ctx, row, a.instance, "Counted", func(_ store.Tx, i *Instance) error {
			i.Rebalance = false
			return nil
		})
	case doDeregister:
		return s.deregister(ctx, row, a.instance)
	case doEnd:
		return s.endMachine(ctx, a.instance)
	case doRemove, doDetached:
		return s.remove(ctx, row, a)
	case doStandby:
		return s.change(ctx, row, a.instance, "Standby", func(tx store.Tx, i *Instance) error {
			i.to(standby)
			i.TargetGroups, i.Deregistered = nil, false
			return progress(tx, row.Account, row.Region, i.Activity, statusSuccessful, 100, s.Clock.Now(), "")
		})
	case doRegister:
		return s.registerLate(ctx, row, a)
	case doWithdraw:
		return s.withdraw(ctx, row, a)
	case doAttach:
		return s.attachState(ctx, row, a)
	case doProtected:
		return s.noteProtected(ctx, row, w)
	case doNotify:
		return s.notifyHook(ctx, row, w, a)
	case doRefresh:
		return s.refreshState(ctx, row, w, a)
	case doDelete:
		return s.deleteGroup(ctx, row)
	}
	return fmt.Errorf("autoscaling: unknown step %q", a.verb)
}

// change applies fn to the newest version of an instance that is still in
// the state that the plan saw.
func (s *Service) change(ctx context.Context, row *store.Row[Group], seen *Instance, event string, fn func(store.Tx, *Instance) error) error {
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		i, err := instances.Get(tx, row.Account, row.Region, seen.ID)
		if err != nil {
			return err
		}
		if i.Doc.State != seen.State {
			return store.ErrUnchanged
		}
		if err := fn(tx, &i.Doc); err != nil {
			return err
		}
		return instances.Save(tx, i, event, eventDetail(&i.Doc))
	})
	if errors.Is(err, store.ErrUnchanged) || errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// hookDetail tells those who watch an instance which hooks wait for them.
type hookDetail struct {
	Group string
	Hooks []hookToken `json:",omitempty"`
}

type hookToken struct{ Name, Token, Metadata string }

func eventDetail(i *Instance) hookDetail {
	d := hookDetail{Group: i.Group}
	for _, a := range i.Actions {
		if a.Result == "" {
			d.Hooks = append(d.Hooks, hookToken{a.Hook, a.Token, a.Metadata})
		}
	}
	return d
}

// hold starts an instance's wait for its hooks, all of them at once.
func (s *Service) hold(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	transition := launching
	if a.state == terminatingWait {
		transition = terminatingHook
	}
	return s.change(ctx, row, a.instance, "Waiting", func(tx store.Tx, i *Instance) error {
		i.Actions = nil
		for _, h := range w.hooks {
			if h.Transition != transition {
				continue
			}
			beat := time.Duration(h.Timeout) * time.Second
			i.Actions = append(i.Actions, action{Hook: h.Name, Token: uuid.NewString(), Heartbeat: w.now.Add(beat),
				Limit: w.now.Add(min(48*time.Hour, 100*beat)), Timeout: h.Timeout, Default: h.Default, Metadata: h.Metadata, Target: h.Target})
		}
		i.to(a.state)
		return progress(tx, row.Account, row.Region, i.Activity, statusHook, 60, w.now, "")
	})
}

// enter registers an instance with every target group and puts it in service.
func (s *Service) enter(ctx context.Context, row *store.Row[Group], seen *Instance) error {
	var joined []string
	skip := seen.NoRegister || row.Doc.suspended("AddToLoadBalancer")
	for _, at := range row.Doc.Attachments {
		if skip || at.State == "Removing" {
			continue
		}
		_, err := dispatch.Call(ctx, s.Mux, elbv2.OpRegisterTargets, &elbv2.RegisterTargetsInput{TargetGroupArn: &at.ARN, Targets: []elbv2.TargetDescription{{Id: &seen.ID}}})
		if awserr.Is(err, "TargetGroupNotFound") {
			continue
		}
		if err != nil {
			return err
		}
		joined = append(joined, at.ARN)
	}
	now := s.Clock.Now()
	err := s.change(ctx, row, seen, "InService", func(tx store.Tx, i *Instance) error {
		i.to(inService)
		i.Actions, i.TargetGroups, i.Deregistered, i.NoRegister = nil, joined, false, skip
		i.Health, i.Unhealthy, i.Now, i.InServiceAt = "Healthy", "", false, now
		return progress(tx, row.Account, row.Region, i.Activity, statusSuccessful, 100, now, "")
	})
	if err != nil || row.Doc.Fails == 0 && row.Doc.CoolUntil.After(now) {
		return err
	}
	return s.settled(ctx, row, now)
}

// settled ends a run of failed launches and starts the default cooldown.
func (s *Service) settled(ctx context.Context, row *store.Row[Group], now time.Time) error {
	_, err := groups.Modify(ctx, s.Store, row.Account, row.Region, row.ID, "Scaled", func(g *Group) error {
		g.Fails, g.RetryAt = 0, time.Time{}
		g.CoolUntil = now.Add(time.Duration(g.Cooldown) * time.Second)
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// backoff is how long to wait after n failed launches in a row, n from 1.
func backoff(n int) time.Duration {
	return min(time.Second<<min(n-1, 10), time.Minute)
}

func failed(g *Group, now time.Time) {
	g.Fails++
	g.RetryAt = now.Add(backoff(g.Fails))
}
