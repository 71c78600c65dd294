package build

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"slipway/internal/spec/buildspec"
)

const (
	maxCases      = 500      // test cases kept of a report
	maxMessage    = 5000     // characters of a case's message
	maxReportFile = 64 << 20 // bytes of one report file
)

// reports reads the files of every report group. What cannot be read makes the report INCOMPLETE, never the
// build fail.
func (r *runner) reports() {
	if len(r.spec.Reports) == 0 {
		r.e.container("No reports defined in the buildspec")
		return
	}
	for _, spec := range r.spec.Reports {
		group := r.expand(spec.Group)
		if !strings.HasPrefix(group, "arn:") {
			group = r.job.Project + "-" + group
		}
		if spec.Format != "JUNITXML" {
			r.e.container("Report %s: the format %s is not supported yet; its files are not read", group, spec.Format)
			continue
		}
		files, err := r.collect(&buildspec.Artifacts{Files: spec.Files, BaseDirectory: spec.BaseDirectory})
		if err != nil || len(files) == 0 {
			r.e.container("Report %s: no matching report files found", group)
			continue
		}
		rep := junitReport(group, files)
		for _, p := range rep.Problems {
			r.e.container("Report %s: %s", group, p)
		}
		r.e.container("Report %s: %d test case(s) in %d file(s), %s", group, rep.Total, len(files), rep.Status)
		r.e.emit(Event{Type: EventReport, Report: rep})
	}
}

func junitReport(group string, files []found) *Report {
	rep := &Report{Group: group, Type: "TEST", Status: "SUCCEEDED", Counts: map[string]int{}}
	for _, f := range files {
		if err := rep.addFile(f); err != nil {
			rep.Problems = append(rep.Problems, fmt.Sprintf("%s: %v", f.name, err))
		}
	}
	switch {
	case rep.Counts["FAILED"]+rep.Counts["ERROR"] > 0:
		rep.Status = "FAILED"
	case len(rep.Problems) > 0 || rep.Total == 0:
		rep.Status = "INCOMPLETE"
	}
	return rep
}

func (rep *Report) addFile(f found) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	return rep.readJUnit(f.name, io.LimitReader(in, maxReportFile))
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Failure []junitDetail `xml:"failure"`
	Error   []junitDetail `xml:"error"`
	Skipped []junitDetail `xml:"skipped"`
}

type junitDetail struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// readJUnit streams a file: suites may be nested and large.
func (rep *Report) readJUnit(name string, in io.Reader) error {
	d := xml.NewDecoder(in)
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // names differ, text is UTF-8 in practice
	var suites []string
	known := false
	for {
		tok, err := d.Token()
		if err == io.EOF {
			if !known {
				return errors.New("it is not a JUnit XML file")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is not well-formed XML: %w", err)
		}
		switch el := tok.(type) {
		case xml.StartElement:
			switch el.Name.Local {
			case "testsuites":
				known = true
			case "testsuite":
				known = true
				suites = append(suites, attr(el, "name"))
			case "testcase":
				var c junitCase
				if err := d.DecodeElement(&c, &el); err != nil {
					return fmt.Errorf("it is not well-formed XML: %w", err)
				}
				rep.addCase(name, suites, c)
			}
		case xml.EndElement:
			if el.Name.Local == "testsuite" && len(suites) > 0 {
				suites = suites[:len(suites)-1]
			}
		}
	}
}

func attr(el xml.StartElement, name string) string {
	for _, a := range el.Attr {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (rep *Report) addCase(file string, suites []string, c junitCase) {
	t := TestCase{File: file, Prefix: c.Class, Name: c.Name, Status: "SUCCEEDED"}
	if t.Prefix == "" && len(suites) > 0 {
		t.Prefix = suites[len(suites)-1]
	}
	var detail []junitDetail
	switch {
	case len(c.Error) > 0:
		t.Status, detail = "ERROR", c.Error
	case len(c.Failure) > 0:
		t.Status, detail = "FAILED", c.Failure
	case len(c.Skipped) > 0:
		t.Status, detail = "SKIPPED", c.Skipped
	}
	if len(detail) > 0 {
		t.Message = strings.TrimSpace(strings.TrimSpace(detail[0].Message) + "\n" + strings.TrimSpace(detail[0].Text))
		if r := []rune(t.Message); len(r) > maxMessage {
			t.Message = string(r[:maxMessage])
		}
	}
	if s, err := strconv.ParseFloat(strings.ReplaceAll(c.Time, ",", ""), 64); err == nil && s >= 0 && s < 1e6 {
		t.DurationNs = int64(s * 1e9)
	}
	rep.Total++
	rep.Counts[t.Status]++
	rep.DurationNs += t.DurationNs
	if len(rep.Cases) < maxCases {
		rep.Cases = append(rep.Cases, t)
	}
}
