package cloudwatch

import (
	"context"
	"errors"
	"slices"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
	"slipway/internal/store"
)

const (
	maxExcluded     = 10 // API reference, "AnomalyDetectorConfiguration"
	maxDetectors    = 2000
	detectorsOnPage = 100
)

func (s *Service) putAnomalyDetector(ctx context.Context, in *api.PutAnomalyDetectorInput) (*api.PutAnomalyDetectorOutput, error) {
	account, region := where(ctx)
	sub, err := readSubject(account, in.Namespace, in.MetricName, in.Dimensions, in.Stat, in.SingleMetricAnomalyDetector, in.MetricMathAnomalyDetector)
	if err != nil {
		return nil, err
	}
	if err := checkDetectorConfig(in.Configuration); err != nil {
		return nil, err
	}
	d := sub.detector(s.clock.Now())
	d.Config, d.Traits = in.Configuration, in.MetricCharacteristics
	if in.MetricMathAnomalyDetector != nil {
		d.Math = in.MetricMathAnomalyDetector
	}
	id := sub.id()
	err = s.store.Update(ctx, func(tx store.Tx) error {
		row, err := detectors.Get(tx, account, region, id)
		if errors.Is(err, store.ErrNotFound) {
			return s.insertDetector(tx, account, region, id, d)
		}
		if err != nil {
			return err
		}
		row.Doc = d
		return detectors.Save(tx, row, "Changed", nil)
	})
	return &api.PutAnomalyDetectorOutput{AnomalyDetectorId: &id}, err
}

func (s *Service) insertDetector(tx store.Tx, account, region, id string, d detector) error {
	n, err := detectors.Count(tx, store.Query{Account: account, Region: region})
	if err != nil {
		return err
	}
	if n >= maxDetectors {
		return awserr.New(api.ErrCodeLimitExceededException, "There are %d anomaly detectors already, which is the limit.", n)
	}
	_, err = detectors.Insert(tx, account, region, id, d, "Created", nil)
	return err
}

// readSubject checks what a request names: a single metric, in its own member
// or in the older ones, or metric math.
func readSubject(account string, namespace, name *string, dims []api.Dimension, stat *string, single *api.SingleMetricAnomalyDetector, math *api.MetricMathAnomalyDetector) (subject, error) {
	older := namespace != nil || name != nil || dims != nil || stat != nil
	switch {
	case older && (single != nil || math != nil):
		return subject{}, combination("Namespace, MetricName, Dimensions and Stat cannot be combined with SingleMetricAnomalyDetector or MetricMathAnomalyDetector.")
	case single != nil && math != nil:
		return subject{}, combination("SingleMetricAnomalyDetector and MetricMathAnomalyDetector are mutually exclusive.")
	case math != nil:
		return readMathSubject(math)
	case single == nil && !older:
		return subject{}, missing("One of the parameters SingleMetricAnomalyDetector and MetricMathAnomalyDetector is required.")
	case older:
		single = &api.SingleMetricAnomalyDetector{Namespace: namespace, MetricName: name, Dimensions: dims, Stat: stat}
	}
	switch {
	case single.Namespace == nil:
		return subject{}, missing("The parameter Namespace is required.")
	case single.MetricName == nil:
		return subject{}, missing("The parameter MetricName is required.")
	case single.Stat == nil:
		return subject{}, missing("The parameter Stat is required.")
	case single.AccountId != nil && *single.AccountId != account:
		return subject{}, invalid("The parameter SingleMetricAnomalyDetector.AccountId must be the caller's account: there is no cross-account observability.")
	}
	if _, err := metricstore.ParseStatistic(*single.Stat); err != nil {
		return subject{}, invalid("The value '%s' for parameter Stat is not supported: %v.", *single.Stat, err)
	}
	return singleSubject(single.Namespace, single.MetricName, single.Dimensions, single.Stat), nil
}

func readMathSubject(in *api.MetricMathAnomalyDetector) (subject, error) {
	p, err := compile(in.MetricDataQueries)
	if err != nil {
		return subject{}, err
	}
	if len(p.sql) > 0 {
		return subject{}, validation("Metrics Insights queries are not supported in anomaly detectors.")
	}
	stats, watched, period := 0, 0, int64(0)
	for i := range in.MetricDataQueries {
		q := &in.MetricDataQueries[i]
		if returns(q) {
			watched++
		}
		if q.MetricStat == nil {
			if e := p.exprs[*q.Id]; mathexpr.Searches(e) || len(e.Bands()) > 0 {
				return subject{}, validation("Error in expression '%s': SEARCH and ANOMALY_DETECTION_BAND are not supported in anomaly detectors.", *q.Id)
			}
			continue
		}
		stats++
		if period == 0 {
			period = *q.MetricStat.Period
		}
		if *q.MetricStat.Period != period {
			return subject{}, validation("All metrics of an anomaly detector must have the same Period.")
		}
	}
	switch {
	case stats == 0:
		return subject{}, validation("MetricDataQueries must contain at least one MetricStat.")
	case stats > 10 || len(in.MetricDataQueries)-stats > 10:
		return subject{}, validation("MetricDataQueries must have at most 10 metrics and 10 expressions.")
	case watched != 1:
		return subject{}, validation("Exactly one element of the metrics list should return data.")
	}
	id := watchedID(in.MetricDataQueries)
	if p.exprs[id] == nil {
		return subject{}, validation("The element of MetricDataQueries that returns data must be an expression; use SingleMetricAnomalyDetector for a metric.")
	}
	sub, err := p.subject(id)
	if err != nil {
		return sub, validation("Error in expression '%s': %v", id, err)
	}
	return sub, nil
}

