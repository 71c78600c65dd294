package metricstore

import (
	"math"
	"slices"
)

// Bin is a value and how often it occurred.
type Bin struct{ Value, Count float64 }

// Set is the statistics of some samples. The zero Set is empty.
type Set struct {
	Count, Sum, Min, Max float64
	// bins are the distribution in ascending order; with Min == Max they are
	// left out: all samples are alike.
	bins []Bin
	form uint8
}

const (
	exact   uint8 = iota // bins hold the samples' own values
	coarse               // bins hold the values of logarithmic buckets
	unknown              // no distribution: statistic sets, negative values
)

const (
	// maxExact is how many distinct values are kept as they are.
	maxExact = 64
	// maxBins bounds a coarse distribution; beyond it the lowest are merged.
	maxBins = 4096
	// base is the ratio of neighbouring buckets' bounds: the value that stands
	// for a bucket is off by at most (base-1)/(base+1) < 1 %.
	base = 1.0101
)

var logBase = math.Log(base)

// quantise returns the value that stands for v's bucket; 0 is its own.
func quantise(v float64) float64 {
	if v <= 0 {
		return 0
	}
	return math.Exp(math.Ceil(math.Log(v)/logBase)*logBase) * 2 / (1 + base)
}

// Of is the set of n samples of v; n must be positive.
func Of(v, n float64) Set {
	s := Set{Count: n, Sum: v * n, Min: v, Max: v}
	if v < 0 {
		s.form = unknown
	}
	return s
}

// OfStatistics is the set that a producer summed up by itself. It has no
// distribution unless all samples are alike.
func OfStatistics(count, sum, minimum, maximum float64) Set {
	s := Set{Count: count, Sum: sum, Min: minimum, Max: maximum}
	if minimum != maximum || minimum < 0 {
		s.form = unknown
	}
	return s
}

// OfValues is the set of values with their counts; counts nil means one each.
func OfValues(values, counts []float64) Set {
	var s Set
	bins := make([]Bin, 0, len(values))
	for i, v := range values {
		n := 1.0
		if counts != nil {
			n = counts[i]
		}
		if n <= 0 {
			continue
		}
		bins = append(bins, Bin{v, n})
		s.take(Of(v, n))
	}
	if s.form == unknown || s.Min == s.Max {
		return s
	}
	slices.SortFunc(bins, func(a, b Bin) int {
		if a.Value < b.Value {
			return -1
		}
		return 1
	})
	s.bins = join(nil, bins)
	s.settle()
	return s
}

// take adds o's numbers and form, not its distribution.
func (s *Set) take(o Set) {
	if s.Count == 0 {
		s.Min, s.Max = o.Min, o.Max
	} else {
		s.Min, s.Max = math.Min(s.Min, o.Min), math.Max(s.Max, o.Max)
	}
	s.Count += o.Count
	s.Sum += o.Sum
	s.form = max(s.form, o.form)
}

// distribution is the bins, spelled out where all samples are alike.
func (s *Set) distribution() []Bin {
	if s.bins == nil && s.Count > 0 {
		return []Bin{{s.Min, s.Count}}
	}
	return s.bins
}

// Merge adds the samples of o, which it does not change or keep.
func (s *Set) Merge(o Set) {
	switch {
	case o.Count == 0:
		return
	case s.Count == 0:
		*s = o
		s.bins = slices.Clone(o.bins)
		return
	}
	a, b := s.distribution(), o.distribution()
	aForm, bForm := s.form, o.form
	s.take(o)
	if s.form == unknown || s.Min == s.Max {
		s.bins = nil
		return
	}
	if s.form == coarse {
		if aForm == exact {
			a = toCoarse(a)
		}
		if bForm == exact {
			b = toCoarse(b)
		}
	}
	if len(b) == 1 { // the common case: one more sample
		s.bins = insert(a, b[0])
	} else {
		s.bins = join(a, b)
	}
	s.settle()
}

// settle makes a distribution coarse that has become too long.
func (s *Set) settle() {
	if s.form == exact && len(s.bins) > maxExact {
		s.bins, s.form = toCoarse(s.bins), coarse
	}
	if over := len(s.bins) - maxBins; over > 0 {
		for _, b := range s.bins[:over] {
			s.bins[over].Count += b.Count
		}
		s.bins = slices.Clone(s.bins[over:])
	}
}

func toCoarse(bins []Bin) []Bin {
	out := make([]Bin, 0, len(bins))
	for _, b := range bins {
		v := quantise(b.Value)
		if n := len(out); n > 0 && out[n-1].Value == v {
			out[n-1].Count += b.Count
		} else {
			out = append(out, Bin{v, b.Count})
		}
	}
	return out
}

// insert adds one bin to an ascending list, in place where it can.
func insert(bins []Bin, b Bin) []Bin {
	i, found := slices.BinarySearchFunc(bins, b.Value, func(x Bin, v float64) int {
		switch {
		case x.Value < v:
			return -1
		case x.Value > v:
			return 1
		}
		return 0
	})
	if found {
		bins[i].Count += b.Count
		return bins
	}
	return slices.Insert(bins, i, b)
}

// join merges two ascending lists into a new one; equal values add up.
func join(a, b []Bin) []Bin {
	out := make([]Bin, 0, len(a)+len(b))
	add := func(x Bin) {
		if n := len(out); n > 0 && out[n-1].Value == x.Value {
			out[n-1].Count += x.Count
		} else {
			out = append(out, x)
		}
	}
	for len(a) > 0 && len(b) > 0 {
		if a[0].Value <= b[0].Value {
			add(a[0])
			a = a[1:]
		} else {
			add(b[0])
			b = b[1:]
		}
	}
	for _, x := range a {
		add(x)
	}
	for _, x := range b {
		add(x)
	}
	return out
}
