package scenarios

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	newsTopic   = "arn:aws:sns:us-east-1:123456789012:todo-news"
	newsAddress = "news@slipway.local"
)

// each runs calls of the aws command line side by side: it takes half a second
// to begin.
func (w *world) each(calls ...string) {
	w.t.Helper()
	var wg sync.WaitGroup
	for _, c := range calls {
		wg.Go(func() {
			if out, err := w.tryAWS(strings.Fields(c)...); err != nil {
				w.t.Errorf("aws %s: %v\n%s", c, err, out)
			}
		})
	}
	wg.Wait()
}

type letter struct {
	To            []string
	Subject, Body string
}

// news are the mails of this step's topic; nil while the server is away.
func (w *world) news() (out []letter) {
	raw, err := w.try("mail", "--json")
	if err != nil {
		return nil
	}
	var box []letter
	if err := json.Unmarshal([]byte(raw), &box); err != nil {
		w.t.Fatalf("%v\n%s", err, raw)
	}
	for _, m := range box {
		if len(m.To) == 1 && m.To[0] == newsAddress {
			out = append(out, m)
		}
	}
	return out
}

// letters waits until there are n mails (or more) with this subject whose
// bodies hold all these words.
func (w *world) letters(n int, subject string, words ...string) []letter {
	w.t.Helper()
	var found []letter
	w.wait(3*time.Minute, fmt.Sprintf("%d mails %q with %q", n, subject, words), func() (bool, string) {
		found = nil
		var all []string
		for _, m := range w.news() {
			all = append(all, m.Subject)
			ok := strings.HasPrefix(m.Subject, subject)
			for _, word := range words {
				ok = ok && strings.Contains(m.Body, word)
			}
			if ok {
				found = append(found, m)
			}
		}
		return len(found) >= n, strings.Join(all, "; ")
	})
	return found
}

// once is letters for what must come exactly once.
func (w *world) once(subject string, words ...string) letter {
	w.t.Helper()
	found := w.letters(1, subject, words...)
	if len(found) > 1 {
		w.t.Errorf("%d mails %q with %q", len(found), subject, words)
	}
	return found[0]
}

