package metricstore

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"slipway/internal/clock"
)

var base0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func metricNamed(name string) Metric {
	return NewMetric("123456789012", "us-east-1", "App", name, Dimension{"b", "2"}, Dimension{"a", "1"})
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	o.Dir = dir
	if o.Clock == nil { // the points are new
		o.Clock = &setClock{Clock: clock.Real, now: base0.Add(time.Hour)}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keep(t testing.TB, s *Store, points ...Point) {
	t.Helper()
	if err := s.Put(context.Background(), points); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, s *Store, m Metric, start, end time.Time, period int64) []Period {
	t.Helper()
	out, err := s.Read(Query{Metric: m, Start: start.Unix(), End: end.Unix(), Period: period})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func total(list []Period) (count, sum float64) {
	for _, p := range list {
		count, sum = count+p.Set.Count, sum+p.Set.Sum
	}
	return count, sum
}

// reference computes a statistic by sorting all samples.
func reference(st Statistic, samples []float64) (float64, bool) {
	l := slices.Clone(samples)
	slices.Sort(l)
	n := float64(len(l))
	rank := func(p float64) int { return int(math.Ceil(p/100*n - 1e-9)) }
	if st.kind == "p" {
		return l[max(rank(st.high.v), 1)-1], true
	}
	low, high := 0, len(l)
	if st.low.set && st.low.percent {
		low = rank(st.low.v)
	}
	if st.high.set && st.high.percent {
		high = rank(st.high.v)
	}
	if st.low.set && !st.low.percent {
		low = slices.IndexFunc(append(l, math.Inf(1)), func(v float64) bool { return v > st.low.v })
	}
	if st.high.set && !st.high.percent {
		high = slices.IndexFunc(append(l, math.Inf(1)), func(v float64) bool { return v > st.high.v })
	}
	part := l[min(low, high):high]
	sum := 0.0
	for _, v := range part {
		sum += v
	}
	switch st.kind {
	case "TC":
		return float64(len(part)), true
	case "TS":
		return sum, true
	case "PR":
		return float64(len(part)) / n * 100, true
	}
	byValue := !st.low.percent && !st.high.percent
	if len(part) == 0 && (st.kind == "TM" || !byValue) {
		return 0, false
	}
	if st.kind == "TM" {
		return sum / float64(len(part)), true
	}
	if byValue {
		sum = 0
		for _, v := range l {
			if st.low.set {
				v = max(v, st.low.v)
			}
			if st.high.set {
				v = min(v, st.high.v)
			}
			sum += v
		}
		return sum / n, true
	}
	first, last := part[0], part[len(part)-1]
	return (sum + float64(low)*first + float64(len(l)-high)*last) / n, true
}

var statisticNames = []string{"p0", "p10", "p50", "p90", "p99.9", "p100", "tm90", "TM(10%:90%)", "IQM", "wm80", "WM(10%:90%)", "tc50", "TC(5%:)", "ts99", "TS(:40%)", "PR(:300)", "PR(100:2000)", "TC(10:500)", "TM(10:500)", "WM(10:500)", "TS(10:)"}

func TestStatisticsAgainstReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		few := rapid.Bool().Draw(t, "few")
		n := rapid.IntRange(1, 400).Draw(t, "n")
		if few {
			n = min(n, maxExact)
		}
		samples := make([]float64, n)
		var sets []Set
		for i := range samples {
			samples[i] = math.Abs(rapid.Float64Range(0, 5000).Draw(t, "v"))
			sets = append(sets, Of(samples[i], 1))
		}
		// Merge in any grouping: into some sets, then those into one.
		groups := make([]Set, rapid.IntRange(1, 5).Draw(t, "groups"))
		for i := range sets {
			groups[i%len(groups)].Merge(sets[i])
		}
		var all Set
		for _, g := range groups {
			all.Merge(g)
		}
		if all.Count != float64(n) || all.Min != slices.Min(samples) || all.Max != slices.Max(samples) {
			t.Fatalf("count %v min %v max %v", all.Count, all.Min, all.Max)
		}
		decoded := (&reader{b: appendSet(nil, &all)}).set()
		for _, name := range statisticNames {
			st, err := ParseStatistic(name)
			if err != nil {
				t.Fatal(err)
			}
			want, wantOK := reference(st, samples)
			got, ok := st.Compute(&decoded)
			byValue := !st.high.percent && !st.low.percent && st.kind != "p"
			if all.form == exact {
				if ok != wantOK || math.Abs(got-want) > 1e-6*math.Max(1, math.Abs(want)) {
					t.Fatalf("%s of %v: %v %v, want %v %v", name, samples, got, ok, want, wantOK)
				}
			} else if !byValue && (ok != wantOK || math.Abs(got-want) > 0.0101*math.Abs(want)+1e-9) {
				t.Fatalf("%s: %v, want %v within 1 %%", name, got, want)
			}
		}
	})
}

