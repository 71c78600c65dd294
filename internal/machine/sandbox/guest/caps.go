package guest

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// keptCaps is Docker's default set without MKNOD: what root inside a machine may do.
var keptCaps = []uintptr{
	unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID, unix.CAP_SETUID,
	unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_NET_RAW, unix.CAP_SYS_CHROOT, unix.CAP_SETFCAP, unix.CAP_AUDIT_WRITE,
}

// enter gives up system calls and every other capability and executes stage 2
// from inside the machine. Both belong to a thread: the caller has locked this one, and
// the execution makes it the whole process.
func enter(b *wire.Boot) error {
	if err := filterCalls(); err != nil {
		return err
	}
	if err := dropCaps(); err != nil {
		return err
	}
	cfg, err := bootFile(b)
	if err != nil {
		return fmt.Errorf("pass the configuration on: %w", err)
	}
	for _, fd := range []int{FDReady, FDListen, FDState, cfg} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("file %d: %w", fd, err)
		}
	}
	unix.Umask(0o022)
	args := []string{"/sbin/init", "init", "--stage2", fmt.Sprint(cfg)}
	env := []string{"PATH=" + defaultPath, "GOGC=50"}
	return fmt.Errorf("execute %s: %w", machine.SlipwayBinary, unix.Exec(machine.SlipwayBinary, args, env))
}

func dropCaps() error {
	keep := uint64(0)
	for _, c := range keptCaps {
		keep |= 1 << c
	}
	// PID 1 alone may read the environments of other users' processes, by which
	// it knows to which service they belong. As an inheritable capability outside
	// of the bounding set it passes the execution of stage 2; see withoutInheritable.
	if err := setCaps(keep|1<<unix.CAP_SYS_PTRACE, 1<<unix.CAP_SYS_PTRACE); err != nil {
		return err
	}
	for c := uintptr(0); c <= 63; c++ {
		if keep&(1<<c) != 0 {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // the kernel knows no more
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return nil
}

// setCaps keeps those of the thread's permitted capabilities that are in keep.
func setCaps(keep, inheritable uint64) error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{}
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range data {
		data[i].Permitted &= uint32(keep >> (32 * i))
		data[i].Effective &= uint32(keep >> (32 * i))
		data[i].Inheritable = data[i].Permitted & uint32(inheritable>>(32*i))
	}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

// withoutInheritable runs f on a thread from which a child inherits none of
// PID 1's own capabilities.
func withoutInheritable(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := setCaps(^uint64(0), 0); err != nil {
		return err
	}
	return f()
}

// bootFile keeps the configuration in anonymous memory across the execution.
func bootFile(b *wire.Boot) (int, error) {
	fd, err := unix.MemfdCreate("boot", 0)
	if err != nil {
		return 0, err
	}
	data, err := marshalBoot(b)
	if err != nil {
		return 0, err
	}
	if _, err := os.NewFile(uintptr(dupCloexec(fd)), "boot").Write(data); err != nil {
		return 0, err
	}
	return fd, nil
}

func dupCloexec(fd int) int {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 10)
	if err != nil {
		return fd
	}
	return n
}
