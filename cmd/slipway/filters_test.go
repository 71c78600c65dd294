package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	apicw "slipway/internal/api/cloudwatch"
	apilogs "slipway/internal/api/logs"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
	"slipway/internal/clock"
	"slipway/internal/services/cloudwatch"
	"slipway/internal/services/logs"
	"slipway/internal/store"
)

// watching is CloudWatch and Logs with one directory of data.
type watching struct {
	mux  *dispatch.Mux
	ctx  context.Context
	stop func()
}

// between copies the directory in the moment between CloudWatch's write and
// that of the filter's cursor: the disk of a server that dies then.
type between struct {
	*cloudwatch.Service
	once     sync.Once
	from, to string
	err      error
	done     chan struct{}
}

func (b *between) PutFrom(ctx context.Context, account, region, source string, position uint64, data map[string][]apicw.MetricDatum) ([]error, error) {
	refused, err := b.Service.PutFrom(ctx, account, region, source, position, data)
	if source != "" && err == nil {
		b.once.Do(func() {
			b.err = os.CopyFS(b.to, os.DirFS(b.from))
			close(b.done)
		})
	}
	return refused, err
}

// watch opens what is in dir; with a copy, the disk between the writes is left
// there.
func watch(t *testing.T, dir, copy string) (*watching, *between) {
	t.Helper()
	ctx, cancel := context.WithCancel(caller.With(context.Background(), caller.Identity{Account: "123456789012", Region: "us-east-1"}))
	log := slog.New(slog.DiscardHandler)
	st, err := store.Open(ctx, store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	mux := dispatch.New()
	cw, err := cloudwatch.New(cloudwatch.Deps{Store: st, Mux: mux, Log: log, Dir: filepath.Join(dir, "metrics")})
	if err != nil {
		t.Fatal(err)
	}
	l := logs.New(logs.Deps{Store: st, Dir: filepath.Join(dir, "logs"), Durable: true, Log: log})
	b := &between{Service: cw, from: dir, to: copy, done: make(chan struct{})}
	l.SetMetrics(cw)
	if copy != "" {
		l.SetMetrics(b)
	}
	cw.Register(mux)
	l.Register(mux)
	var wg sync.WaitGroup
	for _, run := range []func(context.Context) error{cw.Run, l.Run} {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	w := &watching{mux: mux, ctx: ctx, stop: sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		for _, c := range []func() error{cw.Close, st.Close} {
			if err := c(); err != nil {
				t.Error(err)
			}
		}
	})}
	t.Cleanup(w.stop)
	return w, b
}

func (w *watching) write(t *testing.T, messages ...string) {
	t.Helper()
	in := &apilogs.PutLogEventsInput{LogGroupName: new("g"), LogStreamName: new("s")}
	for _, m := range messages {
		in.LogEvents = append(in.LogEvents, apilogs.InputLogEvent{Timestamp: new(clock.Real.Now().UnixMilli()), Message: &m})
	}
	if _, err := dispatch.Call(w.ctx, w.mux, apilogs.OpPutLogEvents, in); err != nil {
		t.Fatal(err)
	}
}

// errors waits until the filter has counted so many, and reports more.
func (w *watching) errors(t *testing.T, want float64) {
	t.Helper()
	now := clock.Real.Now()
	var sum float64
	for end := now.Add(30 * time.Second); clock.Real.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		out, err := dispatch.Call(w.ctx, w.mux, apicw.OpGetMetricStatistics, &apicw.GetMetricStatisticsInput{Namespace: new("N"), MetricName: new("Errors"),
			StartTime: new(now.Add(-time.Hour)), EndTime: new(now.Add(time.Hour)), Period: new(int64(60)), Statistics: []string{"Sum"}})
		if err != nil {
			t.Fatal(err)
		}
		sum = 0
		for _, d := range out.Datapoints {
			sum += *d.Sum
		}
		if sum >= want {
			break
		}
	}
	if sum != want {
		t.Errorf("%v errors were counted of %v", sum, want)
	}
}

// TestFilterCountsOnceAcrossDeath lets a server die in the worst moment: its
// metrics are on the disk, and the filter's cursor does not know it.
func TestFilterCountsOnceAcrossDeath(t *testing.T) {
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	first, b := watch(t, dir, disk)
	for _, err := range []error{
		call(first, apilogs.OpCreateLogGroup, &apilogs.CreateLogGroupInput{LogGroupName: new("g")}),
		call(first, apilogs.OpCreateLogStream, &apilogs.CreateLogStreamInput{LogGroupName: new("g"), LogStreamName: new("s")}),
		call(first, apilogs.OpPutMetricFilter, &apilogs.PutMetricFilterInput{LogGroupName: new("g"), FilterName: new("f"), FilterPattern: new("ERROR"),
			MetricTransformations: []apilogs.MetricTransformation{{MetricName: new("Errors"), MetricNamespace: new("N"), MetricValue: new("1")}}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	first.write(t, "ERROR one", "fine", "ERROR two")
	select {
	case <-b.done:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was counted")
	}
	if b.err != nil {
		t.Fatal(b.err)
	}
	first.errors(t, 2)
	first.stop()

	second, _ := watch(t, disk, "")
	second.errors(t, 2)
	second.write(t, "ERROR three")
	second.errors(t, 3)
	second.stop()
	third, _ := watch(t, disk, "")
	third.write(t, "ERROR four")
	third.errors(t, 4)
}

func call[I, O any](w *watching, op *model.Op[I, O], in *I) error {
	_, err := dispatch.Call(w.ctx, w.mux, op, in)
	return err
}
