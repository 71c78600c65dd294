package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stream makes the input from events written short: action, test, output.
func stream(t *testing.T, events ...event) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	for _, e := range events {
		if e.Package == "" && e.ImportPath == "" {
			e.Package = "todo"
		}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return &b
}

func TestReport(t *testing.T) {
	pass := []event{{Action: "start"}, {Action: "run", Test: "A"}, {Action: "output", Test: "A", Output: "=== RUN A\n"},
		{Action: "pass", Test: "A", Elapsed: 0.25}, {Action: "skip", Test: "B"}, {Action: "pass", Elapsed: 0.5}}
	for name, c := range map[string]struct {
		events                           []event
		raw                              string
		ok, wrong                        bool
		tests, failures, errors, skipped int
		inXML, onTerminal                string
	}{
		"all pass": {events: pass, ok: true, tests: 2, skipped: 1, inXML: `name="A" time="0.250"`, onTerminal: "ok       todo 0.500s"},
		"one fails": {events: []event{{Action: "run", Test: "A"}, {Action: "output", Test: "A", Output: "=== RUN   A\n"},
			{Action: "output", Test: "A", Output: "    a_test.go:3: 1 < 2 \x1b[1m&\n"}, {Action: "fail", Test: "A"}, {Action: "fail"}},
			tests: 1, failures: 1, inXML: `message="a_test.go:3: 1 &lt; 2 [1m&amp;"`, onTerminal: "FAILED todo A"},
		"not built": {events: []event{{Action: "build-output", ImportPath: "todo [todo.test]", Output: "x.go:1: syntax error\n"},
			{Action: "build-fail", ImportPath: "todo [todo.test]"}, {Action: "start"}, {Action: "fail", FailedBuild: "todo [todo.test]"}},
			tests: 1, errors: 1, inXML: `name="build"`, onTerminal: "syntax error"},
		"a test that ends the program": {events: []event{{Action: "run", Test: "A"}, {Action: "output", Output: "panic: oh\n"}, {Action: "fail"}},
			tests: 1, errors: 1, inXML: "did not end", onTerminal: "NOT ENDED"},
		"ends outside of tests": {events: []event{{Action: "pass", Test: "A"}, {Action: "output", Output: "exit status 3\n"}, {Action: "fail"}},
			tests: 2, errors: 1, inXML: "exit status 3", onTerminal: "exit status 3"},
		"input ends too early": {events: []event{{Action: "run", Test: "A"}}, tests: 1, errors: 1, inXML: "did not end"},
		"no tests":             {events: []event{{Action: "skip"}}, ok: true, wrong: true},
		"no events":            {raw: "go: cannot find main module\n", ok: true, wrong: true, onTerminal: "cannot find main module"},
	} {
		t.Run(name, func(t *testing.T) {
			in := stream(t, c.events...)
			in.WriteString(c.raw)
			var terminal bytes.Buffer
			path := filepath.Join(t.TempDir(), "reports", "junit.xml")
			ok, err := run(in, &terminal, path)
			if ok != c.ok || (err != nil) != c.wrong {
				t.Errorf("ok %v, error %v", ok, err)
			}
			if !strings.Contains(terminal.String(), c.onTerminal) {
				t.Errorf("terminal:\n%s", &terminal)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var r Report
			if err := xml.Unmarshal(b, &r); err != nil {
				t.Fatalf("%v in\n%s", err, b)
			}
			if r.Tests != c.tests || r.Failures != c.failures || r.Errors != c.errors || r.Skipped != c.skipped || !strings.Contains(string(b), c.inXML) {
				t.Errorf("%s", b)
			}
		})
	}
}

func TestOutputIsBounded(t *testing.T) {
	var events []event
	for range 100 {
		events = append(events, event{Action: "output", Test: "A", Output: strings.Repeat("ä", 1000)})
	}
	r, err := Read(stream(t, append(events, event{Action: "fail", Test: "A"})...), &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.Suites[0].Cases[0].Failure.Text); n > keep || n < keep-2 {
		t.Errorf("%d bytes are kept", n)
	}
}
