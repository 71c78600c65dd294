package autoscaling

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

var hookName = lazyre.New(`^[A-Za-z0-9\-_/]{1,255}$`)

// maxHooks is AWS's quota per group.
const maxHooks = 50

// hookFrom checks a request and makes the hook of it; old is the hook that
// it changes, nil where it is new.
func hookFrom(in *api.PutLifecycleHookInput, old *hook) (*hook, error) {
	h := hook{Name: ptr.Value(in.LifecycleHookName), Group: ptr.Value(in.AutoScalingGroupName), Default: "ABANDON", Timeout: 3600}
	if old != nil {
		h = *old
	}
	set(&h.Transition, in.LifecycleTransition)
	set(&h.Default, in.DefaultResult)
	set(&h.Timeout, in.HeartbeatTimeout)
	set(&h.Target, in.NotificationTargetARN)
	set(&h.Role, in.RoleARN)
	set(&h.Metadata, in.NotificationMetadata)
	switch {
	case !hookName.MatchString(h.Name):
		return nil, invalid("The lifecycle hook name '%s' is invalid: letters, digits, '-', '_' and '/' are allowed.", h.Name)
	case h.Transition == "":
		return nil, invalid("Lifecycle transition is required to create a new lifecycle hook.")
	case h.Transition != launching && h.Transition != terminatingHook:
		return nil, invalid("The lifecycle transition '%s' is invalid: it must be %s or %s.", h.Transition, launching, terminatingHook)
	case h.Default != "ABANDON" && h.Default != "CONTINUE":
		return nil, invalid("The default result '%s' is invalid: it must be ABANDON or CONTINUE.", h.Default)
	case h.Timeout < 30 || h.Timeout > 7200:
		return nil, invalid("The heartbeat timeout must be between 30 and 7200 seconds, not %d.", h.Timeout)
	}
	return &h, nil
}

