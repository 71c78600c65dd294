package autoscaling_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	api "slipway/internal/api/autoscaling"
	ec2api "slipway/internal/api/ec2"
	elbv2 "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/machine"
	"slipway/internal/machine/simulated"
	"slipway/internal/services/autoscaling"
	"slipway/internal/services/ec2"
	"slipway/internal/store"
)

const account, region = "123456789012", "us-east-1"

// bench is Auto Scaling over the real EC2 service with simulated machines,
// and a small stand-in for target groups.
type bench struct {
	t       *testing.T
	ctx     context.Context
	store   store.Store
	mux     *dispatch.Mux
	driver  *simulated.Driver
	service *autoscaling.Service
	targets *targetGroups
	stop    func()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: st, mux: dispatch.New(), driver: simulated.New(simulated.Options{}), targets: &targetGroups{store: st, health: map[string]string{}}}
	b.ctx = caller.With(t.Context(), caller.Identity{Account: account, Region: region, AccessKeyID: "AKIATEST"})
	log := slog.New(slog.DiscardHandler)
	machines := ec2.New(ec2.Deps{Store: st, Mux: b.mux, Machines: b.driver, Log: log})
	machines.Register(b.mux)
	b.targets.register(b.mux)
	b.service = autoscaling.New(autoscaling.Deps{Store: st, Mux: b.mux, Log: log})
	b.service.Register(b.mux)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := machines.Run(ctx); err != nil {
			t.Errorf("ec2: %v", err)
		}
	})
	b.start()
	t.Cleanup(func() {
		b.stop()
		cancel()
		wg.Wait()
		st.Close()
	})
	must(b, ec2api.OpCreateLaunchTemplate.Name, func() error {
		_, err := dispatch.Call(b.ctx, b.mux, ec2api.OpCreateLaunchTemplate, &ec2api.CreateLaunchTemplateInput{LaunchTemplateName: new("web"),
			LaunchTemplateData: &ec2api.RequestLaunchTemplateData{ImageId: new("ami-0123456789abcdef0"), InstanceType: new("t3.micro")}})
		return err
	})
	return b
}

func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	service := b.service
	go func() { done <- service.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("autoscaling: %v", err)
		}
	}
}

func must(b *bench, what string, f func() error) {
	b.t.Helper()
	if err := f(); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// until waits for a condition, looked at after every event, and now and then
// besides: machines and messages change without one.
func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	sub := b.store.Subscribe()
	defer sub.Close()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	for !cond() {
		next, stop := context.WithTimeout(ctx, 20*time.Millisecond)
		_, err := sub.Next(next)
		stop()
		if ctx.Err() != nil || err != nil && next.Err() == nil && !errors.Is(err, store.ErrLagged) {
			b.t.Fatalf("waiting for %s: %v\n%s", what, err, b.picture())
		}
	}
}

func (b *bench) create(change func(*api.CreateAutoScalingGroupInput)) {
	b.t.Helper()
	in := &api.CreateAutoScalingGroupInput{AutoScalingGroupName: new("web"), MinSize: new(int64(0)), MaxSize: new(int64(6)), DesiredCapacity: new(int64(2)),
		LaunchTemplate: &api.LaunchTemplateSpecification{LaunchTemplateName: new("web"), Version: new("$Latest")}, AvailabilityZones: []string{"us-east-1a", "us-east-1b", "us-east-1c"}}
	if change != nil {
		change(in)
	}
	must(b, "CreateAutoScalingGroup", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpCreateAutoScalingGroup, in)
		return err
	})
}

func (b *bench) group() api.AutoScalingGroup {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeAutoScalingGroups, &api.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"web"}})
	if err != nil {
		b.t.Fatal(err)
	}
	if len(out.AutoScalingGroups) == 0 {
		return api.AutoScalingGroup{}
	}
	return out.AutoScalingGroups[0]
}

func (b *bench) inState(state string) (ids []string) {
	for _, i := range b.group().Instances {
		if *i.LifecycleState == state {
			ids = append(ids, *i.InstanceId)
		}
	}
	return ids
}

