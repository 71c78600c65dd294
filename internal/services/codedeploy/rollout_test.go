package codedeploy

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/codedeploy"
	cmds "slipway/internal/api/codedeploycommands"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

func withTraffic(in *api.CreateDeploymentGroupInput) {
	in.DeploymentStyle = &api.DeploymentStyle{DeploymentType: new("IN_PLACE"), DeploymentOption: new("WITH_TRAFFIC_CONTROL")}
	in.LoadBalancerInfo = &api.LoadBalancerInfo{TargetGroupInfoList: []api.TargetGroupInfo{{Name: new("web")}}}
}

func scaled(in *api.CreateDeploymentGroupInput) {
	withTraffic(in)
	in.Ec2TagFilters, in.AutoScalingGroups = nil, []string{"web"}
}

func failAt(event, deployment string) func(string, string, string) outcome {
	return func(_, e, d string) outcome {
		if e == event && (deployment == "" || d == deployment) {
			return outcome{code: 4, script: "scripts/validate.sh", message: "Script at specified location: scripts/validate.sh failed with exit code 7", log: "[stdout]checking\n[stderr]no answer on port 80\n"}
		}
		return outcome{}
	}
}

func TestTrafficIsMovedOneAtATime(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(2)
	for _, id := range ids {
		w.setHealth(id, "healthy")
	}
	w.fewest = 2
	w.setUp(withTraffic)
	d := w.deploy("app.zip")
	if info := w.wait(d); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	want := "BeforeBlockTraffic:Succeeded BlockTraffic:Succeeded AfterBlockTraffic:Succeeded ApplicationStop:Succeeded DownloadBundle:Succeeded BeforeInstall:Succeeded Install:Succeeded AfterInstall:Succeeded ApplicationStart:Succeeded ValidateService:Succeeded BeforeAllowTraffic:Succeeded AllowTraffic:Succeeded AfterAllowTraffic:Succeeded"
	for _, id := range ids {
		if got := eventNames(w.target(d, id)); got != want {
			t.Errorf("%s: %s", id, got)
		}
	}
	w.locked(func() {
		if w.health[ids[0]] != "healthy" || w.health[ids[1]] != "healthy" || w.fewest != 1 {
			t.Errorf("health %v, at least %d", w.health, w.fewest)
		}
	})
}

func TestFailureRollsBack(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(2)
	w.setUp(nil)
	first := w.deploy("app.zip")
	if info := w.wait(first); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	w.locked(func() { w.behave = w.failUnlessRollback("ValidateService", first) })
	bad := w.deploy("next.zip")
	info := w.wait(bad)
	e := info.ErrorInformation
	if *info.Status != "Failed" || *e.Code != "HEALTH_CONSTRAINTS" || *info.DeploymentOverview.Failed != 1 || *info.DeploymentOverview.Skipped != 1 {
		t.Fatalf("%s %+v", *info.Status, info.DeploymentOverview)
	}
	for _, want := range []string{ids[0], "ValidateService", "scripts/validate.sh", "exit code 7", "no answer on port 80"} {
		if !strings.Contains(*e.Message, want) {
			t.Errorf("the message does not name %q: %s", want, *e.Message)
		}
	}
	diag := w.target(bad, ids[0]).LifecycleEvents[6].Diagnostics
	if *diag.ErrorCode != "ScriptFailed" || *diag.ScriptName != "scripts/validate.sh" || !strings.Contains(*diag.LogTail, "port 80") {
		t.Errorf("%+v", diag)
	}
	r := w.wait(*info.RollbackInfo.RollbackDeploymentId)
	if *r.Creator != "codeDeployRollback" || *r.RollbackInfo.RollbackTriggeringDeploymentId != bad || *r.Revision.S3Location.Key != "app.zip" || *r.DeploymentOverview.Succeeded != 2 {
		t.Errorf("%+v", r)
	}
	g := call(t, w.svc.getDeploymentGroup, &api.GetDeploymentGroupInput{ApplicationName: new("todo"), DeploymentGroupName: new("web")}).DeploymentGroupInfo
	if *g.TargetRevision.S3Location.Key != "app.zip" {
		t.Errorf("the group's revision is %s", *g.TargetRevision.S3Location.Key)
	}
}

