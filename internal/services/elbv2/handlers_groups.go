package elbv2

import (
	"context"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func or[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

func (s *Service) createTargetGroup(ctx context.Context, in *api.CreateTargetGroupInput) (*api.CreateTargetGroupOutput, error) {
	if err := checkName("target group", ptr.Value(in.Name)); err != nil {
		return nil, err
	}
	doc := TargetGroup{Name: *in.Name, Protocol: ptr.Value(in.Protocol), ProtocolVersion: or(in.ProtocolVersion, "HTTP1"), Port: ptr.Value(in.Port), VPC: ptr.Value(in.VpcId), TargetType: or(in.TargetType, "instance")}
	switch {
	case doc.TargetType != "instance" && doc.TargetType != "ip":
		return nil, invalid("Slipway runs target groups of type instance and ip only, not '%s'", doc.TargetType)
	case doc.Protocol != "HTTP" && doc.Protocol != "HTTPS":
		return nil, invalid("The protocol '%s' is not valid for a target group of an application load balancer: use HTTP or HTTPS", doc.Protocol)
	case doc.ProtocolVersion != "HTTP1" && doc.ProtocolVersion != "HTTP2" && doc.ProtocolVersion != "GRPC":
		return nil, invalid("The protocol version '%s' must be HTTP1, HTTP2 or GRPC", doc.ProtocolVersion)
	case doc.ProtocolVersion != "HTTP1":
		return nil, awserr.New("InvalidConfigurationRequest", "Slipway forwards HTTP1 to targets only; the protocol version '%s' is not built yet", doc.ProtocolVersion)
	case doc.Port < 1 || doc.Port > 65535:
		return nil, invalid("A port between 1 and 65535 must be specified")
	case doc.VPC == "":
		return nil, invalid("A VPC ID must be specified")
	case in.HealthCheckEnabled != nil && !*in.HealthCheckEnabled:
		return nil, invalid("Health checks cannot be disabled for target groups of type '%s'", doc.TargetType)
	}
	doc.HealthCheck = HealthCheck{
		Protocol: or(in.HealthCheckProtocol, "HTTP"), Port: or(in.HealthCheckPort, "traffic-port"), Path: or(in.HealthCheckPath, "/"), Matcher: "200",
		Interval: or(in.HealthCheckIntervalSeconds, 30), Timeout: or(in.HealthCheckTimeoutSeconds, 5),
		HealthyThreshold: or(in.HealthyThresholdCount, 5), UnhealthyThreshold: or(in.UnhealthyThresholdCount, 2),
	}
	if in.Matcher != nil && in.Matcher.HttpCode != nil {
		doc.HealthCheck.Matcher = *in.Matcher.HttpCode
	}
	if err := checkHealthCheck(doc.HealthCheck); err != nil {
		return nil, err
	}
	var err error
	if doc.Tags, err = tagMap(in.Tags); err != nil {
		return nil, err
	}
	out := &api.CreateTargetGroupOutput{}
	err = s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := insertGroup(tx, id, doc)
		if err == nil {
			out.TargetGroups = []api.TargetGroup{showGroup(row, nil)}
		}
		return err
	})
	return out, err
}

func insertGroup(tx store.Tx, id caller.Identity, doc TargetGroup) (*store.Row[TargetGroup], error) {
	q := mine(id)
	q.Parent = doc.Name
	same, err := groups.List(tx, q)
	if err != nil {
		return nil, err
	}
	for _, g := range same {
		if g.Doc.Protocol == doc.Protocol && g.Doc.Port == doc.Port && g.Doc.VPC == doc.VPC && g.Doc.TargetType == doc.TargetType && g.Doc.HealthCheck == doc.HealthCheck {
			return g, nil
		}
		return nil, awserr.New("DuplicateTargetGroupName", "A target group with the same name '%s' exists, but with different settings", doc.Name)
	}
	return groups.Insert(tx, id.Account, id.Region, arn(id, "targetgroup/"+doc.Name+"/"+newID()), doc, "Created", nil)
}

func showGroup(row *store.Row[TargetGroup], used map[string][]string) api.TargetGroup {
	g, h := &row.Doc, &row.Doc.HealthCheck
	arns := used[row.ID]
	if arns == nil {
		arns = []string{}
	}
	return api.TargetGroup{
		TargetGroupArn: new(row.ID), TargetGroupName: new(g.Name), Protocol: new(g.Protocol), Port: new(g.Port), VpcId: new(g.VPC),
		HealthCheckProtocol: new(h.Protocol), HealthCheckPort: new(h.Port), HealthCheckEnabled: new(true), HealthCheckIntervalSeconds: new(h.Interval),
		HealthCheckTimeoutSeconds: new(h.Timeout), HealthyThresholdCount: new(h.HealthyThreshold), UnhealthyThresholdCount: new(h.UnhealthyThreshold),
		HealthCheckPath: new(h.Path), Matcher: &api.Matcher{HttpCode: new(h.Matcher)}, LoadBalancerArns: arns, TargetType: new(g.TargetType),
		ProtocolVersion: new(g.ProtocolVersion), IpAddressType: new("ipv4"),
	}
}

