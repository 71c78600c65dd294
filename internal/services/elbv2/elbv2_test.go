package elbv2

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/internal/api/ec2"
	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/lb"
	"slipway/internal/store"
)

// plane records what it is told, and says what the test tells it to.
type plane struct {
	mu     sync.Mutex
	snap   lb.Snapshot
	busy   string // address that cannot be listened on
	events chan lb.Event
}

func (p *plane) Apply(_ context.Context, s lb.Snapshot) (lb.Applied, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Version <= p.snap.Version {
		return lb.Applied{}, errors.New("an older version came after a newer one")
	}
	p.snap = s
	applied := lb.Applied{Version: s.Version, ListenerErrors: map[string]string{}}
	for _, b := range s.LoadBalancers {
		for _, l := range b.Listeners {
			if l.Address == p.busy {
				applied.ListenerErrors[l.ARN] = "address already in use"
			}
		}
	}
	return applied, nil
}

func (p *plane) Watch(ctx context.Context, f func(lb.Event) error) error {
	for {
		select {
		case ev := <-p.events:
			if err := f(ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *plane) Metrics(context.Context) (lb.Metrics, error) { return lb.Metrics{}, nil }

func (p *plane) targets() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, g := range p.snap.TargetGroups {
		for _, t := range g.Targets {
			out = append(out, fmt.Sprintf("%s %s:%d %s", t.ID, t.IP, t.Port, t.State))
		}
	}
	return strings.Join(out, ", ")
}

type bench struct {
	*Service
	t     *testing.T
	plane *plane
	ctx   context.Context
	tg    string
	lb    string
}

// setUp makes a service with one load balancer and one target group in use.
func setUp(t *testing.T, p *plane) *bench {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	mux := dispatch.New()
	dispatch.Register(mux, ec2.OpDescribeSubnets, func(_ context.Context, in *ec2.DescribeSubnetsInput) (*ec2.DescribeSubnetsOutput, error) {
		out := &ec2.DescribeSubnetsOutput{}
		for _, id := range in.SubnetIds {
			out.Subnets = append(out.Subnets, ec2.Subnet{SubnetId: new(id), VpcId: new("vpc-1"), AvailabilityZone: new("us-east-1" + id[len(id)-1:])})
		}
		return out, nil
	})
	dispatch.Register(mux, ec2.OpDescribeInstances, func(_ context.Context, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
		state := "running"
		if in.InstanceIds[0] == "i-0stopped" {
			state = "stopped"
		}
		return &ec2.DescribeInstancesOutput{Reservations: []ec2.Reservation{{Instances: []ec2.Instance{{InstanceId: new(in.InstanceIds[0]), VpcId: new("vpc-1"),
			PrivateIpAddress: new("172.31.0.9"), Placement: &ec2.Placement{AvailabilityZone: new("us-east-1a")}, State: &ec2.InstanceState{Name: new(state)}}}}}}, nil
	})
	d := Deps{Store: st, Mux: mux, PortShift: 8000}
	if p != nil {
		d.LB = p
	}
	b := &bench{Service: New(d), t: t, plane: p, ctx: caller.With(t.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1"})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		st.Close()
	})
	tg, err := b.createTargetGroup(b.ctx, group("web"))
	if err != nil {
		t.Fatal(err)
	}
	b.tg = *tg.TargetGroups[0].TargetGroupArn
	out, err := b.createLoadBalancer(b.ctx, &api.CreateLoadBalancerInput{Name: new("web"), Subnets: []string{"subnet-a", "subnet-b"}})
	if err != nil {
		t.Fatal(err)
	}
	b.lb = *out.LoadBalancers[0].LoadBalancerArn
	return b
}

func group(name string) *api.CreateTargetGroupInput {
	return &api.CreateTargetGroupInput{Name: &name, Protocol: new("HTTP"), Port: new(int64(80)), VpcId: new("vpc-1")}
}

func (b *bench) listen(port int64) (string, error) {
	out, err := b.createListener(b.ctx, &api.CreateListenerInput{LoadBalancerArn: &b.lb, Protocol: new("HTTP"), Port: &port, DefaultActions: []api.Action{{Type: new("forward"), TargetGroupArn: &b.tg}}})
	if err != nil {
		return "", err
	}
	return *out.Listeners[0].ListenerArn, nil
}

func (b *bench) register(id string) error {
	_, err := b.registerTargets(b.ctx, &api.RegisterTargetsInput{TargetGroupArn: &b.tg, Targets: []api.TargetDescription{{Id: &id}}})
	return err
}

func (b *bench) state(id string) string {
	out, err := b.describeTargetHealth(b.ctx, &api.DescribeTargetHealthInput{TargetGroupArn: &b.tg, Targets: []api.TargetDescription{{Id: &id}}})
	if err != nil {
		b.t.Fatal(err)
	}
	h := out.TargetHealthDescriptions[0].TargetHealth
	return strings.TrimSpace(*h.State + " " + ptr.Value(h.Reason))
}

func (b *bench) wait(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatalf("never: %s", what)
		}
	}
}

