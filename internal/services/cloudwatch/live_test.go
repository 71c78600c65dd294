package cloudwatch

import (
	"context"
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/lb"
)

const (
	arnBase  = "arn:aws:elasticloadbalancing:us-east-1:123456789012:"
	mainLB   = arnBase + "loadbalancer/app/main/0000000000000001"
	edgeLB   = arnBase + "loadbalancer/app/edge/0000000000000002"
	elbSpace = "AWS/ApplicationELB"
)

func groupARN(name string) string { return arnBase + "targetgroup/" + name + "/00000000000000aa" }

// expected are the sums of metrics by name and dimensions.
type expected map[string]float64

func metricKey(name string, dims map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(dims)) {
		parts = append(parts, k+"="+dims[k])
	}
	return name + " " + strings.Join(parts, " ")
}

func (e expected) add(v float64, name, balancer, group, zone string) {
	dims := map[string]string{}
	if balancer != "" {
		dims["LoadBalancer"] = strings.TrimPrefix(balancer, arnBase+"loadbalancer/")
	}
	if group != "" {
		dims["TargetGroup"] = strings.TrimPrefix(groupARN(group), arnBase)
	}
	if zone != "" {
		dims["AvailabilityZone"] = zone
	}
	if v != 0 {
		e[metricKey(name, dims)] += v
	}
}

// everywhere adds a target's count to all dimensions that such counts have.
func (e expected) everywhere(v float64, name, balancer, group, zone string) {
	for _, g := range []string{"", group} {
		for _, z := range []string{"", zone} {
			e.add(v, name, balancer, g, z)
		}
	}
}

// target adds what a backend counted itself.
func (e expected) target(b *backend, balancer, group string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.requests(float64(b.asked), balancer, group, b.zone)
	for digit, n := range b.codes {
		e.everywhere(float64(n), fmt.Sprintf("HTTPCode_Target_%dXX_Count", digit), balancer, group, b.zone)
	}
}

func (e expected) requests(n float64, balancer, group, zone string) {
	e.everywhere(n, "RequestCount", balancer, group, zone)
}

// perTarget adds RequestCountPerTarget.
func (e expected) perTarget(v float64, balancer, group, zone string) {
	e.add(v, "RequestCountPerTarget", balancer, group, zone)
	e.add(v, "RequestCountPerTarget", "", group, zone)
}

// statistics are those of a metric over all that was measured.
func (w *world) statistics(from time.Time, m api.Metric, extended ...string) *api.Datapoint {
	w.Helper()
	out := call(w, api.OpGetMetricStatistics, &api.GetMetricStatisticsInput{
		Namespace: new(elbSpace), MetricName: m.MetricName, Dimensions: m.Dimensions, StartTime: &from, EndTime: new(from.Add(24 * time.Hour)), Period: new(int64(86400)),
		Statistics: []string{"Sum", "Average", "SampleCount", "Minimum", "Maximum"}, ExtendedStatistics: extended,
	})
	if len(out.Datapoints) != 1 {
		w.Fatalf("%s: %d points in a day", *m.MetricName, len(out.Datapoints))
	}
	return &out.Datapoints[0]
}

func forwardTo(groups ...string) []lb.Action {
	f := &lb.Forward{}
	for _, g := range groups {
		f.TargetGroups = append(f.TargetGroups, lb.WeightedGroup{ARN: groupARN(g), Weight: 1})
	}
	return []lb.Action{{Type: "forward", Forward: f}}
}

