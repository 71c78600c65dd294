package forward

import (
	"errors"
	"io"
	"net"
	"time"

	"slipway/internal/lb/h1"
)

const (
	maxAttempts = 4
	maxInterim  = 16
)

// errNoResponse marks that a connection ended before the first byte of a response.
var errNoResponse = errors.New("the target closed the connection without a response")

// forward sends the request to x.Endpoint and relays the response; n is the length
// of the request's head. It reports whether the client connection can go on.
//
// What is repeated: a request of which nothing could be sent (refused connection:
// on another target, else dead idle connection: on a new one), and an idempotent
// one, wholly buffered, that got no byte of a response because the target had
// closed the idle connection (on a new one) or its machine is gone (on another
// target). Everything else may have had an effect and gets a 502.
func (c *clientConn) forward(l *link, n int) bool {
	x := &c.x
	l.r += n
	head, whole := c.wholeRequest(l)
	careful := !whole || !x.Req.Idempotent()
	l.expires.Store(0) // from here on the target's time counts, or the body's
	for fresh, tries := false, 1; ; tries++ {
		t, err := x.Endpoint.get(c.srv.ctx, fresh, careful)
		if err != nil {
			if errors.Is(err, errHandshake) {
				x.TLSErrors++
			} else {
				x.ConnErrors++
			}
			if tries < maxAttempts && c.srv.Router.Another(x) {
				x.Retried++
				continue
			}
			return c.dialFailed(l, err)
		}
		err = c.exchange(l, t, head, whole)
		if err == nil {
			return c.respond(l, t)
		}
		again := c.pump == nil && tries < maxAttempts && l.why() == notCut && c.repeatable(t, err, whole)
		t.close()
		if !again || t.why() == cutLost && !c.srv.Router.Another(x) {
			return c.exchangeFailed(l, t, err)
		}
		fresh = true
		x.Retried++
	}
}

// repeatable implements the second half of forward's rule.
func (c *clientConn) repeatable(t *targetConn, err error, whole bool) bool {
	if errors.Is(err, errUnsent) {
		return t.uses > 0 || t.why() == cutLost
	}
	if !errors.Is(err, errNoResponse) || !whole || !c.x.Req.Idempotent() {
		return false
	}
	why := t.why()
	return why == notCut && t.uses > 0 || why == cutGone || why == cutLost
}

// errUnsent marks that not one byte of the request left.
var errUnsent = errors.New("the target closed the idle connection")

// wholeRequest builds the head, with the body behind it when all of that has
// arrived and is small; else whole is false.
func (c *clientConn) wholeRequest(l *link) (b []byte, whole bool) {
	x := &c.x
	b = c.requestHead(c.out[:0])
	whole = !x.Req.HasBody()
	if k := x.Req.Length; k > 0 && k <= int64(l.w-l.r) {
		b = append(b, l.buf[l.r:l.r+int(k)]...)
		l.r += int(k)
		x.BytesIn += k
		whole, c.bodyTaken = true, true
	}
	c.out = b
	return b, whole
}

// exchange sends the request and reads the head of the final response into t.res.
func (c *clientConn) exchange(l *link, t *targetConn, head []byte, whole bool) error {
	x := &c.x
	t.expireIn(x.Options.IdleTimeout)
	x.Sent = time.Now()
	l.peer.Store(&t.link)
	if whole && !x.Req.Upgrade {
		l.waiting.Store(coarse.Load())
	}
	defer l.waiting.Store(0)
	if n, err := t.write(head); err != nil && n == 0 {
		return errUnsent
	}
	// A write that failed later is not the end: the target may have answered
	// before it closed.
	if !whole {
		c.pump = startPump(c, l, t)
	}
	for interim, got := 0, false; ; {
		if t.w > t.r {
			got = true
			n, err := t.res.Parse(t.buffered())
			if err != nil {
				return err
			}
			if n > 0 {
				if t.res.Status >= 200 || t.res.Status == 101 {
					t.r += n
					return nil
				}
				if interim++; interim > maxInterim {
					return h1.Malformed("too many interim responses")
				}
				if err := c.interim(l, t); err != nil {
					return err
				}
				t.r += n
				continue
			}
		}
		if t.w == len(t.buf) && t.r == 0 && !t.grow(h1.MaxResponseHead) {
			return h1.Malformed("response header over 32 KiB")
		}
		if err := t.fill(); err != nil {
			if !got {
				return errNoResponse
			}
			return h1.Malformed("the target closed the connection within the response header")
		}
	}
}

// interim relays a 1xx response, which HTTP/1.0 does not know.
func (c *clientConn) interim(l *link, t *targetConn) error {
	if c.x.Req.Minor == 0 {
		return nil
	}
	b := append(append([]byte("HTTP/1.1 "), t.res.Line...), "\r\n"...)
	for i := range t.res.Fields {
		if f := &t.res.Fields[i]; !hopByHop(f.ID) {
			b = appendField(b, f)
		}
	}
	return c.send(l, append(b, "\r\n"...))
}

// dialFailed answers for a target that could not be reached: 504 when it did not
// answer in time, else 502.
func (c *clientConn) dialFailed(l *link, err error) bool {
	x := &c.x
	status := 502
	var ne net.Error
	if !errors.Is(err, errHandshake) && errors.As(err, &ne) && ne.Timeout() {
		status = 504
	}
	x.Cause = err.Error()
	return c.answer(l, status)
}

