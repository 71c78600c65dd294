// Package scenarios runs the real thing: the built binary, real namespaces,
// real git and the aws command line, in a data directory of its own. It needs
// root, and SLIPWAY=path of the binary (make scenarios sets it).
package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// world is one running Slipway with the Todo application on it.
type world struct {
	t        *testing.T
	bin      string
	dir      string // data directory
	endpoint string
	lb       string // address of the first load balancer
	url      string
	clone    string
	env      []string
	flags    []string  // more flags of the server
	pushed   time.Time // when the last push began
}

// need skips where the real thing cannot run, saying what is missing.
func need(t *testing.T) string {
	t.Helper()
	bin := os.Getenv("SLIPWAY")
	switch {
	case bin == "":
		t.Skip("needs SLIPWAY=path of the built binary: run make scenarios")
	case os.Getuid() != 0:
		t.Skip("needs root: instances are namespaces")
	}
	for _, p := range []string{"git", "nginx", "ip", "aws"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Fatalf("%s is missing: run bash .ci/run, which installs it", p)
		}
	}
	return bin
}

// newWorld picks addresses that nobody uses; nothing runs yet. At the end of
// the test everything is stopped, and what is left behind is an error.
func newWorld(t *testing.T) *world {
	bin := need(t)
	base, err := os.MkdirTemp("", "slipway-scenario-")
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	w := &world{t: t, bin: bin, dir: filepath.Join(base, "data"), endpoint: fmt.Sprintf("http://127.0.0.1:%d", port), lb: fmt.Sprintf("127.%d.%d.1", 64+port>>8&0x3f, port&0xff&^1)}
	w.url = "http://" + w.lb + ":8080"
	w.clone = filepath.Join(base, "app")
	t.Cleanup(func() {
		if t.Failed() {
			w.dump()
		}
		if _, err := os.Stat(w.dir); err == nil {
			w.slipway("down", "--purge")
		}
		if err := os.RemoveAll(base); err != nil {
			t.Errorf("data directory: %v", err)
		}
		// A process that was killed may take a moment until it is reaped.
		var left []string
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if left = leftovers(t, w.dir); len(left) == 0 {
				break
			}
		}
		for _, what := range left {
			t.Errorf("left behind: %s", what)
		}
	})
	return w
}

// freePort is one that nobody listens at. It is below those that the kernel
// gives to connections: while the server is killed, nobody comes to have it.
func freePort(t *testing.T) int {
	t.Helper()
	var err error
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", port)); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal(err)
	return 0
}

