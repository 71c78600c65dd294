package cloudwatch

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
)

// Limits of a Metrics Insights query (User Guide, "Metrics Insights limits").
const (
	maxSQLMetrics = 10_000
	sqlReach      = 14 * 86400 // seconds of the past
)

// groupOf is the group that a metric belongs to: the values of the labels, or
// false where the query is not about it. A label that a metric lacks is
// neither equal nor unequal to anything.
func (q *sqlQuery) groupOf(m *metricstore.Metric) (string, bool) {
	if m.Namespace != q.namespace || m.Name != q.metric || q.exact && len(m.Dimensions) != len(q.schema) {
		return "", false
	}
	values := map[string]string{}
	for i, d := range m.Dimensions { // ascending, as the schema is
		if q.exact && d.Name != q.schema[i] {
			return "", false
		}
		values[d.Name] = d.Value
	}
	for _, c := range q.where {
		if v, ok := values[c.label]; !ok || (v == c.value) == c.not {
			return "", false
		}
	}
	group := make([]string, len(q.group))
	for i, label := range q.group {
		v, ok := values[label]
		if !ok {
			return "", false
		}
		group[i] = v
	}
	return strings.Join(group, " "), true
}

func sqlStatistic(function string) metricstore.Statistic {
	names := map[string]string{"AVG": "Average", "COUNT": "SampleCount", "MAX": "Maximum", "MIN": "Minimum", "SUM": "Sum"}
	st, _ := metricstore.ParseStatistic(names[function]) // each is one
	return st
}

// insights runs a Metrics Insights query: all samples of a group's metrics in
// a period together. Of what is more than 10 000 metrics, the rest is left out
// as on AWS, with a message.
func (r *run) insights(id string, q *sqlQuery) (mathexpr.Value, error) {
	period := r.period(id)
	start := r.span.start(period)
	if oldest := floor(r.s.clock.Now().Unix()-sqlReach, period); start < oldest {
		start += (oldest - start + period - 1) / period * period // on the same grid
	}
	groups := map[string]map[int64]*metricstore.Set{}
	matched := 0
	for _, m := range r.s.metrics.List(r.span.account, r.span.region, func(l *metricstore.Listed) bool {
		_, ok := q.groupOf(&l.Metric)
		return ok && l.Last.Unix() >= start
	}) {
		if matched++; matched > maxSQLMetrics {
			r.truncated = true
			break
		}
		if int64(matched)*max((r.span.end-start)/period, 1) > maxPeriods {
			return mathexpr.Value{}, errTooMuch
		}
		if err := r.ctx.Err(); err != nil {
			return mathexpr.Value{}, err
		}
		periods, err := r.s.metrics.Read(metricstore.Query{Metric: m.Metric, Start: start, End: r.span.end, Period: period})
		if err != nil {
			return mathexpr.Value{}, err
		}
		name, _ := q.groupOf(&m.Metric)
		for i := range periods {
			if groups[name] == nil {
				groups[name] = map[int64]*metricstore.Set{}
			}
			at := periods[i].Start.Unix()
			if groups[name][at] == nil {
				groups[name][at] = &metricstore.Set{}
			}
			groups[name][at].Merge(periods[i].Set)
		}
	}
	return q.value(groups, period), nil
}

// value makes series of groups, in the order that the query asks for.
func (q *sqlQuery) value(groups map[string]map[int64]*metricstore.Set, period int64) mathexpr.Value {
	st := sqlStatistic(q.function)
	type ranked struct {
		mathexpr.Series
		rank float64
	}
	var list []ranked
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		x := ranked{Series: mathexpr.Series{Label: name, Period: period}}
		var all metricstore.Set
		for _, at := range slices.Sorted(maps.Keys(groups[name])) {
			set := groups[name][at]
			if v, ok := st.Compute(set); ok {
				x.Points = append(x.Points, mathexpr.Point{At: at, Value: v})
			}
			all.Merge(*set)
		}
		if q.order != "" {
			order := sqlStatistic(q.order)
			x.rank, _ = order.Compute(&all) // standard statistics of something exist
		}
		list = append(list, x)
	}
	slices.SortStableFunc(list, func(a, b ranked) int {
		if q.descending {
			a, b = b, a
		}
		return cmp.Compare(a.rank, b.rank)
	})
	out := mathexpr.Value{Kind: mathexpr.List}
	for _, x := range list[:min(len(list), q.limit)] {
		out.List = append(out.List, x.Series)
	}
	if q.group == nil { // a single series, also where there is nothing
		if out.Kind = mathexpr.TimeSeries; len(out.List) == 0 {
			out.List = []mathexpr.Series{{Period: period}}
		}
		out.List[0].Label = q.metric
	}
	return out
}
