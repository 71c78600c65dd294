package logs_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/api/cloudwatch"
	api "slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/services/logs"
	"slipway/internal/store"
)

// sink takes the metrics that the service makes.
type sink struct {
	mu   sync.Mutex
	got  []string // namespace metric {dims} value xcount
	at   map[string]uint64
	fail bool
	lost int    // calls for a filter that failed
	kept func() // called after values with a position were kept
}

func (s *sink) register(f *fixture) { f.svc.SetMetrics(s) }

func (s *sink) Position(source string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[source]
}

func (s *sink) PutFrom(_ context.Context, _, _, source string, position uint64, data map[string][]cloudwatch.MetricDatum) ([]error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail {
		if data["N"] != nil {
			s.lost++
		}
		return nil, errors.New("not now")
	}
	if source != "" {
		if position != 0 && position <= s.at[source] {
			return nil, nil
		}
		if s.at == nil {
			s.at = map[string]uint64{}
		}
		if s.at[source] = position; position == 0 {
			delete(s.at, source)
		} else if s.kept != nil {
			defer s.kept()
		}
	}
	for ns, list := range data {
		for _, d := range list {
			dims := ""
			for _, x := range d.Dimensions {
				dims += *x.Name + "=" + *x.Value + " "
			}
			for i, v := range d.Values {
				s.got = append(s.got, fmt.Sprintf("%s %s %s%vx%v", ns, *d.MetricName, dims, v, d.Counts[i]))
			}
		}
	}
	return nil, nil
}

func (s *sink) wait(t *testing.T, want ...string) {
	t.Helper()
	s.waitFor(t, func(got string) bool { return strings.HasPrefix(got, "AWS/Logs") }, want...)
}

// waitFor waits for metrics besides those that are not of interest.
func (s *sink) waitFor(t *testing.T, except func(string) bool, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		got = slices.DeleteFunc(slices.Clone(s.got), except)
		s.mu.Unlock()
		slices.Sort(got)
		if slices.Equal(got, want) {
			return
		}
	}
	t.Errorf("metrics %q, want %q", got, want)
}

// waitLost waits until a call has failed.
func (s *sink) waitLost(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		s.mu.Lock()
		n := s.lost
		s.mu.Unlock()
		if n > 0 {
			return
		}
	}
	t.Fatal("nothing was sent to a sink that fails")
}

func (f *fixture) run() (stop func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan error)
	go func() { done <- f.svc.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	f.Cleanup(stop)
	return stop
}

func (f *fixture) filter(name, pattern, value string, def *float64, dims map[string]string) error {
	_, err := dispatch.Call(f.ctx, f.mux, api.OpPutMetricFilter, &api.PutMetricFilterInput{LogGroupName: new("g"), FilterName: &name, FilterPattern: &pattern,
		MetricTransformations: []api.MetricTransformation{{MetricName: &name, MetricNamespace: new("N"), MetricValue: &value, DefaultValue: def, Dimensions: dims}}})
	return err
}

func (f *fixture) mustPut(messages ...string) {
	f.Helper()
	var in []api.InputLogEvent
	for _, m := range messages {
		in = append(in, event(f.now, m))
	}
	if _, err := f.put("g", "s", in...); err != nil {
		f.Fatal(err)
	}
}