// dump shows what helps to understand a failure.
func (w *world) dump() {
	b, _ := os.ReadFile(filepath.Join(w.dir, "server.log"))
	lines := strings.Split(string(b), "\n")
	w.t.Logf("server.log ends:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
	out, _ := w.try("status")
	w.t.Logf("status:\n%s", out)
}

func (w *world) try(args ...string) (string, error) {
	cmd := exec.Command(w.bin, append([]string{"--data-dir", w.dir}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (w *world) slipway(args ...string) string {
	w.t.Helper()
	out, err := w.try(args...)
	if err != nil {
		w.t.Fatalf("slipway %v: %v\n%s", args, err, out)
	}
	return out
}

// up deploys a directory, with this world's addresses.
func (w *world) up(dir string, more ...string) (string, error) {
	args := append([]string{"up", dir, "--listen", strings.TrimPrefix(w.endpoint, "http://"), "--lb-address", w.lb}, w.flags...)
	return w.try(append(args, more...)...)
}

// loadEnv reads what slipway env prints, as a shell would.
func (w *world) loadEnv() {
	w.t.Helper()
	out, err := exec.Command("sh", "-c", `eval "$("$0" --data-dir "$1" env)"; env -0`, w.bin, w.dir).Output()
	if err != nil {
		w.t.Fatal(err)
	}
	w.env = strings.Split(strings.TrimRight(string(out), "\x00"), "\x00")
}

func (w *world) aws(args ...string) map[string]any {
	w.t.Helper()
	out, err := w.tryAWS(args...)
	if err != nil {
		w.t.Fatalf("aws %v: %v\n%s", args, err, out)
	}
	m := map[string]any{}
	if len(bytes.TrimSpace(out)) > 0 {
		if err := json.Unmarshal(out, &m); err != nil {
			w.t.Fatalf("aws %v: %v\n%s", args, err, out)
		}
	}
	return m
}

func (w *world) tryAWS(args ...string) ([]byte, error) {
	if w.env == nil {
		w.loadEnv()
	}
	// Older versions do not know AWS_ENDPOINT_URL.
	cmd := exec.Command("aws", append(args, "--output", "json", "--endpoint-url", w.endpoint)...)
	cmd.Env = append(w.env, "AWS_PAGER=", "AWS_EC2_METADATA_DISABLED=true")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return stderr.Bytes(), err
	}
	return out, nil
}

// git runs git in the clone.
func (w *world) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = w.clone
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=dev", "GIT_AUTHOR_EMAIL=dev@example.com", "GIT_COMMITTER_NAME=dev", "GIT_COMMITTER_EMAIL=dev@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// push changes a file in the clone and pushes it; it returns the commit.
func (w *world) push(message string, edit func(dir string)) string {
	w.t.Helper()
	if _, err := os.Stat(w.clone); err != nil {
		w.slipway("clone", "todo", w.clone)
	}
	edit(w.clone)
	w.git("add", "-A")
	w.git("commit", "-q", "--allow-empty", "-m", message)
	w.pushed = time.Now()
	w.git("push", "-q", "slipway", "HEAD:main")
	return w.git("rev-parse", "HEAD")
}

func (w *world) write(dir, name, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// wait polls until ok, for at most limit.
func (w *world) wait(limit time.Duration, what string, ok func() (bool, string)) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		done, state := ok()
		if done {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("waited %v for %s; now: %s", limit, what, state)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// execution is the newest execution of the pipeline whose source is commit.
func (w *world) execution(commit string) (status, id string) {
	out := w.aws("codepipeline", "list-pipeline-executions", "--pipeline-name", "todo")
	for _, e := range list(out, "pipelineExecutionSummaries") {
		for _, r := range list(e, "sourceRevisions") {
			if r["revisionId"] == commit {
				return e["status"].(string), e["pipelineExecutionId"].(string)
			}
		}
	}
	return "", ""
}

// pipeline waits for the execution of a commit to end, and returns how.
func (w *world) pipeline(commit string) string {
	w.t.Helper()
	var status string
	w.wait(10*time.Minute, "the pipeline of "+commit, func() (bool, string) {
		status, _ = w.execution(commit)
		switch status {
		case "Succeeded", "Failed", "Stopped", "Superseded":
			return true, status
		}
		return false, status
	})
	return status
}

// versions asks the application n times and counts who answered with what.
func (w *world) versions(n int) (byVersion, byInstance map[string]int) {
	w.t.Helper()
	byVersion, byInstance = map[string]int{}, map[string]int{}
	for range n {
		res, err := http.Get(w.url + "/healthz")
		if err != nil {
			w.t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode != 200 {
			w.t.Fatalf("the application answers %s", res.Status)
		}
		byVersion[res.Header.Get("X-Todo-Version")]++
		byInstance[res.Header.Get("X-Served-By")]++
	}
	return byVersion, byInstance
}

// instances are the ids of the group's instances in service.
func (w *world) instances() []string {
	w.t.Helper()
	out := w.aws("autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", "todo")
	var ids []string
	for _, g := range list(out, "AutoScalingGroups") {
		for _, i := range list(g, "Instances") {
			if i["LifecycleState"] == "InService" {
				ids = append(ids, i["InstanceId"].(string))
			}
		}
	}
	return ids
}

// healthy counts targets that take traffic.
func (w *world) healthy() int {
	w.t.Helper()
	tgs := w.aws("elbv2", "describe-target-groups", "--names", "todo")
	arn := list(tgs, "TargetGroups")[0]["TargetGroupArn"].(string)
	n := 0
	for _, h := range list(w.aws("elbv2", "describe-target-health", "--target-group-arn", arn), "TargetHealthDescriptions") {
		if h["TargetHealth"].(map[string]any)["State"] == "healthy" {
			n++
		}
	}
	return n
}

func list(m map[string]any, key string) []map[string]any {
	var out []map[string]any
	items, _ := m[key].([]any)
	for _, i := range items {
		if mm, ok := i.(map[string]any); ok {
			out = append(out, mm)
		}
	}
	return out
}

// server is what the server says of itself in its data directory.
func (w *world) server() (pid int) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "server.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var run struct{ PID int }
	if err := json.Unmarshal(b, &run); err != nil {
		w.t.Fatal(err)
	}
	return run.PID
}

// killServer ends the server with SIGKILL and waits until it is gone. The
// first of its threads may be gone, and the process a zombie, while another
// one still ends: only then is its port free.
func (w *world) killServer() {
	w.t.Helper()
	pid := w.server()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		w.t.Fatal(err)
	}
	w.wait(time.Minute, "the server to be gone", func() (bool, string) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err == nil && !strings.Contains(string(b), ") Z ") {
			return false, string(b)
		}
		l, err := net.Listen("tcp", strings.TrimPrefix(w.endpoint, "http://"))
		if err != nil {
			return false, err.Error()
		}
		l.Close()
		return true, ""
	})
}

// startServer starts the server again as it was.
func (w *world) startServer(ctx context.Context) {
	w.t.Helper()
	logFile, err := os.OpenFile(filepath.Join(w.dir, "server.log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		w.t.Fatal(err)
	}
	defer logFile.Close()
	cmd := exec.Command(w.bin, append([]string{"--data-dir", w.dir, "server", "--listen", strings.TrimPrefix(w.endpoint, "http://"), "--lb-address", w.lb}, w.flags...)...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go cmd.Wait()
	w.wait(2*time.Minute, "the server to be ready", func() (bool, string) {
		b, err := os.ReadFile(filepath.Join(w.dir, "server.json"))
		return err == nil && strings.Contains(string(b), fmt.Sprintf(`"pid":%d`, cmd.Process.Pid)), string(b)
	})
}

// event returns a channel that is closed when a row of this kind comes into
// this state. It reads the server's event stream: a deployment takes a second,
// which is less than the aws command line needs to look twice.
func (w *world) event(kind, state string) <-chan struct{} {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, "root-credentials.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	var keys struct{ AccessKeyId, SecretAccessKey string }
	if err := json.Unmarshal(b, &keys); err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.endpoint+"/_slipway/events", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.SetBasicAuth(keys.AccessKeyId, keys.SecretAccessKey)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		w.t.Fatalf("event stream: %s", res.Status)
	}
	seen := make(chan struct{})
	go func() {
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			var ev struct {
				Key   struct{ Kind string }
				State string
			}
			if ok && json.Unmarshal([]byte(data), &ev) == nil && ev.Key.Kind == kind && ev.State == state {
				close(seen)
				return
			}
		}
	}()
	return seen
}

// leftovers lists what exists on behalf of the installation in dir: mounts,
// links, control groups, directories under /run, and processes.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	sum := sha256.Sum256([]byte(filepath.Join(dir, "machines")))
	inst := hex.EncodeToString(sum[:4])
	var out []string
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, inst) || strings.Contains(line, dir) {
			out = append(out, "mount "+line)
		}
	}
	for _, pattern := range []string{"/sys/class/net/*" + inst + "*", "/run/*" + inst + "*", "/run/netns/*" + inst + "*", "/dev/shm/*" + inst + "*", "/sys/fs/cgroup/*" + inst + "*", "/sys/fs/cgroup/*/*" + inst + "*"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, found...)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		args, _ := os.ReadFile(p)
		group, _ := os.ReadFile(filepath.Join(filepath.Dir(p), "cgroup"))
		if strings.Contains(string(args), dir) || strings.Contains(string(group), inst) {
			out = append(out, "process "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return out
}
