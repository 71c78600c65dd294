package elbv2

import (
	"context"
	"strings"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// protocol checks a listener's protocol and its certificates.
func checkProtocol(protocol string, certificates []api.Certificate) error {
	switch protocol {
	case "HTTP":
		if len(certificates) > 0 {
			return awserr.New("InvalidConfigurationRequest", "A listener with the protocol HTTP takes no certificates")
		}
		return nil
	case "HTTPS":
		return awserr.New("UnsupportedProtocol", "Slipway has no certificate store yet, so HTTPS listeners cannot be created; use HTTP, or end TLS in front of Slipway")
	}
	return awserr.New("UnsupportedProtocol", "The protocol '%s' is not supported by application load balancers; use HTTP or HTTPS", protocol)
}

// checkGroups makes sure that the target groups of actions exist and serve no
// other load balancer.
func checkGroups(r store.Reader, id caller.Identity, balancer string, actions []api.Action) error {
	used, err := groupsInUse(r)
	if err != nil {
		return err
	}
	for _, a := range actions {
		for _, arn := range groupsOf(a) {
			if _, err := getGroup(r, id, arn); err != nil {
				return err
			}
			for _, other := range used[arn] {
				if other != balancer {
					return awserr.New("TargetGroupAssociationLimit", "Target group '%s' is associated with load balancer '%s' already; it can serve one only", arn, other)
				}
			}
		}
	}
	return nil
}

func (s *Service) createListener(ctx context.Context, in *api.CreateListenerInput) (*api.CreateListenerOutput, error) {
	doc := Listener{LoadBalancer: ptr.Value(in.LoadBalancerArn), Protocol: ptr.Value(in.Protocol), Port: ptr.Value(in.Port)}
	if doc.Port < 1 || doc.Port > 65535 {
		return nil, invalid("The listener port %d is not between 1 and 65535", doc.Port)
	}
	if err := checkProtocol(doc.Protocol, in.Certificates); err != nil {
		return nil, err
	}
	var err error
	if doc.DefaultActions, err = normalizeActions(in.DefaultActions); err != nil {
		return nil, err
	}
	if doc.Tags, err = tagMap(in.Tags); err != nil {
		return nil, err
	}
	var row *store.Row[Listener]
	err = s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err = insertListener(tx, id, doc)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.open(ctx, row); err != nil {
		return nil, err
	}
	return &api.CreateListenerOutput{Listeners: []api.Listener{showListener(row)}}, nil
}

func insertListener(tx store.Tx, id caller.Identity, doc Listener) (*store.Row[Listener], error) {
	b, err := getBalancer(tx, id, doc.LoadBalancer)
	if err != nil {
		return nil, err
	}
	if err := checkGroups(tx, id, b.ID, doc.DefaultActions); err != nil {
		return nil, err
	}
	if err := portFree(tx, b.ID, "", doc.Port); err != nil {
		return nil, err
	}
	n, err := listeners.Count(tx, store.Query{Parent: b.ID})
	if err != nil {
		return nil, err
	}
	if n >= limit("listeners-per-application-load-balancer") {
		return nil, awserr.New("TooManyListeners", "Load balancer '%s' has %d listeners already", b.ID, n)
	}
	return listeners.Insert(tx, id.Account, id.Region, arn(id, "listener/"+tail(b.ID)+"/"+newID()), doc, "Created", nil)
}

func portFree(r store.Reader, balancer, self string, port int64) error {
	ls, err := listeners.List(r, store.Query{Parent: balancer})
	if err != nil {
		return err
	}
	for _, l := range ls {
		if l.Doc.Port == port && l.ID != self {
			return awserr.New("DuplicateListener", "A listener already exists on port %d for load balancer '%s'", port, balancer)
		}
	}
	return nil
}

// open sends the configuration at once, so that a new listener whose port is
// taken on this machine is an error of the call and leaves nothing behind.
func (s *Service) open(ctx context.Context, row *store.Row[Listener]) error {
	applied, err := s.apply(ctx)
	if err != nil {
		// The lb process is being restarted: the engine applies it then, and
		// the listener's state shows whether it worked.
		s.deps.Log.Warn("elbv2: listener not yet open", "listener", row.ID, "error", err)
		return nil
	}
	why := applied.ListenerErrors[row.ID]
	if why == "" {
		return nil
	}
	err = s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		fresh, err := getListener(tx, id, row.ID)
		if err != nil {
			return err
		}
		return dropListener(tx, fresh)
	})
	if err != nil {
		return err
	}
	return awserr.New("InvalidConfigurationRequest", "The listener cannot be opened on this machine: %s. End what uses the port, or start the server with another --port-shift or --lb-address.", why)
}

func dropListener(tx store.Tx, l *store.Row[Listener]) error {
	rs, err := rules.List(tx, store.Query{Parent: l.ID})
	if err != nil {
		return err
	}
	for _, r := range rs {
		if err := rules.Delete(tx, r, "Deleted", nil); err != nil {
			return err
		}
	}
	return listeners.Delete(tx, l, "Deleted", nil)
}

