package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	as "slipway/internal/api/autoscaling"
	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

// Lifecycle states of instances in Auto Scaling groups that matter here.
const (
	pendingWait     = "Pending:Wait"
	terminatingWait = "Terminating:Wait"
)

// heartbeatEvery is how often a lifecycle action that takes long is prolonged.
const heartbeatEvery = 5 * time.Minute

// groupWatches maps events to the deployment groups to look at: instances
// that come or go in an attached Auto Scaling group, and deployments that
// moved.
func (s *Service) groupWatches() map[string]func(store.Event) []store.Key {
	attached := func(ev store.Event, name string) []store.Key {
		rows, err := groups.Select(context.Background(), s.store, store.Query{Account: ev.Key.Account, Region: ev.Key.Region})
		if err != nil {
			s.log.Warn("deployment groups of an Auto Scaling group", "group", name, "error", err)
		}
		var keys []store.Key
		for _, row := range rows {
			if slices.ContainsFunc(row.Doc.Scaling, func(g ScalingGroup) bool { return g.Name == name }) {
				keys = append(keys, row.Key)
			}
		}
		return keys
	}
	return map[string]func(store.Event) []store.Key{
		"autoscaling:instance": func(ev store.Event) []store.Key {
			if ev.Deleted || ev.State != pendingWait && ev.State != terminatingWait && ev.State != "InService" {
				return nil
			}
			return attached(ev, ev.Parent)
		},
		// A group that is made anew under its old name has lost our hooks.
		"autoscaling:group": func(ev store.Event) []store.Key {
			if ev.Deleted || ev.Version != 1 {
				return nil
			}
			keys := attached(ev, ev.Key.ID)
			for _, key := range keys {
				s.look.mark(key, look{hooks: true})
			}
			return keys
		},
		deployments.Kind: func(ev store.Event) []store.Key {
			if !terminal(ev.State) {
				return nil
			}
			return []store.Key{groups.Key(ev.Key.Account, ev.Key.Region, ev.Parent)}
		},
	}
}

// reconcileGroup keeps a group's hooks in place, answers the lifecycle
// actions of its instances, and brings newcomers up to date.
func (s *Service) reconcileGroup(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := groups.Find(ctx, s.store, key.Account, key.Region, key.ID)
	if err != nil || len(row.Doc.Scaling) == 0 {
		s.look.forget(key)
		return 0, err
	}
	ctx = s.as(ctx, key.Account, key.Region)
	if s.look.take(key).hooks {
		for i := range row.Doc.Scaling { // not saved: putting a hook again is harmless
			row.Doc.Scaling[i].Installed, row.Doc.Scaling[i].TerminationDone = false, false
		}
	}
	if err := s.ensureHooks(ctx, row); err != nil {
		s.look.mark(key, look{hooks: true})
		return 0, err
	}
	scaled, err := s.scaled(ctx, &row.Doc)
	if err != nil {
		return 0, err
	}
	var next time.Duration
	for _, in := range scaled {
		if in.lifecycle != pendingWait && in.lifecycle != terminatingWait {
			continue
		}
		after, err := s.attend(ctx, row, in)
		if err != nil {
			return 0, err
		}
		if after > 0 && (next == 0 || after < next) {
			next = after
		}
	}
	return next, s.followUp(ctx, row, scaled)
}

// attend serves one instance that waits in a lifecycle hook: a deployment of
// the last good revision, then the answer by its outcome. AWS: "Integrating
// CodeDeploy with Amazon EC2 Auto Scaling".
func (s *Service) attend(ctx context.Context, row *groupRow, in instance) (time.Duration, error) {
	g := &row.Doc
	i := slices.IndexFunc(g.Scaling, func(a ScalingGroup) bool { return a.Name == in.tags["group"] })
	if i < 0 {
		return 0, nil
	}
	launch := Launch{ScalingGroup: g.Scaling[i].Name, Hook: g.Scaling[i].Hook}
	if in.lifecycle == terminatingWait {
		if launch.Hook, launch.Terminating = g.Scaling[i].TerminationHook, true; launch.Hook == "" {
			return 0, nil
		}
	}
	d, err := s.launchDeployment(ctx, row, in.id, launch)
	if err != nil {
		return 0, err
	}
	if d == nil { // nothing was ever deployed with success
		return 0, s.answer(ctx, launch, in.id, "CONTINUE")
	}
	if !d.Doc.Launch.AnsweredAt.IsZero() {
		return 0, nil
	}
	if d.Doc.Terminal() {
		result := "ABANDON"
		if d.Doc.Status == api.DeploymentStatusSucceeded || launch.Terminating {
			result = "CONTINUE"
		}
		if err := s.answer(ctx, *d.Doc.Launch, in.id, result); err != nil {
			return 0, err
		}
		_, err := deployments.Modify(ctx, s.store, d.Account, d.Region, d.ID, "HookAnswered", func(d *Deployment) error {
			d.Launch.AnsweredAt = s.clock.Now()
			return nil
		})
		return 0, err
	}
	return s.heartbeat(ctx, d, in.id)
}