func checkDetectorConfig(c *api.AnomalyDetectorConfiguration) error {
	if c == nil {
		return nil
	}
	if c.AdaptationSpeed != nil || c.OutlierFilteringStrength != nil {
		return awserr.New("NotImplemented", "Slipway does not implement AdaptationSpeed and OutlierFilteringStrength of anomaly detectors.").WithStatus(501)
	}
	if len(c.ExcludedTimeRanges) > maxExcluded {
		return invalid("The collection Configuration.ExcludedTimeRanges must not have a size greater than %d.", maxExcluded)
	}
	for i, r := range c.ExcludedTimeRanges {
		if !r.EndTime.After(*r.StartTime) {
			return invalid("The StartTime of %s must be before its EndTime.", path("Configuration.ExcludedTimeRanges.member.", i))
		}
	}
	if c.MetricTimezone != nil {
		if _, err := time.LoadLocation(*c.MetricTimezone); err != nil || *c.MetricTimezone == "Local" || *c.MetricTimezone == "" {
			return invalid("The value '%s' for parameter Configuration.MetricTimezone is not the name of a time zone.", *c.MetricTimezone)
		}
	}
	return nil
}

func (s *Service) deleteAnomalyDetector(ctx context.Context, in *api.DeleteAnomalyDetectorInput) (*api.DeleteAnomalyDetectorOutput, error) {
	account, region := where(ctx)
	var id string
	if in.AnomalyDetectorId != nil {
		if in.Namespace != nil || in.MetricName != nil || in.Dimensions != nil || in.Stat != nil || in.SingleMetricAnomalyDetector != nil || in.MetricMathAnomalyDetector != nil {
			return nil, combination("AnomalyDetectorId cannot be combined with other parameters.")
		}
		id = *in.AnomalyDetectorId
	} else {
		sub, err := readSubject(account, in.Namespace, in.MetricName, in.Dimensions, in.Stat, in.SingleMetricAnomalyDetector, in.MetricMathAnomalyDetector)
		if err != nil {
			return nil, err
		}
		id = sub.id()
	}
	return nil, s.store.Update(ctx, func(tx store.Tx) error {
		row, err := detectors.Get(tx, account, region, id)
		if errors.Is(err, store.ErrNotFound) {
			return awserr.New(api.ErrCodeResourceNotFoundException, "The anomaly detector does not exist.")
		}
		if err != nil {
			return err
		}
		return detectors.Delete(tx, row, "Deleted", nil)
	})
}

func (s *Service) describeAnomalyDetectors(ctx context.Context, in *api.DescribeAnomalyDetectorsInput) (*api.DescribeAnomalyDetectorsOutput, error) {
	account, region := where(ctx)
	limit := detectorsOnPage
	if in.MaxResults != nil {
		if *in.MaxResults > detectorsOnPage {
			return nil, invalid("The parameter MaxResults must be at most %d.", detectorsOnPage)
		}
		limit = int(*in.MaxResults)
	}
	after, err := pageStart(in.NextToken)
	if err != nil {
		return nil, err
	}
	types := in.AnomalyDetectorTypes
	if len(types) == 0 && in.AnomalyDetectorIds == nil { // API reference: the default
		types = []string{api.AnomalyDetectorTypeSingleMetric}
	}
	rows, err := detectors.Select(ctx, s.store, store.Query{Account: account, Region: region, After: after})
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAnomalyDetectorsOutput{AnomalyDetectors: []api.AnomalyDetector{}}
	last := ""
	for _, row := range rows {
		d := &row.Doc
		if !d.matches(in) || in.AnomalyDetectorIds != nil && !slices.Contains(in.AnomalyDetectorIds, row.ID) || len(types) > 0 && !slices.Contains(types, d.kind()) {
			continue
		}
		if len(out.AnomalyDetectors) == limit {
			out.NextToken = pageToken(last)
			break
		}
		last = row.ID
		shown := api.AnomalyDetector{AnomalyDetectorId: &row.ID, Configuration: d.Config, StateValue: &d.State, MetricCharacteristics: d.Traits,
			SingleMetricAnomalyDetector: d.Single, MetricMathAnomalyDetector: d.Math}
		if sm := d.Single; sm != nil { // and in the older members
			shown.Namespace, shown.MetricName, shown.Dimensions, shown.Stat = sm.Namespace, sm.MetricName, sm.Dimensions, sm.Stat
		}
		out.AnomalyDetectors = append(out.AnomalyDetectors, shown)
	}
	return out, nil
}

func (d *detector) kind() string {
	if d.Math != nil {
		return api.AnomalyDetectorTypeMetricMath
	}
	return api.AnomalyDetectorTypeSingleMetric
}

// matches applies the filters by metric, which only detectors of single
// metrics pass.
func (d *detector) matches(in *api.DescribeAnomalyDetectorsInput) bool {
	if in.Namespace == nil && in.MetricName == nil && in.Dimensions == nil {
		return true
	}
	if d.Single == nil {
		return false
	}
	m := metricOfDetector(d.Single)
	return (in.Namespace == nil || m.Namespace == ptr.Value(in.Namespace)) && (in.MetricName == nil || m.Name == ptr.Value(in.MetricName)) &&
		(in.Dimensions == nil || slices.Equal(m.Dimensions, metricOf("", "", "", "", in.Dimensions).Dimensions))
}
