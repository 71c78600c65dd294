package cloudwatch

import (
	"context"
	"math"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/metricstore"
)

// Limits of PutMetricData (API reference, "PutMetricData" and "MetricDatum").
const (
	maxDatums   = 1000
	maxEntities = 2
	maxValues   = 150
	oldest      = 14 * 24 * time.Hour
	newest      = 2 * time.Hour
)

var (
	maxMagnitude = math.Ldexp(1, 360)
)

func invalid(format string, args ...any) error {
	return awserr.New(api.ErrCodeInvalidParameterValueException, format, args...)
}

func missing(format string, args ...any) error {
	return awserr.New(api.ErrCodeMissingRequiredParameterException, format, args...)
}

func combination(format string, args ...any) error {
	return awserr.New(api.ErrCodeInvalidParameterCombinationException, format, args...)
}

func (s *Service) putMetricData(ctx context.Context, in *api.PutMetricDataInput) (*api.PutMetricDataOutput, error) {
	if in.MetricData == nil && in.EntityMetricData == nil {
		return nil, missing("The parameter MetricData is required.")
	}
	if len(in.EntityMetricData) > maxEntities {
		return nil, invalid("The collection EntityMetricData must not have a size greater than %d.", maxEntities)
	}
	type part struct {
		path string
		data []api.MetricDatum
	}
	parts := []part{{"MetricData.member.", in.MetricData}}
	count := len(in.MetricData)
	for i, e := range in.EntityMetricData {
		parts = append(parts, part{path("EntityMetricData.member.", i) + ".MetricData.member.", e.MetricData})
		count += len(e.MetricData)
	}
	if count > maxDatums {
		return nil, invalid("The collection MetricData must not have a size greater than %d.", maxDatums)
	}
	account, region := where(ctx)
	now := s.clock.Now()
	points := make([]metricstore.Point, 0, count)
	for _, p := range parts {
		for i := range p.data {
			point, err := readDatum(&p.data[i], path(p.path, i), now)
			if err != nil {
				return nil, err
			}
			point.Metric = metricOf(account, region, *in.Namespace, *p.data[i].MetricName, p.data[i].Dimensions)
			points = append(points, point)
		}
	}
	return nil, s.put(ctx, points)
}

// path is AWS's name of a list member: one-based.
func path(prefix string, i int) string {
	return prefix + itoa(i+1)
}

func metricOf(account, region, namespace, name string, dims []api.Dimension) metricstore.Metric {
	out := make([]metricstore.Dimension, len(dims))
	for i, d := range dims {
		out[i] = metricstore.Dimension{Name: ptr.Value(d.Name), Value: ptr.Value(d.Value)}
	}
	return metricstore.NewMetric(account, region, namespace, name, out...)
}

// readDatum checks one datum; at names it in errors. The metric is left empty.
func readDatum(d *api.MetricDatum, at string, now time.Time) (p metricstore.Point, err error) {
	p.At, p.Resolution, p.Unit = now, 60, api.StandardUnitNone
	if d.Unit != nil {
		p.Unit = *d.Unit
	}
	if d.StorageResolution != nil {
		if p.Resolution = *d.StorageResolution; p.Resolution != 1 && p.Resolution != 60 {
			return p, invalid("The parameter %s.StorageResolution must be 1 or 60.", at)
		}
	}
	if d.Timestamp != nil {
		p.At = *d.Timestamp
		if p.At.Before(now.Add(-oldest)) || p.At.After(now.Add(newest)) {
			return p, invalid("The parameter %s.Timestamp must specify a time no more than two weeks in the past and no more than two hours in the future.", at)
		}
	}
	seen := map[string]bool{}
	for _, dim := range d.Dimensions {
		if seen[ptr.Value(dim.Name)] {
			return p, invalid("No two dimensions of %s can have the same name: %s.", at, ptr.Value(dim.Name))
		}
		seen[ptr.Value(dim.Name)] = true
		if !plain(ptr.Value(dim.Name)) || !plain(ptr.Value(dim.Value)) || (*dim.Name)[0] == ':' {
			return p, invalid("The dimension %q of %s must consist of printable ASCII characters, with at least one that is no space, and its name must not begin with a colon.", ptr.Value(dim.Name), at)
		}
	}
	p.Set, err = readValues(d, at)
	return p, err
}

// plain says whether a dimension's name or value is ASCII without control
// characters and not blank (API reference, "Dimension").
func plain(s string) bool {
	blank := true
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			return false
		}
		blank = blank && c == ' '
	}
	return !blank
}

func readValues(d *api.MetricDatum, at string) (set metricstore.Set, err error) {
	given := 0
	for _, has := range []bool{d.Value != nil, d.StatisticValues != nil, d.Values != nil} {
		if has {
			given++
		}
	}
	switch {
	case given == 0:
		return set, missing("At least one of the parameters %s.Value, %s.StatisticValues and %s.Values must be specified.", at, at, at)
	case given > 1:
		return set, combination("The parameters %s.Value, %s.StatisticValues and %s.Values are mutually exclusive and you have specified more than one.", at, at, at)
	case d.Counts != nil && d.Values == nil:
		return set, combination("The parameter %s.Counts requires %s.Values.", at, at)
	}
	if d.Value != nil {
		return metricstore.Of(*d.Value, 1), checkValue(*d.Value, at+".Value")
	}
	if st := d.StatisticValues; st != nil {
		for name, v := range map[string]*float64{"SampleCount": st.SampleCount, "Sum": st.Sum, "Minimum": st.Minimum, "Maximum": st.Maximum} {
			if err := checkValue(*v, at+".StatisticValues."+name); err != nil {
				return set, err
			}
		}
		if *st.SampleCount <= 0 {
			return set, invalid("The parameter %s.StatisticValues.SampleCount must be greater than 0.", at)
		}
		if *st.Minimum > *st.Maximum {
			return set, invalid("The parameter %s.StatisticValues.Maximum must be greater than %s.StatisticValues.Minimum.", at, at)
		}
		return metricstore.OfStatistics(*st.SampleCount, *st.Sum, *st.Minimum, *st.Maximum), nil
	}
	switch {
	case len(d.Values) == 0:
		return set, missing("The parameter %s.Values must not be empty.", at)
	case len(d.Values) > maxValues:
		return set, invalid("The collection %s.Values must not have a size greater than %d.", at, maxValues)
	case d.Counts != nil && len(d.Counts) != len(d.Values):
		return set, invalid("The parameters %s.Values and %s.Counts must have the same size.", at, at)
	}
	for i, v := range d.Values {
		if err := checkValue(v, path(at+".Values.member.", i)); err != nil {
			return set, err
		}
		if d.Counts == nil {
			continue
		}
		if err := checkValue(d.Counts[i], path(at+".Counts.member.", i)); err != nil {
			return set, err
		}
		if d.Counts[i] <= 0 {
			return set, invalid("The parameter %s must be greater than 0.", path(at+".Counts.member.", i))
		}
	}
	return metricstore.OfValues(d.Values, d.Counts), nil
}

// checkValue refuses what CloudWatch refuses (API reference, "MetricDatum").
func checkValue(v float64, at string) error {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return invalid("The value %v for parameter %s is invalid: NaN and infinity are not supported.", v, at)
	}
	if math.Abs(v) > maxMagnitude {
		return invalid("The value %v for parameter %s is invalid: it must be between -2^360 and 2^360.", v, at)
	}
	return nil
}
