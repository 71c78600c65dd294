package codestarnotifications

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/awserr"
	"slipway/internal/statechange"
)

// sentTo counts the messages of a rule.
func (w *world) sentTo(arn *string) (n int) {
	for _, m := range w.messages() {
		if strings.Contains(m, *arn) {
			n++
		}
	}
	return n
}

func TestMessages(t *testing.T) {
	w := newWorld(t)
	full := w.create("full", nil)
	basic := w.create("basic", func(in *api.CreateNotificationRuleInput) { in.DetailType = new("BASIC") })
	other := w.create("another state", func(in *api.CreateNotificationRuleInput) {
		in.EventTypeIds = []string{"codepipeline-pipeline-pipeline-execution-succeeded"}
	})
	off := w.create("disabled", func(in *api.CreateNotificationRuleInput) { in.Status = new("DISABLED") })
	w.run()
	w.emit(pipeline, "FAILED")
	w.emit("arn:aws:codepipeline:eu-west-1:123456789012:other", "FAILED")
	w.until("messages", func() bool { return w.sentTo(full) == 1 && w.sentTo(basic) == 1 })
	late := w.create("late", nil) // it asks for what comes
	w.emit(pipeline, "FAILED")
	w.until("messages", func() bool { return w.sentTo(full) == 2 && w.sentTo(basic) == 2 && w.sentTo(late) == 1 })
	if w.sentTo(other)+w.sentTo(off) != 0 {
		t.Errorf("sent: %q", w.messages())
	}
	for _, m := range w.messages()[:2] {
		var e struct{ Time, NotificationRuleArn string }
		if err := json.Unmarshal([]byte(m), &e); err != nil {
			t.Fatal(err)
		}
		more := `{"failedStage":"Build"}`
		if e.NotificationRuleArn == *basic {
			more = `{}`
		}
		want := `{"account":"123456789012","detailType":"CodePipeline Pipeline Execution State Change","region":"eu-west-1","source":"aws.codepipeline","time":"` + e.Time +
			`","notificationRuleArn":"` + e.NotificationRuleArn + `","detail":{"pipeline":"todo","state":"FAILED","version":3.0},"resources":["` + pipeline + `"],"additionalAttributes":` + more + `}`
		if m != want {
			t.Errorf("sent\n%s\nwant\n%s", m, want)
		}
	}
	if w.who.PrincipalID != "codestar-notifications.amazonaws.com" || !strings.Contains(w.who.SourceARN, ":notificationrule/") {
		t.Errorf("published as %+v", w.who)
	}
}

// What happened while nobody read is read later, once.
func TestDeathBeforeReading(t *testing.T) {
	w := newWorld(t)
	arn := w.create("news", nil)
	w.emit(pipeline, "FAILED")
	for range 3 {
		w.run()
		w.until("the message", func() bool { return w.sentTo(arn) > 0 && w.count(deliveries.Kind) == 0 })
		w.kill()
	}
	if n := w.sentTo(arn); n != 1 {
		t.Errorf("sent %d times", n)
	}
}

// A message that was not taken when the server died is sent by the next one,
// and the change is not read again.
func TestDeathBeforeDelivery(t *testing.T) {
	w := newWorld(t)
	arn := w.create("news", nil)
	w.holding(make(chan struct{}))
	w.run()
	w.emit(pipeline, "FAILED")
	w.until("an outbox", func() bool { return w.count(deliveries.Kind) == 1 })
	w.kill()
	if n := w.sentTo(arn); n != 0 || w.count(deliveries.Kind) != 1 {
		t.Fatalf("sent %d times", n)
	}
	w.holding(nil)
	w.run()
	w.until("the message", func() bool { return w.sentTo(arn) > 0 && w.count(deliveries.Kind) == 0 })
	w.emit(pipeline, "FAILED")
	w.until("the next one", func() bool { return w.sentTo(arn) > 1 && w.count(deliveries.Kind) == 0 })
	if n := w.sentTo(arn); n != 2 {
		t.Errorf("sent %d times", n)
	}
}

