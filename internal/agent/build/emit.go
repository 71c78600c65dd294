package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"sync"
	"time"
)

// emitter writes events and keeps secrets out of log lines. It may be used from several goroutines.
type emitter struct {
	mu      sync.Mutex
	w       io.Writer
	seq     int64
	err     error // the first failure to write
	secrets []string
	longest int
}

func newEmitter(w io.Writer) *emitter { return &emitter{w: w} }

// addSecret makes a value appear as *** from now on. Each line of it counts; very short values are left alone,
// masking them would garble the whole log.
func (e *emitter) addSecret(value string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, line := range append(strings.Split(value, "\n"), value) {
		if len(strings.TrimSpace(line)) < 3 {
			continue
		}
		e.secrets = append(e.secrets, line)
		e.longest = max(e.longest, len(line))
	}
	sort.Slice(e.secrets, func(i, j int) bool { return len(e.secrets[i]) > len(e.secrets[j]) })
}

func (e *emitter) mask(s string) string {
	for _, secret := range e.secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	return s
}

// masked is mask for callers that do not hold the lock.
func (e *emitter) masked(s string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mask(s)
}

func (e *emitter) emit(ev Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ev.Log = e.mask(ev.Log)
	for i := range ev.Contexts {
		ev.Contexts[i].Message = e.mask(ev.Contexts[i].Message)
	}
	e.seq++
	ev.Seq, ev.Time = e.seq, time.Now().UTC()
	b, err := json.Marshal(ev)
	if err == nil {
		_, err = e.w.Write(append(b, '\n'))
	}
	if e.err == nil {
		e.err = err
	}
}

// container writes a line of the runner itself, in CodeBuild's form.
func (e *emitter) container(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	e.emit(Event{Type: EventLog, Log: "[Container] " + time.Now().UTC().Format("2006/01/02 15:04:05.000000") + " " + text + "\n"})
}

// lines turns a stream of output into log events: whole lines together as they come, an unfinished line after
// a moment of silence. What could be the start of a secret is held back until more is known.
type lines struct {
	e   *emitter
	mu  sync.Mutex
	buf []byte
	t   *time.Timer
}

const (
	maxHeld = 64 << 10               // bytes of an unfinished line
	silence = 200 * time.Millisecond // after which an unfinished line is shown
)

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	if i := bytes.LastIndexByte(l.buf, '\n'); i >= 0 {
		l.send(i + 1)
	}
	if len(l.buf) > maxHeld {
		l.send(l.safe())
	}
	if len(l.buf) > 0 {
		if l.t == nil {
			l.t = time.AfterFunc(silence, l.idle)
		} else {
			l.t.Reset(silence)
		}
	}
	return len(p), nil
}

// safe is how much of an unfinished line can be shown without cutting a secret in two.
func (l *lines) safe() int {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	if l.e.longest == 0 {
		return len(l.buf)
	}
	return max(0, len(l.buf)-l.e.longest)
}

func (l *lines) idle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.send(l.safe())
}

func (l *lines) send(n int) {
	if n > 0 {
		l.e.emit(Event{Type: EventLog, Log: strings.ToValidUTF8(string(l.buf[:n]), "\uFFFD")})
		l.buf = append(l.buf[:0], l.buf[n:]...)
	}
}

// flush shows what is left; a line without its end gets one, so that the next line stands alone.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Stop()
	}
	if len(l.buf) > 0 {
		l.buf = append(l.buf, '\n')
		l.send(len(l.buf))
	}
}