// steady waits until exactly n instances are there, all in service.
func (b *bench) steady(n int) []string {
	b.t.Helper()
	b.until(fmt.Sprintf("%d in service and nothing else", n), func() bool {
		return len(b.inState("InService")) == n && len(b.group().Instances) == n
	})
	return b.inState("InService")
}

func (b *bench) activities() []api.Activity {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeScalingActivities, &api.DescribeScalingActivitiesInput{AutoScalingGroupName: new("web")})
	if err != nil {
		b.t.Fatal(err)
	}
	return out.Activities
}

func (b *bench) picture() string {
	var s strings.Builder
	for _, i := range b.group().Instances {
		fmt.Fprintln(&s, *i.InstanceId, *i.LifecycleState, *i.HealthStatus, *i.AvailabilityZone)
	}
	if b.group().AutoScalingGroupName != nil {
		for _, a := range b.activities() {
			fmt.Fprintln(&s, *a.StatusCode, *a.Description, "|", *a.Cause)
		}
	}
	return s.String()
}

func (b *bench) desired(n int64) {
	b.t.Helper()
	must(b, "SetDesiredCapacity", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpSetDesiredCapacity, &api.SetDesiredCapacityInput{AutoScalingGroupName: new("web"), DesiredCapacity: &n})
		return err
	})
}

func (b *bench) machines() (running int) {
	for _, m := range b.driver.List() {
		if m.State == machine.StateRunning {
			running++
		}
	}
	return running
}

// targetGroups stands for ELBv2: one target group, health set by the test;
// a deregistered target drains until the test says so.
type targetGroups struct {
	store  store.Store
	mu     sync.Mutex
	health map[string]string
	hold   bool // keep deregistered targets draining
}

const webTargets = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/0123456789abcdef"

var targetRows = store.NewTable[struct{}]("elbv2:target", nil)

// set changes a target's health ("" removes it) and says so as ELBv2 does.
func (g *targetGroups) set(id, state string) {
	g.mu.Lock()
	if state == "" {
		delete(g.health, id)
	} else {
		g.health[id] = state
	}
	g.mu.Unlock()
	_ = g.store.Update(context.Background(), func(tx store.Tx) error {
		key := webTargets + "|" + id + "|80"
		row, err := targetRows.Get(tx, account, region, key)
		if errors.Is(err, store.ErrNotFound) {
			_, err = targetRows.Insert(tx, account, region, key, struct{}{}, "Changed", nil)
			return err
		}
		if err != nil {
			return err
		}
		return targetRows.Save(tx, row, "Changed", nil)
	})
}

func (g *targetGroups) get(id string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.health[id]
}

func (g *targetGroups) register(mux *dispatch.Mux) {
	dispatch.Register(mux, elbv2.OpRegisterTargets, func(_ context.Context, in *elbv2.RegisterTargetsInput) (*elbv2.RegisterTargetsOutput, error) {
		for _, t := range in.Targets {
			g.set(*t.Id, "initial")
		}
		return &elbv2.RegisterTargetsOutput{}, nil
	})
	dispatch.Register(mux, elbv2.OpDeregisterTargets, func(_ context.Context, in *elbv2.DeregisterTargetsInput) (*elbv2.DeregisterTargetsOutput, error) {
		for _, t := range in.Targets {
			if g.hold {
				g.set(*t.Id, "draining")
			} else {
				g.set(*t.Id, "")
			}
		}
		return &elbv2.DeregisterTargetsOutput{}, nil
	})
	dispatch.Register(mux, elbv2.OpDescribeTargetHealth, func(_ context.Context, in *elbv2.DescribeTargetHealthInput) (*elbv2.DescribeTargetHealthOutput, error) {
		if *in.TargetGroupArn != webTargets {
			return nil, awserr.New("TargetGroupNotFound", "One or more target groups not found")
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		out := &elbv2.DescribeTargetHealthOutput{}
		for id, state := range g.health {
			out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, elbv2.TargetHealthDescription{Target: &elbv2.TargetDescription{Id: new(id)}, TargetHealth: &elbv2.TargetHealth{State: new(state)}})
		}
		return out, nil
	})
}

