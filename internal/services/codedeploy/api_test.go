package codedeploy

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/codedeploy"
	cmds "slipway/internal/api/codedeploycommands"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
)

// Bad input is refused with AWS's code and leaves nothing behind.
func TestRefusals(t *testing.T) {
	w := newWorld(t).start()
	w.setUp(nil)
	s, ctx := w.svc, user(t.Context())
	group := func(change func(*api.CreateDeploymentGroupInput)) error {
		in := &api.CreateDeploymentGroupInput{ApplicationName: new("todo"), DeploymentGroupName: new("x"), ServiceRoleArn: new(testRole)}
		change(in)
		return second(s.createDeploymentGroup(ctx, in))
	}
	deploy := func(change func(*api.CreateDeploymentInput)) error {
		in := &api.CreateDeploymentInput{ApplicationName: new("todo"), DeploymentGroupName: new("web"), Revision: revision("app.zip")}
		change(in)
		return second(s.createDeployment(ctx, in))
	}
	long := strings.Repeat("x", 101)
	for _, c := range []struct {
		name, code string
		err        error
	}{
		{"application exists", "ApplicationAlreadyExistsException", second(s.createApplication(ctx, &api.CreateApplicationInput{ApplicationName: new("todo")}))},
		{"application without a name", "ApplicationNameRequiredException", second(s.createApplication(ctx, &api.CreateApplicationInput{}))},
		{"slash in a name", "InvalidApplicationNameException", second(s.createApplication(ctx, &api.CreateApplicationInput{ApplicationName: new("a/b")}))},
		{"long name", "InvalidApplicationNameException", second(s.createApplication(ctx, &api.CreateApplicationInput{ApplicationName: &long}))},
		{"Lambda", "NotImplemented", second(s.createApplication(ctx, &api.CreateApplicationInput{ApplicationName: new("l"), ComputePlatform: new("Lambda")}))},
		{"no application", "ApplicationDoesNotExistException", second(s.getApplication(ctx, &api.GetApplicationInput{ApplicationName: new("none")}))},
		{"no role", "RoleRequiredException", group(func(in *api.CreateDeploymentGroupInput) { in.ServiceRoleArn = nil })},
		{"bad role", "InvalidRoleException", group(func(in *api.CreateDeploymentGroupInput) { in.ServiceRoleArn = new("me") })},
		{"group exists", "DeploymentGroupAlreadyExistsException", group(func(in *api.CreateDeploymentGroupInput) { in.DeploymentGroupName = new("web") })},
		{"no configuration", "DeploymentConfigDoesNotExistException", group(func(in *api.CreateDeploymentGroupInput) { in.DeploymentConfigName = new("none") })},
		{"no scaling group", "InvalidAutoScalingGroupException", group(func(in *api.CreateDeploymentGroupInput) { in.AutoScalingGroups = []string{"none"} })},
		{"tags and tag set", "InvalidEC2TagCombinationException", group(func(in *api.CreateDeploymentGroupInput) {
			f := []api.EC2TagFilter{{Key: new("a"), Type: new("KEY_ONLY")}}
			in.Ec2TagFilters, in.Ec2TagSet = f, &api.EC2TagSet{Ec2TagSetList: [][]api.EC2TagFilter{f}}
		})},
		{"tag without a type", "InvalidEC2TagException", group(func(in *api.CreateDeploymentGroupInput) { in.Ec2TagFilters = []api.EC2TagFilter{{Key: new("a")}} })},
		{"four tag groups", "TagSetListLimitExceededException", group(func(in *api.CreateDeploymentGroupInput) {
			in.Ec2TagSet = &api.EC2TagSet{Ec2TagSetList: make([][]api.EC2TagFilter, 4)}
		})},
		{"blue/green", "NotImplemented", group(func(in *api.CreateDeploymentGroupInput) {
			in.DeploymentStyle = &api.DeploymentStyle{DeploymentType: new("BLUE_GREEN")}
		})},
		{"traffic without a target group", "InvalidLoadBalancerInfoException", group(func(in *api.CreateDeploymentGroupInput) {
			in.DeploymentStyle = &api.DeploymentStyle{DeploymentOption: new("WITH_TRAFFIC_CONTROL")}
		})},
		{"rollback without events", "InvalidAutoRollbackConfigException", group(func(in *api.CreateDeploymentGroupInput) {
			in.AutoRollbackConfiguration = &api.AutoRollbackConfiguration{Enabled: new(true)}
		})},
		{"alarms without names", "InvalidAlarmConfigException", group(func(in *api.CreateDeploymentGroupInput) {
			in.AlarmConfiguration = &api.AlarmConfiguration{Enabled: new(true)}
		})},
		{"unknown trigger event", "InvalidTriggerConfigException", group(func(in *api.CreateDeploymentGroupInput) {
			in.TriggerConfigurations = []api.TriggerConfig{{TriggerName: new("a"), TriggerTargetArn: new("arn:x"), TriggerEvents: []string{"Moon"}}}
		})},
		{"no group", "DeploymentGroupDoesNotExistException", deploy(func(in *api.CreateDeploymentInput) { in.DeploymentGroupName = new("none") })},
		{"no revision", "RevisionRequiredException", deploy(func(in *api.CreateDeploymentInput) { in.Revision = nil })},
		{"no bundle type", "InvalidRevisionException", deploy(func(in *api.CreateDeploymentInput) { in.Revision.S3Location.BundleType = nil })},
		{"bad repository", "InvalidRevisionException", deploy(func(in *api.CreateDeploymentInput) {
			in.Revision = &api.RevisionLocation{RevisionType: new("GitHub"), GitHubLocation: &api.GitHubLocation{Repository: new("../x"), CommitId: new("abcdef0")}}
		})},
		{"unknown configuration", "DeploymentConfigDoesNotExistException", deploy(func(in *api.CreateDeploymentInput) { in.DeploymentConfigName = new("none") })},
		{"long description", "DescriptionTooLongException", deploy(func(in *api.CreateDeploymentInput) { in.Description = new(strings.Repeat("x", 1001)) })},
		{"blue/green targets", "InvalidTargetInstancesException", deploy(func(in *api.CreateDeploymentInput) { in.TargetInstances = &api.TargetInstances{} })},
		{"no deployment", "DeploymentDoesNotExistException", second(s.getDeployment(ctx, &api.GetDeploymentInput{DeploymentId: new("d-NONE")}))},
		{"bad deployment id", "InvalidDeploymentIdException", second(s.getDeployment(ctx, &api.GetDeploymentInput{DeploymentId: new("d-1/../x")}))},
		{"percent above 100", "InvalidMinimumHealthyHostValueException", second(s.createDeploymentConfig(ctx, &api.CreateDeploymentConfigInput{DeploymentConfigName: new("c"), MinimumHealthyHosts: &api.MinimumHealthyHosts{Type: new("FLEET_PERCENT"), Value: new(int64(101))}}))},
		{"built-in name", "DeploymentConfigAlreadyExistsException", second(s.createDeploymentConfig(ctx, &api.CreateDeploymentConfigInput{DeploymentConfigName: new(defaultConfig), MinimumHealthyHosts: &api.MinimumHealthyHosts{Type: new("HOST_COUNT"), Value: new(int64(1))}}))},
		{"bad token", "InvalidNextTokenException", second(s.listApplications(ctx, &api.ListApplicationsInput{NextToken: new("?")}))},
		{"status", "InvalidDeploymentStatusException", second(s.listDeployments(ctx, &api.ListDeploymentsInput{IncludeOnlyStatuses: []string{"Gone"}}))},
		{"application without group", "DeploymentGroupNameRequiredException", second(s.listDeployments(ctx, &api.ListDeploymentsInput{ApplicationName: new("todo")}))},
		{"revision unknown", "RevisionDoesNotExistException", second(s.getApplicationRevision(ctx, &api.GetApplicationRevisionInput{ApplicationName: new("todo"), Revision: revision("none.zip")}))},
		{"foreign ARN", "InvalidArnException", second(s.listTagsForResource(ctx, &api.ListTagsForResourceInput{ResourceArn: new("arn:aws:s3:::x")}))},
		{"two principals", "MultipleIamArnsProvidedException", second(s.registerOnPremisesInstance(ctx, &api.RegisterOnPremisesInstanceInput{InstanceName: new("h"), IamUserArn: new("a"), IamSessionArn: new("b")}))},
		{"name of an instance id", "InvalidInstanceNameException", second(s.registerOnPremisesInstance(ctx, &api.RegisterOnPremisesInstanceInput{InstanceName: new("i-0123456789abcdef0"), IamUserArn: new("a")}))},
	} {
		if !awserr.Is(c.err, c.code) {
			t.Errorf("%s: got %v, want %s", c.name, c.err, c.code)
		}
	}
	if out := call(t, s.listDeploymentGroups, &api.ListDeploymentGroupsInput{ApplicationName: new("todo")}); len(out.DeploymentGroups) != 1 {
		t.Errorf("groups %v", out.DeploymentGroups)
	}
	if out := call(t, s.listDeployments, &api.ListDeploymentsInput{}); len(out.Deployments) != 0 {
		t.Errorf("deployments %v", out.Deployments)
	}
}

