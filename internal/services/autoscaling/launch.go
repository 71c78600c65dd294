package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	ec2 "slipway/internal/api/ec2"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// launch decides one launch: the template is resolved now, so that $Latest
// means the version of this moment, and everything is written down before
// EC2 is called.
func (s *Service) launch(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	g := &row.Doc
	in := intent{ID: uuid.NewString(), Group: g.Name, Place: a.place, Protected: g.ProtectNew, At: w.now,
		NoRegister: g.suspended("AddToLoadBalancer"), Rebalance: a.rebal}
	source := *g
	if w.refresh != nil && w.refresh.Template != nil {
		source.Template, source.Mixed = w.refresh.Template, w.refresh.Mixed
	}
	resolved, err := s.resolve(ctx, &source)
	if err != nil {
		if awserr.As(err) == nil || ctx.Err() != nil {
			return err
		}
		return s.launchImpossible(ctx, row, w, a, err)
	}
	in.Template, in.Type, in.Image = &resolved.ref, resolved.kind, resolved.image
	in.Input = runInput(g, &in, resolved)
	return s.Store.Update(ctx, func(tx store.Tx) error {
		now, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil {
			return err
		}
		in.Activity, err = newActivity(tx, row, w.now, activity{Description: "Launching a new EC2 instance", Cause: launchCause(w, a), Details: details(a.place, g.Alarms), Kind: "launch"})
		if err != nil {
			return err
		}
		if a.replace && now.Doc.Replacements > 0 {
			now.Doc.Replacements--
			if err := groups.Save(tx, now, "Replacing", nil); err != nil {
				return err
			}
		}
		_, err = intents.Insert(tx, row.Account, row.Region, in.ID, in, "Intended", nil)
		return err
	})
}

func launchCause(w *world, a act) string {
	switch {
	case a.cause != "":
		return at(w.now, a.cause)
	case a.rebal:
		return at(w.now, causeBalance)
	case a.replace:
		return at(w.now, causeLaunchReplacement)
	}
	return sentences(append(slices.Clone(w.group.Causes),
		at(w.now, fmt.Sprintf("an instance was started in response to a difference between desired and actual capacity, increasing the capacity from %d to %d.", a.from, a.to)))...)
}

// launchImpossible records a launch that failed before there was an intent.
func (s *Service) launchImpossible(ctx context.Context, row *store.Row[Group], w *world, a act, cause error) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := groups.Get(tx, row.Account, row.Region, row.ID)
		if err != nil || g.Doc.RetryAt.After(w.now) {
			return err // one of several launches of this plan has said it
		}
		id, err := newActivity(tx, g, w.now, activity{Description: "Launching a new EC2 instance.  Status Reason: " + reasonOf(cause), Cause: launchCause(w, a), Details: details(a.place, g.Doc.Alarms), Kind: "launch"})
		if err != nil {
			return err
		}
		if err := progress(tx, g.Account, g.Region, id, statusFailed, 100, w.now, reasonOf(cause)); err != nil {
			return err
		}
		failed(&g.Doc, w.now)
		return groups.Save(tx, g, "LaunchFailed", nil)
	})
}

// reasonOf is an error as an activity's status message shows it.
func reasonOf(err error) string {
	text := err.Error()
	if e := awserr.As(err); e != nil {
		text = e.Message
	}
	return text + "  Launching EC2 instance failed."
}

// resolved is a launch template as it is now.
type resolved struct {
	ref         templateRef // with the concrete version
	kind, image string      // instance type and AMI
	override    string      // instance type of the mixed policy, or ""
}

func (s *Service) resolve(ctx context.Context, g *Group) (*resolved, error) {
	if g.Template == nil {
		return nil, awserr.New("ValidationError", "The group has no launch template.")
	}
	version := g.Template.Version
	if version == "" {
		version = "$Default"
	}
	in := &ec2.DescribeLaunchTemplateVersionsInput{Versions: []string{version}}
	if g.Template.ID != "" {
		in.LaunchTemplateId = &g.Template.ID
	} else {
		in.LaunchTemplateName = &g.Template.Name
	}
	out, err := dispatch.Call(ctx, s.Mux, ec2.OpDescribeLaunchTemplateVersions, in)
	if err != nil {
		return nil, err
	}
	if len(out.LaunchTemplateVersions) != 1 {
		return nil, awserr.New("ValidationError", "The launch template version %s does not exist.", version)
	}
	v := out.LaunchTemplateVersions[0]
	data := ptr.Value(v.LaunchTemplateData)
	r := &resolved{ref: templateRef{ptr.Value(v.LaunchTemplateId), ptr.Value(v.LaunchTemplateName), strconv.FormatInt(ptr.Value(v.VersionNumber), 10)},
		kind: ptr.Value(data.InstanceType), image: ptr.Value(data.ImageId)}
	if g.Mixed != nil && g.Mixed.LaunchTemplate != nil {
		for _, o := range g.Mixed.LaunchTemplate.Overrides {
			if o.InstanceType != nil {
				r.override, r.kind = *o.InstanceType, *o.InstanceType // the order given is the priority
				break
			}
		}
	}
	return r, nil
}

