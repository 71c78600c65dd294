package elbv2

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"slipway/internal/api/ec2"
	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// hostedZones by region, as AWS publishes them; tools print them only.
const hostedZone = "Z35SXDOTRQ7X7K"

func (s *Service) createLoadBalancer(ctx context.Context, in *api.CreateLoadBalancerInput) (*api.CreateLoadBalancerOutput, error) {
	name := ptr.Value(in.Name)
	if err := checkName("load balancer", name); err != nil {
		return nil, err
	}
	if t := ptr.Value(in.Type); t != "" && t != "application" {
		return nil, invalid("Slipway runs load balancers of type 'application' only, not '%s'", t)
	}
	subnets := in.Subnets
	for _, m := range in.SubnetMappings {
		subnets = append(subnets, ptr.Value(m.SubnetId))
	}
	zones, vpc, err := s.zones(ctx, subnets)
	if err != nil {
		return nil, err
	}
	tags, err := tagMap(in.Tags)
	if err != nil {
		return nil, err
	}
	doc := LoadBalancer{Name: name, Scheme: ptr.Value(in.Scheme), VPC: vpc, IPAddressType: ptr.Value(in.IpAddressType), Zones: zones,
		SecurityGroups: in.SecurityGroups, Tags: tags, Created: s.deps.Clock.Now()}
	if doc.Scheme == "" {
		doc.Scheme = "internet-facing"
	}
	if doc.IPAddressType == "" {
		doc.IPAddressType = "ipv4"
	}
	var row *store.Row[LoadBalancer]
	err = s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err = insertBalancer(tx, id, doc)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateLoadBalancerOutput{LoadBalancers: []api.LoadBalancer{show(row)}}, nil
}

func insertBalancer(tx store.Tx, id caller.Identity, doc LoadBalancer) (*store.Row[LoadBalancer], error) {
	every, err := balancers.List(tx, store.Query{})
	if err != nil {
		return nil, err
	}
	taken, own := map[int]bool{}, 0
	for _, b := range every {
		taken[b.Doc.Index] = true
		if b.Account != id.Account || b.Region != id.Region {
			continue
		}
		own++
		if b.Doc.Name != doc.Name {
			continue
		}
		// AWS answers a repeated call with the one that is there.
		if b.Doc.Scheme == doc.Scheme && slices.Equal(b.Doc.Zones, doc.Zones) && slices.Equal(b.Doc.SecurityGroups, doc.SecurityGroups) {
			return b, nil
		}
		return nil, awserr.New("DuplicateLoadBalancerName", "A load balancer with the same name '%s' exists, but with different settings", doc.Name)
	}
	if own >= limit("application-load-balancers") {
		return nil, awserr.New("TooManyLoadBalancers", "There are %d load balancers already", own)
	}
	for taken[doc.Index] {
		doc.Index++
	}
	balancerID := newID()
	sum := fnv.New32a()
	sum.Write([]byte(balancerID))
	prefix := ""
	if doc.Scheme == "internal" {
		prefix = "internal-"
	}
	doc.DNSName = fmt.Sprintf("%s%s-%d.%s.elb.amazonaws.com", prefix, doc.Name, sum.Sum32(), id.Region)
	return balancers.Insert(tx, id.Account, id.Region, arn(id, "loadbalancer/app/"+doc.Name+"/"+balancerID), doc, "Created", nil)
}

