package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	as "slipway/internal/api/autoscaling"
	api "slipway/internal/api/codedeploy"
	"slipway/internal/api/ec2"
	"slipway/internal/api/elbv2"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// instance is what a deployment needs to know of a host.
type instance struct {
	id    string
	arn   string
	state string
	zone  string
	tags  map[string]string
	// lifecycle is the instance's LifecycleState in its Auto Scaling group.
	lifecycle string
}

func (i instance) stopped() bool { return i.state == "stopped" || i.state == "stopping" }

// ended says that the instance is gone for good.
func (i instance) ended() bool { return i.state == "terminated" || i.state == "shutting-down" }

// maxTargets is AWS's quota of instances in one deployment.
const maxTargets = 2000

// startLimit is how long a deployment tries to begin while other services do
// not answer as they should.
const startLimit = 10 * time.Minute

// launchPatience is how long a deployment waits for a group of which every
// instance is still being launched, and launchLook how often it looks.
const (
	launchPatience = 2 * time.Minute
	launchLook     = 100 * time.Millisecond
)

// errLaunching says that a group will have instances, but has none yet.
var errLaunching = errors.New("all instances of the group are still being launched")

// start resolves the targets of a created deployment and begins it; a
// deployment that cannot begin ends at once, saying why. One whose group is
// only now being launched (after an outage of the whole machine, say) waits:
// AWS would let it fail for want of instances.
func (s *Service) start(ctx context.Context, row *deploymentRow) (time.Duration, error) {
	d := row.Doc
	group, err := find(ctx, s.store, func(r store.Reader) (*groupRow, error) {
		return groupByID(r, row.Account, row.Region, d.Application, d.GroupID)
	})
	if errors.Is(err, store.ErrNotFound) {
		return 0, s.reject(ctx, row.Key, &ErrorInfo{api.ErrorCodeDeploymentGroupMissing, fmt.Sprintf("The deployment group %s was deleted before the deployment began.", d.Group)})
	}
	if err != nil {
		return 0, err
	}
	if d.Version, err = s.checkRevision(ctx, &d); err == nil {
		d.TargetGroups, err = s.targetGroups(ctx, &d)
	}
	var found []instance
	if err == nil {
		found, err = s.resolve(ctx, &d, &group.Doc)
	}
	if errors.Is(err, errLaunching) {
		switch {
		case d.Stop != nil:
			err = nil // begin ends it
		case s.clock.Since(d.CreatedAt) < launchPatience:
			return launchLook, nil
		default:
			err = noInstances(&d, &group.Doc)
		}
	}
	if info := new(refusal); errors.As(err, &info) {
		return 0, s.reject(ctx, row.Key, &info.ErrorInfo)
	}
	if awserr.Is(err, "NotImplemented") || err != nil && s.clock.Since(d.CreatedAt) > startLimit {
		return 0, s.reject(ctx, row.Key, &ErrorInfo{api.ErrorCodeInternalError, fmt.Sprintf("The deployment could not begin: %v", err)})
	}
	if err != nil {
		return 0, err
	}
	d.RevisionKey = contentKey(d.Revision, d.Version)
	return 0, s.begin(ctx, row.Key, &d, found)
}

// refusal is an error that ends a deployment rather than being tried again.
type refusal struct{ ErrorInfo }

func (r *refusal) Error() string { return r.Code + ": " + r.Message }

func refuse(code, format string, args ...any) error {
	return &refusal{ErrorInfo{code, fmt.Sprintf(format, args...)}}
}

