package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/lean"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// drainTime is how long output is still awaited after a program has ended: a
// background child may hold the pipe open for ever.
const drainTime = 200 * time.Millisecond

// serve answers the server's connections until the process ends.
func (in *Init) serve(ln net.Listener) {
	for {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of files: others may close some
			continue
		}
		go in.handle(c)
	}
}

func (in *Init) handle(c net.Conn) {
	defer lean.Worked()
	defer c.Close()
	conn := wire.NewConn(c)
	kind, payload, err := conn.Read()
	if err != nil || kind != wire.Request {
		return
	}
	var req wire.Req
	if err := json.Unmarshal(payload, &req); err != nil {
		_ = conn.Write(wire.Error, []byte(err.Error()))
		return
	}
	switch req.Op {
	case "ping":
		_ = conn.WriteJSON(wire.Reply, in.pong())
	case "shutdown":
		_ = conn.WriteJSON(wire.Reply, struct{}{})
		in.shutdown(time.Duration(req.GraceMillis) * time.Millisecond)
	case "write":
		if err := writeFile(req.File); err != nil {
			_ = conn.Write(wire.Error, []byte(err.Error()))
			return
		}
		_ = conn.WriteJSON(wire.Reply, struct{}{})
	case "exec":
		in.exec(c, conn, req)
	default:
		_ = conn.Write(wire.Error, []byte("unknown request "+req.Op))
	}
}

func writeFile(f machine.File) error {
	mode := os.FileMode(f.Mode) & os.ModePerm
	if mode == 0 {
		mode = 0o644
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	tmp := f.Path + ".slipway-new"
	if err := os.WriteFile(tmp, f.Data, mode); err != nil {
		return err
	}
	if err := errors.Join(os.Chmod(tmp, mode), os.Rename(tmp, f.Path)); err != nil {
		_ = os.Remove(tmp)
		return err
	}
	return nil
}

// execution is one program that the server runs.
type execution struct {
	conn  *wire.Conn
	stdin *os.File // our end; nil once closed
	tty   *os.File // our end of its terminal
	group int      // process group
	outs  sync.WaitGroup
	ours  []*os.File // to close when it is over
}

func (in *Init) exec(c net.Conn, conn *wire.Conn, req wire.Req) {
	p, err := prepare(req.Args, mergeEnv(in.boot.Spec.Env, req.Env), req.Dir, req.User)
	if err != nil {
		_ = conn.Write(wire.Error, []byte(err.Error()))
		return
	}
	x := &execution{conn: conn}
	defer x.close()
	done, err := x.start(in.reaper, p, req.TTY)
	if err != nil {
		_ = conn.Write(wire.Error, []byte(err.Error()))
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		x.input()
	}()
	var ws syscall.WaitStatus
	select {
	case ws = <-done:
	case <-gone:
		// The server let go, or died: the program ends with the connection.
		_ = syscall.Kill(-x.group, syscall.SIGKILL)
		<-done
		return
	}
	x.drain()
	// What the program left in its group ends with it only on request: a
	// start script's background server must go on.
	_ = conn.WriteExit(code(ws))
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	<-gone
}

// start runs the program with its streams on pipes or on a new terminal.
func (x *execution) start(r *reaper, p *program, tty bool) (<-chan syscall.WaitStatus, error) {
	attr := &syscall.ProcAttr{Dir: p.dir, Env: p.env, Sys: &syscall.SysProcAttr{Setsid: true, Credential: p.cred}}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	if tty {
		master, slave, err := openTerminal(p.cred)
		if err != nil {
			return nil, err
		}
		x.tty, x.stdin = master, master
		x.ours = append(x.ours, master)
		theirs = append(theirs, slave)
		attr.Sys.Setctty = true
		attr.Files = []uintptr{slave.Fd(), slave.Fd(), slave.Fd()}
	} else {
		for i := range 3 {
			pr, pw, err := os.Pipe()
			if err != nil {
				return nil, err
			}
			their, our := pw, pr
			if i == 0 {
				their, our = pr, pw
				x.stdin = our
			}
			theirs, x.ours = append(theirs, their), append(x.ours, our)
			attr.Files = append(attr.Files, their.Fd())
		}
	}
	pid, done, err := r.start(p.path, p.argv, attr)
	if err != nil {
		return nil, err
	}
	x.group = pid
	if tty {
		x.copyOut(wire.Stdout, x.tty)
	} else {
		x.copyOut(wire.Stdout, x.ours[1])
		x.copyOut(wire.Stderr, x.ours[2])
	}
	return done, nil
}

func (x *execution) copyOut(kind byte, from *os.File) {
	x.outs.Go(func() {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 && x.conn.Write(kind, buf[:n]) != nil {
				return
			}
			if err != nil {
				return // EOF; EIO is a terminal's way to say so
			}
		}
	})
}

// drain waits for the output to end, and a moment only if others hold it open.
func (x *execution) drain() {
	all := make(chan struct{})
	go func() { x.outs.Wait(); close(all) }()
	select {
	case <-all:
		return
	case <-time.After(drainTime):
	}
	for _, f := range x.ours {
		_ = f.SetReadDeadline(time.Now())
	}
	select {
	case <-all:
	case <-time.After(5 * time.Second): // the server is slow to take what there is
	}
}

// input carries the server's frames to the program until the connection ends.
// It never waits for the program.
func (x *execution) input() {
	queue := make(chan []byte, wire.StdinWindow+1)
	defer close(queue)
	go x.feed(queue)
	for {
		kind, payload, err := x.conn.Read()
		if err != nil {
			return
		}
		switch kind {
		case wire.Stdin, wire.StdinEOF:
			if kind == wire.StdinEOF {
				payload = nil
			}
			select {
			case queue <- payload:
			default:
				return // the server does not keep to the window
			}
		case wire.Resize:
			if x.tty != nil && len(payload) == 4 {
				x.resize(binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]))
			}
		case wire.Signal:
			if len(payload) == 1 && payload[0] > 0 && payload[0] < 65 {
				_ = syscall.Kill(-x.group, syscall.Signal(payload[0]))
			}
		}
	}
}

// feed writes what the server sent to the program's input; nil is its end.
func (x *execution) feed(queue <-chan []byte) {
	ended := false
	for b := range queue {
		switch {
		case ended:
		case len(b) > 0:
			_, err := x.stdin.Write(b)
			ended = err != nil // the program reads no more
		case x.tty != nil:
			_, _ = x.tty.Write([]byte{4}) // ^D
		default:
			ended = true
		}
		if ended && x.tty == nil {
			x.stdin.Close()
		}
		if len(b) > 0 && x.conn.Write(wire.StdinAck, nil) != nil {
			ended = true
		}
	}
}

func (x *execution) resize(rows, cols uint16) {
	raw, err := x.tty.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

func (x *execution) close() {
	for _, f := range x.ours {
		_ = f.Close()
	}
}

// openTerminal makes a pseudo-terminal of the machine's own devpts.
func openTerminal(cred *syscall.Credential) (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	defer func() {
		if err != nil {
			master.Close()
		}
	}()
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	name := "/dev/pts/" + strconv.Itoa(int(n))
	slave, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	if cred != nil {
		_ = os.Chown(name, int(cred.Uid), -1)
	}
	return master, slave, nil
}
