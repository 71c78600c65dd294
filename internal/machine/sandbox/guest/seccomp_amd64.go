package guest

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

var archDeniedCalls = []uint32{unix.SYS_IOPL, unix.SYS_IOPERM}
