package logs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/services/logs/insights"
	"slipway/internal/services/logs/segment"
	"slipway/internal/store"
)

// Limits of queries ("CloudWatch Logs quotas" in the user guide). Results are
// kept in memory: a restarted server has forgotten its queries.
const (
	maxQueryGroups = 50
	maxConcurrent  = 30
	maxQueries     = 1000    // remembered
	maxResultRows  = 200_000 // of all remembered queries
	queryTimeout   = 60 * time.Minute
	queryWorkers   = 2 // queries that read at the same time
)

// query is one StartQuery.
type query struct {
	id, account, region, text string
	groups                    []string
	created                   int64
	cancel                    context.CancelFunc

	mu       sync.Mutex
	status   string
	took     time.Duration
	rows     [][]logs.ResultField
	stats    logs.QueryStatistics
	finished chan struct{}
}

// queries are the queries of this process, the oldest first.
type queries struct {
	mu   sync.Mutex
	list []*query
	slot chan struct{}
	wg   sync.WaitGroup
	base context.Context // ends with the service
	stop context.CancelFunc
}

func newQueries() *queries {
	q := &queries{slot: make(chan struct{}, queryWorkers)}
	q.base, q.stop = context.WithCancel(context.Background())
	return q
}

// close cancels all queries and waits for them.
func (q *queries) close() {
	q.stop()
	q.wg.Wait()
}

func (q *queries) find(id caller.Identity, queryID string) *query {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, x := range q.list {
		if x.id == queryID && x.account == id.Account && x.region == id.Region {
			return x
		}
	}
	return nil
}

func (s *Service) registerQueries(m *dispatch.Mux) {
	dispatch.Register(m, logs.OpStartQuery, s.startQuery)
	dispatch.Register(m, logs.OpGetQueryResults, s.queryResults)
	dispatch.Register(m, logs.OpStopQuery, s.stopQuery)
	dispatch.Register(m, logs.OpDescribeQueries, s.describeQueries)
	dispatch.Register(m, logs.OpGetLogRecord, s.getRecord)
}

// queryGroups reads which groups a StartQuery names: in exactly one way.
func queryGroups(in *logs.StartQueryInput) ([]string, error) {
	var names []string
	ways := 0
	if in.LogGroupName != nil {
		ways++
		names = []string{*in.LogGroupName}
	}
	for _, list := range [][]string{in.LogGroupNames, in.LogGroupIdentifiers} {
		if len(list) > 0 {
			ways++
			for _, n := range list {
				names = append(names, fromARN(n))
			}
		}
	}
	if ways != 1 {
		return nil, invalid("Exactly one of logGroupName, logGroupNames and logGroupIdentifiers must be specified.")
	}
	if len(names) > maxQueryGroups {
		return nil, invalid("At most %d log groups can be queried at once.", maxQueryGroups)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (s *Service) startQuery(ctx context.Context, in *logs.StartQueryInput) (*logs.StartQueryOutput, error) {
	if l := ptr.Value(in.QueryLanguage); l != "" && l != "CWLI" {
		return nil, awserr.New("NotImplemented", "Slipway does not implement queries in %s.", l).WithStatus(501)
	}
	names, err := queryGroups(in)
	if err != nil {
		return nil, err
	}
	if *in.EndTime < *in.StartTime {
		return nil, invalid("End time should not be less than start time.")
	}
	parsed, err := insights.Parse(ptr.Value(in.QueryString))
	var nb *insights.NotBuilt
	switch {
	case errors.As(err, &nb):
		return nil, awserr.New("NotImplemented", "Slipway does not implement the command %s of Logs Insights.", nb.What).WithStatus(501)
	case err != nil:
		return nil, awserr.New("MalformedQueryException", "%s", err)
	}
	id := caller.From(ctx)
	var rows []*store.Row[group]
	for _, n := range names {
		g, err := s.findGroup(ctx, n)
		if err != nil {
			return nil, err
		}
		rows = append(rows, g)
	}
	q := &query{id: newUUID(), account: id.Account, region: id.Region, text: ptr.Value(in.QueryString), groups: names,
		created: s.Clock.Now().UnixMilli(), status: "Scheduled", finished: make(chan struct{})}
	var qctx context.Context
	qctx, q.cancel = context.WithTimeout(s.queries.base, queryTimeout)
	if err := s.queries.enqueue(q); err != nil {
		q.cancel()
		return nil, err
	}
	run := parsed.Start(int(ptr.Value(in.Limit)))
	s.queries.wg.Go(func() {
		defer q.cancel()
		s.runQuery(qctx, q, rows, parsed, run, *in.StartTime*1000, *in.EndTime*1000+1000)
	})
	return &logs.StartQueryOutput{QueryId: &q.id}, nil
}

// enqueue remembers a query and forgets the oldest finished ones.
func (q *queries) enqueue(x *query) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	running := 0
	for _, o := range q.list {
		select {
		case <-o.finished:
		default:
			running++
		}
	}
	if running >= maxConcurrent {
		return awserr.New("LimitExceededException", "Account maximum query concurrency limit of [%d] reached.", maxConcurrent)
	}
	q.list = append(q.list, x)
	q.forget()
	return nil
}

// forget drops the oldest finished queries while there are too many, or their
// results take too much memory.
func (q *queries) forget() {
	rows := 0
	for i := len(q.list) - 1; i >= 0; i-- {
		o := q.list[i]
		select {
		case <-o.finished:
		default:
			continue
		}
		rows += len(o.rows) // it does not change any more
		if rows > maxResultRows || len(q.list)-i > maxQueries {
			q.list = slices.Delete(q.list, i, i+1)
		}
	}
}

// newUUID is a random UUID (RFC 4122, version 4), as AWS names queries.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// runQuery reads the events and keeps the result.
func (s *Service) runQuery(ctx context.Context, q *query, rows []*store.Row[group], parsed *insights.Query, run *insights.Run, from, to int64) {
	defer close(q.finished)
	select {
	case s.queries.slot <- struct{}{}:
		defer func() { <-s.queries.slot }()
	case <-ctx.Done():
		q.end("Cancelled", 0)
		return
	}
	begin := clock.Real.Now()
	q.setStatus("Running")
	var scanned, bytes float64
	err := s.mergeGroups(ctx, rows, from, to, parsed.Literal(), func(g *store.Row[group], stream string, r *segment.Record) bool {
		scanned++
		bytes += float64(len(r.Message))
		if int(scanned)%10_000 == 0 {
			q.progress(run.Matched, scanned, bytes, len(rows))
		}
		return run.Add(&insights.Event{Time: r.Time, Ingested: r.Ingested, Message: r.Message, Stream: stream, Log: g.Account + ":" + g.Doc.Name, Ptr: pointer(g.Doc.Name, r)})
	})
	took := clock.Real.Since(begin)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		q.end("Timeout", took)
		return
	case ctx.Err() != nil:
		q.end("Cancelled", took)
		return
	case err != nil:
		s.Log.Error("logs: a query failed", "query", q.id, "error", err)
		q.end("Failed", took)
		return
	}
	var out [][]logs.ResultField
	for _, row := range run.Results() {
		var fields []logs.ResultField
		for _, f := range row {
			fields = append(fields, logs.ResultField{Field: new(f.Name), Value: new(f.Value)})
		}
		out = append(out, fields)
	}
	q.progress(run.Matched, scanned, bytes, len(rows))
	q.mu.Lock()
	q.rows = out
	q.mu.Unlock()
	q.end("Complete", took)
}

