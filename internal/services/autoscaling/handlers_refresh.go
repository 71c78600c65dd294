package autoscaling

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// activeRefresh is the running refresh of a group, nil without one.
func activeRefresh(r store.Reader, account, region, group string) (*store.Row[refresh], error) {
	rows, err := refreshes.List(r, store.Query{Account: account, Region: region, Parent: group, Descending: true})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Doc.active() {
			return row, nil
		}
	}
	return nil, nil
}

func checkPreferences(p *api.RefreshPreferences) error {
	if p == nil {
		return nil
	}
	low, high := int64(90), int64(100)
	set(&low, p.MinHealthyPercentage)
	set(&high, p.MaxHealthyPercentage)
	switch {
	case low < 0 || low > 100 || high < 100 || high > 200 || high-low > 100:
		return invalid("MinHealthyPercentage must be 0 to 100, MaxHealthyPercentage 100 to 200, at most 100 apart; got %d and %d.", low, high)
	case len(p.CheckpointPercentages) > 0 || p.CheckpointDelay != nil:
		return notBuilt("checkpoints of an instance refresh")
	case ptr.Value(p.AutoRollback):
		return notBuilt("AutoRollback of an instance refresh")
	case p.AlarmSpecification != nil && len(p.AlarmSpecification.Alarms) > 0:
		return notBuilt("AlarmSpecification of an instance refresh")
	case ptr.Value(p.BakeTime) > 0:
		return notBuilt("BakeTime of an instance refresh")
	}
	return nil
}

func notBuilt(what string) error {
	return awserr.New("NotImplemented", "Slipway does not implement %s yet.", what).WithStatus(501)
}

func (s *Service) startRefresh(ctx context.Context, in *api.StartInstanceRefreshInput) (*api.StartInstanceRefreshOutput, error) {
	account, region := where(ctx)
	name, now := ptr.Value(in.AutoScalingGroupName), s.Clock.Now()
	if st := ptr.Value(in.Strategy); st != "" && st != "Rolling" {
		return nil, notBuilt("the instance refresh strategy " + st)
	}
	if err := checkPreferences(in.Preferences); err != nil {
		return nil, err
	}
	row, err := groups.Find(ctx, s.Store, account, region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
	}
	if err != nil {
		return nil, err
	}
	probe := row.Doc
	r := refresh{Group: name, Status: refreshPending, Start: now, Moved: now, Given: in.Preferences, Desired: in.DesiredConfiguration}
	if d := in.DesiredConfiguration; d != nil {
		if err := s.launchSource(ctx, &probe, &api.UpdateAutoScalingGroupInput{LaunchTemplate: d.LaunchTemplate, MixedInstancesPolicy: d.MixedInstancesPolicy}); err != nil {
			return nil, err
		}
		r.Template, r.Mixed = probe.Template, probe.Mixed
	}
	current, err := s.resolve(ctx, &probe)
	if err != nil {
		return nil, err
	}
	skip := in.Preferences != nil && ptr.Value(in.Preferences.SkipMatching)
	id, err := uuid.NewV7()
	if err != nil {
		return nil, err
	}
	r.ID = id.String()
	err = s.changeGroup(ctx, name, "Refreshing", func(tx store.Tx, g *store.Row[Group]) error {
		if running, err := activeRefresh(tx, account, region, name); err != nil {
			return err
		} else if running != nil {
			return awserr.New("InstanceRefreshInProgress", "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.")
		}
		rows, err := instances.List(tx, store.Query{Account: account, Region: region, Parent: name})
		if err != nil {
			return err
		}
		for _, i := range rows {
			if r.replaces(&i.Doc) && !(skip && i.Doc.matches(current)) {
				r.Targets = append(r.Targets, i.ID)
			}
		}
		r.Left = len(r.Targets)
		_, err = refreshes.Insert(tx, account, region, name+"/"+r.ID, r, "Started", nil)
		return err
	})
	return &api.StartInstanceRefreshOutput{InstanceRefreshId: &r.ID}, err
}

