package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	ec2 "slipway/internal/api/ec2"
	elbv2 "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

// failLaunch gives up an instance that did not get into service.
func (s *Service) failLaunch(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	seen, known := w.ec2[a.instance.ID]
	alive := known && !seen.dead()
	return s.change(ctx, row, a.instance, "LaunchFailed", func(tx store.Tx, i *Instance) error {
		status := statusFailed
		if alive {
			status = statusCancelled
		}
		if err := describe(tx, row, i.Activity, "Launching a new EC2 instance: "+i.ID+".  Status Reason: "+a.message); err != nil {
			return err
		}
		if err := progress(tx, row.Account, row.Region, i.Activity, status, 100, w.now, a.message); err != nil {
			return err
		}
		i.Activity, i.Actions, i.Abandoned, i.Health = "", nil, a.message, "Unhealthy"
		i.to(terminatingProceed)
		if alive {
			id, err := newActivity(tx, row, w.now, activity{Description: "Terminating EC2 instance: " + i.ID, Instance: i.ID, Kind: "terminate",
				Cause: at(w.now, "an instance was taken out of service in response to its launch being abandoned."), Details: details(i.place(), nil)})
			if err != nil {
				return err
			}
			i.Activity = id
		}
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		failed(&g.Doc, w.now)
		return groups.Save(tx, g, "LaunchFailed", nil)
	})
}

func (i *Instance) place() place { return place{i.Subnet, i.Zone, i.ZoneID} }

// describe replaces an activity's description.
func describe(tx store.Tx, row *store.Row[Group], id, text string) error {
	if id == "" {
		return nil
	}
	r, err := activities.Get(tx, row.Account, row.Region, id)
	if err != nil {
		return err
	}
	r.Doc.Description = text
	return activities.Save(tx, r, "Progressed", nil)
}

// terminate takes an instance out of service and writes down why.
func (s *Service) terminate(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	return s.change(ctx, row, a.instance, "Terminating", func(tx store.Tx, i *Instance) error {
		_, err := startTermination(tx, row, i, w.now, terminationCause(w, a), a.clean)
		if err != nil || !a.replace {
			return err
		}
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		g.Doc.Replacements++
		return groups.Save(tx, g, "Replacing", nil)
	})
}

func terminationCause(w *world, a act) string {
	if a.cause != "" {
		return at(w.now, a.cause)
	}
	return sentences(append(slices.Clone(w.group.Causes),
		at(w.now, fmt.Sprintf("an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity from %d to %d.", a.from, a.to)),
		at(w.now, "instance "+a.instance.ID+" was selected for termination."))...)
}

// startTermination moves an instance to Terminating with an activity of its own.
func startTermination(tx store.Tx, row *store.Row[Group], i *Instance, now time.Time, cause string, clean bool) (string, error) {
	if i.arriving() {
		if err := progress(tx, row.Account, row.Region, i.Activity, statusCancelled, 100, now, "the instance was terminated before it was in service"); err != nil {
			return "", err
		}
	}
	if !i.to(terminating) {
		return "", store.ErrUnchanged
	}
	i.Actions, i.NoHooks = nil, clean
	id, err := newActivity(tx, row, now, activity{Description: "Terminating EC2 instance: " + i.ID, Cause: cause, Details: details(i.place(), row.Doc.Alarms), Instance: i.ID, Kind: "terminate"})
	i.Activity = id
	return id, err
}

// deregister takes an instance from its target groups; draining follows.
func (s *Service) deregister(ctx context.Context, row *store.Row[Group], seen *Instance) error {
	for _, arn := range seen.TargetGroups {
		_, err := dispatch.Call(ctx, s.Mux, elbv2.OpDeregisterTargets, &elbv2.DeregisterTargetsInput{TargetGroupArn: &arn, Targets: []elbv2.TargetDescription{{Id: &seen.ID}}})
		if err != nil && !awserr.Is(err, "TargetGroupNotFound") && !awserr.Is(err, "InvalidTarget") {
			return err
		}
	}
	return s.change(ctx, row, seen, "Draining", func(tx store.Tx, i *Instance) error {
		i.Deregistered = true
		return progress(tx, row.Account, row.Region, i.Activity, statusDraining, 50, s.Clock.Now(), "")
	})
}

// endMachine tells EC2 to end the instance. A group is above termination
// protection, as on AWS.
func (s *Service) endMachine(ctx context.Context, i *Instance) error {
	end := func() error {
		_, err := dispatch.Call(ctx, s.Mux, ec2.OpTerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: []string{i.ID}})
		return err
	}
	err := end()
	if awserr.Is(err, "OperationNotPermitted") {
		if _, err := dispatch.Call(ctx, s.Mux, ec2.OpModifyInstanceAttribute, &ec2.ModifyInstanceAttributeInput{
			InstanceId: &i.ID, DisableApiTermination: &ec2.AttributeBooleanValue{Value: new(false)}}); err != nil {
			return err
		}
		err = end()
	}
	if awserr.Is(err, "InvalidInstanceID.NotFound") {
		return nil
	}
	return err
}

