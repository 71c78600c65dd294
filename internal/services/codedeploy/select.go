package codedeploy

import (
	"context"
	"slices"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// selects says whether an EC2 instance with these tags belongs to the group:
// any of the filters, or one filter of each group of the tag set (AWS:
// "Tagging instances for deployment groups").
func (set *Settings) selects(tags map[string]string) bool {
	match := func(f api.EC2TagFilter) bool { return tagMatches(tags, f.Key, f.Value, f.Type) }
	if len(set.EC2TagSet) > 0 {
		return !slices.ContainsFunc(set.EC2TagSet, func(list []api.EC2TagFilter) bool { return !slices.ContainsFunc(list, match) })
	}
	return slices.ContainsFunc(set.EC2TagFilters, match)
}

func (set *Settings) selectsOnPremises(tags map[string]string) bool {
	match := func(f api.TagFilter) bool { return tagMatches(tags, f.Key, f.Value, f.Type) }
	if len(set.OnPremisesTagSet) > 0 {
		return !slices.ContainsFunc(set.OnPremisesTagSet, func(list []api.TagFilter) bool { return !slices.ContainsFunc(list, match) })
	}
	return slices.ContainsFunc(set.OnPremisesFilters, match)
}

func tagMatches(tags map[string]string, key, value, kind *string) bool {
	switch ptr.Value(kind) {
	case api.EC2TagFilterTypeKeyOnly:
		_, ok := tags[ptr.Value(key)]
		return ok
	case api.EC2TagFilterTypeValueOnly:
		for _, v := range tags {
			if v == ptr.Value(value) {
				return true
			}
		}
		return false
	}
	v, ok := tags[ptr.Value(key)]
	return ok && v == ptr.Value(value)
}

// addOnPremises adds the registered on-premises instances that the group
// selects.
func (s *Service) addOnPremises(ctx context.Context, set *Settings, by map[string]instance) error {
	if len(set.OnPremisesFilters)+len(set.OnPremisesTagSet) == 0 {
		return nil
	}
	id := callerOf(ctx)
	rows, err := onPremises.Select(ctx, s.store, store.Query{Account: id.Account, Region: id.Region})
	for _, row := range rows {
		o := &row.Doc
		if o.DeregisteredAt.IsZero() && set.selectsOnPremises(o.Tags) {
			by[o.Name] = instance{id: o.Name, arn: o.principal(), state: "running", tags: o.Tags}
		}
	}
	return err
}

// principal is who the agent of an on-premises instance calls as, and what
// it names itself.
func (o *OnPremises) principal() string {
	if o.IAMSessionARN != "" {
		return o.IAMSessionARN
	}
	return o.IAMUserARN
}

func onPremisesByPrincipal(r store.Reader, account, region, arn string) (*store.Row[OnPremises], error) {
	rows, err := onPremises.List(r, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Doc.DeregisteredAt.IsZero() && row.Doc.principal() == arn {
			return row, nil
		}
	}
	return nil, store.ErrNotFound
}
