package elbv2

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strings"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// Register serves the operations that are built.
func (s *Service) Register(m *dispatch.Mux) {
	dispatch.Register(m, api.OpCreateLoadBalancer, s.createLoadBalancer)
	dispatch.Register(m, api.OpDescribeLoadBalancers, s.describeLoadBalancers)
	dispatch.Register(m, api.OpDeleteLoadBalancer, s.deleteLoadBalancer)
	dispatch.Register(m, api.OpModifyLoadBalancerAttributes, s.modifyLoadBalancerAttributes)
	dispatch.Register(m, api.OpDescribeLoadBalancerAttributes, s.describeLoadBalancerAttributes)
	dispatch.Register(m, api.OpSetSecurityGroups, s.setSecurityGroups)
	dispatch.Register(m, api.OpSetSubnets, s.setSubnets)
	dispatch.Register(m, api.OpSetIpAddressType, s.setIPAddressType)
	dispatch.Register(m, api.OpCreateListener, s.createListener)
	dispatch.Register(m, api.OpDescribeListeners, s.describeListeners)
	dispatch.Register(m, api.OpModifyListener, s.modifyListener)
	dispatch.Register(m, api.OpDeleteListener, s.deleteListener)
	dispatch.Register(m, api.OpDescribeListenerAttributes, s.describeListenerAttributes)
	dispatch.Register(m, api.OpModifyListenerAttributes, s.modifyListenerAttributes)
	dispatch.Register(m, api.OpDescribeListenerCertificates, s.describeListenerCertificates)
	dispatch.Register(m, api.OpCreateRule, s.createRule)
	dispatch.Register(m, api.OpDescribeRules, s.describeRules)
	dispatch.Register(m, api.OpModifyRule, s.modifyRule)
	dispatch.Register(m, api.OpDeleteRule, s.deleteRule)
	dispatch.Register(m, api.OpSetRulePriorities, s.setRulePriorities)
	dispatch.Register(m, api.OpCreateTargetGroup, s.createTargetGroup)
	dispatch.Register(m, api.OpDescribeTargetGroups, s.describeTargetGroups)
	dispatch.Register(m, api.OpModifyTargetGroup, s.modifyTargetGroup)
	dispatch.Register(m, api.OpDeleteTargetGroup, s.deleteTargetGroup)
	dispatch.Register(m, api.OpDescribeTargetGroupAttributes, s.describeTargetGroupAttributes)
	dispatch.Register(m, api.OpModifyTargetGroupAttributes, s.modifyTargetGroupAttributes)
	dispatch.Register(m, api.OpRegisterTargets, s.registerTargets)
	dispatch.Register(m, api.OpDeregisterTargets, s.deregisterTargets)
	dispatch.Register(m, api.OpDescribeTargetHealth, s.describeTargetHealth)
	dispatch.Register(m, api.OpAddTags, s.addTags)
	dispatch.Register(m, api.OpRemoveTags, s.removeTags)
	dispatch.Register(m, api.OpDescribeTags, s.describeTags)
	dispatch.Register(m, api.OpDescribeAccountLimits, s.describeAccountLimits)
}

// newID is the 16 hexadecimal digits at the end of an ARN.
func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func arn(id caller.Identity, resource string) string {
	return fmt.Sprintf("arn:aws:elasticloadbalancing:%s:%s:%s", id.Region, id.Account, resource)
}

func notFound(code, what, arn string) error {
	return awserr.New(code, "%s '%s' not found", what, arn)
}

// get reads a row of the caller's account and region, or answers AWS's code.
func get[T any](r store.Reader, t store.Table[T], id caller.Identity, arn, code, what string) (*store.Row[T], error) {
	row, err := t.Get(r, id.Account, id.Region, arn)
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(code, what, arn)
	}
	return row, err
}

func getBalancer(r store.Reader, id caller.Identity, arn string) (*store.Row[LoadBalancer], error) {
	return get(r, balancers, id, arn, "LoadBalancerNotFound", "Load balancer")
}

