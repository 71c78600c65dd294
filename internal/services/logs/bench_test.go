package logs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	api "slipway/internal/api/logs"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/services/logs"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// accessLine is like a line of nginx's access log.
func accessLine(i int) string {
	return fmt.Sprintf(`10.%d.%d.%d - - [02/Jan/2026:03:%02d:%02d +0000] "GET /tasks/%d?page=%d HTTP/1.1" %d %d "https://todo.example/list" "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"`,
		i%200, i*7%256, i*13%256, i/60%60, i%60, i*31%100000, i%17, []int{200, 200, 200, 304, 404, 500}[i%6], 200+i*97%50000)
}

// BenchmarkPutLogEvents puts durable batches of about half a megabyte.
func BenchmarkPutLogEvents(b *testing.B) {
	st, err := store.Open(b.Context(), store.Options{Ephemeral: true})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	mux := dispatch.New()
	logs.New(logs.Deps{Store: st, Dir: b.TempDir(), Durable: true, Log: slog.New(slog.DiscardHandler)}).Register(mux)
	ctx := caller.With(b.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1"})
	group, stream := new("g"), new("s")
	if _, err := dispatch.Call(ctx, mux, api.OpCreateLogGroup, &api.CreateLogGroupInput{LogGroupName: group}); err != nil {
		b.Fatal(err)
	}
	if _, err := dispatch.Call(ctx, mux, api.OpCreateLogStream, &api.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream}); err != nil {
		b.Fatal(err)
	}
	in := &api.PutLogEventsInput{LogGroupName: group, LogStreamName: stream}
	now, size := clock.Real.Now().UnixMilli(), 0
	for i := range 3000 {
		line := accessLine(i)
		size += len(line)
		in.LogEvents = append(in.LogEvents, api.InputLogEvent{Timestamp: new(now), Message: &line})
	}
	b.SetBytes(int64(size))
	for b.Loop() {
		if _, err := dispatch.Call(ctx, mux, api.OpPutLogEvents, in); err != nil {
			b.Fatal(err)
		}
	}
}

// cpuTime is what the process has used of processors: the machine may have
// other things to do.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPutLogEventsHTTP is the same over the wire, JSON in and JSON out, with
// four clients that share the processors with the server.
func BenchmarkPutLogEventsHTTP(b *testing.B) {
	st, err := store.Open(b.Context(), store.Options{Ephemeral: true})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	mux := dispatch.New()
	log := slog.New(slog.DiscardHandler)
	logs.New(logs.Deps{Store: st, Dir: b.TempDir(), Durable: true, Log: log}).Register(mux)
	srv := httptest.NewServer(mux.Handler(dispatch.Config{AuthAny: true, Account: "123456789012", Now: clock.Real.Now, Log: log}))
	defer srv.Close()
	post := func(op string, body []byte) {
		req, err := http.NewRequest(http.MethodPost, srv.URL, bytes.NewReader(body))
		if err != nil {
			b.Error(err)
			return
		}
		req.Header.Set("X-Amz-Target", "Logs_20140328."+op)
		req.Header.Set("Content-Type", "application/x-amz-json-1.1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Error(err)
			return
		}
		defer resp.Body.Close()
		if answer, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			b.Error(resp.Status, string(answer), err)
		}
	}
	post("CreateLogGroup", []byte(`{"logGroupName": "g"}`))
	post("CreateLogStream", []byte(`{"logGroupName": "g", "logStreamName": "s"}`))
	type entry struct {
		Timestamp int64  `json:"timestamp"`
		Message   string `json:"message"`
	}
	var entries []entry
	size := 0
	for i := range 3000 {
		line := accessLine(i)
		size += len(line)
		entries = append(entries, entry{clock.Real.Now().UnixMilli(), line})
	}
	slices.SortStableFunc(entries, func(x, y entry) int { return int(x.Timestamp - y.Timestamp) })
	body, err := json.Marshal(map[string]any{"logGroupName": "g", "logStreamName": "s", "logEvents": entries})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	before := cpuTime()
	b.SetParallelism(4) // as many instances do: while one batch is synced others are decoded
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			post("PutLogEvents", body)
		}
	})
	b.ReportMetric(float64(size)*float64(b.N)/1e6/(cpuTime()-before).Seconds(), "MB/cpu-s")
}

// BenchmarkRareTerm looks for a word that one event holds among sealed ones:
// LOGS_BENCH_MB megabytes of text, by default 128.
func BenchmarkRareTerm(b *testing.B) {
	mb := 128
	if v, err := strconv.Atoi(os.Getenv("LOGS_BENCH_MB")); err == nil {
		mb = v
	}
	dir := filepath.Join(b.TempDir(), "log")
	l, err := segment.Open(dir, segment.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	size := 0
	for n := 0; size < mb<<20; {
		var events []segment.Event
		for range 3000 {
			line := accessLine(n)
			if n == 300_000 {
				line += " needle-in-the-haystack"
			}
			size += len(line)
			events = append(events, segment.Event{Time: int64(n), Message: line})
			n++
		}
		if _, err := l.Append(context.Background(), 1, 1, events); err != nil {
			b.Fatal(err)
		}
	}
	if err := l.Maintain(-1, func(uint32) bool { return false }); err != nil {
		b.Fatal(err)
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.SetBytes(int64(size))
	for b.Loop() {
		found := 0
		err := l.Scan(context.Background(), segment.Query{To: 1 << 60, Literal: "needle-in-the-haystack"}, func(r *segment.Record) bool {
			if len(r.Message) > 22 && r.Message[len(r.Message)-22:] == "needle-in-the-haystack" {
				found++
			}
			return true
		})
		if err != nil || found != 1 {
			b.Fatal(found, err)
		}
	}
	b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "MiB-heap")
}
