package codedeploy

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"

	as "slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	api "slipway/internal/api/codedeploy"
	cmds "slipway/internal/api/codedeploycommands"
	"slipway/internal/api/ec2"
	"slipway/internal/api/elbv2"
	"slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/store"
)

const (
	testAccount = "123456789012"
	testRegion  = "us-east-1"
	testRole    = "arn:aws:iam::123456789012:role/deploy"
	tgARN       = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/web/1"
)

// world is everything around the service: the other services as far as it
// uses them, and agents. It outlives restarts of the service.
type world struct {
	t     *testing.T
	store store.Store
	dir   string
	clock clock.Clock

	mu        sync.Mutex
	instances map[string]*testInstance
	health    map[string]string // instance -> state in the target group
	hooks     map[string]string // name -> group
	answers   []string
	beats     int
	alarms    map[string]string
	objects   map[string]string // bucket/key -> version
	lines     []string
	streams   map[string]bool
	notes     []string
	unhealthy bool // registered targets never become healthy
	fewest    int  // the least number of healthy targets ever seen
	behave    func(instance, event, deployment string) outcome

	mux  *dispatch.Mux
	svc  *Service
	stop func()
	via  store.Store    // the store as the service gets it; nil: store
	runs map[string]int // how often agents ran an event
	tune func(*Service) // changes a service before it runs
}

type testInstance struct {
	state, zone, group, lifecycle string
	tags                          map[string]string
}

type outcome struct {
	code    int
	script  string
	message string
	log     string
	hold    chan struct{} // wait for it before completing
	silent  bool          // never take it up
}

type dummy struct{ State string }

var (
	instanceRows = store.NewTable("ec2:instance", func(d *dummy) (string, string) { return "", d.State })
	scalingRows  = store.NewTable("autoscaling:instance", func(d *dummy) (string, string) { return "web", d.State })
	healthRows   = store.NewTable("elbv2:target", func(d *dummy) (string, string) { return tgARN, d.State })
	alarmRows    = store.NewTable("cloudwatch:alarm", func(d *dummy) (string, string) { return "", d.State })
)

