package ec2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// securityGroup is stored, with its rules one by one as EC2 numbers them.
type securityGroup struct {
	ID, Name, Description, VPC string
	Rules                      []rule
}

// rule is one source or destination of one port range.
type rule struct {
	ID                        string
	Egress                    bool
	Protocol                  string // "tcp", "udp", "icmp", "-1", or a number
	From, To                  int64  // -1 where the protocol has no ports
	IPv4, IPv6, Prefix, Group string // exactly one is set
	Description               string
}

// same says whether two rules allow the same; descriptions do not count.
func (r rule) same(o rule) bool {
	r.ID, o.ID, r.Description, o.Description = "", "", "", ""
	return r == o
}

// defaultGroup is what a VPC's default security group holds before anybody
// touches it: everything from itself, everything to everywhere.
func defaultGroup(n vpcNet) *securityGroup {
	return &securityGroup{ID: n.Group, Name: "default", Description: "default VPC security group", VPC: n.VPC, Rules: []rule{
		{ID: derivedID("sgr", n.Group, "ingress"), Protocol: "-1", From: -1, To: -1, Group: n.Group},
		{ID: derivedID("sgr", n.Group, "egress"), Egress: true, Protocol: "-1", From: -1, To: -1, IPv4: "0.0.0.0/0"},
	}}
}

// securityGroups reads all groups of a region, the default one included.
func securityGroups(r store.Reader, account, region string) ([]*securityGroup, error) {
	rows, err := groups.List(r, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	n := defaultVPC(account, region)
	var all []*securityGroup
	hasDefault := false
	for _, row := range rows {
		hasDefault = hasDefault || row.ID == n.Group
		all = append(all, &row.Doc)
	}
	if !hasDefault {
		all = append(all, defaultGroup(n))
	}
	slices.SortFunc(all, func(a, b *securityGroup) int { return strings.Compare(a.ID, b.ID) })
	return all, nil
}

// pickGroups finds groups by id and by name, in that order, each once.
func pickGroups(all []*securityGroup, ids, names []string) ([]*securityGroup, error) {
	var out []*securityGroup
	add := func(match func(*securityGroup) bool, what string) error {
		n := slices.IndexFunc(all, match)
		if n < 0 {
			return awserr.New("InvalidGroup.NotFound", "The security group '%s' does not exist", what)
		}
		if !slices.Contains(out, all[n]) {
			out = append(out, all[n])
		}
		return nil
	}
	for _, id := range ids {
		if err := checkID("sg", id, "InvalidGroupId.Malformed"); err != nil {
			return nil, err
		}
		if err := add(func(g *securityGroup) bool { return g.ID == id }, id); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		if err := add(func(g *securityGroup) bool { return g.Name == name }, name); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) createGroup(ctx context.Context, in *api.CreateSecurityGroupInput) (*api.CreateSecurityGroupOutput, error) {
	account, region := where(ctx)
	n := defaultVPC(account, region)
	name := ptr.Value(in.GroupName)
	switch {
	case name == "" || len(name) > 255:
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. It must have 1 to 255 characters.", name)
	case strings.HasPrefix(name, "sg-"):
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Group names may not be in the format sg-*.", name)
	case ptr.Value(in.Description) == "" || len(*in.Description) > 255:
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter GroupDescription is invalid. It must have 1 to 255 characters.", ptr.Value(in.Description))
	case in.VpcId != nil && *in.VpcId != n.VPC:
		return nil, awserr.New("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", *in.VpcId)
	}
	tags, err := specTags(in.TagSpecifications, "security-group")
	if err != nil {
		return nil, err
	}
	g := securityGroup{ID: newID("sg"), Name: name, Description: *in.Description, VPC: n.VPC,
		Rules: []rule{{ID: newID("sgr"), Egress: true, Protocol: "-1", From: -1, To: -1, IPv4: "0.0.0.0/0"}}}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(o *securityGroup) bool { return o.Name == name }) {
			return awserr.New("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", name, n.VPC)
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		if _, err := groups.Insert(tx, account, region, g.ID, g, "Created", nil); err != nil {
			return err
		}
		return putTags(tx, account, region, g.ID, "security-group", tags)
	})
	return &api.CreateSecurityGroupOutput{GroupId: &g.ID, Tags: apiTags(tags), SecurityGroupArn: new(groupArn(account, region, g.ID))}, err
}

