package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/autoscaling"
	ec2 "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) describeInstances(ctx context.Context, in *api.DescribeAutoScalingInstancesInput) (*api.DescribeAutoScalingInstancesOutput, error) {
	account, region := where(ctx)
	rows, err := instances.Select(ctx, s.Store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	if len(in.InstanceIds) > 0 {
		rows = slices.DeleteFunc(rows, func(r *store.Row[Instance]) bool { return !slices.Contains(in.InstanceIds, r.ID) })
	}
	rows, next, err := page(rows, func(r *store.Row[Instance]) string { return r.ID }, in.MaxRecords, in.NextToken, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAutoScalingInstancesOutput{NextToken: next, AutoScalingInstances: []api.AutoScalingInstanceDetails{}}
	for _, r := range rows {
		i := &r.Doc
		out.AutoScalingInstances = append(out.AutoScalingInstances, api.AutoScalingInstanceDetails{InstanceId: new(i.ID), InstanceType: new(i.Type), AutoScalingGroupName: new(i.Group),
			AvailabilityZone: new(i.Zone), AvailabilityZoneId: orNil(i.ZoneID), LifecycleState: new(i.State), HealthStatus: new(strings.ToUpper(i.Health)), LaunchTemplate: i.Template.api(),
			ProtectedFromScaleIn: new(i.Protected), ImageId: orNil(i.Image)})
	}
	return out, nil
}

// withMembers runs fn for instances of one group in one transaction; the
// group is saved with them.
func (s *Service) withMembers(ctx context.Context, group string, ids []string, event string, fn func(tx store.Tx, g *store.Row[Group], i *Instance) error) error {
	return s.changeGroup(ctx, group, event, func(tx store.Tx, g *store.Row[Group]) error {
		if len(ids) == 0 {
			return invalid("At least one instance id is required.")
		}
		for _, id := range ids {
			row, err := member(tx, g.Account, g.Region, id)
			if err != nil {
				return err
			}
			if row.Doc.Group != group {
				return invalid("The instance %s is not part of Auto Scaling group %s.", id, group)
			}
			if err := fn(tx, g, &row.Doc); err != nil {
				return err
			}
			if err := instances.Save(tx, row, event, eventDetail(&row.Doc)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) terminateInstance(ctx context.Context, in *api.TerminateInstanceInAutoScalingGroupInput) (*api.TerminateInstanceInAutoScalingGroupOutput, error) {
	account, region := where(ctx)
	now := s.Clock.Now()
	out := &api.TerminateInstanceInAutoScalingGroupOutput{}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := member(tx, account, region, ptr.Value(in.InstanceId))
		if err != nil {
			return err
		}
		g, err := getGroup(tx, account, region, row.Doc.Group)
		if err != nil {
			return err
		}
		i, decrement := &row.Doc, ptr.Value(in.ShouldDecrementDesiredCapacity)
		if i.leaving() || i.State == detaching {
			return invalid("The instance %s is in the state %s and cannot be terminated again.", i.ID, i.State)
		}
		cause := at(now, "instance "+i.ID+" was taken out of service in response to a user request.")
		if decrement && i.State != standby {
			if g.Doc.Desired-1 < g.Doc.Min {
				return invalid("Currently, desiredSize equals minSize (%d). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.", g.Doc.Min)
			}
			cause = at(now, fmt.Sprintf("instance %s was taken out of service in response to a user request, shrinking the capacity from %d to %d.", i.ID, g.Doc.Desired, g.Doc.Desired-1))
			g.Doc.Desired--
		}
		id, err := startTermination(tx, g, i, now, cause, false)
		if err != nil {
			return err
		}
		if err := instances.Save(tx, row, "Terminating", eventDetail(i)); err != nil {
			return err
		}
		if err := groups.Save(tx, g, "Scaling", nil); err != nil {
			return err
		}
		a, err := activities.Get(tx, account, region, id)
		if err == nil {
			out.Activity = new(a.Doc.api(""))
		}
		return err
	})
	return out, err
}

func (s *Service) setInstanceHealth(ctx context.Context, in *api.SetInstanceHealthInput) (*api.SetInstanceHealthOutput, error) {
	account, region := where(ctx)
	now := s.Clock.Now()
	status := ptr.Value(in.HealthStatus)
	if status != "Healthy" && status != "Unhealthy" {
		return nil, invalid("Health status '%s' is invalid: it must be Healthy or Unhealthy.", status)
	}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := member(tx, account, region, ptr.Value(in.InstanceId))
		if err != nil {
			return err
		}
		g, err := getGroup(tx, account, region, row.Doc.Group)
		if err != nil {
			return err
		}
		i := &row.Doc
		if i.leaving() {
			return invalid("The instance %s is being terminated: its health cannot be set any more.", i.ID)
		}
		grace := i.InServiceAt.Add(time.Duration(g.Doc.Grace) * time.Second)
		respect := in.ShouldRespectGracePeriod == nil || *in.ShouldRespectGracePeriod
		if status == "Unhealthy" && respect && (i.State != inService || grace.After(now)) {
			return nil // as on AWS, the call succeeds and nothing happens
		}
		i.Health, i.Unhealthy, i.Now = status, "", false
		if status == "Unhealthy" {
			i.Unhealthy, i.Now = causeUser, true
		}
		return instances.Save(tx, row, status, eventDetail(i))
	})
	return &api.SetInstanceHealthOutput{}, err
}

func (s *Service) setInstanceProtection(ctx context.Context, in *api.SetInstanceProtectionInput) (*api.SetInstanceProtectionOutput, error) {
	if len(in.InstanceIds) > 50 {
		return nil, invalid("At most 50 instances can be given, not %d.", len(in.InstanceIds))
	}
	err := s.withMembers(ctx, ptr.Value(in.AutoScalingGroupName), in.InstanceIds, "Protection", func(_ store.Tx, g *store.Row[Group], i *Instance) error {
		if i.State != inService && i.State != standby && !i.arriving() {
			return invalid("The instance %s is not in InService or EnteringStandby or Standby.", i.ID)
		}
		i.Protected = ptr.Value(in.ProtectedFromScaleIn)
		g.Doc.AllProtected = false
		return nil
	})
	return &api.SetInstanceProtectionOutput{}, err
}

func checkBatch(ids []string) error {
	if len(ids) == 0 || len(ids) > 20 {
		return invalid("Between 1 and 20 instances can be given, not %d.", len(ids))
	}
	return nil
}

func (s *Service) enterStandby(ctx context.Context, in *api.EnterStandbyInput) (*api.EnterStandbyOutput, error) {
	if err := checkBatch(in.InstanceIds); err != nil {
		return nil, err
	}
	now := s.Clock.Now()
	out := &api.EnterStandbyOutput{}
	err := s.withMembers(ctx, ptr.Value(in.AutoScalingGroupName), in.InstanceIds, "EnteringStandby", func(tx store.Tx, g *store.Row[Group], i *Instance) error {
		if i.State != inService {
			return invalid("The instance %s is not in InService.", i.ID)
		}
		cause := "instance " + i.ID + " was moved to standby in response to a user request."
		if ptr.Value(in.ShouldDecrementDesiredCapacity) {
			if g.Doc.Desired-1 < g.Doc.Min {
				return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To place into standby 1 instance, please update the AutoScalingGroup sizes appropriately.", g.ID, g.Doc.Min, g.Doc.Max, g.Doc.Desired)
			}
			cause = fmt.Sprintf("instance %s was moved to standby in response to a user request, shrinking the capacity from %d to %d.", i.ID, g.Doc.Desired, g.Doc.Desired-1)
			g.Doc.Desired--
		}
		i.to(enteringStandby)
		a, err := s.begin(tx, g, i, now, activity{Description: "Moving EC2 instance to Standby: " + i.ID, Cause: at(now, cause), Progress: 50})
		if err == nil {
			out.Activities = append(out.Activities, a)
		}
		return err
	})
	return out, err
}

// begin starts an activity of an instance and returns it as the API shows it.
func (s *Service) begin(tx store.Tx, g *store.Row[Group], i *Instance, now time.Time, a activity) (api.Activity, error) {
	a.Instance, a.Details = i.ID, details(i.place(), nil)
	id, err := newActivity(tx, g, now, a)
	if err != nil {
		return api.Activity{}, err
	}
	i.Activity = id
	row, err := activities.Get(tx, g.Account, g.Region, id)
	if err != nil {
		return api.Activity{}, err
	}
	return row.Doc.api(""), nil
}

func (s *Service) exitStandby(ctx context.Context, in *api.ExitStandbyInput) (*api.ExitStandbyOutput, error) {
	if err := checkBatch(in.InstanceIds); err != nil {
		return nil, err
	}
	now := s.Clock.Now()
	out := &api.ExitStandbyOutput{}
	err := s.withMembers(ctx, ptr.Value(in.AutoScalingGroupName), in.InstanceIds, "ExitingStandby", func(tx store.Tx, g *store.Row[Group], i *Instance) error {
		if i.State != standby {
			return invalid("The instance %s is not in Standby.", i.ID)
		}
		if g.Doc.Desired+1 > g.Doc.Max {
			return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To exit standby 1 instance, please update the AutoScalingGroup sizes appropriately.", g.ID, g.Doc.Min, g.Doc.Max, g.Doc.Desired)
		}
		cause := fmt.Sprintf("instance %s was moved out of standby in response to a user request, increasing the capacity from %d to %d.", i.ID, g.Doc.Desired, g.Doc.Desired+1)
		g.Doc.Desired++
		i.to(pendingProceed) // no hooks are run for it
		i.Health, i.Unhealthy = "Healthy", ""
		a, err := s.begin(tx, g, i, now, activity{Description: "Moving EC2 instance out of Standby: " + i.ID, Cause: at(now, cause), Status: statusPre, Progress: 30})
		if err == nil {
			out.Activities = append(out.Activities, a)
		}
		return err
	})
	return out, err
}

func (s *Service) detachInstances(ctx context.Context, in *api.DetachInstancesInput) (*api.DetachInstancesOutput, error) {
	if err := checkBatch(in.InstanceIds); err != nil {
		return nil, err
	}
	now := s.Clock.Now()
	out := &api.DetachInstancesOutput{}
	err := s.withMembers(ctx, ptr.Value(in.AutoScalingGroupName), in.InstanceIds, "Detaching", func(tx store.Tx, g *store.Row[Group], i *Instance) error {
		counted := i.State == inService
		if !counted && i.State != standby {
			return invalid("The instance %s is not in InService or Standby.", i.ID)
		}
		cause := "instance " + i.ID + " was detached in response to a user request."
		if counted && ptr.Value(in.ShouldDecrementDesiredCapacity) {
			if g.Doc.Desired-1 < g.Doc.Min {
				return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To detach 1 instance, please update the AutoScalingGroup sizes appropriately.", g.ID, g.Doc.Min, g.Doc.Max, g.Doc.Desired)
			}
			cause = fmt.Sprintf("instance %s was detached in response to a user request, shrinking the capacity from %d to %d.", i.ID, g.Doc.Desired, g.Doc.Desired-1)
			g.Doc.Desired--
		}
		i.to(detaching)
		i.Protected = false
		a, err := s.begin(tx, g, i, now, activity{Description: "Detaching EC2 instance: " + i.ID, Cause: at(now, cause), Progress: 50})
		if err == nil {
			out.Activities = append(out.Activities, a)
		}
		return err
	})
	return out, err
}

func (s *Service) attachInstances(ctx context.Context, in *api.AttachInstancesInput) (*api.AttachInstancesOutput, error) {
	if err := checkBatch(in.InstanceIds); err != nil {
		return nil, err
	}
	account, region := where(ctx)
	found, err := dispatch.Call(ctx, s.Mux, ec2.OpDescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: in.InstanceIds})
	if e := awserr.As(err); e != nil && e.Status != 501 {
		return nil, invalid("Invalid Instance ID(s): %s", e.Message)
	}
	if err != nil {
		return nil, err
	}
	now := s.Clock.Now()
	err = s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Attaching", func(tx store.Tx, g *store.Row[Group]) error {
		var n int64
		for _, r := range found.Reservations {
			for _, m := range r.Instances {
				if err := s.attachOne(tx, g, m, now, account, region); err != nil {
					return err
				}
				n++
			}
		}
		if g.Doc.Desired+n > g.Doc.Max {
			return invalid("AutoScalingGroup %s has min-size=%d, max-size=%d, and desired-size=%d. To attach %d instances, please update the AutoScalingGroup sizes appropriately.", g.ID, g.Doc.Min, g.Doc.Max, g.Doc.Desired, n)
		}
		g.Doc.Desired += n
		return nil
	})
	return &api.AttachInstancesOutput{}, err
}

