package codedeploy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	as "slipway/internal/api/autoscaling"
	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

const (
	hookPrefix            = "CodeDeploy-managed-automatic-launch-deployment-hook-"
	terminationHookPrefix = "CodeDeploy-managed-automatic-termination-deployment-hook-"
	hookTimeout           = 600 // seconds, AWS's
)

// ensureHooks installs the lifecycle hooks that are not in place yet.
func (s *Service) ensureHooks(ctx context.Context, row *groupRow) error {
	for _, a := range row.Doc.Scaling {
		if !a.Installed {
			if err := s.putHook(ctx, a.Name, a.Hook, a.HookID, "autoscaling:EC2_INSTANCE_LAUNCHING"); err != nil {
				return err
			}
		}
		if a.TerminationHook != "" && !a.TerminationDone {
			if err := s.putHook(ctx, a.Name, a.TerminationHook, a.TerminationID, "autoscaling:EC2_INSTANCE_TERMINATING"); err != nil {
				return err
			}
		}
	}
	installed := func(g *Group) bool {
		return !slices.ContainsFunc(g.Scaling, func(a ScalingGroup) bool {
			return !a.Installed || a.TerminationHook != "" && !a.TerminationDone
		})
	}
	if installed(&row.Doc) {
		return nil
	}
	put := row.Doc.Scaling
	fresh, err := groups.Modify(ctx, s.store, row.Account, row.Region, row.ID, "HooksInstalled", func(g *Group) error {
		for i := range g.Scaling {
			a := &g.Scaling[i]
			if slices.ContainsFunc(put, func(p ScalingGroup) bool { return p.Hook == a.Hook && p.TerminationHook == a.TerminationHook }) {
				a.Installed, a.TerminationDone = true, a.TerminationHook != ""
			}
		}
		return nil
	})
	if err == nil {
		*row = *fresh
	}
	return err
}

func (s *Service) putHook(ctx context.Context, group, name, metadata, transition string) error {
	_, err := dispatch.Call(ctx, s.mux, as.OpPutLifecycleHook, &as.PutLifecycleHookInput{
		AutoScalingGroupName: &group, LifecycleHookName: &name, LifecycleTransition: &transition,
		HeartbeatTimeout: new(int64(hookTimeout)), DefaultResult: new("ABANDON"), NotificationMetadata: &metadata,
	})
	if err != nil {
		return fmt.Errorf("put lifecycle hook on Auto Scaling group %s: %w", group, err)
	}
	return nil
}

// removeHooks takes our hooks out of Auto Scaling groups and returns those
// that could not be removed.
func (s *Service) removeHooks(ctx context.Context, scaling []ScalingGroup) []api.AutoScalingGroup {
	var left []api.AutoScalingGroup
	for _, a := range scaling {
		for _, hook := range []string{a.Hook, a.TerminationHook} {
			if hook == "" {
				continue
			}
			_, err := dispatch.Call(ctx, s.mux, as.OpDeleteLifecycleHook, &as.DeleteLifecycleHookInput{AutoScalingGroupName: &a.Name, LifecycleHookName: &hook})
			if err != nil && !awserr.Is(err, "ValidationError") { // a hook or group that is gone is fine
				s.log.Warn("lifecycle hook not removed", "group", a.Name, "hook", hook, "error", err)
				left = append(left, api.AutoScalingGroup{Name: new(a.Name), Hook: new(hook)})
			}
		}
	}
	return left
}

// hookName makes the name of a lifecycle hook; Auto Scaling allows letters,
// digits, and "-_/".
func hookName(prefix, group, id string) string {
	safe := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, group)
	const limit = 255
	if room := limit - len(prefix) - len(id) - 1; len(safe) > room {
		safe = safe[:room]
	}
	return prefix + safe + "-" + id
}
