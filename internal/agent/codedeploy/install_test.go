package codedeploy

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/spec/appspec"
)

// fixture is an installer over temporary directories.
type fixture struct {
	t         *testing.T
	dir, dest string
}

func newFixture(t *testing.T, files ...string) *fixture {
	f := &fixture{t: t, dir: t.TempDir()}
	f.dest = filepath.Join(f.dir, "dest")
	f.files("archive", files...)
	return f
}

// files writes files named by their path, with their path as content.
func (f *fixture) files(under string, names ...string) {
	f.t.Helper()
	for _, n := range names {
		p := filepath.Join(f.dir, under, n)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			f.t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(under+"/"+n), 0o644); err != nil {
			f.t.Fatal(err)
		}
	}
}

func (f *fixture) install(behavior, spec string) error {
	f.t.Helper()
	s, err := appspec.Parse("appspec.yml", []byte("version: 0.0\nos: linux\n"+strings.ReplaceAll(spec, "DEST", f.dest)))
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(f.dir, "ins"), 0o755); err != nil {
		f.t.Fatal(err)
	}
	in := &installer{archive: filepath.Join(f.dir, "archive"), behavior: behavior,
		cleanupFile: filepath.Join(f.dir, "ins/g-cleanup"), instructionsFile: filepath.Join(f.dir, "ins/g-install.json")}
	return in.run(s)
}

// tree lists what is under the destination.
func (f *fixture) tree() string {
	var out []string
	filepath.Walk(f.dest, func(p string, st os.FileInfo, err error) error {
		if err == nil && p != f.dest {
			rel, _ := filepath.Rel(f.dest, p)
			out = append(out, rel)
		}
		return nil
	})
	return strings.Join(out, " ")
}

func TestMappings(t *testing.T) {
	const all = "files:\n  - source: /\n    destination: DEST\n"
	tests := []struct {
		name, spec, want, err string
	}{
		{"everything", all, "a.txt sub sub/b.txt", ""},
		{"directory's contents", "files:\n  - source: sub\n    destination: DEST/x/y\n", "x x/y x/y/b.txt", ""},
		{"file", "files:\n  - source: sub/b.txt\n    destination: DEST\n", "b.txt", ""},
		{"missing", "files:\n  - source: nope\n    destination: DEST\n", "", "appspec.yml:4:5: files[0]: the source \"nope\" is not in the bundle"},
		{"escape", "files:\n  - source: ../ins\n    destination: DEST\n", "", "leaves the bundle"},
		{"twice", "files:\n  - source: a.txt\n    destination: DEST\n  - source: a.txt\n    destination: DEST\n", "", "for the same destination"},
		{"file and directory", "files:\n  - source: a.txt\n    destination: DEST\n  - source: sub\n    destination: DEST/a.txt\n", "", "both a file and a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, "a.txt", "sub/b.txt")
			err := f.install("DISALLOW", tt.spec)
			if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Fatalf("got %v, want %q", err, tt.err)
			}
			if got := f.tree(); got != tt.want {
				t.Errorf("installed %q, want %q", got, tt.want)
			}
		})
	}
}

func TestExistingFiles(t *testing.T) {
	const all = "files:\n  - source: /\n    destination: DEST\n"
	tests := []struct{ behavior, content, err string }{
		{"DISALLOW", "dest/a.txt", "The deployment failed because a specified file already exists at this location: "},
		{"OVERWRITE", "archive/a.txt", ""},
		{"RETAIN", "dest/a.txt", ""},
	}
	for _, tt := range tests {
		t.Run(tt.behavior, func(t *testing.T) {
			f := newFixture(t, "a.txt", "b.txt")
			f.files("dest", "a.txt")
			err := f.install(tt.behavior, all)
			if (err == nil) != (tt.err == "") || err != nil && !strings.HasPrefix(err.Error(), tt.err) {
				t.Fatalf("got %v", err)
			}
			if got := read(t, f.dest+"/a.txt"); got != tt.content {
				t.Errorf("a.txt is %q", got)
			}
			if _, err := os.Stat(f.dest + "/b.txt"); (err == nil) != (tt.err == "") {
				t.Error("a conflict must be found before anything is written")
			}
		})
	}
	t.Run("link is replaced and not followed", func(t *testing.T) {
		f := newFixture(t, "a.txt")
		f.files("victim", "v")
		os.MkdirAll(f.dest, 0o755)
		os.Symlink(f.dir+"/victim/v", f.dest+"/a.txt")
		if err := f.install("OVERWRITE", all); err != nil {
			t.Fatal(err)
		}
		if read(t, f.dir+"/victim/v") != "victim/v" || read(t, f.dest+"/a.txt") != "archive/a.txt" {
			t.Error("the link was followed")
		}
	})
	t.Run("directory in the way", func(t *testing.T) {
		f := newFixture(t, "a.txt")
		f.files("dest", "a.txt/inner")
		if err := f.install("OVERWRITE", all); err == nil || !strings.Contains(err.Error(), "a directory exists") {
			t.Error(err)
		}
	})
}

