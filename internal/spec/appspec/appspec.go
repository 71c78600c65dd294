// Package appspec parses the AppSpec file of an EC2 deployment (appspec.yml). The rules are those of the
// CodeDeploy host agent; where the agent ignores something silently, Spec.Warnings says so instead.
// Source: CodeDeploy User Guide, "AppSpec file structure", and the observed behaviour of the agent.
package appspec

import (
	"slices"
	"strings"

	"slipway/internal/spec/yamlpos"
)

// Values of file_exists_behavior.
const (
	Disallow  = "DISALLOW"
	Overwrite = "OVERWRITE"
	Retain    = "RETAIN"
)

// DefaultTimeout of a hook script, in seconds.
const DefaultTimeout = 3600

// Events are the lifecycle events that may have hook scripts.
var Events = []string{"BeforeBlockTraffic", "AfterBlockTraffic", "ApplicationStop", "BeforeInstall", "AfterInstall",
	"ApplicationStart", "ValidateService", "BeforeAllowTraffic", "AfterAllowTraffic"}

// reserved events exist but take no scripts.
var reserved = []string{"DownloadBundle", "Install", "BlockTraffic", "AllowTraffic", "Start", "End"}

// Spec is a parsed AppSpec file.
type Spec struct {
	OS                 string // linux or windows
	Files              []File
	Permissions        []Permission
	Hooks              map[string][]Script // by event; unknown events included, empty hooks left out
	FileExistsBehavior string              // "" when the file does not say
	Warnings           []*yamlpos.Error    // what an author should look at; nothing of it stops a deployment
	hookAt             map[string]yamlpos.Value
}

// File maps a source inside the bundle to a directory on the host.
type File struct {
	Source      string
	Destination string
	At          yamlpos.Value
}

// Script is one entry of a hook.
type Script struct {
	Location string
	Timeout  int // seconds
	RunAs    string
	Sudo     bool
	At       yamlpos.Value
}

// Parse reads an AppSpec. file is the name used in errors; every error is a *yamlpos.Error.
func Parse(file string, data []byte) (*Spec, error) {
	root, err := yamlpos.Parse(file, data, yamlpos.Options{})
	if err != nil {
		return nil, err
	}
	pairs, err := root.Map()
	if err != nil {
		return nil, err
	}
	s := &Spec{Hooks: map[string][]Script{}, hookAt: map[string]yamlpos.Value{}}
	seen := map[string]bool{}
	for _, p := range pairs {
		seen[p.Key] = true
		if err := s.section(p); err != nil {
			return nil, err
		}
	}
	for _, need := range []string{"version", "os"} {
		if !seen[need] {
			e := root.Errorf("the required key %q is missing", need)
			for _, p := range pairs {
				if h := yamlpos.Suggest(p.Key, need); h != "" {
					return nil, p.At.Errorf("the required key %q is missing", need).Hinted(h)
				}
			}
			return nil, e
		}
	}
	return s, nil
}

func (s *Spec) section(p yamlpos.Pair) error {
	switch p.Key {
	case "version":
		if f, number := p.Value.Float(); !number || f != 0 {
			return p.Value.Errorf("must be the number 0.0, but is %s", p.Value.Kind())
		}
	case "os":
		os, err := p.Value.Text()
		if err != nil {
			return err
		}
		if os != "linux" && os != "windows" {
			return p.Value.Errorf("must be linux or windows, but is %q", os).Hinted(yamlpos.Suggest(os, "linux", "windows"))
		}
		s.OS = os
	case "files":
		return s.files(p.Value)
	case "permissions":
		return s.permissions(p.Value)
	case "hooks":
		return s.hooks(p.Value)
	case "file_exists_behavior":
		v, err := p.Value.Text()
		if err != nil {
			return err
		}
		if !slices.Contains([]string{Disallow, Overwrite, Retain}, v) {
			return p.Value.Errorf("must be DISALLOW, OVERWRITE or RETAIN, but is %q", v).Hinted(yamlpos.Suggest(v, Disallow, Overwrite, Retain))
		}
		s.FileExistsBehavior = v
	default:
		s.warn(p.At.Errorf("this key is unknown and is ignored").Hinted(
			yamlpos.Suggest(p.Key, "version", "os", "files", "permissions", "hooks", "file_exists_behavior")))
	}
	return nil
}

func (s *Spec) warn(e *yamlpos.Error) { s.Warnings = append(s.Warnings, e) }

