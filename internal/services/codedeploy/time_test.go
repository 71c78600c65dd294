package codedeploy

import (
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/clock"
)

func TestAgentThatNeverCalls(t *testing.T) {
	w := newWorld(t)
	w.tune = func(s *Service) { s.patient.Pickup = 50 * time.Millisecond }
	w.start()
	w.addInstance("i-0123456789abcdef0", "us-east-1a") // without an agent
	w.setUp(nil)
	info := w.wait(w.deploy("app.zip"))
	if *info.Status != "Failed" || !strings.Contains(*info.ErrorInformation.Message, "no agent of this instance has called") {
		t.Errorf("%s %s", *info.Status, *info.ErrorInformation.Message)
	}
}

func TestTargetThatNeverGetsHealthy(t *testing.T) {
	w := newWorld(t)
	w.tune = func(s *Service) { s.patient.Traffic = 500 * time.Millisecond }
	w.unhealthy = true
	w.start()
	ids := w.fleet(1)
	w.setUp(withTraffic)
	d := w.deploy("app.zip")
	info := w.wait(d)
	if *info.Status != "Failed" || !strings.Contains(*info.ErrorInformation.Message, "AllowTraffic") || !strings.Contains(*info.ErrorInformation.Message, "initial in target group web") {
		t.Errorf("%s %s", *info.Status, *info.ErrorInformation.Message)
	}
	if got := eventNames(w.target(d, ids[0])); !strings.HasSuffix(got, "AllowTraffic:Failed AfterAllowTraffic:Skipped") {
		t.Error(got)
	}
}

// A launch that takes long keeps its lifecycle action alive. Agents keep the
// machine's time whatever the rate of the clock.
func TestHeartbeatOnAScaledClock(t *testing.T) {
	w := newWorld(t)
	w.clock = clock.Scaled(3000, time.Time{})
	w.start()
	if p := w.svc.patient.Pickup; p < 3000*4*time.Minute {
		t.Errorf("an agent has %s of the clock's time", p)
	}
	ids := w.fleet(2)
	w.setLifecycle(ids[0], "web", "InService")
	w.setUp(scaled)
	w.wait(w.deploy("app.zip"))
	hold := make(chan struct{})
	w.locked(func() {
		w.behave = func(_, e, _ string) outcome {
			if e == "ApplicationStart" {
				return outcome{hold: hold}
			}
			return outcome{}
		}
	})
	w.setLifecycle(ids[1], "web", pendingWait)
	w.until("two heartbeats", func() (ok bool) {
		w.locked(func() { ok = w.beats >= 2 })
		return ok
	})
	close(hold)
	w.answered(ids[1] + " CONTINUE")
}

// Many instances at once: every event of every one, and the end.
func TestFiftyInstances(t *testing.T) {
	w := newWorld(t).start()
	w.fleet(50)
	w.setUp(func(in *api.CreateDeploymentGroupInput) { in.DeploymentConfigName = new("CodeDeployDefault.AllAtOnce") })
	started := time.Now()
	info := w.wait(w.deploy("app.zip"))
	if *info.Status != "Succeeded" || *info.DeploymentOverview.Succeeded != 50 {
		t.Errorf("%s %+v", *info.Status, info.DeploymentOverview)
	}
	t.Logf("350 events took %s", time.Since(started).Round(time.Millisecond))
}