func TestNoRollbackWithoutAnEarlierSuccess(t *testing.T) {
	w := newWorld(t).start()
	w.fleet(1)
	w.setUp(nil)
	w.behave = failAt("ApplicationStart", "")
	info := w.wait(w.deploy("app.zip"))
	if *info.Status != "Failed" || info.RollbackInfo.RollbackDeploymentId != nil || !strings.Contains(*info.RollbackInfo.RollbackMessage, "no earlier deployment") {
		t.Errorf("%s %+v", *info.Status, info.RollbackInfo)
	}
}

func TestIgnoredStopFailure(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(1)
	w.setUp(nil)
	w.behave = failAt("ApplicationStop", "")
	d := *call(t, w.svc.createDeployment, &api.CreateDeploymentInput{
		ApplicationName: new("todo"), DeploymentGroupName: new("web"), Revision: revision("app.zip"), IgnoreApplicationStopFailures: new(true),
	}).DeploymentId
	if info := w.wait(d); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	if got := eventNames(w.target(d, ids[0])); !strings.HasPrefix(got, "ApplicationStop:Failed DownloadBundle:Succeeded") {
		t.Error(got)
	}
}

func TestStop(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(2)
	w.setUp(nil)
	hold := make(chan struct{})
	w.behave = func(_, e, _ string) outcome {
		if e == "AfterInstall" {
			return outcome{hold: hold}
		}
		return outcome{}
	}
	d := w.deploy("app.zip")
	w.until("AfterInstall runs", func() bool {
		return w.running(d, ids[0], "AfterInstall")
	})
	_, err := w.svc.createDeployment(user(t.Context()), &api.CreateDeploymentInput{ApplicationName: new("todo"), DeploymentGroupName: new("web"), Revision: revision("app.zip")})
	if !awserr.Is(err, "DeploymentLimitExceededException") || !strings.Contains(err.Error(), d) {
		t.Errorf("a second deployment: %v", err)
	}
	if out := call(t, w.svc.stopDeployment, &api.StopDeploymentInput{DeploymentId: &d}); *out.Status != "Pending" {
		t.Errorf("stop: %s", *out.Status)
	}
	close(hold)
	info := w.wait(d)
	if *info.Status != "Stopped" || *info.ErrorInformation.Code != "MANUAL_STOP" || *info.DeploymentOverview.Skipped != 1 {
		t.Errorf("%s %+v", *info.Status, info.DeploymentOverview)
	}
	if got := eventNames(w.target(d, ids[0])); !strings.HasSuffix(got, "AfterInstall:Succeeded ApplicationStart:Skipped ValidateService:Skipped") {
		t.Error(got)
	}
	if _, err := w.svc.stopDeployment(user(t.Context()), &api.StopDeploymentInput{DeploymentId: &d}); !awserr.Is(err, "DeploymentAlreadyCompletedException") {
		t.Error(err)
	}
}

func TestAlarmStopsAndRollsBack(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(1)
	w.alarms["errors"] = "OK"
	w.setUp(func(in *api.CreateDeploymentGroupInput) {
		in.AlarmConfiguration = &api.AlarmConfiguration{Enabled: new(true), Alarms: []api.Alarm{{Name: new("errors")}}}
	})
	if info := w.wait(w.deploy("app.zip")); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	hold := make(chan struct{})
	w.locked(func() {
		w.behave = func(_, e, _ string) outcome {
			if e == "AfterInstall" {
				return outcome{hold: hold}
			}
			return outcome{}
		}
	})
	d := w.deploy("next.zip")
	w.until("AfterInstall runs", func() bool {
		return w.running(d, ids[0], "AfterInstall")
	})
	w.locked(func() { w.alarms["errors"] = "ALARM" })
	w.emit(alarmRows, "errors", "ALARM")
	w.until("the stop is noted", func() bool { return len(w.get(d).DeploymentStatusMessages) > 0 })
	w.locked(func() { w.alarms["errors"] = "OK" })
	close(hold)
	info := w.wait(d)
	if *info.Status != "Stopped" || *info.ErrorInformation.Code != "ALARM_ACTIVE" {
		t.Fatalf("%s %+v", *info.Status, info.ErrorInformation)
	}
	if r := w.wait(*info.RollbackInfo.RollbackDeploymentId); *r.Status != "Succeeded" || *r.Revision.S3Location.Key != "app.zip" {
		t.Errorf("%s %+v", *r.Status, r.ErrorInformation)
	}
}

