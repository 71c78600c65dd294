package autoscaling

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	api "slipway/internal/api/autoscaling"
	cw "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerPolicies(mux *dispatch.Mux) {
	dispatch.Register(mux, api.OpPutScalingPolicy, s.putPolicy)
	dispatch.Register(mux, api.OpDescribePolicies, s.describePolicies)
	dispatch.Register(mux, api.OpDeletePolicy, s.deletePolicy)
	dispatch.Register(mux, api.OpExecutePolicy, s.executePolicy)
	dispatch.Register(mux, api.OpPutScheduledUpdateGroupAction, s.putSchedule)
	dispatch.Register(mux, api.OpBatchPutScheduledUpdateGroupAction, s.batchPutSchedule)
	dispatch.Register(mux, api.OpDeleteScheduledAction, s.deleteSchedule)
	dispatch.Register(mux, api.OpBatchDeleteScheduledAction, s.batchDeleteSchedule)
	dispatch.Register(mux, api.OpDescribeScheduledActions, s.describeSchedules)
}

func (s *Service) putPolicy(ctx context.Context, in *api.PutScalingPolicyInput) (*api.PutScalingPolicyOutput, error) {
	account, region := where(ctx)
	p, err := policyFrom(in)
	if err != nil {
		return nil, err
	}
	p.Group = ptr.Value(in.AutoScalingGroupName)
	id := p.Group + "/" + p.Name
	if old, err := policies.Find(ctx, s.Store, account, region, id); err == nil && s.orphan(ctx, old) {
		if err := s.dropPolicy(ctx, old); err != nil {
			return nil, err
		}
	}
	var row *store.Row[Policy]
	created := false
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		row, created, err = writePolicy(tx, account, region, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if row.Doc.State == policyCreating {
		if err := s.activate(ctx, row); err != nil && !errors.Is(err, store.ErrConflict) {
			if created {
				// Nothing half-made stays; if this fails as well, the controller
				// finishes the policy.
				_ = s.dropPolicy(context.WithoutCancel(ctx), row)
			}
			return nil, err
		}
	}
	out := &api.PutScalingPolicyOutput{PolicyARN: &row.Doc.ARN, Alarms: []api.Alarm{}}
	out.Alarms = append(out.Alarms, row.Doc.ownAlarms(account, region)...)
	return out, nil
}

// orphan says whether a policy's group is gone.
func (s *Service) orphan(ctx context.Context, p *store.Row[Policy]) bool {
	g, err := groups.Find(ctx, s.Store, p.Account, p.Region, p.Doc.Group)
	return errors.Is(err, store.ErrNotFound) || err == nil && g.Doc.ARN != p.Doc.GroupARN || p.Doc.State == policyDeleting
}

// writePolicy adds a policy, or changes the one of its name.
func writePolicy(tx store.Tx, account, region string, p *Policy) (row *store.Row[Policy], created bool, err error) {
	g, err := getGroup(tx, account, region, p.Group)
	if err != nil {
		return nil, false, err
	}
	if err := attachedLabel(&g.Doc, p); err != nil {
		return nil, false, err
	}
	p.GroupARN, p.State = g.Doc.ARN, policyActive
	row, err = policies.Get(tx, account, region, p.Group+"/"+p.Name)
	created = errors.Is(err, store.ErrNotFound)
	if err != nil && !created {
		return nil, false, err
	}
	if created {
		n, err := policies.Count(tx, store.Query{Account: account, Region: region, Parent: p.Group})
		if err != nil {
			return nil, false, err
		}
		if n >= maxPolicies {
			return nil, false, awserr.New(api.ErrCodeLimitExceededFault, "The group has %d scaling policies already.", n)
		}
		p.ARN = "arn:aws:autoscaling:" + region + ":" + account + ":scalingPolicy:" + uuid.NewString() + ":autoScalingGroupName/" + p.Group + ":policyName/" + p.Name
	} else {
		old := &row.Doc
		p.ARN, p.High, p.Low, p.Old = old.ARN, old.High, old.Low, old.Old
	}
	p.nameAlarms()
	if p.High != "" || len(p.Old) > 0 {
		p.State = policyCreating
	}
	if created {
		row, err = policies.Insert(tx, account, region, p.Group+"/"+p.Name, *p, "Created", nil)
		return row, true, err
	}
	row.Doc = *p
	return row, false, policies.Save(tx, row, "Changed", nil)
}

// nameAlarms names the alarms that the policy needs and lets go of others.
func (p *Policy) nameAlarms() {
	need := func(name *string, side string, needed bool) {
		switch {
		case needed && *name == "":
			*name = "TargetTracking-" + p.Group + "-Alarm" + side + "-" + uuid.NewString()
		case !needed && *name != "":
			p.Old, *name = append(p.Old, *name), ""
		}
	}
	tracking := p.Type == targetTracking
	need(&p.High, "High", tracking)
	need(&p.Low, "Low", tracking && !ptr.Value(p.Tracking.DisableScaleIn))
}

// attachedLabel refuses requests per target of a target group that is not
// the group's.
func attachedLabel(g *Group, p *Policy) error {
	if p.Tracking == nil || p.Tracking.PredefinedMetricSpecification == nil || ptr.Value(p.Tracking.PredefinedMetricSpecification.ResourceLabel) == "" {
		return nil
	}
	label := *p.Tracking.PredefinedMetricSpecification.ResourceLabel
	_, tg, _ := splitLabel(label)
	if slices.ContainsFunc(g.Attachments, func(a attachment) bool { return strings.HasSuffix(a.ARN, ":"+tg) && a.State != "Removing" }) {
		return nil
	}
	return invalid("The load balancer target group of the resource label %s is not attached to the Auto Scaling group %s.", label, g.Name)
}

func (p *Policy) ownAlarms(account, region string) (out []api.Alarm) {
	for _, n := range []string{p.High, p.Low} {
		if n != "" {
			out = append(out, api.Alarm{AlarmName: new(n), AlarmARN: new(alarmARN(account, region, n))})
		}
	}
	return out
}

func (s *Service) describePolicies(ctx context.Context, in *api.DescribePoliciesInput) (*api.DescribePoliciesOutput, error) {
	account, region := where(ctx)
	rows, err := policies.Select(ctx, s.Store, store.Query{Account: account, Region: region, Parent: ptr.Value(in.AutoScalingGroupName)})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r *store.Row[Policy]) bool {
		p := &r.Doc
		return p.State == policyDeleting || len(in.PolicyNames) > 0 && !slices.Contains(in.PolicyNames, p.Name) && !slices.Contains(in.PolicyNames, p.ARN) ||
			len(in.PolicyTypes) > 0 && !slices.Contains(in.PolicyTypes, p.Type)
	})
	rows, next, err := page(rows, func(r *store.Row[Policy]) string { return r.ID }, in.MaxRecords, in.NextToken, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribePoliciesOutput{ScalingPolicies: []api.ScalingPolicy{}, NextToken: next}
	for _, r := range rows {
		shown := r.Doc.show()
		if shown.Alarms = r.Doc.ownAlarms(account, region); shown.Alarms == nil {
			shown.Alarms = s.alarmsOn(ctx, r.Doc.ARN)
		}
		out.ScalingPolicies = append(out.ScalingPolicies, shown)
	}
	return out, nil
}