// eventsAndMail: everything but alarms that AWS tells topics of, with a
// server that is killed between an approval and its mail.
func eventsAndMail(t *testing.T, w *world) {
	policy := `{"Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012","Service":"codestar-notifications.amazonaws.com"},"Action":"SNS:Publish","Resource":"` + newsTopic + `"}]}`
	attributes, err := json.Marshal(map[string]string{"Policy": policy})
	if err != nil {
		t.Fatal(err)
	}
	w.aws("sns", "create-topic", "--name", "todo-news", "--attributes", string(attributes))
	role := w.aws("deploy", "get-deployment-group", "--application-name", "todo", "--deployment-group-name", "todo")["deploymentGroupInfo"].(map[string]any)["serviceRoleArn"]
	gate := w.gate()
	target := " --targets TargetType=SNS,TargetAddress=" + newsTopic
	w.aws("sns", "subscribe", "--protocol", "email", "--notification-endpoint", newsAddress, "--topic-arn", newsTopic)
	w.each("deploy update-deployment-group --application-name todo --current-deployment-group-name todo --trigger-configurations triggerName=news,triggerTargetArn="+newsTopic+
		",triggerEvents=DeploymentStart,DeploymentSuccess,InstanceStart,InstanceSuccess,DeploymentFailure",
		"codestar-notifications create-notification-rule --name build --resource arn:aws:codebuild:us-east-1:123456789012:project/todo --detail-type BASIC --event-type-ids codebuild-project-build-state-succeeded"+target,
		"codestar-notifications create-notification-rule --name deploy --resource arn:aws:codedeploy:us-east-1:123456789012:application:todo --detail-type FULL --event-type-ids codedeploy-application-deployment-succeeded"+target,
		"codestar-notifications create-notification-rule --name branch --resource arn:aws:codecommit:us-east-1:123456789012:todo --detail-type FULL --event-type-ids codecommit-repository-branches-and-tags-updated"+target,
		"codestar-notifications create-notification-rule --name stages --resource arn:aws:codepipeline:us-east-1:123456789012:todo --detail-type FULL --event-type-ids codepipeline-pipeline-stage-execution-succeeded codepipeline-pipeline-pipeline-execution-succeeded"+target,
		"autoscaling put-notification-configuration --auto-scaling-group-name todo --topic-arn "+newsTopic+" --notification-types autoscaling:EC2_INSTANCE_LAUNCH autoscaling:EC2_INSTANCE_TERMINATE",
		"autoscaling put-lifecycle-hook --auto-scaling-group-name todo --lifecycle-hook-name last-words --lifecycle-transition autoscaling:EC2_INSTANCE_TERMINATING --heartbeat-timeout 300 --notification-target-arn "+newsTopic+" --role-arn "+role.(string))
	defer w.forget()
	if t.Failed() {
		return
	}
	// A pipeline that asks, and a server that dies with the answer.
	w.aws("codepipeline", "create-pipeline", "--pipeline", "file://"+gate)
	w.aws("codestar-notifications", "create-notification-rule", "--name", "gate", "--resource", "arn:aws:codepipeline:us-east-1:123456789012:gate", "--detail-type", "FULL",
		"--event-type-ids", "codepipeline-pipeline-manual-approval-succeeded", "codepipeline-pipeline-pipeline-execution-succeeded", "--targets", "TargetType=SNS,TargetAddress="+newsTopic)
	question := w.once("APPROVAL NEEDED: AWS CodePipeline gate for action Ask", `"customData": "Ship it?"`)
	var asked struct{ Approval struct{ Token string } }
	if err := json.NewDecoder(strings.NewReader(question.Body)).Decode(&asked); err != nil {
		t.Fatalf("%v\n%s", err, question.Body)
	}
	w.dieApproving(asked.Approval.Token)
	const rules = "AWS Notification Message"
	// At least once: it may have died between the publication and its note of it.
	w.letters(1, rules, `"pipeline":"gate"`, `"CodePipeline Pipeline Execution State Change"`, `"SUCCEEDED"`)
	w.letters(1, rules, `"pipeline":"gate"`, `"CodePipeline Action Execution State Change"`, `"category":"Approval"`, `"external-execution-summary":"yes"`)

	// A push, and all that it sets off.
	commit := w.push("Tell everybody", func(dir string) { w.write(dir, "config/note.txt", "news") })
	if status := w.pipeline(commit); status != "Succeeded" {
		t.Fatalf("pipeline %s", status)
	}
	_, execution := w.execution(commit)
	w.once(rules, `"CodeCommit Repository State Change"`, `"referenceUpdated"`, commit)
	w.once(rules, `"CodeBuild Build State Change"`, `"build-status":"SUCCEEDED"`, `"phase-type":"COMPLETED"`)
	w.once(rules, `"CodePipeline Pipeline Execution State Change"`, `"execution-id":"`+execution+`"`)
	w.once(rules, `"CodePipeline Stage Execution State Change"`, `"stage":"Build"`, `"CommitId":"`+commit+`"`)
	deployed := w.once(rules, `"CodeDeploy Deployment State-change Notification"`, `"state":"SUCCESS"`)
	var note struct{ Detail struct{ DeploymentID string } }
	if err := json.NewDecoder(strings.NewReader(deployed.Body)).Decode(&note); err != nil {
		t.Fatalf("%v\n%s", err, deployed.Body)
	}
	id := note.Detail.DeploymentID
	w.letters(1, "INPROGRESS: AWS CodeDeploy "+id+" in us-east-1 to todo", `"status":"INPROGRESS"`, `"eventTriggerName":"news"`)
	w.letters(1, "SUCCEEDED: AWS CodeDeploy "+id+" in us-east-1 to todo", `"status":"SUCCEEDED"`, `\"Succeeded\":2`)
	for _, instance := range w.instances() {
		w.letters(1, "SUCCEEDED: AWS CodeDeploy "+id, `instance/`+instance, `"instanceStatus":"Succeeded"`, `"LifecycleEvent":"ValidateService"`)
		w.letters(1, "INPROGRESS: AWS CodeDeploy "+id, `instance/`+instance)
	}
	// An instance comes, and another goes when its hook has let it.
	w.once(`Auto Scaling: test notification for group "todo"`, "Event: autoscaling:TEST_NOTIFICATION")
	w.aws("autoscaling", "set-desired-capacity", "--auto-scaling-group-name", "todo", "--desired-capacity", "3")
	w.letters(1, `Auto Scaling: launch for group "todo"`, "Event: autoscaling:EC2_INSTANCE_LAUNCH\n")
	w.wait(3*time.Minute, "three instances", func() (bool, string) { return len(w.instances()) == 3, strings.Join(w.instances(), " ") })
	w.aws("autoscaling", "set-desired-capacity", "--auto-scaling-group-name", "todo", "--desired-capacity", "2")
	hook := w.letters(1, "Auto Scaling:  Lifecycle action 'TERMINATING'", "LifecycleHookName: last-words")[0]
	_, rest, _ := strings.Cut(hook.Body, "LifecycleActionToken: ")
	token, _, _ := strings.Cut(rest, "\n")
	w.aws("autoscaling", "complete-lifecycle-action", "--auto-scaling-group-name", "todo", "--lifecycle-hook-name", "last-words", "--lifecycle-action-token", token, "--lifecycle-action-result", "CONTINUE")
	w.letters(1, `Auto Scaling: termination for group "todo"`, "Event: autoscaling:EC2_INSTANCE_TERMINATE\n")
	for _, t := range list(w.aws("codestar-notifications", "list-targets"), "Targets") {
		if t["TargetStatus"] != "ACTIVE" {
			w.t.Errorf("target %v", t)
		}
	}
}

