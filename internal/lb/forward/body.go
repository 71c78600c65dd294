package forward

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"

	"slipway/internal/lb/h1"
)

var bodies = sync.Pool{New: func() any { b := make([]byte, bodyBuffer); return &b }}

// appendChunk appends data as one chunk.
func appendChunk(b, data []byte) []byte {
	b = strconv.AppendInt(b, int64(len(data)), 16)
	b = append(b, "\r\n"...)
	b = append(b, data...)
	return append(b, "\r\n"...)
}

// drainBuffered moves all body data that l has buffered to the end of b, in chunks
// when framed; chunked says whether the source is. done is true at the end of a
// chunked body, whose last chunk and trailer are then appended too.
func drainBuffered(b []byte, l *link, dec *h1.Chunked, chunked, framed bool) (_ []byte, done bool, err error) {
	if !chunked {
		if data := l.buffered(); len(data) > 0 {
			if framed {
				b = appendChunk(b, data)
			} else {
				b = append(b, data...)
			}
			l.r = l.w
		}
		return b, false, nil
	}
	for l.r < l.w {
		data, n, done, err := dec.Next(l.buffered())
		if err != nil {
			return b, false, err
		}
		l.r += n
		if len(data) > 0 {
			if framed {
				b = appendChunk(b, data)
			} else {
				b = append(b, data...)
			}
		}
		if done {
			if framed {
				b = append(append(append(b, "0\r\n"...), dec.Trailer...), "\r\n"...)
			}
			return b, true, nil
		}
		if n == 0 {
			break
		}
	}
	return b, false, nil
}

// pump sends a request's body to the target while the response is awaited, so that
// a target may answer early and 100-continue works.
type pump struct {
	done    chan struct{}
	readAll atomic.Bool // nothing of the body is left in the client connection
	err     *h1.Error
	sent    int64
	left    []byte // bytes of the next request, read along with a chunked body
}

var (
	errBodyTimeout = &h1.Error{Status: 408, Detail: "the client sent no complete body in time"}
	errBodyGone    = &h1.Error{Status: 460, Detail: "the client closed the connection within the body"}
	errBodyChunk   = &h1.Error{Status: 400, Detail: "malformed chunked body"}
)

// startPump begins with what the client's buffer holds behind the head. The head
// itself stays where it is: the exchange still points into it.
func startPump(c *clientConn, l *link, t *targetConn) *pump {
	p := &pump{done: make(chan struct{})}
	l.expireIn(c.x.Options.IdleTimeout)
	go func() {
		defer close(p.done)
		buf := bodies.Get().(*[]byte)
		defer bodies.Put(buf)
		if c.x.Req.Chunked {
			p.chunks(c, l, t, *buf)
		} else {
			p.length(c, l, t, *buf)
		}
		l.expires.Store(0)
		if p.err != nil {
			t.kill(cutBody)
		}
	}()
	return p
}

func (p *pump) clientFailed(l *link) {
	p.err = errBodyGone
	if l.why() == cutIdle {
		p.err = errBodyTimeout
	}
}

func (p *pump) length(c *clientConn, l *link, t *targetConn, buf []byte) {
	left := c.x.Req.Length
	data := l.buffered() // shorter than the body, else there would be no pump
	l.r = l.w
	for {
		left -= int64(len(data))
		p.sent += int64(len(data))
		if left == 0 {
			p.readAll.Store(true)
		}
		t.expireIn(c.x.Options.IdleTimeout)
		if len(data) > 0 {
			if _, err := t.write(data); err != nil {
				return // the target's answer, if any, says why
			}
		}
		if left == 0 {
			return
		}
		l.expireIn(c.x.Options.IdleTimeout)
		n, err := l.read(buf[:min(int64(len(buf)), left)])
		if err != nil {
			p.clientFailed(l)
			return
		}
		data = buf[:n]
	}
}

