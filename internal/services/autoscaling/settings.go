package autoscaling

import (
	"context"
	"slices"
	"strings"

	api "slipway/internal/api/autoscaling"
	ec2 "slipway/internal/api/ec2"
	elbv2 "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// updateOf is the part of a creation that an update has as well.
func updateOf(in *api.CreateAutoScalingGroupInput) *api.UpdateAutoScalingGroupInput {
	return &api.UpdateAutoScalingGroupInput{LaunchConfigurationName: in.LaunchConfigurationName, LaunchTemplate: in.LaunchTemplate, MixedInstancesPolicy: in.MixedInstancesPolicy,
		DefaultCooldown: in.DefaultCooldown, AvailabilityZones: in.AvailabilityZones, AvailabilityZoneIds: in.AvailabilityZoneIds, HealthCheckType: in.HealthCheckType,
		HealthCheckGracePeriod: in.HealthCheckGracePeriod, VPCZoneIdentifier: in.VPCZoneIdentifier, TerminationPolicies: in.TerminationPolicies,
		NewInstancesProtectedFromScaleIn: in.NewInstancesProtectedFromScaleIn, MaxInstanceLifetime: in.MaxInstanceLifetime, CapacityRebalance: in.CapacityRebalance,
		Context: in.Context, DesiredCapacityType: in.DesiredCapacityType, DefaultInstanceWarmup: in.DefaultInstanceWarmup, InstanceMaintenancePolicy: in.InstanceMaintenancePolicy,
		AvailabilityZoneDistribution: in.AvailabilityZoneDistribution, AvailabilityZoneImpairmentPolicy: in.AvailabilityZoneImpairmentPolicy, DeletionProtection: in.DeletionProtection}
}

// settings applies what may be given at creation and changed later.
func (s *Service) settings(ctx context.Context, g *Group, u *api.UpdateAutoScalingGroupInput) error {
	if err := s.launchSource(ctx, g, u); err != nil {
		return err
	}
	if err := s.places(ctx, g, u); err != nil {
		return err
	}
	if u.HealthCheckType != nil {
		types := strings.Split(*u.HealthCheckType, ",")
		for n, t := range types {
			types[n] = strings.TrimSpace(t)
			if !slices.Contains([]string{"EC2", "ELB", "EBS", "VPC_LATTICE"}, types[n]) {
				return invalid("Health check type '%s' is invalid: EC2, ELB, EBS and VPC_LATTICE are known.", types[n])
			}
		}
		g.HealthTypes = strings.Join(types, ",")
	}
	if u.TerminationPolicies != nil {
		for n, p := range u.TerminationPolicies {
			switch {
			case strings.HasPrefix(p, "arn:"):
				return invalid("Slipway cannot ask a Lambda function for a termination policy: %s", p)
			case !slices.Contains(terminationPolicies, p):
				return invalid("Termination policy '%s' is invalid.", p)
			case p == "Default" && n != len(u.TerminationPolicies)-1:
				return invalid("The Default termination policy must be the last one.")
			}
		}
		g.Policies = u.TerminationPolicies
		if len(g.Policies) == 0 {
			g.Policies = []string{"Default"}
		}
	}
	if l := u.MaxInstanceLifetime; l != nil {
		if *l != 0 && *l < 86400 {
			return invalid("MaxInstanceLifetime must be 0 or at least 86400 seconds, not %d.", *l)
		}
		g.MaxLifetime = orNil(*l)
	}
	if m := u.InstanceMaintenancePolicy; m != nil {
		if err := checkMaintenance(g, m); err != nil {
			return err
		}
	}
	if w := u.DefaultInstanceWarmup; w != nil {
		if g.Warmup = w; *w == -1 {
			g.Warmup = nil
		}
	}
	set(&g.Cooldown, u.DefaultCooldown)
	set(&g.Grace, u.HealthCheckGracePeriod)
	set(&g.ProtectNew, u.NewInstancesProtectedFromScaleIn)
	keep(&g.Kept.PlacementGroup, u.PlacementGroup)
	keep(&g.Kept.ServiceLinkedRoleARN, u.ServiceLinkedRoleARN)
	keep(&g.Kept.Context, u.Context)
	keep(&g.Kept.DesiredCapacityType, u.DesiredCapacityType)
	keep(&g.Kept.DeletionProtection, u.DeletionProtection)
	keep(&g.Kept.CapacityRebalance, u.CapacityRebalance)
	keep(&g.Kept.Distribution, u.AvailabilityZoneDistribution)
	keep(&g.Kept.Impairment, u.AvailabilityZoneImpairmentPolicy)
	keep(&g.Kept.Reservation, u.CapacityReservationSpecification)
	keep(&g.Kept.Lifecycle, u.InstanceLifecyclePolicy)
	return checkBounds(g.Min, g.Max, g.Desired)
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func keep[T any](to **T, from *T) {
	if from != nil {
		*to = from
	}
}

func checkMaintenance(g *Group, m *api.InstanceMaintenancePolicy) error {
	low, high := ptr.Value(m.MinHealthyPercentage), ptr.Value(m.MaxHealthyPercentage)
	switch {
	case m.MinHealthyPercentage == nil || m.MaxHealthyPercentage == nil:
		return invalid("InstanceMaintenancePolicy needs both MinHealthyPercentage and MaxHealthyPercentage.")
	case low == -1 && high == -1:
		g.Maintenance = nil
		return nil
	case low < 0 || low > 100 || high < 100 || high > 200 || high-low > 100:
		return invalid("InstanceMaintenancePolicy is invalid: MinHealthyPercentage 0 to 100, MaxHealthyPercentage 100 to 200, at most 100 apart; got %d and %d.", low, high)
	}
	g.Maintenance = m
	return nil
}

func checkBounds(low, high, desired int64) error {
	switch {
	case low < 0 || high < 0:
		return invalid("Min and max sizes must not be negative.")
	case low > high:
		return invalid("Min bound, %d, must be less than or equal to max bound, %d", low, high)
	case desired < low || desired > high:
		return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", desired, low, high)
	}
	return nil
}

// launchSource sets the template, after a dry run of it, as AWS does.
func (s *Service) launchSource(ctx context.Context, g *Group, u *api.UpdateAutoScalingGroupInput) error {
	given := 0
	for _, b := range []bool{u.LaunchTemplate != nil, u.MixedInstancesPolicy != nil, u.LaunchConfigurationName != nil} {
		if b {
			given++
		}
	}
	switch {
	case given == 0:
		return nil
	case given > 1:
		return invalid("Valid requests must contain only one of LaunchTemplate, LaunchConfigurationName and MixedInstancesPolicy.")
	case u.LaunchConfigurationName != nil:
		return invalid("Launch configuration name not found - Slipway has no launch configurations: use a launch template in place of %s.", *u.LaunchConfigurationName)
	}
	spec := u.LaunchTemplate
	g.Mixed = u.MixedInstancesPolicy
	if g.Mixed != nil {
		if g.Mixed.LaunchTemplate == nil || g.Mixed.LaunchTemplate.LaunchTemplateSpecification == nil {
			return invalid("MixedInstancesPolicy needs LaunchTemplate.LaunchTemplateSpecification.")
		}
		spec = g.Mixed.LaunchTemplate.LaunchTemplateSpecification
		for _, o := range g.Mixed.LaunchTemplate.Overrides {
			if o.InstanceRequirements != nil || o.LaunchTemplateSpecification != nil || o.WeightedCapacity != nil {
				return awserr.New("NotImplemented", "Slipway does not implement InstanceRequirements, LaunchTemplateSpecification and WeightedCapacity of overrides yet.").WithStatus(501)
			}
		}
	}
	if (spec.LaunchTemplateId == nil) == (spec.LaunchTemplateName == nil) {
		return invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
	}
	version := ptr.Value(spec.Version)
	g.Template = &templateRef{ptr.Value(spec.LaunchTemplateId), ptr.Value(spec.LaunchTemplateName), version}
	r, err := s.resolve(ctx, g)
	if e := awserr.As(err); e != nil && e.Status != 501 {
		return invalid("You must use a valid fully-formed launch template. %s", e.Message)
	}
	if err != nil {
		return err
	}
	_, err = dispatch.Call(ctx, s.Mux, ec2.OpRunInstances, &ec2.RunInstancesInput{MinCount: new(int64(1)), MaxCount: new(int64(1)), DryRun: new(true), InstanceType: orNil(r.override),
		LaunchTemplate: &ec2.LaunchTemplateSpecification{LaunchTemplateId: &r.ref.ID, Version: &r.ref.Version}})
	if e := awserr.As(err); e != nil && e.Code != "DryRunOperation" {
		return invalid("You must use a valid fully-formed launch template. %s", e.Message)
	} else if e == nil && err != nil {
		return err
	}
	g.Template.ID, g.Template.Name = r.ref.ID, r.ref.Name
	return nil
}

// places sets where instances may go; subnets decide, zones must agree.
func (s *Service) places(ctx context.Context, g *Group, u *api.UpdateAutoScalingGroupInput) error {
	if u.VPCZoneIdentifier == nil && len(u.AvailabilityZones) == 0 && len(u.AvailabilityZoneIds) == 0 {
		return nil
	}
	zones := append(slices.Clone(u.AvailabilityZones), u.AvailabilityZoneIds...)
	in := &ec2.DescribeSubnetsInput{}
	if subnets := ptr.Value(u.VPCZoneIdentifier); subnets != "" {
		for id := range strings.SplitSeq(subnets, ",") {
			in.SubnetIds = append(in.SubnetIds, strings.TrimSpace(id))
		}
	} else {
		in.Filters = []ec2.Filter{{Name: new("default-for-az"), Values: []string{"true"}}}
	}
	out, err := dispatch.Call(ctx, s.Mux, ec2.OpDescribeSubnets, in)
	if e := awserr.As(err); e != nil && e.Status != 501 {
		return invalid("%s", e.Message)
	}
	if err != nil {
		return err
	}
	var found []place
	for _, sn := range out.Subnets {
		p := place{ptr.Value(sn.SubnetId), ptr.Value(sn.AvailabilityZone), ptr.Value(sn.AvailabilityZoneId)}
		if len(zones) > 0 && !slices.Contains(zones, p.Zone) && !slices.Contains(zones, p.ZoneID) {
			if len(in.SubnetIds) > 0 {
				return invalid("The availability zones of the specified subnets and the Auto Scaling group do not match: %s is in %s.", p.Subnet, p.Zone)
			}
			continue
		}
		found = append(found, p)
	}
	for _, z := range zones {
		if !slices.ContainsFunc(found, func(p place) bool { return p.Zone == z || p.ZoneID == z }) {
			return invalid("Invalid availability zone %s: no subnet of the group lies in it.", z)
		}
	}
	slices.SortFunc(found, func(a, b place) int { return strings.Compare(a.Zone+a.Subnet, b.Zone+b.Subnet) })
	g.Places = found
	g.GivenSubnets = strings.Join(in.SubnetIds, ",")
	return nil
}

func (s *Service) checkTargetGroups(ctx context.Context, arns []string) error {
	for _, arn := range arns {
		_, err := dispatch.Call(ctx, s.Mux, elbv2.OpDescribeTargetHealth, &elbv2.DescribeTargetHealthInput{TargetGroupArn: &arn})
		if e := awserr.As(err); e != nil && e.Status != 501 {
			return invalid("Provided Target Groups may not be valid. Please ensure they exist and try again.")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