func TestWhatCannotBegin(t *testing.T) {
	w := newWorld(t).start()
	w.setUp(nil)
	if info := w.wait(w.deploy("app.zip")); *info.ErrorInformation.Code != "NO_INSTANCES" {
		t.Errorf("%+v", info.ErrorInformation)
	}
	w.fleet(1)
	if info := w.wait(w.deploy("missing.zip")); *info.ErrorInformation.Code != "REVISION_MISSING" || !strings.Contains(*info.ErrorInformation.Message, "s3://bucket/missing.zip") {
		t.Errorf("%+v", info.ErrorInformation)
	}
	call(t, w.svc.updateDeploymentGroup, &api.UpdateDeploymentGroupInput{
		ApplicationName: new("todo"), CurrentDeploymentGroupName: new("web"),
		DeploymentStyle:  &api.DeploymentStyle{DeploymentOption: new("WITH_TRAFFIC_CONTROL")},
		LoadBalancerInfo: &api.LoadBalancerInfo{TargetGroupInfoList: []api.TargetGroupInfo{{Name: new("nothing")}}},
	})
	if info := w.wait(w.deploy("app.zip")); *info.ErrorInformation.Code != "ELASTIC_LOAD_BALANCING_INVALID" {
		t.Errorf("%+v", info.ErrorInformation)
	}
}

func TestStoppedInstanceCountsAsFailed(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(2)
	w.setUp(func(in *api.CreateDeploymentGroupInput) { in.DeploymentConfigName = new("CodeDeployDefault.AllAtOnce") })
	w.setState(ids[1], "stopped")
	d := w.deploy("app.zip")
	info := w.wait(d)
	if *info.Status != "Succeeded" || *info.DeploymentOverview.Failed != 1 || *info.DeploymentOverview.Succeeded != 1 {
		t.Errorf("%s %+v", *info.Status, info.ErrorInformation)
	}
}

func TestInstanceTerminatedMeanwhile(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(3)
	w.setUp(func(in *api.CreateDeploymentGroupInput) { in.DeploymentConfigName = new("CodeDeployDefault.AllAtOnce") })
	hold := make(chan struct{})
	w.behave = func(i, e, _ string) outcome {
		if i == ids[1] && e == "Install" {
			return outcome{hold: hold}
		}
		return outcome{}
	}
	d := w.deploy("app.zip")
	w.until("Install runs", func() bool {
		return w.running(d, ids[1], "Install")
	})
	w.setState(ids[1], "terminated")
	info := w.wait(d)
	if *info.Status != "Succeeded" || *info.DeploymentOverview.Failed != 1 {
		t.Fatalf("%s %+v", *info.Status, info.DeploymentOverview)
	}
	tg := w.target(d, ids[1])
	if got := *tg.LifecycleEvents[3].Diagnostics.Message; !strings.Contains(got, "went away") || *tg.Status != "Failed" {
		t.Error(got)
	}
	close(hold)
}

