package build

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// The cache works as CodeBuild's local custom cache: each cached directory is a link into CacheDir, so that
// restoring and saving cost nothing and a warm build starts at once. Only directories can be cached; the part
// of a pattern before its first wildcard is the directory.

// protected directories must not become links: the build environment lives there.
var protected = []string{"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root",
	"/run", "/sbin", "/sys", "/tmp", "/usr", "/usr/bin", "/usr/lib", "/usr/local", "/usr/local/bin", "/var", "/var/lib"}

func (r *runner) restoreCache() {
	paths := r.spec.Cache.Paths
	switch {
	case len(paths) == 0:
		r.e.container("Cache is not defined in the buildspec")
		r.e.container("Skip cache due to: no paths specified to be cached")
		return
	case r.job.CacheDir == "":
		r.e.container("Skip cache due to: the project has no cache")
		return
	case r.spec.Cache.Key != "" || len(r.spec.Cache.FallbackKeys) > 0:
		r.e.container("Warning: cache keys are not supported; the cache is used for every build of the project")
	}
	for _, p := range paths {
		dir, err := r.cacheDir(p)
		if err == nil {
			err = r.linkCache(dir)
		}
		if err != nil {
			r.e.container("Skip cache path %s: %v", p, err)
			continue
		}
		r.e.container("Using cached directory %s", dir)
	}
}

// cacheDir is the directory that a cache path names.
func (r *runner) cacheDir(pattern string) (string, error) {
	p := r.expand(pattern)
	if strings.HasPrefix(p, "~/") {
		p = r.env["HOME"] + p[1:]
	}
	if !path.IsAbs(p) {
		p = filepath.Join(r.src, p)
	}
	if i := strings.IndexAny(p, "*?[{"); i >= 0 {
		p = p[:strings.LastIndexByte(p[:i], '/')+1]
	} else if st, err := os.Stat(p); err == nil && !st.IsDir() {
		return "", errors.New("only directories can be cached")
	}
	p = filepath.Clean(p)
	if slices.Contains(protected, p) || p == r.src || p == r.root || strings.HasPrefix(r.src+"/", p+"/") || strings.HasPrefix(r.tmp+"/", p+"/") {
		return "", fmt.Errorf("%s cannot be cached as a whole", p)
	}
	return p, nil
}

// linkCache replaces dir by a link to its place in the cache. What dir holds becomes the cache's first
// content; when there is a cache already, the cache wins.
func (r *runner) linkCache(dir string) error {
	sum := sha256.Sum256([]byte(strings.TrimPrefix(dir, r.src+"/")))
	store := filepath.Join(r.job.CacheDir, hex.EncodeToString(sum[:12]))
	if target, err := os.Readlink(dir); err == nil && target == store {
		return nil
	}
	if _, err := os.Stat(store); errors.Is(err, fs.ErrNotExist) {
		if err := r.firstCache(dir, store); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	return os.Symlink(store, dir)
}

// firstCache fills the cache's directory under another name first: a build that is killed here must not leave a
// half-filled cache.
func (r *runner) firstCache(dir, store string) error {
	if err := os.MkdirAll(r.job.CacheDir, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(r.job.CacheDir, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := os.Chmod(fresh, 0o755); err != nil {
		return err
	}
	if st, err := os.Stat(dir); err == nil && st.IsDir() {
		if err := os.CopyFS(fresh, os.DirFS(dir)); err != nil {
			return err
		}
	}
	return os.Rename(fresh, store)
}

// saveCache says that there is nothing to do: the links have kept the cache up to date.
func (r *runner) saveCache() {
	if len(r.spec.Cache.Paths) > 0 && r.job.CacheDir != "" {
		r.e.container("The cached directories are up to date")
	}
}
