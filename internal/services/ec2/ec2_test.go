package ec2_test

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/ec2"
	iam "slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/machine"
	"slipway/internal/machine/simulated"
	"slipway/internal/services/ec2"
	"slipway/internal/store"
)

const account = "123456789012"

// bench is an EC2 service over an ephemeral store and simulated machines.
type bench struct {
	t       *testing.T
	ctx     context.Context // as a user in us-east-1
	store   store.Store
	mux     *dispatch.Mux
	driver  *simulated.Driver
	service *ec2.Service
	stop    func()
}

func newBench(t *testing.T, change ...func(*ec2.Deps)) *bench {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: st, mux: dispatch.New(), driver: simulated.New(simulated.Options{})}
	b.ctx = caller.With(t.Context(), caller.Identity{Account: account, Region: "us-east-1", AccessKeyID: "AKIATEST", PrincipalARN: "arn:aws:iam::123456789012:user/test"})
	deps := ec2.Deps{Store: st, Mux: b.mux, Machines: b.driver, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&deps)
	}
	b.service = ec2.New(deps)
	b.service.Register(b.mux)
	dispatch.Register(b.mux, iam.OpGetInstanceProfile, func(_ context.Context, in *iam.GetInstanceProfileInput) (*iam.GetInstanceProfileOutput, error) {
		if *in.InstanceProfileName != "web" {
			return nil, awserr.New("NoSuchEntity", "Instance Profile %s cannot be found.", *in.InstanceProfileName)
		}
		return &iam.GetInstanceProfileOutput{InstanceProfile: &iam.InstanceProfile{Arn: new("arn:aws:iam::123456789012:instance-profile/web"), InstanceProfileId: new("AIPAWEB"), InstanceProfileName: new("web"),
			Roles: []iam.Role{{RoleName: new("web-role"), Arn: new("arn:aws:iam::123456789012:role/web-role")}}}}, nil
	})
	b.start()
	t.Cleanup(func() {
		b.stop()
		st.Close()
	})
	return b
}

// start runs the service; stop ends it and waits for it.
func (b *bench) start() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.service.Run(ctx) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	}
}

// wants is an API call that must fail with a code.
func (b *bench) wants(code string, err error) {
	b.t.Helper()
	if !awserr.Is(err, code) {
		b.t.Errorf("error %v, want code %s", err, code)
	}
}

// until waits for a condition, looked at after every event, and now and then
// besides: machines change without one.
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
			b.t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func (b *bench) instance(id string) api.Instance {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeInstances, &api.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil || len(out.Reservations) != 1 || len(out.Reservations[0].Instances) != 1 {
		b.t.Fatalf("DescribeInstances %s: %v %+v", id, err, out)
	}
	return out.Reservations[0].Instances[0]
}

func (b *bench) untilState(id, state string) api.Instance {
	b.t.Helper()
	b.until(id+" "+state, func() bool { return *b.instance(id).State.Name == state })
	return b.instance(id)
}

func (b *bench) defaultImage() string {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeImages, &api.DescribeImagesInput{Owners: []string{"amazon"}})
	if err != nil || len(out.Images) != 1 {
		b.t.Fatalf("DescribeImages: %v %+v", err, out)
	}
	return *out.Images[0].ImageId
}

func (b *bench) run(change func(*api.RunInstancesInput)) *api.RunInstancesOutput {
	b.t.Helper()
	in := &api.RunInstancesInput{MinCount: new(int64(1)), MaxCount: new(int64(1)), ImageId: new(b.defaultImage()), InstanceType: new("t3.micro")}
	if change != nil {
		change(in)
	}
	out, err := dispatch.Call(b.ctx, b.mux, api.OpRunInstances, in)
	if err != nil {
		b.t.Fatalf("RunInstances: %v", err)
	}
	return out
}

