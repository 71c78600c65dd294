package elbv2

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"strings"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// vpcBlock is the only network that targets can be in.
var vpcBlock = netip.MustParsePrefix("172.31.0.0/16")

func (s *Service) registerTargets(ctx context.Context, in *api.RegisterTargetsInput) (*api.RegisterTargetsOutput, error) {
	id := caller.From(ctx)
	var g *store.Row[TargetGroup]
	err := s.view(ctx, func(r store.Reader, id caller.Identity) (err error) {
		g, err = getGroup(r, id, ptr.Value(in.TargetGroupArn))
		return err
	})
	if err != nil {
		return nil, err
	}
	var docs []Target
	for _, t := range in.Targets {
		doc, err := s.resolve(ctx, id, g, t)
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return &api.RegisterTargetsOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		have, err := targets.Count(tx, store.Query{Parent: g.ID})
		if err != nil {
			return err
		}
		if have+len(docs) > limit("targets-per-application-load-balancer") {
			return awserr.New("TooManyTargets", "Target group '%s' has %d targets already", g.ID, have)
		}
		for _, doc := range docs {
			if err := register(tx, id, doc); err != nil {
				return err
			}
		}
		return nil
	})
}

// resolve finds the address of a target that is to be registered.
func (s *Service) resolve(ctx context.Context, id caller.Identity, g *store.Row[TargetGroup], t api.TargetDescription) (Target, error) {
	doc := Target{TargetGroup: g.ID, ID: ptr.Value(t.Id), Port: or(t.Port, g.Doc.Port), State: stateInitial, Reason: "Elb.RegistrationInProgress"}
	doc.Description = describe[doc.Reason]
	if doc.Port < 1 || doc.Port > 65535 {
		return doc, invalid("The port %d of target '%s' is not between 1 and 65535", doc.Port, doc.ID)
	}
	if g.Doc.TargetType == "ip" {
		addr, err := netip.ParseAddr(doc.ID)
		if err != nil {
			return doc, invalid("The IP address '%s' is not a valid IPv4 address", doc.ID)
		}
		if !vpcBlock.Contains(addr) {
			return doc, invalid("The IP address '%s' is not within %s, the VPC's block; other networks are not reached", doc.ID, vpcBlock)
		}
		doc.IP, doc.Zone = addr.String(), or(t.AvailabilityZone, "all")
		return doc, nil
	}
	if !isInstance(doc.ID) {
		return doc, invalid("The target '%s' is not an instance ID, which target group '%s' takes", doc.ID, g.Doc.Name)
	}
	inst, err := s.describeInstance(ctx, id.Account, id.Region, doc.ID)
	if e := awserr.As(err); e != nil && strings.HasPrefix(e.Code, "InvalidInstanceID") {
		return doc, awserr.New("InvalidTarget", "The following targets are not valid instances: '%s'", doc.ID)
	}
	if err != nil {
		return doc, err
	}
	if inst.State != "running" {
		return doc, awserr.New("InvalidTarget", "The following targets are not in a running state and cannot be registered: '%s'", doc.ID)
	}
	if inst.VPC != g.Doc.VPC {
		return doc, awserr.New("InvalidTarget", "The instance '%s' is in VPC %s, not in the target group's %s", doc.ID, inst.VPC, g.Doc.VPC)
	}
	doc.IP, doc.Zone = inst.IP, inst.Zone
	return doc, nil
}

func register(tx store.Tx, id caller.Identity, doc Target) error {
	row, err := targets.Get(tx, id.Account, id.Region, targetID(doc.TargetGroup, doc.ID, doc.Port))
	if errors.Is(err, store.ErrNotFound) {
		_, err = targets.Insert(tx, id.Account, id.Region, targetID(doc.TargetGroup, doc.ID, doc.Port), doc, "Registered", nil)
		return err
	}
	if err != nil {
		return err
	}
	if row.Doc.DrainingSince.IsZero() && row.Doc.IP == doc.IP {
		return nil // it is registered: its health stays as it is
	}
	row.Doc = doc
	return targets.Save(tx, row, "Registered", nil)
}

