package scenarios

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const example = "../../examples/todo"

// TestTodo is the main job, in the order in which a person would meet it: one
// world, since its parts follow from each other.
func TestTodo(t *testing.T) {
	w := newWorld(t)
	step := func(name string, f func(*testing.T, *world)) {
		if t.Failed() {
			return
		}
		t.Run(name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			f(t, w)
		})
	}
	step("first deployment", firstDeployment)
	step("up again changes nothing", upAgain)
	step("a push under load fails no request", pushUnderLoad)
	step("a failing unit test stops at Build", failingTest)
	step("a failing validation rolls back", failingValidation)
	step("a killed application process comes back", killedApplication)
	step("a killed instance is replaced", killedInstance)
	step("the server killed in mid-deployment", killedServer)
	step("the load balancer process killed", killedBalancer)
	step("a third instance has the current revision", thirdInstance)
	step("a shell in an instance", shell)
	step("the aws command line reaches each service", everydayCommands)
	step("aws logs tail follows", tailLogs)
	step("deployment triggers, approvals, scaling and notification rules reach the mailbox", eventsAndMail)
	step("down, and up again on the same data", downAndUpAgain)
	step("load raises alarm, mail, third instance, and it ends", loadAndGrow)
	step("errors of nginx become a mail", errorsAndMail)
	step("no line is lost or doubled when server and agent are killed", linesSurvive)
}

