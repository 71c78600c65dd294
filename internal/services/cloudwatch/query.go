package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
)

// program is a checked list of metric data queries.
type program struct {
	queries []api.MetricDataQuery
	byID    map[string]*api.MetricDataQuery
	exprs   map[string]*mathexpr.Expr
	stats   map[string]metricstore.Statistic
	sql     map[string]*sqlQuery // Metrics Insights queries
}

var queryID = lazyre.New(`^[a-z][A-Za-z0-9_]*$`)

// compile checks queries: ids, statistics, expressions, and that no
// expression depends on itself.
func compile(queries []api.MetricDataQuery) (*program, error) {
	p := &program{queries: queries, byID: map[string]*api.MetricDataQuery{}, exprs: map[string]*mathexpr.Expr{}, stats: map[string]metricstore.Statistic{}, sql: map[string]*sqlQuery{}}
	for i := range queries {
		q := &queries[i]
		id := ptr.Value(q.Id)
		switch {
		case !queryID.MatchString(id):
			return nil, validation("The value '%s' for the Id of a metric data query is not valid: it must begin with a lower-case letter and consist of letters, digits and underscores.", id)
		case p.byID[id] != nil:
			return nil, validation("The Id '%s' is used by more than one metric data query.", id)
		case q.MetricStat == nil && q.Expression == nil:
			return nil, validation("The query '%s' must have MetricStat or Expression.", id)
		case q.MetricStat != nil && q.Expression != nil:
			return nil, validation("The query '%s' must not have both MetricStat and Expression.", id)
		}
		p.byID[id] = q
		if q.Expression != nil && q.Period != nil && checkPeriod(*q.Period) != "" {
			return nil, validation("The Period of '%s' %s.", id, checkPeriod(*q.Period))
		}
		if q.Expression != nil && isSQL(*q.Expression) {
			query, err := parseSQL(*q.Expression)
			if err != nil {
				return nil, validation("Error in expression '%s': %v", id, err)
			}
			p.sql[id] = query
			continue
		}
		if q.Expression != nil {
			expr, err := mathexpr.Parse(*q.Expression)
			if err != nil {
				return nil, validation("Error in expression '%s': %v", id, err)
			}
			p.exprs[id] = expr
			continue
		}
		if err := p.checkStat(id, q.MetricStat); err != nil {
			return nil, err
		}
	}
	return p, p.checkOrder()
}

func (p *program) checkStat(id string, ms *api.MetricStat) error {
	if ms.Metric == nil || ms.Metric.MetricName == nil || ms.Metric.Namespace == nil {
		return validation("The query '%s' must have MetricStat.Metric with Namespace and MetricName.", id)
	}
	if bad := checkPeriod(*ms.Period); bad != "" {
		return validation("The Period of '%s' %s.", id, bad)
	}
	st, err := metricstore.ParseStatistic(*ms.Stat)
	if err != nil {
		return validation("The value '%s' for parameter MetricStat.Stat of '%s' is not supported: %v.", *ms.Stat, id, err)
	}
	p.stats[id] = st
	return nil
}

// checkOrder refuses unknown ids and circles.
func (p *program) checkOrder() error {
	const open, done = 1, 2
	state := map[string]int{}
	var visit func(id string) error
	visit = func(id string) error {
		expr := p.exprs[id]
		if expr == nil || state[id] == done {
			return nil
		}
		if state[id] == open {
			return validation("Error in expression '%s': it depends on itself.", id)
		}
		state[id] = open
		for _, dep := range expr.IDs {
			if p.byID[dep] == nil {
				return validation("Error in expression '%s': there is no query with the Id '%s'.", id, dep)
			}
			if err := visit(dep); err != nil {
				return err
			}
		}
		state[id] = done
		return nil
	}
	for _, q := range p.queries {
		if err := visit(*q.Id); err != nil {
			return err
		}
	}
	return nil
}

// span is the time that a program is run for.
type span struct {
	account, region string
	// start gives the first period's start for a period in seconds.
	start func(period int64) int64
	end   int64
}

// run is one evaluation of a program.
type run struct {
	ctx     context.Context // of the request or the evaluation that it is for
	s       *Service
	p       *program
	span    span
	values  map[string]mathexpr.Value
	samples map[string]map[int64]float64 // sample counts of plain metrics
	search  bool
	// truncated says that a Metrics Insights query met more metrics than it
	// looks at.
	truncated bool
}

func (s *Service) newRun(ctx context.Context, p *program, sp span, search bool) *run {
	return &run{ctx: ctx, s: s, p: p, span: sp, values: map[string]mathexpr.Value{}, samples: map[string]map[int64]float64{}, search: search}
}