func TestMetricFilters(t *testing.T) {
	f := start(t)
	s := &sink{}
	s.register(f)
	f.create("g", "s")
	f.now = f.now / 60000 * 60000 // one minute
	f.mustPut("[error] before the filter")
	for _, err := range []error{
		f.filter("errors", `"[error]"`, "1", nil, nil), f.filter("bytes", "[ip, code = 5*, bytes]", "$bytes", nil, map[string]string{"Code": "$code"}),
		f.filter("latency", "{ $.ms > 0 }", "$.ms", nil, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f.run()
	f.mustPut("[error] one", "fine", "[error] two", "1.2.3.4 502 77", "1.2.3.4 200 5", `{"ms": 1.5}`, `{"ms": -1}`, "1.2.3.4 503 none")
	s.wait(t, "N errors 1x2", "N bytes Code=502 77x1", "N latency 1.5x1")
	s.mu.Lock()
	s.got, s.fail = nil, true
	s.mu.Unlock()
	f.mustPut("[error] while CloudWatch does not take it")
	s.waitLost(t)
	s.mu.Lock()
	s.fail = false
	s.mu.Unlock()
	s.wait(t, "N errors 1x1")
}

// TestFilterAfterRestart stores an event that the first server does not come
// to: the second makes a metric of it, once.
func TestFilterAfterRestart(t *testing.T) {
	f := start(t)
	s := &sink{}
	s.register(f)
	f.create("g", "s")
	if err := f.filter("errors", "ERROR", "2", nil, nil); err != nil {
		t.Fatal(err)
	}
	f.mustPut("ERROR") // nothing runs
	stop := f.run()
	s.wait(t, "N errors 2x1")
	f.mustPut(`{"_aws": {"Timestamp": 1, "CloudWatchMetrics": [{"Namespace": "E", "Dimensions": [["svc"], []], "Metrics": [{"Name": "lat", "Unit": "Milliseconds"}]}]}, "svc": "todo", "lat": [3, 3, 4]}`)
	s.wait(t, "N errors 2x1", "E lat svc=todo 3x2", "E lat svc=todo 4x1", "E lat 3x2", "E lat 4x1")
	stop()
	s.mu.Lock()
	s.got = nil
	s.mu.Unlock()
	f.run()
	f.mustPut("ERROR again")
	s.wait(t, "N errors 2x1")
}

// dying is a store that can no longer be written to.
type dying struct {
	store.Store
	dead atomic.Bool
}

func (d *dying) Update(ctx context.Context, fn func(store.Tx) error) error {
	if d.dead.Load() {
		return errors.New("the server is dead")
	}
	return d.Store.Update(ctx, fn)
}

// TestServerDiesBeforeTheCursorMoves ends the service in the moment between
// CloudWatch's write and the cursor's: the next one counts nothing again.
func TestServerDiesBeforeTheCursorMoves(t *testing.T) {
	f := start(t)
	d := &dying{Store: f.store}
	second := f.svc
	f.svc = logs.New(logs.Deps{Store: d, Dir: f.dir, Durable: true, Log: slog.New(slog.DiscardHandler)})
	f.mux = dispatch.New()
	f.svc.Register(f.mux)
	s := &sink{}
	s.register(f)
	f.create("g", "s")
	if err := f.filter("errors", "ERROR", "1", nil, nil); err != nil {
		t.Fatal(err)
	}
	f.mustPut("ERROR one", "ERROR two")
	s.kept = func() { d.dead.Store(true) } // the cursor's write comes too late
	stop := f.run()
	s.wait(t, "N errors 1x2")
	stop()
	s.kept = nil

	f.svc = second
	f.mux = dispatch.New()
	f.svc.Register(f.mux)
	s.register(f)
	f.mustPut("ERROR three") // so that what comes again is not the same
	f.run()
	s.wait(t, "N errors 1x2", "N errors 1x1")
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpDeleteLogGroup, &api.DeleteLogGroupInput{LogGroupName: new("g")}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.at) != 0 {
		t.Errorf("a deleted group is remembered: %v", s.at)
	}
}

// TestDefaultValue lets minutes pass in seconds: one with a match, one without,
// and one in which nothing came.
func TestDefaultValue(t *testing.T) {
	f := start(t)
	fast := clock.Scaled(60, time.Time{})
	f.svc = logs.New(logs.Deps{Store: f.store, Dir: f.dir + "2", Clock: fast})
	f.mux = dispatch.New()
	f.svc.Register(f.mux)
	s := &sink{}
	s.register(f)
	f.create("g", "s")
	if err := f.filter("errors", "ERROR", "1", new(0.0), nil); err != nil {
		t.Fatal(err)
	}
	f.run()
	minute := func() int64 { return fast.Now().Unix() / 60 }
	f.mustPut("ERROR", "fine")
	for m := minute(); minute() < m+2; { // a minute without events in between
		time.Sleep(10 * time.Millisecond)
	}
	f.mustPut("fine")
	s.waitFor(t, func(got string) bool { return !strings.HasPrefix(got, "N errors") }, "N errors 1x1", "N errors 0x1")
	time.Sleep(2500 * time.Millisecond)
	s.waitFor(t, func(got string) bool { return !strings.HasPrefix(got, "N errors") }, "N errors 1x1", "N errors 0x1")
}

func TestMetricFilterErrors(t *testing.T) {
	f := start(t)
	f.create("g", "s")
	for name, err := range map[string]error{
		"pattern": f.filter("a", "{ $.a", "1", nil, nil), "value": f.filter("a", "x", "lots", nil, nil), "field": f.filter("a", "[a]", "$b", nil, nil),
		"default with dimensions": f.filter("a", "[a]", "1", new(0.0), map[string]string{"d": "$a"}),
		"dimensions":              f.filter("a", "[a]", "1", nil, map[string]string{"d": "$a", "e": "$a", "f": "$a", "g": "$a"}),
	} {
		if !awserr.Is(err, "InvalidParameterException") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range 101 {
		err := f.filter(fmt.Sprint("f", i), "x", "1", nil, nil)
		if (err != nil) != (i == 100) || i == 100 && !awserr.Is(err, "LimitExceededException") {
			t.Fatal(i, err)
		}
	}
	out, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeMetricFilters, &api.DescribeMetricFiltersInput{LogGroupName: new("g"), Limit: new(int64(50))})
	if err != nil || len(out.MetricFilters) != 50 || out.NextToken == nil {
		t.Fatal(len(out.MetricFilters), err)
	}
	rest, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeMetricFilters, &api.DescribeMetricFiltersInput{LogGroupName: new("g"), NextToken: out.NextToken})
	if err != nil || len(rest.MetricFilters) != 50 || rest.NextToken != nil {
		t.Error(len(rest.MetricFilters), rest.NextToken, err)
	}
	test, err := dispatch.Call(f.ctx, f.mux, api.OpTestMetricFilter, &api.TestMetricFilterInput{FilterPattern: new("[a, b]"), LogEventMessages: []string{"x", "y z"}})
	if err != nil || len(test.Matches) != 1 || *test.Matches[0].EventNumber != 2 || test.Matches[0].ExtractedValues["$b"] != "z" {
		t.Error(test, err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpDeleteLogGroup, &api.DeleteLogGroupInput{LogGroupName: new("g")}); err != nil {
		t.Fatal(err)
	}
	f.create("g", "s")
	out, err = dispatch.Call(f.ctx, f.mux, api.OpDescribeMetricFilters, &api.DescribeMetricFiltersInput{})
	if err != nil || len(out.MetricFilters) != 0 {
		t.Error("filters outlived their group:", out, err)
	}
}
