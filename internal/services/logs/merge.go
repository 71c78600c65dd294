package logs

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// mergeGroups calls fn for the events of some groups, newest first. Groups are
// read one page at a time, so that several can be merged.
func (s *Service) mergeGroups(ctx context.Context, rows []*store.Row[group], from, to int64, literal string, fn func(*store.Row[group], string, *segment.Record) bool) error {
	var readers []*reader
	for _, g := range rows {
		l, err := s.log(&g.Doc)
		if err != nil {
			return err
		}
		sts, err := streams.Select(ctx, s.Store, store.Query{Account: g.Account, Region: g.Region, Parent: g.ID})
		if err != nil {
			return err
		}
		rd := &reader{g: g, l: l, names: map[uint32]string{}, q: segment.Query{Streams: map[uint32]bool{}, From: max(from, s.cutoff(&g.Doc)), To: to, Backward: true, Literal: literal}}
		for _, st := range sts {
			rd.names[st.Doc.Number] = st.Doc.Name
			rd.q.Streams[st.Doc.Number] = true
		}
		readers = append(readers, rd)
	}
	if len(readers) == 1 {
		rd := readers[0]
		return rd.l.Scan(ctx, rd.q, func(r *segment.Record) bool { return fn(rd.g, rd.names[r.Stream], r) })
	}
	for {
		var newest *reader
		for _, rd := range readers {
			if err := rd.fill(ctx); err != nil {
				return err
			}
			if len(rd.page) > 0 && (newest == nil || rd.page[0].Time > newest.page[0].Time) {
				newest = rd
			}
		}
		if newest == nil || !fn(newest.g, newest.names[newest.page[0].Stream], &newest.page[0]) {
			return nil
		}
		newest.page = newest.page[1:]
	}
}

// reader reads one group's events in pages.
type reader struct {
	g     *store.Row[group]
	l     *segment.Log
	names map[uint32]string
	q     segment.Query
	page  []segment.Record
	done  bool
}

func (r *reader) fill(ctx context.Context) error {
	if len(r.page) > 0 || r.done {
		return nil
	}
	const size = 20_000
	page := make([]segment.Record, 0, 64)
	err := r.l.Scan(ctx, r.q, func(rec *segment.Record) bool {
		page = append(page, *rec)
		return len(page) < size
	})
	if err != nil {
		return err
	}
	if r.done = len(page) < size; !r.done {
		last := &page[len(page)-1]
		r.q.After = &segment.Pos{Time: last.Time, Seq: last.Seq}
	}
	r.page = page
	return nil
}

// pointer names an event for GetLogRecord.
func pointer(group string, r *segment.Record) string {
	return base64.RawURLEncoding.EncodeToString([]byte(group + "\x00" + posText(segment.Pos{Time: r.Time, Seq: r.Seq})))
}

func (s *Service) getRecord(ctx context.Context, in *logs.GetLogRecordInput) (*logs.GetLogRecordOutput, error) {
	b, err := base64.RawURLEncoding.DecodeString(ptr.Value(in.LogRecordPointer))
	name, at, ok := strings.Cut(string(b), "\x00")
	pos, ok2 := parsePos(at)
	if err != nil || !ok || !ok2 {
		return nil, invalid("The specified logRecordPointer is invalid.")
	}
	g, err := s.findGroup(ctx, name)
	if err != nil {
		return nil, err
	}
	var out *logs.GetLogRecordOutput
	err = s.mergeGroups(ctx, []*store.Row[group]{g}, pos.Time, pos.Time+1, "", func(g *store.Row[group], stream string, r *segment.Record) bool {
		if r.Seq != pos.Seq {
			return true
		}
		out = &logs.GetLogRecordOutput{LogRecord: map[string]string{"@message": r.Message, "@timestamp": fmt.Sprint(r.Time), "@ingestionTime": fmt.Sprint(r.Ingested),
			"@logStream": stream, "@log": g.Account + ":" + g.Doc.Name}}
		return false
	})
	if err == nil && out == nil {
		err = awserr.New("ResourceNotFoundException", "The specified log record does not exist.")
	}
	return out, err
}