// exchangeFailed answers for a target that was reached and gave no good response.
func (c *clientConn) exchangeFailed(l *link, t *targetConn, err error) bool {
	x := &c.x
	pumpErr := c.stopPump(l)
	status := 502
	x.Cause = err.Error()
	switch {
	case l.why() == cutGone || l.why() == cutClosed:
		x.Status, x.Cause = 460, "the client closed the connection before the response"
		return false
	case pumpErr != nil && (t.why() == cutBody || l.why() != notCut):
		status, x.Cause = pumpErr.Status, pumpErr.Detail
		if status == 460 {
			x.Status = status
			return false
		}
	case t.why() == cutIdle:
		status, x.Cause = 504, "the target sent nothing within the idle time-out"
	case t.why() == cutLost:
		x.Cause = "the target's machine went away before the response"
	case t.why() == cutDrained:
		x.Cause = "the deregistration delay ended before the response"
	case errors.Is(err, errNoResponse) && t.uses > 0:
		x.Cause = "the target closed a kept-alive connection as the request arrived: its keep-alive time-out is shorter than the load balancer's idle time-out"
	}
	return c.answer(l, status)
}

// answer sends the standard page for a request that was not forwarded to its end.
func (c *clientConn) answer(l *link, status int) bool {
	// What is left of a body would be taken for the next request.
	keep := c.keep() && (!c.x.Req.HasBody() || c.bodyTaken)
	if !c.selfMade(l, status, !keep) {
		return false
	}
	if !keep {
		c.linger(l)
	}
	return keep
}

type framing uint8

const (
	framedNone framing = iota
	framedLength
	framedChunked
	framedClose // the body ends with the connection
)

// frame decides how the response's body goes to the client.
func (c *clientConn) frame(r *h1.Response) framing {
	x := &c.x
	switch {
	case r.Bodyless(string(x.Req.Method) == "HEAD"):
		return framedNone
	case r.Length >= 0:
		return framedLength
	case x.Req.Minor == 0:
		return framedClose
	}
	return framedChunked
}

// respond relays the response whose head is in t.res.
func (c *clientConn) respond(l *link, t *targetConn) bool {
	x := &c.x
	x.Res = &t.res
	x.FirstByte = time.Now()
	x.FromTarget, x.Status = t.res.Status, t.res.Status
	c.srv.Router.Response(x)
	if t.res.Status == 101 {
		return c.upgrade(l, t)
	}
	f := c.frame(&t.res)
	keep := c.keep() && f != framedClose && (c.pump == nil || c.pump.readAll.Load())
	targetKeep := t.res.KeepAlive && !t.res.Suspect && !x.CloseAfter && (f == framedNone || t.res.Length >= 0 || t.res.Chunked)
	c.out = c.responseHead(c.out[:0], keep, f)
	l.expireIn(x.Options.IdleTimeout)
	var err error
	switch f {
	case framedNone:
		err = c.send(l, c.out)
	case framedLength:
		err = c.relayLength(l, t)
	default:
		err = c.relayChunks(l, t, f == framedChunked)
	}
	if c.pump != nil && (err != nil || !c.pump.finished()) {
		targetKeep = false
		if err != nil || !c.pump.readAll.Load() {
			keep = false
		}
		t.kill(cutBody)
	}
	pumpErr := c.stopPump(l)
	l.peer.Store(nil)
	if err != nil || !targetKeep || pumpErr != nil {
		t.close()
	} else {
		t.ep.put(t)
	}
	if err != nil {
		x.Cause = err.Error()
		return false
	}
	if !keep {
		c.linger(l)
	}
	return keep
}

func (c *clientConn) send(l *link, b []byte) error {
	n, err := l.write(b)
	c.x.BytesOut += int64(n)
	return err
}

func (c *clientConn) relayLength(l *link, t *targetConn) error {
	x := &c.x
	left := t.res.Length
	k := int(min(int64(t.w-t.r), left))
	c.out = append(c.out, t.buf[t.r:t.r+k]...)
	t.r += k
	left -= int64(k)
	// The head goes out alone only when nothing of the body is here yet.
	if err := c.send(l, c.out); err != nil {
		return err
	}
	if left == 0 {
		return nil
	}
	b := t.buf
	if left > int64(len(b)) {
		p := bodies.Get().(*[]byte)
		defer bodies.Put(p)
		b = *p
	}
	for left > 0 {
		t.expireIn(x.Options.IdleTimeout)
		l.expireIn(x.Options.IdleTimeout)
		n, err := t.read(b[:min(int64(len(b)), left)])
		if err != nil {
			return errShort
		}
		left -= int64(n)
		if err := c.send(l, b[:n]); err != nil {
			return err
		}
	}
	return nil
}

var errShort = errors.New("the target closed the connection within the response body")

// relayChunks decodes what the target sends (chunks, or bytes until it closes) and
// sends it in chunks of our own, or bare to an HTTP/1.0 client.
func (c *clientConn) relayChunks(l *link, t *targetConn, framed bool) error {
	x := &c.x
	var dec h1.Chunked
	for {
		var done bool
		var err error
		c.out, done, err = drainBuffered(c.out, &t.link, &dec, t.res.Chunked, framed)
		if err != nil {
			return err
		}
		if len(c.out) > 0 {
			if err := c.send(l, c.out); err != nil {
				return err
			}
			c.out = c.out[:0]
		}
		if done {
			return nil
		}
		if t.w == len(t.buf) && t.r == 0 && !t.grow(h1.MaxResponseHead) {
			return h1.Malformed("trailer too long")
		}
		t.expireIn(x.Options.IdleTimeout)
		l.expireIn(x.Options.IdleTimeout)
		if err := t.fill(); err != nil {
			if t.res.Chunked || !errors.Is(err, io.EOF) {
				return errShort
			}
			if !framed {
				return nil
			}
			return c.send(l, lastChunk)
		}
	}
}

var lastChunk = []byte("0\r\n\r\n")
