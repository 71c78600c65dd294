package autoscaling

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	api "slipway/internal/api/autoscaling"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// schedule is the document of an autoscaling:schedule row, a scheduled
// action; its id is "group/name". Next is when it runs; after its last run
// the row goes.
type schedule struct {
	Name, Group, GroupARN, ARN string
	Start, End                 time.Time `json:",omitzero"`
	Recurrence, Zone           string    `json:",omitempty"`
	Min, Max, Desired          *int64    `json:",omitempty"`
	Next                       time.Time
}

var schedules = store.NewTable[schedule]("autoscaling:schedule", func(c *schedule) (string, string) { return c.Group, "" })

// maxSchedules is AWS's quota per group.
const maxSchedules = 125

func scheduleFrom(group string, in *api.ScheduledUpdateGroupActionRequest, now time.Time) (*schedule, error) {
	c := &schedule{Name: ptr.Value(in.ScheduledActionName), Group: group, Start: ptr.Value(in.StartTime).UTC(), End: ptr.Value(in.EndTime).UTC(), Recurrence: ptr.Value(in.Recurrence), Zone: ptr.Value(in.TimeZone),
		Min: in.MinSize, Max: in.MaxSize, Desired: in.DesiredCapacity}
	switch {
	case c.Name == "" || len(c.Name) > 255:
		return nil, invalid("The scheduled action name '%.60s' is invalid: it has 1 to 255 characters.", c.Name)
	case c.Min == nil && c.Max == nil && c.Desired == nil:
		return nil, invalid("At least one of MinSize, MaxSize and DesiredCapacity must be given.")
	case c.Start.IsZero() && c.Recurrence == "":
		return nil, invalid("StartTime or Recurrence must be given.")
	case !c.Start.IsZero() && !c.Start.After(now):
		return nil, invalid("Given start time is in the past")
	case !c.End.IsZero() && !c.End.After(now):
		return nil, invalid("Given end time is in the past")
	case !c.End.IsZero() && !c.End.After(c.Start):
		return nil, invalid("Given end time must be after the start time.")
	case negative(c.Min) || negative(c.Max) || negative(c.Desired):
		return nil, invalid("MinSize, MaxSize and DesiredCapacity must not be negative.")
	case c.Min != nil && c.Max != nil && *c.Min > *c.Max:
		return nil, invalid("Max bound, %d, must be greater than or equal to min bound, %d", *c.Max, *c.Min)
	case c.Desired != nil && (c.Min != nil && *c.Desired < *c.Min || c.Max != nil && *c.Desired > *c.Max):
		return nil, invalid("Desired capacity:%d must be between the specified min size and max size", *c.Desired)
	}
	if _, err := c.location(); err != nil {
		return nil, invalid("The time zone '%.60s' is invalid: it must be a name of the IANA time zone database.", c.Zone)
	}
	if c.Recurrence != "" {
		if _, err := parseCron(c.Recurrence); err != nil {
			return nil, invalid("The recurrence '%.100s' is invalid: %v.", c.Recurrence, err)
		}
	}
	if c.Next = c.Start; c.Start.IsZero() {
		c.Next = c.after(now)
	}
	if c.Next.IsZero() {
		return nil, invalid("The recurrence '%.100s' never comes.", c.Recurrence)
	}
	return c, nil
}

func negative(n *int64) bool { return n != nil && *n < 0 }

func (c *schedule) location() (*time.Location, error) {
	if c.Zone == "" {
		return time.UTC, nil
	}
	if c.Zone == "Local" {
		return nil, errors.New("not a zone")
	}
	return time.LoadLocation(c.Zone)
}

// after is the next run behind t, zero where there is none.
func (c *schedule) after(t time.Time) time.Time {
	rule, err := parseCron(c.Recurrence)
	loc, err2 := c.location()
	if err != nil || err2 != nil {
		return time.Time{}
	}
	next := rule.next(t, loc)
	if !c.End.IsZero() && next.After(c.End) {
		return time.Time{}
	}
	return next
}

// reconcileSchedule runs a scheduled action when its time has come.
func (s *Service) reconcileSchedule(ctx context.Context, key store.Key) (time.Duration, error) {
	var wait time.Duration
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		now := s.Clock.Now()
		wait = 0
		row, err := schedules.Get(tx, key.Account, key.Region, key.ID)
		if err != nil {
			return err
		}
		g, err := groups.Get(tx, key.Account, key.Region, row.Doc.Group)
		if errors.Is(err, store.ErrNotFound) || err == nil && g.Doc.ARN != row.Doc.GroupARN {
			return schedules.Delete(tx, row, "Deleted", nil)
		}
		if err != nil {
			return err
		}
		if wait = row.Doc.Next.Sub(now); wait > 0 {
			return store.ErrUnchanged
		}
		if !g.Doc.Deleting && !g.Doc.suspended("ScheduledActions") {
			if err := runSchedule(tx, g, &row.Doc, now); err != nil {
				return err
			}
		}
		row.Doc.Next = time.Time{}
		if row.Doc.Recurrence != "" {
			row.Doc.Next = row.Doc.after(now)
		}
		if row.Doc.Next.IsZero() {
			return schedules.Delete(tx, row, "Done", nil)
		}
		wait = row.Doc.Next.Sub(now)
		return schedules.Save(tx, row, "Ran", nil)
	})
	if errors.Is(err, store.ErrUnchanged) {
		err = nil
	}
	return wait, err
}

