package cloudwatch

import (
	"context"
	"log/slog"
	"time"
)

const (
	// poll is how often files are looked at (a stat each) while lines are being written, idlePoll otherwise.
	poll     = 500 * time.Millisecond
	idlePoll = time.Second
	// awake is how long after its last growth a file is taken as being written.
	awake = 10 * time.Second
)

// logsAgent sends the lines of all configured files. It is one goroutine with at most one call under way, so that its
// memory is bounded by one batch.
type logsAgent struct {
	cfg     logsConfig
	sender  *sender
	sources []*source
	log     *slog.Logger
}

func newLogsAgent(cfg logsConfig, st *state, h *host, client api, log *slog.Logger) *logsAgent {
	a := &logsAgent{cfg: cfg, log: log, sender: &sender{api: client, host: h, state: st, log: log, made: map[string]bool{}}}
	for _, f := range cfg.Files {
		a.sources = append(a.sources, newSource(f, st, log))
	}
	a.dropStrangers()
	return a
}

// dropStrangers forgets the positions of entries that are no longer configured.
func (a *logsAgent) dropStrangers() {
	known := map[string]bool{}
	for _, s := range a.sources {
		known[s.cfg.id()] = true
	}
	st := a.sender.state
	kept := st.Files[:0]
	for _, p := range st.Files {
		if known[p.Source] {
			kept = append(kept, p)
		}
	}
	st.dirty = st.dirty || len(kept) < len(st.Files)
	st.Files = kept
}

// Run sends until ctx ends, and then once more what is complete. It returns nil.
func (a *logsAgent) Run(ctx context.Context) error {
	now := time.Now()
	for _, s := range a.sources {
		s.resume(now)
		defer s.close()
	}
	for ctx.Err() == nil {
		now = time.Now()
		a.round(ctx, a.cfg.Flush, now)
		pause(ctx, a.pace(now))
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	a.round(last, 0, time.Now())
	return nil
}

// pace is how long to wait until the next look: an instance in which nothing is logged is looked at less often.
func (a *logsAgent) pace(now time.Time) time.Duration {
	for _, s := range a.sources {
		for _, t := range s.files {
			if !t.waiting.IsZero() || now.Sub(t.grown) < awake {
				return poll
			}
		}
	}
	return idlePoll
}

// round looks at all files once and sends what is due.
func (a *logsAgent) round(ctx context.Context, flush time.Duration, now time.Time) {
	for _, s := range a.sources {
		s.look(now)
		if now.Before(s.blocked) && flush > 0 {
			continue
		}
		for _, t := range append([]*tailed(nil), s.files...) {
			if !a.drain(ctx, s, t, flush, now) {
				break
			}
		}
	}
	if st := a.sender.state; st.dirty {
		if err := st.save(); err != nil {
			a.log.Error("the agent's state cannot be written", "error", err)
		}
	}
}

// drain sends batches of one file while there are any; false means that the service does not take them now.
func (a *logsAgent) drain(ctx context.Context, s *source, t *tailed, flush time.Duration, now time.Time) bool {
	for t.due(flush, now) && ctx.Err() == nil {
		more, err := a.sender.send(ctx, s, t, now)
		if err != nil {
			s.backoff = min(max(2*s.backoff, 500*time.Millisecond), 5*time.Second)
			s.blocked = time.Now().Add(s.backoff)
			if ctx.Err() == nil {
				a.log.Warn("log events are not sent yet", "file", t.pos.Path, "again_in", s.backoff, "error", err)
			}
			return false
		}
		s.backoff, s.blocked = 0, time.Time{}
		if !more {
			return true
		}
		if t.size-t.pos.Offset < maxRead && flush > 0 {
			return true // the rest may wait for company
		}
	}
	return true
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