func (s *Service) describeTargetGroups(ctx context.Context, in *api.DescribeTargetGroupsInput) (*api.DescribeTargetGroupsOutput, error) {
	out := &api.DescribeTargetGroupsOutput{TargetGroups: []api.TargetGroup{}}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		rows, err := groups.List(r, mine(id))
		if err != nil {
			return err
		}
		used, err := groupsInUse(r)
		if err != nil {
			return err
		}
		if in.LoadBalancerArn != nil {
			if _, err := getBalancer(r, id, *in.LoadBalancerArn); err != nil {
				return err
			}
			rows = usedBy(rows, used, *in.LoadBalancerArn)
		}
		if rows, err = pick(rows, in.TargetGroupArns, in.Names, func(g *TargetGroup) string { return g.Name }, "TargetGroupNotFound", "One or more target groups"); err != nil {
			return err
		}
		if rows, out.NextMarker, err = page(rows, in.Marker, in.PageSize); err != nil {
			return err
		}
		for _, row := range rows {
			out.TargetGroups = append(out.TargetGroups, showGroup(row, used))
		}
		return nil
	})
	return out, err
}

func usedBy(rows []*store.Row[TargetGroup], used map[string][]string, balancer string) []*store.Row[TargetGroup] {
	var out []*store.Row[TargetGroup]
	for _, row := range rows {
		for _, b := range used[row.ID] {
			if b == balancer {
				out = append(out, row)
			}
		}
	}
	return out
}

func (s *Service) modifyTargetGroup(ctx context.Context, in *api.ModifyTargetGroupInput) (*api.ModifyTargetGroupOutput, error) {
	out := &api.ModifyTargetGroupOutput{}
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getGroup(tx, id, ptr.Value(in.TargetGroupArn))
		if err != nil {
			return err
		}
		h := &row.Doc.HealthCheck
		*h = HealthCheck{
			Protocol: or(in.HealthCheckProtocol, h.Protocol), Port: or(in.HealthCheckPort, h.Port), Path: or(in.HealthCheckPath, h.Path), Matcher: h.Matcher,
			Interval: or(in.HealthCheckIntervalSeconds, h.Interval), Timeout: or(in.HealthCheckTimeoutSeconds, h.Timeout),
			HealthyThreshold: or(in.HealthyThresholdCount, h.HealthyThreshold), UnhealthyThreshold: or(in.UnhealthyThresholdCount, h.UnhealthyThreshold),
		}
		if in.Matcher != nil && in.Matcher.HttpCode != nil {
			h.Matcher = *in.Matcher.HttpCode
		}
		if err := checkHealthCheck(*h); err != nil {
			return err
		}
		used, err := groupsInUse(tx)
		if err != nil {
			return err
		}
		out.TargetGroups = []api.TargetGroup{showGroup(row, used)}
		return groups.Save(tx, row, "Modified", nil)
	})
	return out, err
}

func (s *Service) deleteTargetGroup(ctx context.Context, in *api.DeleteTargetGroupInput) (*api.DeleteTargetGroupOutput, error) {
	return &api.DeleteTargetGroupOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getGroup(tx, id, ptr.Value(in.TargetGroupArn))
		if awserr.Is(err, "TargetGroupNotFound") {
			return nil // deleting twice is no error
		}
		if err != nil {
			return err
		}
		used, err := groupsInUse(tx)
		if err != nil {
			return err
		}
		if len(used[row.ID]) > 0 {
			return awserr.New("ResourceInUse", "Target group '%s' is currently in use by a listener or a rule", row.ID)
		}
		ts, err := targets.List(tx, store.Query{Parent: row.ID})
		if err != nil {
			return err
		}
		for _, t := range ts {
			if err := targets.Delete(tx, t, eventDrained, nil); err != nil {
				return err
			}
		}
		return groups.Delete(tx, row, "Deleted", nil)
	})
}

func groupPairs(set map[string]string) []api.TargetGroupAttribute {
	var out []api.TargetGroupAttribute
	for _, p := range all(groupAttributes, set) {
		out = append(out, api.TargetGroupAttribute{Key: new(p.key), Value: new(p.value)})
	}
	return out
}

func (s *Service) describeTargetGroupAttributes(ctx context.Context, in *api.DescribeTargetGroupAttributesInput) (*api.DescribeTargetGroupAttributesOutput, error) {
	out := &api.DescribeTargetGroupAttributesOutput{}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		row, err := getGroup(r, id, ptr.Value(in.TargetGroupArn))
		if err == nil {
			out.Attributes = groupPairs(row.Doc.Attributes)
		}
		return err
	})
	return out, err
}

func (s *Service) modifyTargetGroupAttributes(ctx context.Context, in *api.ModifyTargetGroupAttributesInput) (*api.ModifyTargetGroupAttributesOutput, error) {
	var set []pair
	for _, a := range in.Attributes {
		set = append(set, pair{ptr.Value(a.Key), ptr.Value(a.Value)})
	}
	out := &api.ModifyTargetGroupAttributesOutput{}
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getGroup(tx, id, ptr.Value(in.TargetGroupArn))
		if err != nil {
			return err
		}
		if row.Doc.Attributes, err = merge(groupAttributes, row.Doc.Attributes, set); err != nil {
			return err
		}
		out.Attributes = groupPairs(row.Doc.Attributes)
		return groups.Save(tx, row, "Modified", nil)
	})
	return out, err
}
