package metricstore

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func putAt(t testing.TB, s *Store, source string, position uint64, values ...float64) {
	t.Helper()
	var points []Point
	for _, v := range values {
		points = append(points, Point{Metric: metricNamed(source), At: base0, Resolution: 60, Set: Of(v, 1)})
	}
	if err := s.PutAt(context.Background(), source, position, points); err != nil {
		t.Fatal(err)
	}
}

func counted(t testing.TB, s *Store, source string) float64 {
	t.Helper()
	n, _ := total(read(t, s, metricNamed(source), base0, base0.Add(time.Minute), 60))
	return n
}

func TestRepeatedPutsCountOnce(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	putAt(t, s, "a", 5, 1, 1)
	putAt(t, s, "a", 5, 1, 1) // again
	putAt(t, s, "a", 3, 1)    // and a part of it
	putAt(t, s, "b", 5, 1)    // another one's
	check := func(what string, a, b uint64) {
		t.Helper()
		if pa, pb := s.Position("a"), s.Position("b"); pa != a || pb != b || counted(t, s, "a") != 2 || counted(t, s, "b") != 1 {
			t.Fatalf("%s: at %d and %d, %v and %v points", what, pa, pb, counted(t, s, "a"), counted(t, s, "b"))
		}
	}
	check("at once", 5, 5)
	s.Close()
	s = open(t, dir, Options{})
	putAt(t, s, "a", 5, 1, 1)
	check("after a restart", 5, 5)
	s.Close()
	s = open(t, dir, Options{HeadBytes: 1}) // each put makes blocks and drops the log
	for range 8 {
		keep(t, s, Point{Metric: metricNamed("other"), At: base0, Resolution: 60, Set: Of(1, 1)})
	}
	s.Close()
	if logs, _ := filepath.Glob(filepath.Join(dir, "points-*.log")); len(logs) > 3 {
		t.Fatalf("%d logs: nothing was checkpointed", len(logs))
	}
	s = open(t, dir, Options{})
	putAt(t, s, "a", 5, 1, 1)
	putAt(t, s, "b", 5, 1)
	check("after checkpoints", 5, 5)
	putAt(t, s, "a", 0)
	putAt(t, s, "unknown", 0)
	check("forgotten", 0, 5)
	s.Close()
	s = open(t, dir, Options{})
	defer s.Close()
	check("forgotten for good", 0, 5)
	if err := s.PutAt(context.Background(), "", 1, nil); err == nil {
		t.Error("a source without a name is taken")
	}
}

// TestPositionsAreTrueWhereverTheLogEnds cuts the log at every byte: what is
// left has as many points as its position says.
func TestPositionsAreTrueWhereverTheLogEnds(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	for i := range uint64(12) {
		putAt(t, s, "a", i+1, float64(i))
	}
	s.Close()
	logs, _ := filepath.Glob(filepath.Join(dir, "points-*.log"))
	raw, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	positions := map[uint64]bool{}
	for cut := range raw {
		again := t.TempDir()
		if err := os.WriteFile(filepath.Join(again, filepath.Base(logs[0])), raw[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, again, Options{NoSync: true})
		at := s.Position("a")
		if n := counted(t, s, "a"); n != float64(at) {
			t.Fatalf("cut at byte %d: %v points at position %d", cut, n, at)
		}
		positions[at] = true
		// The producer goes on where it was.
		for i := at; i < 12; i++ {
			putAt(t, s, "a", i+1, float64(i))
		}
		if n := counted(t, s, "a"); n != 12 {
			t.Fatalf("cut at byte %d: %v points in the end", cut, n)
		}
		s.Close()
	}
	if len(positions) != 12 {
		t.Errorf("positions %v", positions)
	}
}

func TestPutsOfOneMomentCountOnce(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	defer s.Close()
	var wg sync.WaitGroup
	for range 20 { // the same put from many sides, in as few records as may be
		wg.Go(func() {
			for p := range uint64(10) {
				putAt(t, s, "a", p+1, 1)
			}
		})
	}
	wg.Wait()
	if n := counted(t, s, "a"); n != 10 {
		t.Errorf("%v points of ten", n)
	}
}
