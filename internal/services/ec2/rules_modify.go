package ec2

import (
	"context"
	"slices"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// modifyRules replaces rules in place; their ids and tags stay.
func (s *Service) modifyRules(ctx context.Context, in *api.ModifySecurityGroupRulesInput) (*api.ModifySecurityGroupRulesOutput, error) {
	account, region := where(ctx)
	err := s.changeGroup(ctx, ptr.Value(in.GroupId), "", in.DryRun, "RulesChanged", func(tx store.Tx, g *securityGroup) error {
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		for _, u := range in.SecurityGroupRules {
			n := slices.IndexFunc(g.Rules, func(r rule) bool { return r.ID == ptr.Value(u.SecurityGroupRuleId) })
			if n < 0 {
				return awserr.New("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", ptr.Value(u.SecurityGroupRuleId))
			}
			rules, err := readRules([]api.IpPermission{permissionOf(ptr.Value(u.SecurityGroupRule))}, g.Rules[n].Egress, all)
			if err != nil {
				return err
			}
			if len(rules) != 1 {
				return awserr.New("InvalidParameterValue", "A rule has exactly one of CidrIpv4, CidrIpv6, PrefixListId and ReferencedGroupId.")
			}
			for k, o := range g.Rules {
				if k != n && o.same(rules[0]) {
					return awserr.New("InvalidPermission.Duplicate", "the specified rule \"%s\" already exists", rules[0].text())
				}
			}
			rules[0].ID = g.Rules[n].ID
			g.Rules[n] = rules[0]
		}
		return nil
	})
	return &api.ModifySecurityGroupRulesOutput{Return: new(true)}, err
}

// permissionOf is a single rule in the form that holds several.
func permissionOf(r api.SecurityGroupRuleRequest) api.IpPermission {
	p := api.IpPermission{IpProtocol: r.IpProtocol, FromPort: r.FromPort, ToPort: r.ToPort}
	if r.CidrIpv4 != nil {
		p.IpRanges = []api.IpRange{{CidrIp: r.CidrIpv4, Description: r.Description}}
	}
	if r.CidrIpv6 != nil {
		p.Ipv6Ranges = []api.Ipv6Range{{CidrIpv6: r.CidrIpv6, Description: r.Description}}
	}
	if r.PrefixListId != nil {
		p.PrefixListIds = []api.PrefixListId{{PrefixListId: r.PrefixListId, Description: r.Description}}
	}
	if r.ReferencedGroupId != nil {
		p.UserIdGroupPairs = []api.UserIdGroupPair{{GroupId: r.ReferencedGroupId, Description: r.Description}}
	}
	return p
}

func (s *Service) describeIngress(ctx context.Context, in *api.UpdateSecurityGroupRuleDescriptionsIngressInput) (*api.UpdateSecurityGroupRuleDescriptionsIngressOutput, error) {
	err := s.setDescriptions(ctx, change{egress: false, id: ptr.Value(in.GroupId), name: ptr.Value(in.GroupName), permissions: in.IpPermissions, dry: in.DryRun}, in.SecurityGroupRuleDescriptions)
	return &api.UpdateSecurityGroupRuleDescriptionsIngressOutput{Return: new(true)}, err
}

func (s *Service) describeEgress(ctx context.Context, in *api.UpdateSecurityGroupRuleDescriptionsEgressInput) (*api.UpdateSecurityGroupRuleDescriptionsEgressOutput, error) {
	err := s.setDescriptions(ctx, change{egress: true, id: ptr.Value(in.GroupId), name: ptr.Value(in.GroupName), permissions: in.IpPermissions, dry: in.DryRun}, in.SecurityGroupRuleDescriptions)
	return &api.UpdateSecurityGroupRuleDescriptionsEgressOutput{Return: new(true)}, err
}

// setDescriptions changes the descriptions of rules, named by what they
// allow or by id.
func (s *Service) setDescriptions(ctx context.Context, c change, byID []api.SecurityGroupRuleDescription) error {
	account, region := where(ctx)
	if len(c.permissions)+len(byID) == 0 {
		return awserr.New("MissingParameter", "The request must contain the parameter IpPermissions or SecurityGroupRuleDescriptions")
	}
	return s.changeGroup(ctx, c.id, c.name, c.dry, "RulesChanged", func(tx store.Tx, g *securityGroup) error {
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		rules, err := readRules(c.permissions, c.egress, all)
		if err != nil {
			return err
		}
		for _, want := range rules {
			n := slices.IndexFunc(g.Rules, want.same)
			if n < 0 {
				return awserr.New("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
			}
			g.Rules[n].Description = want.Description
		}
		for _, d := range byID {
			n := slices.IndexFunc(g.Rules, func(r rule) bool { return r.Egress == c.egress && r.ID == ptr.Value(d.SecurityGroupRuleId) })
			if n < 0 {
				return awserr.New("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", ptr.Value(d.SecurityGroupRuleId))
			}
			g.Rules[n].Description = ptr.Value(d.Description)
		}
		return nil
	})
}
