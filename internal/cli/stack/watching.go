package stack

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/logs"
	"slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
)

// defaultAlertEmail is in the server's own mailbox, which needs no
// confirmation: `slipway mail` shows what arrives.
const defaultAlertEmail = "alerts@slipway.local"

// cpuTarget is what the scaling policy keeps the CPU at, cpuHigh where the
// alarm sounds; both in percent.
const cpuTarget, cpuHigh = 50, 80

// watching makes what watches the application: a topic that mails, alarms on
// CPU, on nginx's errors and on unhealthy hosts, and a scaling policy.
func (s *Stack) watching(ctx context.Context) (bool, error) {
	anyMade := false
	for _, st := range []step{
		{"topic for alerts", s.topic},
		{"subscription of " + s.alertEmail(), s.subscription},
		{"alarm on CPU", s.cpuAlarm},
		{"metric filter on nginx's error log", s.errorFilter},
		{"alarm on nginx's errors", s.errorAlarm},
		{"alarm on unhealthy hosts", s.hostsAlarm},
		{"scaling policy", s.scalingPolicy},
	} {
		made, err := st.do(ctx)
		if awserr.Is(err, "NotImplemented") {
			s.cfg.Step(fmt.Sprintf("%s left out: %s", st.what, awserr.As(err).Message), false)
			continue
		}
		if err != nil {
			return anyMade, fmt.Errorf("%s: %w", st.what, err)
		}
		anyMade = anyMade || made
	}
	return anyMade, nil
}

func (s *Stack) alertEmail() string {
	if s.cfg.AlertEmail == "" {
		return defaultAlertEmail
	}
	return s.cfg.AlertEmail
}

func (s *Stack) topic(ctx context.Context) (bool, error) {
	name := s.cfg.Name + "-alerts"
	arn := "arn:aws:sns:" + s.cfg.Region + ":" + s.cfg.Account + ":" + name
	_, err := call(ctx, s, sns.OpGetTopicAttributes, &sns.GetTopicAttributesInput{TopicArn: &arn})
	if err == nil {
		s.TopicARN = arn
		return false, nil
	}
	if !missing(err, "NotFound") {
		return false, err
	}
	made, err := call(ctx, s, sns.OpCreateTopic, &sns.CreateTopicInput{Name: &name})
	if err != nil {
		return false, err
	}
	s.TopicARN = *made.TopicArn
	return true, nil
}

// subscription leaves one that waits for its confirmation alone: another mail
// would be noise.
func (s *Stack) subscription(ctx context.Context) (bool, error) {
	if s.TopicARN == "" {
		return false, nil // topics were left out, and that was said
	}
	for token := (*string)(nil); ; {
		page, err := call(ctx, s, sns.OpListSubscriptionsByTopic, &sns.ListSubscriptionsByTopicInput{TopicArn: &s.TopicARN, NextToken: token})
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(page.Subscriptions, func(sub sns.Subscription) bool {
			return *sub.Endpoint == s.alertEmail() && *sub.Protocol == "email" && *sub.SubscriptionArn != "Deleted"
		}) {
			return false, nil
		}
		if token = page.NextToken; token == nil {
			break
		}
	}
	_, err := call(ctx, s, sns.OpSubscribe, &sns.SubscribeInput{TopicArn: &s.TopicARN, Protocol: new("email"), Endpoint: new(s.alertEmail())})
	return true, err
}

// alarm makes an alarm unless there is one of its name: what people changed
// stays as they want it.
func (s *Stack) alarm(ctx context.Context, in *cloudwatch.PutMetricAlarmInput) (bool, error) {
	found, err := call(ctx, s, cloudwatch.OpDescribeAlarms, &cloudwatch.DescribeAlarmsInput{AlarmNames: list(*in.AlarmName)})
	if err != nil || len(found.MetricAlarms) > 0 {
		return false, err
	}
	in.ActionsEnabled = new(true)
	if s.TopicARN != "" {
		in.AlarmActions, in.OKActions = list(s.TopicARN), list(s.TopicARN)
	}
	_, err = call(ctx, s, cloudwatch.OpPutMetricAlarm, in)
	return true, err
}

func (s *Stack) cpuAlarm(ctx context.Context) (bool, error) {
	return s.alarm(ctx, &cloudwatch.PutMetricAlarmInput{
		AlarmName: new(s.cfg.Name + "-cpu-high"), AlarmDescription: new(fmt.Sprintf("The instances of %s use more than %d %% of their CPU.", s.cfg.Name, cpuHigh)),
		Namespace: new("AWS/EC2"), MetricName: new("CPUUtilization"), Statistic: new("Average"), Period: new(int64(60)), EvaluationPeriods: new(int64(2)),
		Threshold: new(float64(cpuHigh)), ComparisonOperator: new("GreaterThanThreshold"),
		Dimensions: list(cloudwatch.Dimension{Name: new("AutoScalingGroupName"), Value: &s.cfg.Name}),
	})
}

// errorMetric is where the metric filter counts; its namespace is the
// application's name.
const errorMetric = "NginxErrors"

func (s *Stack) errorLogGroup() string {
	if s.cfg.SourceDir != "" {
		if name := ErrorLogGroup(s.cfg.SourceDir); name != "" {
			return name
		}
	}
	return "/" + s.cfg.Name + "/nginx/error"
}

