package autoscaling

import (
	"slices"
	"time"
)

// world is what is known of one group at one moment.
type world struct {
	now       time.Time
	group     *Group
	instances []*Instance
	intents   []*intent
	hooks     []*hook
	// ec2 has the state of each instance that EC2 knows; a missing one is gone.
	ec2 map[string]machineState
	// targets has the health of each registered instance by target group
	// (elbv2's words); a target group that does not exist any more has an entry nil.
	targets map[string]map[string]string
	// refresh is the running instance refresh, nil without one.
	refresh *refresh
	// pick chooses among equals, with a number below n.
	pick func(n int) int
}

type machineState struct {
	State, Reason string
}

func (m machineState) dead() bool { return m.State != "running" && m.State != "pending" }

// verb is what is to be done.
type verb string

const (
	doRun        verb = "run an intent"  // call RunInstances for an intent
	doLaunch     verb = "launch"         // write an intent
	doHold       verb = "hold for hooks" // to Pending:Wait or Terminating:Wait
	doResolve    verb = "resolve timed-out hook"
	doProceed    verb = "proceed"       // to Pending:Proceed or Terminating:Proceed
	doEnter      verb = "enter service" // register, InService
	doFail       verb = "fail launch"   // it died or was abandoned before it was in service
	doTerminate  verb = "terminate"     // InService -> Terminating
	doUnhealthy  verb = "mark unhealthy"
	doDeregister verb = "deregister"
	doEnd        verb = "end"      // tell EC2 to terminate it
	doRemove     verb = "remove"   // it is gone: delete the row
	doStandby    verb = "standby"  // EnteringStandby -> Standby
	doDetached   verb = "detached" // Detaching: delete the row
	doRegister   verb = "register" // an attached target group that it is missing from
	doWithdraw   verb = "withdraw" // deregister from a target group that is being removed
	doAttach     verb = "attachment state"
	doProtected  verb = "all protected"
	doDelete     verb = "delete group"
	doCounted    verb = "count rebalanced instance"
	doRefresh    verb = "refresh state"
)

// act is one step; which fields are set depends on the verb.
type act struct {
	verb     verb
	instance *Instance
	intent   *intent
	place    place
	cause    string
	hook     string // doResolve
	arn      string // target group
	state    string // doAttach
	message  string // doFail
	clean    bool   // doTerminate: without hooks
	replace  bool   // doTerminate: a launch is owed; doLaunch: it pays one
	rebal    bool   // doLaunch: to balance the zones
	now      bool   // doUnhealthy: replace at once
	from, to int64  // capacities, for the cause
}

// plan decides what to do now, and when to look again (zero: only after an
// event). It changes nothing. Steps of one plan are for different instances
// or do not depend on each other.
func plan(w *world) (acts []act, wake time.Time) {
	p := &planner{world: w}
	for _, in := range w.intents {
		p.add(act{verb: doRun, intent: in})
	}
	if len(p.acts) > 0 {
		return p.acts, time.Time{} // first learn what they become
	}
	for _, i := range w.instances {
		p.advance(i)
	}
	p.attachments()
	if w.group.Deleting {
		p.deleting()
		return p.acts, p.wake
	}
	p.health()
	p.replace()
	p.refreshing()
	p.capacity()
	if len(p.acts) == 0 {
		p.rebalance()
	}
	return p.acts, p.wake
}

type planner struct {
	*world
	acts []act
	wake time.Time
	busy map[string]bool // instances that a step of this plan is about
}

func (p *planner) add(a act) {
	if a.instance != nil {
		if p.busy == nil {
			p.busy = map[string]bool{}
		}
		p.busy[a.instance.ID] = true
	}
	p.acts = append(p.acts, a)
}

// look asks for another look at t.
func (p *planner) look(t time.Time) {
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
	}
}

func (p *planner) hooksFor(transition string) bool {
	return slices.ContainsFunc(p.hooks, func(h *hook) bool { return h.Transition == transition })
}

