package metricstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"slipway/internal/clock"
)

// Options say where and how to keep points.
type Options struct {
	Dir   string
	Clock clock.Clock  // nil: clock.Real
	Log   *slog.Logger // nil: slog.Default
	// NoSync acknowledges before the disk has it, for ephemeral servers.
	NoSync bool
	// HeadBytes of log are kept before they become blocks; 0 means 16 MiB.
	// It bounds the memory that points need.
	HeadBytes int64
}

// Point is one sample set of one metric.
type Point struct {
	Metric     Metric
	Unit       string
	At         time.Time
	Resolution int64 // seconds: 1 or 60
	Set        Set
}

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("metricstore: closed")

// tier is one resolution. Points of resolution 1 are in the first two tiers;
// the others hold only what has grown too old for the tier below.
type tier struct {
	seconds int64
	window  int64 // seconds of time in one block
	keep    int64 // seconds until it is rolled up or, in the last tier and the first, dropped
	into    int   // the tier it is rolled up into; -1: none
}

// Retention is CloudWatch's (User Guide, "Metrics retention").
var tiers = [...]tier{
	{1, 3600, 3 * 3600, -1},
	{60, 86400, 15 * 86400, 2},
	{300, 8 * 86400, 63 * 86400, 3},
	{3600, 64 * 86400, 455 * 86400, -1},
}

const headTiers = 2

// bucket is a period of a tier, by its start in epoch seconds.
type bucket struct {
	start int64
	set   Set
}

// series is the points of one metric in one unit.
type series struct {
	metric *metric
	unit   string
	head   [headTiers][]bucket // ascending
	frozen [headTiers][]bucket // on their way into blocks
	chunks []chunk
	// logged is the log in which id stands for this series.
	logged uint64
	id     uint64
}

// metric is a Metric and its series by unit.
type metric struct {
	Metric
	key    string
	series []*series
	first  int64 // newest time that was known of it first: epoch seconds
	last   int64 // newest time of a point
	fine   bool  // it ever had points of resolution 1
}

// Store keeps points. All methods are safe for concurrent use.
type Store struct {
	opts Options

	mu      sync.RWMutex
	metrics map[string]*metric
	sorted  []*metric // by account, region and Compare; nil when stale
	blocks  []*block
	// positions are how far producers have come; see PutAt.
	positions map[string]uint64
	logs      []uint64 // numbers of the logs that are still needed, the open one last

	queue chan *put
	stop  chan struct{}
	done  sync.WaitGroup
	once  sync.Once

	// Of the goroutine that writes:
	log     *logFile
	nextLog uint64
	nextID  uint64
	pending chan error // of the checkpoint under way; nil when there is none
}

// put waits to be written.
type put struct {
	points []Point
	// source and position are PutAt's; source "" means Put's.
	source   string
	position uint64
	done     chan error // nil: nobody waits
}

const (
	maxGroup  = 256   // puts that share an fsync,
	maxPoints = 20000 // unless they have so many points
	queueSize = 1024
)

// Open opens the store in o.Dir, which it makes where it is missing.
func Open(o Options) (*Store, error) {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.HeadBytes <= 0 {
		o.HeadBytes = 16 << 20
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("metricstore: %w", err)
	}
	s := &Store{opts: o, metrics: map[string]*metric{}, positions: map[string]uint64{}, queue: make(chan *put, queueSize), stop: make(chan struct{})}
	if err := s.recover(); err != nil {
		s.closeFiles()
		return nil, err
	}
	s.done.Go(s.write)
	return s, nil
}

// Put keeps points and returns when they are durable. It takes the points
// over: the caller does not change them afterwards.
func (s *Store) Put(ctx context.Context, points []Point) error {
	if len(points) == 0 {
		return nil
	}
	return s.send(ctx, &put{points: points, done: make(chan error, 1)})
}

// PutAt is Put for a producer that works through numbered things and may do
// some of them again after a crash: the points and the source's position
// become durable in one write. Where the source is at position already, or
// beyond it, the points are dropped: they are here. Position 0 forgets the
// source.
func (s *Store) PutAt(ctx context.Context, source string, position uint64, points []Point) error {
	if source == "" {
		return errors.New("metricstore: a source needs a name")
	}
	return s.send(ctx, &put{points: points, source: source, position: position, done: make(chan error, 1)})
}

// Position is the last one that PutAt kept points of the source with; 0 where
// there is none.
func (s *Store) Position(source string) uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.positions[source]
}

func (s *Store) send(ctx context.Context, p *put) error {
	select {
	case s.queue <- p:
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return ctx.Err() // it may become durable all the same
	}
}

// Close makes everything queued durable and closes the files.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.stop) })
	s.done.Wait()
	return s.closeFiles()
}

