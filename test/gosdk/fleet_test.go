package gosdk

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// TestEC2 runs instances, waits for what they become, and pages through them.
func TestEC2(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	c := ec2.NewFromConfig(cfg)
	run := must[*ec2.RunInstancesOutput](t)(c.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: aws.String("ami-12345678"), InstanceType: ec2types.InstanceTypeT3Micro, MinCount: aws.Int32(3), MaxCount: aws.Int32(3),
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeInstance, Tags: []ec2types.Tag{{Key: aws.String("Name"), Value: aws.String("go & sdk")}}}}}))
	var ids []string
	for _, i := range run.Instances {
		ids = append(ids, *i.InstanceId)
	}
	which := &ec2.DescribeInstancesInput{InstanceIds: ids}
	ok(t, nil, ec2.NewInstanceRunningWaiter(c).Wait(ctx, which, soon))
	ok(t, nil, ec2.NewInstanceStatusOkWaiter(c).Wait(ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: ids}, soon))
	n := pages(t, ec2.NewDescribeInstancesPaginator(c, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)}), func(p *ec2.DescribeInstancesOutput) {
		for _, r := range p.Reservations {
			for _, i := range r.Instances {
				if i.PrivateIpAddress == nil || i.LaunchTime == nil || len(i.Tags) != 1 || *i.Tags[0].Value != "go & sdk" || i.State.Name != ec2types.InstanceStateNameRunning {
					t.Errorf("%+v", i)
				}
			}
		}
	})
	zones := 0
	subnets := pages(t, ec2.NewDescribeSubnetsPaginator(c, &ec2.DescribeSubnetsInput{MaxResults: aws.Int32(5)}), func(p *ec2.DescribeSubnetsOutput) { zones += len(p.Subnets) })
	if n != 1 || subnets != 1 || zones != 3 {
		t.Errorf("%d pages of instances, %d of subnets with %d", n, subnets, zones)
	}
	_, err := c.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: ids[:1]})
	ok(t, nil, err)
	ok(t, nil, ec2.NewInstanceStoppedWaiter(c).Wait(ctx, &ec2.DescribeInstancesInput{InstanceIds: ids[:1]}, soon))
	_, err = c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: ids})
	ok(t, nil, err)
	ok(t, nil, ec2.NewInstanceTerminatedWaiter(c).Wait(ctx, which, soon))
	_, err = c.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{"i-0123456789abcdef0"}})
	coded(t, "InvalidInstanceID.NotFound", nil, err)
}

