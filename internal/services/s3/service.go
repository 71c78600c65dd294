package s3

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"slipway/internal/aws/dispatch"
	"slipway/internal/blob"
	"slipway/internal/clock"
	"slipway/internal/store"
)

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Blobs blob.Store
	Clock clock.Clock  // nil: clock.Real
	Log   *slog.Logger // nil: slog.Default
}

// Service is S3. All methods are safe for concurrent use.
type Service struct {
	Deps
	seq atomic.Int64 // orders versions; see nextSeq

	mu     sync.Mutex
	unused map[string]time.Time // blobs whose count fell to 0, and when
}

// New makes the service; Register and Run bring it to life.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = clock.Real
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	return &Service{Deps: deps, unused: map[string]time.Time{}}
}

// Register serves the operations.
func (s *Service) Register(m *dispatch.Mux) {
	s.registerBuckets(m)
	s.registerSettings(m)
	s.registerDefaults(m)
	s.registerObjects(m)
	s.registerLists(m)
	s.registerUploads(m)
	s.registerTagging(m)
}

// nextSeq is greater than every one before it, over restarts as well as long
// as the clock goes forward.
func (s *Service) nextSeq() int64 {
	for {
		last := s.seq.Load()
		next := max(s.Clock.Now().UnixNano(), last+1)
		if s.seq.CompareAndSwap(last, next) {
			return next
		}
	}
}

const (
	// grace is how long an unreferenced blob stays (real time): downloads
	// that began before have it open by then.
	grace     = 10 * time.Minute
	sweepEach = time.Minute
	// maxUnused bounds the list; beyond it the next full look finds them.
	maxUnused = 100_000
)

// blobRefs is the counter of a blob's users.
func blobRefs(hash string) store.Key { return store.Key{Kind: "s3:blob-refs", ID: hash} }

// Run removes blobs that nothing uses, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.findUnused(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("s3: looking for unused blobs", "error", err)
	}
	t := clock.Real.NewTicker(sweepEach)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.sweep(ctx)
		}
	}
}

func (s *Service) isUnused(ctx context.Context, hash string) (bool, error) {
	var n int64
	err := s.Store.Update(ctx, func(tx store.Tx) (err error) {
		n, err = tx.Counter(blobRefs(hash), 0)
		return err
	})
	return n <= 0, err
}

func (s *Service) findUnused(ctx context.Context) error {
	return s.Blobs.Each(ctx, func(hash string) error {
		ok, err := s.isUnused(ctx, hash)
		if err == nil && ok {
			s.release([]string{hash})
		}
		return err
	})
}

// release notes blobs whose count fell to nought.
func (s *Service) release(hashes []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hashes {
		if len(s.unused) < maxUnused {
			s.unused[h] = clock.Real.Now()
		}
	}
}

func (s *Service) sweep(ctx context.Context) {
	var due []string
	s.mu.Lock()
	for h, since := range s.unused {
		if clock.Real.Since(since) >= grace {
			due = append(due, h)
			delete(s.unused, h)
		}
	}
	s.mu.Unlock()
	for _, h := range due {
		used := false
		gone, err := s.Blobs.Remove(h, grace, func() (bool, error) {
			ok, err := s.isUnused(ctx, h)
			used = err == nil && !ok
			return ok, err
		})
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			s.Log.Error("s3: removing a blob", "hash", h, "error", err)
		}
		if !gone && !used {
			s.release([]string{h})
		}
	}
}
