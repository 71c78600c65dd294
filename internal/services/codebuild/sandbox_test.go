package codebuild

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	api "slipway/internal/api/codebuild"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox"
)

func openSandbox(t *testing.T) *sandbox.Driver {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	d, err := sandbox.Open(t.Context(), sandbox.Options{DataDir: t.TempDir(), NoEgress: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := d.PurgeAll(context.Background(), true); err != nil {
			t.Error(err)
		}
		if left := d.Leftovers(); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	return d
}

const goodPhases = "SUBMITTED:SUCCEEDED QUEUED:SUCCEEDED PROVISIONING:SUCCEEDED DOWNLOAD_SOURCE:SUCCEEDED INSTALL:SUCCEEDED " +
	"PRE_BUILD:SUCCEEDED BUILD:SUCCEEDED POST_BUILD:SUCCEEDED UPLOAD_ARTIFACTS:SUCCEEDED FINALIZING:SUCCEEDED COMPLETED:"

const sourceSpec = `version: 0.2
env:
  exported-variables: [ANSWER]
phases:
  install:
    commands:
      - curl -sf "http://169.254.170.2$AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
  build:
    commands:
      - export ANSWER=42
      - cat hello.txt; echo "initiator $CODEBUILD_INITIATOR number $CODEBUILD_BUILD_NUMBER"
      - mkdir -p reports && cp junit.xml reports/
      - touch /root/.warm/x; ls /root/.warm
      - touch "/root/.warm/$CODEBUILD_BUILD_NUMBER"
reports:
  unit:
    files: [junit.xml]
    base-directory: reports
artifacts:
  files: [hello.txt, 'reports/**/*']
cache:
  paths: ['/root/.warm/**/*']
`

const junit = `<testsuite name="s"><testcase name="good" classname="c" time="0.5"/><testcase name="bad" classname="c"><failure message="no"/></testcase></testsuite>`

// A build in a real machine: source from a repository over the machines'
// network, commands, credentials, artifacts, reports, cache.
func TestBuildInSandbox(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.commits["c0ffee"] = map[string]string{"hello.txt": "hello\n", "junit.xml": junit, "buildspec.yml": sourceSpec}
	w.project("", func(in *api.CreateProjectInput) {
		in.Source = &api.ProjectSource{Type: new("CODECOMMIT"), Location: new("http://127.0.0.1:4566/v1/repos/todo")}
		in.Cache = &api.ProjectCache{Type: new("LOCAL"), Modes: []string{"LOCAL_CUSTOM_CACHE"}}
	})
	from := func(in *api.StartBuildInput) { in.SourceVersion = new("c0ffee") }
	b := w.wait(w.build(from))
	if *b.BuildStatus != "SUCCEEDED" || phases(b) != goodPhases {
		t.Fatalf("%s: %s\n%+v\n%s", *b.BuildStatus, phases(b), b.Phases[len(b.Phases)-2].Contexts, w.log())
	}
	files := unzip(t, w.objects["artifacts/out/app.zip"])
	if files["hello.txt"] != "hello\n" || files["reports/junit.xml"] != junit || len(files) != 2 {
		t.Errorf("artifact %q", files)
	}
	if *b.Artifacts.Location != "arn:aws:s3:::artifacts/out/app.zip" || len(*b.Artifacts.Sha256sum) != 64 {
		t.Errorf("artifacts %+v", b.Artifacts)
	}
	for _, want := range []string{`"AccessKeyId":"ASIA"`, "hello", "initiator ann number 1", "Phase complete: BUILD State: SUCCEEDED"} {
		if !strings.Contains(w.log(), want) {
			t.Errorf("the log lacks %q:\n%s", want, w.log())
		}
	}
	if len(b.ExportedEnvironmentVariables) != 1 || *b.ExportedEnvironmentVariables[0].Value != "42" || *b.ResolvedSourceVersion != "c0ffee" {
		t.Errorf("exported %+v", b.ExportedEnvironmentVariables)
	}
	cases := call(t, w.svc.describeTestCases, &api.DescribeTestCasesInput{ReportArn: &b.ReportArns[0]}).TestCases
	if len(cases) != 2 || *cases[1].Status != "FAILED" {
		t.Errorf("cases %+v", cases)
	}
	w.lines = nil
	if b = w.wait(w.build(from)); *b.BuildStatus != "SUCCEEDED" || *b.BuildNumber != 2 || !strings.Contains(w.log(), "\n1\n") {
		t.Errorf("the second build did not find the first one's cache:\n%s", w.log())
	}
}

// The server stops and starts while a build runs: the build goes on, and
// nothing of it is lost.
func TestServerRestartsDuringBuild(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.project(`version: 0.2
phases:
  build:
    commands: [echo begun, 'while [ ! -e /tmp/go ]; do sleep 0.05; done', echo ended, echo done > out.txt]
artifacts:
  files: [out.txt]
`, nil)
	id := w.build(nil)
	w.until("the build runs", func() bool { return strings.Contains(w.log(), "begun") })
	w.stop()
	w.start()
	if err := w.machines.WriteFile(t.Context(), machineID(id), machine.File{Path: "/tmp/go"}); err != nil {
		t.Fatal(err)
	}
	b := w.wait(id)
	if *b.BuildStatus != "SUCCEEDED" || phases(b) != goodPhases || unzip(t, w.objects["artifacts/out/app.zip"])["out.txt"] != "done\n" {
		t.Errorf("%s %s\n%s", *b.BuildStatus, phases(b), w.log())
	}
}

func TestStopRunningBuild(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.project("version: 0.2\nphases:\n  build:\n    commands: [echo begun, sleep 600]\n", nil)
	id := w.build(nil)
	w.until("the build runs", func() bool { return strings.Contains(w.log(), "begun") })
	call(t, w.svc.stopBuild, &api.StopBuildInput{Id: &id})
	if b := w.wait(id); *b.BuildStatus != "STOPPED" || !strings.Contains(phases(b), "BUILD:STOPPED") {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
}

func TestFailedCommand(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.project("version: 0.2\nphases:\n  build:\n    commands: [exit 7]\nartifacts:\n  files: [nothing]\n", nil)
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAILED" || !strings.Contains(phases(b), "BUILD:FAILED POST_BUILD:SUCCEEDED UPLOAD_ARTIFACTS:FAILED") {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
}

func TestRunnerKilled(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.project("version: 0.2\nphases:\n  build:\n    commands: [echo begun, 'kill -9 $PPID; sleep 600']\n", nil)
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAULT" || !strings.Contains(phases(b), "BUILD:FAULT") {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
}

func TestArtifactsOfMissingBucket(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.project("version: 0.2\nphases:\n  build:\n    commands: [echo x > f]\nartifacts:\n  files: [f]\n", func(in *api.CreateProjectInput) {
		in.Artifacts.Location = new("elsewhere")
	})
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "FAILED" || !strings.Contains(phases(b), "UPLOAD_ARTIFACTS:FAILED FINALIZING:SUCCEEDED") {
		t.Errorf("%s %s", *b.BuildStatus, phases(b))
	}
}

func TestArtifactsAsFiles(t *testing.T) {
	w := newWorld(t, openSandbox(t)).start()
	w.project("version: 0.2\nphases:\n  build:\n    commands: ['mkdir -p d/e; echo x > d/e/f; echo y > g']\nartifacts:\n  files: ['**/*']\n", func(in *api.CreateProjectInput) {
		in.Artifacts.Packaging, in.Artifacts.Name = new("NONE"), new("site")
	})
	b := w.wait(w.build(nil))
	if *b.BuildStatus != "SUCCEEDED" || w.objects["artifacts/out/site/d/e/f"] != "x\n" || w.objects["artifacts/out/site/g"] != "y\n" {
		t.Errorf("%s %q", *b.BuildStatus, w.objects)
	}
}
