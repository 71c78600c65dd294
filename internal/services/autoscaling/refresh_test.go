package autoscaling_test

import (
	"context"
	"errors"
	"testing"
	"time"

	api "slipway/internal/api/autoscaling"
	ec2api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

// TestInstanceRefresh rolls three instances to a new template version, once
// ending first and once launching first, and watches the capacity all along.
func TestInstanceRefresh(t *testing.T) {
	for _, c := range []struct {
		name      string
		low, high int64
		floor     int // fewest in service at any time
		ceiling   int // most at any time that are not on their way out
	}{{"terminate first", 60, 100, 2, 3}, {"launch first", 100, 110, 3, 4}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.create(func(in *api.CreateAutoScalingGroupInput) { in.DesiredCapacity = new(int64(3)) })
			b.steady(3)
			must(b, "version 2", func() error {
				_, err := dispatch.Call(b.ctx, b.mux, ec2api.OpCreateLaunchTemplateVersion, &ec2api.CreateLaunchTemplateVersionInput{LaunchTemplateName: new("web"), SourceVersion: new("1"),
					LaunchTemplateData: &ec2api.RequestLaunchTemplateData{InstanceType: new("t3.small")}})
				return err
			})
			watch := b.watchCapacity()
			start := func() error {
				_, err := dispatch.Call(b.ctx, b.mux, api.OpStartInstanceRefresh, &api.StartInstanceRefreshInput{AutoScalingGroupName: new("web"),
					Preferences: &api.RefreshPreferences{MinHealthyPercentage: &c.low, MaxHealthyPercentage: &c.high, SkipMatching: new(true)}})
				return err
			}
			must(b, "StartInstanceRefresh", start)
			b.until("successful refresh", func() bool { return b.refreshes()[0] == "Successful" })
			low, high := watch()
			if low < c.floor || high > c.ceiling {
				t.Errorf("between %d in service and %d in all, want at least %d and at most %d\n%s", low, high, c.floor, c.ceiling, b.picture())
			}
			b.steady(3)
			for _, i := range b.group().Instances {
				if *i.LaunchTemplate.Version != "2" || *i.InstanceType != "t3.small" {
					t.Errorf("%s is version %s, %s", *i.InstanceId, *i.LaunchTemplate.Version, *i.InstanceType)
				}
			}
			must(b, "a second one", start) // nothing differs any more
			b.until("successful at once", func() bool { all := b.refreshes(); return len(all) == 2 && all[0] == "Successful" })
			_, err := dispatch.Call(b.ctx, b.mux, api.OpCancelInstanceRefresh, &api.CancelInstanceRefreshInput{AutoScalingGroupName: new("web")})
			if !awserr.Is(err, "ActiveInstanceRefreshNotFound") {
				t.Errorf("cancelling nothing: %v", err)
			}
		})
	}
}

func (b *bench) refreshes() (status []string) {
	b.t.Helper()
	out, err := dispatch.Call(b.ctx, b.mux, api.OpDescribeInstanceRefreshes, &api.DescribeInstanceRefreshesInput{AutoScalingGroupName: new("web")})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, r := range out.InstanceRefreshes {
		status = append(status, *r.Status)
	}
	return status
}

// watchCapacity follows every event and returns the extremes when called.
func (b *bench) watchCapacity() func() (low, high int) {
	states := map[string]string{}
	for _, i := range b.group().Instances {
		states[*i.InstanceId] = *i.LifecycleState
	}
	sub := b.store.Subscribe("autoscaling:instance")
	return func() (low, high int) {
		ctx, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
		defer cancel()
		defer sub.Close()
		low, high = len(states), len(states)
		for {
			ev, err := sub.Next(ctx)
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, store.ErrLagged) {
					b.t.Error(err)
				}
				return low, high
			}
			states[ev.Key.ID] = ev.State
			if ev.Deleted {
				delete(states, ev.Key.ID)
			}
			serving, all := 0, 0
			for _, s := range states {
				if s == "InService" {
					serving++
				}
				if s == "InService" || len(s) >= 7 && s[:7] == "Pending" {
					all++
				}
			}
			low, high = min(low, serving), max(high, all)
		}
	}
}
