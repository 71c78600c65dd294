package codestarnotifications

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/statechange"
	"slipway/internal/store"
)

const (
	// batch is how many events are looked at in one transaction.
	batch = 256
	// cursorEvery is how long the cursor may lag behind where no rule asked for
	// anything: those events are read again after a crash, to no effect.
	cursorEvery = 10 * time.Second
	// patience is how long a message that fails for reasons that may pass is
	// tried again, in the service's time.
	patience = 15 * time.Minute
)

// Run reads events and publishes messages until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.outbox.Run(ctx) })
	g.Go(func() error { return s.follow(ctx) })
	return g.Wait()
}

// follow reads the events as they come.
func (s *Service) follow(ctx context.Context) error {
	sub := s.deps.Store.Subscribe(watched...)
	defer sub.Close()
	at, err := s.loadCursor(ctx)
	saved := at
	for err == nil && ctx.Err() == nil {
		next, n, stored, serr := s.step(ctx, at)
		if err = serr; err != nil {
			break
		}
		if at = next; stored {
			saved = at
		}
		if n == batch {
			continue
		}
		wait, cancel := ctx, context.CancelFunc(func() {})
		if at != saved {
			wait, cancel = context.WithTimeout(ctx, cursorEvery)
		}
		_, err = sub.Next(wait)
		cancel()
		switch {
		case errors.Is(err, store.ErrLagged):
			err = nil // the events are in the store all the same
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			saved = at
			err = s.deps.Store.Update(ctx, func(tx store.Tx) error { return saveCursor(tx, at) })
		}
	}
	if ctx.Err() != nil {
		return nil // a cursor that lags costs the next start a few reads
	}
	return err
}

func (s *Service) loadCursor(ctx context.Context) (int64, error) {
	row, err := cursors.Find(ctx, s.deps.Store, "", "", "reader")
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return row.Doc.Seq, nil
}

func saveCursor(tx store.Tx, seq int64) error {
	row, err := cursors.Get(tx, "", "", "reader")
	if errors.Is(err, store.ErrNotFound) {
		_, err := cursors.Insert(tx, "", "", "reader", cursor{seq}, "Created", nil)
		return err
	}
	if err != nil {
		return err
	}
	row.Doc.Seq = seq
	return cursors.Save(tx, row, "Moved", nil)
}

// step looks at the events after seq, at most a batch. It returns the last
// one's number, how many there were, and whether the cursor was stored: it is
// where messages were written, in the same transaction.
func (s *Service) step(ctx context.Context, seq int64) (next int64, n int, stored bool, err error) {
	var out []outgoing
	err = s.deps.Store.View(ctx, func(r store.Reader) error {
		evs, err := r.Events(seq, batch, watched...)
		next, n = seq, len(evs)
		for _, ev := range evs {
			next = ev.Seq
			more, err := s.wanted(r, ev)
			if err != nil {
				return err
			}
			out = append(out, more...)
		}
		return err
	})
	if err != nil || len(out) == 0 {
		return next, n, false, err
	}
	err = s.deps.Store.Update(ctx, func(tx store.Tx) error {
		for _, o := range out {
			_, err := deliveries.Insert(tx, o.key.Account, o.key.Region, o.key.ID, o.delivery, "Created", nil)
			if err != nil && !errors.Is(err, store.ErrExists) {
				return err
			}
		}
		return saveCursor(tx, next)
	})
	return next, n, true, err
}

type outgoing struct {
	key store.Key
	delivery
}

