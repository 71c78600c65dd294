package codedeploy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const (
	tailSize       = 2048     // characters of log that a failure reports, in whole lines
	maxScriptLog   = 64 << 20 // bytes of one deployment's scripts.log; what comes after is not written
	maxDeployLog   = 64 << 20 // bytes of the log of all deployments before it is rotated
	deployLogFiles = 8
)

// scriptLog is logs/scripts.log of a deployment; lines also go to the log of all deployments.
type scriptLog struct {
	mu         sync.Mutex
	f          *os.File
	size       int64
	all        *deploymentsLog
	deployment string
	last       []string // newest lines, together a little over tailSize
	lastSize   int
}

func openScriptLog(dir string, all *deploymentsLog, deployment string) (*scriptLog, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "scripts.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &scriptLog{f: f, size: st.Size(), all: all, deployment: deployment}, nil
}

// line adds a line. A full disk must not fail an event: writing is best effort.
func (l *scriptLog) line(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = append(l.last, text)
	l.lastSize += len(text) + 1
	for len(l.last) > 1 && l.lastSize-len(l.last[0])-1 >= tailSize {
		l.lastSize -= len(l.last[0]) + 1
		l.last = l.last[1:]
	}
	if l.size < maxScriptLog {
		n, _ := fmt.Fprintf(l.f, "%s %s\n", time.Now().Format("2006-01-02 15:04:05"), text)
		l.size += int64(n)
	}
	l.all.write(l.deployment, text)
}

// tail returns the last whole lines that fit into tailSize characters.
func (l *scriptLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	size, from := 0, len(l.last)
	for from > 0 && size+len(l.last[from-1])+1 <= tailSize {
		from--
		size += len(l.last[from]) + 1
	}
	if from == len(l.last) && from > 0 { // one line longer than all that fits: its end
		s := l.last[from-1]
		return strings.ToValidUTF8(s[len(s)-tailSize+1:], "") + "\n"
	}
	return strings.ToValidUTF8(strings.Join(append(l.last[from:len(l.last):len(l.last)], ""), "\n"), "?")
}

func (l *scriptLog) close() { l.f.Close() }

// deploymentsLog is deployment-logs/codedeploy-agent-deployments.log, the output of all scripts of all
// deployments, rotated by size.
type deploymentsLog struct {
	mu   sync.Mutex
	dir  string
	f    *os.File
	size int64
}

const deployLogName = "codedeploy-agent-deployments.log"

func (d *deploymentsLog) write(deployment, text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.f != nil && d.size > maxDeployLog {
		d.f.Close()
		d.f = nil
		d.rotate()
	}
	if d.f == nil && d.open() != nil {
		return // best effort, see scriptLog.line
	}
	n, _ := fmt.Fprintf(d.f, "[%s] [%s]%s\n", time.Now().Format("2006-01-02 15:04:05.000"), deployment, text)
	d.size += int64(n)
}

func (d *deploymentsLog) open() error {
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(d.dir, deployLogName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	d.f, d.size = f, st.Size()
	return nil
}

func (d *deploymentsLog) rotate() {
	name := filepath.Join(d.dir, deployLogName)
	for i := deployLogFiles - 1; i >= 1; i-- {
		from := name
		if i > 1 {
			from = fmt.Sprintf("%s.%d", name, i-1)
		}
		os.Rename(from, fmt.Sprintf("%s.%d", name, i)) // a missing one leaves a gap, nothing else
	}
}
