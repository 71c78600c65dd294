package codebuild

import (
	"context"
	"time"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

type logLine struct {
	at   time.Time
	text string
}

// Limits of one PutLogEvents (API reference): events, bytes with 26 for each
// event, and bytes of one event.
const (
	maxLogEvents = 10_000
	maxLogBytes  = 1 << 20
	maxLogLine   = 256<<10 - 26
)

// writeLog sends lines to the build's log stream, which it makes when it is
// missing. A build never fails for its log: what cannot be written is lost.
func (s *Service) writeLog(ctx context.Context, row *buildRow, text []logLine) error {
	l := row.Doc.API.Logs
	if l == nil || l.StreamName == nil || l.GroupName == nil {
		return nil
	}
	for len(text) > 0 {
		var batch []logs.InputLogEvent
		size := 0
		for len(text) > 0 && len(batch) < maxLogEvents {
			line := text[0].text
			if line == "" {
				line = " " // an event has at least one character
			}
			if len(line) > maxLogLine {
				line = line[:maxLogLine]
			}
			if size += len(line) + 26; size > maxLogBytes && len(batch) > 0 {
				break
			}
			batch = append(batch, logs.InputLogEvent{Timestamp: new(text[0].at.UnixMilli()), Message: &line})
			text = text[1:]
		}
		if err := s.putLog(ctx, row, batch); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.deps.Log.Debug("build log not written", "build", row.ID, "lines", len(batch), "error", err)
		}
	}
	return nil
}

func (s *Service) putLog(ctx context.Context, row *buildRow, batch []logs.InputLogEvent) error {
	own := s.as(ctx, row.Key)
	group, stream := row.Doc.API.Logs.GroupName, row.Doc.API.Logs.StreamName
	put := func() error {
		_, err := dispatch.Call(own, s.deps.Mux, logs.OpPutLogEvents, &logs.PutLogEventsInput{LogGroupName: group, LogStreamName: stream, LogEvents: batch})
		return err
	}
	err := put()
	if !awserr.Is(err, "ResourceNotFoundException") {
		return err
	}
	if _, err := dispatch.Call(own, s.deps.Mux, logs.OpCreateLogGroup, &logs.CreateLogGroupInput{LogGroupName: group}); err != nil && !awserr.Is(err, "ResourceAlreadyExistsException") {
		return err
	}
	if _, err := dispatch.Call(own, s.deps.Mux, logs.OpCreateLogStream, &logs.CreateLogStreamInput{LogGroupName: group, LogStreamName: stream}); err != nil && !awserr.Is(err, "ResourceAlreadyExistsException") {
		return err
	}
	return put()
}
