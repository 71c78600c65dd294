package sns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"slipway/internal/mail"
	"slipway/internal/reconcile"
	"slipway/internal/store"
)

// errPermanent marks failures that trying again cannot mend.
var errPermanent = errors.New("sns: refused for good")

// maxAtOnce bounds how many posts go to one subscription at a time: an
// endpoint that hangs must not take all workers.
const maxAtOnce = 4

// job is a delivery with what it needs; topic, sub and msg are nil when the
// delivery is not wanted any more.
type job struct {
	row   *store.Row[delivery]
	topic *Topic
	sub   *Subscription
	msg   *message
}

// work is the controller of one outbox.
func (s *Service) work(box store.Table[delivery]) reconcile.Func {
	return func(ctx context.Context, key store.Key) (time.Duration, error) {
		j, err := s.load(ctx, box, key)
		if err != nil {
			return 0, err
		}
		if j.msg == nil {
			return 0, s.finish(ctx, box, key, "Dropped", "")
		}
		now := s.Clock.Now()
		if wait := j.row.Doc.Next.Sub(now); wait > 0 {
			return wait, nil
		}
		policy, throttle, contentType := effective(j.topic, j.sub)
		sub := key.Account + key.Region + j.row.Doc.Subscription
		wait, ok := s.gate.enter(sub, key, now, throttle)
		if !ok {
			return wait, nil
		}
		err = s.deliver(ctx, j, contentType)
		for _, next := range s.gate.leave(sub) {
			s.controller(box).Enqueue(next)
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		return s.settle(ctx, box, key, j, policy, err)
	}
}

func (s *Service) controller(box store.Table[delivery]) *reconcile.Controller {
	if box.Kind == posts.Kind {
		return s.posts
	}
	return s.mails
}

// settle records what became of an attempt.
func (s *Service) settle(ctx context.Context, box store.Table[delivery], key store.Key, j *job, policy retryPolicy, err error) (time.Duration, error) {
	topic := j.topic.Name
	if err == nil {
		s.Measure(key.Account, key.Region, topic, "NumberOfNotificationsDelivered", 1)
		return 0, s.finish(ctx, box, key, "Delivered", "")
	}
	attempts := j.row.Doc.Attempts + 1
	delay, again := policy.delay(attempts)
	if !again || errors.Is(err, errPermanent) {
		s.Log.Warn("a notification could not be delivered", "subscription", j.sub.ARN, "endpoint", j.sub.Protocol, "message", j.msg.ID, "attempts", attempts, "error", err)
		s.Measure(key.Account, key.Region, topic, "NumberOfNotificationsFailed", 1)
		return 0, s.finish(ctx, box, key, "Failed", err.Error())
	}
	s.Log.Info("a notification will be tried again", "subscription", j.sub.ARN, "message", j.msg.ID, "attempt", attempts, "in", delay, "error", err)
	_, err = box.Modify(ctx, s.Store, key.Account, key.Region, key.ID, "Retrying", func(d *delivery) error {
		d.Attempts, d.Next, d.Error = attempts, s.Clock.Now().Add(delay), err.Error()
		return nil
	})
	return max(delay, time.Millisecond), err
}

// load reads a delivery and whether it still makes sense: the subscription is
// there, in the state that the message is about.
func (s *Service) load(ctx context.Context, box store.Table[delivery], key store.Key) (*job, error) {
	j := &job{}
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		if j.row, err = box.Get(r, key.Account, key.Region, key.ID); err != nil {
			return err
		}
		m, err := messages.Get(r, key.Account, key.Region, j.row.Doc.Message)
		if err != nil {
			return ignoreMissing(err)
		}
		sub, err := subscriptions.Get(r, key.Account, key.Region, j.row.Doc.Subscription)
		if err != nil {
			return ignoreMissing(err)
		}
		t, err := topics.Get(r, key.Account, key.Region, sub.Doc.Topic)
		if err != nil {
			return ignoreMissing(err)
		}
		wants := map[string]string{typeSubscribe: statePending, typeUnsubscribe: stateDeleted, typeNotification: stateConfirmed, typeWelcome: stateConfirmed}
		if sub.Doc.State == wants[m.Doc.Type] && (m.Doc.Token == "" || m.Doc.Token == sub.Doc.Token) {
			j.topic, j.sub, j.msg = &t.Doc, &sub.Doc, &m.Doc
		}
		return nil
	})
	return j, err
}

func ignoreMissing(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// finish removes a delivery, and its message with the last one.
func (s *Service) finish(ctx context.Context, box store.Table[delivery], key store.Key, event, reason string) error {
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := box.Get(tx, key.Account, key.Region, key.ID)
		if err != nil {
			return err
		}
		var detail any
		if reason != "" {
			detail = map[string]string{"Subscription": row.Doc.Subscription, "Reason": reason}
		}
		if err := box.Delete(tx, row, event, detail); err != nil {
			return err
		}
		return dropMessage(tx, key.Account, key.Region, row.Doc.Message)
	})
	return ignoreMissing(err)
}

// dropMessage deletes a message that no delivery names any more.
func dropMessage(tx store.Tx, account, region, id string) error {
	for _, box := range []store.Table[delivery]{mailings, posts} {
		n, err := box.Count(tx, store.Query{Account: account, Region: region, Parent: id, Limit: 1})
		if err != nil || n > 0 {
			return err
		}
	}
	m, err := messages.Get(tx, account, region, id)
	if err != nil {
		return ignoreMissing(err)
	}
	return messages.Delete(tx, m, "Done", nil)
}

