package cloudwatch

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/evaluate"
	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

// source is where a metric alarm's points come from.
type source struct {
	program *program
	watched string // the id of what is compared
	band    string // the id of the band that it is compared with, or ""
	period  int64  // seconds
}

// window is an alarm's evaluation range, oldest first.
type window struct {
	points []*evaluate.Point
	start  int64 // epoch seconds
}

// newWatched prepares an alarm for evaluation.
func newWatched(row *store.Row[Alarm]) (*watched, error) {
	w := &watched{row: row}
	a := &row.Doc
	if a.composite() {
		return w, w.prepareComposite()
	}
	c := a.Metric
	queries := c.Metrics
	if queries == nil {
		stat := ptr.Value(c.Statistic) + ptr.Value(c.ExtendedStatistic) // one of them is set
		queries = []api.MetricDataQuery{{Id: new("m"), MetricStat: &api.MetricStat{
			Metric: &api.Metric{Namespace: c.Namespace, MetricName: c.MetricName, Dimensions: c.Dimensions}, Period: c.Period, Stat: &stat, Unit: c.Unit,
		}}}
	}
	p, err := compile(queries)
	if err != nil {
		return nil, err
	}
	w.source = source{program: p, period: mathPeriod(queries)}
	w.source.band = ptr.Value(c.ThresholdMetricId)
	for _, q := range queries {
		if returns(&q) && *q.Id != w.source.band {
			w.source.watched = *q.Id
		}
	}
	// A period of a minute or more is a window that moves each minute, a
	// shorter one each ten seconds (User Guide, "Evaluating an alarm").
	if w.step = 60; w.source.period < 60 {
		w.step = 10
	}
	n := int(*c.EvaluationPeriods)
	w.rule = evaluate.Rule{Periods: n, ToAlarm: n, Operator: *c.ComparisonOperator, Threshold: ptr.Value(c.Threshold), Missing: ptr.Value(c.TreatMissingData)}
	if c.DatapointsToAlarm != nil {
		w.rule.ToAlarm = int(*c.DatapointsToAlarm)
	}
	if ptr.Value(c.Namespace) == "AWS/DynamoDB" {
		w.rule.Missing = evaluate.Ignore // always, says the User Guide
	}
	if c.ExtendedStatistic != nil && ptr.Value(c.EvaluateLowSampleCountPercentile) == "ignore" {
		if st, err := metricstore.ParseStatistic(*c.ExtendedStatistic); err == nil {
			w.rule.Percentile, w.rule.HoldFewSamples = st.Percentile()
		}
	}
	for _, m := range a.metrics(row.Account, row.Region) {
		w.keys = append(w.keys, m.Key())
	}
	return w, nil
}

// metrics are those that a metric alarm depends on.
func (a *Alarm) metrics(account, region string) []metricstore.Metric {
	c := a.Metric
	if c == nil {
		return nil
	}
	if c.Metrics == nil {
		return []metricstore.Metric{metricOf(account, region, ptr.Value(c.Namespace), ptr.Value(c.MetricName), c.Dimensions)}
	}
	var out []metricstore.Metric
	for _, q := range c.Metrics {
		if ms := q.MetricStat; ms != nil {
			out = append(out, metricOf(account, region, ptr.Value(ms.Metric.Namespace), ptr.Value(ms.Metric.MetricName), ms.Metric.Dimensions))
		}
	}
	return out
}

// window reads the n periods before end.
func (src *source) window(ctx context.Context, s *Service, key store.Key, end int64, n int) (window, error) {
	start := end - int64(n)*src.period
	r := s.newRun(ctx, src.program, span{account: key.Account, region: key.Region, start: func(int64) int64 { return start }, end: end}, false)
	v, _, err := r.value(src.watched)
	if err != nil {
		return window{}, err
	}
	w := window{points: make([]*evaluate.Point, n), start: start}
	switch v.Kind {
	case mathexpr.Scalar: // the same for each period
		for i := range w.points {
			w.points[i] = &evaluate.Point{Start: time.Unix(start+int64(i)*src.period, 0).UTC(), Value: v.Number}
		}
	case mathexpr.TimeSeries:
		for _, p := range v.List[0].Points {
			if i := (p.At - start) / src.period; i >= 0 && i < int64(n) {
				w.points[i] = &evaluate.Point{Start: time.Unix(p.At, 0).UTC(), Value: p.Value, Samples: r.samples[src.watched][p.At]}
			}
		}
	case mathexpr.List:
		return w, &expressionError{src.watched, errors.New("it gives several time series")}
	}
	if src.band != "" {
		return w, src.bound(r, &w)
	}
	return w, nil
}

// bound gives each point its band. A point without one cannot be compared: it
// counts as missing.
func (src *source) bound(r *run, w *window) error {
	v, _, err := r.value(src.band)
	if err != nil {
		return err
	}
	have := make([]bool, len(w.points))
	for i, p := range v.List[0].Points {
		at := (p.At - w.start) / src.period
		if at < 0 || at >= int64(len(w.points)) || w.points[at] == nil {
			continue
		}
		have[at], w.points[at].Lower, w.points[at].Upper = true, p.Value, v.List[1].Points[i].Value
	}
	for i := range w.points {
		if !have[i] {
			w.points[i] = nil
		}
	}
	return nil
}

