package autoscaling

import (
	"context"
	"fmt"
	"slices"
	"time"

	ec2 "slipway/internal/api/ec2"
	elbv2 "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// maxRounds bounds how often one call of the controller plans and applies;
// what is left then is found again through the rows' events.
const maxRounds = 50

// unsureDelay is when to ask again for target health that could not be read.
const unsureDelay = 5 * time.Second

// reconcile brings one group nearer to what it should be.
func (s *Service) reconcile(ctx context.Context, key store.Key) (time.Duration, error) {
	ctx = caller.ForService(ctx, "autoscaling", key.Account, key.Region)
	for range maxRounds {
		row, w, unsure, err := s.observe(ctx, key)
		if err != nil {
			return 0, err
		}
		acts, wake := plan(w)
		if unsure {
			if again := w.now.Add(unsureDelay); wake.IsZero() || again.Before(wake) {
				wake = again
			}
		}
		if len(acts) == 0 {
			if wake.IsZero() {
				return 0, nil
			}
			return max(wake.Sub(s.Clock.Now()), time.Millisecond), nil
		}
		var failed error
		for _, a := range acts {
			// One instance's trouble does not stop the others.
			if err := s.apply(ctx, row, w, a); err != nil && failed == nil {
				failed = fmt.Errorf("%s: %w", a.verb, err)
			}
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
		}
		if failed != nil {
			return 0, failed
		}
		if err := s.spendCauses(ctx, row, acts); err != nil {
			return 0, err
		}
	}
	return time.Millisecond, nil
}

// spendCauses forgets why the capacity changed once activities say so.
func (s *Service) spendCauses(ctx context.Context, row *store.Row[Group], acts []act) error {
	used := slices.ContainsFunc(acts, func(a act) bool {
		return (a.verb == doLaunch || a.verb == doTerminate) && a.from != a.to && !a.rebal
	})
	if !used || len(row.Doc.Causes) == 0 {
		return nil
	}
	_, err := groups.Modify(ctx, s.Store, row.Account, row.Region, row.ID, "Scaling", func(g *Group) error {
		if !slices.Equal(g.Causes, row.Doc.Causes) {
			return store.ErrUnchanged // changed again meanwhile
		}
		g.Causes, g.Alarms = nil, nil
		return nil
	})
	return err
}

// observe reads everything that plan decides on. unsure: some target health
// could not be read.
func (s *Service) observe(ctx context.Context, key store.Key) (row *store.Row[Group], w *world, unsure bool, err error) {
	w = &world{now: s.Clock.Now(), pick: s.Pick, ec2: map[string]machineState{}, targets: map[string]map[string]string{}}
	err = s.Store.View(ctx, func(r store.Reader) error {
		if row, err = groups.Get(r, key.Account, key.Region, key.ID); err != nil {
			return err
		}
		w.group = &row.Doc
		q := store.Query{Account: key.Account, Region: key.Region, Parent: key.ID}
		is, err := instances.List(r, q)
		if err != nil {
			return err
		}
		for _, i := range is {
			w.instances = append(w.instances, &i.Doc)
		}
		ns, err := intents.List(r, q)
		if err != nil {
			return err
		}
		for _, n := range ns {
			w.intents = append(w.intents, &n.Doc)
		}
		running, err := activeRefresh(r, key.Account, key.Region, key.ID)
		if err != nil {
			return err
		}
		if running != nil {
			w.refresh = &running.Doc
		}
		hs, err := hooks.List(r, q)
		for _, h := range hs {
			w.hooks = append(w.hooks, &h.Doc)
		}
		return err
	})
	if err != nil {
		return nil, nil, false, err
	}
	if err := s.observeMachines(ctx, w); err != nil {
		return nil, nil, false, err
	}
	unsure, err = s.observeTargets(ctx, w)
	return row, w, unsure, err
}

func (s *Service) observeMachines(ctx context.Context, w *world) error {
	if len(w.instances) == 0 {
		return nil
	}
	ids := make([]string, 0, len(w.instances))
	for _, i := range w.instances {
		ids = append(ids, i.ID)
	}
	out, err := dispatch.Call(ctx, s.Mux, ec2.OpDescribeInstances, &ec2.DescribeInstancesInput{
		Filters: []ec2.Filter{{Name: new("instance-id"), Values: ids}}})
	if err != nil {
		return err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			w.ec2[ptr.Value(i.InstanceId)] = machineState{ptr.Value(ptr.Value(i.State).Name), ptr.Value(ptr.Value(i.StateReason).Message)}
		}
	}
	return nil
}

// observeTargets asks for the health of every target group that the group or
// one of its instances has to do with.
func (s *Service) observeTargets(ctx context.Context, w *world) (unsure bool, err error) {
	var arns []string
	for _, a := range w.group.Attachments {
		arns = append(arns, a.ARN)
	}
	for _, i := range w.instances {
		for _, arn := range i.TargetGroups {
			if !slices.Contains(arns, arn) {
				arns = append(arns, arn)
			}
		}
	}
	for _, arn := range arns {
		out, err := dispatch.Call(ctx, s.Mux, elbv2.OpDescribeTargetHealth, &elbv2.DescribeTargetHealthInput{TargetGroupArn: &arn})
		switch {
		case awserr.Is(err, "TargetGroupNotFound"):
			w.targets[arn] = nil
			continue
		case ctx.Err() != nil:
			return false, ctx.Err()
		case err != nil:
			s.Log.Warn("target health could not be read", "group", w.group.Name, "targetGroup", arn, "error", err)
			unsure = true
			continue
		}
		states := map[string]string{}
		for _, t := range out.TargetHealthDescriptions {
			id, state := ptr.Value(ptr.Value(t.Target).Id), ptr.Value(ptr.Value(t.TargetHealth).State)
			// On several ports, what is not healthy on one is not healthy.
			if old, twice := states[id]; !twice || old == "healthy" {
				states[id] = state
			}
		}
		w.targets[arn] = states
	}
	return unsure, nil
}