// alarmsOn finds the alarms that people made to run a policy.
func (s *Service) alarmsOn(ctx context.Context, arn string) []api.Alarm {
	out := []api.Alarm{}
	found, err := dispatch.Call(ctx, s.Mux, cw.OpDescribeAlarms, &cw.DescribeAlarmsInput{ActionPrefix: &arn})
	if err != nil {
		s.Log.Debug("alarms of a policy could not be read", "policy", arn, "error", err)
		return out
	}
	for _, a := range found.MetricAlarms {
		out = append(out, api.Alarm{AlarmName: a.AlarmName, AlarmARN: a.AlarmArn})
	}
	return out
}

func (p *Policy) show() api.ScalingPolicy {
	out := api.ScalingPolicy{AutoScalingGroupName: &p.Group, PolicyName: &p.Name, PolicyARN: &p.ARN, PolicyType: &p.Type, AdjustmentType: orNil(p.Adjustment), Cooldown: p.Cooldown,
		EstimatedInstanceWarmup: p.Warmup, MetricAggregationType: orNil(p.Aggregation), StepAdjustments: p.Steps, TargetTrackingConfiguration: p.Tracking, Enabled: new(!p.Disabled),
		MinAdjustmentMagnitude: orNil(p.MinMagnitude), MinAdjustmentStep: p.MinStep}
	if out.StepAdjustments == nil {
		out.StepAdjustments = []api.StepAdjustment{}
	}
	if p.Type == simpleScaling {
		out.ScalingAdjustment = &p.By
	}
	if t := p.Tracking; t != nil && t.DisableScaleIn == nil {
		c := *t
		c.DisableScaleIn = new(false)
		out.TargetTrackingConfiguration = &c
	}
	return out
}

