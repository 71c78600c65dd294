package autoscaling

import (
	"math"
	"time"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/ptr"
)

// This file is pure: what a policy makes of a capacity.

// adjust is the capacity that an adjustment leads to. Percentages are rounded
// towards nought, but not to it (User Guide, "Scaling adjustment types"); a
// minimum magnitude makes a step of a percentage larger.
func adjust(capacity int64, kind string, by, minMagnitude int64) int64 {
	switch kind {
	case "ExactCapacity":
		return max(by, 0)
	case "PercentChangeInCapacity":
		change := float64(capacity) * float64(by) / 100
		switch {
		case change > 0 && change < 1:
			change = 1
		case change < 0 && change > -1:
			change = -1
		default:
			change = math.Trunc(change)
		}
		by = clampToInt(change)
		if by > 0 {
			by = max(by, minMagnitude)
		} else if by < 0 {
			by = min(by, -minMagnitude)
		}
	}
	return max(saturate(capacity, by), 0)
}

// maxCapacity bounds arithmetic; AWS's groups end at 10000.
const maxCapacity = math.MaxInt32

func clampToInt(f float64) int64 { return int64(min(max(f, -maxCapacity), maxCapacity)) }

func saturate(a, b int64) int64 {
	return min(max(a+min(max(b, -maxCapacity), maxCapacity), -maxCapacity), maxCapacity)
}

// stepFor is the step of a metric that is diff above the alarm's threshold.
// From the threshold on up the lower bound belongs to a step, below it the
// upper one (API reference, StepAdjustment). nil: no step is for it.
func stepFor(steps []api.StepAdjustment, diff float64) *api.StepAdjustment {
	for n := range steps {
		low, high := bounds(&steps[n])
		if diff >= 0 && low <= diff && diff < high || diff < 0 && low < diff && diff <= high {
			return &steps[n]
		}
	}
	return nil
}

func bounds(s *api.StepAdjustment) (low, high float64) {
	low, high = math.Inf(-1), math.Inf(1)
	if s.MetricIntervalLowerBound != nil {
		low = *s.MetricIntervalLowerBound
	}
	if s.MetricIntervalUpperBound != nil {
		high = *s.MetricIntervalUpperBound
	}
	return low, high
}

// tracked is the capacity at which a metric that each instance has its share
// of would be at the target.
func tracked(capacity int64, metric, target float64) int64 {
	if math.IsNaN(metric) || target <= 0 {
		return capacity
	}
	return clampToInt(math.Ceil(float64(capacity)*max(metric, 0)/target - 1e-9))
}

// scaling is the document of an autoscaling:scaling row, one for each group
// that a policy has changed: what cooldowns and warm-up are counted from.
type scaling struct {
	Group, GroupARN string
	// SimpleAt is when a simple policy changed the capacity last, Cooldown the
	// seconds of its pause.
	SimpleAt time.Time `json:",omitzero"`
	Cooldown int64     `json:",omitempty"`
	// OutAt is when a policy first scaled out of what is warm, Base the
	// capacity before. Both are void once everything is warm.
	OutAt time.Time `json:",omitzero"`
	Base  int64     `json:",omitempty"`
}

// moment is what policies look at.
type moment struct {
	now       time.Time
	group     *Group
	instances []*Instance
	past      scaling
	// ended is when the last activity of the group ended, zero if none.
	ended time.Time
}

// coolUntil is the end of the cooldown after the last simple scaling. It
// starts when what was launched is in service and what was ended is drained.
// busy: it has not started.
func (m *moment) coolUntil() (until time.Time, busy bool) {
	if m.past.SimpleAt.IsZero() {
		return time.Time{}, false
	}
	start := m.past.SimpleAt
	if m.ended.After(start) {
		start = m.ended
	}
	actual := int64(0)
	for _, i := range m.instances {
		switch {
		case i.arriving() || i.State == terminating:
			busy = true
		case i.State == inService:
			actual++
			if i.InServiceAt.After(start) {
				start = i.InServiceAt
			}
		}
	}
	return start.Add(time.Duration(m.past.Cooldown) * time.Second), busy || actual != m.group.Desired
}

// cooling says whether a simple policy has to wait.
func (m *moment) cooling() bool {
	until, busy := m.coolUntil()
	return busy && !m.past.SimpleAt.IsZero() || until.After(m.now)
}

// warm is the capacity without what policies added and is not warm yet.
// Warm-up is counted from InService.
func (m *moment) warm(warmup time.Duration) int64 {
	desired := m.group.Desired
	if m.past.OutAt.IsZero() || m.past.Base >= desired {
		return desired
	}
	counted, cold := int64(0), int64(0)
	for _, i := range m.instances {
		if !i.counts() {
			continue
		}
		counted++
		if !i.Launched.Before(m.past.OutAt) && (i.arriving() || i.InServiceAt.Add(warmup).After(m.now)) {
			cold++
		}
	}
	cold += max(desired-counted, 0)
	return desired - min(desired-m.past.Base, cold)
}

// decision is a policy's verdict on a group.
type decision struct {
	desired int64
	// simple and out say what the scaling row remembers.
	simple, out bool
}

// decide is what a policy wants now, clamped to the group's bounds. diff is
// the metric above the alarm's threshold; metric the value itself; in says
// that a target tracking policy may scale in, otherwise it may scale out.
func (p *Policy) decide(m *moment, metric, diff float64, in bool) decision {
	g := m.group
	d := decision{desired: g.Desired}
	switch p.Type {
	case simpleScaling:
		if m.cooling() {
			return d
		}
		d.desired, d.simple = adjust(g.Desired, p.Adjustment, p.By, p.MinMagnitude), true
	case stepScaling:
		step := stepFor(p.Steps, diff)
		if step == nil {
			return d
		}
		d = warmed(m, p.warmup(g), func(base int64) int64 {
			return adjust(base, p.Adjustment, ptr.Value(step.ScalingAdjustment), p.MinMagnitude)
		})
	case targetTracking:
		target := ptr.Value(p.Tracking.TargetValue)
		d = warmed(m, p.warmup(g), func(base int64) int64 {
			want := tracked(base, metric, target)
			if in {
				return min(want, base)
			}
			return max(want, base)
		})
	}
	d.desired = min(max(d.desired, g.Min), g.Max)
	d.out = d.desired > g.Desired && !d.simple
	return d
}

// warmed applies f to the warm capacity: outwards what is warming counts as
// done, inwards nothing happens before everything is warm (User Guide, "Set
// the default instance warmup").
func warmed(m *moment, warmup time.Duration, f func(base int64) int64) decision {
	desired := m.group.Desired
	base := m.warm(warmup)
	want := f(base)
	switch {
	case want > base:
		return decision{desired: max(want, desired)}
	case want < base && base == desired:
		return decision{desired: want}
	}
	return decision{desired: desired}
}

// warmup falls back as AWS's does.
func (p *Policy) warmup(g *Group) time.Duration {
	seconds := g.Cooldown
	if g.Warmup != nil {
		seconds = *g.Warmup
	}
	if p.Warmup != nil {
		seconds = *p.Warmup
	}
	return time.Duration(seconds) * time.Second
}
