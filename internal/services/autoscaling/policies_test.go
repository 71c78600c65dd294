package autoscaling_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "slipway/internal/api/autoscaling"
	cw "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/services/autoscaling"
)

// alarms stands for CloudWatch: it keeps what is put.
type alarms struct {
	mu    sync.Mutex
	put   map[string]cw.PutMetricAlarmInput
	state map[string]string
}

func (x *alarms) register(mux *dispatch.Mux) {
	x.put, x.state = map[string]cw.PutMetricAlarmInput{}, map[string]string{}
	dispatch.Register(mux, cw.OpPutMetricAlarm, func(_ context.Context, in *cw.PutMetricAlarmInput) (*cw.PutMetricAlarmOutput, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.put[*in.AlarmName] = *in
		return nil, nil
	})
	dispatch.Register(mux, cw.OpDeleteAlarms, func(_ context.Context, in *cw.DeleteAlarmsInput) (*cw.DeleteAlarmsOutput, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, n := range in.AlarmNames {
			if _, ok := x.put[n]; !ok {
				return nil, awserr.New("ResourceNotFound", "no alarm %s", n)
			}
			delete(x.put, n)
		}
		return nil, nil
	})
	dispatch.Register(mux, cw.OpDescribeAlarms, func(_ context.Context, in *cw.DescribeAlarmsInput) (*cw.DescribeAlarmsOutput, error) {
		x.mu.Lock()
		defer x.mu.Unlock()
		out := &cw.DescribeAlarmsOutput{}
		for n, a := range x.put {
			if slices.Contains(in.AlarmNames, n) || in.ActionPrefix != nil && slices.Contains(a.AlarmActions, *in.ActionPrefix) {
				out.MetricAlarms = append(out.MetricAlarms, cw.MetricAlarm{AlarmName: new(n), StateValue: new(x.state[n])})
			}
		}
		return out, nil
	})
}

func (x *alarms) names() (out []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n := range x.put {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

func (b *bench) tracking(name string, target float64) *api.PutScalingPolicyOutput {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, api.OpPutScalingPolicy, &api.PutScalingPolicyInput{AutoScalingGroupName: new("web"), PolicyName: &name, PolicyType: new("TargetTrackingScaling"), EstimatedInstanceWarmup: new(int64(0)),
		TargetTrackingConfiguration: &api.TargetTrackingConfiguration{TargetValue: &target, PredefinedMetricSpecification: &api.PredefinedMetricSpecification{PredefinedMetricType: new("ASGAverageCPUUtilization")}}})
	if err != nil {
		b.t.Fatalf("PutScalingPolicy: %v", err)
	}
	return out
}

func (b *bench) fire(policy, alarm string, value, threshold float64) {
	b.t.Helper()
	must(b, "AlarmFired", func() error {
		return b.service.AlarmFired(b.ctx, account, region, policy, alarm, "ALARM", value, threshold)
	})
}

func TestTargetTrackingFollowsItsAlarms(t *testing.T) {
	b := newBench(t)
	cws := &alarms{}
	cws.register(b.mux)
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.MinSize, in.MaxSize = new(int64(2)), new(int64(3)) })
	b.steady(2)
	p := b.tracking("cpu", 50)
	if len(p.Alarms) != 2 || len(cws.names()) != 2 {
		t.Fatalf("alarms: %v, made %v", p.Alarms, cws.names())
	}
	high, low := *p.Alarms[0].AlarmName, *p.Alarms[1].AlarmName
	a, l := cws.put[high], cws.put[low]
	if !strings.HasPrefix(high, "TargetTracking-web-AlarmHigh-") || *a.Threshold != 50 || *a.EvaluationPeriods != 3 || *a.Period != 60 || *a.ComparisonOperator != "GreaterThanThreshold" ||
		*a.MetricName != "CPUUtilization" || *a.Namespace != "AWS/EC2" || a.AlarmActions[0] != *p.PolicyARN || *a.AlarmDescription != "DO NOT EDIT OR DELETE. For TargetTrackingScaling policy "+*p.PolicyARN+"." {
		t.Errorf("high alarm: %+v", a)
	}
	if !strings.HasPrefix(low, "TargetTracking-web-AlarmLow-") || *l.Threshold != 35 || *l.EvaluationPeriods != 15 || *l.ComparisonOperator != "LessThanThreshold" {
		t.Errorf("low alarm: %+v", l)
	}
	b.fire(*p.PolicyARN, high, 80, 50)
	b.steady(3)
	cause := *b.activities()[0].Cause
	if !strings.Contains(cause, "a monitor alarm "+high+" in state ALARM triggered policy cpu changing the desired capacity from 2 to 3.  At ") || !strings.Contains(cause, "increasing the capacity from 2 to 3.") {
		t.Errorf("cause: %s", cause)
	}
	if d := *b.activities()[0].Details; !strings.Contains(d, `"InvokingAlarms":[{`) {
		t.Errorf("details: %s", d)
	}
	b.fire(*p.PolicyARN, high, 80, 50) // at the maximum
	b.fire(*p.PolicyARN, low, 10, 35)
	b.steady(2)
	again := b.tracking("cpu", 60)
	if *again.PolicyARN != *p.PolicyARN || *again.Alarms[0].AlarmName != high || *cws.put[high].Threshold != 60 {
		t.Errorf("changed policy: %+v", again)
	}
	must(b, "DeletePolicy", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpDeletePolicy, &api.DeletePolicyInput{AutoScalingGroupName: new("web"), PolicyName: new("cpu")})
		return err
	})
	if left := cws.names(); len(left) != 0 {
		t.Errorf("alarms left: %v", left)
	}
	if err := b.service.AlarmFired(b.ctx, account, region, *p.PolicyARN, high, "ALARM", 99, 50); !awserr.Is(err, "ValidationError") {
		t.Errorf("an alarm of a deleted policy: %v", err)
	}
}