// TestBalancerMetricsAreTheTraffic sends counted traffic of every kind through
// a load balancer process and compares each metric of AWS/ApplicationELB with
// what was sent and what the targets saw.
func TestBalancerMetricsAreTheTraffic(t *testing.T) {
	ips := map[string]string{"a": "127.80.1.1", "b": "127.80.1.2", "dead": "127.80.1.3", "sick": "127.80.1.4", "plain": "127.80.1.5", "slow": "127.80.1.6", "sticky1": "127.80.1.7", "sticky2": "127.80.1.8"}
	s := newSite(t, slices.Sorted(maps.Values(ips))...)
	targets, backends := map[string]lb.Target{}, map[string]*backend{}
	for name, ip := range ips {
		zone := "us-east-1a"
		if name == "b" || name == "sticky2" {
			zone = "us-east-1b"
		}
		backends[name], targets[name] = s.serve(ip, zone, name != "sick", name != "dead")
	}
	group := func(name, protocol string, attributes map[string]string, members ...string) lb.TargetGroup {
		g := lb.TargetGroup{ARN: groupARN(name), Name: name, Protocol: protocol, Attributes: attributes,
			HealthCheck: lb.HealthCheck{Protocol: "HTTP", Port: fmt.Sprint(s.look), IntervalSeconds: 5, TimeoutSeconds: 4}}
		for _, m := range members {
			g.Targets = append(g.Targets, targets[m])
		}
		return g
	}
	rule := func(priority int, path string, actions []lb.Action) lb.Rule {
		return lb.Rule{ARN: fmt.Sprint("rule-", priority), Priority: priority, Conditions: []lb.Condition{{Field: "path-pattern", Values: []string{path}}}, Actions: actions}
	}
	free := newSite(t, "127.80.1.9", "127.80.1.10")
	address := func(ip string, port int) string {
		a := fmt.Sprintf("%s:%d", ip, port)
		free.listeners[a].Close()
		return a
	}
	mainAddr, edgeAddr, tlsAddr := address("127.80.1.9", free.traffic), address("127.80.1.10", free.traffic), address("127.80.1.10", free.look)
	free.listeners[fmt.Sprintf("127.80.1.9:%d", free.look)].Close()
	chain, key := selfSigned(t)

	rules := []lb.Rule{
		rule(1, "/redirect", []lb.Action{{Type: "redirect", Redirect: &lb.Redirect{StatusCode: "HTTP_301", Path: "/elsewhere"}}}),
		rule(2, "/fixed", []lb.Action{{Type: "fixed-response", FixedResponse: &lb.FixedResponse{StatusCode: 404, ContentType: "text/plain", Body: "not here"}}}),
		rule(3, "/dead", forwardTo("dead")), rule(4, "/empty", forwardTo("empty")), rule(5, "/sick", forwardTo("sick")), rule(6, "/plain", forwardTo("plain")),
	}
	const rest = 13 // rules before the default one
	for i := 7; i <= rest; i++ {
		rules = append(rules, rule(i, fmt.Sprintf("/nothing/%d", i), forwardTo("main")))
	}
	snapshot := lb.Snapshot{Version: 1,
		LoadBalancers: []lb.LoadBalancer{
			{ARN: mainLB, Name: "main", Attributes: map[string]string{}, Listeners: []lb.Listener{{ARN: "main:80", Protocol: "HTTP", Address: mainAddr, Port: 80, DefaultActions: forwardTo("main"), Rules: rules}}},
			{ARN: edgeLB, Name: "edge", Attributes: map[string]string{"idle_timeout.timeout_seconds": "1", "routing.http.drop_invalid_header_fields.enabled": "true"}, Listeners: []lb.Listener{
				{ARN: "edge:80", Protocol: "HTTP", Address: edgeAddr, Port: 80, DefaultActions: forwardTo("sticky"), Rules: []lb.Rule{rule(1, "/hang", forwardTo("slow"))}},
				{ARN: "edge:443", Protocol: "HTTPS", Address: tlsAddr, Port: 443, DefaultActions: forwardTo("sticky"), Certificates: []lb.Certificate{{ARN: "cert", ChainPEM: chain, KeyPEM: key, Default: true}}},
			}},
		},
		TargetGroups: []lb.TargetGroup{
			group("main", "HTTP", nil, "a", "b"), group("dead", "HTTP", nil, "dead"), group("empty", "HTTP", nil), group("sick", "HTTP", nil, "sick"), group("plain", "HTTPS", nil, "plain"),
			group("slow", "HTTP", nil, "slow"), group("sticky", "HTTP", map[string]string{"stickiness.enabled": "true", "stickiness.type": "lb_cookie"}, "sticky1", "sticky2"),
		}}
	client := balancerProcess(t, 60)
	if out, err := client.Apply(context.Background(), snapshot); err != nil || len(out.ListenerErrors) > 0 {
		t.Fatal(err, out.ListenerErrors)
	}
	w := newUnopened(t, 60)
	w.balancers = client
	w.until("the health of all is known", func() bool {
		hs, err := client.Health(context.Background())
		good, bad := 0, 0
		for _, h := range hs {
			switch h.State {
			case lb.StateHealthy:
				good++
			case lb.StateUnhealthy:
				bad++
			}
		}
		return err == nil && good == 7 && bad == 1
	})
	from := w.clock.Now().Truncate(time.Minute)
	w.open()
	lcus := api.Metric{MetricName: new("ConsumedLCUs"), Dimensions: []api.Dimension{{Name: new("LoadBalancer"), Value: new("app/main/0000000000000001")}}}
	w.until("the counters have been read", func() bool { return len(w.elbMetrics("ConsumedLCUs")) == 2 })

	// The traffic.
	c, edge := &traffic{t: t, addr: mainAddr}, &traffic{t: t, addr: edgeAddr}
	e := expected{}
	passed := 0 // requests that met the default rule
	pass := func(n int, method, path string, body, want int, change ...func(*http.Request)) {
		t.Helper()
		c.ask(n, method, path, body, want, change...)
		passed += n
	}
	pass(30, "GET", "/code/200", 0, 200)
	pass(7, "GET", "/code/404", 0, 404)
	pass(5, "GET", "/code/500", 0, 500)
	pass(3, "GET", "/code/302", 0, 302)
	pass(4, "POST", "/code/200", 100_000, 200)
	pass(8, "GET", "/wait/40", 0, 200)
	pass(2, "GET", "/code/200", 0, 200, func(q *http.Request) { q.Header["with_underscore"] = []string{"1"} })
	e.add(2, "ForwardedInvalidHeaderRequestCount", mainLB, "", "")
	plainTook := c.took
	c.ask(4, "GET", "/redirect", 0, 301)
	e.add(4, "HTTP_Redirect_Count", mainLB, "", "")
	e.add(4, "HTTPCode_ELB_3XX_Count", mainLB, "", "")
	c.ask(1, "GET", "/redirect?"+strings.Repeat("q", 9000), 0, 500)
	e.add(1, "HTTP_Redirect_Url_Limit_Exceeded_Count", mainLB, "", "")
	e.add(1, "HTTPCode_ELB_500_Count", mainLB, "", "")
	c.ask(6, "GET", "/fixed", 0, 404)
	e.add(6, "HTTP_Fixed_Response_Count", mainLB, "", "")
	c.ask(3, "GET", "/dead", 0, 502)
	e.requests(3, mainLB, "dead", "us-east-1a")
	e.everywhere(3, "TargetConnectionErrorCount", mainLB, "dead", "us-east-1a")
	c.ask(2, "GET", "/plain", 0, 502)
	e.requests(2, mainLB, "plain", "us-east-1a")
	e.everywhere(2, "TargetTLSNegotiationErrorCount", mainLB, "plain", "us-east-1a")
	e.add(3+2, "HTTPCode_ELB_502_Count", mainLB, "", "")
	c.ask(5, "GET", "/empty", 0, 503)
	e.add(5, "HTTPCode_ELB_503_Count", mainLB, "", "")
	c.ask(4, "GET", "/sick", 0, 200)
	e.add(4, "UnhealthyRoutingRequestCount", mainLB, "sick", "")
	e.add(4, "UnhealthyRoutingRequestCount", mainLB, "sick", "us-east-1a")
	if st := c.raw("GET / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"); st != 400 {
		t.Errorf("a severe request gets %d", st)
	}
	if st := c.raw("GET /code/200 HTTP/1.1\r\nHost: site.test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"); st != 200 {
		t.Errorf("an acceptable request gets %d", st)
	}
	passed++
	e.add(2, "DesyncMitigationMode_NonCompliant_Request_Count", mainLB, "", "")
	for range 2 { // clients that leave
		nc := c.dial()
		fmt.Fprintf(nc, "GET /hang HTTP/1.1\r\nHost: site.test\r\n\r\n")
		select {
		case <-backends["a"].hanging:
		case <-backends["b"].hanging:
		case <-time.After(20 * time.Second):
			t.Fatal("no target sees the request")
		}
		nc.Close()
		passed++
	}
	e.add(6+1+2, "HTTPCode_ELB_4XX_Count", mainLB, "", "") // 404, 400, 460
	e.add(1+3+2+5, "HTTPCode_ELB_5XX_Count", mainLB, "", "")
	rulesMet := 5*1 + 6*2 + 3*3 + 5*4 + 4*5 + 2*6

	first := edge.ask(1, "GET", "/", 0, 200)
	edge.ask(3, "GET", "/", 0, 200, func(q *http.Request) { q.AddCookie(&http.Cookie{Name: "AWSALB", Value: first.Cookies()[0].Value}) })
	edge.ask(1, "GET", "/", 0, 200, func(q *http.Request) { q.AddCookie(&http.Cookie{Name: "AWSALB", Value: "forged"}) })
	e.add(2, "NonStickyRequestCount", edgeLB, "", "")
	edge.ask(2, "GET", "/hang", 0, 504)
	e.add(2, "HTTPCode_ELB_504_Count", edgeLB, "", "")
	e.add(2, "HTTPCode_ELB_5XX_Count", edgeLB, "", "")
	edge.ask(3, "GET", "/", 0, 200, func(q *http.Request) { q.Header["with_underscore"] = []string{"1"} })
	e.add(3, "DroppedInvalidHeaderRequestCount", edgeLB, "", "")
	e.add(3, "NonStickyRequestCount", edgeLB, "", "")
	garbage := &traffic{t: t, addr: tlsAddr}
	garbage.raw("GET / HTTP/1.0\r\n\r\n")
	e.add(1, "ClientTLSNegotiationErrorCount", edgeLB, "", "")
	e.add(7, "RuleEvaluations", edgeLB, "", "") // all but those of /hang pass by one rule
	e.add(2, "RuleEvaluations", edgeLB, "", "")
	e.add(1, "RuleEvaluations", edgeLB, "", "")

	// Twenty connections at once, to see how many are open.
	const held = 20
	client20 := c.client(true)
	var wg sync.WaitGroup
	for range held {
		wg.Go(func() {
			res, err := client20.Get("http://site.test/hold")
			if err != nil || res.StatusCode != 200 {
				t.Error(res, err)
				return
			}
			res.Body.Close()
		})
	}
	passed += held
	a, b := backends["a"], backends["b"]
	w.until("all have arrived", func() bool { return a.arrived.Load()+b.arrived.Load() == held })
	open := func() float64 {
		n := c.open.Load()
		for _, name := range []string{"a", "b", "sick", "plain"} {
			n += backends[name].open.Load()
		}
		return float64(n)
	}
	w.until("only they are open", func() bool { return c.open.Load() == held })
	atOnce := open()
	w.until("that is measured", func() bool {
		for _, m := range w.elbMetrics("ActiveConnectionCount") {
			if *m.Dimensions[0].Value == "app/main/0000000000000001" && *w.statistics(from, m).Maximum >= atOnce {
				return true
			}
		}
		return false
	})
	close(a.release)
	close(b.release)
	wg.Wait()
	client20.CloseIdleConnections()

	// What must be measured of it.
	for _, name := range []string{"a", "b"} {
		e.target(backends[name], mainLB, "main")
		e.perTarget(float64(backends[name].asked), mainLB, "main", backends[name].zone)
	}
	e.perTarget(float64(passed)/2, mainLB, "main", "")
	for name, n := range map[string]float64{"dead": 3, "plain": 2, "sick": 4} {
		e.perTarget(n, mainLB, name, "")
		e.perTarget(n, mainLB, name, "us-east-1a")
	}
	e.target(backends["sick"], mainLB, "sick")
	for _, name := range []string{"sticky1", "sticky2"} {
		e.target(backends[name], edgeLB, "sticky")
		e.perTarget(float64(backends[name].asked), edgeLB, "sticky", backends[name].zone)
	}
	e.perTarget(4, edgeLB, "sticky", "")
	e.target(backends["slow"], edgeLB, "slow")
	e.perTarget(2, edgeLB, "slow", "")
	e.perTarget(2, edgeLB, "slow", "us-east-1a")
	e.add(float64(rulesMet+passed*rest), "RuleEvaluations", mainLB, "", "")
	dialled := c.dials.Load()
	for _, name := range []string{"a", "b", "sick"} {
		dialled += backends[name].accepted.Load()
	}
	e.add(float64(dialled), "NewConnectionCount", mainLB, "", "")
	edgeDialled := edge.dials.Load() + garbage.dials.Load()
	for _, name := range []string{"sticky1", "sticky2", "slow"} {
		edgeDialled += backends[name].accepted.Load()
	}
	e.add(float64(edgeDialled), "NewConnectionCount", edgeLB, "", "")
	e.add(float64(c.sent.Load()+c.got.Load()), "ProcessedBytes", mainLB, "", "")
	e.add(float64(edge.sent.Load()+edge.got.Load()), "ProcessedBytes", edgeLB, "", "")

	w.compare(from, e)

	// Those that are no sums.
	answered := 0
	for _, name := range []string{"a", "b", "sick", "sticky1", "sticky2"} {
		for _, n := range backends[name].codes {
			answered += n
		}
	}
	var shown []string
	for _, m := range w.elbMetrics("") {
		d := w.statistics(from, m, "p10", "p50", "p90", "p99")
		dims := map[string]string{}
		for _, x := range m.Dimensions {
			dims[*x.Name] = *x.Value
		}
		key := metricKey(*m.MetricName, dims)
		isMain := strings.HasSuffix(dims["TargetGroup"], "main/00000000000000aa")
		sick := strings.Contains(dims["TargetGroup"], "/sick/")
		flat := func(want float64) {
			if *d.Average != want || *d.Minimum != want || *d.Maximum != want {
				t.Errorf("%s: %v from %v to %v, want %v", key, *d.Average, *d.Minimum, *d.Maximum, want)
			}
		}
		switch *m.MetricName {
		case "HealthyHostCount", "HealthyStateRouting":
			want := 1.0
			switch {
			case sick:
				want = 0
			case dims["AvailabilityZone"] == "" && (isMain || strings.Contains(dims["TargetGroup"], "/sticky/")):
				want = 2
			}
			flat(want)
		case "UnHealthyHostCount", "UnhealthyStateRouting":
			want := 0.0
			if sick {
				want = 1
			}
			flat(want)
		case "ActiveConnectionCount":
			if dims["LoadBalancer"] == "app/main/0000000000000001" && *d.Maximum != atOnce {
				t.Errorf("%s: %v at once, %v were open", key, *d.Maximum, atOnce)
			}
		case "TargetResponseTime":
			if len(dims) != 2 || !isMain {
				continue
			}
			// What the targets measured is less, what the client did is more.
			lowest := append(slices.Clone(a.took), b.took...)
			highest := slices.Clone(plainTook)
			if n := float64(len(lowest)); *d.SampleCount != n {
				t.Errorf("%s: %v samples, %v answers", key, *d.SampleCount, n)
			}
			slices.Sort(lowest)
			for p, q := range map[string]float64{"p10": .1, "p50": .5, "p90": .9, "p99": .99} {
				at := lowest[max(int(math.Ceil(q*float64(len(lowest))))-1, 0)].Seconds()
				if d.ExtendedStatistics[p] < at*0.985 {
					t.Errorf("%s: %s is %v, the targets took %v", key, p, d.ExtendedStatistics[p], at)
				}
			}
			if slices.Sort(highest); d.ExtendedStatistics["p10"] > highest[len(highest)-1].Seconds()*1.015 {
				t.Errorf("%s: p10 is %v, the longest was %v", key, d.ExtendedStatistics["p10"], highest[len(highest)-1])
			}
			if *d.Unit != "Seconds" {
				t.Errorf("%s in %s", key, *d.Unit)
			}
		case "ConsumedLCUs":
		default:
			continue
		}
		shown = append(shown, fmt.Sprintf("%s: avg %.4g max %.4g sum %.4g", key, *d.Average, *d.Maximum, *d.Sum))
	}
	slices.Sort(shown)
	t.Logf("%d sums are right; %d answers of targets; beside them\n%s", len(e), answered, strings.Join(shown, "\n"))
	w.checkCapacity(from, lcus, float64(passed*(rest-10)))
}

