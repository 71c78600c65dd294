package cloudwatch

import (
	"context"
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/metricstore"
)

func itoa(i int) string { return strconv.Itoa(i) }

// maxStatisticPoints is AWS's limit for one GetMetricStatistics.
const maxStatisticPoints = 1440

// checkPeriod says what is wrong with a period in seconds, or "".
func checkPeriod(p int64) string {
	switch {
	case p == 1 || p == 5 || p == 10 || p == 20 || p == 30 || p > 0 && p%60 == 0:
		return ""
	}
	return "must be 1, 5, 10, 20, 30 or a multiple of 60"
}

// alignStart rounds a start time down as AWS does: to the minute for what is
// at most 15 days old, to five minutes up to 63 days, to the hour beyond; to
// the period where that is below a minute and the data is recent.
func alignStart(start, now time.Time, period int64) int64 {
	t := start.Unix()
	age := now.Sub(start)
	grain := int64(60)
	switch {
	case age > 63*24*time.Hour:
		grain = 3600
	case age > 15*24*time.Hour:
		grain = 300
	case age <= 3*time.Hour && period < 60:
		grain = period
	}
	if r := t % grain; r != 0 {
		t -= (r + grain) % grain
	}
	return t
}

// ceilUnix is the first whole second not before t.
func ceilUnix(t time.Time) int64 {
	u := t.Unix()
	if t.Nanosecond() > 0 {
		u++
	}
	return u
}

func (s *Service) getMetricStatistics(ctx context.Context, in *api.GetMetricStatisticsInput) (*api.GetMetricStatisticsOutput, error) {
	stats, err := readStatistics(in)
	if err != nil {
		return nil, err
	}
	period := *in.Period
	if bad := checkPeriod(period); bad != "" {
		return nil, invalid("The parameter Period %s.", bad)
	}
	start, end := alignStart(*in.StartTime, s.clock.Now(), period), ceilUnix(*in.EndTime)
	if !in.EndTime.After(*in.StartTime) {
		return nil, invalid("The parameter StartTime must be less than the parameter EndTime.")
	}
	if n := (end - start + period - 1) / period; n > maxStatisticPoints {
		return nil, combination("You have requested up to %d datapoints, which exceeds the limit of %d. You may reduce the datapoints requested by increasing Period, or decreasing the time range.", n, maxStatisticPoints)
	}
	account, region := where(ctx)
	m := metricOf(account, region, *in.Namespace, *in.MetricName, in.Dimensions)
	units := []string{ptr.Value(in.Unit)}
	if in.Unit == nil {
		units = s.metrics.Units(m)
	}
	out := &api.GetMetricStatisticsOutput{Label: in.MetricName, Datapoints: []api.Datapoint{}}
	for _, unit := range units {
		periods, err := s.metrics.Read(metricstore.Query{Metric: m, Unit: unit, Start: start, End: end, Period: period})
		if err != nil {
			return nil, err
		}
		for i := range periods {
			if d := datapoint(&periods[i], unit, stats); d != nil {
				out.Datapoints = append(out.Datapoints, *d)
			}
		}
	}
	return out, nil
}

func readStatistics(in *api.GetMetricStatisticsInput) ([]metricstore.Statistic, error) {
	if len(in.Statistics) == 0 && len(in.ExtendedStatistics) == 0 {
		return nil, missing("Must specify either Statistics or ExtendedStatistics.")
	}
	var out []metricstore.Statistic
	for _, name := range in.Statistics {
		st, err := metricstore.ParseStatistic(name)
		if err != nil {
			return nil, invalid("The parameter Statistics is invalid: %v.", err)
		}
		out = append(out, st)
	}
	for _, name := range in.ExtendedStatistics {
		st, err := metricstore.ParseStatistic(name)
		if err != nil || !st.Extended() {
			return nil, invalid("The value %s for parameter ExtendedStatistics is not supported.", name)
		}
		out = append(out, st)
	}
	return out, nil
}

