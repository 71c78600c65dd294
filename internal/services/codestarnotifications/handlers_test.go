package codestarnotifications

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

func TestCreateRefuses(t *testing.T) {
	w := newWorld(t)
	w.create("taken", nil)
	type input = api.CreateNotificationRuleInput
	for name, tt := range map[string]struct {
		change func(*input)
		code   string
		names  string // what the message names
	}{
		"no event types":      {func(in *input) { in.EventTypeIds = []string{} }, "ValidationException", "EventTypeIds"},
		"unknown event type":  {func(in *input) { in.EventTypeIds = []string{"codepipeline-pipeline-lunch"} }, "ValidationException", "codepipeline-pipeline-lunch"},
		"another's events":    {func(in *input) { in.EventTypeIds = []string{"codebuild-project-build-state-failed"} }, "ValidationException", "CodeBuild"},
		"no such pipeline":    {func(in *input) { in.Resource = new(pipeline + "x") }, "ConfigurationException", "Resource"},
		"no such project":     {func(in *input) { in.Resource = new("arn:aws:codebuild:eu-west-1:123456789012:project/x") }, "ConfigurationException", "Resource"},
		"no such repository":  {func(in *input) { in.Resource = new("arn:aws:codecommit:eu-west-1:123456789012:x") }, "ConfigurationException", "Resource"},
		"another region":      {func(in *input) { in.Resource = new("arn:aws:codepipeline:us-east-1:123456789012:todo") }, "ValidationException", "eu-west-1"},
		"another kind":        {func(in *input) { in.Resource = new("arn:aws:sqs:eu-west-1:123456789012:todo") }, "ValidationException", "Resource"},
		"a build":             {func(in *input) { in.Resource = new("arn:aws:codebuild:eu-west-1:123456789012:build/todo:1") }, "ValidationException", "Resource"},
		"no ARN":              {func(in *input) { in.Resource = new("todo") }, "ValidationException", "resource"},
		"no such detail type": {func(in *input) { in.DetailType = new("SOME") }, "ValidationException", "detailType"},
		"no such status":      {func(in *input) { in.Status = new("ON") }, "ValidationException", "status"},
		"a bad name":          {func(in *input) { in.Name = new("news!") }, "ValidationException", "name"},
		"a name twice":        {func(in *input) { in.Name = new("taken") }, "ResourceAlreadyExistsException", "taken"},
		"a chat":              {func(in *input) { in.Targets[0].TargetType = new("AWSChatbotSlack") }, "NotImplemented", "AWSChatbotSlack"},
		"an unknown type":     {func(in *input) { in.Targets[0].TargetType = new("SQS") }, "ValidationException", "TargetType"},
		"no topic":            {func(in *input) { in.Targets[0].TargetAddress = new("arn:aws:sqs:eu-west-1:123456789012:q") }, "ValidationException", "TargetAddress"},
		"a topic elsewhere":   {func(in *input) { in.Targets[0].TargetAddress = new("arn:aws:sns:us-east-1:123456789012:t") }, "ValidationException", "TargetAddress"},
		"a target twice":      {func(in *input) { in.Targets = append(in.Targets, in.Targets[0]) }, "ValidationException", "twice"},
		"too many targets":    {func(in *input) { in.Targets = make([]api.Target, 11) }, "ValidationException", "targets"},
		"a reserved tag":      {func(in *input) { in.Tags = map[string]string{"aws:x": "y"} }, "ValidationException", "aws:x"},
		"too many tags": {func(in *input) {
			in.Tags = map[string]string{}
			for i := range 51 {
				in.Tags[fmt.Sprint(i)] = ""
			}
		}, "LimitExceededException", "50"},
	} {
		in := request()
		tt.change(in)
		if _, err := try(w, api.OpCreateNotificationRule, in); awserr.Code(err) != tt.code || !strings.Contains(fmt.Sprint(err), tt.names) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out := call(w, api.OpListNotificationRules, nil); len(out.NotificationRules) != 1 {
		t.Errorf("%d rules", len(out.NotificationRules))
	}
	for _, resource := range []string{"arn:aws:codebuild:eu-west-1:123456789012:project/todo", "arn:aws:codedeploy:eu-west-1:123456789012:application:todo"} {
		w.create("of "+strings.Split(resource, ":")[2], func(in *input) {
			in.Resource = &resource
			in.EventTypeIds = []string{map[bool]string{true: "codebuild-project-build-state-failed", false: "codedeploy-application-deployment-failed"}[strings.Contains(resource, "codebuild")]}
		})
	}
}

func TestRequestTokens(t *testing.T) {
	w := newWorld(t)
	with := func(in *api.CreateNotificationRuleInput) { in.ClientRequestToken = new("token") }
	first := w.create("news", with)
	if second := w.create("news", with); *second != *first {
		t.Errorf("made twice: %s, %s", *first, *second)
	}
	in := request()
	with(in)
	in.Status = new("DISABLED")
	if _, err := try(w, api.OpCreateNotificationRule, in); !awserr.Is(err, "ValidationException") || !strings.Contains(err.Error(), "ClientRequestToken") {
		t.Errorf("another request: %v", err)
	}
	call(w, api.OpDeleteNotificationRule, &api.DeleteNotificationRuleInput{Arn: first})
	if again := w.create("news", with); *again == *first {
		t.Error("the rule is gone")
	}
}

func TestRules(t *testing.T) {
	w := newWorld(t)
	arn := w.create("news", func(in *api.CreateNotificationRuleInput) { in.Tags = map[string]string{"a": "b"} })
	describe := func() *api.DescribeNotificationRuleOutput {
		return call(w, api.OpDescribeNotificationRule, &api.DescribeNotificationRuleInput{Arn: arn})
	}
	d := describe()
	if *d.Arn != *arn || *d.Name != "news" || *d.Resource != pipeline || *d.DetailType != "FULL" || *d.Status != "ENABLED" || *d.CreatedBy != "arn:aws:iam::123456789012:user/me" || d.Tags["a"] != "b" ||
		*d.EventTypes[0].EventTypeName != "Pipeline execution: Failed" || *d.EventTypes[0].ServiceName != "CodePipeline" || *d.EventTypes[0].ResourceType != "Pipeline" ||
		*d.Targets[0].TargetAddress != topic || *d.Targets[0].TargetType != "SNS" || *d.Targets[0].TargetStatus != "ACTIVE" {
		t.Errorf("%+v", d)
	}
	w.create("other", nil)
	type update = api.UpdateNotificationRuleInput
	call(w, api.OpUpdateNotificationRule, &update{Arn: arn, Status: new("DISABLED")})
	if d := describe(); *d.Status != "DISABLED" || *d.Name != "news" || len(d.Targets) != 1 || d.LastModifiedTimestamp.Before(*d.CreatedTimestamp) {
		t.Errorf("%+v", d)
	}
	call(w, api.OpUpdateNotificationRule, &update{Arn: arn, Name: new("renamed"), DetailType: new("BASIC"), EventTypeIds: []string{"codepipeline-pipeline-manual-approval-needed"}, Targets: []api.Target{}})
	if d := describe(); *d.Name != "renamed" || *d.DetailType != "BASIC" || len(d.Targets) != 0 || *d.EventTypes[0].EventTypeName != "Manual approval: Needed" {
		t.Errorf("%+v", d)
	}
	for name, in := range map[string]*update{
		"ConfigurationException":    {Arn: arn, Name: new("other")},
		"ValidationException":       {Arn: arn, EventTypeIds: []string{}},
		"ResourceNotFoundException": {Arn: new(*arn + "0"), Name: new("x")},
	} {
		if _, err := try(w, api.OpUpdateNotificationRule, in); !awserr.Is(err, name) {
			t.Errorf("want %s: %v", name, err)
		}
	}
	for range 2 {
		if out := call(w, api.OpDeleteNotificationRule, &api.DeleteNotificationRuleInput{Arn: arn}); *out.Arn != *arn {
			t.Errorf("%+v", out)
		}
	}
	if _, err := try(w, api.OpDescribeNotificationRule, &api.DescribeNotificationRuleInput{Arn: arn}); !awserr.Is(err, "ResourceNotFoundException") {
		t.Error(err)
	}
}

func TestTargets(t *testing.T) {
	w := newWorld(t)
	arn := w.create("news", nil)
	target := func(n int) *api.Target {
		return &api.Target{TargetType: new("SNS"), TargetAddress: new(fmt.Sprintf("%s%d", topic, n))}
	}
	for n := range 9 {
		call(w, api.OpSubscribe, &api.SubscribeInput{Arn: arn, Target: target(n)})
		call(w, api.OpSubscribe, &api.SubscribeInput{Arn: arn, Target: target(n)}) // once is enough
	}
	if _, err := try(w, api.OpSubscribe, &api.SubscribeInput{Arn: arn, Target: target(9)}); !awserr.Is(err, "ConfigurationException") {
		t.Errorf("an eleventh target: %v", err)
	}
	if _, err := try(w, api.OpSubscribe, &api.SubscribeInput{Arn: new(*arn + "0"), Target: target(9)}); !awserr.Is(err, "ResourceNotFoundException") {
		t.Error(err)
	}
	if _, err := try(w, api.OpDeleteTarget, &api.DeleteTargetInput{TargetAddress: target(0).TargetAddress}); !awserr.Is(err, "ValidationException") {
		t.Errorf("a target in use: %v", err)
	}
	call(w, api.OpUnsubscribe, &api.UnsubscribeInput{Arn: arn, TargetAddress: target(0).TargetAddress})
	addresses := func() (out []string) {
		for _, t := range call(w, api.OpListTargets, nil).Targets {
			out = append(out, *t.TargetAddress)
		}
		return out
	}
	if got := addresses(); len(got) != 10 || !slices.Contains(got, topic+"0") {
		t.Errorf("an unsubscribed target stays: %v", got)
	}
	call(w, api.OpDeleteTarget, &api.DeleteTargetInput{TargetAddress: target(0).TargetAddress})
	call(w, api.OpDeleteTarget, &api.DeleteTargetInput{TargetAddress: target(1).TargetAddress, ForceUnsubscribeAll: new(true)})
	if got := addresses(); len(got) != 8 {
		t.Errorf("%v", got)
	}
	if d := call(w, api.OpDescribeNotificationRule, &api.DescribeNotificationRuleInput{Arn: arn}); len(d.Targets) != 8 {
		t.Errorf("%d targets", len(d.Targets))
	}
	if _, err := try(w, api.OpUnsubscribe, &api.UnsubscribeInput{Arn: new(*arn + "0"), TargetAddress: new(topic)}); !awserr.Is(err, "ValidationException") {
		t.Error(err)
	}
}

func TestListsAndTags(t *testing.T) {
	w := newWorld(t)
	arns := map[string]bool{}
	for n := range 5 {
		arns[*w.create(fmt.Sprint(n), func(in *api.CreateNotificationRuleInput) {
			if n == 0 {
				in.EventTypeIds = append(in.EventTypeIds, "codepipeline-pipeline-pipeline-execution-started")
			}
		})] = true
	}
	var token *string
	pages := 0
	for {
		out := call(w, api.OpListNotificationRules, &api.ListNotificationRulesInput{MaxResults: new(int64(2)), NextToken: token})
		for _, r := range out.NotificationRules {
			if !strings.HasSuffix(*r.Arn, "/"+*r.Id) || len(*r.Id) != 40 {
				t.Errorf("%s %s", *r.Arn, *r.Id)
			}
			delete(arns, *r.Arn)
		}
		pages++
		if token = out.NextToken; token == nil {
			break
		}
	}
	if pages != 3 || len(arns) != 0 {
		t.Errorf("%d pages, without %v", pages, arns)
	}
	if _, err := try(w, api.OpListNotificationRules, &api.ListNotificationRulesInput{NextToken: new("x")}); !awserr.Is(err, "InvalidNextTokenException") {
		t.Error(err)
	}
	for filter, want := range map[[2]string]int{{"EVENT_TYPE_ID", "codepipeline-pipeline-pipeline-execution-started"}: 1, {"RESOURCE", pipeline}: 5, {"RESOURCE", pipeline + "x"}: 0,
		{"CREATED_BY", "arn:aws:iam::123456789012:user/me"}: 5, {"TARGET_ADDRESS", topic}: 5, {"TARGET_ADDRESS", topic + "x"}: 0} {
		out := call(w, api.OpListNotificationRules, &api.ListNotificationRulesInput{Filters: []api.ListNotificationRulesFilter{{Name: &filter[0], Value: &filter[1]}}})
		if len(out.NotificationRules) != want {
			t.Errorf("%v: %d", filter, len(out.NotificationRules))
		}
	}
	for filter, want := range map[[2]string]int{{"SERVICE_NAME", "CodePipeline"}: 18, {"RESOURCE_TYPE", "project"}: 6, {"SERVICE_NAME", "S3"}: 0} {
		out := call(w, api.OpListEventTypes, &api.ListEventTypesInput{Filters: []api.ListEventTypesFilter{{Name: &filter[0], Value: &filter[1]}}})
		if len(out.EventTypes) != want {
			t.Errorf("%v: %d", filter, len(out.EventTypes))
		}
	}
	if out := call(w, api.OpListEventTypes, nil); len(out.EventTypes) != len(known) || out.NextToken != nil {
		t.Errorf("%d event types", len(out.EventTypes))
	}
	arn := w.create("tagged", nil)
	if out := call(w, api.OpTagResource, &api.TagResourceInput{Arn: arn, Tags: map[string]string{"a": "1", "b": "2"}}); len(out.Tags) != 2 {
		t.Errorf("%v", out.Tags)
	}
	call(w, api.OpUntagResource, &api.UntagResourceInput{Arn: arn, TagKeys: []string{"a", "none"}})
	if out := call(w, api.OpListTagsForResource, &api.ListTagsForResourceInput{Arn: arn}); len(out.Tags) != 1 || out.Tags["b"] != "2" {
		t.Errorf("%v", out.Tags)
	}
	if _, err := try(w, api.OpTagResource, &api.TagResourceInput{Arn: arn, Tags: map[string]string{"AWS:x": "1"}}); !awserr.Is(err, "ValidationException") {
		t.Error(err)
	}
	if got := ptr.Value(call(w, api.OpDescribeNotificationRule, &api.DescribeNotificationRuleInput{Arn: arn}).Name); got != "tagged" {
		t.Error(got)
	}
}
