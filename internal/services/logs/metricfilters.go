package logs

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/services/logs/pattern"
	"slipway/internal/store"
)

// metricFilter makes metrics of the events that match.
type metricFilter struct {
	Group, Name, Pattern string
	Created              int64
	// Since is the first sequence number of the group's events that count:
	// filters do not look back.
	Since uint64

	Metric, Namespace, Value string
	Unit                     string            `json:",omitempty"`
	Default                  *float64          `json:",omitempty"`
	Dimensions               map[string]string `json:",omitempty"`
}

// cursor is how far a group's events have been made metrics of.
type cursor struct {
	Group string
	Next  uint64 // sequence number of the first event that was not
	EMF   bool   // events in the embedded metric format have been seen
}

var (
	metricFilters = store.NewTable("logs:metricfilter", func(f *metricFilter) (string, string) { return f.Group, "" })
	cursors       = store.NewTable("logs:cursor", func(c *cursor) (string, string) { return c.Group, "" })
)

const (
	maxFilters    = 100 // per group ("CloudWatch Logs quotas" in the user guide)
	maxDimensions = 3
)

func (s *Service) registerMetricFilters(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpPutMetricFilter, s.putMetricFilter)
	dispatch.Register(m, logs.OpDescribeMetricFilters, s.describeMetricFilters)
	dispatch.Register(m, logs.OpDeleteMetricFilter, func(ctx context.Context, in *logs.DeleteMetricFilterInput) (*logs.DeleteMetricFilterOutput, error) {
		return &logs.DeleteMetricFilterOutput{}, s.Store.Update(ctx, func(tx store.Tx) error {
			g, err := getGroup(ctx, tx, ptr.Value(in.LogGroupName))
			if err != nil {
				return err
			}
			row, err := metricFilters.Get(tx, g.Account, g.Region, streamID(g.Doc.Name, ptr.Value(in.FilterName)))
			if errors.Is(err, store.ErrNotFound) {
				return awserr.New("ResourceNotFoundException", "The specified metric filter does not exist.")
			}
			if err != nil {
				return err
			}
			return metricFilters.Delete(tx, row, "Deleted", nil)
		})
	})
	dispatch.Register(m, logs.OpTestMetricFilter, func(_ context.Context, in *logs.TestMetricFilterInput) (*logs.TestMetricFilterOutput, error) {
		p, err := parsePattern(in.FilterPattern)
		if err != nil {
			return nil, err
		}
		out := &logs.TestMetricFilterOutput{Matches: []logs.MetricFilterMatchRecord{}}
		for i := range in.LogEventMessages {
			if f, ok := p.Find(in.LogEventMessages[i]); ok {
				out.Matches = append(out.Matches, logs.MetricFilterMatchRecord{EventNumber: new(int64(i + 1)), EventMessage: &in.LogEventMessages[i], ExtractedValues: f.Values()})
			}
		}
		return out, nil
	})
}

func (s *Service) putMetricFilter(ctx context.Context, in *logs.PutMetricFilterInput) (*logs.PutMetricFilterOutput, error) {
	if ptr.Value(in.ApplyOnTransformedLogs) || in.FieldSelectionCriteria != nil || in.EmitSystemFieldDimensions != nil {
		return nil, awserr.New("NotImplemented", "Slipway does not implement applyOnTransformedLogs, fieldSelectionCriteria and emitSystemFieldDimensions of PutMetricFilter.").WithStatus(501)
	}
	if len(in.MetricTransformations) != 1 {
		return nil, invalid("metricTransformations must have exactly one member.")
	}
	t := &in.MetricTransformations[0]
	f := metricFilter{Group: ptr.Value(in.LogGroupName), Name: ptr.Value(in.FilterName), Pattern: ptr.Value(in.FilterPattern), Created: s.Clock.Now().UnixMilli(),
		Metric: ptr.Value(t.MetricName), Namespace: ptr.Value(t.MetricNamespace), Value: ptr.Value(t.MetricValue), Unit: ptr.Value(t.Unit), Default: t.DefaultValue, Dimensions: t.Dimensions}
	if _, err := f.compile(); err != nil {
		return nil, err
	}
	g, err := s.findGroup(ctx, f.Group)
	if err != nil {
		return nil, err
	}
	l, err := s.log(&g.Doc)
	if err != nil {
		return nil, err
	}
	f.Since = l.Next()
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		g, err := getGroup(ctx, tx, f.Group)
		if err != nil {
			return err
		}
		if err := ensureCursor(tx, g, f.Since, false); err != nil {
			return err
		}
		row, err := metricFilters.Get(tx, g.Account, g.Region, streamID(f.Group, f.Name))
		if err == nil {
			row.Doc = f
			return metricFilters.Save(tx, row, "Changed", nil)
		}
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		n, err := metricFilters.Count(tx, store.Query{Account: g.Account, Region: g.Region, Parent: f.Group})
		if err != nil {
			return err
		}
		if n >= maxFilters {
			return awserr.New("LimitExceededException", "Resource limit exceeded.")
		}
		_, err = metricFilters.Insert(tx, g.Account, g.Region, streamID(f.Group, f.Name), f, "Created", nil)
		return err
	})
	return &logs.PutMetricFilterOutput{}, err
}

