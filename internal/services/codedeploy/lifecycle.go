package codedeploy

import (
	"fmt"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
)

// Target is one instance within one deployment. Its Status is AWS's:
//
//	Pending     waits for its turn
//	InProgress  begin; exactly one of its events is current
//	Succeeded   its last event ended well
//	Failed      an event failed, the instance went away, or it was interrupted
//	Skipped     its turn never came
type Target struct {
	Deployment string
	Instance   string
	HostARN    string
	Status     string
	UpdatedAt  time.Time
	// Rank is the scheduling order: unhealthy, unknown, old, current.
	Rank int
	// WasUnhealthy is the instance's health when the deployment began.
	WasUnhealthy bool
	Zone         string    `json:",omitempty"`
	StartedAt    time.Time `json:",omitzero"`
	EndedAt      time.Time `json:",omitzero"`
	Events       []Event
	// Left: the instance ceased to exist before its turn. It no longer
	// counts as part of the fleet.
	Left bool `json:",omitempty"`
	// Message says why the target failed or was skipped.
	Message string `json:",omitempty"`
	// Ports by target group ARN, as BlockTraffic found them registered.
	Ports map[string][]int64 `json:",omitzero"`
	// LastPorts are those of an earlier deployment that took the instance out
	// and failed before it put it back.
	LastPorts map[string][]int64 `json:",omitempty"`
}

// Event is one lifecycle event on one target. It becomes ready when its
// predecessor ended, is handed out to polls until one delivery of it is
// acknowledged, and ends by the first answer.
type Event struct {
	Name   string
	Status string
	// ReadyAt is when the event became the target's current one.
	ReadyAt time.Time `json:",omitzero"`
	// AckedAt is when the agent took it up; Delivery is which of the copies
	// handed out it was.
	AckedAt     time.Time    `json:",omitzero"`
	Delivery    string       `json:",omitempty"`
	Noop        bool         `json:",omitempty"`
	EndedAt     time.Time    `json:",omitzero"`
	Diagnostics *Diagnostics `json:",omitempty"`
}

// Diagnostics of an event; ErrorCode is AWS's LifecycleErrorCode.
type Diagnostics struct {
	ErrorCode string
	Script    string `json:",omitempty"`
	Message   string `json:",omitempty"`
	LogTail   string `json:",omitempty"`
}

const (
	eventBeforeBlock = "BeforeBlockTraffic"
	eventBlock       = "BlockTraffic"
	eventAfterBlock  = "AfterBlockTraffic"
	eventStop        = "ApplicationStop"
	eventDownload    = "DownloadBundle"
	eventBeforeInst  = "BeforeInstall"
	eventInstall     = "Install"
	eventAfterInst   = "AfterInstall"
	eventStart       = "ApplicationStart"
	eventValidate    = "ValidateService"
	eventBeforeAllow = "BeforeAllowTraffic"
	eventAllow       = "AllowTraffic"
	eventAfterAllow  = "AfterAllowTraffic"
)

// lifecycleOf lists the events of a deployment's targets (AWS: AppSpec
// "hooks" section, list of lifecycle event hooks).
func lifecycleOf(d *Deployment) []Event {
	var names []string
	block := []string{eventBeforeBlock, eventBlock, eventAfterBlock}
	install := []string{eventStop, eventDownload, eventBeforeInst, eventInstall, eventAfterInst, eventStart, eventValidate}
	allow := []string{eventBeforeAllow, eventAllow, eventAfterAllow}
	traffic := d.WithTraffic()
	launching := d.Launch != nil && !d.Launch.Terminating
	leaving := d.Launch != nil && d.Launch.Terminating
	if traffic && !launching {
		names = append(names, block...)
	}
	if leaving {
		names = append(names, eventStop)
	} else {
		names = append(names, install...)
	}
	if traffic && !leaving {
		names = append(names, allow...)
	}
	events := make([]Event, len(names))
	for i, n := range names {
		events[i] = Event{Name: n, Status: api.LifecycleEventStatusPending}
	}
	return events
}

// serverSide says that the event is the server's own work, not the agent's.
func serverSide(name string) bool { return name == eventBlock || name == eventAllow }

// ignorable says that ignoreApplicationStopFailures covers the event.
func ignorable(name string) bool {
	return name == eventStop || name == eventBeforeBlock || name == eventAfterBlock
}

// current is the event under way, or nil.
func (t *Target) current() *Event {
	if t.Status != api.TargetStatusInProgress {
		return nil
	}
	for i := range t.Events {
		if t.Events[i].EndedAt.IsZero() {
			return &t.Events[i]
		}
	}
	return nil
}

// begin starts a pending target.
func (t *Target) begin(now time.Time) {
	t.Status, t.StartedAt = api.TargetStatusInProgress, now
	t.next(now)
}

