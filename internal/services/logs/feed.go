package logs

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/internal/api/cloudwatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// feed makes metrics of events: of metric filters, of the embedded metric
// format, and of what was taken in (AWS/Logs).
//
// It reads each group's events behind a cursor. CloudWatch keeps the values
// and, in the same write, the number of the event that they end before; then
// the cursor moves. Whoever comes after a crash between the two goes on from
// the further of both, so that each event counts once.
type feed struct {
	s    *Service
	wake chan struct{}

	mu      sync.Mutex
	dirty   map[groupKey]bool
	intake  map[groupKey]*intake
	minutes map[minuteKey]bool // filters with a default: whether anything matched in that minute
}

type groupKey struct{ account, region, name string }

type minuteKey struct {
	group  groupKey
	filter string
	minute int64 // milliseconds
}

// intake is what a group took in since it was last published.
type intake struct{ events, bytes float64 }

const (
	feedDelay   = 100 * time.Millisecond // collects what arrives together
	feedRetry   = 2 * time.Second
	feedMinutes = time.Second // how often minutes that have ended are looked for
	minuteGrace = 2 * time.Second
)

func newFeed(s *Service) *feed {
	return &feed{s: s, wake: make(chan struct{}, 1), dirty: map[groupKey]bool{}, intake: map[groupKey]*intake{}, minutes: map[minuteKey]bool{}}
}

// touch says that a group has new events.
func (f *feed) touch(k groupKey, events, bytes int) {
	f.mu.Lock()
	f.dirty[k] = true
	in := f.intake[k]
	if in == nil {
		in = &intake{}
		f.intake[k] = in
	}
	in.events += float64(events)
	in.bytes += float64(bytes)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run makes metrics until ctx ends.
func (f *feed) run(ctx context.Context) {
	rows, err := cursors.Select(ctx, f.s.Store, store.Query{})
	if err != nil && ctx.Err() == nil {
		f.s.Log.Error("logs: reading the cursors of metric filters", "error", err)
	}
	for _, r := range rows { // what the last server did not come to
		f.touch(groupKey{r.Account, r.Region, r.Doc.Group}, 0, 0)
	}
	tick := clock.Real.NewTicker(feedMinutes)
	defer tick.Stop()
	published := f.s.Clock.Now().Truncate(time.Minute)
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.wake:
			if clock.Real.Sleep(ctx, feedDelay) != nil {
				return
			}
			f.pass(ctx)
		case <-tick.C:
			f.endMinutes(ctx)
			if now := f.s.Clock.Now().Truncate(time.Minute); now.After(published) {
				f.publishIntake(ctx, published)
				published = now
			}
		}
	}
}

