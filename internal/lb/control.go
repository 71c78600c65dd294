package lb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const maxSnapshot = 64 << 20

// control serves the process's API on its unix socket.
func (p *Process) control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/info", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, p.Info()) })
	mux.HandleFunc("GET /v1/health", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, p.Health()) })
	mux.HandleFunc("GET /v1/metrics", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, p.Metrics()) })
	mux.HandleFunc("GET /v1/watch", p.serveWatch)
	mux.HandleFunc("POST /v1/apply", func(w http.ResponseWriter, r *http.Request) {
		var s Snapshot
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSnapshot))
		if err := d.Decode(&s); err != nil {
			writeError(w, http.StatusBadRequest, fmt.Errorf("snapshot: %w", err))
			return
		}
		out, err := p.Apply(&s)
		switch {
		case errors.Is(err, ErrStale):
			writeError(w, http.StatusConflict, err)
		case err != nil:
			writeError(w, http.StatusBadRequest, err)
		default:
			writeJSON(w, out)
		}
	})
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func writeError(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(APIError{Message: err.Error()}) // the client is gone
}

// listenControl opens the socket, mode 0600, taking over one that nobody serves.
func listenControl(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s: another load balancer serves it", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// The directory is ours alone or the mode is set before anybody may connect:
	// the socket is made under another name and moved.
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen("unix", tmp)
	if err != nil {
		return nil, err
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// serveControl serves until the context ends.
func (p *Process) serveControl(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{Handler: p.control(), ReadHeaderTimeout: 10 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (p *Process) serveWatch(w http.ResponseWriter, r *http.Request) {
	flusher, ok := w.(http.Flusher)
	if !ok {
		writeError(w, http.StatusInternalServerError, errors.New("cannot stream"))
		return
	}
	p.mu.Lock()
	sub := p.broker.subscribe()
	initial := p.initialEvents()
	p.mu.Unlock()
	defer p.broker.unsubscribe(sub)
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, e := range initial {
		if enc.Encode(e) != nil {
			return
		}
	}
	flusher.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case e, ok := <-sub.ch:
			if !ok {
				_ = enc.Encode(Event{Kind: "lagging", Time: p.clock.Now()})
				flusher.Flush()
				return
			}
			if enc.Encode(e) != nil {
				return
			}
			flusher.Flush()
		}
	}
}

func (p *Process) initialEvents() []Event {
	now := p.clock.Now()
	var out []Event
	for _, h := range p.healthLocked() {
		out = append(out, Event{Kind: EventHealth, Time: now, Health: &h})
		if h.Drained {
			out = append(out, Event{Kind: EventDrained, Time: now, Health: &h})
		}
	}
	for arn, l := range p.listeners {
		if l.err != nil {
			out = append(out, Event{Kind: EventListener, Time: now, Listener: arn, Error: l.err.Error()})
		}
	}
	return append(out, Event{Kind: EventSynced, Time: now, Version: p.applied})
}

// broker hands events to watchers. The zero value is ready.
type broker struct {
	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

type subscriber struct{ ch chan Event }

func (b *broker) subscribe() *subscriber {
	s := &subscriber{ch: make(chan Event, 4096)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs == nil {
		b.subs = map[*subscriber]struct{}{}
	}
	b.subs[s] = struct{}{}
	return s
}

func (b *broker) unsubscribe(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

// publish never waits: a watcher that is 4096 events behind is cut off.
func (b *broker) publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		select {
		case s.ch <- e:
		default:
			delete(b.subs, s)
			close(s.ch)
		}
	}
}