func TestLaunchingInstances(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(2)
	w.setLifecycle(ids[0], "web", "InService")
	w.setHealth(ids[0], "healthy")
	w.setUp(scaled)
	var hook string
	w.locked(func() {
		for name, group := range w.hooks {
			if group == "web" && strings.HasPrefix(name, "CodeDeploy-managed-automatic-launch-deployment-hook-web-") {
				hook = name
			}
		}
	})
	g := call(t, w.svc.getDeploymentGroup, &api.GetDeploymentGroupInput{ApplicationName: new("todo"), DeploymentGroupName: new("web")}).DeploymentGroupInfo
	if hook == "" || *g.AutoScalingGroups[0].Hook != hook {
		t.Fatalf("hook %q, group %+v", hook, g.AutoScalingGroups)
	}
	// Nothing was deployed yet: it may go on with nothing.
	w.setLifecycle(ids[1], "web", pendingWait)
	w.answered(ids[1] + " CONTINUE")
	w.setLifecycle(ids[1], "web", "Terminated")
	if info := w.wait(w.deploy("app.zip")); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	// The next one gets the revision before it enters service.
	w.addInstance("i-000000000000000aa", "us-east-1b")
	w.agent("i-000000000000000aa")
	w.setLifecycle("i-000000000000000aa", "web", pendingWait)
	w.answered("i-000000000000000aa CONTINUE")
	list := call(t, w.svc.listDeployments, &api.ListDeploymentsInput{ApplicationName: new("todo"), DeploymentGroupName: new("web")}).Deployments
	d := w.get(list[0])
	if *d.Creator != "autoscaling" || *d.Status != "Succeeded" || *d.Revision.S3Location.Key != "app.zip" {
		t.Errorf("%+v", d)
	}
	if got := eventNames(w.target(list[0], "i-000000000000000aa")); !strings.HasPrefix(got, "ApplicationStop:Succeeded") || !strings.HasSuffix(got, "AllowTraffic:Succeeded AfterAllowTraffic:Succeeded") {
		t.Error(got)
	}
	w.locked(func() {
		if w.health["i-000000000000000aa"] != "healthy" {
			t.Error("it takes no traffic")
		}
		w.behave = failAt("ApplicationStart", "")
	})
	w.addInstance("i-000000000000000bb", "us-east-1b")
	w.agent("i-000000000000000bb")
	w.setLifecycle("i-000000000000000bb", "web", pendingWait)
	w.answered("i-000000000000000bb ABANDON")
	// Deleting the group takes the hook out.
	call(t, w.svc.deleteDeploymentGroup, &api.DeleteDeploymentGroupInput{ApplicationName: new("todo"), DeploymentGroupName: new("web")})
	w.locked(func() {
		if len(w.hooks) != 0 {
			t.Errorf("hooks left: %v", w.hooks)
		}
	})
}

func (w *world) answered(want string) {
	w.t.Helper()
	w.until(want, func() (ok bool) {
		w.locked(func() { ok = strings.Contains(strings.Join(w.answers, "\n"), want) })
		return ok
	})
}

func TestNewcomersAreUpdatedAfterwards(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(2)
	w.setLifecycle(ids[0], "web", "InService")
	w.setUp(scaled)
	if info := w.wait(w.deploy("app.zip")); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	hold := make(chan struct{})
	w.locked(func() {
		w.behave = func(i, e, _ string) outcome {
			if i == ids[0] && e == "AfterInstall" {
				return outcome{hold: hold}
			}
			return outcome{}
		}
	})
	root := w.deploy("next.zip")
	w.until("AfterInstall runs", func() bool {
		return w.running(root, ids[0], "AfterInstall")
	})
	w.setLifecycle(ids[1], "web", pendingWait)
	w.answered(ids[1] + " CONTINUE")
	close(hold)
	if info := w.wait(root); *info.Status != "Succeeded" {
		t.Fatalf("%+v", info.ErrorInformation)
	}
	var follow string
	w.until("there is a follow-on", func() bool {
		if r := w.get(root).RelatedDeployments; r != nil {
			follow = r.AutoUpdateOutdatedInstancesDeploymentIds[0]
		}
		return follow != ""
	})
	info := w.wait(follow)
	if *info.Status != "Succeeded" || *info.Creator != "CodeDeployAutoUpdate" || *info.Revision.S3Location.Key != "next.zip" || *info.DeploymentOverview.Succeeded != 1 {
		t.Errorf("%s %+v", *info.Status, info.ErrorInformation)
	}
	if out := call(t, w.svc.listDeploymentTargets, &api.ListDeploymentTargetsInput{DeploymentId: &follow}); len(out.TargetIds) != 1 || out.TargetIds[0] != ids[1] {
		t.Errorf("%v", out.TargetIds)
	}
}

