// Package clients uses the built binary as people and their tools do: the aws
// command line, boto3, plain HTTP, and slipway's own commands given wrong
// input. Instances are simulated, so it needs no root; it needs SLIPWAY=path
// of the binary.
package clients

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the program under test.
func binary(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("SLIPWAY")
	if bin == "" {
		t.Skip("needs SLIPWAY=path of the built binary: run make scenarios")
	}
	abs, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func needProgram(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s: install it to run this test", name)
	}
}

// server is a running slipway of this test alone.
type server struct {
	t        *testing.T
	dir      string
	endpoint string
	key      string
	secret   string
	cmd      *exec.Cmd
	log      *logBuffer
	died     chan struct{}
}

// logBuffer keeps what a process writes while others read it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a server without machines on a free port, and stops it with the
// test.
func start(t *testing.T, flags ...string) *server {
	t.Helper()
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "data"), log: &logBuffer{}, died: make(chan struct{})}
	args := append([]string{"server", "--data-dir", s.dir, "--machines=simulated", "--ephemeral", "--listen", "127.0.0.1:0"}, flags...)
	s.cmd = exec.Command(binary(t), args...)
	s.cmd.Stderr, s.cmd.Stdout = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.died) }()
	t.Cleanup(s.stop)
	var run struct {
		PID      int
		Endpoint string
	}
	s.wait("the server to be ready", func() bool {
		b, err := os.ReadFile(filepath.Join(s.dir, "server.json"))
		return err == nil && json.Unmarshal(b, &run) == nil && run.PID == s.cmd.Process.Pid
	})
	s.endpoint = run.Endpoint
	var keys struct{ AccessKeyId, SecretAccessKey string }
	b, err := os.ReadFile(filepath.Join(s.dir, "root-credentials.json"))
	if err == nil {
		err = json.Unmarshal(b, &keys)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.key, s.secret = keys.AccessKeyId, keys.SecretAccessKey
	return s
}

// wait polls until ok; a server that ends meanwhile fails the test.
func (s *server) wait(what string, ok func() bool) {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		select {
		case <-s.died:
			s.t.Fatalf("the server ended:\n%s", s.log)
		case <-time.After(3 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waited in vain for %s\n%s", what, s.log)
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.died:
	case <-time.After(time.Minute):
		s.cmd.Process.Kill()
		s.t.Errorf("the server did not end when it was asked to")
	}
	if wrong := errorLines(s.log.String(), strings.HasSuffix(s.t.Name(), "/reset")); wrong != "" {
		s.t.Errorf("the server's log has errors:\n%s", wrong)
	}
}

func errorLines(log string, reset bool) string {
	var out []string
	for l := range strings.Lines(log) {
		failed := strings.Contains(l, "level=ERROR")
		if failed && strings.Contains(l, "simulated machines run no builds") {
			failed = false // what the build's owner is told, rightly
		}
		// A reset takes the rows away from under work that is going on; who
		// then misses a row says so, and that is no mistake.
		if failed && reset && strings.Contains(l, "store: not found") {
			failed = false
		}
		if failed || strings.Contains(l, "panic") {
			out = append(out, l)
		}
	}
	return strings.Join(out[:min(len(out), 20)], "")
}

// env is what a person's shell has after eval "$(slipway env)", with a home of
// its own, so that no file of whoever runs the test matters.
func (s *server) env(more ...string) []string {
	home := filepath.Dir(s.dir)
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "LC_ALL=C.UTF-8", "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL=" + s.endpoint, "AWS_ACCESS_KEY_ID=" + s.key, "AWS_SECRET_ACCESS_KEY=" + s.secret,
		"AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_MAX_ATTEMPTS=1", "AWS_CLI_HISTORY=disabled",
	}, more...)
}

// run runs a program with this server's environment.
func (s *server) run(name string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = s.env()
	cmd.Dir = filepath.Dir(s.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// aws runs the aws command line, and decodes what it prints.
func (s *server) aws(args ...string) map[string]any {
	s.t.Helper()
	out, stderr, err := s.run("aws", append([]string{"--endpoint-url", s.endpoint, "--output", "json"}, args...)...)
	if err != nil {
		s.t.Fatalf("aws %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	m := map[string]any{}
	if strings.TrimSpace(out) != "" {
		if err := json.Unmarshal([]byte(out), &m); err != nil {
			s.t.Fatalf("aws %s printed no JSON: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return m
}

// awsRefuses runs a command that must fail with an AWS error code.
func (s *server) awsRefuses(code string, args ...string) {
	s.t.Helper()
	out, stderr, err := s.run("aws", append([]string{"--endpoint-url", s.endpoint}, args...)...)
	if err == nil {
		s.t.Errorf("aws %s: want %s, it printed %s", strings.Join(args, " "), code, out)
	} else if !strings.Contains(stderr, "("+code+")") {
		s.t.Errorf("aws %s: want %s, got %s", strings.Join(args, " "), code, strings.TrimSpace(stderr))
	}
}

// python runs a script of testdata with boto3.
func (s *server) python(script string) {
	s.t.Helper()
	needProgram(s.t, "python3")
	if err := exec.Command("python3", "-c", "import boto3").Run(); err != nil {
		s.t.Skip("needs boto3: pip install boto3")
	}
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		s.t.Fatal(err)
	}
	out, stderr, err := s.run("python3", "-B", path)
	if err != nil {
		s.t.Errorf("%s: %v\n%s%s", script, err, out, stderr)
	}
}

// at walks decoded JSON: names for objects, numbers for arrays.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for i, p := range path {
		ok := false
		switch p := p.(type) {
		case string:
			var m map[string]any
			if m, ok = v.(map[string]any); ok {
				v, ok = m[p]
			}
		case int:
			var l []any
			if l, ok = v.([]any); ok && p < len(l) {
				v = l[p]
			} else {
				ok = false
			}
		}
		if !ok {
			b, _ := json.Marshal(v)
			t.Fatalf("no %v in %s", path[:i+1], b)
		}
	}
	return v
}

func text(t *testing.T, v any, path ...any) string {
	t.Helper()
	return fmt.Sprint(at(t, v, path...))
}
