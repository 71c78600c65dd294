package cloudwatch

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	api "slipway/internal/api/cloudwatch"
	apisns "slipway/internal/api/sns"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
	"slipway/internal/clock"
	"slipway/internal/services/cloudwatch/collect"
	"slipway/internal/store"
)

const (
	account = "123456789012"
	region  = "us-east-1"
	topic   = "arn:aws:sns:us-east-1:123456789012:alerts"
	policy  = "arn:aws:autoscaling:us-east-1:123456789012:scalingPolicy:11111111-2222-3333-4444-555555555555:autoScalingGroupName/web:policyName/out"
)

// world is a service with a store, a clock that runs fast, and stand-ins at
// its borders: topics and policies that only remember.
type world struct {
	testing.TB
	dir   string
	clock clock.Clock
	store store.Store
	mux   *dispatch.Mux
	svc   *Service
	ctx   context.Context
	stop  func()
	// balancers are measured where it is not nil.
	balancers collect.Balancers

	mu        sync.Mutex
	published []apisns.PublishInput
	fired     []string
	publish   func() error
}

func newWorld(t testing.TB, rate float64) *world {
	w := newUnopened(t, rate)
	w.open()
	return w
}

// newUnopened is a world without a service: open makes it.
func newUnopened(t testing.TB, rate float64) *world {
	w := &world{TB: t, dir: t.TempDir(), clock: clock.Scaled(rate, time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))}
	w.ctx = caller.With(context.Background(), caller.Identity{Account: account, Region: region})
	w.stop = func() {}
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) open() {
	w.Helper()
	st, err := store.Open(w.ctx, store.Options{Dir: w.dir, Clock: w.clock})
	if err != nil {
		w.Fatal(err)
	}
	w.store, w.mux = st, dispatch.New()
	w.svc, err = New(Deps{Store: st, Clock: w.clock, Mux: w.mux, Dir: w.dir + "/metrics", Policies: w, Balancers: w.balancers, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		w.Fatal(err)
	}
	w.svc.Register(w.mux)
	dispatch.Register(w.mux, apisns.OpPublish, func(_ context.Context, in *apisns.PublishInput) (*apisns.PublishOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.publish != nil {
			if err := w.publish(); err != nil {
				return nil, err
			}
		}
		w.published = append(w.published, *in)
		return nil, nil
	})
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- w.svc.Run(ctx) }()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
		if err := w.svc.Close(); err != nil {
			w.Error(err)
		}
		if err := st.Close(); err != nil {
			w.Error(err)
		}
	})
}

func (w *world) AlarmFired(_ context.Context, _, _, arn, name, state string, value, _ float64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fired = append(w.fired, strings.Join([]string{arn, name, state}, " "))
	return nil
}

func call[I, O any](w *world, op *model.Op[I, O], in *I) *O {
	w.Helper()
	out, err := dispatch.Call(w.ctx, w.mux, op, in)
	if err != nil {
		w.Fatalf("%s: %v", op.Name, err)
	}
	return out
}

