package autoscaling

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	api "slipway/internal/api/autoscaling"
)

func TestAdjust(t *testing.T) {
	for _, c := range []struct {
		capacity int64
		kind     string
		by, min  int64
		want     int64
	}{
		{3, "ChangeInCapacity", 5, 0, 8}, {3, "ChangeInCapacity", -5, 0, 0}, {3, "ExactCapacity", 5, 0, 5},
		{10, "PercentChangeInCapacity", 10, 0, 11}, {10, "PercentChangeInCapacity", -10, 0, 9},
		// Rounding: 12.7 -> 12, .67 -> 1, -.58 -> -1, -6.67 -> -6.
		{127, "PercentChangeInCapacity", 10, 0, 139}, {67, "PercentChangeInCapacity", 1, 0, 68}, {58, "PercentChangeInCapacity", -1, 0, 57}, {667, "PercentChangeInCapacity", -1, 0, 661},
		{4, "PercentChangeInCapacity", 25, 2, 6}, {4, "PercentChangeInCapacity", -25, 2, 2}, {4, "PercentChangeInCapacity", 100, 2, 8},
		{0, "PercentChangeInCapacity", 50, 2, 0},
		{1, "ChangeInCapacity", math.MaxInt64, 0, maxCapacity}, {1, "ChangeInCapacity", math.MinInt64, 0, 0}, {1, "PercentChangeInCapacity", math.MaxInt64, 0, maxCapacity},
	} {
		if got := adjust(c.capacity, c.kind, c.by, c.min); got != c.want {
			t.Errorf("%d %s %+d (at least %d): %d, want %d", c.capacity, c.kind, c.by, c.min, got, c.want)
		}
	}
}

func f64(v float64) *float64 { return &v }

func TestSteps(t *testing.T) {
	steps := []api.StepAdjustment{
		{MetricIntervalUpperBound: f64(-10), ScalingAdjustment: new(int64(-2))}, {MetricIntervalLowerBound: f64(-10), MetricIntervalUpperBound: f64(0), ScalingAdjustment: new(int64(-1))},
		{MetricIntervalLowerBound: f64(0), MetricIntervalUpperBound: f64(10), ScalingAdjustment: new(int64(1))}, {MetricIntervalLowerBound: f64(10), ScalingAdjustment: new(int64(3))},
	}
	for diff, want := range map[float64]int64{-20: -2, -10: -2, -9.9: -1, -0.1: -1, 0: 1, 9.9: 1, 10: 3, 1e9: 3} {
		if st := stepFor(steps, diff); st == nil || *st.ScalingAdjustment != want {
			t.Errorf("%v above the threshold: %v, want %d", diff, st, want)
		}
	}
	if stepFor(steps, math.NaN()) != nil {
		t.Error("no value has a step")
	}
}

