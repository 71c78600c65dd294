package codedeploy

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// DefaultLogDir is where AWS's agent keeps its log, and where log collectors look for it.
const DefaultLogDir = "/var/log/aws/codedeploy-agent"

const maxAgentLog = 16 << 20 // bytes before the agent's log is rotated; one old file is kept

// agentLog writes the agent's own log in the form of AWS's agent, to a file and to stderr (which is the
// instance's console).
type agentLog struct {
	out   *logFile
	attrs string
}

func newAgentLog(dir string, console io.Writer) *slog.Logger {
	return slog.New(&agentLog{out: &logFile{name: filepath.Join(dir, "codedeploy-agent.log"), console: console}})
}

// Enabled takes everything from information on.
func (a *agentLog) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

// Handle writes one line.
func (a *agentLog) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-5s [codedeploy-agent(%d)]: %s%s", r.Time.UTC().Format("2006-01-02T15:04:05"), r.Level, os.Getpid(), r.Message, a.attrs)
	r.Attrs(func(at slog.Attr) bool {
		b.WriteString(attrText(at))
		return true
	})
	return a.out.line(strings.ReplaceAll(b.String(), "\n", `\n`))
}

func attrText(at slog.Attr) string {
	v := at.Value.Resolve().String()
	if strings.ContainsAny(v, " \"\n") {
		v = fmt.Sprintf("%q", v)
	}
	return " " + at.Key + "=" + v
}

// WithAttrs gives a handler that adds attributes to each line.
func (a *agentLog) WithAttrs(as []slog.Attr) slog.Handler {
	next := *a
	for _, at := range as {
		next.attrs += attrText(at)
	}
	return &next
}

// WithGroup is not used here: names are plain.
func (a *agentLog) WithGroup(string) slog.Handler { return a }

type logFile struct {
	mu      sync.Mutex
	name    string
	console io.Writer
	f       *os.File
	size    int64
	retry   time.Time // after a failure, when to try to open it again
}

// line writes to the console in any case; a log directory that cannot be used must not stop the agent.
func (l *logFile) line(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil && l.size > maxAgentLog {
		l.f.Close()
		l.f = nil
		os.Rename(l.name, l.name+".1") // if it fails the file goes on growing, which is better than no log
	}
	if l.f == nil && time.Now().After(l.retry) {
		l.open()
	}
	if l.f != nil {
		n, _ := fmt.Fprintln(l.f, text)
		l.size += int64(n)
	}
	_, err := fmt.Fprintln(l.console, text)
	return err
}

func (l *logFile) open() {
	l.retry = time.Now().Add(time.Minute)
	if os.MkdirAll(filepath.Dir(l.name), 0o755) != nil {
		return
	}
	f, err := os.OpenFile(l.name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return
	}
	l.size = 0
	if st, err := f.Stat(); err == nil {
		l.size = st.Size()
	}
	l.f = f
}
