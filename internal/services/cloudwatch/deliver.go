package cloudwatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	apiec2 "slipway/internal/api/ec2"
	apisns "slipway/internal/api/sns"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// patience is how long an action that fails for reasons that may pass is
// tried again.
const patience = 15 * time.Minute

// errRefused says that an action can never succeed.
var errRefused = errors.New("refused")

// deliver runs one action of the outbox. It may run an action twice where the
// server dies between the action and the note that it is done.
func (s *Service) deliver(ctx context.Context, key store.Key) (time.Duration, error) {
	row, err := actions.Find(ctx, s.store, key.Account, key.Region, key.ID)
	if err != nil {
		return 0, err
	}
	act := &row.Doc
	run := caller.ForService(ctx, "cloudwatch", key.Account, key.Region)
	failure := s.run(run, key.Account, key.Region, act)
	if failure != nil && ctx.Err() != nil {
		return 0, nil // the next start tries again
	}
	passing := failure != nil && !errors.Is(failure, errRefused) && (awserr.As(failure) == nil || awserr.As(failure).Status >= 500 && awserr.As(failure).Status != 501)
	if passing && !act.Repeat && s.clock.Since(act.At) < patience {
		return 0, failure
	}
	return 0, s.store.Update(ctx, func(tx store.Tx) error {
		if err := actions.Delete(tx, row, "Done", nil); err != nil {
			return err
		}
		if act.Repeat && failure == nil {
			return nil
		}
		h := history{Alarm: act.Alarm.Name, AlarmType: alarmType(&act.Alarm), At: s.clock.Now(), Type: api.HistoryItemTypeAction}
		if failure == nil {
			h.Summary = "Successfully executed action " + act.Target
			h.Data = actionData(act.Target, act.New, "Succeeded", "")
		} else {
			h.Summary = fmt.Sprintf("Failed to execute action %s. Received error: %q", act.Target, message(failure))
			h.Data = actionData(act.Target, act.New, "Failed", message(failure))
		}
		return s.writeHistory(tx, key.Account, key.Region, h)
	})
}

func message(err error) string {
	if e := awserr.As(err); e != nil {
		return e.Message
	}
	return err.Error()
}

func (s *Service) run(ctx context.Context, account, region string, act *action) error {
	parts := strings.SplitN(act.Target, ":", 6)
	if len(parts) < 6 {
		return fmt.Errorf("%w: %s is no ARN", errRefused, act.Target)
	}
	switch parts[2] {
	case "sns":
		n := notify(account, region, act)
		_, err := dispatch.Call(ctx, s.mux, apisns.OpPublish, &apisns.PublishInput{
			TopicArn: &act.Target, Subject: &n.subject, Message: &n.message, MessageStructure: new("json"),
		})
		return err
	case "autoscaling":
		return s.runPolicy(ctx, account, region, act)
	case "automate", "swf":
		return s.runInstance(ctx, act)
	}
	return fmt.Errorf("%w: Slipway does not implement alarm actions of the service %s yet", errRefused, parts[2])
}

func (s *Service) runPolicy(ctx context.Context, account, region string, act *action) error {
	if s.policies == nil {
		return fmt.Errorf("%w: no Auto Scaling policies are served here", errRefused)
	}
	value, threshold := math.NaN(), math.NaN()
	if act.Value != nil {
		value = *act.Value
	}
	if m := act.Alarm.Metric; m != nil && m.Threshold != nil {
		threshold = *m.Threshold
	}
	return s.policies.AlarmFired(ctx, account, region, act.Target, act.Alarm.Name, act.New, value, threshold)
}

// instanceAction reads "arn:aws:automate:R:ec2:stop" and the older
// "arn:aws:swf:R:A:action/actions/AWS_EC2.InstanceId.Stop/1.0".
var instanceAction = lazyre.New(`(?i)(?:^arn:[^:]+:automate:[^:]*:ec2:|AWS_EC2\.InstanceId\.)(stop|terminate|reboot|recover)(?:/1\.0)?$`)

func (s *Service) runInstance(ctx context.Context, act *action) error {
	m := instanceAction.FindStringSubmatch(act.Target)
	id := act.Alarm.instance()
	if m == nil || id == "" {
		return fmt.Errorf("%w: %s needs an alarm on a metric with the dimension InstanceId", errRefused, act.Target)
	}
	ids := []string{id}
	var err error
	switch strings.ToLower(m[1]) {
	case "stop":
		_, err = dispatch.Call(ctx, s.mux, apiec2.OpStopInstances, &apiec2.StopInstancesInput{InstanceIds: ids})
	case "terminate":
		_, err = dispatch.Call(ctx, s.mux, apiec2.OpTerminateInstances, &apiec2.TerminateInstancesInput{InstanceIds: ids})
	default:
		// Recovery moves an instance to other hardware, which it sees as a
		// reboot; here there is one host.
		_, err = dispatch.Call(ctx, s.mux, apiec2.OpRebootInstances, &apiec2.RebootInstancesInput{InstanceIds: ids})
	}
	return err
}

// instance is the InstanceId that the alarm's metric names, or "".
func (a *Alarm) instance() string {
	for _, m := range a.metrics("", "") {
		for _, d := range m.Dimensions {
			if d.Name == "InstanceId" {
				return d.Value
			}
		}
	}
	return ""
}
