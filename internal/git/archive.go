package git

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Archive writes the files of a commit to w as a ZIP with their mode bits,
// as a checkout would have them: no .gitattributes rule leaves anything out
// or changes it. Submodules are left out, since their content is elsewhere.
// The same commit gives the same bytes.
func (r *Repo) Archive(ctx context.Context, commit string, w io.Writer) (err error) {
	c, err := r.Commit(ctx, commit)
	if err != nil {
		return err
	}
	entries, err := r.Tree(ctx, commit, "", true)
	if err != nil {
		return err
	}
	if err := archivable(commit, entries); err != nil {
		return err
	}
	b, err := r.newBatch(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := b.close(); err == nil && cerr != nil {
			err = fmt.Errorf("git cat-file: %w", cerr)
		}
	}()
	zw := zip.NewWriter(w)
	for _, e := range entries {
		if e.Type != "blob" {
			continue
		}
		if !safePath(e.Path) {
			return fmt.Errorf("git: commit %s holds the unsafe path %q", commit, e.Path)
		}
		h := &zip.FileHeader{Name: e.Path, Method: zip.Deflate, Modified: c.Committer.When.UTC()}
		switch e.Mode {
		case "120000":
			h.SetMode(fs.ModeSymlink | 0o777)
			h.Method = zip.Store
		case "100755":
			h.SetMode(0o755)
		default:
			h.SetMode(0o644)
		}
		fw, err := zw.CreateHeader(h)
		if err != nil {
			return err
		}
		if err := b.copy(e.ID, fw); err != nil {
			return err
		}
	}
	return zw.Close()
}

// archivable refuses what no application is and only a bomb holds.
func archivable(commit string, entries []Entry) error {
	if len(entries) > maxArchiveFiles {
		return fmt.Errorf("%w: commit %s has %d files, more than %d", ErrTooLarge, commit, len(entries), maxArchiveFiles)
	}
	total := int64(0)
	for _, e := range entries {
		if total += e.Size; total > maxArchiveBytes {
			return fmt.Errorf("%w: the files of commit %s have more than %d bytes together", ErrTooLarge, commit, int64(maxArchiveBytes))
		}
	}
	return nil
}

// safePath refuses what would leave the directory that a checkout fills, or
// reach into its .git.
func safePath(p string) bool {
	if p == "" || path.IsAbs(p) || path.Clean(p) != p || strings.ContainsAny(p, "\x00\\") {
		return false
	}
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." || strings.EqualFold(part, ".git") {
			return false
		}
	}
	return true
}
