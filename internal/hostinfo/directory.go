package hostinfo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// LogFile is where a server in the background writes, in its data directory.
const LogFile = "server.log"

// ErrForeign says that a directory is somebody else's: it must neither be
// filled nor removed.
var ErrForeign = errors.New("is not empty and holds no data of Slipway")

// Claim tells whether a directory may be used for data: one that is absent or
// empty (then fresh is true), or one where a server was before. Anything else
// is refused, so that a mistyped --data-dir costs nobody a directory.
func Claim(dir string) (fresh bool, err error) {
	es, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case errors.Is(err, syscall.ENOTDIR):
		return false, fmt.Errorf("%s is no directory; give one for the data with --data-dir", dir)
	case err != nil:
		return false, Explain(dir, err)
	}
	fresh = true
	for _, e := range es {
		switch e.Name() {
		case credentialsFile, runningFile, "state.db":
			return false, nil
		case "lock", LogFile, "lost+found":
		default:
			fresh = false
		}
	}
	if !fresh {
		return false, fmt.Errorf("%s %w; give a directory of its own with --data-dir", dir, ErrForeign)
	}
	return true, nil
}

// Discard gives back what a server that did not start has put into a fresh
// directory; the log stays for whoever reads it.
func Discard(dir string) error {
	es, err := os.ReadDir(dir)
	if err != nil {
		return nil // never made
	}
	kept := false
	for _, e := range es {
		if e.Name() == LogFile || e.Name() == "lost+found" {
			kept = true
		} else if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if kept {
		return nil
	}
	return os.Remove(dir)
}

// Explain adds to an error about the data directory what can be done about it.
func Explain(dir string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the data directory %s belongs to another user (%w): run this as root, or give another with --data-dir", dir, err)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("the data directory %s is on a read-only file system (%w): give another with --data-dir", dir, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("no space left on the disk that holds the data directory %s (%w): make room, or give another with --data-dir", dir, err)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("the data directory %s cannot be made (%w): give another with --data-dir", dir, err)
	}
	return err
}

// Free is how many bytes a program of root's can still write to the disk that
// holds dir; ok is false if that is not known.
func Free(dir string) (bytes uint64, ok bool) {
	var st syscall.Statfs_t
	if syscall.Statfs(dir, &st) != nil || st.Blocks == 0 {
		return 0, false
	}
	return st.Bfree * uint64(st.Bsize), true
}