// ensureCursor makes a group's cursor; the events before next are not looked at.
func ensureCursor(tx store.Tx, g *store.Row[group], next uint64, emf bool) error {
	row, err := cursors.Get(tx, g.Account, g.Region, g.ID)
	switch {
	case err == nil && (row.Doc.EMF || !emf):
		return nil
	case err == nil:
		row.Doc.EMF = true
		return cursors.Save(tx, row, "Changed", nil)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	_, err = cursors.Insert(tx, g.Account, g.Region, g.ID, cursor{Group: g.Doc.Name, Next: next, EMF: emf}, "Created", nil)
	return err
}

// dropMetricFilters removes what a deleted group had.
func dropMetricFilters(tx store.Tx, g *store.Row[group]) error {
	q := store.Query{Account: g.Account, Region: g.Region, Parent: g.ID}
	rows, err := metricFilters.List(tx, q)
	if err != nil {
		return err
	}
	for _, r := range rows {
		if err := metricFilters.Delete(tx, r, "Deleted", nil); err != nil {
			return err
		}
	}
	row, err := cursors.Get(tx, g.Account, g.Region, g.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return cursors.Delete(tx, row, "Deleted", nil)
}

// compiled is a filter ready for use. It is safe for concurrent use.
type compiled struct {
	*metricFilter
	pattern *pattern.Pattern
	number  float64           // the value of every match,
	value   *pattern.Selector // unless it comes from the event
	dims    map[string]*pattern.Selector
}

// compile checks the filter; the error is the API's.
func (f *metricFilter) compile() (*compiled, error) {
	p, err := parsePattern(&f.Pattern)
	if err != nil {
		return nil, err
	}
	c := &compiled{metricFilter: f, pattern: p, dims: map[string]*pattern.Selector{}}
	switch {
	case strings.HasPrefix(f.Value, "$"):
		if c.value, err = p.Selector(f.Value); err != nil {
			return nil, invalid("Invalid metric transformation: metricValue %s: %s", f.Value, err)
		}
	default:
		if c.number, err = strconv.ParseFloat(f.Value, 64); err != nil || math.IsNaN(c.number) || math.IsInf(c.number, 0) {
			return nil, invalid("Invalid metric transformation: metricValue %q is neither a number nor a field of the pattern.", f.Value)
		}
	}
	if strings.HasPrefix(f.Namespace, "AWS/") {
		return nil, invalid("Invalid metric transformation: metricNamespace %s: the namespaces that begin with AWS/ are reserved.", f.Namespace)
	}
	if len(f.Dimensions) > maxDimensions {
		return nil, invalid("Invalid metric transformation: dimensions: at most %d are possible.", maxDimensions)
	}
	if len(f.Dimensions) > 0 && f.Default != nil {
		return nil, invalid("Invalid metric transformation: dimensions and default value are mutually exclusive properties.")
	}
	for name, sel := range f.Dimensions {
		if c.dims[name], err = p.Selector(sel); err != nil {
			return nil, invalid("Invalid metric transformation: dimensions: %s: %s", name, err)
		}
	}
	return c, nil
}

// apply matches an event. emit is false where a match has no usable value.
func (c *compiled) apply(message string) (value float64, dims map[string]string, matches, emit bool) {
	f, ok := c.pattern.Find(message)
	if !ok {
		return 0, nil, false, false
	}
	value = c.number
	if c.value != nil {
		text, ok := f.Value(c.value)
		if !ok {
			return 0, nil, true, false
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, nil, true, false
		}
		value = v
	}
	if len(c.dims) > 0 {
		dims = map[string]string{}
	}
	for name, sel := range c.dims {
		text, ok := f.Value(sel)
		if !ok || text == "" || len(text) > 1024 {
			return 0, nil, true, false
		}
		dims[name] = text
	}
	return value, dims, true, true
}

func (s *Service) describeMetricFilters(ctx context.Context, in *logs.DescribeMetricFiltersInput) (*logs.DescribeMetricFiltersOutput, error) {
	if (in.MetricName == nil) != (in.MetricNamespace == nil) {
		return nil, invalid("metricName and metricNamespace must be specified together.")
	}
	after, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	q := store.Query{Account: id.Account, Region: id.Region, After: after}
	if in.LogGroupName != nil {
		if _, err := s.findGroup(ctx, *in.LogGroupName); err != nil {
			return nil, err
		}
		q.Parent = *in.LogGroupName
		q.Prefix = streamID(*in.LogGroupName, ptr.Value(in.FilterNamePrefix))
	}
	rows, err := metricFilters.Select(ctx, s.Store, q)
	if err != nil {
		return nil, err
	}
	out := &logs.DescribeMetricFiltersOutput{MetricFilters: []logs.MetricFilter{}}
	limit := pageLimit(in.Limit, 50)
	last := ""
	for _, r := range rows {
		f := &r.Doc
		if !strings.HasPrefix(f.Name, ptr.Value(in.FilterNamePrefix)) || in.MetricName != nil && (f.Metric != *in.MetricName || f.Namespace != *in.MetricNamespace) {
			continue
		}
		if len(out.MetricFilters) == limit {
			out.NextToken = encodeToken(last)
			break
		}
		last = r.ID
		out.MetricFilters = append(out.MetricFilters, logs.MetricFilter{FilterName: &f.Name, FilterPattern: &f.Pattern, CreationTime: &f.Created, LogGroupName: &f.Group,
			ApplyOnTransformedLogs: new(false),
			MetricTransformations: []logs.MetricTransformation{{MetricName: &f.Metric, MetricNamespace: &f.Namespace, MetricValue: &f.Value,
				DefaultValue: f.Default, Dimensions: f.Dimensions, Unit: ptr.NonZero(f.Unit)}}})
	}
	return out, nil
}
