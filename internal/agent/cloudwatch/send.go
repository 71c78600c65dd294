package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"slipway/internal/agent/awscall"
	"slipway/internal/lean"
)

// Limits of one PutLogEvents call (API reference).
const (
	maxBatchEvents = 10_000
	maxBatchBytes  = 1 << 20
	eventOverhead  = 26
	maxBatchSpan   = 24 * time.Hour
)

// api calls an operation of a JSON service; *awscall.Client is one.
type api interface {
	JSON(ctx context.Context, signName, target string, header http.Header, in, out any) error
}

// logEvent is an event as PutLogEvents takes it and GetLogEvents returns it.
type logEvent struct {
	Timestamp int64  `json:"timestamp"`
	Message   string `json:"message"`
}

// sender puts batches into log streams, each exactly once.
type sender struct {
	api   api
	host  *host
	state *state
	log   *slog.Logger
	made  map[string]bool // groups whose settings were made by this process
}

// batch is what one PutLogEvents call carries.
type batch struct {
	group, stream string
	events        []logEvent
	in            intent
}

// send reads and sends one batch of a file. more says that the file may have another one now.
func (p *sender) send(ctx context.Context, s *source, t *tailed, now time.Time) (more bool, err error) {
	group, stream := p.host.expand(s.cfg.Group, now), p.host.expand(s.cfg.Stream, now)
	if err := p.decideAll(ctx, s.cfg.id(), streamKey(group, stream)); err != nil {
		return false, err
	}
	raw, to, skip, err := t.read(&s.cfg, now)
	if err != nil {
		return false, err
	}
	if to == t.pos.Offset {
		return false, nil // an unfinished event
	}
	b := p.pack(s, t, raw, to, skip, now)
	b.group, b.stream = group, stream
	if len(b.events) == 0 { // all filtered away: nothing that could be doubled
		t.pos.Offset, t.pos.Skip, p.state.dirty = b.in.To, b.in.Skip, true
	} else if err := p.put(ctx, &s.cfg, b); err != nil {
		return false, err
	}
	t.waiting = time.Time{}
	if more = t.pos.Offset < t.size; more {
		t.waiting = now
	}
	return more, nil
}

// pack makes a batch within the limits; what does not fit stays for the next.
func (p *sender) pack(s *source, t *tailed, raw []rawEvent, to int64, skip bool, now time.Time) *batch {
	b := &batch{in: intent{Source: t.pos.Source, Dev: t.pos.Dev, Ino: t.pos.Ino, To: t.pos.Offset, Skip: t.pos.Skip}}
	bytes := 0
	var low, high int64
	for _, e := range raw {
		text := valid(e.text)
		if strings.TrimSpace(text) != "" && s.cfg.keeps(e.text) {
			ts := s.stamp(e.text, now)
			l, h := min(low, ts), max(high, ts)
			if len(b.events) == 0 {
				l, h = ts, ts
			}
			if len(b.events) == maxBatchEvents || bytes+len(text)+eventOverhead > maxBatchBytes || h-l >= maxBatchSpan.Milliseconds() {
				return b
			}
			low, high = l, h
			bytes += len(text) + eventOverhead
			b.events = append(b.events, logEvent{Timestamp: ts, Message: text})
		}
		b.in.To, b.in.Skip = e.end, e.skip
	}
	b.in.To, b.in.Skip = to, skip
	return b
}

// stamp is an event's time in milliseconds: the one in its text, else that of the event before, else now.
func (s *source) stamp(text []byte, now time.Time) int64 {
	if s.cfg.Time != nil {
		if when, ok := s.cfg.Time.find(text, now); ok && when.UnixMilli() >= 0 {
			s.lastTS = when.UnixMilli()
			return s.lastTS
		}
		if s.lastTS > 0 {
			return s.lastTS
		}
	}
	return now.UnixMilli()
}

// put sends a batch and moves the position. After an error the position has not moved; an intent may be left.
func (p *sender) put(ctx context.Context, cfg *fileConfig, b *batch) error {
	slices.SortStableFunc(b.events, func(x, y logEvent) int { return int(min(max(x.Timestamp-y.Timestamp, -1), 1)) })
	if err := p.prepare(ctx, cfg, b); err != nil {
		return err
	}
	if err := p.witness(ctx, b); err != nil {
		return err
	}
	key := streamKey(b.group, b.stream)
	p.state.Intents[key] = &b.in
	if err := p.state.save(); err != nil {
		return fmt.Errorf("the agent's state cannot be written: %w", err)
	}
	var out struct {
		Rejected *struct {
			TooNew  *int `json:"tooNewLogEventStartIndex"`
			TooOld  *int `json:"tooOldLogEventEndIndex"`
			Expired *int `json:"expiredLogEventEndIndex"`
		} `json:"rejectedLogEventsInfo"`
	}
	err := p.call(ctx, "PutLogEvents", map[string]any{"logGroupName": b.group, "logStreamName": b.stream, "logEvents": b.events}, &out)
	var answer *awscall.Error
	switch {
	case err == nil:
		if r := out.Rejected; r != nil {
			p.log.Warn("CloudWatch Logs refused some events as too old or too new", "group", b.group, "stream", b.stream, "events", len(b.events))
		}
		return p.state.settle(&b.in, true)
	case !errors.As(err, &answer) || answer.Status >= 500:
		return err // it may have been stored: the intent stays
	case answer.Code == "InvalidParameterException" || answer.Code == "InvalidSequenceTokenException" || answer.Code == "DataAlreadyAcceptedException":
		p.log.Error("CloudWatch Logs does not take a batch; its events are given up", "group", b.group, "stream", b.stream, "events", len(b.events), "error", err)
		return p.state.settle(&b.in, true)
	}
	if answer.Code == "ResourceNotFoundException" {
		delete(p.made, streamKey(b.group, b.stream)) // deleted behind our back: made again at the next attempt
	}
	return errors.Join(err, p.state.settle(&b.in, false))
}

