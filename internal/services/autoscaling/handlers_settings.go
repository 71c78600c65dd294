package autoscaling

import (
	"context"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// processes are those that can be suspended (User Guide, "Suspend and resume
// Amazon EC2 Auto Scaling processes").
var processes = []string{"AZRebalance", "AddToLoadBalancer", "AlarmNotification", "HealthCheck", "InstanceRefresh", "Launch", "ReplaceUnhealthy", "ScheduledActions", "Terminate"}

func checkProcesses(names []string) ([]string, error) {
	if len(names) == 0 {
		return processes, nil
	}
	for _, n := range names {
		if !slices.Contains(processes, n) && n != "RemoveFromLoadBalancerLowPriority" {
			return nil, invalid("'%s' is not a recognized scaling process.", n)
		}
	}
	return names, nil
}

func (s *Service) suspend(ctx context.Context, in *api.SuspendProcessesInput) (*api.SuspendProcessesOutput, error) {
	names, err := checkProcesses(in.ScalingProcesses)
	if err != nil {
		return nil, err
	}
	reason := "User suspended at " + s.Clock.Now().UTC().Format("2006-01-02T15:04:05Z")
	err = s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Suspended", func(_ store.Tx, g *store.Row[Group]) error {
		for _, n := range names {
			if !g.Doc.suspended(n) {
				g.Doc.Suspended = append(g.Doc.Suspended, suspension{n, reason})
			}
		}
		return nil
	})
	return &api.SuspendProcessesOutput{}, err
}

func (s *Service) resume(ctx context.Context, in *api.ResumeProcessesInput) (*api.ResumeProcessesOutput, error) {
	names, err := checkProcesses(in.ScalingProcesses)
	if err != nil {
		return nil, err
	}
	err = s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Resumed", func(_ store.Tx, g *store.Row[Group]) error {
		g.Doc.Suspended = slices.DeleteFunc(g.Doc.Suspended, func(x suspension) bool { return slices.Contains(names, x.Process) })
		g.Doc.Fails, g.Doc.RetryAt = 0, time.Time{}
		return nil
	})
	return &api.ResumeProcessesOutput{}, err
}

// attach adds target groups; one that is being removed comes back.
func (s *Service) attach(ctx context.Context, name string, arns []string, traffic bool) error {
	if len(arns) == 0 || len(arns) > 10 {
		return invalid("Between 1 and 10 target groups can be given, not %d.", len(arns))
	}
	if err := s.checkTargetGroups(ctx, arns); err != nil {
		return err
	}
	return s.changeGroup(ctx, name, "Attaching", func(_ store.Tx, g *store.Row[Group]) error {
		for _, arn := range arns {
			n := slices.IndexFunc(g.Doc.Attachments, func(a attachment) bool { return a.ARN == arn })
			if n < 0 {
				g.Doc.Attachments = append(g.Doc.Attachments, attachment{ARN: arn, State: "Adding", Traffic: traffic})
			} else if g.Doc.Attachments[n].State == "Removing" {
				g.Doc.Attachments[n].State = "Adding"
			}
		}
		if len(g.Doc.Attachments) > 50 {
			return awserr.New("LimitExceeded", "A group can have at most 50 target groups.")
		}
		return nil
	})
}

func (s *Service) detach(ctx context.Context, name string, arns []string) error {
	if len(arns) == 0 || len(arns) > 10 {
		return invalid("Between 1 and 10 target groups can be given, not %d.", len(arns))
	}
	return s.changeGroup(ctx, name, "Detaching", func(_ store.Tx, g *store.Row[Group]) error {
		for _, arn := range arns {
			n := slices.IndexFunc(g.Doc.Attachments, func(a attachment) bool { return a.ARN == arn })
			if n < 0 {
				return invalid("Trying to remove Target Groups that are not part of the group: %s", arn)
			}
			g.Doc.Attachments[n].State = "Removing"
		}
		return nil
	})
}

