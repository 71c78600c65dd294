package lb

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"slipway/internal/lb/forward"
	"slipway/internal/lb/h1"
)

// maxLogFile bounds one access log: at twice this size the older half is gone.
const maxLogFile = 64 << 20

// accessLog writes one line per request in ALB's format (user guide, "Access log
// entries"). The file is STATE.access/NAME.log; whoever delivers it renames it and
// reads on until the next flush has passed (a second), a new file is then begun.
type accessLog struct {
	path string
	elb  string // app/NAME/ID

	mu   sync.Mutex
	file *os.File
	w    *bufio.Writer
	size int64
	line []byte
	err  error // the last failure to write, said once
}

// setAccessLog turns a balancer's log on or off by its attributes.
func (p *Process) setAccessLog(r *balancer, b *LoadBalancer) {
	on := b.Attributes["access_logs.s3.enabled"] == "true"
	switch l := r.log.Load(); {
	case on && l == nil:
		_, elb, _ := strings.Cut(b.ARN, "loadbalancer/")
		r.log.Store(&accessLog{path: filepath.Join(p.logDir, filepath.Base(b.Name)+".log"), elb: elb})
	case !on && l != nil:
		r.log.Store(nil)
		l.close()
	}
}

// flushLogs writes buffered lines out every second.
func (p *Process) flushLogs(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		p.mu.Lock()
		for _, b := range p.balancers {
			if l := b.log.Load(); l != nil {
				if err := l.flush(done); err != nil {
					p.log.Error("access log", "file", l.path, "error", err)
				}
			}
		}
		p.mu.Unlock()
	}
	return nil
}

// flush returns a failure once, not every second.
func (l *accessLog) flush(end bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.err
	l.err = nil
	if l.file == nil {
		return err
	}
	err = errors.Join(err, l.w.Flush())
	// A renamed file is somebody else's from now on.
	a, aerr := os.Stat(l.path)
	b, berr := l.file.Stat()
	if end || aerr != nil || berr != nil || !os.SameFile(a, b) {
		err = errors.Join(err, l.file.Close())
		l.file = nil
	}
	return err
}

func (l *accessLog) close() { _ = l.flush(true) }

func (l *accessLog) open() error {
	if err := os.MkdirAll(filepath.Dir(l.path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size, l.w = f, st.Size(), bufio.NewWriterSize(f, 64<<10)
	return nil
}

// write appends the line of a finished request.
func (l *accessLog) write(x *forward.Exchange) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		if l.err = l.open(); l.err != nil {
			return
		}
	}
	l.line = appendLog(l.line[:0], l.elb, x)
	n, err := l.w.Write(l.line)
	l.size += int64(n)
	if err == nil && l.size > maxLogFile {
		err = errors.Join(l.w.Flush(), os.Rename(l.path, l.path+".1"), l.file.Close())
		l.file = nil
	}
	if err != nil {
		l.err = fmt.Errorf("%d bytes lost: %w", len(l.line)-n, err)
	}
}

func appendLog(b []byte, elb string, x *forward.Exchange) []byte {
	now := time.Now()
	kind := x.Options.Scheme
	if x.HTTP2 {
		kind = "h2"
	}
	if x.Upgraded {
		kind = map[string]string{"http": "ws", "https": "wss"}[kind]
	}
	b = append(append(b, kind...), ' ')
	b = appendMicros(b, now)
	b = append(append(append(b, ' '), elb...), ' ')
	b = x.Client.AppendTo(b)
	addr, arn := "-", "-"
	if t, ok := x.Tag.(*target); ok {
		addr, arn = t.ep.Addr, t.group.arn
	} else if g, ok := x.Tag.(*group); ok {
		arn = g.arn
	}
	b = append(append(append(b, ' '), addr...), ' ')
	b = appendTimes(b, x, now)
	b = append(appendStatus(b, x.Status, "000"), ' ')
	b = append(appendStatus(b, x.FromTarget, "-"), ' ')
	b = append(strconv.AppendInt(b, x.BytesIn, 10), ' ')
	b = append(strconv.AppendInt(b, x.BytesOut, 10), ' ')
	b = appendRequest(b, x)
	b = appendQuoted(b, x.Req.UserAgent)
	b = append(b, " - - "...)
	b = append(append(b, arn...), ' ')
	b = appendQuoted(b, x.Trace)
	b = append(b, ` "-" "-" `...)
	rule := "-"
	if x.Note[noteAction] != 0 || x.Action == forward.ActionReply {
		rule = strconv.Itoa(x.Note[noteRule])
	}
	b = append(append(b, rule...), ' ')
	b = append(appendMicros(b, x.Start), ' ')
	b = appendQuoted(b, []byte(actionNames[x.Note[noteAction]]))
	b = appendQuoted(append(b, ' '), []byte(x.Reply.Location))
	b = append(b, ` "-" `...)
	b = appendQuoted(b, []byte(addr))
	status := "-"
	if x.FromTarget != 0 {
		status = strconv.Itoa(x.FromTarget)
	}
	b = appendQuoted(append(b, ' '), []byte(status))
	class := ""
	if x.Req.Class != h1.Compliant {
		class = x.Req.Class.String()
	}
	b = appendQuoted(append(b, ' '), []byte(class))
	b = appendQuoted(append(b, ' '), []byte(x.Req.Reason))
	return append(b, " -\n"...)
}

func appendMicros(b []byte, t time.Time) []byte {
	return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
}

// appendTimes appends request, target and response processing time in seconds; -1
// for what never began.
func appendTimes(b []byte, x *forward.Exchange, now time.Time) []byte {
	sec := func(b []byte, from, to time.Time) []byte {
		if from.IsZero() || to.IsZero() {
			return append(b, "-1 "...)
		}
		return append(strconv.AppendFloat(b, to.Sub(from).Seconds(), 'f', 3, 64), ' ')
	}
	b = sec(b, x.Start, x.Sent)
	b = sec(b, x.Sent, x.FirstByte)
	return sec(b, x.FirstByte, now)
}

func appendStatus(b []byte, status int, none string) []byte {
	if status == 0 {
		return append(b, none...)
	}
	return strconv.AppendInt(b, int64(status), 10)
}

// appendRequest appends "METHOD proto://host:port/uri HTTP/1.1".
func appendRequest(b []byte, x *forward.Exchange) []byte {
	if x.Req.Method == nil || x.Req.Target == nil {
		return append(b, `"- http://-:-- - " `...)
	}
	line := append([]byte(nil), x.Req.Method...)
	line = append(append(append(line, ' '), x.Options.Scheme...), "://"...)
	line = append(append(line, hostName(x.Req.Host)...), ':')
	line = strconv.AppendInt(line, int64(x.Options.Port), 10)
	line = append(append(line, x.Req.Target...), " HTTP/1."...)
	line = strconv.AppendInt(line, int64(x.Req.Minor), 10)
	return append(appendQuoted(b, line), ' ')
}

// appendQuoted quotes; what could end the quotes or the line is written as \xNN.
func appendQuoted(b, s []byte) []byte {
	if len(s) == 0 {
		return append(b, `"-"`...)
	}
	b = append(b, '"')
	for _, c := range s {
		if c == '"' || c == '\\' || c < 0x20 || c >= 0x7f {
			b = append(b, `\x`...)
			const digits = "0123456789ABCDEF"
			b = append(b, digits[c>>4], digits[c&15])
			continue
		}
		b = append(b, c)
	}
	return append(b, '"')
}