// advance moves one instance along its path.
func (p *planner) advance(i *Instance) {
	seen, known := p.ec2[i.ID]
	dead := !known || seen.dead()
	if i.arriving() && dead {
		p.add(act{verb: doFail, instance: i, message: deathMessage(seen, known)})
		return
	}
	switch i.State {
	case pending:
		switch {
		case seen.State != "running":
		case p.hooksFor(launching):
			p.add(act{verb: doHold, instance: i, state: pendingWait})
		default:
			p.add(act{verb: doEnter, instance: i})
		}
	case pendingWait:
		p.waiting(i)
	case pendingProceed:
		p.add(act{verb: doEnter, instance: i})
	case inService:
		if i.Rebalance && (p.refresh == nil || !p.warmingUp(i)) {
			p.add(act{verb: doCounted, instance: i})
		}
	case terminating:
		switch {
		case !p.drained(i):
			if !i.Deregistered {
				p.add(act{verb: doDeregister, instance: i})
			}
		case !i.NoHooks && p.hooksFor(terminatingHook):
			p.add(act{verb: doHold, instance: i, state: terminatingWait})
		default:
			p.add(act{verb: doProceed, instance: i, state: terminatingProceed})
		}
	case terminatingWait:
		p.waiting(i)
	case terminatingProceed:
		switch {
		case !known || seen.State == "terminated":
			p.add(act{verb: doRemove, instance: i})
		case seen.State != "shutting-down":
			p.add(act{verb: doEnd, instance: i})
		}
	case enteringStandby:
		p.leave(i, doStandby)
	case detaching:
		p.leave(i, doDetached)
	}
}

// leave deregisters and, when drained, does what follows.
func (p *planner) leave(i *Instance, then verb) {
	switch {
	case p.drained(i):
		p.add(act{verb: then, instance: i})
	case !i.Deregistered:
		p.add(act{verb: doDeregister, instance: i})
	}
}

// drained says whether no target group sends the instance anything any more.
func (p *planner) drained(i *Instance) bool {
	for _, arn := range i.TargetGroups {
		states, asked := p.targets[arn]
		if asked && states == nil {
			continue // the target group is gone
		}
		if !asked || !i.Deregistered {
			return false
		}
		if s, there := states[i.ID]; there && s != "unused" {
			return false
		}
	}
	return true
}

// waiting looks after the hooks of an instance in a :Wait state.
func (p *planner) waiting(i *Instance) {
	open := false
	for n := range i.Actions {
		a := &i.Actions[n]
		switch {
		case a.Result == "ABANDON":
			// Abandoning a launch ends it; abandoning a termination cuts the
			// remaining hooks short.
			if i.State == pendingWait {
				p.add(act{verb: doFail, instance: i, message: abandonMessage(a)})
			} else {
				p.add(act{verb: doProceed, instance: i, state: terminatingProceed})
			}
			return
		case a.Result != "":
		case !a.deadline().After(p.now):
			p.add(act{verb: doResolve, instance: i, hook: a.Hook})
			return
		default:
			open = true
			p.look(a.deadline())
		}
	}
	if open {
		return
	}
	next := pendingProceed
	if i.State == terminatingWait {
		next = terminatingProceed
	}
	p.add(act{verb: doProceed, instance: i, state: next})
}

func abandonMessage(a *action) string {
	what := "was abandoned: Lifecycle Action Completed with ABANDON Result"
	if a.TimedOut {
		what = "was abandoned: Heartbeat Timeout"
	}
	return "Instance failed to complete user's Lifecycle Action: Lifecycle Action with token " + a.Token + " " + what
}

func deathMessage(seen machineState, known bool) string {
	reason := seen.Reason
	switch {
	case !known:
		reason = "the instance does not exist any more"
	case reason == "":
		reason = "the instance is " + seen.State
	}
	return "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: " + reason
}

// attachments moves target groups in and out.
func (p *planner) attachments() {
	for _, a := range p.group.Attachments {
		states, asked := p.targets[a.ARN]
		if !asked {
			continue // could not be asked this time
		}
		if a.State == "Removing" {
			left := false
			for _, i := range p.instances {
				if !slices.Contains(i.TargetGroups, a.ARN) || states == nil {
					continue
				}
				left = true
				if !p.busy[i.ID] {
					p.add(act{verb: doWithdraw, instance: i, arn: a.ARN})
				}
			}
			if !left {
				p.add(act{verb: doAttach, arn: a.ARN, state: "Removed"})
			}
			continue
		}
		all, healthy := true, false
		for _, i := range p.instances {
			if i.State != inService {
				continue
			}
			in := slices.Contains(i.TargetGroups, a.ARN)
			if !in && !i.NoRegister && states != nil {
				all = false
				if !p.busy[i.ID] && !p.group.suspended("AddToLoadBalancer") {
					p.add(act{verb: doRegister, instance: i, arn: a.ARN})
				}
			}
			healthy = healthy || in && states[i.ID] == "healthy"
		}
		next := a.State
		if a.State == "Adding" && all {
			next = "Added"
		}
		if (next == "Added" || next == "Adding") && healthy {
			next = "InService"
		}
		if next != a.State {
			p.add(act{verb: doAttach, arn: a.ARN, state: next})
		}
	}
}