// next makes the first open event ready, or ends the target well.
func (t *Target) next(now time.Time) {
	t.UpdatedAt = now
	e := t.current()
	if e == nil {
		t.Status, t.EndedAt = api.TargetStatusSucceeded, now
		return
	}
	e.ReadyAt = now
	if serverSide(e.Name) {
		e.Status = api.LifecycleEventStatusInProgress
	}
}

// acknowledge notes which delivery of the current event the agent took up.
// It reports whether that delivery may go on: the first one may, again and
// again; a second copy of the same event may not.
func (t *Target) acknowledge(e *Event, delivery string, noop bool, now time.Time) (first, proceed bool) {
	if !e.AckedAt.IsZero() {
		return false, e.Delivery == delivery
	}
	e.AckedAt, e.Delivery, e.Noop, e.Status = now, delivery, noop, api.LifecycleEventStatusInProgress
	t.UpdatedAt = now
	return true, true
}

// finish ends the current event and makes the next one ready. A failure ends
// the target, unless it may be ignored.
func (t *Target) finish(failed, ignore bool, diag *Diagnostics, now time.Time) {
	e := t.current()
	e.EndedAt, e.Diagnostics = now, diag
	if !failed {
		e.Status = api.LifecycleEventStatusSucceeded
		t.next(now)
		return
	}
	e.Status = api.LifecycleEventStatusFailed
	if ignore {
		t.next(now)
		return
	}
	t.end(api.TargetStatusFailed, t.describe(e), now)
}

// end ends the target; what was not reached is skipped.
func (t *Target) end(status, message string, now time.Time) {
	for i := range t.Events {
		if e := &t.Events[i]; e.EndedAt.IsZero() {
			e.Status, e.EndedAt = api.LifecycleEventStatusSkipped, now
		}
	}
	t.Status, t.Message, t.EndedAt, t.UpdatedAt = status, message, now, now
}

// breakOff fails the current event with diag, whatever it is, and the target.
func (t *Target) breakOff(diag Diagnostics, now time.Time) {
	e := t.current()
	if e == nil {
		t.end(api.TargetStatusFailed, diag.Message, now)
		return
	}
	e.Status, e.EndedAt, e.Diagnostics = api.LifecycleEventStatusFailed, now, &diag
	t.end(api.TargetStatusFailed, t.describe(e), now)
}

// describe says in one sentence what failed where.
func (t *Target) describe(e *Event) string {
	msg := fmt.Sprintf("%s failed on instance %s", e.Name, t.Instance)
	if d := e.Diagnostics; d != nil {
		if d.Message != "" {
			msg += ": " + d.Message
		}
		if d.Script != "" && !strings.Contains(d.Message, d.Script) {
			msg += " (script " + d.Script + ")"
		}
	}
	return msg
}

// patience is how long a target may take over its current event, in the
// store's clock (AWS: CodeDeploy quotas, troubleshooting).
type patience struct {
	Pickup  time.Duration // the agent does not take the event up
	Event   time.Duration // the agent does not end it
	Traffic time.Duration // a target group does not settle
}

// deadline is when the current event fails by itself; zero where none runs.
func (t *Target) deadline(p patience) time.Time {
	e := t.current()
	switch {
	case e == nil || e.ReadyAt.IsZero():
		return time.Time{}
	case serverSide(e.Name):
		return e.ReadyAt.Add(p.Traffic)
	case e.AckedAt.IsZero():
		return e.ReadyAt.Add(p.Pickup)
	}
	return e.AckedAt.Add(p.Event)
}

// expire fails the current event if its time is over. contact describes when
// the agent was last heard of, or how the target groups stand.
func (t *Target) expire(p patience, contact string, now time.Time) bool {
	at := t.deadline(p)
	if at.IsZero() || now.Before(at) {
		return false
	}
	e := t.current()
	var diag Diagnostics
	switch {
	case serverSide(e.Name):
		diag = Diagnostics{ErrorCode: api.LifecycleErrorCodeUnknownError, Message: "the target groups did not settle within 1 hour"}
		if contact != "" {
			diag.Message += ": " + contact
		}
	case e.AckedAt.IsZero():
		diag = Diagnostics{ErrorCode: api.LifecycleErrorCodeUnknownError, Message: fmt.Sprintf("CodeDeploy agent was not able to receive the lifecycle event: it did not ask for it within 5 minutes (%s). Check that the agent runs on the instance and reaches the endpoint", contact)}
	default:
		diag = Diagnostics{ErrorCode: api.LifecycleErrorCodeScriptTimedOut, Message: fmt.Sprintf("the agent took the event up but did not report its end within 1 hour (%s)", contact)}
	}
	t.breakOff(diag, now)
	return true
}
