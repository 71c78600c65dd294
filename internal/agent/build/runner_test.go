package build

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The machines that builds run in have this mask.
func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	os.Exit(m.Run())
}

type outcome struct {
	status string
	events []Event
	log    string
}

// phaseLine is the course of a build in one line.
func (o outcome) phaseLine() string {
	var parts []string
	for _, e := range o.events {
		if e.Type == EventPhaseEnd {
			parts = append(parts, e.Phase+" "+e.Status)
		}
	}
	return strings.Join(parts, ", ")
}

func (o outcome) contexts(phase string) (all []Context) {
	for _, e := range o.events {
		if e.Type == EventPhaseEnd && e.Phase == phase {
			all = append(all, e.Contexts...)
		}
	}
	return all
}

// reached calls f when a text goes by.
type reached struct {
	text string
	f    func()
	seen bytes.Buffer
}

func (w *reached) Write(p []byte) (int, error) {
	if w.seen.Write(p); strings.Contains(w.seen.String(), w.text) {
		w.f()
	}
	return len(p), nil
}

func run(t *testing.T, ctx context.Context, job Job, also ...io.Writer) outcome {
	t.Helper()
	job.Root = filepath.Join(t.TempDir(), "codebuild")
	if job.Project == "" {
		job.Project = "proj"
	}
	var b bytes.Buffer
	status, err := Run(ctx, job, newEmitter(io.MultiWriter(append([]io.Writer{&b}, also...)...)))
	if err != nil {
		t.Fatal(err)
	}
	o := outcome{status: status}
	for i, line := range bytes.Split(bytes.TrimSpace(b.Bytes()), []byte("\n")) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("event %s: %v", line, err)
		}
		if e.Seq != int64(i+1) {
			t.Fatalf("event %d has the number %d", i+1, e.Seq)
		}
		o.events = append(o.events, e)
		o.log += e.Log
	}
	if last := o.events[len(o.events)-1]; last.Type != EventDone || last.Status != status {
		t.Errorf("last event %+v", last)
	}
	return o
}

func spec(phases string) string { return "version: 0.2\n" + phases }

func source(t *testing.T, files map[string]string) Source {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o755
		}
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return Source{Dir: dir}
}

func TestPhaseOrder(t *testing.T) {
	const d, f = "DOWNLOAD_SOURCE SUCCEEDED, ", "FINALIZING SUCCEEDED"
	tests := []struct{ name, spec, want, status string }{
		{"all well", "phases: {build: {commands: ['true']}}", d + "INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD SUCCEEDED, POST_BUILD SUCCEEDED, UPLOAD_ARTIFACTS SUCCEEDED, " + f, "SUCCEEDED"},
		{"install fails", "phases: {install: {commands: ['false']}}", d + "INSTALL FAILED, " + f, "FAILED"},
		{"pre_build fails", "phases: {pre_build: {commands: ['false']}}", d + "INSTALL SUCCEEDED, PRE_BUILD FAILED, " + f, "FAILED"},
		{"build fails", "phases: {build: {commands: ['false']}}", d + "INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD FAILED, POST_BUILD SUCCEEDED, UPLOAD_ARTIFACTS SUCCEEDED, " + f, "FAILED"},
		{"build aborts", "phases: {build: {on-failure: ABORT, commands: ['false']}}", d + "INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD FAILED, " + f, "FAILED"},
		{"install continues", "phases: {install: {on-failure: CONTINUE, commands: ['false']}}", d + "INSTALL FAILED, PRE_BUILD SUCCEEDED, BUILD SUCCEEDED, POST_BUILD SUCCEEDED, UPLOAD_ARTIFACTS SUCCEEDED, " + f, "FAILED"},
		{"post_build fails", "phases: {post_build: {commands: ['false']}}", d + "INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD SUCCEEDED, POST_BUILD FAILED, UPLOAD_ARTIFACTS SUCCEEDED, " + f, "FAILED"},
		{"finally fails", "phases: {build: {commands: ['true'], finally: ['false']}}", d + "INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD FAILED, POST_BUILD SUCCEEDED, UPLOAD_ARTIFACTS SUCCEEDED, " + f, "FAILED"},
		{"bad spec", "phases: {biuld: {}}", "DOWNLOAD_SOURCE FAILED, " + f, "FAILED"},
		{"retry", "phases: {install: {on-failure: RETRY-2, commands: ['[ -e again ] || { touch again; exit 1; }']}}", d + "INSTALL FAILED, INSTALL SUCCEEDED, PRE_BUILD SUCCEEDED, BUILD SUCCEEDED, POST_BUILD SUCCEEDED, UPLOAD_ARTIFACTS SUCCEEDED, " + f, "SUCCEEDED"},
		{"retry other error", "phases: {install: {on-failure: RETRY-2-timeout, commands: ['false']}}", d + "INSTALL FAILED, " + f, "FAILED"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := run(t, t.Context(), Job{Buildspec: spec(tt.spec)})
			if o.phaseLine() != tt.want || o.status != tt.status {
				t.Errorf("%s: %s\nwant %s: %s\n%s", o.status, o.phaseLine(), tt.status, tt.want, o.log)
			}
		})
	}
}