// begin inserts the targets and sets the deployment going.
func (s *Service) begin(ctx context.Context, key store.Key, resolved *Deployment, found []instance) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		row, err := deployments.Get(tx, key.Account, key.Region, key.ID)
		if err != nil || row.Doc.Status != api.DeploymentStatusCreated {
			return err
		}
		d, now := &row.Doc, s.clock.Now()
		d.Version, d.RevisionKey, d.TargetGroups = resolved.Version, resolved.RevisionKey, resolved.TargetGroups
		if d.Stop != nil { // stopped before it began
			return s.finish(tx, row, nil, ending{api.DeploymentStatusStopped, &d.Stop.Cause}, now)
		}
		known, err := hostsOf(tx, key.Account, key.Region, d.GroupID)
		if err != nil {
			return err
		}
		n := 0
		for _, in := range found {
			h, deployed := known[in.id]
			if d.OutdatedOnly && deployed && !h.Unhealthy && h.RevisionKey == d.RevisionKey {
				continue
			}
			t := newTarget(d, in, h)
			if t.LastPorts, err = lastPorts(tx, key, h); err != nil {
				return err
			}
			if in.stopped() {
				t.end(api.TargetStatusFailed, fmt.Sprintf("instance %s is %s: it cannot be deployed to", in.id, in.state), now)
			}
			t.UpdatedAt = now
			if _, err := targets.Insert(tx, key.Account, key.Region, targetRowID(d.ID, in.id), t, t.Status, targetDetail{Deployment: d.ID, Message: t.Message}); err != nil {
				return err
			}
			n++
		}
		d.Status, d.StartedAt = api.DeploymentStatusInProgress, now
		if n == 0 {
			return s.finish(tx, row, nil, ending{Status: api.DeploymentStatusSucceeded}, now)
		}
		return deployments.Save(tx, row, d.Status, stateChanged(row))
	})
}

func newTarget(d *Deployment, in instance, h Host) Target {
	t := Target{
		Deployment: d.ID, Instance: in.id, HostARN: in.arn, Zone: in.zone, Status: api.TargetStatusPending,
		WasUnhealthy: h.Unhealthy || in.stopped(), Events: lifecycleOf(d),
	}
	switch {
	case t.WasUnhealthy:
		t.Rank = 0
	case h.RevisionKey == "":
		t.Rank = 1
	case h.RevisionKey != d.RevisionKey:
		t.Rank = 2
	default:
		t.Rank = 3
	}
	return t
}

// lastPorts are the target group ports that a failed deployment took the
// instance from.
func lastPorts(tx store.Reader, key store.Key, h Host) (map[string][]int64, error) {
	if !h.Unhealthy {
		return nil, nil
	}
	row, err := targets.Get(tx, key.Account, key.Region, targetRowID(h.Deployment, h.Instance))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return row.Doc.Ports, nil
}

// reject ends a deployment that could not begin.
func (s *Service) reject(ctx context.Context, key store.Key, why *ErrorInfo) error {
	return s.store.Update(ctx, func(tx store.Tx) error {
		row, err := deployments.Get(tx, key.Account, key.Region, key.ID)
		if err != nil || row.Doc.Terminal() {
			return err
		}
		return s.finish(tx, row, nil, ending{api.DeploymentStatusFailed, why}, s.clock.Now())
	})
}

// resolve lists the instances that the deployment is for.
func (s *Service) resolve(ctx context.Context, d *Deployment, g *Group) ([]instance, error) {
	var found []instance
	var err error
	if len(d.Only) > 0 {
		all, err := s.instances(ctx, d.Only...)
		if err != nil {
			return nil, err
		}
		for _, id := range d.Only {
			if in, ok := all[id]; ok && !in.ended() {
				found = append(found, in)
			}
		}
	} else if found, err = s.members(ctx, g); err != nil {
		return nil, err
	}
	switch {
	case len(found) == 0:
		if scaled, err := s.scaled(ctx, g); err != nil {
			return nil, err
		} else if len(d.Only) == 0 && slices.ContainsFunc(scaled, func(in instance) bool { return strings.HasPrefix(in.lifecycle, "Pending") }) {
			return nil, errLaunching
		}
		return nil, noInstances(d, g)
	case len(found) > maxTargets:
		return nil, refuse(api.ErrorCodeOverMaxInstances, "Deployment group %s has %d instances; one deployment may have at most %d.", d.Group, len(found), maxTargets)
	}
	return found, nil
}

func noInstances(d *Deployment, g *Group) error {
	return refuse(api.ErrorCodeNoInstances, "No instances were found for deployment group %s: check that its tags or Auto Scaling groups match running instances.%s", d.Group, describeSelection(&g.Settings, g.Scaling))
}

