package git

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// object writes an object and returns its id.
func object(t *testing.T, r *Repo, kind string, content []byte) string {
	t.Helper()
	cmd := command(t.Context(), "--git-dir", r.Dir, "hash-object", "-w", "-t", kind, "--stdin")
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	return strings.TrimSpace(string(out))
}

// tree makes a tree whose n entries are all the same object.
func tree(t *testing.T, r *Repo, mode, kind, id string, n int) string {
	t.Helper()
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, "%s %s %s\tentry%04d\n", mode, kind, id, i)
	}
	cmd := command(t.Context(), "--git-dir", r.Dir, "mktree")
	cmd.Stdin = strings.NewReader(lines.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("mktree: %v", err)
	}
	return strings.TrimSpace(string(out))
}

func commitOf(t *testing.T, r *Repo, tree string) string {
	t.Helper()
	return object(t, r, "commit", []byte("tree "+tree+"\nauthor A <a@example.invalid> 1 +0000\ncommitter A <a@example.invalid> 1 +0000\n\nbomb\n"))
}

// A few kilobytes that name a billion files, or unpack to terabytes, cost
// neither memory nor time: they are refused.
func TestBombsAreRefused(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	r, err := Init(t.Context(), filepath.Join(t.TempDir(), "r.git"))
	if err != nil {
		t.Fatal(err)
	}
	names := object(t, r, "blob", []byte("x"))
	names = tree(t, r, "100644", "blob", names, 1000)
	for range 2 {
		names = tree(t, r, "040000", "tree", names, 1000)
	}
	size := object(t, r, "blob", make([]byte, 16<<20))
	size = tree(t, r, "100644", "blob", size, 1000)
	for name, id := range map[string]string{"names": commitOf(t, r, names), "size": commitOf(t, r, size)} {
		if err := r.Archive(t.Context(), id, io.Discard); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a program says is bounded however it is copied.
func TestLimitsHoldForCopies(t *testing.T) {
	var l limited
	if _, err := io.Copy(&l, io.LimitReader(zeros{}, 8<<20)); err != nil || len(l.Bytes()) != 1<<20 {
		t.Errorf("%d bytes, %v", len(l.Bytes()), err)
	}
	a := answer{room: 1 << 20}
	if _, err := io.Copy(&a, io.LimitReader(zeros{}, 8<<20)); !errors.Is(err, ErrTooLarge) || a.buf.Len() > 1<<20 {
		t.Errorf("%d bytes, %v", a.buf.Len(), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
