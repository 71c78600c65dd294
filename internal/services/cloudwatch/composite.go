package cloudwatch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/store"
)

func (s *Service) putCompositeAlarm(ctx context.Context, in *api.PutCompositeAlarmInput) (*api.PutCompositeAlarmOutput, error) {
	_, children, err := parseRule(*in.AlarmRule)
	if err != nil {
		return nil, validation("%v.", err)
	}
	if err := checkComposite(in); err != nil {
		return nil, err
	}
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	account, region := where(ctx)
	if in.ActionsSuppressor != nil {
		children = append(children, alarmName(*in.ActionsSuppressor))
	}
	var gone []string
	err = s.store.View(ctx, func(r store.Reader) error {
		for _, name := range children {
			_, err := r.Get(alarms.Key(account, region, name))
			if errors.Is(err, store.ErrNotFound) && name != *in.AlarmName {
				gone = append(gone, name)
			} else if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(gone) > 0 {
		return nil, validation("Could not save the composite alarm as alarms [%s] in the alarm rule do not exist", strings.Join(gone, ", "))
	}
	c := *in
	c.Tags, c.ActionsEnabled = nil, nil
	return nil, s.putAlarm(ctx, *in.AlarmName, tags, in.ActionsEnabled, func(_ store.Tx, a *Alarm) error {
		a.Composite = &c
		return nil
	})
}

func checkComposite(in *api.PutCompositeAlarmInput) error {
	for _, l := range [][]string{in.OKActions, in.AlarmActions, in.InsufficientDataActions} {
		if err := checkActions(l); err != nil {
			return err
		}
		for _, arn := range l {
			if s := strings.Split(arn, ":")[2]; s == "autoscaling" || s == "automate" || s == "swf" {
				return validation("Composite alarms do not take Auto Scaling and EC2 actions: %s", arn)
			}
		}
	}
	wait, extension := in.ActionsSuppressorWaitPeriod, in.ActionsSuppressorExtensionPeriod
	switch {
	case in.ActionsSuppressor == nil && (wait != nil || extension != nil):
		return validation("ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod require ActionsSuppressor.")
	case in.ActionsSuppressor != nil && (wait == nil || extension == nil):
		return validation("ActionsSuppressor requires ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod.")
	case wait != nil && *wait < 0 || extension != nil && *extension < 0:
		return validation("ActionsSuppressorWaitPeriod and ActionsSuppressorExtensionPeriod must not be negative.")
	}
	return nil
}

// prepareComposite reads a composite alarm's rule.
func (w *watched) prepareComposite() error {
	c := w.row.Doc.Composite
	expr, names, err := parseRule(*c.AlarmRule)
	if err != nil {
		return err
	}
	w.expr = expr
	if c.ActionsSuppressor != nil {
		names = append(names, alarmName(*c.ActionsSuppressor))
	}
	for _, n := range names {
		w.deps = append(w.deps, alarms.Key(w.row.Account, w.row.Region, n))
	}
	return nil
}

// stateOfChild is the state of an alarm that a rule names; one that is gone
// counts as INSUFFICIENT_DATA.
func (e *engine) stateOfChild(w *watched) func(string) string {
	return func(name string) string {
		if child := e.alarms[alarms.Key(w.row.Account, w.row.Region, name)]; child != nil {
			return child.row.Doc.State
		}
		return api.StateValueInsufficientData
	}
}

// circular says whether an alarm depends on itself: AWS does not evaluate it.
func (e *engine) circular(key store.Key) bool {
	seen := map[store.Key]bool{}
	var visit func(store.Key) bool
	visit = func(k store.Key) bool {
		w := e.alarms[k]
		if w == nil || seen[k] {
			return false
		}
		seen[k] = true
		for _, dep := range w.deps {
			if dep == key || visit(dep) {
				return true
			}
		}
		return false
	}
	return visit(key)
}

func (e *engine) evaluateComposite(ctx context.Context, w *watched) error {
	if e.circular(w.row.Key) {
		return nil
	}
	a := &w.row.Doc
	state := api.StateValueOk
	if w.expr(e.stateOfChild(w)) {
		state = api.StateValueAlarm
	}
	now := e.s.clock.Now()
	changed := state != a.State
	held := e.suppression(w, changed, now)
	if !changed && sameHold(held, a.Held) {
		return nil
	}
	told := a.State
	if a.Held != nil {
		told = a.Held.From
	}
	reason, data := e.compositeReason(w, state)
	return e.s.store.Update(ctx, func(tx store.Tx) error {
		row := *w.row
		row.Doc.Held = held
		var err error
		if changed {
			err = e.s.transition(tx, &row, change{state: state, reason: reason, data: data, quiet: true})
		} else {
			err = alarms.Save(tx, &row, eventOther, nil)
		}
		if err != nil || held != nil || row.Doc.State == told {
			return err
		}
		return e.s.enqueue(tx, &row, told, nil)
	})
}

func sameHold(a, b *heldActions) bool {
	return a == nil && b == nil || a != nil && b != nil && a.By == b.By && a.Until.Equal(b.Until)
}

// suppression is what holds the alarm's actions back from now on, or nil.
func (e *engine) suppression(w *watched, changed bool, now time.Time) *heldActions {
	a := &w.row.Doc
	c := a.Composite
	if c.ActionsSuppressor == nil {
		return nil
	}
	told := a.State
	if a.Held != nil {
		told = a.Held.From
	}
	name := alarmName(*c.ActionsSuppressor)
	arn := alarmARN(w.row.Account, w.row.Region, name)
	suppressor := e.alarms[alarms.Key(w.row.Account, w.row.Region, name)]
	wait := time.Duration(*c.ActionsSuppressorWaitPeriod) * time.Second
	extension := time.Duration(*c.ActionsSuppressorExtensionPeriod) * time.Second
	var until time.Time // the end of the extension period
	if suppressor != nil {
		until = suppressor.row.Doc.Transitioned.Add(extension)
	}
	extended := func() *heldActions {
		if !now.Before(until) {
			return nil
		}
		return &heldActions{By: api.ActionsSuppressedByExtensionPeriod, From: told, Until: until,
			Reason: fmt.Sprintf("%s left ALARM less than %d seconds ago", arn, int64(extension/time.Second))}
	}
	switch {
	case suppressor != nil && suppressor.row.Doc.State == api.StateValueAlarm:
		if !changed && a.Held == nil {
			return nil
		}
		return &heldActions{By: api.ActionsSuppressedByAlarm, From: told, Reason: arn + " is in ALARM"}
	case a.Held != nil && a.Held.By == api.ActionsSuppressedByAlarm:
		return extended()
	case a.Held != nil:
		if !now.Before(a.Held.Until) {
			return nil
		}
		return a.Held
	case !changed:
		return nil
	}
	if suppressor != nil && suppressor.leftAlarm {
		if h := extended(); h != nil {
			return h
		}
	}
	if wait <= 0 {
		return nil
	}
	return &heldActions{By: api.ActionsSuppressedByWaitPeriod, From: told, Until: now.Add(wait),
		Reason: fmt.Sprintf("Waiting up to %d seconds for %s to go into ALARM", int64(wait/time.Second), arn)}
}

// compositeReason names the child whose change was the last.
func (e *engine) compositeReason(w *watched, state string) (reason, data string) {
	a := &w.row.Doc
	var last *Alarm
	for _, dep := range w.deps {
		if child := e.alarms[dep]; child != nil && (last == nil || child.row.Doc.Transitioned.After(last.Transitioned)) {
			last = &child.row.Doc
		}
	}
	if a.Reason == uncheckedReason {
		reason = fmt.Sprintf("%s was created and its alarm rule evaluates to %s", a.ARN, state)
	} else if last == nil || last.Transitioned.Before(a.Configured) {
		reason = fmt.Sprintf("%s was updated and its alarm rule evaluates to %s", a.ARN, state)
	} else {
		reason = fmt.Sprintf("%s transitioned to %s at %s", last.ARN, last.State, last.Transitioned.UTC().Format(mailTime))
	}
	type alarmState struct {
		Value     string `json:"value"`
		Timestamp string `json:"timestamp"`
	}
	type triggering struct {
		ARN   string     `json:"arn"`
		State alarmState `json:"state"`
	}
	d := struct {
		Triggering []triggering `json:"triggeringAlarms"`
	}{[]triggering{}}
	if last != nil {
		d.Triggering = append(d.Triggering, triggering{last.ARN, alarmState{last.State, last.Transitioned.UTC().Format(awsTime)}})
	}
	b, _ := json.Marshal(d) // plain data: cannot fail
	return shortened(reason, 1023), string(b)
}

// relatives are the names that DescribeAlarms's kinship filters select; nil
// where there is no such filter.
func (s *Service) relatives(ctx context.Context, in *api.DescribeAlarmsInput) (map[string]bool, error) {
	if in.ChildrenOfAlarmName == nil && in.ParentsOfAlarmName == nil {
		return nil, nil
	}
	if in.ChildrenOfAlarmName != nil && in.ParentsOfAlarmName != nil {
		return nil, validation("ChildrenOfAlarmName and ParentsOfAlarmName are mutually exclusive.")
	}
	account, region := where(ctx)
	rows, err := alarms.Select(ctx, s.store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, row := range rows {
		if !row.Doc.composite() {
			continue
		}
		_, children, err := parseRule(*row.Doc.Composite.AlarmRule)
		if err != nil {
			continue // it was valid when it was put
		}
		for _, child := range children {
			if in.ChildrenOfAlarmName != nil && row.ID == alarmName(*in.ChildrenOfAlarmName) {
				out[child] = true
			}
			if in.ParentsOfAlarmName != nil && child == alarmName(*in.ParentsOfAlarmName) {
				out[row.ID] = true
			}
		}
	}
	return out, nil
}

// checkDelete refuses to delete composite alarms of a circle, and more than
// one at once (API reference, "DeleteAlarms").
func checkDelete(tx store.Reader, account, region string, names []string) error {
	children := func(name string) ([]string, error) {
		row, err := alarms.Get(tx, account, region, name)
		if errors.Is(err, store.ErrNotFound) || err == nil && !row.Doc.composite() {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		_, names, err := parseRule(*row.Doc.Composite.AlarmRule)
		return list(names), err
	}
	composites := 0
	for _, name := range names {
		seen := map[string]bool{}
		todo, err := children(name)
		if todo != nil {
			if composites++; composites > 1 {
				return validation("At most one composite alarm can be deleted at once.")
			}
		}
		for len(todo) > 0 && err == nil {
			next := todo[0]
			todo = todo[1:]
			if next == name {
				return validation("The composite alarm %s is part of a cycle. Set its AlarmRule to FALSE first.", name)
			}
			if seen[next] {
				continue
			}
			seen[next] = true
			var more []string
			more, err = children(next)
			todo = append(todo, more...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
