package collect

import (
	"context"
	"strings"
	"time"

	"slipway/internal/lb"
	"slipway/internal/services/cloudwatch/metricstore"
)

// lbState is the counters as of the reading before, and what came since the
// minute began.
type lbState struct {
	started   time.Time
	balancers map[string]*lbCounts
	targets   map[targetKey]*targetCounts
	now       lb.Metrics
}

type targetKey struct {
	balancer, group, id string
	port                int
}

type lbCounts struct {
	last   map[string]float64
	delta  map[string]float64
	active metricstore.Set // open connections, as read
}

type targetCounts struct {
	zone     string
	state    lb.HealthState
	last     map[string]float64
	delta    map[string]float64
	lastTime lb.Histogram
	times    lb.Histogram
	seen     bool
}

func (c *Collector) sampleBalancers(ctx context.Context) error {
	m, err := c.Balancers.Metrics(ctx)
	if err != nil {
		return err
	}
	if m.Started.IsZero() {
		return nil // there is no load balancer process
	}
	first := c.lb == nil
	if first {
		c.lb = &lbState{started: m.Started, balancers: map[string]*lbCounts{}, targets: map[targetKey]*targetCounts{}}
	}
	s := c.lb
	// A new process counts from zero: so does whatever is first seen, except
	// in the first reading of all.
	if !m.Started.Equal(s.started) {
		s.started = m.Started
		for _, b := range s.balancers {
			b.last = nil
		}
		for _, t := range s.targets {
			t.last, t.lastTime = nil, lb.Histogram{}
		}
	}
	s.now = m
	seen := map[string]bool{}
	for _, b := range m.LoadBalancers {
		seen[b.ARN] = true
		n := s.balancers[b.ARN]
		if n == nil {
			n = &lbCounts{delta: map[string]float64{}}
			if s.balancers[b.ARN] = n; first {
				n.last = b.Counters
			}
		}
		differ(n.delta, n.last, b.Counters)
		n.last = b.Counters
		n.active.Merge(metricstore.Of(float64(b.ActiveConnections), 1))
	}
	for arn := range s.balancers {
		if !seen[arn] {
			delete(s.balancers, arn)
		}
	}
	s.sampleTargets(m, first)
	return nil
}

func (s *lbState) sampleTargets(m lb.Metrics, first bool) {
	for _, t := range s.targets {
		t.seen = false
	}
	for i := range m.Targets {
		t := &m.Targets[i]
		key := targetKey{t.LoadBalancer, t.TargetGroup, t.ID, t.Port}
		n := s.targets[key]
		if n == nil {
			n = &targetCounts{delta: map[string]float64{}}
			if s.targets[key] = n; first {
				n.last, n.lastTime = t.Counters, t.ResponseTime
			}
		}
		n.zone, n.state, n.seen = t.Zone, t.State, true
		differ(n.delta, n.last, t.Counters)
		addHistogram(&n.times, t.ResponseTime, n.lastTime)
		n.last, n.lastTime = t.Counters, t.ResponseTime
	}
}

// differ adds now-then to sum; a counter that fell began anew.
func differ(sum, then, now map[string]float64) {
	for name, v := range now {
		d := v - then[name]
		if d < 0 {
			d = v
		}
		sum[name] += d
	}
}

func addHistogram(sum *lb.Histogram, now, then lb.Histogram) {
	if now.Count < then.Count {
		then = lb.Histogram{}
	}
	if now.Count == then.Count {
		return
	}
	sum.Count += now.Count - then.Count
	sum.Sum += now.Sum - then.Sum
	if sum.Buckets == nil {
		sum.Buckets = map[int]int64{}
	}
	for i, n := range now.Buckets {
		if d := n - then.Buckets[i]; d > 0 {
			sum.Buckets[i] += d
		}
	}
}

// set turns a histogram into statistics; the sum stays exact.
func histogramSet(h lb.Histogram) metricstore.Set {
	var values, counts []float64
	for i, n := range h.Buckets {
		if n > 0 {
			values, counts = append(values, lb.BucketValue(i)), append(counts, float64(n))
		}
	}
	s := metricstore.OfValues(values, counts)
	if s.Count > 0 {
		s.Sum = h.Sum
	}
	return s
}

// tail is what of an ARN CloudWatch uses as a dimension's value:
// "app/name/id", "targetgroup/name/id".
func tail(arn string) string {
	if _, t, ok := strings.Cut(arn, ":loadbalancer/"); ok {
		return t
	}
	if i := strings.LastIndex(arn, ":"); i >= 0 {
		return arn[i+1:]
	}
	return arn
}