func getListener(r store.Reader, id caller.Identity, arn string) (*store.Row[Listener], error) {
	return get(r, listeners, id, arn, "ListenerNotFound", "Listener")
}

func getRule(r store.Reader, id caller.Identity, arn string) (*store.Row[Rule], error) {
	return get(r, rules, id, arn, "RuleNotFound", "Rule")
}

func getGroup(r store.Reader, id caller.Identity, arn string) (*store.Row[TargetGroup], error) {
	return get(r, groups, id, arn, "TargetGroupNotFound", "Target group")
}

// view and update run fn in a transaction as the caller.
func (s *Service) view(ctx context.Context, fn func(r store.Reader, id caller.Identity) error) error {
	return s.deps.Store.View(ctx, func(r store.Reader) error { return fn(r, caller.From(ctx)) })
}

func (s *Service) update(ctx context.Context, fn func(tx store.Tx, id caller.Identity) error) error {
	return s.deps.Store.Update(ctx, func(tx store.Tx) error { return fn(tx, caller.From(ctx)) })
}

// mine selects the caller's rows.
func mine(id caller.Identity) store.Query {
	return store.Query{Account: id.Account, Region: id.Region}
}

// page cuts a sorted list at a marker, which is the ARN of the last row of
// the page before.
func page[T any](rows []*store.Row[T], marker *string, size *int64) (out []*store.Row[T], next *string, err error) {
	if m := ptr.Value(marker); m != "" {
		i := sort.Search(len(rows), func(i int) bool { return rows[i].ID > m })
		if !strings.HasPrefix(m, "arn:") {
			return nil, nil, invalid("The marker '%s' is not valid", m)
		}
		rows = rows[i:]
	}
	n := int(ptr.Value(size))
	if size == nil {
		n = 400
	}
	if n < 1 || n > 400 {
		return nil, nil, invalid("The page size %d is not between 1 and 400", n)
	}
	if len(rows) > n {
		rows, next = rows[:n], new(rows[n-1].ID)
	}
	return rows, next, nil
}

func tagMap(tags []api.Tag) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range tags {
		if _, twice := out[ptr.Value(t.Key)]; twice {
			return nil, awserr.New("DuplicateTagKeys", "The tag key '%s' was given twice", ptr.Value(t.Key))
		}
		if strings.HasPrefix(ptr.Value(t.Key), "aws:") {
			return nil, invalid("The tag key '%s' begins with the reserved prefix 'aws:'", *t.Key)
		}
		out[ptr.Value(t.Key)] = ptr.Value(t.Value)
	}
	if len(out) > 50 {
		return nil, awserr.New("TooManyTags", "A resource takes at most 50 tags")
	}
	return out, nil
}

// withTags changes the tags of any resource of this service.
func (s *Service) withTags(tx store.Tx, id caller.Identity, arn string, fn func(map[string]string) (map[string]string, error)) error {
	change := func(tags *map[string]string) error {
		next := map[string]string{}
		for k, v := range *tags {
			next[k] = v
		}
		next, err := fn(next)
		*tags = next
		return err
	}
	switch {
	case strings.Contains(arn, ":listener-rule/"):
		row, err := getRule(tx, id, arn)
		if err != nil {
			return err
		}
		if err := change(&row.Doc.Tags); err != nil {
			return err
		}
		return rules.Save(tx, row, "Tagged", nil)
	case strings.Contains(arn, ":listener/"):
		row, err := getListener(tx, id, arn)
		if err != nil {
			return err
		}
		if err := change(&row.Doc.Tags); err != nil {
			return err
		}
		return listeners.Save(tx, row, "Tagged", nil)
	case strings.Contains(arn, ":targetgroup/"):
		row, err := getGroup(tx, id, arn)
		if err != nil {
			return err
		}
		if err := change(&row.Doc.Tags); err != nil {
			return err
		}
		return groups.Save(tx, row, "Tagged", nil)
	}
	row, err := getBalancer(tx, id, arn)
	if err != nil {
		return err
	}
	if err := change(&row.Doc.Tags); err != nil {
		return err
	}
	return balancers.Save(tx, row, "Tagged", nil)
}

