package codedeploy

import (
	"context"
	"errors"
	"sync"
	"time"

	"slipway/internal/store"
)

// hub wakes the long polls of hosts, and remembers when a host was last
// heard of and what it was handed. All of that may be lost with the process:
// polls look at the rows first, and a command that is handed out twice runs
// once (see Target.acknowledge).
type hub struct {
	closing chan struct{} // closed when the service ends: no poll keeps it waiting
	mu      sync.Mutex
	waiting map[string]map[chan struct{}]bool // by host key
	contact map[string]time.Time              // real time
	handed  map[string]time.Time              // by command, real time
}

func newHub() *hub {
	return &hub{closing: make(chan struct{}), waiting: map[string]map[chan struct{}]bool{}, contact: map[string]time.Time{}, handed: map[string]time.Time{}}
}

// hostKey tells equal instance ids of different accounts and regions apart.
func hostKey(account, region, instance string) string {
	return account + "/" + region + "/" + instance
}

// wait registers a poll. The channel receives when the host's targets
// change; release must be called.
func (h *hub) wait(host string) (wake <-chan struct{}, release func()) {
	ch := make(chan struct{}, 1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.waiting[host] == nil {
		h.waiting[host] = map[chan struct{}]bool{}
	}
	h.waiting[host][ch] = true
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.waiting[host], ch)
		if len(h.waiting[host]) == 0 {
			delete(h.waiting, host)
		}
	}
}

func (h *hub) wake(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.waiting[host] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (h *hub) wakeAll() {
	h.mu.Lock()
	hosts := make([]string, 0, len(h.waiting))
	for host := range h.waiting {
		hosts = append(hosts, host)
	}
	h.mu.Unlock()
	for _, host := range hosts {
		h.wake(host)
	}
}

// run wakes polls by the events of targets, until ctx ends; then it ends
// them. It runs once.
func (h *hub) run(st store.Store) func(context.Context) error {
	return func(ctx context.Context) error {
		defer close(h.closing)
		sub := st.Subscribe(targets.Kind)
		defer sub.Close()
		for {
			ev, err := sub.Next(ctx)
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, store.ErrLagged):
				h.wakeAll()
			case err != nil:
				return err
			default:
				h.wake(hostKey(ev.Key.Account, ev.Key.Region, ev.Parent))
			}
		}
	}
}

// redeliver is how long a command that was handed out may stay without an
// acknowledgement before it is handed out again: an answer can get lost.
const redeliver = 5 * time.Second

// hand notes that a command goes out now, unless it went out a moment ago;
// then it says how long to wait.
func (h *hub) hand(command string, now time.Time) (ok bool, after time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at, out := h.handed[command]; out && now.Sub(at) < redeliver {
		return false, redeliver - now.Sub(at)
	}
	if len(h.handed) > 10_000 { // forget what is long over
		for k, at := range h.handed {
			if now.Sub(at) > redeliver {
				delete(h.handed, k)
			}
		}
	}
	h.handed[command] = now
	return true, 0
}

func (h *hub) forget(command string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.handed, command)
}

func (h *hub) heard(host string, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contact[host] = now
}

func (h *hub) gone(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.contact, host)
}

// lastContact describes when the agent of host was last heard of.
func (h *hub) lastContact(host string, now time.Time) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.contact[host]
	if !ok {
		return "no agent of this instance has called since the server started"
	}
	return "its agent was last heard of " + now.Sub(at).Round(time.Second).String() + " ago"
}