// Forget drops all metrics, from what readers see. It is for stores that need
// not outlive their process (NoSync): the files keep the points until the
// directory goes.
func (s *Store) Forget() error {
	if !s.opts.NoSync {
		return errors.New("metricstore: a durable store forgets nothing")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metrics, s.sorted, s.positions = map[string]*metric{}, nil, map[string]uint64{}
	return nil
}

func (s *Store) closeFiles() error {
	var errs []error
	if s.log != nil {
		errs = append(errs, s.log.close())
		s.log = nil
	}
	for _, b := range s.blocks {
		b.release()
	}
	s.blocks = nil
	return errors.Join(errs...)
}

// write is the one goroutine that writes logs and the head.
func (s *Store) write() {
	tick := s.opts.Clock.NewTicker(10 * time.Minute)
	defer tick.Stop()
	if len(s.logs) > 4 { // several short lives: do not replay that much again
		s.checkpoint(true)
	}
	for {
		select {
		case p := <-s.queue:
			s.commit(s.gather(p))
		case err := <-s.pending:
			s.settled(err)
		case <-tick.C:
			s.checkpoint(false)
		case <-s.stop:
			for {
				select {
				case p := <-s.queue:
					s.commit(s.gather(p))
					continue
				default:
				}
				if s.pending != nil {
					s.settled(<-s.pending)
				}
				return
			}
		}
		if s.log.size > s.opts.HeadBytes {
			s.checkpoint(true)
		}
	}
}

func (s *Store) gather(first *put) []*put {
	group, points := []*put{first}, len(first.points)
	for len(group) < maxGroup && points < maxPoints {
		select {
		case p := <-s.queue:
			group = append(group, p)
			points += len(p.points)
		default:
			return group
		}
	}
	return group
}

// commit writes a group to the log, then shows it to readers, then
// acknowledges it.
func (s *Store) commit(group []*put) {
	s.mu.Lock()
	moved := map[string]uint64{}
	for _, p := range group {
		if p.source != "" && !s.moves(p, moved) {
			p.points = nil
			continue
		}
		for i := range p.points {
			s.log.add(s, &p.points[i])
		}
		if p.source != "" {
			s.log.mark(p.source, p.position)
			moved[p.source] = p.position
		}
	}
	s.mu.Unlock()
	err := s.log.flush(!s.opts.NoSync)
	if err == nil {
		s.mu.Lock()
		for _, p := range group {
			for i := range p.points {
				s.apply(&p.points[i])
			}
		}
		for source, position := range moved {
			s.moved(source, position)
		}
		s.mu.Unlock()
	} else {
		err = fmt.Errorf("metricstore: points could not be written: %w", err)
		// Ids that this group defined are not in the file.
		s.forgetIDs()
	}
	for _, p := range group {
		p.done <- err
	}
}

// moves says whether a put brings its source further than it is, or, in the
// same group, than it will be; the caller holds mu.
func (s *Store) moves(p *put, group map[string]uint64) bool {
	at, ok := group[p.source]
	if !ok {
		at, ok = s.positions[p.source]
	}
	if p.position == 0 {
		return ok
	}
	return p.position > at
}

// moved takes over a position that is durable; the caller holds mu for writing.
func (s *Store) moved(source string, position uint64) {
	if position == 0 {
		delete(s.positions, source)
		return
	}
	s.positions[source] = max(s.positions[source], position)
}

// lookup finds or makes the series; the caller holds mu for writing.
func (s *Store) lookup(m *Metric, key string, unit string) *series {
	mt := s.metrics[key]
	if mt == nil {
		mt = &metric{Metric: *m, key: key}
		s.metrics[key] = mt
		s.sorted = nil
	}
	for _, x := range mt.series {
		if x.unit == unit {
			return x
		}
	}
	x := &series{metric: mt, unit: unit}
	mt.series = append(mt.series, x)
	return x
}

// apply puts a point into the head; the caller holds mu for writing.
func (s *Store) apply(p *Point) {
	x := s.lookup(&p.Metric, p.Metric.Key(), p.Unit)
	x.apply(p.At.Unix(), p.Resolution, p.Set)
}

func (x *series) apply(at, resolution int64, set Set) {
	x.metric.saw(at)
	if resolution < 60 {
		x.metric.fine = true
		x.head[0] = mergeBucket(x.head[0], at, set)
	}
	x.head[1] = mergeBucket(x.head[1], floor(at, 60), set)
}

func (m *metric) saw(at int64) {
	if m.first == 0 {
		m.first = at
	}
	m.last = max(m.last, at)
}

// floor is the start of the period that t is in.
func floor(t, period int64) int64 {
	r := t % period
	if r < 0 {
		r += period
	}
	return t - r
}

// mergeBucket adds a set to an ascending list of buckets.
func mergeBucket(list []bucket, start int64, set Set) []bucket {
	i := len(list)
	for i > 0 && list[i-1].start > start { // points arrive nearly in order
		i--
		if len(list)-i > 8 {
			i = searchBuckets(list, start)
			break
		}
	}
	if i > 0 && list[i-1].start == start {
		list[i-1].set.Merge(set)
		return list
	}
	if i < len(list) && list[i].start == start {
		list[i].set.Merge(set)
		return list
	}
	list = append(list, bucket{})
	copy(list[i+1:], list[i:])
	var own Set
	own.Merge(set)
	list[i] = bucket{start, own}
	return list
}

// searchBuckets is the first index whose start is not before start.
func searchBuckets(list []bucket, start int64) int {
	lo, hi := 0, len(list)
	for lo < hi {
		mid := (lo + hi) / 2
		if list[mid].start < start {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
