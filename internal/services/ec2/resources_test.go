package ec2_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/dispatch"
)

func TestLaunchTemplateVersions(t *testing.T) {
	b := newBench(t)
	create := func(name string) (*api.CreateLaunchTemplateOutput, error) {
		return dispatch.Call(b.ctx, b.mux, api.OpCreateLaunchTemplate, &api.CreateLaunchTemplateInput{LaunchTemplateName: &name, ClientToken: new("once"),
			LaunchTemplateData: &api.RequestLaunchTemplateData{ImageId: new(b.defaultImage()), InstanceType: new("t3.nano")}})
	}
	made, err := create("web")
	if err != nil {
		t.Fatal(err)
	}
	id := made.LaunchTemplate.LaunchTemplateId
	if again, err := create("web"); err != nil || *again.LaunchTemplate.LaunchTemplateId != *id {
		t.Errorf("the same token: %v", err)
	}
	_, err = dispatch.Call(b.ctx, b.mux, api.OpCreateLaunchTemplate, &api.CreateLaunchTemplateInput{LaunchTemplateName: new("web"), LaunchTemplateData: &api.RequestLaunchTemplateData{}})
	b.wants("InvalidLaunchTemplateName.AlreadyExistsException", err)
	for _, size := range []string{"t3.micro", "t3.small"} {
		if _, err := dispatch.Call(b.ctx, b.mux, api.OpCreateLaunchTemplateVersion, &api.CreateLaunchTemplateVersionInput{LaunchTemplateId: id, SourceVersion: new("$Latest"),
			LaunchTemplateData: &api.RequestLaunchTemplateData{InstanceType: &size}}); err != nil {
			t.Fatal(err)
		}
	}
	versions := func(which ...string) (out []string) {
		t.Helper()
		got, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeLaunchTemplateVersions, &api.DescribeLaunchTemplateVersionsInput{LaunchTemplateName: new("web"), Versions: which})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range got.LaunchTemplateVersions {
			out = append(out, fmt.Sprint(*v.VersionNumber, *v.LaunchTemplateData.InstanceType))
		}
		return out
	}
	if got := versions(); !slices.Equal(got, []string{"3t3.small", "2t3.micro", "1t3.nano"}) {
		t.Errorf("versions %v", got)
	}
	if got := versions("$Default", "$Latest"); !slices.Equal(got, []string{"3t3.small", "1t3.nano"}) {
		t.Errorf("aliases %v", got)
	}
	gone, err := dispatch.Call(b.ctx, b.mux, api.OpDeleteLaunchTemplateVersions, &api.DeleteLaunchTemplateVersionsInput{LaunchTemplateId: id, Versions: []string{"1", "3", "9"}})
	if err != nil || len(gone.SuccessfullyDeletedLaunchTemplateVersions) != 1 || len(gone.UnsuccessfullyDeletedLaunchTemplateVersions) != 2 {
		t.Fatalf("deleted %+v, %v", gone, err)
	}
	next, err := dispatch.Call(b.ctx, b.mux, api.OpCreateLaunchTemplateVersion, &api.CreateLaunchTemplateVersionInput{LaunchTemplateId: id, LaunchTemplateData: &api.RequestLaunchTemplateData{}})
	if err != nil || *next.LaunchTemplateVersion.VersionNumber != 4 {
		t.Errorf("a number was used again: %+v, %v", next, err)
	}
	// What the request names wins over the template; tags are joined.
	out := b.run(func(in *api.RunInstancesInput) {
		in.ImageId, in.InstanceType = nil, new("t3.large")
		in.LaunchTemplate = &api.LaunchTemplateSpecification{LaunchTemplateId: id, Version: new("2")}
	})
	if *out.Instances[0].InstanceType != "t3.large" || *out.Instances[0].ImageId != b.defaultImage() {
		t.Errorf("launched %+v", out.Instances[0])
	}
}

