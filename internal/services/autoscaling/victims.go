package autoscaling

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// terminationPolicies are the names that AWS knows, in its order.
var terminationPolicies = []string{
	"AllocationStrategy", "ClosestToNextInstanceHour", "Default", "NewestInstance", "OldestInstance", "OldestLaunchConfiguration", "OldestLaunchTemplate",
}

// selectVictim chooses the instance to end: first the zone (the fullest that
// has an unprotected instance; instances outside the group's zones go
// first), then the termination policies in order, then chance (User Guide,
// "Work with Amazon EC2 Auto Scaling termination policies"). nil: all are
// protected.
func selectVictim(w *world, have []*Instance) *Instance {
	if w.refresh != nil { // an instance refresh ends what it replaces
		old := slices.DeleteFunc(slices.Clone(have), func(i *Instance) bool { return !slices.Contains(w.refresh.Targets, i.ID) || i.Protected })
		if len(old) > 0 {
			have = old
		}
	}
	count := map[string]int{}
	zones := w.group.zones()
	for _, i := range have {
		count[i.Zone]++
		if !slices.Contains(zones, i.Zone) {
			count[i.Zone] += len(have) // a zone that was taken off the list
		}
	}
	most := 0
	for _, i := range have {
		if !i.Protected {
			most = max(most, count[i.Zone])
		}
	}
	var left []*Instance
	for _, i := range have {
		if !i.Protected && count[i.Zone] == most {
			left = append(left, i)
		}
	}
	if len(left) == 0 {
		return nil
	}
	// What serves nobody goes before what does: lost instances, then those
	// that are not in service yet. AWS does not say; ending the one that
	// works while another may yet fail would leave the group with less.
	left = lowest(left, func(i *Instance) int64 {
		switch {
		case i.Health == "Unhealthy":
			return 0
		case i.State != inService:
			return 1
		}
		return 2
	})
	for _, policy := range w.group.Policies {
		left = narrow(w, left, policy)
		if len(left) == 1 {
			return left[0]
		}
	}
	return left[w.pick(len(left))]
}

// narrow keeps those that a policy would end first.
func narrow(w *world, left []*Instance, policy string) []*Instance {
	switch policy {
	case "OldestInstance":
		return lowest(left, func(i *Instance) int64 { return i.Launched.UnixNano() })
	case "NewestInstance":
		return lowest(left, func(i *Instance) int64 { return -i.Launched.UnixNano() })
	case "OldestLaunchTemplate":
		return lowest(left, func(i *Instance) int64 { return templateAge(w.group, i) })
	case "ClosestToNextInstanceHour":
		return lowest(left, func(i *Instance) int64 { return untilHour(w.now, i) })
	case "Default":
		left = lowest(left, func(i *Instance) int64 { return templateAge(w.group, i) })
		return lowest(left, func(i *Instance) int64 { return untilHour(w.now, i) })
	}
	return left // AllocationStrategy and OldestLaunchConfiguration: all are alike here
}

// templateAge orders by launch template: another template first, then older versions.
func templateAge(g *Group, i *Instance) int64 {
	if i.Template == nil || g.Template != nil && i.Template.ID != g.Template.ID {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(i.Template.Version), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// untilHour is the time to the instance's next full hour since launch.
func untilHour(now time.Time, i *Instance) int64 {
	age := max(0, now.Sub(i.Launched))
	return int64(time.Hour - age%time.Hour)
}

func lowest(all []*Instance, key func(*Instance) int64) []*Instance {
	var out []*Instance
	for _, i := range all {
		switch {
		case len(out) == 0 || key(i) < key(out[0]):
			out = []*Instance{i}
		case key(i) == key(out[0]):
			out = append(out, i)
		}
	}
	return out
}
