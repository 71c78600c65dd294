package codedeploy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"slipway/internal/api/cloudwatch"
	api "slipway/internal/api/codedeploy"
	"slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

func callerOf(ctx context.Context) caller.Identity { return caller.From(ctx) }

// cutTargetID splits "<deployment>/<instance>".
func cutTargetID(id string) (deployment, instance string, ok bool) { return strings.Cut(id, "/") }

// cutTargetHealthID splits the id of an elbv2:target row,
// "<target group ARN>|<target>|<port>".
func cutTargetHealthID(id string) (arn, target string, ok bool) {
	arn, rest, ok := strings.Cut(id, "|")
	target, _, _ = strings.Cut(rest, "|")
	return arn, target, ok
}

// trafficSight is what became of a target's traffic event.
type trafficSight struct {
	event  string
	ports  map[string][]int64 // set: remember these before anything else
	done   bool
	failed *Diagnostics
	note   string // what it waits for
}

// registration is one entry of a target in a target group.
type registration struct {
	port   int64
	state  string
	reason string
}

// in says that the registration stands: it is neither draining nor gone.
func (r registration) in() bool {
	return r.state != "draining" && r.reason != "Target.NotRegistered" && r.reason != "Target.DeregistrationInProgress"
}

// traffic does the server's own events: it takes targets out of their target
// groups and puts them back. Every call may be repeated.
func (s *Service) traffic(ctx context.Context, d *Deployment, rows []*targetRow) (map[string]trafficSight, error) {
	var open []*Target
	for _, row := range rows {
		if e := row.Doc.current(); e != nil && serverSide(e.Name) && !e.ReadyAt.IsZero() {
			open = append(open, &row.Doc)
		}
	}
	if len(open) == 0 || d.Stop != nil {
		return nil, nil
	}
	health := map[string]map[string][]registration{} // target group, instance
	sights := map[string]trafficSight{}
	for _, tg := range d.TargetGroups {
		entries, err := s.registrations(ctx, tg.ARN)
		if awserr.Is(err, "TargetGroupNotFound") {
			for _, t := range open {
				sights[t.Instance] = trafficSight{event: t.current().Name, failed: &Diagnostics{
					ErrorCode: api.LifecycleErrorCodeUnknownError, Message: fmt.Sprintf("the target group %s does not exist any more", tg.Name),
				}}
			}
			return sights, nil
		}
		if err != nil {
			return nil, err
		}
		health[tg.ARN] = entries
	}
	for _, t := range open {
		var sight trafficSight
		var err error
		if t.current().Name == eventBlock {
			sight, err = s.block(ctx, d, t, health)
		} else {
			sight, err = s.allow(ctx, d, t, health)
		}
		if e := awserr.As(err); e != nil && (e.Code == "InvalidTarget" || e.Code == "TooManyTargets") {
			sight, err = trafficSight{failed: &Diagnostics{ErrorCode: api.LifecycleErrorCodeUnknownError, Message: e.Message}}, nil
		}
		if err != nil {
			return nil, err
		}
		sight.event = t.current().Name
		sights[t.Instance] = sight
	}
	return sights, nil
}

func (s *Service) registrations(ctx context.Context, arn string) (map[string][]registration, error) {
	out, err := dispatch.Call(ctx, s.mux, elbv2.OpDescribeTargetHealth, &elbv2.DescribeTargetHealthInput{TargetGroupArn: &arn})
	if err != nil {
		return nil, fmt.Errorf("describe target health of %s: %w", arn, err)
	}
	entries := map[string][]registration{}
	for _, h := range out.TargetHealthDescriptions {
		if h.Target == nil {
			continue
		}
		r := registration{}
		if h.Target.Port != nil {
			r.port = *h.Target.Port
		}
		if h.TargetHealth != nil {
			r.state, r.reason = ptr.Value(h.TargetHealth.State), ptr.Value(h.TargetHealth.Reason)
		}
		entries[ptr.Value(h.Target.Id)] = append(entries[ptr.Value(h.Target.Id)], r)
	}
	return entries, nil
}

// block takes a target out: first its ports are remembered, then it is
// deregistered, then the requests under way are waited for.
func (s *Service) block(ctx context.Context, d *Deployment, t *Target, health map[string]map[string][]registration) (trafficSight, error) {
	if t.Ports == nil {
		ports := map[string][]int64{}
		for _, tg := range d.TargetGroups {
			for _, r := range health[tg.ARN][t.Instance] {
				if r.in() && r.port != 0 {
					ports[tg.ARN] = append(ports[tg.ARN], r.port)
				}
			}
			if last := t.LastPorts[tg.ARN]; len(ports[tg.ARN]) == 0 && len(last) > 0 {
				ports[tg.ARN] = last
			}
		}
		return trafficSight{ports: ports}, nil
	}
	sight := trafficSight{done: true}
	for _, tg := range d.TargetGroups {
		var leave []elbv2.TargetDescription
		for _, r := range health[tg.ARN][t.Instance] {
			switch {
			case r.in():
				leave = append(leave, describeTarget(t.Instance, r.port))
			case r.state == "draining":
				sight.done, sight.note = false, fmt.Sprintf("requests under way are still draining from target group %s", tg.Name)
			}
		}
		if len(leave) == 0 {
			continue
		}
		sight.done, sight.note = false, "it was just deregistered from target group "+tg.Name
		arn := tg.ARN
		if _, err := dispatch.Call(ctx, s.mux, elbv2.OpDeregisterTargets, &elbv2.DeregisterTargetsInput{TargetGroupArn: &arn, Targets: leave}); err != nil {
			return sight, fmt.Errorf("deregister %s from target group %s: %w", t.Instance, tg.Name, err)
		}
	}
	return sight, nil
}

