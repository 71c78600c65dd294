package scenarios

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// downAndUpAgain begins the other half of the main job: load, alarms, mail, growth and
// shrinking, and the log lines behind them. Everything is stopped and started
// again on the same data, with time sixty times as fast, so that what takes a
// quarter of an hour takes a quarter of a minute.
func downAndUpAgain(t *testing.T, w *world) {
	w.slipway("down")
	w.flags = []string{"--time-scale=60"}
	out, err := w.up(example)
	if err != nil {
		t.Fatalf("up: %v\n%s", err, out)
	}
	if got := tasks(t, w); !strings.Contains(got, "survives a deployment") {
		t.Errorf("the task is gone: %s", got)
	}
}

// mails are the subjects in the local mailbox.
func (w *world) mails() []string {
	w.t.Helper()
	out, err := w.try("mail", "--json")
	if err != nil {
		return nil // the server is being restarted
	}
	var box []struct{ Subject string }
	if err := json.Unmarshal([]byte(out), &box); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	var subjects []string
	for _, m := range box {
		subjects = append(subjects, m.Subject)
	}
	return subjects
}

func (w *world) mailed(prefix string) bool {
	for _, s := range w.mails() {
		if strings.HasPrefix(s, prefix) {
			return true
		}
	}
	return false
}

func (w *world) alarm(name string) string {
	w.t.Helper()
	for _, a := range list(w.aws("cloudwatch", "describe-alarms", "--alarm-names", name), "MetricAlarms") {
		return fmt.Sprint(a["StateValue"], ": ", a["StateReason"])
	}
	return "there is no such alarm"
}

func loadAndGrow(t *testing.T, w *world) {
	version, _ := w.versions(1)
	w.aws("cloudwatch", "put-metric-alarm", "--alarm-name", "todo-busy", "--namespace", "AWS/EC2", "--metric-name", "CPUUtilization",
		"--dimensions", "Name=AutoScalingGroupName,Value=todo", "--statistic", "Average", "--period", "60", "--evaluation-periods", "2",
		"--threshold", "20", "--comparison-operator", "GreaterThanThreshold",
		"--alarm-actions", "arn:aws:sns:us-east-1:123456789012:todo-alerts")
	// A lower target than the default: on a busy machine two loops may get
	// less than half of what they ask for.
	w.aws("autoscaling", "put-scaling-policy", "--auto-scaling-group-name", "todo", "--policy-name", "todo-low", "--policy-type", "TargetTrackingScaling",
		"--target-tracking-configuration", `{"PredefinedMetricSpecification":{"PredefinedMetricType":"ASGAverageCPUUtilization"},"TargetValue":20}`)
	var busy []*exec.Cmd
	for _, id := range w.instances() {
		cmd := exec.Command(w.bin, "--data-dir", w.dir, "exec", id, "--", "timeout", "600", "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		busy = append(busy, cmd)
	}
	began := time.Now()
	w.wait(3*time.Minute, "the alarm", func() (bool, string) {
		s := w.alarm("todo-busy")
		return strings.HasPrefix(s, "ALARM"), s
	})
	w.wait(time.Minute, "the mail", func() (bool, string) {
		return w.mailed(`ALARM: "todo-busy" in US East`), strings.Join(w.mails(), "; ")
	})
	t.Logf("alarm and mail after %v", time.Since(began))
	w.wait(3*time.Minute, "the third instance", func() (bool, string) {
		return len(w.instances()) == 3 && w.healthy() == 3, strings.Join(w.instances(), " ")
	})
	t.Logf("third instance after %v", time.Since(began))
	for _, a := range list(w.aws("autoscaling", "describe-scaling-activities", "--auto-scaling-group-name", "todo", "--max-items", "6"), "Activities") {
		t.Logf("  %v %v %v %v", a["StartTime"], a["StatusCode"], a["Description"], a["StatusMessage"])
	}
	if v, on := w.versions(30); !same(v, version) || len(on) != 3 {
		t.Errorf("served %v by %v; want %v by three", v, on, version)
	}
	history := w.aws("cloudwatch", "describe-alarm-history", "--alarm-name", "todo-busy")
	if items := list(history, "AlarmHistoryItems"); len(items) < 3 {
		t.Errorf("the alarm's history has %d items", len(items))
	}
	for _, cmd := range busy {
		cmd.Process.Kill()
	}
	for _, id := range w.instances() {
		w.try("exec", id, "--", "sh", "-c", "kill -9 $(pidof timeout) 2>/dev/null; for p in /proc/[0-9]*; do grep -qz 'while :' $p/cmdline 2>/dev/null && [ ${p#/proc/} != $$ ] && kill -9 ${p#/proc/}; done; true")
	}
	for _, cmd := range busy {
		cmd.Wait()
	}
	ended := time.Now()
	w.wait(5*time.Minute, "two instances again", func() (bool, string) {
		return len(w.instances()) == 2, strings.Join(w.instances(), " ")
	})
	t.Logf("back to two after %v", time.Since(ended))
}

// tooLarge makes nginx refuse a request and write one line to its error log.
func tooLarge(w *world) error {
	res, err := http.Post(w.url+"/tasks", "application/json", strings.NewReader(strings.Repeat("x", 3<<20)))
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestEntityTooLarge {
		return fmt.Errorf("nginx answers %s", res.Status)
	}
	return nil
}

func errorsAndMail(t *testing.T, w *world) {
	before := len(w.mails())
	began := time.Now()
	if err := tooLarge(w); err != nil {
		t.Fatal(err)
	}
	w.wait(3*time.Minute, "the mail about nginx's errors", func() (bool, string) {
		all := w.mails() // none, where the command did not get through
		for _, s := range all[min(before, len(all)):] {
			if strings.HasPrefix(s, `ALARM: "todo-nginx-errors"`) {
				return true, ""
			}
		}
		return false, w.alarm("todo-nginx-errors")
	})
	t.Logf("from the error to the mail: %v", time.Since(began))
}

func linesSurvive(t *testing.T, w *world) {
	ids := w.instances()
	w.killServer()
	for range 20 {
		if err := tooLarge(w); err != nil {
			t.Fatal(err)
		}
	}
	w.startServer(t.Context())
	for _, id := range ids {
		w.slipway("exec", id, "--", "sh", "-c", "kill -9 $(pidof amazon-cloudwatch-agent)")
	}
	for range 20 {
		if err := tooLarge(w); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		w.wait(3*time.Minute, "the lines of "+id, func() (bool, string) {
			inside := strings.Count(w.slipway("exec", id, "--", "cat", "/var/log/nginx/error.log"), "too large body")
			out, err := w.tryAWS("logs", "filter-log-events", "--log-group-name", "/todo/nginx/error", "--log-stream-name-prefix", id, "--filter-pattern", `"too large body"`)
			if err != nil {
				return false, string(out)
			}
			m := map[string]any{}
			if err := json.Unmarshal(out, &m); err != nil {
				return false, err.Error()
			}
			got := len(list(m, "events"))
			if got > inside {
				t.Fatalf("%s wrote %d lines, the log group has %d", id, inside, got)
			}
			return got == inside && inside > 0, fmt.Sprintf("%d lines inside, %d in the log group", inside, got)
		})
	}
}
