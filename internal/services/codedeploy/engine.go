package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// look is what to look at.
type look struct{ instances, alarms bool }

// take returns what key must look at, and marks it as looked at.
func (l *lookout) take(key store.Key) look {
	l.mu.Lock()
	defer l.mu.Unlock()
	at, known := l.seen[key]
	if !known {
		at = look{true, true}
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
	if old, known := l.seen[key]; known {
		l.seen[key] = look{old.instances || at.instances, old.alarms || at.alarms}
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
		return 0, s.start(ctx, row)
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
	var w seen
	if at.instances {
		if w.gone, err = s.goneInstances(ctx, rows); err != nil {
			return again(err)
		}
	}
	if at.alarms && row.Doc.Stop == nil {
		w.stop = s.alarmed(ctx, &row.Doc)
	}
	if w.traffic, err = s.traffic(ctx, &row.Doc, rows); err != nil {
		return again(err)
	}
	next, err := s.apply(ctx, row.Key, w)
	if err != nil {
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

// change is a deployment and its targets while a transaction changes them.
type change struct {
	s    *Service
	tx   store.Tx
	row  *deploymentRow
	rows []*targetRow
	now  time.Time

	dirty  string          // event type of the deployment's own change, or ""
	moved  map[string]move // changed targets by instance
	again  time.Time
	ending *ending
}

// move is how a target changed: the type of its row's event, and the
// lifecycle event that ended, if any.
type move struct {
	kind  string
	ended *Event
}

func (c *change) touch(t *Target, kind string, ended *Event) {
	if c.moved == nil {
		c.moved = map[string]move{}
	}
	c.moved[t.Instance] = move{kind, ended}
}

// see applies what was observed outside.
func (c *change) see(w seen) {
	d := &c.row.Doc
	if w.stop != nil && d.Stop == nil {
		d.Stop, c.dirty = w.stop, "StopRequested"
	}
	for _, row := range c.rows {
		t := &row.Doc
		if gone, ok := w.gone[t.Instance]; ok {
			c.lose(t, gone)
		}
		if sight, ok := w.traffic[t.Instance]; ok {
			c.traffic(t, sight)
		}
		e := t.current()
		if e == nil {
			continue
		}
		contact := w.traffic[t.Instance].note
		if !serverSide(e.Name) {
			contact = c.s.hub.lastContact(hostKey(row.Account, row.Region, t.Instance), c.realNow())
		}
		if t.expire(c.s.patient, contact, c.now) {
			c.touch(t, t.Status, e)
			continue
		}
		// A stop waits only for what an agent is doing.
		if d.Stop != nil && (serverSide(e.Name) || e.AckedAt.IsZero()) {
			t.end(api.TargetStatusFailed, interrupted(t, e), c.now)
			c.touch(t, t.Status, nil)
		}
	}
}

// lose deals with an instance that no longer runs.
func (c *change) lose(t *Target, in instance) {
	switch t.Status {
	case api.TargetStatusPending:
		if in.stopped() {
			t.end(api.TargetStatusFailed, fmt.Sprintf("instance %s is %s: it cannot be deployed to", t.Instance, in.state), c.now)
			t.WasUnhealthy = true
		} else {
			t.Left = true
			t.end(api.TargetStatusSkipped, fmt.Sprintf("instance %s was terminated before its turn came", t.Instance), c.now)
		}
		c.touch(t, t.Status, nil)
	case api.TargetStatusInProgress:
		e := t.current()
		t.breakOff(Diagnostics{
			ErrorCode: api.LifecycleErrorCodeUnknownError,
			Message:   fmt.Sprintf("the instance went away (it is %s) while the deployment to it was under way", in.state),
		}, c.now)
		c.touch(t, t.Status, e)
	}
}

func interrupted(t *Target, e *Event) string {
	return fmt.Sprintf("the deployment to instance %s was stopped at %s", t.Instance, e.Name)
}

// decide asks the plan and carries out what it says.
func (c *change) decide() {
	d := &c.row.Doc
	ts := make([]*Target, len(c.rows))
	for i, row := range c.rows {
		ts[i] = &row.Doc
	}
	for {
		v := plan(d, ts, c.now)
		c.again = v.Again
		for _, t := range v.Start {
			t.begin(c.now)
			c.touch(t, typeBegan, nil)
		}
		if v.Halt == nil {
			c.ending = v.End
			break
		}
		d.Halted, c.dirty = v.Halt, "Halted"
		if v.Halt.Code == api.ErrorCodeTimeout {
			for _, t := range ts {
				if t.Status == api.TargetStatusInProgress {
					e := t.current()
					t.breakOff(Diagnostics{ErrorCode: api.LifecycleErrorCodeUnknownError, Message: "the deployment's time was over"}, c.now)
					c.touch(t, t.Status, e)
				}
			}
		}
	}
	if c.ending == nil {
		return
	}
	for _, t := range ts {
		if t.Status == api.TargetStatusPending {
			t.end(api.TargetStatusSkipped, "the deployment ended before the turn of instance "+t.Instance, c.now)
			c.touch(t, t.Status, nil)
		}
	}
}

// save writes what changed; the deployment's end last.
func (c *change) save() error {
	for _, row := range c.rows {
		m, ok := c.moved[row.Doc.Instance]
		if !ok {
			continue
		}
		if err := saveTarget(c.tx, row, &c.row.Doc, m); err != nil {
			return err
		}
	}
	if c.ending != nil {
		return c.s.finish(c.tx, c.row, c.rows, *c.ending, c.now)
	}
	if c.dirty != "" {
		return deployments.Save(c.tx, c.row, c.dirty, nil)
	}
	return nil
}

// next is when the deployment must be looked at again by itself.
func (c *change) next(traffic bool) time.Time {
	if c.ending != nil {
		return time.Time{}
	}
	at := c.again
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for _, row := range c.rows {
		sooner(row.Doc.deadline(c.s.patient))
		if e := row.Doc.current(); e != nil && serverSide(e.Name) {
			traffic = true
		}
	}
	if traffic {
		sooner(c.now.Add(trafficRecheck))
	}
	return at
}

// Types of the events of target rows.
const (
	typeBegan        = "Began"
	typeEventReady   = "EventReady"
	typeTrafficReady = "TrafficReady"
	typeAcknowledged = "EventAcknowledged"
	typeTrafficNoted = "TrafficNoted"
)

// moveKind is the type of the event of a target that ended one of its
// lifecycle events.
func moveKind(t *Target) string {
	e := t.current()
	switch {
	case e == nil:
		return t.Status
	case serverSide(e.Name):
		return typeTrafficReady
	}
	return typeEventReady
}

// targetDetail goes into the events of target rows: what happened, for the
// logs, the triggers and the console.
type targetDetail struct {
	Deployment  string
	Event       string       `json:",omitempty"`
	EventStatus string       `json:",omitempty"`
	Next        string       `json:",omitempty"`
	Message     string       `json:",omitempty"`
	Millis      int64        `json:",omitempty"` // from ready to end
	Diagnostics *Diagnostics `json:",omitempty"`
}

// saveTarget writes a target, and the host's bookkeeping when it ended.
func saveTarget(tx store.Tx, row *targetRow, d *Deployment, m move) error {
	t := &row.Doc
	detail := targetDetail{Deployment: t.Deployment, Message: t.Message}
	if e := m.ended; e != nil {
		detail.Event, detail.EventStatus, detail.Diagnostics = e.Name, e.Status, e.Diagnostics
		detail.Millis = e.EndedAt.Sub(e.ReadyAt).Milliseconds()
	}
	if e := t.current(); e != nil {
		detail.Next = e.Name
	}
	if err := targets.Save(tx, row, m.kind, detail); err != nil {
		return err
	}
	if t.EndedAt.IsZero() || t.StartedAt.IsZero() || d.Launch != nil && d.Launch.Terminating {
		return nil
	}
	h := Host{GroupID: d.GroupID, Instance: t.Instance, Deployment: d.ID, At: t.EndedAt}
	if t.Status == api.TargetStatusSucceeded {
		h.RevisionKey = d.RevisionKey
	} else {
		h.Unhealthy = true
	}
	return saveHost(tx, row.Account, row.Region, h)
}

// finish ends a deployment: its group learns of it, and the rollback that it
// calls for is created in the same transaction.
func (s *Service) finish(tx store.Tx, row *deploymentRow, rows []*targetRow, end ending, now time.Time) error {
	d := &row.Doc
	d.Status, d.Error, d.CompletedAt = end.Status, end.Error, now
	group, err := groupByID(tx, row.Account, row.Region, d.Application, d.GroupID)
	if errors.Is(err, store.ErrNotFound) {
		group = nil
	} else if err != nil {
		return err
	}
	if group != nil && d.WholeGroup() {
		if group.Doc.Active == d.ID {
			group.Doc.Active = ""
		}
		past := d.past()
		group.Doc.Attempted = &past
		if d.Status == api.DeploymentStatusSucceeded && d.Root == "" {
			group.Doc.Succeeded = &past
		}
	}
	back := s.rollback(d, group, rows, now)
	if group != nil && d.WholeGroup() {
		if err := groups.Save(tx, group, "DeploymentEnded", nil); err != nil {
			return err
		}
	}
	if err := deployments.Save(tx, row, d.Status, nil); err != nil {
		return err
	}
	if back == nil {
		return nil
	}
	return s.insertDeployment(tx, row.Account, row.Region, group, back)
}

func (d *Deployment) past() Past {
	return Past{
		ID: d.ID, Status: d.Status, CreatedAt: d.CreatedAt, EndedAt: d.CompletedAt, Revision: d.Revision,
		Version: d.Version, FileExists: d.FileExists, RevisionKey: d.RevisionKey,
	}
}

// rollback makes the deployment that undoes d, or nil; d says why.
// AWS: "Redeploy and roll back a deployment".
func (s *Service) rollback(d *Deployment, group *groupRow, rows []*targetRow, now time.Time) *Deployment {
	event := ""
	switch {
	case d.Status == api.DeploymentStatusFailed:
		event = api.AutoRollbackEventDeploymentFailure
	case d.Status == api.DeploymentStatusStopped && d.Stop != nil:
		event = d.Stop.Trigger
	}
	if event == "" || d.Creator == api.DeploymentCreatorCodeDeployRollback || !d.WholeGroup() || d.Root != "" {
		return nil
	}
	c := d.AutoRollback
	wanted := c != nil && flag(c.Enabled) && slices.Contains(c.Events, event) || d.Stop != nil && d.Stop.Rollback
	if !wanted {
		return nil
	}
	began := slices.ContainsFunc(rows, func(r *targetRow) bool { return !r.Doc.StartedAt.IsZero() })
	switch {
	case group == nil:
		d.RollbackMessage = "There is no rollback: the deployment group was deleted."
		return nil
	case !began:
		d.RollbackMessage = "There is no rollback: the deployment changed no instance."
		return nil
	case group.Doc.Succeeded == nil:
		d.RollbackMessage = "There is no rollback: no earlier deployment to this group succeeded."
		return nil
	}
	last := group.Doc.Succeeded
	b := *d
	b.ID = derivedID(d.ID, "rollback")
	b.Status, b.Creator = api.DeploymentStatusCreated, api.DeploymentCreatorCodeDeployRollback
	b.Description = fmt.Sprintf("Automatic rollback of deployment %s to the revision of deployment %s", d.ID, last.ID)
	b.PreviousRevision, b.Revision, b.Version, b.RevisionKey, b.FileExists = d.Revision, last.Revision, last.Version, last.RevisionKey, last.FileExists
	b.CreatedAt, b.StartedAt, b.CompletedAt = now, time.Time{}, time.Time{}
	b.Error, b.Stop, b.Halted, b.OutdatedOnly, b.TargetGroups = nil, nil, nil, false, nil
	b.RollbackOf, b.RollbackID, b.RollbackMessage = d.ID, "", ""
	b.FollowOns, b.FollowedUp = nil, false
	d.RollbackID = b.ID
	d.RollbackMessage = fmt.Sprintf("Deployment %s rolls back to the revision of deployment %s.", b.ID, last.ID)
	return &b
}

// insertDeployment adds a created deployment and makes it its group's active
// one. A derived id that exists already is the same deployment.
func (s *Service) insertDeployment(tx store.Tx, account, region string, group *groupRow, d *Deployment) error {
	_, err := deployments.Insert(tx, account, region, d.ID, *d, api.DeploymentStatusCreated, nil)
	if errors.Is(err, store.ErrExists) {
		return nil
	}
	if err != nil {
		return err
	}
	if !d.WholeGroup() {
		return nil
	}
	fresh, err := groups.Get(tx, account, region, group.ID)
	if err != nil {
		return err
	}
	past := d.past()
	fresh.Doc.Active, fresh.Doc.Attempted = d.ID, &past
	return groups.Save(tx, fresh, "DeploymentCreated", nil)
}
