package segment_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/services/logs/segment"
)

// TestLiteral compares searches through the index with reading everything,
// with the index whole, damaged and missing, before and after a restart.
func TestLiteral(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "log")
	l, err := segment.Open(dir, segment.Options{SealBytes: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	word := func() string { return fmt.Sprintf("%x", rng.IntN(1<<20)) }
	for i := range 200 {
		var events []segment.Event
		for range 50 {
			events = append(events, segment.Event{Time: int64(i), Message: strings.Repeat(word()+" ", 20)})
		}
		if _, err := l.Append(context.Background(), uint32(i%3), 1, events); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Maintain(-1, func(uint32) bool { return false }); err != nil {
		t.Fatal(err)
	}
	check := func(what string) {
		t.Helper()
		all := scan(t, l, segment.Query{})
		skipped := 0
		for range 100 {
			lit := word()
			want := map[uint64]bool{}
			for _, r := range all {
				if strings.Contains(r.Message, lit) {
					want[r.Seq] = true
				}
			}
			got := scan(t, l, segment.Query{Literal: lit})
			skipped += len(all) - len(got)
			for _, r := range got {
				delete(want, r.Seq)
			}
			if len(want) > 0 {
				t.Errorf("%s: %q is missed in %d events", what, lit, len(want))
			}
		}
		if skipped == 0 {
			t.Errorf("%s: nothing was passed over", what)
		}
	}
	check("sealed")
	reopen := func() {
		t.Helper()
		l.Close()
		if l, err = segment.Open(dir, segment.Options{SealBytes: 256 << 10}); err != nil {
			t.Fatal(err)
		}
	}
	reopen()
	check("reopened")
	names, err := filepath.Glob(filepath.Join(dir, "*.idx"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	os.WriteFile(names[0], make([]byte, 100_000), 0o600)
	os.Truncate(names[1], 77)
	os.Remove(names[2])
	reopen()
	defer l.Close()
	check("damaged")
	if err := l.Maintain(1<<40, func(uint32) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.idx")); len(left) > 0 {
		t.Error("indexes outlive their segments:", left)
	}
}