// runSchedule changes a group as a scheduled action says. Where that leaves
// bounds that contradict each other, nothing changes and an activity says so.
func runSchedule(tx store.Tx, g *store.Row[Group], c *schedule, now time.Time) error {
	doc := &g.Doc
	low, high, desired := doc.Min, doc.Max, doc.Desired
	set(&low, c.Min)
	set(&high, c.Max)
	if c.Desired != nil {
		desired = *c.Desired
	} else {
		desired = min(max(desired, low), max(low, high))
	}
	if low > high || desired < low || desired > high {
		text := fmt.Sprintf("The scheduled action %s asks for min: %d, max: %d, desired: %d, which contradict each other.", c.Name, low, high, desired)
		id, err := newActivity(tx, g, now, activity{Description: "Scheduled action " + c.Name, Cause: at(now, text)})
		if err != nil {
			return err
		}
		return progress(tx, g.Account, g.Region, id, statusFailed, 100, now, text)
	}
	doc.Min, doc.Max = low, high
	if desired != doc.Desired {
		doc.setDesired(desired, at(now, fmt.Sprintf("a scheduled action update of AutoScalingGroup constraints to min: %d, max: %d, desired: %d changing the desired capacity from %d to %d.",
			low, high, desired, doc.Desired, desired)), nil)
	}
	return groups.Save(tx, g, "Scaling", nil)
}

// schedulesOf leads from a group that was deleted to its scheduled actions.
func (s *Service) schedulesOf(ev store.Event) (keys []store.Key) {
	if !ev.Deleted {
		return nil
	}
	// A failure here is no loss: the store is gone, and with it the controller.
	_ = s.Store.View(context.Background(), func(r store.Reader) error {
		recs, err := r.List(store.Query{Kind: schedules.Kind, Account: ev.Key.Account, Region: ev.Key.Region, Parent: ev.Key.ID})
		for _, rec := range recs {
			keys = append(keys, rec.Key)
		}
		return err
	})
	return keys
}

func (s *Service) putSchedule(ctx context.Context, in *api.PutScheduledUpdateGroupActionInput) (*api.PutScheduledUpdateGroupActionOutput, error) {
	start := in.StartTime
	if start == nil {
		start = in.Time
	}
	err := s.writeSchedule(ctx, ptr.Value(in.AutoScalingGroupName), &api.ScheduledUpdateGroupActionRequest{ScheduledActionName: in.ScheduledActionName, StartTime: start, EndTime: in.EndTime,
		Recurrence: in.Recurrence, MinSize: in.MinSize, MaxSize: in.MaxSize, DesiredCapacity: in.DesiredCapacity, TimeZone: in.TimeZone})
	return &api.PutScheduledUpdateGroupActionOutput{}, err
}

func (s *Service) writeSchedule(ctx context.Context, group string, in *api.ScheduledUpdateGroupActionRequest) error {
	account, region := where(ctx)
	c, err := scheduleFrom(group, in, s.Clock.Now())
	if err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := getGroup(tx, account, region, group)
		if err != nil {
			return err
		}
		c.GroupARN = g.Doc.ARN
		all, err := schedules.List(tx, store.Query{Account: account, Region: region, Parent: group})
		if err != nil {
			return err
		}
		for _, other := range all {
			if other.Doc.Name == c.Name || other.Doc.GroupARN != c.GroupARN || !other.Doc.Next.Equal(c.Next) {
				continue
			}
			return awserr.New(api.ErrCodeAlreadyExistsFault, "The scheduled action %s of the group %s is scheduled for %s already; each needs a time of its own.", other.Doc.Name, group, c.Next.Format(time.RFC3339))
		}
		n := slices.IndexFunc(all, func(r *store.Row[schedule]) bool { return r.Doc.Name == c.Name })
		if n >= 0 {
			c.ARN = all[n].Doc.ARN
			all[n].Doc = *c
			return schedules.Save(tx, all[n], "Changed", nil)
		}
		if len(all) >= maxSchedules {
			return awserr.New(api.ErrCodeLimitExceededFault, "The group has %d scheduled actions already.", len(all))
		}
		c.ARN = "arn:aws:autoscaling:" + region + ":" + account + ":scheduledUpdateGroupAction:" + uuid.NewString() + ":autoScalingGroupName/" + group + ":scheduledActionName/" + c.Name
		_, err = schedules.Insert(tx, account, region, group+"/"+c.Name, *c, "Created", nil)
		return err
	})
}