func (s *Service) attachTargetGroups(ctx context.Context, in *api.AttachLoadBalancerTargetGroupsInput) (*api.AttachLoadBalancerTargetGroupsOutput, error) {
	return &api.AttachLoadBalancerTargetGroupsOutput{}, s.attach(ctx, ptr.Value(in.AutoScalingGroupName), in.TargetGroupARNs, false)
}

func (s *Service) detachTargetGroups(ctx context.Context, in *api.DetachLoadBalancerTargetGroupsInput) (*api.DetachLoadBalancerTargetGroupsOutput, error) {
	return &api.DetachLoadBalancerTargetGroupsOutput{}, s.detach(ctx, ptr.Value(in.AutoScalingGroupName), in.TargetGroupARNs)
}

// trafficARNs are the target groups among traffic sources; nil where one is
// of another type.
func trafficARNs(sources []api.TrafficSourceIdentifier) []string {
	var out []string
	for _, t := range sources {
		if kind := ptr.Value(t.Type); kind != "" && kind != "elbv2" || !strings.Contains(ptr.Value(t.Identifier), ":targetgroup/") {
			return nil
		}
		out = append(out, *t.Identifier)
	}
	return out
}

func (s *Service) attachTraffic(ctx context.Context, in *api.AttachTrafficSourcesInput) (*api.AttachTrafficSourcesOutput, error) {
	arns := trafficARNs(in.TrafficSources)
	if arns == nil {
		return nil, invalid("Slipway attaches traffic sources of the type elbv2 only.")
	}
	return &api.AttachTrafficSourcesOutput{}, s.attach(ctx, ptr.Value(in.AutoScalingGroupName), arns, true)
}

func (s *Service) detachTraffic(ctx context.Context, in *api.DetachTrafficSourcesInput) (*api.DetachTrafficSourcesOutput, error) {
	arns := trafficARNs(in.TrafficSources)
	if arns == nil {
		return nil, invalid("Slipway attaches traffic sources of the type elbv2 only.")
	}
	return &api.DetachTrafficSourcesOutput{}, s.detach(ctx, ptr.Value(in.AutoScalingGroupName), arns)
}

// readGroup reads one group for a describe call.
func (s *Service) readGroup(ctx context.Context, name string) (g *Group, err error) {
	account, region := where(ctx)
	err = s.Store.View(ctx, func(r store.Reader) error {
		row, err := getGroup(r, account, region, name)
		if err == nil {
			g = &row.Doc
		}
		return err
	})
	return g, err
}

func (s *Service) describeTargetGroups(ctx context.Context, in *api.DescribeLoadBalancerTargetGroupsInput) (*api.DescribeLoadBalancerTargetGroupsOutput, error) {
	g, err := s.readGroup(ctx, ptr.Value(in.AutoScalingGroupName))
	if err != nil {
		return nil, err
	}
	all, next, err := page(g.Attachments, func(a attachment) string { return a.ARN }, in.MaxRecords, in.NextToken, 100)
	out := &api.DescribeLoadBalancerTargetGroupsOutput{NextToken: next, LoadBalancerTargetGroups: []api.LoadBalancerTargetGroupState{}}
	for _, a := range all {
		out.LoadBalancerTargetGroups = append(out.LoadBalancerTargetGroups, api.LoadBalancerTargetGroupState{LoadBalancerTargetGroupARN: new(a.ARN), State: new(a.State)})
	}
	return out, err
}

func (s *Service) describeTraffic(ctx context.Context, in *api.DescribeTrafficSourcesInput) (*api.DescribeTrafficSourcesOutput, error) {
	g, err := s.readGroup(ctx, ptr.Value(in.AutoScalingGroupName))
	if err != nil {
		return nil, err
	}
	list := g.Attachments
	if t := ptr.Value(in.TrafficSourceType); t != "" && t != "elbv2" {
		list = nil
	}
	all, next, err := page(list, func(a attachment) string { return a.ARN }, in.MaxRecords, in.NextToken, 50)
	out := &api.DescribeTrafficSourcesOutput{NextToken: next, TrafficSources: []api.TrafficSourceState{}}
	for _, a := range all {
		out.TrafficSources = append(out.TrafficSources, api.TrafficSourceState{TrafficSource: new(a.ARN), State: new(a.State), Identifier: new(a.ARN), Type: new("elbv2")})
	}
	return out, err
}