func TestCleanup(t *testing.T) {
	const all = "files:\n  - source: /\n    destination: DEST\n"
	f := newFixture(t, "old.txt", "both.txt", "gone/only.txt", "shared/x")
	if err := f.install("DISALLOW", all); err != nil {
		t.Fatal(err)
	}
	f.files("dest", "shared/made-by-a-script")
	os.RemoveAll(f.dir + "/archive")
	f.files("archive", "new.txt", "both.txt")
	if err := f.install("DISALLOW", all); err != nil {
		t.Fatal(err)
	}
	if got := f.tree(); got != "both.txt new.txt shared shared/made-by-a-script" {
		t.Errorf("left %q", got)
	}
	// The last line was cut by a crash: it does not count.
	os.WriteFile(f.dir+"/ins/g-cleanup", []byte(f.dest+"/new.txt\n"+f.dest+"/both.txt"), 0o644)
	os.RemoveAll(f.dir + "/archive/new.txt")
	if err := f.install("DISALLOW", all); err == nil || !strings.Contains(err.Error(), "both.txt") {
		t.Errorf("got %v", err)
	}
}

func TestPermissions(t *testing.T) {
	f := newFixture(t, "a.sh", "a.txt", "sub/b.sh", "sub/keep.sh")
	f.files("dest", "old.sh")
	err := f.install("DISALLOW", `
files:
  - source: /
    destination: DEST
permissions:
  - object: DEST
    pattern: "*.sh"
    mode: 700
    type: [file]
  - object: DEST/sub
    pattern: "**"
    except: [keep.sh]
    mode: "0640"
    type: [file]
  - object: DEST/sub
    mode: 750
    type: [directory]
  - object: DEST/a.txt
    mode: 4755
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"a.sh": 0o700, "old.sh": 0o644, "sub/b.sh": 0o640, "sub/keep.sh": 0o644,
		"sub": os.ModeDir | 0o750, "a.txt": os.ModeSetuid | 0o755} {
		if st, err := os.Stat(f.dest + "/" + name); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, want %v", name, st.Mode(), want)
		}
	}
	for spec, want := range map[string]string{
		"pattern: '*.x'":                    "a.txt is a file: pattern applies to directories",
		"except: [x]":                       "a.txt is a file: except applies to directories",
		"acls: ['d:user:root:rw']":          "default access control entries",
		"owner: nosuchuser":                 `there is no user "nosuchuser"`,
		"group: nosuchgroup":                `there is no group "nosuchgroup"`,
		"context: {type: httpd_t, user: u}": "needs semanage, which is not installed",
	} {
		f := newFixture(t, "a.txt")
		err := f.install("DISALLOW", "files:\n  - source: /\n    destination: DEST\npermissions:\n  - object: DEST/a.txt\n    "+spec+"\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", spec, err)
		}
	}
}

func TestOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: files are given to another user")
	}
	f := newFixture(t, "a.txt")
	os.Symlink("/etc/hostname", f.dir+"/archive/link")
	if err := f.install("DISALLOW", "files:\n  - source: /\n    destination: DEST\npermissions:\n  - object: DEST\n    owner: nobody\n    mode: 600\n"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"/a.txt", "/link", ""} {
		st, err := os.Lstat(f.dest + n)
		if err != nil || owner(st) == 0 {
			t.Errorf("%s still belongs to root (%v)", n, err)
		}
	}
	if st, err := os.Stat("/etc/hostname"); err == nil && (owner(st) != 0 || st.Mode().Perm() == 0o600) {
		t.Error("a permission followed a link out")
	}
}

func TestPrune(t *testing.T) {
	root := t.TempDir()
	l := layout{root}
	x := newExecutor(Config{MaxRevisions: 3}, l)
	s := &specification{DeploymentGroupId: "g", DeploymentId: "d-5"}
	for _, d := range []string{"d-1", "d-2", "d-3", "d-4"} {
		os.MkdirAll(filepath.Join(root, "g", d), 0o755)
	}
	if err := replaceFile(l.lastSuccessful("g"), []byte(filepath.Join(root, "g", "d-1")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := x.pruneRevisions(s); err != nil {
		t.Fatal(err)
	}
	left, _ := os.ReadDir(filepath.Join(root, "g"))
	if len(left) != 2 || left[0].Name() != "d-1" {
		t.Errorf("left %v", left)
	}
}