func (s *Spec) files(v yamlpos.Value) error {
	if v.Null() {
		return nil
	}
	items, err := v.List()
	if err != nil {
		return err
	}
	for _, it := range items {
		f := File{At: it}
		fields, err := s.entry(it, "source", "destination")
		if err != nil {
			return err
		}
		for _, need := range []struct {
			key string
			dst *string
		}{{"source", &f.Source}, {"destination", &f.Destination}} {
			if *need.dst, err = required(it, fields, need.key); err != nil {
				return err
			}
		}
		if !strings.HasPrefix(f.Destination, "/") && s.OS != "windows" {
			return fields["destination"].Errorf("must be an absolute path, but is %q", f.Destination)
		}
		s.Files = append(s.Files, f)
	}
	return nil
}

// entry reads a mapping into its fields and warns about unknown ones.
func (s *Spec) entry(v yamlpos.Value, known ...string) (map[string]yamlpos.Value, error) {
	pairs, err := v.Map()
	if err != nil {
		return nil, err
	}
	out := make(map[string]yamlpos.Value, len(pairs))
	for _, p := range pairs {
		if !slices.Contains(known, p.Key) {
			s.warn(p.At.Errorf("this key is unknown and is ignored").Hinted(yamlpos.Suggest(p.Key, known...)))
			continue
		}
		out[p.Key] = p.Value
	}
	return out, nil
}

func required(in yamlpos.Value, fields map[string]yamlpos.Value, key string) (string, error) {
	v, ok := fields[key]
	if !ok || v.Null() {
		return "", in.Errorf("the required key %q is missing", key)
	}
	t, err := v.Text()
	if err == nil && t == "" {
		return "", v.Errorf("must not be empty")
	}
	return t, err
}

func (s *Spec) hooks(v yamlpos.Value) error {
	if v.Null() {
		return nil
	}
	pairs, err := v.Map()
	if err != nil {
		return err
	}
	for _, p := range pairs {
		if slices.Contains(reserved, p.Key) {
			s.warn(p.At.Errorf("scripts cannot be attached to this event; the hook is ignored"))
		} else if !slices.Contains(Events, p.Key) {
			s.warn(p.At.Errorf("this lifecycle event is unknown; the hook is ignored").Hinted(yamlpos.Suggest(p.Key, Events...)))
		}
		s.hookAt[p.Key] = p.At
		if p.Value.Null() {
			continue
		}
		items, err := p.Value.List()
		if err != nil {
			return err
		}
		for _, it := range items {
			sc, err := s.script(it)
			if err != nil {
				return err
			}
			s.Hooks[p.Key] = append(s.Hooks[p.Key], sc)
		}
	}
	return nil
}

func (s *Spec) script(v yamlpos.Value) (Script, error) {
	sc := Script{Timeout: DefaultTimeout, At: v}
	fields, err := s.entry(v, "location", "timeout", "runas", "sudo")
	if err != nil {
		return sc, err
	}
	if sc.Location, err = required(v, fields, "location"); err != nil {
		return sc, err
	}
	if t, ok := fields["timeout"]; ok && !t.Null() {
		if sc.Timeout, err = t.Int(); err != nil {
			return sc, err
		}
		if sc.Timeout <= 0 {
			return sc, t.Errorf("must be a positive number of seconds, but is %d", sc.Timeout)
		}
		if sc.Timeout > DefaultTimeout {
			s.warn(t.Errorf("an event may take at most %d seconds in all", DefaultTimeout))
		}
	}
	if r, ok := fields["runas"]; ok && !r.Null() {
		if sc.RunAs, err = r.Text(); err != nil {
			return sc, err
		}
	}
	if b, ok := fields["sudo"]; ok && !b.Null() {
		if sc.Sudo, err = b.Bool(); err != nil {
			return sc, err
		}
	}
	return sc, nil
}

// CheckEvents returns an error for the first hook whose event is not among those that the deployment
// specification lists. An empty list allows every name.
func (s *Spec) CheckEvents(allowed []string) error {
	if len(allowed) == 0 {
		return nil
	}
	names := make([]string, 0, len(s.Hooks))
	for n := range s.Hooks {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if !slices.Contains(allowed, n) {
			return s.hookAt[n].Errorf("unknown lifecycle event").Hinted(yamlpos.Suggest(n, allowed...))
		}
	}
	return nil
}
