package elbv2

import (
	"strconv"

	api "slipway/internal/api/elbv2"
	"slipway/internal/aws/ptr"
	"slipway/internal/lb"
	"slipway/internal/store"
)

func (s *Service) lbListener(b *store.Row[LoadBalancer], l *store.Row[Listener], rs []*store.Row[Rule]) lb.Listener {
	out := lb.Listener{
		ARN: l.ID, Protocol: l.Doc.Protocol, Address: s.listenAddress(&b.Doc, &l.Doc), Port: int(l.Doc.Port),
		DefaultActions: lbActions(l.Doc.DefaultActions), SSLPolicy: l.Doc.SSLPolicy, Attributes: l.Doc.Attributes,
	}
	for _, r := range rs {
		out.Rules = append(out.Rules, lb.Rule{ARN: r.ID, Priority: int(r.Doc.Priority), Conditions: lbConditions(r.Doc.Conditions), Actions: lbActions(r.Doc.Actions)})
	}
	return out
}

func lbActions(in []api.Action) []lb.Action {
	var out []lb.Action
	for _, a := range in {
		la := lb.Action{Type: ptr.Value(a.Type)}
		switch la.Type {
		case "forward":
			f := &lb.Forward{}
			for _, g := range a.ForwardConfig.TargetGroups {
				f.TargetGroups = append(f.TargetGroups, lb.WeightedGroup{ARN: ptr.Value(g.TargetGroupArn), Weight: int(ptr.Value(g.Weight))})
			}
			if st := a.ForwardConfig.TargetGroupStickinessConfig; st != nil {
				f.StickinessEnabled, f.StickinessSeconds = ptr.Value(st.Enabled), int(ptr.Value(st.DurationSeconds))
			}
			la.Forward = f
		case "redirect":
			c := a.RedirectConfig
			la.Redirect = &lb.Redirect{StatusCode: ptr.Value(c.StatusCode), Protocol: ptr.Value(c.Protocol), Host: ptr.Value(c.Host), Port: ptr.Value(c.Port), Path: ptr.Value(c.Path), Query: c.Query}
		case "fixed-response":
			c := a.FixedResponseConfig
			code, _ := strconv.Atoi(ptr.Value(c.StatusCode)) // checked when the action was stored
			la.FixedResponse = &lb.FixedResponse{StatusCode: code, ContentType: ptr.Value(c.ContentType), Body: ptr.Value(c.MessageBody)}
		}
		out = append(out, la)
	}
	return out
}

func lbConditions(in []api.RuleCondition) []lb.Condition {
	var out []lb.Condition
	for _, c := range in {
		lc := lb.Condition{Field: ptr.Value(c.Field), Values: c.Values, RegexValues: c.RegexValues}
		switch lc.Field {
		case "host-header":
			lc.Values, lc.RegexValues = c.HostHeaderConfig.Values, c.HostHeaderConfig.RegexValues
		case "path-pattern":
			lc.Values, lc.RegexValues = c.PathPatternConfig.Values, c.PathPatternConfig.RegexValues
		case "http-header":
			lc.HeaderName, lc.Values, lc.RegexValues = ptr.Value(c.HttpHeaderConfig.HttpHeaderName), c.HttpHeaderConfig.Values, c.HttpHeaderConfig.RegexValues
		case "http-request-method":
			lc.Values = c.HttpRequestMethodConfig.Values
		case "source-ip":
			lc.Values = c.SourceIpConfig.Values
		case "query-string":
			for _, q := range c.QueryStringConfig.Values {
				lc.Query = append(lc.Query, lb.QueryString{Key: ptr.Value(q.Key), Value: ptr.Value(q.Value)})
			}
		}
		out = append(out, lc)
	}
	return out
}

func lbGroup(g *store.Row[TargetGroup], ts []*store.Row[Target]) lb.TargetGroup {
	hc := g.Doc.HealthCheck
	out := lb.TargetGroup{
		ARN: g.ID, Name: g.Doc.Name, Protocol: g.Doc.Protocol, ProtocolVersion: g.Doc.ProtocolVersion, Port: int(g.Doc.Port), Attributes: g.Doc.Attributes,
		HealthCheck: lb.HealthCheck{Protocol: hc.Protocol, Port: hc.Port, Path: hc.Path, Matcher: hc.Matcher, IntervalSeconds: int(hc.Interval),
			TimeoutSeconds: int(hc.Timeout), HealthyThreshold: int(hc.HealthyThreshold), UnhealthyThreshold: int(hc.UnhealthyThreshold)},
	}
	for _, t := range ts {
		if t.Doc.IP == "" {
			continue
		}
		lt := lb.Target{ID: t.Doc.ID, IP: t.Doc.IP, Port: int(t.Doc.Port), Zone: t.Doc.Zone, State: lb.Registered}
		if !t.Doc.DrainingSince.IsZero() {
			lt.State, lt.DrainingSince = lb.Draining, t.Doc.DrainingSince
		}
		out.Targets = append(out.Targets, lt)
	}
	return out
}

// groupsInUse maps each target group that a listener or rule names to the
// load balancers that do.
func groupsInUse(r store.Reader) (map[string][]string, error) {
	used := map[string][]string{}
	add := func(balancer string, actions []api.Action) {
		for _, a := range actions {
			for _, arn := range groupsOf(a) {
				known := false
				for _, b := range used[arn] {
					known = known || b == balancer
				}
				if !known {
					used[arn] = append(used[arn], balancer)
				}
			}
		}
	}
	ls, err := listeners.List(r, store.Query{})
	if err != nil {
		return nil, err
	}
	of := map[string]string{}
	for _, l := range ls {
		of[l.ID] = l.Doc.LoadBalancer
		add(l.Doc.LoadBalancer, l.Doc.DefaultActions)
	}
	rs, err := rules.List(r, store.Query{})
	for _, rule := range rs {
		add(of[rule.Doc.Listener], rule.Doc.Actions)
	}
	return used, err
}

// groupsOf are the target groups that an action forwards to.
func groupsOf(a api.Action) []string {
	var out []string
	if a.ForwardConfig != nil {
		for _, g := range a.ForwardConfig.TargetGroups {
			out = append(out, ptr.Value(g.TargetGroupArn))
		}
	}
	return out
}
