package build

import (
	"archive/zip"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"slipway/internal/spec/buildspec"
)

var errNoFiles = errors.New("no matching artifact paths found")

// found is one file of an artifact.
type found struct {
	name string // inside the artifact
	path string
	info fs.FileInfo // of the link itself when it is kept as a link
}

// artifacts packs every artifact that the project asks for.
func (r *runner) artifacts(ctx context.Context) []error {
	var errs []error
	wanted := r.job.SecondaryArtifacts
	if a := r.job.Artifacts; a != nil && a.Type != "NO_ARTIFACTS" && a.Type != "" {
		if err := r.artifact(ctx, *a, r.spec.Artifacts); err != nil {
			errs = append(errs, clientError(err))
		}
	}
	for _, a := range wanted {
		if err := r.artifact(ctx, a, r.spec.SecondaryArtifacts[a.Identifier]); err != nil {
			errs = append(errs, clientError(fmt.Errorf("%w for artifact %s", err, a.Identifier)))
		}
	}
	return errs
}

func (r *runner) artifact(ctx context.Context, want Artifact, block *buildspec.Artifacts) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if block == nil {
		return errNoFiles
	}
	files, err := r.collect(block)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errNoFiles
	}
	p := &PackedArtifact{Identifier: want.Identifier, Packaging: "NONE", Files: len(files)}
	if want.Packaging == "ZIP" || want.Type == "CODEPIPELINE" {
		p.Packaging = "ZIP"
	}
	if p.Path, err = r.outputPath(want.Identifier); err != nil {
		return err
	}
	if want.OverrideName && block.Name != "" {
		if p.Name, err = r.evaluate(ctx, block.Name); err != nil {
			return err
		}
	}
	if block.S3Prefix != "" {
		if p.Prefix, err = r.evaluate(ctx, block.S3Prefix); err != nil {
			return err
		}
	}
	if p.Packaging == "ZIP" {
		err = p.zip(files)
	} else {
		err = p.copy(files)
	}
	if err != nil {
		os.RemoveAll(p.Path)
		return err
	}
	r.e.emit(Event{Type: EventArtifact, Artifact: p})
	return nil
}

func (r *runner) outputPath(identifier string) (string, error) {
	dir := r.job.OutputDir
	if dir == "" {
		dir = filepath.Join(r.root, "output", "artifacts")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	name := "main"
	if identifier != "" {
		name = "secondary-" + strings.ReplaceAll(identifier, "/", "_")
	}
	p := filepath.Join(dir, name)
	return p, os.RemoveAll(p)
}

// evaluate lets the shell expand a name: variables and command substitutions.
func (r *runner) evaluate(ctx context.Context, text string) (string, error) {
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text)
	out, err := r.sh.capture(ctx, `printf '%s' "`+quoted+`"`)
	if err != nil {
		return "", fmt.Errorf("the artifact's name cannot be evaluated: %w", err)
	}
	return out, nil
}

