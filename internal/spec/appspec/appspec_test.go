package appspec

import (
	"strings"
	"testing"
)

const seed = `version: 0.0
os: linux
files:
  - source: /
    destination: /home/ec2-user/app
permissions:
  - object: /home/ec2-user/app
    pattern: "**"
    except: [secret.txt]
    owner: ec2-user
    group: ec2-user
    mode: 755
    type: [file]
    acls: ["user:bob:rw", "default:group::r-x", "mask::rwx"]
hooks:
  ApplicationStop:
  BeforeInstall:
    - location: scripts/stop.sh
      timeout: 30
      runas: root
  ValidateService:
    - location: scripts/validate.sh
    - location: scripts/second.sh
      sudo: true
file_exists_behavior: OVERWRITE
`

func TestParse(t *testing.T) {
	s, err := Parse("appspec.yml", []byte(seed))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Warnings) != 0 {
		t.Errorf("warnings: %v", s.Warnings)
	}
	if s.OS != "linux" || s.FileExistsBehavior != Overwrite || len(s.Files) != 1 || s.Files[0].Destination != "/home/ec2-user/app" {
		t.Errorf("got %+v", s)
	}
	if p := s.Permissions[0]; *p.Mode != 0o755 || p.Owner != "ec2-user" || len(p.ACLs) != 3 || p.Except[0] != "secret.txt" {
		t.Errorf("permission %+v", p)
	}
	if _, there := s.Hooks["ApplicationStop"]; there {
		t.Error("an empty hook was kept")
	}
	if b := s.Hooks["BeforeInstall"]; len(b) != 1 || b[0].Timeout != 30 || b[0].RunAs != "root" {
		t.Errorf("BeforeInstall %+v", b)
	}
	if v := s.Hooks["ValidateService"]; len(v) != 2 || v[0].Timeout != 3600 || !v[1].Sudo {
		t.Errorf("ValidateService %+v", v)
	}
	if err := s.CheckEvents([]string{"BeforeInstall"}); err == nil || !strings.Contains(err.Error(), "appspec.yml:21:3: hooks.ValidateService") {
		t.Errorf("CheckEvents: %v", err)
	}
}

func TestErrors(t *testing.T) {
	const head = "version: 0.0\nos: linux\n"
	tests := []struct{ name, in, want string }{
		{"empty", "", "a.yml:1:1: the file is empty"},
		{"not a mapping", "- a", "a.yml:1:1: must be a mapping, but is a list"},
		{"quoted version", "version: \"0.0\"\nos: linux", "a.yml:1:10: version: must be the number 0.0, but is the text \"0.0\""},
		{"other version", "version: 0.2\nos: linux", "a.yml:1:10: version: must be the number 0.0, but is the number 0.2"},
		{"no version", "os: linux", "the required key \"version\" is missing"},
		{"no os", "version: 0.0", "the required key \"os\" is missing"},
		{"mistyped key", "verison: 0.0\nos: linux", "a.yml:1:1: verison: the required key \"version\" is missing (did you mean \"version\"?)"},
		{"bad os", "version: 0.0\nos: Linux", "a.yml:2:5: os: must be linux or windows, but is \"Linux\" (did you mean \"linux\"?)"},
		{"doubled key", head + "os: linux", "a.yml:3:1: os: the key is given twice, first in line 2"},
		{"files not list", head + "files:\n  source: /", "a.yml:4:3: files: must be a list, but is a mapping"},
		{"no destination", head + "files:\n  - source: /", "a.yml:4:5: files[0]: the required key \"destination\" is missing"},
		{"relative destination", head + "files:\n  - source: /\n    destination: opt", "a.yml:5:18: files[0].destination: must be an absolute path"},
		{"zero timeout", head + "hooks:\n  AfterInstall:\n    - location: a\n      timeout: 0", "a.yml:6:16: hooks.AfterInstall[0].timeout: must be a positive"},
		{"text timeout", head + "hooks:\n  AfterInstall:\n    - location: a\n      timeout: soon", "a.yml:6:16: hooks.AfterInstall[0].timeout: must be an integer"},
		{"no location", head + "hooks:\n  AfterInstall:\n    - timeout: 5", "a.yml:5:7: hooks.AfterInstall[0]: the required key \"location\" is missing"},
		{"behaviour", head + "file_exists_behavior: overwrite", "a.yml:3:23: file_exists_behavior: must be DISALLOW, OVERWRITE or RETAIN, but is \"overwrite\" (did you mean \"OVERWRITE\"?)"},
		{"mode digits", head + "permissions:\n  - object: /a\n    mode: 888", "a.yml:5:11: permissions[0].mode: must be one to four octal digits"},
		{"octal surprise", head + "permissions:\n  - object: /a\n    mode: 0755", "must be one to four octal digits, but is 493 (YAML reads an unquoted leading zero as octal: write \"0755\" in quotes)"},
		{"long mode", head + "permissions:\n  - object: /a\n    mode: \"00755\"", "must be one to four octal digits"},
		{"type", head + "permissions:\n  - object: /a\n    type: [files]", "a.yml:5:11: permissions[0].type: item 0 must be file or directory, but is \"files\" (did you mean \"file\"?)"},
		{"acl", head + "permissions:\n  - object: /a\n    acls: [\"usr:bob:rw\"]", "item 0 starts with \"usr\""},
		{"alias", "version: 0.0\nos: &o linux\nx: *o", "a.yml:3:4: YAML aliases are not supported"},
		{"tab", "version: 0.0\n\tos: linux", "indented with a tab"},
		{"flow", "version: 0.0\nfiles: [", "a.yml:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse("a.yml", []byte(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	s, err := Parse("a.yml", []byte("version: 0.0\nos: linux\nhooks:\n  BeforeInstal:\n    - location: x\n  Install:\n    - location: y\npermissions:\n  - object: /a\n    mode: 0644\n"))
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, w := range s.Warnings {
		all += w.Error() + "\n"
	}
	for _, want := range []string{"a.yml:4:3: hooks.BeforeInstal: this lifecycle event is unknown; the hook is ignored (did you mean \"BeforeInstall\"?)",
		"a.yml:6:3: hooks.Install: scripts cannot be attached", "a.yml:10:11: permissions[0].mode: the mode becomes 420"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in\n%s", want, all)
		}
	}
	if *s.Permissions[0].Mode != 0o420 {
		t.Errorf("mode %o", *s.Permissions[0].Mode)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(seed))
	f.Add([]byte("version: 0.0\nos: linux\nfiles: [{source: a, destination: /b}]"))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("f", data)
		if (s == nil) == (err == nil) {
			t.Fatalf("spec %v with error %v", s, err)
		}
	})
}
