// Package guest is what runs inside a machine: PID 1 (`slipway init`) in its
// two stages, the supervisor of services and agents, user data, and the
// stand-ins for programs that scripts written for Amazon Linux expect.
//
// Stage 1 runs from the host's file system in fresh namespaces, builds the
// machine's own, gives up what a machine may not do and executes stage 2 from
// inside. Stage 2 reaps, supervises and serves the server's requests on a
// listening socket that it inherited, so that nothing inside the machine can
// redirect it.
package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/internal/machine/sandbox/wire"
)

// Files that a child finds open, by number.
const (
	FDConfig = 3 // read end of a pipe: one wire.Boot, then EOF
	FDReady  = 4 // write end of a pipe: wire.Stage
	FDListen = 5 // listening unix socket of the machine
	FDState  = 6 // console file, read-write, append
)

// Stage1 is the child's first life. It returns only when it failed, having told
// the parent why.
func Stage1() int {
	runtime.LockOSThread() // credentials and the control group namespace belong to a thread
	unix.Umask(0o022)      // the server's own may be tighter: modes in here are meant
	boot, err := readBoot()
	if err == nil {
		err = construct(boot)
	}
	if err == nil {
		err = enter(boot)
	}
	report(wire.Stage{Error: err.Error()})
	return 1
}

func report(s wire.Stage) {
	b, _ := json.Marshal(s)
	_, _ = unix.Write(FDReady, append(b, '\n'))
}

// readBoot waits for the parent. A parent that died before the hand-over shows
// as an empty pipe: then there is nobody to work for.
func readBoot() (*wire.Boot, error) {
	f := os.NewFile(FDConfig, "config")
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		os.Exit(3)
	}
	var boot wire.Boot
	if err := json.Unmarshal(b, &boot); err != nil {
		return nil, fmt.Errorf("boot configuration: %w", err)
	}
	return &boot, nil
}

// construct builds the machine's file system and network and moves into it.
func construct(b *wire.Boot) error {
	steps := []struct {
		name string
		do   func(*wire.Boot) error
	}{
		{"control group namespace", func(*wire.Boot) error { return unix.Unshare(unix.CLONE_NEWCGROUP) }},
		{"private mounts", func(*wire.Boot) error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"staging area", mountStage},
		{"mask", writeMask},
		{"overlay", mountOverlay},
		{"system directories", mountSystem},
		{"device nodes", makeDevices},
		{"slipway binary", bindBinary},
		{"mounts", bindMounts},
		{"host name", func(b *wire.Boot) error { return unix.Sethostname([]byte(b.Hostname)) }},
		{"network", bringUpNetwork},
		{"pivot", pivot},
		{"masked proc", maskProc},
	}
	for _, s := range steps {
		if err := s.do(b); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func maskRoot(b *wire.Boot) string { return filepath.Join(b.Stage, "mask") }
func baseRoot(b *wire.Boot) string { return filepath.Join(b.Stage, "base") }
func newRoot(b *wire.Boot) string  { return filepath.Join(b.Stage, "root") }

// mountStage mounts a tmpfs that only this machine sees: it holds the mask, and
// being another file system than the host's it may be a layer over it.
func mountStage(b *wire.Boot) error {
	if err := unix.Mount("slipway", b.Stage, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755,size=4m"); err != nil {
		return err
	}
	for _, d := range []string{maskRoot(b), baseRoot(b), newRoot(b)} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return err
		}
	}
	return nil
}

func writeMask(b *wire.Boot) error {
	unix.Umask(0)
	defer unix.Umask(0o022)
	for _, e := range b.Mask {
		if err := writeMaskEntry(filepath.Join(maskRoot(b), e.Path), e); err != nil {
			return fmt.Errorf("/%s: %w", e.Path, err)
		}
	}
	return nil
}

func writeMaskEntry(path string, e wire.MaskEntry) error {
	var err error
	switch e.Kind {
	case wire.MaskDir, wire.MaskOpaque:
		if err = unix.Mkdir(path, e.Mode); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		if err = unix.Chmod(path, e.Mode); err == nil && e.Kind == wire.MaskOpaque {
			err = unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0)
		}
	case wire.MaskFile:
		if err = replaceable(path); err != nil {
			return err
		}
		if err = os.WriteFile(path, []byte(e.Data), os.FileMode(e.Mode)); err == nil {
			err = unix.Chmod(path, e.Mode)
		}
	case wire.MaskLink:
		if err = replaceable(path); err != nil {
			return err
		}
		return os.Symlink(e.Data, path)
	case wire.MaskGone:
		if err = replaceable(path); err != nil {
			return err
		}
		return unix.Mknod(path, unix.S_IFCHR, 0)
	default:
		return fmt.Errorf("unknown mask entry %q", e.Kind)
	}
	if err == nil && (e.UID != 0 || e.GID != 0) {
		err = unix.Chown(path, e.UID, e.GID)
	}
	return err
}

