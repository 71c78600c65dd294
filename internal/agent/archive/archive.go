// Package archive unpacks bundles (zip, tar, tgz) that may be hostile. Nothing is ever written outside the
// destination: all access goes through os.Root, links are made after all files so that nothing is written
// through them, and size, count and compression ratio are bounded. A symbolic link may point anywhere (a
// Python environment links to /usr/bin/python3); a hard link may not leave the archive; devices are refused.
package archive

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/flate"
)

// Limits bound what an archive may unpack to.
type Limits struct {
	Bytes   int64 // total size of all files
	Entries int
	Ratio   int64 // unpacked to packed, once more than FreeBytes are unpacked
	Free    int64 // unpacked bytes below which the ratio does not matter
}

// DefaultLimits are generous for applications and small beside a disk.
var DefaultLimits = Limits{Bytes: 8 << 30, Entries: 300_000, Ratio: 200, Free: 256 << 20}

// ErrRefused marks archives that were refused for what they contain, as opposed to failures of the disk.
var ErrRefused = errors.New("the archive was refused")

// Kinds of archives, as CodeDeploy's bundleType names them.
const (
	Zip = "zip"
	Tar = "tar"
	TGZ = "tgz"
)

// Unpack writes the archive file at src into the existing directory dst. On an error dst holds a part of it,
// which the caller removes.
func Unpack(src, kind, dst string, lim Limits) error {
	f, err := os.Open(src)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	root, err := os.OpenRoot(dst)
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	defer root.Close()
	u := &unpacker{root: root, lim: lim, packed: max(st.Size(), 1), dirModes: map[string]fs.FileMode{}}
	switch kind {
	case Zip:
		err = u.zip(f, st.Size())
	case Tar:
		err = u.tar(bufio.NewReaderSize(f, 64<<10))
	case TGZ:
		err = u.tgz(f)
	default:
		return fmt.Errorf("%w: unknown type %q (it must be zip, tar or tgz)", ErrRefused, kind)
	}
	if err != nil {
		return err
	}
	return u.finish()
}

type link struct{ name, target string }

type unpacker struct {
	root     *os.Root
	lim      Limits
	packed   int64
	bytes    int64
	entries  int
	links    []link
	dirModes map[string]fs.FileMode
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
}

// clean checks an entry's name and returns it relative and without dots; "" is the top itself.
func (u *unpacker) clean(name string) (string, error) {
	if u.entries++; u.entries > u.lim.Entries {
		return "", refuse("it has more than %d entries", u.lim.Entries)
	}
	if name == "" || strings.ContainsAny(name, "\x00") {
		return "", refuse("an entry has the name %q", name)
	}
	if strings.HasPrefix(name, "/") {
		return "", refuse("the entry %q has an absolute path", name)
	}
	for _, part := range strings.Split(name, "/") {
		if part == ".." {
			return "", refuse("the entry %q leaves the archive", name)
		}
	}
	c := path.Clean(name)
	if c == "." {
		return "", nil
	}
	return c, nil
}

func (u *unpacker) dir(name string, mode fs.FileMode) error {
	if name == "" {
		return nil
	}
	if err := u.root.MkdirAll(name, 0o755); err != nil {
		return u.explain(name, err)
	}
	u.dirModes[name] = mode.Perm() | mode&(fs.ModeSetgid|fs.ModeSticky)
	return nil
}

func (u *unpacker) explain(name string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) && strings.Contains(pe.Err.Error(), "escapes") {
		return refuse("the entry %q leaves the archive", name)
	}
	return fmt.Errorf("archive: entry %q: %w", name, err)
}

func (u *unpacker) file(name string, mode fs.FileMode, r io.Reader) error {
	if name == "" {
		return refuse("an entry has no name")
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return u.explain(name, err)
	}
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return u.explain(name, err) // an entry given twice: the last one counts
	}
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return u.explain(name, err)
	}
	err = u.copy(name, f, r)
	if err == nil {
		err = f.Chmod(mode.Perm() | mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = u.explain(name, cerr)
	}
	return err
}