// runInput is the RunInstances request of an intent. It is stored with it:
// a repeat after a crash must be the very same request.
func runInput(g *Group, in *intent, r *resolved) ec2.RunInstancesInput {
	out := ec2.RunInstancesInput{MinCount: new(int64(1)), MaxCount: new(int64(1)), ClientToken: &in.ID,
		LaunchTemplate: &ec2.LaunchTemplateSpecification{LaunchTemplateId: &r.ref.ID, Version: &r.ref.Version}, InstanceType: orNil(r.override)}
	if in.Place.Subnet != "" {
		out.SubnetId = &in.Place.Subnet
	} else {
		out.Placement = &ec2.Placement{AvailabilityZone: &in.Place.Zone}
	}
	tags := []ec2.Tag{{Key: new("aws:autoscaling:groupName"), Value: &g.Name}}
	for _, t := range g.Tags {
		if t.Propagate {
			tags = append(tags, ec2.Tag{Key: new(t.Key), Value: new(t.Value)})
		}
	}
	out.TagSpecifications = []ec2.TagSpecification{{ResourceType: new("instance"), Tags: tags}}
	return out
}

// runIntent calls EC2 for an intent. The client token makes a repeat after a
// crash return the instance of the first time.
func (s *Service) runIntent(ctx context.Context, row *store.Row[Group], in *intent) error {
	out, err := dispatch.Call(ctx, s.Mux, ec2.OpRunInstances, &in.Input)
	if err != nil && (ctx.Err() != nil || awserr.As(err) == nil) {
		return err // not EC2's verdict: the same intent is tried again
	}
	if err == nil && len(out.Instances) == 0 {
		err = awserr.New("InternalError", "EC2 launched nothing.")
	}
	now := s.Clock.Now()
	return s.Store.Update(ctx, func(tx store.Tx) error {
		n, getErr := intents.Get(tx, row.Account, row.Region, in.ID)
		if errors.Is(getErr, store.ErrNotFound) {
			return nil
		}
		if getErr != nil {
			return getErr
		}
		if delErr := intents.Delete(tx, n, "Done", nil); delErr != nil {
			return delErr
		}
		if err != nil {
			return intentFailed(tx, row, in, err, now)
		}
		m := out.Instances[0]
		i := Instance{ID: ptr.Value(m.InstanceId), Group: in.Group, Type: ptr.Value(m.InstanceType), Image: ptr.Value(m.ImageId), Zone: ptr.Value(ptr.Value(m.Placement).AvailabilityZone),
			ZoneID: in.Place.ZoneID, Subnet: ptr.Value(m.SubnetId), Template: in.Template, State: pending, Health: "Healthy", Protected: in.Protected,
			Launched: now, Activity: in.Activity, NoRegister: in.NoRegister, Rebalance: in.Rebalance}
		if _, err := instances.Insert(tx, row.Account, row.Region, i.ID, i, "Pending", eventDetail(&i)); err != nil {
			return err
		}
		a, err := activities.Get(tx, row.Account, row.Region, in.Activity)
		if err != nil {
			return err
		}
		a.Doc.Description, a.Doc.Instance, a.Doc.Status, a.Doc.Progress = "Launching a new EC2 instance: "+i.ID, i.ID, statusPre, 30
		return activities.Save(tx, a, "Progressed", nil)
	})
}

func intentFailed(tx store.Tx, row *store.Row[Group], in *intent, cause error, now time.Time) error {
	if err := describe(tx, row, in.Activity, "Launching a new EC2 instance.  Status Reason: "+reasonOf(cause)); err != nil {
		return err
	}
	if err := progress(tx, row.Account, row.Region, in.Activity, statusFailed, 100, now, reasonOf(cause)); err != nil {
		return err
	}
	g, err := groups.Get(tx, row.Account, row.Region, row.ID)
	if err != nil {
		return err
	}
	failed(&g.Doc, now)
	return groups.Save(tx, g, "LaunchFailed", nil)
}