func TestCommands(t *testing.T) {
	for _, shell := range []string{"/bin/sh", "bash"} {
		t.Run(shell, func(t *testing.T) {
			o := run(t, t.Context(), Job{Source: source(t, map[string]string{"sub/x": ""}),
				Env: []EnvVar{{Name: "OVER", Value: "project"}, {Name: "QUOTED", Value: "it's \"a\"\n$b `c`"}},
				Buildspec: `version: 0.2
env:
  shell: ` + shell + `
  variables: {OVER: spec, LITERAL: "$HOME"}
  exported-variables: [RESULT, ABSENT]
phases:
  install:
    commands:
      - export RESULT="multi
        line" ; LOCAL=lost
      - cd sub
  build:
    commands:
      - echo "[$OVER][$LITERAL][$RESULT][$LOCAL][$(basename $PWD)][$CODEBUILD_BUILD_SUCCEEDING][$QUOTED]"
      - |
        echo one
        echo two >&2
      - printf 'no end'
      - unset OVER
      - echo "unset:[$OVER]" ; exit 0
      - syntax error (
      - echo not reached
    finally:
      - echo "succeeding=$CODEBUILD_BUILD_SUCCEEDING in $(basename $PWD)"
  post_build:
    commands: ['echo "post=$CODEBUILD_BUILD_SUCCEEDING"']
`})
			for _, want := range []string{"[project][$HOME][multi line][][sub][1][it's \"a\"\n$b `c`]\n", "one\ntwo\n", "no end\n", "unset:[]\n",
				"succeeding=0 in sub\n", "post=0\n", " Running command syntax error (\n", "Command did not exit successfully syntax error ( exit status 2\n",
				" Phase complete: BUILD State: FAILED\n", "Phase context status code: COMMAND_EXECUTION_ERROR Message: Error while executing command: syntax error (. Reason: exit status 2\n",
				" INSTALL: 2 commands\n", " BUILD: 7 commands\n", "Phases found in YAML: 3\n", "Entering phase PRE_BUILD\n", "script.sh: "} {
				if !strings.Contains(o.log, want) {
					t.Errorf("the log lacks %q", want)
				}
			}
			if !strings.Contains(o.log, "script.sh: line 4") && !strings.Contains(o.log, "script.sh: 4") {
				t.Error("the command does not start in line 4")
			}
			if strings.Contains(o.log, "not reached\n") && strings.Contains(o.log, "Running command echo not reached") {
				t.Error("a command ran after a failed one")
			}
			if c := o.contexts("BUILD"); len(c) != 1 || c[0] != (Context{CodeCommandError, "Error while executing command: syntax error (. Reason: exit status 2"}) {
				t.Errorf("contexts %+v", c)
			}
			for _, e := range o.events {
				if e.Type == EventExported && fmt.Sprint(e.Exported) != "[{RESULT multi line }]" {
					t.Errorf("exported %v", e.Exported)
				}
			}
			if t.Failed() {
				t.Log(o.log)
			}
		})
	}
}