func firstDeployment(t *testing.T, w *world) {
	began := time.Now()
	out, err := w.up(example)
	if err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	t.Logf("up took %v", time.Since(began))
	if !strings.Contains(out, w.url) {
		t.Errorf("up does not say where the application is:\n%s", out)
	}
	res, err := http.Get(w.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.Contains(string(page), res.Header.Get("X-Served-By")) {
		t.Errorf("page: %s %v; it must name the instance %q", res.Status, err, res.Header.Get("X-Served-By"))
	}
	versions, instances := w.versions(20)
	if len(versions) != 1 || len(instances) != 2 {
		t.Errorf("versions %v, instances %v; want one version on two instances", versions, instances)
	}
	if n := len(w.instances()); n != 2 {
		t.Errorf("%d instances in service", n)
	}
	if n := w.healthy(); n != 2 {
		t.Errorf("%d healthy targets", n)
	}
	zones := map[string]bool{}
	for _, g := range list(w.aws("autoscaling", "describe-auto-scaling-groups"), "AutoScalingGroups") {
		for _, i := range list(g, "Instances") {
			zones[i["AvailabilityZone"].(string)] = true
		}
	}
	if len(zones) != 2 {
		t.Errorf("two instances are in zones %v", zones)
	}
}

func upAgain(t *testing.T, w *world) {
	before := len(list(w.aws("codepipeline", "list-pipeline-executions", "--pipeline-name", "todo"), "pipelineExecutionSummaries"))
	out, err := w.up(example)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	after := len(list(w.aws("codepipeline", "list-pipeline-executions", "--pipeline-name", "todo"), "pipelineExecutionSummaries"))
	if before != after {
		t.Errorf("%d executions before, %d after\n%s", before, after, out)
	}
}

// addTask creates a task, whose survival later steps check.
func addTask(t *testing.T, w *world, title string) {
	t.Helper()
	res, err := http.Post(w.url+"/tasks", "application/json", strings.NewReader(`{"title":"`+title+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 201 {
		t.Fatalf("POST /tasks: %s", res.Status)
	}
}

func tasks(t *testing.T, w *world) string {
	t.Helper()
	res, err := http.Get(w.url + "/tasks")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func pushUnderLoad(t *testing.T, w *world) {
	addTask(t, w, "survives a deployment")
	l := startLoad(w.url, 230)
	began := time.Now()
	commit := w.push("Say hello", func(dir string) {
		page := filepath.Join(dir, "templates", "page.html")
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		w.write(dir, "templates/page.html", strings.Replace(string(b), "</body>", "<!-- second version -->\n</body>", 1))
	})
	status := w.pipeline(commit)
	took := time.Since(began)
	time.Sleep(300 * time.Millisecond) // some more load on the new version
	sent, failed := l.end()
	t.Logf("push to end of pipeline %v; %d requests, %.0f/s, %d failed", took, sent, float64(sent)/took.Seconds(), len(failed))
	if status != "Succeeded" {
		t.Fatalf("pipeline %s", status)
	}
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first:\n%s", len(failed), sent, strings.Join(failed[:min(10, len(failed))], "\n"))
	}
	if sent < int64(150*took.Seconds()) {
		t.Errorf("only %d requests in %v", sent, took)
	}
	versions, instances := w.versions(20)
	if versions[commit] != 20 || len(instances) != 2 {
		t.Errorf("versions %v on %v; want %s on both", versions, instances, commit)
	}
	if len(l.byVersion) != 2 {
		t.Errorf("the load saw versions %v; want the old one and the new one", l.byVersion)
	}
	oneAtATime(t, w)
	if got := tasks(t, w); !strings.Contains(got, "survives a deployment") {
		t.Errorf("the task is gone: %s", got)
	}
}

// oneAtATime checks in the newest deployment that no two instances were out
// of the rotation at once.
func oneAtATime(t *testing.T, w *world) {
	t.Helper()
	out := w.aws("deploy", "list-deployments", "--application-name", "todo", "--deployment-group-name", "todo")
	id := out["deployments"].([]any)[0].(string)
	ids := w.aws("deploy", "list-deployment-targets", "--deployment-id", id)["targetIds"].([]any)
	args := []string{"deploy", "batch-get-deployment-targets", "--deployment-id", id, "--target-ids"}
	for _, i := range ids {
		args = append(args, i.(string))
	}
	type span struct{ from, to float64 }
	var spans []span
	for _, d := range list(w.aws(args...), "deploymentTargets") {
		var s span
		for _, e := range list(d["instanceTarget"].(map[string]any), "lifecycleEvents") {
			if e["status"] != "Succeeded" {
				t.Errorf("%v is %v", e["lifecycleEventName"], e["status"])
			}
			switch e["lifecycleEventName"] {
			case "BlockTraffic":
				s.from = seconds(t, e["startTime"])
			case "AllowTraffic":
				s.to = seconds(t, e["endTime"])
			}
		}
		spans = append(spans, s)
	}
	if len(spans) != 2 {
		t.Fatalf("%d targets in deployment %s", len(spans), id)
	}
	if a, b := spans[0], spans[1]; a.from < b.to && b.from < a.to {
		t.Errorf("both instances were without traffic at once: %v %v", a, b)
	}
}

// seconds reads a time as any version of the aws command line prints it.
func seconds(t *testing.T, v any) float64 {
	t.Helper()
	switch v := v.(type) {
	case float64:
		return v
	case string:
		for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999-07:00"} {
			if at, err := time.Parse(layout, v); err == nil {
				return float64(at.UnixNano()) / 1e9
			}
		}
	}
	t.Fatalf("no time: %v", v)
	return 0
}

func failingTest(t *testing.T, w *world) {
	good, _ := w.versions(1)
	commit := w.push("Break a test", func(dir string) {
		w.write(dir, "broken_test.go", "package main\n\nimport \"testing\"\n\nfunc TestBroken(t *testing.T) { t.Fatal(\"on purpose\") }\n")
	})
	if status := w.pipeline(commit); status != "Failed" {
		t.Errorf("pipeline %s", status)
	}
	state := w.aws("codepipeline", "get-pipeline-state", "--name", "todo")
	for _, st := range list(state, "stageStates") {
		if st["stageName"] != "Build" {
			continue
		}
		msg := ""
		for _, a := range list(st, "actionStates") {
			if e, ok := a["latestExecution"].(map[string]any)["errorDetails"].(map[string]any); ok {
				msg, _ = e["message"].(string)
			}
		}
		if !strings.Contains(msg, "go ") && !strings.Contains(msg, "exit status") {
			t.Errorf("the failing command is not named: %q", msg)
		}
		t.Logf("Build says: %s", msg)
	}
	if now, _ := w.versions(10); len(now) != 1 || !same(now, good) {
		t.Errorf("served: %v, before: %v", now, good)
	}
	w.push("Mend the test", func(dir string) {
		if err := os.Remove(filepath.Join(dir, "broken_test.go")); err != nil {
			t.Fatal(err)
		}
		w.write(dir, "config/fail-validate", "")
	})
}

func same(a, b map[string]int) bool {
	for k := range a {
		if b[k] == 0 {
			return false
		}
	}
	return true
}

func failingValidation(t *testing.T, w *world) {
	commit := w.git("rev-parse", "HEAD") // pushed by the step before
	if status := w.pipeline(commit); status != "Failed" {
		t.Errorf("pipeline %s", status)
	}
	w.wait(3*time.Minute, "the rollback", func() (bool, string) {
		out := w.aws("deploy", "list-deployments", "--application-name", "todo", "--deployment-group-name", "todo")
		info := w.aws("deploy", "get-deployment", "--deployment-id", out["deployments"].([]any)[0].(string))["deploymentInfo"].(map[string]any)
		return info["creator"] == "codeDeployRollback" && info["status"] == "Succeeded", info["creator"].(string) + " " + info["status"].(string)
	})
	versions, instances := w.versions(20)
	if versions[commit] != 0 || len(versions) != 1 || len(instances) != 2 {
		t.Errorf("served: %v on %v; the bad one is %s", versions, instances, commit)
	}
	good := w.push("Mend the validation", func(dir string) {
		if err := os.Remove(filepath.Join(dir, "config/fail-validate")); err != nil {
			t.Fatal(err)
		}
	})
	if status := w.pipeline(good); status != "Succeeded" {
		t.Fatalf("pipeline %s", status)
	}
}

func killedApplication(t *testing.T, w *world) {
	id := w.instances()[0]
	before := strings.TrimSpace(w.slipway("exec", id, "--", "pidof", "todo"))
	w.slipway("exec", id, "--", "kill", "-9", before)
	w.wait(2*time.Minute, "the application to come back", func() (bool, string) {
		out, err := w.try("exec", id, "--", "pidof", "todo")
		return err == nil && strings.TrimSpace(out) != before, out
	})
}

func killedInstance(t *testing.T, w *world) {
	ids := w.instances()
	began := time.Now()
	w.slipway("kill", ids[0])
	w.wait(3*time.Minute, "the replacement in service and healthy", func() (bool, string) {
		now := w.instances()
		for _, id := range now {
			if id == ids[0] {
				return false, "the dead one is still in service"
			}
		}
		return len(now) == 2 && w.healthy() == 2, strings.Join(now, " ")
	})
	t.Logf("replaced after %v", time.Since(began))
	versions, instances := w.versions(20)
	if len(versions) != 1 || len(instances) != 2 {
		t.Errorf("served %v by %v", versions, instances)
	}
	if got := tasks(t, w); !strings.Contains(got, "survives a deployment") {
		t.Errorf("the task is gone: %s", got)
	}
}

func killedServer(t *testing.T, w *world) {
	l := startLoad(w.url, 100)
	underWay := w.event("codedeploy:deployment", "InProgress")
	commit := w.push("Deploy with a dead server", func(dir string) { w.write(dir, "config/note.txt", "x") })
	select {
	case <-underWay:
	case <-time.After(10 * time.Minute):
		t.Fatal("no deployment began")
	}
	w.killServer()
	time.Sleep(time.Second) // traffic goes on without a server
	w.startServer(t.Context())
	if status := w.pipeline(commit); status != "Succeeded" {
		t.Errorf("pipeline %s", status)
	}
	sent, failed := l.end()
	if len(failed) > 0 {
		t.Errorf("%d of %d requests failed; the first:\n%s", len(failed), sent, strings.Join(failed[:min(10, len(failed))], "\n"))
	}
	versions, instances := w.versions(20)
	if versions[commit] != 20 || len(instances) != 2 {
		t.Errorf("served %v by %v", versions, instances)
	}
}

func killedBalancer(t *testing.T, w *world) {
	pid := 0
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range procs {
		b, _ := os.ReadFile(p)
		args := strings.Split(string(b), "\x00")
		if len(args) > 3 && args[1] == "lb" && strings.HasPrefix(args[3], w.dir+"/") {
			for _, r := range filepath.Base(filepath.Dir(p)) {
				pid = pid*10 + int(r-'0')
			}
		}
	}
	if pid == 0 {
		t.Fatal("there is no load balancer process")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	w.wait(time.Minute, "the load balancer to serve again", func() (bool, string) {
		res, err := http.Get(w.url + "/healthz")
		if err != nil {
			return false, err.Error()
		}
		res.Body.Close()
		return res.StatusCode == 200, res.Status
	})
	t.Logf("serving again after %v", time.Since(began))
}

func thirdInstance(t *testing.T, w *world) {
	want, _ := w.versions(1)
	w.aws("autoscaling", "set-desired-capacity", "--auto-scaling-group-name", "todo", "--desired-capacity", "3")
	w.wait(3*time.Minute, "three healthy instances", func() (bool, string) {
		return len(w.instances()) == 3 && w.healthy() == 3, strings.Join(w.instances(), " ")
	})
	versions, instances := w.versions(30)
	if len(instances) != 3 || !same(versions, want) {
		t.Errorf("served %v by %v; want %v by three", versions, instances, want)
	}
	w.aws("autoscaling", "set-desired-capacity", "--auto-scaling-group-name", "todo", "--desired-capacity", "2")
	w.wait(3*time.Minute, "two instances", func() (bool, string) {
		return len(w.instances()) == 2, strings.Join(w.instances(), " ")
	})
}

func shell(t *testing.T, w *world) {
	id := w.instances()[0]
	if out := w.slipway("exec", id, "--", "sh", "-c", "hostname; whoami"); !strings.Contains(out, "ip-172-31-") || !strings.Contains(out, "root") {
		t.Errorf("exec says %q", out)
	}
	if _, err := w.try("exec", id, "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "7") {
		t.Errorf("exit status: %v", err)
	}
	if out := w.slipway("logs", "--deploy"); !strings.Contains(out, "ValidateService") {
		t.Errorf("logs --deploy shows no lifecycle event:\n%s", out[:min(len(out), 2000)])
	}
	if out := w.slipway("status"); !strings.Contains(out, id) {
		t.Errorf("status does not show %s:\n%s", id, out)
	}
}
