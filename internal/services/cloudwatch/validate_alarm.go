package cloudwatch

import (
	"math"
	"strings"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/services/cloudwatch/evaluate"
	"slipway/internal/services/cloudwatch/mathexpr"
	"slipway/internal/services/cloudwatch/metricstore"
)

// validation is what the query protocol calls a violated constraint.
func validation(format string, args ...any) error {
	return awserr.New("ValidationError", format, args...)
}

var missingTreatments = map[string]bool{evaluate.Missing: true, evaluate.Ignore: true, evaluate.Breaching: true, evaluate.NotBreaching: true}

// checkMetricAlarm checks a metric alarm beyond what the model checks.
func checkMetricAlarm(in *api.PutMetricAlarmInput) error {
	if in.EvaluationCriteria != nil || in.EvaluationInterval != nil {
		return awserr.New("NotImplemented", "Slipway does not implement alarms on PromQL queries (EvaluationCriteria) yet.").WithStatus(501)
	}
	banded := evaluate.Rule{Operator: ptr.Value(in.ComparisonOperator)}.Banded()
	switch {
	case in.ComparisonOperator == nil:
		return validation("The parameter ComparisonOperator is required.")
	case in.EvaluationPeriods == nil:
		return validation("The parameter EvaluationPeriods is required.")
	case banded && in.ThresholdMetricId == nil:
		return validation("ComparisonOperators for ranges require ThresholdMetricId to be set")
	case in.Threshold != nil && in.ThresholdMetricId != nil:
		return validation("Threshold and ThresholdMetricId cannot both be set")
	case in.ThresholdMetricId != nil && !banded:
		return validation("ThresholdMetricId requires a ComparisonOperator for ranges: %s, %s or %s.", evaluate.OutsideBand, evaluate.BelowBand, evaluate.AboveBand)
	case in.ThresholdMetricId != nil && in.Metrics == nil:
		return validation("ThresholdMetricId requires Metrics.")
	case in.Threshold == nil && !banded:
		return validation("The parameter Threshold is required.")
	case in.Threshold == nil:
	case math.IsNaN(*in.Threshold) || math.IsInf(*in.Threshold, 0):
		return validation("The parameter Threshold must be a finite number.")
	}
	switch {
	case in.DatapointsToAlarm != nil && *in.DatapointsToAlarm > *in.EvaluationPeriods:
		return validation("The parameter DatapointsToAlarm must be less than or equal to the parameter EvaluationPeriods.")
	case in.TreatMissingData != nil && !missingTreatments[*in.TreatMissingData]:
		return validation("The value '%s' for parameter TreatMissingData is not supported. Use breaching, notBreaching, ignore or missing.", *in.TreatMissingData)
	}
	if e := in.EvaluateLowSampleCountPercentile; e != nil && *e != "evaluate" && *e != "ignore" {
		return validation("The value '%s' for parameter EvaluateLowSampleCountPercentile is not supported. Use evaluate or ignore.", *e)
	}
	if err := checkActions(in.OKActions, in.AlarmActions, in.InsufficientDataActions); err != nil {
		return err
	}
	if in.Metrics != nil {
		return checkMathAlarm(in)
	}
	return checkPlainAlarm(in)
}

func checkPlainAlarm(in *api.PutMetricAlarmInput) error {
	switch {
	case in.MetricName == nil:
		return validation("The parameter MetricName is required unless Metrics is given.")
	case in.Namespace == nil:
		return validation("The parameter Namespace is required.")
	case in.Period == nil:
		return validation("The parameter Period is required.")
	case in.Statistic == nil && in.ExtendedStatistic == nil:
		return validation("One of the parameters Statistic and ExtendedStatistic is required.")
	case in.Statistic != nil && in.ExtendedStatistic != nil:
		return combination("The parameters Statistic and ExtendedStatistic are mutually exclusive.")
	}
	if in.ExtendedStatistic != nil {
		st, err := metricstore.ParseStatistic(*in.ExtendedStatistic)
		if err != nil || !st.Extended() {
			return validation("The value '%s' for parameter ExtendedStatistic is not supported.", *in.ExtendedStatistic)
		}
	}
	seen := map[string]bool{}
	for _, d := range in.Dimensions {
		if seen[ptr.Value(d.Name)] {
			return validation("No two dimensions can have the same name: %s.", ptr.Value(d.Name))
		}
		seen[ptr.Value(d.Name)] = true
	}
	return checkAlarmPeriod(*in.Period, *in.EvaluationPeriods, "Period")
}

