package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	api "slipway/internal/api/autoscaling"
	ec2 "slipway/internal/api/ec2"
	elbv2 "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

func (s *Service) createGroup(ctx context.Context, in *api.CreateAutoScalingGroupInput) (*api.CreateAutoScalingGroupOutput, error) {
	account, region := where(ctx)
	g, err := s.groupFrom(ctx, in)
	if err != nil {
		return nil, err
	}
	var newHooks []hook
	for _, h := range in.LifecycleHookSpecificationList {
		spec, err := hookFrom(&api.PutLifecycleHookInput{AutoScalingGroupName: in.AutoScalingGroupName, LifecycleHookName: h.LifecycleHookName, LifecycleTransition: h.LifecycleTransition,
			RoleARN: h.RoleARN, NotificationTargetARN: h.NotificationTargetARN, NotificationMetadata: h.NotificationMetadata, HeartbeatTimeout: h.HeartbeatTimeout, DefaultResult: h.DefaultResult}, nil)
		if err != nil {
			return nil, err
		}
		newHooks = append(newHooks, *spec)
	}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		if _, err := groups.Insert(tx, account, region, g.Name, *g, "Created", nil); errors.Is(err, store.ErrExists) {
			return awserr.New("AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name %s already exists", g.Name)
		} else if err != nil {
			return err
		}
		for _, h := range newHooks {
			if _, err := hooks.Insert(tx, account, region, h.Group+"/"+h.Name, h, "Created", nil); errors.Is(err, store.ErrExists) {
				return invalid("The lifecycle hook name '%s' is given twice.", h.Name)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil && g.checksELB() && g.Grace == 0 {
		s.Log.Warn("a group with ELB health checks has no grace period: instances that boot slower than their health check are replaced for ever", "group", g.Name)
	}
	return &api.CreateAutoScalingGroupOutput{}, err
}

func validName(name string) error {
	if name == "" || len(name) > 255 || strings.ContainsRune(name, ':') ||
		strings.IndexFunc(name, func(r rune) bool { return r < 32 || r > 126 }) >= 0 {
		return invalid("The AutoScalingGroup name '%s' is invalid: 1 to 255 printable ASCII characters without a colon.", name)
	}
	return nil
}

// groupFrom checks a request and makes the group of it.
func (s *Service) groupFrom(ctx context.Context, in *api.CreateAutoScalingGroupInput) (*Group, error) {
	account, region := where(ctx)
	now := s.Clock.Now()
	name := deref(in.AutoScalingGroupName)
	if err := validName(name); err != nil {
		return nil, err
	}
	g := &Group{Name: name, Created: now, Min: deref(in.MinSize), Max: deref(in.MaxSize), Cooldown: 300, HealthTypes: "EC2", Policies: []string{"Default"},
		ARN:  fmt.Sprintf("arn:aws:autoscaling:%s:%s:autoScalingGroup:%s:autoScalingGroupName/%s", region, account, uuid.NewString(), name),
		Kept: kept{PlacementGroup: in.PlacementGroup, ServiceLinkedRoleARN: in.ServiceLinkedRoleARN, Reservation: in.CapacityReservationSpecification, Lifecycle: in.InstanceLifecyclePolicy}}
	if in.MinSize == nil || in.MaxSize == nil {
		return nil, invalid("Both MinSize and MaxSize are required.")
	}
	g.Desired = g.Min
	if in.DesiredCapacity != nil {
		g.Desired = *in.DesiredCapacity
	}
	if in.InstanceId != nil {
		return nil, invalid("Slipway creates groups from a launch template, not from an instance: make one with GetLaunchTemplateData and CreateLaunchTemplate.")
	}
	u := updateOf(in)
	if in.LaunchTemplate == nil && in.MixedInstancesPolicy == nil && in.LaunchConfigurationName == nil {
		return nil, invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	}
	if in.VPCZoneIdentifier == nil && len(in.AvailabilityZones) == 0 && len(in.AvailabilityZoneIds) == 0 {
		return nil, invalid("At least one Availability Zone or VPC Subnet is required.")
	}
	if err := s.settings(ctx, g, u); err != nil {
		return nil, err
	}
	var err error
	if g.Tags, err = tagsFrom(in.Tags, name); err != nil {
		return nil, err
	}
	sources := trafficARNs(in.TrafficSources)
	if sources == nil && len(in.TrafficSources) > 0 {
		return nil, invalid("Slipway attaches traffic sources of the type elbv2 only.")
	}
	if len(in.LoadBalancerNames) > 0 {
		return nil, invalid("Provided Load Balancers may not be valid. Slipway has no Classic Load Balancers: attach target groups.")
	}
	for _, arn := range in.TargetGroupARNs {
		g.Attachments = append(g.Attachments, attachment{ARN: arn, State: "Adding"})
	}
	for _, arn := range sources {
		g.Attachments = append(g.Attachments, attachment{ARN: arn, State: "Adding", Traffic: true})
	}
	if err := s.checkTargetGroups(ctx, append(slices.Clone(in.TargetGroupARNs), sources...)); err != nil {
		return nil, err
	}
	if g.Desired > 0 {
		g.Causes = []string{at(now, fmt.Sprintf("a user request created an AutoScalingGroup changing the desired capacity from 0 to %d.", g.Desired))}
	}
	return g, nil
}

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
	low, high := deref(m.MinHealthyPercentage), deref(m.MaxHealthyPercentage)
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
	version := deref(spec.Version)
	g.Template = &templateRef{deref(spec.LaunchTemplateId), deref(spec.LaunchTemplateName), version}
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
	if subnets := deref(u.VPCZoneIdentifier); subnets != "" {
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
		p := place{deref(sn.SubnetId), deref(sn.AvailabilityZone), deref(sn.AvailabilityZoneId)}
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

func (s *Service) updateGroup(ctx context.Context, in *api.UpdateAutoScalingGroupInput) (*api.UpdateAutoScalingGroupOutput, error) {
	account, region := where(ctx)
	now := s.Clock.Now()
	name := deref(in.AutoScalingGroupName)
	// Everything that asks other services happens on a copy first; the
	// transaction only takes over what was found.
	row, err := groups.Find(ctx, s.Store, account, region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
	}
	if err != nil {
		return nil, err
	}
	probe := row.Doc
	if err := s.launchSource(ctx, &probe, in); err != nil {
		return nil, err
	}
	if err := s.places(ctx, &probe, in); err != nil {
		return nil, err
	}
	rest := *in
	rest.LaunchTemplate, rest.MixedInstancesPolicy, rest.VPCZoneIdentifier, rest.AvailabilityZones, rest.AvailabilityZoneIds = nil, nil, nil, nil, nil
	err = s.changeGroup(ctx, name, "Updated", func(_ store.Tx, row *store.Row[Group]) error {
		g := &row.Doc
		g.Template, g.Mixed, g.Places, g.GivenSubnets = probe.Template, probe.Mixed, probe.Places, probe.GivenSubnets
		set(&g.Min, in.MinSize)
		set(&g.Max, in.MaxSize)
		desired := g.Desired
		if in.DesiredCapacity != nil {
			desired = *in.DesiredCapacity
		} else if g.Min <= g.Max {
			desired = min(max(desired, g.Min), g.Max)
		}
		if in.DesiredCapacity != nil || in.MinSize != nil || in.MaxSize != nil {
			if err := checkBounds(g.Min, g.Max, desired); err != nil {
				return err
			}
		}
		if desired != g.Desired {
			g.setDesired(desired, at(now, fmt.Sprintf("a user request update of AutoScalingGroup constraints to min: %d, max: %d, desired: %d changing the desired capacity from %d to %d.",
				g.Min, g.Max, desired, g.Desired, desired)), nil)
		}
		g.Fails, g.RetryAt = 0, time.Time{} // what failed may work now
		return s.settings(ctx, g, &rest)
	})
	return &api.UpdateAutoScalingGroupOutput{}, err
}

// setDesired changes the desired capacity and remembers why.
func (g *Group) setDesired(desired int64, cause string, alarms []InvokingAlarm) {
	if desired < g.Desired {
		g.Replacements = max(0, g.Replacements-(g.Desired-desired))
	}
	g.Desired, g.AllProtected = desired, false
	g.Alarms = alarms
	g.Causes = append(g.Causes, cause)
	if len(g.Causes) > 5 {
		g.Causes = g.Causes[len(g.Causes)-5:]
	}
}

// ChangeCapacity lets decide set a group's desired capacity, for scaling
// policies and schedules: it returns the new capacity (clamped to the
// group's bounds here), the cause sentence without its "At ..." and the
// alarms behind it. Nothing is written where the capacity stays. decide runs
// in a transaction: no I/O. It returns the capacity before and after.
func (s *Service) ChangeCapacity(ctx context.Context, account, region, name string, decide func(*Group) (desired int64, cause string, alarms []InvokingAlarm, err error)) (from, to int64, err error) {
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getGroup(tx, account, region, name)
		if err != nil {
			return err
		}
		g := &row.Doc
		desired, cause, alarms, err := decide(g)
		if err != nil {
			return err
		}
		desired = min(max(desired, g.Min), g.Max)
		from, to = g.Desired, desired
		if desired == g.Desired || g.Deleting {
			to = g.Desired
			return store.ErrUnchanged
		}
		g.setDesired(desired, at(s.Clock.Now(), fmt.Sprintf("%s changing the desired capacity from %d to %d.", cause, from, to)), alarms)
		return groups.Save(tx, row, "Scaling", nil)
	})
	if errors.Is(err, store.ErrUnchanged) {
		err = nil
	}
	return from, to, err
}

func (s *Service) setDesired(ctx context.Context, in *api.SetDesiredCapacityInput) (*api.SetDesiredCapacityOutput, error) {
	now := s.Clock.Now()
	err := s.changeGroup(ctx, deref(in.AutoScalingGroupName), "Scaling", func(_ store.Tx, row *store.Row[Group]) error {
		g, want := &row.Doc, deref(in.DesiredCapacity)
		switch {
		case want > g.Max:
			return invalid("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", want, g.Max)
		case want < g.Min:
			return invalid("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", want, g.Min)
		case deref(in.HonorCooldown) && g.CoolUntil.After(now):
			return awserr.New("ScalingActivityInProgress", "The AutoScalingGroup '%s' is in its cooldown period until %s.", g.Name, g.CoolUntil.Format(time.RFC3339))
		}
		if want != g.Desired {
			g.setDesired(want, at(now, fmt.Sprintf("a user request explicitly set group desired capacity changing the desired capacity from %d to %d.", g.Desired, want)), nil)
		}
		return nil
	})
	return &api.SetDesiredCapacityOutput{}, err
}

func (s *Service) deleteGroupCall(ctx context.Context, in *api.DeleteAutoScalingGroupInput) (*api.DeleteAutoScalingGroupOutput, error) {
	account, region := where(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getGroup(tx, account, region, deref(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		force := deref(in.ForceDelete)
		switch p := deref(row.Doc.Kept.DeletionProtection); {
		case p == "prevent-all-deletion", p == "prevent-force-deletion" && force:
			return awserr.New("ResourceInUse", "The AutoScalingGroup '%s' is protected from deletion (%s).", row.ID, p)
		}
		q := store.Query{Account: account, Region: region, Parent: row.ID}
		n, err := instances.Count(tx, q)
		if err != nil {
			return err
		}
		m, err := intents.Count(tx, q)
		if err != nil {
			return err
		}
		if n+m == 0 {
			return removeGroup(tx, row)
		}
		if !force {
			if row.Doc.Desired > 0 {
				return awserr.New("ResourceInUse", "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) still in the group.")
			}
			return awserr.New("ScalingActivityInProgress", "You cannot delete an AutoScalingGroup while there are scaling activities in progress for that group.")
		}
		if row.Doc.Deleting {
			return nil
		}
		row.Doc.Deleting = true
		row.Doc.Desired, row.Doc.Min, row.Doc.Max = 0, 0, 0
		return groups.Save(tx, row, "Deleting", nil)
	})
	return &api.DeleteAutoScalingGroupOutput{}, err
}

// groupFilters match a group's tags (API reference, DescribeAutoScalingGroups).
func matchFilters(g *Group, filters []api.Filter) (bool, error) {
	for _, f := range filters {
		name := deref(f.Name)
		key, byKey := strings.CutPrefix(name, "tag:")
		if !byKey && name != "tag-key" && name != "tag-value" {
			return false, invalid("Filter type %s is not correct. Allowed Filter types are: tag-key tag-value tag:<key>", name)
		}
		if !slices.ContainsFunc(g.Tags, func(t groupTag) bool {
			switch {
			case byKey:
				return t.Key == key && slices.Contains(f.Values, t.Value)
			case name == "tag-key":
				return slices.Contains(f.Values, t.Key)
			}
			return slices.Contains(f.Values, t.Value)
		}) {
			return false, nil
		}
	}
	return true, nil
}

func (s *Service) describeGroups(ctx context.Context, in *api.DescribeAutoScalingGroupsInput) (*api.DescribeAutoScalingGroupsOutput, error) {
	account, region := where(ctx)
	var all []*store.Row[Group]
	members := map[string][]*Instance{}
	err := s.Store.View(ctx, func(r store.Reader) error {
		q := store.Query{Account: account, Region: region}
		rows, err := groups.List(r, q)
		if err != nil {
			return err
		}
		for _, row := range rows {
			ok, err := matchFilters(&row.Doc, in.Filters)
			if err != nil {
				return err
			}
			if ok && (len(in.AutoScalingGroupNames) == 0 || slices.Contains(in.AutoScalingGroupNames, row.ID) || slices.Contains(in.AutoScalingGroupNames, row.Doc.ARN)) {
				all = append(all, row)
			}
		}
		if len(all) == 1 {
			q.Parent = all[0].ID
		}
		is, err := instances.List(r, q)
		for _, i := range is {
			members[i.Doc.Group] = append(members[i.Doc.Group], &i.Doc)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	all, next, err := page(all, func(g *store.Row[Group]) string { return g.ID }, in.MaxRecords, in.NextToken, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAutoScalingGroupsOutput{NextToken: next, AutoScalingGroups: []api.AutoScalingGroup{}}
	for _, g := range all {
		list := members[g.ID]
		if in.IncludeInstances != nil && !*in.IncludeInstances {
			list = nil
		}
		out.AutoScalingGroups = append(out.AutoScalingGroups, g.Doc.api(list))
	}
	return out, nil
}

func (t *templateRef) api() *api.LaunchTemplateSpecification {
	if t == nil {
		return nil
	}
	return &api.LaunchTemplateSpecification{LaunchTemplateId: orNil(t.ID), LaunchTemplateName: orNil(t.Name), Version: orNil(t.Version)}
}

func (g *Group) api(members []*Instance) api.AutoScalingGroup {
	out := api.AutoScalingGroup{AutoScalingGroupName: new(g.Name), AutoScalingGroupARN: new(g.ARN), MinSize: new(g.Min), MaxSize: new(g.Max), DesiredCapacity: new(g.Desired),
		DefaultCooldown: new(g.Cooldown), AvailabilityZones: g.zones(), LoadBalancerNames: []string{}, TargetGroupARNs: []string{}, HealthCheckType: new(g.HealthTypes), HealthCheckGracePeriod: new(g.Grace),
		Instances: []api.Instance{}, CreatedTime: new(g.Created), SuspendedProcesses: []api.SuspendedProcess{}, VPCZoneIdentifier: new(g.GivenSubnets), EnabledMetrics: []api.EnabledMetric{},
		Tags: []api.TagDescription{}, TerminationPolicies: g.Policies, NewInstancesProtectedFromScaleIn: new(g.ProtectNew), MaxInstanceLifetime: g.MaxLifetime, DefaultInstanceWarmup: g.Warmup,
		TrafficSources: []api.TrafficSourceIdentifier{}, InstanceMaintenancePolicy: g.Maintenance, PlacementGroup: g.Kept.PlacementGroup, Context: g.Kept.Context, DesiredCapacityType: g.Kept.DesiredCapacityType,
		CapacityRebalance: g.Kept.CapacityRebalance, AvailabilityZoneDistribution: g.Kept.Distribution, AvailabilityZoneImpairmentPolicy: g.Kept.Impairment,
		CapacityReservationSpecification: g.Kept.Reservation, InstanceLifecyclePolicy: g.Kept.Lifecycle, DeletionProtection: g.Kept.DeletionProtection, ServiceLinkedRoleARN: g.Kept.ServiceLinkedRoleARN}
	if out.AvailabilityZoneDistribution == nil {
		out.AvailabilityZoneDistribution = &api.AvailabilityZoneDistribution{CapacityDistributionStrategy: new("balanced-best-effort")}
	}
	if out.DeletionProtection == nil {
		out.DeletionProtection = new("none")
	}
	if out.ServiceLinkedRoleARN == nil {
		account := strings.Split(g.ARN, ":")[4]
		out.ServiceLinkedRoleARN = new("arn:aws:iam::" + account + ":role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling")
	}
	if g.Mixed != nil {
		mixed := *g.Mixed
		lt := *mixed.LaunchTemplate
		lt.LaunchTemplateSpecification = g.Template.api()
		mixed.LaunchTemplate = &lt
		out.MixedInstancesPolicy = &mixed
	} else {
		out.LaunchTemplate = g.Template.api()
	}
	if g.Deleting {
		out.Status = new("Delete in progress")
	}
	for _, a := range g.Attachments {
		if a.State == "Removing" {
			continue
		}
		out.TrafficSources = append(out.TrafficSources, api.TrafficSourceIdentifier{Identifier: new(a.ARN), Type: new("elbv2")})
		out.TargetGroupARNs = append(out.TargetGroupARNs, a.ARN)
	}
	for _, p := range g.Suspended {
		out.SuspendedProcesses = append(out.SuspendedProcesses, api.SuspendedProcess{ProcessName: new(p.Process), SuspensionReason: new(p.Reason)})
	}
	for _, m := range g.Metrics {
		out.EnabledMetrics = append(out.EnabledMetrics, api.EnabledMetric{Metric: new(m), Granularity: new("1Minute")})
	}
	for _, t := range g.Tags {
		out.Tags = append(out.Tags, t.api(g.Name))
	}
	for _, i := range members {
		out.Instances = append(out.Instances, api.Instance{InstanceId: new(i.ID), InstanceType: new(i.Type), AvailabilityZone: new(i.Zone), AvailabilityZoneId: orNil(i.ZoneID), LifecycleState: new(i.State),
			HealthStatus: new(i.Health), LaunchTemplate: i.Template.api(), ProtectedFromScaleIn: new(i.Protected), ImageId: orNil(i.Image)})
	}
	return out
}

func (a *activity) api(state string) api.Activity {
	out := api.Activity{ActivityId: new(a.ID), AutoScalingGroupName: new(a.Group), AutoScalingGroupARN: new(a.GroupARN), Description: new(a.Description), Cause: new(a.Cause),
		StartTime: new(a.Start), StatusCode: new(a.Status), StatusMessage: orNil(a.Message), Progress: new(a.Progress), Details: orNil(a.Details), AutoScalingGroupState: orNil(state)}
	if !a.End.IsZero() {
		out.EndTime = new(a.End)
	}
	return out
}

// describeActivities lists newest first, those in progress before all
// (API reference, DescribeScalingActivities).
func (s *Service) describeActivities(ctx context.Context, in *api.DescribeScalingActivitiesInput) (*api.DescribeScalingActivitiesOutput, error) {
	account, region := where(ctx)
	var all []*activity
	alive := map[string]bool{} // by ARN
	err := s.Store.View(ctx, func(r store.Reader) error {
		gs, err := groups.List(r, store.Query{Account: account, Region: region})
		if err != nil {
			return err
		}
		found := false
		for _, g := range gs {
			alive[g.Doc.ARN] = true
			found = found || g.ID == deref(in.AutoScalingGroupName) || g.Doc.ARN == deref(in.AutoScalingGroupName)
		}
		name := deref(in.AutoScalingGroupName)
		if name != "" && !found && !deref(in.IncludeDeletedGroups) {
			return invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
		}
		if n := strings.LastIndex(name, "autoScalingGroupName/"); strings.HasPrefix(name, "arn:") && n > 0 {
			name = name[n+len("autoScalingGroupName/"):]
		}
		rows, err := activities.List(r, store.Query{Account: account, Region: region, Parent: name, Descending: true})
		for _, row := range rows {
			a := &row.Doc
			if !alive[a.GroupARN] && !deref(in.IncludeDeletedGroups) || len(in.ActivityIds) > 0 && !slices.Contains(in.ActivityIds, a.ID) {
				continue
			}
			all = append(all, a)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b *activity) int {
		switch x, y := ended(a.Status), ended(b.Status); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	all, next, err := page(all, func(a *activity) string { return a.ID }, in.MaxRecords, in.NextToken, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeScalingActivitiesOutput{NextToken: next, Activities: []api.Activity{}}
	for _, a := range all {
		state := ""
		if !alive[a.GroupARN] {
			state = "Deleted"
		}
		out.Activities = append(out.Activities, a.api(state))
	}
	return out, nil
}
