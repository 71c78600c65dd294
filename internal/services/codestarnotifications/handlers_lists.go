package codestarnotifications

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"

	api "slipway/internal/api/codestarnotifications"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// pageSize is how many items a list has where the request does not say.
const pageSize = 100

// page cuts a sorted list. A token is the id of the last item before it.
func page[T any](all []T, token *string, limit *int64, id func(*T) string) ([]T, *string, error) {
	if token != nil {
		last, err := base64.StdEncoding.DecodeString(*token)
		if err != nil {
			return nil, nil, awserr.New(api.ErrCodeInvalidNextTokenException, "NextToken: %q is not a token of this list.", *token)
		}
		start := slices.IndexFunc(all, func(v T) bool { return id(&v) > string(last) })
		if start < 0 {
			start = len(all)
		}
		all = all[start:]
	}
	n := pageSize
	if limit != nil {
		n = int(*limit)
	}
	if len(all) <= n {
		return all, nil, nil
	}
	return all[:n], new(base64.StdEncoding.EncodeToString([]byte(id(&all[n-1])))), nil
}

func (s *Service) listRules(ctx context.Context, in *api.ListNotificationRulesInput) (*api.ListNotificationRulesOutput, error) {
	who := caller.From(ctx)
	rows, err := rules.Select(ctx, s.deps.Store, store.Query{Account: who.Account, Region: who.Region})
	if err != nil {
		return nil, err
	}
	for _, f := range in.Filters {
		want := ptr.Value(f.Value)
		rows = slices.DeleteFunc(rows, func(r *ruleRow) bool {
			switch ptr.Value(f.Name) {
			case api.ListNotificationRulesFilterNameEventTypeId:
				return !slices.Contains(r.Doc.EventTypes, want)
			case api.ListNotificationRulesFilterNameCreatedBy:
				return r.Doc.CreatedBy != want
			case api.ListNotificationRulesFilterNameResource:
				return r.Doc.Resource != want
			}
			return !slices.Contains(r.Doc.Targets, want)
		})
	}
	rows, next, err := page(rows, in.NextToken, in.MaxResults, func(r **ruleRow) string { return (*r).ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListNotificationRulesOutput{NotificationRules: []api.NotificationRuleSummary{}, NextToken: next}
	for _, r := range rows {
		out.NotificationRules = append(out.NotificationRules, api.NotificationRuleSummary{Id: &r.ID, Arn: new(arnOf(r.Key))})
	}
	return out, nil
}

func (s *Service) listTargets(ctx context.Context, in *api.ListTargetsInput) (*api.ListTargetsOutput, error) {
	who := caller.From(ctx)
	rows, err := targets.Select(ctx, s.deps.Store, store.Query{Account: who.Account, Region: who.Region})
	if err != nil {
		return nil, err
	}
	for _, f := range in.Filters {
		want := ptr.Value(f.Value)
		rows = slices.DeleteFunc(rows, func(r *store.Row[Target]) bool {
			switch ptr.Value(f.Name) {
			case api.ListTargetsFilterNameTargetType:
				return r.Doc.Type != want
			case api.ListTargetsFilterNameTargetStatus:
				return r.Doc.Status != want
			}
			return r.ID != want
		})
	}
	rows, next, err := page(rows, in.NextToken, in.MaxResults, func(r **store.Row[Target]) string { return (*r).ID })
	if err != nil {
		return nil, err
	}
	out := &api.ListTargetsOutput{Targets: []api.TargetSummary{}, NextToken: next}
	for _, r := range rows {
		out.Targets = append(out.Targets, summary(r))
	}
	return out, nil
}

func (s *Service) listEventTypes(_ context.Context, in *api.ListEventTypesInput) (*api.ListEventTypesOutput, error) {
	var all []api.EventTypeSummary
	for _, id := range slices.Sorted(maps.Keys(known)) {
		all = append(all, known[id])
	}
	for _, f := range in.Filters {
		all = slices.DeleteFunc(all, func(t api.EventTypeSummary) bool {
			have := t.ServiceName
			if ptr.Value(f.Name) == api.ListEventTypesFilterNameResourceType {
				have = t.ResourceType
			}
			return !strings.EqualFold(*have, ptr.Value(f.Value))
		})
	}
	all, next, err := page(all, in.NextToken, in.MaxResults, func(t *api.EventTypeSummary) string { return *t.EventTypeId })
	if err != nil {
		return nil, err
	}
	if all == nil {
		all = []api.EventTypeSummary{}
	}
	return &api.ListEventTypesOutput{EventTypes: all, NextToken: next}, nil
}

func (s *Service) tagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	out := &api.TagResourceOutput{}
	return out, s.changeRule(ctx, in.Arn, "Tagged", func(_ store.Tx, row *ruleRow) error {
		tags := map[string]string{}
		maps.Copy(tags, row.Doc.Tags)
		maps.Copy(tags, in.Tags)
		row.Doc.Tags, out.Tags = tags, tags
		return checkTags(tags)
	})
}

func (s *Service) untagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return nil, s.changeRule(ctx, in.Arn, "Untagged", func(_ store.Tx, row *ruleRow) error {
		for _, k := range in.TagKeys {
			delete(row.Doc.Tags, k)
		}
		return nil
	})
}

func (s *Service) listTags(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	who := caller.From(ctx)
	out := &api.ListTagsForResourceOutput{Tags: map[string]string{}}
	err := s.deps.Store.View(ctx, func(r store.Reader) error {
		row, err := getRule(r, who, in.Arn)
		if err == nil {
			maps.Copy(out.Tags, row.Doc.Tags)
		}
		return err
	})
	return out, err
}
