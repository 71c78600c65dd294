package codedeploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func bundle(dest, version string) map[string]string {
	return map[string]string{
		"appspec.yml": "version: 0.0\nos: linux\nfiles:\n  - source: app\n    destination: " + dest + `
permissions:
  - object: ` + dest + `
    pattern: "**"
    mode: 640
    type: [file]
hooks:
  ApplicationStop:
    - location: scripts/say.sh
  AfterInstall:
    - location: scripts/say.sh
      timeout: 60
  ApplicationStart:
    - location: scripts/fail.sh
  ValidateService:
    - location: scripts/missing.sh
  AfterAllowTraffic:
    - location: scripts/hang.sh
      timeout: 2
`,
		"app/version.txt":         version,
		"app/sub/only-" + version: version,
		"scripts/say.sh":          "#!/bin/sh\necho \"$LIFECYCLE_EVENT of " + version + " in $PWD $DEPLOYMENT_ID $APPLICATION_NAME $DEPLOYMENT_GROUP_NAME $DEPLOYMENT_GROUP_ID $BUNDLE_BUCKET $BUNDLE_ETAG\" >> " + dest + ".out\n",
		"scripts/fail.sh":         "#!/bin/sh\necho working\necho broken >&2\nexit 3\n",
		"scripts/hang.sh":         "#!/bin/sh\ntrap '' TERM\nsleep 300 &\necho $! > " + dest + ".pid\nwait\nsleep 300\n",
	}
}

func TestDeployment(t *testing.T) {
	s := newService(t)
	root, dest := filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "dest", "app")
	s.start(root)
	one := s.deployment("d-ONE", bundle(dest, "one"), nil)
	two := s.deployment("d-TWO", bundle(dest, "two"), nil)
	os.MkdirAll(filepath.Dir(dest), 0o755)

	expect := func(execution, event, status string, code int, text string) diagnostics {
		t.Helper()
		st, d := s.event(execution, event)
		if st != status || d.ErrorCode != code || !strings.Contains(d.Message, text) {
			t.Fatalf("%s %s: %s %+v, want %s %d %q", execution, event, st, d, status, code, text)
		}
		return d
	}
	expect(one, "ApplicationStop", "Succeeded", 0, "Succeeded") // nothing installed yet
	if _, err := os.Stat(dest + ".out"); err == nil {
		t.Error("a first deployment ran an ApplicationStop script")
	}
	expect(one, "DownloadBundle", "Succeeded", 0, "")
	expect(one, "BeforeInstall", "Succeeded", 0, "")
	expect(one, "Install", "Succeeded", 0, "")
	expect(one, "AfterInstall", "Succeeded", 0, "")
	d := expect(one, "ApplicationStart", "Failed", 4, "Script at specified location: scripts/fail.sh failed with exit code 3")
	if d.ScriptName != "scripts/fail.sh" || !strings.HasPrefix(d.Log, "LifecycleEvent - ApplicationStart\nScript - scripts/fail.sh\n") ||
		!strings.Contains(d.Log, "[stdout]working\n") || !strings.Contains(d.Log, "[stderr]broken\n") {
		t.Errorf("diagnostics %+v", d)
	}
	expect(one, "ValidateService", "Failed", 1, "Script does not exist at specified location")
	expect(one, "AfterAllowTraffic", "Failed", 3, "failed to complete in 2 seconds")
	assertDead(t, dest+".pid")
	expect(one, "Install", "Succeeded", 0, "") // again: its own files are no conflict
	expect(one, "Explode", "Failed", 5, "unsupported command type: Explode")

	if got := read(t, dest+"/version.txt"); got != "one" {
		t.Errorf("installed %q", got)
	}
	if st, _ := os.Stat(dest + "/version.txt"); st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", st.Mode())
	}
	expect(two, "ApplicationStop", "Succeeded", 0, "")
	expect(two, "DownloadBundle", "Succeeded", 0, "")
	expect(two, "Install", "Succeeded", 0, "")
	expect(two, "AfterInstall", "Succeeded", 0, "")
	if got := read(t, dest+"/version.txt"); got != "two" {
		t.Errorf("installed %q", got)
	}
	if _, err := os.Stat(dest + "/sub/only-one"); err == nil {
		t.Error("a file of the previous revision is still there")
	}
	want := "AfterInstall of one in / d-ONE app grp 6a5d1c7e-group b \"etag1\"\n" +
		"ApplicationStop of one in / d-TWO app grp 6a5d1c7e-group b \"etag1\"\n" +
		"AfterInstall of two in / d-TWO app grp 6a5d1c7e-group b \"etag1\"\n"
	if got := read(t, dest+".out"); got != want {
		t.Errorf("scripts wrote\n%swant\n%s", got, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.acks[0] != `{"IsCommandNoop":true}` || s.acks[1] != `{"IsCommandNoop":false}` || s.acks[2] != `{"IsCommandNoop":true}` {
		t.Errorf("acks %v", s.acks)
	}
	for _, dir := range []string{"ongoing-deployment", "pending-results"} {
		empties(t, filepath.Join(root, dir))
	}
}

// empties waits for a directory to become empty: a result is dropped a moment after the service has it.
func empties(t *testing.T, dir string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		left, err := os.ReadDir(dir)
		if len(left) == 0 && err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v %v", dir, left, err)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func assertDead(t *testing.T, pidFile string) {
	t.Helper()
	pid := strings.TrimSpace(read(t, pidFile))
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("process %s of the script's group still runs", pid)
		}
	}
}