func groupArn(account, region, id string) string {
	return fmt.Sprintf("arn:aws:ec2:%s:%s:security-group/%s", region, account, id)
}

// changeGroup lets fn change one group in a transaction; the default group
// gets its row here.
func (s *Service) changeGroup(ctx context.Context, id, name string, dry *bool, event string, fn func(store.Tx, *securityGroup) error) error {
	account, region := where(ctx)
	return s.Store.Update(ctx, func(tx store.Tx) error {
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		var found []*securityGroup
		switch {
		case id != "":
			found, err = pickGroups(all, []string{id}, nil)
		case name != "":
			found, err = pickGroups(all, nil, []string{name})
		default:
			err = awserr.New("MissingParameter", "The request must contain the parameter groupName or groupId")
		}
		if err != nil {
			return err
		}
		g := found[0]
		if err := fn(tx, g); err != nil {
			return err
		}
		if err := dryRun(dry); err != nil {
			return err
		}
		row, err := groups.Get(tx, account, region, g.ID)
		if errors.Is(err, store.ErrNotFound) {
			_, err = groups.Insert(tx, account, region, g.ID, *g, event, nil)
			return err
		}
		if err != nil {
			return err
		}
		row.Doc = *g
		return groups.Save(tx, row, event, nil)
	})
}

func (s *Service) deleteGroup(ctx context.Context, in *api.DeleteSecurityGroupInput) (*api.DeleteSecurityGroupOutput, error) {
	account, region := where(ctx)
	var id string
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		var ids, names []string
		if in.GroupId != nil {
			ids = []string{*in.GroupId}
		} else {
			names = []string{ptr.Value(in.GroupName)}
		}
		found, err := pickGroups(all, ids, names)
		if err != nil {
			return err
		}
		g := found[0]
		id = g.ID
		if g.Name == "default" {
			return awserr.New("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.ID)
		}
		used, err := instances.List(tx, store.Query{Account: account, Region: region})
		if err != nil {
			return err
		}
		for _, row := range used {
			if row.Doc.State != stateTerminated && slices.ContainsFunc(row.Doc.Groups, func(x group) bool { return x.ID == g.ID }) {
				return awserr.New("DependencyViolation", "resource %s has a dependent object: instance %s uses it", g.ID, row.ID)
			}
		}
		for _, o := range all {
			if o.ID != g.ID && slices.ContainsFunc(o.Rules, func(r rule) bool { return r.Group == g.ID }) {
				return awserr.New("DependencyViolation", "resource %s has a dependent object: a rule of %s names it", g.ID, o.ID)
			}
		}
		if err := dryRun(in.DryRun); err != nil {
			return err
		}
		row, err := groups.Get(tx, account, region, g.ID)
		if err != nil {
			return err
		}
		for _, r := range g.Rules {
			if err := dropTags(tx, account, region, r.ID); err != nil {
				return err
			}
		}
		if err := dropTags(tx, account, region, g.ID); err != nil {
			return err
		}
		return groups.Delete(tx, row, "Deleted", nil)
	})
	return &api.DeleteSecurityGroupOutput{Return: new(true), GroupId: &id}, err
}

func ruleField(egress bool, get func(rule) string) func(*securityGroup) []string {
	return func(g *securityGroup) (out []string) {
		for _, r := range g.Rules {
			if v := get(r); r.Egress == egress && v != "" {
				out = append(out, v)
			}
		}
		return out
	}
}

func groupFields(account string) fields[*securityGroup] {
	by := fields[*securityGroup]{
		"group-id": one(func(g *securityGroup) string { return g.ID }), "group-name": one(func(g *securityGroup) string { return g.Name }),
		"description": one(func(g *securityGroup) string { return g.Description }), "vpc-id": one(func(g *securityGroup) string { return g.VPC }),
		"owner-id": one(func(*securityGroup) string { return account }),
	}
	for prefix, egress := range map[string]bool{"ip-permission.": false, "egress.ip-permission.": true} {
		by[prefix+"cidr"] = ruleField(egress, func(r rule) string { return r.IPv4 })
		by[prefix+"ipv6-cidr"] = ruleField(egress, func(r rule) string { return r.IPv6 })
		by[prefix+"group-id"] = ruleField(egress, func(r rule) string { return r.Group })
		by[prefix+"protocol"] = ruleField(egress, func(r rule) string { return r.Protocol })
		by[prefix+"prefix-list-id"] = ruleField(egress, func(r rule) string { return r.Prefix })
		by[prefix+"from-port"] = ruleField(egress, func(r rule) string { return strconv.FormatInt(r.From, 10) })
		by[prefix+"to-port"] = ruleField(egress, func(r rule) string { return strconv.FormatInt(r.To, 10) })
	}
	return by
}