func TestGroupKeepsDesiredCapacity(t *testing.T) {
	b := newBench(t)
	b.create(func(in *api.CreateAutoScalingGroupInput) {
		in.DesiredCapacity = new(int64(3))
		in.Tags = []api.Tag{{Key: new("app"), Value: new("todo"), PropagateAtLaunch: new(true)}, {Key: new("secret"), Value: new("x")}}
	})
	ids := b.steady(3)
	var zones []string
	for _, i := range b.group().Instances {
		zones = append(zones, *i.AvailabilityZone)
		if *i.HealthStatus != "Healthy" || *i.LaunchTemplate.Version != "1" {
			t.Errorf("instance %+v", i)
		}
	}
	slices.Sort(zones)
	if !slices.Equal(zones, []string{"us-east-1a", "us-east-1b", "us-east-1c"}) {
		t.Errorf("zones %v", zones)
	}
	out, err := dispatch.Call(b.ctx, b.mux, ec2api.OpDescribeTags, &ec2api.DescribeTagsInput{Filters: []ec2api.Filter{{Name: new("resource-id"), Values: ids[:1]}}})
	if err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{}
	for _, x := range out.Tags {
		tags[*x.Key] = *x.Value
	}
	if tags["app"] != "todo" || tags["aws:autoscaling:groupName"] != "web" || tags["aws:ec2launchtemplate:version"] != "1" || tags["secret"] != "" {
		t.Errorf("tags %v", tags)
	}
	a := b.activities()[0]
	if *a.StatusCode != "Successful" || *a.Progress != 100 || !strings.HasPrefix(*a.Description, "Launching a new EC2 instance: i-") ||
		!strings.Contains(*a.Cause, " a user request created an AutoScalingGroup changing the desired capacity from 0 to 3.  At ") ||
		!strings.HasSuffix(*a.Cause, "an instance was started in response to a difference between desired and actual capacity, increasing the capacity from 0 to 3.") {
		t.Errorf("activity %s %s: %s", *a.StatusCode, *a.Description, *a.Cause)
	}

	b.desired(5)
	b.steady(5)
	b.desired(1)
	b.steady(1)
	b.until("machines gone", func() bool { return b.machines() == 1 })
	a = b.activities()[0]
	if !strings.Contains(*a.Cause, "a user request explicitly set group desired capacity changing the desired capacity from 5 to 1.") ||
		!strings.Contains(*a.Cause, "shrinking the capacity from 5 to 1.") || !strings.HasSuffix(*a.Cause, "was selected for termination.") {
		t.Errorf("cause %s", *a.Cause)
	}
}

func TestDeadInstanceIsReplacedAtOnce(t *testing.T) {
	b := newBench(t)
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.HealthCheckGracePeriod = new(int64(3600)) })
	ids := b.steady(2)
	began := time.Now()
	must(b, "Kill", func() error { return b.driver.Kill(b.ctx, ids[0]) })
	b.until("replacement", func() bool {
		now := b.inState("InService")
		return len(now) == 2 && !slices.Contains(now, ids[0])
	})
	t.Logf("replaced after %s", time.Since(began))
	b.steady(2)
	var causes []string
	for _, a := range b.activities() {
		causes = append(causes, *a.Cause)
	}
	all := strings.Join(causes, "\n")
	for _, want := range []string{"an EC2 health check that indicated it had been terminated or stopped.", "an instance was launched in response to an unhealthy instance needing to be replaced."} {
		if !strings.Contains(all, want) {
			t.Errorf("no activity says %q:\n%s", want, all)
		}
	}
}

