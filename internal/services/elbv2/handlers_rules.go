package elbv2

import (
	"context"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func showRule(row *store.Row[Rule]) api.Rule {
	return api.Rule{RuleArn: new(row.ID), Priority: new(strconv.FormatInt(row.Doc.Priority, 10)), Conditions: row.Doc.Conditions, Actions: row.Doc.Actions, IsDefault: new(false)}
}

// defaultRule shows a listener's default actions as its last rule.
func defaultRule(l *store.Row[Listener]) api.Rule {
	return api.Rule{RuleArn: new(ruleARN(l.ID, l.ID[strings.LastIndexByte(l.ID, '/')+1:])), Priority: new("default"), Conditions: []api.RuleCondition{}, Actions: l.Doc.DefaultActions, IsDefault: new(true)}
}

func checkPriority(p int64) error {
	if p < 1 || p > 50000 {
		return invalid("The rule priority %d is not between 1 and 50000", p)
	}
	return nil
}

func (s *Service) createRule(ctx context.Context, in *api.CreateRuleInput) (*api.CreateRuleOutput, error) {
	if len(in.Transforms) > 0 {
		return nil, awserr.New("InvalidConfigurationRequest", "Slipway does not implement rule transforms yet")
	}
	doc := Rule{Listener: ptr.Value(in.ListenerArn), Priority: ptr.Value(in.Priority)}
	if err := checkPriority(doc.Priority); err != nil {
		return nil, err
	}
	var err error
	if doc.Conditions, err = normalizeConditions(in.Conditions); err != nil {
		return nil, err
	}
	if doc.Actions, err = normalizeActions(in.Actions); err != nil {
		return nil, err
	}
	if doc.Tags, err = tagMap(in.Tags); err != nil {
		return nil, err
	}
	var row *store.Row[Rule]
	err = s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		l, err := getListener(tx, id, doc.Listener)
		if err != nil {
			return err
		}
		if err := checkGroups(tx, id, l.Doc.LoadBalancer, doc.Actions); err != nil {
			return err
		}
		rs, err := rules.List(tx, store.Query{Parent: l.ID})
		if err != nil {
			return err
		}
		if len(rs) >= limit("rules-per-application-load-balancer") {
			return awserr.New("TooManyRules", "Listener '%s' has %d rules already", l.ID, len(rs))
		}
		if slices.ContainsFunc(rs, func(r *store.Row[Rule]) bool { return r.Doc.Priority == doc.Priority }) {
			return awserr.New("PriorityInUse", "Priority '%d' is currently in use", doc.Priority)
		}
		row, err = rules.Insert(tx, id.Account, id.Region, ruleARN(l.ID, newID()), doc, "Created", nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateRuleOutput{Rules: []api.Rule{showRule(row)}}, nil
}

func (s *Service) describeRules(ctx context.Context, in *api.DescribeRulesInput) (*api.DescribeRulesOutput, error) {
	if (in.ListenerArn == nil) == (len(in.RuleArns) == 0) {
		return nil, invalid("Either a listener ARN or rule ARNs must be specified")
	}
	out := &api.DescribeRulesOutput{Rules: []api.Rule{}}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		if in.ListenerArn == nil {
			return describeByARN(r, id, in.RuleArns, out)
		}
		l, err := getListener(r, id, *in.ListenerArn)
		if err != nil {
			return err
		}
		rs, err := rules.List(r, store.Query{Parent: l.ID})
		if err != nil {
			return err
		}
		slices.SortFunc(rs, func(a, b *store.Row[Rule]) int { return int(a.Doc.Priority - b.Doc.Priority) })
		for _, row := range rs {
			out.Rules = append(out.Rules, showRule(row))
		}
		out.Rules = append(out.Rules, defaultRule(l))
		return nil
	})
	return out, err
}

func describeByARN(r store.Reader, id caller.Identity, arns []string, out *api.DescribeRulesOutput) error {
	for _, a := range arns {
		row, err := getRule(r, id, a)
		if err == nil {
			out.Rules = append(out.Rules, showRule(row))
			continue
		}
		l, lerr := listenerOfDefault(r, id, a)
		if lerr != nil {
			return err
		}
		out.Rules = append(out.Rules, defaultRule(l))
	}
	return nil
}

