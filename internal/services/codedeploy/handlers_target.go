package codedeploy

import (
	"context"
	"slices"
	"strings"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerTargets(m *dispatch.Mux) {
	dispatch.Register(m, api.OpListDeploymentTargets, s.listDeploymentTargets)
	dispatch.Register(m, api.OpGetDeploymentTarget, s.getDeploymentTarget)
	dispatch.Register(m, api.OpBatchGetDeploymentTargets, s.batchGetDeploymentTargets)
	dispatch.Register(m, api.OpListDeploymentInstances, s.listDeploymentInstances)
	dispatch.Register(m, api.OpGetDeploymentInstance, s.getDeploymentInstance)
	dispatch.Register(m, api.OpBatchGetDeploymentInstances, s.batchGetDeploymentInstances)
}

// targetIDs lists the targets of a deployment with one of these statuses;
// none means all.
func (s *Service) targetIDs(ctx context.Context, deploymentID *string, statuses []string) ([]string, error) {
	ids := []string{}
	err := s.store.View(ctx, func(r store.Reader) error {
		d, err := deployment(r, caller.From(ctx), deploymentID)
		if err != nil {
			return err
		}
		rows, err := targetsOf(r, d.Account, d.Region, d.ID)
		for _, row := range rows {
			if len(statuses) == 0 || slices.Contains(statuses, row.Doc.Status) {
				ids = append(ids, row.Doc.Instance)
			}
		}
		return err
	})
	return ids, err
}

var targetStatuses = []string{
	api.TargetStatusPending, api.TargetStatusInProgress, api.TargetStatusSucceeded, api.TargetStatusFailed,
	api.TargetStatusSkipped, api.TargetStatusUnknown, api.TargetStatusReady,
}

func (s *Service) listDeploymentTargets(ctx context.Context, in *api.ListDeploymentTargetsInput) (*api.ListDeploymentTargetsOutput, error) {
	for name, values := range in.TargetFilters {
		switch name {
		case api.TargetFilterNameTargetStatus:
			for _, v := range values {
				if !slices.Contains(targetStatuses, v) {
					return nil, awserr.New(api.ErrCodeInvalidInstanceStatusException, "targetFilters.TargetStatus has the unknown status %.40q.", v)
				}
			}
		case api.TargetFilterNameServerInstanceLabel:
			return nil, awserr.New(api.ErrCodeInvalidDeploymentInstanceTypeException, "Only blue/green deployments have instance labels.")
		default:
			return nil, awserr.New(api.ErrCodeInvalidTargetFilterNameException, "targetFilters has the unknown filter %.40q.", name)
		}
	}
	ids, err := s.targetIDs(ctx, in.DeploymentId, in.TargetFilters[api.TargetFilterNameTargetStatus])
	if err != nil {
		return nil, err
	}
	ids, next, err := page(ids, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListDeploymentTargetsOutput{TargetIds: ids, NextToken: next}, nil
}

// target reads one target; id may be the instance's id or its ARN.
func target(r store.Reader, id caller.Identity, deploymentID *string, instance, missing string) (*targetRow, error) {
	d, err := deployment(r, id, deploymentID)
	if err != nil {
		return nil, err
	}
	name := instance
	if i := strings.LastIndex(name, ":instance/"); i >= 0 && strings.HasPrefix(name, "arn:") {
		name = name[i+len(":instance/"):]
	}
	row, err := targets.Get(r, id.Account, id.Region, targetRowID(d.ID, name))
	return row, orElse(err, awserr.New(missing, "The deployment %s has no target %s.", d.ID, instance))
}

func (s *Service) getDeploymentTarget(ctx context.Context, in *api.GetDeploymentTargetInput) (*api.GetDeploymentTargetOutput, error) {
	if ptr.Value(in.TargetId) == "" {
		return nil, awserr.New(api.ErrCodeDeploymentTargetIdRequiredException, "targetId must be specified.")
	}
	row, err := find(ctx, s.store, func(r store.Reader) (*targetRow, error) {
		return target(r, caller.From(ctx), in.DeploymentId, *in.TargetId, api.ErrCodeDeploymentTargetDoesNotExistException)
	})
	if err != nil {
		return nil, err
	}
	return &api.GetDeploymentTargetOutput{DeploymentTarget: new(renderTarget(row))}, nil
}

func (s *Service) batchGetDeploymentTargets(ctx context.Context, in *api.BatchGetDeploymentTargetsInput) (*api.BatchGetDeploymentTargetsOutput, error) {
	if len(in.TargetIds) == 0 {
		return nil, awserr.New(api.ErrCodeDeploymentTargetIdRequiredException, "targetIds must name at least one target.")
	}
	if len(in.TargetIds) > 25 {
		return nil, awserr.New(api.ErrCodeDeploymentTargetListSizeExceededException, "targetIds has %d entries; at most 25 are allowed.", len(in.TargetIds))
	}
	out := &api.BatchGetDeploymentTargetsOutput{}
	err := s.store.View(ctx, func(r store.Reader) error {
		for _, id := range in.TargetIds {
			row, err := target(r, caller.From(ctx), in.DeploymentId, id, api.ErrCodeDeploymentTargetDoesNotExistException)
			if err != nil {
				return err
			}
			out.DeploymentTargets = append(out.DeploymentTargets, renderTarget(row))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (s *Service) listDeploymentInstances(ctx context.Context, in *api.ListDeploymentInstancesInput) (*api.ListDeploymentInstancesOutput, error) {
	for _, v := range in.InstanceStatusFilter {
		if !slices.Contains(targetStatuses, v) {
			return nil, awserr.New(api.ErrCodeInvalidInstanceStatusException, "instanceStatusFilter has the unknown status %.40q.", v)
		}
	}
	if len(in.InstanceTypeFilter) > 0 {
		return nil, awserr.New(api.ErrCodeInvalidDeploymentInstanceTypeException, "Only blue/green deployments have instance types.")
	}
	ids, err := s.targetIDs(ctx, in.DeploymentId, in.InstanceStatusFilter)
	if err != nil {
		return nil, err
	}
	ids, next, err := page(ids, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &api.ListDeploymentInstancesOutput{InstancesList: ids, NextToken: next}, nil
}

func (s *Service) getDeploymentInstance(ctx context.Context, in *api.GetDeploymentInstanceInput) (*api.GetDeploymentInstanceOutput, error) {
	if ptr.Value(in.InstanceId) == "" {
		return nil, awserr.New(api.ErrCodeInstanceIdRequiredException, "instanceId must be specified.")
	}
	row, err := find(ctx, s.store, func(r store.Reader) (*targetRow, error) {
		return target(r, caller.From(ctx), in.DeploymentId, *in.InstanceId, api.ErrCodeInstanceDoesNotExistException)
	})
	if err != nil {
		return nil, err
	}
	return &api.GetDeploymentInstanceOutput{InstanceSummary: new(renderInstance(row))}, nil
}

func (s *Service) batchGetDeploymentInstances(ctx context.Context, in *api.BatchGetDeploymentInstancesInput) (*api.BatchGetDeploymentInstancesOutput, error) {
	if len(in.InstanceIds) == 0 {
		return nil, awserr.New(api.ErrCodeInstanceIdRequiredException, "instanceIds must name at least one instance.")
	}
	if err := checkBatch(len(in.InstanceIds), "instanceIds"); err != nil {
		return nil, err
	}
	out := &api.BatchGetDeploymentInstancesOutput{}
	err := s.store.View(ctx, func(r store.Reader) error {
		for _, id := range in.InstanceIds {
			row, err := target(r, caller.From(ctx), in.DeploymentId, id, api.ErrCodeInstanceDoesNotExistException)
			if awserr.Is(err, api.ErrCodeInstanceDoesNotExistException) {
				out.ErrorMessage = new(awserr.As(err).Message)
				continue
			}
			if err != nil {
				return err
			}
			out.InstancesSummary = append(out.InstancesSummary, renderInstance(row))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
