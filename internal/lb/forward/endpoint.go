package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/lb/h1"
)

// Times that ALB documents for connections to targets.
const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	silenceTimeout   = 5 * time.Second
	maxIdlePerTarget = 1024
)

// errHandshake is a target whose TLS failed: 502, unlike a slow connect (504).
var errHandshake = errors.New("TLS handshake with the target failed")

// errLost is a target that went while a connection to it was made.
var errLost = errors.New("the target's machine is gone")

// Endpoint is a target's address with its connections. In-flight requests are
// counted by Acquire and Release; Drain ends new ones. Safe for concurrent use.
type Endpoint struct {
	Addr string
	// TLS is nil for plain targets.
	TLS *tls.Config
	// Owner is the router's own record of the target.
	Owner any

	life     context.Context // ends when the endpoint is lost
	end      context.CancelFunc
	sweeper  *Sweeper
	counters atomic.Pointer[Counters] // of connections; may hold nil
	inflight atomic.Int64
	draining atomic.Bool
	drained  func()

	mu     sync.Mutex
	idle   []*targetConn
	all    map[*targetConn]struct{}
	closed bool
}

type targetConn struct {
	link
	ep        *Endpoint
	counters  *Counters // that it was counted in; may be nil
	uses      int
	idleSince int64
	res       h1.Response
}

// NewEndpoint returns an endpoint; drained (may be nil) is called each time the
// last request in flight ends while the endpoint drains.
func NewEndpoint(s *Sweeper, addr string, tlsConfig *tls.Config, drained func()) *Endpoint {
	e := &Endpoint{Addr: addr, TLS: tlsConfig, sweeper: s, drained: drained, all: map[*targetConn]struct{}{}}
	e.life, e.end = context.WithCancel(context.Background())
	s.mu.Lock()
	s.ends[e] = struct{}{}
	s.mu.Unlock()
	return e
}

// CountIn makes new connections count in c.
func (e *Endpoint) CountIn(c *Counters) { e.counters.Store(c) }

// Acquire counts a request in; false when the endpoint drains. The order of the
// two steps matters: whoever sees draining and zero knows that nobody comes later.
func (e *Endpoint) Acquire() bool {
	e.inflight.Add(1)
	if e.draining.Load() {
		e.Release()
		return false
	}
	return true
}

// Release counts a request out.
func (e *Endpoint) Release() {
	if e.inflight.Add(-1) == 0 && e.draining.Load() && e.drained != nil {
		e.drained()
	}
}

// InFlight returns the number of requests now at the target.
func (e *Endpoint) InFlight() int64 { return e.inflight.Load() }

// Drain refuses new requests and closes idle connections; requests in flight go on.
func (e *Endpoint) Drain() {
	if e.draining.Swap(true) {
		return
	}
	e.mu.Lock()
	idle := e.idle
	e.idle = nil
	e.mu.Unlock()
	for _, c := range idle {
		c.close()
	}
	if e.inflight.Load() == 0 && e.drained != nil {
		e.drained()
	}
}

// Undrain takes requests again: the target was registered anew.
func (e *Endpoint) Undrain() { e.draining.Store(false) }

// Cut ends all requests in flight at once; their clients get a 502.
func (e *Endpoint) Cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.all {
		c.kill(cutDrained)
	}
}

// Lose forgets an endpoint whose machine is gone. Requests in flight go to
// another target where they may be sent twice (see forward); the others end with
// a 502.
func (e *Endpoint) Lose() {
	e.Close()
	e.end()
	e.mu.Lock()
	defer e.mu.Unlock()
	for c := range e.all {
		c.kill(cutLost)
	}
}

// Close drains and forgets the endpoint. Requests in flight go on.
func (e *Endpoint) Close() {
	e.Drain()
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.sweeper.mu.Lock()
	delete(e.sweeper.ends, e)
	e.sweeper.mu.Unlock()
}

// get returns a connection: the most recently used idle one, or a new one.
// careful asks for an idle one to be looked at first, because the request cannot
// be repeated when the target has closed it meanwhile.
func (e *Endpoint) get(ctx context.Context, fresh, careful bool) (*targetConn, error) {
	for !fresh {
		e.mu.Lock()
		n := len(e.idle)
		if n == 0 {
			e.mu.Unlock()
			break
		}
		c := e.idle[n-1]
		e.idle[n-1] = nil
		e.idle = e.idle[:n-1]
		e.mu.Unlock()
		if c.why() == notCut && !(careful && c.raw != nil && c.raw.peekGone()) {
			return c, nil
		}
		c.close()
	}
	return e.dial(ctx)
}

func (e *Endpoint) dial(ctx context.Context) (*targetConn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(e.life, cancel)()
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: -1, Control: giveUpOnSilence}
	d.SetMultipathTCP(false)
	nc, err := d.DialContext(ctx, "tcp", e.Addr)
	if err != nil {
		return nil, err
	}
	if e.TLS != nil {
		hctx, done := context.WithTimeout(ctx, handshakeTimeout)
		defer done()
		tc := tls.Client(nc, e.TLS)
		if err := tc.HandshakeContext(hctx); err != nil {
			_ = nc.Close()
			return nil, fmt.Errorf("%w: %w", errHandshake, err)
		}
		nc = tc
	}
	c := &targetConn{link: link{nc: nc, raw: newRawIO(nc), buf: make([]byte, targetBuffer)}, ep: e, counters: e.counters.Load()}
	e.mu.Lock()
	if e.life.Err() != nil { // nobody would cut it
		e.mu.Unlock()
		_ = nc.Close()
		return nil, errLost
	}
	e.all[c] = struct{}{}
	e.mu.Unlock()
	e.sweeper.add(&c.link)
	if c.counters != nil {
		c.counters.opened()
	}
	return c, nil
}

// giveUpOnSilence bounds how long sent bytes may stay unacknowledged: a target whose
// machine is gone answers nothing, not even a reset.
func giveUpOnSilence(_, _ string, rc syscall.RawConn) error {
	var err error
	cerr := rc.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silenceTimeout.Milliseconds()))
	})
	return errors.Join(cerr, err)
}

// put gives a connection back for the next request.
func (e *Endpoint) put(c *targetConn) {
	c.expires.Store(0)
	c.uses++
	c.idleSince = coarse.Load()
	if c.r != c.w || e.draining.Load() || c.why() != notCut {
		c.close() // bytes behind a response belong to nobody
		return
	}
	e.mu.Lock()
	// Drain empties the list under this lock after it set the flag.
	if e.draining.Load() || e.closed || len(e.idle) >= maxIdlePerTarget {
		e.mu.Unlock()
		c.close()
		return
	}
	e.idle = append(e.idle, c)
	e.mu.Unlock()
}

func (c *targetConn) close() {
	e := c.ep
	e.mu.Lock()
	_, open := e.all[c]
	delete(e.all, c)
	e.mu.Unlock()
	if !open {
		return
	}
	e.sweeper.remove(&c.link)
	_ = c.nc.Close() // nothing more to learn from it
	if c.counters != nil {
		c.counters.closed()
	}
}

// dropStale closes idle connections that the target closed or that nobody used
// for a minute.
func (e *Endpoint) dropStale(now int64) {
	e.mu.Lock()
	var stale []*targetConn
	kept := e.idle[:0]
	for _, c := range e.idle {
		if now-c.idleSince > int64(time.Minute) || c.raw != nil && c.raw.peekGone() {
			stale = append(stale, c)
		} else {
			kept = append(kept, c)
		}
	}
	clear(e.idle[len(kept):])
	e.idle = kept
	e.mu.Unlock()
	for _, c := range stale {
		c.close()
	}
}