// listenerOfDefault finds the listener whose default rule an ARN names.
func listenerOfDefault(r store.Reader, id caller.Identity, arn string) (*store.Row[Listener], error) {
	listener := strings.Replace(arn, ":listener-rule/", ":listener/", 1)
	if i := strings.LastIndexByte(listener, '/'); i > 0 {
		listener = listener[:i]
	}
	l, err := getListener(r, id, listener)
	if err == nil && ptr.Value(defaultRule(l).RuleArn) != arn {
		return nil, notFound("RuleNotFound", "Rule", arn)
	}
	return l, err
}

func (s *Service) modifyRule(ctx context.Context, in *api.ModifyRuleInput) (*api.ModifyRuleOutput, error) {
	if len(in.Transforms) > 0 {
		return nil, awserr.New("InvalidConfigurationRequest", "Slipway does not implement rule transforms yet")
	}
	var row *store.Row[Rule]
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) (err error) {
		if row, err = s.rule(tx, id, ptr.Value(in.RuleArn)); err != nil {
			return err
		}
		l, err := getListener(tx, id, row.Doc.Listener)
		if err != nil {
			return err
		}
		if in.Conditions != nil {
			if row.Doc.Conditions, err = normalizeConditions(in.Conditions); err != nil {
				return err
			}
		}
		if in.Actions != nil {
			if row.Doc.Actions, err = normalizeActions(in.Actions); err != nil {
				return err
			}
			if err := checkGroups(tx, id, l.Doc.LoadBalancer, row.Doc.Actions); err != nil {
				return err
			}
		}
		return rules.Save(tx, row, "Modified", nil)
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifyRuleOutput{Rules: []api.Rule{showRule(row)}}, nil
}

// rule finds a rule that may be changed: not a default one.
func (s *Service) rule(r store.Reader, id caller.Identity, arn string) (*store.Row[Rule], error) {
	row, err := getRule(r, id, arn)
	if err != nil {
		if _, lerr := listenerOfDefault(r, id, arn); lerr == nil {
			return nil, awserr.New("OperationNotPermitted", "Default rule '%s' cannot be changed or deleted; modify the listener instead", arn)
		}
	}
	return row, err
}

func (s *Service) deleteRule(ctx context.Context, in *api.DeleteRuleInput) (*api.DeleteRuleOutput, error) {
	return &api.DeleteRuleOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := s.rule(tx, id, ptr.Value(in.RuleArn))
		if err != nil {
			return err
		}
		return rules.Delete(tx, row, "Deleted", nil)
	})
}

func (s *Service) setRulePriorities(ctx context.Context, in *api.SetRulePrioritiesInput) (*api.SetRulePrioritiesOutput, error) {
	out := &api.SetRulePrioritiesOutput{}
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		touched := map[string]bool{}
		for _, p := range in.RulePriorities {
			if err := checkPriority(ptr.Value(p.Priority)); err != nil {
				return err
			}
			row, err := s.rule(tx, id, ptr.Value(p.RuleArn))
			if err != nil {
				return err
			}
			row.Doc.Priority = *p.Priority
			if err := rules.Save(tx, row, "Modified", nil); err != nil {
				return err
			}
			touched[row.Doc.Listener] = true
			out.Rules = append(out.Rules, showRule(row))
		}
		for listener := range touched {
			if err := uniquePriorities(tx, listener); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func uniquePriorities(r store.Reader, listener string) error {
	rs, err := rules.List(r, store.Query{Parent: listener})
	if err != nil {
		return err
	}
	seen := map[int64]bool{}
	for _, row := range rs {
		if seen[row.Doc.Priority] {
			return awserr.New("PriorityInUse", "Priority '%d' is currently in use", row.Doc.Priority)
		}
		seen[row.Doc.Priority] = true
	}
	return nil
}