// until waits for a condition that something running makes true.
func (w *world) until(what string, f func() bool) {
	w.Helper()
	deadline := time.After(time.Minute)
	for !f() {
		select {
		case <-deadline:
			w.Fatalf("never: %s", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (w *world) count(f func() int) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return f()
}

func (w *world) put(name string, at time.Time, v float64, dims ...api.Dimension) {
	w.Helper()
	call(w, api.OpPutMetricData, &api.PutMetricDataInput{Namespace: new("App"), MetricData: []api.MetricDatum{{MetricName: &name, Timestamp: &at, Value: &v, Dimensions: dims}}})
}

func (w *world) alarm(name string) api.MetricAlarm {
	w.Helper()
	out := call(w, api.OpDescribeAlarms, &api.DescribeAlarmsInput{AlarmNames: []string{name}})
	if len(out.MetricAlarms) != 1 {
		w.Fatalf("alarm %s: %d found", name, len(out.MetricAlarms))
	}
	return out.MetricAlarms[0]
}

func (w *world) inState(name, state string) {
	w.Helper()
	w.until(name+" is "+state, func() bool { return *w.alarm(name).StateValue == state })
}

func cpuAlarm(name string) *api.PutMetricAlarmInput {
	return &api.PutMetricAlarmInput{
		AlarmName: &name, Namespace: new("App"), MetricName: new("Load"), Statistic: new("Average"), Period: new(int64(60)), EvaluationPeriods: new(int64(1)),
		Threshold: new(50.0), ComparisonOperator: new(api.ComparisonOperatorGreaterThanThreshold), AlarmActions: []string{topic, policy}, OKActions: []string{topic},
	}
}

func TestAlarmTellsItsTopicAndPolicy(t *testing.T) {
	w := newWorld(t, 60)
	call(w, api.OpPutMetricAlarm, cpuAlarm("high"))
	if a := w.alarm("high"); *a.StateValue != api.StateValueInsufficientData || *a.StateReason != uncheckedReason {
		t.Fatalf("a new alarm is %s: %s", *a.StateValue, *a.StateReason)
	}
	minute := w.clock.Now().Truncate(time.Minute)
	w.put("Load", minute, 90)
	w.inState("high", api.StateValueAlarm)
	w.until("the topic hears of it", func() bool { return w.count(func() int { return len(w.published) }) == 1 })
	w.mu.Lock()
	p := w.published[0]
	w.mu.Unlock()
	if *p.Subject != `ALARM: "high" in US East (N. Virginia)` || *p.TopicArn != topic || *p.MessageStructure != "json" {
		t.Errorf("published %s to %s", *p.Subject, *p.TopicArn)
	}
	var parts map[string]string
	if err := json.Unmarshal([]byte(*p.Message), &parts); err != nil {
		t.Fatal(err)
	}
	var n struct {
		NewStateValue, OldStateValue, NewStateReason string
		Trigger                                      struct {
			Statistic string
			Threshold json.Number
		}
	}
	if err := json.Unmarshal([]byte(parts["default"]), &n); err != nil {
		t.Fatal(err)
	}
	if n.NewStateValue != "ALARM" || n.OldStateValue != "INSUFFICIENT_DATA" || n.Trigger.Statistic != "AVERAGE" || n.Trigger.Threshold != "50.0" {
		t.Errorf("message %s", parts["default"])
	}
	if !strings.Contains(parts["email"], "- State Change:               INSUFFICIENT_DATA -> ALARM\r\n") {
		t.Errorf("mail\n%s", parts["email"])
	}
	w.until("the policy runs again while the alarm lasts", func() bool { return w.count(func() int { return len(w.fired) }) >= 2 })
	w.put("Load", w.clock.Now(), 10)
	w.inState("high", api.StateValueOk)
	w.until("the topic hears of the end", func() bool { return w.count(func() int { return len(w.published) }) == 2 })
	out := call(w, api.OpDescribeAlarmHistory, &api.DescribeAlarmHistoryInput{AlarmName: new("high"), HistoryItemType: new(api.HistoryItemTypeStateUpdate)})
	if len(out.AlarmHistoryItems) != 2 || *out.AlarmHistoryItems[0].HistorySummary != "Alarm updated from ALARM to OK" {
		t.Errorf("history %v", out.AlarmHistoryItems)
	}
}

func TestStatisticsOfWhatWasPut(t *testing.T) {
	w := newWorld(t, 1)
	at := w.clock.Now().Truncate(time.Minute).Add(-10 * time.Minute)
	for i, v := range []float64{1, 2, 3, 4} {
		w.put("Latency", at.Add(time.Duration(i)*time.Second), v)
	}
	out := call(w, api.OpGetMetricStatistics, &api.GetMetricStatisticsInput{
		Namespace: new("App"), MetricName: new("Latency"), StartTime: new(at.Add(-time.Hour)), EndTime: new(w.clock.Now()), Period: new(int64(60)),
		Statistics: []string{"Sum", "Average", "SampleCount", "Minimum", "Maximum"}, ExtendedStatistics: []string{"p50"},
	})
	if len(out.Datapoints) != 1 {
		t.Fatalf("%d points", len(out.Datapoints))
	}
	d := out.Datapoints[0]
	if *d.Sum != 10 || *d.Average != 2.5 || *d.SampleCount != 4 || *d.Minimum != 1 || *d.Maximum != 4 || d.ExtendedStatistics["p50"] != 2 || !d.Timestamp.Equal(at) || *d.Unit != "None" {
		t.Errorf("%+v", d)
	}
	list := call(w, api.OpListMetrics, &api.ListMetricsInput{Namespace: new("App")})
	if len(list.Metrics) != 1 || *list.Metrics[0].MetricName != "Latency" {
		t.Errorf("metrics %v", list.Metrics)
	}
}

func TestPutFromTakesWhatItCan(t *testing.T) {
	w := newWorld(t, 1)
	datum := func(name string, change func(*api.MetricDatum)) api.MetricDatum {
		d := api.MetricDatum{MetricName: &name, Value: new(1.0)}
		change(&d)
		return d
	}
	data := map[string][]api.MetricDatum{"App": {
		datum("good", func(*api.MetricDatum) {}),
		datum("unit", func(d *api.MetricDatum) { d.Unit = new("Cakes") }),
		datum("old", func(d *api.MetricDatum) { d.Timestamp = new(w.clock.Now().AddDate(0, -1, 0)) }),
		datum("", func(*api.MetricDatum) {}),
	}, ":bad": {datum("good", func(*api.MetricDatum) {})}}
	for range 2 { // the second time it is known
		refused, err := w.svc.PutFrom(w.ctx, account, region, "logs/x", 7, data)
		if err != nil || len(refused) != 4 {
			t.Fatalf("%v, refused %v", err, refused)
		}
	}
	at := w.clock.Now()
	out := call(w, api.OpGetMetricStatistics, &api.GetMetricStatisticsInput{Namespace: new("App"), MetricName: new("good"), StartTime: new(at.Add(-time.Hour)), EndTime: new(at.Add(time.Hour)), Period: new(int64(7200)), Statistics: []string{"Sum"}})
	if len(out.Datapoints) != 1 || *out.Datapoints[0].Sum != 1 || w.svc.Position("logs/x") != 7 || len(w.svc.metrics.List(account, region, nil)) != 1 {
		t.Errorf("%+v at %d", out.Datapoints, w.svc.Position("logs/x"))
	}
}
