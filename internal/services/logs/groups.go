package logs

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"strings"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) registerGroups(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpCreateLogGroup, s.createGroup)
	dispatch.Register(m, logs.OpDeleteLogGroup, s.deleteGroup)
	dispatch.Register(m, logs.OpDescribeLogGroups, s.describeGroups)
	dispatch.Register(m, logs.OpPutRetentionPolicy, func(ctx context.Context, in *logs.PutRetentionPolicyInput) (*logs.PutRetentionPolicyOutput, error) {
		days := ptr.Value(in.RetentionInDays)
		if !slices.Contains(retentions, days) {
			return nil, invalid("Value '%d' at 'retentionInDays' failed to satisfy constraint: Member must satisfy enum value set: %v", days, retentions)
		}
		return &logs.PutRetentionPolicyOutput{}, s.changeGroup(ctx, ptr.Value(in.LogGroupName), func(g *group) error { g.Retention = days; return nil })
	})
	dispatch.Register(m, logs.OpDeleteRetentionPolicy, func(ctx context.Context, in *logs.DeleteRetentionPolicyInput) (*logs.DeleteRetentionPolicyOutput, error) {
		return &logs.DeleteRetentionPolicyOutput{}, s.changeGroup(ctx, ptr.Value(in.LogGroupName), func(g *group) error { g.Retention = 0; return nil })
	})
}

// retentions are the numbers of days that PutRetentionPolicy knows.
var retentions = []int64{1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}

func (s *Service) changeGroup(ctx context.Context, name string, fn func(*group) error) error {
	return s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getGroup(ctx, tx, name)
		if err != nil {
			return err
		}
		if err := fn(&row.Doc); err != nil {
			return err
		}
		return groups.Save(tx, row, "Changed", nil)
	})
}

func (s *Service) createGroup(ctx context.Context, in *logs.CreateLogGroupInput) (*logs.CreateLogGroupOutput, error) {
	id := caller.From(ctx)
	g := group{Name: ptr.Value(in.LogGroupName), Dir: newDir(), Created: s.Clock.Now().UnixMilli(), Class: ptr.Value(in.LogGroupClass),
		KMSKey: ptr.Value(in.KmsKeyId), Tags: in.Tags, Protected: ptr.Value(in.DeletionProtectionEnabled), NextStream: 1}
	if g.Class == "" {
		g.Class = "STANDARD"
	}
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		_, err := groups.Insert(tx, id.Account, id.Region, g.Name, g, "Created", nil)
		return err
	})
	if errors.Is(err, store.ErrExists) {
		return nil, awserr.New("ResourceAlreadyExistsException", "The specified log group already exists")
	}
	return &logs.CreateLogGroupOutput{}, err
}

func (s *Service) deleteGroup(ctx context.Context, in *logs.DeleteLogGroupInput) (*logs.DeleteLogGroupOutput, error) {
	id := caller.From(ctx)
	var dir string
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := getGroup(ctx, tx, fromARN(ptr.Value(in.LogGroupName)))
		if err != nil {
			return err
		}
		if row.Doc.Protected {
			return awserr.New("ValidationException", "The log group %s has deletion protection enabled.", row.Doc.Name)
		}
		rows, err := streams.List(tx, store.Query{Account: id.Account, Region: id.Region, Parent: row.ID})
		if err != nil {
			return err
		}
		for _, st := range rows {
			if err := streams.Delete(tx, st, "Deleted", nil); err != nil {
				return err
			}
		}
		if err := dropMetricFilters(tx, row); err != nil {
			return err
		}
		dir = row.Doc.Dir
		return groups.Delete(tx, row, "Deleted", nil)
	})
	if err != nil {
		return nil, err
	}
	s.discard(dir)
	return &logs.DeleteLogGroupOutput{}, nil
}

func pageLimit(limit *int64, def int) int {
	if limit == nil {
		return def
	}
	return int(*limit)
}