func TestScaleInNeedsAllPolicies(t *testing.T) {
	b := newBench(t)
	cws := &alarms{}
	cws.register(b.mux)
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.DesiredCapacity = new(int64(3)) })
	b.steady(3)
	one, two := b.tracking("one", 50), b.tracking("two", 50)
	other := *two.Alarms[1].AlarmName
	cws.state[other] = "OK"
	b.fire(*one.PolicyARN, *one.Alarms[1].AlarmName, 5, 35)
	if n := *b.group().DesiredCapacity; n != 3 {
		t.Errorf("one policy alone scaled in to %d", n)
	}
	cws.mu.Lock()
	cws.state[other] = "ALARM"
	cws.mu.Unlock()
	b.fire(*one.PolicyARN, *one.Alarms[1].AlarmName, 5, 35)
	b.steady(1)
	// Deleting the group takes policies and alarms with it.
	must(b, "DeleteAutoScalingGroup", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpDeleteAutoScalingGroup, &api.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("web"), ForceDelete: new(true)})
		return err
	})
	b.until("the policies to go", func() bool {
		out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribePolicies, &api.DescribePoliciesInput{})
		return err == nil && len(out.ScalingPolicies) == 0
	})
	if left := cws.names(); len(left) != 0 {
		t.Errorf("alarms left: %v", left)
	}
}

func TestSimpleAndStepPolicies(t *testing.T) {
	b := newBench(t)
	b.create(nil)
	b.steady(2)
	put := func(in *api.PutScalingPolicyInput) string {
		in.AutoScalingGroupName = new("web")
		out, err := dispatch.Call(b.ctx, b.mux, api.OpPutScalingPolicy, in)
		if err != nil {
			t.Fatal(err)
		}
		return *out.PolicyARN
	}
	execute := func(in *api.ExecutePolicyInput) error {
		in.AutoScalingGroupName = new("web")
		_, err := dispatch.Call(b.ctx, b.mux, api.OpExecutePolicy, in)
		return err
	}
	simple := put(&api.PutScalingPolicyInput{PolicyName: new("add"), AdjustmentType: new("ChangeInCapacity"), ScalingAdjustment: new(int64(1)), Cooldown: new(int64(600))})
	step := put(&api.PutScalingPolicyInput{PolicyName: new("steps"), PolicyType: new("StepScaling"), AdjustmentType: new("ChangeInCapacity"), EstimatedInstanceWarmup: new(int64(0)),
		StepAdjustments: []api.StepAdjustment{{MetricIntervalLowerBound: new(0.0), MetricIntervalUpperBound: new(10.0), ScalingAdjustment: new(int64(1))}, {MetricIntervalLowerBound: new(10.0), ScalingAdjustment: new(int64(2))}}})
	if !strings.Contains(simple, ":autoScalingGroupName/web:policyName/add") {
		t.Errorf("ARN: %s", simple)
	}
	must(b, "ExecutePolicy", func() error {
		return execute(&api.ExecutePolicyInput{PolicyName: new("add"), HonorCooldown: new(true)})
	})
	b.steady(3)
	if cause := *b.activities()[0].Cause; !strings.Contains(cause, "a user request executed policy add changing the desired capacity from 2 to 3.") {
		t.Errorf("cause: %s", cause)
	}
	if err := execute(&api.ExecutePolicyInput{PolicyName: new("add"), HonorCooldown: new(true)}); !awserr.Is(err, "ScalingActivityInProgress") {
		t.Errorf("in the cooldown: %v", err)
	}
	b.fire(simple, "mine", 1, 1) // waits for the cooldown: nothing
	b.fire(step, "mine", 85, 70)
	b.steady(5)
	if err := execute(&api.ExecutePolicyInput{PolicyName: new("steps")}); !awserr.Is(err, "ValidationError") {
		t.Errorf("without a value: %v", err)
	}
	must(b, "ExecutePolicy", func() error {
		return execute(&api.ExecutePolicyInput{PolicyName: &step, MetricValue: new(75.0), BreachThreshold: new(70.0)})
	})
	b.steady(6)
	must(b, "SuspendProcesses", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpSuspendProcesses, &api.SuspendProcessesInput{AutoScalingGroupName: new("web"), ScalingProcesses: []string{"AlarmNotification"}})
		return err
	})
	b.desired(1)
	b.steady(1)
	b.fire(step, "mine", 85, 70)
	if n := *b.group().DesiredCapacity; n != 1 {
		t.Errorf("suspended AlarmNotification, and %d instances are desired", n)
	}
}

