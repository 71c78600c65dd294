package logs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/internal/api/logs"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/services/logs/pattern"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// Limits of PutLogEvents and of a page ("PutLogEvents" and "GetLogEvents" in
// the CloudWatch Logs API reference).
const (
	maxBatchBytes = 1_048_576
	eventOverhead = 26 // bytes that each event counts besides its message
	maxBatchSpan  = 24 * time.Hour
	maxFuture     = 2 * time.Hour
	maxPast       = 14 * 24 * time.Hour
	maxPage       = 10_000
	maxPageBytes  = 1 << 20
	// maxScan bounds how many events one FilterLogEvents looks at; it then
	// answers what it found and a token.
	maxScan = 2_000_000
)

func (s *Service) registerEvents(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpPutLogEvents, s.putEvents)
	dispatch.Register(m, logs.OpGetLogEvents, s.getEvents)
	dispatch.Register(m, logs.OpFilterLogEvents, s.filterEvents)
}

func sequenceToken(seq uint64) string { return fmt.Sprintf("%056d", seq) }

// accept splits a batch into what is stored and what is rejected. Programs
// stamp events with the machine's clock, services with the server's, which
// may be scaled: an event is too new or too old only if it is for both.
func (s *Service) accept(g *group, in []logs.InputLogEvent) ([]segment.Event, *logs.RejectedLogEventsInfo, error) {
	size := 0
	for i := range in {
		size += len(*in[i].Message) + eventOverhead
		if i > 0 && *in[i].Timestamp < *in[i-1].Timestamp {
			return nil, nil, invalid("Log events in a single PutLogEvents request must be in chronological order.")
		}
	}
	if size > maxBatchBytes {
		return nil, nil, invalid("Upload too large: %d bytes exceeds limit of %d", size, maxBatchBytes)
	}
	if *in[len(in)-1].Timestamp-*in[0].Timestamp > maxBatchSpan.Milliseconds() {
		return nil, nil, invalid("The batch of log events in a single PutLogEvents request cannot span more than 24 hours.")
	}
	ours, real := s.Clock.Now(), clock.Real.Now()
	early, late := ours, real
	if late.Before(early) {
		early, late = late, early
	}
	tooOld, tooNew, expired := early.Add(-maxPast).UnixMilli(), late.Add(maxFuture).UnixMilli(), s.cutoff(g)
	var rej logs.RejectedLogEventsInfo
	events := make([]segment.Event, 0, len(in))
	for i := range in {
		at := *in[i].Timestamp
		switch {
		case at < tooOld:
			rej.TooOldLogEventEndIndex = new(int64(i + 1))
		case at < expired:
			rej.ExpiredLogEventEndIndex = new(int64(i + 1))
		case at > tooNew:
			if rej.TooNewLogEventStartIndex == nil {
				rej.TooNewLogEventStartIndex = new(int64(i))
			}
		default:
			events = append(events, segment.Event{Time: at, Message: *in[i].Message})
		}
	}
	if rej == (logs.RejectedLogEventsInfo{}) {
		return events, nil, nil
	}
	return events, &rej, nil
}

func (s *Service) putEvents(ctx context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
	g, st, err := s.find(ctx, fromARN(ptr.Value(in.LogGroupName)), ptr.Value(in.LogStreamName))
	if err != nil {
		return nil, err
	}
	if len(in.LogEvents) == 0 {
		return nil, invalid("1 validation error detected: Value '[]' at 'logEvents' failed to satisfy constraint: Member must have length greater than or equal to 1")
	}
	events, rejected, err := s.accept(&g.Doc, in.LogEvents)
	if err != nil {
		return nil, err
	}
	l, err := s.log(&g.Doc)
	if err != nil {
		return nil, err
	}
	if err := s.noteEMF(ctx, g, l, events); err != nil {
		return nil, err
	}
	ingested := s.Clock.Now().UnixMilli()
	first, err := l.Append(ctx, st.Doc.Number, ingested, events)
	if errors.Is(err, segment.ErrClosed) {
		return nil, noGroup() // deleted just now
	}
	if err != nil {
		return nil, err
	}
	s.observe(g, st, ingested, events)
	return &logs.PutLogEventsOutput{NextSequenceToken: new(sequenceToken(first + uint64(len(events)))), RejectedLogEventsInfo: rejected}, nil
}