// pass works through the groups with new events. What fails is tried again.
func (f *feed) pass(ctx context.Context) {
	f.mu.Lock()
	todo := f.dirty
	f.dirty = map[groupKey]bool{}
	f.mu.Unlock()
	failed := false
	for k := range todo {
		err := f.group(ctx, k)
		if err == nil || ctx.Err() != nil || errors.Is(err, segment.ErrClosed) || errors.Is(err, store.ErrNotFound) {
			continue // done, or the group is gone
		}
		f.s.Log.Warn("logs: metrics of events are late", "group", k.name, "error", err)
		failed = true
		f.mu.Lock()
		f.dirty[k] = true
		f.mu.Unlock()
	}
	if failed && clock.Real.Sleep(ctx, feedRetry) == nil {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}

// group makes metrics of one group's events behind its cursor.
func (f *feed) group(ctx context.Context, k groupKey) error {
	cur, err := cursors.Find(ctx, f.s.Store, k.account, k.region, k.name)
	if errors.Is(err, store.ErrNotFound) {
		return nil // no filters
	}
	if err != nil {
		return err
	}
	g, err := groups.Find(ctx, f.s.Store, k.account, k.region, k.name)
	if err != nil {
		return err
	}
	l, err := f.s.log(&g.Doc)
	if err != nil {
		return err
	}
	until, from := l.Next(), max(cur.Doc.Next, f.s.metrics.Position(source(g.Doc.Dir)))
	if until <= from {
		return f.move(ctx, cur, from)
	}
	filters, err := f.filters(ctx, k)
	if err != nil {
		return err
	}
	acc := newAccumulator(f.s.metricTime)
	if len(filters) > 0 || cur.Doc.EMF {
		q := segment.Query{From: math.MinInt64, To: math.MaxInt64, Since: from, Until: until}
		err := l.Scan(ctx, q, func(r *segment.Record) bool {
			f.event(acc, k, filters, cur.Doc.EMF, r)
			return true
		})
		if err != nil {
			return err
		}
	}
	// Both or neither: a server that ends in good order counts nothing twice.
	ctx = context.WithoutCancel(ctx)
	if err := f.send(ctx, k, source(g.Doc.Dir), until, acc); err != nil {
		return err
	}
	return f.move(ctx, cur, until)
}

// source names a group's events to CloudWatch; another group under the same
// name has another directory.
func source(dir string) string { return "logs/" + dir }

// move moves a cursor forward.
func (f *feed) move(ctx context.Context, cur *store.Row[cursor], next uint64) error {
	if next <= cur.Doc.Next {
		return nil
	}
	_, err := cursors.Modify(ctx, f.s.Store, cur.Account, cur.Region, cur.ID, "Moved", func(c *cursor) error { c.Next = max(c.Next, next); return nil })
	return err
}

func (f *feed) filters(ctx context.Context, k groupKey) ([]*compiled, error) {
	rows, err := metricFilters.Select(ctx, f.s.Store, store.Query{Account: k.account, Region: k.region, Parent: k.name})
	if err != nil {
		return nil, err
	}
	var out []*compiled
	for _, r := range rows {
		c, err := r.Doc.compile()
		if err != nil { // it was checked when it was put
			f.s.Log.Error("logs: a stored metric filter is not valid", "group", k.name, "filter", r.Doc.Name, "error", err)
			continue
		}
		out = append(out, c)
	}
	return out, nil
}

// event adds one event's values.
func (f *feed) event(acc *accumulator, k groupKey, filters []*compiled, emf bool, r *segment.Record) {
	for _, c := range filters {
		if r.Seq < c.Since {
			continue
		}
		value, dims, matches, emit := c.apply(r.Message)
		if emit {
			acc.add(c.Namespace, c.Metric, c.Unit, dims, r.Time, 60, value)
		}
		if c.Default != nil {
			mk := minuteKey{k, c.Name, r.Ingested / 60_000 * 60_000}
			f.mu.Lock()
			f.minutes[mk] = f.minutes[mk] || matches
			f.mu.Unlock()
		}
	}
	if emf {
		embedded(acc, r)
	}
}

// endMinutes publishes the default values of minutes in which events came but
// none matched.
func (f *feed) endMinutes(ctx context.Context) {
	now := f.s.Clock.Now()
	var ended []minuteKey
	f.mu.Lock()
	for mk, matched := range f.minutes {
		if now.UnixMilli() < mk.minute+60_000+minuteGrace.Milliseconds() {
			continue
		}
		delete(f.minutes, mk)
		if !matched {
			ended = append(ended, mk)
		}
	}
	f.mu.Unlock()
	for _, mk := range ended {
		row, err := metricFilters.Find(ctx, f.s.Store, mk.group.account, mk.group.region, streamID(mk.group.name, mk.filter))
		if err != nil || row.Doc.Default == nil {
			continue // changed meanwhile
		}
		acc := newAccumulator(func(ms int64) int64 { return ms })
		acc.add(row.Doc.Namespace, row.Doc.Metric, row.Doc.Unit, nil, mk.minute, 60, *row.Doc.Default)
		if err := f.send(ctx, mk.group, "", 0, acc); err != nil && ctx.Err() == nil {
			f.s.Log.Warn("logs: a metric filter's default value is lost", "group", mk.group.name, "filter", mk.filter, "error", err)
		}
	}
}

// publishIntake publishes IncomingBytes and IncomingLogEvents of the minute
// that ended ("Monitoring with CloudWatch metrics" in the Logs user guide).
func (f *feed) publishIntake(ctx context.Context, minute time.Time) {
	f.mu.Lock()
	all := f.intake
	f.intake = map[groupKey]*intake{}
	f.mu.Unlock()
	for k, in := range all {
		if in.events == 0 {
			continue
		}
		acc := newAccumulator(func(ms int64) int64 { return ms })
		dims := map[string]string{"LogGroupName": k.name}
		acc.add("AWS/Logs", "IncomingBytes", "Bytes", dims, minute.UnixMilli(), 60, in.bytes)
		acc.add("AWS/Logs", "IncomingLogEvents", "Count", dims, minute.UnixMilli(), 60, in.events)
		if err := f.send(ctx, k, "", 0, acc); err != nil && ctx.Err() == nil {
			f.s.Log.Debug("logs: AWS/Logs metrics", "group", k.name, "error", err)
		}
	}
}

// send hands values to CloudWatch, all in one write. Those that it never takes
// are given up: they must not hold up the others.
func (f *feed) send(ctx context.Context, k groupKey, source string, position uint64, acc *accumulator) error {
	data := acc.data()
	if len(data) == 0 {
		return nil
	}
	refused, err := f.s.metrics.PutFrom(ctx, k.account, k.region, source, position, data)
	for _, why := range refused {
		f.s.Log.Warn("logs: CloudWatch does not take a value", "group", k.name, "error", why)
	}
	return err
}

// metricTime is the time of an event on the service's clock. Programs in
// instances stamp with the machine's clock, which a scaled one has left behind.
func (s *Service) metricTime(at int64) int64 {
	ours, real := s.Clock.Now().UnixMilli(), clock.Real.Now().UnixMilli()
	if distance(at, real) < distance(at, ours) {
		return at + ours - real
	}
	return at
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// accumulator collects values of the same metric and period.
type accumulator struct {
	when   func(ms int64) int64
	series map[seriesKey]*series
}

type seriesKey struct {
	namespace, metric, unit, dims string
	period                        int64 // milliseconds
	resolution                    int64 // seconds
}

type series struct {
	dims   map[string]string
	values map[float64]float64
}

func newAccumulator(when func(ms int64) int64) *accumulator {
	return &accumulator{when: when, series: map[seriesKey]*series{}}
}

// add adds a value at a time in milliseconds; resolution is 60 or 1 seconds.
func (a *accumulator) add(namespace, metric, unit string, dims map[string]string, at, resolution int64, value float64) {
	step := resolution * 1000
	k := seriesKey{namespace, metric, unit, dimsText(dims), a.when(at) / step * step, resolution}
	s := a.series[k]
	if s == nil {
		s = &series{dims: dims, values: map[float64]float64{}}
		a.series[k] = s
	}
	s.values[value]++
}

func dimsText(dims map[string]string) string {
	names := make([]string, 0, len(dims))
	for n, v := range dims {
		names = append(names, n+"\x00"+v)
	}
	slices.Sort(names)
	return strings.Join(names, "\x01")
}

// data are the datums by namespace.
func (a *accumulator) data() map[string][]cloudwatch.MetricDatum {
	out := map[string][]cloudwatch.MetricDatum{}
	for k, s := range a.series {
		d := cloudwatch.MetricDatum{MetricName: new(k.metric), Timestamp: new(time.UnixMilli(k.period).UTC()), Unit: ptr.NonZero(k.unit), StorageResolution: new(k.resolution)}
		for n, v := range s.dims {
			d.Dimensions = append(d.Dimensions, cloudwatch.Dimension{Name: new(n), Value: new(v)})
		}
		values := make([]float64, 0, len(s.values))
		for v := range s.values {
			values = append(values, v)
		}
		for part := range slices.Chunk(values, 150) { // the limit of a datum
			d.Values, d.Counts = part, make([]float64, len(part))
			for i, v := range part {
				d.Counts[i] = s.values[v]
			}
			out[k.namespace] = append(out[k.namespace], d)
		}
	}
	return out
}