// value evaluates one query; false where the id is unknown.
func (r *run) value(id string) (mathexpr.Value, bool, error) {
	if v, ok := r.values[id]; ok {
		return v, true, nil
	}
	q := r.p.byID[id]
	if q == nil {
		return mathexpr.Value{}, false, nil
	}
	var v mathexpr.Value
	var err error
	switch {
	case q.MetricStat != nil:
		v, err = r.metric(id, q.MetricStat)
	case r.p.sql[id] != nil:
		if v, err = r.insights(id, r.p.sql[id]); errors.Is(err, errTooMuch) {
			err = &expressionError{id, err}
		}
	default:
		v, err = r.expression(id, q)
	}
	if err == nil {
		r.values[id] = v
	}
	return v, true, err
}

func (r *run) metric(id string, ms *api.MetricStat) (mathexpr.Value, error) {
	m := metricOf(r.span.account, r.span.region, *ms.Metric.Namespace, *ms.Metric.MetricName, ms.Metric.Dimensions)
	series, samples, err := r.read(m, ptr.Value(ms.Unit), r.p.stats[id], *ms.Period)
	series.ID, series.Label = id, *ms.Metric.MetricName
	r.samples[id] = samples
	return mathexpr.Value{Kind: mathexpr.TimeSeries, List: []mathexpr.Series{series}}, err
}

func (r *run) read(m metricstore.Metric, unit string, st metricstore.Statistic, period int64) (mathexpr.Series, map[int64]float64, error) {
	series := mathexpr.Series{Period: period}
	periods, err := r.s.metrics.Read(metricstore.Query{Metric: m, Unit: unit, Start: r.span.start(period), End: r.span.end, Period: period})
	samples := make(map[int64]float64, len(periods))
	for i := range periods {
		if v, ok := st.Compute(&periods[i].Set); ok {
			at := periods[i].Start.Unix()
			series.Points = append(series.Points, mathexpr.Point{At: at, Value: v})
			samples[at] = periods[i].Set.Count
		}
	}
	return series, samples, err
}

// period is the query's own, or the longest of what it depends on.
func (r *run) period(id string) int64 {
	q := r.p.byID[id]
	switch {
	case q == nil:
		return 0
	case q.MetricStat != nil:
		return *q.MetricStat.Period
	case q.Period != nil:
		return *q.Period
	case r.p.sql[id] != nil:
		return defaultPeriod
	}
	longest := int64(0)
	for _, dep := range r.p.exprs[id].IDs {
		longest = max(longest, r.period(dep))
	}
	if r.p.exprs[id].UsesMetrics() || longest == 0 {
		for _, q := range r.p.queries {
			if q.MetricStat != nil {
				longest = max(longest, *q.MetricStat.Period)
			}
		}
	}
	if longest == 0 {
		longest = defaultPeriod
	}
	return longest
}

func (r *run) expression(id string, q *api.MetricDataQuery) (mathexpr.Value, error) {
	period := r.period(id)
	env := &mathexpr.Env{Start: r.span.start(period), End: r.span.end, Period: period, Get: r.value, Metrics: r.metrics}
	if r.search {
		env.Search = r.searchSeries
	}
	if len(r.p.exprs[id].Bands()) > 0 {
		env.Band = r.band
	}
	v, err := r.p.exprs[id].Eval(env)
	if err != nil {
		return v, &expressionError{id, err}
	}
	v.List = slices.Clone(v.List)
	for i := range v.List {
		if v.List[i].Label == "" || v.Kind == mathexpr.TimeSeries {
			v.List[i].Label = id
		}
	}
	return v, nil
}

// defaultPeriod is that of expressions that have none and depend on none.
const defaultPeriod = 300

var errTooMuch = errors.New("the query meets too many data points. Use a longer Period or a shorter time range")

// expressionError is what is wrong with an expression or what it works on.
type expressionError struct {
	id  string
	err error
}

func (e *expressionError) Error() string {
	return fmt.Sprintf("Error in expression '%s': %v", e.id, e.err)
}
func (e *expressionError) Unwrap() error { return e.err }

func (r *run) metrics(part string) ([]mathexpr.Series, error) {
	var out []mathexpr.Series
	for _, q := range r.p.queries {
		if q.MetricStat == nil || !strings.Contains(*q.Id, part) {
			continue
		}
		v, _, err := r.value(*q.Id)
		if err != nil {
			return nil, err
		}
		out = append(out, v.List...)
	}
	return out, nil
}