// TestGroupBehindLoadBalancer makes an Auto Scaling group behind a load
// balancer, as a program that sets up a service does.
func TestGroupBehindLoadBalancer(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	net, lb, asg := ec2.NewFromConfig(cfg), elb.NewFromConfig(cfg), autoscaling.NewFromConfig(cfg)
	var subnets []string
	var vpc, list string
	for _, s := range must[*ec2.DescribeSubnetsOutput](t)(net.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})).Subnets {
		subnets, vpc = append(subnets, *s.SubnetId), *s.VpcId
		list += "," + *s.SubnetId
	}
	_, err := net.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("web"), LaunchTemplateData: &ec2types.RequestLaunchTemplateData{ImageId: aws.String("ami-12345678"), InstanceType: ec2types.InstanceTypeT3Micro}})
	ok(t, nil, err)

	made := must[*elb.CreateLoadBalancerOutput](t)(lb.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{Name: aws.String("web"), Subnets: subnets})).LoadBalancers[0]
	only := &elb.DescribeLoadBalancersInput{LoadBalancerArns: []string{*made.LoadBalancerArn}}
	ok(t, nil, elb.NewLoadBalancerAvailableWaiter(lb).Wait(ctx, only, soon))
	tg := must[*elb.CreateTargetGroupOutput](t)(lb.CreateTargetGroup(ctx, &elb.CreateTargetGroupInput{Name: aws.String("web"), Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(80), VpcId: &vpc})).TargetGroups[0].TargetGroupArn
	listener := must[*elb.CreateListenerOutput](t)(lb.CreateListener(ctx, &elb.CreateListenerInput{LoadBalancerArn: made.LoadBalancerArn, Protocol: elbtypes.ProtocolEnumHttp, Port: aws.Int32(80),
		DefaultActions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumForward, TargetGroupArn: tg}}})).Listeners[0]
	_, err = lb.CreateRule(ctx, &elb.CreateRuleInput{ListenerArn: listener.ListenerArn, Priority: aws.Int32(10), Conditions: []elbtypes.RuleCondition{{Field: aws.String("path-pattern"), PathPatternConfig: &elbtypes.PathPatternConditionConfig{Values: []string{"/api/*"}}}},
		Actions: []elbtypes.Action{{Type: elbtypes.ActionTypeEnumFixedResponse, FixedResponseConfig: &elbtypes.FixedResponseActionConfig{StatusCode: aws.String("200"), ContentType: aws.String("text/plain"), MessageBody: aws.String("x")}}}})
	ok(t, nil, err)
	rules := 0
	pages(t, elb.NewDescribeRulesPaginator(lb, &elb.DescribeRulesInput{ListenerArn: listener.ListenerArn, PageSize: aws.Int32(1)}), func(p *elb.DescribeRulesOutput) { rules += len(p.Rules) })
	if rules != 2 {
		t.Errorf("%d rules", rules)
	}

	in := &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: aws.String("web"), MinSize: aws.Int32(2), MaxSize: aws.Int32(3), VPCZoneIdentifier: aws.String(list[1:]), TargetGroupARNs: []string{*tg},
		LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateName: aws.String("web")}, Tags: []astypes.Tag{{Key: aws.String("team"), Value: aws.String("a"), PropagateAtLaunch: aws.Bool(true)}}}
	_, err = asg.CreateAutoScalingGroup(ctx, in)
	ok(t, nil, err)
	_, err = asg.CreateAutoScalingGroup(ctx, in)
	refused[*astypes.AlreadyExistsFault](t, "a second group of that name", nil, err)
	group := &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"web"}}
	ok(t, nil, autoscaling.NewGroupInServiceWaiter(asg).Wait(ctx, group, soon))
	_, err = asg.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: aws.String("web"), DesiredCapacity: aws.Int32(3)})
	ok(t, nil, err)
	eventually(t, "three targets", func() bool {
		return len(must[*elb.DescribeTargetHealthOutput](t)(lb.DescribeTargetHealth(ctx, &elb.DescribeTargetHealthInput{TargetGroupArn: tg})).TargetHealthDescriptions) == 3
	})
	_, err = asg.SetDesiredCapacity(ctx, &autoscaling.SetDesiredCapacityInput{AutoScalingGroupName: aws.String("web"), DesiredCapacity: aws.Int32(4)})
	coded(t, "ValidationError", nil, err)
	policy := must[*autoscaling.PutScalingPolicyOutput](t)(asg.PutScalingPolicy(ctx, &autoscaling.PutScalingPolicyInput{AutoScalingGroupName: aws.String("web"), PolicyName: aws.String("cpu"), PolicyType: aws.String("TargetTrackingScaling"),
		TargetTrackingConfiguration: &astypes.TargetTrackingConfiguration{TargetValue: aws.Float64(50), PredefinedMetricSpecification: &astypes.PredefinedMetricSpecification{PredefinedMetricType: astypes.MetricTypeASGAverageCPUUtilization}}}))
	if len(policy.Alarms) != 2 {
		t.Errorf("policy: %+v", policy)
	}
	launched := 0
	pages(t, autoscaling.NewDescribeScalingActivitiesPaginator(asg, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: aws.String("web"), MaxRecords: aws.Int32(1)}), func(p *autoscaling.DescribeScalingActivitiesOutput) {
		launched += len(p.Activities)
	})
	if launched < 3 {
		t.Errorf("%d activities", launched)
	}
	_, err = lb.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: tg})
	refused[*elbtypes.ResourceInUseException](t, "a target group in use", nil, err)
	_, err = asg.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: aws.String("web")})
	refused[*astypes.ResourceInUseFault](t, "a group with instances", nil, err)

	_, err = asg.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: aws.String("web"), ForceDelete: aws.Bool(true)})
	ok(t, nil, err)
	ok(t, nil, autoscaling.NewGroupNotExistsWaiter(asg).Wait(ctx, group, soon))
	_, err = lb.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerArn: made.LoadBalancerArn})
	ok(t, nil, err)
	ok(t, nil, elb.NewLoadBalancersDeletedWaiter(lb).Wait(ctx, only, soon))
	_, err = lb.DescribeLoadBalancers(ctx, only)
	refused[*elbtypes.LoadBalancerNotFoundException](t, "a load balancer that is gone", nil, err)
	_, err = lb.DeleteTargetGroup(ctx, &elb.DeleteTargetGroupInput{TargetGroupArn: tg})
	ok(t, nil, err)
}
