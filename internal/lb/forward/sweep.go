package forward

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// coarse is a clock in Unix nanoseconds that a Sweeper advances every tick: good
// enough for time-outs and far cheaper than asking the kernel for each.
var coarse atomic.Int64

func init() { coarse.Store(time.Now().UnixNano()) }

// sweepTick is the grain of all time-outs of the data path.
const sweepTick = 200 * time.Millisecond

// Sweeper ends connections that made no progress in time, notices clients that
// went away while their target works, and drops idle target connections that the
// target closed. One per process; every Server and Endpoint shares it.
type Sweeper struct {
	mu    sync.Mutex
	links []*link
	ends  map[*Endpoint]struct{}
}

// NewSweeper returns a sweeper; nothing times out before Run runs.
func NewSweeper() *Sweeper { return &Sweeper{ends: map[*Endpoint]struct{}{}} }

// Run sweeps until the context ends.
func (s *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepTick)
	defer tick.Stop()
	var links []*link
	var ends []*Endpoint
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			coarse.Store(now.UnixNano())
			links, ends = s.sweep(now.UnixNano(), links[:0], ends[:0])
		}
	}
}

// sweep looks at copies of the lists, so that accepting never waits for a peek.
func (s *Sweeper) sweep(now int64, links []*link, ends []*Endpoint) ([]*link, []*Endpoint) {
	s.mu.Lock()
	links = append(links, s.links...)
	for e := range s.ends {
		ends = append(ends, e)
	}
	s.mu.Unlock()
	for _, l := range links {
		if t := l.expires.Load(); t != 0 && t < now {
			l.kill(cutIdle)
		} else if w := l.waiting.Load(); w != 0 && now-w > int64(sweepTick) && l.raw != nil && l.raw.peekGone() && l.waiting.Load() == w {
			l.kill(cutGone)
		}
	}
	for _, e := range ends {
		e.dropStale(now)
	}
	clear(links)
	clear(ends)
	return links, ends
}

func (s *Sweeper) add(l *link) {
	s.mu.Lock()
	l.slot = len(s.links)
	s.links = append(s.links, l)
	s.mu.Unlock()
}

func (s *Sweeper) remove(l *link) {
	s.mu.Lock()
	last := s.links[len(s.links)-1]
	s.links[l.slot], last.slot = last, l.slot
	s.links[len(s.links)-1] = nil
	s.links = s.links[:len(s.links)-1]
	s.mu.Unlock()
}
