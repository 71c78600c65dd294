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
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
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
	name := ptr.Value(in.AutoScalingGroupName)
	if err := validName(name); err != nil {
		return nil, err
	}
	g := &Group{Name: name, Created: now, Min: ptr.Value(in.MinSize), Max: ptr.Value(in.MaxSize), Cooldown: 300, HealthTypes: "EC2", Policies: []string{"Default"},
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

func (s *Service) updateGroup(ctx context.Context, in *api.UpdateAutoScalingGroupInput) (*api.UpdateAutoScalingGroupOutput, error) {
	account, region := where(ctx)
	now := s.Clock.Now()
	name := ptr.Value(in.AutoScalingGroupName)
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
	err := s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Scaling", func(_ store.Tx, row *store.Row[Group]) error {
		g, want := &row.Doc, ptr.Value(in.DesiredCapacity)
		switch {
		case want > g.Max:
			return invalid("New SetDesiredCapacity value %d is above max value %d for the AutoScalingGroup.", want, g.Max)
		case want < g.Min:
			return invalid("New SetDesiredCapacity value %d is below min value %d for the AutoScalingGroup.", want, g.Min)
		case ptr.Value(in.HonorCooldown) && g.CoolUntil.After(now):
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
		row, err := getGroup(tx, account, region, ptr.Value(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		force := ptr.Value(in.ForceDelete)
		switch p := ptr.Value(row.Doc.Kept.DeletionProtection); {
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
