package reconcile

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"slipway/internal/store"
)

type doc struct{ N int }

var table = store.NewTable[doc]("test:thing", nil)

func open(t *testing.T) store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func insert(t *testing.T, s store.Store, id string) store.Key {
	t.Helper()
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := table.Insert(tx, "a", "r", id, doc{}, "Created", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return table.Key("a", "r", id)
}

func run(t *testing.T, c *Controller) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("Run:", err)
		}
	}
}

func TestRowsAtStartAndEventsAreReconciled(t *testing.T) {
	s := open(t)
	insert(t, s, "before")
	seen := make(chan string, 16)
	stop := run(t, &Controller{Name: "t", Store: s, Kind: table.Kind, Reconcile: func(_ context.Context, k store.Key) (time.Duration, error) {
		seen <- k.ID
		return 0, nil
	}})
	defer stop()
	if id := <-seen; id != "before" {
		t.Fatalf("got %q", id)
	}
	insert(t, s, "after")
	if id := <-seen; id != "after" {
		t.Fatalf("got %q", id)
	}
}

func TestSameKeyNeverTwiceAtOnceAndNothingIsForgotten(t *testing.T) {
	s := open(t)
	key := insert(t, s, "x")
	var inside, calls atomic.Int32
	var bad atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(entered) })
	stop := run(t, &Controller{Name: "t", Store: s, Kind: table.Kind, Workers: 4, Reconcile: func(context.Context, store.Key) (time.Duration, error) {
		if inside.Add(1) > 1 {
			bad.Store(true)
		}
		first()
		<-release
		inside.Add(-1)
		calls.Add(1)
		return 0, nil
	}})
	defer stop()
	<-entered // else one call may see all the changes
	c := make(chan struct{})
	go func() {
		defer close(c)
		for range 50 {
			_, err := table.Modify(context.Background(), s, key.Account, key.Region, key.ID, "Changed", func(d *doc) error { d.N++; return nil })
			if err != nil {
				t.Error(err)
			}
		}
	}()
	<-c
	close(release)
	deadline := time.After(time.Minute)
	for calls.Load() < 2 {
		select {
		case <-deadline:
			t.Fatal("the change made during the first call was forgotten")
		case <-time.After(time.Millisecond):
		}
	}
	if bad.Load() {
		t.Error("the same key ran twice at once")
	}
}

func TestErrorsAreTriedAgainAndRequeueWorks(t *testing.T) {
	s := open(t)
	insert(t, s, "x")
	var mu sync.Mutex
	n := 0
	done := make(chan struct{})
	stop := run(t, &Controller{Name: "t", Store: s, Kind: table.Kind, Reconcile: func(context.Context, store.Key) (time.Duration, error) {
		mu.Lock()
		defer mu.Unlock()
		n++
		switch n {
		case 1:
			return 0, errors.New("once")
		case 2:
			return 0, store.ErrConflict
		case 3:
			return time.Millisecond, nil
		case 4:
			panic("in a controller")
		case 5:
			close(done)
		}
		return 0, nil
	}})
	defer stop()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("not called five times")
	}
}

func TestRunLeavesNoGoroutine(t *testing.T) {
	s, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	key := table.Key("a", "r", "x")
	stop := run(t, &Controller{Name: "t", Store: s, Kind: table.Kind, Reconcile: func(context.Context, store.Key) (time.Duration, error) {
		return time.Hour, nil
	}})
	insert(t, s, key.ID)
	stop()
	goleak.VerifyNone(t, before)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
