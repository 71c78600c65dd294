package codebuild

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/codebuild"
	"slipway/internal/statechange"
	"slipway/internal/store"
)

// Every phase and every state of a build is told once, when it comes.
func TestChanges(t *testing.T) {
	at := time.Date(2020, 10, 1, 0, 4, 31, 0, time.UTC)
	arn := "arn:aws:codebuild:eu-west-1:123456789012:build/todo:1"
	row := &buildRow{Key: store.Key{Account: "123456789012", Region: "eu-west-1", ID: "todo:1"}, Doc: Build{API: api.Build{
		Id: new("todo:1"), Arn: &arn, ProjectName: new("todo"), BuildNumber: new(int64(7)), TimeoutInMinutes: new(int64(60)), StartTime: &at, Initiator: new("me"),
		BuildComplete: new(false), Source: &api.ProjectSource{Type: new("NO_SOURCE")}, Environment: &api.ProjectEnvironment{Image: new("i"), ComputeType: new("c"), Type: new("t"),
			EnvironmentVariables: []api.EnvironmentVariable{{Name: new("A"), Value: new("1"), Type: new("PLAINTEXT")}}}}}}
	b := &row.Doc
	var got []string
	var last statechange.Change
	tell := func(before told) {
		for _, c := range changes(row, before).Changes {
			var d map[string]any
			if err := json.Unmarshal(c.Detail, &d); err != nil {
				t.Fatal(err)
			}
			if c.Resource != "arn:aws:codebuild:eu-west-1:123456789012:project/todo" || c.Resources[0] != arn || d["build-id"] != arn || d["project-name"] != "todo" {
				t.Errorf("%+v", c)
			}
			if state, ok := d["build-status"].(string); ok {
				got = append(got, state)
			} else {
				got = append(got, d["completed-phase"].(string)+" "+d["completed-phase-status"].(string))
			}
			last = c
		}
	}
	b.enter("SUBMITTED", at)
	b.leave("SUBMITTED", "SUCCEEDED", at)
	b.enter("QUEUED", at)
	tell(told{})
	const phase = `{"completed-phase":"SUBMITTED","project-name":"todo","build-id":"arn:aws:codebuild:eu-west-1:123456789012:build/todo:1","completed-phase-context":"[]",` +
		`"additional-information":{"cache":{"type":"NO_CACHE"},"build-number":7.0,"timeout-in-minutes":60.0,"build-complete":false,"initiator":"me","build-start-time":"Oct 1, 2020 12:04:31 AM",` +
		`"source":{"type":"NO_SOURCE"},"artifact":{"location":""},"environment":{"image":"i","privileged-mode":false,"compute-type":"c","type":"t","environment-variables":[{"name":"A","type":"PLAINTEXT","value":"1"}]},"logs":{},` +
		`"phases":[{"start-time":"Oct 1, 2020 12:04:31 AM","end-time":"Oct 1, 2020 12:04:31 AM","duration-in-seconds":0.0,"phase-type":"SUBMITTED","phase-status":"SUCCEEDED"},{"start-time":"Oct 1, 2020 12:04:31 AM","phase-type":"QUEUED"}],` +
		`"queued-timeout-in-minutes":0.0},"completed-phase-status":"SUCCEEDED","completed-phase-duration-seconds":0.0,"version":"1","completed-phase-start":"Oct 1, 2020 12:04:31 AM","completed-phase-end":"Oct 1, 2020 12:04:31 AM"}`
	if string(last.Detail) != phase {
		t.Errorf("got\n%s\nwant\n%s", last.Detail, phase)
	}
	before := b.told()
	tell(before) // nothing happened
	b.leave("QUEUED", "SUCCEEDED", at.Add(time.Second))
	b.enter("BUILD", at.Add(time.Second))
	tell(before)
	before = b.told()
	b.leave("BUILD", "FAILED", at.Add(time.Minute), because("COMMAND_EXECUTION_ERROR", "exit status 1"))
	tell(before)
	if !strings.Contains(string(last.Detail), `"completed-phase-context":"[COMMAND_EXECUTION_ERROR: exit status 1]"`) {
		t.Errorf("%s", last.Detail)
	}
	before = b.told()
	b.finish("FAILED", at.Add(time.Minute))
	tell(before)
	if want := "IN_PROGRESS,SUBMITTED SUCCEEDED,QUEUED SUCCEEDED,BUILD FAILED,FAILED"; strings.Join(got, ",") != want {
		t.Errorf("told %v", got)
	}
	if !strings.Contains(string(last.Detail), `"current-phase":"COMPLETED"`) || !strings.Contains(string(last.Detail), `"build-complete":true`) {
		t.Errorf("%s", last.Detail)
	}
}
