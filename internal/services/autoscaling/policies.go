package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/autoscaling"
	cw "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Types of policies.
const (
	simpleScaling  = "SimpleScaling"
	stepScaling    = "StepScaling"
	targetTracking = "TargetTrackingScaling"
)

// States of a policy. Active is entered when its alarms are there; Deleting
// lasts until they are gone.
const (
	policyCreating = "Creating"
	policyActive   = "Active"
	policyDeleting = "Deleting"
)

// Policy is the document of an autoscaling:policy row; its id is "group/name".
type Policy struct {
	Name, Group, GroupARN, ARN string
	Type                       string
	State                      string
	Disabled                   bool                             `json:",omitempty"`
	Adjustment                 string                           `json:",omitempty"` // ChangeInCapacity, ...
	By, MinMagnitude           int64                            `json:",omitempty"`
	MinStep                    *int64                           `json:",omitempty"`
	Cooldown, Warmup           *int64                           `json:",omitempty"` // seconds
	Aggregation                string                           `json:",omitempty"`
	Steps                      []api.StepAdjustment             `json:",omitempty"`
	Tracking                   *api.TargetTrackingConfiguration `json:",omitempty"`
	// High and Low are the names of a target tracking policy's alarms; Old
	// are alarms that it does not need any more.
	High, Low string   `json:",omitempty"`
	Old       []string `json:",omitempty"`
}

var (
	policies = store.NewTable[Policy]("autoscaling:policy", func(p *Policy) (string, string) { return p.Group, p.State })
	scalings = store.NewTable[scaling]("autoscaling:scaling", func(s *scaling) (string, string) { return s.Group, "" })
)

// trigger is why a policy runs.
type trigger struct {
	cause  string // the sentence's beginning
	alarms []InvokingAlarm
	// metric is the value, diff how far it is above the threshold; NaN where unknown.
	metric, diff float64
	in           bool // target tracking: the low alarm
	// honor refuses instead of waiting when a simple policy is in its cooldown.
	honor bool
	// force runs a simple policy in spite of its cooldown.
	force bool
}

// AlarmFired runs a policy because an alarm says so. Policies that are
// disabled, groups whose AlarmNotification is suspended, and cooldowns make it
// do nothing. state is the alarm's; value is the newest data point, NaN where
// there is none. An unknown policy is a ValidationError.
func (s *Service) AlarmFired(ctx context.Context, account, region, policyARN, alarmName, state string, value, threshold float64) error {
	ctx = caller.ForService(ctx, "autoscaling", account, region)
	row, err := s.policyByARN(ctx, account, region, policyARN)
	if err != nil {
		return err
	}
	p := &row.Doc
	if p.Disabled || p.State != policyActive || p.Type == targetTracking && (state != "ALARM" || math.IsNaN(value)) || p.Type == stepScaling && (math.IsNaN(value) || math.IsNaN(threshold)) {
		return nil
	}
	t := trigger{cause: fmt.Sprintf("a monitor alarm %s in state %s triggered policy %s", alarmName, state, p.Name), metric: value, diff: value - threshold, in: alarmName == p.Low && p.Low != "",
		alarms: []InvokingAlarm{{AlarmARN: alarmARN(account, region, alarmName), AlarmName: alarmName, Region: region, NewState: state, StateChangeTime: s.Clock.Now().UnixMilli()}}}
	if t.in {
		agreed, err := s.allAgree(ctx, row)
		if err != nil || !agreed {
			return err
		}
	}
	_, err = s.scale(ctx, row, t)
	return err
}

func alarmARN(account, region, name string) string {
	return "arn:aws:cloudwatch:" + region + ":" + account + ":alarm:" + name
}