func (s *Service) describeGroups(ctx context.Context, in *logs.DescribeLogGroupsInput) (*logs.DescribeLogGroupsOutput, error) {
	if in.LogGroupNamePrefix != nil && in.LogGroupNamePattern != nil {
		return nil, invalid("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
	}
	after, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	rows, err := groups.Select(ctx, s.Store, store.Query{Account: id.Account, Region: id.Region, Prefix: ptr.Value(in.LogGroupNamePrefix), After: after})
	if err != nil {
		return nil, err
	}
	out := &logs.DescribeLogGroupsOutput{LogGroups: []logs.LogGroup{}}
	limit := pageLimit(in.Limit, 50)
	for _, r := range rows {
		g := &r.Doc
		if !strings.Contains(strings.ToLower(g.Name), strings.ToLower(ptr.Value(in.LogGroupNamePattern))) || in.LogGroupClass != nil && g.Class != *in.LogGroupClass {
			continue
		}
		if in.LogGroupIdentifiers != nil && !slices.ContainsFunc(in.LogGroupIdentifiers, func(i string) bool { return fromARN(i) == g.Name }) {
			continue
		}
		if len(out.LogGroups) == limit {
			out.NextToken = encodeToken(*out.LogGroups[limit-1].LogGroupName)
			break
		}
		l, err := s.log(g)
		if err != nil {
			return nil, err
		}
		arn := groupARN(id, g.Name)
		out.LogGroups = append(out.LogGroups, logs.LogGroup{LogGroupName: &g.Name, CreationTime: &g.Created, RetentionInDays: ptr.NonZero(g.Retention), MetricFilterCount: new(int64(0)),
			Arn: new(arn + ":*"), LogGroupArn: &arn, StoredBytes: new(l.Bytes()), KmsKeyId: ptr.NonZero(g.KMSKey), LogGroupClass: &g.Class, DeletionProtectionEnabled: &g.Protected})
	}
	return out, nil
}

func (s *Service) registerTags(m *dispatch.Mux) {
	set := func(ctx context.Context, name string, tags map[string]string) error {
		return s.changeGroup(ctx, name, func(g *group) error {
			if g.Tags == nil {
				g.Tags = map[string]string{}
			}
			maps.Copy(g.Tags, tags)
			if len(g.Tags) > 50 {
				return awserr.New("TooManyTagsException", "A resource can have no more than 50 tags.").WithField("resourceName", name)
			}
			return nil
		})
	}
	unset := func(ctx context.Context, name string, keys []string) error {
		return s.changeGroup(ctx, name, func(g *group) error {
			for _, k := range keys {
				delete(g.Tags, k)
			}
			return nil
		})
	}
	get := func(ctx context.Context, name string) (map[string]string, error) {
		row, err := s.findGroup(ctx, name)
		if err != nil {
			return nil, err
		}
		if row.Doc.Tags == nil {
			return map[string]string{}, nil
		}
		return row.Doc.Tags, nil
	}
	dispatch.Register(m, logs.OpTagResource, func(ctx context.Context, in *logs.TagResourceInput) (*logs.TagResourceOutput, error) {
		return &logs.TagResourceOutput{}, set(ctx, fromARN(ptr.Value(in.ResourceArn)), in.Tags)
	})
	dispatch.Register(m, logs.OpUntagResource, func(ctx context.Context, in *logs.UntagResourceInput) (*logs.UntagResourceOutput, error) {
		return &logs.UntagResourceOutput{}, unset(ctx, fromARN(ptr.Value(in.ResourceArn)), in.TagKeys)
	})
	dispatch.Register(m, logs.OpListTagsForResource, func(ctx context.Context, in *logs.ListTagsForResourceInput) (*logs.ListTagsForResourceOutput, error) {
		tags, err := get(ctx, fromARN(ptr.Value(in.ResourceArn)))
		return &logs.ListTagsForResourceOutput{Tags: tags}, err
	})
	dispatch.Register(m, logs.OpTagLogGroup, func(ctx context.Context, in *logs.TagLogGroupInput) (*logs.TagLogGroupOutput, error) {
		return &logs.TagLogGroupOutput{}, set(ctx, ptr.Value(in.LogGroupName), in.Tags)
	})
	dispatch.Register(m, logs.OpUntagLogGroup, func(ctx context.Context, in *logs.UntagLogGroupInput) (*logs.UntagLogGroupOutput, error) {
		return &logs.UntagLogGroupOutput{}, unset(ctx, ptr.Value(in.LogGroupName), in.Tags)
	})
	dispatch.Register(m, logs.OpListTagsLogGroup, func(ctx context.Context, in *logs.ListTagsLogGroupInput) (*logs.ListTagsLogGroupOutput, error) {
		tags, err := get(ctx, ptr.Value(in.LogGroupName))
		return &logs.ListTagsLogGroupOutput{Tags: tags}, err
	})
}

func (s *Service) registerStreams(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpCreateLogStream, s.createStream)
	dispatch.Register(m, logs.OpDescribeLogStreams, s.describeStreams)
	dispatch.Register(m, logs.OpDeleteLogStream, func(ctx context.Context, in *logs.DeleteLogStreamInput) (*logs.DeleteLogStreamOutput, error) {
		return &logs.DeleteLogStreamOutput{}, s.Store.Update(ctx, func(tx store.Tx) error {
			if _, err := getGroup(ctx, tx, ptr.Value(in.LogGroupName)); err != nil {
				return err
			}
			row, err := getStream(ctx, tx, ptr.Value(in.LogGroupName), ptr.Value(in.LogStreamName))
			if err != nil {
				return err
			}
			return streams.Delete(tx, row, "Deleted", nil)
		})
	})
}