func TestBrokenSpecifications(t *testing.T) {
	s := newService(t)
	s.start(t.TempDir())
	ex := s.deployment("d-BAD", map[string]string{"appspec.yml": "x"}, nil)
	other := s.sign([]byte(`{"DeploymentId":"d-OTHER"}`))
	tests := []struct {
		name string
		env  envelope
		want string
	}{
		{"no pem", envelope{"PKCS7/JSON", "hello"}, "no PEM block"},
		{"unsigned", envelope{"TEXT/JSON", "{}"}, "developer mode"},
		{"format", envelope{"XML", "{}"}, "unknown format"},
		{"content changed", tamper(s.specs[ex]), "signature of the deployment specification is not valid"},
		{"fields missing", other, "DeploymentGroupId is missing"},
	}
	for _, tt := range tests {
		s.mu.Lock()
		s.specs[ex] = tt.env
		s.mu.Unlock()
		if st, d := s.event(ex, "DownloadBundle"); st != "Failed" || d.ErrorCode != 5 || !strings.Contains(d.Message, tt.want) {
			t.Errorf("%s: %s %+v", tt.name, st, d)
		}
	}
	if len(s.acks) != 0 {
		t.Errorf("acknowledged %v", s.acks)
	}
}

func tamper(e envelope) envelope {
	block, _ := pemDecode(e.Payload)
	at := strings.Index(string(block.Bytes), `"ApplicationName":"app"`)
	block.Bytes[at+len(`"ApplicationName":"`)] = 'A'
	return envelope{e.Format, pemEncode(block)}
}

// TestServiceAway has the service go away while a script runs; the result arrives when it is back.
func TestServiceAway(t *testing.T) {
	s := newService(t)
	root, dir := t.TempDir(), t.TempDir()
	ex := s.deployment("d-AWAY", map[string]string{
		"appspec.yml": "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: wait.sh\n",
		"wait.sh":     "#!/bin/sh\ntouch " + dir + "/running\nwhile [ ! -e " + dir + "/go ]; do sleep 0.02; done\n",
	}, nil)
	stop := s.start(root)
	if st, d := s.event(ex, "DownloadBundle"); st != "Succeeded" {
		t.Fatal(d)
	}
	s.queue <- hostCommand{HostCommandIdentifier: "cmd", HostIdentifier: host, DeploymentExecutionId: ex, CommandName: "BeforeInstall"}
	appears(t, dir+"/running")
	s.setDown(true)
	os.WriteFile(dir+"/go", nil, 0o644)
	pending := func() int { e, _ := os.ReadDir(filepath.Join(root, "pending-results")); return len(e) }
	for end := time.Now().Add(time.Minute); pending() != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the result is not kept on disk")
		}
	}
	stop() // the agent restarts while the service is away
	s.setDown(false)
	s.start(root)
	if st, d := s.result(); st != "Succeeded" || d.ErrorCode != 0 {
		t.Errorf("%s %+v", st, d)
	}
	empties(t, filepath.Join(root, "pending-results"))
}

func appears(t *testing.T, name string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(name); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not appear", name)
		}
	}
}

// TestKilled kills the agent's process with SIGKILL amid a script; the next one reports code 7.
func TestKilled(t *testing.T) {
	if os.Getenv("AGENT_TEST_ROOT") != "" {
		os.Exit(Main([]string{"--root", os.Getenv("AGENT_TEST_ROOT"), "--log-dir", os.Getenv("AGENT_TEST_ROOT") + "/log", "--host", host, "--region", "us-east-1"}))
	}
	s := newService(t)
	root, dir := t.TempDir(), t.TempDir()
	ex := s.deployment("d-KILL", map[string]string{
		"appspec.yml": "version: 0.0\nos: linux\nhooks:\n  BeforeInstall:\n    - location: wait.sh\n",
		"wait.sh":     "#!/bin/sh\necho $$ > " + dir + "/pid\nexec sleep 600\n",
	}, nil)
	run := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "AGENT_TEST_ROOT="+root, "AWS_ENDPOINT_URL="+s.url, "AWS_ACCESS_KEY_ID=AKID", "AWS_SECRET_ACCESS_KEY=secret")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	first := run()
	if st, d := s.event(ex, "DownloadBundle"); st != "Succeeded" {
		t.Fatal(d)
	}
	s.queue <- hostCommand{HostCommandIdentifier: "cmd-7", HostIdentifier: host, DeploymentExecutionId: ex, CommandName: "BeforeInstall"}
	appears(t, dir+"/pid")
	first.Process.Kill()
	first.Wait()
	second := run()
	defer func() { second.Process.Signal(os.Interrupt); second.Wait() }()
	st, d := s.result()
	if st != "Failed" || d.ErrorCode != 7 {
		t.Errorf("%s %+v", st, d)
	}
	if out, err := exec.Command("kill", strings.TrimSpace(read(t, dir+"/pid"))).CombinedOutput(); err != nil {
		t.Errorf("the orphaned script is gone already: %s", out) // as with AWS's agent it keeps running
	}
}