func TestScheduledActions(t *testing.T) {
	b := newBench(t)
	b.stop()
	fast := clock.Scaled(600, time.Time{})
	b.service = autoscaling.New(autoscaling.Deps{Store: b.store, Mux: b.mux, Clock: fast, Log: slog.New(slog.DiscardHandler)})
	b.start()
	b.create(nil)
	b.steady(2)
	call := func(in *api.PutScheduledUpdateGroupActionInput) error {
		in.AutoScalingGroupName = new("web")
		_, err := b.service.PutSchedule(b.ctx, in)
		return err
	}
	soon := fast.Now().Add(20 * time.Minute) // two real seconds: enough for the calls before it
	must(b, "once", func() error {
		return call(&api.PutScheduledUpdateGroupActionInput{ScheduledActionName: new("once"), StartTime: &soon, MinSize: new(int64(1)), DesiredCapacity: new(int64(3))})
	})
	if err := call(&api.PutScheduledUpdateGroupActionInput{ScheduledActionName: new("same"), StartTime: &soon, MinSize: new(int64(1))}); !awserr.Is(err, "AlreadyExists") {
		t.Errorf("two at a time: %v", err)
	}
	must(b, "nightly", func() error {
		return call(&api.PutScheduledUpdateGroupActionInput{ScheduledActionName: new("nightly"), Recurrence: new("0 22 * * *"), TimeZone: new("Europe/Berlin"), MinSize: new(int64(0))})
	})
	b.steady(3)
	found := false
	for _, a := range b.activities() {
		found = found || strings.Contains(*a.Cause, "a scheduled action update of AutoScalingGroup constraints to min: 1, max: 6, desired: 3 changing the desired capacity from 2 to 3.")
	}
	if !found {
		t.Errorf("no cause names the scheduled action:\n%s", b.picture())
	}
	out, err := b.service.DescribeSchedules(b.ctx, &api.DescribeScheduledActionsInput{AutoScalingGroupName: new("web")})
	if err != nil || len(out.ScheduledUpdateGroupActions) != 1 || *out.ScheduledUpdateGroupActions[0].ScheduledActionName != "nightly" {
		t.Errorf("left: %+v %v", out, err)
	}
	for name, in := range map[string]*api.PutScheduledUpdateGroupActionInput{
		"no time": {MinSize: new(int64(1))}, "no change": {Recurrence: new("* * * * *")}, "past": {StartTime: new(fast.Now().Add(-time.Minute)), MinSize: new(int64(1))},
		"cron": {Recurrence: new("61 * * * *"), MinSize: new(int64(1))}, "zone": {Recurrence: new("1 * * * *"), TimeZone: new("Mars/Base"), MinSize: new(int64(1))},
		"bounds": {Recurrence: new("1 * * * *"), MinSize: new(int64(3)), MaxSize: new(int64(1))}, "path": {Recurrence: new("1 * * * *"), TimeZone: new("../../etc/passwd"), MinSize: new(int64(1))},
	} {
		in.ScheduledActionName = new("bad")
		if err := call(in); !awserr.Is(err, "ValidationError") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