// elbMetrics lists the metrics with a name; "" are all.
func (w *world) elbMetrics(name string) []api.Metric {
	w.Helper()
	in := &api.ListMetricsInput{Namespace: new(elbSpace)}
	if name != "" {
		in.MetricName = &name
	}
	return call(w, api.OpListMetrics, in).Metrics
}

// noSums are checked by themselves.
var noSums = []string{"HealthyHostCount", "UnHealthyHostCount", "HealthyStateRouting", "UnhealthyStateRouting", "ActiveConnectionCount", "TargetResponseTime", "ConsumedLCUs"}

// compare waits until every metric that exists has the expected sum and every
// expected one exists.
func (w *world) compare(from time.Time, want expected) {
	w.Helper()
	var wrong []string
	defer func() {
		for _, line := range wrong {
			w.Error(line)
		}
	}()
	w.until("each metric has its sum", func() bool {
		wrong = nil
		seen := map[string]bool{}
		for _, m := range w.elbMetrics("") {
			dims := map[string]string{}
			for _, x := range m.Dimensions {
				dims[*x.Name] = *x.Value
			}
			key := metricKey(*m.MetricName, dims)
			if slices.Contains(noSums, *m.MetricName) {
				continue
			}
			seen[key] = true
			if sum := *w.statistics(from, m).Sum; math.Abs(sum-want[key]) > 1e-6 {
				wrong = append(wrong, fmt.Sprintf("%s: %v, want %v", key, sum, want[key]))
			}
		}
		for key, v := range want {
			if !seen[key] {
				wrong = append(wrong, fmt.Sprintf("%s is missing, want %v", key, v))
			}
		}
		slices.Sort(wrong)
		return len(wrong) == 0
	})
}

