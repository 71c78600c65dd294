package buildspec

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"slipway/internal/spec/yamlpos"
)

// Phases that a buildspec may have, in the order in which they run.
var phaseNames = []string{"install", "pre_build", "build", "post_build"}

// Phase is one of the phases.
type Phase struct {
	Name            string // install, pre_build, build, post_build
	RunAs           string
	OnFailure       OnFailure
	Commands        []Command
	Finally         []Command
	RuntimeVersions []Var
}

// Command is one command; it may have several lines.
type Command struct {
	Text string
	Line int // where it stands in the file
}

// Actions of OnFailure.
const (
	Abort    = "ABORT"
	Continue = "CONTINUE"
	Retry    = "RETRY"
)

// OnFailure says what follows a failed phase; the zero value is CodeBuild's default order of phases.
type OnFailure struct {
	Action string
	Count  int            // retries
	Match  *regexp.Regexp // retry only errors that match; nil matches all
}

// Phase returns the phase of that name, or an empty one.
func (s *Spec) Phase(name string) Phase {
	for _, p := range s.Phases {
		if p.Name == name {
			return p
		}
	}
	return Phase{Name: name}
}

func (s *Spec) phases(v yamlpos.Value) error {
	pairs, err := v.Map()
	if err != nil {
		return err
	}
	if len(pairs) == 0 {
		return v.Errorf("must name at least one phase")
	}
	for _, p := range pairs {
		if !slices.Contains(phaseNames, p.Key) {
			return p.At.Errorf("%q is not a phase; the phases are install, pre_build, build and post_build", p.Key).
				Hinted(yamlpos.Suggest(p.Key, phaseNames...))
		}
		ph, err := s.phase(p)
		if err != nil {
			return err
		}
		s.Phases = append(s.Phases, ph)
	}
	slices.SortStableFunc(s.Phases, func(a, b Phase) int {
		return slices.Index(phaseNames, a.Name) - slices.Index(phaseNames, b.Name)
	})
	return nil
}

func (s *Spec) phase(p yamlpos.Pair) (Phase, error) {
	ph := Phase{Name: p.Key}
	if p.Value.Null() {
		return ph, nil
	}
	known := []string{"run-as", "on-failure", "commands", "finally"}
	if p.Key == "install" {
		known = append(known, "runtime-versions")
	}
	f, err := s.fields(p.Value, known...)
	if err != nil {
		return ph, err
	}
	onFailure := ""
	if err := s.texts(f, map[string]*string{"run-as": &ph.RunAs, "on-failure": &onFailure}); err != nil {
		return ph, err
	}
	if onFailure != "" {
		if ph.OnFailure, err = parseOnFailure(f["on-failure"], onFailure); err != nil {
			return ph, err
		}
	}
	for key, dst := range map[string]*[]Command{"commands": &ph.Commands, "finally": &ph.Finally} {
		if c := f[key]; !c.Null() {
			if *dst, err = commands(c); err != nil {
				return ph, err
			}
		}
	}
	if r := f["runtime-versions"]; !r.Null() {
		if ph.RuntimeVersions, err = s.vars(r); err != nil {
			return ph, err
		}
		if len(ph.RuntimeVersions) == 0 {
			return ph, r.Errorf("must name at least one runtime")
		}
	}
	return ph, nil
}

func commands(v yamlpos.Value) ([]Command, error) {
	if v.IsScalar() {
		t, err := v.Text()
		return []Command{{Text: t, Line: v.Line()}}, err
	}
	items, err := v.List()
	if err != nil {
		return nil, err
	}
	out := make([]Command, 0, len(items))
	for _, it := range items {
		if it.IsMap() {
			return nil, it.Errorf("a command must be text, but is a mapping").
				Hinted(`YAML takes a colon followed by a space for a key; put the command in quotes or in a block: - |`)
		}
		t, err := it.Text()
		if err != nil {
			return nil, err
		}
		if strings.ContainsRune(t, 0) {
			return nil, it.Errorf("a command must not contain a NUL character")
		}
		out = append(out, Command{Text: t, Line: it.Line()})
	}
	return out, nil
}

// parseOnFailure reads ABORT, CONTINUE, RETRY, RETRY-count, RETRY-regex and RETRY-count-regex.
func parseOnFailure(v yamlpos.Value, text string) (OnFailure, error) {
	if text == Abort || text == Continue {
		return OnFailure{Action: text}, nil
	}
	rest, ok := strings.CutPrefix(text, Retry)
	if !ok || rest != "" && rest[0] != '-' {
		return OnFailure{}, v.Errorf("must be ABORT, CONTINUE or RETRY, but is %q", text).Hinted(yamlpos.Suggest(text, Abort, Continue, Retry))
	}
	o := OnFailure{Action: Retry, Count: 3}
	rest = strings.TrimPrefix(rest, "-")
	if number, regex, more := strings.Cut(rest, "-"); rest != "" {
		if n, err := strconv.Atoi(number); err == nil {
			if n < 0 || n > 100 {
				return o, v.Errorf("the number of retries must be from 0 to 100, but is %d", n)
			}
			o.Count, rest = n, ""
			if more {
				rest = regex
			}
		}
	}
	if rest != "" {
		re, err := regexp.Compile(rest)
		if err != nil {
			return o, v.Errorf("%q is not a regular expression: %v", rest, err)
		}
		o.Match = re
	}
	return o, nil
}