func (s *Service) putHook(ctx context.Context, in *api.PutLifecycleHookInput) (*api.PutLifecycleHookOutput, error) {
	account, region := where(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := getGroup(tx, account, region, ptr.Value(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		id := g.ID + "/" + ptr.Value(in.LifecycleHookName)
		row, err := hooks.Get(tx, account, region, id)
		switch {
		case errors.Is(err, store.ErrNotFound):
			h, err := hookFrom(in, nil)
			if err != nil {
				return err
			}
			n, err := hooks.Count(tx, store.Query{Account: account, Region: region, Parent: g.ID})
			if err != nil {
				return err
			}
			if n >= maxHooks {
				return awserr.New("LimitExceeded", "The group has %d lifecycle hooks already.", n)
			}
			_, err = hooks.Insert(tx, account, region, id, *h, "Created", nil)
			return err
		case err != nil:
			return err
		}
		h, err := hookFrom(in, &row.Doc)
		if err != nil {
			return err
		}
		row.Doc = *h
		return hooks.Save(tx, row, "Changed", nil)
	})
	return &api.PutLifecycleHookOutput{}, err
}

// deleteHook removes a hook; instances that wait for it go on with CONTINUE
// for a termination and ABANDON for a launch (API reference, DeleteLifecycleHook).
func (s *Service) deleteHook(ctx context.Context, in *api.DeleteLifecycleHookInput) (*api.DeleteLifecycleHookOutput, error) {
	account, region := where(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := getGroup(tx, account, region, ptr.Value(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		row, err := hooks.Get(tx, account, region, g.ID+"/"+ptr.Value(in.LifecycleHookName))
		if errors.Is(err, store.ErrNotFound) {
			return invalid("No Lifecycle Hook found with name %s for AutoScalingGroup %s", ptr.Value(in.LifecycleHookName), g.ID)
		}
		if err != nil {
			return err
		}
		waiting, err := instances.List(tx, store.Query{Account: account, Region: region, Parent: g.ID})
		if err != nil {
			return err
		}
		for _, i := range waiting {
			for n := range i.Doc.Actions {
				if a := &i.Doc.Actions[n]; a.Hook == row.Doc.Name && a.Result == "" {
					a.Result = "CONTINUE"
					if row.Doc.Transition == launching {
						a.Result = "ABANDON"
					}
					if err := instances.Save(tx, i, "HookDeleted", eventDetail(&i.Doc)); err != nil {
						return err
					}
				}
			}
		}
		return hooks.Delete(tx, row, "Deleted", nil)
	})
	return &api.DeleteLifecycleHookOutput{}, err
}

func (s *Service) describeHooks(ctx context.Context, in *api.DescribeLifecycleHooksInput) (*api.DescribeLifecycleHooksOutput, error) {
	account, region := where(ctx)
	out := &api.DescribeLifecycleHooksOutput{LifecycleHooks: []api.LifecycleHook{}}
	err := s.Store.View(ctx, func(r store.Reader) error {
		g, err := getGroup(r, account, region, ptr.Value(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		rows, err := hooks.List(r, store.Query{Account: account, Region: region, Parent: g.ID})
		for _, row := range rows {
			h := &row.Doc
			if len(in.LifecycleHookNames) > 0 && !slices.Contains(in.LifecycleHookNames, h.Name) {
				continue
			}
			out.LifecycleHooks = append(out.LifecycleHooks, api.LifecycleHook{LifecycleHookName: new(h.Name), AutoScalingGroupName: new(h.Group), LifecycleTransition: new(h.Transition),
				NotificationTargetARN: orNil(h.Target), RoleARN: orNil(h.Role), NotificationMetadata: orNil(h.Metadata), HeartbeatTimeout: new(h.Timeout),
				GlobalTimeout: new(min(172800, 100*h.Timeout)), DefaultResult: new(h.Default)})
		}
		return err
	})
	return out, err
}

// onAction finds the one open action that a token, or an instance and a
// hook, name, and lets fn change it.
func (s *Service) onAction(ctx context.Context, group, hookName, token, instance, event string, fn func(*action) error) error {
	account, region := where(ctx)
	if token == "" && instance == "" {
		return invalid("Either LifecycleActionToken or InstanceId is required.")
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := getGroup(tx, account, region, group)
		if err != nil {
			return err
		}
		rows, err := instances.List(tx, store.Query{Account: account, Region: region, Parent: g.ID})
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !strings.HasSuffix(row.Doc.State, ":Wait") || instance != "" && row.ID != instance {
				continue
			}
			for n := range row.Doc.Actions {
				a := &row.Doc.Actions[n]
				if a.Hook != hookName || token != "" && a.Token != token || a.Result != "" {
					continue
				}
				if err := fn(a); err != nil {
					return err
				}
				return instances.Save(tx, row, event, eventDetail(&row.Doc))
			}
		}
		if token != "" {
			return invalid("No active Lifecycle Action found with token %s", token)
		}
		return invalid("No active Lifecycle Action found with instance ID %s", instance)
	})
}

func (s *Service) completeAction(ctx context.Context, in *api.CompleteLifecycleActionInput) (*api.CompleteLifecycleActionOutput, error) {
	result := ptr.Value(in.LifecycleActionResult)
	if result != "CONTINUE" && result != "ABANDON" {
		return nil, invalid("The lifecycle action result '%s' is invalid: it must be CONTINUE or ABANDON.", result)
	}
	err := s.onAction(ctx, ptr.Value(in.AutoScalingGroupName), ptr.Value(in.LifecycleHookName), ptr.Value(in.LifecycleActionToken), ptr.Value(in.InstanceId), "HookCompleted", func(a *action) error {
		a.Result = result
		return nil
	})
	return &api.CompleteLifecycleActionOutput{}, err
}

func (s *Service) heartbeat(ctx context.Context, in *api.RecordLifecycleActionHeartbeatInput) (*api.RecordLifecycleActionHeartbeatOutput, error) {
	now := s.Clock.Now()
	err := s.onAction(ctx, ptr.Value(in.AutoScalingGroupName), ptr.Value(in.LifecycleHookName), ptr.Value(in.LifecycleActionToken), ptr.Value(in.InstanceId), "HookHeartbeat", func(a *action) error {
		a.Heartbeat = now.Add(time.Duration(a.Timeout) * time.Second)
		return nil
	})
	return &api.RecordLifecycleActionHeartbeatOutput{}, err
}
