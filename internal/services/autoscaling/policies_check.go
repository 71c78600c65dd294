package autoscaling

import (
	"cmp"
	"math"
	"slices"
	"strings"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

const (
	maxPolicies = 50 // AWS's quota per group
	maxSteps    = 20 // per policy
)

// policyFrom checks a request and makes the policy of it, without names.
func policyFrom(in *api.PutScalingPolicyInput) (*Policy, error) {
	p := &Policy{Name: ptr.Value(in.PolicyName), Type: simpleScaling, Adjustment: ptr.Value(in.AdjustmentType), By: ptr.Value(in.ScalingAdjustment), MinMagnitude: ptr.Value(in.MinAdjustmentMagnitude),
		MinStep: in.MinAdjustmentStep, Cooldown: in.Cooldown, Warmup: in.EstimatedInstanceWarmup, Steps: in.StepAdjustments, Tracking: in.TargetTrackingConfiguration,
		Aggregation: ptr.Value(in.MetricAggregationType), Disabled: in.Enabled != nil && !*in.Enabled}
	set(&p.Type, in.PolicyType)
	if p.MinMagnitude == 0 && in.MinAdjustmentStep != nil {
		p.MinMagnitude = *in.MinAdjustmentStep
	}
	switch {
	case p.Name == "" || len(p.Name) > 255 || strings.Contains(p.Name, ":"):
		return nil, invalid("The policy name '%.60s' is invalid: it has 1 to 255 characters, no colon.", p.Name)
	case p.Cooldown != nil && *p.Cooldown < 0, p.Warmup != nil && *p.Warmup < 0:
		return nil, invalid("Cooldown and EstimatedInstanceWarmup must not be negative.")
	case p.Warmup != nil && p.Type == simpleScaling:
		return nil, invalid("EstimatedInstanceWarmup is not supported by policies of the type SimpleScaling.")
	case p.Cooldown != nil && p.Type != simpleScaling:
		return nil, invalid("Cooldown is supported by policies of the type SimpleScaling only.")
	case p.Tracking != nil && p.Type != targetTracking:
		return nil, invalid("TargetTrackingConfiguration is supported by policies of the type TargetTrackingScaling only.")
	case len(p.Steps) > 0 && p.Type != stepScaling:
		return nil, invalid("StepAdjustments are supported by policies of the type StepScaling only.")
	case in.ScalingAdjustment != nil && p.Type != simpleScaling:
		return nil, invalid("ScalingAdjustment is supported by policies of the type SimpleScaling only.")
	}
	switch p.Type {
	case simpleScaling:
		if in.ScalingAdjustment == nil {
			return nil, invalid("ScalingAdjustment is required for policies of the type SimpleScaling.")
		}
		return p, p.checkAdjustment()
	case stepScaling:
		if err := p.checkAdjustment(); err != nil {
			return nil, err
		}
		return p, p.checkSteps()
	case targetTracking:
		if p.Adjustment != "" || p.MinMagnitude != 0 {
			return nil, invalid("AdjustmentType and MinAdjustmentMagnitude are not supported by policies of the type TargetTrackingScaling.")
		}
		return p, p.checkTracking()
	case "PredictiveScaling":
		return nil, awserr.New("NotImplemented", "Slipway does not implement predictive scaling yet.").WithStatus(501)
	}
	return nil, invalid("The policy type '%s' is invalid: it must be SimpleScaling, StepScaling or TargetTrackingScaling.", p.Type)
}

func (p *Policy) checkAdjustment() error {
	switch p.Adjustment {
	case "ChangeInCapacity", "ExactCapacity":
		if p.MinMagnitude != 0 {
			return invalid("MinAdjustmentMagnitude is only supported for the adjustment type PercentChangeInCapacity.")
		}
	case "PercentChangeInCapacity":
		if p.MinMagnitude < 0 {
			return invalid("MinAdjustmentMagnitude must be positive.")
		}
	case "":
		return invalid("AdjustmentType is required for policies of the type %s.", p.Type)
	default:
		return invalid("The adjustment type '%s' is invalid: it must be ChangeInCapacity, ExactCapacity or PercentChangeInCapacity.", p.Adjustment)
	}
	if p.Adjustment == "ExactCapacity" && p.By < 0 {
		return invalid("ScalingAdjustment must not be negative with the adjustment type ExactCapacity.")
	}
	return nil
}

// checkSteps judges the steps (User Guide, "Step adjustments"): no overlaps,
// no gaps, open ends where a side is covered at all.
func (p *Policy) checkSteps() error {
	if len(p.Steps) == 0 || len(p.Steps) > maxSteps {
		return invalid("A policy of the type StepScaling needs 1 to %d StepAdjustments, not %d.", maxSteps, len(p.Steps))
	}
	if p.Aggregation == "" {
		p.Aggregation = "Average"
	}
	if !slices.Contains([]string{"Average", "Minimum", "Maximum"}, p.Aggregation) {
		return invalid("The metric aggregation type '%s' is invalid: it must be Average, Minimum or Maximum.", p.Aggregation)
	}
	steps := slices.Clone(p.Steps)
	for _, st := range steps {
		low, high := bounds(&st)
		switch {
		case math.IsNaN(low) || math.IsNaN(high) || low >= high:
			return invalid("StepAdjustment interval bounds are invalid: MetricIntervalUpperBound must be greater than MetricIntervalLowerBound.")
		case st.MetricIntervalLowerBound == nil && st.MetricIntervalUpperBound == nil && len(steps) > 1:
			return invalid("At most one StepAdjustment may have an unspecified lower bound and one an unspecified upper bound, and not the same.")
		case p.Adjustment == "ExactCapacity" && ptr.Value(st.ScalingAdjustment) < 0:
			return invalid("ScalingAdjustment must not be negative with the adjustment type ExactCapacity.")
		}
	}
	slices.SortFunc(steps, func(a, b api.StepAdjustment) int {
		x, _ := bounds(&a)
		y, _ := bounds(&b)
		return cmp.Compare(x, y)
	})
	for n := 1; n < len(steps); n++ {
		_, end := bounds(&steps[n-1])
		switch begin, _ := bounds(&steps[n]); {
		case begin < end:
			return invalid("StepAdjustment intervals can't overlap.")
		case begin > end:
			return invalid("There must be no gaps between StepAdjustment intervals.")
		}
	}
	low, _ := bounds(&steps[0])
	if low < 0 && !math.IsInf(low, -1) {
		return invalid("A StepAdjustment with a negative lower bound needs one with an unspecified lower bound.")
	}
	if _, high := bounds(&steps[len(steps)-1]); high > 0 && !math.IsInf(high, 1) {
		return invalid("A StepAdjustment with a positive upper bound needs one with an unspecified upper bound.")
	}
	return nil
}

func (p *Policy) checkTracking() error {
	t := p.Tracking
	if t == nil {
		return invalid("TargetTrackingConfiguration is required for policies of the type TargetTrackingScaling.")
	}
	if v := ptr.Value(t.TargetValue); !(v > 0) || math.IsInf(v, 0) {
		return invalid("TargetTrackingConfiguration.TargetValue must be greater than 0.")
	}
	pre, own := t.PredefinedMetricSpecification, t.CustomizedMetricSpecification
	if (pre == nil) == (own == nil) {
		return invalid("TargetTrackingConfiguration needs a PredefinedMetricSpecification or a CustomizedMetricSpecification, not both.")
	}
	if pre == nil {
		return checkCustomized(own)
	}
	label := ptr.Value(pre.ResourceLabel)
	switch kind := ptr.Value(pre.PredefinedMetricType); kind {
	case "ASGAverageCPUUtilization", "ASGAverageNetworkIn", "ASGAverageNetworkOut":
		if label != "" {
			return invalid("ResourceLabel is supported for ALBRequestCountPerTarget only.")
		}
	case "ALBRequestCountPerTarget":
		if _, _, ok := splitLabel(label); !ok {
			return invalid("The resource label '%.200s' is invalid: it has the form app/LOAD-BALANCER/ID/targetgroup/TARGET-GROUP/ID.", label)
		}
	default:
		return invalid("The predefined metric type '%s' is invalid.", kind)
	}
	return nil
}

func checkCustomized(c *api.CustomizedMetricSpecification) error {
	if c.Period != nil && *c.Period != 10 && *c.Period != 30 && *c.Period != 60 {
		return invalid("CustomizedMetricSpecification.Period must be 10, 30 or 60, not %d.", *c.Period)
	}
	if len(c.Metrics) > 0 {
		if c.MetricName != nil || c.Namespace != nil || c.Statistic != nil || c.Unit != nil || len(c.Dimensions) > 0 {
			return invalid("CustomizedMetricSpecification has either Metrics or a metric of its own, not both.")
		}
		returned := 0
		for _, q := range c.Metrics {
			if q.ReturnData == nil || *q.ReturnData {
				returned++
			}
		}
		if returned != 1 {
			return invalid("Exactly one of CustomizedMetricSpecification.Metrics must return data, not %d.", returned)
		}
		return nil
	}
	if ptr.Value(c.MetricName) == "" || ptr.Value(c.Namespace) == "" || ptr.Value(c.Statistic) == "" {
		return invalid("CustomizedMetricSpecification needs MetricName, Namespace and Statistic.")
	}
	if !slices.Contains([]string{"Average", "Minimum", "Maximum", "SampleCount", "Sum"}, *c.Statistic) {
		return invalid("The statistic '%s' is invalid.", *c.Statistic)
	}
	return nil
}
