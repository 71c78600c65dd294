package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A directory is pushed when it changed, and never over the commits of others.
func TestPushOfADirectoryUndoesNothing(t *testing.T) {
	tmp := t.TempDir()
	bare := filepath.Join(tmp, "repo.git")
	run := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=dev", "GIT_AUTHOR_EMAIL=dev@example.com", "GIT_COMMITTER_NAME=dev", "GIT_COMMITTER_EMAIL=dev@example.com")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run(tmp, "init", "-q", "--bare", "-b", "main", bare)
	app := dir(t, "app", map[string]string{"a.txt": "one"})
	s := &session{endpoint: "http://127.0.0.1:1", dataDir: tmp}
	push := func(wantPushed bool, wantErr string) {
		t.Helper()
		pushed, err := s.push(t.Context(), app, bare, "main")
		if wantErr != "" {
			if err == nil || !strings.Contains(err.Error(), wantErr) {
				t.Fatalf("error %v, want one that says %q", err, wantErr)
			}
			return
		}
		if err != nil || pushed != wantPushed {
			t.Fatalf("pushed %v, error %v; want %v", pushed, err, wantPushed)
		}
	}
	change := func(text string) {
		if err := os.WriteFile(filepath.Join(app, "a.txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	push(true, "")
	push(false, "")
	change("two")
	push(true, "")
	clone := filepath.Join(tmp, "clone")
	run(tmp, "clone", "-q", bare, clone)
	if err := os.WriteFile(filepath.Join(clone, "b.txt"), []byte("theirs"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(clone, "add", "-A")
	run(clone, "commit", "-q", "-m", "theirs")
	run(clone, "push", "-q", "origin", "HEAD:main")
	theirs := run(bare, "rev-parse", "main")
	push(false, "") // the directory is as it was: theirs is newer
	change("three")
	push(false, "would undo them")
	if now := run(bare, "rev-parse", "main"); now != theirs {
		t.Errorf("main moved from %s to %s", theirs, now)
	}
}
