package codebuild

import (
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/aws/awserr"
	"slipway/internal/clock"
	"slipway/internal/machine"
	"slipway/internal/machine/simulated"
)

// script stands for a runner: what the follower of its events reads.
func script(events ...build.Event) func(context.Context, string, machine.ExecSpec) (int, error) {
	return func(ctx context.Context, _ string, spec machine.ExecSpec) (int, error) {
		if !slices.Contains(spec.Args, tailScript) {
			return 0, nil
		}
		enc := json.NewEncoder(spec.Stdout)
		for i, ev := range events {
			ev.Seq, ev.Time = int64(i+1), clock.Real.Now()
			if err := enc.Encode(ev); err != nil {
				return 0, err
			}
		}
		if events[len(events)-1].Type != build.EventDone { // it goes on for ever
			<-ctx.Done()
			return 0, ctx.Err()
		}
		return 0, nil
	}
}

func phaseEvents(name, status string) []build.Event {
	return []build.Event{{Type: build.EventPhaseStart, Phase: name}, {Type: build.EventPhaseEnd, Phase: name, Status: status, Contexts: []build.Context{{StatusCode: "C", Message: "m"}}}}
}

func scripted(t *testing.T, events ...build.Event) *world {
	w := newWorld(t, simulated.New(simulated.Options{Exec: script(events...)})).start()
	w.project("version: 0.2\nphases:\n  build:\n    commands: [true]\n", nil)
	return w
}

func TestFailedBuild(t *testing.T) {
	events := append(phaseEvents("DOWNLOAD_SOURCE", "SUCCEEDED"), phaseEvents("INSTALL", "FAILED")...)
	w := scripted(t, append(events, build.Event{Type: build.EventLog, Log: "half a"}, build.Event{Type: build.EventLog, Log: " line\n"}, build.Event{Type: build.EventDone, Status: "FAILED"})...)
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAILED" || phases(b) != "SUBMITTED:SUCCEEDED QUEUED:SUCCEEDED PROVISIONING:SUCCEEDED DOWNLOAD_SOURCE:SUCCEEDED INSTALL:FAILED COMPLETED:" ||
		*b.Phases[4].Contexts[0].Message != "m" || b.EndTime == nil || *b.CurrentPhase != "COMPLETED" {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
	if w.log() != "half a line" {
		t.Errorf("log %q", w.log())
	}
}

func TestRoleCannotBeAssumed(t *testing.T) {
	w := scripted(t, build.Event{Type: build.EventDone, Status: "SUCCEEDED"})
	w.denyRole = true
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAILED" || !strings.HasSuffix(phases(b), "PROVISIONING:FAILED COMPLETED:") || !strings.Contains(*b.Phases[2].Contexts[0].Message, "sts:AssumeRole on "+testRole) {
		t.Errorf("%s %s %+v", *b.BuildStatus, phases(b), b.Phases[2].Contexts)
	}
}

func TestMachineDoesNotBoot(t *testing.T) {
	d := simulated.New(simulated.Options{Exec: script(build.Event{Type: build.EventDone, Status: "SUCCEEDED"})})
	w := newWorld(t, d).start()
	d.FailBoots(func(machine.Spec) error { return io.ErrUnexpectedEOF })
	w.project("version: 0.2\nphases: {}\n", nil)
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAULT" || !strings.HasSuffix(phases(b), "PROVISIONING:FAULT COMPLETED:") {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
}

func TestMachineDies(t *testing.T) {
	w := scripted(t, phaseEvents("BUILD", "")[0])
	id := w.build(nil)
	w.until("the build runs", func() bool { return *w.get(id).CurrentPhase == "BUILD" })
	if err := w.machines.(*simulated.Driver).Die(machineID(id), "pulled"); err != nil {
		t.Fatal(err)
	}
	if b := w.wait(id); *b.BuildStatus != "FAULT" || !strings.Contains(phases(b), "BUILD:FAULT") {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
}

// A full disk is named where it is what may have ended the build.
func TestMachineDiesOnAFullDisk(t *testing.T) {
	w := scripted(t, phaseEvents("BUILD", "")[0])
	id := w.build(nil)
	w.until("the build runs", func() bool { return *w.get(id).CurrentPhase == "BUILD" })
	w.free.Store(1 << 20)
	if err := w.machines.(*simulated.Driver).Die(machineID(id), "no room"); err != nil {
		t.Fatal(err)
	}
	b := w.wait(id)
	if m := *b.Phases[len(b.Phases)-2].Contexts[0].Message; !strings.HasSuffix(m, "is full: make room and start the build again") {
		t.Error(m)
	}
}

func TestSimulatedMachinesBuildNothing(t *testing.T) {
	w := newWorld(t, simulated.New(simulated.Options{})).start()
	w.project("version: 0.2\nphases: {}\n", nil)
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAULT" || !strings.Contains(*b.Phases[len(b.Phases)-2].Contexts[0].Message, "simulated") {
		t.Errorf("%s %+v", *b.BuildStatus, b.Phases[len(b.Phases)-2].Contexts)
	}
}

