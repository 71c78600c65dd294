// Package buildspec parses CodeBuild's build specification, versions 0.1 and 0.2. Every error carries file,
// line, column and field, and is what a build shows as YAML_FILE_ERROR. Source: CodeBuild User Guide,
// "Build specification reference".
package buildspec

import (
	"slices"
	"strings"

	"slipway/internal/spec/yamlpos"
)

// Spec is a parsed buildspec.
type Spec struct {
	Version            string // 0.1 (a new shell for each command) or 0.2
	RunAs              string
	Env                Env
	Phases             []Phase // those present, in the order in which they run
	Reports            []Report
	Artifacts          *Artifacts
	SecondaryArtifacts map[string]*Artifacts
	Cache              Cache
	HasBatch           bool // batch builds are recognised here and refused by whoever runs the spec
	Warnings           []*yamlpos.Error
}

// Var is a named value; lists of them keep the order of the file.
type Var struct{ Name, Value string }

// Env is the env section.
type Env struct {
	Shell          string // "" (sh), bash, /bin/sh
	Variables      []Var  // literal text, not expanded
	ParameterStore []Var  // value: name of the parameter
	SecretsManager []Var  // value: id[:json-key[:version-stage[:version-id]]]
	Exported       []string
	GitHelper      bool
}

// Artifacts is one artifact block.
type Artifacts struct {
	Files          []string
	Name           string
	DiscardPaths   bool
	BaseDirectory  string
	ExcludePaths   []string
	EnableSymlinks bool
	S3Prefix       string
}

// Report is one entry of the reports section.
type Report struct {
	Group         string
	Files         []string
	Format        string // upper case; default JUNITXML
	BaseDirectory string
	DiscardPaths  bool
}

// Cache is the cache section.
type Cache struct {
	Paths        []string
	Key          string
	FallbackKeys []string
	Action       string // "", restore or save
}

var formats = []string{"JUNITXML", "CUCUMBERJSON", "NUNITXML", "NUNIT3XML", "TESTNGXML", "VISUALSTUDIOTRX",
	"CLOVERXML", "COBERTURAXML", "JACOCOXML", "SIMPLECOV"}

var sections = []string{"version", "run-as", "env", "proxy", "batch", "phases", "reports", "artifacts", "cache"}