func (p *pump) chunks(c *clientConn, l *link, t *targetConn, buf []byte) {
	var dec h1.Chunked
	src := &link{nc: l.nc, raw: l.raw, buf: buf}
	src.w = copy(buf, l.buffered())
	rest := l.buf[l.r+src.w : l.w]
	l.r = l.w
	var out []byte
	for {
		var done bool
		var err error
		out, done, err = drainBuffered(out[:0], src, &dec, true, true)
		if err != nil {
			p.err = errBodyChunk
			return
		}
		if done {
			p.left = append(append(p.left, src.buffered()...), rest...)
			p.readAll.Store(true)
		}
		if len(out) > 0 {
			p.sent += int64(len(out))
			t.expireIn(c.x.Options.IdleTimeout)
			if _, err := t.write(out); err != nil || done {
				return
			}
		}
		if src.r == src.w {
			src.r, src.w = 0, 0
		} else {
			src.compact()
		}
		if src.w == len(buf) {
			p.err = errBodyChunk
			return
		}
		if len(rest) > 0 {
			n := copy(buf[src.w:], rest)
			src.w += n
			rest = rest[n:]
			continue
		}
		l.expireIn(c.x.Options.IdleTimeout)
		n, err := src.read(buf[src.w:])
		if err != nil {
			p.clientFailed(l)
			return
		}
		src.w += n
	}
}

func (p *pump) finished() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stopPump ends the pump and returns why the body could not be read, nil when it
// could. The target connection is closed or cut when the pump is not finished.
func (c *clientConn) stopPump(l *link) *h1.Error {
	p := c.pump
	if p == nil {
		return nil
	}
	c.pump = nil
	interrupted := !p.finished()
	if interrupted && !p.readAll.Load() {
		_ = l.nc.SetReadDeadline(longAgo)
	}
	<-p.done
	c.x.BytesIn += p.sent
	c.bodyTaken = p.readAll.Load()
	c.over = p.left
	if interrupted && p.err == errBodyGone {
		return nil // that was us
	}
	return p.err
}

// restore puts bytes of the next request, which came along with a chunked body,
// back into the buffer, after the exchange no longer needs its head.
func (c *clientConn) restore(l *link) {
	if len(c.over) == 0 {
		return
	}
	for len(l.buf) < len(c.over) && l.grow(maxHead) {
	}
	l.r, l.w = 0, copy(l.buf, c.over)
	if l.w < len(c.over) {
		l.kill(cutClosed) // more than a head can be: not a request
	}
	c.over = nil
}

// upgrade relays a 101 and then bytes both ways until one side is done or silent
// for the idle time-out.
func (c *clientConn) upgrade(l *link, t *targetConn) bool {
	x := &c.x
	defer t.close()
	if !x.Req.Upgrade {
		x.FromTarget = 0
		x.Cause = "the target switched protocols unasked"
		return c.answer(l, 502)
	}
	x.Upgraded = true
	b := append(append(append(c.out[:0], "HTTP/1.1 "...), t.res.Line...), "\r\n"...)
	for i := range t.res.Fields {
		if f := &t.res.Fields[i]; !hopByHop(f.ID) {
			b = appendField(b, f)
		}
	}
	b = append(b, x.Extra...)
	b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"...)
	b = append(b, t.buffered()...)
	t.r = t.w
	c.out = b
	if err := c.send(l, b); err != nil {
		return false
	}
	first := append([]byte(nil), l.buffered()...)
	l.r = l.w
	l.peer.Store(&t.link)
	defer l.peer.Store(nil)
	in := make(chan int64, 1)
	go func() { in <- c.pipe(&t.link, l, first) }()
	x.BytesOut += c.pipe(l, &t.link, nil)
	x.BytesIn += <-in
	return false
}

// pipe copies src to dst; bytes either way keep both alive. At the end of src dst
// is told, and ended when that is impossible.
func (c *clientConn) pipe(dst, src *link, data []byte) (total int64) {
	p := bodies.Get().(*[]byte)
	defer bodies.Put(p)
	for {
		dst.expireIn(c.x.Options.IdleTimeout)
		src.expireIn(c.x.Options.IdleTimeout)
		if len(data) > 0 {
			n, err := dst.write(data)
			if total += int64(n); err != nil {
				src.kill(cutGone)
				return total
			}
		}
		n, err := src.read(*p)
		if err != nil {
			if w, ok := dst.nc.(interface{ CloseWrite() error }); !errors.Is(err, io.EOF) || !ok || w.CloseWrite() != nil {
				dst.kill(cutGone)
			}
			return total
		}
		data = (*p)[:n]
	}
}