// ErrorLogGroup reads from the CloudWatch agent's configuration in an
// application's directory which log group its instances write nginx's error
// log to; "" where it has no such configuration.
func ErrorLogGroup(dir string) string {
	for _, pattern := range []string{"config/*cloudwatch-agent*.json", "*cloudwatch-agent*.json", "cloudwatch/*.json"} {
		files, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			continue // the patterns are constant, the directory's name may have brackets
		}
		for _, f := range files {
			if name := errorGroupIn(f); name != "" {
				return name
			}
		}
	}
	return ""
}

func errorGroupIn(file string) string {
	var cfg struct {
		Logs struct {
			Collected struct {
				Files struct {
					List []struct {
						Path  string `json:"file_path"`
						Group string `json:"log_group_name"`
					} `json:"collect_list"`
				} `json:"files"`
			} `json:"logs_collected"`
		} `json:"logs"`
	}
	raw, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(raw, &cfg) != nil {
		return "" // the agent in the instances will say what is wrong with it
	}
	for _, f := range cfg.Logs.Collected.Files.List {
		if strings.Contains(f.Path, "nginx") && strings.Contains(filepath.Base(f.Path), "error") && !strings.ContainsAny(f.Group, "{}") {
			return f.Group
		}
	}
	return ""
}

func (s *Stack) errorFilter(ctx context.Context) (bool, error) {
	group, name := s.errorLogGroup(), s.cfg.Name+"-nginx-errors"
	// The agents would make the group with their first line; the filter needs it now.
	_, err := call(ctx, s, logs.OpCreateLogGroup, &logs.CreateLogGroupInput{LogGroupName: &group})
	if err != nil && !missing(err, "ResourceAlreadyExistsException") {
		return false, err
	}
	found, err := call(ctx, s, logs.OpDescribeMetricFilters, &logs.DescribeMetricFiltersInput{LogGroupName: &group, FilterNamePrefix: &name})
	if err != nil {
		return false, err
	}
	if slices.ContainsFunc(found.MetricFilters, func(f logs.MetricFilter) bool { return *f.FilterName == name }) {
		return false, nil
	}
	_, err = call(ctx, s, logs.OpPutMetricFilter, &logs.PutMetricFilterInput{
		LogGroupName: &group, FilterName: &name, FilterPattern: new(`?"[error]" ?"[crit]" ?"[alert]" ?"[emerg]"`),
		MetricTransformations: list(logs.MetricTransformation{MetricName: new(errorMetric), MetricNamespace: &s.cfg.Name, MetricValue: new("1"), DefaultValue: new(0.0)}),
	})
	return true, err
}

func (s *Stack) errorAlarm(ctx context.Context) (bool, error) {
	return s.alarm(ctx, &cloudwatch.PutMetricAlarmInput{
		AlarmName: new(s.cfg.Name + "-nginx-errors"), AlarmDescription: new("nginx of " + s.cfg.Name + " writes errors to its log " + s.errorLogGroup() + "."),
		Namespace: &s.cfg.Name, MetricName: new(errorMetric), Statistic: new("Sum"), Period: new(int64(60)), EvaluationPeriods: new(int64(1)),
		Threshold: new(0.0), ComparisonOperator: new("GreaterThanThreshold"), TreatMissingData: new("notBreaching"),
	})
}

func (s *Stack) hostsAlarm(ctx context.Context) (bool, error) {
	_, lb, ok := strings.Cut(s.LoadBalancerARN, ":loadbalancer/")
	tg := s.TargetGroupARN[strings.LastIndex(s.TargetGroupARN, ":")+1:]
	if !ok || tg == "" {
		return false, fmt.Errorf("the ARNs %q and %q name no load balancer and target group", s.LoadBalancerARN, s.TargetGroupARN)
	}
	return s.alarm(ctx, &cloudwatch.PutMetricAlarmInput{
		AlarmName: new(s.cfg.Name + "-unhealthy-hosts"), AlarmDescription: new("The load balancer of " + s.cfg.Name + " finds instances unhealthy."),
		Namespace: new("AWS/ApplicationELB"), MetricName: new("UnHealthyHostCount"), Statistic: new("Maximum"), Period: new(int64(60)), EvaluationPeriods: new(int64(2)),
		Threshold: new(0.0), ComparisonOperator: new("GreaterThanThreshold"), TreatMissingData: new("notBreaching"),
		Dimensions: list(cloudwatch.Dimension{Name: new("TargetGroup"), Value: &tg}, cloudwatch.Dimension{Name: new("LoadBalancer"), Value: &lb}),
	})
}

func (s *Stack) scalingPolicy(ctx context.Context) (bool, error) {
	name := s.cfg.Name + "-cpu"
	found, err := call(ctx, s, autoscaling.OpDescribePolicies, &autoscaling.DescribePoliciesInput{AutoScalingGroupName: &s.cfg.Name, PolicyNames: list(name)})
	if err != nil || len(found.ScalingPolicies) > 0 {
		return false, err
	}
	_, err = call(ctx, s, autoscaling.OpPutScalingPolicy, &autoscaling.PutScalingPolicyInput{
		AutoScalingGroupName: &s.cfg.Name, PolicyName: &name, PolicyType: new("TargetTrackingScaling"), EstimatedInstanceWarmup: new(int64(60)),
		TargetTrackingConfiguration: &autoscaling.TargetTrackingConfiguration{TargetValue: new(float64(cpuTarget)),
			PredefinedMetricSpecification: &autoscaling.PredefinedMetricSpecification{PredefinedMetricType: new("ASGAverageCPUUtilization")}},
	})
	return true, err
}
