package codedeploy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/api/sns"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// triggerOf is the trigger event that an event of a row stands for, or "".
func triggerOf(d *Deployment, ev store.Event) string {
	if ev.Key.Kind == targets.Kind {
		switch ev.Type {
		case typeBegan:
			return api.TriggerEventTypeInstanceStart
		case api.TargetStatusSucceeded:
			return api.TriggerEventTypeInstanceSuccess
		case api.TargetStatusFailed:
			return api.TriggerEventTypeInstanceFailure
		}
		return ""
	}
	switch ev.Type {
	case api.DeploymentStatusCreated:
		if d.Creator == api.DeploymentCreatorCodeDeployRollback {
			return api.TriggerEventTypeDeploymentRollback
		}
	case api.DeploymentStatusInProgress:
		return api.TriggerEventTypeDeploymentStart
	case api.DeploymentStatusSucceeded:
		return api.TriggerEventTypeDeploymentSuccess
	case api.DeploymentStatusFailed:
		return api.TriggerEventTypeDeploymentFailure
	case api.DeploymentStatusStopped:
		return api.TriggerEventTypeDeploymentStop
	}
	return ""
}

// notify publishes to the triggers that ask for the event.
func (s *Service) notify(ctx context.Context, key store.Key, d *Deployment, ev store.Event) {
	trigger := triggerOf(d, ev)
	if trigger == "" {
		return
	}
	for _, t := range d.Triggers {
		if !slices.Contains(t.TriggerEvents, trigger) {
			continue
		}
		subject, message, err := s.notification(ctx, key, d, ev, ptr.Value(t.TriggerName))
		if err == nil {
			_, err = dispatch.Call(s.as(ctx, key.Account, key.Region), s.mux, sns.OpPublish, &sns.PublishInput{TopicArn: t.TriggerTargetArn, Subject: &subject, Message: &message})
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("a deployment group's trigger could not be published", "deployment", d.ID, "trigger", ptr.Value(t.TriggerName), "topic", ptr.Value(t.TriggerTargetArn), "error", err)
		}
	}
}

// deploymentNote and instanceNote are AWS's JSON (AWS: "JSON data formats for
// CodeDeploy triggers"): every scalar is a string.
type deploymentNote struct {
	Region              string `json:"region"`
	AccountID           string `json:"accountId"`
	EventTriggerName    string `json:"eventTriggerName"`
	ApplicationName     string `json:"applicationName"`
	DeploymentID        string `json:"deploymentId"`
	DeploymentGroupName string `json:"deploymentGroupName"`
	CreateTime          string `json:"createTime"`
	CompleteTime        string `json:"completeTime,omitempty"`
	DeploymentOverview  string `json:"deploymentOverview"`
	Status              string `json:"status"`
	ErrorInformation    string `json:"errorInformation,omitempty"`
}

type instanceNote struct {
	Region              string      `json:"region"`
	AccountID           string      `json:"accountId"`
	EventTriggerName    string      `json:"eventTriggerName"`
	DeploymentID        string      `json:"deploymentId"`
	ApplicationName     string      `json:"applicationName"`
	DeploymentGroupName string      `json:"deploymentGroupName"`
	InstanceID          string      `json:"instanceId"`
	LastUpdatedAt       string      `json:"lastUpdatedAt"`
	InstanceStatus      string      `json:"instanceStatus"`
	LifecycleEvents     []eventNote `json:"lifecycleEvents"`
}

type eventNote struct {
	LifecycleEvent       string
	LifecycleEventStatus string
	StartTime            string `json:",omitempty"`
	EndTime              string `json:",omitempty"`
}

// epoch writes seconds with milliseconds, as AWS's notifications do.
func epoch(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%03d", t.Unix(), t.Nanosecond()/1_000_000)
}

func (s *Service) notification(ctx context.Context, key store.Key, d *Deployment, ev store.Event, name string) (subject, message string, err error) {
	var note any
	status := ev.State
	err = s.store.View(ctx, func(r store.Reader) error {
		if ev.Key.Kind == targets.Kind {
			row, err := targets.Get(r, ev.Key.Account, ev.Key.Region, ev.Key.ID)
			if err != nil {
				return err
			}
			note = noteInstance(key, d, row, ev, name)
			return nil
		}
		rows, err := targetsOf(r, key.Account, key.Region, d.ID)
		note = noteDeployment(key, d, rows, ev, name)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return "", "", fmt.Errorf("what the notification is about is gone: %w", err)
	}
	if err != nil {
		return "", "", err
	}
	b, err := json.Marshal(note)
	subject = fmt.Sprintf("%s: AWS CodeDeploy %s in %s to %s", strings.ToUpper(status), d.ID, key.Region, d.Application)
	return head(subject, 100), string(b), err
}

func noteDeployment(key store.Key, d *Deployment, rows []*targetRow, ev store.Event, name string) deploymentNote {
	o := overview(rows)
	counts, _ := json.Marshal(map[string]int64{ // plain numbers: cannot fail
		"Pending": *o.Pending, "InProgress": *o.InProgress, "Succeeded": *o.Succeeded, "Failed": *o.Failed, "Skipped": *o.Skipped, "Ready": *o.Ready,
	})
	n := deploymentNote{
		Region: key.Region, AccountID: key.Account, EventTriggerName: name, ApplicationName: d.Application, DeploymentID: d.ID,
		DeploymentGroupName: d.Group, CreateTime: epoch(d.CreatedAt), DeploymentOverview: string(counts), Status: strings.ToUpper(ev.State),
	}
	if terminal(ev.State) {
		n.CompleteTime = epoch(d.CompletedAt)
		if d.Error != nil {
			b, _ := json.Marshal(map[string]string{"ErrorCode": d.Error.Code, "ErrorMessage": d.Error.Message})
			n.ErrorInformation = string(b)
		}
	}
	return n
}

func noteInstance(key store.Key, d *Deployment, row *targetRow, ev store.Event, name string) instanceNote {
	t := &row.Doc
	n := instanceNote{
		Region: key.Region, AccountID: key.Account, EventTriggerName: name, DeploymentID: d.ID, ApplicationName: d.Application,
		DeploymentGroupName: d.Group, InstanceID: t.HostARN, LastUpdatedAt: epoch(ev.At), InstanceStatus: ev.State,
	}
	for _, e := range renderEvents(t) {
		note := eventNote{LifecycleEvent: ptr.Value(e.LifecycleEventName), LifecycleEventStatus: ptr.Value(e.Status)}
		if e.StartTime != nil {
			note.StartTime = epoch(*e.StartTime)
		}
		if e.EndTime != nil {
			note.EndTime = epoch(*e.EndTime)
		}
		n.LifecycleEvents = append(n.LifecycleEvents, note)
	}
	return n
}