func TestLifeOfAnInstance(t *testing.T) {
	b := newBench(t)
	out := b.run(func(in *api.RunInstancesInput) {
		in.UserData = new(base64.StdEncoding.EncodeToString([]byte("#!/bin/sh\ntrue\n")))
		in.IamInstanceProfile = &api.IamInstanceProfileSpecification{Name: new("web")}
		in.TagSpecifications = []api.TagSpecification{{ResourceType: new("instance"), Tags: []api.Tag{{Key: new("slipway:volume"), Value: new("data:/var/lib/app")}}}}
	})
	i := out.Instances[0]
	if *i.State.Name != "pending" || *i.State.Code != 0 {
		t.Errorf("first state %s", *i.State.Name)
	}
	id := *i.InstanceId
	i = b.untilState(id, "running")
	if !strings.HasPrefix(*i.PrivateIpAddress, "172.31.") || *i.PrivateDnsName != "ip-"+strings.ReplaceAll(*i.PrivateIpAddress, ".", "-")+".ec2.internal" {
		t.Errorf("address %s, name %s", *i.PrivateIpAddress, *i.PrivateDnsName)
	}
	st, err := b.driver.Status(id)
	if err != nil {
		t.Fatal(err)
	}
	if st.Spec.VCPUs != 2 || st.Spec.MemoryBytes != 1<<30 || string(st.Spec.UserData) != "#!/bin/sh\ntrue\n" || len(st.Spec.Mounts) != 1 || st.Spec.Mounts[0] != (machine.Mount{Source: "data", Target: "/var/lib/app"}) {
		t.Errorf("machine %+v", st.Spec)
	}

	_, err = dispatch.Call(b.ctx, b.mux, api.OpStopInstances, &api.StopInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		t.Fatal(err)
	}
	i = b.untilState(id, "stopped")
	if *i.StateReason.Code != "Client.UserInitiatedShutdown" || !strings.HasPrefix(*i.StateTransitionReason, "User initiated (") {
		t.Errorf("reason %+v, transition %q", i.StateReason, *i.StateTransitionReason)
	}
	if _, err = dispatch.Call(b.ctx, b.mux, api.OpStartInstances, &api.StartInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	b.untilState(id, "running")
	if _, err = dispatch.Call(b.ctx, b.mux, api.OpRebootInstances, &api.RebootInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	b.untilState(id, "running")
	if _, err = dispatch.Call(b.ctx, b.mux, api.OpTerminateInstances, &api.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	i = b.untilState(id, "terminated")
	if i.PrivateIpAddress != nil {
		t.Error("a terminated instance still shows its address")
	}
	if _, err := b.driver.Status(id); !errors.Is(err, machine.ErrNotFound) {
		t.Errorf("the machine is still there: %v", err)
	}
}

func TestMachineThatDies(t *testing.T) {
	b := newBench(t)
	id := *b.run(nil).Instances[0].InstanceId
	b.untilState(id, "running")
	if err := b.driver.Kill(b.ctx, id); err != nil {
		t.Fatal(err)
	}
	i := b.untilState(id, "terminated")
	if *i.StateReason.Code != "Server.InternalError" || !strings.Contains(*i.StateReason.Message, "killed") {
		t.Errorf("reason %s", *i.StateReason.Message)
	}
	b.until("clean-up", func() bool { _, err := b.driver.Status(id); return errors.Is(err, machine.ErrNotFound) })
}

func TestBootThatFails(t *testing.T) {
	b := newBench(t)
	b.driver.FailBoots(func(machine.Spec) error { return errors.New("overlay: no space left on device") })
	i := b.untilState(*b.run(nil).Instances[0].InstanceId, "terminated")
	if !strings.Contains(*i.StateReason.Message, "no space left on device") {
		t.Errorf("reason %s", *i.StateReason.Message)
	}
}

func TestClientToken(t *testing.T) {
	b := newBench(t)
	token := func(in *api.RunInstancesInput) { in.ClientToken = new("one") }
	first, second := b.run(token), b.run(token)
	if *first.Instances[0].InstanceId != *second.Instances[0].InstanceId || *first.ReservationId != *second.ReservationId {
		t.Error("the same token launched twice")
	}
	_, err := dispatch.Call(b.ctx, b.mux, api.OpRunInstances, &api.RunInstancesInput{MinCount: new(int64(2)), MaxCount: new(int64(2)), ImageId: new(b.defaultImage()), ClientToken: new("one")})
	b.wants("IdempotentParameterMismatch", err)
}

func TestRunRefuses(t *testing.T) {
	b := newBench(t, func(d *ec2.Deps) { d.StrictImages = true })
	cases := []struct {
		code   string
		change func(*api.RunInstancesInput)
	}{
		{"InvalidAMIID.Malformed", func(in *api.RunInstancesInput) { in.ImageId = new("nonsense") }},
		{"InvalidAMIID.NotFound", func(in *api.RunInstancesInput) { in.ImageId = new("ami-0123456789abcdef0") }},
		{"MissingParameter", func(in *api.RunInstancesInput) { in.ImageId = nil }},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) { in.InstanceType = new("z9.huge") }},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) { in.UserData = new("%%%") }},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) {
			in.UserData = new(base64.StdEncoding.EncodeToString(make([]byte, 16<<10+1)))
		}},
		{"InvalidSubnetID.NotFound", func(in *api.RunInstancesInput) { in.SubnetId = new("subnet-0123456789abcdef0") }},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) {
			in.Placement = &api.Placement{AvailabilityZone: new("eu-west-1a")}
		}},
		{"InvalidGroup.NotFound", func(in *api.RunInstancesInput) { in.SecurityGroupIds = []string{"sg-0123456789abcdef0"} }},
		{"InvalidKeyPair.NotFound", func(in *api.RunInstancesInput) { in.KeyName = new("absent") }},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) {
			in.IamInstanceProfile = &api.IamInstanceProfileSpecification{Name: new("absent")}
		}},
		{"InvalidParameterCombination", func(in *api.RunInstancesInput) { in.MinCount = new(int64(3)) }},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) { in.PrivateIpAddress = new("10.0.0.1") }},
		{"InvalidLaunchTemplateName.NotFoundException", func(in *api.RunInstancesInput) {
			in.LaunchTemplate = &api.LaunchTemplateSpecification{LaunchTemplateName: new("absent")}
		}},
		{"InvalidParameterValue", func(in *api.RunInstancesInput) {
			in.TagSpecifications = []api.TagSpecification{{ResourceType: new("instance"), Tags: []api.Tag{{Key: new("slipway:volume"), Value: new("../etc:/etc")}}}}
		}},
		{"DryRunOperation", func(in *api.RunInstancesInput) { in.DryRun = new(true) }},
	}
	for _, c := range cases {
		in := &api.RunInstancesInput{MinCount: new(int64(1)), MaxCount: new(int64(1)), ImageId: new(b.defaultImage()), InstanceType: new("t3.micro")}
		c.change(in)
		_, err := dispatch.Call(b.ctx, b.mux, api.OpRunInstances, in)
		b.wants(c.code, err)
	}
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeInstances, &api.DescribeInstancesInput{})
	if err != nil || len(out.Reservations) != 0 {
		t.Errorf("refused requests left %d reservations, %v", len(out.Reservations), err)
	}
}

