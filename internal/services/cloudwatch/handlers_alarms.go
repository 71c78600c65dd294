package cloudwatch

import (
	"context"
	"errors"
	"strings"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) putMetricAlarm(ctx context.Context, in *api.PutMetricAlarmInput) (*api.PutMetricAlarmOutput, error) {
	if err := checkMetricAlarm(in); err != nil {
		return nil, err
	}
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	c := *in
	c.Tags, c.ActionsEnabled = nil, nil
	return nil, s.putAlarm(ctx, *in.AlarmName, tags, in.ActionsEnabled, func(tx store.Tx, a *Alarm) error {
		a.Metric = &c
		account, region := where(ctx)
		return s.ensureDetectors(tx, account, region, c.Metrics)
	})
}

// putAlarm creates or replaces an alarm. A replaced one keeps its state and
// tags, as on AWS.
func (s *Service) putAlarm(ctx context.Context, name string, tags map[string]string, enabled *bool, set func(store.Tx, *Alarm) error) error {
	account, region := where(ctx)
	now := s.clock.Now()
	return s.store.Update(ctx, func(tx store.Tx) error {
		row, err := alarms.Get(tx, account, region, name)
		created := errors.Is(err, store.ErrNotFound)
		if err != nil && !created {
			return err
		}
		var before Alarm
		a := Alarm{
			Name: name, ARN: alarmARN(account, region, name), Tags: tags, State: api.StateValueInsufficientData,
			Reason: uncheckedReason, Updated: now, Transitioned: now,
		}
		if !created {
			before = row.Doc
			a = before
			a.Metric, a.Composite, a.EvaluationState = nil, nil, ""
		}
		a.Configured, a.Muted = now, enabled != nil && !*enabled
		if err := set(tx, &a); err != nil {
			return err
		}
		if !created && before.composite() != a.composite() {
			return validation("The alarm %s exists already as a %s.", name, alarmType(&before))
		}
		what := "created"
		if created {
			_, err = alarms.Insert(tx, account, region, name, a, eventPut, nil)
		} else {
			what = "updated"
			row.Doc = a
			err = alarms.Save(tx, row, eventPut, nil)
		}
		if err != nil {
			return err
		}
		return s.writeHistory(tx, account, region, configured(&a, what, now))
	})
}

// uncheckedReason is what an alarm shows before its first evaluation.
const uncheckedReason = "Unchecked: Initial alarm creation"

