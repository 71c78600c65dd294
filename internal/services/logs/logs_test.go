package logs_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/logs"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/services/logs"
	"slipway/internal/store"
)

type fixture struct {
	*testing.T
	mux *dispatch.Mux
	ctx context.Context
	svc *logs.Service
	dir string
	now int64

	store store.Store
}

func start(t *testing.T) *fixture {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	f := &fixture{T: t, mux: dispatch.New(), dir: filepath.Join(t.TempDir(), "logs"), now: clock.Real.Now().UnixMilli(), store: st}
	f.ctx = caller.With(t.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1"})
	f.svc = logs.New(logs.Deps{Store: st, Dir: f.dir, Durable: true})
	f.svc.Register(f.mux)
	return f
}

func (f *fixture) create(group string, streams ...string) {
	f.Helper()
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpCreateLogGroup, &api.CreateLogGroupInput{LogGroupName: &group}); err != nil && !awserr.Is(err, "ResourceAlreadyExistsException") {
		f.Fatal(err)
	}
	for _, s := range streams {
		if _, err := dispatch.Call(f.ctx, f.mux, api.OpCreateLogStream, &api.CreateLogStreamInput{LogGroupName: &group, LogStreamName: &s}); err != nil {
			f.Fatal(err)
		}
	}
}

func event(at int64, msg string) api.InputLogEvent {
	return api.InputLogEvent{Timestamp: &at, Message: &msg}
}

func (f *fixture) put(group, stream string, events ...api.InputLogEvent) (*api.PutLogEventsOutput, error) {
	return dispatch.Call(f.ctx, f.mux, api.OpPutLogEvents, &api.PutLogEventsInput{LogGroupName: &group, LogStreamName: &stream, LogEvents: events})
}

func (f *fixture) get(in api.GetLogEventsInput) ([]string, *api.GetLogEventsOutput) {
	f.Helper()
	in.LogGroupName, in.LogStreamName = new("g"), new("s")
	out, err := dispatch.Call(f.ctx, f.mux, api.OpGetLogEvents, &in)
	if err != nil {
		f.Fatal(err)
	}
	var got []string
	for _, e := range out.Events {
		got = append(got, *e.Message)
	}
	return got, out
}

func (f *fixture) want(got []string, want string) {
	f.Helper()
	if strings.Join(got, " ") != want {
		f.Errorf("got %v, want %s", got, want)
	}
}

func TestPaging(t *testing.T) {
	f := start(t)
	f.create("g", "s")
	_, empty := f.get(api.GetLogEventsInput{StartFromHead: new(true)})
	for i := range 7 {
		if _, err := f.put("g", "s", event(f.now-1000+int64(i/2), fmt.Sprint("m", i))); err != nil {
			t.Fatal(err)
		}
	}
	got, _ := f.get(api.GetLogEventsInput{NextToken: empty.NextForwardToken, StartFromHead: new(true)})
	f.want(got, "m0 m1 m2 m3 m4 m5 m6")

	got, out := f.get(api.GetLogEventsInput{Limit: new(int64(3))})
	f.want(got, "m4 m5 m6")
	got, out2 := f.get(api.GetLogEventsInput{Limit: new(int64(3)), NextToken: out.NextForwardToken})
	f.want(got, "")
	if *out2.NextForwardToken != *out.NextForwardToken {
		t.Error("the end of the stream gave another forward token")
	}
	got, back := f.get(api.GetLogEventsInput{Limit: new(int64(3)), NextToken: out.NextBackwardToken})
	f.want(got, "m1 m2 m3")
	got, back = f.get(api.GetLogEventsInput{Limit: new(int64(3)), NextToken: back.NextBackwardToken})
	f.want(got, "m0")
	got, end := f.get(api.GetLogEventsInput{Limit: new(int64(3)), NextToken: back.NextBackwardToken})
	f.want(got, "")
	if *end.NextBackwardToken != *back.NextBackwardToken {
		t.Error("the head of the stream gave another backward token")
	}
	got, _ = f.get(api.GetLogEventsInput{Limit: new(int64(3)), NextToken: end.NextForwardToken})
	f.want(got, "m0 m1 m2")
	got, _ = f.get(api.GetLogEventsInput{Limit: new(int64(2)), NextToken: out2.NextBackwardToken})
	f.want(got, "m5 m6")
	if _, err := f.put("g", "s", event(f.now, "m7")); err != nil {
		t.Fatal(err)
	}
	got, _ = f.get(api.GetLogEventsInput{NextToken: out.NextForwardToken, StartFromHead: new(true)})
	f.want(got, "m7")
	got, _ = f.get(api.GetLogEventsInput{StartTime: new(f.now - 999), EndTime: new(f.now - 998), StartFromHead: new(true)})
	f.want(got, "m2 m3") // the start is inclusive, the end is not
	_, err := dispatch.Call(f.ctx, f.mux, api.OpGetLogEvents, &api.GetLogEventsInput{LogGroupName: new("g"), LogStreamName: new("s"), NextToken: new("x")})
	if !awserr.Is(err, "InvalidParameterException") {
		t.Errorf("a bad token: %v", err)
	}
}