// wanted makes the messages that rules ask for about an event.
func (s *Service) wanted(r store.Reader, ev store.Event) ([]outgoing, error) {
	changes, err := statechange.Of(ev)
	if err != nil {
		s.deps.Log.Error("an event that cannot be read", "kind", ev.Key.Kind, "id", ev.Key.ID, "error", err)
		return nil, nil // it will not get better
	}
	var out []outgoing
	for i := range changes {
		c := &changes[i]
		types, err := typesOf(c)
		if err != nil {
			s.deps.Log.Error("a change that cannot be read", "kind", ev.Key.Kind, "id", ev.Key.ID, "error", err)
			continue
		}
		if len(types) == 0 {
			continue
		}
		found, err := rules.List(r, store.Query{Account: ev.Key.Account, Region: ev.Key.Region, Parent: c.Resource, State: api.NotificationRuleStatusEnabled})
		if err != nil {
			return nil, err
		}
		for _, row := range found {
			if row.Created.After(ev.At) || !slices.ContainsFunc(types, func(t string) bool { return slices.Contains(row.Doc.EventTypes, t) }) {
				continue
			}
			text := message(row, c, ev)
			for _, target := range row.Doc.Targets {
				sum := sha256.Sum256([]byte(target))
				id := fmt.Sprintf("%019d/%03d/%s/%s", ev.Seq, i, row.ID, hex.EncodeToString(sum[:8]))
				out = append(out, outgoing{deliveries.Key(row.Account, row.Region, id), delivery{Rule: row.ID, Target: target, Message: text, At: s.deps.Clock.Now()}})
			}
		}
	}
	return out, nil
}

// envelope is a notification, in AWS's order.
type envelope struct {
	Account    string          `json:"account"`
	DetailType string          `json:"detailType"`
	Region     string          `json:"region"`
	Source     string          `json:"source"`
	Time       string          `json:"time"`
	Rule       string          `json:"notificationRuleArn"`
	Detail     json.RawMessage `json:"detail"`
	Resources  []string        `json:"resources"`
	More       json.RawMessage `json:"additionalAttributes"`
}

func message(row *ruleRow, c *statechange.Change, ev store.Event) string {
	e := envelope{Account: row.Account, DetailType: c.DetailType, Region: row.Region, Source: c.Source, Time: ev.At.UTC().Format("2006-01-02T15:04:05Z"),
		Rule: arnOf(row.Key), Detail: c.Detail, Resources: c.Resources, More: json.RawMessage("{}")}
	if row.Doc.DetailType == api.DetailTypeFull && c.More != nil {
		e.More = c.More
	}
	raw, _ := json.Marshal(e) // made of JSON that was read before
	return string(raw)
}

// deliver publishes one message of the outbox.
func (s *Service) deliver(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := deliveries.Find(ctx, s.deps.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	d := &row.Doc
	who := caller.From(caller.ForService(ctx, "codestar-notifications", key.Account, key.Region))
	who.SourceARN = arnOf(rules.Key(key.Account, key.Region, d.Rule))
	_, failure := dispatch.Call(caller.With(ctx, who), s.deps.Mux, sns.OpPublish, &sns.PublishInput{TopicArn: &d.Target, Message: &d.Message})
	if failure != nil {
		if ctx.Err() != nil {
			return 0, nil // the next start tries again
		}
		e := awserr.As(failure)
		if passing := e == nil || e.Status >= 500 && e.Status != 501; passing && s.deps.Clock.Since(d.At) < patience {
			return 0, failure
		}
		s.deps.Log.Warn("a notification could not be sent; the target is unreachable", "rule", d.Rule, "topic", d.Target, "error", failure)
	}
	return 0, s.deps.Store.Update(ctx, func(tx store.Tx) error {
		if err := deliveries.Delete(tx, row, "Done", nil); err != nil {
			return err
		}
		t, err := targets.Get(tx, key.Account, key.Region, d.Target)
		if errors.Is(err, store.ErrNotFound) {
			return nil // deleted meanwhile
		}
		if err != nil {
			return err
		}
		status := api.TargetStatusActive
		if failure != nil {
			status = api.TargetStatusUnreachable
		}
		if t.Doc.Status == status {
			return nil
		}
		t.Doc.Status = status
		return targets.Save(tx, t, status, nil)
	})
}