func TestSelection(t *testing.T) {
	filter := func(key, value, kind string) api.EC2TagFilter {
		return api.EC2TagFilter{Key: ptr.NonZero(key), Value: ptr.NonZero(value), Type: &kind}
	}
	tags := map[string]string{"app": "todo", "tier": "web"}
	for _, c := range []struct {
		name string
		set  Settings
		want bool
	}{
		{"nothing", Settings{}, false},
		{"any of the filters", Settings{EC2TagFilters: []api.EC2TagFilter{filter("x", "", "KEY_ONLY"), filter("app", "todo", "KEY_AND_VALUE")}}, true},
		{"value only", Settings{EC2TagFilters: []api.EC2TagFilter{filter("", "web", "VALUE_ONLY")}}, true},
		{"other value", Settings{EC2TagFilters: []api.EC2TagFilter{filter("app", "shop", "KEY_AND_VALUE")}}, false},
		{"all of the groups", Settings{EC2TagSet: [][]api.EC2TagFilter{{filter("app", "", "KEY_ONLY")}, {filter("tier", "db", "KEY_AND_VALUE"), filter("tier", "web", "KEY_AND_VALUE")}}}, true},
		{"one group fails", Settings{EC2TagSet: [][]api.EC2TagFilter{{filter("app", "", "KEY_ONLY")}, {filter("tier", "db", "KEY_AND_VALUE")}}}, false},
	} {
		if got := c.set.selects(tags); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestRenameAndUpdate(t *testing.T) {
	w := newWorld(t).start()
	w.fleet(1)
	w.setUp(func(in *api.CreateDeploymentGroupInput) { in.AutoScalingGroups = []string{"web"} })
	d := w.deploy("app.zip")
	w.wait(d)
	call(t, w.svc.updateDeploymentGroup, &api.UpdateDeploymentGroupInput{
		ApplicationName: new("todo"), CurrentDeploymentGroupName: new("web"), NewDeploymentGroupName: new("prod"), AutoScalingGroups: []string{},
		DeploymentConfigName: new("CodeDeployDefault.AllAtOnce"), TerminationHookEnabled: new(true),
	})
	call(t, w.svc.updateApplication, &api.UpdateApplicationInput{ApplicationName: new("todo"), NewApplicationName: new("tasks")})
	g := call(t, w.svc.getDeploymentGroup, &api.GetDeploymentGroupInput{ApplicationName: new("tasks"), DeploymentGroupName: new("prod")}).DeploymentGroupInfo
	if *g.DeploymentConfigName != "CodeDeployDefault.AllAtOnce" || len(g.Ec2TagFilters) != 1 || len(g.AutoScalingGroups) != 0 || *g.LastSuccessfulDeployment.DeploymentId != d {
		t.Errorf("%+v", g)
	}
	w.locked(func() {
		if len(w.hooks) != 0 {
			t.Errorf("hooks %v", w.hooks)
		}
	})
	if out := call(t, w.svc.listDeployments, &api.ListDeploymentsInput{ApplicationName: new("tasks"), DeploymentGroupName: new("prod")}); len(out.Deployments) != 1 {
		t.Errorf("%v", out.Deployments)
	}
	if out := call(t, w.svc.listApplicationRevisions, &api.ListApplicationRevisionsInput{ApplicationName: new("tasks"), Deployed: new("include")}); len(out.Revisions) != 1 {
		t.Errorf("%v", out.Revisions)
	}
	again := *call(t, w.svc.createDeployment, &api.CreateDeploymentInput{ApplicationName: new("tasks"), DeploymentGroupName: new("prod"), Revision: revision("app.zip"), UpdateOutdatedInstancesOnly: new(true)}).DeploymentId
	if info := w.wait(again); *info.Status != "Succeeded" || *info.DeploymentOverview.Succeeded != 0 {
		t.Errorf("nothing is outdated: %s %+v", *info.Status, info.DeploymentOverview)
	}
	call(t, w.svc.deleteApplication, &api.DeleteApplicationInput{ApplicationName: new("tasks")})
	if out := call(t, w.svc.listApplications, &api.ListApplicationsInput{}); len(out.Applications) != 0 {
		t.Errorf("%v", out.Applications)
	}
}

func TestTags(t *testing.T) {
	w := newWorld(t).start()
	w.setUp(nil)
	for _, arn := range []string{"arn:aws:codedeploy:us-east-1:123456789012:application:todo", "arn:aws:codedeploy:us-east-1:123456789012:deploymentgroup:todo/web"} {
		call(t, w.svc.tagResource, &api.TagResourceInput{ResourceArn: &arn, Tags: []api.Tag{{Key: new("a"), Value: new("1")}, {Key: new("b"), Value: new("2")}}})
		call(t, w.svc.untagResource, &api.UntagResourceInput{ResourceArn: &arn, TagKeys: []string{"a"}})
		if out := call(t, w.svc.listTagsForResource, &api.ListTagsForResourceInput{ResourceArn: &arn}); len(out.Tags) != 1 || *out.Tags[0].Key != "b" {
			t.Errorf("%+v", out.Tags)
		}
	}
}

// An on-premises instance is a target like any other; its agent calls as the
// user it was registered with.
func TestOnPremises(t *testing.T) {
	w := newWorld(t).start()
	arn := "arn:aws:iam::123456789012:user/rack7"
	call(t, w.svc.registerOnPremisesInstance, &api.RegisterOnPremisesInstanceInput{InstanceName: new("rack7"), IamUserArn: &arn})
	call(t, w.svc.addTagsToOnPremisesInstances, &api.AddTagsToOnPremisesInstancesInput{InstanceNames: []string{"rack7"}, Tags: []api.Tag{{Key: new("app"), Value: new("todo")}}})
	w.setUp(func(in *api.CreateDeploymentGroupInput) {
		in.Ec2TagFilters, in.OnPremisesInstanceTagFilters = nil, []api.TagFilter{{Key: new("app"), Value: new("todo"), Type: new("KEY_AND_VALUE")}}
	})
	d := w.deploy("app.zip")
	ctx := caller.With(t.Context(), caller.Identity{Account: testAccount, Region: testRegion, PrincipalARN: arn})
	if _, err := w.svc.pollHostCommand(user(t.Context()), &cmds.PollHostCommandInput{HostIdentifier: &arn}); !awserr.Is(err, "AccessDeniedException") {
		t.Errorf("a stranger: %v", err)
	}
	for range 7 {
		out, err := w.svc.pollHostCommand(ctx, &cmds.PollHostCommandInput{HostIdentifier: &arn})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.complete(ctx, out.HostCommand, outcome{}); err != nil {
			t.Fatal(err)
		}
	}
	if info := w.wait(d); *info.Status != "Succeeded" || *w.target(d, "rack7").Status != "Succeeded" {
		t.Errorf("%+v", info.ErrorInformation)
	}
	call(t, w.svc.deregisterOnPremisesInstance, &api.DeregisterOnPremisesInstanceInput{InstanceName: new("rack7")})
	if out := call(t, w.svc.listOnPremisesInstances, &api.ListOnPremisesInstancesInput{RegistrationStatus: new("Registered")}); len(out.InstanceNames) != 0 {
		t.Errorf("%v", out.InstanceNames)
	}
}

func TestTerminatingInstances(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(1)
	w.setLifecycle(ids[0], "web", "InService")
	w.setHealth(ids[0], "healthy")
	w.setUp(func(in *api.CreateDeploymentGroupInput) {
		scaled(in)
		in.TerminationHookEnabled = new(true)
	})
	w.wait(w.deploy("app.zip"))
	w.locked(func() { w.behave = failAt("ApplicationStop", "") })
	w.setLifecycle(ids[0], "web", terminatingWait)
	w.answered(ids[0] + " CONTINUE")
	d := call(t, w.svc.listDeployments, &api.ListDeploymentsInput{ApplicationName: new("todo"), DeploymentGroupName: new("web")}).Deployments[0]
	if info := w.get(d); *info.Creator != "autoscalingTermination" || *info.Status != "Failed" {
		t.Errorf("%s %s", *info.Creator, *info.Status)
	}
	if got := eventNames(w.target(d, ids[0])); got != "BeforeBlockTraffic:Succeeded BlockTraffic:Succeeded AfterBlockTraffic:Succeeded ApplicationStop:Failed" {
		t.Error(got)
	}
}

// What an agent does not do in time fails, by the stored times.
func TestPatience(t *testing.T) {
	p := patience{Pickup: 5 * time.Minute, Event: time.Hour, Traffic: time.Hour}
	fresh := func() *Target {
		tg := &Target{Instance: "i-1", Status: api.TargetStatusPending, Events: lifecycleOf(&Deployment{})}
		tg.begin(t0)
		return tg
	}
	tg := fresh()
	if tg.expire(p, "never", t0.Add(5*time.Minute-1)) || !tg.expire(p, "never", t0.Add(5*time.Minute)) {
		t.Error("five minutes to take an event up")
	}
	if d := tg.Events[0].Diagnostics; tg.Status != "Failed" || !strings.Contains(d.Message, "was not able to receive") || !strings.Contains(d.Message, "never") {
		t.Errorf("%+v", tg)
	}
	tg = fresh()
	tg.acknowledge(tg.current(), "x", false, t0.Add(time.Minute))
	if tg.expire(p, "", t0.Add(time.Hour)) || !tg.expire(p, "", t0.Add(61*time.Minute)) || tg.Events[0].Diagnostics.ErrorCode != "ScriptTimedOut" {
		t.Errorf("an hour to end it: %+v", tg.Events[0])
	}
	tg = &Target{Instance: "i-1", Status: api.TargetStatusPending, Events: []Event{{Name: eventAllow}}}
	tg.begin(t0)
	if !tg.expire(p, "it is unhealthy in target group web", t0.Add(time.Hour)) || !strings.Contains(tg.Message, "AllowTraffic") {
		t.Errorf("an hour for traffic: %+v", tg)
	}
}

func TestSigningKeyIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "key")
	one, err := loadSigner(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, err := loadSigner(dir)
	if err != nil || !one.key.Equal(two.key) {
		t.Errorf("another key after a restart: %v", err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			if fi, _ := e.Info(); fi.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, fi.Mode())
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "specification-signer.pem"), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadSigner(dir); err == nil {
		t.Error("junk taken for a key")
	}
	d := &Deployment{ID: "d-1", Revision: &api.RevisionLocation{S3Location: &api.S3Location{Bucket: new("b"), Key: new(strings.Repeat("k", 1024)), BundleType: new("zip")}}}
	if text, err := one.seal(specificationOf(d)); err != nil || len(text) > envelopeLimit {
		t.Errorf("the longest key: %d %v", len(text), err)
	}
}

// A poll with nothing to do ends when its caller leaves.
func TestPollEndsWithItsCaller(t *testing.T) {
	w := newWorld(t).start()
	ctx, cancel := context.WithTimeout(asInstance(t.Context(), "i-0123456789abcdef0"), 20*time.Millisecond)
	defer cancel()
	if _, err := w.svc.pollHostCommand(ctx, &cmds.PollHostCommandInput{HostIdentifier: new(hostARN("i-0123456789abcdef0"))}); err == nil {
		t.Error("an answer to nobody")
	}
	if len(w.svc.hub.waiting) != 0 {
		t.Error("the poll still waits")
	}
}

// Nor does a poll keep a server from shutting down.
func TestPollEndsWithTheService(t *testing.T) {
	w := newWorld(t).start()
	done := make(chan error, 1)
	go func() {
		done <- second(w.svc.pollHostCommand(asInstance(t.Context(), "i-0123456789abcdef0"), &cmds.PollHostCommandInput{HostIdentifier: new(hostARN("i-0123456789abcdef0"))}))
	}()
	w.until("the agent polls", func() bool {
		w.svc.hub.mu.Lock()
		defer w.svc.hub.mu.Unlock()
		return len(w.svc.hub.waiting) == 1
	})
	w.stop()
	if err := <-done; !awserr.Is(err, "ServerException") {
		t.Error(err)
	}
}