// attachOne takes over a running instance; it is registered and counted like
// a launched one, without hooks.
func (s *Service) attachOne(tx store.Tx, g *store.Row[Group], m ec2.Instance, now time.Time, account, region string) error {
	id, zone := ptr.Value(m.InstanceId), ptr.Value(ptr.Value(m.Placement).AvailabilityZone)
	if state := ptr.Value(ptr.Value(m.State).Name); state != "running" {
		return invalid("Invalid Instance ID(s): %s is %s, not running.", id, state)
	}
	if !slices.Contains(g.Doc.zones(), zone) {
		return invalid("The instance %s is in the availability zone %s, which is not one of the group's.", id, zone)
	}
	if _, err := instances.Get(tx, account, region, id); err == nil {
		return invalid("The instance %s is already part of an AutoScalingGroup.", id)
	}
	i := Instance{ID: id, Group: g.ID, Type: ptr.Value(m.InstanceType), Image: ptr.Value(m.ImageId), Zone: zone, ZoneID: ptr.Value(ptr.Value(m.Placement).AvailabilityZoneId), Subnet: ptr.Value(m.SubnetId),
		State: pendingProceed, Health: "Healthy", Launched: ptr.Value(m.LaunchTime), Protected: g.Doc.ProtectNew}
	if _, err := s.begin(tx, g, &i, now, activity{Description: "Attaching an existing EC2 instance: " + id, Status: statusPre, Progress: 30,
		Cause: at(now, fmt.Sprintf("an instance was attached in response to a user request, increasing the capacity from %d to %d.", g.Doc.Desired, g.Doc.Desired+1))}); err != nil {
		return err
	}
	_, err := instances.Insert(tx, account, region, id, i, "Attaching", eventDetail(&i))
	return err
}
