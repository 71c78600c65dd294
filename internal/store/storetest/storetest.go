// Package storetest is the conformance suite of store.Store: every engine
// runs it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"slipway/internal/store"
)

type thing struct{ Name, Group, State string }

var things = store.NewTable("test:thing", func(d *thing) (string, string) { return d.Group, d.State })

const account, region = "123456789012", "us-east-1"

// Run runs the suite; open returns a fresh empty store that it closes itself.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, f := range map[string]func(*testing.T, store.Store){
		"Lifecycle": lifecycle, "Versions": versions, "Undo": undo, "List": list, "Events": events,
		"Batches": batches, "Counter": counter, "Panic": panics, "Cancelled": cancelled,
	} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s store.Store, id string, d thing) {
	t.Helper()
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		_, err := things.Insert(tx, account, region, id, d, "Created", nil)
		return err
	}))
}

func lifecycle(t *testing.T, s store.Store) {
	put(t, s, "a", thing{Name: "one"})
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := things.Insert(tx, account, region, "a", thing{}, "Created", nil)
		return err
	})
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("second insert: %v", err)
	}
	row, err := things.Modify(t.Context(), s, account, region, "a", "Renamed", func(d *thing) error { d.Name = "two"; return nil })
	must(t, err)
	if row.Version != 2 || row.Doc.Name != "two" {
		t.Errorf("after modify: %+v", row)
	}
	row, err = things.Modify(t.Context(), s, account, region, "a", "Renamed", func(d *thing) error { return store.ErrUnchanged })
	must(t, err)
	if row.Version != 2 {
		t.Errorf("an unchanged row got version %d", row.Version)
	}
	must(t, s.Update(t.Context(), func(tx store.Tx) error { return things.Delete(tx, row, "Deleted", nil) }))
	if _, err := things.Find(t.Context(), s, account, region, "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("after delete: %v", err)
	}
	err = s.Update(t.Context(), func(tx store.Tx) error { return things.Delete(tx, row, "Deleted", nil) })
	if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
}

func versions(t *testing.T, s store.Store) {
	put(t, s, "a", thing{})
	old, err := things.Find(t.Context(), s, account, region, "a")
	must(t, err)
	_, err = things.Modify(t.Context(), s, account, region, "a", "X", func(d *thing) error { d.Name = "new"; return nil })
	must(t, err)
	for what, f := range map[string]func(store.Tx) error{
		"save":   func(tx store.Tx) error { return things.Save(tx, old, "X", nil) },
		"delete": func(tx store.Tx) error { return things.Delete(tx, old, "X", nil) },
	} {
		if err := s.Update(t.Context(), f); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s of an old version: %v", what, err)
		}
	}
}

func undo(t *testing.T, s store.Store) {
	sub := s.Subscribe()
	defer sub.Close()
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx store.Tx) error {
		if _, err := things.Insert(tx, account, region, "a", thing{}, "Created", nil); err != nil {
			return err
		}
		return boom
	})
	if err != boom {
		t.Errorf("got %v", err)
	}
	if _, err := things.Find(t.Context(), s, account, region, "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the write was not undone: %v", err)
	}
	put(t, s, "b", thing{})
	ev, err := sub.Next(t.Context())
	must(t, err)
	if ev.Key.ID != "b" {
		t.Errorf("an undone write sent an event: %+v", ev)
	}
}