// collect finds the files of a block. Patterns are relative to the base directories; what does not match is
// skipped with a line in the log.
func (r *runner) collect(b *buildspec.Artifacts) ([]found, error) {
	base := r.expand(b.BaseDirectory)
	if base == "" {
		base = "."
	}
	r.e.container("Expanding base directory path:  %s", base)
	r.e.container("Assembling file list")
	r.e.container("Expanding %s", base)
	dirs, err := r.baseDirs(base)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var out []found
	for _, dir := range dirs {
		r.e.container("Expanding file paths for base directory %s", base)
		r.e.container("Assembling file list")
		for _, pattern := range b.Files {
			files, err := r.glob(dir, r.expand(pattern), b)
			if err != nil {
				return nil, err
			}
			for _, f := range files {
				if b.DiscardPaths {
					f.name = path.Base(f.name)
				}
				if !seen[f.name] {
					seen[f.name] = true
					out = append(out, f)
				}
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out, nil
}

func (r *runner) expand(s string) string {
	return os.Expand(s, func(name string) string {
		if v, ok := r.env[name]; ok {
			return v
		}
		return "$" + name
	})
}

// relative makes a pattern relative to the source; absolute ones may point into it.
func (r *runner) relative(pattern string) string {
	pattern = strings.TrimPrefix(pattern, r.src+"/")
	return path.Clean(strings.TrimPrefix(pattern, "./"))
}

func (r *runner) baseDirs(base string) ([]string, error) {
	if base = r.relative(base); base == r.src || base == "." {
		return []string{r.src}, nil
	}
	if path.IsAbs(base) || strings.HasPrefix(base, "../") {
		if st, err := os.Stat(base); err == nil && st.IsDir() { // the build made it elsewhere in its sandbox
			return []string{base}, nil
		}
		return nil, fmt.Errorf("base directory %s does not exist: %w", base, errNoFiles)
	}
	matches, err := doublestar.Glob(os.DirFS(r.src), base)
	if err != nil {
		return nil, fmt.Errorf("the base directory %q is not a valid pattern", base)
	}
	var dirs []string
	for _, m := range matches {
		full := filepath.Join(r.src, m)
		if st, err := os.Stat(full); err == nil && st.IsDir() {
			dirs = append(dirs, full)
		}
	}
	if len(dirs) == 0 {
		r.e.container("Skipping invalid file path %s", base)
	}
	return dirs, nil
}

func (r *runner) glob(dir, pattern string, b *buildspec.Artifacts) ([]found, error) {
	r.e.container("Expanding %s", pattern)
	at := dir
	if path.IsAbs(pattern) {
		if rel, ok := strings.CutPrefix(pattern, dir+"/"); ok {
			pattern = rel
		} else {
			at, pattern = "/", strings.TrimPrefix(pattern, "/")
		}
	}
	pattern = path.Clean(pattern)
	if !doublestar.ValidatePattern(pattern) || strings.HasPrefix(pattern, "../") {
		r.e.container("Skipping invalid file path %s", pattern)
		return nil, nil
	}
	var out []found
	err := doublestar.GlobWalk(os.DirFS(at), pattern, func(name string, d fs.DirEntry) error {
		if d.IsDir() || excluded(name, b.ExcludePaths) {
			return nil
		}
		f, ok, err := regular(filepath.Join(at, name), name, b.EnableSymlinks)
		if ok && err == nil {
			out = append(out, f)
		}
		return err
	}, doublestar.WithNoFollow())
	if err != nil {
		return nil, fmt.Errorf("reading the files of %s: %w", pattern, err)
	}
	if len(out) == 0 {
		r.e.container("Skipping invalid file path %s", pattern)
	} else {
		r.e.container("Found %d file(s)", len(out))
	}
	return out, nil
}

func excluded(name string, patterns []string) bool {
	for _, p := range patterns {
		p = path.Clean(strings.TrimPrefix(p, "./"))
		if ok, err := doublestar.Match(p, name); err == nil && ok {
			return true
		}
	}
	return false
}

// regular resolves a link to the file that it points to, unless links are kept. Sockets, dangling links and
// links to directories are left out.
func regular(full, name string, keepLinks bool) (found, bool, error) {
	st, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return found{}, false, nil
	}
	if err != nil {
		return found{}, false, err
	}
	if st.Mode()&fs.ModeSymlink != 0 && !keepLinks {
		if st, err = os.Stat(full); err != nil {
			return found{}, false, nil
		}
	}
	ok := st.Mode().IsRegular() || st.Mode()&fs.ModeSymlink != 0
	return found{name: name, path: full, info: st}, ok, nil
}

// zip writes the archive, mode bits included, and its checksums.
func (p *PackedArtifact) zip(files []found) (err error) {
	f, err := os.OpenFile(p.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	sha, md := sha256.New(), md5.New()
	count := &counter{}
	z := zip.NewWriter(io.MultiWriter(f, sha, md, count))
	z.RegisterCompressor(zip.Deflate, newDeflater)
	for _, file := range files {
		if err := addToZip(z, file); err != nil {
			return fmt.Errorf("packing %s: %w", file.name, err)
		}
	}
	if err := z.Close(); err != nil {
		return err
	}
	p.Size, p.SHA256, p.MD5 = count.n, hex.EncodeToString(sha.Sum(nil)), hex.EncodeToString(md.Sum(nil))
	return nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) { c.n += int64(len(b)); return len(b), nil }

func addToZip(z *zip.Writer, f found) error {
	h, err := zip.FileInfoHeader(f.info)
	if err != nil {
		return err
	}
	h.Name, h.Method = f.name, zip.Deflate
	w, err := z.CreateHeader(h)
	if err != nil {
		return err
	}
	if f.info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(f.path)
		if err != nil {
			return err
		}
		_, err = io.WriteString(w, target)
		return err
	}
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(w, in)
	return err
}

// copy lays the files out as a directory.
func (p *PackedArtifact) copy(files []found) error {
	for _, f := range files {
		to := filepath.Join(p.Path, f.name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if f.info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(f.path)
			if err != nil {
				return err
			}
			if err := os.Symlink(target, to); err != nil {
				return err
			}
			continue
		}
		n, err := copyFile(f.path, to, f.info.Mode().Perm())
		if err != nil {
			return err
		}
		p.Size += n
	}
	return nil
}

func copyFile(from, to string, mode fs.FileMode) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, in)
	if err == nil {
		err = out.Chmod(mode)
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	return n, err
}
