package forward

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// rawIO reads and writes a TCP socket without the bookkeeping of the syscall
// package: the sockets are non-blocking, so a system call returns at once and the
// scheduler need not hear of it. Waiting stays with the runtime's poller. The
// closures are made once per connection, so that nothing is allocated per call.
// One reader and one writer at a time.
type rawIO struct {
	conn   syscall.RawConn
	rbuf   []byte
	wbuf   []byte
	rn     int
	rerr   syscall.Errno
	werr   syscall.Errno
	readf  func(uintptr) bool
	writef func(uintptr) bool
	peekf  func(uintptr)
	gone   bool
}

func newRawIO(nc net.Conn) *rawIO {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	r := &rawIO{conn: rc}
	r.readf, r.writef, r.peekf = r.tryRead, r.tryWrite, r.tryPeek
	return r
}

func (r *rawIO) tryRead(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(r.rbuf))), uintptr(len(r.rbuf)))
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		}
		r.rn, r.rerr = int(n), errno
		return true
	}
}

// Read is io.Reader; b must not be empty.
func (r *rawIO) Read(b []byte) (int, error) {
	r.rbuf, r.rn, r.rerr = b, 0, 0
	err := r.conn.Read(r.readf)
	r.rbuf = nil
	switch {
	case err != nil:
		return 0, err
	case r.rerr != 0:
		return 0, r.rerr
	case r.rn == 0:
		return 0, io.EOF
	}
	return r.rn, nil
}

func (r *rawIO) tryWrite(fd uintptr) bool {
	for len(r.wbuf) > 0 {
		n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(r.wbuf))), uintptr(len(r.wbuf)))
		switch errno {
		case 0:
			r.wbuf = r.wbuf[n:]
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			r.werr = errno
			return true
		}
	}
	return true
}

// Write is io.Writer: all of b or an error, with the number of bytes that the
// kernel took.
func (r *rawIO) Write(b []byte) (int, error) {
	r.wbuf, r.werr = b, 0
	err := r.conn.Write(r.writef)
	n := len(b) - len(r.wbuf)
	r.wbuf = nil
	if err != nil {
		return n, err
	}
	if r.werr != 0 {
		return n, r.werr
	}
	return n, nil
}

func (r *rawIO) tryPeek(fd uintptr) {
	var b [1]byte
	const flags = syscall.MSG_PEEK | syscall.MSG_DONTWAIT
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(&b[0])), 1, flags, 0, 0)
	r.gone = errno == 0 && n == 0 || errno != 0 && errno != syscall.EAGAIN && errno != syscall.EINTR
}

// peekGone reports whether the other side has closed or reset the connection with
// nothing left to read. One caller at a time.
func (r *rawIO) peekGone() bool {
	r.gone = false
	if err := r.conn.Control(r.peekf); err != nil {
		return true
	}
	return r.gone
}