// zones finds the zones of subnets: at least two, each once, in one VPC.
func (s *Service) zones(ctx context.Context, subnets []string) ([]Zone, string, error) {
	if len(subnets) == 0 {
		return nil, "", invalid("At least two subnets in two different Availability Zones must be specified")
	}
	id := caller.From(ctx)
	sctx := caller.ForService(ctx, "elasticloadbalancing", id.Account, id.Region)
	out, err := dispatch.Call(sctx, s.deps.Mux, ec2.OpDescribeSubnets, &ec2.DescribeSubnetsInput{SubnetIds: subnets})
	if e := awserr.As(err); e != nil && strings.HasPrefix(e.Code, "InvalidSubnetID") {
		return nil, "", awserr.New("SubnetNotFound", "%s", e.Message)
	}
	if err != nil {
		return nil, "", err
	}
	var zones []Zone
	vpc, seen := "", map[string]bool{}
	for _, sn := range out.Subnets {
		zone := ptr.Value(sn.AvailabilityZone)
		if seen[zone] {
			return nil, "", awserr.New("InvalidConfigurationRequest", "A load balancer cannot be attached to multiple subnets in the same Availability Zone (%s)", zone)
		}
		if vpc != "" && vpc != ptr.Value(sn.VpcId) {
			return nil, "", awserr.New("InvalidConfigurationRequest", "All subnets must belong to the same VPC")
		}
		seen[zone], vpc = true, ptr.Value(sn.VpcId)
		zones = append(zones, Zone{zone, ptr.Value(sn.SubnetId)})
	}
	if len(zones) < 2 {
		return nil, "", invalid("At least two subnets in two different Availability Zones must be specified")
	}
	slices.SortFunc(zones, func(a, b Zone) int { return strings.Compare(a.Name, b.Name) })
	return zones, vpc, nil
}

func show(row *store.Row[LoadBalancer]) api.LoadBalancer {
	b := &row.Doc
	out := api.LoadBalancer{
		LoadBalancerArn: new(row.ID), DNSName: new(b.DNSName), CanonicalHostedZoneId: new(hostedZone), CreatedTime: new(b.Created),
		LoadBalancerName: new(b.Name), Scheme: new(b.Scheme), VpcId: new(b.VPC), State: &api.LoadBalancerState{Code: new("active")},
		Type: new("application"), SecurityGroups: b.SecurityGroups, IpAddressType: new(b.IPAddressType),
	}
	for _, z := range b.Zones {
		out.AvailabilityZones = append(out.AvailabilityZones, api.AvailabilityZone{ZoneName: new(z.Name), SubnetId: new(z.Subnet), LoadBalancerAddresses: []api.LoadBalancerAddress{}})
	}
	return out
}

func (s *Service) describeLoadBalancers(ctx context.Context, in *api.DescribeLoadBalancersInput) (*api.DescribeLoadBalancersOutput, error) {
	if len(in.LoadBalancerArns) > 0 && len(in.Names) > 0 {
		return nil, invalid("Load balancer names and load balancer ARNs cannot be specified at the same time")
	}
	out := &api.DescribeLoadBalancersOutput{LoadBalancers: []api.LoadBalancer{}}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		rows, err := balancers.List(r, mine(id))
		if err != nil {
			return err
		}
		if rows, err = pick(rows, in.LoadBalancerArns, in.Names, func(b *LoadBalancer) string { return b.Name }, "LoadBalancerNotFound", "Load balancers"); err != nil {
			return err
		}
		if rows, out.NextMarker, err = page(rows, in.Marker, in.PageSize); err != nil {
			return err
		}
		for _, row := range rows {
			out.LoadBalancers = append(out.LoadBalancers, show(row))
		}
		return nil
	})
	return out, err
}

// pick selects rows by ARNs or names; one that is not there is an error.
func pick[T any](rows []*store.Row[T], arns, names []string, name func(*T) string, code, what string) ([]*store.Row[T], error) {
	if len(arns) == 0 && len(names) == 0 {
		return rows, nil
	}
	var out []*store.Row[T]
	var missing []string
	for _, want := range append(slices.Clone(arns), names...) {
		i := slices.IndexFunc(rows, func(r *store.Row[T]) bool { return r.ID == want || name(&r.Doc) == want })
		if i < 0 {
			missing = append(missing, want)
			continue
		}
		if !slices.Contains(out, rows[i]) {
			out = append(out, rows[i])
		}
	}
	if len(missing) > 0 {
		return nil, awserr.New(code, "%s '[%s]' not found", what, strings.Join(missing, ", "))
	}
	slices.SortFunc(out, func(a, b *store.Row[T]) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}

func (s *Service) deleteLoadBalancer(ctx context.Context, in *api.DeleteLoadBalancerInput) (*api.DeleteLoadBalancerOutput, error) {
	return &api.DeleteLoadBalancerOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getBalancer(tx, id, ptr.Value(in.LoadBalancerArn))
		if awserr.Is(err, "LoadBalancerNotFound") {
			return nil // deleting twice is no error
		}
		if err != nil {
			return err
		}
		if row.Doc.Attributes["deletion_protection.enabled"] == "true" {
			return awserr.New("OperationNotPermitted", "Load balancer '%s' cannot be deleted because deletion protection is enabled", row.ID)
		}
		ls, err := listeners.List(tx, store.Query{Parent: row.ID})
		if err != nil {
			return err
		}
		for _, l := range ls {
			if err := dropListener(tx, l); err != nil {
				return err
			}
		}
		return balancers.Delete(tx, row, "Deleted", nil)
	})
}

