package admin

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// A shell's connection carries frames: one byte of type, four of length,
// and the payload.
const (
	FrameStdin  = 0
	FrameStdout = 1
	FrameStderr = 2
	FrameResize = 3 // JSON Size
	FrameExit   = 4 // JSON Exit
	FrameEOF    = 5 // end of standard input
	FrameSignal = 6 // JSON number
)

// ExecRequest asks for a program in an instance.
type ExecRequest struct {
	Args []string `json:"args"`
	User string   `json:"user,omitempty"`
	Dir  string   `json:"dir,omitempty"`
	TTY  bool     `json:"tty,omitempty"`
	Rows uint16   `json:"rows,omitempty"`
	Cols uint16   `json:"cols,omitempty"`
	Env  []string `json:"env,omitempty"`
}

// Size of a terminal in characters.
type Size struct{ Rows, Cols uint16 }

// Exit is how a program ended; Error where it could not be run.
type Exit struct {
	Code  int    `json:"code"`
	Error string `json:"error,omitempty"`
}

const maxFrame = 1 << 20

// FrameWriter writes frames; safe for concurrent use.
type FrameWriter struct {
	mu sync.Mutex
	W  io.Writer
}

// Write sends one frame.
func (f *FrameWriter) Write(kind byte, payload []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	head := [5]byte{kind}
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)))
	if _, err := f.W.Write(append(head[:], payload...)); err != nil {
		return err
	}
	return nil
}

// WriteJSON sends one frame with v as JSON.
func (f *FrameWriter) WriteJSON(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return f.Write(kind, b)
}

// Stream is an io.Writer that sends what is written as frames of one kind.
func (f *FrameWriter) Stream(kind byte) io.Writer { return stream{f, kind} }

type stream struct {
	f    *FrameWriter
	kind byte
}

func (s stream) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		part := p[n:min(len(p), n+32<<10)]
		if err := s.f.Write(s.kind, part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return len(p), nil
}

// ReadFrame reads one frame.
func ReadFrame(r io.Reader) (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes", n)
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	return head[0], payload, err
}