func describeSelection(set *Settings, scaling []ScalingGroup) string {
	var parts []string
	for _, g := range scaling {
		parts = append(parts, "Auto Scaling group "+g.Name)
	}
	if len(set.EC2TagFilters)+len(set.EC2TagSet) > 0 {
		parts = append(parts, "EC2 tags")
	}
	if len(set.OnPremisesFilters)+len(set.OnPremisesTagSet) > 0 {
		parts = append(parts, "on-premises tags")
	}
	if len(parts) == 0 {
		return " The group selects nothing."
	}
	return " It selects by " + strings.Join(parts, ", ") + "."
}

// members lists the instances of a deployment group: those that its tags
// select, and those in service in its Auto Scaling groups. Instances that an
// Auto Scaling group is still launching are served by its launch hook.
func (s *Service) members(ctx context.Context, g *Group) ([]instance, error) {
	by := map[string]instance{}
	if len(g.Settings.EC2TagFilters)+len(g.Settings.EC2TagSet) > 0 {
		all, err := s.instances(ctx)
		if err != nil {
			return nil, err
		}
		for id, in := range all {
			if !in.ended() && in.state != "pending" && g.Settings.selects(in.tags) {
				by[id] = in
			}
		}
	}
	scaled, err := s.scaled(ctx, g)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, in := range scaled {
		if in.lifecycle == "InService" {
			ids = append(ids, in.id)
		}
	}
	if len(ids) > 0 {
		all, err := s.instances(ctx, ids...)
		if err != nil {
			return nil, err
		}
		for id, in := range all {
			if !in.ended() {
				by[id] = in
			}
		}
	}
	if err := s.addOnPremises(ctx, &g.Settings, by); err != nil {
		return nil, err
	}
	found := make([]instance, 0, len(by))
	for _, in := range by {
		found = append(found, in)
	}
	slices.SortFunc(found, func(a, b instance) int { return strings.Compare(a.id, b.id) })
	return found, nil
}

// instances describes EC2 instances: all, or those of ids that exist.
func (s *Service) instances(ctx context.Context, ids ...string) (map[string]instance, error) {
	in := &ec2.DescribeInstancesInput{}
	if len(ids) > 0 { // as a filter: an id that is unknown is no error
		in.Filters = []ec2.Filter{{Name: new("instance-id"), Values: ids}}
	}
	all := map[string]instance{}
	id := callerOf(ctx)
	for {
		out, err := dispatch.Call(ctx, s.mux, ec2.OpDescribeInstances, in)
		if err != nil {
			return nil, fmt.Errorf("describe instances: %w", err)
		}
		for _, res := range out.Reservations {
			for _, i := range res.Instances {
				one := instance{id: ptr.Value(i.InstanceId), tags: map[string]string{}}
				one.arn = "arn:aws:ec2:" + id.Region + ":" + id.Account + ":instance/" + one.id
				if i.State != nil {
					one.state = ptr.Value(i.State.Name)
				}
				if i.Placement != nil {
					one.zone = ptr.Value(i.Placement.AvailabilityZone)
				}
				for _, t := range i.Tags {
					one.tags[ptr.Value(t.Key)] = ptr.Value(t.Value)
				}
				if len(ids) == 0 || slices.Contains(ids, one.id) {
					all[one.id] = one
				}
			}
		}
		if ptr.Value(out.NextToken) == "" {
			return all, nil
		}
		in.NextToken = out.NextToken
	}
}

// scaled lists the instances of the group's Auto Scaling groups, with their
// lifecycle states.
func (s *Service) scaled(ctx context.Context, g *Group) ([]instance, error) {
	if len(g.Scaling) == 0 {
		return nil, nil
	}
	in := &as.DescribeAutoScalingGroupsInput{}
	for _, a := range g.Scaling {
		in.AutoScalingGroupNames = append(in.AutoScalingGroupNames, a.Name)
	}
	var found []instance
	for {
		out, err := dispatch.Call(ctx, s.mux, as.OpDescribeAutoScalingGroups, in)
		if err != nil {
			return nil, fmt.Errorf("describe Auto Scaling groups: %w", err)
		}
		for _, a := range out.AutoScalingGroups {
			for _, i := range a.Instances {
				found = append(found, instance{id: ptr.Value(i.InstanceId), zone: ptr.Value(i.AvailabilityZone), lifecycle: ptr.Value(i.LifecycleState), tags: map[string]string{"group": ptr.Value(a.AutoScalingGroupName)}})
			}
		}
		if ptr.Value(out.NextToken) == "" {
			return found, nil
		}
		in.NextToken = out.NextToken
	}
}