func TestVersion01(t *testing.T) {
	o := run(t, t.Context(), Job{Source: source(t, map[string]string{"sub/x": ""}),
		Buildspec: "version: 0.1\nphases:\n  build:\n    commands:\n      - cd sub; export A=1\n      - echo \"[$A][$(ls)]\"\n"})
	if !strings.Contains(o.log, "[][sub]\n") {
		t.Error(o.log)
	}
}

func TestStopAndTimeout(t *testing.T) {
	job := Job{Buildspec: spec("phases:\n  build:\n    commands: ['echo started; sleep 60']\n    finally: ['echo never']\n")}
	t.Run("timeout", func(t *testing.T) {
		j := job
		j.TimeoutSeconds = 4 // the phases before it have to fit in
		start := time.Now()
		o := run(t, t.Context(), j)
		if o.status != StatusTimedOut || !strings.HasSuffix(o.phaseLine(), "BUILD TIMED_OUT, FINALIZING SUCCEEDED") || strings.Contains(o.log, "never\n") {
			t.Errorf("%s %s\n%s", o.status, o.phaseLine(), o.log)
		}
		if time.Since(start) > 50*time.Second {
			t.Error("the sleeping command was not ended")
		}
	})
	t.Run("stop", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		o := run(t, ctx, job, &reached{text: `started\n"`, f: cancel})
		if o.status != StatusStopped || !strings.HasSuffix(o.phaseLine(), "BUILD STOPPED, FINALIZING SUCCEEDED") {
			t.Errorf("%s %s", o.status, o.phaseLine())
		}
	})
}

func TestArtifacts(t *testing.T) {
	src := source(t, map[string]string{"app.py": "x", "scripts/a.sh": "#!/bin/sh", "scripts/deep/b.sh": "b", "scripts/skip.log": "l",
		"docs/index.html": "h", ".env": "e", "docs/img/i.png": "p", "dist-1/one": "1", "dist-2/two": "2"})
	os.Symlink("app.py", filepath.Join(src.Dir, "link.py"))
	tests := []struct {
		name, block, want string
	}{
		{"list", "files: [app.py, 'scripts/**/*', missing.txt]", "app.py scripts/a.sh scripts/deep/b.sh scripts/skip.log"},
		{"one level", "files: ['scripts/*']", "scripts/a.sh scripts/skip.log"},
		{"exclude", "files: ['scripts/**/*']\n  exclude-paths: ['**/*.log', 'scripts/deep/**/*']", "scripts/a.sh"},
		{"base", "files: ['**/*']\n  base-directory: docs", "img/i.png index.html"},
		{"base pattern", "files: ['**/*']\n  base-directory: 'dist*'", "one two"},
		{"discard", "files: ['docs/**/*']\n  discard-paths: yes", "i.png index.html"},
		{"dot files", "files: ['.e*', './app.py']", ".env app.py"},
		{"nothing", "files: [nope]", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := run(t, t.Context(), Job{Source: src, Artifacts: &Artifact{Type: "CODEPIPELINE", OverrideName: true},
				Env:       []EnvVar{{Name: "V", Value: "7"}},
				Buildspec: spec("phases: {build: {commands: ['true']}}\nartifacts:\n  name: out-$V-$(echo sub)\n  " + tt.block + "\n")})
			p := packed(o)
			if tt.want == "" {
				if c := o.contexts(PhaseUploadArtifacts); p != nil || len(c) != 1 || c[0].Message != "no matching artifact paths found" || c[0].StatusCode != CodeClientError {
					t.Errorf("%v %v", p, c)
				}
				return
			}
			if p == nil {
				t.Fatal(o.log)
			}
			z, err := zip.OpenReader(p.Path)
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			var names []string
			for _, f := range z.File {
				names = append(names, f.Name)
				if strings.HasSuffix(f.Name, "a.sh") && f.Mode().Perm() != 0o755 {
					t.Errorf("mode %v", f.Mode())
				}
			}
			if got := strings.Join(names, " "); got != tt.want || p.Name != "out-7-sub" || p.Files != len(names) || p.SHA256 == "" {
				t.Errorf("%+v has %q, want %q", p, got, tt.want)
			}
		})
	}
}