// replaceable makes room for an entry of the machine's own where an earlier one
// hid the host's.
func replaceable(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.MkdirAll(filepath.Dir(path), 0o755)
}

// mountOverlay stacks [upper, image layers, mask, host]. A layer that lies inside
// the host's own file system cannot be above it in one overlay (ELOOP), but can
// be above an overlay of the host and its mask. Where the host's root is an
// overlay itself (a container), that would be one too many (EINVAL): then all
// are in one, which works if the layers are on another file system.
func mountOverlay(b *wire.Boot) error {
	if len(b.Layers) == 0 {
		return mountRoot(b, []string{maskRoot(b), "/"})
	}
	err := unix.Mount("overlay", baseRoot(b), "overlay", unix.MS_RDONLY|unix.MS_NODEV, "lowerdir="+maskRoot(b)+":/")
	if err != nil {
		return fmt.Errorf("host below its mask: %w", err)
	}
	err = mountRoot(b, append(slices.Clone(b.Layers), baseRoot(b)))
	if errors.Is(err, unix.EINVAL) {
		err = mountRoot(b, append(slices.Clone(b.Layers), maskRoot(b), "/"))
	}
	return err
}

// mountRoot mounts the machine's root. Paths are given as open directories: they
// need no escaping and little room in the options, which are one page at most.
func mountRoot(b *wire.Boot, layers []string) error {
	var fds []int
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	open := func(dir string) (string, error) {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return "", fmt.Errorf("%s: %w", dir, err)
		}
		fds = append(fds, fd)
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}
	lower := make([]string, 0, len(layers))
	for _, l := range layers {
		p, err := open(l)
		if err != nil {
			return err
		}
		lower = append(lower, p)
	}
	upper, err := open(b.Upper)
	if err != nil {
		return err
	}
	work, err := open(b.Work)
	if err != nil {
		return err
	}
	opts := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=" + upper + ",workdir=" + work
	if b.Volatile {
		if unix.Mount("overlay", newRoot(b), "overlay", unix.MS_NODEV, opts+",volatile") == nil {
			return nil
		}
	}
	return unix.Mount("overlay", newRoot(b), "overlay", unix.MS_NODEV, opts)
}

func bringUpNetwork(b *wire.Boot) error {
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0)
	_ = os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil || b.Net == nil {
		return err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(b.Net.Address).To4(), Mask: net.CIDRMask(32, 32)}}
	if err := netlink.AddrAdd(eth, addr); err != nil {
		return fmt.Errorf("address: %w", err)
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return err
	}
	mac, err := net.ParseMAC(b.Net.GwMAC)
	if err != nil {
		return err
	}
	gw := net.ParseIP(b.Net.Gateway).To4()
	// A lost first ARP packet costs a whole second: neighbours are permanent.
	if err := netlink.NeighSet(&netlink.Neigh{LinkIndex: eth.Attrs().Index, State: netlink.NUD_PERMANENT, IP: gw, HardwareAddr: mac}); err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	route := &netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gw, Flags: int(netlink.FLAG_ONLINK)}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	return nil
}

func pivot(b *wire.Boot) error {
	if err := unix.Chdir(newRoot(b)); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// maskProc hides what /proc would tell of or do to the host; the list is the
// OCI runtime specification's default.
func maskProc(*wire.Boot) error {
	for _, p := range []string{"/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug",
		"/proc/sysrq-trigger", "/proc/kmsg"} {
		if err := unix.Mount("/dev/null", p, "", unix.MS_BIND, ""); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	for _, p := range []string{"/proc/acpi", "/proc/scsi", "/sys/firmware"} {
		if err := unix.Mount("tmpfs", p, "tmpfs", unix.MS_RDONLY, "size=0"); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	for _, p := range []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"} {
		if err := unix.Mount(p, p, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			if errors.Is(err, unix.ENOENT) {
				continue
			}
			return fmt.Errorf("%s: %w", p, err)
		}
		if err := unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}
