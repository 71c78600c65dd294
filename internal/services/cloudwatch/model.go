package cloudwatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/store"
)

// Alarm is the document of a cloudwatch:alarm row; the row's id is the name.
// Exactly one of Metric and Composite is set: the configuration as it came.
type Alarm struct {
	Name, ARN string
	Metric    *api.PutMetricAlarmInput    `json:",omitempty"`
	Composite *api.PutCompositeAlarmInput `json:",omitempty"`
	Tags      map[string]string           `json:",omitempty"`
	// Configured is when it was put last.
	Configured time.Time
	// State is a StateValue; Updated is when something about the state was
	// written, Transitioned when State itself changed.
	State, Reason string
	ReasonData    string `json:",omitempty"`
	Updated       time.Time
	Transitioned  time.Time
	// EvaluationState is PARTIAL_DATA, EVALUATION_ERROR or "".
	EvaluationState string `json:",omitempty"`
	// Muted is set when the actions are turned off.
	Muted bool `json:",omitempty"`
	// Held are a composite alarm's actions that wait for its suppressor.
	Held *heldActions `json:",omitempty"`
}

// heldActions are actions that a composite alarm's suppressor keeps back.
type heldActions struct {
	By     string // Alarm, WaitPeriod or ExtensionPeriod
	Reason string
	// From is the state of which people were told last.
	From string
	// Until is the end of a wait or extension period.
	Until time.Time `json:",omitzero"`
}

func (a *Alarm) index() (parent, state string) { return "", a.State }

func (a *Alarm) composite() bool { return a.Composite != nil }

// actionsFor are the actions of a state.
func (a *Alarm) actionsFor(state string) []string {
	ok, alarm, insufficient := a.actionLists()
	switch state {
	case api.StateValueOk:
		return ok
	case api.StateValueAlarm:
		return alarm
	}
	return insufficient
}

func (a *Alarm) actionLists() (ok, alarm, insufficient []string) {
	if c := a.Composite; c != nil {
		return c.OKActions, c.AlarmActions, c.InsufficientDataActions
	}
	return a.Metric.OKActions, a.Metric.AlarmActions, a.Metric.InsufficientDataActions
}

func (a *Alarm) description() *string {
	if a.composite() {
		return a.Composite.AlarmDescription
	}
	return a.Metric.AlarmDescription
}

// history is the document of a cloudwatch:history row, whose ids ascend with
// time; Parent is the alarm.
type history struct {
	Alarm, AlarmType string
	At               time.Time
	Type, Summary    string
	Data             string
}

// action is the document of a cloudwatch:action row: an action to be run. It
// is deleted when it succeeded or failed for good.
type action struct {
	Target   string // the action's ARN
	Old, New string // states
	At       time.Time
	Alarm    Alarm // as it was then
	// Value is the newest data point.
	Value *float64 `json:",omitempty"`
	// Repeat says that it is an Auto Scaling action of a state that lasts.
	Repeat bool `json:",omitempty"`
}

// dashboard is the document of a cloudwatch:dashboard row.
type dashboard struct {
	Name, Body string
	Modified   time.Time
}

// The rows of this service. Others may watch "cloudwatch:alarm".
var (
	alarms     = store.NewTable("cloudwatch:alarm", (*Alarm).index)
	histories  = store.NewTable("cloudwatch:history", func(h *history) (string, string) { return h.Alarm, h.Type })
	actions    = store.NewTable("cloudwatch:action", func(a *action) (string, string) { return a.Alarm.Name, a.New })
	dashboards = store.NewTable[dashboard]("cloudwatch:dashboard", nil)
)

// Event types of cloudwatch:alarm rows.
const (
	eventPut   = "ConfigurationUpdated"
	eventState = "StateChanged"
	eventOther = "Touched" // nothing that matters to an evaluation
)

func alarmARN(account, region, name string) string {
	return fmt.Sprintf("arn:aws:cloudwatch:%s:%s:alarm:%s", region, account, name)
}

func alarmType(a *Alarm) string {
	if a.composite() {
		return api.AlarmTypeCompositeAlarm
	}
	return api.AlarmTypeMetricAlarm
}

func apiTags(tags map[string]string) []api.Tag {
	out := []api.Tag{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, api.Tag{Key: new(k), Value: new(tags[k])})
	}
	return out
}

func (a *Alarm) metricAlarm() api.MetricAlarm {
	c := a.Metric
	dims := c.Dimensions
	if dims == nil {
		dims = []api.Dimension{}
	}
	return api.MetricAlarm{
		AlarmName: &a.Name, AlarmArn: &a.ARN, AlarmDescription: c.AlarmDescription, AlarmConfigurationUpdatedTimestamp: &a.Configured,
		ActionsEnabled: new(!a.Muted), OKActions: list(c.OKActions), AlarmActions: list(c.AlarmActions), InsufficientDataActions: list(c.InsufficientDataActions),
		StateValue: &a.State, StateReason: &a.Reason, StateReasonData: orNil(a.ReasonData), StateUpdatedTimestamp: &a.Updated, StateTransitionedTimestamp: &a.Transitioned,
		MetricName: c.MetricName, Namespace: c.Namespace, Statistic: c.Statistic, ExtendedStatistic: c.ExtendedStatistic, Dimensions: dims,
		Period: c.Period, Unit: c.Unit, EvaluationPeriods: c.EvaluationPeriods, DatapointsToAlarm: c.DatapointsToAlarm, Threshold: c.Threshold,
		ComparisonOperator: c.ComparisonOperator, TreatMissingData: c.TreatMissingData, EvaluateLowSampleCountPercentile: c.EvaluateLowSampleCountPercentile,
		Metrics: c.Metrics, ThresholdMetricId: c.ThresholdMetricId, EvaluationState: orNil(a.EvaluationState), ActionConfiguration: c.ActionConfiguration,
	}
}

func (a *Alarm) compositeAlarm() api.CompositeAlarm {
	c := a.Composite
	out := api.CompositeAlarm{
		AlarmName: &a.Name, AlarmArn: &a.ARN, AlarmDescription: c.AlarmDescription, AlarmConfigurationUpdatedTimestamp: &a.Configured,
		ActionsEnabled: new(!a.Muted), OKActions: list(c.OKActions), AlarmActions: list(c.AlarmActions), InsufficientDataActions: list(c.InsufficientDataActions),
		StateValue: &a.State, StateReason: &a.Reason, StateReasonData: orNil(a.ReasonData), StateUpdatedTimestamp: &a.Updated, StateTransitionedTimestamp: &a.Transitioned,
		AlarmRule: c.AlarmRule, ActionsSuppressor: c.ActionsSuppressor, ActionsSuppressorWaitPeriod: c.ActionsSuppressorWaitPeriod,
		ActionsSuppressorExtensionPeriod: c.ActionsSuppressorExtensionPeriod, ActionConfiguration: c.ActionConfiguration,
	}
	if a.Held != nil {
		out.ActionsSuppressedBy, out.ActionsSuppressedReason = &a.Held.By, &a.Held.Reason
	}
	return out
}

// list is never nil: AWS writes empty lists of actions.
func list(l []string) []string {
	if l == nil {
		return []string{}
	}
	return l
}

// alarmName reads the name out of "arn:aws:cloudwatch:R:A:alarm:NAME"; a name
// stays as it is.
func alarmName(s string) string {
	if strings.HasPrefix(s, "arn:") {
		if parts := strings.SplitN(s, ":", 7); len(parts) == 7 && parts[5] == "alarm" {
			return parts[6]
		}
	}
	return s
}
