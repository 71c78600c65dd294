package autoscaling

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// simulation runs plans on a group without any service: launches and
// terminations take effect at once or in steps that rapid chooses.
type simulation struct {
	*rapid.T
	w      *world
	serial int
	peak   int // the most instances at once that are not on their way out
}

var simZones = []string{"a", "b", "c"}

func newSimulation(t *rapid.T) *simulation {
	g := &Group{Name: "g", Min: 0, Max: rapid.Int64Range(1, 12).Draw(t, "max"), HealthTypes: "EC2", Policies: []string{rapid.SampledFrom(terminationPolicies).Draw(t, "policy")}}
	g.Desired = rapid.Int64Range(0, g.Max).Draw(t, "desired")
	for _, z := range simZones[:rapid.IntRange(1, 3).Draw(t, "zones")] {
		g.Places = append(g.Places, place{Subnet: "subnet-" + z, Zone: z})
	}
	w := &world{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), group: g, ec2: map[string]machineState{}, targets: map[string]map[string]string{}}
	s := &simulation{T: t, w: w}
	w.pick = func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
	return s
}

// step plans and applies; it returns whether anything was done.
func (s *simulation) step() bool {
	acts, _ := plan(s.w)
	for _, a := range acts {
		s.apply(a)
	}
	held := 0
	for _, i := range s.w.instances {
		if !i.leaving() {
			held++
		}
	}
	s.peak = max(s.peak, held+len(s.w.intents))
	return len(acts) > 0
}

func (s *simulation) apply(a act) {
	w, g, i := s.w, s.w.group, a.instance
	switch a.verb {
	case doLaunch:
		if a.replace && g.Replacements > 0 {
			g.Replacements--
		}
		s.serial++
		w.intents = append(w.intents, &intent{ID: fmt.Sprint(s.serial), Place: a.place, Rebalance: a.rebal})
	case doRun:
		id := fmt.Sprintf("i-%03d", s.serial+len(w.instances)*1000)
		s.serial++
		w.intents = slices.DeleteFunc(w.intents, func(n *intent) bool { return n == a.intent })
		w.instances = append(w.instances, &Instance{ID: id, Zone: a.intent.Place.Zone, State: pending, Health: "Healthy", Launched: w.now, Rebalance: a.intent.Rebalance})
		w.ec2[id] = machineState{State: "running"}
	case doEnter:
		i.to(inService)
	case doCounted:
		i.Rebalance = false
	case doUnhealthy:
		i.Health, i.Unhealthy, i.Now = "Unhealthy", a.cause, a.now
	case doTerminate:
		if i.Protected && a.from > 0 {
			s.Fatalf("%s is protected and was chosen for scale-in", i.ID)
		}
		i.to(terminating)
		if a.replace {
			g.Replacements++
		}
	case doFail:
		i.to(terminatingProceed)
	case doProceed:
		i.to(a.state)
	case doEnd:
		w.ec2[i.ID] = machineState{State: "terminated"}
	case doRemove:
		w.instances = slices.DeleteFunc(w.instances, func(x *Instance) bool { return x == i })
		delete(w.ec2, i.ID)
	case doProtected:
		g.AllProtected = true
	default:
		s.Fatalf("unexpected step %s", a.verb)
	}
}

// settle steps until nothing is left to do.
func (s *simulation) settle() {
	for n := 0; s.step(); n++ {
		if n > 300 {
			s.Fatalf("the plan does not come to rest: %d instances for %d", len(s.w.instances), s.w.group.Desired)
		}
	}
}

func (s *simulation) count() (total, spread int) {
	by := map[string]int{}
	for _, z := range s.w.group.zones() {
		by[z] = 0
	}
	for _, i := range s.w.instances {
		total++
		by[i.Zone]++
	}
	low, high := total, 0
	for _, n := range by {
		low, high = min(low, n), max(high, n)
	}
	return total, high - low
}

