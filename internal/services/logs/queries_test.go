package logs_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	api "slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
)

func (f *fixture) ask(query string, groups ...string) (*api.GetQueryResultsOutput, error) {
	f.Helper()
	started, err := dispatch.Call(f.ctx, f.mux, api.OpStartQuery, &api.StartQueryInput{LogGroupNames: groups, QueryString: &query,
		StartTime: new(f.now/1000 - 3600), EndTime: new(f.now/1000 + 3600)})
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		out, err := dispatch.Call(f.ctx, f.mux, api.OpGetQueryResults, &api.GetQueryResultsInput{QueryId: started.QueryId})
		if err != nil || *out.Status != "Scheduled" && *out.Status != "Running" {
			return out, err
		}
	}
	f.Fatal("the query does not end")
	return nil, nil
}

func TestQuery(t *testing.T) {
	f := start(t)
	f.create("a", "s1", "s2")
	f.create("b", "s")
	for i := range 10 {
		for _, gs := range [][2]string{{"a", "s1"}, {"a", "s2"}, {"b", "s"}} {
			if _, err := f.put(gs[0], gs[1], event(f.now+int64(i), fmt.Sprintf(`{"i": %d}`, i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := f.ask("stats count(*) as n, sum(i) as s by @log, @logStream | sort @logStream asc", "a", "b")
	if err != nil || *out.Status != "Complete" || len(out.Results) != 3 || *out.Statistics.RecordsScanned != 30 {
		t.Fatal(out, err)
	}
	if r := out.Results[1]; *r[0].Value != "123456789012:a" || *r[1].Value != "s1" || *r[2].Value != "10" || *r[3].Value != "45" {
		t.Error(*r[0].Value, *r[1].Value, *r[2].Value, *r[3].Value)
	}
	out, err = f.ask("fields i, @logStream | limit 3", "a", "b") // newest first, over groups
	if err != nil || len(out.Results) != 3 || *out.Results[0][0].Value != "9" || *out.Results[2][0].Value != "9" {
		t.Fatal(out, err)
	}
	ptr := *out.Results[0][2].Value
	rec, err := dispatch.Call(f.ctx, f.mux, api.OpGetLogRecord, &api.GetLogRecordInput{LogRecordPointer: &ptr})
	if err != nil || rec.LogRecord["@message"] != `{"i": 9}` {
		t.Error(rec, err)
	}
	for query, code := range map[string]string{"fields a |": "MalformedQueryException", "diff": "NotImplemented"} {
		if _, err := f.ask(query, "a"); !awserr.Is(err, code) {
			t.Errorf("%s: %v", query, err)
		}
	}
	if _, err := f.ask("fields a", "missing"); !awserr.Is(err, "ResourceNotFoundException") {
		t.Error(err)
	}
	list, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeQueries, &api.DescribeQueriesInput{LogGroupName: new("b"), MaxResults: new(int64(1))})
	if err != nil || len(list.Queries) != 1 || list.NextToken == nil || *list.Queries[0].QueryString != "fields i, @logStream | limit 3" {
		t.Error(list, err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpStopQuery, &api.StopQueryInput{QueryId: list.Queries[0].QueryId}); !awserr.Is(err, "InvalidParameterException") {
		t.Error("a query that has ended was stopped:", err)
	}
}

func TestLiveTail(t *testing.T) {
	f := start(t)
	f.create("g", "s", "other")
	out, err := dispatch.Call(f.ctx, f.mux, api.OpStartLiveTail, &api.StartLiveTailInput{LogGroupIdentifiers: []string{"arn:aws:logs:us-east-1:123456789012:log-group:g"},
		LogStreamNames: []string{"s"}, LogEventFilterPattern: new("ERROR")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	var got []string
	begun := false
	err = out.ResponseStream(ctx, func(e *api.StartLiveTailResponseStream) error {
		if e.SessionStart != nil {
			begun = true
			f.mustPut("ERROR one", "fine", "ERROR two")
			f.put("g", "other", event(f.now, "ERROR elsewhere"))
			return nil
		}
		for _, x := range e.SessionUpdate.SessionResults {
			got = append(got, *x.Message)
		}
		cancel()
		return nil
	})
	if err != nil || !begun || fmt.Sprint(got) != "[ERROR one ERROR two]" {
		t.Error(got, begun, err)
	}
}

func TestSubscriptionsAreRefused(t *testing.T) {
	f := start(t)
	f.create("g")
	_, err := dispatch.Call(f.ctx, f.mux, api.OpPutSubscriptionFilter, &api.PutSubscriptionFilterInput{LogGroupName: new("g"), FilterName: new("f"), FilterPattern: new(""),
		DestinationArn: new("arn:aws:lambda:us-east-1:123456789012:function:x")})
	if !awserr.Is(err, "InvalidParameterException") {
		t.Error(err)
	}
}

// TestResultsAreForgotten asks for more rows than are kept.
func TestResultsAreForgotten(t *testing.T) {
	f := start(t)
	f.create("g", "s")
	var in []api.InputLogEvent
	for range 10_000 {
		in = append(in, event(f.now, "x"))
	}
	if _, err := f.put("g", "s", in...); err != nil {
		t.Fatal(err)
	}
	for range 24 {
		if out, err := f.ask("fields @message | limit 10000", "g"); err != nil || len(out.Results) != 10_000 {
			t.Fatal(err)
		}
	}
	list, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeQueries, &api.DescribeQueriesInput{})
	if err != nil || len(list.Queries) > 21 || len(list.Queries) < 20 {
		t.Error(len(list.Queries), err)
	}
}

func TestDefinitions(t *testing.T) {
	f := start(t)
	put, err := dispatch.Call(f.ctx, f.mux, api.OpPutQueryDefinition, &api.PutQueryDefinitionInput{Name: new("a"), QueryString: new("fields x")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpPutQueryDefinition, &api.PutQueryDefinitionInput{Name: new("b"), QueryString: new("fields y"), QueryDefinitionId: put.QueryDefinitionId}); err != nil {
		t.Fatal(err)
	}
	list, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeQueryDefinitions, &api.DescribeQueryDefinitionsInput{})
	if err != nil || len(list.QueryDefinitions) != 1 || *list.QueryDefinitions[0].Name != "b" || *list.QueryDefinitions[0].QueryString != "fields y" {
		t.Error(list, err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpPutQueryDefinition, &api.PutQueryDefinitionInput{Name: new("c"), QueryString: new("fields |")}); !awserr.Is(err, "InvalidParameterException") {
		t.Error(err)
	}
	for _, want := range []bool{true, false} {
		_, err := dispatch.Call(f.ctx, f.mux, api.OpDeleteQueryDefinition, &api.DeleteQueryDefinitionInput{QueryDefinitionId: put.QueryDefinitionId})
		if (err == nil) != want {
			t.Error(err)
		}
	}
}
