package autoscaling

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	sns "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/store"
)

// notification is what one topic is told of a group.
type notification struct {
	Types []string
	// Since is when it was asked for: older activities are not told.
	Since time.Time
}

// notice is the message about an activity, with AWS's members (User Guide,
// "Amazon SNS notification options for Amazon EC2 Auto Scaling").
type notice struct {
	Progress             int
	AccountId            string
	Description          string
	RequestId            string
	EndTime              string
	AutoScalingGroupARN  string
	ActivityId           string
	StartTime            string
	Service              string
	Time                 string
	EC2InstanceId        string
	StatusCode           string
	StatusMessage        string
	Details              json.RawMessage
	AutoScalingGroupName string
	Cause                string
	Event                string
	Origin               string `json:",omitempty"`
	Destination          string `json:",omitempty"`
}

const isoMillis = "2006-01-02T15:04:05.000Z"

// eventOf is an ended activity's notification type; "" where nobody is told.
func (a *activity) eventOf() string {
	name := map[string]string{"launch": "LAUNCH", "terminate": "TERMINATE"}[a.Kind]
	switch {
	case name == "" || !ended(a.Status):
		return ""
	case a.Status != statusSuccessful:
		name += "_ERROR"
	}
	return "autoscaling:EC2_INSTANCE_" + name
}