func TestSecurityGroupRules(t *testing.T) {
	b := newBench(t)
	made, err := dispatch.Call(b.ctx, b.mux, api.OpCreateSecurityGroup, &api.CreateSecurityGroupInput{GroupName: new("web"), Description: new("web")})
	if err != nil {
		t.Fatal(err)
	}
	id := made.GroupId
	http := api.IpPermission{IpProtocol: new("tcp"), FromPort: new(int64(80)), ToPort: new(int64(80)), IpRanges: []api.IpRange{{CidrIp: new("0.0.0.0/0")}, {CidrIp: new("10.1.2.3/8")}}}
	authorize := func(p api.IpPermission) error {
		_, err := dispatch.Call(b.ctx, b.mux, api.OpAuthorizeSecurityGroupIngress, &api.AuthorizeSecurityGroupIngressInput{GroupId: id, IpPermissions: []api.IpPermission{p}})
		return err
	}
	if err := authorize(http); err != nil {
		t.Fatal(err)
	}
	b.wants("InvalidPermission.Duplicate", authorize(http))
	b.wants("InvalidParameterValue", authorize(api.IpPermission{IpProtocol: new("tcp"), FromPort: new(int64(90)), ToPort: new(int64(80)), IpRanges: http.IpRanges}))
	b.wants("InvalidParameterValue", authorize(api.IpPermission{IpProtocol: new("tcp"), FromPort: new(int64(80)), ToPort: new(int64(80)), IpRanges: []api.IpRange{{CidrIp: new("here")}}}))
	b.wants("InvalidParameterValue", authorize(api.IpPermission{IpProtocol: new("tcp"), FromPort: new(int64(81)), ToPort: new(int64(81))}))
	b.wants("InvalidGroup.NotFound", authorize(api.IpPermission{IpProtocol: new("-1"), UserIdGroupPairs: []api.UserIdGroupPair{{GroupId: new("sg-0123456789abcdef0")}}}))
	got, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeSecurityGroups, &api.DescribeSecurityGroupsInput{Filters: []api.Filter{{Name: new("ip-permission.cidr"), Values: []string{"10.0.0.0/8"}}}})
	if err != nil || len(got.SecurityGroups) != 1 || len(got.SecurityGroups[0].IpPermissions) != 1 || len(got.SecurityGroups[0].IpPermissions[0].IpRanges) != 2 {
		t.Fatalf("groups %+v, %v", got, err)
	}
	rules := func() []api.SecurityGroupRule {
		t.Helper()
		out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeSecurityGroupRules, &api.DescribeSecurityGroupRulesInput{Filters: []api.Filter{{Name: new("group-id"), Values: []string{*id}}}})
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(out.SecurityGroupRules, func(r api.SecurityGroupRule) bool { return *r.IsEgress })
	}
	first := rules()[0]
	if _, err := dispatch.Call(b.ctx, b.mux, api.OpModifySecurityGroupRules, &api.ModifySecurityGroupRulesInput{GroupId: id, SecurityGroupRules: []api.SecurityGroupRuleUpdate{{SecurityGroupRuleId: first.SecurityGroupRuleId,
		SecurityGroupRule: &api.SecurityGroupRuleRequest{IpProtocol: new("tcp"), FromPort: new(int64(443)), ToPort: new(int64(443)), CidrIpv4: new("192.0.2.0/24"), Description: new("tls")}}}}); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(rules(), func(r api.SecurityGroupRule) bool {
		return *r.SecurityGroupRuleId == *first.SecurityGroupRuleId && *r.FromPort == 443 && *r.CidrIpv4 == "192.0.2.0/24" && *r.Description == "tls"
	}) {
		t.Errorf("modified: %+v", rules())
	}
	egress := &api.RevokeSecurityGroupEgressInput{GroupId: id, IpPermissions: []api.IpPermission{{IpProtocol: new("-1"), IpRanges: []api.IpRange{{CidrIp: new("0.0.0.0/0")}}}}}
	if _, err := dispatch.Call(b.ctx, b.mux, api.OpRevokeSecurityGroupEgress, egress); err != nil {
		t.Errorf("the default egress rule: %v", err)
	}
	_, err = dispatch.Call(b.ctx, b.mux, api.OpRevokeSecurityGroupEgress, egress)
	b.wants("InvalidPermission.NotFound", err)
	b.run(func(in *api.RunInstancesInput) { in.SecurityGroupIds = []string{*id} })
	_, err = dispatch.Call(b.ctx, b.mux, api.OpDeleteSecurityGroup, &api.DeleteSecurityGroupInput{GroupId: id})
	b.wants("DependencyViolation", err)
	_, err = dispatch.Call(b.ctx, b.mux, api.OpDeleteSecurityGroup, &api.DeleteSecurityGroupInput{GroupName: new("default")})
	b.wants("CannotDelete", err)
}

