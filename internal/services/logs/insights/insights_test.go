package insights_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"slipway/internal/services/logs/insights"
)

const base = 1767322800000 // 2026-01-02 03:00:00

// events are given newest first, one minute apart.
var events = []string{
	`{"level": "ERROR", "ms": 250, "path": "/a", "user": {"name": "ann"}, "tags": ["x", "y"]}`,
	`{"level": "INFO", "ms": 10, "path": "/a", "user": {"name": "bob"}}`,
	`{"level": "INFO", "ms": 30, "path": "/b", "ok": true}`,
	`127.0.0.1 - - "GET /index.html HTTP/1.1" 404 153`,
	`127.0.0.2 - - "POST /x HTTP/1.1" 200 77`,
	`user=carl, method:login, latency := 12`,
}

func ask(t *testing.T, query string) string {
	t.Helper()
	q, err := insights.Parse(query)
	if err != nil {
		return "error: " + err.Error()
	}
	run := q.Start(0)
	for i, m := range events {
		if !run.Add(&insights.Event{Time: base - int64(i)*60000, Ingested: base, Message: m, Stream: "s", Log: "g", Ptr: fmt.Sprint(i)}) {
			break
		}
	}
	var rows []string
	for _, row := range run.Results() {
		var f []string
		for _, x := range row {
			if x.Name != "@ptr" {
				f = append(f, x.Name+"="+x.Value)
			}
		}
		rows = append(rows, strings.Join(f, " "))
	}
	return strings.Join(rows, "; ")
}

func TestQueries(t *testing.T) {
	for query, want := range map[string]string{
		`fields @timestamp, level | filter level = "ERROR"`:                                                                                         "@timestamp=2026-01-02 03:00:00.000 level=ERROR",
		`fields user.name as u, tags.1 | filter ispresent(user.name) | sort u desc`:                                                                 "u=bob; u=ann tags.1=y",
		`filter ms > 20 and path = "/a" | display ms * 2 + 1 as double, path`:                                                                       "double=501 path=/a",
		`filter level in ["ERROR", "WARN"] | fields path`:                                                                                           "path=/a",
		`filter level not in ["ERROR"] and ispresent(level) | fields ms`:                                                                            "ms=10; ms=30",
		`filter @message like "carl" | parse "user=*, method:*, latency := *" as u, m, l | fields u, m, l`:                                          "u=carl m=login l=12",
		`parse @message /"(?<verb>[A-Z]+) (?<page>\S+) [^"]*" (?<code>\d+)/ | filter ispresent(code) | stats count(*) as n by verb | sort verb asc`: "verb=GET n=1; verb=POST n=1",
		`filter @message like /(?i)error/ | fields level`:                                                                                           "level=ERROR",
		`filter @message not like /level|GET|POST/ | fields strlen(@message) as n`:                                                                  "n=38",
		`stats count(*), avg(ms), max(ms), min(ms), sum(ms), pct(ms, 50)`:                                                                           "count(*)=6 avg(ms)=96.66666666666667 max(ms)=250 min(ms)=10 sum(ms)=290 pct(ms, 50)=30",
		`stats count(*) as n by level | sort n desc, level asc`:                                                                                     "n=3; level=INFO n=2; level=ERROR n=1",
		`stats count(*) by bin(2m) | sort bin(2m) asc`:                                                                                              "bin(2m)=2026-01-02 02:54:00.000 count(*)=1; bin(2m)=2026-01-02 02:56:00.000 count(*)=2; bin(2m)=2026-01-02 02:58:00.000 count(*)=2; bin(2m)=2026-01-02 03:00:00.000 count(*)=1",
		`filter ispresent(ms) | stats sum(ms) / count(*) as mean, count_distinct(path) as paths by level | sort mean`:                               "level=INFO mean=20 paths=2; level=ERROR mean=250 paths=1",
		`stats count(*) as n by level | stats max(n) as most`:                                                                                       "most=3",
		`filter ispresent(ms) | stats earliest(ms), latest(ms), sortsFirst(path), sortsLast(path), stddev(ms), median(ms)`:                          "earliest(ms)=30 latest(ms)=250 sortsFirst(path)=/a sortsLast(path)=/b stddev(ms)=108.73004286866727 median(ms)=30",
		`filter ispresent(path) | dedup path | fields path, ms`:                                                                                     "path=/a ms=250; path=/b ms=30",
		`fields level | filter ispresent(level) | limit 1`:                                                                                          "level=ERROR",
		`fields ms | sort ms desc | limit 2`:                                                                                                        "ms=250; ms=30",
		"# a comment\nfields upper(level) as L # more\n| filter L = 'INFO' | limit 1":                                                               "L=INFO",
		`fields concat(level, "-", path) as c, substr(path, 1) as p, replace(level, "R", "r") as r, coalesce(nothing, "none") as n | limit 1`:       "c=ERROR-/a p=a r=ErrOr n=none",
		`fields greatest(1, ms, 7) as g, least(3, ms) as l, abs(-2) as a, floor(2.7) as f, 7 % 4 as m, 2 ^ 3 as e | limit 1`:                        "g=250 l=3 a=2 f=2 m=3 e=8",
		`fields toMillis(@timestamp) as ms2, fromMillis(0) as z, datefloor(@timestamp, 1h) as h | limit 1`:                                          "ms2=1767322800000 z=1970-01-01 00:00:00.000 h=2026-01-02 03:00:00.000",
		`filter isValidIpv4("10.0.0.1") and isIpv4InSubnet("10.0.0.1", "10.0.0.0/8") and not isValidIpv6("x") | stats count(*) as n`:                "n=6",
		`filter nothing = 1 | stats count(*) as n`:                                                                                                  "n=0",
		`filter ok = true | fields ms`:                                                                                                              "ms=30",
		`filter (ms = 10 or ms = 30) and not path = "/b" | fields ms`:                                                                               "ms=10",
		"fields `user`.name | limit 1":                                                                                                              "error: line 1, column 14: the character '.' is not understood",
		`fields a |`:                                                                                                                                "error: line 1, column 11: a command must stand here",
		"fields a\n| filter (a":                                                                                                                     "error: line 2, column 12: a parenthesis is not closed",
		`frobnicate`:                                                                                                                                "error: line 1, column 1: there is no command frobnicate",
		`limit 10001`:                                                                                                                               "error: line 1, column 7: limit is 10000 at most",
		`filter a like /(/`:                                                                                                                         "error: line 1, column 15: the regular expression is not valid: error parsing regexp: missing closing ): `(`",
		`stats level`:                                                                                                                               "error: line 1, column 7: an aggregation such as count(*) or avg(field) must stand here",
		`parse @message "* *" as a`:                                                                                                                 "error: line 1, column 26: 1 names follow as, but the pattern has 2 stars",
		`diff previousDay`:                                                                                                                          "error: the command diff is not built",
	} {
		got := ask(t, query)
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", query, got, want)
		}
	}
	var nb *insights.NotBuilt
	if _, err := insights.Parse("fields a | diff"); !errors.As(err, &nb) {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, q := range []string{`fields a, b as c | filter x like /y/ and not (z in [1, "2"]) | stats count(*), pct(a, 99) by bin(5m), k | sort b desc | limit 5`, `parse "a*b" as c | dedup c`} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := insights.Parse(s)
		if err != nil {
			return
		}
		run := q.Start(10)
		for i, m := range events {
			run.Add(&insights.Event{Time: int64(i), Message: m})
		}
		run.Results()
	})
}
