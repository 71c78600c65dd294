package collect

import (
	"context"
	"slices"
	"strings"
	"time"

	"slipway/internal/lb"
	"slipway/internal/services/cloudwatch/metricstore"
)

// lbState is the counters as of the reading before, and what came since the
// minute began.
type lbState struct {
	started   time.Time
	balancers map[balancerKey]*lbCounts
	targets   map[targetKey]*targetCounts
	hosts     map[place]*hostCounts
}

// The keys hold the serial numbers: something new under an old name counts
// from zero.
type balancerKey struct {
	arn    string
	serial int64
}

type targetKey struct {
	balancer, group, id string
	port                int
	serial              int64
}

type lbCounts struct {
	last   map[string]float64
	delta  map[string]float64
	paid   float64 // rule evaluations that are not free, as of the reading before
	paying float64 // and since the minute began
	active float64 // most connections open at once
	seen   bool
	gone   bool // from the configuration
}

type targetCounts struct {
	zone     string
	last     map[string]float64
	delta    map[string]float64
	lastTime lb.Histogram
	times    lb.Histogram
	seen     bool
}

// hostCounts are how many targets of a place were healthy at each reading of
// the minute.
type hostCounts struct {
	healthy, unhealthy           metricstore.Set
	healthyZones, unhealthyZones metricstore.Set
	last                         hosts // as of the newest reading
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
		c.lb = &lbState{started: m.Started, balancers: map[balancerKey]*lbCounts{}, targets: map[targetKey]*targetCounts{}, hosts: map[place]*hostCounts{}}
	}
	s := c.lb
	// A new process counts from zero: so does whatever is first seen, except
	// in the first reading of all.
	if !m.Started.Equal(s.started) {
		s.started = m.Started
		for _, b := range s.balancers {
			b.last, b.paid = nil, 0
		}
		for _, t := range s.targets {
			t.last, t.lastTime = nil, lb.Histogram{}
		}
	}
	for _, b := range s.balancers {
		b.seen = false
	}
	for _, b := range m.LoadBalancers {
		key := balancerKey{b.ARN, b.Serial}
		n := s.balancers[key]
		if n == nil {
			n = &lbCounts{delta: map[string]float64{}}
			if s.balancers[key] = n; first {
				n.last, n.paid = b.Counters, b.PaidRules
			}
		}
		n.seen, n.gone = true, b.Gone
		differ(n.delta, n.last, b.Counters)
		n.paying += b.PaidRules - n.paid
		n.last, n.paid = b.Counters, b.PaidRules
		n.active = max(n.active, float64(b.ActiveConnections))
	}
	s.sampleTargets(m, first)
	s.sampleHosts(m)
	return nil
}

func (s *lbState) sampleTargets(m lb.Metrics, first bool) {
	for _, t := range s.targets {
		t.seen = false
	}
	for i := range m.Targets {
		t := &m.Targets[i]
		key := targetKey{t.LoadBalancer, t.TargetGroup, t.ID, t.Port, t.Serial}
		n := s.targets[key]
		if n == nil {
			n = &targetCounts{delta: map[string]float64{}}
			if s.targets[key] = n; first {
				n.last, n.lastTime = t.Counters, t.ResponseTime
			}
		}
		n.zone, n.seen = t.Zone, true
		differ(n.delta, n.last, t.Counters)
		addHistogram(&n.times, t.ResponseTime, n.lastTime)
		n.last, n.lastTime = t.Counters, t.ResponseTime
	}
}

// hosts is how many targets of a place are registered, and how they are.
type hosts struct {
	registered, healthy, unhealthy float64
	zones                          map[string]bool
	open                           bool
}

// count counts the registered targets of the groups in use.
func count(m lb.Metrics) map[place]*hosts {
	out := map[place]*hosts{}
	for i := range m.Targets {
		t := &m.Targets[i]
		o, ok := ownerOf(t.TargetGroup)
		if !ok || t.LoadBalancer == "" || t.State == lb.StateDraining || t.State == lb.StateUnused {
			continue
		}
		places := []place{{o, t.LoadBalancer, t.TargetGroup, ""}}
		if t.Zone != "" {
			places = append(places, place{o, t.LoadBalancer, t.TargetGroup, t.Zone})
		}
		for _, p := range places {
			h := out[p]
			if h == nil {
				h = &hosts{zones: map[string]bool{}}
				out[p] = h
			}
			h.registered++
			h.zones[t.Zone] = true
			h.open = h.open || t.FailOpen
			switch t.State {
			case lb.StateHealthy:
				h.healthy++
			case lb.StateUnhealthy:
				h.unhealthy++
			}
		}
	}
	return out
}

