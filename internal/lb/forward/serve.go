package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"slipway/internal/lb/h1"
)

// clientConn is one client connection and the reusable state of its exchanges.
type clientConn struct {
	srv    *Server
	client atomic.Pointer[link] // nil until the handshake is over
	idle   atomic.Bool          // between requests
	x      Exchange
	out    []byte // the head under construction; to the target, then to the client
	pump   *pump
	tls    *tls.ConnectionState
	since  int64
	stream bool   // an HTTP/2 stream's in-memory connection
	over   []byte // of the next request, see restore
	// bodyTaken is true when the request's body was read to its end.
	bodyTaken bool
}

func (c *clientConn) closeIfIdle() {
	if l := c.client.Load(); l != nil && c.idle.Load() && !c.stream {
		l.kill(cutClosed)
	}
}

func (c *clientConn) killNow() {
	if l := c.client.Load(); l != nil {
		l.kill(cutClosed)
	}
}

// run owns the connection until its end.
func (c *clientConn) run(nc net.Conn) {
	defer func() { _ = nc.Close() }()
	if tc := c.srv.tls.Load(); tc != nil {
		t := tls.Server(nc, tc)
		ctx, cancel := context.WithTimeout(c.srv.ctx, handshakeTimeout)
		err := t.HandshakeContext(ctx)
		cancel()
		if err != nil {
			c.srv.Counters.TLSErrors.Add(1)
			return
		}
		state := t.ConnectionState()
		c.tls, nc = &state, t
		defer func() { _ = t.Close() }()
		if state.NegotiatedProtocol == "h2" {
			c.serveH2(t)
			return
		}
	}
	c.x.Client = addrPort(nc.RemoteAddr())
	c.loop(nc)
}

// loop serves requests until the connection ends.
func (c *clientConn) loop(nc net.Conn) {
	l := newLink(nc, clientBuffer)
	c.since = coarse.Load()
	c.srv.sweeper.add(l)
	defer c.srv.sweeper.remove(l)
	c.client.Store(l)
	for c.next(l) {
	}
}

// next serves one request; false ends the connection.
func (c *clientConn) next(l *link) bool {
	x := &c.x
	x.reset()
	c.bodyTaken = false
	x.Options = c.srv.options.Load()
	n, perr, err := c.readHead(l)
	if err != nil {
		return false
	}
	if perr != nil {
		return c.refuse(l, perr)
	}
	x.BytesIn = int64(n)
	if err := c.screen(); err != nil {
		return c.refuse(l, err)
	}
	c.srv.Router.Route(x)
	var ok bool
	if x.Action == ActionForward {
		ok = c.forward(l, n)
	} else {
		ok = c.reply(l, n)
	}
	c.srv.Counters.Processed.Add(x.BytesIn + x.BytesOut)
	c.srv.Router.Done(x)
	l.peer.Store(nil)
	c.restore(l)
	return ok && l.why() == notCut
}

// readHead waits for a head. A nil perr and an err mean that there is nobody to
// answer; a time-out within a head is answered with 408.
func (c *clientConn) readHead(l *link) (int, *h1.Error, error) {
	x := &c.x
	l.expireIn(x.Options.IdleTimeout)
	c.idle.Store(true)
	if c.srv.closing.Load() && !c.stream { // a stream's connection ends with its HTTP/2 connection
		return 0, nil, net.ErrClosed
	}
	for started := false; ; {
		if l.w > l.r {
			if !started {
				started = true
				c.idle.Store(false)
				x.Start = time.Now()
				x.Options = c.srv.options.Load()
				l.expireIn(x.Options.IdleTimeout) // for the whole head, so that a trickle does not hold the connection
			}
			n, perr := x.Req.Parse(l.buffered())
			if perr != nil || n > 0 {
				return n, perr, nil
			}
		}
		if l.w == len(l.buf) && l.r == 0 && !l.grow(maxHead) {
			return 0, &h1.Error{Status: 400, Detail: "header over 64 KiB"}, nil
		}
		if err := l.fill(); err != nil {
			if started && l.why() == cutIdle {
				return 0, &h1.Error{Status: 408, Detail: "the client sent no complete header in time"}, nil
			}
			return 0, nil, err
		}
	}
}