// A reader that lost its cursor finds what it wrote before.
func TestReadingTwiceWritesOnce(t *testing.T) {
	w := newWorld(t)
	w.create("news", nil)
	w.emit(pipeline, "FAILED")
	s := w.wire()
	for range 2 {
		if _, n, stored, err := s.step(t.Context(), 0); err != nil || n != 1 || !stored {
			t.Fatal(n, stored, err)
		}
	}
	if n := w.count(deliveries.Kind); n != 1 {
		t.Errorf("%d deliveries", n)
	}
}

func TestTargetStatus(t *testing.T) {
	w := newWorld(t)
	arn := w.create("news", nil)
	if got := w.status(); got != "ACTIVE" {
		t.Errorf("at first it is %s", got)
	}
	w.run()
	w.refusing(awserr.New("AuthorizationError", "not authorized to perform: SNS:Publish"))
	w.emit(pipeline, "FAILED")
	w.until("unreachable", func() bool { return w.status() == "UNREACHABLE" && w.count(deliveries.Kind) == 0 })
	w.refusing(nil)
	w.emit(pipeline, "FAILED")
	w.until("active again", func() bool { return w.status() == "ACTIVE" })
	if n := w.sentTo(arn); n != 1 {
		t.Errorf("what was refused for good was sent as well: %d", n)
	}
	// What is no refusal is tried again.
	w.refusing(errors.New("disk full"))
	w.emit(pipeline, "FAILED")
	w.until("the outbox", func() bool { return w.count(deliveries.Kind) == 1 })
	w.refusing(nil)
	w.until("the message", func() bool { return w.sentTo(arn) == 2 })
}

func TestTypesOf(t *testing.T) {
	for _, tt := range []struct{ kind, detail, want string }{
		{"CodePipeline Pipeline Execution State Change", `{"state":"STARTED"}`, "codepipeline-pipeline-pipeline-execution-started"},
		{"CodePipeline Pipeline Execution State Change", `{"state":"STOPPED"}`, ""},
		{"CodePipeline Stage Execution State Change", `{"state":"RESUMED"}`, "codepipeline-pipeline-stage-execution-resumed"},
		{"CodePipeline Action Execution State Change", `{"state":"FAILED","type":{"category":"Build"}}`, "codepipeline-pipeline-action-execution-failed"},
		{"CodePipeline Action Execution State Change", `{"state":"STARTED","type":{"category":"Approval"}}`, "codepipeline-pipeline-action-execution-started codepipeline-pipeline-manual-approval-needed"},
		{"CodePipeline Action Execution State Change", `{"state":"ABANDONED","type":{"category":"Approval"}}`, ""},
		{"CodeBuild Build State Change", `{"build-status":"IN_PROGRESS"}`, "codebuild-project-build-state-in-progress"},
		{"CodeBuild Build State Change", `{"build-status":"TIMED_OUT"}`, "codebuild-project-build-state-failed"},
		{"CodeBuild Build State Change", `{"build-status":"STOPPED"}`, "codebuild-project-build-state-stopped"},
		{"CodeBuild Build Phase Change", `{"completed-phase-status":"SUCCEEDED"}`, "codebuild-project-build-phase-success"},
		{"CodeBuild Build Phase Change", `{"completed-phase-status":"CLIENT_ERROR"}`, "codebuild-project-build-phase-failure"},
		{"CodeDeploy Deployment State-change Notification", `{"state":"SUCCESS"}`, "codedeploy-application-deployment-succeeded"},
		{"CodeDeploy Deployment State-change Notification", `{"state":"STOP"}`, ""},
		{"CodeCommit Repository State Change", `{"event":"referenceCreated"}`, "codecommit-repository-branches-and-tags-created"},
		{"CodeCommit Repository State Change", `{"event":"referenceUpdated"}`, "codecommit-repository-branches-and-tags-updated"},
		{"CodeCommit Repository State Change", `{"event":"referenceDeleted"}`, "codecommit-repository-branches-and-tags-deleted"},
		{"CodeCommit Repository State Change", `{"event":"commentAdded"}`, ""},
		{"Something else", `{"state":"STARTED"}`, ""},
	} {
		got, err := typesOf(&statechange.Change{DetailType: tt.kind, Detail: []byte(tt.detail)})
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s %s: %v %v", tt.kind, tt.detail, got, err)
		}
	}
}
