package awsjson

import (
	"strings"
	"testing"
	"time"

	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/codebuild"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
)

func TestDecode(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"empty":             {``, ""},
		"spaces":            {" \r\n\t{ } ", ""},
		"unknown members":   {`{"x":{"y":[1,-2.5e3,"\u00e9",true,false,null,{}]},"applicationName":"a"}`, ""},
		"null":              {`{"applicationName":null,"instanceTags":null}`, ""},
		"null element":      {`{"autoScalingGroups":["a",null,"b"]}`, ""},
		"not an object":     {`[]`, "Start of structure or map expected"},
		"trailing data":     {`{} {}`, "after the end"},
		"string for list":   {`{"autoScalingGroups":"x"}`, "Expected list or null (member autoScalingGroups)"},
		"object for string": {`{"applicationName":{}}`, "Start of structure or map found where not expected."},
		"list for string":   {`{"applicationName":[]}`, "Start of list found where not expected"},
		"true for string":   {`{"applicationName":true}`, "TRUE_VALUE can not be converted to a String"},
		"nested":            {`{"deploymentStyle":{"deploymentType":7}}`, "NUMBER_VALUE can not be converted to a String (member deploymentStyle.deploymentType)"},
		"string for bool":   {`{"outdatedInstancesStrategy":"UPDATE","terminationHookEnabled":"yes"}`, "STRING_VALUE can not be converted to a Boolean"},
		"unquoted":          {`{applicationName:"x"}`, "name was expected"},
		"cut off":           {`{"applicationName":"x`, "does not end"},
		"cut off escape":    {`{"applicationName":"x\`, "does not end"},
		"bad escape":        {`{"applicationName":"\x"}`, "unknown escape"},
		"control character": {"{\"applicationName\":\"\n\"}", "control character"},
		"comma at the end":  {`{"applicationName":"x",}`, "name was expected"},
		"deep":              {`{"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, "deeper than"},
		"leading zero":      {`{"x":01}`, "not a number"},
		"half a literal":    {`{"x":tru}`, "unexpected character"},
	} {
		t.Run(name, func(t *testing.T) {
			in := &codedeploy.CreateDeploymentGroupInput{}
			err := Decode(codedeploy.Service, codedeploy.OpCreateDeploymentGroup.Input, []byte(tt.body), in)
			if tt.want == "" && err != nil || tt.want != "" && (!awserr.Is(err, "SerializationException") || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestScalars(t *testing.T) {
	in := &logs.PutLogEventsInput{}
	body := `{"logGroupName":"\ud83d\ude00\"\\\/\n\u0041\ud800","logEvents":[{"timestamp":1.5e3,"message":"é"},{"timestamp":-9223372036854775808,"message":"` + "\xff" + `"}]}`
	if err := Decode(logs.Service, logs.OpPutLogEvents.Input, []byte(body), in); err != nil {
		t.Fatal(err)
	}
	if *in.LogGroupName != "😀\"\\/\nA\uFFFD" || *in.LogEvents[0].Timestamp != 1500 || *in.LogEvents[1].Timestamp != -1<<63 || *in.LogEvents[1].Message != "\uFFFD" {
		t.Errorf("got %q %v", *in.LogGroupName, in.LogEvents)
	}
	b, err := Encode(logs.Service, logs.OpPutLogEvents.Input, in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"logGroupName":"😀\"\\/\nA` + "\uFFFD" + `","logEvents":[{"timestamp":1500,"message":"é"},{"timestamp":-9223372036854775808,"message":"` + "\uFFFD" + `"}]}`; string(b) != want {
		t.Errorf("got %s", b)
	}
}

func TestTimes(t *testing.T) {
	want := time.Date(2026, 11, 23, 1, 2, 3, 456e6, time.UTC)
	for _, s := range []string{`1795395723.456`, `1.795395723456E9`, `"2026-11-23T01:02:03.456Z"`, `"2026-11-23T02:02:03.456+01:00"`} {
		in := &cloudwatch.GetMetricDataInput{}
		if err := Decode(cloudwatch.Service, cloudwatch.OpGetMetricData.Input, []byte(`{"StartTime":`+s+`}`), in); err != nil || !in.StartTime.Equal(want) {
			t.Errorf("%s: %v, %v", s, in.StartTime, err)
		}
	}
	b, err := Encode(cloudwatch.Service, cloudwatch.OpGetMetricData.Input, &cloudwatch.GetMetricDataInput{StartTime: &want, MetricDataQueries: []cloudwatch.MetricDataQuery{}})
	if err != nil || string(b) != `{"MetricDataQueries":[],"StartTime":1795395723.456}` {
		t.Errorf("%s, %v", b, err)
	}
	for _, s := range []string{`"soon"`, `1e300`, `{}`} {
		if err := Decode(cloudwatch.Service, cloudwatch.OpGetMetricData.Input, []byte(`{"StartTime":`+s+`}`), &cloudwatch.GetMetricDataInput{}); err == nil {
			t.Errorf("%s was accepted", s)
		}
	}
}

func TestErrorFields(t *testing.T) {
	shape := cloudwatch.Service.Shape(cloudwatch.Service.Errors["ResourceNotFoundException"].Shape - 1)
	b, err := EncodeError(cloudwatch.Service, "ResourceNotFoundException", "no \"x\"", shape, map[string]any{"ResourceType": "Dashboard", "ResourceId": "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"__type":"ResourceNotFoundException"`, `"no \"x\""`, `"ResourceType":"Dashboard"`, `"ResourceId":"x"`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in %s", want, b)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"p","environment":{"environmentVariables":[{"name":"A","value":"\u0000"}]},"tags":[],"timeoutInMinutes":5e0}`))
	f.Add([]byte(`{"source":{"auth":null,"buildspec":"\ud800\udc00"},"x":[[[{}]]]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		in := &codebuild.CreateProjectInput{}
		if Decode(codebuild.Service, codebuild.OpCreateProject.Input, body, in) != nil {
			return
		}
		b, err := Encode(codebuild.Service, codebuild.OpCreateProject.Input, in)
		if err != nil {
			t.Fatal(err)
		}
		again := &codebuild.CreateProjectInput{}
		if err := Decode(codebuild.Service, codebuild.OpCreateProject.Input, b, again); err != nil {
			t.Fatalf("what was encoded cannot be decoded: %v in %s", err, b)
		}
	})
}

var logBody = func() []byte {
	line := `{"timestamp":1795395723456,"message":"127.0.0.1 - - [23/Nov/2026:01:02:03 +0000] \"GET /tasks HTTP/1.1\" 200 1234 \"-\" \"curl/8.5\""}`
	return []byte(`{"logGroupName":"g","logStreamName":"s","logEvents":[` + strings.Repeat(line+",", 999) + line + `]}`)
}()

func BenchmarkDecodeLogEvents(b *testing.B) {
	b.SetBytes(int64(len(logBody)))
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(logs.Service, logs.OpPutLogEvents.Input, logBody, &logs.PutLogEventsInput{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeLogEvents(b *testing.B) {
	in := &logs.PutLogEventsInput{}
	if err := Decode(logs.Service, logs.OpPutLogEvents.Input, logBody, in); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(logBody)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Encode(logs.Service, logs.OpPutLogEvents.Input, in); err != nil {
			b.Fatal(err)
		}
	}
}