// checkCapacity computes ConsumedLCUs from the metrics that it is made of.
func (w *world) checkCapacity(from time.Time, m api.Metric, paid float64) {
	w.Helper()
	minutes := func(name string) map[time.Time]float64 {
		out := map[time.Time]float64{}
		res := call(w, api.OpGetMetricStatistics, &api.GetMetricStatisticsInput{Namespace: new(elbSpace), MetricName: &name, Dimensions: m.Dimensions,
			StartTime: &from, EndTime: new(from.Add(20 * time.Hour)), Period: new(int64(60)), Statistics: []string{"Sum"}})
		for _, d := range res.Datapoints {
			out[*d.Timestamp] = *d.Sum
		}
		return out
	}
	fresh, active, bytes, consumed := minutes("NewConnectionCount"), minutes("ActiveConnectionCount"), minutes("ProcessedBytes"), minutes("ConsumedLCUs")
	least, got := 0.0, 0.0
	for at, v := range consumed {
		least += max(fresh[at]/60/25, active[at]/3000, bytes[at]*60/1e9) / 60
		got += v
	}
	if got == 0 || got < least-1e-12 || got > least+paid/60/1000/60 {
		w.Errorf("ConsumedLCUs are %v, want %v and at most %v more for rules", got, least, paid/60/1000/60)
	}
}