func TestBadStatistics(t *testing.T) {
	for _, name := range []string{"", "p", "p101", "average", "tm", "TM()", "TM(:)", "TM(90%:10%)", "TM(10%:90)", "PR(10%:20%)", "PR(a:b)", "p-1", "TM(:NaN)", "tm100.1"} {
		if _, err := ParseStatistic(name); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
}

func TestNoDistribution(t *testing.T) {
	p99, _ := ParseStatistic("p99")
	for what, s := range map[string]Set{"statistic set": OfStatistics(3, 6, 1, 3), "negative": OfValues([]float64{-1, 2}, nil)} {
		if _, ok := p99.Compute(&s); ok {
			t.Errorf("%s has a percentile", what)
		}
	}
	for what, s := range map[string]Set{"one sample": OfStatistics(1, 5, 5, 5), "all alike": OfStatistics(4, 20, 5, 5)} {
		if v, ok := p99.Compute(&s); !ok || v != 5 {
			t.Errorf("%s: %v", what, v)
		}
	}
}

func TestSurvivesRestart(t *testing.T) {
	dir := t.TempDir()
	m := metricNamed("Load")
	want := 0.0
	for round := range 4 {
		// A tiny head: most rounds write blocks as well as logs.
		s := open(t, dir, Options{HeadBytes: 400})
		for i := range 50 {
			keep(t, s, Point{Metric: m, Unit: "None", At: base0.Add(time.Duration(round*50+i) * time.Second), Resolution: 1, Set: Of(float64(i), 1)})
			want += float64(i)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, dir, Options{})
	defer s.Close()
	for _, period := range []int64{1, 60, 300} {
		count, sum := total(read(t, s, m, base0, base0.Add(time.Hour), period))
		if count != 200 || sum != want {
			t.Errorf("period %d: %v samples, sum %v, want 200 and %v", period, count, sum, want)
		}
	}
	if l := s.List("123456789012", "us-east-1", nil); len(l) != 1 || !l[0].Last.Equal(base0.Add(199*time.Second)) {
		t.Errorf("list %v", l)
	}
}

func TestTornEnd(t *testing.T) {
	dir := t.TempDir()
	m := metricNamed("Load")
	s := open(t, dir, Options{})
	keep(t, s, Point{Metric: m, At: base0, Resolution: 60, Set: Of(1, 1)})
	keep(t, s, Point{Metric: m, At: base0, Resolution: 60, Set: Of(2, 1)})
	s.Close()
	logs, _ := filepath.Glob(filepath.Join(dir, "points-*.log"))
	raw, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{1, 3, 5} {
		if err := os.WriteFile(logs[0], raw[:len(raw)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, Options{})
		if count, sum := total(read(t, s, m, base0, base0.Add(time.Minute), 60)); count != 1 || sum != 1 {
			t.Errorf("cut by %d: %v samples, sum %v", cut, count, sum)
		}
		keep(t, s, Point{Metric: m, At: base0.Add(time.Hour), Resolution: 60, Set: Of(1, 1)}) // what follows a torn end counts
		s.Close()
		s = open(t, dir, Options{})
		if count, _ := total(read(t, s, m, base0.Add(time.Hour), base0.Add(2*time.Hour), 60)); count == 0 {
			t.Error("points behind a torn end are lost")
		}
		s.Close()
	}
}

// setClock is a clock that a test moves; only Now is used of it.
type setClock struct {
	clock.Clock
	mu  sync.Mutex
	now time.Time
}

func (c *setClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *setClock) set(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = t
}

func TestRollUpAndRetention(t *testing.T) {
	dir := t.TempDir()
	m := metricNamed("Load")
	c := &setClock{Clock: clock.Real, now: base0}
	s := open(t, dir, Options{Clock: c})
	for i := range 10 {
		keep(t, s, Point{Metric: m, At: base0.Add(time.Duration(i) * time.Minute), Resolution: 1, Set: Of(float64(i), 1)})
	}
	s.Close()
	day := 24 * time.Hour
	for _, step := range []struct {
		age    time.Duration
		counts map[int64]float64 // by period
	}{
		{time.Hour, map[int64]float64{1: 10, 60: 10, 300: 10, 3600: 10}},
		{5 * time.Hour, map[int64]float64{1: 0, 60: 10, 300: 10, 3600: 10}},
		{17 * day, map[int64]float64{1: 0, 60: 0, 300: 10, 3600: 10}},
		{75 * day, map[int64]float64{60: 0, 300: 0, 3600: 10}},
		{530 * day, map[int64]float64{60: 0, 300: 0, 3600: 0}},
	} {
		c.set(base0.Add(step.age))
		s := open(t, dir, Options{Clock: c, HeadBytes: 1})
		other := metricNamed("Other")
		keep(t, s, Point{Metric: other, At: c.Now(), Resolution: 60, Set: Of(1, 1)}) // fills the head: a checkpoint
		s.Close()
		s = open(t, dir, Options{Clock: c})
		for period, want := range step.counts {
			count, sum := total(read(t, s, m, base0, base0.Add(time.Hour), period))
			if count != want || want > 0 && sum != 45 {
				t.Errorf("%v old, period %d: %v samples, sum %v, want %v", step.age, period, count, sum, want)
			}
		}
		if step.age > 500*day && s.Known(m) {
			t.Error("a metric without points is still known")
		}
		s.Close()
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "block-1-*")); len(files) > 0 {
		t.Errorf("old blocks are left: %v", files)
	}
}

func TestReadersDuringCheckpoints(t *testing.T) {
	s := open(t, t.TempDir(), Options{HeadBytes: 2000, NoSync: true})
	defer s.Close()
	m := metricNamed("Load")
	keep(t, s, Point{Metric: m, At: base0, Resolution: 60, Set: Of(1, 1)})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			last := 0.0
			for ctx.Err() == nil {
				count, _ := total(read(t, s, m, base0, base0.Add(24*time.Hour), 60))
				if count < last {
					t.Errorf("points vanished: %v after %v", count, last)
					return
				}
				last = count
			}
		})
	}
	for i := 1; i < 2000; i++ {
		keep(t, s, Point{Metric: m, At: base0.Add(time.Duration(i%1440) * time.Minute), Resolution: 60, Set: Of(float64(i), 1)})
	}
	cancel()
	wg.Wait()
	if count, _ := total(read(t, s, m, base0, base0.Add(24*time.Hour), 60)); count != 2000 {
		t.Errorf("%v points of 2000", count)
	}
}

