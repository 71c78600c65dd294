package guest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Root inside a machine is the host's uid 0 without its capabilities
// (decision 0103), and some parts of the kernel ask for a uid only, or for
// capabilities in a user namespace that anybody may make: the key rings of uid
// 0 are the host's, and a user namespace opens mounting and netfilter to
// whoever looks for a mistake there. The filter takes away those calls. The
// list is what Docker's default profile keeps from containers without
// CAP_SYS_ADMIN, as far as it is more than capabilities forbid already.

// deniedCalls answer "operation not permitted" to everything in a machine.
var deniedCalls = []uint32{
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_FANOTIFY_INIT, unix.SYS_LOOKUP_DCOOKIE,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_OPEN_TREE_ATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR,
	unix.SYS_SETNS, unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_KEXEC_LOAD, unix.SYS_KEXEC_FILE_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE,
	unix.SYS_SWAPON, unix.SYS_SWAPOFF, unix.SYS_REBOOT, unix.SYS_ACCT, unix.SYS_QUOTACTL, unix.SYS_QUOTACTL_FD,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_SYSLOG, unix.SYS_VHANGUP, unix.SYS_NFSSERVCTL,
}

// newNamespaces are the flags of clone and unshare that make namespaces.
const newNamespaces = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID |
	unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP

// Offsets in struct seccomp_data (seccomp(2)). The flags of clone and unshare
// are in the low half of the first argument; all supported systems are
// little-endian.
const (
	dataCall = 0
	dataArch = 4
	dataArg0 = 16
)

// x32Calls is where the numbers of the x32 interface begin (amd64).
const x32Calls = 0x40000000

// bpfProgram is the filter. Calls of another architecture (32-bit programs)
// have numbers of their own, so all of them are unknown.
func bpfProgram(arch uint32, denied []uint32) []unix.SockFilter {
	load := func(off uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
	}
	jump := func(op uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	answer := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	var (
		allow = answer(unix.SECCOMP_RET_ALLOW)
		deny  = answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM))
		// glibc falls back to clone, whose flags a filter can see.
		unknown = answer(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	)
	p := []unix.SockFilter{
		load(dataArch), jump(unix.BPF_JEQ, arch, 1, 0), unknown,
		load(dataCall), jump(unix.BPF_JGE, x32Calls, 0, 1), unknown,
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), unknown,
	}
	for _, call := range denied {
		p = append(p, jump(unix.BPF_JEQ, call, 0, 1), deny)
	}
	return append(p,
		jump(unix.BPF_JEQ, unix.SYS_CLONE, 2, 0), jump(unix.BPF_JEQ, unix.SYS_UNSHARE, 1, 0), allow,
		load(dataArg0), jump(unix.BPF_JSET, newNamespaces, 0, 1), deny, allow)
}

// filterCalls puts the filter on this thread and all that comes of it. It
// needs CAP_SYS_ADMIN, so it comes before capabilities are dropped: set-uid
// programs keep working, which they would not with PR_SET_NO_NEW_PRIVS.
func filterCalls() error {
	p := bpfProgram(auditArch, append(deniedCalls[:len(deniedCalls):len(deniedCalls)], archDeniedCalls...))
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0); err != nil {
		return fmt.Errorf("filter system calls (does this kernel have CONFIG_SECCOMP_FILTER?): %w", err)
	}
	return nil
}
