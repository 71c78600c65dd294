package blob_test

import (
	"os"
	"path/filepath"
	"testing"

	"slipway/internal/blob"
	"slipway/internal/blob/blobtest"
)

func TestDir(t *testing.T) {
	blobtest.Run(t, func(t *testing.T) blob.Store {
		d, err := blob.OpenDir(t.TempDir(), true)
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func TestOpenClearsWhatACrashLeft(t *testing.T) {
	root := t.TempDir()
	if _, err := blob.OpenDir(root, true); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(root, "tmp", "put-1")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.OpenDir(root, true); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", left, err)
	}
}