func TestTargetLife(t *testing.T) {
	p := &plane{events: make(chan lb.Event)}
	b := setUp(t, p)
	if _, err := b.listen(80); err != nil {
		t.Fatal(err)
	}
	if err := b.register("i-01"); err != nil {
		t.Fatal(err)
	}
	b.wait("the target is told to the plane", func() bool { return p.targets() == "i-01 172.31.0.9:80 registered" })
	if got := b.state("i-01"); got != "initial Elb.RegistrationInProgress" {
		t.Error(got)
	}
	health := lb.TargetHealth{TargetGroup: b.tg, ID: "i-01", Port: 80, State: lb.StateHealthy}
	p.events <- lb.Event{Kind: lb.EventHealth, Health: &health}
	b.wait("healthy", func() bool { return b.state("i-01") == "healthy" })
	if _, err := b.deregisterTargets(b.ctx, &api.DeregisterTargetsInput{TargetGroupArn: &b.tg, Targets: []api.TargetDescription{{Id: new("i-01")}}}); err != nil {
		t.Fatal(err)
	}
	b.wait("the plane drains", func() bool { return p.targets() == "i-01 172.31.0.9:80 draining" })
	for range 2 { // an old word; when the second is taken, the first is through
		p.events <- lb.Event{Kind: lb.EventHealth, Health: &health}
	}
	if got := b.state("i-01"); got != "draining Target.DeregistrationInProgress" {
		t.Error(got)
	}
	drained := health // the service may still read the other
	drained.State, drained.Drained = lb.StateDraining, true
	p.events <- lb.Event{Kind: lb.EventDrained, Health: &drained}
	b.wait("drained at once, before the delay is over", func() bool { return b.state("i-01") == "unused Target.NotRegistered" })
	b.wait("the plane forgets it", func() bool { return p.targets() == "" })
}

func TestABusyPortLeavesNothingBehind(t *testing.T) {
	b := setUp(t, &plane{busy: "127.0.0.1:8080", events: make(chan lb.Event)})
	_, err := b.listen(80)
	if !awserr.Is(err, "InvalidConfigurationRequest") || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("%v", err)
	}
	if ls, err := b.Listeners(b.ctx); err != nil || len(ls) != 0 {
		t.Errorf("left: %v %v", ls, err)
	}
	if _, err := b.listen(81); err != nil {
		t.Error(err)
	}
	ls, err := b.Listeners(b.ctx)
	if err != nil || len(ls) != 1 || ls[0].Address != "127.0.0.1:8081" {
		t.Errorf("%+v %v", ls, err)
	}
}

func TestSimulatedTargetsAreHealthyWhileTheirGroupIsUsed(t *testing.T) {
	b := setUp(t, nil)
	if err := b.register("i-01"); err != nil {
		t.Fatal(err)
	}
	b.wait("unused", func() bool { return b.state("i-01") == "unused Target.NotInUse" })
	if _, err := b.listen(80); err != nil {
		t.Fatal(err)
	}
	b.wait("healthy", func() bool { return b.state("i-01") == "healthy" })
}

func TestAddressesOfLoadBalancersAreStable(t *testing.T) {
	b := setUp(t, nil)
	for i, want := range []string{"127.0.0.1", "127.0.1.1", "127.0.1.2", "127.0.1.3"} {
		if got := b.address(i); got != want {
			t.Errorf("balancer %d at %s, want %s", i, got, want)
		}
	}
	create := func(name string) int {
		out, err := b.createLoadBalancer(b.ctx, &api.CreateLoadBalancerInput{Name: &name, Subnets: []string{"subnet-a", "subnet-b"}})
		if err != nil {
			t.Fatal(err)
		}
		row, err := balancers.Find(b.ctx, b.deps.Store, "123456789012", "us-east-1", *out.LoadBalancers[0].LoadBalancerArn)
		if err != nil {
			t.Fatal(err)
		}
		return row.Doc.Index
	}
	if i := create("second"); i != 1 {
		t.Errorf("index %d", i)
	}
	if _, err := b.deleteLoadBalancer(b.ctx, &api.DeleteLoadBalancerInput{LoadBalancerArn: &b.lb}); err != nil {
		t.Fatal(err)
	}
	if i := create("third"); i != 0 {
		t.Errorf("index %d: the free one is 0", i)
	}
}