// observe tells those who want to know of new events.
func (s *Service) observe(g *store.Row[group], st *store.Row[stream], ingested int64, events []segment.Event) {
	if len(events) == 0 {
		return
	}
	bytes := 0
	for i := range events {
		bytes += len(events[i].Message) + eventOverhead
	}
	k := groupKey{g.Account, g.Region, g.ID}
	s.feed.touch(k, len(events), bytes)
	s.tails.offer(k, st.Doc.Name, ingested, events)
}

// noteEMF makes a group's cursor before its first event in the embedded metric
// format is stored, so that not even a crash hides it.
func (s *Service) noteEMF(ctx context.Context, g *store.Row[group], l *segment.Log, events []segment.Event) error {
	if !slices.ContainsFunc(events, func(e segment.Event) bool { return maybeEMF(e.Message) }) {
		return nil
	}
	cur, err := cursors.Find(ctx, s.Store, g.Account, g.Region, g.ID)
	if err == nil && cur.Doc.EMF {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	next := l.Next()
	return s.Store.Update(ctx, func(tx store.Tx) error { return ensureCursor(tx, g, next, true) })
}

// posText writes a position as the 56 digits of a token or an event id.
func posText(p segment.Pos) string { return fmt.Sprintf("%036d%020d", p.Time, p.Seq) }

func parsePos(s string) (segment.Pos, bool) {
	if len(s) != 56 {
		return segment.Pos{}, false
	}
	at, err1 := strconv.ParseInt(s[:36], 10, 64)
	seq, err2 := strconv.ParseUint(s[36:], 10, 64)
	return segment.Pos{Time: at, Seq: seq}, err1 == nil && err2 == nil
}

// getEvents pages through one stream. A forward token points at the last
// event of its page, a backward token at the first: each page goes on behind
// (before) it, and an empty page gives its own token back.
func (s *Service) getEvents(ctx context.Context, in *logs.GetLogEventsInput) (*logs.GetLogEventsOutput, error) {
	name, err := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	g, st, err := s.find(ctx, name, ptr.Value(in.LogStreamName))
	if err != nil {
		return nil, err
	}
	q := segment.Query{Streams: map[uint32]bool{st.Doc.Number: true}, From: ptr.Value(in.StartTime), To: math.MaxInt64, Backward: !ptr.Value(in.StartFromHead)}
	q.From = max(q.From, s.cutoff(&g.Doc))
	if in.EndTime != nil {
		q.To = *in.EndTime
	}
	if in.NextToken != nil {
		if err := resume(&q, *in.NextToken); err != nil {
			return nil, err
		}
	}
	recs, err := s.page(ctx, &g.Doc, q, pageLimit(in.Limit, maxPage), nil)
	if err != nil {
		return nil, err
	}
	if q.Backward {
		slices.Reverse(recs.list)
	}
	out := &logs.GetLogEventsOutput{Events: make([]logs.OutputLogEvent, 0, len(recs.list))}
	for i := range recs.list {
		r := &recs.list[i]
		out.Events = append(out.Events, logs.OutputLogEvent{Timestamp: &r.Time, Message: &r.Message, IngestionTime: &r.Ingested})
	}
	forward, backward := ends(recs.list, q)
	out.NextForwardToken, out.NextBackwardToken = new("f/"+posText(forward)+"/s"), new("b/"+posText(backward)+"/s")
	return out, nil
}

// resume reads a GetLogEvents token.
func resume(q *segment.Query, token string) error {
	parts := strings.Split(token, "/")
	if len(parts) != 3 || parts[0] != "f" && parts[0] != "b" || parts[2] != "s" {
		return badToken()
	}
	pos, ok := parsePos(parts[1])
	if !ok {
		return badToken()
	}
	q.After, q.Backward = &pos, parts[0] == "b"
	return nil
}

// ends are the positions of a page's tokens. list is in ascending order.
func ends(list []segment.Record, q segment.Query) (forward, backward segment.Pos) {
	if n := len(list); n > 0 {
		return segment.Pos{Time: list[n-1].Time, Seq: list[n-1].Seq}, segment.Pos{Time: list[0].Time, Seq: list[0].Seq}
	}
	switch {
	case q.After == nil: // nothing there: later events come behind the first token
		return segment.Pos{}, segment.Pos{}
	case q.Backward: // all before was seen; going forward begins with the event of the token itself
		forward, backward = *q.After, *q.After
		if forward.Seq > 0 {
			forward.Seq--
		}
		return forward, backward
	}
	return *q.After, segment.Pos{Time: q.After.Time, Seq: q.After.Seq + 1}
}

// found is one page of events.
type found struct {
	list []segment.Record
	more bool         // the page is full
	last *segment.Pos // of the last event that was looked at, where more
}

// page collects events that match until the page is full.
func (s *Service) page(ctx context.Context, g *group, q segment.Query, limit int, p *pattern.Pattern) (found, error) {
	l, err := s.log(g)
	if err != nil {
		return found{}, err
	}
	if p != nil {
		q.Literal = p.Literal()
	}
	var f found
	size, seen := 0, 0
	err = l.Scan(ctx, q, func(r *segment.Record) bool {
		matches := p == nil || p.Match(r.Message)
		if matches {
			size += len(r.Message) + eventOverhead
		}
		if len(f.list) > 0 && (len(f.list) >= limit || size > maxPageBytes) && matches || seen >= maxScan {
			f.more = true
			return false
		}
		seen++
		f.last = &segment.Pos{Time: r.Time, Seq: r.Seq}
		if matches {
			f.list = append(f.list, *r)
		}
		return true
	})
	if errors.Is(err, segment.ErrClosed) {
		err = noGroup()
	}
	return f, err
}

func (s *Service) filterEvents(ctx context.Context, in *logs.FilterLogEventsInput) (*logs.FilterLogEventsOutput, error) {
	name, err := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	p, err := parsePattern(in.FilterPattern)
	if err != nil {
		return nil, err
	}
	if in.LogStreamNames != nil && in.LogStreamNamePrefix != nil {
		return nil, invalid("logStreamNames and logStreamNamePrefix cannot be specified together.")
	}
	g, names, err := s.choose(ctx, name, in.LogStreamNames, ptr.Value(in.LogStreamNamePrefix))
	if err != nil {
		return nil, err
	}
	q := segment.Query{Streams: map[uint32]bool{}, From: max(ptr.Value(in.StartTime), s.cutoff(&g.Doc)), To: math.MaxInt64}
	for n := range names {
		q.Streams[n] = true
	}
	if in.EndTime != nil {
		q.To = *in.EndTime + 1 // inclusive here, unlike GetLogEvents
	}
	token, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	if token != "" {
		pos, ok := parsePos(token)
		if !ok {
			return nil, badToken()
		}
		q.After = &pos
	}
	recs, err := s.page(ctx, &g.Doc, q, pageLimit(in.Limit, maxPage), p)
	if err != nil {
		return nil, err
	}
	out := &logs.FilterLogEventsOutput{Events: make([]logs.FilteredLogEvent, 0, len(recs.list)), SearchedLogStreams: []logs.SearchedLogStream{}}
	for i := range recs.list {
		r := &recs.list[i]
		out.Events = append(out.Events, logs.FilteredLogEvent{LogStreamName: new(names[r.Stream]), Timestamp: &r.Time, Message: &r.Message,
			IngestionTime: &r.Ingested, EventId: new(posText(segment.Pos{Time: r.Time, Seq: r.Seq}))})
	}
	if recs.more {
		out.NextToken = encodeToken(posText(*recs.last))
	}
	return out, nil
}

func parsePattern(text *string) (*pattern.Pattern, error) {
	p, err := pattern.Parse(ptr.Value(text))
	if se := (*pattern.SyntaxError)(nil); errors.As(err, &se) {
		return nil, invalid("Invalid filter pattern: %s", se)
	}
	return p, err
}

// choose finds the streams to search, by their numbers.
func (s *Service) choose(ctx context.Context, name string, wanted []string, prefix string) (g *store.Row[group], names map[uint32]string, err error) {
	names = map[uint32]string{}
	err = s.Store.View(ctx, func(r store.Reader) error {
		if g, err = getGroup(ctx, r, name); err != nil {
			return err
		}
		for _, w := range wanted {
			st, err := getStream(ctx, r, name, w)
			if err != nil {
				return err
			}
			names[st.Doc.Number] = w
		}
		if wanted != nil {
			return nil
		}
		rows, err := streams.List(r, store.Query{Account: g.Account, Region: g.Region, Parent: name, Prefix: streamID(name, prefix)})
		for _, st := range rows {
			names[st.Doc.Number] = st.Doc.Name
		}
		return err
	})
	return g, names, err
}
