package sandbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/machine"
)

// notInImages are what a machine writes about itself, relative to its root.
var notInImages = []string{"etc/hostname", "etc/hosts", "etc/resolv.conf", "etc/machine-id", "etc/mtab", "var/lib/cloud", "var/log/cloud-init-output.log",
	"var/log/services", "run", "tmp", "var/tmp", "proc", "sys", "dev", "opt/slipway/bin/slipway", "var/lib/amazon/ssm", "root/.bash_history",
	"var/cache/apt/archives", "opt/codedeploy-agent/deployment-root", "var/lib/slipway-agent"}

// Snapshot implements machine.Driver. The machine's upper directory becomes a
// layer: whiteouts, ownership, extended attributes and hard links included.
func (d *Driver) Snapshot(ctx context.Context, id, name string, labels map[string]string) (machine.Image, error) {
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return machine.Image{}, err
	}
	defer release()
	b, err := d.box(id)
	if err != nil {
		return machine.Image{}, err
	}
	if err := syncFS(d.paths.upper(id)); err != nil {
		return machine.Image{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	parent := cmp.Or(b.rec.Spec.Image, machine.DefaultImage)
	img, err := d.makeImage(ctx, d.paths.upper(id), machine.Image{Name: name, Parent: parent, Layers: b.rec.Layers, Labels: labels})
	if err != nil {
		return machine.Image{}, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return img, nil
}

// makeImage copies a directory to a layer and registers the image. Until the
// rename at its end there is only a temporary directory, which a restart removes.
func (d *Driver) makeImage(ctx context.Context, upper string, img machine.Image) (machine.Image, error) {
	tmp, err := os.MkdirTemp(d.paths.layers(), "new-")
	if err != nil {
		return img, err
	}
	defer os.RemoveAll(tmp)
	dst := filepath.Join(tmp, "layer")
	c := &copier{src: upper, dst: dst, sum: sha256.New(), links: map[uint64]string{}}
	if err := c.copy(ctx); err != nil {
		return img, err
	}
	for _, l := range img.Layers {
		io.WriteString(c.sum, "below "+l+"\n")
	}
	name := hex.EncodeToString(c.sum.Sum(nil))
	img.ID, img.Layers, img.Bytes, img.At = "sha256:"+name, append([]string{name}, img.Layers...), c.bytes, d.clk.Now()
	if err := syncFS(dst); err != nil {
		return img, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if old, ok := d.images[img.ID]; ok {
		return old, nil
	}
	if err := os.Rename(dst, d.paths.layer(name)); err != nil && !errors.Is(err, fs.ErrExist) {
		return img, err
	}
	if err := writeJSON(filepath.Join(d.paths.images(), imageFile(img.ID)), img); err != nil {
		return img, err
	}
	d.images[img.ID] = img
	return img, nil
}

// syncFS makes what was written to the file system of path durable.
func syncFS(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}

// copier copies an overlay's upper directory as it is, without following
// anything in it, and names its content.
type copier struct {
	src, dst string
	sum      hash.Hash
	links    map[uint64]string // inode of a file with several names -> its first copy
	bytes    int64
}

func (c *copier) copy(ctx context.Context) error {
	return filepath.WalkDir(c.src, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // a running machine removed it
			}
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		rel, err := filepath.Rel(c.src, path)
		if err != nil {
			return err
		}
		if slices.Contains(notInImages, rel) {
			if e.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if err := c.entry(path, rel); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", rel, err)
		}
		return nil
	})
}

func (c *copier) entry(path, rel string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return err
	}
	dst := filepath.Join(c.dst, rel)
	fmt.Fprintf(c.sum, "%q %o %d:%d ", rel, st.Mode, st.Uid, st.Gid)
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		if first, ok := c.links[st.Ino]; ok {
			return os.Link(first, dst)
		}
		c.links[st.Ino] = dst
	}
	var err error
	switch kind {
	case unix.S_IFDIR:
		err = os.Mkdir(dst, 0o700)
	case unix.S_IFREG:
		err = c.file(path, dst)
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(path); err == nil {
			fmt.Fprintf(c.sum, "%q ", target)
			err = os.Symlink(target, dst)
		}
	case unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO:
		err = unix.Mknod(dst, st.Mode, int(st.Rdev)) // whiteouts are character devices 0:0
	default:
		return nil // sockets belong to processes
	}
	if err != nil {
		return err
	}
	return c.attributes(path, dst, &st)
}

func (c *copier) file(path, dst string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	in := os.NewFile(uintptr(fd), path)
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(out, c.sum), in)
	c.bytes += n
	fmt.Fprintf(c.sum, " %d ", n)
	return errors.Join(err, out.Close())
}

// attributes copies owner, mode, extended attributes and times; chown comes
// before chmod, because it clears set-id bits.
func (c *copier) attributes(path, dst string, st *unix.Stat_t) error {
	if err := unix.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	names := strings.Split(strings.TrimRight(string(buf[:max(n, 0)]), "\x00"), "\x00")
	slices.Sort(names)
	for _, name := range names {
		// What the kernel noted about where a file came from belongs to the upper.
		if name == "" || name == "trusted.overlay.origin" || name == "trusted.overlay.impure" || name == "trusted.overlay.uuid" || name == "trusted.overlay.nlink" {
			continue
		}
		val := make([]byte, 64<<10)
		m, err := unix.Lgetxattr(path, name, val)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if err := unix.Lsetxattr(dst, name, val[:m], 0); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(c.sum, "%s=%q ", name, val[:m])
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
			return err
		}
	}
	c.sum.Write([]byte{'\n'})
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, []unix.Timespec{st.Mtim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}
