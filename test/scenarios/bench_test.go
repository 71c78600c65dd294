package scenarios

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBench prints the figures of the main job. They are figures, not checks:
// a slow machine fails nothing here. Run it alone: make bench.
func TestBench(t *testing.T) {
	if os.Getenv("BENCH") == "" {
		t.Skip("figures, not checks: run make bench")
	}
	w := newWorld(t)
	fi, err := os.Stat(w.bin)
	if err != nil {
		t.Fatal(err)
	}
	figure(t, "binary size", "%.1f MiB", float64(fi.Size())/(1<<20))
	benchStart(t, w)
	began := time.Now()
	if out, err := w.up(example); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	figure(t, "first up, empty build cache", "%.1f s", time.Since(began).Seconds())
	figure(t, "server memory with the stack", "%.1f MiB", rss(t, w.server()))
	benchPush(t, w)
	benchKill(t, w)
	benchAgents(t, w)
}

func figure(t *testing.T, what, format string, v ...any) {
	t.Helper()
	t.Logf("%-58s %s", what, fmt.Sprintf(format, v...))
}

// median is the middle of some measurements.
func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func benchStart(t *testing.T, w *world) {
	var took []time.Duration
	for range 5 {
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		cmd := exec.CommandContext(ctx, w.bin, "--data-dir", w.dir, "server", "--listen", strings.TrimPrefix(w.endpoint, "http://"), "--lb-address", w.lb)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		logged := filepath.Join(t.TempDir(), "log")
		f, err := os.Create(logged)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = f, f
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for {
			res, err := http.Get(w.endpoint + "/_slipway/health")
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
				break
			}
			if time.Since(began) > time.Minute {
				b, _ := os.ReadFile(logged)
				t.Fatalf("server %d does not start: %v\n%s", len(took)+1, err, b)
			}
			time.Sleep(time.Millisecond)
		}
		took = append(took, time.Since(began))
		if len(took) == 5 {
			time.Sleep(2 * time.Second) // idle means after its first work
			figure(t, "server memory, idle (target < 60 MiB)", "%.1f MiB", rss(t, cmd.Process.Pid))
		}
		cancel()
		cmd.Wait()
		f.Close()
	}
	figure(t, "server start to ready, median of 5 (target < 300 ms)", "%d ms", median(took).Milliseconds())
}

// rss is the resident memory of a process in MiB.
func rss(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb float64
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "VmRSS: %f kB", &kb)
	}
	return kb / 1024
}

// benchPush measures from git push to both instances serving the commit.
func benchPush(t *testing.T, w *world) {
	var took []time.Duration
	var own []float64
	p := newPoller(t, w)
	for i := range 3 {
		began := time.Now()
		commit := w.push(fmt.Sprint("Change ", i), func(dir string) { w.write(dir, "config/bench.txt", fmt.Sprint(i)) })
		p.ended(commit)
		if v, on := w.versions(10); v[commit] != 10 || len(on) != 2 {
			t.Fatalf("served %v on %v", v, on)
		}
		took = append(took, time.Since(began))
		if status := w.pipeline(commit); status != "Succeeded" {
			t.Fatalf("pipeline %s", status)
		}
		phases(t, w)
		own = append(own, overhead(t, w, w.pushed, commit))
	}
	figure(t, "push to live on both instances, warm cache, median of 3 (target < 10 s)", "%.2f s", median(took).Seconds())
	slices.Sort(own)
	figure(t, "  of which Slipway's own, without the build's commands and the deployment's scripts (target < 1 s)", "%.2f s", own[len(own)/2])
}

// phases prints where the time of the newest execution went.
func phases(t *testing.T, w *world) {
	ids := w.aws("codebuild", "list-builds-for-project", "--project-name", "todo")["ids"].([]any)
	for _, b := range list(w.aws("codebuild", "batch-get-builds", "--ids", ids[0].(string)), "builds") {
		line := ""
		for _, p := range list(b, "phases") {
			if p["endTime"] != nil {
				line += fmt.Sprintf(" %v %.2f", p["phaseType"], seconds(t, p["endTime"])-seconds(t, p["startTime"]))
			}
		}
		figure(t, "  build phases in seconds", "%s", line)
	}
	out := w.aws("deploy", "list-deployments", "--application-name", "todo", "--deployment-group-name", "todo")
	info := w.aws("deploy", "get-deployment", "--deployment-id", out["deployments"].([]any)[0].(string))["deploymentInfo"].(map[string]any)
	figure(t, "  deployment in seconds", "%.2f", seconds(t, info["completeTime"])-seconds(t, info["createTime"]))
}

// benchKill measures from the death of an instance to its replacement in
// service and healthy.
func benchKill(t *testing.T, w *world) {
	var took []time.Duration
	p := newPoller(t, w)
	for range 3 {
		ids := w.instances()
		began := time.Now()
		w.slipway("kill", ids[0])
		w.wait(time.Minute, "the replacement of "+ids[0], func() (bool, string) {
			_, on := w.tryVersions(6)
			return len(on) == 2 && !on[ids[0]] && p.replaced(ids[0], 2), fmt.Sprint(on)
		})
		took = append(took, time.Since(began))
	}
	figure(t, "kill of an instance to its replacement serving, median of 3 (target < 3 s)", "%.2f s", median(took).Seconds())
}

// tryVersions is versions without a verdict: who answers at all.
func (w *world) tryVersions(n int) (failed int, on map[string]bool) {
	on = map[string]bool{}
	for range n {
		res, err := http.Get(w.url + "/healthz")
		if err != nil {
			failed++
			continue
		}
		io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if res.StatusCode == 200 {
			on[res.Header.Get("X-Served-By")] = true
		} else {
			failed++
		}
	}
	return failed, on
}
