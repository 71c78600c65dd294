// Package wire is what the server and a machine's PID 1 say to each other: the
// boot configuration on a pipe, and frames on the machine's unix socket.
//
// Every connection starts with one Request frame from the server. "exec" then
// carries the program's streams until an Exit or Error frame; the other
// requests are answered with one Reply or Error frame. When the server closes
// an exec connection, PID 1 kills the program's process group.
package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"slipway/internal/machine"
)

// Frame types. One byte type, four bytes big-endian length, payload.
const (
	Request  byte = 'R' // JSON of type Req; the first frame, once
	Stdin    byte = 'i' // bytes
	StdinEOF byte = 'e' // empty
	StdinAck byte = 'a' // empty; PID 1 has passed one Stdin frame on
	Resize   byte = 'w' // rows, cols: two big-endian uint16
	Signal   byte = 's' // one byte
	Stdout   byte = 'o' // bytes
	Stderr   byte = 'r' // bytes
	Exit     byte = 'x' // four bytes big-endian exit code; the last frame
	Error    byte = '!' // text; the last frame
	Reply    byte = 'k' // JSON; the last frame
)

// MaxFrame bounds a payload: neither side trusts the other's lengths.
const MaxFrame = 8 << 20

// StdinWindow is how many Stdin frames may be unacknowledged. PID 1 keeps that
// many, so that it always reads on and sees at once when the server lets go,
// even while the program does not read its input.
const StdinWindow = 16

// Req is what the server asks of PID 1.
type Req struct {
	Op string // "exec", "ping", "shutdown", "write"

	// exec
	Args []string `json:",omitempty"`
	Env  []string `json:",omitempty"`
	Dir  string   `json:",omitempty"`
	User string   `json:",omitempty"`
	TTY  bool     `json:",omitempty"`

	// shutdown: how long services may take, in milliseconds
	GraceMillis int64 `json:",omitempty"`

	// write
	File machine.File `json:",omitzero"`
}

// Pong answers a ping.
type Pong struct {
	ID       string // the machine's own idea of who it is
	UserData string // "none", "running", "done", "failed: exit status 1"
}

// Boot is what the parent sends to the child on the configuration pipe.
type Boot struct {
	Spec     machine.Spec
	Hostname string
	// Layers are host directories, top first; Base is the host's root below them.
	Layers []string
	Upper  string
	Work   string
	Stage  string // an empty host directory for the child's private tmpfs
	Binary string // the slipway executable on the host
	// Volatile: the disk need not survive a crash of the host (builds).
	Volatile bool
	Mask     []MaskEntry
	Mounts   []machine.Mount // sources resolved to absolute host paths
	Net      *Net
}

// Net is the machine's own side of its link.
type Net struct {
	Address string // 172.31.x.y
	Gateway string // link-local, answered by a permanent neighbour entry
	GwMAC   string
	DNS     string
}

// MaskEntry hides or replaces one path of the host below the machine's root.
type MaskEntry struct {
	Path string // relative to /
	Kind byte   // MaskDir, MaskOpaque, MaskFile, MaskLink, MaskGone
	Mode uint32
	UID  int
	GID  int
	Data string // of a file, or the target of a link
}

const (
	MaskDir    byte = 'd' // directory kept visible, with these attributes
	MaskOpaque byte = 'o' // directory shown empty
	MaskFile   byte = 'f' // file with this content
	MaskLink   byte = 'l' // symbolic link
	MaskGone   byte = 'w' // absent
)

// Stage is what the child reports on its ready pipe, one JSON object per line.
type Stage struct {
	Ready bool
	Error string `json:",omitempty"`
}

// Conn frames a stream. Writes are safe for concurrent use; reads are not.
type Conn struct {
	rw io.ReadWriter
	mu sync.Mutex
}

// NewConn frames rw.
func NewConn(rw io.ReadWriter) *Conn { return &Conn{rw: rw} }

// Write sends one frame.
func (c *Conn) Write(kind byte, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("frame of %d bytes is larger than %d", len(payload), MaxFrame)
	}
	buf := make([]byte, 5+len(payload))
	buf[0] = kind
	binary.BigEndian.PutUint32(buf[1:], uint32(len(payload)))
	copy(buf[5:], payload)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.rw.Write(buf)
	return err
}

// WriteJSON sends v as one frame.
func (c *Conn) WriteJSON(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.Write(kind, b)
}

// WriteExit sends the exit code.
func (c *Conn) WriteExit(code int) error {
	return c.Write(Exit, binary.BigEndian.AppendUint32(nil, uint32(code)))
}

// Read returns the next frame; io.EOF at a clean end.
func (c *Conn) Read() (kind byte, payload []byte, err error) {
	var h [5]byte
	if _, err := io.ReadFull(c.rw, h[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("frame of %d bytes is larger than %d", n, MaxFrame)
	}
	payload = make([]byte, n)
	if _, err := io.ReadFull(c.rw, payload); err != nil {
		return 0, nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return h[0], payload, nil
}