// heartbeat keeps the lifecycle action open while its deployment runs.
func (s *Service) heartbeat(ctx context.Context, d *deploymentRow, instance string) (time.Duration, error) {
	last := d.Doc.Launch.HeartbeatAt
	if last.IsZero() {
		last = d.Doc.CreatedAt
	}
	if wait := s.clock.Until(last.Add(heartbeatEvery)); wait > 0 {
		return wait, nil
	}
	_, err := dispatch.Call(ctx, s.mux, as.OpRecordLifecycleActionHeartbeat, &as.RecordLifecycleActionHeartbeatInput{
		AutoScalingGroupName: &d.Doc.Launch.ScalingGroup, LifecycleHookName: &d.Doc.Launch.Hook, InstanceId: &instance,
	})
	if err != nil && !awserr.Is(err, "ValidationError") {
		return 0, fmt.Errorf("heartbeat of %s: %w", instance, err)
	}
	_, err = deployments.Modify(ctx, s.store, d.Account, d.Region, d.ID, "Heartbeat", func(d *Deployment) error {
		d.Launch.HeartbeatAt = s.clock.Now()
		return nil
	})
	return heartbeatEvery, err
}

// answer completes a lifecycle action. One that is over already is no error.
func (s *Service) answer(ctx context.Context, l Launch, instance, result string) error {
	_, err := dispatch.Call(ctx, s.mux, as.OpCompleteLifecycleAction, &as.CompleteLifecycleActionInput{
		AutoScalingGroupName: &l.ScalingGroup, LifecycleHookName: &l.Hook, InstanceId: &instance, LifecycleActionResult: &result,
	})
	if err != nil && !awserr.Is(err, "ValidationError") {
		return fmt.Errorf("complete the lifecycle action of %s: %w", instance, err)
	}
	return nil
}

// launchDeployment finds or creates the deployment to one instance; nil when
// the group has no good revision yet.
func (s *Service) launchDeployment(ctx context.Context, row *groupRow, instance string, launch Launch) (*deploymentRow, error) {
	creator := api.DeploymentCreatorAutoscaling
	if launch.Terminating {
		creator = api.DeploymentCreatorAutoscalingTermination
	}
	id := derivedID(row.Doc.ID, instance, launch.Hook, creator)
	d, err := deployments.Find(ctx, s.store, row.Account, row.Region, id)
	if err == nil || !errors.Is(err, store.ErrNotFound) {
		return d, err
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil || g.Doc.Succeeded == nil {
			return err
		}
		last := g.Doc.Succeeded
		new := s.fromGroup(&g.Doc)
		new.ID, new.Creator, new.Only, new.Launch = id, creator, []string{instance}, &launch
		new.Revision, new.Version, new.RevisionKey, new.FileExists = last.Revision, last.Version, last.RevisionKey, last.FileExists
		new.Minimum, new.Zonal = MinimumHealthy{Type: api.MinimumHealthyHostsTypeHostCount}, nil
		// An alarm must not keep a group from replacing what it lost, and
		// there is nothing to roll back to but this very revision.
		new.Alarms, new.AutoRollback = nil, nil
		new.Description = fmt.Sprintf("Deployment to instance %s, which Auto Scaling group %s launches", instance, launch.ScalingGroup)
		if launch.Terminating {
			new.Description = fmt.Sprintf("Deployment to instance %s, which Auto Scaling group %s terminates", instance, launch.ScalingGroup)
		}
		if d, err = deployments.Insert(tx, row.Account, row.Region, id, new, api.DeploymentStatusCreated, nil); errors.Is(err, store.ErrExists) {
			d, err = deployments.Get(tx, row.Account, row.Region, id)
		}
		return err
	})
	return d, err
}

// fromGroup is a deployment with everything that it takes from its group.
func (s *Service) fromGroup(g *Group) Deployment {
	set := &g.Settings
	d := Deployment{
		Application: g.Application, Group: g.Name, GroupID: g.ID, Status: api.DeploymentStatusCreated,
		ConfigName: set.ConfigName, CreatedAt: s.clock.Now(), AutoRollback: set.AutoRollback, Alarms: set.Alarms,
		Style: set.Style, LoadBalancer: set.LoadBalancer, Triggers: set.Triggers,
	}
	if g.Succeeded != nil {
		d.PreviousRevision = g.Succeeded.Revision
	}
	return d
}

