package codedeploy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	api "slipway/internal/api/codedeploy"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testFleet(n, sick int) []*Target {
	var ts []*Target
	for i := range n {
		ts = append(ts, &Target{
			Instance: fmt.Sprintf("i-%03d", i), Status: api.TargetStatusPending, WasUnhealthy: i < sick, Rank: 1,
			Events: []Event{{Name: eventInstall, Status: api.LifecycleEventStatusPending}}, Zone: "z" + string(rune('a'+i%3)),
		})
	}
	return ts
}

// play runs a deployment: outcome says whether the n-th target to end fails.
// It returns the ending, the widest that the deployment ever was, and the
// least number of hosts in service.
func play(d *Deployment, ts []*Target, fails func(n int, t *Target) bool) (end *ending, widest, fewest int) {
	now, n := t0, 0
	fewest = len(ts)
	for {
		v := plan(d, ts, now)
		switch {
		case v.End != nil:
			return v.End, widest, fewest
		case v.Halt != nil:
			d.Halted = v.Halt
			continue
		}
		for _, t := range v.Start {
			t.begin(now)
		}
		out, inService := 0, 0
		var first *Target
		for _, t := range ts {
			switch {
			case t.Status == api.TargetStatusInProgress:
				out++
				if first == nil {
					first = t
				}
			case t.Status == api.TargetStatusSucceeded, t.Status == api.TargetStatusPending && !t.WasUnhealthy:
				inService++
			}
		}
		widest, fewest = max(widest, out), min(fewest, inService)
		if first == nil {
			if v.Again.IsZero() || !v.Again.After(now) {
				return nil, widest, fewest // stuck
			}
			now = v.Again
			continue
		}
		now = now.Add(time.Second)
		first.finish(fails(n, first), false, nil, now)
		n++
	}
}

// The examples of AWS's page on instance health, and the exceptions to them.
func TestMinimumHealthyHosts(t *testing.T) {
	count := func(n int) MinimumHealthy { return MinimumHealthy{api.MinimumHealthyHostsTypeHostCount, n} }
	percent := func(n int) MinimumHealthy { return MinimumHealthy{api.MinimumHealthyHostsTypeFleetPercent, n} }
	one := MinimumHealthy{mostConcurrency, 1}
	never := func(int, *Target) bool { return false }
	always := func(int, *Target) bool { return true }
	nth := func(ns ...int) func(int, *Target) bool {
		return func(n int, _ *Target) bool { return slices.Contains(ns, n) }
	}
	for _, c := range []struct {
		name    string
		n, sick int
		min     MinimumHealthy
		fails   func(int, *Target) bool
		status  string
		code    string
		widest  int
		began   int
	}{
		{"ten at 95 %: cannot start", 10, 0, percent(95), never, "Failed", "HEALTH_CONSTRAINTS_INVALID", 0, 0},
		{"ten at 9: one at a time", 10, 0, count(9), never, "Succeeded", "", 1, 10},
		{"ten at 9: first failure fails", 10, 0, count(9), nth(0), "Failed", "HEALTH_CONSTRAINTS", 1, 1},
		{"ten at 8: two at a time", 10, 0, count(8), never, "Succeeded", "", 2, 10},
		{"ten at 8: one failure is borne", 10, 0, count(8), nth(3), "Succeeded", "", 2, 10},
		{"ten at 8: second failure fails", 10, 0, count(8), nth(0, 1), "Failed", "HEALTH_CONSTRAINTS", 2, 2},
		{"ten at 0: all at once", 10, 0, count(0), never, "Succeeded", "", 10, 10},
		{"ten at 0: one success is enough", 10, 0, count(0), func(n int, _ *Target) bool { return n != 4 }, "Succeeded", "", 10, 10},
		{"ten at 0: none is not", 10, 0, count(0), always, "Failed", "HEALTH_CONSTRAINTS", 10, 10},
		{"nine at 40 %: five at a time", 9, 0, percent(40), never, "Succeeded", "", 5, 9},
		{"nine at 6: three at a time", 9, 0, count(6), never, "Succeeded", "", 3, 9},
		{"one at a time: the last may fail", 3, 0, one, nth(2), "Succeeded", "", 1, 3},
		{"one at a time: the first may not", 3, 0, one, nth(0), "Failed", "HEALTH_CONSTRAINTS", 1, 1},
		{"one at a time: a single instance", 1, 0, one, never, "Succeeded", "", 1, 1},
		{"one at a time: a single instance must succeed", 1, 0, one, always, "Failed", "HEALTH_CONSTRAINTS", 1, 1},
		{"half at a time: a single instance", 1, 0, percent(50), never, "Succeeded", "", 1, 1},
		{"half at a time: three", 3, 0, percent(50), never, "Succeeded", "", 1, 3},
		{"half at a time: four", 4, 0, percent(50), never, "Succeeded", "", 2, 4},
		{"a single instance at 1 host cannot start", 1, 0, count(1), never, "Failed", "HEALTH_CONSTRAINTS_INVALID", 0, 0},
		{"all unhealthy: they cost nothing", 4, 4, percent(50), never, "Succeeded", "", 4, 4},
		{"all unhealthy: one success is no worse than before", 4, 4, percent(50), nth(0, 1, 2), "Succeeded", "", 4, 4},
		{"one unhealthy that fails again leaves the healthy alone", 2, 1, one, nth(0), "Failed", "HEALTH_CONSTRAINTS", 1, 1},
		{"one unhealthy first, then the healthy", 2, 1, one, never, "Succeeded", "", 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &Deployment{Minimum: c.min, StartedAt: t0, ConfigName: "test"}
			ts := testFleet(c.n, c.sick)
			end, widest, _ := play(d, ts, c.fails)
			if end == nil {
				t.Fatal("stuck")
			}
			code := ""
			if end.Error != nil {
				code = end.Error.Code
			}
			began := 0
			for _, tg := range ts {
				if !tg.StartedAt.IsZero() {
					began++
				}
			}
			if end.Status != c.status || code != c.code || widest != c.widest || began != c.began {
				t.Errorf("%s %s, widest %d, began %d; want %s %s, %d, %d", end.Status, code, widest, began, c.status, c.code, c.widest, c.began)
			}
		})
	}
}

