package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

type entry struct {
	name, body, link string
	mode             fs.FileMode
	hard             bool
}

func makeZip(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if e.link != "" {
			e.mode, e.body = e.mode|fs.ModeSymlink|0o777, e.link
		}
		h.SetMode(e.mode)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(e.body))
	}
	z.Close()
	return b.Bytes()
}

func makeTar(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: int64(e.mode.Perm()), Size: int64(len(e.body)), Typeflag: tar.TypeReg}
		switch {
		case e.hard:
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, e.link, 0
		case e.link != "":
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, e.link, 0
		case e.mode.IsDir():
			h.Typeflag, h.Size = tar.TypeDir, 0
		case e.mode&fs.ModeDevice != 0:
			h.Typeflag = tar.TypeChar
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte(e.body))
		}
	}
	w.Close()
	return b.Bytes()
}

func unpack(t *testing.T, kind string, data []byte, lim Limits) (string, error) {
	t.Helper()
	dir := t.TempDir()
	src := filepath.Join(dir, "bundle")
	if kind == TGZ {
		var b bytes.Buffer
		g := gzip.NewWriter(&b)
		g.Write(data)
		g.Close()
		data = b.Bytes()
	}
	if err := os.WriteFile(src, data, 0o600); err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(dir, "outer", "dst")
	if err := os.MkdirAll(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	err := Unpack(src, kind, dst, lim)
	if outside, _ := os.ReadDir(filepath.Join(dir, "outer")); len(outside) != 1 {
		t.Errorf("something was written outside the destination: %v", outside)
	}
	return dst, err
}

func TestUnpack(t *testing.T) {
	entries := []entry{{name: "dir/", mode: fs.ModeDir | 0o750}, {name: "dir/run.sh", body: "#!", mode: 0o755}, {name: "./plain", body: "p", mode: 0o640},
		{name: "deep/er/f", body: "f", mode: 0o600}, {name: "venv/bin/python", link: "/usr/bin/python3"}, {name: "up", link: "dir/run.sh"}, {name: "plain", body: "again", mode: 0o644}}
	for kind, data := range map[string][]byte{Zip: makeZip(t, entries), Tar: makeTar(t, entries), TGZ: makeTar(t, entries)} {
		t.Run(kind, func(t *testing.T) {
			dst, err := unpack(t, kind, data, DefaultLimits)
			if err != nil {
				t.Fatal(err)
			}
			for name, mode := range map[string]fs.FileMode{"dir": fs.ModeDir | 0o750, "dir/run.sh": 0o755, "plain": 0o644, "deep/er/f": 0o600} {
				if st, err := os.Stat(filepath.Join(dst, name)); err != nil || st.Mode() != mode {
					t.Errorf("%s: %v %v", name, st, err)
				}
			}
			if b, _ := os.ReadFile(filepath.Join(dst, "plain")); string(b) != "again" {
				t.Errorf("plain is %q", b)
			}
			if l, _ := os.Readlink(filepath.Join(dst, "venv/bin/python")); l != "/usr/bin/python3" {
				t.Errorf("link %q", l)
			}
		})
	}
}

func TestHostile(t *testing.T) {
	small := Limits{Bytes: 1 << 20, Entries: 10, Ratio: 10, Free: 100 << 10}
	many := make([]entry, 11)
	for i := range many {
		many[i] = entry{name: string(rune('a' + i)), mode: 0o644}
	}
	tests := []struct {
		name    string
		kinds   []string
		entries []entry
	}{
		{"parent", []string{Zip, Tar}, []entry{{name: "../evil", body: "x", mode: 0o644}}},
		{"parent inside", []string{Zip, Tar}, []entry{{name: "a/../../evil", body: "x", mode: 0o644}}},
		{"back slashes", []string{Zip}, []entry{{name: `..\evil`, body: "x", mode: 0o644}}},
		{"absolute", []string{Zip, Tar}, []entry{{name: "/tmp/evil", body: "x", mode: 0o644}}},
		{"through a link's link", []string{Zip, Tar}, []entry{{name: "l", link: ".."}, {name: "l/evil", link: "x"}}},
		{"hard link out", []string{Tar}, []entry{{name: "h", link: "../../bundle", hard: true}}},
		{"hard link absolute", []string{Tar}, []entry{{name: "h", link: "/etc/passwd", hard: true}}},
		{"device", []string{Tar}, []entry{{name: "d", mode: fs.ModeDevice | fs.ModeCharDevice | 0o666}}},
		{"too many", []string{Zip, Tar}, many},
		{"too large", []string{Tar}, []entry{{name: "big", body: string(make([]byte, 1<<20+1)), mode: 0o644}}},
		{"ratio", []string{Zip, TGZ}, []entry{{name: "bomb", body: string(make([]byte, 900<<10)), mode: 0o644}}},
	}
	for _, tt := range tests {
		for _, kind := range tt.kinds {
			t.Run(tt.name+" "+kind, func(t *testing.T) {
				data := makeTar(t, tt.entries)
				if kind == Zip {
					data = makeZip(t, tt.entries)
				}
				if _, err := unpack(t, kind, data, small); !errors.Is(err, ErrRefused) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
	for _, kind := range []string{Zip, Tar, TGZ, "rar"} {
		if _, err := unpack(t, kind, []byte("this is no archive at all, whatever it is called"), small); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// TestLinksAreMadeLast has a file below what is also a link: the file goes into a directory of the archive,
// never to where the link points.
func TestLinksAreMadeLast(t *testing.T) {
	victim := t.TempDir()
	entries := []entry{{name: "l", link: victim}, {name: "l/file", body: "x", mode: 0o644}}
	for _, kind := range []string{Zip, Tar} {
		data := makeTar(t, entries)
		if kind == Zip {
			data = makeZip(t, entries)
		}
		unpack(t, kind, data, DefaultLimits) // whether it is refused or not does not matter here
		if left, _ := os.ReadDir(victim); len(left) != 0 {
			t.Errorf("%s: written through a link", kind)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add("zip", []byte("PK\x05\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Add("tar", make([]byte, 1024))
	f.Fuzz(func(t *testing.T, kind string, data []byte) {
		unpack(t, kind, data, Limits{Bytes: 1 << 20, Entries: 50, Ratio: 100, Free: 1 << 16})
	})
}