func showListener(row *store.Row[Listener]) api.Listener {
	l := &row.Doc
	return api.Listener{ListenerArn: new(row.ID), LoadBalancerArn: new(l.LoadBalancer), Port: new(l.Port), Protocol: new(l.Protocol), DefaultActions: l.DefaultActions}
}

func (s *Service) describeListeners(ctx context.Context, in *api.DescribeListenersInput) (*api.DescribeListenersOutput, error) {
	out := &api.DescribeListenersOutput{Listeners: []api.Listener{}}
	if in.LoadBalancerArn == nil && len(in.ListenerArns) == 0 {
		return nil, invalid("You must specify either listener ARNs or a load balancer ARN")
	}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		q := mine(id)
		if in.LoadBalancerArn != nil {
			if _, err := getBalancer(r, id, *in.LoadBalancerArn); err != nil {
				return err
			}
			q.Parent = *in.LoadBalancerArn
		}
		rows, err := listeners.List(r, q)
		if err != nil {
			return err
		}
		if rows, err = pick(rows, in.ListenerArns, nil, func(*Listener) string { return "" }, "ListenerNotFound", "One or more listeners"); err != nil {
			return err
		}
		if rows, out.NextMarker, err = page(rows, in.Marker, in.PageSize); err != nil {
			return err
		}
		for _, row := range rows {
			out.Listeners = append(out.Listeners, showListener(row))
		}
		return nil
	})
	return out, err
}

func (s *Service) modifyListener(ctx context.Context, in *api.ModifyListenerInput) (*api.ModifyListenerOutput, error) {
	var row *store.Row[Listener]
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) (err error) {
		if row, err = getListener(tx, id, ptr.Value(in.ListenerArn)); err != nil {
			return err
		}
		l := &row.Doc
		if in.Protocol != nil {
			l.Protocol = *in.Protocol
		}
		if err := checkProtocol(l.Protocol, in.Certificates); err != nil {
			return err
		}
		if in.Port != nil {
			l.Port = *in.Port
			if err := portFree(tx, l.LoadBalancer, row.ID, l.Port); err != nil {
				return err
			}
		}
		if in.DefaultActions != nil {
			if l.DefaultActions, err = normalizeActions(in.DefaultActions); err != nil {
				return err
			}
			if err := checkGroups(tx, id, l.LoadBalancer, l.DefaultActions); err != nil {
				return err
			}
		}
		return listeners.Save(tx, row, "Modified", nil)
	})
	if err != nil {
		return nil, err
	}
	return &api.ModifyListenerOutput{Listeners: []api.Listener{showListener(row)}}, nil
}

func (s *Service) deleteListener(ctx context.Context, in *api.DeleteListenerInput) (*api.DeleteListenerOutput, error) {
	return &api.DeleteListenerOutput{}, s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getListener(tx, id, ptr.Value(in.ListenerArn))
		if err != nil {
			return err
		}
		return dropListener(tx, row)
	})
}

func listenerPairs(set map[string]string) []api.ListenerAttribute {
	var out []api.ListenerAttribute
	for _, p := range all(listenerAttributes, set) {
		out = append(out, api.ListenerAttribute{Key: new(p.key), Value: new(p.value)})
	}
	return out
}

func (s *Service) describeListenerAttributes(ctx context.Context, in *api.DescribeListenerAttributesInput) (*api.DescribeListenerAttributesOutput, error) {
	out := &api.DescribeListenerAttributesOutput{}
	err := s.view(ctx, func(r store.Reader, id caller.Identity) error {
		row, err := getListener(r, id, ptr.Value(in.ListenerArn))
		if err == nil {
			out.Attributes = listenerPairs(row.Doc.Attributes)
		}
		return err
	})
	return out, err
}

func (s *Service) modifyListenerAttributes(ctx context.Context, in *api.ModifyListenerAttributesInput) (*api.ModifyListenerAttributesOutput, error) {
	var set []pair
	for _, a := range in.Attributes {
		set = append(set, pair{ptr.Value(a.Key), ptr.Value(a.Value)})
	}
	out := &api.ModifyListenerAttributesOutput{}
	err := s.update(ctx, func(tx store.Tx, id caller.Identity) error {
		row, err := getListener(tx, id, ptr.Value(in.ListenerArn))
		if err != nil {
			return err
		}
		if row.Doc.Attributes, err = merge(listenerAttributes, row.Doc.Attributes, set); err != nil {
			return err
		}
		out.Attributes = listenerPairs(row.Doc.Attributes)
		return listeners.Save(tx, row, "Modified", nil)
	})
	return out, err
}

func (s *Service) describeListenerCertificates(ctx context.Context, in *api.DescribeListenerCertificatesInput) (*api.DescribeListenerCertificatesOutput, error) {
	out := &api.DescribeListenerCertificatesOutput{Certificates: []api.Certificate{}}
	return out, s.view(ctx, func(r store.Reader, id caller.Identity) error {
		_, err := getListener(r, id, ptr.Value(in.ListenerArn))
		return err
	})
}

// ruleARN derives a rule's ARN from its listener's.
func ruleARN(listener, id string) string {
	return strings.Replace(listener, ":listener/", ":listener-rule/", 1) + "/" + id
}