func TestBadPolicies(t *testing.T) {
	group, name := "g", "p"
	step := func(bounds ...*float64) (out []api.StepAdjustment) {
		for n := 0; n < len(bounds); n += 2 {
			out = append(out, api.StepAdjustment{MetricIntervalLowerBound: bounds[n], MetricIntervalUpperBound: bounds[n+1], ScalingAdjustment: new(int64(1))})
		}
		return out
	}
	stepped := func(steps []api.StepAdjustment) *api.PutScalingPolicyInput {
		return &api.PutScalingPolicyInput{PolicyType: new("StepScaling"), AdjustmentType: new("ChangeInCapacity"), StepAdjustments: steps}
	}
	tracking := func(target float64, kind, label string) *api.PutScalingPolicyInput {
		return &api.PutScalingPolicyInput{PolicyType: new("TargetTrackingScaling"), TargetTrackingConfiguration: &api.TargetTrackingConfiguration{TargetValue: &target,
			PredefinedMetricSpecification: &api.PredefinedMetricSpecification{PredefinedMetricType: &kind, ResourceLabel: orNil(label)}}}
	}
	good := []*api.PutScalingPolicyInput{stepped(step(f64(0), nil)), stepped(step(nil, f64(0))), stepped(step(f64(0), f64(5), f64(5), nil)), tracking(50, "ASGAverageCPUUtilization", ""),
		tracking(9, "ALBRequestCountPerTarget", "app/lb/0123/targetgroup/tg/4567"), {AdjustmentType: new("ExactCapacity"), ScalingAdjustment: new(int64(2))}}
	bad := []*api.PutScalingPolicyInput{{}, {AdjustmentType: new("ExactCapacity")}, {AdjustmentType: new("Twice"), ScalingAdjustment: new(int64(2))}, {PolicyType: new("Magic")},
		{AdjustmentType: new("ExactCapacity"), ScalingAdjustment: new(int64(-2))}, {AdjustmentType: new("ChangeInCapacity"), ScalingAdjustment: new(int64(1)), MinAdjustmentMagnitude: new(int64(1))},
		stepped(nil), stepped(step(f64(0), f64(5))), stepped(step(f64(-5), nil)), stepped(step(f64(0), f64(5), f64(6), nil)), stepped(step(f64(0), f64(5), f64(4), nil)), stepped(step(nil, nil, f64(0), nil)),
		stepped(step(f64(5), f64(5))), tracking(0, "ASGAverageCPUUtilization", ""), tracking(math.NaN(), "ASGAverageCPUUtilization", ""), tracking(5, "ASGAverageCPUUtilization", "x"),
		tracking(5, "ALBRequestCountPerTarget", "tg"), tracking(5, "Other", ""), {PolicyType: new("TargetTrackingScaling")}}
	for n, in := range good {
		in.AutoScalingGroupName, in.PolicyName = &group, &name
		if _, err := policyFrom(in); err != nil {
			t.Errorf("good policy %d: %v", n, err)
		}
	}
	for n, in := range bad {
		in.AutoScalingGroupName, in.PolicyName = &group, &name
		if _, err := policyFrom(in); err == nil {
			t.Errorf("bad policy %d was taken", n)
		}
	}
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// scene is a group with instances in service since an age in seconds.
func scene(desired int64, ages ...int) *moment {
	m := &moment{now: noon, group: &Group{Name: "g", Min: 1, Max: 20, Desired: desired, Cooldown: 300}}
	for n, age := range ages {
		since := noon.Add(-time.Duration(age) * time.Second)
		m.instances = append(m.instances, &Instance{ID: fmt.Sprint(n), State: inService, Launched: since, InServiceAt: since})
	}
	return m
}

func TestTargetTracking(t *testing.T) {
	p := &Policy{Type: targetTracking, Tracking: &api.TargetTrackingConfiguration{TargetValue: f64(50)}, Warmup: new(int64(60))}
	for name, c := range map[string]struct {
		m      *moment
		metric float64
		in     bool
		want   int64
	}{
		"out":              {scene(2, 900, 900), 90, false, 4},
		"out by one":       {scene(2, 900, 900), 51, false, 3},
		"never in on high": {scene(3, 900, 900, 900), 20, false, 3},
		"in":               {scene(4, 900, 900, 900, 900), 20, true, 2},
		"in, still needed": {scene(2, 900, 900), 30, true, 2},
		"to nothing":       {scene(2, 900, 900), 0, true, 1},
		"never out on low": {scene(2, 900, 900), 500, true, 2},
		"without a value":  {scene(2, 900, 900), math.NaN(), false, 2},
		"capped":           {scene(18), 5000, false, 20},
		"twice in a breach": {func() *moment {
			m := scene(4, 900, 900, 10, 10)
			m.past.OutAt, m.past.Base = noon.Add(-20*time.Second), 2
			return m
		}(), 90, false, 4},
		"worse in warm-up": {func() *moment {
			m := scene(4, 900, 900, 10, 10)
			m.past.OutAt, m.past.Base = noon.Add(-20*time.Second), 2
			return m
		}(), 140, false, 6},
		"in while warming": {func() *moment {
			m := scene(4, 900, 900, 10, 10)
			m.past.OutAt, m.past.Base = noon.Add(-20*time.Second), 2
			return m
		}(), 1, true, 4},
		"in after warm-up": {func() *moment {
			m := scene(4, 900, 900, 70, 70)
			m.past.OutAt, m.past.Base = noon.Add(-90*time.Second), 2
			return m
		}(), 20, true, 2},
		"not launched yet": {func() *moment {
			m := scene(4, 900, 900)
			m.past.OutAt, m.past.Base = noon.Add(-1*time.Second), 2
			return m
		}(), 90, false, 4},
	} {
		if got := p.decide(c.m, c.metric, 0, c.in); got.desired != c.want {
			t.Errorf("%s: %d, want %d", name, got.desired, c.want)
		}
	}
}

func TestSimpleCooldown(t *testing.T) {
	p := &Policy{Type: simpleScaling, Adjustment: "ChangeInCapacity", By: 1}
	m := scene(2, 900, 900)
	if d := p.decide(m, 0, 0, false); d.desired != 3 || !d.simple {
		t.Errorf("first: %+v", d)
	}
	m = scene(3, 900, 900)
	m.past.SimpleAt, m.past.Cooldown = noon.Add(-600*time.Second), 300
	if !m.cooling() {
		t.Error("the cooldown ended before the instance was in service")
	}
	m.instances = append(m.instances, &Instance{State: inService, InServiceAt: noon.Add(-100 * time.Second)})
	if until, busy := m.coolUntil(); busy || !until.Equal(noon.Add(200*time.Second)) {
		t.Errorf("until %v, busy %v", until, busy)
	}
	if d := p.decide(m, 0, 0, false); d.desired != 3 {
		t.Errorf("in the cooldown: %+v", d)
	}
	m.now = noon.Add(201 * time.Second)
	if d := p.decide(m, 0, 0, false); d.desired != 4 {
		t.Errorf("after it: %+v", d)
	}
}

// What holds of every decision, whatever the group looks like.
func TestDecisionProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low := rapid.Int64Range(0, 5).Draw(t, "min")
		high := low + rapid.Int64Range(0, 20).Draw(t, "more")
		desired := rapid.Int64Range(low, high).Draw(t, "desired")
		m := scene(desired)
		m.group.Min, m.group.Max = low, high
		for n := range rapid.IntRange(0, 25).Draw(t, "instances") {
			since := noon.Add(-time.Duration(rapid.IntRange(0, 1000).Draw(t, "age")) * time.Second)
			m.instances = append(m.instances, &Instance{ID: fmt.Sprint(n), State: rapid.SampledFrom([]string{pending, inService, terminating, standby}).Draw(t, "state"), Launched: since, InServiceAt: since})
		}
		if rapid.Bool().Draw(t, "scaled before") {
			m.past = scaling{OutAt: noon.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(t, "out")) * time.Second), Base: rapid.Int64Range(0, 20).Draw(t, "base"),
				SimpleAt: noon.Add(-time.Duration(rapid.IntRange(0, 2000).Draw(t, "simple")) * time.Second), Cooldown: 300}
		}
		p := &Policy{Type: rapid.SampledFrom([]string{simpleScaling, stepScaling, targetTracking}).Draw(t, "type"),
			Adjustment: rapid.SampledFrom([]string{"ChangeInCapacity", "ExactCapacity", "PercentChangeInCapacity"}).Draw(t, "adjustment"),
			By:         rapid.Int64Range(-300, 300).Draw(t, "by"), MinMagnitude: rapid.Int64Range(0, 3).Draw(t, "magnitude"), Warmup: new(rapid.Int64Range(0, 600).Draw(t, "warmup")),
			Steps:    []api.StepAdjustment{{MetricIntervalLowerBound: f64(0), ScalingAdjustment: new(rapid.Int64Range(-5, 5).Draw(t, "step"))}},
			Tracking: &api.TargetTrackingConfiguration{TargetValue: f64(rapid.Float64Range(1, 100).Draw(t, "target"))}}
		metric, in := rapid.Float64Range(0, 1000).Draw(t, "metric"), rapid.Bool().Draw(t, "in")
		d := p.decide(m, metric, metric-50, in)
		if d.desired < low || d.desired > high {
			t.Fatalf("%d is not between %d and %d", d.desired, low, high)
		}
		if p.Type == targetTracking && (in && d.desired > desired || !in && d.desired < desired) {
			t.Fatalf("target tracking went the wrong way: %d to %d", desired, d.desired)
		}
		if p.Type != simpleScaling && d.desired < desired && m.warm(p.warmup(m.group)) != desired {
			t.Fatal("scaled in while instances are warming up")
		}
		if p.Type == simpleScaling && m.cooling() && d.desired != desired {
			t.Fatal("a simple policy did not wait for its cooldown")
		}
		if w := m.warm(p.warmup(m.group)); w > desired || w < 0 {
			t.Fatalf("%d of %d are warm", w, desired)
		}
	})
}