// notifyActivity tells the topics of a group about an ended activity, at
// least once: what was told is written down afterwards.
func (s *Service) notifyActivity(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := activities.Find(ctx, s.Store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	a := &row.Doc
	event := a.eventOf()
	if event == "" || a.Notified {
		return 0, nil
	}
	g, err := groups.Find(ctx, s.Store, key.Account, key.Region, a.Group)
	if errors.Is(err, store.ErrNotFound) || err == nil && g.Doc.ARN != a.GroupARN {
		return 0, nil // the group is gone, and its notifications with it
	}
	if err != nil {
		return 0, err
	}
	told := false
	for topic, n := range g.Doc.Notifications {
		if !slices.Contains(n.Types, event) || a.End.Before(n.Since) {
			continue
		}
		told = true
		if err := s.publish(ctx, key, topic, a.subject(event), a.notice(key.Account, event, s.Clock.Now())); err != nil {
			return 0, err
		}
	}
	if !told {
		return 0, nil
	}
	_, err = activities.Modify(ctx, s.Store, key.Account, key.Region, key.ID, "Notified", func(a *activity) error {
		a.Notified = true
		return nil
	})
	return 0, err
}

func (a *activity) subject(event string) string {
	what := "launch"
	if strings.Contains(event, "TERMINATE") {
		what = "termination"
	}
	if strings.HasSuffix(event, "_ERROR") {
		what = "failed " + what
	}
	return fmt.Sprintf("Auto Scaling: %s for group %q", what, a.Group)
}

func (a *activity) notice(account, event string, now time.Time) notice {
	n := notice{Progress: 50, AccountId: account, Description: a.Description, RequestId: a.ID, EndTime: a.End.UTC().Format(isoMillis), AutoScalingGroupARN: a.GroupARN,
		ActivityId: a.ID, StartTime: a.Start.UTC().Format(isoMillis), Service: "AWS Auto Scaling", Time: now.UTC().Format(isoMillis), EC2InstanceId: a.Instance,
		StatusCode: statusInProgress, StatusMessage: a.Message, Details: json.RawMessage("{}"), AutoScalingGroupName: a.Group, Cause: a.Cause, Event: event,
		Origin: "AutoScalingGroup", Destination: "EC2"}
	if a.Kind == "launch" {
		n.Origin, n.Destination = "EC2", "AutoScalingGroup"
	}
	if a.Details != "" {
		n.Details = json.RawMessage(a.Details)
	}
	if a.Status != statusSuccessful {
		n.StatusCode, n.Progress = a.Status, 100
	}
	return n
}

// publish sends a message: JSON to programs, "key: value" lines to people. A
// topic that does not exist (any more) is no reason to try again.
func (s *Service) publish(ctx context.Context, key store.Key, topic, subject string, message any) error {
	ctx = caller.ForService(ctx, "autoscaling", key.Account, key.Region)
	raw, err := json.Marshal(message)
	if err != nil {
		return err
	}
	members := map[string]json.RawMessage{}
	if err := json.Unmarshal(raw, &members); err != nil {
		return err
	}
	var lines strings.Builder
	for _, k := range sortedKeys(members) {
		text := string(members[k])
		var plain string
		if json.Unmarshal(members[k], &plain) == nil {
			text = plain
		}
		fmt.Fprintf(&lines, "%s: %s\n", k, text)
	}
	both, err := json.Marshal(map[string]string{"default": string(raw), "email": lines.String()})
	if err != nil {
		return err
	}
	_, err = dispatch.Call(ctx, s.Mux, sns.OpPublish, &sns.PublishInput{TopicArn: &topic, Subject: &subject, Message: new(string(both)), MessageStructure: new("json")})
	if e := awserr.As(err); e != nil && (e.Status == 501 || e.Code == "NotFound" || e.Code == "InvalidParameter" || e.Code == "AuthorizationError") {
		s.Log.Warn("a notification could not be sent", "topic", topic, "subject", subject, "error", err)
		return nil
	}
	return err
}

// testNotice is what a new topic gets to see that it works.
func (s *Service) testNotice(ctx context.Context, g *store.Row[Group], topic string) {
	now := s.Clock.Now().UTC().Format(isoMillis)
	err := s.publish(ctx, g.Key, topic, fmt.Sprintf("Auto Scaling: test notification for group %q", g.ID), map[string]string{
		"AccountId": g.Account, "RequestId": caller.From(ctx).RequestID, "AutoScalingGroupARN": g.Doc.ARN, "AutoScalingGroupName": g.ID,
		"Service": "AWS Auto Scaling", "Event": "autoscaling:TEST_NOTIFICATION", "Time": now})
	if err != nil {
		s.Log.Warn("a test notification could not be sent", "topic", topic, "error", err)
	}
}

// hookNotice is the message about a lifecycle action.
type hookNotice struct {
	Origin, Destination  string
	AccountId            string
	Service              string
	Time                 string
	RequestId            string
	LifecycleActionToken string
	AutoScalingGroupName string
	LifecycleHookName    string
	EC2InstanceId        string
	LifecycleTransition  string
	NotificationMetadata string `json:",omitempty"`
}

// notifyHook tells a hook's topic that an instance waits, at least once.
func (s *Service) notifyHook(ctx context.Context, row *store.Row[Group], w *world, a act) error {
	n := slices.IndexFunc(a.instance.Actions, func(c action) bool { return c.Hook == a.hook })
	c := a.instance.Actions[n]
	m := hookNotice{Origin: "EC2", Destination: "AutoScalingGroup", AccountId: row.Account, Service: "AWS Auto Scaling", Time: w.now.UTC().Format(isoMillis), RequestId: c.Token,
		LifecycleActionToken: c.Token, AutoScalingGroupName: row.ID, LifecycleHookName: c.Hook, EC2InstanceId: a.instance.ID, LifecycleTransition: launching, NotificationMetadata: c.Metadata}
	if a.instance.State == terminatingWait {
		m.Origin, m.Destination, m.LifecycleTransition = "AutoScalingGroup", "EC2", terminatingHook
	}
	if err := s.publish(ctx, row.Key, c.Target, fmt.Sprintf("Auto Scaling:  Lifecycle action '%s' for instance %s in progress.", strings.TrimPrefix(m.LifecycleTransition, "autoscaling:EC2_INSTANCE_"), a.instance.ID), m); err != nil {
		return err
	}
	return s.change(ctx, row, a.instance, "HookNotified", func(_ store.Tx, i *Instance) error {
		for n := range i.Actions {
			if i.Actions[n].Token == c.Token {
				i.Actions[n].Notified = true
			}
		}
		return nil
	})
}
