package codedeploy

import (
	"fmt"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/store"
)

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
	if d.Stop != nil && d.Stop.Cause.Code == api.ErrorCodeDeploymentGroupMissing {
		return nil // nobody is left to remember it
	}
	h := Host{GroupID: d.GroupID, Instance: t.Instance, Deployment: d.ID, At: t.EndedAt}
	if t.Status == api.TargetStatusSucceeded {
		h.RevisionKey = d.RevisionKey
	} else {
		h.Unhealthy = true
	}
	return saveHost(tx, row.Account, row.Region, h)
}
