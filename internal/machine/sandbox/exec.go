package sandbox

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// dial connects to a machine's init. The socket was made by the server and is
// held open by init: nothing inside the machine can point it elsewhere.
func (d *Driver) dial(ctx context.Context, id string) (net.Conn, error) {
	var nd net.Dialer
	c, err := nd.DialContext(ctx, "unix", d.paths.socket(id))
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w: %v", id, machine.ErrNotRunning, err)
	}
	return c, nil
}

// request is one question to init and its answer, into reply if not nil.
func (d *Driver) request(ctx context.Context, id string, req wire.Req, reply any) error {
	c, err := d.dial(ctx, id)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	conn := wire.NewConn(c)
	if err := conn.WriteJSON(wire.Request, req); err != nil {
		return fmt.Errorf("machine %s: %s: %w", id, req.Op, err)
	}
	kind, payload, err := conn.Read()
	switch {
	case err != nil:
		return fmt.Errorf("machine %s: %s: %w", id, req.Op, errors.Join(ctx.Err(), err))
	case kind == wire.Error:
		return fmt.Errorf("machine %s: %s: %s", id, req.Op, payload)
	case kind != wire.Reply:
		return fmt.Errorf("machine %s: %s: unexpected frame %q", id, req.Op, kind)
	case reply == nil:
		return nil
	}
	return json.Unmarshal(payload, reply)
}

// WriteFile implements machine.Driver.
func (d *Driver) WriteFile(ctx context.Context, id string, f machine.File) error {
	if _, err := d.running(id); err != nil {
		return err
	}
	return d.request(ctx, id, wire.Req{Op: "write", File: f}, nil)
}

// Exec implements machine.Driver.
func (d *Driver) Exec(ctx context.Context, id string, spec machine.ExecSpec) (int, error) {
	if len(spec.Args) == 0 {
		return 0, fmt.Errorf("%w: Args: no command", machine.ErrInvalid)
	}
	if _, err := d.running(id); err != nil {
		return 0, err
	}
	if spec.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, spec.Timeout, machine.ErrTimeout)
		defer cancel()
	}
	c, err := d.dial(ctx, id)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	// Closing the connection is what kills the program.
	defer context.AfterFunc(ctx, func() { c.Close() })()
	s := &session{conn: wire.NewConn(c), spec: spec, acks: make(chan struct{}, wire.StdinWindow), done: make(chan struct{})}
	defer close(s.done)
	req := wire.Req{Op: "exec", Args: spec.Args, Env: spec.Env, Dir: spec.Dir, User: spec.User, TTY: spec.TTY}
	if err := s.conn.WriteJSON(wire.Request, req); err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	go s.sendInput()
	if spec.Resize != nil || spec.Signals != nil {
		go s.sendControl()
	}
	code, err := s.receive()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("exec in %s: %w", id, err)
	}
	return code, nil
}

// session is the server's side of one exec.
type session struct {
	conn *wire.Conn
	spec machine.ExecSpec
	acks chan struct{}
	done chan struct{}
}

func (s *session) sendInput() {
	for range wire.StdinWindow {
		s.acks <- struct{}{}
	}
	buf := make([]byte, 32<<10)
	for s.spec.Stdin != nil {
		n, err := s.spec.Stdin.Read(buf)
		if n > 0 {
			select {
			case <-s.acks:
			case <-s.done:
				return
			}
			if s.conn.Write(wire.Stdin, buf[:n]) != nil {
				return
			}
		}
		if err != nil {
			break
		}
	}
	_ = s.conn.Write(wire.StdinEOF, nil)
}

func (s *session) sendControl() {
	for {
		var err error
		select {
		case <-s.done:
			return
		case w, ok := <-s.spec.Resize:
			if !ok {
				s.spec.Resize = nil
				continue
			}
			b := binary.BigEndian.AppendUint16(nil, w.Rows)
			err = s.conn.Write(wire.Resize, binary.BigEndian.AppendUint16(b, w.Cols))
		case n, ok := <-s.spec.Signals:
			if !ok {
				s.spec.Signals = nil
				continue
			}
			err = s.conn.Write(wire.Signal, []byte{byte(n)})
		}
		if err != nil {
			return
		}
	}
}

// receive passes the program's output on until it has ended.
func (s *session) receive() (int, error) {
	for {
		kind, payload, err := s.conn.Read()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the machine died")
			}
			return 0, err
		}
		var to io.Writer
		switch kind {
		case wire.Stdout:
			to = s.spec.Stdout
		case wire.Stderr:
			to = s.spec.Stderr
		case wire.StdinAck:
			select {
			case s.acks <- struct{}{}:
			default:
			}
		case wire.Exit:
			if len(payload) != 4 {
				return 0, errors.New("malformed exit code")
			}
			return int(int32(binary.BigEndian.Uint32(payload))), nil
		case wire.Error:
			return 0, errors.New(string(payload))
		}
		if to != nil {
			if _, err := to.Write(payload); err != nil {
				return 0, fmt.Errorf("pass output on: %w", err)
			}
		}
	}
}