// allAgree says whether every other target tracking policy of the group that
// may scale in wants to (User Guide, "Target tracking scaling policies").
func (s *Service) allAgree(ctx context.Context, row *store.Row[Policy]) (bool, error) {
	all, err := policies.Select(ctx, s.Store, store.Query{Account: row.Account, Region: row.Region, Parent: row.Doc.Group, State: policyActive})
	if err != nil {
		return false, err
	}
	var lows []string
	for _, p := range all {
		if p.ID != row.ID && p.Doc.GroupARN == row.Doc.GroupARN && p.Doc.Type == targetTracking && p.Doc.Low != "" && !p.Doc.Disabled {
			lows = append(lows, p.Doc.Low)
		}
	}
	if len(lows) == 0 {
		return true, nil
	}
	out, err := dispatch.Call(ctx, s.Mux, cw.OpDescribeAlarms, &cw.DescribeAlarmsInput{AlarmNames: lows})
	if err != nil {
		return false, err
	}
	for _, a := range out.MetricAlarms {
		if ptr.Value(a.StateValue) != "ALARM" {
			return false, nil
		}
	}
	return len(out.MetricAlarms) == len(lows), nil
}

// scale lets a policy decide and writes down what it decided, in one
// transaction.
func (s *Service) scale(ctx context.Context, row *store.Row[Policy], t trigger) (changed bool, err error) {
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		changed = false
		g, err := getGroup(tx, row.Account, row.Region, row.Doc.Group)
		if err != nil {
			return err
		}
		if g.Doc.Deleting || g.Doc.ARN != row.Doc.GroupARN || len(t.alarms) > 0 && g.Doc.suspended("AlarmNotification") {
			return nil
		}
		m, past, err := s.momentOf(tx, g)
		if err != nil {
			return err
		}
		if until, busy := m.coolUntil(); t.honor && m.cooling() {
			if busy {
				return awserr.New(api.ErrCodeScalingActivityInProgressFault, "The AutoScalingGroup '%s' has scaling activities in progress, and its cooldown begins after them.", g.ID)
			}
			return awserr.New(api.ErrCodeScalingActivityInProgressFault, "The AutoScalingGroup '%s' is in its cooldown period until %s.", g.ID, until.UTC().Format(time.RFC3339))
		}
		if t.force {
			m.past.SimpleAt = time.Time{}
		}
		p := &row.Doc
		d := p.decide(m, t.metric, t.diff, t.in)
		from := g.Doc.Desired
		if d.desired == from {
			return nil
		}
		changed = true
		g.Doc.setDesired(d.desired, at(m.now, fmt.Sprintf("%s changing the desired capacity from %d to %d.", t.cause, from, d.desired)), t.alarms)
		if err := groups.Save(tx, g, "Scaling", nil); err != nil {
			return err
		}
		return saveScaling(tx, g, past, p, d, m, from)
	})
	return changed, err
}

// saveScaling remembers what cooldown and warm-up are counted from.
func saveScaling(tx store.Tx, g *store.Row[Group], past *store.Row[scaling], p *Policy, d decision, m *moment, from int64) error {
	next := scaling{}
	if past != nil {
		next = past.Doc
	}
	next.Group, next.GroupARN = g.ID, g.Doc.ARN
	if d.simple {
		next.SimpleAt, next.Cooldown = m.now, g.Doc.Cooldown
		if p.Cooldown != nil {
			next.Cooldown = *p.Cooldown
		}
	}
	if d.out && m.past.OutAt.IsZero() || d.out && m.warm(p.warmup(&g.Doc)) == from {
		next.OutAt, next.Base = m.now, from
	}
	if past == nil {
		_, err := scalings.Insert(tx, g.Account, g.Region, g.ID, next, "Scaled", nil)
		return err
	}
	past.Doc = next
	return scalings.Save(tx, past, "Scaled", nil)
}

