package cloudwatch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/mathexpr"
)

// Limits of GetMetricData (API reference).
const (
	maxQueries       = 500
	defaultMaxPoints = 100_800
)

func (s *Service) getMetricData(ctx context.Context, in *api.GetMetricDataInput) (*api.GetMetricDataOutput, error) {
	if len(in.MetricDataQueries) == 0 || len(in.MetricDataQueries) > maxQueries {
		return nil, validation("The collection MetricDataQueries must have 1 to %d members.", maxQueries)
	}
	if !in.EndTime.After(*in.StartTime) {
		return nil, validation("The parameter StartTime must be less than the parameter EndTime.")
	}
	limit := defaultMaxPoints
	if in.MaxDatapoints != nil {
		if limit = int(*in.MaxDatapoints); limit < 1 || limit > defaultMaxPoints {
			return nil, validation("The parameter MaxDatapoints must be from 1 to %d.", defaultMaxPoints)
		}
	}
	zone := time.UTC
	if in.LabelOptions != nil && in.LabelOptions.Timezone != nil {
		t, err := time.Parse("-0700", *in.LabelOptions.Timezone)
		if err != nil {
			return nil, validation("The parameter LabelOptions.Timezone must be like +0130.")
		}
		zone = t.Location()
	}
	p, err := compile(in.MetricDataQueries)
	if err != nil {
		return nil, err
	}
	if len(p.sql) > 1 {
		return nil, validation("A request can have at most one Metrics Insights query.")
	}
	account, region := where(ctx)
	now := s.clock.Now()
	r := s.newRun(ctx, p, span{account: account, region: region, end: ceilUnix(*in.EndTime), start: func(period int64) int64 { return alignStart(*in.StartTime, now, period) }}, true)
	if err := r.checkSize(in); err != nil {
		return nil, err
	}
	skip, err := dataOffset(in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &api.GetMetricDataOutput{MetricDataResults: []api.MetricDataResult{}, Messages: []api.MessageData{}}
	results, err := r.results(ctx, ptr.Value(in.ScanBy) == api.ScanByTimestampAscending, zone)
	if err != nil {
		return nil, err
	}
	if r.truncated {
		out.Messages = append(out.Messages, api.MessageData{Code: new("MaxMetricsExceeded"), Value: new(fmt.Sprintf("The query matched more than %d metrics; only the first ones were used.", maxSQLMetrics))})
	}
	out.MetricDataResults, out.NextToken = cut(results, skip, limit)
	return out, nil
}

// maxPeriods bounds the work of one request: periods of all metrics together.
const maxPeriods = 4_000_000

func (r *run) checkSize(in *api.GetMetricDataInput) error {
	total := int64(0)
	for _, q := range in.MetricDataQueries {
		period := r.period(*q.Id)
		if total += (r.span.end - r.span.start(period)) / period; total > maxPeriods {
			return validation("The request asks for too many data points. Use a longer Period or a shorter time range.")
		}
	}
	return nil
}

// results evaluates what is to be returned, in the order of the queries.
func (r *run) results(ctx context.Context, ascending bool, zone *time.Location) ([]api.MetricDataResult, error) {
	var out []api.MetricDataResult
	for i := range r.p.queries {
		q := &r.p.queries[i]
		if q.ReturnData != nil && !*q.ReturnData {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		v, _, err := r.value(*q.Id)
		if err != nil {
			if q.MetricStat != nil {
				return nil, err // the disk, not the request
			}
			if e := awserr.As(err); e != nil {
				return nil, err
			}
			return nil, validation("%v", err)
		}
		if v.Kind == mathexpr.Scalar || v.Kind == mathexpr.Empty {
			return nil, validation("Error in expression '%s': the expression must return a time series, not a number. TIME_SERIES makes one.", *q.Id)
		}
		for _, series := range v.List {
			out = append(out, r.result(q, &series, ascending, zone))
		}
	}
	return out, nil
}

func (r *run) result(q *api.MetricDataQuery, s *mathexpr.Series, ascending bool, zone *time.Location) api.MetricDataResult {
	res := api.MetricDataResult{
		Id: q.Id, Label: new(r.label(q, s, zone)), StatusCode: new(api.StatusCodeComplete),
		Timestamps: make([]time.Time, 0, len(s.Points)), Values: make([]float64, 0, len(s.Points)),
	}
	for _, p := range s.Points {
		res.Timestamps = append(res.Timestamps, time.Unix(p.At, 0).UTC())
		res.Values = append(res.Values, p.Value)
	}
	if !ascending {
		slices.Reverse(res.Timestamps)
		slices.Reverse(res.Values)
	}
	return res
}

// cut returns the page of results that begins after skip points and has at
// most limit points, and the token for the next one.
func cut(results []api.MetricDataResult, skip, limit int) ([]api.MetricDataResult, *string) {
	var out []api.MetricDataResult
	at := 0
	for _, res := range results {
		n := len(res.Values)
		from := min(max(skip-at, 0), n)
		if at += n; n > 0 && from == n || n == 0 && skip > 0 && at <= skip {
			continue // all of it was on an earlier page
		}
		to := min(n, from+limit)
		res.Timestamps, res.Values = res.Timestamps[from:to], res.Values[from:to]
		if limit -= to - from; to < n {
			res.StatusCode = new(api.StatusCodePartialData)
			out = append(out, res)
			next := fmt.Sprintf("1|%d", at-n+to)
			return out, new(base64.RawURLEncoding.EncodeToString([]byte(next)))
		}
		out = append(out, res)
	}
	return out, nil
}

func dataOffset(token *string) (int, error) {
	last, err := pageStart(token)
	if err != nil || token == nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscanf(last, "%d", &n); err != nil || n < 0 {
		return 0, awserr.New(api.ErrCodeInvalidNextToken, "The next token specified is invalid.")
	}
	return n, nil
}

// label is the legend of a series: the query's, with its dynamic parts
// (User Guide, "Use dynamic labels").
func (r *run) label(q *api.MetricDataQuery, s *mathexpr.Series, zone *time.Location) string {
	own := s.Label
	if q.Label == nil {
		return own
	}
	var b strings.Builder
	rest := *q.Label
	for {
		before, after, ok := strings.Cut(rest, "${")
		name, tail, closed := strings.Cut(after, "}")
		if !ok || !closed {
			b.WriteString(rest)
			return b.String()
		}
		b.WriteString(before)
		if v, err := r.dynamic(name, own, q, s, zone); err == nil {
			b.WriteString(v)
		} else {
			b.WriteString("${" + name + "}")
		}
		rest = tail
	}
}

var errNoLabel = errors.New("no dynamic label")

func (r *run) dynamic(name, own string, q *api.MetricDataQuery, s *mathexpr.Series, zone *time.Location) (string, error) {
	if prop, ok := strings.CutPrefix(name, "PROP('"); ok {
		return property(strings.TrimSuffix(prop, "')"), q)
	}
	switch name {
	case "LABEL":
		return own, nil
	case "DATAPOINT_COUNT":
		return fmt.Sprint(len(s.Points)), nil
	case "FIRST_LAST_RANGE", "FIRST_LAST_TIME_RANGE", "MIN_MAX_RANGE", "MIN_MAX_TIME_RANGE":
		return "", errNoLabel
	}
	name, timed := strings.CutSuffix(name, "_TIME")
	name, relative := strings.CutSuffix(name, "_TIME_RELATIVE")
	if len(s.Points) == 0 || relative {
		return "--", nil
	}
	pick := s.Points[0]
	sum := 0.0
	for _, p := range s.Points {
		sum += p.Value
		if name == "MIN" && p.Value < pick.Value || name == "MAX" && p.Value > pick.Value || name == "LAST" {
			pick = p
		}
	}
	switch name {
	case "FIRST", "LAST", "MIN", "MAX":
		if timed {
			return time.Unix(pick.At, 0).In(zone).Format("2006-01-02T15:04:05Z07:00"), nil
		}
		return short(pick.Value), nil
	case "AVG":
		return short(sum / float64(len(s.Points))), nil
	case "SUM":
		return short(sum), nil
	}
	return "", errNoLabel
}

func short(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.3f", f), "0"), ".")
}

func property(name string, q *api.MetricDataQuery) (string, error) {
	m := q.MetricStat
	if m == nil {
		return "", errNoLabel
	}
	switch name {
	case "MetricName":
		return *m.Metric.MetricName, nil
	case "Namespace":
		return *m.Metric.Namespace, nil
	case "Period":
		return fmt.Sprint(*m.Period), nil
	case "Stat":
		return *m.Stat, nil
	}
	dim, ok := strings.CutPrefix(name, "Dim.")
	for _, d := range m.Metric.Dimensions {
		if ok && ptr.Value(d.Name) == dim {
			return ptr.Value(d.Value), nil
		}
	}
	return "", errNoLabel
}