func (s *Service) batchPutSchedule(ctx context.Context, in *api.BatchPutScheduledUpdateGroupActionInput) (*api.BatchPutScheduledUpdateGroupActionOutput, error) {
	if _, err := s.readGroup(ctx, ptr.Value(in.AutoScalingGroupName)); err != nil {
		return nil, err
	}
	if len(in.ScheduledUpdateGroupActions) > 50 {
		return nil, invalid("At most 50 scheduled actions can be put at once, not %d.", len(in.ScheduledUpdateGroupActions))
	}
	out := &api.BatchPutScheduledUpdateGroupActionOutput{FailedScheduledUpdateGroupActions: []api.FailedScheduledUpdateGroupActionRequest{}}
	for n := range in.ScheduledUpdateGroupActions {
		a := &in.ScheduledUpdateGroupActions[n]
		err := s.writeSchedule(ctx, ptr.Value(in.AutoScalingGroupName), a)
		failed, err := failedSchedule(a.ScheduledActionName, err)
		if err != nil {
			return nil, err
		}
		if failed != nil {
			out.FailedScheduledUpdateGroupActions = append(out.FailedScheduledUpdateGroupActions, *failed)
		}
	}
	return out, nil
}

// failedSchedule turns an AWS error into the entry of a batch's answer.
func failedSchedule(name *string, err error) (*api.FailedScheduledUpdateGroupActionRequest, error) {
	aws := awserr.As(err)
	if aws == nil {
		return nil, err
	}
	return &api.FailedScheduledUpdateGroupActionRequest{ScheduledActionName: name, ErrorCode: &aws.Code, ErrorMessage: &aws.Message}, nil
}

func (s *Service) deleteSchedule(ctx context.Context, in *api.DeleteScheduledActionInput) (*api.DeleteScheduledActionOutput, error) {
	return &api.DeleteScheduledActionOutput{}, s.removeSchedule(ctx, ptr.Value(in.AutoScalingGroupName), ptr.Value(in.ScheduledActionName))
}

func (s *Service) removeSchedule(ctx context.Context, group, name string) error {
	account, region := where(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := schedules.Get(tx, account, region, group+"/"+name)
		if err != nil {
			return err
		}
		return schedules.Delete(tx, row, "Deleted", nil)
	})
	if errors.Is(err, store.ErrNotFound) {
		return invalid("Scheduled action name not found - the AutoScalingGroup '%s' has no scheduled action '%s'", group, name)
	}
	return err
}

func (s *Service) batchDeleteSchedule(ctx context.Context, in *api.BatchDeleteScheduledActionInput) (*api.BatchDeleteScheduledActionOutput, error) {
	out := &api.BatchDeleteScheduledActionOutput{FailedScheduledActions: []api.FailedScheduledUpdateGroupActionRequest{}}
	for _, name := range in.ScheduledActionNames {
		failed, err := failedSchedule(&name, s.removeSchedule(ctx, ptr.Value(in.AutoScalingGroupName), name))
		if err != nil {
			return nil, err
		}
		if failed != nil {
			out.FailedScheduledActions = append(out.FailedScheduledActions, *failed)
		}
	}
	return out, nil
}

func (s *Service) describeSchedules(ctx context.Context, in *api.DescribeScheduledActionsInput) (*api.DescribeScheduledActionsOutput, error) {
	account, region := where(ctx)
	rows, err := schedules.Select(ctx, s.Store, store.Query{Account: account, Region: region, Parent: ptr.Value(in.AutoScalingGroupName)})
	if err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(r *store.Row[schedule]) bool {
		return len(in.ScheduledActionNames) > 0 && !slices.Contains(in.ScheduledActionNames, r.Doc.Name) && !slices.Contains(in.ScheduledActionNames, r.Doc.ARN) ||
			in.StartTime != nil && r.Doc.Next.Before(*in.StartTime) || in.EndTime != nil && r.Doc.Next.After(*in.EndTime)
	})
	slices.SortFunc(rows, func(a, b *store.Row[schedule]) int { return cmp.Compare(a.ID, b.ID) })
	rows, next, err := page(rows, func(r *store.Row[schedule]) string { return r.ID }, in.MaxRecords, in.NextToken, 50)
	out := &api.DescribeScheduledActionsOutput{ScheduledUpdateGroupActions: []api.ScheduledUpdateGroupAction{}, NextToken: next}
	for _, r := range rows {
		c := &r.Doc
		a := api.ScheduledUpdateGroupAction{AutoScalingGroupName: &c.Group, ScheduledActionName: &c.Name, ScheduledActionARN: &c.ARN, StartTime: &c.Next, Time: &c.Next,
			Recurrence: orNil(c.Recurrence), TimeZone: orNil(c.Zone), MinSize: c.Min, MaxSize: c.Max, DesiredCapacity: c.Desired}
		if !c.End.IsZero() {
			a.EndTime = &c.End
		}
		out.ScheduledUpdateGroupActions = append(out.ScheduledUpdateGroupActions, a)
	}
	return out, err
}
