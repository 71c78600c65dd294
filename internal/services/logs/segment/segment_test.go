package segment_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"

	"slipway/internal/services/logs/segment"
)

func open(t *testing.T, dir string, o segment.Options) *segment.Log {
	t.Helper()
	l, err := segment.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

type key struct {
	time int64
	seq  uint64
}

func scan(t *testing.T, l *segment.Log, q segment.Query) (out []segment.Record) {
	t.Helper()
	if q.To == 0 {
		q.To = 1 << 60
	}
	if err := l.Scan(context.Background(), q, func(r *segment.Record) bool { out = append(out, *r); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

func never(uint32) bool { return false }

// TestAgainstAList compares every kind of scan with a sorted list, before and
// after sealing and after reopening.
func TestAgainstAList(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, segment.Options{SealBytes: 4 << 10})
	rng := rand.New(rand.NewPCG(1, 2))
	var want []segment.Record
	for i := range 400 {
		at, stream := int64(rng.IntN(1000)), uint32(rng.IntN(3))
		var events []segment.Event
		for j := range 1 + rng.IntN(5) {
			at += int64(rng.IntN(3))
			events = append(events, segment.Event{Time: at, Message: fmt.Sprintf("event %d.%d %s", i, j, strings.Repeat("x", rng.IntN(40)))})
		}
		first, err := l.Append(t.Context(), stream, int64(5000+i), events)
		if err != nil {
			t.Fatal(err)
		}
		for j, e := range events {
			want = append(want, segment.Record{Event: e, Stream: stream, Seq: first + uint64(j), Ingested: int64(5000 + i)})
		}
	}
	sort.Slice(want, func(i, j int) bool {
		return want[i].Time < want[j].Time || want[i].Time == want[j].Time && want[i].Seq < want[j].Seq
	})
	check := func(what string, l *segment.Log) {
		t.Helper()
		for i := range 60 {
			q := segment.Query{From: int64(rng.IntN(900)), Backward: i%2 == 1}
			q.To = q.From + int64(rng.IntN(400)) + 1
			if i%3 == 0 {
				q.Streams = map[uint32]bool{uint32(rng.IntN(3)): true}
			}
			if i%4 == 0 {
				w := want[rng.IntN(len(want))]
				q.After = &segment.Pos{Time: w.Time, Seq: w.Seq}
			}
			var exp []segment.Record
			for _, w := range want {
				k, a := key{w.Time, w.Seq}, key{}
				if q.After != nil {
					a = key{q.After.Time, q.After.Seq}
				}
				after := a.time < k.time || a.time == k.time && a.seq < k.seq
				before := k.time < a.time || a.time == k.time && k.seq < a.seq
				if w.Time < q.From || w.Time >= q.To || q.Streams != nil && !q.Streams[w.Stream] || q.After != nil && (q.Backward && !before || !q.Backward && !after) {
					continue
				}
				exp = append(exp, w)
			}
			got := scan(t, l, q)
			if q.Backward {
				for i, j := 0, len(got)-1; i < j; i, j = i+1, j-1 {
					got[i], got[j] = got[j], got[i]
				}
			}
			if len(got) != len(exp) {
				t.Fatalf("%s: %+v: %d events, want %d", what, q, len(got), len(exp))
			}
			for i := range got {
				if got[i] != exp[i] {
					t.Fatalf("%s: %+v: event %d is %+v, want %+v", what, q, i, got[i], exp[i])
				}
			}
		}
	}
	check("raw", l)
	if err := l.Maintain(0, never); err != nil {
		t.Fatal(err)
	}
	check("sealed", l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segs, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(segs) == 0 {
		t.Fatal("nothing was sealed", err)
	}
	l = open(t, dir, segment.Options{SealBytes: 4 << 10})
	check("reopened", l)
	if _, err := l.Append(t.Context(), 1, 9999, []segment.Event{{Time: 2000, Message: "new"}}); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, l, segment.Query{From: 2000}); len(got) != 1 || got[0].Seq <= want[len(want)-1].Seq && got[0].Seq < uint64(len(want)) {
		t.Fatalf("after reopening: %+v", got)
	}
}

func TestTornTailIsCutOff(t *testing.T) {
	for cut := range 90 {
		dir := t.TempDir()
		l := open(t, dir, segment.Options{})
		for i := range 3 {
			if _, err := l.Append(t.Context(), 1, 1, []segment.Event{{Time: int64(i), Message: "message"}}); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
		path := filepath.Join(dir, "00000001.log")
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		block := fi.Size() / 3
		if int64(cut) >= block {
			break
		}
		if err := os.Truncate(path, 2*block+int64(cut)); err != nil {
			t.Fatal(err)
		}
		l = open(t, dir, segment.Options{})
		if got := scan(t, l, segment.Query{}); len(got) != 2 {
			t.Fatalf("cut after %d bytes: %d events, want 2", cut, len(got))
		}
		if _, err := l.Append(t.Context(), 1, 1, []segment.Event{{Time: 9, Message: "after"}}); err != nil {
			t.Fatal(err)
		}
		l.Close()
		l = open(t, dir, segment.Options{})
		if got := scan(t, l, segment.Query{}); len(got) != 3 {
			t.Fatalf("cut after %d bytes and appended: %d events, want 3", cut, len(got))
		}
		l.Close()
	}
}

func TestExpiryAndDroppedStreams(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, segment.Options{SealBytes: 1 << 10})
	for i := range 200 {
		if _, err := l.Append(t.Context(), uint32(i%2), 1, []segment.Event{{Time: int64(i), Message: "some message of some length"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Maintain(100, func(s uint32) bool { return s == 1 }); err != nil {
		t.Fatal(err)
	}
	for _, r := range scan(t, l, segment.Query{To: 80}) {
		t.Errorf("still there: %+v", r)
	}
	if got := scan(t, l, segment.Query{From: 100, Streams: map[uint32]bool{0: true}}); len(got) != 50 {
		t.Errorf("%d events are left, want 50", len(got))
	}
	if err := l.Maintain(1000, never); err != nil {
		t.Fatal(err)
	}
	if got := scan(t, l, segment.Query{}); len(got) != 0 {
		t.Errorf("%d events are left, want none", len(got))
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 {
		t.Errorf("files: %v %v", names, err)
	}
}

func TestConcurrentAppendsAndScans(t *testing.T) {
	l := open(t, t.TempDir(), segment.Options{SealBytes: 8 << 10})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 100 {
				if _, err := l.Append(context.Background(), uint32(w), 1, []segment.Event{{Time: int64(i), Message: "message of a writer"}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			if err := l.Maintain(0, never); err != nil {
				t.Error(err)
			}
			last := int64(-1)
			err := l.Scan(context.Background(), segment.Query{To: 1 << 60, Streams: map[uint32]bool{3: true}}, func(r *segment.Record) bool {
				if r.Time < last {
					t.Errorf("time %d after %d", r.Time, last)
				}
				last = r.Time
				return true
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	if got := scan(t, l, segment.Query{}); len(got) != 800 {
		t.Errorf("%d events, want 800", len(got))
	}
}

func BenchmarkAppend(b *testing.B) {
	l, err := segment.Open(b.TempDir(), segment.Options{Durable: true})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var events []segment.Event
	for i := range 5000 {
		events = append(events, segment.Event{Time: int64(i), Message: strings.Repeat("line of a log ", 12)})
	}
	b.SetBytes(int64(len(events) * len(events[0].Message)))
	for b.Loop() {
		if _, err := l.Append(context.Background(), 1, 1, events); err != nil {
			b.Fatal(err)
		}
	}
}
