package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// idleFor is how long the agents are watched; BENCH_IDLE is another duration.
func idleFor(t *testing.T) time.Duration {
	t.Helper()
	v := os.Getenv("BENCH_IDLE")
	if v == "" {
		return 5 * time.Minute
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("BENCH_IDLE: %v", err)
	}
	return d
}

// agents are the processes of slipway in an instance, by what they are, as the
// host sees them.
func agents(t *testing.T, instance string) map[string]int {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, dir := range dirs {
		group, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		args, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		pid := 0
		if !strings.Contains(string(group), instance) {
			continue
		}
		if _, err := fmt.Sscan(filepath.Base(dir), &pid); err != nil {
			t.Fatal(err)
		}
		switch line := strings.ReplaceAll(string(args), "\x00", " "); {
		case strings.Contains(line, "agent codedeploy"):
			out["CodeDeploy agent"] = pid
		case strings.Contains(line, "amazon-cloudwatch-agent"):
			out["CloudWatch agent"] = pid
		case strings.HasPrefix(line, "/sbin/init "):
			out["init"] = pid
		}
	}
	return out
}

// private is the memory in MiB that a process shares with nobody.
func private(t *testing.T, pid int) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	var sum, kb float64
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[0], "Private_") {
			fmt.Sscan(f[1], &kb)
			sum += kb
		}
	}
	return sum / 1024
}

// cpu is the processor time of a process and its dead threads; Linux counts it
// in hundredths of a second.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var user, system int64
	if _, err := fmt.Sscan(f[11]+" "+f[12], &user, &system); err != nil {
		t.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// benchAgents watches the agents of an instance that has nothing to do. Memory
// is looked at every second: what they need for a moment now and then is in
// the maximum.
func benchAgents(t *testing.T, w *world) {
	pids := agents(t, w.instances()[0])
	names := []string{"CloudWatch agent", "CodeDeploy agent", "init"}
	for _, n := range names {
		if pids[n] == 0 {
			t.Fatalf("no %s in the instance: %v", n, pids)
		}
	}
	time.Sleep(30 * time.Second) // instances that have just started are not idle
	interval := idleFor(t)
	before, resident := map[string]time.Duration{}, map[string][]float64{}
	for _, n := range names {
		before[n] = cpu(t, pids[n])
	}
	began := time.Now()
	for time.Since(began) < interval {
		both := 0.0
		for i, n := range names {
			r := rss(t, pids[n])
			resident[n] = append(resident[n], r)
			if i < 2 {
				both += r
			}
		}
		resident["both"] = append(resident["both"], both)
		time.Sleep(time.Second)
	}
	took := time.Since(began)
	line := func(what string, mem []float64, private, percent float64) {
		slices.Sort(mem)
		figure(t, what, "resident %.1f MiB (at most %.1f), private %.1f MiB, CPU %.3f %%", mem[len(mem)/2], mem[len(mem)-1], private, percent)
	}
	var sumPrivate, sumCPU float64
	figure(t, "an idle instance, watched for", "%v", took.Round(time.Second))
	for i, n := range names {
		percent := 100 * float64(cpu(t, pids[n])-before[n]) / float64(took)
		line("  "+n, resident[n], private(t, pids[n]), percent)
		if i < 2 {
			sumPrivate += private(t, pids[n])
			sumCPU += percent
		}
	}
	line("  the two agents together (target < 15 MB = 14.3 MiB, < 0.1 %)", resident["both"], sumPrivate, sumCPU)
}

// scripted are the lifecycle events for which examples/todo has scripts.
var scripted = map[string]bool{"ApplicationStop": true, "BeforeInstall": true, "AfterInstall": true, "ApplicationStart": true, "ValidateService": true}

// overhead is what of the time from push to live was Slipway's own, from the
// times that the services record: from the start of the push to the end of the
// execution, less the phases in which the build's commands ran, and less the
// lifecycle events with scripts. The part of such an event that is not its
// script is taken to be as long as the events without one (their median).
func overhead(t *testing.T, w *world, pushed time.Time, commit string) float64 {
	t.Helper()
	_, id := w.execution(commit)
	total := 0.0
	for _, e := range list(w.aws("codepipeline", "list-pipeline-executions", "--pipeline-name", "todo"), "pipelineExecutionSummaries") {
		if e["pipelineExecutionId"] == id {
			total = seconds(t, e["lastUpdateTime"]) - float64(pushed.UnixNano())/1e9
		}
	}
	ids := w.aws("codebuild", "list-builds-for-project", "--project-name", "todo")["ids"].([]any)
	theirs := 0.0
	for _, b := range list(w.aws("codebuild", "batch-get-builds", "--ids", ids[0].(string)), "builds") {
		for _, p := range list(b, "phases") {
			switch p["phaseType"] {
			case "INSTALL", "PRE_BUILD", "BUILD", "POST_BUILD":
				theirs += seconds(t, p["endTime"]) - seconds(t, p["startTime"])
			}
		}
	}
	out := w.aws("deploy", "list-deployments", "--application-name", "todo", "--deployment-group-name", "todo")
	deployment := out["deployments"].([]any)[0].(string)
	targets := w.aws("deploy", "list-deployment-targets", "--deployment-id", deployment)["targetIds"].([]any)
	args := []string{"deploy", "batch-get-deployment-targets", "--deployment-id", deployment, "--target-ids"}
	for _, id := range targets {
		args = append(args, id.(string))
	}
	var empty, full []float64
	for _, target := range list(w.aws(args...), "deploymentTargets") {
		for _, e := range list(target["instanceTarget"].(map[string]any), "lifecycleEvents") {
			if e["startTime"] == nil || e["endTime"] == nil {
				continue
			}
			took := seconds(t, e["endTime"]) - seconds(t, e["startTime"])
			switch name := e["lifecycleEventName"].(string); {
			case scripted[name]:
				full = append(full, took)
			case strings.HasPrefix(name, "Before") || strings.HasPrefix(name, "After"):
				empty = append(empty, took)
			}
		}
	}
	if len(empty) == 0 || len(full) == 0 {
		t.Fatalf("%d events with scripts, %d without", len(full), len(empty))
	}
	slices.Sort(empty)
	for _, took := range full {
		theirs += max(took-empty[len(empty)/2], 0)
	}
	return total - theirs
}