func TestTriggers(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(1)
	w.setUp(func(in *api.CreateDeploymentGroupInput) {
		in.TriggerConfigurations = []api.TriggerConfig{{TriggerName: new("all"), TriggerTargetArn: new("arn:aws:sns:us-east-1:123456789012:topic"), TriggerEvents: []string{"DeploymentStart", "DeploymentSuccess", "InstanceSuccess"}}}
	})
	d := w.deploy("app.zip")
	w.wait(d)
	var notes []string
	w.until("three notes", func() bool {
		w.locked(func() { notes = w.notes })
		return len(notes) == 3
	})
	_, message, _ := strings.Cut(notes[2], " to todo ")
	var n deploymentNote
	if err := json.Unmarshal([]byte(message), &n); err != nil || n.Status != "SUCCEEDED" || n.DeploymentID != d || n.EventTriggerName != "all" {
		t.Errorf("%v %s", err, notes[2])
	}
	if !strings.Contains(notes[1], hostARN(ids[0])) {
		t.Error(notes[1])
	}
}

// The whole protocol, step by step, with everything that goes wrong on a
// network: lost answers, copies, strangers.
func TestHostProtocol(t *testing.T) {
	w := newWorld(t).start()
	w.addInstance("i-0123456789abcdef0", "us-east-1a")
	w.setUp(nil)
	d := w.deploy("app.zip")
	ctx := asInstance(t.Context(), "i-0123456789abcdef0")
	poll := func() *cmds.HostCommandInstance {
		out, err := w.svc.pollHostCommand(ctx, &cmds.PollHostCommandInput{HostIdentifier: new(hostARN("i-0123456789abcdef0"))})
		if err != nil {
			t.Fatal(err)
		}
		return out.HostCommand
	}
	one := poll()
	if *one.CommandName != "ApplicationStop" || len(*one.DeploymentExecutionId) > 129 || strings.Count(*one.DeploymentExecutionId, "/") < 3 {
		t.Fatalf("%+v", one)
	}
	// The answer got lost: the command is handed out again, as another copy.
	w.svc.hub.forget(targetRowID(d, "i-0123456789abcdef0") + "/ApplicationStop")
	two := poll()
	if *two.CommandName != "ApplicationStop" || *two.HostCommandIdentifier == *one.HostCommandIdentifier {
		t.Fatalf("%+v", two)
	}
	ack := func(c *cmds.HostCommandInstance) string {
		out, err := w.svc.putHostCommandAcknowledgement(ctx, &cmds.PutHostCommandAcknowledgementInput{HostCommandIdentifier: c.HostCommandIdentifier})
		if err != nil {
			t.Fatal(err)
		}
		return *out.CommandStatus
	}
	if a := ack(one); a != "InProgress" {
		t.Errorf("first copy: %s", a)
	}
	if a := ack(one); a != "InProgress" {
		t.Errorf("first copy asked again: %s", a)
	}
	if a := ack(two); a != "Succeeded" {
		t.Errorf("second copy must be dropped: %s", a)
	}
	fail := outcome{code: 4, message: "the copy failed"}
	if err := w.complete(ctx, two, fail); err != nil {
		t.Fatal(err)
	}
	if err := w.complete(ctx, one, outcome{}); err != nil {
		t.Fatal(err)
	}
	if err := w.complete(ctx, one, fail); err != nil {
		t.Fatal(err)
	}
	if got := eventNames(w.target(d, "i-0123456789abcdef0")); !strings.HasPrefix(got, "ApplicationStop:Succeeded DownloadBundle:Pending") {
		t.Error(got)
	}
	// Strangers.
	other := asInstance(t.Context(), "i-0fedcba9876543210")
	for name, err := range map[string]error{
		"poll": second(w.svc.pollHostCommand(other, &cmds.PollHostCommandInput{HostIdentifier: new(hostARN("i-0123456789abcdef0"))})),
		"specification": second(w.svc.getDeploymentSpecification(other, &cmds.GetDeploymentSpecificationInput{
			HostIdentifier: new(hostARN("i-0123456789abcdef0")), DeploymentExecutionId: one.DeploymentExecutionId})),
		"ack":      second(w.svc.putHostCommandAcknowledgement(other, &cmds.PutHostCommandAcknowledgementInput{HostCommandIdentifier: one.HostCommandIdentifier})),
		"complete": second(w.svc.putHostCommandComplete(other, &cmds.PutHostCommandCompleteInput{HostCommandIdentifier: one.HostCommandIdentifier, CommandStatus: new("Failed")})),
		"user":     second(w.svc.pollHostCommand(user(t.Context()), &cmds.PollHostCommandInput{HostIdentifier: new(hostARN("i-0123456789abcdef0"))})),
	} {
		if !awserr.Is(err, "AccessDeniedException") {
			t.Errorf("%s by a stranger: %v", name, err)
		}
	}
	for _, bad := range []string{"", "x", "arn:aws:ec2:us-east-1:123456789012:instance/../../x", strings.Repeat("a", 4096), commandID{Deployment: d, Instance: "i-0123456789abcdef0", Event: "BlockTraffic"}.String(), commandID{Deployment: "d-1/../d", Instance: "x", Event: "y"}.String()} {
		if _, err := w.svc.pollHostCommand(ctx, &cmds.PollHostCommandInput{HostIdentifier: &bad}); !awserr.Is(err, "ClientException") {
			t.Errorf("poll as %.40q: %v", bad, err)
		}
		if _, err := w.svc.putHostCommandComplete(ctx, &cmds.PutHostCommandCompleteInput{HostCommandIdentifier: &bad, CommandStatus: new("Failed")}); !awserr.Is(err, "ClientException") {
			t.Errorf("complete %.40q: %v", bad, err)
		}
	}
	// An AppSpec that does not parse: a completion without acknowledgement.
	c := poll()
	if err := w.complete(ctx, c, outcome{code: 5, message: "The deployment failed because the application specification file is invalid"}); err != nil {
		t.Fatal(err)
	}
	if info := w.wait(d); *info.Status != "Failed" || !strings.Contains(*info.ErrorInformation.Message, "application specification file") {
		t.Errorf("%+v", info)
	}
}