// witness chooses the event by which it will be known whether the batch was stored: one that the stream cannot hold
// yet, or else one that is counted now.
func (p *sender) witness(ctx context.Context, b *batch) error {
	last := b.events[len(b.events)-1]
	newest, known := p.state.Streams[streamKey(b.group, b.stream)]
	b.in.Group, b.in.Stream = b.group, b.stream
	b.in.Time, b.in.Hash, b.in.Newest = last.Timestamp, hashOf([]byte(last.Message)), last.Timestamp
	if !known || last.Timestamp <= newest {
		n, err := p.count(ctx, &b.in)
		if err != nil {
			return err
		}
		b.in.Before = n
	}
	b.in.After = b.in.Before
	for i := len(b.events) - 1; i >= 0 && b.events[i].Timestamp == last.Timestamp; i-- {
		if b.events[i].Message == last.Message {
			b.in.After++
		}
	}
	return nil
}

// decideAll decides what must be known before a source sends to a stream: its own last batch, whose stream may have had
// another name, and the stream's.
func (p *sender) decideAll(ctx context.Context, source, key string) error {
	for k, in := range p.state.Intents {
		if k == key || in.Source == source {
			if err := p.decide(ctx, in); err != nil {
				return err
			}
		}
	}
	return nil
}

// decide finds out about a batch that was sent without an answer.
func (p *sender) decide(ctx context.Context, in *intent) error {
	n, err := p.count(ctx, in)
	if err != nil {
		return err
	}
	stored := n >= in.After
	p.log.Info("a batch without an answer", "group", in.Group, "stream", in.Stream, "stored", stored)
	return p.state.settle(in, stored)
}

// count counts the events of the stream that equal the witness; 0 where there is no stream.
func (p *sender) count(ctx context.Context, in *intent) (int, error) {
	n, token := 0, ""
	for {
		req := map[string]any{"logGroupName": in.Group, "logStreamName": in.Stream, "startTime": in.Time, "endTime": in.Time + 1, "startFromHead": true}
		if token != "" {
			req["nextToken"] = token
		}
		var out struct {
			Events []logEvent `json:"events"`
			Next   string     `json:"nextForwardToken"`
		}
		err := p.call(ctx, "GetLogEvents", req, &out)
		var answer *awscall.Error
		if errors.As(err, &answer) && answer.Code == "ResourceNotFoundException" {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		for _, e := range out.Events {
			if e.Timestamp == in.Time && hashOf([]byte(e.Message)) == in.Hash {
				n++
			}
		}
		if out.Next == "" || out.Next == token {
			return n, nil
		}
		token = out.Next
	}
}

// prepare makes the group with its retention, and the stream.
func (p *sender) prepare(ctx context.Context, cfg *fileConfig, b *batch) error {
	key := streamKey(b.group, b.stream)
	if p.made[key] {
		return nil
	}
	group := map[string]any{"logGroupName": b.group}
	if cfg.Class != "" {
		group["logGroupClass"] = cfg.Class
	}
	if err := unlessExists(p.call(ctx, "CreateLogGroup", group, nil)); err != nil {
		return err
	}
	if cfg.Retention > 0 {
		if err := p.call(ctx, "PutRetentionPolicy", map[string]any{"logGroupName": b.group, "retentionInDays": cfg.Retention}, nil); err != nil {
			return err
		}
	}
	if err := unlessExists(p.call(ctx, "CreateLogStream", map[string]any{"logGroupName": b.group, "logStreamName": b.stream}, nil)); err != nil {
		return err
	}
	if len(p.made) > 10_000 { // names with dates
		clear(p.made)
	}
	p.made[key] = true
	return nil
}

func unlessExists(err error) error {
	var answer *awscall.Error
	if errors.As(err, &answer) && answer.Code == "ResourceAlreadyExistsException" {
		return nil
	}
	return err
}

func (p *sender) call(ctx context.Context, op string, in, out any) error {
	defer lean.Worked()
	return p.api.JSON(ctx, "logs", "Logs_20140328."+op, nil, in, out)
}
