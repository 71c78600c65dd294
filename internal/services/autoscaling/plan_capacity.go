package autoscaling

import (
	"slices"
)

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
