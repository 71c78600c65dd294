package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/codepipeline"
	"slipway/internal/api/ec2"
	"slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
)

func statusCommand(o *options) *cobra.Command {
	var asJSON, watch bool
	c := &cobra.Command{
		Use: "status", Short: "Pipelines, deployments, instances by zone, targets, alarms: one screen", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			scr := newScreen(os.Stdout)
			if !watch {
				return showStatus(cmd.Context(), s, scr, asJSON)
			}
			return watchStatus(cmd.Context(), s, scr)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "keep showing it")
	return c
}

// overview is everything that status shows.
type overview struct {
	Endpoint  string         `json:"endpoint"`
	Pipelines []*view        `json:"pipelines"`
	Groups    []groupView    `json:"groups"`
	Balancers []balancerView `json:"loadBalancers"`
	Alarms    []alarmView    `json:"alarms"`
}

type groupView struct {
	Name              string
	Min, Desired, Max int64
	Instances         []instanceView
	LastActivity      string
}

type instanceView struct{ ID, Zone, Address, Lifecycle, Health, Target, Version string }

type balancerView struct {
	Name, URL, Error string
	Targets          []string
}

type alarmView struct{ Name, State, Reason string }

func gather(ctx context.Context, s *session) (*overview, error) {
	ov := &overview{Endpoint: s.endpoint}
	pipes, err := call(ctx, s, codepipeline.OpListPipelines, &codepipeline.ListPipelinesInput{})
	if err != nil {
		return nil, err
	}
	for _, p := range pipes.Pipelines {
		v, err := observe(ctx, s, ptr.Value(p.Name))
		if err != nil {
			return nil, err
		}
		ov.Pipelines = append(ov.Pipelines, v)
	}
	health, err := ov.balancers(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := ov.groups(ctx, s, health); err != nil {
		return nil, err
	}
	alarms, err := call(ctx, s, cloudwatch.OpDescribeAlarms, &cloudwatch.DescribeAlarmsInput{})
	if err != nil && !awserr.Is(err, "NotImplemented") {
		return nil, err
	}
	if err == nil {
		for _, a := range alarms.MetricAlarms {
			ov.Alarms = append(ov.Alarms, alarmView{ptr.Value(a.AlarmName), ptr.Value(a.StateValue), ptr.Value(a.StateReason)})
		}
		for _, a := range alarms.CompositeAlarms {
			ov.Alarms = append(ov.Alarms, alarmView{ptr.Value(a.AlarmName), ptr.Value(a.StateValue), ptr.Value(a.StateReason)})
		}
	}
	return ov, nil
}

// balancers gathers load balancers, and the state of every target by id.
func (ov *overview) balancers(ctx context.Context, s *session) (map[string]string, error) {
	health := map[string]string{}
	lbs, err := call(ctx, s, elbv2.OpDescribeLoadBalancers, &elbv2.DescribeLoadBalancersInput{})
	if err != nil {
		return nil, err
	}
	listeners, err := s.listeners(ctx)
	if err != nil {
		return nil, err
	}
	for _, lb := range lbs.LoadBalancers {
		bv := balancerView{Name: ptr.Value(lb.LoadBalancerName)}
		for _, l := range listeners {
			if l.LoadBalancerARN == ptr.Value(lb.LoadBalancerArn) {
				bv.URL, bv.Error = l.url(), l.Error
			}
		}
		groups, err := call(ctx, s, elbv2.OpDescribeTargetGroups, &elbv2.DescribeTargetGroupsInput{LoadBalancerArn: lb.LoadBalancerArn})
		if err != nil {
			return nil, err
		}
		for _, tg := range groups.TargetGroups {
			th, err := call(ctx, s, elbv2.OpDescribeTargetHealth, &elbv2.DescribeTargetHealthInput{TargetGroupArn: tg.TargetGroupArn})
			if err != nil {
				return nil, err
			}
			for _, d := range th.TargetHealthDescriptions {
				state := ptr.Value(d.TargetHealth.State)
				if desc := ptr.Value(d.TargetHealth.Description); desc != "" {
					state += " (" + desc + ")"
				}
				health[ptr.Value(d.Target.Id)] = state
				bv.Targets = append(bv.Targets, ptr.Value(d.Target.Id)+" "+state)
			}
		}
		ov.Balancers = append(ov.Balancers, bv)
	}
	return health, nil
}

func (ov *overview) groups(ctx context.Context, s *session, health map[string]string) error {
	groups, err := call(ctx, s, autoscaling.OpDescribeAutoScalingGroups, &autoscaling.DescribeAutoScalingGroupsInput{})
	if err != nil {
		return err
	}
	for _, g := range groups.AutoScalingGroups {
		gv := groupView{Name: ptr.Value(g.AutoScalingGroupName), Min: ptr.Value(g.MinSize), Max: ptr.Value(g.MaxSize), Desired: ptr.Value(g.DesiredCapacity)}
		var ids []string
		for _, i := range g.Instances {
			ids = append(ids, ptr.Value(i.InstanceId))
		}
		addresses, err := addresses(ctx, s, ids)
		if err != nil {
			return err
		}
		for _, i := range g.Instances {
			id := ptr.Value(i.InstanceId)
			gv.Instances = append(gv.Instances, instanceView{ID: id, Zone: ptr.Value(i.AvailabilityZone), Lifecycle: ptr.Value(i.LifecycleState),
				Health: ptr.Value(i.HealthStatus), Target: health[id], Address: addresses[id]})
		}
		sort.Slice(gv.Instances, func(a, b int) bool { return gv.Instances[a].Zone < gv.Instances[b].Zone })
		acts, err := call(ctx, s, autoscaling.OpDescribeScalingActivities, &autoscaling.DescribeScalingActivitiesInput{AutoScalingGroupName: g.AutoScalingGroupName, MaxRecords: new(int64(1))})
		if err == nil && len(acts.Activities) > 0 {
			a := acts.Activities[0]
			gv.LastActivity = ptr.Value(a.Description) + ": " + ptr.Value(a.StatusCode)
			if m := ptr.Value(a.StatusMessage); m != "" {
				gv.LastActivity += ": " + m
			}
		}
		ov.Groups = append(ov.Groups, gv)
	}
	return nil
}

func addresses(ctx context.Context, s *session, ids []string) (map[string]string, error) {
	out := map[string]string{}
	if len(ids) == 0 {
		return out, nil
	}
	res, err := call(ctx, s, ec2.OpDescribeInstances, &ec2.DescribeInstancesInput{Filters: []ec2.Filter{{Name: new("instance-id"), Values: ids}}})
	if err != nil {
		return nil, err
	}
	for _, r := range res.Reservations {
		for _, i := range r.Instances {
			out[ptr.Value(i.InstanceId)] = ptr.Value(i.PrivateIpAddress)
		}
	}
	return out, nil
}

func showStatus(ctx context.Context, s *session, scr *screen, asJSON bool) error {
	ov, err := gather(ctx, s)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(ov)
	}
	for _, l := range ov.render(scr) {
		fmt.Fprintln(scr.out, l)
	}
	return nil
}