// dieApproving approves, kills the server at the moment at which the
// execution has ended, and starts it again.
func (w *world) dieApproving(token string) {
	w.t.Helper()
	ended := w.event("codepipeline:execution", "Succeeded")
	answer := make(chan error, 1)
	go func() {
		out, err := w.tryAWS("codepipeline", "put-approval-result", "--pipeline-name", "gate", "--stage-name", "Approve", "--action-name", "Ask", "--token", token, "--result", "summary=yes,status=Approved")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		answer <- err
	}()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		w.t.Fatalf("no execution ended; the answer to the approval: %v", <-answer)
	}
	w.killServer()
	w.startServer(w.t.Context())
	if err := <-answer; err != nil {
		w.t.Logf("the approval's answer died with the server: %v", err)
	}
}

// gate writes the declaration of a pipeline that asks after the source stage
// of the application's.
func (w *world) gate() (file string) {
	w.t.Helper()
	p := w.aws("codepipeline", "get-pipeline", "--name", "todo")["pipeline"].(map[string]any)
	p["name"] = "gate"
	p["stages"] = []any{p["stages"].([]any)[0], map[string]any{"name": "Approve", "actions": []any{map[string]any{
		"name": "Ask", "actionTypeId": map[string]any{"category": "Approval", "owner": "AWS", "provider": "Manual", "version": "1"},
		"configuration": map[string]any{"NotificationArn": newsTopic, "CustomData": "Ship it?"}}}}}
	raw, err := json.Marshal(p)
	if err == nil {
		file = filepath.Join(w.t.TempDir(), "gate.json")
		err = os.WriteFile(file, raw, 0o600)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return file
}

// forget takes away what eventsAndMail made.
func (w *world) forget() {
	w.t.Helper()
	calls := []string{
		"codepipeline delete-pipeline --name gate",
		"deploy update-deployment-group --application-name todo --current-deployment-group-name todo --trigger-configurations []",
		"autoscaling delete-notification-configuration --auto-scaling-group-name todo --topic-arn " + newsTopic,
		"autoscaling delete-lifecycle-hook --auto-scaling-group-name todo --lifecycle-hook-name last-words",
		"codestar-notifications delete-target --force-unsubscribe-all --target-address " + newsTopic,
		"sns delete-topic --topic-arn " + newsTopic,
	}
	for _, r := range list(w.aws("codestar-notifications", "list-notification-rules"), "NotificationRules") {
		calls = append(calls, "codestar-notifications delete-notification-rule --arn "+r["Arn"].(string))
	}
	w.each(calls...)
	w.wait(3*time.Minute, "two instances", func() (bool, string) { return len(w.instances()) == 2, strings.Join(w.instances(), " ") })
}
