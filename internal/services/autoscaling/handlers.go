package autoscaling

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Register serves this service's operations on mux. What is not listed here
// answers 501 by name.
func (s *Service) Register(mux *dispatch.Mux) {
	s.registerGroups(mux)
	s.registerInstances(mux)
	s.registerHooks(mux)
	s.registerSettings(mux)
	s.registerLists(mux)
	s.registerPolicies(mux)
}

func (s *Service) registerGroups(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpCreateAutoScalingGroup, s.createGroup)
	dispatch.Register(mux, api.OpUpdateAutoScalingGroup, s.updateGroup)
	dispatch.Register(mux, api.OpDeleteAutoScalingGroup, s.deleteGroupCall)
	dispatch.Register(mux, api.OpDescribeAutoScalingGroups, s.describeGroups)
	dispatch.Register(mux, api.OpStartInstanceRefresh, s.startRefresh)
	dispatch.Register(mux, api.OpCancelInstanceRefresh, s.cancelRefresh)
	dispatch.Register(mux, api.OpDescribeInstanceRefreshes, s.describeRefreshes)
	dispatch.Register(mux, api.OpSetDesiredCapacity, s.setDesired)
	dispatch.Register(mux, api.OpDescribeScalingActivities, s.describeActivities)
}

func (s *Service) registerInstances(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpDescribeAutoScalingInstances, s.describeInstances)
	dispatch.Register(mux, api.OpTerminateInstanceInAutoScalingGroup, s.terminateInstance)
	dispatch.Register(mux, api.OpSetInstanceHealth, s.setInstanceHealth)
	dispatch.Register(mux, api.OpSetInstanceProtection, s.setInstanceProtection)
	dispatch.Register(mux, api.OpEnterStandby, s.enterStandby)
	dispatch.Register(mux, api.OpExitStandby, s.exitStandby)
	dispatch.Register(mux, api.OpAttachInstances, s.attachInstances)
	dispatch.Register(mux, api.OpDetachInstances, s.detachInstances)
}

func (s *Service) registerHooks(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpPutLifecycleHook, s.putHook)
	dispatch.Register(mux, api.OpDeleteLifecycleHook, s.deleteHook)
	dispatch.Register(mux, api.OpDescribeLifecycleHooks, s.describeHooks)
	dispatch.Register(mux, api.OpCompleteLifecycleAction, s.completeAction)
	dispatch.Register(mux, api.OpRecordLifecycleActionHeartbeat, s.heartbeat)
}

func (s *Service) registerSettings(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpSuspendProcesses, s.suspend)
	dispatch.Register(mux, api.OpResumeProcesses, s.resume)
	dispatch.Register(mux, api.OpAttachLoadBalancerTargetGroups, s.attachTargetGroups)
	dispatch.Register(mux, api.OpDetachLoadBalancerTargetGroups, s.detachTargetGroups)
	dispatch.Register(mux, api.OpDescribeLoadBalancerTargetGroups, s.describeTargetGroups)
	dispatch.Register(mux, api.OpAttachTrafficSources, s.attachTraffic)
	dispatch.Register(mux, api.OpDetachTrafficSources, s.detachTraffic)
	dispatch.Register(mux, api.OpDescribeTrafficSources, s.describeTraffic)
	dispatch.Register(mux, api.OpDescribeLoadBalancers, s.describeLoadBalancers)
	dispatch.Register(mux, api.OpCreateOrUpdateTags, s.putTags)
	dispatch.Register(mux, api.OpDeleteTags, s.deleteTags)
	dispatch.Register(mux, api.OpDescribeTags, s.describeTags)
	dispatch.Register(mux, api.OpEnableMetricsCollection, s.enableMetrics)
	dispatch.Register(mux, api.OpDisableMetricsCollection, s.disableMetrics)
	dispatch.Register(mux, api.OpPutNotificationConfiguration, s.putNotification)
	dispatch.Register(mux, api.OpDeleteNotificationConfiguration, s.deleteNotification)
	dispatch.Register(mux, api.OpDescribeNotificationConfigurations, s.describeNotifications)
}