// describeLoadBalancers lists Classic Load Balancers, of which there are none.
func (s *Service) describeLoadBalancers(ctx context.Context, in *api.DescribeLoadBalancersInput) (*api.DescribeLoadBalancersOutput, error) {
	_, err := s.readGroup(ctx, ptr.Value(in.AutoScalingGroupName))
	return &api.DescribeLoadBalancersOutput{LoadBalancers: []api.LoadBalancerState{}}, err
}

// tagsFrom reads tags; group is the resource that those without one mean.
func tagsFrom(tags []api.Tag, group string) ([]groupTag, error) {
	var out []groupTag
	for _, t := range tags {
		key := ptr.Value(t.Key)
		switch {
		case key == "" || len(key) > 128 || len(ptr.Value(t.Value)) > 256:
			return nil, invalid("The tag key '%.60s' is invalid: keys have 1 to 128 characters, values up to 256.", key)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, invalid("Tag keys beginning with aws: are reserved: %s", key)
		case t.ResourceType != nil && *t.ResourceType != "auto-scaling-group":
			return nil, invalid("The resource type '%s' is invalid: only auto-scaling-group can be tagged.", *t.ResourceType)
		case t.ResourceId != nil && *t.ResourceId != group:
			return nil, invalid("The tag's resource id '%s' is not the group '%s'.", *t.ResourceId, group)
		}
		if slices.ContainsFunc(out, func(o groupTag) bool { return o.Key == key }) {
			return nil, invalid("The tag key '%s' is given twice.", key)
		}
		out = append(out, groupTag{key, ptr.Value(t.Value), ptr.Value(t.PropagateAtLaunch)})
	}
	if len(out) > 50 {
		return nil, awserr.New("LimitExceeded", "A group can have at most 50 tags.")
	}
	slices.SortFunc(out, func(a, b groupTag) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

func (t groupTag) api(group string) api.TagDescription {
	return api.TagDescription{ResourceId: &group, ResourceType: new("auto-scaling-group"), Key: new(t.Key), Value: new(t.Value), PropagateAtLaunch: new(t.Propagate)}
}

// byGroup sorts tags by the group that they name.
func byGroup(tags []api.Tag) (map[string][]api.Tag, error) {
	out := map[string][]api.Tag{}
	for _, t := range tags {
		if ptr.Value(t.ResourceId) == "" {
			return nil, invalid("Each tag needs a ResourceId, the name of the group.")
		}
		out[*t.ResourceId] = append(out[*t.ResourceId], t)
	}
	return out, nil
}

func (s *Service) putTags(ctx context.Context, in *api.CreateOrUpdateTagsInput) (*api.CreateOrUpdateTagsOutput, error) {
	sorted, err := byGroup(in.Tags)
	if err != nil {
		return nil, err
	}
	for name, tags := range sorted {
		add, err := tagsFrom(tags, name)
		if err != nil {
			return nil, err
		}
		err = s.changeGroup(ctx, name, "Tagged", func(_ store.Tx, g *store.Row[Group]) error {
			for _, t := range add {
				g.Doc.Tags = slices.DeleteFunc(g.Doc.Tags, func(o groupTag) bool { return o.Key == t.Key })
				g.Doc.Tags = append(g.Doc.Tags, t)
			}
			slices.SortFunc(g.Doc.Tags, func(a, b groupTag) int { return strings.Compare(a.Key, b.Key) })
			if len(g.Doc.Tags) > 50 {
				return awserr.New("LimitExceeded", "A group can have at most 50 tags.")
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return &api.CreateOrUpdateTagsOutput{}, nil
}

func (s *Service) deleteTags(ctx context.Context, in *api.DeleteTagsInput) (*api.DeleteTagsOutput, error) {
	sorted, err := byGroup(in.Tags)
	if err != nil {
		return nil, err
	}
	for name, tags := range sorted {
		err := s.changeGroup(ctx, name, "Untagged", func(_ store.Tx, g *store.Row[Group]) error {
			g.Doc.Tags = slices.DeleteFunc(g.Doc.Tags, func(o groupTag) bool {
				return slices.ContainsFunc(tags, func(t api.Tag) bool { return ptr.Value(t.Key) == o.Key && (t.Value == nil || *t.Value == o.Value) })
			})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return &api.DeleteTagsOutput{}, nil
}

func (s *Service) describeTags(ctx context.Context, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	account, region := where(ctx)
	rows, err := groups.Select(ctx, s.Store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	all := []api.TagDescription{}
	for _, g := range rows {
		for _, t := range g.Doc.Tags {
			d := t.api(g.ID)
			ok := true
			for _, f := range in.Filters {
				switch ptr.Value(f.Name) {
				case "auto-scaling-group":
					ok = ok && slices.Contains(f.Values, g.ID)
				case "key":
					ok = ok && slices.Contains(f.Values, t.Key)
				case "value":
					ok = ok && slices.Contains(f.Values, t.Value)
				case "propagate-at-launch":
					ok = ok && slices.ContainsFunc(f.Values, func(v string) bool { return strings.EqualFold(v, "true") == t.Propagate })
				default:
					return nil, invalid("Filter type %s is not correct. Allowed Filter types are: auto-scaling-group key value propagate-at-launch", ptr.Value(f.Name))
				}
			}
			if ok {
				all = append(all, d)
			}
		}
	}
	all, next, err := page(all, func(t api.TagDescription) string { return *t.ResourceId + "\x00" + *t.Key }, in.MaxRecords, in.NextToken, 50)
	return &api.DescribeTagsOutput{Tags: all, NextToken: next}, err
}

// groupMetrics are those that EnableMetricsCollection knows.
var groupMetrics = []string{
	"GroupMinSize", "GroupMaxSize", "GroupDesiredCapacity", "GroupInServiceInstances", "GroupInServiceCapacity", "GroupPendingInstances", "GroupPendingCapacity",
	"GroupTerminatingInstances", "GroupTerminatingCapacity", "GroupStandbyInstances", "GroupStandbyCapacity", "GroupTotalInstances", "GroupTotalCapacity",
	"WarmPoolDesiredCapacity", "WarmPoolWarmedCapacity", "WarmPoolPendingCapacity", "WarmPoolTerminatingCapacity", "WarmPoolTotalCapacity", "WarmPoolMinSize",
	"GroupAndWarmPoolDesiredCapacity", "GroupAndWarmPoolTotalCapacity",
}

func checkMetrics(names []string) ([]string, error) {
	for _, n := range names {
		if !slices.Contains(groupMetrics, n) {
			return nil, invalid("The metric '%s' is invalid.", n)
		}
	}
	if len(names) == 0 {
		return groupMetrics, nil
	}
	return names, nil
}

func (s *Service) enableMetrics(ctx context.Context, in *api.EnableMetricsCollectionInput) (*api.EnableMetricsCollectionOutput, error) {
	if g := ptr.Value(in.Granularity); g != "1Minute" {
		return nil, invalid("The granularity '%s' is invalid: the only valid value is 1Minute.", g)
	}
	names, err := checkMetrics(in.Metrics)
	if err != nil {
		return nil, err
	}
	err = s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Metrics", func(_ store.Tx, g *store.Row[Group]) error {
		for _, n := range names {
			if !slices.Contains(g.Doc.Metrics, n) {
				g.Doc.Metrics = append(g.Doc.Metrics, n)
			}
		}
		return nil
	})
	return &api.EnableMetricsCollectionOutput{}, err
}

func (s *Service) disableMetrics(ctx context.Context, in *api.DisableMetricsCollectionInput) (*api.DisableMetricsCollectionOutput, error) {
	names, err := checkMetrics(in.Metrics)
	if err != nil {
		return nil, err
	}
	err = s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Metrics", func(_ store.Tx, g *store.Row[Group]) error {
		g.Doc.Metrics = slices.DeleteFunc(g.Doc.Metrics, func(n string) bool { return slices.Contains(names, n) })
		return nil
	})
	return &api.DisableMetricsCollectionOutput{}, err
}

var notificationTypes = []string{
	"autoscaling:EC2_INSTANCE_LAUNCH", "autoscaling:EC2_INSTANCE_LAUNCH_ERROR", "autoscaling:EC2_INSTANCE_TERMINATE", "autoscaling:EC2_INSTANCE_TERMINATE_ERROR", "autoscaling:TEST_NOTIFICATION",
}

func (s *Service) putNotification(ctx context.Context, in *api.PutNotificationConfigurationInput) (*api.PutNotificationConfigurationOutput, error) {
	for _, t := range in.NotificationTypes {
		if !slices.Contains(notificationTypes, t) {
			return nil, invalid("\"%s\" is not a valid Notification Type", t)
		}
	}
	topic := ptr.Value(in.TopicARN)
	if !strings.HasPrefix(topic, "arn:") || !strings.Contains(topic, ":sns:") {
		return nil, invalid("The topic ARN '%s' is invalid.", topic)
	}
	now := s.Clock.Now()
	var told *store.Row[Group]
	err := s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Notifications", func(_ store.Tx, g *store.Row[Group]) error {
		if g.Doc.Notifications == nil {
			g.Doc.Notifications = map[string]notification{}
		}
		g.Doc.Notifications[topic] = notification{in.NotificationTypes, now}
		told = g
		if len(g.Doc.Notifications) > 10 {
			return awserr.New("LimitExceeded", "A group can notify at most 10 topics.")
		}
		return nil
	})
	if err == nil {
		s.testNotice(ctx, told, topic)
	}
	return &api.PutNotificationConfigurationOutput{}, err
}

func (s *Service) deleteNotification(ctx context.Context, in *api.DeleteNotificationConfigurationInput) (*api.DeleteNotificationConfigurationOutput, error) {
	err := s.changeGroup(ctx, ptr.Value(in.AutoScalingGroupName), "Notifications", func(_ store.Tx, g *store.Row[Group]) error {
		delete(g.Doc.Notifications, ptr.Value(in.TopicARN))
		return nil
	})
	return &api.DeleteNotificationConfigurationOutput{}, err
}

func (s *Service) describeNotifications(ctx context.Context, in *api.DescribeNotificationConfigurationsInput) (*api.DescribeNotificationConfigurationsOutput, error) {
	account, region := where(ctx)
	rows, err := groups.Select(ctx, s.Store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	all := []api.NotificationConfiguration{}
	for _, g := range rows {
		if len(in.AutoScalingGroupNames) > 0 && !slices.Contains(in.AutoScalingGroupNames, g.ID) {
			continue
		}
		for topic, n := range g.Doc.Notifications {
			for _, t := range n.Types {
				all = append(all, api.NotificationConfiguration{AutoScalingGroupName: new(g.ID), TopicARN: new(topic), NotificationType: new(t)})
			}
		}
	}
	key := func(n api.NotificationConfiguration) string {
		return *n.AutoScalingGroupName + "\x00" + *n.TopicARN + "\x00" + *n.NotificationType
	}
	slices.SortFunc(all, func(a, b api.NotificationConfiguration) int { return strings.Compare(key(a), key(b)) })
	all, next, err := page(all, key, in.MaxRecords, in.NextToken, 50)
	return &api.DescribeNotificationConfigurationsOutput{NotificationConfigurations: all, NextToken: next}, err
}

func (s *Service) accountLimits(ctx context.Context, _ *api.DescribeAccountLimitsInput) (*api.DescribeAccountLimitsOutput, error) {
	account, region := where(ctx)
	var n int
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		n, err = groups.Count(r, store.Query{Account: account, Region: region})
		return err
	})
	return &api.DescribeAccountLimitsOutput{MaxNumberOfAutoScalingGroups: new(int64(500)), MaxNumberOfLaunchConfigurations: new(int64(0)),
		NumberOfAutoScalingGroups: new(int64(n)), NumberOfLaunchConfigurations: new(int64(0))}, err
}
