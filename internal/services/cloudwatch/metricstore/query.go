package metricstore

import (
	"slices"
	"strings"
	"time"
)

// Period is the statistics of one period that begins at Start.
type Period struct {
	Start time.Time
	Set   Set
}

// Query asks for the periods of one metric.
type Query struct {
	Metric Metric
	Unit   string // "" merges all units
	// Start and End bound the periods' starts: Start <= start < End. Periods
	// begin at Start and every Period seconds after it.
	Start, End int64
	Period     int64
}

// Read returns the periods that have samples, in ascending order. Periods
// below 60 s see points of resolution 1 only. Where only rolled-up points are
// left, periods that are no multiple of their resolution see nothing.
func (s *Store) Read(q Query) ([]Period, error) {
	if q.Period <= 0 || q.End <= q.Start {
		return nil, nil
	}
	var out []bucket
	var chunks []chunk
	end := q.Start + (q.End-q.Start+q.Period-1)/q.Period*q.Period
	add := func(list []bucket) {
		for i := searchBuckets(list, q.Start); i < len(list) && list[i].start < end; i++ {
			out = mergeBucket(out, q.Start+floor(list[i].start-q.Start, q.Period), list[i].set)
		}
	}
	s.mu.RLock()
	m := s.metrics[q.Metric.Key()]
	if m == nil {
		s.mu.RUnlock()
		return nil, nil
	}
	t := 1
	if q.Period < 60 {
		t = 0
	}
	for _, x := range m.series {
		if q.Unit != "" && x.unit != q.Unit {
			continue
		}
		add(x.head[t])
		add(x.frozen[t])
		for _, c := range x.chunks {
			if c.block.readable(q.Period) && c.last >= q.Start && c.first < end {
				c.block.refs.Add(1)
				chunks = append(chunks, c)
			}
		}
	}
	s.mu.RUnlock()
	var failed error
	for _, c := range chunks {
		if failed == nil {
			var list []bucket
			if list, failed = c.read(); failed == nil {
				add(list)
			}
		}
		c.block.release()
	}
	if failed != nil {
		return nil, failed
	}
	periods := make([]Period, len(out))
	for i, b := range out {
		periods[i] = Period{time.Unix(b.start, 0).UTC(), b.set}
	}
	return periods, nil
}

// readable says whether the block has what periods of that length are made of.
func (b *block) readable(period int64) bool {
	if b.tier == 0 {
		return period < 60
	}
	return period >= 60 && period%tiers[b.tier].seconds == 0
}

// Units are the units that a metric has points in.
func (s *Store) Units(m Metric) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []string
	if mt := s.metrics[m.Key()]; mt != nil {
		for _, x := range mt.series {
			out = append(out, x.unit)
		}
	}
	slices.Sort(out)
	return out
}

// Known says whether the metric has ever had a point that is still kept.
func (s *Store) Known(m Metric) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.metrics[m.Key()] != nil
}

// Listed is a metric and the time of its newest point.
type Listed struct {
	Metric
	Last time.Time
}

// List returns the metrics of an account and region in the order of Compare
// that match accepts; match nil accepts all. It is called without locks held
// for long: at most some microseconds per thousand metrics.
func (s *Store) List(account, region string, match func(*Listed) bool) []Listed {
	sorted := s.index()
	at, _ := slices.BinarySearchFunc(sorted, struct{}{}, func(m *metric, _ struct{}) int {
		if compareOwner(m, account, region) < 0 {
			return -1
		}
		return 1
	})
	var out []Listed
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range sorted[at:] {
		if compareOwner(m, account, region) != 0 {
			break
		}
		l := Listed{m.Metric, time.Unix(m.last, 0).UTC()}
		if match == nil || match(&l) {
			out = append(out, l)
		}
	}
	return out
}

func compareOwner(m *metric, account, region string) int {
	if c := strings.Compare(m.Account, account); c != 0 {
		return c
	}
	return strings.Compare(m.Region, region)
}

// index is the sorted list of metrics; it is never changed in place.
func (s *Store) index() []*metric {
	s.mu.RLock()
	sorted := s.sorted
	s.mu.RUnlock()
	if sorted != nil {
		return sorted
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sorted == nil {
		list := make([]*metric, 0, len(s.metrics))
		for _, m := range s.metrics {
			list = append(list, m)
		}
		slices.SortFunc(list, func(a, b *metric) int {
			if c := compareOwner(a, b.Account, b.Region); c != 0 {
				return c
			}
			return a.Compare(&b.Metric)
		})
		s.sorted = list
	}
	return s.sorted
}