// deleting ends everything without hooks, then the group.
func (p *planner) deleting() {
	for _, i := range p.instances {
		switch {
		case p.busy[i.ID] || i.State == terminatingProceed:
		case i.State == terminatingWait:
			p.add(act{verb: doProceed, instance: i, state: terminatingProceed})
		case i.arriving() || i.State == inService || i.State == standby || i.State == enteringStandby:
			p.add(act{verb: doTerminate, instance: i, clean: true, cause: "a user request force-deleted the AutoScalingGroup."})
		}
	}
	if len(p.instances) == 0 && len(p.acts) == 0 {
		p.add(act{verb: doDelete})
	}
}

// The tails of the sentences about what made an instance unhealthy.
const (
	causeStopped           = "an instance was taken out of service in response to an EC2 health check that indicated it had been terminated or stopped."
	causeELB               = "an instance was taken out of service in response to an ELB system health check failure."
	causeUser              = "an instance was taken out of service in response to a user health-check."
	causeAge               = "an instance was taken out of service in response to maximum instance lifetime."
	causeLaunchReplacement = "an instance was launched in response to an unhealthy instance needing to be replaced."
	causeBalance           = "an instance was launched to aid in balancing the group's zones."
	causeProtected         = "Could not scale to desired capacity because all remaining instances are protected from scale-in."
)

// health marks instances that should be replaced.
func (p *planner) health() {
	if p.group.suspended("HealthCheck") {
		return
	}
	grace := time.Duration(p.group.Grace) * time.Second
	for _, i := range p.instances {
		if i.State != inService || p.busy[i.ID] {
			continue
		}
		seen, known := p.ec2[i.ID]
		if !known || seen.dead() {
			if !i.Now || i.Health != "Unhealthy" {
				p.add(act{verb: doUnhealthy, instance: i, cause: causeStopped, now: true})
			}
			continue
		}
		if i.Health == "Unhealthy" || !p.group.checksELB() {
			continue
		}
		for _, a := range p.group.Attachments {
			if a.State != "InService" || p.targets[a.ARN][i.ID] != "unhealthy" {
				continue
			}
			if end := i.InServiceAt.Add(grace); end.After(p.now) {
				p.look(end)
				continue
			}
			p.add(act{verb: doUnhealthy, instance: i, cause: causeELB})
			break
		}
	}
}

// replace ends unhealthy instances: at once where EC2 or a user says so,
// else at most a tenth of the group at a time (User Guide, "Health checks
// for instances in an Auto Scaling group").
func (p *planner) replace() {
	g := p.group
	if g.suspended("Terminate") || g.suspended("ReplaceUnhealthy") {
		return
	}
	running, sick, changing := 0, 0, 0
	var slow []*Instance
	for _, i := range p.instances {
		switch {
		case i.State == inService && i.Health == "Unhealthy":
			running++
			sick++
			if p.busy[i.ID] {
				continue
			}
			if i.Now {
				p.add(act{verb: doTerminate, instance: i, cause: i.Unhealthy, replace: true})
			} else {
				slow = append(slow, i)
			}
		case i.State == inService:
			running++
			if p.settling(i) {
				changing++
			}
			if life := g.MaxLifetime; life != nil && *life > 0 && !p.busy[i.ID] {
				end := i.Launched.Add(time.Duration(*life) * time.Second)
				if end.After(p.now) {
					p.look(end)
				} else {
					slow = append(slow, i)
				}
			}
		case i.counts():
			changing++
		}
	}
	batch := max(1, int(g.Desired)/10)
	if sick == running {
		batch = 1 // all are sick: it is rather the load than the instances
	}
	missing := max(0, int(g.Desired)-running)
	for _, i := range slow {
		if max(changing, missing) >= batch {
			return
		}
		changing++
		cause := i.Unhealthy
		if i.Health != "Unhealthy" {
			cause = causeAge
		}
		p.add(act{verb: doTerminate, instance: i, cause: cause, replace: true})
	}
}

// settling says whether an instance in service has yet to prove itself to
// the load balancer, within its grace period.
func (p *planner) settling(i *Instance) bool {
	if !p.group.checksELB() {
		return false
	}
	end := i.InServiceAt.Add(time.Duration(p.group.Grace) * time.Second)
	if !end.After(p.now) {
		return false
	}
	for _, a := range p.group.Attachments {
		if a.State == "InService" && slices.Contains(i.TargetGroups, a.ARN) && p.targets[a.ARN][i.ID] != "healthy" {
			p.look(end)
			return true
		}
	}
	return false
}