func TestRefusals(t *testing.T) {
	b := setUp(t, nil)
	l, err := b.listen(80)
	if err != nil {
		t.Fatal(err)
	}
	forward := []api.Action{{Type: new("forward"), TargetGroupArn: &b.tg}}
	path := []api.RuleCondition{{Field: new("path-pattern"), Values: []string{"/x*"}}}
	rule := func(p int64, c []api.RuleCondition, a []api.Action) error {
		_, err := b.createRule(b.ctx, &api.CreateRuleInput{ListenerArn: &l, Priority: &p, Conditions: c, Actions: a})
		return err
	}
	if err := rule(1, path, forward); err != nil {
		t.Fatal(err)
	}
	tg := func(change func(*api.CreateTargetGroupInput)) error {
		in := group("other")
		change(in)
		_, err := b.createTargetGroup(b.ctx, in)
		return err
	}
	_, missing := b.describeLoadBalancers(b.ctx, &api.DescribeLoadBalancersInput{Names: []string{"none"}})
	_, inUse := b.deleteTargetGroup(b.ctx, &api.DeleteTargetGroupInput{TargetGroupArn: &b.tg})
	_, zones := b.createLoadBalancer(b.ctx, &api.CreateLoadBalancerInput{Name: new("x"), Subnets: []string{"subnet-a", "subnet-a"}})
	_, second := b.listen(80)
	_, attr := b.modifyTargetGroupAttributes(b.ctx, &api.ModifyTargetGroupAttributesInput{TargetGroupArn: &b.tg, Attributes: []api.TargetGroupAttribute{{Key: new("no.such"), Value: new("1")}}})
	_, https := b.createListener(b.ctx, &api.CreateListenerInput{LoadBalancerArn: &b.lb, Protocol: new("HTTPS"), Port: new(int64(443)), DefaultActions: forward})
	for _, tc := range []struct {
		name string
		err  error
		code string
	}{
		{"priority twice", rule(1, path, forward), "PriorityInUse"},
		{"priority 0", rule(0, path, forward), "ValidationError"},
		{"two host conditions", rule(2, []api.RuleCondition{{Field: new("host-header"), Values: []string{"a.b"}}, {Field: new("host-header"), Values: []string{"c.d"}}}, forward), "ValidationError"},
		{"host without a dot", rule(3, []api.RuleCondition{{Field: new("host-header"), Values: []string{"localhost"}}}, forward), "ValidationError"},
		{"redirect to itself", rule(4, path, []api.Action{{Type: new("redirect"), RedirectConfig: &api.RedirectActionConfig{StatusCode: new("HTTP_301")}}}), "InvalidLoadBalancerAction"},
		{"unknown group", rule(5, path, []api.Action{{Type: new("forward"), TargetGroupArn: new(b.tg + "0")}}), "TargetGroupNotFound"},
		{"interval", tg(func(in *api.CreateTargetGroupInput) { in.HealthCheckIntervalSeconds = new(int64(4)) }), "ValidationError"},
		{"timeout not below interval", tg(func(in *api.CreateTargetGroupInput) {
			in.HealthCheckIntervalSeconds, in.HealthCheckTimeoutSeconds = new(int64(5)), new(int64(5))
		}), "ValidationError"},
		{"matcher", tg(func(in *api.CreateTargetGroupInput) { in.Matcher = &api.Matcher{HttpCode: new("600")} }), "ValidationError"},
		{"same name, other settings", tg(func(in *api.CreateTargetGroupInput) { in.Name, in.Port = new("web"), new(int64(81)) }), "DuplicateTargetGroupName"},
		{"missing balancer", missing, "LoadBalancerNotFound"}, {"group in use", inUse, "ResourceInUse"}, {"one zone", zones, "InvalidConfigurationRequest"},
		{"port twice", second, "DuplicateListener"}, {"attribute", attr, "InvalidConfigurationRequest"}, {"https", https, "UnsupportedProtocol"},
		{"stopped instance", b.register("i-0stopped"), "InvalidTarget"}, {"no instance", b.register("172.31.0.1"), "ValidationError"},
	} {
		if !awserr.Is(tc.err, tc.code) {
			t.Errorf("%s: %v, want %s", tc.name, tc.err, tc.code)
		}
	}
}