func TestTokenMakesOneBuild(t *testing.T) {
	w := scripted(t, build.Event{Type: build.EventDone, Status: "SUCCEEDED"})
	once := func(in *api.StartBuildInput) { in.IdempotencyToken = new("once") }
	a, b := w.build(once), w.build(once)
	if a != b {
		t.Errorf("%s and %s", a, b)
	}
	w.wait(a)
	again := *call(t, w.svc.retryBuild, &api.RetryBuildInput{Id: &a}).Build
	if *again.BuildNumber != 2 {
		t.Errorf("number %d", *again.BuildNumber)
	}
	w.wait(*again.Id)
	if ids := call(t, w.svc.listBuildsForProject, &api.ListBuildsForProjectInput{ProjectName: new("todo")}).Ids; len(ids) != 2 || ids[1] != a {
		t.Errorf("%q", ids)
	}
}

func TestQueue(t *testing.T) {
	w := newWorld(t, simulated.New(simulated.Options{Exec: script(phaseEvents("BUILD", "")[0])}))
	w.start()
	w.svc.deps.MaxBuilds = 1
	w.project("version: 0.2\nphases: {}\n", func(in *api.CreateProjectInput) { in.ConcurrentBuildLimit = new(int64(2)) })
	first := w.build(nil)
	w.until("the first build runs", func() bool { return *w.get(first).CurrentPhase == "BUILD" })
	second := w.build(nil)
	if _, err := w.svc.startBuild(ctxAs(t), &api.StartBuildInput{ProjectName: new("todo")}); !awserr.Is(err, "AccountLimitExceededException") {
		t.Errorf("a third build: %v", err)
	}
	if b := call(t, w.svc.stopBuild, &api.StopBuildInput{Id: &second}).Build; *b.BuildStatus != "STOPPED" || *w.get(first).BuildStatus != "IN_PROGRESS" {
		t.Errorf("%s", *b.BuildStatus)
	}
}

func TestProjects(t *testing.T) {
	w := scripted(t, build.Event{Type: build.EventDone, Status: "SUCCEEDED"})
	_, err := w.svc.createProject(ctxAs(t), &api.CreateProjectInput{Name: new("todo"), Source: &api.ProjectSource{Type: new("CODEPIPELINE")},
		Artifacts: &api.ProjectArtifacts{Type: new("CODEPIPELINE")}, Environment: &api.ProjectEnvironment{}})
	if !awserr.Is(err, "ResourceAlreadyExistsException") {
		t.Error(err)
	}
	p := call(t, w.svc.updateProject, &api.UpdateProjectInput{Name: new("todo"), Source: &api.ProjectSource{Type: new("CODEPIPELINE")}, Artifacts: &api.ProjectArtifacts{Type: new("CODEPIPELINE")}}).Project
	if *p.TimeoutInMinutes != 60 || *p.Environment.ComputeType != "BUILD_GENERAL1_SMALL" {
		t.Errorf("%+v", p)
	}
	if _, err := w.svc.startBuild(ctxAs(t), &api.StartBuildInput{ProjectName: new("todo")}); !awserr.Is(err, "InvalidInputException") {
		t.Error(err)
	}
	call(t, w.svc.deleteProject, &api.DeleteProjectInput{Name: new("todo")})
	if out := call(t, w.svc.batchGetProjects, &api.BatchGetProjectsInput{Names: []string{"todo"}}); len(out.ProjectsNotFound) != 1 {
		t.Errorf("%+v", out)
	}
}

// Times of the machine are shown on the server's clock, however fast it runs.
func TestScaledClock(t *testing.T) {
	w := newWorld(t, simulated.New(simulated.Options{Exec: script(append(phaseEvents("BUILD", "SUCCEEDED"), build.Event{Type: build.EventDone, Status: "SUCCEEDED"})...)}))
	w.clock = clock.Scaled(60, clock.Real.Now().Add(1000*time.Hour))
	w.start()
	w.project("version: 0.2\nphases: {}\n", nil)
	b := w.wait(w.build(nil))
	for _, p := range b.Phases {
		if late := p.StartTime.Sub(*b.StartTime); late < 0 || late > time.Hour {
			t.Errorf("%s begins %s after the build", *p.PhaseType, late)
		}
	}
}
