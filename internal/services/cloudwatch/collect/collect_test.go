package collect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/api/codebuild"
	"slipway/internal/clock"
	"slipway/internal/lb"
	"slipway/internal/machine"
	"slipway/internal/store"
)

const (
	account = "123456789012"
	region  = "us-east-1"
	lbARN   = "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/web/50dc6c495c0c9188"
	tgARN   = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/73e2d6bc24d8a067"
)

// world holds what is measured; the methods stand for the machines and the
// load balancer process.
type world struct {
	clock clock.Clock
	store store.Store
	c     *Collector

	mu    sync.Mutex
	stats map[string]machine.Stats
	lb    lb.Metrics
	data  map[string][]Datum // by namespace
}

func (w *world) Stats(id string) (machine.Stats, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.stats[id]
	if !ok {
		return s, machine.ErrNotRunning
	}
	return s, nil
}

func (w *world) Status(string) (machine.Status, error) {
	return machine.Status{Spec: machine.Spec{VCPUs: 1}}, nil
}

func (w *world) Metrics(context.Context) (lb.Metrics, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lb, nil
}

func newWorld(t *testing.T, rate float64) *world {
	w := &world{clock: clock.Scaled(rate, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)), stats: map[string]machine.Stats{}, data: map[string][]Datum{}}
	st, err := store.Open(context.Background(), store.Options{Dir: t.TempDir(), Clock: w.clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w.store = st
	w.c = New(Deps{Store: st, Clock: w.clock, Log: slog.New(slog.DiscardHandler), Machines: w, Balancers: w, Put: func(_ context.Context, a, r, ns string, data []Datum) error {
		if a != account || r != region {
			return fmt.Errorf("put for %s in %s", a, r)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.data[ns] = append(w.data[ns], data...)
		return nil
	}})
	return w
}

func (w *world) row(t *testing.T, kind, id, parent, state string, doc any) {
	t.Helper()
	table := store.NewTable(kind, func(*any) (string, string) { return parent, state })
	err := w.store.Update(context.Background(), func(tx store.Tx) error {
		row, err := table.Get(tx, account, region, id)
		if errors.Is(err, store.ErrNotFound) {
			_, err = table.Insert(tx, account, region, id, doc, state, nil)
			return err
		}
		if err != nil {
			return err
		}
		row.Doc = doc
		return table.Save(tx, row, state, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// value sums what was put under a name and exactly these dimensions ("k=v").
func (w *world) value(ns, name string, dims ...string) (sum float64, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range w.data[ns] {
		var have []string
		for _, k := range slices.Sorted(maps.Keys(d.Dimensions)) {
			have = append(have, k+"="+d.Dimensions[k])
		}
		if d.Name == name && slices.Equal(have, dims) {
			n++
			if sum += d.Value; d.Set.Count > 0 {
				sum += d.Set.Sum
			}
		}
	}
	return sum, n
}

func TestInstances(t *testing.T) {
	w := newWorld(t, 1)
	ctx := context.Background()
	w.row(t, "ec2:instance", "i-1", "r-1", "running", map[string]any{"ID": "i-1", "Type": "t3.micro", "Image": "ami-1"})
	w.row(t, "ec2:instance", "i-2", "r-1", "running", map[string]any{"ID": "i-2", "Type": "t3.micro", "Image": "ami-1"})
	w.row(t, "ec2:instance", "i-3", "r-1", "stopped", map[string]any{"ID": "i-3", "Type": "t3.micro", "Image": "ami-1"})
	w.row(t, "autoscaling:instance", "i-1", "web", "InService", map[string]any{})
	at := w.clock.Now()
	w.stats["i-1"] = machine.Stats{At: at, CPUNanos: 1e9, NetRxBytes: 1000}
	if err := w.c.sampleInstances(ctx); err != nil {
		t.Fatal(err)
	}
	// Ten seconds later: four of processor time; then it is started anew and
	// uses one more second in the next ten.
	w.stats["i-1"] = machine.Stats{At: at.Add(10 * time.Second), CPUNanos: 5e9, NetRxBytes: 4000, DiskWriteOps: 3}
	w.c.sampleInstances(ctx)
	w.stats["i-1"] = machine.Stats{At: at.Add(20 * time.Second), CPUNanos: 1e9, NetRxBytes: 500}
	w.c.sampleInstances(ctx)
	if err := w.c.reportInstances(ctx, at); err != nil {
		t.Fatal(err)
	}
	for _, dims := range [][]string{{"InstanceId=i-1"}, {"AutoScalingGroupName=web"}, {"ImageId=ami-1"}, {"InstanceType=t3.micro"}, {}} {
		if v, n := w.value("AWS/EC2", "CPUUtilization", dims...); n != 1 || math.Abs(v-25) > 1e-9 {
			t.Errorf("%v: CPU %v in %d points, want 25", dims, v, n)
		}
		if v, _ := w.value("AWS/EC2", "NetworkIn", dims...); v != 3500 {
			t.Errorf("%v: %v bytes in", dims, v)
		}
	}
	for id, want := range map[string]float64{"i-1": 0, "i-2": 1} {
		if v, n := w.value("AWS/EC2", "StatusCheckFailed", "InstanceId="+id); n != 1 || v != want {
			t.Errorf("%s: status check %v in %d points", id, v, n)
		}
	}
	if _, n := w.value("AWS/EC2", "StatusCheckFailed", "InstanceId=i-3"); n != 0 {
		t.Error("a stopped instance is reported")
	}
}

func TestCPUIsOfRealTime(t *testing.T) {
	s := &sample{vcpus: 1}
	fast := clock.Scaled(60, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))
	at := fast.Now()
	s.take(machine.Stats{At: at}, fast.Real)
	s.take(machine.Stats{At: at.Add(time.Minute), CPUNanos: 5e8}, fast.Real) // half of the one real second
	if v := s.cpu(); math.Abs(v-50) > 0.1 {
		t.Errorf("%v %%", v)
	}
	s.vcpus = 1e6
	if v := s.cpu(); math.Abs(v-50/float64(runtime.NumCPU())) > 0.1 {
		t.Errorf("%v %% of all processors", v)
	}
}

func TestBalancers(t *testing.T) {
	w := newWorld(t, 1)
	ctx := context.Background()
	started := w.clock.Now()
	target := func(id, zone string, state lb.HealthState, requests float64, times lb.Histogram) lb.TargetMetrics {
		return lb.TargetMetrics{LoadBalancer: lbARN, TargetGroup: tgARN, ID: id, Port: 80, Zone: zone, State: state, ResponseTime: times,
			Counters: map[string]float64{"RequestCount": requests, "HTTPCode_Target_2XX_Count": requests}}
	}
	w.lb = lb.Metrics{Started: started, LoadBalancers: []lb.LBMetrics{{ARN: lbARN, Counters: map[string]float64{"RequestCount": 100, "HTTPCode_ELB_5XX_Count": 7}}},
		Targets: []lb.TargetMetrics{target("i-1", "us-east-1a", lb.StateHealthy, 60, lb.Histogram{Count: 60, Sum: 6, Buckets: map[int]int64{500: 60}})}}
	w.c.sampleBalancers(ctx) // what came before is not counted
	w.lb.LoadBalancers = []lb.LBMetrics{{ARN: lbARN, Counters: map[string]float64{"RequestCount": 130, "HTTPCode_ELB_5XX_Count": 7}, ActiveConnections: 3}}
	w.lb.Targets = []lb.TargetMetrics{
		target("i-1", "us-east-1a", lb.StateHealthy, 80, lb.Histogram{Count: 80, Sum: 9, Buckets: map[int]int64{500: 60, 520: 20}}),
		target("i-2", "us-east-1b", lb.StateUnhealthy, 10, lb.Histogram{}),
	}
	w.c.sampleBalancers(ctx)
	// A new process counts from zero.
	w.lb.Started = started.Add(time.Minute)
	w.lb.LoadBalancers = []lb.LBMetrics{{ARN: lbARN, Counters: map[string]float64{"RequestCount": 5}}}
	w.lb.Targets[0] = target("i-1", "us-east-1a", lb.StateHealthy, 5, lb.Histogram{})
	w.lb.Targets[1] = target("i-2", "us-east-1b", lb.StateUnhealthy, 0, lb.Histogram{})
	w.c.sampleBalancers(ctx)
	if err := w.c.reportBalancers(ctx, started); err != nil {
		t.Fatal(err)
	}
	balancer, group := "LoadBalancer=app/web/50dc6c495c0c9188", "TargetGroup=targetgroup/web/73e2d6bc24d8a067"
	for _, c := range []struct {
		name string
		dims []string
		want float64
		n    int
	}{
		{"RequestCount", []string{balancer}, 35, 1},
		{"HTTPCode_ELB_5XX_Count", []string{balancer}, 0, 0},
		{"ActiveConnectionCount", []string{balancer}, 3, 1},
		{"HTTPCode_Target_2XX_Count", []string{balancer, group}, 35, 1},
		{"HTTPCode_Target_2XX_Count", []string{balancer}, 35, 1},
		{"HTTPCode_Target_2XX_Count", []string{"AvailabilityZone=us-east-1b", balancer, group}, 10, 1},
		{"TargetResponseTime", []string{balancer, group}, 3, 1},
		{"HealthyHostCount", []string{balancer, group}, 3, 1}, // the sum of three readings
		{"UnHealthyHostCount", []string{balancer, group}, 2, 1},
		{"UnHealthyHostCount", []string{"AvailabilityZone=us-east-1a", balancer, group}, 0, 1},
		{"RequestCountPerTarget", []string{balancer, group}, 35, 1}, // one of the two is healthy
		{"RequestCountPerTarget", []string{group}, 35, 1},
		{"RequestCountPerTarget", []string{"AvailabilityZone=us-east-1b", group}, 10, 1},
		{"ForwardedInvalidHeaderRequestCount", []string{balancer}, 0, 1},
		{"ConsumedLCUs", []string{balancer}, 3.0 / 3000 / 60, 1},
	} {
		if v, n := w.value("AWS/ApplicationELB", c.name, c.dims...); n != c.n || math.Abs(v-c.want) > 1e-9 {
			t.Errorf("%s %v: %v in %d points, want %v in %d", c.name, c.dims, v, n, c.want, c.n)
		}
	}
}

func TestGroups(t *testing.T) {
	w := newWorld(t, 1)
	w.row(t, "autoscaling:group", "web", "", "", map[string]any{"Name": "web", "Min": 1, "Max": 5, "Desired": 3, "Metrics": []string{"GroupDesiredCapacity", "GroupInServiceInstances", "GroupTotalInstances"}})
	w.row(t, "autoscaling:group", "quiet", "", "", map[string]any{"Name": "quiet", "Desired": 3})
	for i, s := range []string{"InService", "InService", "Pending:Wait"} {
		w.row(t, "autoscaling:instance", fmt.Sprintf("i-%d", i), "web", s, map[string]any{})
	}
	if err := w.c.reportGroups(context.Background(), w.clock.Now()); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{"GroupDesiredCapacity": 3, "GroupInServiceInstances": 2, "GroupTotalInstances": 3} {
		if v, n := w.value("AWS/AutoScaling", name, "AutoScalingGroupName=web"); n != 1 || v != want {
			t.Errorf("%s: %v in %d points", name, v, n)
		}
	}
	if n := len(w.data["AWS/AutoScaling"]); n != 3 {
		t.Errorf("%d points", n)
	}
}

func TestBuildsCountOnce(t *testing.T) {
	w := newWorld(t, 1)
	start := w.clock.Now()
	end := start.Add(90 * time.Second)
	build := codebuild.Build{ProjectName: new("app"), BuildStatus: new("IN_PROGRESS"), StartTime: &start}
	w.row(t, "codebuild:build", "app:1", "app", "IN_PROGRESS", map[string]any{"API": build})
	build.BuildStatus, build.BuildComplete, build.EndTime = new("FAILED"), new(true), &end
	w.row(t, "codebuild:build", "app:1", "app", "FAILED", map[string]any{"API": build})
	for range 2 { // a second life begins where the first ended
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); w.c.followBuilds(ctx) }()
		deadline := time.After(time.Minute)
		for {
			if _, n := w.value("AWS/CodeBuild", "FailedBuilds", "ProjectName=app"); n > 0 {
				break
			}
			select {
			case <-deadline:
				t.Fatal("never reported")
			case <-time.After(time.Millisecond):
			}
		}
		for w.cursor(t) == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-done
	}
	if v, n := w.value("AWS/CodeBuild", "Duration", "ProjectName=app"); n != 1 || v != 90 {
		t.Errorf("duration %v in %d points", v, n)
	}
	if _, n := w.value("AWS/CodeBuild", "Builds"); n != 1 {
		t.Errorf("%d points of all projects", n)
	}
}

func (w *world) cursor(t *testing.T) int64 {
	row, err := cursors.Find(context.Background(), w.store, "-", "-", "builds")
	if err != nil {
		return 0
	}
	return row.Doc.Seq
}

func TestRunReportsEachMinute(t *testing.T) {
	w := newWorld(t, 120)
	w.row(t, "ec2:instance", "i-1", "r-1", "running", map[string]any{"ID": "i-1", "Type": "t3.micro", "Image": "ami-1"})
	w.stats["i-1"] = machine.Stats{At: w.clock.Now()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.c.Run(ctx) }()
	deadline := time.After(time.Minute)
	for {
		if _, n := w.value("AWS/EC2", "StatusCheckFailed", "InstanceId=i-1"); n >= 3 {
			break
		}
		select {
		case <-deadline:
			t.Fatal("three minutes were not reported")
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	seen := map[time.Time]int{}
	for _, d := range w.data["AWS/EC2"] {
		if d.Name == "StatusCheckFailed" && len(d.Dimensions) == 1 && strings.HasPrefix(d.Dimensions["InstanceId"], "i-") {
			seen[d.At]++
			if d.At.Truncate(time.Minute) != d.At {
				t.Errorf("at %v", d.At)
			}
		}
	}
	for at, n := range seen {
		if n != 1 {
			t.Errorf("%d points at %v", n, at)
		}
	}
}

func TestCapacityUnits(t *testing.T) {
	for _, c := range []struct {
		what  string
		count lbCounts
		want  float64
	}{
		{"nothing", lbCounts{}, 0},
		{"25 connections a second", lbCounts{delta: map[string]float64{"NewConnectionCount": 25 * 60}}, 1},
		{"3000 connections open", lbCounts{active: 3000}, 1},
		{"1 GB an hour", lbCounts{delta: map[string]float64{"ProcessedBytes": 1e9 / 60}}, 1},
		{"1000 paid rules a second", lbCounts{paying: 60_000}, 1},
		{"the most of them", lbCounts{delta: map[string]float64{"NewConnectionCount": 750, "ProcessedBytes": 5e9 / 60}, active: 6000, paying: 90_000}, 5},
	} {
		if got := c.count.capacity(); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s: %v units, want %v", c.what, got, c.want)
		}
	}
}

func TestWhatLeftIsCounted(t *testing.T) {
	w := newWorld(t, 1)
	ctx := context.Background()
	at := w.clock.Now()
	balancer := func(serial int64, gone bool, requests float64) lb.LBMetrics {
		return lb.LBMetrics{ARN: lbARN, Serial: serial, Gone: gone, Counters: map[string]float64{"RequestCount": requests}}
	}
	w.lb = lb.Metrics{Started: at, LoadBalancers: []lb.LBMetrics{balancer(1, false, 10)}}
	w.c.sampleBalancers(ctx)
	// It was taken out, served five more, and another one came under its name
	// with eleven.
	w.lb.LoadBalancers = []lb.LBMetrics{balancer(1, true, 15), balancer(2, false, 11)}
	w.c.sampleBalancers(ctx)
	if err := w.c.reportBalancers(ctx, at); err != nil {
		t.Fatal(err)
	}
	if v, _ := w.value("AWS/ApplicationELB", "RequestCount", "LoadBalancer=app/web/50dc6c495c0c9188"); v != 16 {
		t.Errorf("%v requests, want 16", v)
	}
	w.lb.LoadBalancers = []lb.LBMetrics{balancer(1, true, 15)}
	w.c.sampleBalancers(ctx)
	w.data = map[string][]Datum{}
	w.c.reportBalancers(ctx, at.Add(time.Minute)) // the second one's last minute
	w.data = map[string][]Datum{}
	w.c.reportBalancers(ctx, at.Add(2*time.Minute))
	if _, n := w.value("AWS/ApplicationELB", "RequestCount", "LoadBalancer=app/web/50dc6c495c0c9188"); n != 0 {
		t.Error("what has gone is still reported")
	}
}
