package forward

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Counters are the connection-level figures of one load balancer, shared by its
// servers and endpoints. Active and New count client and target connections.
type Counters struct {
	Active    atomic.Int64 // now open
	New       atomic.Int64
	Rejected  atomic.Int64
	Processed atomic.Int64 // bytes both ways on the client side
	TLSErrors atomic.Int64
	peak      atomic.Int64 // most that were open at once since TakePeak
}

func (c *Counters) opened() {
	c.New.Add(1)
	n := c.Active.Add(1)
	for p := c.peak.Load(); n > p && !c.peak.CompareAndSwap(p, n); {
		p = c.peak.Load()
	}
}

func (c *Counters) closed() { c.Active.Add(-1) }

// TakePeak returns how many connections were open at once at most since the
// call before. It is for one reader.
func (c *Counters) TakePeak() int64 {
	now := c.Active.Load()
	return max(c.peak.Swap(now), now)
}

// Server serves one listener's client connections.
type Server struct {
	Router   Router
	Counters *Counters
	// MaxConns is the limit of client connections; further ones are closed at once.
	MaxConns int

	sweeper *Sweeper
	options atomic.Pointer[Options]
	tls     atomic.Pointer[tls.Config]
	h2      *h2Server
	closing atomic.Bool
	ctx     context.Context
	cancel  context.CancelFunc

	mu    sync.Mutex
	conns map[*clientConn]struct{}
	wg    sync.WaitGroup
}

// NewServer returns a server with its first options; tlsConfig is nil for plain HTTP.
func NewServer(s *Sweeper, r Router, c *Counters, o *Options, tlsConfig *tls.Config) *Server {
	srv := &Server{Router: r, Counters: c, MaxConns: 100_000, sweeper: s, conns: map[*clientConn]struct{}{}}
	srv.ctx, srv.cancel = context.WithCancel(context.Background())
	srv.h2 = newH2Server()
	srv.Configure(o, tlsConfig)
	return srv
}

// Configure replaces options and certificates: requests and handshakes that begin
// later use the new ones.
func (s *Server) Configure(o *Options, tlsConfig *tls.Config) {
	s.options.Store(o)
	s.tls.Store(tlsConfig)
}

// Serve accepts until the listener is closed. An error of accepting that passes
// (too many files) is waited out.
func (s *Server) Serve(ln net.Listener) error {
	for {
		nc, err := ln.Accept()
		if err == nil {
			s.accept(nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) && !errors.Is(err, syscall.ECONNABORTED) &&
			!errors.Is(err, syscall.ENOBUFS) && !errors.Is(err, syscall.ENOMEM) {
			return err
		}
		s.Counters.Rejected.Add(1)
		time.Sleep(5 * time.Millisecond) // there is nothing to wait on: a descriptor becomes free somewhere
	}
}

func (s *Server) accept(nc net.Conn) {
	s.mu.Lock()
	if s.closing.Load() || len(s.conns) >= s.MaxConns {
		s.mu.Unlock()
		s.Counters.Rejected.Add(1)
		_ = nc.Close()
		return
	}
	c := &clientConn{srv: s}
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	s.Counters.opened()
	go func() {
		defer s.wg.Done()
		c.run(nc)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.Counters.closed()
	}()
}

// Shutdown closes idle client connections, lets the others finish their request
// until the context ends, then cuts them. Close the listener first.
func (s *Server) Shutdown(ctx context.Context) {
	s.mu.Lock()
	s.closing.Store(true)
	for c := range s.conns {
		c.closeIfIdle()
	}
	s.mu.Unlock()
	// GOAWAY to HTTP/2 connections; it waits for none of them, s.wg does.
	_ = s.h2.base.Shutdown(ctx)
	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		s.mu.Lock()
		for c := range s.conns {
			c.killNow()
		}
		s.mu.Unlock()
		s.cancel() // dials in progress
		<-done
	}
	s.cancel()
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
