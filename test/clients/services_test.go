package clients

import (
	"strings"
	"testing"
)

// TestBoto3 lets scripts use each service as a person would in a day.
func TestBoto3(t *testing.T) {
	for _, script := range []string{"identity.py", "fleet.py", "delivery.py", "watching.py", "events.py", "reset.py"} {
		t.Run(strings.TrimSuffix(script, ".py"), func(t *testing.T) {
			t.Parallel()
			start(t).python(script)
		})
	}
}

// TestWebStackByCommandLine makes a group of instances behind a load balancer
// with the aws command line, and takes it away again.
func TestWebStackByCommandLine(t *testing.T) {
	t.Parallel()
	needProgram(t, "aws")
	s := start(t)
	subnets := s.aws("ec2", "describe-subnets", "--filters", "Name=default-for-az,Values=true")
	var ids []string
	for i := range at(t, subnets, "Subnets").([]any) {
		ids = append(ids, text(t, subnets, "Subnets", i, "SubnetId"))
	}
	if len(ids) != 3 {
		t.Fatalf("%d default subnets", len(ids))
	}
	vpc := text(t, subnets, "Subnets", 0, "VpcId")
	s.aws("ec2", "create-launch-template", "--launch-template-name", "web", "--launch-template-data", `{"ImageId":"ami-12345678","InstanceType":"t3.micro"}`)
	tg := text(t, s.aws("elbv2", "create-target-group", "--name", "web", "--protocol", "HTTP", "--port", "80", "--vpc-id", vpc), "TargetGroups", 0, "TargetGroupArn")
	lb := text(t, s.aws(append([]string{"elbv2", "create-load-balancer", "--name", "web", "--subnets"}, ids...)...), "LoadBalancers", 0, "LoadBalancerArn")
	s.aws("elbv2", "create-listener", "--load-balancer-arn", lb, "--protocol", "HTTP", "--port", "80", "--default-actions", "Type=forward,TargetGroupArn="+tg)
	s.aws("autoscaling", "create-auto-scaling-group", "--auto-scaling-group-name", "web", "--launch-template", "LaunchTemplateName=web", "--min-size", "2", "--max-size", "3",
		"--vpc-zone-identifier", strings.Join(ids, ","), "--target-group-arns", tg)
	s.aws("ec2", "wait", "instance-running", "--filters", "Name=tag:aws:autoscaling:groupName,Values=web")
	s.awsRefuses("AlreadyExists", "autoscaling", "create-auto-scaling-group", "--auto-scaling-group-name", "web", "--launch-template", "LaunchTemplateName=web", "--min-size", "2", "--max-size", "3", "--availability-zones", "us-east-1a")
	s.awsRefuses("ResourceInUse", "elbv2", "delete-target-group", "--target-group-arn", tg)
	role := text(t, s.aws("iam", "create-role", "--role-name", "deploy", "--assume-role-policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"codedeploy.amazonaws.com"},"Action":"sts:AssumeRole"}]}`), "Role", "Arn")
	s.aws("deploy", "create-application", "--application-name", "web")
	s.aws("deploy", "create-deployment-group", "--application-name", "web", "--deployment-group-name", "web", "--service-role-arn", role, "--auto-scaling-groups", "web",
		"--load-balancer-info", "targetGroupInfoList=[{name=web}]", "--deployment-style", "deploymentType=IN_PLACE,deploymentOption=WITH_TRAFFIC_CONTROL")

	s.aws("deploy", "delete-application", "--application-name", "web")
	s.aws("autoscaling", "delete-auto-scaling-group", "--auto-scaling-group-name", "web", "--force-delete")
	s.aws("ec2", "wait", "instance-terminated", "--filters", "Name=image-id,Values=*")
	s.wait("the group to be gone", func() bool {
		return len(at(t, s.aws("autoscaling", "describe-auto-scaling-groups"), "AutoScalingGroups").([]any)) == 0
	})
	s.aws("elbv2", "delete-load-balancer", "--load-balancer-arn", lb)
	s.aws("elbv2", "delete-target-group", "--target-group-arn", tg)
	s.aws("ec2", "delete-launch-template", "--launch-template-name", "web")
	s.aws("iam", "delete-role", "--role-name", "deploy")
	for what, args := range map[string][]string{
		"LoadBalancers": {"elbv2", "describe-load-balancers"}, "TargetGroups": {"elbv2", "describe-target-groups"}, "applications": {"deploy", "list-applications"},
		"LaunchTemplates": {"ec2", "describe-launch-templates"}, "Roles": {"iam", "list-roles"}, "Reservations": {"ec2", "describe-instances", "--filters", "Name=instance-state-name,Values=pending,running,stopping,stopped"},
	} {
		if left := at(t, s.aws(args...), what).([]any); len(left) > 0 {
			t.Errorf("%s are left: %v", what, left)
		}
	}
}

// TestNotificationRuleByCommandLine: the REST-JSON protocol as the aws command
// line speaks it, an ARN in the path among the rest.
func TestNotificationRuleByCommandLine(t *testing.T) {
	t.Parallel()
	needProgram(t, "aws")
	s := start(t)
	repository := text(t, s.aws("codecommit", "create-repository", "--repository-name", "day"), "repositoryMetadata", "Arn")
	topic := text(t, s.aws("sns", "create-topic", "--name", "news"), "TopicArn")
	create := []string{"codestar-notifications", "create-notification-rule", "--name", "news of day", "--resource", repository, "--detail-type", "FULL",
		"--event-type-ids", "codecommit-repository-branches-and-tags-created", "--targets", "TargetType=SNS,TargetAddress=" + topic, "--tags", "team=a,stage=b"}
	rule := text(t, s.aws(create...), "Arn")
	if got := text(t, s.aws("codestar-notifications", "describe-notification-rule", "--arn", rule), "EventTypes", 0, "EventTypeName"); got != "Branches and tags: Created" {
		t.Errorf("the event type is called %q", got)
	}
	s.aws("codestar-notifications", "untag-resource", "--arn", rule, "--tag-keys", "team", "none")
	if tags := at(t, s.aws("codestar-notifications", "list-tags-for-resource", "--arn", rule), "Tags").(map[string]any); len(tags) != 1 || tags["stage"] != "b" {
		t.Errorf("tags %v", tags)
	}
	s.awsRefuses("ResourceAlreadyExistsException", create...)
	s.awsRefuses("ResourceNotFoundException", "codestar-notifications", "subscribe", "--arn", rule+"0", "--target", "TargetType=SNS,TargetAddress="+topic)
	s.aws("codestar-notifications", "update-notification-rule", "--arn", rule, "--status", "DISABLED")
	s.aws("codestar-notifications", "delete-notification-rule", "--arn", rule)
	if left := at(t, s.aws("codestar-notifications", "list-notification-rules"), "NotificationRules").([]any); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