func packed(o outcome) *PackedArtifact {
	for _, e := range o.events {
		if e.Type == EventArtifact {
			return e.Artifact
		}
	}
	return nil
}

func TestSecondaryArtifactsAndLinks(t *testing.T) {
	src := source(t, map[string]string{"a": "A", "b": "B"})
	os.Symlink("a", filepath.Join(src.Dir, "l"))
	o := run(t, t.Context(), Job{Source: src, Artifacts: &Artifact{Type: "NO_ARTIFACTS"},
		SecondaryArtifacts: []Artifact{{Identifier: "one", Type: "S3"}, {Identifier: "two", Type: "S3", Packaging: "ZIP"}, {Identifier: "gone", Type: "S3"}},
		Buildspec:          spec("phases: {build: {commands: ['true']}}\nartifacts:\n  files: [x]\n  secondary-artifacts:\n    one: {files: [a, l], enable-symlinks: yes}\n    two: {files: [b]}\n")})
	p := packed(o)
	if target, err := os.Readlink(filepath.Join(p.Path, "l")); err != nil || target != "a" || p.Identifier != "one" || p.Packaging != "NONE" {
		t.Errorf("%+v %v", p, err)
	}
	if c := o.contexts(PhaseUploadArtifacts); len(c) != 1 || c[0].Message != "no matching artifact paths found for artifact gone" {
		t.Errorf("%v", c)
	}
}

// TestSourceAndSecrets fetches a zip from S3 and values from the parameter store, and masks them.
func TestSourceAndSecrets(t *testing.T) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, _ := z.Create("buildspec.yml")
	io.WriteString(w, "version: 0.2\nenv:\n  parameter-store: {TOKEN: /app/token}\n  secrets-manager: {PW: 'db:password'}\n  exported-variables: [TOKEN, P]\nphases:\n  build:\n    commands:\n      - echo \"token=$TOKEN pw=$PW len=${#TOKEN}\"\n      - printf 'hun'; sleep 0.5; printf 'ter2secret'\n      - echo $P\n")
	z.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet && r.URL.Path == "/bkt/src.zip":
			w.Write(b.Bytes())
		case r.Header.Get("X-Amz-Target") == "AmazonSSM.GetParameters":
			io.WriteString(w, `{"Parameters":[{"Name":"/app/token","Value":"hunter2secret"},{"Name":"/proj","Value":"projsecret"}]}`)
		case r.Header.Get("X-Amz-Target") == "secretsmanager.GetSecretValue":
			io.WriteString(w, `{"SecretString":"{\"password\":\"s3cr3t\"}"}`)
		default:
			t.Errorf("unexpected %s %s", r.Method, r.URL)
		}
	}))
	defer srv.Close()
	o := run(t, t.Context(), Job{Source: Source{Bucket: "bkt", Key: "src.zip"}, Endpoint: srv.URL, Region: "us-east-1",
		Env: []EnvVar{{Name: "P", Value: "/proj", Type: EnvParameterStore}}, Credentials: &Credentials{AccessKeyID: "AKID", SecretAccessKey: "s"}})
	if o.status != StatusSucceeded || !strings.Contains(o.log, "token=*** pw=*** len=13\n") {
		t.Errorf("%s\n%s", o.status, o.log)
	}
	for _, secret := range []string{"hunter2secret", "s3cr3t", "projsecret"} {
		if strings.Contains(o.log, secret) {
			t.Errorf("the log shows %s:\n%s", secret, o.log)
		}
	}
	for _, e := range o.events {
		if e.Type == EventExported && (len(e.Exported) != 1 || e.Exported[0].Name != "TOKEN") {
			t.Errorf("exported %v", e.Exported)
		}
	}
}