func TestCron(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skip("needs the time zone database: " + err.Error())
	}
	at := func(s string, loc *time.Location) time.Time {
		out, err := time.ParseInLocation("2006-01-02 15:04", s, loc)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, c := range []struct {
		rule, from, want string
		loc              *time.Location
	}{
		{"0 8 * * *", "2026-11-23 08:00", "2026-11-24 08:00", time.UTC}, {"*/15 * * * *", "2026-11-23 08:01", "2026-11-23 08:15", time.UTC}, {"30 6 * * MON-FRI", "2026-11-27 07:00", "2026-11-30 06:30", time.UTC},
		{"0 0 1 JAN ?", "2026-11-23 08:00", "2027-01-01 00:00", time.UTC}, {"0 0 13 * 5", "2026-11-14 00:00", "2026-11-20 00:00", time.UTC}, {"0 12 29 2 *", "2026-11-23 08:00", "2028-02-29 12:00", time.UTC},
		{"0 0 * * 7", "2026-11-23 08:00", "2026-11-29 00:00", time.UTC}, {"0 9 * * *", "2026-03-28 10:00", "2026-03-29 09:00", berlin}, {"30 2 * * *", "2026-03-28 03:00", "2026-03-29 03:30", berlin},
		{"5-10/5,50 1 * * *", "2026-11-23 01:06", "2026-11-23 01:10", time.UTC},
	} {
		r, err := parseCron(c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		if got := r.next(at(c.from, c.loc), c.loc); !got.Equal(at(c.want, c.loc)) {
			t.Errorf("%s after %s: %v, want %s", c.rule, c.from, got.In(c.loc), c.want)
		}
	}
	for _, bad := range []string{"", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *", "5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "-1 * * * *", "* * * * * *"} {
		if _, err := parseCron(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if r, _ := parseCron("0 0 30 2 *"); !r.next(noon, time.UTC).IsZero() {
		t.Error("the 30th of February came")
	}
}

func FuzzCron(f *testing.F) {
	f.Add("*/5 1-3 * JAN,feb 0-7")
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := parseCron(text); err == nil {
			if next := c.next(noon, time.UTC); !next.IsZero() && !next.After(noon) {
				t.Fatalf("%q after %v is %v", text, noon, next)
			}
		}
	})
}
