package elbv2

import (
	"context"
	"errors"

	"slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// instance is what a target needs to know of an EC2 instance.
type instance struct{ ID, IP, Zone, VPC, State string }

func (s *Service) describeInstance(ctx context.Context, account, region, id string) (instance, error) {
	ctx = caller.ForService(ctx, "elasticloadbalancing", account, region)
	out, err := dispatch.Call(ctx, s.deps.Mux, ec2.OpDescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		return instance{}, err
	}
	for _, res := range out.Reservations {
		for _, i := range res.Instances {
			inst := instance{ID: id, IP: ptr.Value(i.PrivateIpAddress), VPC: ptr.Value(i.VpcId)}
			if i.Placement != nil {
				inst.Zone = ptr.Value(i.Placement.AvailabilityZone)
			}
			if i.State != nil {
				inst.State = ptr.Value(i.State.Name)
			}
			return inst, nil
		}
	}
	return instance{}, awserr.New("InvalidTarget", "The following targets are not in a running state and cannot be registered: '%s'", id)
}

// followInstances takes stopped and terminated instances out of the rotation
// as soon as EC2 knows, without waiting for a health check to fail.
func (s *Service) followInstances(ctx context.Context, sub *store.Subscription) {
	if err := s.checkAll(ctx); err != nil && ctx.Err() == nil {
		s.deps.Log.Error("elbv2: instances of the targets", "error", err)
	}
	for {
		ev, err := sub.Next(ctx)
		switch {
		case errors.Is(err, store.ErrLagged):
			err = s.checkAll(ctx)
		case err != nil:
			return
		default:
			err = s.instanceIs(ctx, ev.Key.Account, ev.Key.Region, ev.Key.ID, ev.State, ev.Deleted)
		}
		if err != nil && ctx.Err() == nil {
			s.deps.Log.Error("elbv2: instance of a target", "instance", ev.Key.ID, "error", err)
		}
	}
}

// checkAll looks at the instance of every target: after a restart it may be
// gone.
func (s *Service) checkAll(ctx context.Context) error {
	rows, err := targets.Select(ctx, s.deps.Store, store.Query{})
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, row := range rows {
		if seen[row.Doc.ID] || !isInstance(row.Doc.ID) {
			continue
		}
		seen[row.Doc.ID] = true
		inst, err := s.describeInstance(ctx, row.Account, row.Region, row.Doc.ID)
		gone := awserr.As(err) != nil
		if err != nil && !gone {
			return err
		}
		if err := s.instanceIs(ctx, row.Account, row.Region, row.Doc.ID, inst.State, gone); err != nil {
			return err
		}
	}
	return nil
}

func isInstance(id string) bool { return len(id) > 2 && id[:2] == "i-" }

// instanceIs adapts the targets of one instance to its state.
func (s *Service) instanceIs(ctx context.Context, account, region, id, state string, gone bool) error {
	rows, err := s.targetsOf(ctx, account, region, id)
	if err != nil || len(rows) == 0 {
		return err
	}
	var inst instance
	if state == "running" && !gone {
		if inst, err = s.describeInstance(ctx, account, region, id); err != nil {
			return err
		}
	}
	for _, row := range rows {
		err := s.deps.Store.Update(ctx, func(tx store.Tx) error {
			fresh, err := targets.Get(tx, row.Account, row.Region, row.ID)
			if err != nil {
				return err
			}
			return adapt(tx, fresh, inst, state, gone)
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return nil
}

// adapt is one step of a target's row after its instance's state.
func adapt(tx store.Tx, row *store.Row[Target], inst instance, state string, gone bool) error {
	t := &row.Doc
	switch {
	case gone || state == "terminated":
		return targets.Delete(tx, row, "InstanceTerminated", nil)
	case state == "running" && t.IP != inst.IP && t.DrainingSince.IsZero():
		t.IP, t.State, t.Reason = inst.IP, stateInitial, "Elb.RegistrationInProgress"
		t.Description = describe[t.Reason]
		return targets.Save(tx, row, "InstanceRunning", nil)
	case state == "stopping" || state == "stopped" || state == "shutting-down":
		if t.IP == "" {
			return nil
		}
		// A machine that is going down finishes nothing that is in flight.
		if !t.DrainingSince.IsZero() {
			return targets.Delete(tx, row, eventDrained, nil)
		}
		t.IP, t.State, t.Reason = "", stateUnused, "Target.InvalidState"
		t.Description = "Target is in the " + state + " state"
		return targets.Save(tx, row, "InstanceDown", nil)
	}
	return nil
}

func (s *Service) targetsOf(ctx context.Context, account, region, id string) ([]*store.Row[Target], error) {
	rows, err := targets.Select(ctx, s.deps.Store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	var out []*store.Row[Target]
	for _, row := range rows {
		if row.Doc.ID == id {
			out = append(out, row)
		}
	}
	return out, nil
}