func (s *Service) deleteAlarms(ctx context.Context, in *api.DeleteAlarmsInput) (*api.DeleteAlarmsOutput, error) {
	account, region := where(ctx)
	now := s.clock.Now()
	return nil, s.store.Update(ctx, func(tx store.Tx) error {
		if err := checkDelete(tx, account, region, in.AlarmNames); err != nil {
			return err
		}
		for _, name := range in.AlarmNames {
			row, err := alarms.Get(tx, account, region, name)
			if errors.Is(err, store.ErrNotFound) {
				continue // AWS deletes what is there and says nothing of the rest
			}
			if err != nil {
				return err
			}
			if err := alarms.Delete(tx, row, "Deleted", nil); err != nil {
				return err
			}
			if err := s.writeHistory(tx, account, region, configured(&row.Doc, "deleted", now)); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) setAlarmState(ctx context.Context, in *api.SetAlarmStateInput) (*api.SetAlarmStateOutput, error) {
	account, region := where(ctx)
	data := ptr.Value(in.StateReasonData)
	if data != "" && !validJSON(data) {
		return nil, awserr.New(api.ErrCodeInvalidFormatFault, "StateReasonData is not valid JSON.")
	}
	err := s.store.Update(ctx, func(tx store.Tx) error {
		row, err := alarms.Get(tx, account, region, *in.AlarmName)
		if err != nil {
			return err
		}
		if row.Doc.State == *in.StateValue {
			row.Doc.Reason, row.Doc.ReasonData, row.Doc.Updated = *in.StateReason, data, s.clock.Now()
			return alarms.Save(tx, row, eventOther, nil)
		}
		return s.transition(tx, row, change{state: *in.StateValue, reason: *in.StateReason, data: data})
	})
	if errors.Is(err, store.ErrNotFound) {
		err = awserr.New(api.ErrCodeResourceNotFound, "Unknown alarm: %s", *in.AlarmName)
	}
	return nil, err
}

func (s *Service) enableAlarmActions(ctx context.Context, in *api.EnableAlarmActionsInput) (*api.EnableAlarmActionsOutput, error) {
	return nil, s.mute(ctx, in.AlarmNames, false)
}

func (s *Service) disableAlarmActions(ctx context.Context, in *api.DisableAlarmActionsInput) (*api.DisableAlarmActionsOutput, error) {
	return nil, s.mute(ctx, in.AlarmNames, true)
}

func (s *Service) mute(ctx context.Context, names []string, muted bool) error {
	account, region := where(ctx)
	now := s.clock.Now()
	return s.store.Update(ctx, func(tx store.Tx) error {
		for _, name := range names {
			row, err := alarms.Get(tx, account, region, name)
			if errors.Is(err, store.ErrNotFound) || err == nil && row.Doc.Muted == muted {
				continue
			}
			if err != nil {
				return err
			}
			row.Doc.Muted, row.Doc.Configured = muted, now
			if err := alarms.Save(tx, row, eventOther, nil); err != nil {
				return err
			}
			if err := s.writeHistory(tx, account, region, configured(&row.Doc, "updated", now)); err != nil {
				return err
			}
		}
		return nil
	})
}

const describePage = 50

func (s *Service) describeAlarms(ctx context.Context, in *api.DescribeAlarmsInput) (*api.DescribeAlarmsOutput, error) {
	if in.AlarmNames != nil && in.AlarmNamePrefix != nil {
		return nil, validation("AlarmNames and AlarmNamePrefix are mutually exclusive.")
	}
	match, err := s.describeFilter(ctx, in)
	if err != nil {
		return nil, err
	}
	after, err := pageStart(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := describePage
	if in.MaxRecords != nil {
		limit = int(*in.MaxRecords)
	}
	account, region := where(ctx)
	rows, err := alarms.Select(ctx, s.store, store.Query{Account: account, Region: region, Prefix: ptr.Value(in.AlarmNamePrefix), After: after})
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAlarmsOutput{MetricAlarms: []api.MetricAlarm{}, CompositeAlarms: []api.CompositeAlarm{}}
	last := ""
	for _, row := range rows {
		a := &row.Doc
		if !match(a) {
			continue
		}
		if limit == 0 {
			out.NextToken = pageToken(last)
			break
		}
		limit--
		last = a.Name
		if a.composite() {
			out.CompositeAlarms = append(out.CompositeAlarms, a.compositeAlarm())
		} else {
			out.MetricAlarms = append(out.MetricAlarms, a.metricAlarm())
		}
	}
	return out, nil
}

// describeFilter makes one function of DescribeAlarms's filters.
func (s *Service) describeFilter(ctx context.Context, in *api.DescribeAlarmsInput) (func(*Alarm) bool, error) {
	types := map[string]bool{}
	for _, t := range in.AlarmTypes {
		types[t] = true
	}
	names := map[string]bool{}
	for _, n := range in.AlarmNames {
		names[n] = true
	}
	related, err := s.relatives(ctx, in)
	if err != nil {
		return nil, err
	}
	if len(types) == 0 {
		// Only metric alarms, unless alarms are asked for by name or kinship.
		types[api.AlarmTypeMetricAlarm] = true
		types[api.AlarmTypeCompositeAlarm] = related != nil
	}
	return func(a *Alarm) bool {
		switch {
		case !types[alarmType(a)], in.AlarmNames != nil && !names[a.Name], related != nil && !related[a.Name],
			in.StateValue != nil && a.State != *in.StateValue:
			return false
		case in.ActionPrefix == nil:
			return true
		}
		ok, alarm, insufficient := a.actionLists()
		for _, l := range [][]string{ok, alarm, insufficient} {
			for _, arn := range l {
				if strings.HasPrefix(arn, *in.ActionPrefix) {
					return true
				}
			}
		}
		return false
	}, nil
}

func (s *Service) describeAlarmsForMetric(ctx context.Context, in *api.DescribeAlarmsForMetricInput) (*api.DescribeAlarmsForMetricOutput, error) {
	account, region := where(ctx)
	want := metricOf(account, region, *in.Namespace, *in.MetricName, in.Dimensions)
	rows, err := alarms.Select(ctx, s.store, store.Query{Account: account, Region: region})
	if err != nil {
		return nil, err
	}
	out := &api.DescribeAlarmsForMetricOutput{MetricAlarms: []api.MetricAlarm{}}
	for _, row := range rows {
		a := &row.Doc
		// Alarms on expressions are not shown (API reference).
		if a.composite() || a.Metric.Metrics != nil || a.metrics(account, region)[0].Key() != want.Key() {
			continue
		}
		c := a.Metric
		if in.Statistic != nil && ptr.Value(c.Statistic) != *in.Statistic || in.ExtendedStatistic != nil && ptr.Value(c.ExtendedStatistic) != *in.ExtendedStatistic ||
			in.Period != nil && ptr.Value(c.Period) != *in.Period || in.Unit != nil && ptr.Value(c.Unit) != *in.Unit {
			continue
		}
		out.MetricAlarms = append(out.MetricAlarms, a.metricAlarm())
	}
	return out, nil
}
