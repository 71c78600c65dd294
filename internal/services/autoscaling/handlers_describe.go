package autoscaling

import (
	"context"
	"slices"
	"strings"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// matchFilters looks at a group's tags (API reference, DescribeAutoScalingGroups).
func matchFilters(g *Group, filters []api.Filter) (bool, error) {
	for _, f := range filters {
		name := ptr.Value(f.Name)
		key, byKey := strings.CutPrefix(name, "tag:")
		if !byKey && name != "tag-key" && name != "tag-value" {
			return false, invalid("Filter type %s is not correct. Allowed Filter types are: tag-key tag-value tag:<key>", name)
		}
		if !slices.ContainsFunc(g.Tags, func(t groupTag) bool {
			switch {
			case byKey:
				return t.Key == key && slices.Contains(f.Values, t.Value)
			case name == "tag-key":
				return slices.Contains(f.Values, t.Key)
			}
			return slices.Contains(f.Values, t.Value)
		}) {
			return false, nil
		}
	}
	return true, nil
}

func (s *Service) describeGroups(ctx context.Context, in *api.DescribeAutoScalingGroupsInput) (*api.DescribeAutoScalingGroupsOutput, error) {
	account, region := where(ctx)
	var all []*store.Row[Group]
	members := map[string][]*Instance{}
	err := s.Store.View(ctx, func(r store.Reader) error {
		q := store.Query{Account: account, Region: region}
		rows, err := groups.List(r, q)
		if err != nil {
			return err
		}
		for _, row := range rows {
			ok, err := matchFilters(&row.Doc, in.Filters)
			if err != nil {
				return err
			}
			if ok && (len(in.AutoScalingGroupNames) == 0 || slices.Contains(in.AutoScalingGroupNames, row.ID) || slices.Contains(in.AutoScalingGroupNames, row.Doc.ARN)) {
				all = append(all, row)
			}
		}
		if len(all) == 1 {
			q.Parent = all[0].ID
		}
		is, err := instances.List(r, q)
		for _, i := range is {
			members[i.Doc.Group] = append(members[i.Doc.Group], &i.Doc)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	all, next, err := page(all, func(g *store.Row[Group]) string { return g.ID }, in.MaxRecords, in.NextToken, 50)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAutoScalingGroupsOutput{NextToken: next, AutoScalingGroups: []api.AutoScalingGroup{}}
	for _, g := range all {
		list := members[g.ID]
		if in.IncludeInstances != nil && !*in.IncludeInstances {
			list = nil
		}
		out.AutoScalingGroups = append(out.AutoScalingGroups, g.Doc.api(list))
	}
	return out, nil
}

func (t *templateRef) api() *api.LaunchTemplateSpecification {
	if t == nil {
		return nil
	}
	return &api.LaunchTemplateSpecification{LaunchTemplateId: orNil(t.ID), LaunchTemplateName: orNil(t.Name), Version: orNil(t.Version)}
}

func (g *Group) api(members []*Instance) api.AutoScalingGroup {
	out := api.AutoScalingGroup{AutoScalingGroupName: new(g.Name), AutoScalingGroupARN: new(g.ARN), MinSize: new(g.Min), MaxSize: new(g.Max), DesiredCapacity: new(g.Desired),
		DefaultCooldown: new(g.Cooldown), AvailabilityZones: g.zones(), LoadBalancerNames: []string{}, TargetGroupARNs: []string{}, HealthCheckType: new(g.HealthTypes), HealthCheckGracePeriod: new(g.Grace),
		Instances: []api.Instance{}, CreatedTime: new(g.Created), SuspendedProcesses: []api.SuspendedProcess{}, VPCZoneIdentifier: new(g.GivenSubnets), EnabledMetrics: []api.EnabledMetric{},
		Tags: []api.TagDescription{}, TerminationPolicies: g.Policies, NewInstancesProtectedFromScaleIn: new(g.ProtectNew), MaxInstanceLifetime: g.MaxLifetime, DefaultInstanceWarmup: g.Warmup,
		TrafficSources: []api.TrafficSourceIdentifier{}, InstanceMaintenancePolicy: g.Maintenance, PlacementGroup: g.Kept.PlacementGroup, Context: g.Kept.Context, DesiredCapacityType: g.Kept.DesiredCapacityType,
		CapacityRebalance: g.Kept.CapacityRebalance, AvailabilityZoneDistribution: g.Kept.Distribution, AvailabilityZoneImpairmentPolicy: g.Kept.Impairment,
		CapacityReservationSpecification: g.Kept.Reservation, InstanceLifecyclePolicy: g.Kept.Lifecycle, DeletionProtection: g.Kept.DeletionProtection, ServiceLinkedRoleARN: g.Kept.ServiceLinkedRoleARN}
	if out.AvailabilityZoneDistribution == nil {
		out.AvailabilityZoneDistribution = &api.AvailabilityZoneDistribution{CapacityDistributionStrategy: new("balanced-best-effort")}
	}
	if out.DeletionProtection == nil {
		out.DeletionProtection = new("none")
	}
	if out.ServiceLinkedRoleARN == nil {
		account := strings.Split(g.ARN, ":")[4]
		out.ServiceLinkedRoleARN = new("arn:aws:iam::" + account + ":role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling")
	}
	if g.Mixed != nil {
		mixed := *g.Mixed
		lt := *mixed.LaunchTemplate
		lt.LaunchTemplateSpecification = g.Template.api()
		mixed.LaunchTemplate = &lt
		out.MixedInstancesPolicy = &mixed
	} else {
		out.LaunchTemplate = g.Template.api()
	}
	if g.Deleting {
		out.Status = new("Delete in progress")
	}
	for _, a := range g.Attachments {
		if a.State == "Removing" {
			continue
		}
		out.TrafficSources = append(out.TrafficSources, api.TrafficSourceIdentifier{Identifier: new(a.ARN), Type: new("elbv2")})
		out.TargetGroupARNs = append(out.TargetGroupARNs, a.ARN)
	}
	for _, p := range g.Suspended {
		out.SuspendedProcesses = append(out.SuspendedProcesses, api.SuspendedProcess{ProcessName: new(p.Process), SuspensionReason: new(p.Reason)})
	}
	for _, m := range g.Metrics {
		out.EnabledMetrics = append(out.EnabledMetrics, api.EnabledMetric{Metric: new(m), Granularity: new("1Minute")})
	}
	for _, t := range g.Tags {
		out.Tags = append(out.Tags, t.api(g.Name))
	}
	for _, i := range members {
		out.Instances = append(out.Instances, api.Instance{InstanceId: new(i.ID), InstanceType: new(i.Type), AvailabilityZone: new(i.Zone), AvailabilityZoneId: orNil(i.ZoneID), LifecycleState: new(i.State),
			HealthStatus: new(i.Health), LaunchTemplate: i.Template.api(), ProtectedFromScaleIn: new(i.Protected), ImageId: orNil(i.Image)})
	}
	return out
}

func (a *activity) api(state string) api.Activity {
	out := api.Activity{ActivityId: new(a.ID), AutoScalingGroupName: new(a.Group), AutoScalingGroupARN: new(a.GroupARN), Description: new(a.Description), Cause: new(a.Cause),
		StartTime: new(a.Start), StatusCode: new(a.Status), StatusMessage: orNil(a.Message), Progress: new(a.Progress), Details: orNil(a.Details), AutoScalingGroupState: orNil(state)}
	if !a.End.IsZero() {
		out.EndTime = new(a.End)
	}
	return out
}

// describeActivities lists newest first, those in progress before all
// (API reference, DescribeScalingActivities).
func (s *Service) describeActivities(ctx context.Context, in *api.DescribeScalingActivitiesInput) (*api.DescribeScalingActivitiesOutput, error) {
	account, region := where(ctx)
	var all []*activity
	alive := map[string]bool{} // by ARN
	err := s.Store.View(ctx, func(r store.Reader) error {
		gs, err := groups.List(r, store.Query{Account: account, Region: region})
		if err != nil {
			return err
		}
		found := false
		for _, g := range gs {
			alive[g.Doc.ARN] = true
			found = found || g.ID == ptr.Value(in.AutoScalingGroupName) || g.Doc.ARN == ptr.Value(in.AutoScalingGroupName)
		}
		name := ptr.Value(in.AutoScalingGroupName)
		if name != "" && !found && !ptr.Value(in.IncludeDeletedGroups) {
			return invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
		}
		if n := strings.LastIndex(name, "autoScalingGroupName/"); strings.HasPrefix(name, "arn:") && n > 0 {
			name = name[n+len("autoScalingGroupName/"):]
		}
		rows, err := activities.List(r, store.Query{Account: account, Region: region, Parent: name, Descending: true})
		for _, row := range rows {
			a := &row.Doc
			if !alive[a.GroupARN] && !ptr.Value(in.IncludeDeletedGroups) || len(in.ActivityIds) > 0 && !slices.Contains(in.ActivityIds, a.ID) {
				continue
			}
			all = append(all, a)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b *activity) int {
		switch x, y := ended(a.Status), ended(b.Status); {
		case x == y:
			return 0
		case x:
			return 1
		}
		return -1
	})
	all, next, err := page(all, func(a *activity) string { return a.ID }, in.MaxRecords, in.NextToken, 100)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeScalingActivitiesOutput{NextToken: next, Activities: []api.Activity{}}
	for _, a := range all {
		state := ""
		if !alive[a.GroupARN] {
			state = "Deleted"
		}
		out.Activities = append(out.Activities, a.api(state))
	}
	return out, nil
}