// Whatever fails, the hosts in service never fall below the minimum by a
// target being taken out, and the deployment always ends.
func TestPlanKeepsTheMinimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 25).Draw(t, "n")
		sick := rapid.IntRange(0, n).Draw(t, "sick")
		m := rapid.SampledFrom([]MinimumHealthy{
			{api.MinimumHealthyHostsTypeHostCount, rapid.IntRange(0, n+1).Draw(t, "hosts")},
			{api.MinimumHealthyHostsTypeFleetPercent, rapid.IntRange(0, 100).Draw(t, "percent")},
			{mostConcurrency, 1},
		}).Draw(t, "minimum")
		d := &Deployment{Minimum: m, StartedAt: t0}
		if rapid.Bool().Draw(t, "zonal") {
			d.Zonal = &Zonal{MonitorSeconds: rapid.IntRange(0, 60).Draw(t, "monitor")}
		}
		ts := testFleet(n, sick)
		verdicts := rapid.SliceOfN(rapid.Bool(), n, n).Draw(t, "fails")
		failures := 0
		minimum, now := m.hosts(n), t0
		for step := 0; ; step++ {
			if step > 10*n+10 {
				t.Fatal("the deployment does not end")
			}
			v := plan(d, ts, now)
			if v.End != nil {
				checkEnding(t, d, v.End, ts, minimum)
				return
			}
			if v.Halt != nil {
				d.Halted = v.Halt
				continue
			}
			for _, tg := range v.Start {
				tg.begin(now)
			}
			f := count(ts)
			if tookHealthy := slices.ContainsFunc(v.Start, func(x *Target) bool { return !x.WasUnhealthy }); tookHealthy && f.healthy-f.out < minimum {
				t.Fatalf("%d in service, minimum %d", f.healthy-f.out, minimum)
			}
			if m.Type == mostConcurrency && f.out+f.sickOut > m.Value {
				t.Fatalf("%d at once", f.out+f.sickOut)
			}
			open := slices.DeleteFunc(slices.Clone(ts), func(x *Target) bool { return x.Status != api.TargetStatusInProgress })
			if len(open) == 0 {
				if !v.Again.After(now) {
					t.Fatal("stuck")
				}
				now = v.Again
				continue
			}
			if d.Zonal != nil && !slices.ContainsFunc(open, func(x *Target) bool { return x.Zone != open[0].Zone }) == false {
				t.Fatal("two zones at once")
			}
			now = now.Add(time.Second)
			open[rapid.IntRange(0, len(open)-1).Draw(t, "next")].finish(verdicts[failures], false, nil, now)
			failures++
		}
	})
}

