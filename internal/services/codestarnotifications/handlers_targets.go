package codestarnotifications

import (
	"context"
	"errors"
	"slices"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) subscribe(ctx context.Context, in *api.SubscribeInput) (*api.SubscribeOutput, error) {
	who := caller.From(ctx)
	to, err := checkTargets(who, []api.Target{*in.Target})
	if err != nil {
		return nil, err
	}
	err = s.changeRule(ctx, in.Arn, "Subscribed", func(tx store.Tx, row *ruleRow) error {
		if slices.Contains(row.Doc.Targets, to[0]) {
			return nil
		}
		if len(row.Doc.Targets) >= maxTargets {
			return awserr.New(api.ErrCodeConfigurationException, "A notification rule has at most %d targets.", maxTargets)
		}
		row.Doc.Targets = append(row.Doc.Targets, to[0])
		return keepTargets(tx, who, to)
	})
	return &api.SubscribeOutput{Arn: in.Arn}, err
}

// unsubscribe takes a target from a rule. The operation has no error for what
// is not there, but for ARNs that lead nowhere.
func (s *Service) unsubscribe(ctx context.Context, in *api.UnsubscribeInput) (*api.UnsubscribeOutput, error) {
	err := s.changeRule(ctx, in.Arn, "Unsubscribed", func(_ store.Tx, row *ruleRow) error {
		row.Doc.Targets = slices.DeleteFunc(row.Doc.Targets, func(a string) bool { return a == ptr.Value(in.TargetAddress) })
		return nil
	})
	if awserr.Is(err, api.ErrCodeResourceNotFoundException) {
		return nil, invalid("Arn: the notification rule %s does not exist.", ptr.Value(in.Arn))
	}
	return &api.UnsubscribeOutput{Arn: in.Arn}, err
}

func (s *Service) deleteTarget(ctx context.Context, in *api.DeleteTargetInput) (*api.DeleteTargetOutput, error) {
	who := caller.From(ctx)
	address := ptr.Value(in.TargetAddress)
	return nil, s.deps.Store.Update(ctx, func(tx store.Tx) error {
		all, err := allRules(tx, who)
		if err != nil {
			return err
		}
		for _, row := range all {
			i := slices.Index(row.Doc.Targets, address)
			if i < 0 {
				continue
			}
			if !ptr.Value(in.ForceUnsubscribeAll) {
				return invalid("TargetAddress: %s is a target of the notification rule %s. Unsubscribe it first, or set ForceUnsubscribeAll.", address, row.Doc.Name)
			}
			row.Doc.Targets = slices.Delete(row.Doc.Targets, i, i+1)
			row.Doc.Modified = s.deps.Clock.Now()
			if err := rules.Save(tx, row, "Unsubscribed", nil); err != nil {
				return err
			}
		}
		t, err := targets.Get(tx, who.Account, who.Region, address)
		if errors.Is(err, store.ErrNotFound) {
			return nil // it is gone already
		}
		if err != nil {
			return err
		}
		return targets.Delete(tx, t, "Deleted", nil)
	})
}
