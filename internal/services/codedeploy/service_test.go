package codedeploy

import (
	"strings"
	"testing"

	api "slipway/internal/api/codedeploy"
)

func TestDeploySucceeds(t *testing.T) {
	w := newWorld(t).start()
	ids := w.fleet(3)
	w.setUp(nil)
	d := w.deploy("app.zip")
	info := w.wait(d)
	if *info.Status != "Succeeded" || *info.DeploymentOverview.Succeeded != 3 || info.CompleteTime == nil {
		t.Fatalf("%s %+v", *info.Status, info.ErrorInformation)
	}
	want := "ApplicationStop:Succeeded DownloadBundle:Succeeded BeforeInstall:Succeeded Install:Succeeded AfterInstall:Succeeded ApplicationStart:Succeeded ValidateService:Succeeded"
	for _, id := range ids {
		tg := w.target(d, id)
		if got := eventNames(tg); got != want || *tg.Status != "Succeeded" || *tg.TargetArn != hostARN(id) {
			t.Errorf("%s: %s %s", id, *tg.Status, got)
		}
	}
	g := call(t, w.svc.getDeploymentGroup, &api.GetDeploymentGroupInput{ApplicationName: new("todo"), DeploymentGroupName: new("web")}).DeploymentGroupInfo
	if *g.LastSuccessfulDeployment.DeploymentId != d || *g.LastAttemptedDeployment.Status != "Succeeded" || g.TargetRevision == nil {
		t.Errorf("group %+v", g)
	}
	w.until("the log tells it", func() (ok bool) {
		w.locked(func() { ok = strings.Contains(strings.Join(w.lines, "\n"), "deployment "+d+" succeeded") })
		return ok
	})
}