func TestReports(t *testing.T) {
	o := run(t, t.Context(), Job{Source: source(t, map[string]string{"r/junit.xml": `<?xml version="1.0"?><testsuites><testsuite name="s" tests="4">
<testcase name="ok" classname="c" time="0.25"/><testcase name="bad" time="1"><failure message="want 1">trace</failure></testcase>
<testcase name="skip"><skipped/></testcase><testcase name="err"><error>boom</error></testcase></testsuite></testsuites>`, "r/broken.xml": "<testsuite>"}),
		Buildspec: spec("phases: {build: {commands: ['true']}}\nreports:\n  unit:\n    files: ['*.xml']\n    base-directory: r\n  cov:\n    files: [x]\n    file-format: CLOVERXML\n")})
	var rep *Report
	for _, e := range o.events {
		if e.Type == EventReport {
			rep = e.Report
		}
	}
	if rep == nil || rep.Group != "proj-unit" || rep.Status != "FAILED" || rep.Total != 4 || rep.Cases[1].Message != "want 1\ntrace" || rep.Cases[1].Prefix != "s" ||
		rep.Cases[0].DurationNs != 250e6 || rep.Counts["ERROR"] != 1 || rep.Counts["SKIPPED"] != 1 || len(rep.Problems) != 1 {
		t.Errorf("%+v", rep)
	}
	if o.status != StatusSucceeded || !strings.Contains(o.log, "the format CLOVERXML is not supported yet") {
		t.Error(o.log)
	}
}

func TestCache(t *testing.T) {
	cache := t.TempDir()
	job := Job{CacheDir: cache, Buildspec: spec("phases:\n  build:\n    commands: ['cat node_modules/n 2>/dev/null || echo cold; mkdir -p node_modules; echo warm > node_modules/n']\ncache:\n  paths: ['node_modules/**/*', '/usr/**/*', '/etc']\n")}
	for _, want := range []string{"cold\n", "warm\n"} {
		o := run(t, t.Context(), job)
		if !strings.Contains(o.log, "\n"+want) || !strings.Contains(o.log, "/usr cannot be cached") || !strings.Contains(o.log, "/etc cannot be cached") {
			t.Errorf("want %q in\n%s", want, o.log)
		}
	}
}

func TestRunAs(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: run-as changes the user")
	}
	src := source(t, map[string]string{"x": ""})
	for d := src.Dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		os.Chmod(d, 0o755)
	}
	o := run(t, t.Context(), Job{Source: src, Buildspec: spec("phases:\n  install:\n    run-as: nobody\n    commands: ['export WHO=$(id -un)', 'echo \"as $(id -un) home $HOME\"']\n  build:\n    commands: ['echo \"then $(id -un) home $HOME who $WHO\"']\n  post_build:\n    run-as: nosuchuser\n    commands: ['true']\n")})
	if !strings.Contains(o.log, "as nobody home /nonexistent\n") || !strings.Contains(o.log, "then root home /root who nobody\n") {
		t.Error(o.log)
	}
	if c := o.contexts(PhasePostBuild); len(c) != 1 || !strings.Contains(c[0].Message, `there is no user "nosuchuser"`) {
		t.Errorf("%v", c)
	}
}

func TestBackgroundProcess(t *testing.T) {
	start := time.Now()
	o := run(t, t.Context(), Job{Buildspec: spec("phases:\n  build:\n    commands: ['sleep 61 & echo $! > bg', 'kill -0 $(cat bg) && echo alive']\n  post_build:\n    commands: ['cp bg /proc/self/fd/1']\n")})
	if o.status != StatusFailed && o.status != StatusSucceeded || !strings.Contains(o.log, "alive\n") || time.Since(start) > 50*time.Second {
		t.Errorf("%s after %s\n%s", o.status, time.Since(start), o.log)
	}
}

func TestFollow(t *testing.T) {
	var b bytes.Buffer
	name := filepath.Join(t.TempDir(), "events")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done := make(chan error, 1)
	go func() { done <- follow(t.Context(), name, 2, &b) }()
	e := newEmitter(f)
	for _, ev := range []Event{{Type: EventLog, Log: "one"}, {Type: EventLog, Log: "two"}, {Type: EventDone, Status: "SUCCEEDED"}} {
		e.emit(ev)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := b.String(); strings.Contains(got, `"one"`) || !strings.Contains(got, "two") || strings.Count(got, "\n") != 2 {
		t.Error(got)
	}
}