func list(t *testing.T, s store.Store) {
	for _, id := range []string{"b2", "a1", "b1", "c%_1", "c"} {
		put(t, s, id, thing{Group: "g" + id[:1], State: "S" + id[len(id)-1:]})
	}
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		_, err := things.Insert(tx, account, "eu-west-1", "b3", thing{Group: "gb"}, "Created", nil)
		return err
	}))
	for _, tc := range []struct {
		name string
		q    store.Query
		want string
	}{
		{"all", store.Query{}, "[a1 b1 b2 b3 c c%_1]"},
		{"region", store.Query{Account: account, Region: region}, "[a1 b1 b2 c c%_1]"},
		{"parent", store.Query{Parent: "gb"}, "[b1 b2 b3]"},
		{"state", store.Query{State: "S1", Region: region}, "[a1 b1 c%_1]"},
		{"prefix", store.Query{Prefix: "b"}, "[b1 b2 b3]"},
		{"prefix is no pattern", store.Query{Prefix: "c%"}, "[c%_1]"},
		{"after", store.Query{After: "b1", Limit: 2}, "[b2 b3]"},
		{"descending", store.Query{Descending: true, After: "b3", Limit: 2}, "[b2 b1]"},
	} {
		rows, err := things.Select(t.Context(), s, tc.q)
		must(t, err)
		ids := []string{}
		for _, r := range rows {
			ids = append(ids, r.ID)
		}
		if got := fmt.Sprint(ids); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
	must(t, s.View(t.Context(), func(r store.Reader) error {
		n, err := things.Count(r, store.Query{Parent: "gb"})
		if n != 3 {
			t.Errorf("count %d", n)
		}
		return err
	}))
}

func events(t *testing.T, s store.Store) {
	sub, other := s.Subscribe(things.Kind), s.Subscribe("other:kind")
	defer sub.Close()
	put(t, s, "a", thing{State: "new"})
	must(t, s.Update(t.Context(), func(tx store.Tx) error {
		row, err := things.Get(tx, account, region, "a")
		if err != nil {
			return err
		}
		return things.Delete(tx, row, "Gone", map[string]string{"why": "test"})
	}))
	first, err := sub.Next(t.Context())
	must(t, err)
	second, err := sub.Next(t.Context())
	must(t, err)
	if first.Type != "Created" || first.State != "new" || second.Type != "Gone" || !second.Deleted || string(second.Detail) != `{"why":"test"}` || second.Seq <= first.Seq {
		t.Errorf("events %+v %+v", first, second)
	}
	must(t, s.View(t.Context(), func(r store.Reader) error {
		evs, err := r.Events(first.Seq, 10, things.Kind)
		if len(evs) != 1 || evs[0].Type != "Gone" {
			t.Errorf("history %+v", evs)
		}
		return err
	}))
	other.Close()
	if _, err := other.Next(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("closed subscription: %v", err)
	}
	last, err := s.LastTime(t.Context())
	must(t, err)
	if time.Since(last).Abs() > time.Hour {
		t.Errorf("last time %v", last)
	}
}

func batches(t *testing.T, s store.Store) {
	const writers, each = 16, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				err := s.Update(context.Background(), func(tx store.Tx) error {
					if _, err := things.Insert(tx, account, region, fmt.Sprintf("%d-%d", w, i), thing{}, "Created", nil); err != nil {
						return err
					}
					if i%5 == 4 {
						return errors.New("undo this one")
					}
					return nil
				})
				if (err != nil) != (i%5 == 4) {
					t.Errorf("%d-%d: %v", w, i, err)
				}
			}
		})
	}
	wg.Wait()
	rows, err := things.Select(t.Context(), s, store.Query{})
	must(t, err)
	if want := writers * each * 4 / 5; len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
}

func counter(t *testing.T, s store.Store) {
	key := store.Key{Kind: "test:counter", Account: account, Region: region, ID: "builds"}
	for want := int64(1); want <= 3; want++ {
		must(t, s.Update(t.Context(), func(tx store.Tx) error {
			got, err := tx.Counter(key, 1)
			if got != want {
				t.Errorf("counter %d, want %d", got, want)
			}
			return err
		}))
	}
}

func panics(t *testing.T, s store.Store) {
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := things.Insert(tx, account, region, "a", thing{}, "Created", nil)
		must(t, err)
		panic("in an update")
	})
	if err == nil {
		t.Error("no error from a panic")
	}
	put(t, s, "a", thing{})
}

func cancelled(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(ctx, func(store.Tx) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