type evaluatedPoint struct {
	Timestamp   string      `json:"timestamp"`
	SampleCount *javaNumber `json:"sampleCount,omitempty"`
	Value       *javaNumber `json:"value,omitempty"`
	Threshold   *javaNumber `json:"threshold,omitempty"` // of an alarm on one side of a band
}

// reasonData is StateReasonData: the JSON that goes with a state.
func reasonData(w *watched, win window, res evaluate.Result, now time.Time) string {
	c := w.row.Doc.Metric
	data := struct {
		Version   string           `json:"version"`
		QueryDate string           `json:"queryDate"`
		StartDate string           `json:"startDate,omitempty"`
		Unit      *string          `json:"unit,omitempty"`
		Statistic string           `json:"statistic,omitempty"`
		Period    int64            `json:"period"`
		Recent    []javaNumber     `json:"recentDatapoints"`
		Threshold *javaNumber      `json:"threshold,omitempty"`
		Lower     []javaNumber     `json:"recentLowerThresholds,omitempty"`
		Upper     []javaNumber     `json:"recentUpperThresholds,omitempty"`
		Evaluated []evaluatedPoint `json:"evaluatedDatapoints,omitempty"`
	}{
		Version: "1.0", QueryDate: now.UTC().Format(awsTime), Unit: c.Unit, Statistic: ptr.Value(c.Statistic) + ptr.Value(c.ExtendedStatistic),
		Period: w.source.period, Recent: []javaNumber{},
	}
	if !w.rule.Banded() {
		data.Threshold = new(javaNumber(w.rule.Threshold))
	}
	for _, p := range slices.Backward(res.Used) {
		if data.StartDate == "" {
			data.StartDate = p.Start.Format(awsTime)
		}
		data.Recent = append(data.Recent, javaNumber(p.Value))
		if op := w.rule.Operator; op == evaluate.OutsideBand || op == evaluate.BelowBand {
			data.Lower = append(data.Lower, javaNumber(p.Lower))
		}
		if op := w.rule.Operator; op == evaluate.OutsideBand || op == evaluate.AboveBand {
			data.Upper = append(data.Upper, javaNumber(p.Upper))
		}
	}
	for _, p := range res.Used {
		e := evaluatedPoint{Timestamp: p.Start.Format(awsTime), Value: new(javaNumber(p.Value))}
		if p.Samples > 0 {
			e.SampleCount = new(javaNumber(p.Samples))
		}
		switch w.rule.Operator {
		case evaluate.BelowBand:
			e.Threshold = new(javaNumber(p.Lower))
		case evaluate.AboveBand:
			e.Threshold = new(javaNumber(p.Upper))
		}
		data.Evaluated = append(data.Evaluated, e)
	}
	if len(res.Used) == 0 {
		for i := range w.rule.Periods {
			at := time.Unix(win.start+int64(len(win.points)-1-i)*w.source.period, 0)
			data.Evaluated = append(data.Evaluated, evaluatedPoint{Timestamp: at.UTC().Format(awsTime)})
		}
	}
	b, err := json.Marshal(data)
	if err != nil || len(b) > 4000 { // AWS's limit for StateReasonData
		data.Evaluated = nil
		b, _ = json.Marshal(data)
	}
	return string(b)
}

// hint tells, once, of an alarm that waits for a metric which does not exist:
// mostly a wrong name or a forgotten dimension.
func (e *engine) hint(ctx context.Context, w *watched) error {
	a := &w.row.Doc
	if a.State != api.StateValueInsufficientData || a.Reason != uncheckedReason || e.s.clock.Since(a.Configured) < time.Duration(w.source.period)*time.Second {
		return nil
	}
	for _, m := range a.metrics(w.row.Account, w.row.Region) {
		if e.s.metrics.Known(m) {
			continue
		}
		reason := shortened(uncheckedReason+". "+e.s.describeUnknown(m), 1023)
		return e.s.store.Update(ctx, func(tx store.Tx) error {
			row := *w.row
			row.Doc.Reason, row.Doc.Updated = reason, e.s.clock.Now()
			return alarms.Save(tx, &row, eventOther, nil)
		})
	}
	return nil
}

func (s *Service) describeUnknown(m metricstore.Metric) string {
	text := "No data has ever arrived for the metric " + describeMetric(m) + "."
	best, score := "", math.Inf(1)
	for _, l := range s.metrics.List(m.Account, m.Region, nil) {
		d := math.Inf(1)
		switch {
		case l.Namespace == m.Namespace && l.Name == m.Name:
			d = 1 // other dimensions
		case strings.EqualFold(l.Namespace, m.Namespace) && strings.EqualFold(l.Name, m.Name):
			d = 2
		case l.Namespace == m.Namespace && distance(l.Name, m.Name) <= 2:
			d = 3
		}
		if d < score {
			best, score = describeMetric(l.Metric), d
		}
	}
	if best != "" {
		text += " There is " + best + "."
	}
	return text
}

func describeMetric(m metricstore.Metric) string {
	var dims []string
	for _, d := range m.Dimensions {
		dims = append(dims, d.Name+"="+d.Value)
	}
	with := "without dimensions"
	if len(dims) > 0 {
		with = "with " + strings.Join(dims, ", ")
	}
	return m.Namespace + " " + m.Name + " " + with
}

// distance is the Levenshtein distance, for short names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost++
			}
			prev = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
