package hostinfo

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestClaim(t *testing.T) {
	for name, tc := range map[string]struct {
		files          []string
		fresh, foreign bool
	}{
		"empty":            {nil, true, false},
		"only a log":       {[]string{LogFile}, true, false},
		"a mount point":    {[]string{"lost+found", "lock"}, true, false},
		"ours":             {[]string{credentialsFile, "machines"}, false, false},
		"ours with a file": {[]string{"notes.txt", "state.db"}, false, false},
		"a home":           {[]string{"Documents"}, false, true},
	} {
		dir := t.TempDir()
		for _, f := range tc.files {
			if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		fresh, err := Claim(dir)
		if fresh != tc.fresh || errors.Is(err, ErrForeign) != tc.foreign {
			t.Errorf("%s: %v %v", name, fresh, err)
		}
	}
	if fresh, err := Claim(filepath.Join(t.TempDir(), "none")); !fresh || err != nil {
		t.Errorf("absent: %v %v", fresh, err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "below")} {
		if _, err := Claim(dir); err == nil {
			t.Errorf("%s is claimed", dir)
		}
	}
}

func TestDiscardKeepsTheLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "git"), 0o700), os.WriteFile(filepath.Join(dir, LogFile), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Discard(dir); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 || es[0].Name() != LogFile {
		t.Fatalf("%v %v", es, err)
	}
	if err := errors.Join(os.Remove(filepath.Join(dir, LogFile)), Discard(dir), Discard(dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}