// readGroups reads groups and tags for the describe calls.
func (s *Service) readGroups(ctx context.Context) (all []*securityGroup, tags map[string]map[string]string, err error) {
	account, region := where(ctx)
	err = s.Store.View(ctx, func(r store.Reader) (err error) {
		if all, err = securityGroups(r, account, region); err != nil {
			return err
		}
		tags, err = allTags(r, account, region, "")
		return err
	})
	return all, tags, err
}

func (s *Service) describeGroups(ctx context.Context, in *api.DescribeSecurityGroupsInput) (*api.DescribeSecurityGroupsOutput, error) {
	account, region := where(ctx)
	all, tags, err := s.readGroups(ctx)
	if err != nil {
		return nil, err
	}
	if len(in.GroupIds)+len(in.GroupNames) > 0 {
		if all, err = pickGroups(all, in.GroupIds, in.GroupNames); err != nil {
			return nil, err
		}
	}
	if all, err = filtered(all, in.Filters, groupFields(account), func(g *securityGroup) map[string]string { return tags[g.ID] }); err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *securityGroup) int { return strings.Compare(a.ID, b.ID) })
	all, next, err := page(all, func(g *securityGroup) string { return g.ID }, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeSecurityGroupsOutput{NextToken: next}
	for _, g := range all {
		out.SecurityGroups = append(out.SecurityGroups, api.SecurityGroup{Description: new(g.Description), GroupName: new(g.Name), GroupId: new(g.ID), OwnerId: &account,
			VpcId: new(g.VPC), Tags: apiTags(tags[g.ID]), SecurityGroupArn: new(groupArn(account, region, g.ID)),
			IpPermissions: g.permissions(account, false), IpPermissionsEgress: g.permissions(account, true)})
	}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeRules(ctx context.Context, in *api.DescribeSecurityGroupRulesInput) (*api.DescribeSecurityGroupRulesOutput, error) {
	account, region := where(ctx)
	groups, tags, err := s.readGroups(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.SecurityGroupRule
	for _, g := range groups {
		for _, r := range g.Rules {
			x := r.api(account, region, g.ID)
			x.Tags = apiTags(tags[r.ID])
			all = append(all, x)
		}
	}
	for _, id := range in.SecurityGroupRuleIds {
		if !slices.ContainsFunc(all, func(r api.SecurityGroupRule) bool { return *r.SecurityGroupRuleId == id }) {
			return nil, awserr.New("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
		}
	}
	if len(in.SecurityGroupRuleIds) > 0 {
		all = slices.DeleteFunc(all, func(r api.SecurityGroupRule) bool {
			return !slices.Contains(in.SecurityGroupRuleIds, *r.SecurityGroupRuleId)
		})
	}
	by := fields[api.SecurityGroupRule]{
		"group-id":               one(func(r api.SecurityGroupRule) string { return *r.GroupId }),
		"security-group-rule-id": one(func(r api.SecurityGroupRule) string { return *r.SecurityGroupRuleId }),
	}
	if all, err = filtered(all, in.Filters, by, func(r api.SecurityGroupRule) map[string]string { return tags[*r.SecurityGroupRuleId] }); err != nil {
		return nil, err
	}
	key := func(r api.SecurityGroupRule) string { return *r.SecurityGroupRuleId }
	slices.SortFunc(all, func(a, b api.SecurityGroupRule) int { return strings.Compare(key(a), key(b)) })
	all, next, err := page(all, key, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	return &api.DescribeSecurityGroupRulesOutput{SecurityGroupRules: all, NextToken: next}, dryRun(in.DryRun)
}