func watchStatus(ctx context.Context, s *session, scr *screen) error {
	for {
		ov, err := gather(ctx, s)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			scr.region([]string{scr.paint(red, err.Error())})
		} else {
			scr.region(ov.render(scr))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (ov *overview) render(s *screen) []string {
	lines := []string{s.paint(bold, "slipway") + "  " + ov.Endpoint}
	head := func(title string) { lines = append(lines, "", s.paint(bold, title)) }
	head("Pipelines")
	for _, p := range ov.Pipelines {
		line := fmt.Sprintf("  %s %-16s %-10s", s.mark(p.Status), p.Pipeline, p.Status)
		for _, st := range p.Stages {
			line += "  " + s.mark(st.Status) + " " + st.Name
		}
		lines = append(lines, line)
		for _, st := range p.Stages {
			if st.Build != nil && st.Build.Status == "IN_PROGRESS" {
				lines = append(lines, "      "+s.paint(cyan, st.Build.Phase)+"  "+s.paint(dim, st.Build.LastLine))
			}
			if st.Deploy != nil && (st.Status == "InProgress" || st.Status == "Failed") {
				for _, t := range st.Deploy.Targets {
					lines = append(lines, t.render(s))
				}
			}
			if st.Error != "" {
				for l := range strings.Lines(st.Error) {
					lines = append(lines, "      "+s.paint(red, strings.TrimRight(l, "\n")))
				}
			}
		}
	}
	head("Auto Scaling groups")
	for _, g := range ov.Groups {
		lines = append(lines, fmt.Sprintf("  %s  min %d, desired %d, max %d", g.Name, g.Min, g.Desired, g.Max))
		for _, i := range g.Instances {
			lines = append(lines, fmt.Sprintf("    %s %-12s %s  %-15s %-18s %-10s %s", s.mark(i.Lifecycle), i.Zone, i.ID, i.Address, i.Lifecycle, i.Health, s.paint(dim, "target "+orDash(i.Target))))
		}
		if g.LastActivity != "" {
			lines = append(lines, "    "+s.paint(dim, g.LastActivity))
		}
	}
	head("Load balancers")
	for _, b := range ov.Balancers {
		lines = append(lines, fmt.Sprintf("  %s  %s  %s", b.Name, s.paint(cyan, b.URL), s.paint(red, b.Error)))
	}
	head("Alarms")
	for _, a := range ov.Alarms {
		lines = append(lines, fmt.Sprintf("  %s %-40s %-18s %s", s.mark(a.State), a.Name, a.State, s.paint(dim, a.Reason)))
	}
	return lines
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

// listener is where a load balancer's listener can be reached on this machine.
type listener struct {
	LoadBalancerARN string `json:"loadBalancerArn"`
	Name            string `json:"name"`
	Port            int    `json:"port"`
	Protocol        string `json:"protocol"`
	Address         string `json:"address"`
	Error           string `json:"error"`
}

func (l listener) url() string { return strings.ToLower(l.Protocol) + "://" + l.Address }

func (s *session) listeners(ctx context.Context) ([]listener, error) {
	var out []listener
	return out, s.admin(ctx, "GET", "listeners", nil, &out)
}

// listenerURL is the address of a load balancer's first listener.
func (s *session) listenerURL(ctx context.Context, arn string) (string, error) {
	ls, err := s.listeners(ctx)
	if err != nil {
		return "", err
	}
	for _, l := range ls {
		if l.LoadBalancerARN == arn {
			if l.Error != "" {
				return "", fmt.Errorf("the load balancer cannot listen on %s: %s", l.Address, l.Error)
			}
			return l.url(), nil
		}
	}
	return "", fmt.Errorf("load balancer %s has no listener", arn)
}