// deliver makes one attempt.
func (s *Service) deliver(ctx context.Context, j *job, contentType string) error {
	switch j.sub.Protocol {
	case "http", "https":
		return s.post(ctx, j, contentType)
	}
	if s.Mail == nil {
		return errNoMail
	}
	m, err := s.mailOf(j.topic, j.sub, j.msg)
	if err != nil {
		return err
	}
	err = s.Mail.Send(ctx, m)
	if errors.Is(err, mail.ErrPermanent) {
		err = fmt.Errorf("%w: %w", errPermanent, err)
	}
	return err
}

// postTimeout is how long an endpoint may take, in real time: it has no part
// in how fast our clock runs.
const postTimeout = 15 * time.Second

func (s *Service) post(ctx context.Context, j *job, contentType string) error {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	raw := j.msg.Type == typeNotification && j.sub.Attributes["RawMessageDelivery"] == "true"
	body := []byte(j.msg.body(j.sub.Protocol))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, j.sub.Endpoint, nil)
	if err != nil {
		return fmt.Errorf("%w: %w", errPermanent, err)
	}
	if !raw {
		if body, err = s.envelope(j.topic, j.sub, j.msg, s.base(r.URL.Hostname())); err != nil {
			return err
		}
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	h := r.Header
	h.Set("Content-Type", contentType)
	h.Set("User-Agent", "Amazon Simple Notification Service Agent")
	h.Set("x-amz-sns-message-type", j.msg.Type)
	h.Set("x-amz-sns-message-id", j.msg.ID)
	h.Set("x-amz-sns-topic-arn", j.msg.TopicARN)
	if j.msg.Type != typeSubscribe {
		h.Set("x-amz-sns-subscription-arn", j.sub.ARN)
	}
	if raw {
		h.Set("x-amz-sns-rawdelivery", "true")
	}
	res, err := s.http.Do(r)
	if err != nil {
		if errors.Is(err, errForbidden) {
			err = fmt.Errorf("%w: %w", errPermanent, err)
		}
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // what it says does not matter
	switch c := res.StatusCode; {
	case c/100 == 2:
		return nil
	case c/100 == 4 && c != http.StatusTooManyRequests:
		return fmt.Errorf("%w: the endpoint answered %s", errPermanent, res.Status)
	default:
		return fmt.Errorf("the endpoint answered %s", res.Status)
	}
}

// gate bounds what one subscription gets at a time and per second.
type gate struct {
	mu      sync.Mutex
	busy    map[string]int
	waiting map[string][]store.Key
	// free is when a throttled subscription may get the next one.
	free map[string]time.Time
}

// enter says whether a delivery may go now. If not, it comes back after wait,
// or, when wait is 0, it is in the list that leave returns from.
func (g *gate) enter(sub string, key store.Key, now time.Time, throttle *throttlePolicy) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if throttle != nil && throttle.MaxReceivesPerSecond != nil {
		if free := g.free[sub]; free.After(now) {
			return free.Sub(now), false
		}
	}
	if g.busy[sub] >= maxAtOnce {
		g.waiting[sub] = append(g.waiting[sub], key)
		return 0, false
	}
	if throttle != nil && throttle.MaxReceivesPerSecond != nil {
		if g.free == nil {
			g.free = map[string]time.Time{}
		}
		g.free[sub] = now.Add(seconds(1 / *throttle.MaxReceivesPerSecond))
	}
	g.busy[sub]++
	return 0, true
}

// leave ends a delivery and returns who may try now.
func (g *gate) leave(sub string) []store.Key {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.busy[sub]--; g.busy[sub] == 0 {
		delete(g.busy, sub)
	}
	w := g.waiting[sub]
	if len(w) == 0 {
		return nil
	}
	if g.waiting[sub] = w[1:]; len(w) == 1 {
		delete(g.waiting, sub)
	}
	return w[:1]
}

// sweep removes what has had its time: unconfirmed and deleted subscriptions,
// and the memory of FIFO messages.
func (s *Service) sweep(ctx context.Context) error {
	tick := s.Clock.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if err := s.sweepOnce(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("expired subscriptions could not be removed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) sweepOnce(ctx context.Context) error {
	now := s.Clock.Now()
	var old []store.Key
	// Looking is not writing: most of the time there is nothing to remove.
	err := s.Store.View(ctx, func(r store.Reader) error {
		for _, state := range []string{statePending, stateDeleted} {
			rows, err := subscriptions.List(r, store.Query{State: state})
			if err != nil {
				return err
			}
			for _, row := range rows {
				if !row.Doc.Until.After(now) {
					old = append(old, row.Key)
				}
			}
		}
		rows, err := dedups.List(r, store.Query{})
		for _, row := range rows {
			if now.Sub(row.Doc.At) >= dedupWindow {
				old = append(old, row.Key)
			}
		}
		return err
	})
	if err != nil || len(old) == 0 {
		return err
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		for _, key := range old {
			if err := expire(tx, key, now); err != nil {
				return err
			}
		}
		return nil
	})
}

// expire removes a row that is still as old as it was seen.
func expire(tx store.Tx, key store.Key, now time.Time) error {
	if key.Kind == dedups.Kind {
		row, err := dedups.Get(tx, key.Account, key.Region, key.ID)
		if err != nil || now.Sub(row.Doc.At) < dedupWindow {
			return ignoreMissing(err)
		}
		return dedups.Delete(tx, row, "Expired", nil)
	}
	row, err := subscriptions.Get(tx, key.Account, key.Region, key.ID)
	if err != nil || row.Doc.State == stateConfirmed || row.Doc.Until.After(now) {
		return ignoreMissing(err)
	}
	return subscriptions.Delete(tx, row, "Expired", nil)
}
