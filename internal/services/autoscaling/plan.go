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
	doNotify     verb = "notify of a hook"
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
		case a.Target != "" && !a.Notified:
			p.add(act{verb: doNotify, instance: i, hook: a.Hook})
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