func (s *Service) modifyLoadBalancerAttributes(ctx context.Context, in *api.ModifyLoadBalancerAttributesInput) (*api.ModifyLoadBalancerAttributesOutput, error) {
	var set []pair
	for _, a := range in.Attributes {
		set = append(set, pair{ptr.Value(a.Key), ptr.Value(a.Value)})
	}
	out := &api.ModifyLoadBalancerAttributesOutput{}
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getBalancer(tx, id, ptr.Value(in.LoadBalancerArn))
		if err != nil {
			return err
		}
		if row.Doc.Attributes, err = merge(balancerAttributes, row.Doc.Attributes, set); err != nil {
			return err
		}
		out.Attributes = balancerPairs(row.Doc.Attributes)
		return balancers.Save(tx, row, "Modified", nil)
	})
	return out, err
}

func balancerPairs(set map[string]string) []api.LoadBalancerAttribute {
	var out []api.LoadBalancerAttribute
	for _, p := range all(balancerAttributes, set) {
		out = append(out, api.LoadBalancerAttribute{Key: new(p.key), Value: new(p.value)})
	}
	return out
}

func (s *Service) describeLoadBalancerAttributes(ctx context.Context, in *api.DescribeLoadBalancerAttributesInput) (*api.DescribeLoadBalancerAttributesOutput, error) {
	out := &api.DescribeLoadBalancerAttributesOutput{}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		row, err := getBalancer(r, id, ptr.Value(in.LoadBalancerArn))
		if err == nil {
			out.Attributes = balancerPairs(row.Doc.Attributes)
		}
		return err
	})
	return out, err
}

// change saves what fn makes of a load balancer.
func (s *Service) change(ctx context.Context, arn *string, fn func(*LoadBalancer)) error {
	return s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getBalancer(tx, id, ptr.Value(arn))
		if err != nil {
			return err
		}
		fn(&row.Doc)
		return balancers.Save(tx, row, "Modified", nil)
	})
}

func (s *Service) setSecurityGroups(ctx context.Context, in *api.SetSecurityGroupsInput) (*api.SetSecurityGroupsOutput, error) {
	err := s.change(ctx, in.LoadBalancerArn, func(b *LoadBalancer) { b.SecurityGroups = in.SecurityGroups })
	return &api.SetSecurityGroupsOutput{SecurityGroupIds: in.SecurityGroups}, err
}

func (s *Service) setSubnets(ctx context.Context, in *api.SetSubnetsInput) (*api.SetSubnetsOutput, error) {
	subnets := in.Subnets
	for _, m := range in.SubnetMappings {
		subnets = append(subnets, ptr.Value(m.SubnetId))
	}
	zones, vpc, err := s.zones(ctx, subnets)
	if err != nil {
		return nil, err
	}
	out := &api.SetSubnetsOutput{}
	return out, s.change(ctx, in.LoadBalancerArn, func(b *LoadBalancer) {
		b.Zones, b.VPC = zones, vpc
		for _, z := range zones {
			out.AvailabilityZones = append(out.AvailabilityZones, api.AvailabilityZone{ZoneName: new(z.Name), SubnetId: new(z.Subnet)})
		}
	})
}

func (s *Service) setIPAddressType(ctx context.Context, in *api.SetIpAddressTypeInput) (*api.SetIpAddressTypeOutput, error) {
	if t := ptr.Value(in.IpAddressType); t != "ipv4" {
		return nil, awserr.New("InvalidConfigurationRequest", "Slipway's load balancers have addresses of type 'ipv4' only, not '%s'", t)
	}
	return &api.SetIpAddressTypeOutput{IpAddressType: new("ipv4")}, s.change(ctx, in.LoadBalancerArn, func(b *LoadBalancer) { b.IPAddressType = "ipv4" })
}