// Parse reads a buildspec. file is the name used in errors; every error is a *yamlpos.Error.
func Parse(file string, data []byte) (*Spec, error) {
	root, err := yamlpos.Parse(file, data, yamlpos.Options{Aliases: true})
	if err != nil {
		return nil, err
	}
	s := &Spec{SecondaryArtifacts: map[string]*Artifacts{}}
	f, err := s.fields(root, sections...)
	if err != nil {
		return nil, err
	}
	if f["version"].Null() {
		return nil, root.Errorf("the required key %q is missing", "version").Hinted("write: version: 0.2")
	}
	if s.Version, err = f["version"].Text(); err != nil {
		return nil, err
	}
	if s.Version != "0.1" && s.Version != "0.2" {
		return nil, f["version"].Errorf("must be 0.2 or 0.1, but is %s", s.Version)
	}
	if err := s.texts(f, map[string]*string{"run-as": &s.RunAs}); err != nil {
		return nil, err
	}
	s.HasBatch = !f["batch"].Null()
	if f["phases"].Null() && !s.HasBatch {
		return nil, root.Errorf("the required key %q is missing", "phases")
	}
	for _, part := range []struct {
		key   string
		parse func(yamlpos.Value) error
	}{{"env", s.env}, {"phases", s.phases}, {"reports", s.reports}, {"artifacts", s.artifacts}, {"cache", s.cache}} {
		if v := f[part.key]; !v.Null() {
			if err := part.parse(v); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// fields reads a mapping; unknown keys are ignored with a warning, as they have no effect in AWS.
func (s *Spec) fields(v yamlpos.Value, known ...string) (map[string]yamlpos.Value, error) {
	pairs, err := v.Map()
	if err != nil {
		return nil, err
	}
	out := make(map[string]yamlpos.Value, len(pairs))
	for _, p := range pairs {
		if slices.Contains(known, p.Key) {
			out[p.Key] = p.Value
			continue
		}
		s.Warnings = append(s.Warnings, p.At.Errorf("this key is unknown and is ignored").Hinted(yamlpos.Suggest(p.Key, known...)))
	}
	return out, nil
}

func (s *Spec) texts(f map[string]yamlpos.Value, into map[string]*string) error {
	for key, dst := range into {
		if v := f[key]; !v.Null() {
			t, err := v.Text()
			if err != nil {
				return err
			}
			*dst = t
		}
	}
	return nil
}

func (s *Spec) lists(f map[string]yamlpos.Value, into map[string]*[]string) error {
	for key, dst := range into {
		if v := f[key]; !v.Null() {
			t, err := v.Texts(true)
			if err != nil {
				return err
			}
			*dst = t
		}
	}
	return nil
}

func (s *Spec) bools(f map[string]yamlpos.Value, into map[string]*bool) error {
	for key, dst := range into {
		if v := f[key]; !v.Null() {
			b, err := v.Bool()
			if err != nil {
				return err
			}
			*dst = b
		}
	}
	return nil
}

func (s *Spec) env(v yamlpos.Value) error {
	f, err := s.fields(v, "shell", "variables", "parameter-store", "secrets-manager", "exported-variables", "git-credential-helper")
	if err != nil {
		return err
	}
	e := &s.Env
	if err := s.texts(f, map[string]*string{"shell": &e.Shell}); err != nil {
		return err
	}
	if !slices.Contains([]string{"", "bash", "/bin/sh", "sh"}, e.Shell) {
		return f["shell"].Errorf("must be bash or /bin/sh on Linux, but is %q", e.Shell).Hinted(yamlpos.Suggest(e.Shell, "bash", "/bin/sh"))
	}
	for key, dst := range map[string]*[]Var{"variables": &e.Variables, "parameter-store": &e.ParameterStore, "secrets-manager": &e.SecretsManager} {
		if v := f[key]; !v.Null() {
			if *dst, err = s.vars(v); err != nil {
				return err
			}
		}
	}
	if err := s.lists(f, map[string]*[]string{"exported-variables": &e.Exported}); err != nil {
		return err
	}
	if len(e.Exported) > 0 && s.Version == "0.1" {
		return f["exported-variables"].Errorf("needs version 0.2")
	}
	for _, n := range e.Exported {
		if strings.HasPrefix(n, "AWS_") {
			return f["exported-variables"].Errorf("%s: names that start with AWS_ cannot be exported", n)
		}
	}
	return s.bools(f, map[string]*bool{"git-credential-helper": &e.GitHelper})
}

func (s *Spec) vars(v yamlpos.Value) ([]Var, error) {
	pairs, err := v.Map()
	if err != nil {
		return nil, err
	}
	out := make([]Var, 0, len(pairs))
	for _, p := range pairs {
		text := ""
		if !p.Value.Null() {
			if text, err = p.Value.Text(); err != nil {
				return nil, err
			}
		}
		if p.Key == "" || strings.ContainsAny(p.Key, "=\x00\n") {
			return nil, p.At.Errorf("%q cannot be the name of an environment variable", p.Key)
		}
		if strings.HasPrefix(p.Key, "CODEBUILD_") {
			s.Warnings = append(s.Warnings, p.At.Errorf("names that start with CODEBUILD_ are reserved"))
		}
		out = append(out, Var{p.Key, text})
	}
	return out, nil
}

func (s *Spec) artifacts(v yamlpos.Value) error {
	a, secondary, err := s.artifactBlock(v, true)
	if err != nil {
		return err
	}
	s.Artifacts = a
	if secondary.Null() {
		return nil
	}
	pairs, err := secondary.Map()
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if s.SecondaryArtifacts[p.Key], _, err = s.artifactBlock(p.Value, false); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) artifactBlock(v yamlpos.Value, main bool) (*Artifacts, yamlpos.Value, error) {
	known := []string{"files", "name", "discard-paths", "base-directory", "exclude-paths", "enable-symlinks", "s3-prefix"}
	if main {
		known = append(known, "secondary-artifacts")
	}
	f, err := s.fields(v, known...)
	if err != nil {
		return nil, yamlpos.Value{}, err
	}
	a := &Artifacts{}
	if f["files"].Null() {
		return nil, yamlpos.Value{}, v.Errorf("the required key %q is missing", "files")
	}
	if err := s.texts(f, map[string]*string{"name": &a.Name, "base-directory": &a.BaseDirectory, "s3-prefix": &a.S3Prefix}); err != nil {
		return nil, yamlpos.Value{}, err
	}
	if err := s.lists(f, map[string]*[]string{"files": &a.Files, "exclude-paths": &a.ExcludePaths}); err != nil {
		return nil, yamlpos.Value{}, err
	}
	err = s.bools(f, map[string]*bool{"discard-paths": &a.DiscardPaths, "enable-symlinks": &a.EnableSymlinks})
	return a, f["secondary-artifacts"], err
}

func (s *Spec) reports(v yamlpos.Value) error {
	pairs, err := v.Map()
	if err != nil {
		return err
	}
	if len(pairs) > 5 {
		return v.Errorf("has %d report groups; at most 5 are allowed", len(pairs))
	}
	for _, p := range pairs {
		f, err := s.fields(p.Value, "files", "file-format", "base-directory", "discard-paths")
		if err != nil {
			return err
		}
		r := Report{Group: p.Key, Format: "JUNITXML"}
		if f["files"].Null() {
			return p.Value.Errorf("the required key %q is missing", "files")
		}
		if err := s.texts(f, map[string]*string{"file-format": &r.Format, "base-directory": &r.BaseDirectory}); err != nil {
			return err
		}
		if err := s.lists(f, map[string]*[]string{"files": &r.Files}); err != nil {
			return err
		}
		if err := s.bools(f, map[string]*bool{"discard-paths": &r.DiscardPaths}); err != nil {
			return err
		}
		written := r.Format
		if r.Format = strings.ToUpper(written); !slices.Contains(formats, r.Format) {
			return f["file-format"].Errorf("%q is not a report format", written).Hinted(yamlpos.Suggest(written, formats...))
		}
		s.Reports = append(s.Reports, r)
	}
	return nil
}

func (s *Spec) cache(v yamlpos.Value) error {
	f, err := s.fields(v, "paths", "key", "fallback-keys", "action")
	if err != nil {
		return err
	}
	c := &s.Cache
	if err := s.texts(f, map[string]*string{"key": &c.Key, "action": &c.Action}); err != nil {
		return err
	}
	if err := s.lists(f, map[string]*[]string{"paths": &c.Paths, "fallback-keys": &c.FallbackKeys}); err != nil {
		return err
	}
	if len(c.FallbackKeys) > 5 {
		return f["fallback-keys"].Errorf("has %d keys; at most 5 are allowed", len(c.FallbackKeys))
	}
	if !slices.Contains([]string{"", "restore", "save"}, c.Action) {
		return f["action"].Errorf("must be restore or save, but is %q", c.Action).Hinted(yamlpos.Suggest(c.Action, "restore", "save"))
	}
	return nil
}