func checkAlarmPeriod(period, periods int64, field string) error {
	if period != 10 && period != 20 && period != 30 && period%60 != 0 {
		return validation("%s must be 10, 20, 30 or a multiple of 60.", field)
	}
	limit, days := int64(86400), "one day"
	if period >= 3600 {
		limit, days = 7*86400, "seven days"
	}
	if period > limit || periods > limit/period {
		return validation("Metrics cannot be checked across more than %s (EvaluationPeriods * Period must be <= %d).", days, limit)
	}
	return nil
}

// actionForms are the ARNs that an alarm may name (API reference,
// "PutMetricAlarm").
var actionForms = lazyre.New(`^arn:aws[a-z-]*:(sns|autoscaling|automate|swf|ssm|ssm-incidents|lambda|aiops):[^\s]+$`)

func checkActions(lists ...[]string) error {
	for _, l := range lists {
		for _, arn := range l {
			if !actionForms.MatchString(arn) {
				return validation("Invalid arn syntax: %s", arn)
			}
		}
	}
	return nil
}

// checkMathAlarm checks an alarm on Metrics: at most ten metrics and ten
// expressions, one of which is watched.
func checkMathAlarm(in *api.PutMetricAlarmInput) error {
	if in.MetricName != nil || in.Namespace != nil || in.Statistic != nil || in.ExtendedStatistic != nil || in.Dimensions != nil || in.Period != nil || in.Unit != nil {
		return combination("Metrics cannot be combined with MetricName, Namespace, Dimensions, Period, Unit, Statistic or ExtendedStatistic.")
	}
	p, err := compile(in.Metrics)
	if err != nil {
		return err
	}
	if len(p.sql) > 0 {
		return awserr.New("NotImplemented", "Slipway does not implement alarms on Metrics Insights queries yet.").WithStatus(501)
	}
	want, err := p.watched(in)
	if err != nil {
		return err
	}
	stats, watched := 0, 0
	period := int64(0)
	for i := range in.Metrics {
		q := &in.Metrics[i]
		if returns(q) {
			if watched++; !want[*q.Id] && in.ThresholdMetricId != nil {
				return validation("Metrics: %s must not return data: an alarm on a band returns the band and what it is the band of.", *q.Id)
			}
		}
		if q.MetricStat != nil {
			stats++
			if period == 0 {
				period = *q.MetricStat.Period
			}
			if *q.MetricStat.Period != period {
				return validation("All metrics of an alarm must have the same Period.")
			}
		} else if mathexpr.Searches(p.exprs[*q.Id]) {
			return validation("Metrics: SEARCH is not supported in alarms (%s).", *q.Id)
		}
	}
	switch {
	case stats > 10 || len(in.Metrics)-stats > 10:
		return validation("Metrics must have at most 10 metrics and 10 expressions.")
	case in.ThresholdMetricId != nil && watched != 2:
		return validation("Exactly two elements of the metrics list should return data.")
	case in.ThresholdMetricId == nil && watched != 1:
		return validation("Exactly one element of the metrics list should return data.")
	case stats == 0:
		return validation("Metrics must contain at least one MetricStat.")
	}
	return checkAlarmPeriod(period, *in.EvaluationPeriods, "Period")
}

// watched checks what the alarm compares with what: with ThresholdMetricId,
// which must be a band, the band and its metric; it returns their ids.
func (p *program) watched(in *api.PutMetricAlarmInput) (map[string]bool, error) {
	for id, e := range p.exprs {
		if _, ok := e.Band(); ok && returns(p.byID[id]) && in.ThresholdMetricId == nil {
			return nil, validation("Metrics: %s is a band; name it in ThresholdMetricId.", id)
		}
	}
	if in.ThresholdMetricId == nil {
		return nil, nil
	}
	id := *in.ThresholdMetricId
	e := p.exprs[id]
	if e == nil {
		return nil, validation("ThresholdMetricId %s does not match an expression in Metrics.", id)
	}
	metric, ok := e.Band()
	if !ok {
		return nil, validation("ThresholdMetricId %s must be an expression that is an ANOMALY_DETECTION_BAND.", id)
	}
	for _, list := range [][]string{in.OKActions, in.AlarmActions, in.InsufficientDataActions} {
		for _, arn := range list {
			// User Guide, "Creating a CloudWatch alarm based on anomaly detection".
			if s := strings.Split(arn, ":")[2]; s == "autoscaling" || s == "automate" || s == "swf" {
				return nil, validation("Alarms based on anomaly detection do not take Auto Scaling and EC2 actions: %s", arn)
			}
		}
	}
	return map[string]bool{id: true, metric: true}, nil
}