func (s *Service) registerLists(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpDescribeAccountLimits, s.accountLimits)
	dispatch.Register(mux, api.OpDescribeTerminationPolicyTypes, func(context.Context, *api.DescribeTerminationPolicyTypesInput) (*api.DescribeTerminationPolicyTypesOutput, error) {
		return &api.DescribeTerminationPolicyTypesOutput{TerminationPolicyTypes: terminationPolicies}, nil
	})
	dispatch.Register(mux, api.OpDescribeLifecycleHookTypes, func(context.Context, *api.DescribeLifecycleHookTypesInput) (*api.DescribeLifecycleHookTypesOutput, error) {
		return &api.DescribeLifecycleHookTypesOutput{LifecycleHookTypes: []string{launching, terminatingHook}}, nil
	})
	dispatch.Register(mux, api.OpDescribeScalingProcessTypes, func(context.Context, *api.DescribeScalingProcessTypesInput) (*api.DescribeScalingProcessTypesOutput, error) {
		out := &api.DescribeScalingProcessTypesOutput{}
		for _, p := range processes {
			out.Processes = append(out.Processes, api.ProcessType{ProcessName: new(p)})
		}
		return out, nil
	})
	dispatch.Register(mux, api.OpDescribeAdjustmentTypes, func(context.Context, *api.DescribeAdjustmentTypesInput) (*api.DescribeAdjustmentTypesOutput, error) {
		out := &api.DescribeAdjustmentTypesOutput{}
		for _, t := range []string{"ChangeInCapacity", "ExactCapacity", "PercentChangeInCapacity"} {
			out.AdjustmentTypes = append(out.AdjustmentTypes, api.AdjustmentType{AdjustmentType: new(t)})
		}
		return out, nil
	})
	dispatch.Register(mux, api.OpDescribeMetricCollectionTypes, func(context.Context, *api.DescribeMetricCollectionTypesInput) (*api.DescribeMetricCollectionTypesOutput, error) {
		out := &api.DescribeMetricCollectionTypesOutput{Granularities: []api.MetricGranularityType{{Granularity: new("1Minute")}}}
		for _, m := range groupMetrics {
			out.Metrics = append(out.Metrics, api.MetricCollectionType{Metric: new(m)})
		}
		return out, nil
	})
	dispatch.Register(mux, api.OpDescribeAutoScalingNotificationTypes, func(context.Context, *api.DescribeAutoScalingNotificationTypesInput) (*api.DescribeAutoScalingNotificationTypesOutput, error) {
		return &api.DescribeAutoScalingNotificationTypesOutput{AutoScalingNotificationTypes: notificationTypes}, nil
	})
}

// invalid is Auto Scaling's answer to nearly everything that a caller gets wrong.
func invalid(format string, args ...any) error { return awserr.New("ValidationError", format, args...) }

// getGroup reads a group that must exist.
func getGroup(r store.Reader, account, region, name string) (*store.Row[Group], error) {
	row, err := groups.Get(r, account, region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
	}
	return row, err
}

// changeGroup lets fn change a group that must exist and is not being deleted.
func (s *Service) changeGroup(ctx context.Context, name, event string, fn func(store.Tx, *store.Row[Group]) error) error {
	account, region := where(ctx)
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getGroup(tx, account, region, name)
		if err != nil {
			return err
		}
		if row.Doc.Deleting {
			return awserr.New("ScalingActivityInProgress", "The AutoScalingGroup '%s' is being deleted.", name)
		}
		if err := fn(tx, row); err != nil {
			return err
		}
		return groups.Save(tx, row, event, nil)
	})
}

// member reads an instance of any group.
func member(r store.Reader, account, region, id string) (*store.Row[Instance], error) {
	row, err := instances.Get(r, account, region, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, invalid("Instance Id not found - No managed instance found for instance ID: %s", id)
	}
	return row, err
}

// page cuts a list into pages by position behind a key that its order follows.
func page[T any](all []T, key func(T) string, max *int64, next *string, standard int64) ([]T, *string, error) {
	limit := standard
	if max != nil && *max > 0 {
		limit = *max
	}
	if ptr.Value(next) != "" {
		raw, err := base64.RawURLEncoding.DecodeString(*next)
		after, ok := strings.CutPrefix(string(raw), "after:")
		if err != nil || !ok {
			return nil, nil, awserr.New("InvalidNextToken", "The token '%s' is invalid.", *next)
		}
		n := slices.IndexFunc(all, func(v T) bool { return key(v) == after })
		if n < 0 { // it is gone: go on where it would be, in either order
			n = slices.IndexFunc(all, func(v T) bool { return key(v) > after }) - 1
			if n < -1 {
				n = len(all) - 1
			}
		}
		all = all[n+1:]
	}
	if int64(len(all)) <= limit {
		return all, nil, nil
	}
	all = all[:limit]
	token := base64.RawURLEncoding.EncodeToString([]byte("after:" + key(all[len(all)-1])))
	return all, &token, nil
}
