// Package anomaly learns from a metric's past what its values usually are. It
// is pure: no clock, no store.
//
// A model knows three levels of seasons: the hour of the week, the hour of the
// day, and all hours as one. What is expected of a moment is the mean of the
// finest level that has seen its season on at least two different days; the
// band around it is that mean, plus and minus a number of standard deviations
// of the points about their season's mean.
//
// AWS says which seasons its models follow (CloudWatch User Guide, "Using
// CloudWatch anomaly detection") and not how; this is the plainest model that
// follows the same ones. The same points give the same model, always.
package anomaly

import (
	"math"
	"time"
)

// Point is a value at the start of its period, in epoch seconds.
type Point struct {
	At    int64
	Value float64
}

// Span is a stretch of time that is not learnt from: Start <= t < End, in
// epoch seconds.
type Span struct{ Start, End int64 }

// Options say how to learn.
type Options struct {
	Zone     *time.Location // of hours and days; nil: UTC
	Excluded []Span
	// MinPoints and MinSpan (seconds from the first to the last point) are what
	// a model needs to be of use.
	MinPoints int
	MinSpan   int64
	// Floor and Ceiling bound the band where they are not nil: a count is
	// never negative.
	Floor, Ceiling *float64
}

// levels are the kinds of seasons, finest first, and how many there are.
var levels = [...]int{7 * 24, 24, 1}

const (
	// minDays is on how many days a season must have been seen to count as one.
	minDays = 2
	// minOwn is how many points a season needs for a deviation of its own; with
	// fewer it has that of its whole level.
	minOwn = 10
)

// season is what is known of one season: Welford's running mean and sum of
// squared differences from it.
type season struct {
	n        int
	mean, m2 float64
	days     int
	lastDay  int64
}

func (s *season) add(v float64, day int64) {
	if s.n == 0 || day != s.lastDay {
		s.days++
		s.lastDay = day
	}
	s.n++
	d := v - s.mean
	s.mean += d / float64(s.n)
	s.m2 += d * (v - s.mean)
}

// Model is what was learnt. It is not changed after Train: safe for
// concurrent use.
type Model struct {
	opts        Options
	seasons     [len(levels)][]season
	pooled      [len(levels)]float64 // deviation of all points of a level
	points      int
	first, last int64
}

// Train learns from points in ascending order.
func Train(points []Point, o Options) *Model {
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	m := &Model{opts: o}
	for l, n := range levels {
		m.seasons[l] = make([]season, n)
	}
	for _, p := range points {
		if excluded(o.Excluded, p.At) {
			continue
		}
		if m.points == 0 {
			m.first = p.At
		}
		m.points++
		m.last = p.At
		at, day := m.place(p.At)
		for l := range levels {
			m.seasons[l][at[l]].add(p.Value, day)
		}
	}
	for l := range levels {
		n, m2 := 0, 0.0
		for i := range m.seasons[l] {
			n += m.seasons[l][i].n
			m2 += m.seasons[l][i].m2
		}
		if n > 0 {
			m.pooled[l] = math.Sqrt(m2 / float64(n))
		}
	}
	return m
}

func excluded(spans []Span, at int64) bool {
	for _, s := range spans {
		if s.Start <= at && at < s.End {
			return true
		}
	}
	return false
}

// place is the season of a moment in each level, and its day.
func (m *Model) place(at int64) (index [len(levels)]int, day int64) {
	t := time.Unix(at, 0).In(m.opts.Zone)
	hour := t.Hour()
	index[0], index[1] = int(t.Weekday())*24+hour, hour
	return index, int64(t.Year())*366 + int64(t.YearDay())
}

// Trained says whether there was enough to learn from.
func (m *Model) Trained() bool {
	return m.points > 0 && m.points >= m.opts.MinPoints && m.last-m.first >= m.opts.MinSpan
}

// Expect is the expected value at a moment and the standard deviation about
// it; false where the model is not trained.
func (m *Model) Expect(at int64) (mean, deviation float64, ok bool) {
	if !m.Trained() {
		return 0, 0, false
	}
	index, _ := m.place(at)
	for l := range levels {
		s := &m.seasons[l][index[l]]
		if s.days < minDays && l < len(levels)-1 {
			continue
		}
		if s.n < minOwn {
			return s.mean, m.pooled[l], true
		}
		return s.mean, math.Sqrt(s.m2 / float64(s.n)), true
	}
	return 0, 0, false
}

// Band is the lower and upper bound of what is usual at a moment, width
// standard deviations from what is expected.
func (m *Model) Band(at int64, width float64) (lower, upper float64, ok bool) {
	mean, deviation, ok := m.Expect(at)
	if !ok {
		return 0, 0, false
	}
	lower, upper = mean-width*deviation, mean+width*deviation
	if f := m.opts.Floor; f != nil {
		lower, upper = math.Max(lower, *f), math.Max(upper, *f)
	}
	if c := m.opts.Ceiling; c != nil {
		lower, upper = math.Min(lower, *c), math.Min(upper, *c)
	}
	return lower, upper, true
}