// goneInstances are those of the open targets that run no longer.
func (s *Service) goneInstances(ctx context.Context, rows []*targetRow) (map[string]instance, error) {
	var ids []string
	for _, row := range rows {
		if row.Doc.EndedAt.IsZero() && strings.HasPrefix(row.Doc.Instance, "i-") {
			ids = append(ids, row.Doc.Instance)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	all, err := s.instances(ctx, ids...)
	if err != nil {
		return nil, err
	}
	gone := map[string]instance{}
	for _, id := range ids {
		switch in, ok := all[id]; {
		case !ok:
			gone[id] = instance{id: id, state: "terminated"}
		case in.ended() || in.stopped():
			gone[id] = in
		}
	}
	return gone, nil
}

// targetGroups resolves the names in the load balancer info.
func (s *Service) targetGroups(ctx context.Context, d *Deployment) ([]TargetGroup, error) {
	if !d.WithTraffic() {
		return nil, nil
	}
	var groups []TargetGroup
	for _, info := range d.LoadBalancer.TargetGroupInfoList {
		name := ptr.Value(info.Name)
		out, err := dispatch.Call(ctx, s.mux, elbv2.OpDescribeTargetGroups, &elbv2.DescribeTargetGroupsInput{Names: []string{name}})
		if awserr.Is(err, "TargetGroupNotFound") || err == nil && len(out.TargetGroups) == 0 {
			return nil, refuse(api.ErrorCodeElasticLoadBalancingInvalid, "The target group %s of deployment group %s does not exist.", name, d.Group)
		}
		if err != nil {
			return nil, fmt.Errorf("describe target group %s: %w", name, err)
		}
		tg := out.TargetGroups[0]
		if kind := ptr.Value(tg.TargetType); kind != "" && kind != "instance" {
			return nil, refuse(api.ErrorCodeElasticLoadBalancingInvalid, "The target group %s has targets of type %s; deployments to instances need type instance.", name, kind)
		}
		groups = append(groups, TargetGroup{Name: name, ARN: ptr.Value(tg.TargetGroupArn)})
	}
	return groups, nil
}

// checkRevision makes sure that an S3 revision is there before any instance
// is touched, and pins its version where the bucket keeps versions, so that
// every instance, and a later rollback, gets the same content.
func (s *Service) checkRevision(ctx context.Context, d *Deployment) (version string, err error) {
	if d.Version != "" || d.Revision.S3Location == nil || d.Launch != nil && d.Launch.Terminating {
		return d.Version, nil
	}
	l := d.Revision.S3Location
	out, err := dispatch.Call(ctx, s.mux, s3.OpHeadObject, &s3.HeadObjectInput{Bucket: l.Bucket, Key: l.Key, VersionId: l.Version})
	switch code := awserr.Code(err); {
	case err == nil:
	case code == "NoSuchKey" || code == "NoSuchBucket" || code == "NotFound" || code == "NoSuchVersion":
		return "", refuse(api.ErrorCodeRevisionMissing, "The revision s3://%s/%s does not exist.", ptr.Value(l.Bucket), ptr.Value(l.Key))
	case code == "NotImplemented": // the agents will find out
		return "", nil
	default:
		return "", fmt.Errorf("look at revision s3://%s/%s: %w", ptr.Value(l.Bucket), ptr.Value(l.Key), err)
	}
	if want, have := strings.Trim(ptr.Value(l.ETag), `"`), strings.Trim(ptr.Value(out.ETag), `"`); want != "" && have != "" && want != have {
		return "", refuse(api.ErrorCodeInvalidRevision, "The revision s3://%s/%s has the ETag %s, and the deployment asks for %s: the object was replaced.", ptr.Value(l.Bucket), ptr.Value(l.Key), have, want)
	}
	if v := ptr.Value(out.VersionId); v != "" && v != "null" && ptr.Value(l.Version) == "" {
		return v, nil
	}
	return "", nil
}
