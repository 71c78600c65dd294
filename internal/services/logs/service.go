package logs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"slipway/internal/api/cloudwatch"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/keyring"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock // nil: clock.Real
	// Dir holds the events; the service makes it.
	Dir string
	// Durable syncs events before they are acknowledged.
	Durable bool
	Log     *slog.Logger // nil: slog.Default
}

// Metrics takes the values that filters make of events; CloudWatch does.
type Metrics interface {
	// PutFrom keeps data by namespace and, in the same write, that source has
	// been worked through up to position; data whose position is known are
	// dropped. A source of "" has no position, a position of 0 forgets the
	// source. refused are data that are never taken; the rest is kept.
	PutFrom(ctx context.Context, account, region, source string, position uint64, data map[string][]cloudwatch.MetricDatum) (refused []error, err error)
	// Position is how far a source has come; 0 where it has not begun.
	Position(source string) uint64
}

// Service is CloudWatch Logs. All methods are safe for concurrent use.
type Service struct {
	Deps

	mux      *dispatch.Mux // set by Register
	metrics  Metrics       // set by SetMetrics
	feed     *feed
	queries  *queries
	exporter *exporter
	tails    tails

	mu   sync.Mutex
	open map[string]*segment.Log // by the group's directory name
}

// New makes the service; Register and Run bring it to life.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = clock.Real
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	s := &Service{Deps: deps, open: map[string]*segment.Log{}}
	s.feed, s.queries, s.exporter = newFeed(s), newQueries(), newExporter()
	return s
}

// SetMetrics names who takes the values of metric filters; before Run. Without
// one they are not made.
func (s *Service) SetMetrics(m Metrics) { s.metrics = m }

// Register serves the operations.
func (s *Service) Register(m *dispatch.Mux) {
	s.mux = m
	s.registerMetricFilters(m)
	s.registerQueries(m)
	s.registerTail(m)
	s.registerSubscriptions(m)
	s.registerExports(m)
	s.registerDefinitions(m)
	s.registerGroups(m)
	s.registerStreams(m)
	s.registerEvents(m)
	s.registerTags(m)
}

// newDir names the directory of a new group.
func newDir() string { return keyring.NewID("", 20) }

// log opens a group's events, once.
func (s *Service) log(g *group) (*segment.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.open[g.Dir]; l != nil {
		return l, nil
	}
	l, err := segment.Open(filepath.Join(s.Dir, g.Dir), segment.Options{Durable: s.Durable})
	if err != nil {
		return nil, fmt.Errorf("logs: group %s: %w", g.Name, err)
	}
	s.open[g.Dir] = l
	return l, nil
}

// discard closes and removes the events of a deleted group.
func (s *Service) discard(dir string) {
	s.mu.Lock()
	l := s.open[dir]
	delete(s.open, dir)
	s.mu.Unlock()
	if l != nil {
		l.Close()
	}
	if s.metrics != nil {
		// Before the directory goes: what is left of it names the source again.
		if _, err := s.metrics.PutFrom(context.Background(), "", "", source(dir), 0, nil); err != nil {
			s.Log.Error("logs: forgetting how far a deleted group's metrics are", "dir", dir, "error", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(s.Dir, dir)); err != nil {
		s.Log.Error("logs: removing a deleted group's events", "dir", dir, "error", err)
	}
}

const (
	maintainEach = 15 * time.Second
	// expireEach is how often groups that nobody writes to are looked at.
	expireEach = time.Hour
)

// Run seals segments, removes expired events and makes metrics of new ones
// until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	if err := s.removeOrphans(ctx); err != nil && ctx.Err() == nil {
		s.Log.Error("logs: removing the events of deleted groups", "error", err)
	}
	t := clock.Real.NewTicker(maintainEach)
	defer t.Stop()
	defer s.close()
	var wg sync.WaitGroup
	if s.metrics != nil {
		wg.Go(func() { s.feed.run(ctx) })
	}
	wg.Go(func() { s.runExports(ctx) })
	defer wg.Wait()
	defer s.queries.close()
	for n := time.Duration(0); ; n += maintainEach {
		if err := s.maintain(ctx, n%expireEach == 0); err != nil && ctx.Err() == nil {
			s.Log.Error("logs: maintenance", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (s *Service) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for dir, l := range s.open {
		l.Close()
		delete(s.open, dir)
	}
}

func (s *Service) removeOrphans(ctx context.Context) error {
	names, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := groups.Select(ctx, s.Store, store.Query{}) // after the directory was read: new groups have rows
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, r := range rows {
		known[r.Doc.Dir] = true
	}
	for _, n := range names {
		if !known[n.Name()] {
			s.discard(n.Name())
		}
	}
	return nil
}

func (s *Service) maintain(ctx context.Context, all bool) error {
	rows, err := groups.Select(ctx, s.Store, store.Query{})
	if err != nil {
		return err
	}
	for _, r := range rows {
		if ctx.Err() != nil {
			return nil
		}
		g := &r.Doc
		s.mu.Lock()
		isOpen := s.open[g.Dir] != nil
		s.mu.Unlock()
		if !isOpen && (!all || g.Retention == 0) {
			continue
		}
		if err := s.maintainGroup(ctx, r); err != nil && !errors.Is(err, segment.ErrClosed) {
			return err
		}
	}
	return nil
}

func (s *Service) maintainGroup(ctx context.Context, r *store.Row[group]) error {
	l, err := s.log(&r.Doc)
	if err != nil {
		return err
	}
	rows, err := streams.Select(ctx, s.Store, store.Query{Account: r.Account, Region: r.Region, Parent: r.ID})
	if err != nil {
		return err
	}
	alive := map[uint32]bool{}
	newest := uint32(0)
	for _, st := range rows {
		alive[st.Doc.Number] = true
		newest = max(newest, st.Doc.Number)
	}
	// A stream may have been made since the rows were read: numbers only rise.
	return l.Maintain(s.cutoff(&r.Doc), func(n uint32) bool { return n < newest && !alive[n] })
}

// cutoff is the time (milliseconds) before which a group's events are expired.
func (s *Service) cutoff(g *group) int64 {
	if g.Retention == 0 {
		return math.MinInt64
	}
	return s.Clock.Now().AddDate(0, 0, -int(g.Retention)).UnixMilli()
}
