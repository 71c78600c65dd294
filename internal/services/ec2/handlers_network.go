package ec2

import (
	"context"
	"slices"
	"strconv"
	"strings"

	api "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// network is the caller's default VPC with the tags of everything in it.
func (s *Service) network(ctx context.Context) (n vpcNet, tags map[string]map[string]string, err error) {
	account, region := where(ctx)
	n = defaultVPC(account, region)
	err = s.Store.View(ctx, func(r store.Reader) (err error) {
		tags, err = allTags(r, account, region, "")
		return err
	})
	return n, tags, err
}

// checkIDs refuses ids that are not the only one there is.
func checkIDs(asked []string, have []string, code, what string) error {
	for _, id := range asked {
		if !slices.Contains(have, id) {
			return awserr.New(code, "The %s ID '%s' does not exist", what, id)
		}
	}
	return nil
}

// single runs a resource of which there is exactly one through filters.
func single(n vpcNet, id string, filters []api.Filter, by fields[vpcNet], tags map[string]map[string]string) (bool, error) {
	common := fields[vpcNet]{
		"vpc-id":   one(func(n vpcNet) string { return n.VPC }),
		"owner-id": one(func(n vpcNet) string { return n.Account }),
	}
	for name, get := range by {
		common[name] = get
	}
	left, err := filtered([]vpcNet{n}, filters, common, func(vpcNet) map[string]string { return tags[id] })
	return len(left) == 1, err
}

func is(v string) func(vpcNet) []string { return func(vpcNet) []string { return []string{v} } }

func subnetIDs(n vpcNet) (out []string) {
	for _, sn := range n.Subnets {
		out = append(out, sn.ID)
	}
	return out
}

func (s *Service) describeVpcs(ctx context.Context, in *api.DescribeVpcsInput) (*api.DescribeVpcsOutput, error) {
	n, tags, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs(in.VpcIds, []string{n.VPC}, "InvalidVpcID.NotFound", "vpc"); err != nil {
		return nil, err
	}
	assoc := derivedID("vpc-cidr-assoc", n.VPC)
	ok, err := single(n, n.VPC, in.Filters, fields[vpcNet]{
		"cidr": is(vpcCIDR), "cidr-block-association.cidr-block": is(vpcCIDR), "cidr-block-association.association-id": is(assoc), "cidr-block-association.state": is("associated"),
		"state": is("available"), "is-default": is("true"), "isDefault": is("true"), "dhcp-options-id": is(n.DHCP),
	}, tags)
	out := &api.DescribeVpcsOutput{}
	if err != nil || !ok {
		return out, err
	}
	out.Vpcs = []api.Vpc{{CidrBlock: new(vpcCIDR), DhcpOptionsId: new(n.DHCP), State: new("available"), VpcId: new(n.VPC), OwnerId: new(n.Account), InstanceTenancy: new("default"), IsDefault: new(true), Tags: apiTags(tags[n.VPC]),
		CidrBlockAssociationSet: []api.VpcCidrBlockAssociation{{AssociationId: &assoc, CidrBlock: new(vpcCIDR), CidrBlockState: &api.VpcCidrBlockState{State: new("associated")}}}}}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeVpcAttribute(ctx context.Context, in *api.DescribeVpcAttributeInput) (*api.DescribeVpcAttributeOutput, error) {
	n, _, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs([]string{ptr.Value(in.VpcId)}, []string{n.VPC}, "InvalidVpcID.NotFound", "vpc"); err != nil {
		return nil, err
	}
	out := &api.DescribeVpcAttributeOutput{VpcId: in.VpcId}
	switch ptr.Value(in.Attribute) {
	case "enableDnsSupport":
		out.EnableDnsSupport = &api.AttributeBooleanValue{Value: new(true)}
	case "enableDnsHostnames":
		out.EnableDnsHostnames = &api.AttributeBooleanValue{Value: new(true)}
	case "enableNetworkAddressUsageMetrics":
		out.EnableNetworkAddressUsageMetrics = &api.AttributeBooleanValue{Value: new(false)}
	default:
		return nil, awserr.New("InvalidParameterValue", "Value (%s) for parameter attribute is invalid. Unknown vpc attribute", ptr.Value(in.Attribute))
	}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeSubnets(ctx context.Context, in *api.DescribeSubnetsInput) (*api.DescribeSubnetsOutput, error) {
	n, tags, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs(in.SubnetIds, subnetIDs(n), "InvalidSubnetID.NotFound", "subnet"); err != nil {
		return nil, err
	}
	all := n.Subnets
	if len(in.SubnetIds) > 0 {
		all = slices.DeleteFunc(slices.Clone(all), func(sn subnet) bool { return !slices.Contains(in.SubnetIds, sn.ID) })
	}
	constant := func(v string) func(subnet) []string { return func(subnet) []string { return []string{v} } }
	by := fields[subnet]{
		"subnet-id": one(func(sn subnet) string { return sn.ID }), "vpc-id": constant(n.VPC), "owner-id": constant(n.Account), "state": constant("available"),
		"availability-zone": one(func(sn subnet) string { return sn.Zone }), "availabilityZone": one(func(sn subnet) string { return sn.Zone }),
		"availability-zone-id": one(func(sn subnet) string { return sn.ZoneID }), "availabilityZoneId": one(func(sn subnet) string { return sn.ZoneID }),
		"cidr-block": one(func(sn subnet) string { return sn.CIDR.String() }), "cidr": one(func(sn subnet) string { return sn.CIDR.String() }), "cidrBlock": one(func(sn subnet) string { return sn.CIDR.String() }),
		"default-for-az": constant("true"), "defaultForAz": constant("true"), "map-public-ip-on-launch": constant("true"), "ipv6-native": constant("false"),
		"subnet-arn": one(func(sn subnet) string { return n.subnetArn(sn) }),
	}
	if all, err = filtered(all, in.Filters, by, func(sn subnet) map[string]string { return tags[sn.ID] }); err != nil {
		return nil, err
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b subnet) int { return strings.Compare(a.ID, b.ID) })
	all, next, err := page(all, func(sn subnet) string { return sn.ID }, in.MaxResults, in.NextToken, 5, 1000)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeSubnetsOutput{NextToken: next}
	for _, sn := range all {
		free, err := s.freeAddresses(ctx, sn)
		if err != nil {
			return nil, err
		}
		out.Subnets = append(out.Subnets, api.Subnet{
			AvailabilityZone: new(sn.Zone), AvailabilityZoneId: new(sn.ZoneID), AvailableIpAddressCount: &free, CidrBlock: new(sn.CIDR.String()), DefaultForAz: new(true),
			MapPublicIpOnLaunch: new(true), MapCustomerOwnedIpOnLaunch: new(false), State: new("available"), SubnetId: new(sn.ID), VpcId: new(n.VPC), OwnerId: new(n.Account),
			AssignIpv6AddressOnCreation: new(false), SubnetArn: new(n.subnetArn(sn)), EnableDns64: new(false), Ipv6Native: new(false), Tags: apiTags(tags[sn.ID]),
			PrivateDnsNameOptionsOnLaunch: &api.PrivateDnsNameOptionsOnLaunch{HostnameType: new("ip-name"), EnableResourceNameDnsARecord: new(false), EnableResourceNameDnsAAAARecord: new(false)},
		})
	}
	return out, dryRun(in.DryRun)
}

func (n vpcNet) subnetArn(sn subnet) string {
	return "arn:aws:ec2:" + n.Region + ":" + n.Account + ":subnet/" + sn.ID
}

func (s *Service) describeZones(ctx context.Context, in *api.DescribeAvailabilityZonesInput) (*api.DescribeAvailabilityZonesOutput, error) {
	n, _, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	all := n.Subnets
	for _, name := range append(slices.Clone(in.ZoneNames), in.ZoneIds...) {
		if _, ok := n.subnetByZone(name); !ok {
			return nil, awserr.New("InvalidParameterValue", "Invalid availability zone: [%s]", name)
		}
	}
	if len(in.ZoneNames)+len(in.ZoneIds) > 0 {
		all = slices.DeleteFunc(slices.Clone(all), func(sn subnet) bool {
			return !slices.Contains(in.ZoneNames, sn.Zone) && !slices.Contains(in.ZoneIds, sn.ZoneID)
		})
	}
	constant := func(v string) func(subnet) []string { return func(subnet) []string { return []string{v} } }
	by := fields[subnet]{
		"zone-name": one(func(sn subnet) string { return sn.Zone }), "zone-id": one(func(sn subnet) string { return sn.ZoneID }), "region-name": constant(n.Region),
		"state": constant("available"), "zone-type": constant("availability-zone"), "opt-in-status": constant("opt-in-not-required"), "group-name": constant(n.Region + "-zg-1"),
		"message": func(subnet) []string { return nil },
	}
	if all, err = filtered(all, in.Filters, by, nil); err != nil {
		return nil, err
	}
	out := &api.DescribeAvailabilityZonesOutput{}
	for _, sn := range all {
		out.AvailabilityZones = append(out.AvailabilityZones, api.AvailabilityZone{State: new("available"), OptInStatus: new("opt-in-not-required"), RegionName: new(n.Region),
			ZoneName: new(sn.Zone), ZoneId: new(sn.ZoneID), GroupName: new(n.Region + "-zg-1"), NetworkBorderGroup: new(n.Region), ZoneType: new("availability-zone")})
	}
	return out, dryRun(in.DryRun)
}

// regionNames are the regions that AWS enables by default; any other is
// served as well, but not listed.
var regionNames = []string{
	"ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1", "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1",
	"eu-west-1", "eu-west-2", "eu-west-3", "sa-east-1", "us-east-1", "us-east-2", "us-west-1", "us-west-2",
}

func (s *Service) describeRegions(_ context.Context, in *api.DescribeRegionsInput) (*api.DescribeRegionsOutput, error) {
	all := regionNames
	for _, name := range in.RegionNames {
		if !slices.Contains(all, name) {
			return nil, awserr.New("InvalidParameterValue", "Invalid region provided: [%s]", name)
		}
	}
	if len(in.RegionNames) > 0 {
		all = in.RegionNames
	}
	by := fields[string]{
		"region-name":   one(func(r string) string { return r }),
		"endpoint":      one(func(r string) string { return "ec2." + r + ".amazonaws.com" }),
		"opt-in-status": func(string) []string { return []string{"opt-in-not-required"} },
	}
	all, err := filtered(all, in.Filters, by, nil)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeRegionsOutput{}
	for _, r := range all {
		out.Regions = append(out.Regions, api.Region{Endpoint: new("ec2." + r + ".amazonaws.com"), RegionName: new(r), OptInStatus: new("opt-in-not-required")})
	}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeRouteTables(ctx context.Context, in *api.DescribeRouteTablesInput) (*api.DescribeRouteTablesOutput, error) {
	n, tags, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs(in.RouteTableIds, []string{n.RouteTable}, "InvalidRouteTableID.NotFound", "routeTable"); err != nil {
		return nil, err
	}
	assoc := derivedID("rtbassoc", n.RouteTable)
	ok, err := single(n, n.RouteTable, in.Filters, fields[vpcNet]{
		"route-table-id": is(n.RouteTable), "association.route-table-id": is(n.RouteTable), "association.route-table-association-id": is(assoc), "association.main": is("true"),
		"association.subnet-id": func(vpcNet) []string { return nil }, // the main table is associated implicitly
		"route.gateway-id":      func(n vpcNet) []string { return []string{"local", n.Gateway} }, "route.destination-cidr-block": func(vpcNet) []string { return []string{vpcCIDR, "0.0.0.0/0"} },
		"route.state": is("active"), "route.origin": func(vpcNet) []string { return []string{"CreateRouteTable", "CreateRoute"} }, "association.gateway-id": func(vpcNet) []string { return nil },
	}, tags)
	out := &api.DescribeRouteTablesOutput{}
	if err != nil || !ok {
		return out, err
	}
	out.RouteTables = []api.RouteTable{{RouteTableId: new(n.RouteTable), VpcId: new(n.VPC), OwnerId: new(n.Account), Tags: apiTags(tags[n.RouteTable]), PropagatingVgws: []api.PropagatingVgw{},
		Associations: []api.RouteTableAssociation{{Main: new(true), RouteTableAssociationId: &assoc, RouteTableId: new(n.RouteTable), AssociationState: &api.RouteTableAssociationState{State: new("associated")}}},
		Routes: []api.Route{{DestinationCidrBlock: new(vpcCIDR), GatewayId: new("local"), Origin: new("CreateRouteTable"), State: new("active")},
			{DestinationCidrBlock: new("0.0.0.0/0"), GatewayId: new(n.Gateway), Origin: new("CreateRoute"), State: new("active")}}}}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeInternetGateways(ctx context.Context, in *api.DescribeInternetGatewaysInput) (*api.DescribeInternetGatewaysOutput, error) {
	n, tags, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs(in.InternetGatewayIds, []string{n.Gateway}, "InvalidInternetGatewayID.NotFound", "internetGateway"); err != nil {
		return nil, err
	}
	ok, err := single(n, n.Gateway, in.Filters, fields[vpcNet]{"internet-gateway-id": is(n.Gateway), "attachment.vpc-id": is(n.VPC), "attachment.state": is("available")}, tags)
	out := &api.DescribeInternetGatewaysOutput{}
	if err != nil || !ok {
		return out, err
	}
	out.InternetGateways = []api.InternetGateway{{InternetGatewayId: new(n.Gateway), OwnerId: new(n.Account), Tags: apiTags(tags[n.Gateway]),
		Attachments: []api.InternetGatewayAttachment{{State: new("available"), VpcId: new(n.VPC)}}}}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeNetworkAcls(ctx context.Context, in *api.DescribeNetworkAclsInput) (*api.DescribeNetworkAclsOutput, error) {
	n, tags, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs(in.NetworkAclIds, []string{n.ACL}, "InvalidNetworkAclID.NotFound", "networkAcl"); err != nil {
		return nil, err
	}
	ok, err := single(n, n.ACL, in.Filters, fields[vpcNet]{"network-acl-id": is(n.ACL), "association.network-acl-id": is(n.ACL), "default": is("true"), "association.subnet-id": subnetIDs}, tags)
	out := &api.DescribeNetworkAclsOutput{}
	if err != nil || !ok {
		return out, err
	}
	acl := api.NetworkAcl{NetworkAclId: new(n.ACL), IsDefault: new(true), VpcId: new(n.VPC), OwnerId: new(n.Account), Tags: apiTags(tags[n.ACL])}
	for _, egress := range []bool{true, false} {
		for _, e := range []struct {
			number int64
			action string
		}{{100, "allow"}, {32767, "deny"}} {
			acl.Entries = append(acl.Entries, api.NetworkAclEntry{CidrBlock: new("0.0.0.0/0"), Egress: new(egress), Protocol: new("-1"), RuleAction: new(e.action), RuleNumber: new(e.number)})
		}
	}
	for _, sn := range n.Subnets {
		acl.Associations = append(acl.Associations, api.NetworkAclAssociation{NetworkAclAssociationId: new(derivedID("aclassoc", sn.ID)), NetworkAclId: new(n.ACL), SubnetId: new(sn.ID)})
	}
	out.NetworkAcls = []api.NetworkAcl{acl}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeDhcpOptions(ctx context.Context, in *api.DescribeDhcpOptionsInput) (*api.DescribeDhcpOptionsOutput, error) {
	n, tags, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkIDs(in.DhcpOptionsIds, []string{n.DHCP}, "InvalidDhcpOptionID.NotFound", "dhcpOption"); err != nil {
		return nil, err
	}
	ok, err := single(n, n.DHCP, in.Filters, fields[vpcNet]{"dhcp-options-id": is(n.DHCP), "key": func(vpcNet) []string { return []string{"domain-name", "domain-name-servers"} }}, tags)
	out := &api.DescribeDhcpOptionsOutput{}
	if err != nil || !ok {
		return out, err
	}
	domain := strings.TrimPrefix(dnsName("x", n.Region), "ip-x.")
	out.DhcpOptions = []api.DhcpOptions{{DhcpOptionsId: new(n.DHCP), OwnerId: new(n.Account), Tags: apiTags(tags[n.DHCP]), DhcpConfigurations: []api.DhcpConfiguration{
		{Key: new("domain-name"), Values: []api.AttributeValue{{Value: &domain}}},
		{Key: new("domain-name-servers"), Values: []api.AttributeValue{{Value: new("AmazonProvidedDNS")}}}}}}
	return out, dryRun(in.DryRun)
}

func (s *Service) describeAccountAttributes(ctx context.Context, in *api.DescribeAccountAttributesInput) (*api.DescribeAccountAttributesOutput, error) {
	n, _, err := s.network(ctx)
	if err != nil {
		return nil, err
	}
	attributes := []struct{ name, value string }{
		{"supported-platforms", "VPC"}, {"default-vpc", n.VPC}, {"max-instances", strconv.Itoa(maxPerCall)},
		{"vpc-max-security-groups-per-interface", "5"}, {"max-elastic-ips", "0"}, {"vpc-max-elastic-ips", "0"},
	}
	out := &api.DescribeAccountAttributesOutput{}
	for _, a := range attributes {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, a.name) {
			continue
		}
		out.AccountAttributes = append(out.AccountAttributes, api.AccountAttribute{AttributeName: new(a.name), AttributeValues: []api.AccountAttributeValue{{AttributeValue: new(a.value)}}})
	}
	return out, dryRun(in.DryRun)
}
