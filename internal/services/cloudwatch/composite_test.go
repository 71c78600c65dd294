package cloudwatch

import (
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

func TestRules(t *testing.T) {
	states := map[string]string{"a": "ALARM", "b": "OK", "c d": "INSUFFICIENT_DATA", "e(1)": "ALARM"}
	lookup := func(n string) string { return states[n] }
	for rule, want := range map[string]bool{
		"ALARM(a)": true, `ALARM("a") AND OK(b)`: true, "ALARM(b)": false, "NOT ALARM(b)": true, "TRUE": true, "FALSE OR TRUE": true,
		`INSUFFICIENT_DATA("c d")`: true, "ALARM(a) AND (ALARM(b) OR OK(a))": false, "ALARM(b) OR ALARM(b) AND TRUE OR ALARM(a)": true,
		"NOT (ALARM(a) AND OK(b))": false, "ALARM(arn:aws:cloudwatch:us-east-1:123456789012:alarm:a)": true, `ALARM("e(1)")`: true,
		"NOT NOT ALARM(a)": true, "OK( c d )": false,
	} {
		x, _, err := parseRule(rule)
		if err != nil {
			t.Errorf("%s: %v", rule, err)
		} else if got := x(lookup); got != want {
			t.Errorf("%s: %v", rule, got)
		}
	}
	for _, rule := range []string{"", "ALARM", "ALARM(", "ALARM()", "ALARM(a", `ALARM("a)`, "ALARM(a) OK(b)", "AND", "ALARM(a) AND", "(ALARM(a)", "alarm(a)", "FOO(a)", ")", strings.Repeat("(", 5000), strings.Repeat("NOT ", 2000)} {
		if _, _, err := parseRule(rule); err == nil {
			t.Errorf("%.40q is taken", rule)
		}
	}
}

func (w *world) set(name, state string) {
	w.Helper()
	call(w, api.OpSetAlarmState, &api.SetAlarmStateInput{AlarmName: &name, StateValue: &state, StateReason: new("a test says so")})
}

// child is an alarm that only SetAlarmState moves: its missing data is ignored.
func (w *world) child(name string) {
	w.Helper()
	in := cpuAlarm(name)
	in.AlarmActions, in.OKActions, in.TreatMissingData = nil, nil, new("ignore")
	call(w, api.OpPutMetricAlarm, in)
	w.set(name, api.StateValueOk)
}

func (w *world) compositeAlarm(name string) api.CompositeAlarm {
	w.Helper()
	out := call(w, api.OpDescribeAlarms, &api.DescribeAlarmsInput{AlarmNames: []string{name}, AlarmTypes: []string{api.AlarmTypeCompositeAlarm}})
	if len(out.CompositeAlarms) != 1 {
		w.Fatalf("%d composite alarms", len(out.CompositeAlarms))
	}
	return out.CompositeAlarms[0]
}

func (w *world) subjects() (out []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.published {
		s, _, _ := strings.Cut(*p.Subject, " in ")
		out = append(out, s)
	}
	return out
}

func TestCompositeFollowsItsChildren(t *testing.T) {
	w := newWorld(t, 20)
	w.child("a")
	w.child("b")
	call(w, api.OpPutCompositeAlarm, &api.PutCompositeAlarmInput{AlarmName: new("both"), AlarmRule: new("ALARM(a) AND ALARM(b)"), AlarmActions: []string{topic}, OKActions: []string{topic}})
	w.until("it is evaluated", func() bool { return *w.compositeAlarm("both").StateValue == api.StateValueOk })
	if r := *w.compositeAlarm("both").StateReason; r != "arn:aws:cloudwatch:us-east-1:123456789012:alarm:both was created and its alarm rule evaluates to OK" {
		t.Errorf("reason %s", r)
	}
	w.set("a", api.StateValueAlarm)
	w.set("b", api.StateValueAlarm)
	w.until("it is in alarm", func() bool { return *w.compositeAlarm("both").StateValue == api.StateValueAlarm })
	if r := *w.compositeAlarm("both").StateReason; !strings.HasPrefix(r, "arn:aws:cloudwatch:us-east-1:123456789012:alarm:b transitioned to ALARM at ") {
		t.Errorf("reason %s", r)
	}
	w.until("people are told", func() bool { return len(w.subjects()) == 2 })
	if s := w.subjects(); s[0] != `OK: "both"` || s[1] != `ALARM: "both"` {
		t.Errorf("told %q", s)
	}
	for _, f := range []struct {
		in   *api.DescribeAlarmsInput
		want int
	}{{&api.DescribeAlarmsInput{ChildrenOfAlarmName: new("both")}, 2}, {&api.DescribeAlarmsInput{ParentsOfAlarmName: new("a")}, 1}, {&api.DescribeAlarmsInput{}, 2}} {
		out := call(w, api.OpDescribeAlarms, f.in)
		if n := len(out.MetricAlarms) + len(out.CompositeAlarms); n != f.want {
			t.Errorf("%d alarms, want %d", n, f.want)
		}
	}
}

func TestSuppressor(t *testing.T) {
	w := newWorld(t, 20)
	w.child("a")
	w.child("maintenance")
	put := &api.PutCompositeAlarmInput{AlarmName: new("page"), AlarmRule: new("ALARM(a)"), AlarmActions: []string{topic},
		ActionsSuppressor: new("maintenance"), ActionsSuppressorWaitPeriod: new(int64(10)), ActionsSuppressorExtensionPeriod: new(int64(60))}
	call(w, api.OpPutCompositeAlarm, put)
	w.until("it is evaluated", func() bool { return *w.compositeAlarm("page").StateValue == api.StateValueOk })
	w.until("what waited for the suppressor is over", func() bool { return w.compositeAlarm("page").ActionsSuppressedBy == nil })
	w.set("maintenance", api.StateValueAlarm)
	w.set("a", api.StateValueAlarm)
	w.until("it is in alarm, suppressed", func() bool {
		c := w.compositeAlarm("page")
		return *c.StateValue == api.StateValueAlarm && c.ActionsSuppressedBy != nil && *c.ActionsSuppressedBy == api.ActionsSuppressedByAlarm
	})
	at := w.clock.Now()
	w.set("maintenance", api.StateValueOk)
	w.until("the extension period runs", func() bool {
		by := w.compositeAlarm("page").ActionsSuppressedBy
		return by != nil && *by == api.ActionsSuppressedByExtensionPeriod
	})
	if n := len(w.subjects()); n != 0 {
		t.Errorf("%d told while suppressed", n)
	}
	w.until("people are told at last", func() bool { return len(w.subjects()) == 1 })
	if d := w.clock.Since(at); d < time.Minute {
		t.Errorf("told after %v, before the extension period was over", d)
	}
}

func TestCompositeRefusals(t *testing.T) {
	w := newWorld(t, 1)
	w.child("a")
	try := func(in *api.PutCompositeAlarmInput) error {
		in.AlarmName = new("x")
		_, err := dispatch.Call(w.ctx, w.mux, api.OpPutCompositeAlarm, in)
		return err
	}
	for what, in := range map[string]*api.PutCompositeAlarmInput{
		"bad rule": {AlarmRule: new("ALARM(a) AND")}, "unknown child": {AlarmRule: new("ALARM(nobody)")}, "scaling": {AlarmRule: new("ALARM(a)"), AlarmActions: []string{policy}},
		"suppressor alone": {AlarmRule: new("ALARM(a)"), ActionsSuppressor: new("a")}, "period alone": {AlarmRule: new("ALARM(a)"), ActionsSuppressorWaitPeriod: new(int64(1))},
	} {
		if err := try(in); !awserr.Is(err, "ValidationError") {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A circle is not evaluated, and blocks its deletion.
	if err := try(&api.PutCompositeAlarmInput{AlarmRule: new("NOT ALARM(x)")}); err != nil {
		t.Fatal(err)
	}
	if _, err := dispatch.Call(w.ctx, w.mux, api.OpDeleteAlarms, &api.DeleteAlarmsInput{AlarmNames: []string{"x"}}); !awserr.Is(err, "ValidationError") {
		t.Errorf("deleting a circle: %v", err)
	}
	if err := try(&api.PutCompositeAlarmInput{AlarmRule: new("FALSE")}); err != nil {
		t.Fatal(err)
	}
	call(w, api.OpDeleteAlarms, &api.DeleteAlarmsInput{AlarmNames: []string{"x"}})
}
