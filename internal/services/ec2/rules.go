package ec2

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// change is a request to add or remove rules, in or out.
type change struct {
	egress      bool
	id, name    string
	permissions []api.IpPermission
	ruleIDs     []string
	dry         *bool
	tags        []api.TagSpecification // of the new rules
}

// flat is the old form of one permission, as separate parameters.
func flat(protocol, cidr *string, from, to *int64, sourceGroup *string) []api.IpPermission {
	if protocol == nil && cidr == nil && sourceGroup == nil {
		return nil
	}
	p := api.IpPermission{IpProtocol: protocol, FromPort: from, ToPort: to}
	if cidr != nil {
		p.IpRanges = []api.IpRange{{CidrIp: cidr}}
	}
	if sourceGroup != nil {
		p.UserIdGroupPairs = []api.UserIdGroupPair{{GroupName: sourceGroup}}
		if p.IpProtocol == nil {
			p.IpProtocol = new("-1")
		}
	}
	return []api.IpPermission{p}
}

func (s *Service) authorizeIngress(ctx context.Context, in *api.AuthorizeSecurityGroupIngressInput) (*api.AuthorizeSecurityGroupIngressOutput, error) {
	rules, err := s.authorize(ctx, change{false, ptr.Value(in.GroupId), ptr.Value(in.GroupName),
		append(in.IpPermissions, flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName)...), nil, in.DryRun, in.TagSpecifications})
	return &api.AuthorizeSecurityGroupIngressOutput{Return: new(true), SecurityGroupRules: rules}, err
}

func (s *Service) authorizeEgress(ctx context.Context, in *api.AuthorizeSecurityGroupEgressInput) (*api.AuthorizeSecurityGroupEgressOutput, error) {
	rules, err := s.authorize(ctx, change{true, ptr.Value(in.GroupId), "",
		append(in.IpPermissions, flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName)...), nil, in.DryRun, in.TagSpecifications})
	return &api.AuthorizeSecurityGroupEgressOutput{Return: new(true), SecurityGroupRules: rules}, err
}

func (s *Service) revokeIngress(ctx context.Context, in *api.RevokeSecurityGroupIngressInput) (*api.RevokeSecurityGroupIngressOutput, error) {
	gone, unknown, err := s.revoke(ctx, change{false, ptr.Value(in.GroupId), ptr.Value(in.GroupName),
		append(in.IpPermissions, flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName)...), in.SecurityGroupRuleIds, in.DryRun, nil})
	return &api.RevokeSecurityGroupIngressOutput{Return: new(true), RevokedSecurityGroupRules: gone, UnknownIpPermissions: unknown}, err
}

func (s *Service) revokeEgress(ctx context.Context, in *api.RevokeSecurityGroupEgressInput) (*api.RevokeSecurityGroupEgressOutput, error) {
	gone, unknown, err := s.revoke(ctx, change{true, ptr.Value(in.GroupId), "",
		append(in.IpPermissions, flat(in.IpProtocol, in.CidrIp, in.FromPort, in.ToPort, in.SourceSecurityGroupName)...), in.SecurityGroupRuleIds, in.DryRun, nil})
	return &api.RevokeSecurityGroupEgressOutput{Return: new(true), RevokedSecurityGroupRules: gone, UnknownIpPermissions: unknown}, err
}

