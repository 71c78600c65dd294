package metricstore

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"slipway/internal/lazyre"
)

// Statistic is a parsed statistic: "Average", "p99.9", "tm90", "TM(5%:95%)",
// "PR(:300)", "IQM", ... (CloudWatch User Guide, "Statistics definitions").
type Statistic struct {
	Name string // as given
	kind string // a standard statistic, or "p", "TM", "WM", "TC", "TS", "PR"
	low  bound
	high bound
}

// bound is one end of a range: absent, a percentile or a value.
type bound struct {
	set     bool
	percent bool
	v       float64
}

var (
	simpleForm = lazyre.New(`^(p|tm|tc|ts|wm)(\d{1,3}(?:\.\d{1,10})?)$`)
	rangeForm  = lazyre.New(`^(TM|TC|TS|WM|PR)\(([^():]*):([^():]*)\)$`)
)

// ParseStatistic reads a standard or extended statistic. The error says what
// is wrong with it.
func ParseStatistic(name string) (Statistic, error) {
	st := Statistic{Name: name}
	switch name {
	case "SampleCount", "Average", "Sum", "Minimum", "Maximum":
		st.kind = name
		return st, nil
	case "IQM":
		st.kind, st.low, st.high = "TM", bound{true, true, 25}, bound{true, true, 75}
		return st, nil
	}
	if m := simpleForm.FindStringSubmatch(name); m != nil {
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil || v > 100 {
			return st, fmt.Errorf("the percentile of %s must be from 0 to 100", name)
		}
		st.kind, st.high = strings.ToUpper(m[1]), bound{true, true, v}
		if m[1] == "p" {
			st.kind = "p"
		}
		return st, nil
	}
	m := rangeForm.FindStringSubmatch(name)
	if m == nil {
		return st, fmt.Errorf("%s is not a statistic", name)
	}
	st.kind = m[1]
	var err error
	if st.low, err = parseBound(m[2]); err == nil {
		st.high, err = parseBound(m[3])
	}
	switch {
	case err != nil:
		return st, fmt.Errorf("%s: %w", name, err)
	case !st.low.set && !st.high.set:
		return st, fmt.Errorf("%s has no bound", name)
	case st.low.set && st.high.set && st.low.percent != st.high.percent:
		return st, fmt.Errorf("%s mixes a percentile and a value", name)
	case st.kind == "PR" && (st.low.percent || st.high.percent):
		return st, fmt.Errorf("%s takes values, not percentiles", name)
	case st.low.set && st.high.set && st.low.v >= st.high.v:
		return st, fmt.Errorf("the lower bound of %s is not below the upper one", name)
	}
	return st, nil
}

func parseBound(s string) (bound, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return bound{}, nil
	}
	t, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(t, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return bound{}, fmt.Errorf("%q is not a number", s)
	}
	if percent && (v < 0 || v > 100) {
		return bound{}, fmt.Errorf("the percentile %s must be from 0%% to 100%%", s)
	}
	return bound{true, percent, v}, nil
}

// Extended says whether it is not one of the five standard statistics.
func (st Statistic) Extended() bool { return len(st.kind) <= 2 }

// Percentile is the p of a pNN statistic in percent.
func (st Statistic) Percentile() (float64, bool) { return st.high.v, st.kind == "p" }

// Compute returns the statistic of the set, or false where it has none: an
// empty set, or one without the distribution that the statistic needs.
func (st Statistic) Compute(s *Set) (float64, bool) {
	if s.Count <= 0 {
		return 0, false
	}
	switch st.kind {
	case "SampleCount":
		return s.Count, true
	case "Sum":
		return s.Sum, true
	case "Average":
		return s.Sum / s.Count, true
	case "Minimum":
		return s.Min, true
	case "Maximum":
		return s.Max, true
	}
	if s.form == unknown {
		return 0, false
	}
	bins := s.distribution()
	if st.kind == "p" {
		v := rank(bins, ceilRank(st.high.v, s.Count))
		return math.Min(math.Max(v, s.Min), s.Max), true
	}
	return st.trimmed(bins, s)
}

// ceilRank is how many of n samples are at or below the percentile.
func ceilRank(p, n float64) float64 {
	r := p / 100 * n
	if c := math.Round(r); math.Abs(c-r) < 1e-9*math.Max(1, n) {
		return c
	}
	return math.Ceil(r)
}

// rank is the value of the sample with that rank; the first has rank 1.
func rank(bins []Bin, r float64) float64 {
	seen := 0.0
	for _, b := range bins {
		if seen += b.Count; seen >= r {
			return b.Value
		}
	}
	return bins[len(bins)-1].Value
}

// trimmed computes the statistics of a part of the samples: the ranks
// (low, high] or the values (low, high].
func (st Statistic) trimmed(bins []Bin, s *Set) (float64, bool) {
	low, high := math.Inf(-1), math.Inf(1)
	byRank := st.low.percent || st.high.percent
	if st.low.set {
		if low = st.low.v; byRank {
			low = ceilRank(low, s.Count)
		}
	}
	if st.high.set {
		if high = st.high.v; byRank {
			high = ceilRank(high, s.Count)
		}
	}
	var count, sum, below, above, seen float64
	first, last, any := 0.0, 0.0, false
	for _, b := range bins {
		n := b.Count // of this bin that is inside
		under, over := 0.0, 0.0
		if byRank {
			under = math.Min(math.Max(low-seen, 0), b.Count)
			over = math.Min(math.Max(seen+b.Count-high, 0), b.Count)
		} else if b.Value <= low {
			under = b.Count
		} else if b.Value > high {
			over = b.Count
		}
		seen += b.Count
		n -= under + over
		below, above = below+under, above+over
		if n <= 0 {
			continue
		}
		if !any {
			first, any = b.Value, true
		}
		last = b.Value
		count += n
		sum += n * b.Value
	}
	if below == 0 && above == 0 { // nothing trimmed: the exact sum
		sum = s.Sum
	}
	switch st.kind {
	case "TC":
		return count, true
	case "TS":
		return sum, true
	case "PR":
		return count / s.Count * 100, true
	case "TM":
		return sum / count, any
	}
	// WM: what is outside counts with the value at the boundary.
	if !byRank {
		if st.low.set && below > 0 {
			first = low
		}
		if st.high.set && above > 0 {
			last = high
		}
		any = true
	}
	return (sum + below*first + above*last) / s.Count, any
}
