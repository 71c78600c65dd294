package guest

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// The console file keeps at least the last 64 KiB, which is what EC2's
// GetConsoleOutput returns, and never grows beyond consoleMost.
const (
	consoleKeep = 64 << 10
	consoleMost = 512 << 10
)

// console is the machine's console: the only writer of its file. Safe for
// concurrent use.
type console struct {
	mu   sync.Mutex
	f    *os.File
	size int64
}

func newConsole(f *os.File) *console {
	c := &console{f: f}
	if info, err := f.Stat(); err == nil {
		c.size = info.Size()
	}
	return c
}

// Write never fails a program for the console's sake.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.size+int64(len(p)) > consoleMost {
		c.trim()
	}
	q := p
	if len(q) > consoleMost/2 {
		q = q[len(q)-consoleMost/2:]
	}
	n, _ := c.f.Write(q)
	c.size += int64(n)
	return len(p), nil
}

func (c *console) trim() {
	tail := make([]byte, consoleKeep)
	n, err := c.f.ReadAt(tail, max(0, c.size-consoleKeep))
	if err != nil && err != io.EOF {
		return
	}
	if c.f.Truncate(0) != nil {
		return
	}
	m, _ := c.f.Write(tail[:n])
	c.size = int64(m)
}

func (c *console) printf(format string, args ...any) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "[%s] ", time.Now().UTC().Format("15:04:05.000"))
	fmt.Fprintf(&b, format, args...)
	b.WriteByte('\n')
	_, _ = c.Write(b.Bytes())
}
