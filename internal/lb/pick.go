package lb

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"
)

func sortTargets(ts []*target) {
	// Zones alternate by index within the zone, so that round robin goes over
	// zones evenly too; the order is stable across refreshes.
	slices.SortFunc(ts, func(a, b *target) int {
		return cmp.Or(cmp.Compare(a.conf.Zone, b.conf.Zone), cmp.Compare(a.conf.ID, b.conf.ID), cmp.Compare(a.conf.Port, b.conf.Port))
	})
	zone := ""
	rank := make(map[*target]int, len(ts))
	for i, n := 0, 0; i < len(ts); i++ {
		if ts[i].conf.Zone != zone {
			zone, n = ts[i].conf.Zone, 0
		}
		rank[ts[i]] = n
		n++
	}
	slices.SortStableFunc(ts, func(a, b *target) int { return cmp.Compare(rank[a], rank[b]) })
}

// startRamp begins the slow start when another target already carries the load at
// full share; the first targets of a group never ramp. The caller holds t.mu.
func (t *target) startRamp(conf *groupConf, now time.Time) {
	t.rampSince.Store(0)
	if conf.slowStart == 0 {
		return
	}
	for _, o := range t.group.view.Load().healthy {
		if o != t && o.rampSince.Load() == 0 {
			t.rampSince.Store(now.UnixNano())
			return
		}
	}
}

// heldBack decides by lot whether a ramping target sits this request out: its
// chance to take part grows linearly with time.
func (t *target) heldBack(slowStart time.Duration, now time.Time) bool {
	since := t.rampSince.Load()
	if since == 0 {
		return false
	}
	age := now.UnixNano() - since
	if age >= int64(slowStart) {
		t.rampSince.Store(0)
		return false
	}
	return rand.Int64N(int64(slowStart)) >= age
}