func newWorld(t *testing.T) *world {
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{
		t: t, store: st, dir: t.TempDir(), clock: clock.Real, instances: map[string]*testInstance{}, health: map[string]string{},
		hooks: map[string]string{}, alarms: map[string]string{}, objects: map[string]string{"bucket/app.zip": "", "bucket/next.zip": ""},
		streams: map[string]bool{}, runs: map[string]int{}, fewest: 1 << 30, behave: func(string, string, string) outcome { return outcome{} },
	}
	t.Cleanup(func() {
		if w.stop != nil {
			w.stop()
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// start brings the service up; stop brings it down, the rows stay.
func (w *world) start() *world {
	w.t.Helper()
	mux := dispatch.New()
	w.fakes(mux)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	svc, err := New(Deps{Store: w.serviceStore(), Mux: mux, Clock: w.clock, Dir: w.dir, Log: log})
	if err != nil {
		w.t.Fatal(err)
	}
	svc.Register(mux)
	if w.tune != nil {
		w.tune(svc)
	}
	w.locked(func() { w.mux, w.svc = mux, svc })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(s *Service) { done <- s.Run(ctx) }(w.svc)
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		w.stop = nil
	}
	return w
}

func (w *world) serviceStore() store.Store {
	if w.via != nil {
		return w.via
	}
	return w.store
}

func (w *world) emit(table store.Table[dummy], id, state string) {
	err := w.store.Update(context.Background(), func(tx store.Tx) error {
		row, err := table.Get(tx, testAccount, testRegion, id)
		if errors.Is(err, store.ErrNotFound) {
			_, err = table.Insert(tx, testAccount, testRegion, id, dummy{state}, state, nil)
			return err
		}
		if err != nil {
			return err
		}
		row.Doc.State = state
		return table.Save(tx, row, state, nil)
	})
	if err != nil && !errors.Is(err, store.ErrClosed) {
		w.t.Error(err)
	}
}

func (w *world) addInstance(id, zone string) {
	w.mu.Lock()
	w.instances[id] = &testInstance{state: "running", zone: zone, tags: map[string]string{"app": "todo"}}
	w.mu.Unlock()
	w.emit(instanceRows, id, "running")
}

func (w *world) setState(id, state string) {
	w.mu.Lock()
	w.instances[id].state = state
	w.mu.Unlock()
	w.emit(instanceRows, id, state)
}

func (w *world) setLifecycle(id, group, state string) {
	w.mu.Lock()
	w.instances[id].group, w.instances[id].lifecycle = group, state
	w.mu.Unlock()
	w.emit(scalingRows, id, state)
}

func (w *world) setHealth(id, state string) {
	w.mu.Lock()
	if state == "" {
		delete(w.health, id)
	} else {
		w.health[id] = state
	}
	n := 0
	for _, s := range w.health {
		if s == "healthy" {
			n++
		}
	}
	w.fewest = min(w.fewest, n)
	w.mu.Unlock()
	w.emit(healthRows, tgARN+"|"+id+"|80", state)
}

// settle moves a target on, unless it left that state meanwhile: a timer may
// be late, and a service that was killed asks twice.
func (w *world) settle(id, from, to string) {
	w.mu.Lock()
	same := w.health[id] == from
	w.mu.Unlock()
	if same {
		w.setHealth(id, to)
	}
}

func (w *world) fakes(mux *dispatch.Mux) {
	dispatch.Register(mux, ec2.OpDescribeInstances, w.describeInstances)
	dispatch.Register(mux, as.OpDescribeAutoScalingGroups, w.describeGroups)
	dispatch.Register(mux, as.OpPutLifecycleHook, func(_ context.Context, in *as.PutLifecycleHookInput) (*as.PutLifecycleHookOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.hooks[*in.LifecycleHookName] = *in.AutoScalingGroupName
		return &as.PutLifecycleHookOutput{}, nil
	})
	dispatch.Register(mux, as.OpDeleteLifecycleHook, func(_ context.Context, in *as.DeleteLifecycleHookInput) (*as.DeleteLifecycleHookOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.hooks, *in.LifecycleHookName)
		return &as.DeleteLifecycleHookOutput{}, nil
	})
	dispatch.Register(mux, as.OpRecordLifecycleActionHeartbeat, func(context.Context, *as.RecordLifecycleActionHeartbeatInput) (*as.RecordLifecycleActionHeartbeatOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.beats++
		return &as.RecordLifecycleActionHeartbeatOutput{}, nil
	})
	dispatch.Register(mux, as.OpCompleteLifecycleAction, w.completeAction)
	dispatch.Register(mux, elbv2.OpDescribeTargetGroups, func(_ context.Context, in *elbv2.DescribeTargetGroupsInput) (*elbv2.DescribeTargetGroupsOutput, error) {
		if in.Names[0] != "web" {
			return nil, awserr.New("TargetGroupNotFound", "no such target group")
		}
		return &elbv2.DescribeTargetGroupsOutput{TargetGroups: []elbv2.TargetGroup{{TargetGroupArn: new(tgARN), TargetGroupName: new("web"), TargetType: new("instance")}}}, nil
	})
	dispatch.Register(mux, elbv2.OpDescribeTargetHealth, w.describeHealth)
	dispatch.Register(mux, elbv2.OpRegisterTargets, func(_ context.Context, in *elbv2.RegisterTargetsInput) (*elbv2.RegisterTargetsOutput, error) {
		for _, t := range in.Targets {
			w.setHealth(*t.Id, "initial")
			if !w.unhealthy {
				time.AfterFunc(5*time.Millisecond, func() { w.settle(*t.Id, "initial", "healthy") })
			}
		}
		return &elbv2.RegisterTargetsOutput{}, nil
	})
	dispatch.Register(mux, elbv2.OpDeregisterTargets, func(_ context.Context, in *elbv2.DeregisterTargetsInput) (*elbv2.DeregisterTargetsOutput, error) {
		for _, t := range in.Targets {
			w.setHealth(*t.Id, "draining")
			time.AfterFunc(5*time.Millisecond, func() { w.settle(*t.Id, "draining", "") })
		}
		return &elbv2.DeregisterTargetsOutput{}, nil
	})
	dispatch.Register(mux, s3.OpHeadObject, func(_ context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		v, ok := w.objects[*in.Bucket+"/"+*in.Key]
		if !ok {
			return nil, awserr.New("NotFound", "no such key").WithStatus(404)
		}
		return &s3.HeadObjectOutput{VersionId: ptr.NonZero(v), ETag: new(`"e1"`)}, nil
	})
	dispatch.Register(mux, cloudwatch.OpDescribeAlarms, func(_ context.Context, in *cloudwatch.DescribeAlarmsInput) (*cloudwatch.DescribeAlarmsOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		out := &cloudwatch.DescribeAlarmsOutput{}
		for _, n := range in.AlarmNames {
			if s, ok := w.alarms[n]; ok {
				out.MetricAlarms = append(out.MetricAlarms, cloudwatch.MetricAlarm{AlarmName: &n, StateValue: &s})
			}
		}
		return out, nil
	})
	w.fakeLogs(mux)
}

func (w *world) fakeLogs(mux *dispatch.Mux) {
	dispatch.Register(mux, sns.OpPublish, func(_ context.Context, in *sns.PublishInput) (*sns.PublishOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.notes = append(w.notes, *in.Subject+" "+*in.Message)
		return &sns.PublishOutput{}, nil
	})
	dispatch.Register(mux, logs.OpCreateLogGroup, func(context.Context, *logs.CreateLogGroupInput) (*logs.CreateLogGroupOutput, error) {
		return &logs.CreateLogGroupOutput{}, nil
	})
	dispatch.Register(mux, logs.OpCreateLogStream, func(_ context.Context, in *logs.CreateLogStreamInput) (*logs.CreateLogStreamOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.streams[*in.LogGroupName+":"+*in.LogStreamName] = true
		return &logs.CreateLogStreamOutput{}, nil
	})
	dispatch.Register(mux, logs.OpPutLogEvents, func(_ context.Context, in *logs.PutLogEventsInput) (*logs.PutLogEventsOutput, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.streams[*in.LogGroupName+":"+*in.LogStreamName] {
			return nil, awserr.New("ResourceNotFoundException", "no stream")
		}
		for _, e := range in.LogEvents {
			w.lines = append(w.lines, *in.LogStreamName+" "+*e.Message)
		}
		return &logs.PutLogEventsOutput{}, nil
	})
}

func (w *world) describeInstances(_ context.Context, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []ec2.Instance
	for id, i := range w.instances {
		one := ec2.Instance{InstanceId: new(id), State: &ec2.InstanceState{Name: new(i.state)}, Placement: &ec2.Placement{AvailabilityZone: new(i.zone)}}
		for k, v := range i.tags {
			one.Tags = append(one.Tags, ec2.Tag{Key: new(k), Value: new(v)})
		}
		list = append(list, one)
	}
	return &ec2.DescribeInstancesOutput{Reservations: []ec2.Reservation{{Instances: list}}}, nil
}

func (w *world) describeGroups(_ context.Context, in *as.DescribeAutoScalingGroupsInput) (*as.DescribeAutoScalingGroupsOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &as.DescribeAutoScalingGroupsOutput{}
	for _, name := range in.AutoScalingGroupNames {
		if name != "web" {
			continue
		}
		g := as.AutoScalingGroup{AutoScalingGroupName: new(name)}
		for id, i := range w.instances {
			if i.group == name {
				g.Instances = append(g.Instances, as.Instance{InstanceId: new(id), AvailabilityZone: new(i.zone), LifecycleState: new(i.lifecycle)})
			}
		}
		out.AutoScalingGroups = append(out.AutoScalingGroups, g)
	}
	return out, nil
}

func (w *world) completeAction(_ context.Context, in *as.CompleteLifecycleActionInput) (*as.CompleteLifecycleActionOutput, error) {
	w.mu.Lock()
	i := w.instances[*in.InstanceId]
	if i.lifecycle != pendingWait && i.lifecycle != terminatingWait {
		w.mu.Unlock()
		return nil, awserr.New("ValidationError", "No active Lifecycle Action found")
	}
	w.answers = append(w.answers, *in.InstanceId+" "+*in.LifecycleActionResult)
	group, next := i.group, "InService"
	if *in.LifecycleActionResult == "ABANDON" || i.lifecycle == terminatingWait {
		next = "Terminated"
	}
	w.mu.Unlock()
	w.setLifecycle(*in.InstanceId, group, next)
	return &as.CompleteLifecycleActionOutput{}, nil
}

func (w *world) describeHealth(context.Context, *elbv2.DescribeTargetHealthInput) (*elbv2.DescribeTargetHealthOutput, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &elbv2.DescribeTargetHealthOutput{}
	for id, s := range w.health {
		out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, elbv2.TargetHealthDescription{
			Target: &elbv2.TargetDescription{Id: new(id), Port: new(int64(80))}, TargetHealth: &elbv2.TargetHealth{State: new(s)},
		})
	}
	return out, nil
}

func user(ctx context.Context) context.Context {
	return caller.With(ctx, caller.Identity{Account: testAccount, Region: testRegion, PrincipalARN: "arn:aws:iam::123456789012:user/dev"})
}

func asInstance(ctx context.Context, id string) context.Context {
	return caller.With(ctx, caller.Identity{Account: testAccount, Region: testRegion, PrincipalARN: "arn:aws:sts::123456789012:assumed-role/app/" + id})
}

func hostARN(id string) string { return "arn:aws:ec2:us-east-1:123456789012:instance/" + id }

// agent runs a host agent for the instance until the test or stop ends it.
// It survives restarts of the service, as a real one does.
func (w *world) agent(id string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			poll, stop := context.WithTimeout(ctx, 10*time.Second)
			err := w.agentTurn(poll, ctx, id)
			stop()
			if err != nil && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

func (w *world) agentTurn(poll, ctx context.Context, id string) error {
	w.mu.Lock()
	mux := w.mux
	w.mu.Unlock()
	out, err := dispatch.Call(asInstance(poll, id), mux, cmds.OpPollHostCommand, &cmds.PollHostCommandInput{HostIdentifier: new(hostARN(id))})
	if err != nil || out.HostCommand == nil {
		return err
	}
	c, ctx := out.HostCommand, asInstance(ctx, id)
	spec, err := readSpecification(ctx, mux, c, id)
	if err != nil {
		return err
	}
	w.mu.Lock()
	behave := w.behave
	w.mu.Unlock()
	o := behave(id, *c.CommandName, spec.DeploymentId)
	if o.silent {
		return nil
	}
	ack, err := persist(ctx, w, cmds.OpPutHostCommandAcknowledgement, &cmds.PutHostCommandAcknowledgementInput{HostCommandIdentifier: c.HostCommandIdentifier})
	if err != nil || *ack.CommandStatus != "InProgress" {
		return err
	}
	w.locked(func() { w.runs[spec.DeploymentId+" "+id+" "+*c.CommandName]++ })
	if o.hold != nil {
		select {
		case <-o.hold:
		case <-ctx.Done():
			return nil
		}
	}
	return w.complete(ctx, c, o)
}

func (w *world) complete(ctx context.Context, c *cmds.HostCommandInstance, o outcome) error {
	status := "Succeeded"
	if o.code != 0 {
		status = "Failed"
	}
	payload, err := json.Marshal(map[string]any{"error_code": o.code, "script_name": o.script, "message": o.message, "log": o.log})
	if err != nil {
		return err
	}
	for range 2 { // AWS's agent sends failures twice
		_, err = persist(ctx, w, cmds.OpPutHostCommandComplete, &cmds.PutHostCommandCompleteInput{
			CommandStatus: &status, HostCommandIdentifier: c.HostCommandIdentifier,
			Diagnostics: &cmds.Envelope{Format: new("JSON"), Payload: new(string(payload))},
		})
	}
	return err
}

// persist calls until the service answers: agents do not give up while the
// server is away.
func persist[I, O any](ctx context.Context, w *world, op *model.Op[I, O], in *I) (*O, error) {
	for {
		w.mu.Lock()
		mux := w.mux
		w.mu.Unlock()
		out, err := dispatch.Call(ctx, mux, op, in)
		if err == nil || awserr.As(err) != nil || ctx.Err() != nil {
			return out, err
		}
		time.Sleep(time.Millisecond)
	}
}

func readSpecification(ctx context.Context, mux *dispatch.Mux, c *cmds.HostCommandInstance, id string) (*specification, error) {
	out, err := dispatch.Call(ctx, mux, cmds.OpGetDeploymentSpecification, &cmds.GetDeploymentSpecificationInput{
		DeploymentExecutionId: c.DeploymentExecutionId, HostIdentifier: new(hostARN(id)),
	})
	if err != nil {
		return nil, err
	}
	e := out.DeploymentSpecification.GenericEnvelope
	block, _ := pem.Decode([]byte(*e.Payload))
	if *e.Format != "PKCS7/JSON" || block == nil || block.Type != "PKCS7" {
		return nil, fmt.Errorf("envelope %s", *e.Format)
	}
	p, err := pkcs7.Parse(block.Bytes)
	if err != nil {
		return nil, err
	}
	if err := p.Verify(); err != nil {
		return nil, err
	}
	var spec specification
	return &spec, json.Unmarshal(p.Content, &spec)
}

func call[I, O any](t *testing.T, fn func(context.Context, *I) (*O, error), in *I) *O {
	t.Helper()
	out, err := fn(user(t.Context()), in)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func revision(key string) *api.RevisionLocation {
	return &api.RevisionLocation{RevisionType: new("S3"), S3Location: &api.S3Location{Bucket: new("bucket"), Key: new(key), BundleType: new("zip")}}
}

// setUp makes application todo with group web.
func (w *world) setUp(change func(*api.CreateDeploymentGroupInput)) {
	w.t.Helper()
	call(w.t, w.svc.createApplication, &api.CreateApplicationInput{ApplicationName: new("todo")})
	in := &api.CreateDeploymentGroupInput{
		ApplicationName: new("todo"), DeploymentGroupName: new("web"), ServiceRoleArn: new(testRole),
		Ec2TagFilters:             []api.EC2TagFilter{{Key: new("app"), Value: new("todo"), Type: new("KEY_AND_VALUE")}},
		AutoRollbackConfiguration: &api.AutoRollbackConfiguration{Enabled: new(true), Events: []string{"DEPLOYMENT_FAILURE", "DEPLOYMENT_STOP_ON_ALARM"}},
	}
	if change != nil {
		change(in)
	}
	call(w.t, w.svc.createDeploymentGroup, in)
}

func (w *world) deploy(key string) string {
	w.t.Helper()
	return *call(w.t, w.svc.createDeployment, &api.CreateDeploymentInput{
		ApplicationName: new("todo"), DeploymentGroupName: new("web"), Revision: revision(key),
	}).DeploymentId
}

// wait waits until the deployment has ended.
func (w *world) wait(id string) *api.DeploymentInfo {
	w.t.Helper()
	var info *api.DeploymentInfo
	w.until("deployment "+id+" ends", func() bool {
		info = w.get(id)
		return terminal(*info.Status)
	})
	return info
}

func (w *world) get(id string) *api.DeploymentInfo {
	w.t.Helper()
	return call(w.t, w.svc.getDeployment, &api.GetDeploymentInput{DeploymentId: &id}).DeploymentInfo
}

func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) target(id, instance string) *api.InstanceTarget {
	w.t.Helper()
	return call(w.t, w.svc.getDeploymentTarget, &api.GetDeploymentTargetInput{DeploymentId: &id, TargetId: &instance}).DeploymentTarget.InstanceTarget
}

func eventNames(t *api.InstanceTarget) string {
	var names []string
	for _, e := range t.LifecycleEvents {
		names = append(names, *e.LifecycleEventName+":"+*e.Status)
	}
	return strings.Join(names, " ")
}

func (w *world) locked(fn func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fn()
}

func (w *world) fleet(n int) []string {
	var ids []string
	for i := range n {
		id := fmt.Sprintf("i-%017x", i+1)
		w.addInstance(id, "us-east-1"+string(rune('a'+i%3)))
		w.agent(id)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
