package cli

import (
	"context"
	"fmt"
	"sort"
	"time"

	"slipway/internal/api/autoscaling"
	"slipway/internal/api/cloudwatch"
	"slipway/internal/api/codedeploy"
	"slipway/internal/api/codepipeline"
	"slipway/internal/api/ec2"
	"slipway/internal/api/elbv2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/hostinfo"
)

// overview is everything that status shows.
type overview struct {
	Endpoint  string         `json:"endpoint"`
	Trouble   string         `json:"trouble,omitempty"` // of the host, in a sentence
	Pipelines []*view        `json:"pipelines"`
	Rollouts  []rolloutView  `json:"deployments"` // the newest of each deployment group
	Groups    []groupView    `json:"groups"`
	Balancers []balancerView `json:"loadBalancers"`
	Alarms    []alarmView    `json:"alarms"`
}

type groupView struct {
	Name              string
	Min, Desired, Max int64
	Instances         []instanceView
	LastActivity      string
	Why               []string `json:",omitempty"` // what it waits for
}

type instanceView struct {
	ID, Zone, Address, Lifecycle, Health, Target string
	Why                                          []string `json:",omitempty"`
}

// rolloutView is a deployment, and which one the group's instances have.
type rolloutView struct {
	Application, Group, ID, Status, Creator, Message string
	Created                                          time.Time
	Succeeded                                        string // the last deployment of the group that did
}

type balancerView struct {
	Name, URL, Error string
	Targets          []string
}

type alarmView struct {
	Name, State, Reason string
	Hints               []string `json:",omitempty"` // what is wrong with it
}

func gather(ctx context.Context, s *session) (*overview, error) {
	ov := &overview{Endpoint: s.endpoint, Trouble: diskTrouble(s.dataDir)}
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
	if err := ov.rollouts(ctx, s); err != nil {
		return nil, err
	}
	health, err := ov.balancers(ctx, s)
	if err != nil {
		return nil, err
	}
	if err := ov.groups(ctx, s, health); err != nil {
		return nil, err
	}
	return ov, ov.alarms(ctx, s)
}

// diskTrouble says that the disk is full or nearly so, else nothing.
func diskTrouble(dir string) string {
	const little = 64 << 20 // a deployment's bundle and its logs take about that
	free, ok := hostinfo.Free(dir)
	if !ok || free >= little {
		return ""
	}
	return fmt.Sprintf("the disk that holds %s has %d MiB left: make room, what waits for it goes on by itself then", dir, free>>20)
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
		why := s.why(ctx, gv.Name)
		gv.Why = why[""]
		for _, i := range g.Instances {
			id := ptr.Value(i.InstanceId)
			gv.Instances = append(gv.Instances, instanceView{ID: id, Zone: ptr.Value(i.AvailabilityZone), Lifecycle: ptr.Value(i.LifecycleState),
				Health: ptr.Value(i.HealthStatus), Target: health[id], Address: addresses[id], Why: why[id]})
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

// alarms gathers metric and composite alarms, the ones that rang first.
func (ov *overview) alarms(ctx context.Context, s *session) error {
	in := &cloudwatch.DescribeAlarmsInput{AlarmTypes: []string{"MetricAlarm", "CompositeAlarm"}, MaxRecords: new(int64(100))}
	hints := &hinter{s: s, topics: map[string]string{}}
	for range 20 { // a screen is no place for more
		out, err := call(ctx, s, cloudwatch.OpDescribeAlarms, in)
		if awserr.Is(err, "NotImplemented") {
			return nil
		}
		if err != nil {
			return err
		}
		for _, a := range out.CompositeAlarms {
			ov.Alarms = append(ov.Alarms, alarmView{ptr.Value(a.AlarmName), ptr.Value(a.StateValue), ptr.Value(a.StateReason), hints.actions(ctx, ptr.Value(a.ActionsEnabled), a.AlarmActions)})
		}
		for _, a := range out.MetricAlarms {
			ov.Alarms = append(ov.Alarms, alarmView{ptr.Value(a.AlarmName), ptr.Value(a.StateValue), ptr.Value(a.StateReason), hints.of(ctx, &a)})
		}
		if in.NextToken = out.NextToken; ptr.Value(in.NextToken) == "" {
			break
		}
	}
	sort.SliceStable(ov.Alarms, func(i, j int) bool { return ov.Alarms[i].State == "ALARM" && ov.Alarms[j].State != "ALARM" })
	return nil
}

// rollouts gathers the newest deployment of each deployment group.
func (ov *overview) rollouts(ctx context.Context, s *session) error {
	apps, err := call(ctx, s, codedeploy.OpListApplications, &codedeploy.ListApplicationsInput{})
	if err != nil {
		return err
	}
	for _, app := range apps.Applications {
		names, err := call(ctx, s, codedeploy.OpListDeploymentGroups, &codedeploy.ListDeploymentGroupsInput{ApplicationName: &app})
		if err != nil {
			return err
		}
		if len(names.DeploymentGroups) == 0 {
			continue
		}
		groups, err := call(ctx, s, codedeploy.OpBatchGetDeploymentGroups, &codedeploy.BatchGetDeploymentGroupsInput{ApplicationName: &app, DeploymentGroupNames: names.DeploymentGroups[:min(100, len(names.DeploymentGroups))]})
		if err != nil {
			return err
		}
		for _, g := range groups.DeploymentGroupsInfo {
			last := g.LastAttemptedDeployment
			if last == nil {
				continue
			}
			out, err := call(ctx, s, codedeploy.OpGetDeployment, &codedeploy.GetDeploymentInput{DeploymentId: last.DeploymentId})
			if err != nil {
				return err
			}
			d := out.DeploymentInfo
			r := rolloutView{Application: app, Group: ptr.Value(g.DeploymentGroupName), ID: ptr.Value(last.DeploymentId), Status: ptr.Value(d.Status), Creator: ptr.Value(d.Creator), Created: ptr.Value(d.CreateTime)}
			if d.ErrorInformation != nil {
				r.Message = ptr.Value(d.ErrorInformation.Message)
			}
			if ok := g.LastSuccessfulDeployment; ok != nil {
				r.Succeeded = ptr.Value(ok.DeploymentId)
			}
			ov.Rollouts = append(ov.Rollouts, r)
		}
	}
	return nil
}
