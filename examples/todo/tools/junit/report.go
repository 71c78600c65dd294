package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Time        time.Time
	Action      string
	Package     string
	ImportPath  string // of build output
	Test        string
	Elapsed     float64 // seconds
	Output      string
	FailedBuild string
}

// Report is the root of a JUnit file.
type Report struct {
	XMLName  xml.Name `xml:"testsuites"`
	Tests    int      `xml:"tests,attr"`
	Failures int      `xml:"failures,attr"`
	Errors   int      `xml:"errors,attr"`
	Skipped  int      `xml:"skipped,attr"`
	Suites   []*Suite `xml:"testsuite"`
}

// Suite is one package.
type Suite struct {
	Name      string  `xml:"name,attr"`
	Tests     int     `xml:"tests,attr"`
	Failures  int     `xml:"failures,attr"`
	Errors    int     `xml:"errors,attr"`
	Skipped   int     `xml:"skipped,attr"`
	Time      string  `xml:"time,attr"`
	Timestamp string  `xml:"timestamp,attr,omitempty"`
	Cases     []*Case `xml:"testcase"`

	output bytes.Buffer // of the package itself
	open   map[string]*Case
}

// Case is one test or subtest.
type Case struct {
	Class   string   `xml:"classname,attr"`
	Name    string   `xml:"name,attr"`
	Time    string   `xml:"time,attr"`
	Failure *Problem `xml:"failure,omitempty"`
	Error   *Problem `xml:"error,omitempty"`
	Skip    *Problem `xml:"skipped,omitempty"`

	output bytes.Buffer
	ended  bool
}

// Problem is why a case did not pass.
type Problem struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// keep is how many bytes of output are kept for each test.
const keep = 64 << 10

// reader collects events into a report.
type reader struct {
	report   *Report
	suites   map[string]*Suite
	builds   map[string]*bytes.Buffer // output of the compiler by import path
	terminal io.Writer
}

// Read collects the events of in, and prints to terminal as it goes. With an
// error the report has what was there before it.
func Read(in io.Reader, terminal io.Writer) (*Report, error) {
	r := &reader{&Report{}, map[string]*Suite{}, map[string]*bytes.Buffer{}, terminal}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	var strange error
	for n := 1; lines.Scan(); n++ {
		line := bytes.TrimSpace(lines.Bytes())
		if len(line) == 0 {
			continue
		}
		var e event
		if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
			fmt.Fprintf(terminal, "%s\n", line)
			strange = errors.Join(strange, fmt.Errorf("line %d is no event of go test -json", n))
			continue
		}
		r.take(e)
	}
	r.finish()
	return r.report, errors.Join(strange, lines.Err())
}

func (r *reader) take(e event) {
	if e.Action == "build-output" || e.Action == "build-fail" {
		b := r.builds[e.ImportPath]
		if b == nil {
			b = &bytes.Buffer{}
			r.builds[e.ImportPath] = b
		}
		add(b, e.Output)
		io.WriteString(r.terminal, e.Output) //nolint:errcheck // a closed terminal changes no result
		return
	}
	if e.Package == "" {
		return
	}
	s := r.suites[e.Package]
	if s == nil {
		s = &Suite{Name: e.Package, open: map[string]*Case{}}
		if !e.Time.IsZero() {
			s.Timestamp = e.Time.UTC().Format("2006-01-02T15:04:05")
		}
		r.suites[e.Package] = s
		r.report.Suites = append(r.report.Suites, s)
	}
	if e.Test == "" {
		r.takePackage(s, e)
		return
	}
	c := s.open[e.Test]
	if c == nil {
		c = &Case{Class: e.Package, Name: e.Test, Time: "0.000"}
		s.open[e.Test] = c
		s.Cases = append(s.Cases, c)
	}
	switch e.Action {
	case "output":
		add(&c.output, e.Output)
	case "pass", "fail", "skip":
		c.end(e)
		if e.Action == "fail" {
			fmt.Fprintf(r.terminal, "FAILED %s %s\n%s", e.Package, e.Test, c.output.String())
		}
	}
}

// takePackage takes what is about a package and none of its tests.
func (r *reader) takePackage(s *Suite, e event) {
	switch e.Action {
	case "output":
		add(&s.output, e.Output)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	s.Time = seconds(e.Elapsed)
	word := map[string]string{"pass": "ok", "fail": "FAILED", "skip": "no tests"}[e.Action]
	fmt.Fprintf(r.terminal, "%-8s %s %ss\n", word, s.Name, s.Time)
	if e.Action != "fail" {
		return
	}
	unfinished, failed := false, false
	for _, c := range s.Cases {
		if !c.ended {
			unfinished = true
			c.ended = true
			c.Error = problem("the test did not end", c.output.String())
			fmt.Fprintf(r.terminal, "NOT ENDED %s %s\n%s", s.Name, c.Name, c.output.String())
		}
		failed = failed || c.Failure != nil
	}
	if failed || unfinished {
		return
	}
	// No test is to blame: it was not built, or ended outside of the tests.
	text, name := s.output.String(), "package"
	if b := r.builds[e.FailedBuild]; b != nil {
		text, name = b.String()+text, "build"
	} else {
		io.WriteString(r.terminal, text) //nolint:errcheck // as above
	}
	s.Cases = append(s.Cases, &Case{Class: s.Name, Name: name, Time: s.Time, ended: true,
		Error: problem("the package failed", text)})
}

func (c *Case) end(e event) {
	c.ended, c.Time = true, seconds(e.Elapsed)
	switch e.Action {
	case "fail":
		c.Failure = problem("failed", c.output.String())
	case "skip":
		c.Skip = problem("skipped", c.output.String())
	}
}

// finish counts, and makes an error of each test that input ended in the middle of.
func (r *reader) finish() {
	for _, s := range r.report.Suites {
		for _, c := range s.Cases {
			if !c.ended {
				c.Error = problem("the test did not end", c.output.String())
			}
			s.Tests++
			switch {
			case c.Failure != nil:
				s.Failures++
			case c.Error != nil:
				s.Errors++
			case c.Skip != nil:
				s.Skipped++
			}
		}
		if s.Time == "" {
			s.Time = "0.000"
		}
		r.report.Tests += s.Tests
		r.report.Failures += s.Failures
		r.report.Errors += s.Errors
		r.report.Skipped += s.Skipped
	}
}

// problem takes for its message the first line that says something.
func problem(message, output string) *Problem {
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			message = line
			break
		}
	}
	return &Problem{Message: clean(message), Text: clean(output)}
}

// clean keeps what XML 1.0 allows; encoding/xml would put U+FFFD for the rest.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' || c == '\n' || (c >= ' ' && c != 0xfffe && c != 0xffff) {
			return c
		}
		return -1
	}, strings.ToValidUTF8(s, "?"))
}

func add(b *bytes.Buffer, s string) {
	if room := keep - b.Len(); len(s) > room {
		for room > 0 && !utf8.RuneStart(s[room]) {
			room--
		}
		s = s[:max(room, 0)]
	}
	b.WriteString(s)
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// WriteXML writes the report.
func (r *Report) WriteXML(w io.Writer) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(r); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