func (s *lbState) sampleHosts(m lb.Metrics) {
	for p, h := range count(m) {
		n := s.hosts[p]
		if n == nil {
			n = &hostCounts{}
			s.hosts[p] = n
		}
		n.last = *h
		n.healthy.Merge(metricstore.Of(h.healthy, 1))
		n.unhealthy.Merge(metricstore.Of(h.unhealthy, 1))
		// All zones route alike: targets take requests across zones.
		up, down := float64(len(h.zones)), 0.0
		if h.open {
			up, down = down, up
		}
		n.healthyZones.Merge(metricstore.Of(up, 1))
		n.unhealthyZones.Merge(metricstore.Of(down, 1))
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

// always are the metrics of a load balancer that are reported when they are
// nought as well (ALB user guide, "CloudWatch metrics").
var always = []string{"RequestCount", "ForwardedInvalidHeaderRequestCount"}

func (c *Collector) reportBalancers(ctx context.Context, at time.Time) error {
	s := c.lb
	if s == nil {
		return nil
	}
	out := batch{}
	for key, b := range s.balancers {
		o, ok := ownerOf(key.arn)
		if !ok {
			continue
		}
		dims := map[string]string{"LoadBalancer": tail(key.arn)}
		if !b.gone {
			for _, name := range always {
				b.delta[name] += 0
			}
			out.add(o, at, "ConsumedLCUs", "Count", b.capacity()/60, dims)
		}
		for name, v := range b.delta {
			if v != 0 || !b.gone && slices.Contains(always, name) {
				out.add(o, at, name, unitOf(name), v, dims)
			}
		}
		if b.active > 0 {
			out.add(o, at, "ActiveConnectionCount", "Count", b.active, dims)
		}
		if b.delta, b.active, b.paying = map[string]float64{}, 0, 0; !b.seen {
			delete(s.balancers, key)
		}
	}
	s.reportTargets(out, at)
	for key, t := range s.targets {
		if t.delta, t.times = map[string]float64{}, (lb.Histogram{}); !t.seen {
			delete(s.targets, key)
		}
	}
	s.hosts = map[place]*hostCounts{}
	return c.put(ctx, "AWS/ApplicationELB", out)
}

// What one load balancer capacity unit holds (Elastic Load Balancing pricing,
// "LCU details").
const (
	lcuConnections = 25   // new ones per second
	lcuActive      = 3000 // in a minute
	lcuBytes       = 1e9  // per hour
	lcuRules       = 1000 // evaluations per second beyond the free ones
)

// capacity is the minute's load in capacity units: the most of the four. Its
// sixtieth is reported, so that an hour's Sum is what the hour is billed.
func (b *lbCounts) capacity() float64 {
	return max(b.delta["NewConnectionCount"]/60/lcuConnections, b.active/lcuActive, b.delta["ProcessedBytes"]*60/lcuBytes, b.paying/60/lcuRules)
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
	counts map[string]float64
	times  metricstore.Set
}

func (s *lbState) reportTargets(out batch, at time.Time) {
	totals := map[place]*total{}
	for key, t := range s.targets {
		o, ok := ownerOf(key.group)
		if !ok || key.balancer == "" {
			continue // a group that no rule names
		}
		times := histogramSet(t.times)
		for _, zone := range []string{"", t.zone} {
			for _, group := range []string{"", key.group} {
				p := place{o, key.balancer, group, zone}
				n := totals[p]
				if n == nil {
					n = &total{counts: map[string]float64{}}
					totals[p] = n
				}
				for name, v := range t.delta {
					n.counts[name] += v
				}
				n.times.Merge(times)
			}
			if t.zone == "" { // a target outside the zones has none
				break
			}
		}
	}
	for p, n := range totals {
		n.report(out, p, at)
	}
	for p, h := range s.hosts {
		h.report(out, p, at, totals[p])
	}
}

func (n *total) report(out batch, p place, at time.Time) {
	dims := p.dimensions()
	for name, v := range n.counts {
		if p.group == "" && p.zone == "" && name == "RequestCount" {
			continue // the load balancer counts these itself
		}
		if p.group == "" && name == "UnhealthyRoutingRequestCount" {
			continue // a group's health alone
		}
		if v != 0 {
			out.add(p.owner, at, name, unitOf(name), v, dims)
		}
	}
	if n.times.Count > 0 {
		out[p.owner] = append(out[p.owner], Datum{Name: "TargetResponseTime", Unit: "Seconds", At: at, Dimensions: dims, Set: n.times})
	}
}

// report reports a place of a target group; did is what its targets did.
func (h *hostCounts) report(out batch, p place, at time.Time, did *total) {
	dims := p.dimensions()
	for name, set := range map[string]metricstore.Set{
		"HealthyHostCount": h.healthy, "UnHealthyHostCount": h.unhealthy, "HealthyStateRouting": h.healthyZones, "UnhealthyStateRouting": h.unhealthyZones,
	} {
		out[p.owner] = append(out[p.owner], Datum{Name: name, Unit: "Count", At: at, Dimensions: dims, Set: set})
	}
	requests := 0.0
	if did != nil {
		requests = did.counts["RequestCount"]
	}
	// Per healthy target, or per registered one where none is healthy; it also
	// exists without the load balancer, for scaling policies.
	among := h.last.healthy
	if among == 0 {
		among = h.last.registered
	}
	alone := place{owner: p.owner, group: p.group, zone: p.zone}
	out.add(p.owner, at, "RequestCountPerTarget", "Count", requests/among, dims, alone.dimensions())
}