func second[T any](_ T, err error) error { return err }

// A waiting long poll is answered as soon as there is work.
func TestLongPollWakes(t *testing.T) {
	w := newWorld(t).start()
	w.addInstance("i-0123456789abcdef0", "us-east-1a")
	w.setUp(nil)
	answered := make(chan struct{})
	go func() {
		_, err := dispatch.Call(asInstance(t.Context(), "i-0123456789abcdef0"), w.mux, cmds.OpPollHostCommand, &cmds.PollHostCommandInput{HostIdentifier: new(hostARN("i-0123456789abcdef0"))})
		if err != nil {
			t.Error(err)
		}
		close(answered)
	}()
	w.until("the agent polls", func() bool {
		w.svc.hub.mu.Lock()
		defer w.svc.hub.mu.Unlock()
		return len(w.svc.hub.waiting) == 1
	})
	w.deploy("app.zip")
	select { // a poll that nothing wakes ends with its time
	case <-answered:
	case <-time.After(pollTime / 2):
		t.Error("not answered while it waited")
	}
}

// running says whether an agent has taken the event up.
func (w *world) running(deployment, instance, event string) bool {
	out, err := w.svc.getDeploymentTarget(user(w.t.Context()), &api.GetDeploymentTargetInput{DeploymentId: &deployment, TargetId: &instance})
	if err != nil {
		return false // not begun yet
	}
	for _, e := range out.DeploymentTarget.InstanceTarget.LifecycleEvents {
		if *e.LifecycleEventName == event {
			return *e.Status == "InProgress"
		}
	}
	return false
}

// failUnlessRollback makes an event fail in every deployment but the good
// one and rollbacks, as the old revision's scripts work.
func (w *world) failUnlessRollback(event, good string) func(string, string, string) outcome {
	return func(_, e, id string) outcome {
		d, err := deployments.Find(context.Background(), w.store, testAccount, testRegion, id)
		if id == good || err != nil || d.Doc.Creator != api.DeploymentCreatorUser {
			return outcome{}
		}
		return failAt(event, "")("", e, id)
	}
}