func ownerOf(arn string) (o owner, ok bool) {
	p := strings.SplitN(arn, ":", 6)
	if len(p) < 6 {
		return o, false
	}
	return owner{p[4], p[3]}, true
}

func unitOf(name string) string {
	if strings.HasSuffix(name, "Bytes") {
		return "Bytes"
	}
	return "Count"
}

func (c *Collector) reportBalancers(ctx context.Context, at time.Time) error {
	s := c.lb
	if s == nil {
		return nil
	}
	out := batch{}
	for arn, b := range s.balancers {
		o, ok := ownerOf(arn)
		if !ok {
			continue
		}
		dims := map[string]string{"LoadBalancer": tail(arn)}
		for name, v := range b.delta {
			if v != 0 || name == "RequestCount" || name == "ForwardedInvalidHeaderRequestCount" {
				out.add(o, at, name, unitOf(name), v, dims)
			}
		}
		if _, ok := b.delta["RequestCount"]; !ok { // always reported
			out.add(o, at, "RequestCount", "Count", 0, dims)
		}
		if b.active.Max > 0 {
			out[o] = append(out[o], Datum{Name: "ActiveConnectionCount", Unit: "Count", At: at, Dimensions: dims, Set: b.active})
		}
		b.delta, b.active = map[string]float64{}, metricstore.Set{}
	}
	s.reportTargets(out, at)
	for key, t := range s.targets {
		if !t.seen {
			delete(s.targets, key)
		}
		t.delta, t.times = map[string]float64{}, lb.Histogram{}
	}
	return c.put(ctx, "AWS/ApplicationELB", out)
}

// place is a set of dimensions that targets add up under; empty members are
// left out.
type place struct {
	owner                 owner
	balancer, group, zone string
}

func (p place) dimensions() map[string]string {
	d := map[string]string{}
	if p.balancer != "" {
		d["LoadBalancer"] = tail(p.balancer)
	}
	if p.group != "" {
		d["TargetGroup"] = tail(p.group)
	}
	if p.zone != "" {
		d["AvailabilityZone"] = p.zone
	}
	return d
}

// total is what the targets of a place did.
type total struct {
	counts             map[string]float64
	times              metricstore.Set
	healthy, unhealthy float64
	targets            float64
}

func (s *lbState) reportTargets(out batch, at time.Time) {
	totals := map[place]*total{}
	for key, t := range s.targets {
		o, ok := ownerOf(key.group)
		if !ok {
			continue
		}
		times := histogramSet(t.times)
		places := []place{{o, key.balancer, key.group, ""}, {o, key.balancer, "", ""}, {o, "", key.group, ""}}
		if t.zone != "" { // a target outside the zones has none
			places = append(places, place{o, key.balancer, key.group, t.zone}, place{o, key.balancer, "", t.zone})
		}
		for _, p := range places {
			n := totals[p]
			if n == nil {
				n = &total{counts: map[string]float64{}}
				totals[p] = n
			}
			n.take(t, times)
		}
	}
	for p, n := range totals {
		n.report(out, p, at)
	}
}

func (n *total) take(t *targetCounts, times metricstore.Set) {
	for name, v := range t.delta {
		n.counts[name] += v
	}
	n.times.Merge(times)
	if !t.seen {
		return
	}
	n.targets++
	switch t.state {
	case lb.StateHealthy:
		n.healthy++
	case lb.StateUnhealthy:
		n.unhealthy++
	}
}

func (n *total) report(out batch, p place, at time.Time) {
	dims := p.dimensions()
	if p.balancer == "" { // the target group alone: only what scaling asks for
		if n.targets > 0 {
			out.add(p.owner, at, "RequestCountPerTarget", "Count", n.counts["RequestCount"]/n.targets, dims)
		}
		return
	}
	for name, v := range n.counts {
		if p.group == "" && p.zone == "" && name == "RequestCount" {
			continue // the load balancer counts these itself
		}
		if v != 0 {
			out.add(p.owner, at, name, unitOf(name), v, dims)
		}
	}
	if n.times.Count > 0 {
		out[p.owner] = append(out[p.owner], Datum{Name: "TargetResponseTime", Unit: "Seconds", At: at, Dimensions: dims, Set: n.times})
	}
	if p.group == "" {
		return
	}
	if n.targets > 0 {
		out.add(p.owner, at, "HealthyHostCount", "Count", n.healthy, dims)
		out.add(p.owner, at, "UnHealthyHostCount", "Count", n.unhealthy, dims)
		if p.zone == "" {
			out.add(p.owner, at, "RequestCountPerTarget", "Count", n.counts["RequestCount"]/n.targets, dims)
		}
	}
}