func (s *Service) addTags(ctx context.Context, in *api.AddTagsInput) (*api.AddTagsOutput, error) {
	set, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	return &api.AddTagsOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		for _, a := range in.ResourceArns {
			err := s.withTags(tx, id, a, func(tags map[string]string) (map[string]string, error) {
				for k, v := range set {
					tags[k] = v
				}
				if len(tags) > 50 {
					return nil, awserr.New("TooManyTags", "A resource takes at most 50 tags")
				}
				return tags, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) removeTags(ctx context.Context, in *api.RemoveTagsInput) (*api.RemoveTagsOutput, error) {
	return &api.RemoveTagsOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		for _, a := range in.ResourceArns {
			err := s.withTags(tx, id, a, func(tags map[string]string) (map[string]string, error) {
				for _, k := range in.TagKeys {
					delete(tags, k)
				}
				return tags, nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) describeTags(ctx context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	out := &api.DescribeTagsOutput{TagDescriptions: []api.TagDescription{}}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		for _, a := range in.ResourceArns {
			tags, err := tagsOf(r, id, a)
			if err != nil {
				return err
			}
			out.TagDescriptions = append(out.TagDescriptions, api.TagDescription{ResourceArn: new(a), Tags: tagList(tags)})
		}
		return nil
	})
	return out, err
}

func tagsOf(r store.Reader, id caller.Identity, arn string) (map[string]string, error) {
	switch {
	case strings.Contains(arn, ":listener-rule/"):
		row, err := getRule(r, id, arn)
		if err != nil {
			return nil, err
		}
		return row.Doc.Tags, nil
	case strings.Contains(arn, ":listener/"):
		row, err := getListener(r, id, arn)
		if err != nil {
			return nil, err
		}
		return row.Doc.Tags, nil
	case strings.Contains(arn, ":targetgroup/"):
		row, err := getGroup(r, id, arn)
		if err != nil {
			return nil, err
		}
		return row.Doc.Tags, nil
	}
	row, err := getBalancer(r, id, arn)
	if err != nil {
		return nil, err
	}
	return row.Doc.Tags, nil
}

func tagList(tags map[string]string) []api.Tag {
	out := []api.Tag{}
	for k, v := range tags {
		out = append(out, api.Tag{Key: new(k), Value: new(v)})
	}
	sort.Slice(out, func(i, j int) bool { return *out[i].Key < *out[j].Key })
	return out
}

// limits are AWS's default quotas, which are enforced here too.
var limits = []struct {
	name string
	max  int
}{
	{"application-load-balancers", 50}, {"listeners-per-application-load-balancer", 50}, {"rules-per-application-load-balancer", 100},
	{"target-groups", 3000}, {"target-groups-per-application-load-balancer", 100}, {"target-groups-per-action-on-application-load-balancer", 5},
	{"targets-per-application-load-balancer", 1000}, {"target-id-registrations-per-application-load-balancer", 1000},
	{"condition-values-per-alb-rule", 5}, {"condition-wildcards-per-alb-rule", 5}, {"certificates-per-application-load-balancer", 25},
}

func limit(name string) int {
	for _, l := range limits {
		if l.name == name {
			return l.max
		}
	}
	return 0
}

func (s *Service) describeAccountLimits(context.Context, *api.DescribeAccountLimitsInput) (*api.DescribeAccountLimitsOutput, error) {
	out := &api.DescribeAccountLimitsOutput{}
	for _, l := range limits {
		out.Limits = append(out.Limits, api.Limit{Name: new(l.name), Max: new(fmt.Sprint(l.max))})
	}
	return out, nil
}
