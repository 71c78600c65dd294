package buildspec

import (
	"strings"
	"testing"
)

const seed = `version: 0.2
run-as: root
env:
  shell: bash
  variables:
    GREETING: "hello $USER"
    N: 7
  parameter-store:
    TOKEN: /app/token
  secrets-manager:
    PW: prod/db:password:AWSCURRENT
  exported-variables: [COMMIT]
phases:
  build:
    on-failure: CONTINUE
    commands:
      - pytest
      - |
        if true; then
          echo yes
        fi
    finally:
      - echo done
  install:
    runtime-versions:
      python: 3.9
    commands:
      - pip install -r requirements.txt
reports:
  unit:
    files: ["junit.xml"]
    file-format: JunitXml
artifacts:
  files:
    - app.py
    - scripts/**/*
  discard-paths: no
  secondary-artifacts:
    docs:
      files: ['**/*']
      base-directory: docs
cache:
  paths: ['/root/.cache/pip/**/*']
`

func TestParse(t *testing.T) {
	s, err := Parse("buildspec.yml", []byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) != 0 {
		t.Error(s.Warnings)
	}
	if len(s.Phases) != 2 || s.Phases[0].Name != "install" || s.Phases[0].RuntimeVersions[0] != (Var{"python", "3.9"}) {
		t.Errorf("phases %+v", s.Phases)
	}
	b := s.Phase("build")
	if b.OnFailure.Action != Continue || len(b.Commands) != 2 || b.Commands[1].Text != "if true; then\n  echo yes\nfi\n" || b.Finally[0].Text != "echo done" {
		t.Errorf("build %+v", b)
	}
	if s.Env.Shell != "bash" || s.Env.Variables[0].Value != "hello $USER" || s.Env.Variables[1].Value != "7" || s.Env.Exported[0] != "COMMIT" {
		t.Errorf("env %+v", s.Env)
	}
	if s.Reports[0].Format != "JUNITXML" || s.SecondaryArtifacts["docs"].BaseDirectory != "docs" || s.Artifacts.Files[1] != "scripts/**/*" {
		t.Errorf("%+v %+v", s.Reports, s.Artifacts)
	}
}

func TestErrors(t *testing.T) {
	const head = "version: 0.2\nphases:\n"
	tests := []struct{ name, in, want string }{
		{"no version", "phases: {}", "the required key \"version\" is missing"},
		{"version", "version: 0.3\nphases: {}", "b.yml:1:10: version: must be 0.2 or 0.1, but is 0.3"},
		{"no phases", "version: 0.2\n", "the required key \"phases\" is missing"},
		{"phase name", head + "  postbuild:\n    commands: [a]", "b.yml:3:3: phases.postbuild: \"postbuild\" is not a phase; the phases are install, pre_build, build and post_build (did you mean \"post_build\"?)"},
		{"colon", head + "  build:\n    commands:\n      - echo a: b", "b.yml:5:9: phases.build.commands[0]: a command must be text, but is a mapping"},
		{"null command", head + "  build:\n    commands:\n      -", "b.yml:5:8: phases.build.commands[0]: must be text, but is nothing"},
		{"on-failure", head + "  build:\n    on-failure: RETY", "b.yml:4:17: phases.build.on-failure: must be ABORT, CONTINUE or RETRY"},
		{"retry count", head + "  build:\n    on-failure: RETRY-101", "from 0 to 100"},
		{"retry regex", head + "  build:\n    on-failure: RETRY-2-(", "is not a regular expression"},
		{"shell", "version: 0.2\nenv:\n  shell: zsh\nphases: {build: {}}", "b.yml:3:10: env.shell: must be bash or /bin/sh"},
		{"artifact files", head + "  build:\nartifacts:\n  name: x", "b.yml:5:3: artifacts: the required key \"files\" is missing"},
		{"report format", head + "  build:\nreports:\n  r:\n    files: [a]\n    file-format: JUNIT", "\"JUNIT\" is not a report format (did you mean \"JUNITXML\"?)"},
		{"exported AWS", "version: 0.2\nenv:\n  exported-variables: [AWS_X]\nphases: {build: {}}", "cannot be exported"},
		{"alias loop", "version: 0.2\nphases: &p\n  build: *p", "contains itself"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("b.yml", []byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestOnFailure(t *testing.T) {
	tests := []struct {
		in    string
		count int
		match string
	}{{"RETRY", 3, ""}, {"RETRY-7", 7, ""}, {"RETRY-.*timeout.*", 3, ".*timeout.*"}, {"RETRY-2-a-b", 2, "a-b"}}
	for _, tt := range tests {
		s, err := Parse("b", []byte("version: 0.2\nphases: {build: {on-failure: '"+tt.in+"'}}"))
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		o, match := s.Phases[0].OnFailure, ""
		if o.Match != nil {
			match = o.Match.String()
		}
		if o.Action != Retry || o.Count != tt.count || match != tt.match {
			t.Errorf("%s: %+v", tt.in, o)
		}
	}
}

func TestWarnings(t *testing.T) {
	s, err := Parse("b.yml", []byte("version: 0.2\nphases:\n  build:\n    command: [a]\nartifact: {}\n"))
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, w := range s.Warnings {
		all += w.Error() + "\n"
	}
	if !strings.Contains(all, `b.yml:4:5: phases.build.command: this key is unknown and is ignored (did you mean "commands"?)`) ||
		!strings.Contains(all, `did you mean "artifacts"?`) {
		t.Error(all)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(seed))
	f.Add([]byte("version: 0.1\nphases: {build: {commands: [a, b]}}"))
	f.Add([]byte("version: 0.2\nx: &a {b: *a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("f", data)
		if (s == nil) == (err == nil) {
			t.Fatalf("spec %v with error %v", s, err)
		}
	})
}