func (u *unpacker) copy(name string, w io.Writer, r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if u.bytes += int64(n); u.bytes > u.lim.Bytes {
			return refuse("it unpacks to more than %d bytes", u.lim.Bytes)
		}
		if u.bytes > u.lim.Free && u.bytes/u.packed > u.lim.Ratio {
			return refuse("it unpacks to more than %d times its size", u.lim.Ratio)
		}
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return fmt.Errorf("archive: writing %q: %w", name, werr)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return refuse("the entry %q is damaged: %v", name, err)
		}
	}
}

func (u *unpacker) zip(f io.ReaderAt, size int64) error {
	z, err := zip.NewReader(f, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return refuse("it is not a zip archive: %v", err)
	}
	z.RegisterDecompressor(zip.Deflate, flate.NewReader) // a third faster than the standard library's
	for _, e := range z.File {
		if err := u.zipEntry(e); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) zipEntry(e *zip.File) error {
	name, err := u.clean(strings.ReplaceAll(e.Name, "\\", "/"))
	if err != nil {
		return err
	}
	mode := e.Mode()
	if mode.Perm() == 0 { // made by a tool that stores no modes
		mode |= 0o644
		if mode.IsDir() {
			mode |= 0o111
		}
	}
	mode &^= 0o022 & unixless(e)
	if mode.IsDir() || strings.HasSuffix(e.Name, "/") {
		return u.dir(name, mode)
	}
	r, err := e.Open()
	if err != nil {
		return refuse("the entry %q cannot be read: %v", e.Name, err)
	}
	defer r.Close()
	switch {
	case mode&fs.ModeSymlink != 0:
		target, err := io.ReadAll(io.LimitReader(r, 4097))
		if err != nil || len(target) == 0 || len(target) > 4096 {
			return refuse("the link %q has no usable target", e.Name)
		}
		u.links = append(u.links, link{name, string(target)})
		return nil
	case mode.IsRegular():
		return u.file(name, mode, r)
	}
	return refuse("the entry %q is neither file, directory nor link", e.Name)
}

// unixless gives all bits for entries made on a system without Unix modes: there, group and others would
// otherwise get write permission.
func unixless(e *zip.File) fs.FileMode {
	if creator := e.CreatorVersion >> 8; creator == 3 || creator == 19 {
		return 0
	}
	return 0o777
}

func (u *unpacker) tgz(f io.Reader) error {
	g, err := gzip.NewReader(bufio.NewReaderSize(f, 64<<10))
	if err != nil {
		return refuse("it is not gzip data: %v", err)
	}
	defer g.Close()
	return u.tar(g)
}

func (u *unpacker) tar(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return refuse("it is not a tar archive, or damaged: %v", err)
		}
		if err := u.tarEntry(t, h); err != nil {
			return err
		}
	}
}

func (u *unpacker) tarEntry(t io.Reader, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := u.clean(h.Name)
	if err != nil {
		return err
	}
	mode := h.FileInfo().Mode()
	switch h.Typeflag {
	case tar.TypeDir:
		return u.dir(name, mode)
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse: //nolint:staticcheck // old archives carry TypeRegA
		return u.file(name, mode, t)
	case tar.TypeSymlink:
		u.links = append(u.links, link{name, h.Linkname})
		return nil
	case tar.TypeLink:
		target, err := u.clean(h.Linkname)
		if err != nil {
			return err
		}
		if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return u.explain(name, err)
		}
		if err := u.root.Link(target, name); err != nil {
			return refuse("the hard link %q cannot be made: %v", h.Name, err)
		}
		return nil
	}
	return refuse("the entry %q is neither file, directory nor link", h.Name)
}

// finish makes the links and then sets the directories' modes, so that a read-only directory can be filled.
func (u *unpacker) finish() error {
	for _, l := range u.links {
		if l.name == "" {
			return refuse("a link has no name")
		}
		if err := u.root.MkdirAll(path.Dir(l.name), 0o755); err != nil {
			return u.explain(l.name, err)
		}
		if err := u.root.Remove(l.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return u.explain(l.name, err)
		}
		if err := u.root.Symlink(l.target, l.name); err != nil {
			return u.explain(l.name, err)
		}
	}
	for name, mode := range u.dirModes {
		if st, err := u.root.Lstat(name); err != nil || !st.IsDir() {
			continue // a link of the same name has replaced it
		}
		if err := u.root.Chmod(name, mode|0o700); err != nil {
			return u.explain(name, err)
		}
	}
	return nil
}
