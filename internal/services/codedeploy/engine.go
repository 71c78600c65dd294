package codedeploy

import (
	"context"
	"errors"
	"sync"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/store"
)

// lookout remembers which deployments must look at the world outside their
// rows again. A deployment it does not know (after a restart) must look at
// everything.
type lookout struct {
	mu   sync.Mutex
	seen map[store.Key]look
}

// look is what to look at: a deployment's instances and alarms, a group's
// hooks.
type look struct{ instances, alarms, hooks bool }

// take returns what key must look at, and marks it as looked at.
func (l *lookout) take(key store.Key) look {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.seen[key]
	if !known {
		at = look{instances: true, alarms: true}
	}
	if l.seen == nil {
		l.seen = map[store.Key]look{}
	}
	l.seen[key] = look{}
	return at
}

func (l *lookout) mark(key store.Key, at look) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.seen == nil {
		l.seen = map[store.Key]look{}
	}
	if old, known := l.seen[key]; known || at.hooks {
		l.seen[key] = look{old.instances || at.instances, old.alarms || at.alarms, old.hooks || at.hooks}
	}
}

func (l *lookout) forget(key store.Key) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.seen, key)
}

// deploymentWatches maps events of other rows to the deployments they touch.
func (s *Service) deploymentWatches() map[string]func(store.Event) []store.Key {
	ofInstance := func(instance string, ev store.Event) []store.Key {
		rows, err := find(context.Background(), s.store, func(r store.Reader) ([]*targetRow, error) {
			return targets.List(r, store.Query{Account: ev.Key.Account, Region: ev.Key.Region, Parent: instance})
		})
		if err != nil {
			s.log.Warn("targets of an instance", "instance", instance, "error", err)
		}
		var keys []store.Key
		for _, row := range rows {
			if row.Doc.EndedAt.IsZero() {
				keys = append(keys, deployments.Key(row.Account, row.Region, row.Doc.Deployment))
			}
		}
		return keys
	}
	return map[string]func(store.Event) []store.Key{
		targets.Kind: func(ev store.Event) []store.Key {
			switch ev.Type {
			case typeBegan, typeEventReady, typeAcknowledged:
				return nil // the agent's move
			}
			id, _, _ := cutTargetID(ev.Key.ID)
			return []store.Key{deployments.Key(ev.Key.Account, ev.Key.Region, id)}
		},
		"ec2:instance": func(ev store.Event) []store.Key {
			switch ev.State {
			case "pending", "running":
				return nil
			}
			keys := ofInstance(ev.Key.ID, ev)
			for _, key := range keys {
				s.look.mark(key, look{instances: true})
			}
			if ev.State == "terminated" || ev.Deleted {
				s.hub.gone(hostKey(ev.Key.Account, ev.Key.Region, ev.Key.ID))
			}
			return keys
		},
		"elbv2:target": func(ev store.Event) []store.Key {
			_, instance, _ := cutTargetHealthID(ev.Key.ID)
			return ofInstance(instance, ev)
		},
		"cloudwatch:alarm": func(ev store.Event) []store.Key {
			if ev.State != "ALARM" {
				return nil
			}
			var keys []store.Key
			rows, err := deployments.Select(context.Background(), s.store, store.Query{Account: ev.Key.Account, Region: ev.Key.Region, State: api.DeploymentStatusInProgress})
			if err != nil {
				s.log.Warn("deployments that watch an alarm", "alarm", ev.Key.ID, "error", err)
			}
			for _, row := range rows {
				if watchesAlarm(row.Doc.Alarms, ev.Key.ID) {
					s.look.mark(row.Key, look{alarms: true})
					keys = append(keys, row.Key)
				}
			}
			return keys
		},
	}
}

// reconcileDeployment moves one deployment on.
func (s *Service) reconcileDeployment(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := deployments.Find(ctx, s.store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	d := &row.Doc
	ctx = s.as(ctx, key.Account, key.Region)
	switch d.Status {
	case api.DeploymentStatusCreated, api.DeploymentStatusQueued:
		return s.start(ctx, row)
	case api.DeploymentStatusInProgress:
		return s.progress(ctx, row)
	}
	s.look.forget(key)
	return 0, nil
}

// seen is what the engine saw of the world outside its rows.
type seen struct {
	gone    map[string]instance // of instances that no longer run
	traffic map[string]trafficSight
	stop    *Stop // an alarm that stops the deployment
}

// trafficRecheck is how soon target groups are looked at again though no
// event of theirs arrived.
const trafficRecheck = 5 * time.Second

func (s *Service) progress(ctx context.Context, row *deploymentRow) (time.Duration, error) {
	at := s.look.take(row.Key)
	again := func(err error) (time.Duration, error) {
		s.look.mark(row.Key, at)
		return 0, err
	}
	rows, err := find(ctx, s.store, func(r store.Reader) ([]*targetRow, error) {
		return targetsOf(r, row.Account, row.Region, row.ID)
	})
	if err != nil {
		return again(err)
	}
	// What cannot be seen now is looked at again soon; the rest, time limits
	// above all, goes on.
	var w seen
	var goneErr, trafficErr error
	if at.instances {
		w.gone, goneErr = s.goneInstances(ctx, rows)
	}
	if at.alarms && row.Doc.Stop == nil {
		w.stop = s.alarmed(ctx, &row.Doc)
	}
	w.traffic, trafficErr = s.traffic(ctx, &row.Doc, rows)
	next, err := s.apply(ctx, row.Key, w)
	if err = errors.Join(err, goneErr, trafficErr); err != nil {
		return again(err)
	}
	if next.IsZero() {
		return 0, nil
	}
	return max(s.clock.Until(next), time.Millisecond), nil
}

// apply brings what was seen into the rows, asks the plan, and does what it
// says, all in one transaction.
func (s *Service) apply(ctx context.Context, key store.Key, w seen) (next time.Time, err error) {
	err = s.store.Update(ctx, func(tx store.Tx) error {
		next = time.Time{}
		row, err := deployments.Get(tx, key.Account, key.Region, key.ID)
		if err != nil || row.Doc.Status != api.DeploymentStatusInProgress {
			return err
		}
		rows, err := targetsOf(tx, key.Account, key.Region, key.ID)
		if err != nil {
			return err
		}
		c := &change{s: s, tx: tx, row: row, rows: rows, now: s.clock.Now()}
		c.see(w)
		c.decide()
		if err := c.save(); err != nil {
			return err
		}
		next = c.next(len(w.traffic) > 0)
		return nil
	})
	return next, err
}