func (q *query) setStatus(s string) {
	q.mu.Lock()
	q.status = s
	q.mu.Unlock()
}

func (q *query) end(s string, took time.Duration) {
	q.mu.Lock()
	q.status, q.took = s, took
	q.mu.Unlock()
}

func (q *query) progress(matched, scanned, bytes float64, groups int) {
	q.mu.Lock()
	q.stats = logs.QueryStatistics{RecordsMatched: &matched, RecordsScanned: &scanned, BytesScanned: &bytes, LogGroupsScanned: new(float64(groups))}
	q.mu.Unlock()
}

func noQuery() error {
	return awserr.New("ResourceNotFoundException", "The specified query does not exist.")
}

func (s *Service) queryResults(ctx context.Context, in *logs.GetQueryResultsInput) (*logs.GetQueryResultsOutput, error) {
	q := s.queries.find(caller.From(ctx), ptr.Value(in.QueryId))
	if q == nil {
		return nil, noQuery()
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	out := &logs.GetQueryResultsOutput{Status: new(q.status), Results: q.rows, QueryLanguage: new("CWLI")}
	if out.Results == nil {
		out.Results = [][]logs.ResultField{}
	}
	stats := q.stats
	if stats.BytesScanned == nil {
		stats = logs.QueryStatistics{RecordsMatched: new(0.0), RecordsScanned: new(0.0), BytesScanned: new(0.0), LogGroupsScanned: new(float64(len(q.groups)))}
	}
	stats.EstimatedBytesSkipped, stats.EstimatedRecordsSkipped = new(0.0), new(0.0)
	out.Statistics = &stats
	return out, nil
}

func (s *Service) stopQuery(ctx context.Context, in *logs.StopQueryInput) (*logs.StopQueryOutput, error) {
	q := s.queries.find(caller.From(ctx), ptr.Value(in.QueryId))
	if q == nil {
		return nil, noQuery()
	}
	select {
	case <-q.finished:
		return nil, invalid("Query with ID %s is not in a running state and cannot be stopped.", q.id)
	default:
	}
	q.cancel()
	return &logs.StopQueryOutput{Success: new(true)}, nil
}

func (s *Service) describeQueries(ctx context.Context, in *logs.DescribeQueriesInput) (*logs.DescribeQueriesOutput, error) {
	after, err := decodeToken(in.NextToken)
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	limit := pageLimit(in.MaxResults, 1000)
	out := &logs.DescribeQueriesOutput{Queries: []logs.QueryInfo{}}
	s.queries.mu.Lock()
	list := slices.Clone(s.queries.list)
	s.queries.mu.Unlock()
	slices.Reverse(list) // the newest first
	if after != "" {
		i := slices.IndexFunc(list, func(q *query) bool { return q.id == after })
		if i < 0 {
			return nil, badToken()
		}
		list = list[i+1:]
	}
	last := ""
	for _, q := range list {
		q.mu.Lock()
		status, took, bytes := q.status, q.took, ptr.Value(q.stats.BytesScanned)
		q.mu.Unlock()
		if q.account != id.Account || q.region != id.Region || in.Status != nil && status != *in.Status || in.LogGroupName != nil && !slices.Contains(q.groups, *in.LogGroupName) {
			continue
		}
		if len(out.Queries) == limit {
			out.NextToken = encodeToken(last)
			break
		}
		last = q.id
		out.Queries = append(out.Queries, logs.QueryInfo{QueryId: &q.id, QueryString: &q.text, Status: &status, CreateTime: &q.created, LogGroupName: &q.groups[0],
			QueryLanguage: new("CWLI"), QueryDuration: new(int64(math.Round(took.Seconds() * 1000))), BytesScanned: &bytes})
	}
	return out, nil
}