func (s *Service) authorize(ctx context.Context, c change) (out []api.SecurityGroupRule, err error) {
	account, region := where(ctx)
	if len(c.permissions) == 0 {
		return nil, awserr.New("MissingParameter", "The request must contain the parameter IpPermissions")
	}
	tags, err := specTags(c.tags, "security-group-rule")
	if err != nil {
		return nil, err
	}
	err = s.changeGroup(ctx, c.id, c.name, c.dry, "RulesChanged", func(tx store.Tx, g *securityGroup) error {
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		rules, err := readRules(c.permissions, c.egress, all)
		if err != nil {
			return err
		}
		out = nil
		for _, r := range rules {
			if slices.ContainsFunc(g.Rules, r.same) {
				return awserr.New("InvalidPermission.Duplicate", "the specified rule \"%s\" already exists", r.text())
			}
			r.ID = newID("sgr")
			g.Rules = append(g.Rules, r)
			if err := putTags(tx, account, region, r.ID, "security-group-rule", maps.Clone(tags)); err != nil {
				return err
			}
			shown := r.api(account, region, g.ID)
			shown.Tags = apiTags(tags)
			out = append(out, shown)
		}
		if len(g.Rules) > 1000 {
			return awserr.New("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
		}
		return nil
	})
	return out, err
}

func (s *Service) revoke(ctx context.Context, c change) (gone []api.RevokedSecurityGroupRule, unknown []api.IpPermission, err error) {
	account, region := where(ctx)
	err = s.changeGroup(ctx, c.id, c.name, c.dry, "RulesChanged", func(tx store.Tx, g *securityGroup) error {
		gone, unknown = nil, nil
		var removed []string
		all, err := securityGroups(tx, account, region)
		if err != nil {
			return err
		}
		remove := func(match func(rule) bool) bool {
			n := slices.IndexFunc(g.Rules, func(r rule) bool { return r.Egress == c.egress && match(r) })
			if n < 0 {
				return false
			}
			r := g.Rules[n]
			gone = append(gone, api.RevokedSecurityGroupRule{SecurityGroupRuleId: new(r.ID), GroupId: new(g.ID), IsEgress: new(r.Egress), IpProtocol: new(r.Protocol),
				FromPort: new(r.From), ToPort: new(r.To), CidrIpv4: orNil(r.IPv4), CidrIpv6: orNil(r.IPv6), PrefixListId: orNil(r.Prefix), ReferencedGroupId: orNil(r.Group), Description: orNil(r.Description)})
			g.Rules = slices.Delete(g.Rules, n, n+1)
			removed = append(removed, r.ID)
			return true
		}
		for _, id := range c.ruleIDs {
			if !remove(func(r rule) bool { return r.ID == id }) {
				return awserr.New("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
			}
		}
		rules, err := readRules(c.permissions, c.egress, all)
		if err != nil {
			return err
		}
		for _, want := range rules {
			if !remove(want.same) {
				return awserr.New("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
			}
		}
		for _, id := range removed {
			if err := dropTags(tx, account, region, id); err != nil {
				return err
			}
		}
		return nil
	})
	return gone, unknown, err
}

// readRules takes permissions apart into single rules and checks them.
func readRules(permissions []api.IpPermission, egress bool, all []*securityGroup) ([]rule, error) {
	var out []rule
	for _, p := range permissions {
		base := rule{Egress: egress, From: -1, To: -1}
		switch proto := strings.ToLower(ptr.Value(p.IpProtocol)); proto {
		case "tcp", "6":
			base.Protocol = "tcp"
		case "udp", "17":
			base.Protocol = "udp"
		case "icmp", "1":
			base.Protocol = "icmp"
		case "icmpv6", "58":
			base.Protocol = "icmpv6"
		case "-1", "all":
			base.Protocol = "-1"
		default:
			if n, err := strconv.Atoi(proto); err != nil || n < 0 || n > 255 {
				return nil, awserr.New("InvalidParameterValue", "Invalid value '%s' for IP protocol. Unknown protocol.", proto)
			}
			base.Protocol = proto
		}
		if base.Protocol == "tcp" || base.Protocol == "udp" {
			if p.FromPort == nil || p.ToPort == nil {
				return nil, awserr.New("InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
			}
			if *p.FromPort < 0 || *p.ToPort > 65535 || *p.FromPort > *p.ToPort {
				return nil, awserr.New("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", *p.FromPort, *p.ToPort)
			}
		}
		if base.Protocol != "-1" {
			if p.FromPort != nil {
				base.From = *p.FromPort
			}
			if p.ToPort != nil {
				base.To = *p.ToPort
			}
		}
		peers, err := peersOf(base, p, all)
		if err != nil {
			return nil, err
		}
		if len(peers) == 0 {
			return nil, awserr.New("InvalidParameterValue", "A rule needs at least one of IpRanges, Ipv6Ranges, PrefixListIds and UserIdGroupPairs.")
		}
		out = append(out, peers...)
	}
	return out, nil
}

func peersOf(base rule, p api.IpPermission, all []*securityGroup) ([]rule, error) {
	var out []rule
	for _, r := range p.IpRanges {
		n, err := netip.ParsePrefix(ptr.Value(r.CidrIp))
		if err != nil || !n.Addr().Is4() {
			return nil, awserr.New("InvalidParameterValue", "CIDR block %s is malformed", ptr.Value(r.CidrIp))
		}
		x := base
		x.IPv4, x.Description = n.Masked().String(), ptr.Value(r.Description)
		out = append(out, x)
	}
	for _, r := range p.Ipv6Ranges {
		n, err := netip.ParsePrefix(ptr.Value(r.CidrIpv6))
		if err != nil || !n.Addr().Is6() {
			return nil, awserr.New("InvalidParameterValue", "CIDR block %s is malformed", ptr.Value(r.CidrIpv6))
		}
		x := base
		x.IPv6, x.Description = n.Masked().String(), ptr.Value(r.Description)
		out = append(out, x)
	}
	for _, r := range p.PrefixListIds {
		x := base
		x.Prefix, x.Description = ptr.Value(r.PrefixListId), ptr.Value(r.Description)
		out = append(out, x)
	}
	for _, r := range p.UserIdGroupPairs {
		var ids, names []string
		if r.GroupId != nil {
			ids = []string{*r.GroupId}
		} else {
			names = []string{ptr.Value(r.GroupName)}
		}
		found, err := pickGroups(all, ids, names)
		if err != nil {
			return nil, err
		}
		x := base
		x.Group, x.Description = found[0].ID, ptr.Value(r.Description)
		out = append(out, x)
	}
	return out, nil
}

func (r rule) peer() string { return r.IPv4 + r.IPv6 + r.Prefix + r.Group }

func (r rule) text() string {
	return fmt.Sprintf("peer: %s, %s, from port: %d, to port: %d, ALLOW", r.peer(), strings.ToUpper(r.Protocol), r.From, r.To)
}

func (r rule) api(account, region, groupID string) api.SecurityGroupRule {
	out := api.SecurityGroupRule{SecurityGroupRuleId: new(r.ID), GroupId: new(groupID), GroupOwnerId: new(account), IsEgress: new(r.Egress), IpProtocol: new(r.Protocol),
		FromPort: new(r.From), ToPort: new(r.To), CidrIpv4: orNil(r.IPv4), CidrIpv6: orNil(r.IPv6), PrefixListId: orNil(r.Prefix), Description: orNil(r.Description),
		SecurityGroupRuleArn: new(fmt.Sprintf("arn:aws:ec2:%s:%s:security-group-rule/%s", region, account, r.ID))}
	if r.Group != "" {
		out.ReferencedGroupInfo = &api.ReferencedSecurityGroup{GroupId: new(r.Group), UserId: new(account)}
	}
	return out
}

// permissions joins rules of the same protocol and ports, as DescribeSecurityGroups shows them.
func (g *securityGroup) permissions(account string, egress bool) []api.IpPermission {
	out := []api.IpPermission{}
	at := map[string]int{}
	for _, r := range g.Rules {
		if r.Egress != egress {
			continue
		}
		key := fmt.Sprint(r.Protocol, r.From, r.To)
		n, ok := at[key]
		if !ok {
			n = len(out)
			at[key] = n
			p := api.IpPermission{IpProtocol: new(r.Protocol), IpRanges: []api.IpRange{}, Ipv6Ranges: []api.Ipv6Range{}, PrefixListIds: []api.PrefixListId{}, UserIdGroupPairs: []api.UserIdGroupPair{}}
			if r.Protocol != "-1" {
				p.FromPort, p.ToPort = new(r.From), new(r.To)
			}
			out = append(out, p)
		}
		switch d := orNil(r.Description); {
		case r.IPv4 != "":
			out[n].IpRanges = append(out[n].IpRanges, api.IpRange{CidrIp: new(r.IPv4), Description: d})
		case r.IPv6 != "":
			out[n].Ipv6Ranges = append(out[n].Ipv6Ranges, api.Ipv6Range{CidrIpv6: new(r.IPv6), Description: d})
		case r.Prefix != "":
			out[n].PrefixListIds = append(out[n].PrefixListIds, api.PrefixListId{PrefixListId: new(r.Prefix), Description: d})
		case r.Group != "":
			out[n].UserIdGroupPairs = append(out[n].UserIdGroupPairs, api.UserIdGroupPair{GroupId: new(r.Group), UserId: new(account), Description: d})
		}
	}
	return out
}
