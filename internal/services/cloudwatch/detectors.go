package cloudwatch

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // MetricTimezone names zones, also on hosts without their data

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/anomaly"
	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

// detector is the document of a cloudwatch:anomaly row: what a model is
// learnt of, and how. Exactly one of Single and Math is set. The row's id
// follows from them, so that the same metric has one detector. The model
// itself is computed from the points whenever it is needed.
type detector struct {
	Single     *api.SingleMetricAnomalyDetector  `json:",omitempty"`
	Math       *api.MetricMathAnomalyDetector    `json:",omitempty"`
	Config     *api.AnomalyDetectorConfiguration `json:",omitempty"`
	Traits     *api.MetricCharacteristics        `json:",omitempty"`
	Configured time.Time
	// State is a StateValue of anomaly detectors.
	State string
}

var detectors = store.NewTable("cloudwatch:anomaly", func(d *detector) (string, string) {
	return d.kind(), d.State
})

// subject is what a detector is for: the watched query and those that it
// depends on. Of a single metric the period is left open.
type subject struct {
	queries []api.MetricDataQuery
	watched string
	single  bool
}

// subject is that of a query of a checked program.
func (p *program) subject(id string) (subject, error) {
	q := p.byID[id]
	if q == nil {
		return subject{}, fmt.Errorf("there is no metric or expression with the id %s", id)
	}
	if q.MetricStat != nil {
		m := q.MetricStat.Metric
		return singleSubject(m.Namespace, m.MetricName, m.Dimensions, q.MetricStat.Stat), nil
	}
	needed := map[string]bool{}
	var need func(id string)
	need = func(id string) {
		if needed[id] {
			return
		}
		needed[id] = true
		expr := p.exprs[id]
		if expr == nil {
			return
		}
		for _, dep := range expr.IDs {
			need(dep)
		}
		if expr.UsesMetrics() {
			for _, q := range p.queries {
				if q.MetricStat != nil {
					need(*q.Id)
				}
			}
		}
	}
	need(id)
	s := subject{watched: id}
	for _, q := range p.queries {
		if !needed[*q.Id] {
			continue
		}
		if p.sql[*q.Id] != nil {
			return subject{}, fmt.Errorf("%s is a Metrics Insights query, of which no model can be made", *q.Id)
		}
		if e := p.exprs[*q.Id]; e != nil && (mathexpr.Searches(e) || len(e.Bands()) > 0) {
			return subject{}, fmt.Errorf("%s uses SEARCH or ANOMALY_DETECTION_BAND, of which no model can be made", *q.Id)
		}
		s.queries = append(s.queries, api.MetricDataQuery{Id: q.Id, MetricStat: q.MetricStat, Expression: q.Expression, Period: q.Period, ReturnData: new(*q.Id == id)})
	}
	slices.SortFunc(s.queries, func(a, b api.MetricDataQuery) int { return strings.Compare(*a.Id, *b.Id) })
	return s, nil
}

func singleSubject(namespace, name *string, dims []api.Dimension, stat *string) subject {
	return subject{single: true, watched: "m", queries: []api.MetricDataQuery{{Id: new("m"), MetricStat: &api.MetricStat{
		Metric: &api.Metric{Namespace: namespace, MetricName: name, Dimensions: dims}, Stat: stat}}}}
}