func (s *Service) createStream(ctx context.Context, in *logs.CreateLogStreamInput) (*logs.CreateLogStreamOutput, error) {
	id := caller.From(ctx)
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := getGroup(ctx, tx, ptr.Value(in.LogGroupName))
		if err != nil {
			return err
		}
		st := stream{Group: g.Doc.Name, Name: ptr.Value(in.LogStreamName), Number: g.Doc.NextStream, Created: s.Clock.Now().UnixMilli()}
		if _, err = streams.Insert(tx, id.Account, id.Region, streamID(st.Group, st.Name), st, "Created", nil); err != nil {
			return err
		}
		g.Doc.NextStream++
		return groups.Save(tx, g, "StreamCreated", nil)
	})
	if errors.Is(err, store.ErrExists) {
		return nil, awserr.New("ResourceAlreadyExistsException", "The specified log stream already exists")
	}
	return &logs.CreateLogStreamOutput{}, err
}

func (s *Service) describeStreams(ctx context.Context, in *logs.DescribeLogStreamsInput) (*logs.DescribeLogStreamsOutput, error) {
	name, err := groupName(in.LogGroupName, in.LogGroupIdentifier)
	if err != nil {
		return nil, err
	}
	byTime := ptr.Value(in.OrderBy) == "LastEventTime"
	if byTime && in.LogStreamNamePrefix != nil {
		return nil, invalid("Cannot order by LastEventTime with a logStreamNamePrefix.")
	}
	after, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	g, err := s.findGroup(ctx, name)
	if err != nil {
		return nil, err
	}
	l, err := s.log(&g.Doc)
	if err != nil {
		return nil, err
	}
	rows, err := streams.Select(ctx, s.Store, store.Query{Account: g.Account, Region: g.Region, Parent: name, Prefix: streamID(name, ptr.Value(in.LogStreamNamePrefix))})
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	all := make([]logs.LogStream, 0, len(rows))
	for _, r := range rows {
		st := &r.Doc
		o := logs.LogStream{LogStreamName: &st.Name, CreationTime: &st.Created, StoredBytes: new(int64(0)), // which AWS stopped counting in 2019
			Arn: new(groupARN(id, name) + ":log-stream:" + st.Name), UploadSequenceToken: new(sequenceToken(0))}
		if stats, ok := l.Stats(st.Number); ok {
			o.FirstEventTimestamp, o.LastEventTimestamp, o.LastIngestionTime = &stats.First, &stats.Last, &stats.Ingested
		}
		all = append(all, o)
	}
	if byTime {
		sort.SliceStable(all, func(i, j int) bool {
			return ptr.Value(all[i].LastEventTimestamp) < ptr.Value(all[j].LastEventTimestamp)
		})
	}
	if ptr.Value(in.Descending) {
		slices.Reverse(all)
	}
	out := &logs.DescribeLogStreamsOutput{LogStreams: all}
	if after != "" { // go on behind the last stream of the page before
		i := slices.IndexFunc(all, func(o logs.LogStream) bool { return *o.LogStreamName == after })
		if i < 0 { // it was deleted: where it stood is not known
			return nil, badToken()
		}
		out.LogStreams = all[i+1:]
	}
	if limit := pageLimit(in.Limit, 50); len(out.LogStreams) > limit {
		out.NextToken = encodeToken(*out.LogStreams[limit-1].LogStreamName)
		out.LogStreams = out.LogStreams[:limit]
	}
	return out, nil
}
