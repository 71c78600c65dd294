package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

func mountSystem(b *wire.Boot) error {
	const plain = unix.MS_NOSUID | unix.MS_NODEV
	mounts := []struct {
		src, dir, fs string
		flags        uintptr
		opts         string
	}{
		{"proc", "proc", "proc", plain | unix.MS_NOEXEC, ""},
		{"sysfs", "sys", "sysfs", plain | unix.MS_NOEXEC | unix.MS_RDONLY, ""},
		{"tmpfs", "dev", "tmpfs", unix.MS_NOSUID, "mode=0755,size=64k"},
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"},
		{"shm", "dev/shm", "tmpfs", plain, "mode=1777,size=64m"},
		{"mqueue", "dev/mqueue", "mqueue", plain | unix.MS_NOEXEC, ""},
		{"run", "run", "tmpfs", plain, "mode=0755,size=64m"},
	}
	for _, m := range mounts {
		dir, err := resolveIn(newRoot(b), m.dir, true)
		if err != nil {
			return fmt.Errorf("/%s: %w", m.dir, err)
		}
		if err := unix.Mount(m.src, dir, m.fs, m.flags, m.opts); err != nil {
			if m.fs == "mqueue" && errors.Is(err, unix.ENODEV) {
				continue // a kernel without message queues
			}
			return fmt.Errorf("/%s: %w", m.dir, err)
		}
	}
	for _, d := range []string{"run/lock", "run/slipway"} {
		if err := os.Mkdir(filepath.Join(newRoot(b), d), 0o755); err != nil {
			return err
		}
	}
	return unix.Chmod(filepath.Join(newRoot(b), "run/lock"), 0o1777)
}

func makeDevices(b *wire.Boot) error {
	dev := filepath.Join(newRoot(b), "dev")
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := bind(filepath.Join("/dev", n), filepath.Join(dev, n), false, false); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
		"stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"} {
		if err := os.Symlink(target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return nil
}

// bind mounts src on target, which is made if it is missing. The caller has seen
// to it that no link leads target out of the machine (resolveIn).
func bind(src, target string, dir, readOnly bool) error {
	if dir {
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
	} else {
		f, err := os.OpenFile(target, os.O_CREATE|os.O_WRONLY|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	if err := unix.Mount(src, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", src, err)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if dir {
		flags |= unix.MS_NODEV
	}
	if err := unix.Mount("", target, "", flags, ""); err != nil {
		return fmt.Errorf("flags of %s: %w", src, err)
	}
	return nil
}

func bindBinary(b *wire.Boot) error {
	target, err := resolveIn(newRoot(b), machine.SlipwayBinary, false)
	if err != nil {
		return fmt.Errorf("%s: %w", machine.SlipwayBinary, err)
	}
	return bind(b.Binary, target, false, true)
}

func bindMounts(b *wire.Boot) error {
	for _, m := range b.Mounts {
		info, err := os.Stat(m.Source)
		if err != nil {
			return err
		}
		target, err := resolveIn(newRoot(b), m.Target, info.IsDir())
		if err != nil {
			return fmt.Errorf("mount target %s: %w", m.Target, err)
		}
		if err := bind(m.Source, target, info.IsDir(), m.ReadOnly); err != nil {
			return err
		}
	}
	return nil
}

// resolveIn finds (and makes) target below root and refuses links on the way:
// an absolute link in an image would otherwise lead into the host.
func resolveIn(root, target string, dir bool) (string, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer r.Close()
	rel := strings.TrimPrefix(filepath.Clean("/"+target), "/")
	if rel == "" {
		return "", errors.New("cannot be /")
	}
	made := rel
	if !dir {
		made = filepath.Dir(rel)
	}
	if err := r.MkdirAll(made, 0o755); err != nil {
		return "", err
	}
	for p := rel; p != "."; p = filepath.Dir(p) {
		if info, err := r.Lstat(p); err == nil && info.Mode()&os.ModeSymlink != 0 {
			return "", fmt.Errorf("%s is a symbolic link", p)
		}
	}
	return filepath.Join(root, rel), nil
}