func checkEnding(t *rapid.T, d *Deployment, end *ending, ts []*Target, minimum int) {
	f := count(ts)
	if f.out+f.sickOut > 0 {
		t.Fatal("ended with targets under way")
	}
	if end.Status == api.DeploymentStatusSucceeded {
		if f.succeeded == 0 || len(f.pending)+len(f.sick) > 0 || f.healthy < min(minimum, f.initially) {
			t.Fatalf("success with %+v, minimum %d", f, minimum)
		}
		return
	}
	if end.Error == nil || end.Error.Message == "" {
		t.Fatalf("failure without a reason: %+v %+v", end, f)
	}
}

func TestZonesOneAfterAnother(t *testing.T) {
	d := &Deployment{Minimum: MinimumHealthy{api.MinimumHealthyHostsTypeHostCount, 0}, StartedAt: t0, Zonal: &Zonal{MonitorSeconds: 10, FirstMonitorSeconds: 60}}
	ts := testFleet(6, 0)
	v := plan(d, ts, t0)
	if len(v.Start) != 2 || v.Start[0].Zone != "za" || v.Start[1].Zone != "za" {
		t.Fatalf("%+v", v)
	}
	now := t0
	for _, tg := range v.Start {
		tg.begin(now)
		tg.finish(false, false, nil, now)
	}
	if v = plan(d, ts, now.Add(59*time.Second)); len(v.Start) != 0 || !v.Again.Equal(now.Add(time.Minute)) {
		t.Errorf("the first zone is watched for a minute: %+v", v)
	}
	if v = plan(d, ts, now.Add(time.Minute)); len(v.Start) != 2 || v.Start[0].Zone != "zb" {
		t.Errorf("then the second: %+v", v)
	}
}

func TestOrderOfTargets(t *testing.T) {
	d := &Deployment{Minimum: MinimumHealthy{mostConcurrency, 1}, StartedAt: t0, RevisionKey: "new"}
	hosts := map[string]Host{"i-a": {RevisionKey: "new"}, "i-b": {RevisionKey: "old"}, "i-c": {}, "i-d": {RevisionKey: "old", Unhealthy: true}}
	var ts []*Target
	for _, id := range []string{"i-a", "i-b", "i-c", "i-d"} {
		tg := newTarget(d, instance{id: id, state: "running"}, hosts[id])
		ts = append(ts, &tg)
	}
	var order []string
	play(d, ts, func(_ int, tg *Target) bool {
		if n := len(tg.Events); tg.Events[n-1].ReadyAt.IsZero() {
			return false
		}
		order = append(order, tg.Instance)
		return false
	})
	if got := strings.Join(order, " "); got != "i-d i-c i-b i-a" {
		t.Error(got)
	}
}

func TestAnInstanceThatLeftIsNoFailure(t *testing.T) {
	d := &Deployment{Minimum: MinimumHealthy{mostConcurrency, 1}, StartedAt: t0}
	ts := testFleet(3, 0)
	ts[2].Left = true
	ts[2].end(api.TargetStatusSkipped, "gone", t0)
	if end, _, _ := play(d, ts, func(int, *Target) bool { return false }); end == nil || end.Status != "Succeeded" {
		t.Errorf("%+v", end)
	}
}

func TestTwelveHours(t *testing.T) {
	d := &Deployment{Minimum: MinimumHealthy{api.MinimumHealthyHostsTypeHostCount, 0}, StartedAt: t0}
	ts := testFleet(2, 0)
	for _, tg := range plan(d, ts, t0).Start {
		tg.begin(t0)
	}
	if v := plan(d, ts, t0.Add(deploymentLimit)); v.Halt == nil || v.Halt.Code != "TIMEOUT" {
		t.Errorf("%+v", v)
	}
}