func TestAddressesAreUniqueOverRegions(t *testing.T) {
	b := newBench(t)
	seen := map[string]bool{}
	for _, region := range []string{"us-east-1", "eu-central-1"} {
		b.ctx = caller.With(b.ctx, caller.Identity{Account: account, Region: region, AccessKeyID: "AKIATEST"})
		for _, i := range b.run(func(in *api.RunInstancesInput) { in.MaxCount = new(int64(50)) }).Instances {
			if seen[*i.PrivateIpAddress] {
				t.Errorf("address %s twice", *i.PrivateIpAddress)
			}
			seen[*i.PrivateIpAddress] = true
		}
	}
	_, err := dispatch.Call(b.ctx, b.mux, api.OpRunInstances, &api.RunInstancesInput{MinCount: new(int64(1)), MaxCount: new(int64(1)), ImageId: new(b.defaultImage()), PrivateIpAddress: new(firstOf(seen))})
	b.wants("InvalidIPAddress.InUse", err)
}

func firstOf(m map[string]bool) string {
	for k := range m {
		return k
	}
	return ""
}

func TestRestartAdoptsAndBoots(t *testing.T) {
	b := newBench(t)
	kept := *b.run(nil).Instances[0].InstanceId
	b.untilState(kept, "running")
	before, _ := b.driver.Status(kept)
	b.stop()
	waiting := *b.run(nil).Instances[0].InstanceId // nobody boots it
	b.service = ec2.New(ec2.Deps{Store: b.store, Mux: b.mux, Machines: b.driver, Log: slog.New(slog.DiscardHandler)})
	b.start()
	b.untilState(waiting, "running")
	after, _ := b.driver.Status(kept)
	if *b.instance(kept).State.Name != "running" || !before.BootedAt.Equal(after.BootedAt) {
		t.Error("the running instance was not adopted as it was")
	}
}