func TestTargetHealthReplacesAfterDraining(t *testing.T) {
	b := newBench(t)
	b.targets.hold = true
	b.create(func(in *api.CreateAutoScalingGroupInput) {
		in.TargetGroupARNs, in.HealthCheckType = []string{webTargets}, new("ELB")
	})
	ids := b.steady(2)
	for _, id := range ids {
		if b.targets.get(id) != "initial" {
			t.Errorf("%s in service but not registered", id)
		}
		b.targets.set(id, "healthy")
	}
	b.until("attachment InService", func() bool { return b.attachment() == "InService" })
	b.targets.set(ids[0], "unhealthy")
	b.until("draining", func() bool { return b.targets.get(ids[0]) == "draining" })
	if _, err := b.driver.Status(ids[0]); err != nil {
		t.Errorf("terminated before it had drained: %v", err)
	}
	b.until("replacement in service", func() bool { return len(b.inState("InService")) == 2 })
	b.until("draining shown", func() bool {
		return slices.ContainsFunc(b.activities(), func(a api.Activity) bool { return *a.StatusCode == "WaitingForELBConnectionDraining" })
	})
	b.targets.set(ids[0], "")
	b.steady(2)
	if !strings.Contains(b.picture(), "an instance was taken out of service in response to an ELB system health check failure.") {
		t.Errorf("no cause:\n%s", b.picture())
	}
}

func (b *bench) attachment() string {
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeLoadBalancerTargetGroups, &api.DescribeLoadBalancerTargetGroupsInput{AutoScalingGroupName: new("web")})
	if err != nil || len(out.LoadBalancerTargetGroups) == 0 {
		return ""
	}
	return *out.LoadBalancerTargetGroups[0].State
}

func (b *bench) hook(name, transition string) {
	b.t.Helper()
	must(b, "PutLifecycleHook", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpPutLifecycleHook, &api.PutLifecycleHookInput{AutoScalingGroupName: new("web"), LifecycleHookName: &name,
			LifecycleTransition: new("autoscaling:EC2_INSTANCE_" + transition), HeartbeatTimeout: new(int64(30))})
		return err
	})
}

func (b *bench) complete(hook, id, result string) error {
	_, err := dispatch.Call(b.ctx, b.mux, api.OpCompleteLifecycleAction, &api.CompleteLifecycleActionInput{AutoScalingGroupName: new("web"), LifecycleHookName: &hook, InstanceId: &id, LifecycleActionResult: &result})
	return err
}

func TestLifecycleHooks(t *testing.T) {
	b := newBench(t)
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.DesiredCapacity = new(int64(0)) })
	b.hook("one", "LAUNCHING")
	b.hook("two", "LAUNCHING")
	b.hook("bye", "TERMINATING")
	b.desired(1)
	b.until("Pending:Wait", func() bool { return len(b.inState("Pending:Wait")) == 1 })
	id := b.inState("Pending:Wait")[0]
	must(b, "first hook", func() error { return b.complete("one", id, "CONTINUE") })
	if err := b.complete("one", id, "CONTINUE"); !awserr.Is(err, "ValidationError") {
		t.Errorf("the same action twice: %v", err)
	}
	if len(b.inState("Pending:Wait")) != 1 {
		t.Error("did not wait for the second hook")
	}
	must(b, "second hook", func() error { return b.complete("two", id, "CONTINUE") })
	b.steady(1)

	b.desired(2)
	b.until("Pending:Wait", func() bool { return len(b.inState("Pending:Wait")) == 1 })
	bad := b.inState("Pending:Wait")[0]
	must(b, "abandon", func() error { return b.complete("two", bad, "ABANDON") })
	b.until("abandoned instance gone", func() bool { return b.describeEC2(bad) == "terminated" })
	b.desired(1)
	b.until("one left", func() bool { return len(b.inState("InService")) == 1 })

	b.desired(0)
	b.until("Terminating:Wait", func() bool { return slices.Contains(b.inState("Terminating:Wait"), id) })
	if b.describeEC2(id) != "running" {
		t.Error("terminated before its hook had answered")
	}
	must(b, "goodbye", func() error { return b.complete("bye", id, "ABANDON") })
	b.until("empty", func() bool { return len(b.inState("InService")) == 0 && b.describeEC2(id) == "terminated" })
}

