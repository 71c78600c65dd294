package cloudwatch

import (
	"bytes"
	"errors"
	"io"
	"regexp"
)

// maxRead is how much of a file is looked at at once, in bytes; it must hold an event of the greatest length.
const maxRead = 512 << 10

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// rawEvent is one event of a file: its text without the last newline, and where it ends in the file.
type rawEvent struct {
	text []byte
	end  int64
	skip bool // the rest of the event is to be passed over
}

// splitter cuts a piece of a file into events.
type splitter struct {
	start *regexp.Regexp // nil: every line is an event
	base  int64          // position of the piece in the file
	skip  bool           // the piece begins inside an event that was cut
	// full: the file has more than the piece; last: the file will not grow any more; idle: it has not grown for a
	// while, so that an event of several lines may be taken as complete.
	full, last, idle bool
}

// split returns the complete events of a piece, and the position and skip state after what it has dealt with.
func (s *splitter) split(piece []byte) (events []rawEvent, to int64, skip bool) {
	to, skip = s.base, s.skip
	var cur *rawEvent
	flush := func() {
		if cur != nil {
			events = append(events, *cur)
			to, cur = cur.end, nil
		}
	}
	at := 0
	for at < len(piece) {
		n := bytes.IndexByte(piece[at:], '\n')
		end := at + n + 1
		line := []byte(nil)
		switch {
		case n >= 0:
			line = piece[at : end-1]
		case s.last && !s.full:
			line, end = piece[at:], len(piece)
		case s.full && at == 0:
			return s.cut(piece)
		}
		if line == nil && n < 0 {
			break // an unfinished line
		}
		at = end
		switch {
		case s.start == nil && skip:
			skip, to = false, s.base+int64(end)
		case s.start == nil:
			events = append(events, rawEvent{text: clip(line), end: s.base + int64(end)})
			to = s.base + int64(end)
		case s.start.Match(line) || cur == nil && !skip:
			flush()
			skip = false
			cur = &rawEvent{text: clip(line), end: s.base + int64(end)}
		case skip:
			to = s.base + int64(end)
		default:
			cur.text = join(cur.text, line)
			cur.end = s.base + int64(end)
		}
	}
	if cur == nil {
		return events, to, skip
	}
	switch {
	case s.idle || s.last && !s.full:
		flush()
	case s.full && to == s.base: // one event that fills the whole piece
		cur.skip = true
		skip = true
		flush()
	}
	return events, to, skip
}

// cut takes the beginning of a line that is longer than a piece.
func (s *splitter) cut(piece []byte) ([]rawEvent, int64, bool) {
	to := s.base + int64(len(piece))
	if s.skip {
		return nil, to, true
	}
	return []rawEvent{{text: clip(piece), end: to, skip: true}}, to, true
}

// clip shortens a line to what an event can have.
func clip(line []byte) []byte {
	if len(line) <= maxEvent {
		return line
	}
	return append(bytes.Clone(line[:maxEvent-len(truncated)]), truncated...)
}

// join appends a line to an event of several lines.
func join(event, line []byte) []byte {
	if len(event) >= maxEvent {
		return event
	}
	out := make([]byte, 0, len(event)+1+len(line))
	out = append(append(append(out, event...), '\n'), line...)
	return clip(out)
}
