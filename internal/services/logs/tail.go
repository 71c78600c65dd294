package logs

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/internal/api/logs"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/services/logs/pattern"
	"slipway/internal/services/logs/segment"
)

// Limits of live tail ("StartLiveTail" in the API reference).
const (
	tailGroups  = 10
	tailEach    = time.Second // between updates
	tailResults = 500         // per update; of more, a sample is sent
	tailLongest = 3 * time.Hour
	maxTails    = 15 // sessions at once
)

// tails are the live tail sessions.
type tails struct {
	mu   sync.Mutex
	open map[*tail]bool
}

// tail is one session.
type tail struct {
	groups   map[groupKey]string // with the identifier that the caller used
	streams  []string
	prefixes []string
	pattern  *pattern.Pattern

	mu      sync.Mutex
	pending []logs.LiveTailSessionLogEvent
	sampled bool
}

// offer gives new events to all sessions that want them. It never waits.
func (t *tails) offer(k groupKey, stream string, ingested int64, events []segment.Event) {
	t.mu.Lock()
	open := slices.Collect(maps.Keys(t.open))
	t.mu.Unlock()
	for _, x := range open {
		if id, ok := x.groups[k]; ok && x.wants(stream) {
			x.add(id, stream, ingested, events)
		}
	}
}

func (x *tail) wants(stream string) bool {
	if x.streams == nil && x.prefixes == nil {
		return true
	}
	return slices.Contains(x.streams, stream) || slices.ContainsFunc(x.prefixes, func(p string) bool { return strings.HasPrefix(stream, p) })
}

func (x *tail) add(id, stream string, ingested int64, events []segment.Event) {
	for i := range events {
		e := &events[i]
		if !x.pattern.Match(e.Message) {
			continue
		}
		x.mu.Lock()
		if len(x.pending) < tailResults {
			x.pending = append(x.pending, logs.LiveTailSessionLogEvent{LogStreamName: &stream, LogGroupIdentifier: &id, Message: new(e.Message), Timestamp: new(e.Time), IngestionTime: &ingested})
		} else {
			x.sampled = true
		}
		x.mu.Unlock()
	}
}

// take empties the session's events.
func (x *tail) take() *logs.LiveTailSessionUpdate {
	x.mu.Lock()
	defer x.mu.Unlock()
	u := &logs.LiveTailSessionUpdate{SessionResults: x.pending, SessionMetadata: &logs.LiveTailSessionMetadata{Sampled: new(x.sampled)}}
	if u.SessionResults == nil {
		u.SessionResults = []logs.LiveTailSessionLogEvent{}
	}
	x.pending, x.sampled = nil, false
	return u
}

func (s *Service) registerTail(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpStartLiveTail, s.startTail)
}

func (s *Service) startTail(ctx context.Context, in *logs.StartLiveTailInput) (*logs.StartLiveTailOutput, error) {
	p, err := parsePattern(in.LogEventFilterPattern)
	if err != nil {
		return nil, err
	}
	if len(in.LogGroupIdentifiers) > tailGroups {
		return nil, invalid("At most %d log groups can be specified.", tailGroups)
	}
	if in.LogStreamNames != nil && in.LogStreamNamePrefixes != nil {
		return nil, invalid("logStreamNames and logStreamNamePrefixes cannot be specified together.")
	}
	if len(in.LogGroupIdentifiers) != 1 && (in.LogStreamNames != nil || in.LogStreamNamePrefixes != nil) {
		return nil, invalid("logStreamNames and logStreamNamePrefixes need exactly one log group.")
	}
	id := caller.From(ctx)
	x := &tail{groups: map[groupKey]string{}, streams: in.LogStreamNames, prefixes: in.LogStreamNamePrefixes, pattern: p}
	for _, ident := range in.LogGroupIdentifiers {
		g, err := s.findGroup(ctx, fromARN(ident))
		if err != nil {
			return nil, err
		}
		x.groups[groupKey{g.Account, g.Region, g.ID}] = id.Account + ":" + g.Doc.Name
	}
	start := &logs.LiveTailSessionStart{RequestId: new(newUUID()), SessionId: new(newUUID()), LogGroupIdentifiers: in.LogGroupIdentifiers,
		LogStreamNames: in.LogStreamNames, LogStreamNamePrefixes: in.LogStreamNamePrefixes, LogEventFilterPattern: new(ptr.Value(in.LogEventFilterPattern))}
	return &logs.StartLiveTailOutput{ResponseStream: func(ctx context.Context, send func(*logs.StartLiveTailResponseStream) error) error {
		return s.streamTail(ctx, x, start, send)
	}}, nil
}

// streamTail sends updates until the client leaves, the longest time is over,
// or the server stops.
func (s *Service) streamTail(ctx context.Context, x *tail, start *logs.LiveTailSessionStart, send func(*logs.StartLiveTailResponseStream) error) error {
	s.tails.mu.Lock()
	if len(s.tails.open) >= maxTails {
		s.tails.mu.Unlock()
		return invalid("There are %d live tail sessions already, which is the most.", maxTails)
	}
	if s.tails.open == nil {
		s.tails.open = map[*tail]bool{}
	}
	s.tails.open[x] = true
	s.tails.mu.Unlock()
	defer func() {
		s.tails.mu.Lock()
		delete(s.tails.open, x)
		s.tails.mu.Unlock()
	}()
	if err := send(&logs.StartLiveTailResponseStream{SessionStart: start}); err != nil {
		return err
	}
	tick := clock.Real.NewTicker(tailEach)
	defer tick.Stop()
	longest := clock.Real.NewTimer(tailLongest)
	defer longest.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.queries.base.Done(): // the service ends
			return nil
		case <-longest.C:
			return nil
		case <-tick.C:
			if err := send(&logs.StartLiveTailResponseStream{SessionUpdate: x.take()}); err != nil {
				return err
			}
		}
	}
}
