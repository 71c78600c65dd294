package codedeploy

import (
	"testing"
	"time"

	api "slipway/internal/api/codedeploy"
)

// After an outage of the whole machine every instance of a group is launched
// anew; a push in these seconds must not fail for want of instances.
func TestDeploymentWaitsForAGroupThatIsBeingLaunched(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(1)
	w.setLifecycle(ids[0], "web", "Pending")
	w.setUp(scaled)

	looked := func(id string) {
		begin := time.Now()
		w.until("the engine looked again", func() bool { return time.Since(begin) > 3*launchLook })
		if info := w.get(id); *info.Status != api.DeploymentStatusCreated {
			t.Fatalf("%s %+v", *info.Status, info.ErrorInformation)
		}
	}
	stopped := w.deploy("app.zip")
	looked(stopped)
	call(t, w.svc.stopDeployment, &api.StopDeploymentInput{DeploymentId: &stopped})
	if info := w.wait(stopped); *info.Status != api.DeploymentStatusStopped {
		t.Errorf("%s %+v", *info.Status, info.ErrorInformation)
	}

	id := w.deploy("app.zip")
	looked(id)
	w.setLifecycle(ids[0], "web", "InService")
	w.setHealth(ids[0], "healthy")
	if info := w.wait(id); *info.Status != api.DeploymentStatusSucceeded || *info.DeploymentOverview.Succeeded != 1 {
		t.Errorf("%s %+v", *info.Status, info.ErrorInformation)
	}
}