func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSimulation(t)
		for range rapid.IntRange(1, 8).Draw(t, "rounds") {
			switch rapid.IntRange(0, 3).Draw(t, "event") {
			case 0:
				s.w.group.Desired, s.w.group.AllProtected = rapid.Int64Range(0, s.w.group.Max).Draw(t, "desired"), false
			case 1: // a machine dies
				if n := len(s.w.instances); n > 0 {
					s.w.ec2[s.w.instances[rapid.IntRange(0, n-1).Draw(t, "dead")].ID] = machineState{State: "terminated", Reason: "x"}
				}
			case 2: // the zones change
				s.w.group.Places = nil
				for _, z := range simZones[:rapid.IntRange(1, 3).Draw(t, "zones")] {
					s.w.group.Places = append(s.w.group.Places, place{Subnet: "subnet-" + z, Zone: z})
				}
			case 3: // in the middle of something
				s.step()
				continue
			}
			s.w.now = s.w.now.Add(time.Duration(rapid.IntRange(0, 7200).Draw(t, "pass")) * time.Second)
			s.settle()
			total, spread := s.count()
			if int64(total) != s.w.group.Desired {
				t.Fatalf("%d instances, want %d", total, s.w.group.Desired)
			}
			if spread > 1 {
				t.Fatalf("zones differ by %d: %v", spread, s.w.instances)
			}
			for _, i := range s.w.instances {
				if !slices.Contains(s.w.group.zones(), i.Zone) {
					t.Fatalf("%s is in zone %s, which the group has not", i.ID, i.Zone)
				}
			}
			if s.w.group.Replacements < 0 {
				t.Fatalf("%d replacements owed", s.w.group.Replacements)
			}
		}
		if limit := s.w.group.Max + max(1, s.w.group.Max/10); int64(s.peak) > limit {
			t.Fatalf("%d instances at once, the maximum is %d", s.peak, s.w.group.Max)
		}
	})
}

func TestPlanNeverTakesProtected(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSimulation(t)
		s.w.group.Suspended = []suspension{{Process: "AZRebalance"}}
		s.settle()
		kept := map[string]bool{}
		for _, i := range s.w.instances {
			if i.Protected = rapid.Bool().Draw(t, "protected"); i.Protected {
				kept[i.ID] = true
			}
		}
		s.w.group.Desired = rapid.Int64Range(0, s.w.group.Max).Draw(t, "desired")
		s.settle()
		for _, i := range s.w.instances {
			delete(kept, i.ID)
		}
		if len(kept) > 0 {
			t.Fatalf("protected instances are gone: %v", kept)
		}
	})
}

// launchedAt makes an instance in service.
func launchedAt(id, zone, version string, age time.Duration, now time.Time) *Instance {
	return &Instance{ID: id, Zone: zone, State: inService, Health: "Healthy", Launched: now.Add(-age), Template: &templateRef{ID: "lt-1", Version: version}}
}