// namedPolicy finds a policy by name and group, or by ARN.
func (s *Service) namedPolicy(ctx context.Context, group, name string) (*store.Row[Policy], error) {
	account, region := where(ctx)
	if strings.HasPrefix(name, "arn:") {
		return s.policyByARN(ctx, account, region, name)
	}
	if group == "" {
		return nil, invalid("AutoScalingGroupName is required unless PolicyName is an ARN.")
	}
	row, err := policies.Find(ctx, s.Store, account, region, group+"/"+name)
	if errors.Is(err, store.ErrNotFound) || err == nil && s.orphan(ctx, row) {
		return nil, invalid("Policy name '%s' was not found in the AutoScalingGroup '%s'.", name, group)
	}
	return row, err
}

func (s *Service) deletePolicy(ctx context.Context, in *api.DeletePolicyInput) (*api.DeletePolicyOutput, error) {
	row, err := s.namedPolicy(ctx, ptr.Value(in.AutoScalingGroupName), ptr.Value(in.PolicyName))
	if err != nil {
		return nil, err
	}
	row, err = policies.Modify(ctx, s.Store, row.Account, row.Region, row.ID, "Deleting", func(p *Policy) error {
		p.State = policyDeleting
		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return &api.DeletePolicyOutput{}, nil
	}
	if err != nil {
		return nil, err
	}
	return &api.DeletePolicyOutput{}, s.dropPolicy(ctx, row)
}

func (s *Service) executePolicy(ctx context.Context, in *api.ExecutePolicyInput) (*api.ExecutePolicyOutput, error) {
	row, err := s.namedPolicy(ctx, ptr.Value(in.AutoScalingGroupName), ptr.Value(in.PolicyName))
	if err != nil {
		return nil, err
	}
	p := &row.Doc
	honor := ptr.Value(in.HonorCooldown)
	t := trigger{cause: "a user request executed policy " + p.Name, honor: honor && p.Type == simpleScaling, force: !honor, metric: math.NaN(), diff: math.NaN()}
	switch {
	case p.Type == targetTracking:
		return nil, invalid("Policies of the type TargetTrackingScaling cannot be executed.")
	case p.Type == stepScaling && (in.MetricValue == nil || in.BreachThreshold == nil):
		return nil, invalid("MetricValue and BreachThreshold are required to execute a policy of the type StepScaling.")
	case p.Type == stepScaling && honor:
		return nil, invalid("HonorCooldown is not supported for policies of the type StepScaling.")
	case p.Type == stepScaling:
		t.metric, t.diff = *in.MetricValue, *in.MetricValue-*in.BreachThreshold
		if stepFor(p.Steps, t.diff) == nil {
			return nil, invalid("No step adjustment found for metric value %v and breach threshold %v.", *in.MetricValue, *in.BreachThreshold)
		}
	case in.MetricValue != nil || in.BreachThreshold != nil:
		return nil, invalid("MetricValue and BreachThreshold are supported for policies of the type StepScaling only.")
	case p.Disabled:
		return nil, invalid("The policy '%s' is disabled.", p.Name)
	}
	_, err = s.scale(ctx, row, t)
	return &api.ExecutePolicyOutput{}, err
}
