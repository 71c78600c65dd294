package stack

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"slipway/internal/api/ec2"
	"slipway/internal/api/elbv2"
	"slipway/internal/api/s3"
)

func (s *Stack) network(ctx context.Context) (bool, error) {
	vpcs, err := call(ctx, s, ec2.OpDescribeVpcs, &ec2.DescribeVpcsInput{Filters: list(ec2.Filter{Name: new("is-default"), Values: list("true")})})
	if err != nil {
		return false, err
	}
	if len(vpcs.Vpcs) == 0 {
		return false, errors.New("there is no default VPC in this region; aws ec2 create-default-vpc makes one")
	}
	s.VPC = *vpcs.Vpcs[0].VpcId
	subnets, err := call(ctx, s, ec2.OpDescribeSubnets, &ec2.DescribeSubnetsInput{Filters: list(ec2.Filter{Name: new("vpc-id"), Values: list(s.VPC)})})
	if err != nil {
		return false, err
	}
	sort.Slice(subnets.Subnets, func(i, j int) bool {
		return *subnets.Subnets[i].AvailabilityZone < *subnets.Subnets[j].AvailabilityZone
	})
	zones := map[string]bool{}
	for _, sn := range subnets.Subnets {
		if zone := *sn.AvailabilityZone; !zones[zone] && len(s.Subnets) < 3 {
			zones[zone] = true
			s.Subnets = append(s.Subnets, *sn.SubnetId)
		}
	}
	if len(s.Subnets) < 2 {
		return false, fmt.Errorf("a load balancer needs subnets in two zones, the default VPC %s has %d", s.VPC, len(s.Subnets))
	}
	return false, nil
}

func (s *Stack) securityGroup(ctx context.Context) (bool, error) {
	name := s.cfg.Name + "-web"
	found, err := call(ctx, s, ec2.OpDescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: list(
		ec2.Filter{Name: new("group-name"), Values: list(name)}, ec2.Filter{Name: new("vpc-id"), Values: list(s.VPC)})})
	if err != nil {
		return false, err
	}
	if len(found.SecurityGroups) > 0 {
		s.SecurityGroup = *found.SecurityGroups[0].GroupId
		return false, nil
	}
	made, err := call(ctx, s, ec2.OpCreateSecurityGroup, &ec2.CreateSecurityGroupInput{
		GroupName: &name, Description: new("HTTP for " + s.cfg.Name), VpcId: &s.VPC})
	if err != nil {
		return false, err
	}
	s.SecurityGroup = *made.GroupId
	_, err = call(ctx, s, ec2.OpAuthorizeSecurityGroupIngress, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &s.SecurityGroup,
		IpPermissions: list(ec2.IpPermission{IpProtocol: new("tcp"), FromPort: new(int64(80)), ToPort: new(int64(80)),
			IpRanges: list(ec2.IpRange{CidrIp: new("0.0.0.0/0"), Description: new("HTTP from the load balancer")})})})
	return true, err
}

func (s *Stack) bucket(ctx context.Context) (bool, error) {
	s.Bucket = fmt.Sprintf("%s-artifacts-%s-%s", s.cfg.Name, s.cfg.Account, s.cfg.Region)
	buckets, err := call(ctx, s, s3.OpListBuckets, &s3.ListBucketsInput{})
	if err != nil {
		return false, err
	}
	for _, b := range buckets.Buckets {
		if *b.Name == s.Bucket {
			return false, nil
		}
	}
	if _, err := call(ctx, s, s3.OpCreateBucket, &s3.CreateBucketInput{Bucket: &s.Bucket}); err != nil {
		return false, err
	}
	_, err = call(ctx, s, s3.OpPutBucketVersioning, &s3.PutBucketVersioningInput{Bucket: &s.Bucket,
		VersioningConfiguration: &s3.VersioningConfiguration{Status: new("Enabled")}})
	return true, err
}

func (s *Stack) loadBalancer(ctx context.Context) (bool, error) {
	tgMade, err := s.targetGroup(ctx)
	if err != nil {
		return false, err
	}
	lbMade := false
	lbs, err := call(ctx, s, elbv2.OpDescribeLoadBalancers, &elbv2.DescribeLoadBalancersInput{Names: list(s.cfg.Name)})
	switch {
	case missing(err, "LoadBalancerNotFound"):
		lbMade = true
		made, err := call(ctx, s, elbv2.OpCreateLoadBalancer, &elbv2.CreateLoadBalancerInput{
			Name: &s.cfg.Name, Subnets: s.Subnets, SecurityGroups: list(s.SecurityGroup)})
		if err != nil {
			return false, err
		}
		s.LoadBalancerARN = *made.LoadBalancers[0].LoadBalancerArn
	case err != nil:
		return false, err
	default:
		s.LoadBalancerARN = *lbs.LoadBalancers[0].LoadBalancerArn
	}
	listeners, err := call(ctx, s, elbv2.OpDescribeListeners, &elbv2.DescribeListenersInput{LoadBalancerArn: &s.LoadBalancerARN})
	if err != nil {
		return false, err
	}
	if len(listeners.Listeners) > 0 {
		s.ListenerARN = *listeners.Listeners[0].ListenerArn
		return tgMade || lbMade, nil
	}
	made, err := call(ctx, s, elbv2.OpCreateListener, &elbv2.CreateListenerInput{LoadBalancerArn: &s.LoadBalancerARN,
		Protocol: new("HTTP"), Port: new(int64(80)), DefaultActions: list(elbv2.Action{Type: new("forward"), TargetGroupArn: &s.TargetGroupARN})})
	if err != nil {
		return false, err
	}
	s.ListenerARN = *made.Listeners[0].ListenerArn
	return true, nil
}

func (s *Stack) targetGroup(ctx context.Context) (bool, error) {
	groups, err := call(ctx, s, elbv2.OpDescribeTargetGroups, &elbv2.DescribeTargetGroupsInput{Names: list(s.cfg.Name)})
	if err == nil {
		s.TargetGroupARN = *groups.TargetGroups[0].TargetGroupArn
		return false, nil
	}
	if !missing(err, "TargetGroupNotFound") {
		return false, err
	}
	// The shortest interval that AWS allows: an instance whose application
	// died is out of the rotation ten seconds later at most.
	made, err := call(ctx, s, elbv2.OpCreateTargetGroup, &elbv2.CreateTargetGroupInput{
		Name: &s.cfg.Name, Protocol: new("HTTP"), Port: new(int64(80)), VpcId: &s.VPC, TargetType: new("instance"),
		HealthCheckPath: &s.cfg.HealthCheckPath, HealthCheckIntervalSeconds: new(int64(5)), HealthCheckTimeoutSeconds: new(int64(2)),
		HealthyThresholdCount: new(int64(2)), UnhealthyThresholdCount: new(int64(2)),
	})
	if err != nil {
		return false, err
	}
	s.TargetGroupARN = *made.TargetGroups[0].TargetGroupArn
	_, err = call(ctx, s, elbv2.OpModifyTargetGroupAttributes, &elbv2.ModifyTargetGroupAttributesInput{TargetGroupArn: &s.TargetGroupARN,
		Attributes: list(elbv2.TargetGroupAttribute{Key: new("deregistration_delay.timeout_seconds"), Value: new("30")})})
	return true, err
}