// datapoint is nil where none of the statistics exists.
func datapoint(p *metricstore.Period, unit string, stats []metricstore.Statistic) *api.Datapoint {
	d := &api.Datapoint{Timestamp: &p.Start, Unit: &unit}
	found := false
	for _, st := range stats {
		v, ok := st.Compute(&p.Set)
		if !ok {
			continue
		}
		found = true
		switch st.Name {
		case api.StatisticSampleCount:
			d.SampleCount = &v
		case api.StatisticAverage:
			d.Average = &v
		case api.StatisticSum:
			d.Sum = &v
		case api.StatisticMinimum:
			d.Minimum = &v
		case api.StatisticMaximum:
			d.Maximum = &v
		default:
			if d.ExtendedStatistics == nil {
				d.ExtendedStatistics = map[string]float64{}
			}
			d.ExtendedStatistics[st.Name] = v
		}
	}
	if !found {
		return nil
	}
	return d
}

const (
	listPage     = 500
	silentAfter  = 14 * 24 * time.Hour // ListMetrics no longer shows a metric
	recentWindow = 3 * time.Hour       // RecentlyActive PT3H
)

func (s *Service) listMetrics(ctx context.Context, in *api.ListMetricsInput) (*api.ListMetricsOutput, error) {
	account, region := where(ctx)
	since := s.clock.Now().Add(-silentAfter)
	if in.RecentlyActive != nil {
		since = s.clock.Now().Add(-recentWindow)
	}
	var after metricstore.Metric
	if in.NextToken != nil {
		b, err := base64.RawURLEncoding.DecodeString(*in.NextToken)
		if err == nil {
			after, err = metricstore.ParseKey(string(b))
		}
		if err != nil {
			return nil, invalid("The parameter NextToken is not valid.")
		}
	}
	list := s.metrics.List(account, region, func(m *metricstore.Listed) bool {
		return !m.Last.Before(since) &&
			(in.Namespace == nil || m.Namespace == *in.Namespace) &&
			(in.MetricName == nil || m.Name == *in.MetricName) && matchDimensions(m, in.Dimensions)
	})
	out := &api.ListMetricsOutput{Metrics: []api.Metric{}}
	for i := range list {
		m := &list[i]
		if in.NextToken != nil && m.Compare(&after) <= 0 {
			continue
		}
		if len(out.Metrics) == listPage {
			out.NextToken = new(base64.RawURLEncoding.EncodeToString([]byte(list[i-1].Key())))
			break
		}
		out.Metrics = append(out.Metrics, apiMetric(&m.Metric))
	}
	return out, nil
}

func matchDimensions(m *metricstore.Listed, filters []api.DimensionFilter) bool {
	for _, f := range filters {
		found := false
		for _, d := range m.Dimensions {
			found = found || d.Name == *f.Name && (f.Value == nil || d.Value == *f.Value)
		}
		if !found {
			return false
		}
	}
	return true
}

func apiMetric(m *metricstore.Metric) api.Metric {
	out := api.Metric{Namespace: &m.Namespace, MetricName: &m.Name, Dimensions: []api.Dimension{}}
	for _, d := range m.Dimensions {
		out.Dimensions = append(out.Dimensions, api.Dimension{Name: &d.Name, Value: &d.Value})
	}
	return out
}

// pageToken and pageStart encode an offset-free cursor: the last name shown.
func pageToken(last string) *string {
	return new(base64.RawURLEncoding.EncodeToString([]byte("1|" + last)))
}

func pageStart(token *string) (string, error) {
	if token == nil {
		return "", nil
	}
	b, err := base64.RawURLEncoding.DecodeString(*token)
	last, ok := strings.CutPrefix(string(b), "1|")
	if err != nil || !ok {
		return "", awserr.New(api.ErrCodeInvalidNextToken, "The next token specified is invalid.")
	}
	return last, nil
}