func describeTarget(instance string, port int64) elbv2.TargetDescription {
	d := elbv2.TargetDescription{Id: &instance}
	if port != 0 {
		d.Port = &port
	}
	return d
}

// allow puts a target back on the ports it was on, or the target group's
// own, and waits until it is healthy there. Auto Scaling may register a
// launching instance again later: that is harmless.
func (s *Service) allow(ctx context.Context, d *Deployment, t *Target, health map[string]map[string][]registration) (trafficSight, error) {
	sight := trafficSight{done: true}
	for _, tg := range d.TargetGroups {
		ports := t.Ports[tg.ARN]
		if len(ports) == 0 {
			ports = []int64{0}
		}
		entries := health[tg.ARN][t.Instance]
		var join []elbv2.TargetDescription
		for _, port := range ports {
			i := slices.IndexFunc(entries, func(r registration) bool { return r.in() && (port == 0 || r.port == port) })
			switch {
			case i < 0:
				join = append(join, describeTarget(t.Instance, port))
			case entries[i].state != "healthy":
				sight.done = false
				sight.note = fmt.Sprintf("it is %s in target group %s", entries[i].state, tg.Name)
				if entries[i].reason != "" {
					sight.note += " (" + entries[i].reason + ")"
				}
			}
		}
		if len(join) == 0 {
			continue
		}
		sight.done, sight.note = false, "it was just registered with target group "+tg.Name
		arn := tg.ARN
		if _, err := dispatch.Call(ctx, s.mux, elbv2.OpRegisterTargets, &elbv2.RegisterTargetsInput{TargetGroupArn: &arn, Targets: join}); err != nil {
			return sight, fmt.Errorf("register %s with target group %s: %w", t.Instance, tg.Name, err)
		}
	}
	return sight, nil
}

// traffic brings a sight into the target, if its event is still current.
func (c *change) traffic(t *Target, sight trafficSight) {
	e := t.current()
	if e == nil || e.Name != sight.event {
		return
	}
	switch {
	case sight.ports != nil && t.Ports == nil:
		t.Ports, t.UpdatedAt = sight.ports, c.now
		c.touch(t, typeTrafficNoted, nil)
	case sight.failed != nil:
		t.breakOff(*sight.failed, c.now)
		c.touch(t, t.Status, e)
	case sight.done:
		t.finish(false, false, &Diagnostics{ErrorCode: api.LifecycleErrorCodeSuccess}, c.now)
		c.touch(t, moveKind(t), e)
	}
}

func watchesAlarm(c *api.AlarmConfiguration, name string) bool {
	return c != nil && ptr.Value(c.Enabled) && slices.ContainsFunc(c.Alarms, func(a api.Alarm) bool { return ptr.Value(a.Name) == name })
}

// alarmed looks at the deployment's alarms and returns the stop that one in
// ALARM calls for (AWS: "Monitoring deployments with CloudWatch alarms"). It
// asks again while CloudWatch cannot tell, unless that is to be ignored.
func (s *Service) alarmed(ctx context.Context, d *Deployment) *Stop {
	if d.Alarms == nil || !ptr.Value(d.Alarms.Enabled) || len(d.Alarms.Alarms) == 0 {
		return nil
	}
	var names []string
	for _, a := range d.Alarms.Alarms {
		names = append(names, ptr.Value(a.Name))
	}
	stop := func(format string, args ...any) *Stop {
		return &Stop{At: s.clock.Now(), Trigger: api.AutoRollbackEventDeploymentStopOnAlarm,
			Cause: ErrorInfo{api.ErrorCodeAlarmActive, fmt.Sprintf(format, args...)}}
	}
	out, err := dispatch.Call(ctx, s.mux, cloudwatch.OpDescribeAlarms, &cloudwatch.DescribeAlarmsInput{AlarmNames: names, AlarmTypes: []string{"MetricAlarm", "CompositeAlarm"}})
	if err != nil {
		if ptr.Value(d.Alarms.IgnorePollAlarmFailure) {
			return nil
		}
		return stop("The alarms of the deployment could not be read, so it was stopped: %v", err)
	}
	states := map[string]string{}
	for _, a := range out.MetricAlarms {
		states[ptr.Value(a.AlarmName)] = ptr.Value(a.StateValue)
	}
	for _, a := range out.CompositeAlarms {
		states[ptr.Value(a.AlarmName)] = ptr.Value(a.StateValue)
	}
	for _, name := range names {
		switch state, ok := states[name]; {
		case state == "ALARM":
			return stop("The alarm %s is active, so the deployment was stopped.", name)
		case !ok && !ptr.Value(d.Alarms.IgnorePollAlarmFailure):
			return stop("The alarm %s of the deployment does not exist, so its state cannot be watched and the deployment was stopped.", name)
		}
	}
	return nil
}
