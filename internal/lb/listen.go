package lb

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/lb/forward"
)

// opener opens a listening socket on host:port.
type opener func(addr string) (net.Listener, error)

// listenHere opens sockets in the process's own network namespace.
func listenHere(addr string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // plain TCP: MPTCP costs and gains nothing here
	return lc.Listen(context.Background(), "tcp", addr)
}

// listenIn opens sockets in the network namespace behind the descriptor, while the
// process lives in another one: the socket stays in the namespace in which it was
// made. The thread that cannot come back is thrown away.
func listenIn(fd int) opener {
	return func(addr string) (net.Listener, error) {
		type result struct {
			ln  net.Listener
			err error
		}
		done := make(chan result, 1)
		go func() {
			runtime.LockOSThread()
			home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				done <- result{nil, fmt.Errorf("open the own network namespace: %w", err)}
				return
			}
			defer func() { _ = unix.Close(home) }()
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				done <- result{nil, fmt.Errorf("enter the host's network namespace: %w", err)}
				return
			}
			ln, err := listenHere(addr)
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			done <- result{ln, err}
		}()
		r := <-done
		return r.ln, r.err
	}
}

// listener is one listening socket at run time.
type listener struct {
	arn, addr string
	front     *front
	srv       *forward.Server
	ln        net.Listener // nil while err is set
	err       error
	serving   chan struct{} // closed when Serve returned
}

// close stops listening and serving; requests finish until ctx ends.
func (l *listener) close(ctx context.Context) {
	if l.ln != nil {
		_ = l.ln.Close()
		<-l.serving
	}
	l.srv.Shutdown(ctx)
}

// applyListeners brings sockets and rules to the plan. The caller holds p.mu.
func (p *Process) applyListeners(pl *plan) {
	want := map[string]bool{}
	for _, t := range pl.tables {
		want[t.listener.ARN] = true
	}
	// What goes, goes first: its address may be wanted by another listener.
	for arn, l := range p.listeners {
		if !want[arn] {
			delete(p.listeners, arn)
			p.retire(l)
		}
	}
	live := map[string]bool{}
	for i := range pl.snapshot.LoadBalancers {
		live[pl.snapshot.LoadBalancers[i].ARN] = true
	}
	for arn := range p.balancers {
		if !live[arn] {
			p.depart(p.balancers[arn], nil)
			delete(p.balancers, arn)
		}
	}
	for i, t := range pl.tables {
		p.applyListener(p.balancers[pl.owners[i].ARN], t)
	}
}

func (p *Process) applyListener(b *balancer, t *table) {
	arn := t.listener.ARN
	l := p.listeners[arn]
	if l != nil && l.addr == t.listener.Address {
		l.front.table.Store(t)
		l.srv.Configure(&t.options, t.tls)
		return
	}
	f := &front{lb: b, sealer: p.sealer, log: p.log}
	f.table.Store(t)
	next := &listener{arn: arn, addr: t.listener.Address, front: f}
	next.srv = forward.NewServer(p.sweeper, f, &b.conns, &t.options, t.tls)
	p.openListener(next)
	p.listeners[arn] = next
	if l != nil {
		p.retire(l)
	}
}

// retire closes a listener in the background: its requests finish.
func (p *Process) retire(l *listener) {
	if l.ln != nil {
		_ = l.ln.Close() // here and now, so that the port is free
	}
	ctx := p.ctx
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		ctx, cancel := context.WithTimeout(ctx, drainTime)
		defer cancel()
		l.close(ctx)
	}()
}

// openListener opens the socket or notes why not; the retry loop comes back to it.
func (p *Process) openListener(l *listener) {
	before := l.err
	l.ln, l.err = p.open(l.addr)
	if l.err != nil {
		if before == nil || before.Error() != l.err.Error() {
			p.log.Warn("a listener's socket cannot be opened; trying again", "listener", l.arn, "address", l.addr, "error", l.err)
			p.broker.publish(Event{Kind: EventListener, Time: p.clock.Now(), Listener: l.arn, Error: l.err.Error()})
		}
		select {
		case p.kick <- struct{}{}:
		default:
		}
		return
	}
	if before != nil {
		p.broker.publish(Event{Kind: EventListener, Time: p.clock.Now(), Listener: l.arn})
	}
	l.serving = make(chan struct{})
	ln, serving := l.ln, l.serving
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		defer close(serving)
		if err := l.srv.Serve(ln); err != nil && !errors.Is(err, net.ErrClosed) {
			p.log.Error("accepting failed", "listener", l.arn, "error", err)
		}
	}()
}

// retryListeners opens failed sockets again, once a second of real time: whoever
// holds the port lives in real time too.
func (p *Process) retryListeners(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.kick:
		}
		for failing := true; failing; {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			failing = false
			p.mu.Lock()
			for _, l := range p.listeners {
				if l.err != nil {
					p.openListener(l)
					failing = failing || l.err != nil
				}
			}
			p.mu.Unlock()
		}
	}
}
