package cloudwatch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"slipway/internal/agent/awscall"
)

func mustClient(t *testing.T, url string) *awscall.Client {
	t.Helper()
	c, err := awscall.New(url, "us-east-1", awscall.Static{AccessKeyID: "a", SecretAccessKey: "b"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestConfigErrors(t *testing.T) {
	file := func(fields string) string {
		return `{"logs": {"logs_collected": {"files": {"collect_list": [{` + fields + `}]}}}}`
	}
	for text, want := range map[string]string{
		"{\n  \"logs\": {\n    oops": "c.json:3:5: ", `{"logs": {"force_flush_interval": "5"}}`: "c.json:1:", `{"logs": {"force_flush_interval": 0}}`: "logs.force_flush_interval is 0",
		file(`"file_path": "relative.log"`):                                               `collect_list[0].file_path: "relative.log" is no absolute path`,
		file(`"file_path": "/a", "retention_in_days": 2`):                                 "retention_in_days: 2 is none of",
		file(`"file_path": "/a", "log_stream_name": "{instanceid}"`):                      "log_stream_name: the placeholder {instanceid}",
		file(`"file_path": "/a", "timestamp_format": "%Q"`):                               "timestamp_format: %Q",
		file(`"file_path": "/a", "timezone": "CET"`):                                      "timezone: ",
		file(`"file_path": "/a", "multi_line_start_pattern": "("`):                        "multi_line_start_pattern: ",
		file(`"file_path": "/a", "filters": [{"type": "x", "expression": "y"}]`):          "filters[0].type",
		file(`"file_path": "/a", "encoding": "shift_jis"`):                                "encoding: ",
		`{"metrics": {"metrics_collected": {"mem": {"measurement": ["speed"]}}}}`:         "metrics_collected.mem.measurement[0]: mem_speed is not known",
		`{"metrics": {"append_dimensions": {"InstanceId": "i-1"}}}`:                       "append_dimensions.InstanceId",
		`{"metrics": {"metrics_collected": {"mem": {"metrics_collection_interval": 0}}}}`: "mem.metrics_collection_interval",
	} {
		if _, err := parseConfig("c.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n got %v\nwant %s", text, err, want)
		}
	}
	for _, name := range []string{"todo", "todo-flask"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "..", "examples", name, "config", "amazon-cloudwatch-agent.json"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseConfig(name, b)
		if err != nil || len(c.Warnings) > 0 || len(c.Logs.Files) == 0 {
			t.Errorf("%s: %v %v", name, err, c.Warnings)
		}
	}
	c, err := parseConfig("x", []byte(`{"metrics": {"metrics_collected": {"statsd": {}, "nvidia_gpu": {}}}}`))
	if err != nil || len(c.Warnings) != 2 {
		t.Error("what is not collected is not named:", c.Warnings, err)
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2026, 1, 3, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct{ format, line, want string }{
		{"%d/%b/%Y:%H:%M:%S %z", `1.2.3.4 - - [02/Jan/2026:03:04:05 +0100] "GET /"`, "2026-01-02T02:04:05Z"},
		{"%Y/%m/%d %H:%M:%S", "2026/01/02 03:04:05 [error] 1#1", "2026-01-02T03:04:05Z"},
		{"%Y-%m-%dT%H:%M:%S.%f", "2026-01-02T03:04:05.123456 x", "2026-01-02T03:04:05.123456Z"},
		{"%b %d %H:%M:%S", "Dec 31 23:59:59 host x", "2025-12-31T23:59:59Z"}, {"%b %-d %I:%M %p", "Jan  2 12:05 am", "2026-01-02T00:05:00Z"},
		{"%y%m%d %T", "260102 03:04:05", "2026-01-02T03:04:05Z"}, {"%s", "1767322800 x", "2026-01-02T03:00:00Z"}, {"%Y-%m-%d", "no time", ""}, {"%H:%M", "29:10", ""},
	} {
		f, err := newTimeFormat(c.format, true)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := f.find([]byte(c.line), now)
		if text := got.UTC().Format(time.RFC3339Nano); ok != (c.want != "") || ok && text != c.want {
			t.Errorf("%s in %q: %s %v, want %s", c.format, c.line, text, ok, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	long := strings.Repeat("x", maxRead)
	start := regexp.MustCompile(`^\[`)
	for name, c := range map[string]struct {
		s     splitter
		piece string
		want  string
		to    int
		skip  bool
	}{
		"lines":                {splitter{}, "a\nb\nrest", "a|b", 4, false},
		"the end of a file":    {splitter{last: true}, "a\nrest", "a|rest", 6, false},
		"empty lines":          {splitter{}, "\n\n", "|", 2, false},
		"several lines":        {splitter{start: start}, "[1\n a\n b\n[2\n c\n", "[1\n a\n b", 9, false},
		"settled":              {splitter{start: start, idle: true}, "[1\n a\n[2\n c\n", "[1\n a|[2\n c", 12, false},
		"before the first":     {splitter{start: start}, "x\ny\n[1\n", "x\ny", 4, false},
		"rest of a long line":  {splitter{skip: true}, "rest\nb\n", "b", 7, false},
		"rest of a long event": {splitter{start: start, skip: true}, "rest\nmore\n[1\n[2\n", "[1", 13, false},
		"still the long line":  {splitter{skip: true, full: true}, long, "", maxRead, true},
	} {
		events, to, skip := c.s.split([]byte(c.piece))
		var texts []string
		for _, e := range events {
			texts = append(texts, string(e.text))
		}
		if got := strings.Join(texts, "|"); got != c.want || to != int64(c.to) || skip != c.skip {
			t.Errorf("%s: %q to %d skip %v", name, got, to, skip)
		}
	}
	events, to, skip := (&splitter{full: true}).split([]byte(long))
	if len(events) != 1 || len(events[0].text) != maxEvent || !bytes.HasSuffix(events[0].text, []byte(truncated)) || to != maxRead || !skip {
		t.Error("a line without end:", len(events), to, skip)
	}
}

func TestCtl(t *testing.T) {
	dir := t.TempDir()
	var out, errs bytes.Buffer
	var calls []string
	c := &ctl{configDir: filepath.Join(dir, "etc"), stateDir: filepath.Join(dir, "state"), unit: filepath.Join(dir, "unit", "agent.service"), out: &out, err: &errs,
		systemctl: func(args ...string) error {
			calls = append(calls, strings.Join(args, " "))
			if args[0] == "restart" { // the agent starts
				f, err := hold(filepath.Join(dir, "state"))
				if err == nil {
					t.Cleanup(func() { f.Close() })
				}
				return err
			}
			return nil
		},
		fetch: func(string) ([]byte, error) { return nil, errors.New("no such parameter") }}
	a, b := filepath.Join(dir, "a.json"), filepath.Join(dir, "b.json")
	os.WriteFile(a, []byte(`{"logs": {"force_flush_interval": 7}}`), 0o600)
	os.WriteFile(b, []byte(`{"logs": {"force_flush_interval": 8}}`), 0o600)
	if err := c.run([]string{"-a", "fetch-config", "-m", "ec2", "-c", "file:" + a, "-s"}); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(calls, "; "); got != "daemon-reload; enable amazon-cloudwatch-agent.service; restart amazon-cloudwatch-agent.service" {
		t.Error(got)
	}
	if err := c.run([]string{"-a", "append-config", "-c", "file:" + b}); err == nil || !strings.Contains(err.Error(), "force_flush_interval is 8 here and 7") {
		t.Error("two configurations that contradict each other:", err)
	}
	out.Reset()
	if err := c.run([]string{"-a", "status"}); err != nil || !strings.Contains(out.String(), `"status": "running"`) || !strings.Contains(out.String(), `"starttime": "20`) {
		t.Error(out.String(), err)
	}
	for _, args := range [][]string{{"-a", "dance"}, {"-a", "fetch-config", "-c", "http://x"}, {"-a", "fetch-config", "-m", "moon"}, {"-a", "fetch-config", "-c", "ssm:x"}, {"-x"}, {"-a", "remove-config", "-c", "file:none"}} {
		if err := c.run(args); err == nil {
			t.Errorf("%q was taken", args)
		}
	}
	if err := c.run([]string{"-a", "remove-config", "-c", "all"}); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(c.configDir, "*.json")); len(left) > 0 {
		t.Error("left:", left)
	}
}