// screen applies the desync mode and the limits that need no routing.
func (c *clientConn) screen() *h1.Error {
	x := &c.x
	r := &x.Req
	if r.Class != h1.Compliant {
		switch x.Options.Desync {
		case DesyncDefensive:
			x.CloseAfter = r.Class == h1.Ambiguous
		case DesyncStrictest:
			return &h1.Error{Status: 400, Reason: r.Reason, Detail: "refused in strictest mode"}
		}
	}
	if r.Forwarded > 0 && countForwarded(r) > maxXFF {
		return &h1.Error{Status: 463, Detail: "more than 30 addresses in X-Forwarded-For"}
	}
	return nil
}

func countForwarded(r *h1.Request) int {
	n := 0
	for i := range r.Fields {
		if r.Fields[i].ID != h1.XForwardedFor {
			continue
		}
		for list := r.Fields[i].Value; ; n++ {
			_, rest, ok := h1.NextToken(list)
			if !ok {
				break
			}
			list = rest
		}
	}
	return n
}

// refuse answers a request that is not to be routed and ends the connection.
func (c *clientConn) refuse(l *link, e *h1.Error) bool {
	x := &c.x
	if x.Start.IsZero() {
		x.Start = time.Now()
	}
	x.BytesIn = max(x.BytesIn, int64(l.w-l.r))
	x.Cause = e.Detail
	if e.Reason != "" {
		x.Req.Class, x.Req.Reason = max(x.Req.Class, h1.Severe), e.Reason
		if x.Req.Method != nil && e.Detail == "refused in strictest mode" {
			x.Req.Class = h1.Ambiguous
		}
	}
	c.selfMade(l, e.Status, true)
	c.srv.Counters.Processed.Add(x.BytesIn + x.BytesOut)
	c.srv.Router.Done(x)
	c.linger(l)
	return false
}

const (
	lingerTime  = 30 * time.Second // for a client that goes on sending
	lingerIdle  = 5 * time.Second  // for one that neither sends nor closes
	lingerLeast = time.Second      // while the server ends, or where time was over before
)

// linger closes without a reset: bytes that the client still sends would make the
// kernel throw the answer away. A client may send all of a big body before it looks
// at the answer that refuses it, so there is a limit of time and none of bytes.
func (c *clientConn) linger(l *link) {
	w, ok := l.nc.(interface{ CloseWrite() error })
	if !ok || w.CloseWrite() != nil {
		return
	}
	buf := bodies.Get().(*[]byte)
	defer bodies.Put(buf)
	was, begin := l.why(), time.Now()
	for now, heard := begin, begin; now.Sub(begin) < lingerTime && now.Sub(heard) < lingerIdle; now = time.Now() {
		if now.Sub(begin) >= lingerLeast && (was != notCut || c.srv.closing.Load()) {
			return
		}
		_ = l.nc.SetReadDeadline(now.Add(lingerLeast))
		if l.why() != was {
			return // cut just now, and its deadline was overwritten
		}
		l.expireIn(lingerTime) // else the exchange's own time-out would end it
		n, err := l.read(*buf)
		var ne net.Error
		switch {
		case n > 0:
			heard = time.Now()
		case !errors.As(err, &ne) || !ne.Timeout():
			return
		}
	}
}

// keep reports whether the client connection may serve another request.
func (c *clientConn) keep() bool {
	x := &c.x
	return x.Req.KeepAlive && !x.CloseAfter && (c.stream || !c.srv.closing.Load()) &&
		coarse.Load()-c.since < int64(x.Options.ClientKeepAlive)
}