func TestFiltersAndPages(t *testing.T) {
	b := newBench(t)
	tag := func(v string) func(*api.RunInstancesInput) {
		return func(in *api.RunInstancesInput) {
			in.MaxCount = new(int64(6))
			in.TagSpecifications = []api.TagSpecification{{ResourceType: new("instance"), Tags: []api.Tag{{Key: new("app"), Value: &v}}}}
		}
	}
	b.run(tag("todo-web"))
	b.run(tag("other"))
	find := func(filters ...api.Filter) int {
		t.Helper()
		n := 0
		in := &api.DescribeInstancesInput{Filters: filters, MaxResults: new(int64(5))}
		for {
			out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeInstances, in)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Reservations {
				n += len(r.Instances)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return n
			}
		}
	}
	f := func(name string, values ...string) api.Filter { return api.Filter{Name: &name, Values: values} }
	for _, c := range []struct {
		filters []api.Filter
		want    int
	}{
		{nil, 12}, {[]api.Filter{f("tag:app", "todo-*")}, 6}, {[]api.Filter{f("tag:app", "todo-web", "other")}, 12}, {[]api.Filter{f("tag:app", "t?do-web")}, 6},
		{[]api.Filter{f("tag-key", "app"), f("tag:app", "nobody")}, 0}, {[]api.Filter{f("instance-type", "t3.*"), f("tag:app", "other")}, 6}, {[]api.Filter{f("tag:app", `todo\*`)}, 0},
	} {
		if got := find(c.filters...); got != c.want {
			t.Errorf("%+v found %d, want %d", c.filters, got, c.want)
		}
	}
	_, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeInstances, &api.DescribeInstancesInput{Filters: []api.Filter{f("colour", "red")}})
	b.wants("InvalidParameterValue", err)
	_, err = dispatch.Call(b.ctx, b.mux, api.OpDescribeInstances, &api.DescribeInstancesInput{NextToken: new("garbage")})
	b.wants("InvalidParameterValue", err)
	_, err = dispatch.Call(b.ctx, b.mux, api.OpDescribeInstances, &api.DescribeInstancesInput{InstanceIds: []string{"i-xyz"}})
	b.wants("InvalidInstanceID.Malformed", err)
}

func TestImages(t *testing.T) {
	b := newBench(t)
	id := *b.run(nil).Instances[0].InstanceId
	b.untilState(id, "running")
	made, err := dispatch.Call(b.ctx, b.mux, api.OpCreateImage, &api.CreateImageInput{InstanceId: &id, Name: new("golden")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = dispatch.Call(b.ctx, b.mux, api.OpCreateImage, &api.CreateImageInput{InstanceId: &id, Name: new("golden")})
	b.wants("InvalidAMIName.Duplicate", err)
	second := *b.run(func(in *api.RunInstancesInput) { in.ImageId = made.ImageId }).Instances[0].InstanceId
	b.untilState(second, "running")
	if st, _ := b.driver.Status(second); !strings.HasPrefix(st.Spec.Image, "sha256:") {
		t.Errorf("booted image %q", st.Spec.Image)
	}
	if _, err := dispatch.Call(b.ctx, b.mux, api.OpDeregisterImage, &api.DeregisterImageInput{ImageId: made.ImageId}); err != nil {
		t.Fatal(err)
	}
	_, err = dispatch.Call(b.ctx, b.mux, api.OpDescribeImages, &api.DescribeImagesInput{ImageIds: []string{*made.ImageId}})
	b.wants("InvalidAMIID.NotFound", err)
	_, err = dispatch.Call(b.ctx, b.mux, api.OpDeregisterImage, &api.DeregisterImageInput{ImageId: new(b.defaultImage())})
	b.wants("AuthFailure", err)
}
