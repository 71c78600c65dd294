package forward

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// cut says why a connection was ended from outside its own goroutine.
type cut uint32

const (
	notCut     cut = iota
	cutIdle        // no progress within the time allowed
	cutGone        // the peer closed while it should have waited
	cutDrained     // the target's deregistration delay is over
	cutClosed      // the server stops
	cutBody        // the request's body broke off
	cutLost        // the target's machine is gone
)

// link is one side of an exchange: a connection, its read buffer and its
// time-out. Time-outs are coarse: the holder stores when the link expires, and the
// sweeper looks a few times per second, so that no timer is touched per request.
type link struct {
	nc  net.Conn
	raw *rawIO // nil for TLS
	buf []byte
	r,
	w int // buf[r:w] is read and not consumed

	expires atomic.Int64 // coarse clock, ns; 0 never
	waiting atomic.Int64 // since when the client has been waiting for a target; 0 not at all
	reason  atomic.Uint32
	// peer is the target's link while a client's waits for it: what ends the
	// client ends it as well.
	peer atomic.Pointer[link]
	slot int // in the sweeper
}

var (
	errBufferFull = errors.New("read buffer is full")
	longAgo       = time.Unix(1, 0)
)

func newLink(nc net.Conn, size int) *link {
	return &link{nc: nc, raw: newRawIO(nc), buf: make([]byte, size)}
}

func (l *link) buffered() []byte { return l.buf[l.r:l.w] }

// read reads once.
func (l *link) read(b []byte) (int, error) {
	if l.raw != nil {
		return l.raw.Read(b)
	}
	n, err := l.nc.Read(b)
	if n > 0 {
		return n, nil
	}
	if err == nil {
		return 0, io.ErrNoProgress
	}
	return n, err
}

func (l *link) write(b []byte) (int, error) {
	if l.raw != nil {
		return l.raw.Write(b)
	}
	return l.nc.Write(b)
}

// fill reads more behind what is buffered.
func (l *link) fill() error {
	if l.r == l.w {
		l.r, l.w = 0, 0
	}
	if l.w == len(l.buf) {
		if l.r == 0 {
			return errBufferFull
		}
		l.compact()
	}
	n, err := l.read(l.buf[l.w:])
	l.w += n
	return err
}

// compact moves what is buffered to the front.
func (l *link) compact() {
	copy(l.buf, l.buf[l.r:l.w])
	l.w -= l.r
	l.r = 0
}

// grow doubles the buffer, up to limit.
func (l *link) grow(limit int) bool {
	if len(l.buf) >= limit {
		return false
	}
	b := make([]byte, min(2*len(l.buf), limit))
	l.w = copy(b, l.buf[l.r:l.w])
	l.r = 0
	l.buf = b
	return true
}

func (l *link) expireIn(d time.Duration) { l.expires.Store(coarse.Load() + int64(d)) }

// kill makes every pending and later read and write fail; the first reason stays.
func (l *link) kill(why cut) {
	if l.reason.CompareAndSwap(uint32(notCut), uint32(why)) {
		_ = l.nc.SetDeadline(longAgo) // fails only on a closed connection, which is as good
		if p := l.peer.Load(); p != nil {
			p.kill(why)
		}
	}
}

func (l *link) why() cut { return cut(l.reason.Load()) }