func (s *Service) deregisterTargets(ctx context.Context, in *api.DeregisterTargetsInput) (*api.DeregisterTargetsOutput, error) {
	return &api.DeregisterTargetsOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		g, err := getGroup(tx, id, ptr.Value(in.TargetGroupArn))
		if err != nil {
			return err
		}
		rows, err := targets.List(tx, store.Query{Parent: g.ID})
		if err != nil {
			return err
		}
		for _, t := range in.Targets {
			for _, row := range rows {
				if row.Doc.ID == ptr.Value(t.Id) && (t.Port == nil || *t.Port == row.Doc.Port) {
					if err := s.deregister(tx, row); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
}

func (s *Service) deregister(tx store.Tx, row *store.Row[Target]) error {
	t := &row.Doc
	if !t.DrainingSince.IsZero() {
		return nil
	}
	if t.IP == "" || t.State == stateUnused {
		// Nothing was ever sent to it, so there is nothing to wait for.
		return targets.Delete(tx, row, eventDrained, nil)
	}
	t.DrainingSince, t.State, t.Reason = s.deps.Clock.Now(), stateDraining, "Target.DeregistrationInProgress"
	t.Description = describe[t.Reason]
	return targets.Save(tx, row, "Deregistered", nil)
}

func (s *Service) describeTargetHealth(ctx context.Context, in *api.DescribeTargetHealthInput) (*api.DescribeTargetHealthOutput, error) {
	out := &api.DescribeTargetHealthOutput{TargetHealthDescriptions: []api.TargetHealthDescription{}}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		g, err := getGroup(r, id, ptr.Value(in.TargetGroupArn))
		if err != nil {
			return err
		}
		rows, err := targets.List(r, store.Query{Parent: g.ID})
		if err != nil {
			return err
		}
		if len(in.Targets) == 0 {
			for _, row := range rows {
				out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, showHealth(g, &row.Doc))
			}
			return nil
		}
		for _, want := range in.Targets {
			out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, healthOf(g, rows, want)...)
		}
		return nil
	})
	return out, err
}

// healthOf is the health of one target that was asked for by name; one that
// is not registered is no error.
func healthOf(g *store.Row[TargetGroup], rows []*store.Row[Target], want api.TargetDescription) (out []api.TargetHealthDescription) {
	for _, row := range rows {
		if row.Doc.ID == ptr.Value(want.Id) && (want.Port == nil || *want.Port == row.Doc.Port) {
			out = append(out, showHealth(g, &row.Doc))
		}
	}
	if out == nil {
		const reason = "Target.NotRegistered"
		out = append(out, api.TargetHealthDescription{
			Target:       &api.TargetDescription{Id: want.Id, Port: new(or(want.Port, g.Doc.Port))},
			TargetHealth: &api.TargetHealth{State: new(stateUnused), Reason: new(reason), Description: new(describe[reason])},
		})
	}
	return out
}

func showHealth(g *store.Row[TargetGroup], t *Target) api.TargetHealthDescription {
	port := g.Doc.HealthCheck.Port
	if port == "traffic-port" {
		port = strconv.FormatInt(t.Port, 10)
	}
	out := api.TargetHealthDescription{
		Target:           &api.TargetDescription{Id: new(t.ID), Port: new(t.Port)},
		HealthCheckPort:  new(port),
		TargetHealth:     &api.TargetHealth{State: new(t.State)},
		AnomalyDetection: &api.AnomalyDetection{Result: new("normal"), MitigationInEffect: new("no")},
	}
	if g.Doc.TargetType == "ip" {
		out.Target.AvailabilityZone = new(t.Zone)
	}
	if t.Reason != "" {
		out.TargetHealth.Reason, out.TargetHealth.Description = new(t.Reason), new(t.Description)
	}
	return out
}