// capacity launches or ends instances until there are as many as desired.
func (p *planner) capacity() {
	g := p.group
	have := p.counted()
	actual := int64(len(have))
	switch {
	case actual < g.Desired && !g.suspended("Launch"):
		if g.RetryAt.After(p.now) {
			p.look(g.RetryAt)
			return
		}
		p.launch(have, g.Desired-actual)
	case actual > g.Desired && !g.suspended("Terminate"):
		p.shrink(have, actual-g.Desired)
	}
}

// ending says whether a step of this plan takes the instance out.
func (p *planner) ending(i *Instance) bool {
	return slices.ContainsFunc(p.acts, func(a act) bool {
		return a.instance == i && (a.verb == doTerminate || a.verb == doFail)
	})
}

func (p *planner) launch(have []*Instance, n int64) {
	count := p.byZone(have)
	owed := p.group.Replacements
	for _, a := range p.acts {
		if a.verb == doTerminate && a.replace {
			owed++
		}
	}
	from := int64(len(have))
	for k := range n {
		pl, ok := p.emptiest(count)
		if !ok {
			return
		}
		count[pl.Zone]++
		cause := ""
		if k < owed && p.refresh != nil {
			cause = causeRefreshIn
		}
		p.add(act{verb: doLaunch, place: pl, replace: k < owed, cause: cause, from: from, to: p.group.Desired})
	}
}

// byZone counts instances in each zone of the group.
func (p *planner) byZone(have []*Instance) map[string]int {
	count := map[string]int{}
	for _, z := range p.group.zones() {
		count[z] = 0
	}
	for _, i := range have {
		if _, ours := count[i.Zone]; ours {
			count[i.Zone]++
		}
	}
	return count
}

// emptiest picks a place in a zone with the fewest instances.
func (p *planner) emptiest(count map[string]int) (place, bool) {
	var best []place
	for _, pl := range p.group.Places {
		switch {
		case len(best) == 0 || count[pl.Zone] < count[best[0].Zone]:
			best = []place{pl}
		case count[pl.Zone] == count[best[0].Zone]:
			best = append(best, pl)
		}
	}
	if len(best) == 0 {
		return place{}, false
	}
	return best[p.pick(len(best))], true
}

// shrink ends n instances, chosen by zone and termination policy.
func (p *planner) shrink(have []*Instance, n int64) {
	from := int64(len(have))
	var chosen []*Instance
	for range n {
		victim := selectVictim(p.world, have)
		if victim == nil {
			break
		}
		chosen = append(chosen, victim)
		have = slices.DeleteFunc(slices.Clone(have), func(i *Instance) bool { return i == victim })
	}
	for _, i := range chosen {
		if !p.busy[i.ID] {
			p.add(act{verb: doTerminate, instance: i, from: from, to: p.group.Desired})
		}
	}
	if int64(len(chosen)) < n && !p.group.AllProtected {
		p.add(act{verb: doProtected})
	}
}

// rebalance launches one instance in the emptiest zone when the zones differ
// by more than one; the surplus is then ended by shrink in the fullest one
// (User Guide, "Rebalancing activities").
func (p *planner) rebalance() {
	g := p.group
	if p.refresh != nil || g.suspended("AZRebalance") || g.suspended("Launch") || g.suspended("Terminate") || g.RetryAt.After(p.now) {
		return
	}
	var have []*Instance
	for _, i := range p.instances {
		if i.State == inService && i.Health == "Healthy" {
			have = append(have, i)
		} else if i.State != standby {
			return // something else is going on
		}
	}
	if int64(len(have)) != g.Desired || int64(len(have)) >= g.Max+max(1, g.Max/10) {
		return
	}
	count := p.byZone(have)
	outside := int64(len(have))
	for _, n := range count {
		outside -= int64(n)
	}
	low, high := len(have), 0
	for _, n := range count {
		low, high = min(low, n), max(high, n)
	}
	// With protected instances alone in the fullest zone nothing would be gained.
	if outside == 0 && (high-low <= 1 || !p.anyUnprotected(have, count, high)) {
		return
	}
	if outside > 0 && !slices.ContainsFunc(have, func(i *Instance) bool {
		_, ours := count[i.Zone]
		return !ours && !i.Protected
	}) {
		return
	}
	if pl, ok := p.emptiest(count); ok {
		p.add(act{verb: doLaunch, place: pl, rebal: true, from: int64(len(have)), to: g.Desired})
	}
}

func (p *planner) anyUnprotected(have []*Instance, count map[string]int, high int) bool {
	return slices.ContainsFunc(have, func(i *Instance) bool { return count[i.Zone] == high && !i.Protected })
}
