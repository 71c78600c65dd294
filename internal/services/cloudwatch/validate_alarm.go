package cloudwatch

import (
	"math"
	"regexp"
	"strings"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
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
	if in.ThresholdMetricId != nil {
		return awserr.New("NotImplemented", "Slipway does not implement anomaly detection alarms (ThresholdMetricId) yet.").WithStatus(501)
	}
	switch {
	case in.ComparisonOperator == nil:
		return validation("The parameter ComparisonOperator is required.")
	case in.EvaluationPeriods == nil:
		return validation("The parameter EvaluationPeriods is required.")
	case in.Threshold == nil:
		return validation("The parameter Threshold is required.")
	case strings.Contains(*in.ComparisonOperator, "Lower") || strings.Contains(*in.ComparisonOperator, "Upper"):
		return validation("ComparisonOperator %s requires ThresholdMetricId.", *in.ComparisonOperator)
	case math.IsNaN(*in.Threshold) || math.IsInf(*in.Threshold, 0):
		return validation("The parameter Threshold must be a finite number.")
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
var actionForms = regexp.MustCompile(`^arn:aws[a-z-]*:(sns|autoscaling|automate|swf|ssm|ssm-incidents|lambda|aiops):[^\s]+$`)

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
	stats, watched := 0, 0
	period := int64(0)
	for i := range in.Metrics {
		q := &in.Metrics[i]
		if q.ReturnData == nil || *q.ReturnData {
			watched++
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
	case watched != 1:
		return validation("Exactly one element of Metrics must return data; set ReturnData to false in the others.")
	case stats == 0:
		return validation("Metrics must contain at least one MetricStat.")
	}
	return checkAlarmPeriod(period, *in.EvaluationPeriods, "Period")
}