// TestKill kills a writer at random moments; what it acknowledged is there,
// once.
func TestKill(t *testing.T) {
	if dir := os.Getenv("METRICSTORE_WRITER"); dir != "" {
		writeUntilKilled(dir)
		return
	}
	dir := t.TempDir()
	acked := filepath.Join(dir, "acked")
	rounds := 6
	for range rounds {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKill$")
		cmd.Env = append(os.Environ(), "METRICSTORE_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1)
		for i := 0; i < 60; i++ { // one byte per acknowledged put
			if _, err := out.Read(buf); err != nil {
				t.Fatal(err)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	raw, err := os.ReadFile(acked)
	if err != nil {
		t.Fatal(err)
	}
	n := strings.Count(string(raw), "\n")
	s := open(t, filepath.Join(dir, "store"), Options{})
	defer s.Close()
	count, _ := total(read(t, s, metricNamed("Load"), base0, base0.Add(time.Hour), 60))
	// The last put of each round may be durable and not yet acknowledged.
	if int(count) < n || int(count) > n+rounds {
		t.Errorf("%d acknowledged in %d lives, %v found", n, rounds, count)
	}
}

func writeUntilKilled(dir string) {
	s, err := Open(Options{Dir: filepath.Join(dir, "store"), HeadBytes: 300, Clock: &setClock{Clock: clock.Real, now: base0.Add(time.Hour)}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "acked"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	for i := 0; ; i++ {
		if err := s.Put(context.Background(), []Point{{Metric: metricNamed("Load"), At: base0.Add(time.Duration(i%3600) * time.Second), Resolution: 60, Set: Of(1, 1)}}); err != nil {
			panic(err)
		}
		fmt.Fprintln(f, i)
		os.Stdout.Write([]byte("."))
	}
}

func FuzzReader(f *testing.F) {
	s := OfValues([]float64{1, 2, 3}, []float64{1, 1.5, 2})
	f.Add(appendSet(nil, &s))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := &reader{b: b}
		r.set()
		r = &reader{b: b}
		r.metric()
		(&Store{metrics: map[string]*metric{}}).replayRecord(b, map[uint64]*series{})
	})
}

// BenchmarkPut is durable points per second: one put of 100 metrics each from
// many clients.
func BenchmarkPut(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	defer s.Close()
	names := make([]Metric, 100)
	for i := range names {
		names[i] = metricNamed(fmt.Sprintf("Metric%d", i))
	}
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		i := 0
		for pb.Next() {
			points := make([]Point, len(names))
			for j := range points {
				points[j] = Point{Metric: names[j], Unit: "None", At: base0.Add(time.Duration(i) * time.Second), Resolution: 60, Set: Of(float64(i+j), 1)}
			}
			i++
			if err := s.Put(context.Background(), points); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N*len(names))/b.Elapsed().Seconds(), "points/s")
}

// BenchmarkReadMillion reads an hour and all of a million points.
func BenchmarkReadMillion(b *testing.B) {
	s := open(b, b.TempDir(), Options{NoSync: true, HeadBytes: 4 << 20})
	defer s.Close()
	for i := 0; i < 1_000_000; i += 1000 {
		points := make([]Point, 1000)
		for j := range points {
			n := i + j
			points[j] = Point{Metric: metricNamed(fmt.Sprintf("Metric%d", n%100)), At: base0.Add(time.Duration(n/100) * time.Minute), Resolution: 60, Set: Of(float64(n), 1)}
		}
		keep(b, s, points...)
	}
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.Run("hour", func(b *testing.B) {
		for range b.N {
			read(b, s, metricNamed("Metric7"), base0.Add(100*time.Hour), base0.Add(101*time.Hour), 60)
		}
		b.ReportMetric(float64(mem.HeapAlloc)/(1<<20), "MiB-heap")
	})
	b.Run("all", func(b *testing.B) {
		for range b.N {
			read(b, s, metricNamed("Metric7"), base0, base0.Add(200*time.Hour), 3600)
		}
	})
}

func TestForget(t *testing.T) {
	durable, err := Open(Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer durable.Close()
	if durable.Forget() == nil {
		t.Error("a durable store forgets")
	}
	s, err := Open(Options{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m := NewMetric("123456789012", "us-east-1", "N", "M")
	for range 2 { // what comes after is kept as before
		if err := s.Put(t.Context(), []Point{{Metric: m, At: time.Now(), Resolution: 60, Set: Of(1, 1)}}); err != nil {
			t.Fatal(err)
		}
		if !s.Known(m) {
			t.Fatal("the metric is not known")
		}
		if err := s.Forget(); err != nil {
			t.Fatal(err)
		}
		if s.Known(m) || len(s.List("123456789012", "us-east-1", func(*Listed) bool { return true })) > 0 {
			t.Fatal("the metric is still known")
		}
	}
}