func (b *bench) describeEC2(id string) string {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, ec2api.OpDescribeInstances, &ec2api.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		b.t.Fatal(err)
	}
	return *out.Reservations[0].Instances[0].State.Name
}

func TestFailedLaunchesAreExplained(t *testing.T) {
	b := newBench(t)
	b.driver.FailBoots(func(machine.Spec) error { return errors.New("cgroup: no such controller") })
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.DesiredCapacity = new(int64(1)) })
	b.until("a failed activity", func() bool {
		return slices.ContainsFunc(b.activities(), func(a api.Activity) bool {
			return *a.StatusCode == "Failed" && a.StatusMessage != nil && strings.Contains(*a.StatusMessage, "cgroup: no such controller")
		})
	})
	b.driver.FailBoots(nil)
	b.steady(1)
}

func TestForceDelete(t *testing.T) {
	b := newBench(t)
	b.create(nil)
	b.hook("bye", "TERMINATING")
	b.steady(2)
	_, err := dispatch.Call(b.ctx, b.mux, api.OpDeleteAutoScalingGroup, &api.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("web")})
	if !awserr.Is(err, "ResourceInUse") {
		t.Errorf("delete with instances: %v", err)
	}
	must(b, "ForceDelete", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpDeleteAutoScalingGroup, &api.DeleteAutoScalingGroupInput{AutoScalingGroupName: new("web"), ForceDelete: new(true)})
		return err
	})
	b.until("group gone", func() bool { return b.group().AutoScalingGroupName == nil && b.machines() == 0 })
}

func TestRestartLaunchesNothingTwice(t *testing.T) {
	b := newBench(t)
	b.create(func(in *api.CreateAutoScalingGroupInput) { in.DesiredCapacity = new(int64(4)) })
	for range 20 { // stop and start the controller in the middle of its work
		b.stop()
		b.service = autoscaling.New(autoscaling.Deps{Store: b.store, Mux: b.mux, Log: slog.New(slog.DiscardHandler)})
		b.start()
	}
	b.steady(4)
	if n := len(b.driver.List()); n != 4 {
		t.Errorf("%d machines for 4 instances", n)
	}
}

func TestStandbyDetachAttachProtect(t *testing.T) {
	b := newBench(t)
	b.create(nil)
	ids := b.steady(2)
	must(b, "EnterStandby", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpEnterStandby, &api.EnterStandbyInput{AutoScalingGroupName: new("web"), InstanceIds: ids[:1], ShouldDecrementDesiredCapacity: new(true)})
		return err
	})
	b.until("standby", func() bool { return len(b.inState("Standby")) == 1 && len(b.inState("InService")) == 1 })
	must(b, "ExitStandby", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpExitStandby, &api.ExitStandbyInput{AutoScalingGroupName: new("web"), InstanceIds: ids[:1]})
		return err
	})
	b.steady(2)
	must(b, "DetachInstances", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpDetachInstances, &api.DetachInstancesInput{AutoScalingGroupName: new("web"), InstanceIds: ids[:1], ShouldDecrementDesiredCapacity: new(true)})
		return err
	})
	b.steady(1)
	if b.describeEC2(ids[0]) != "running" {
		t.Error("a detached instance does not run any more")
	}
	must(b, "AttachInstances", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpAttachInstances, &api.AttachInstancesInput{AutoScalingGroupName: new("web"), InstanceIds: ids[:1]})
		return err
	})
	b.steady(2)
	must(b, "SetInstanceProtection", func() error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpSetInstanceProtection, &api.SetInstanceProtectionInput{AutoScalingGroupName: new("web"), InstanceIds: ids, ProtectedFromScaleIn: new(true)})
		return err
	})
	b.desired(0)
	b.until("activity about protection", func() bool {
		return slices.ContainsFunc(b.activities(), func(a api.Activity) bool {
			return strings.HasPrefix(*a.Description, "Could not scale to desired capacity because all remaining instances are protected")
		})
	})
	if n := len(b.inState("InService")); n != 2 {
		t.Errorf("%d in service, want the 2 protected ones", n)
	}
}
