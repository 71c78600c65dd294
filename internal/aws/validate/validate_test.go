package validate

import (
	"strings"
	"testing"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/codebuild"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
	"slipway/internal/api/ec2"
	"slipway/internal/api/logs"
	"slipway/internal/api/s3"
	"slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/model"
)

func ptr[T any](v T) *T { return &v }

func TestInput(t *testing.T) {
	long := strings.Repeat("x", 600)
	for name, tt := range map[string]struct {
		op        model.AnyOp
		in        any
		code, msg string
	}{
		"fine": {logs.OpCreateLogGroup, &logs.CreateLogGroupInput{LogGroupName: ptr("/a/b")}, "", ""},
		"nil":  {logs.OpDescribeLogGroups, (*logs.DescribeLogGroupsInput)(nil), "", ""},
		"pattern": {logs.OpCreateLogGroup, &logs.CreateLogGroupInput{LogGroupName: ptr("a b")}, "InvalidParameterException",
			`1 validation error detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\.\-_/#A-Za-z0-9]+`},
		"two": {logs.OpCreateLogGroup, &logs.CreateLogGroupInput{LogGroupName: ptr(long + "!")}, "InvalidParameterException",
			"2 validation errors detected: "},
		"range": {codepipeline.OpListPipelines, &codepipeline.ListPipelinesInput{MaxResults: ptr(int64(0))}, "ValidationException",
			"1 validation error detected: Value '0' at 'maxResults' failed to satisfy constraint: Member must have value greater than or equal to 1"},
		"enum": {ssm.OpPutParameter, &ssm.PutParameterInput{Name: ptr("n"), Value: ptr("v"), Type: ptr("Text")}, "ValidationException",
			"Member must satisfy enum value set: [String, StringList, SecureString]"},
		"in a list": {autoscaling.OpCreateOrUpdateTags, &autoscaling.CreateOrUpdateTagsInput{Tags: []autoscaling.Tag{{Key: ptr("k")}, {}}}, "ValidationError",
			"1 validation error detected: Value null at 'tags.2.member.key' failed to satisfy constraint: Member must not be null"},
		"list length": {codebuild.OpBatchGetBuilds, &codebuild.BatchGetBuildsInput{Ids: []string{}}, "ValidationException",
			"Value '[]' at 'ids' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		"own code, missing": {codedeploy.OpGetApplication, &codedeploy.GetApplicationInput{}, "ApplicationNameRequiredException", ""},
		"own code, invalid": {codedeploy.OpGetApplication, &codedeploy.GetApplicationInput{ApplicationName: &long}, "InvalidApplicationNameException", ""},
		"ec2 missing":       {ec2.OpDeleteSubnet, &ec2.DeleteSubnetInput{}, "MissingParameter", "The request must contain the parameter SubnetId"},
		"ec2 no enum":       {ec2.OpRunInstances, &ec2.RunInstancesInput{MinCount: ptr(int64(1)), MaxCount: ptr(int64(1)), InstanceType: ptr("x9.nano")}, "", ""},
		"s3 body":           {s3.OpDeleteObjects, &s3.DeleteObjectsInput{Bucket: ptr("b")}, "MalformedXML", ""},
		"s3 enum":           {s3.OpPutBucketAcl, &s3.PutBucketAclInput{Bucket: ptr("b"), ACL: ptr("x")}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			shape, _ := tt.op.Schemas()
			err := Input(tt.op.Of(), shape, tt.in)
			if awserr.Code(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.msg) {
				t.Errorf("got %v, want %s %s", err, tt.code, tt.msg)
			}
		})
	}
}

// TestPatterns says which of AWS's patterns Go cannot compile, so that their
// number does not grow unseen.
func TestPatterns(t *testing.T) {
	for _, svc := range []*model.Service{logs.Service, codepipeline.Service, codebuild.Service, codedeploy.Service, autoscaling.Service, ssm.Service} {
		bad := 0
		for _, sh := range svc.Schema() {
			if sh.Pattern != "" && pattern(sh.Pattern) == nil {
				bad++
				t.Logf("%s %s: %s", svc.Name, sh.Name, sh.Pattern)
			}
		}
		if bad > 6 {
			t.Errorf("%s: %d patterns are not checked", svc.Name, bad)
		}
	}
}

func BenchmarkInput(b *testing.B) {
	in := &logs.PutLogEventsInput{LogGroupName: ptr("g"), LogStreamName: ptr("s"), LogEvents: make([]logs.InputLogEvent, 1000)}
	for i := range in.LogEvents {
		in.LogEvents[i] = logs.InputLogEvent{Timestamp: ptr(int64(1)), Message: ptr("a line")}
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Input(logs.Service, logs.OpPutLogEvents.Input, in); err != nil {
			b.Fatal(err)
		}
	}
}
