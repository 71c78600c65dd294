package cloudwatch

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	api "slipway/internal/api/cloudwatch"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

const historyPage = 100

func (s *Service) describeAlarmHistory(ctx context.Context, in *api.DescribeAlarmHistoryInput) (*api.DescribeAlarmHistoryOutput, error) {
	if in.StartDate != nil && in.EndDate != nil && in.EndDate.Before(*in.StartDate) {
		return nil, validation("The parameter EndDate must not be before StartDate.")
	}
	after, err := pageStart(in.NextToken)
	if err != nil {
		return nil, err
	}
	limit := historyPage
	if in.MaxRecords != nil {
		limit = int(*in.MaxRecords)
	}
	types := in.AlarmTypes
	if types == nil && in.AlarmName == nil {
		types = []string{api.AlarmTypeMetricAlarm}
	}
	account, region := where(ctx)
	q := store.Query{
		Account: account, Region: region, Parent: ptr.Value(in.AlarmName), State: ptr.Value(in.HistoryItemType), After: after, Limit: limit + 1,
		Descending: ptr.Value(in.ScanBy) != api.ScanByTimestampAscending,
	}
	out := &api.DescribeAlarmHistoryOutput{AlarmHistoryItems: []api.AlarmHistoryItem{}}
	last := ""
	for {
		rows, err := histories.Select(ctx, s.store, q)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			h := &row.Doc
			q.After = row.ID
			if types != nil && !slices.Contains(types, h.AlarmType) || in.StartDate != nil && h.At.Before(*in.StartDate) || in.EndDate != nil && h.At.After(*in.EndDate) {
				continue
			}
			if len(out.AlarmHistoryItems) == limit {
				out.NextToken = pageToken(last)
				return out, nil
			}
			last = row.ID
			out.AlarmHistoryItems = append(out.AlarmHistoryItems, api.AlarmHistoryItem{
				AlarmName: &h.Alarm, AlarmType: &h.AlarmType, Timestamp: &h.At, HistoryItemType: &h.Type, HistorySummary: &h.Summary, HistoryData: &h.Data,
			})
		}
		if len(rows) < q.Limit {
			return out, nil
		}
	}
}

const (
	// historyKept is how long alarm history is kept: longer than AWS's two
	// weeks, and yet bounded.
	historyKept  = 90 * 24 * time.Hour
	historySweep = time.Hour
	sweepBatch   = 500
)

// sweepHistory removes what is older than historyKept, until ctx ends.
func (s *Service) sweepHistory(ctx context.Context) error {
	tick := s.clock.NewTicker(historySweep)
	defer tick.Stop()
	for {
		for {
			n, err := s.sweepOnce(ctx, s.clock.Now().Add(-historyKept))
			if err != nil && ctx.Err() == nil {
				s.log.Warn("old alarm history was not removed", "error", err)
			}
			if n < sweepBatch || err != nil {
				break
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// sweepOnce removes one batch of what is older than before, and says how many.
func (s *Service) sweepOnce(ctx context.Context, before time.Time) (n int, err error) {
	rows, err := histories.Select(ctx, s.store, store.Query{Limit: sweepBatch}) // ids ascend with time
	if err != nil {
		return 0, err
	}
	err = s.store.Update(ctx, func(tx store.Tx) error {
		n = 0
		for _, row := range rows {
			if !row.Doc.At.Before(before) {
				break
			}
			if err := histories.Delete(tx, row, "Expired", nil); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

// maxTags is AWS's limit per resource.
const maxTags = 50

func readTags(in []api.Tag) (map[string]string, error) {
	out := map[string]string{}
	for _, t := range in {
		k := ptr.Value(t.Key)
		if strings.HasPrefix(strings.ToLower(k), "aws:") {
			return nil, invalid("Tag keys that begin with aws: are reserved: %s.", k)
		}
		out[k] = ptr.Value(t.Value)
	}
	if len(out) > maxTags {
		return nil, invalid("A resource must not have more than %d tags.", maxTags)
	}
	return out, nil
}

func (s *Service) tagResource(ctx context.Context, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	tags, err := readTags(in.Tags)
	if err != nil {
		return nil, err
	}
	return nil, s.changeTags(ctx, *in.ResourceARN, func(have map[string]string) error {
		for k, v := range tags {
			have[k] = v
		}
		if len(have) > maxTags {
			return invalid("A resource must not have more than %d tags.", maxTags)
		}
		return nil
	})
}

func (s *Service) untagResource(ctx context.Context, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return nil, s.changeTags(ctx, *in.ResourceARN, func(have map[string]string) error {
		for _, k := range in.TagKeys {
			delete(have, k)
		}
		return nil
	})
}

func (s *Service) changeTags(ctx context.Context, arn string, change func(map[string]string) error) error {
	account, region := where(ctx)
	_, err := alarms.Modify(ctx, s.store, account, region, alarmName(arn), eventOther, func(a *Alarm) error {
		if a.ARN != arn {
			return store.ErrNotFound
		}
		if a.Tags == nil {
			a.Tags = map[string]string{}
		}
		return change(a.Tags)
	})
	return unknownResource(err, arn)
}

func unknownResource(err error, arn string) error {
	if errors.Is(err, store.ErrNotFound) {
		return awserr.New(api.ErrCodeResourceNotFoundException, "The resource %s does not exist.", arn).WithField("ResourceType", "Alarm").WithField("ResourceId", alarmName(arn))
	}
	return err
}

func (s *Service) listTagsForResource(ctx context.Context, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	account, region := where(ctx)
	row, err := alarms.Find(ctx, s.store, account, region, alarmName(*in.ResourceARN))
	if err == nil && row.Doc.ARN != *in.ResourceARN {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, unknownResource(err, *in.ResourceARN)
	}
	return &api.ListTagsForResourceOutput{Tags: apiTags(row.Doc.Tags)}, nil
}