func TestVictims(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	old, young := launchedAt("old", "a", "2", 5*time.Hour+10*time.Minute, now), launchedAt("young", "a", "2", time.Hour+50*time.Minute, now)
	previous := launchedAt("previous", "a", "1", 20*time.Minute, now)
	other := launchedAt("other", "b", "2", 50*time.Hour, now)
	sick := launchedAt("sick", "a", "2", time.Hour, now)
	sick.Health = "Unhealthy"
	arriving := launchedAt("arriving", "a", "2", time.Minute, now)
	arriving.State = pendingWait
	guarded := launchedAt("guarded", "a", "2", 9*time.Hour, now)
	guarded.Protected = true
	cases := []struct {
		name     string
		policies []string
		have     []*Instance
		want     string
	}{
		{"fullest zone outranks the policy", []string{"OldestInstance"}, []*Instance{old, young, other}, "old"},
		{"oldest", []string{"OldestInstance"}, []*Instance{young, old}, "old"},
		{"newest", []string{"NewestInstance"}, []*Instance{young, old}, "young"},
		{"closest hour", []string{"ClosestToNextInstanceHour"}, []*Instance{old, young}, "young"},
		{"oldest template", []string{"OldestLaunchTemplate"}, []*Instance{old, previous, young}, "previous"},
		{"default: template, then hour", []string{"Default"}, []*Instance{old, young, previous}, "previous"},
		{"default: hour", []string{"Default"}, []*Instance{old, young}, "young"},
		{"in order", []string{"OldestLaunchTemplate", "NewestInstance"}, []*Instance{old, young}, "young"},
		{"unhealthy first", []string{"OldestInstance"}, []*Instance{old, young, sick}, "sick"},
		{"not in service first", []string{"OldestInstance"}, []*Instance{old, arriving}, "arriving"},
		{"protected never", []string{"OldestInstance"}, []*Instance{guarded, young}, "young"},
		{"a zone of protected ones is passed over", []string{"OldestInstance"}, []*Instance{guarded, other}, "other"},
		{"nobody", []string{"OldestInstance"}, []*Instance{guarded}, ""},
	}
	for _, c := range cases {
		w := &world{now: now, pick: func(int) int { return 0 }, group: &Group{Policies: c.policies, Template: &templateRef{ID: "lt-1"}, Places: []place{{Zone: "a"}, {Zone: "b"}}}}
		got := ""
		if v := selectVictim(w, c.have); v != nil {
			got = v.ID
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestReplacementIsThrottled: of twenty instances that the load balancer
// calls sick, a tenth is replaced at a time; of two, one.
func TestReplacementIsThrottled(t *testing.T) {
	for _, c := range []struct{ size, sick, want int }{{20, 10, 2}, {20, 20, 1}, {2, 1, 1}, {2, 2, 1}} {
		w := &world{now: time.Now(), pick: func(int) int { return 0 }, ec2: map[string]machineState{},
			group: &Group{Desired: int64(c.size), Max: 100, HealthTypes: "ELB", Policies: []string{"Default"}, Places: []place{{Zone: "a"}},
				Attachments: []attachment{{ARN: "tg", State: "InService"}}},
			targets: map[string]map[string]string{"tg": {}}}
		for n := range c.size {
			i := launchedAt(fmt.Sprint(n), "a", "1", time.Hour, w.now)
			i.TargetGroups = []string{"tg"}
			if n < c.sick {
				i.Health, i.Unhealthy = "Unhealthy", causeELB
			}
			w.instances = append(w.instances, i)
			w.ec2[i.ID] = machineState{State: "running"}
			w.targets["tg"][i.ID] = "healthy"
		}
		acts, _ := plan(w)
		got := 0
		for _, a := range acts {
			if a.verb == doTerminate {
				got++
			}
		}
		if got != c.want {
			t.Errorf("%d of %d sick: %d replaced at once, want %d", c.sick, c.size, got, c.want)
		}
	}
}

func TestGraceEndsBeforeELBCounts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{now: now, pick: func(int) int { return 0 }, ec2: map[string]machineState{"i": {State: "running"}}, targets: map[string]map[string]string{"tg": {"i": "unhealthy"}},
		group: &Group{Desired: 1, Max: 2, Grace: 60, HealthTypes: "EC2,ELB", Policies: []string{"Default"}, Places: []place{{Zone: "a"}}, Attachments: []attachment{{ARN: "tg", State: "InService"}}}}
	i := launchedAt("i", "a", "1", time.Minute, now)
	i.TargetGroups, i.InServiceAt = []string{"tg"}, now.Add(-30*time.Second)
	w.instances = []*Instance{i}
	acts, wake := plan(w)
	if len(acts) != 0 || !wake.Equal(now.Add(30*time.Second)) {
		t.Fatalf("in grace: %v, wake %s", acts, wake)
	}
	w.group.Attachments[0].State = "Added" // no target was ever healthy
	w.now = now.Add(time.Hour)
	if acts, _ = plan(w); len(acts) != 0 {
		t.Fatalf("a target group that was never healthy counted: %v", acts)
	}
	w.group.Attachments[0].State = "InService"
	if acts, _ = plan(w); len(acts) != 1 || acts[0].verb != doUnhealthy {
		t.Fatalf("after grace: %v", acts)
	}
	w.ec2["i"] = machineState{State: "stopped"} // grace never covers this
	w.now = now
	if acts, _ = plan(w); len(acts) != 1 || acts[0].verb != doUnhealthy || !acts[0].now {
		t.Fatalf("stopped within grace: %v", acts)
	}
}

// TestRebalanceLaunchesFirst: the instance in the fullest zone stays until
// the one that replaces it is in service.
func TestRebalanceLaunchesFirst(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w := &world{now: now, pick: func(int) int { return 0 }, ec2: map[string]machineState{}, targets: map[string]map[string]string{},
		group: &Group{Desired: 3, Max: 3, HealthTypes: "EC2", Policies: []string{"OldestInstance"}, Places: []place{{Zone: "a"}, {Zone: "b"}}}}
	for n := range 3 {
		i := launchedAt(fmt.Sprintf("i%d", n), "a", "1", time.Duration(9-n)*time.Hour, now)
		w.instances = append(w.instances, i)
		w.ec2[i.ID] = machineState{State: "running"}
	}
	acts, _ := plan(w)
	if len(acts) != 1 || acts[0].verb != doLaunch || acts[0].place.Zone != "b" || !acts[0].rebal {
		t.Fatalf("plan %v, want one launch in b", acts)
	}
	fresh := &Instance{ID: "new", Zone: "b", State: pending, Health: "Healthy", Launched: now, Rebalance: true}
	w.instances, w.ec2["new"] = append(w.instances, fresh), machineState{State: "pending"}
	if acts, _ = plan(w); len(acts) != 0 {
		t.Fatalf("while it boots: %v", acts)
	}
	fresh.State, w.ec2["new"] = pendingWait, machineState{State: "running"}
	fresh.Actions = []action{{Hook: "h", Heartbeat: now.Add(time.Hour), Limit: now.Add(time.Hour)}}
	if acts, _ = plan(w); len(acts) != 0 {
		t.Fatalf("while it waits for its hook: %v", acts)
	}
	fresh.State, fresh.Rebalance = inService, false
	if acts, _ = plan(w); len(acts) != 1 || acts[0].verb != doTerminate || acts[0].instance.ID != "i0" {
		t.Fatalf("in service: %v, want i0 terminated", acts)
	}
}

func TestExplain(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	base := func() (*world, *Instance) {
		i := launchedAt("i", "a", "1", time.Minute, now)
		i.InServiceAt, i.TargetGroups = now.Add(-10*time.Second), []string{"tg"}
		return &world{now: now, ec2: map[string]machineState{"i": {State: "running"}}, targets: map[string]map[string]string{"tg": {"i": "unhealthy"}}, instances: []*Instance{i},
			group: &Group{Desired: 1, HealthTypes: "EC2,ELB", Grace: 60, Attachments: []attachment{{ARN: "tg", State: "InService"}}}}, i
	}
	for _, c := range []struct {
		change func(*world, *Instance)
		want   string
	}{
		{func(*world, *Instance) {}, "grace period of 60 s lasts until 00:00:50Z"},
		{func(w *world, _ *Instance) { w.group.HealthTypes = "EC2" }, "the group's health check type is EC2"},
		{func(w *world, _ *Instance) { w.group.Attachments[0].State = "Added" }, "no target of tg was ever healthy"},
		{func(w *world, i *Instance) {
			i.Health, w.group.Suspended = "Unhealthy", []suspension{{Process: "ReplaceUnhealthy", Reason: "x"}}
		}, "stays: suspended are ReplaceUnhealthy"},
		{func(w *world, i *Instance) {
			i.State, i.Actions = pendingWait, []action{{Hook: "deploy", Heartbeat: now.Add(time.Minute), Limit: now.Add(time.Hour), Default: "ABANDON"}}
		}, "waits for the lifecycle hook deploy until 00:01:00Z, then ABANDON"},
		{func(w *world, i *Instance) { i.State, w.targets["tg"]["i"] = terminating, "draining" }, "Its target in tg is draining"},
		{func(w *world, _ *Instance) { w.group.Fails, w.group.RetryAt = 3, now.Add(4*time.Second) }, "3 launches in a row failed; the next is tried at 00:00:04Z"},
	} {
		w, i := base()
		c.change(w, i)
		got := explain(w)
		if !slices.ContainsFunc(got, func(e Explanation) bool { return strings.Contains(e.Text, c.want) }) {
			t.Errorf("%v does not say %q", got, c.want)
		}
	}
}