// followUp looks, after a deployment to the whole group succeeded, for
// instances that joined while it ran and so have an older revision. They get
// a deployment of their own (creator CodeDeployAutoUpdate).
func (s *Service) followUp(ctx context.Context, row *groupRow, scaled []instance) error {
	g := &row.Doc
	if g.Succeeded == nil || g.Active != "" || g.Settings.OutdatedStrategy == api.OutdatedInstancesStrategyIgnore {
		return nil
	}
	root, err := deployments.Find(ctx, s.store, row.Account, row.Region, g.Succeeded.ID)
	if errors.Is(err, store.ErrNotFound) || err == nil && root.Doc.FollowedUp {
		return nil
	}
	if err != nil {
		return err
	}
	outdated, wait, err := s.newcomers(ctx, row, root, scaled)
	if err != nil || wait {
		return err
	}
	return s.store.Update(ctx, func(tx store.Tx) error {
		root, err := deployments.Get(tx, row.Account, row.Region, root.ID)
		if err != nil || root.Doc.FollowedUp {
			return err
		}
		group, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil || group.Doc.Active != "" {
			return err
		}
		root.Doc.FollowedUp = true
		if len(outdated) == 0 {
			return deployments.Save(tx, root, "FollowedUp", nil)
		}
		d := s.fromGroup(&group.Doc)
		d.ID = derivedID(root.ID, "follow-on")
		d.Creator, d.Only, d.Root, d.FollowedUp = api.DeploymentCreatorCodeDeployAutoUpdate, outdated, root.ID, true
		d.Revision, d.Version, d.RevisionKey, d.FileExists = root.Doc.Revision, root.Doc.Version, root.Doc.RevisionKey, root.Doc.FileExists
		d.ConfigName, d.Minimum, d.Zonal, d.IgnoreStopFailures = root.Doc.ConfigName, root.Doc.Minimum, root.Doc.Zonal, root.Doc.IgnoreStopFailures
		d.Description = fmt.Sprintf("Update of instances that joined the group while deployment %s ran", root.ID)
		root.Doc.FollowOns = append(root.Doc.FollowOns, d.ID)
		if err := deployments.Save(tx, root, "FollowedUp", nil); err != nil {
			return err
		}
		return s.insertDeployment(tx, row.Account, row.Region, group, &d)
	})
}

// newcomers lists the instances in service that the deployment did not
// reach and that do not have its revision. wait: some are still being
// deployed to, so it is too early to tell.
func (s *Service) newcomers(ctx context.Context, row *groupRow, root *deploymentRow, scaled []instance) (outdated []string, wait bool, err error) {
	err = s.store.View(ctx, func(r store.Reader) error {
		known, err := hostsOf(r, row.Account, row.Region, row.Doc.ID)
		if err != nil {
			return err
		}
		reached, err := targetsOf(r, row.Account, row.Region, root.ID)
		if err != nil {
			return err
		}
		for _, in := range scaled {
			if slices.ContainsFunc(reached, func(t *targetRow) bool { return t.Doc.Instance == in.id }) || known[in.id].RevisionKey == root.Doc.RevisionKey {
				continue
			}
			switch {
			case in.lifecycle == "InService":
				outdated = append(outdated, in.id)
			case in.lifecycle == "Pending:Proceed":
				wait = true
			case in.lifecycle == pendingWait:
				busy, err := s.launching(r, row, in, root.Doc.RevisionKey)
				if err != nil {
					return err
				}
				wait = wait || busy
			}
		}
		return nil
	})
	slices.Sort(outdated)
	return outdated, wait, err
}

// launching says whether an instance that waits in our hook was given another
// revision than key: whether it needs another deployment shows once it is in
// service.
func (s *Service) launching(r store.Reader, row *groupRow, in instance, key string) (bool, error) {
	for _, a := range row.Doc.Scaling {
		if a.Name != in.tags["group"] {
			continue
		}
		d, err := deployments.Get(r, row.Account, row.Region, derivedID(row.Doc.ID, in.id, a.Hook, api.DeploymentCreatorAutoscaling))
		if errors.Is(err, store.ErrNotFound) {
			return false, nil
		}
		return err == nil && d.Doc.RevisionKey != key, err
	}
	return false, nil
}
