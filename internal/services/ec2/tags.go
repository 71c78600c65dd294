package ec2

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// maxTags is EC2's limit per resource, aws: tags not counted.
const maxTags = 50

// checkTags turns EC2's list into a map, refusing what EC2 refuses (EC2 User
// Guide, "Tag restrictions"). Services acting on the owner's behalf may set
// aws: tags.
func checkTags(tags []api.Tag, service bool) (map[string]string, error) {
	set := make(map[string]string, len(tags))
	for _, t := range tags {
		k, v := ptr.Value(t.Key), ptr.Value(t.Value)
		switch {
		case k == "":
			return nil, awserr.New("InvalidParameterValue", "Tag keys must not be empty.")
		case utf8.RuneCountInString(k) > 128:
			return nil, awserr.New("InvalidParameterValue", "Tag key exceeds the maximum length of 128 characters: %.40s...", k)
		case utf8.RuneCountInString(v) > 256:
			return nil, awserr.New("InvalidParameterValue", "Tag value exceeds the maximum length of 256 characters, key %s.", k)
		case strings.HasPrefix(strings.ToLower(k), "aws:") && !service:
			return nil, awserr.New("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		}
		if _, twice := set[k]; twice {
			return nil, awserr.New("InvalidParameterValue", "Duplicate tag key '%s' specified.", k)
		}
		set[k] = v
	}
	if len(set) > maxTags+20 {
		return nil, awserr.New("TagLimitExceeded", "You have reached the maximum number of tags on a resource: %d.", maxTags)
	}
	return set, nil
}

// specTags are the tags that a request gives to a resource of this type.
func specTags(specs []api.TagSpecification, kind string) (map[string]string, error) {
	set := map[string]string{}
	for _, spec := range specs {
		if got := ptr.Value(spec.ResourceType); got != kind {
			return nil, awserr.New("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", got)
		}
		add, err := checkTags(spec.Tags, false)
		if err != nil {
			return nil, err
		}
		for k, v := range add {
			set[k] = v
		}
	}
	return set, nil
}

// overlay sets every member of base that over has.
func overlay[T any](base, over *T) {
	b, o := reflect.ValueOf(base).Elem(), reflect.ValueOf(over).Elem()
	for i := range o.NumField() {
		if !o.Field(i).IsZero() {
			b.Field(i).Set(o.Field(i))
		}
	}
}

// resourceTypes gives the type of a resource from its id's prefix.
var resourceTypes = map[string]string{
	"i": "instance", "vol": "volume", "eni": "network-interface", "lt": "launch-template", "ami": "image", "sg": "security-group",
	"sgr": "security-group-rule", "key": "key-pair", "vpc": "vpc", "subnet": "subnet", "rtb": "route-table", "igw": "internet-gateway",
	"acl": "network-acl", "dopt": "dhcp-options",
}

// checkResource says whether a resource that shall be tagged exists.
func checkResource(r store.Reader, account, region, id string) (kind string, err error) {
	prefix := id
	if n := strings.LastIndexByte(id, '-'); n > 0 {
		prefix = id[:n]
	}
	kind = resourceTypes[prefix]
	if kind == "" || !idPattern.MatchString(id) {
		return "", awserr.New("InvalidID", "The ID '%s' is not valid", id)
	}
	n := defaultVPC(account, region)
	switch kind {
	case "instance":
		_, err = instancesByID(r, account, region, []string{id})
	case "volume", "network-interface":
		err = awserr.New("InvalidID.NotFound", "The ID '%s' does not exist", id)
		rows, listErr := instances.List(r, store.Query{Account: account, Region: region})
		if listErr != nil {
			return "", listErr
		}
		if slices.ContainsFunc(rows, func(row *store.Row[Instance]) bool {
			return row.Doc.State != stateTerminated && (row.Doc.Volume == id || row.Doc.ENI == id)
		}) {
			err = nil
		}
	case "launch-template":
		_, err = findTemplate(r, account, region, id, "")
	case "image":
		_, err = findImage(r, account, region, id)
	case "security-group":
		var all []*securityGroup
		if all, err = securityGroups(r, account, region); err == nil {
			_, err = pickGroups(all, []string{id}, nil)
		}
	case "security-group-rule":
		var all []*securityGroup
		if all, err = securityGroups(r, account, region); err == nil && !slices.ContainsFunc(all, func(g *securityGroup) bool {
			return slices.ContainsFunc(g.Rules, func(x rule) bool { return x.ID == id })
		}) {
			err = awserr.New("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
		}
	case "vpc":
		if id != n.VPC {
			err = awserr.New("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", id)
		}
	case "subnet":
		if _, ok := n.subnetByID(id); !ok {
			err = awserr.New("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
		}
	case "route-table", "internet-gateway", "network-acl", "dhcp-options":
		if !slices.Contains([]string{n.RouteTable, n.Gateway, n.ACL, n.DHCP}, id) {
			err = awserr.New("InvalidID", "The ID '%s' is not valid", id)
		}
	case "key-pair":
		var rows []*store.Row[keyPair]
		if rows, err = keyPairs.List(r, store.Query{Account: account, Region: region}); err == nil &&
			!slices.ContainsFunc(rows, func(k *store.Row[keyPair]) bool { return k.Doc.ID == id }) {
			err = awserr.New("InvalidKeyPair.NotFound", "The key pair '%s' does not exist", id)
		}
	}
	return kind, err
}

func (s *Service) createTags(ctx context.Context, in *api.CreateTagsInput) (*api.CreateTagsOutput, error) {
	account, region := where(ctx)
	set, err := checkTags(in.Tags, caller.From(ctx).AccessKeyID == "")
	if err != nil {
		return nil, err
	}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		for _, id := range in.Resources {
			kind, err := checkResource(tx, account, region, id)
			if err != nil {
				return err
			}
			old, err := tagsOf(tx, account, region, id)
			if err != nil {
				return err
			}
			count := 0
			for k := range set {
				if _, both := old[k]; !both {
					count++
				}
			}
			for k := range old {
				if !strings.HasPrefix(k, "aws:") {
					count++
				}
			}
			if count > maxTags {
				return awserr.New("TagLimitExceeded", "You have reached the maximum number of tags on '%s': %d.", id, maxTags)
			}
			own := map[string]string{}
			for k, v := range set {
				own[k] = v
			}
			if err := putTags(tx, account, region, id, kind, own); err != nil {
				return err
			}
		}
		return dryRun(in.DryRun)
	})
	return &api.CreateTagsOutput{}, err
}

func (s *Service) deleteTags(ctx context.Context, in *api.DeleteTagsInput) (*api.DeleteTagsOutput, error) {
	account, region := where(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		for _, id := range in.Resources {
			if !idPattern.MatchString(id) {
				return awserr.New("InvalidID", "The ID '%s' is not valid", id)
			}
			old, err := tagsOf(tx, account, region, id)
			if err != nil {
				return err
			}
			if old == nil {
				continue
			}
			row, err := tagSets.Get(tx, account, region, id)
			if err != nil {
				return err
			}
			for k, v := range old {
				if removes(in.Tags, k, v) {
					delete(row.Doc.Tags, k)
				}
			}
			if err := tagSets.Save(tx, row, "Untagged", nil); err != nil {
				return err
			}
		}
		return dryRun(in.DryRun)
	})
	return &api.DeleteTagsOutput{}, err
}

// removes says whether DeleteTags with this list takes a tag away: no list
// takes all but aws: tags; a value, where given, must match.
func removes(list []api.Tag, key, value string) bool {
	if len(list) == 0 {
		return !strings.HasPrefix(key, "aws:")
	}
	return slices.ContainsFunc(list, func(t api.Tag) bool {
		return ptr.Value(t.Key) == key && (t.Value == nil || *t.Value == value)
	})
}

// taggedOne is one tag of one resource.
type taggedOne struct{ id, kind, key, value string }

func (s *Service) describeTags(ctx context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	account, region := where(ctx)
	rows, err := tagSets.Select(ctx, s.Store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	var all []taggedOne
	for _, row := range rows {
		for _, k := range sortedKeys(row.Doc.Tags) {
			all = append(all, taggedOne{row.ID, row.Doc.Type, k, row.Doc.Tags[k]})
		}
	}
	by := fields[taggedOne]{
		"resource-id":   one(func(t taggedOne) string { return t.id }),
		"resource-type": one(func(t taggedOne) string { return t.kind }),
		"key":           one(func(t taggedOne) string { return t.key }),
		"value":         func(t taggedOne) []string { return []string{t.value} },
	}
	if all, err = filtered(all, in.Filters, by, func(t taggedOne) map[string]string { return map[string]string{t.key: t.value} }); err != nil {
		return nil, err
	}
	all, next, err := page(all, func(t taggedOne) string { return t.id + "\x00" + t.key }, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeTagsOutput{NextToken: next}
	for _, t := range all {
		out.Tags = append(out.Tags, api.TagDescription{ResourceId: new(t.id), ResourceType: new(t.kind), Key: new(t.key), Value: new(t.value)})
	}
	return out, dryRun(in.DryRun)
}
