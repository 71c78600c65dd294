package store

import (
	"context"
	"sync"
)

// maxBacklog bounds what a slow subscriber may cost in memory.
const maxBacklog = 1 << 16

// Subscription is a queue of committed events. One goroutine calls Next.
type Subscription struct {
	bus   *bus
	kinds map[string]bool // nil: all

	mu     sync.Mutex
	queue  []Event
	lagged bool
	closed bool
	wake   chan struct{} // capacity 1
}

// Next waits for an event. It returns ErrLagged once after events were
// dropped, ErrClosed after Close, or ctx's error.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.mu.Lock()
		switch {
		case s.lagged:
			s.lagged = false
			s.mu.Unlock()
			return Event{}, ErrLagged
		case len(s.queue) > 0:
			ev := s.queue[0]
			s.queue = s.queue[1:]
			if len(s.queue) == 0 {
				s.queue = nil
			}
			s.mu.Unlock()
			return ev, nil
		case s.closed:
			s.mu.Unlock()
			return Event{}, ErrClosed
		}
		s.mu.Unlock()
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Close ends the subscription; a waiting Next returns ErrClosed.
func (s *Subscription) Close() {
	s.bus.remove(s)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) push(events []Event) {
	s.mu.Lock()
	for _, ev := range events {
		if s.kinds != nil && !s.kinds[ev.Key.Kind] {
			continue
		}
		if len(s.queue) >= maxBacklog {
			s.queue, s.lagged = nil, true
		}
		s.queue = append(s.queue, ev)
	}
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// bus hands committed events to the subscribers, in commit order.
type bus struct {
	mu   sync.Mutex
	subs map[*Subscription]bool
}

func newBus() *bus { return &bus{subs: map[*Subscription]bool{}} }

func (b *bus) subscribe(kinds []string) *Subscription {
	s := &Subscription{bus: b, wake: make(chan struct{}, 1)}
	if len(kinds) > 0 {
		s.kinds = map[string]bool{}
		for _, k := range kinds {
			s.kinds[k] = true
		}
	}
	b.mu.Lock()
	b.subs[s] = true
	b.mu.Unlock()
	return s
}

func (b *bus) remove(s *Subscription) {
	b.mu.Lock()
	delete(b.subs, s)
	b.mu.Unlock()
}

func (b *bus) publish(events []Event) {
	if len(events) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		s.push(events)
	}
}