// remove deletes an instance that is terminated or detached.
func (s *Service) remove(ctx context.Context, row *store.Row[Group], a act) error {
	now := s.Clock.Now()
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		i, err := instances.Get(tx, row.Account, row.Region, a.instance.ID)
		if err != nil {
			return err
		}
		if i.Doc.State != a.instance.State {
			return store.ErrUnchanged
		}
		event := "Detached"
		if i.Doc.to(terminated) {
			event = "Terminated"
			if err := instances.Save(tx, i, event, eventDetail(&i.Doc)); err != nil {
				return err
			}
		}
		if err := progress(tx, row.Account, row.Region, i.Doc.Activity, statusSuccessful, 100, now, ""); err != nil {
			return err
		}
		return instances.Delete(tx, i, event, eventDetail(&i.Doc))
	})
	if errors.Is(err, store.ErrUnchanged) || errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// registerLate registers an instance in service with a target group that was
// attached after it.
func (s *Service) registerLate(ctx context.Context, row *store.Row[Group], a act) error {
	_, err := dispatch.Call(ctx, s.Mux, elbv2.OpRegisterTargets, &elbv2.RegisterTargetsInput{TargetGroupArn: &a.arn, Targets: []elbv2.TargetDescription{{Id: &a.instance.ID}}})
	if err != nil {
		return err
	}
	return s.change(ctx, row, a.instance, "Registered", func(_ store.Tx, i *Instance) error {
		if !slices.Contains(i.TargetGroups, a.arn) {
			i.TargetGroups = append(i.TargetGroups, a.arn)
		}
		return nil
	})
}

func (s *Service) withdraw(ctx context.Context, row *store.Row[Group], a act) error {
	_, err := dispatch.Call(ctx, s.Mux, elbv2.OpDeregisterTargets, &elbv2.DeregisterTargetsInput{TargetGroupArn: &a.arn, Targets: []elbv2.TargetDescription{{Id: &a.instance.ID}}})
	if err != nil && !awserr.Is(err, "TargetGroupNotFound") && !awserr.Is(err, "InvalidTarget") {
		return err
	}
	return s.change(ctx, row, a.instance, "Withdrawn", func(_ store.Tx, i *Instance) error {
		i.TargetGroups = slices.DeleteFunc(i.TargetGroups, func(arn string) bool { return arn == a.arn })
		return nil
	})
}

func (s *Service) attachState(ctx context.Context, row *store.Row[Group], a act) error {
	_, err := groups.Modify(ctx, s.Store, row.Account, row.Region, row.ID, "Attachment", func(g *Group) error {
		n := slices.IndexFunc(g.Attachments, func(at attachment) bool { return at.ARN == a.arn })
		if n < 0 || g.Attachments[n].State == "Removing" && a.state != "Removed" {
			return store.ErrUnchanged
		}
		if a.state == "Removed" {
			g.Attachments = slices.Delete(g.Attachments, n, n+1)
		} else {
			g.Attachments[n].State = a.state
			if a.state == "InService" {
				g.Attachments[n].Since = s.Clock.Now()
			}
		}
		return nil
	})
	return err
}

// noteProtected writes once that protection keeps the group from shrinking.
func (s *Service) noteProtected(ctx context.Context, row *store.Row[Group], w *world) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil || g.Doc.AllProtected {
			return err
		}
		id, err := newActivity(tx, g, w.now, activity{Description: causeProtected, Cause: sentences(append(slices.Clone(g.Doc.Causes), at(w.now, causeProtected))...)})
		if err != nil {
			return err
		}
		if err := progress(tx, g.Account, g.Region, id, statusCancelled, 100, w.now, causeProtected); err != nil {
			return err
		}
		g.Doc.AllProtected, g.Doc.Causes = true, nil
		return groups.Save(tx, g, "AllProtected", nil)
	})
}

// deleteGroup removes an empty group with its hooks; its activities stay.
func (s *Service) deleteGroup(ctx context.Context, row *store.Row[Group]) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		return removeGroup(tx, g)
	})
}

func removeGroup(tx store.Tx, g *store.Row[Group]) error {
	hs, err := hooks.List(tx, store.Query{Account: g.Account, Region: g.Region, Parent: g.ID})
	if err != nil {
		return err
	}
	for _, h := range hs {
		if err := hooks.Delete(tx, h, "Deleted", nil); err != nil {
			return err
		}
	}
	rs, err := refreshes.List(tx, store.Query{Account: g.Account, Region: g.Region, Parent: g.ID})
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := refreshes.Delete(tx, r, "Deleted", nil); err != nil {
			return err
		}
	}
	return groups.Delete(tx, g, "Deleted", nil)
}