// id names the subject's detector: the same subject, the same id.
func (s subject) id() string {
	var text []byte
	for _, q := range s.queries {
		part := [4]string{ptr.Value(q.Id), ptr.Value(q.Expression), fmt.Sprint(ptr.Value(q.Period), *q.Id == s.watched)}
		if ms := q.MetricStat; ms != nil {
			m := metricOf("", "", *ms.Metric.Namespace, *ms.Metric.MetricName, ms.Metric.Dimensions)
			part[3] = fmt.Sprintf("%q %s %d %s", m.Key(), *ms.Stat, ptr.Value(ms.Period), ptr.Value(ms.Unit))
		}
		b, _ := json.Marshal(part) // strings: cannot fail
		text = append(text, b...)
	}
	h := sha256.Sum256(text)
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// detector is a new one for the subject.
func (s subject) detector(now time.Time) detector {
	d := detector{Configured: now, State: api.AnomalyDetectorStateValuePendingTraining}
	if s.single {
		ms := s.queries[0].MetricStat
		d.Single = &api.SingleMetricAnomalyDetector{Namespace: ms.Metric.Namespace, MetricName: ms.Metric.MetricName, Dimensions: ms.Metric.Dimensions, Stat: ms.Stat}
	} else {
		d.Math = &api.MetricMathAnomalyDetector{MetricDataQueries: s.queries}
	}
	return d
}

// subject is what the detector was made for.
func (d *detector) subject() (subject, error) {
	if s := d.Single; s != nil {
		return singleSubject(s.Namespace, s.MetricName, s.Dimensions, s.Stat), nil
	}
	p, err := compile(d.Math.MetricDataQueries)
	if err != nil {
		return subject{}, err
	}
	return p.subject(watchedID(d.Math.MetricDataQueries))
}

// watchedID is the first query that returns data, or "".
func watchedID(queries []api.MetricDataQuery) string {
	for _, q := range queries {
		if returns(&q) {
			return *q.Id
		}
	}
	return ""
}

func returns(q *api.MetricDataQuery) bool { return q.ReturnData == nil || *q.ReturnData }

// ensureDetectors makes the detectors that the bands of an alarm need, as
// PutMetricAlarm does on AWS.
func (s *Service) ensureDetectors(tx store.Tx, account, region string, queries []api.MetricDataQuery) error {
	p, err := compile(queries)
	if err != nil {
		return err
	}
	for _, q := range queries {
		expr := p.exprs[*q.Id]
		if expr == nil {
			continue
		}
		for _, id := range expr.Bands() {
			sub, err := p.subject(id)
			if err != nil {
				return validation("Error in expression '%s': %v", *q.Id, err)
			}
			_, err = detectors.Get(tx, account, region, sub.id())
			if errors.Is(err, store.ErrNotFound) {
				err = s.insertDetector(tx, account, region, sub.id(), sub.detector(s.clock.Now()))
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

const (
	trainOn      = 14 * 86400 // seconds of the past (User Guide: up to two weeks)
	trainEvery   = 3600       // seconds between two models
	retryEvery   = 300        // seconds until a model with too little is tried again
	trainPeriod  = 300        // seconds: the period of the model that decides a single metric's state
	trainPoints  = 10
	trainSpan    = 3 * 3600 // seconds that the points must cover,
	trainSpanMin = 3600     // and for periods below a minute, which are kept for three hours only
	maxModels    = 512
)

// models are the models that have been computed: a cache. A model depends on
// the detector, the points, and the hour (or, while there is too little to
// learn from, the five minutes) that the clock is in, and on nothing else: a
// restarted server computes the same one.
type models struct {
	s        *Service
	training sync.Mutex // one at a time, whoever asks: a bound on the cost

	mu      sync.Mutex
	entries map[modelKey]*modelEntry
}

type modelKey struct {
	row        store.Key
	configured int64
	period     int64
	unit       string
}

type modelEntry struct {
	used time.Time // guarded by models.mu

	mu             sync.Mutex
	hourly, recent *anomaly.Model
	hour, five     int64 // when they were learnt
}

func newModels(s *Service) *models { return &models{s: s, entries: map[modelKey]*modelEntry{}} }

// forget drops all models.
func (m *models) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries = map[modelKey]*modelEntry{}
}

func (m *models) entry(key modelKey) *modelEntry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[key]
	if e == nil {
		if len(m.entries) >= maxModels {
			var oldest modelKey
			for k, v := range m.entries {
				if o := m.entries[oldest]; o == nil || v.used.Before(o.used) {
					oldest = k
				}
			}
			delete(m.entries, oldest)
		}
		e = &modelEntry{}
		m.entries[key] = e
	}
	e.used = m.s.clock.Now()
	return e
}

// get is the model of a detector for points of a period in seconds and a unit
// ("": any).
func (m *models) get(ctx context.Context, row *store.Row[detector], sub subject, period int64, unit string) (*anomaly.Model, error) {
	e := m.entry(modelKey{row.Key, row.Doc.Configured.UnixNano(), period, unit})
	e.mu.Lock()
	defer e.mu.Unlock()
	now := m.s.clock.Now().Unix()
	var err error
	if hour := floor(now, trainEvery); e.hourly == nil || e.hour != hour {
		if e.hourly, err = m.train(ctx, row, sub, period, unit, hour); err != nil {
			return nil, err
		}
		e.hour, e.recent = hour, nil
	}
	if e.hourly.Trained() {
		return e.hourly, nil
	}
	if five := floor(now, retryEvery); e.recent == nil || e.five != five {
		if e.recent, err = m.train(ctx, row, sub, period, unit, five); err != nil {
			return nil, err
		}
		e.five = five
	}
	return e.recent, nil
}

// train learns from the two weeks before end, in epoch seconds.
func (m *models) train(ctx context.Context, row *store.Row[detector], sub subject, period int64, unit string, end int64) (*anomaly.Model, error) {
	m.training.Lock()
	defer m.training.Unlock()
	queries := sub.queries
	if sub.single {
		ms := *queries[0].MetricStat
		ms.Period, ms.Unit = &period, ptr.NonZero(unit)
		queries = []api.MetricDataQuery{{Id: &sub.watched, MetricStat: &ms}}
	}
	p, err := compile(queries)
	if err != nil {
		return nil, err
	}
	end = floor(end, period)
	start := floor(end-trainOn, period)
	r := m.s.newRun(ctx, p, span{account: row.Account, region: row.Region, start: func(int64) int64 { return start }, end: end}, false)
	v, _, err := r.value(sub.watched)
	if err != nil {
		return nil, err
	}
	if v.Kind != mathexpr.TimeSeries {
		return nil, &expressionError{sub.watched, errors.New("a model needs a single time series")}
	}
	points := make([]anomaly.Point, len(v.List[0].Points))
	for i, pt := range v.List[0].Points {
		points[i] = anomaly.Point{At: pt.At, Value: pt.Value}
	}
	o, err := m.options(row, period)
	if err != nil {
		return nil, err
	}
	return anomaly.Train(points, o), nil
}

func (m *models) options(row *store.Row[detector], period int64) (anomaly.Options, error) {
	o := anomaly.Options{MinPoints: trainPoints, MinSpan: trainSpan}
	if period < 60 {
		o.MinSpan = trainSpanMin
	}
	if c := row.Doc.Config; c != nil {
		if c.MetricTimezone != nil {
			zone, err := time.LoadLocation(*c.MetricTimezone)
			if err != nil {
				return o, err // it was checked when it was put
			}
			o.Zone = zone
		}
		for _, r := range c.ExcludedTimeRanges {
			o.Excluded = append(o.Excluded, anomaly.Span{Start: r.StartTime.Unix(), End: r.EndTime.Unix()})
		}
	}
	// What AWS's services report has logical bounds, which bands keep to (User
	// Guide, "Using CloudWatch anomaly detection"): no count is below 0, no
	// percentage above 100.
	d := row.Doc.Single
	if d == nil || !strings.HasPrefix(*d.Namespace, "AWS/") {
		return o, nil
	}
	o.Floor = new(0.0)
	units := m.s.metrics.Units(metricOf(row.Account, row.Region, *d.Namespace, *d.MetricName, d.Dimensions))
	if stat := *d.Stat; slices.Equal(units, []string{api.StandardUnitPercent}) && (stat == api.StatisticAverage || stat == api.StatisticMaximum || stat == api.StatisticMinimum || stat[0] == 'p') {
		o.Ceiling = new(100.0)
	}
	return o, nil
}

// band is ANOMALY_DETECTION_BAND of a query: its lower and its upper bound.
// Both are empty where there is no detector, or none that is trained.
func (r *run) band(id string, width float64) ([]mathexpr.Series, error) {
	period := r.period(id)
	lower, upper := mathexpr.Series{Label: id + " (low)", Period: period}, mathexpr.Series{Label: id + " (high)", Period: period}
	sub, err := r.p.subject(id)
	if err != nil {
		return nil, err
	}
	row, err := detectors.Find(r.ctx, r.s.store, r.span.account, r.span.region, sub.id())
	if errors.Is(err, store.ErrNotFound) {
		return []mathexpr.Series{lower, upper}, nil
	}
	if err != nil {
		return nil, err
	}
	unit := ""
	if sub.single {
		unit = ptr.Value(r.p.byID[id].MetricStat.Unit)
	}
	m, err := r.s.models.get(r.ctx, row, sub, period, unit)
	if err != nil {
		return nil, err
	}
	for t := r.span.start(period); t < r.span.end && len(lower.Points) < defaultMaxPoints; t += period {
		lo, up, ok := m.Band(t, width)
		if !ok {
			break
		}
		lower.Points = append(lower.Points, mathexpr.Point{At: t, Value: lo})
		upper.Points = append(upper.Points, mathexpr.Point{At: t, Value: up})
	}
	return []mathexpr.Series{lower, upper}, nil
}

// trainDetector keeps a detector's model and its StateValue up to date.
func (s *Service) trainDetector(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := detectors.Find(ctx, s.store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	sub, err := row.Doc.subject()
	if err != nil {
		return 0, err
	}
	period := int64(trainPeriod)
	if !sub.single {
		period = mathPeriod(sub.queries)
	}
	m, err := s.models.get(ctx, row, sub, period, "")
	var wrong *expressionError
	if err != nil && !errors.As(err, &wrong) {
		return 0, err
	}
	state, again := api.AnomalyDetectorStateValueTrained, int64(trainEvery)
	if err != nil || !m.Trained() {
		state, again = api.AnomalyDetectorStateValueTrainedInsufficientData, retryEvery
	}
	if row.Doc.State != state {
		_, err = detectors.Modify(ctx, s.store, key.Account, key.Region, key.ID, "Trained", func(d *detector) error {
			if !d.Configured.Equal(row.Doc.Configured) || d.State == state {
				return store.ErrUnchanged // its event is on the way
			}
			d.State = state
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	now := s.clock.Now()
	return time.Unix(floor(now.Unix(), again)+again, 0).Sub(now) + time.Second, nil
}

// metricOfDetector is the metric of a detector for a single one.
func metricOfDetector(d *api.SingleMetricAnomalyDetector) metricstore.Metric {
	return metricOf("", "", ptr.Value(d.Namespace), ptr.Value(d.MetricName), d.Dimensions)
}