// replaces says whether an instance belongs to what a refresh replaces.
func (r *refresh) replaces(i *Instance) bool {
	ignore := func(v *string) bool { return ptr.Value(v) == "Ignore" }
	if i.leaving() || i.State == detaching {
		return false
	}
	return r.Given == nil || !(i.Protected && ignore(r.Given.ScaleInProtectedInstances)) && !(i.State == standby && ignore(r.Given.StandbyInstances))
}

// matches says whether an instance is what a launch would give now.
func (i *Instance) matches(now *resolved) bool {
	return i.Template != nil && i.Template.ID == now.ref.ID && i.Template.Version == now.ref.Version && i.Type == now.kind
}

func (s *Service) cancelRefresh(ctx context.Context, in *api.CancelInstanceRefreshInput) (*api.CancelInstanceRefreshOutput, error) {
	account, region := where(ctx)
	now := s.Clock.Now()
	out := &api.CancelInstanceRefreshOutput{}
	err := s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "RefreshCancelled", func(tx store.Tx, g *store.Row[Group]) error {
		row, err := activeRefresh(tx, account, region, g.ID)
		if err != nil {
			return err
		}
		if row == nil {
			return awserr.New("ActiveInstanceRefreshNotFound", "No in progress or pending Instance Refresh found for Auto Scaling group %s", g.ID)
		}
		out.InstanceRefreshId = new(row.Doc.ID)
		row.Doc.Status, row.Doc.Reason, row.Doc.End = refreshCancelled, "Cancelled by user.", now
		return refreshes.Save(tx, row, refreshCancelled, nil)
	})
	return out, err
}

func (s *Service) describeRefreshes(ctx context.Context, in *api.DescribeInstanceRefreshesInput) (*api.DescribeInstanceRefreshesOutput, error) {
	account, region := where(ctx)
	var all []*refresh
	err := s.Store.View(ctx, func(r store.Reader) error {
		g, err := getGroup(r, account, region, ptr.Value(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		rows, err := refreshes.List(r, store.Query{Account: account, Region: region, Parent: g.ID, Descending: true})
		for _, row := range rows {
			if len(in.InstanceRefreshIds) == 0 || slices.Contains(in.InstanceRefreshIds, row.Doc.ID) {
				all = append(all, &row.Doc)
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b *refresh) int { return strings.Compare(b.ID, a.ID) })
	all, next, err := page(all, func(r *refresh) string { return r.ID }, in.MaxRecords, in.NextToken, 50)
	out := &api.DescribeInstanceRefreshesOutput{NextToken: next, InstanceRefreshes: []api.InstanceRefresh{}}
	for _, r := range all {
		out.InstanceRefreshes = append(out.InstanceRefreshes, r.api())
	}
	return out, err
}

func (r *refresh) api() api.InstanceRefresh {
	percent := int64(0)
	if n := len(r.Targets); n > 0 {
		percent = int64(100 * max(0, n-r.Left) / n)
	}
	if r.Status == refreshSuccessful {
		percent = 100
	}
	out := api.InstanceRefresh{InstanceRefreshId: new(r.ID), AutoScalingGroupName: new(r.Group), Status: new(r.Status), StatusReason: orNil(r.Reason), PercentageComplete: &percent,
		InstancesToUpdate: new(int64(r.Left)), Preferences: r.Given, DesiredConfiguration: r.Desired, Strategy: new("Rolling")}
	if r.Status != refreshPending {
		out.StartTime = new(r.Start)
	}
	if !r.End.IsZero() {
		out.EndTime = new(r.End)
	}
	return out
}

// refreshState writes a refresh's progress or end. Success saves the desired
// configuration to the group.
func (s *Service) refreshState(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		r, err := refreshes.Get(tx, row.Account, row.Region, row.ID+"/"+w.refresh.ID)
		if err != nil || !r.Doc.active() {
			return err
		}
		d := &r.Doc
		if left := int(a.to); left < d.Left || d.Status == refreshPending {
			d.Moved = w.now
		}
		d.Status, d.Reason, d.Left = a.state, a.message, int(a.to)
		if !d.active() {
			d.End = w.now
		}
		if err := refreshes.Save(tx, r, a.state, nil); err != nil || a.state != refreshSuccessful || d.Template == nil {
			return err
		}
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		g.Doc.Template, g.Doc.Mixed = d.Template, d.Mixed
		return groups.Save(tx, g, "Refreshed", nil)
	})
}
