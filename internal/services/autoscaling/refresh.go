package autoscaling

import (
	"fmt"
	"slices"
	"time"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// States of an instance refresh.
const (
	refreshPending    = api.InstanceRefreshStatusPending
	refreshInProgress = api.InstanceRefreshStatusInProgress
	refreshSuccessful = api.InstanceRefreshStatusSuccessful
	refreshFailed     = api.InstanceRefreshStatusFailed
	refreshCancelled  = api.InstanceRefreshStatusCancelled
)

// refresh replaces the instances that a group had when it began, some at a
// time (User Guide, "Use an instance refresh to update instances in an Auto
// Scaling group").
type refresh struct {
	ID, Group      string
	Status, Reason string
	Start          time.Time
	End            time.Time `json:",omitzero"`
	// Targets are the instances to replace; what is left of them is recounted.
	Targets []string
	// Left and Moved are the progress: how many are to be replaced or to warm
	// up, and when that number last fell.
	Left  int
	Moved time.Time
	// Template is the desired configuration; the group's own until success.
	Template *templateRef              `json:",omitempty"`
	Mixed    *api.MixedInstancesPolicy `json:",omitempty"`
	Given    *api.RefreshPreferences   `json:",omitempty"`
	Desired  *api.DesiredConfiguration `json:",omitempty"`
}

// refreshes is the table; ids are "group/uuid", which sorts by time.
var refreshes = store.NewTable[refresh]("autoscaling:refresh", func(r *refresh) (string, string) { return r.Group, r.Status })

func (r *refresh) active() bool { return r.Status == refreshPending || r.Status == refreshInProgress }

// refreshStall is how long a refresh may stand still before it fails.
const refreshStall = time.Hour

const (
	causeRefreshOut = "an instance was taken out of service in response to an instance refresh."
	causeRefreshIn  = "an instance was launched in response to an instance refresh."
)

// percentages are the healthy share that a refresh keeps and the size that
// it may reach, in percent of the desired capacity.
func (r *refresh) percentages(g *Group) (low, high int64) {
	low, high = 90, 100
	if g.Maintenance != nil {
		low, high = *g.Maintenance.MinHealthyPercentage, *g.Maintenance.MaxHealthyPercentage
	}
	if r.Given != nil {
		set(&low, r.Given.MinHealthyPercentage)
		set(&high, r.Given.MaxHealthyPercentage)
	}
	return low, high
}

// warmup falls back from the refresh to the group's warm-up to its grace period.
func (r *refresh) warmup(g *Group) time.Duration {
	seconds := g.Grace
	set(&seconds, g.Warmup)
	if r.Given != nil {
		set(&seconds, r.Given.InstanceWarmup)
	}
	return time.Duration(seconds) * time.Second
}

// refreshing replaces the next instances of a running refresh.
func (p *planner) refreshing() {
	r, g := p.refresh, p.group
	if r == nil || g.suspended("InstanceRefresh") || g.suspended("Launch") || g.suspended("Terminate") {
		return
	}
	var old []*Instance
	warming, serving, waitsFor := 0, 0, ""
	for _, i := range p.instances {
		target := slices.Contains(r.Targets, i.ID)
		switch {
		case i.leaving() || i.State == detaching || i.State == standby && !target:
		case target:
			old = append(old, i)
			if i.State == inService {
				serving++
			}
		case i.State != inService || p.warmingUp(i):
			warming++
			waitsFor = i.ID
		default:
			serving++
		}
	}
	left := len(old) + warming + max(0, int(g.Desired)-len(old)-warming-serving)
	switch {
	case len(old) == 0 && warming == 0 && serving >= int(g.Desired):
		p.add(act{verb: doRefresh, state: refreshSuccessful})
		return
	case p.now.Sub(r.Moved) > refreshStall && left >= r.Left:
		p.add(act{verb: doRefresh, state: refreshFailed, message: "The instance refresh made no progress for an hour."})
		return
	}
	p.look(r.Moved.Add(refreshStall + time.Second))
	if reason := p.refreshReason(old, waitsFor); r.Status == refreshPending || left != r.Left || reason != r.Reason {
		p.add(act{verb: doRefresh, state: refreshInProgress, message: reason, to: int64(left)})
	}
	total := 0
	for _, i := range p.instances {
		if i.arriving() || i.State == inService {
			total++
		}
	}
	p.replaceOld(old, warming, serving, total)
}

func (p *planner) refreshReason(old []*Instance, waitsFor string) string {
	if waitsFor != "" {
		return "Waiting for instances to warm up before continuing. For example: " + waitsFor + " is warming up."
	}
	if n := slices.IndexFunc(old, func(i *Instance) bool { return !p.mayReplace(i) }); n >= 0 {
		return fmt.Sprintf("Waiting for an instance that cannot be replaced now. For example: %s is %s.", old[n].ID, map[bool]string{true: "protected from scale-in", false: "in the state " + old[n].State}[old[n].Protected])
	}
	return ""
}

// warmingUp says whether an instance in service still warms up, or has yet
// to be called healthy by the load balancer.
func (p *planner) warmingUp(i *Instance) bool {
	if end := i.InServiceAt.Add(p.refresh.warmup(p.group)); end.After(p.now) {
		p.look(end)
		return true
	}
	if !p.group.checksELB() {
		return false
	}
	return slices.ContainsFunc(p.group.Attachments, func(a attachment) bool {
		return a.State == "InService" && slices.Contains(i.TargetGroups, a.ARN) && p.targets[a.ARN][i.ID] != "healthy"
	})
}

// mayReplace says whether protection or standby lets an instance be replaced.
func (p *planner) mayReplace(i *Instance) bool {
	given := p.refresh.Given
	if given == nil {
		given = &api.RefreshPreferences{}
	}
	if i.Protected {
		return ptr.Value(given.ScaleInProtectedInstances) == "Refresh"
	}
	return i.State == inService || i.State == standby && ptr.Value(given.StandbyInstances) == "Terminate"
}

// replaceOld ends as many old instances as the healthy share allows, or
// launches ahead where the group may grow for it. total counts all that are
// not on their way out.
func (p *planner) replaceOld(old []*Instance, warming, serving, total int) {
	g := p.group
	low, high := p.refresh.percentages(g)
	keep := int((g.Desired*low + 99) / 100)
	room := int(g.Desired*high/100 - g.Desired)
	ready := slices.DeleteFunc(slices.Clone(old), func(i *Instance) bool { return p.busy[i.ID] || !p.mayReplace(i) })
	if len(ready) == 0 || len(p.intents) > 0 {
		return
	}
	if high > 100 {
		// Launch first: what comes into service makes shrink end an old one.
		if g.RetryAt.After(p.now) {
			return
		}
		have := p.counted()
		for range min(max(1, room)-(total-int(g.Desired)), len(ready)) {
			if pl, ok := p.emptiest(p.byZone(have)); ok {
				p.add(act{verb: doLaunch, place: pl, rebal: true, cause: causeRefreshIn, from: g.Desired, to: g.Desired})
			}
		}
		return
	}
	missing := max(0, int(g.Desired)-serving)
	batch := max(1, int(g.Desired)-keep)
	for _, i := range ready[:min(len(ready), max(0, batch-max(missing, warming)))] {
		p.add(act{verb: doTerminate, instance: i, cause: causeRefreshOut, replace: true})
	}
}

// counted are the instances that make up the group's actual capacity.
func (p *planner) counted() []*Instance {
	var have []*Instance
	for _, i := range p.instances {
		if i.counts() && !p.ending(i) {
			have = append(have, i)
		}
	}
	return have
}