// momentOf reads what policies look at.
func (s *Service) momentOf(r store.Reader, g *store.Row[Group]) (*moment, *store.Row[scaling], error) {
	m := &moment{now: s.Clock.Now(), group: &g.Doc}
	q := store.Query{Account: g.Account, Region: g.Region, Parent: g.ID}
	is, err := instances.List(r, q)
	if err != nil {
		return nil, nil, err
	}
	for _, i := range is {
		m.instances = append(m.instances, &i.Doc)
	}
	q.Descending, q.Limit = true, 20
	recent, err := activities.List(r, q)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range recent {
		if a.Doc.GroupARN == g.Doc.ARN && a.Doc.Kind == "terminate" && a.Doc.End.After(m.ended) {
			m.ended = a.Doc.End
		}
	}
	past, err := scalings.Get(r, g.Account, g.Region, g.ID)
	if errors.Is(err, store.ErrNotFound) {
		return m, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if past.Doc.GroupARN != g.Doc.ARN { // of an earlier group of this name
		past.Doc = scaling{}
	}
	m.past = past.Doc
	return m, past, nil
}

// policyByARN reads "arn:...:scalingPolicy:UUID:autoScalingGroupName/G:policyName/P".
func (s *Service) policyByARN(ctx context.Context, account, region, arn string) (*store.Row[Policy], error) {
	bad := invalid("Policy ARN '%s' was not found.", arn)
	_, rest, ok := strings.Cut(arn, ":autoScalingGroupName/")
	group, name, ok2 := strings.Cut(rest, ":policyName/")
	if !ok || !ok2 {
		return nil, bad
	}
	row, err := policies.Find(ctx, s.Store, account, region, group+"/"+name)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Doc.ARN != arn {
		return nil, bad
	}
	return row, err
}

// finishAfter is how long a request has to make a policy's alarms before the
// controller does.
const finishAfter = 5 * time.Second

// reconcilePolicy finishes what a crash cut short: alarms that are missing,
// or that nobody needs any more. A policy whose group is gone goes with it.
func (s *Service) reconcilePolicy(ctx context.Context, key store.Key) (time.Duration, error) {
	ctx = caller.ForService(ctx, "autoscaling", key.Account, key.Region)
	row, err := policies.Find(ctx, s.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	g, err := groups.Find(ctx, s.Store, key.Account, key.Region, row.Doc.Group)
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && g.Doc.ARN != row.Doc.GroupARN, err == nil && row.Doc.State == policyDeleting:
		return 0, s.dropPolicy(ctx, row)
	case err != nil:
		return 0, err
	case row.Doc.State == policyCreating:
		if wait := finishAfter - s.Clock.Since(row.Updated); wait > 0 {
			return wait, nil // whoever asked for it is at it
		}
		return 0, s.activate(ctx, row)
	}
	return 0, nil
}

// policiesOf leads from a group that was deleted to its policies.
func (s *Service) policiesOf(ev store.Event) (keys []store.Key) {
	if !ev.Deleted {
		return nil
	}
	// A failure here is no loss: the store is gone, and with it the controller.
	_ = s.Store.View(context.Background(), func(r store.Reader) error {
		recs, err := r.List(store.Query{Kind: policies.Kind, Account: ev.Key.Account, Region: ev.Key.Region, Parent: ev.Key.ID})
		for _, rec := range recs {
			keys = append(keys, rec.Key)
		}
		return err
	})
	return keys
}

// activate makes the alarms of a policy and lets it work.
func (s *Service) activate(ctx context.Context, row *store.Row[Policy]) error {
	p := &row.Doc
	for _, in := range p.alarms(row.Region) {
		if _, err := dispatch.Call(ctx, s.Mux, cw.OpPutMetricAlarm, &in); err != nil {
			return err
		}
	}
	if err := s.deleteAlarms(ctx, p.Old); err != nil {
		return err
	}
	p.State, p.Old = policyActive, nil
	return s.Store.Update(ctx, func(tx store.Tx) error { return policies.Save(tx, row, "Active", nil) })
}

// dropPolicy removes a policy's alarms, then the policy.
func (s *Service) dropPolicy(ctx context.Context, row *store.Row[Policy]) error {
	names := slices.Clone(row.Doc.Old)
	for _, n := range []string{row.Doc.High, row.Doc.Low} {
		if n != "" {
			names = append(names, n)
		}
	}
	if err := s.deleteAlarms(ctx, names); err != nil {
		return err
	}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		now, err := policies.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		if now.Doc.ARN != row.Doc.ARN {
			return nil
		}
		return policies.Delete(tx, now, "Deleted", nil)
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
