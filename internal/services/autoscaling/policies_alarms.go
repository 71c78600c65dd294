package autoscaling

import (
	"context"
	"strings"

	api "slipway/internal/api/autoscaling"
	cw "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// deleteAlarms deletes those of the alarms that there are: one unknown name
// would keep CloudWatch from deleting the others.
func (s *Service) deleteAlarms(ctx context.Context, names []string) error {
	for _, n := range names {
		_, err := dispatch.Call(ctx, s.Mux, cw.OpDeleteAlarms, &cw.DeleteAlarmsInput{AlarmNames: []string{n}})
		if err != nil && !awserr.Is(err, "ResourceNotFound") && !awserr.Is(err, "NotImplemented") {
			return err
		}
	}
	return nil
}

// lowShare is AlarmLow's threshold as a share of the target, as seen in
// alarms that AWS made for groups.
const lowShare = 0.7

// alarms are those that a target tracking policy needs: three minutes above
// the target, or fifteen well below it.
func (p *Policy) alarms(region string) (out []cw.PutMetricAlarmInput) {
	if p.Type != targetTracking {
		return nil
	}
	target := ptr.Value(p.Tracking.TargetValue)
	one := func(name, comparison string, threshold float64, periods int64) {
		in := p.metric()
		in.AlarmName, in.ComparisonOperator, in.Threshold, in.EvaluationPeriods = &name, &comparison, &threshold, &periods
		in.AlarmDescription = new("DO NOT EDIT OR DELETE. For TargetTrackingScaling policy " + p.ARN + ".")
		in.AlarmActions, in.ActionsEnabled = []string{p.ARN}, new(true)
		out = append(out, in)
	}
	one(p.High, "GreaterThanThreshold", target, 3)
	if p.Low != "" {
		one(p.Low, "LessThanThreshold", target*lowShare, 15)
	}
	return out
}

// metric is the part of an alarm that says what is watched.
func (p *Policy) metric() cw.PutMetricAlarmInput {
	in := cw.PutMetricAlarmInput{Period: new(int64(60)), Statistic: new("Average")}
	if pre := p.Tracking.PredefinedMetricSpecification; pre != nil {
		in.Namespace = new("AWS/EC2")
		in.Dimensions = []cw.Dimension{{Name: new("AutoScalingGroupName"), Value: &p.Group}}
		switch ptr.Value(pre.PredefinedMetricType) {
		case "ASGAverageCPUUtilization":
			in.MetricName = new("CPUUtilization")
		case "ASGAverageNetworkIn":
			in.MetricName = new("NetworkIn")
		case "ASGAverageNetworkOut":
			in.MetricName = new("NetworkOut")
		case "ALBRequestCountPerTarget":
			lb, tg, _ := splitLabel(ptr.Value(pre.ResourceLabel))
			in.Namespace, in.MetricName, in.Statistic = new("AWS/ApplicationELB"), new("RequestCountPerTarget"), new("Sum")
			in.Dimensions = []cw.Dimension{{Name: new("TargetGroup"), Value: &tg}, {Name: new("LoadBalancer"), Value: &lb}}
		}
		return in
	}
	c := p.Tracking.CustomizedMetricSpecification
	period := int64(60)
	if c.Period != nil {
		period = *c.Period
	}
	if len(c.Metrics) > 0 {
		in.Period, in.Statistic = nil, nil
		for _, q := range c.Metrics {
			in.Metrics = append(in.Metrics, mathQuery(q, period))
		}
		return in
	}
	in.Namespace, in.MetricName, in.Statistic, in.Unit, in.Period = c.Namespace, c.MetricName, c.Statistic, c.Unit, &period
	in.Dimensions = dimensions(c.Dimensions)
	return in
}

func mathQuery(q api.TargetTrackingMetricDataQuery, period int64) cw.MetricDataQuery {
	out := cw.MetricDataQuery{Id: q.Id, Expression: q.Expression, Label: q.Label, ReturnData: q.ReturnData}
	if q.Period != nil {
		period = *q.Period
	}
	if st := q.MetricStat; st != nil {
		if st.Period != nil {
			period = *st.Period
		}
		out.MetricStat = &cw.MetricStat{Stat: st.Stat, Unit: st.Unit, Period: &period}
		if m := st.Metric; m != nil {
			out.MetricStat.Metric = &cw.Metric{Namespace: m.Namespace, MetricName: m.MetricName, Dimensions: dimensions(m.Dimensions)}
		}
	}
	return out
}

func dimensions(in []api.MetricDimension) (out []cw.Dimension) {
	for _, d := range in {
		out = append(out, cw.Dimension{Name: d.Name, Value: d.Value})
	}
	return out
}

// splitLabel takes "app/LB/ID/targetgroup/TG/ID" apart.
func splitLabel(label string) (lb, tg string, ok bool) {
	lb, rest, ok := strings.Cut(label, "/targetgroup/")
	return lb, "targetgroup/" + rest, ok && strings.HasPrefix(lb, "app/") && strings.Count(lb, "/") == 2 && strings.Count(rest, "/") == 1
}