func TestPutRejects(t *testing.T) {
	f := start(t)
	f.create("g", "s")
	day := int64(24 * time.Hour / time.Millisecond)
	for name, c := range map[string]struct {
		events []api.InputLogEvent
		code   string
	}{
		"order": {[]api.InputLogEvent{event(f.now, "a"), event(f.now-1, "b")}, "InvalidParameterException"},
		"span":  {[]api.InputLogEvent{event(f.now-2*day, "a"), event(f.now, "b")}, "InvalidParameterException"},
		"size":  {[]api.InputLogEvent{event(f.now, strings.Repeat("x", 600_000)), event(f.now, strings.Repeat("x", 600_000))}, "InvalidParameterException"},
		"none":  {nil, "InvalidParameterException"},
	} {
		if _, err := f.put("g", "s", c.events...); !awserr.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range [][2]string{{"none", "s"}, {"g", "none"}} {
		if _, err := f.put(name[0], name[1], event(f.now, "a")); !awserr.Is(err, "ResourceNotFoundException") {
			t.Errorf("%v: %v", name, err)
		}
	}
	out, err := f.put("g", "s", event(f.now-15*day, "old"), event(f.now-14*day-1000, "old"))
	if err != nil || out.RejectedLogEventsInfo == nil || *out.RejectedLogEventsInfo.TooOldLogEventEndIndex != 2 {
		t.Errorf("too old: %+v %v", out, err)
	}
	out, err = f.put("g", "s", event(f.now, "fine"), event(f.now+day/8, "new"))
	if err != nil || out.RejectedLogEventsInfo == nil || *out.RejectedLogEventsInfo.TooNewLogEventStartIndex != 1 {
		t.Errorf("too new: %+v %v", out, err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpPutRetentionPolicy, &api.PutRetentionPolicyInput{LogGroupName: new("g"), RetentionInDays: new(int64(1))}); err != nil {
		t.Fatal(err)
	}
	out, err = f.put("g", "s", event(f.now-day-1000, "expired"), event(f.now-1000, "fine too"))
	if err != nil || out.RejectedLogEventsInfo == nil || *out.RejectedLogEventsInfo.ExpiredLogEventEndIndex != 1 {
		t.Errorf("expired: %+v %v", out, err)
	}
	got, _ := f.get(api.GetLogEventsInput{StartFromHead: new(true)})
	f.want(got, "fine too fine")
}

func TestFilter(t *testing.T) {
	f := start(t)
	f.create("g", "a/1", "a/2", "b")
	for i := range 30 {
		if _, err := f.put("g", []string{"a/1", "a/2", "b"}[i%3], event(f.now-1000+int64(i), fmt.Sprintf("n=%d %s", i, []string{"[error]", "[info]"}[i%2]))); err != nil {
			t.Fatal(err)
		}
	}
	all := func(in api.FilterLogEventsInput) (got []string) {
		t.Helper()
		ids := map[string]bool{}
		in.LogGroupName = new("g")
		for range 100 {
			out, err := dispatch.Call(f.ctx, f.mux, api.OpFilterLogEvents, &in)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range out.Events {
				if ids[*e.EventId] {
					t.Errorf("twice: %s", *e.EventId)
				}
				ids[*e.EventId] = true
				got = append(got, strings.Fields(*e.Message)[0][2:])
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return got
			}
		}
		t.Fatal("no end")
		return nil
	}
	f.want(all(api.FilterLogEventsInput{Limit: new(int64(4)), EndTime: new(f.now - 1000 + 9)}), "0 1 2 3 4 5 6 7 8 9") // the end is inclusive
	f.want(all(api.FilterLogEventsInput{FilterPattern: new(`"[error]"`), Limit: new(int64(1)), LogStreamNamePrefix: new("a/")}), "0 4 6 10 12 16 18 22 24 28")
	f.want(all(api.FilterLogEventsInput{LogStreamNames: []string{"b"}, StartTime: new(f.now - 1000 + 20)}), "20 23 26 29")
	_, err := dispatch.Call(f.ctx, f.mux, api.OpFilterLogEvents, &api.FilterLogEventsInput{LogGroupName: new("g"), FilterPattern: new(`"open`)})
	if !awserr.Is(err, "InvalidParameterException") {
		t.Errorf("a bad pattern: %v", err)
	}
}

func TestDeletedGroupsAndStreamsLeaveNothing(t *testing.T) {
	f := start(t)
	f.create("g", "s")
	if _, err := f.put("g", "s", event(f.now, "old")); err != nil {
		t.Fatal(err)
	}
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpDeleteLogStream, &api.DeleteLogStreamInput{LogGroupName: new("g"), LogStreamName: new("s")}); err != nil {
		t.Fatal(err)
	}
	f.create("g", "s")
	got, _ := f.get(api.GetLogEventsInput{})
	f.want(got, "")
	if _, err := dispatch.Call(f.ctx, f.mux, api.OpDeleteLogGroup, &api.DeleteLogGroupInput{LogGroupName: new("g")}); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(f.dir)
	if err != nil || len(names) != 0 {
		t.Errorf("left: %v %v", names, err)
	}
	if _, err := f.put("g", "s", event(f.now, "x")); !awserr.Is(err, "ResourceNotFoundException") {
		t.Error(err)
	}
}

func TestDescribeStreams(t *testing.T) {
	f := start(t)
	f.create("g", "a", "b", "c")
	for i, s := range []string{"c", "a", "b"} {
		if _, err := f.put("g", s, event(f.now+int64(i), "x")); err != nil {
			t.Fatal(err)
		}
	}
	list := func(in api.DescribeLogStreamsInput) (got []string) {
		t.Helper()
		in.LogGroupName, in.Limit = new("g"), new(int64(2))
		for range 10 {
			out, err := dispatch.Call(f.ctx, f.mux, api.OpDescribeLogStreams, &in)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range out.LogStreams {
				got = append(got, *s.LogStreamName)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				break
			}
		}
		return got
	}
	f.want(list(api.DescribeLogStreamsInput{}), "a b c")
	f.want(list(api.DescribeLogStreamsInput{OrderBy: new("LastEventTime"), Descending: new(true)}), "b a c")
	f.want(list(api.DescribeLogStreamsInput{LogStreamNamePrefix: new("b")}), "b")
}

// TestTailWithTheCLI needs version 2: version 1 has no tail.
func TestTailWithTheCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Python: slow")
	}
	if v, err := exec.Command("aws", "--version").CombinedOutput(); err != nil || !strings.Contains(string(v), "aws-cli/2") {
		t.Skip("needs the aws CLI, version 2")
	}
	f := start(t)
	f.create("g", "s")
	srv := httptest.NewServer(f.mux.Handler(dispatch.Config{AuthAny: true, Now: clock.Real.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}))
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "aws", "logs", "tail", "g", "--follow", "--format", "short")
	cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+srv.URL, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "PYTHONUNBUFFERED=1")
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.put("g", "s", event(f.now, "first line")); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf, text := make([]byte, 4096), ""
	for !strings.Contains(text, "first line") || !strings.Contains(text, "second line") {
		n, err := out.Read(buf)
		text += string(buf[:n])
		if err != nil {
			cmd.Wait()
			t.Fatalf("%v: %q\n%s", err, text, errs.String())
		}
		if strings.Contains(text, "first line") && !strings.Contains(text, "second line") {
			if _, err := f.put("g", "s", event(clock.Real.Now().UnixMilli(), "second line")); err != nil {
				t.Fatal(err)
			}
		}
	}
	cancel()
	cmd.Wait() // killed: its error says nothing
}

func TestCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Python: slow")
	}
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("needs the aws CLI")
	}
	f := start(t)
	srv := httptest.NewServer(f.mux.Handler(dispatch.Config{AuthAny: true, Now: clock.Real.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}))
	defer srv.Close()
	for _, step := range []struct{ args, want string }{
		{"create-log-group --log-group-name /app/web --tags team=a", ""},
		{"create-log-stream --log-group-name /app/web --log-stream-name i-1", ""},
		{fmt.Sprintf("put-log-events --log-group-name /app/web --log-stream-name i-1 --log-events timestamp=%d,message=hello", f.now), "nextSequenceToken"},
		{"filter-log-events --log-group-name /app/web --filter-pattern hello", `"message": "hello"`},
		{"get-log-events --log-group-name /app/web --log-stream-name i-1", `"message": "hello"`},
		{"describe-log-groups --log-group-name-prefix /app", "arn:aws:logs:us-east-1:123456789012:log-group:/app/web:*"},
		{"list-tags-for-resource --resource-arn arn:aws:logs:us-east-1:123456789012:log-group:/app/web", `"team": "a"`},
		{"delete-log-group --log-group-name /app/web", ""},
	} {
		cmd := exec.CommandContext(t.Context(), "aws", append([]string{"logs"}, strings.Fields(step.args)...)...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+srv.URL, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), step.want) {
			t.Fatalf("aws logs %s: %v\n%s", step.args, err, out)
		}
	}
}
