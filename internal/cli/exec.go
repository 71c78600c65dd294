package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"slipway/internal/admin"
)

func execCommand(o *options) *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "exec INSTANCE -- PROGRAM [ARGUMENT...]", Short: "Run a program, such as a shell, in an instance", Args: arguments(1, math.MaxInt),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			program := args[1:]
			if len(program) == 0 {
				program = []string{"sh", "-l"}
			}
			return s.exec(cmd.Context(), args[0], admin.ExecRequest{Args: program, User: user})
		},
	}
	c.Flags().StringVarP(&user, "user", "u", "", "user to run it as (default root)")
	return c
}

func (s *session) exec(ctx context.Context, id string, req admin.ExecRequest) error {
	fd := int(os.Stdin.Fd())
	if term.IsTerminal(fd) && term.IsTerminal(int(os.Stdout.Fd())) {
		req.TTY = true
		req.Env = append(req.Env, "TERM="+envOr("TERM", "xterm"))
		if w, h, err := term.GetSize(fd); err == nil {
			req.Rows, req.Cols = uint16(h), uint16(w)
		}
	}
	conn, r, err := s.upgrade(ctx, "instances/"+url.PathEscape(id)+"/exec", req)
	if err != nil {
		return err
	}
	defer conn.Close()
	out := &admin.FrameWriter{W: conn}
	if req.TTY {
		old, err := term.MakeRaw(fd)
		if err != nil {
			return err
		}
		defer term.Restore(fd, old)
		stop := watchSize(fd, out)
		defer stop()
	}
	go func() {
		// Ends with the process: a read of the terminal cannot be interrupted.
		if _, err := io.Copy(out.Stream(admin.FrameStdin), os.Stdin); err == nil {
			out.Write(admin.FrameEOF, nil)
		}
	}()
	for {
		kind, payload, err := admin.ReadFrame(r)
		if err != nil {
			return fmt.Errorf("the connection to the instance ended: %w", err)
		}
		switch kind {
		case admin.FrameStdout:
			os.Stdout.Write(payload)
		case admin.FrameStderr:
			os.Stderr.Write(payload)
		case admin.FrameExit:
			var e admin.Exit
			if err := json.Unmarshal(payload, &e); err != nil {
				return err
			}
			if e.Error != "" {
				return fmt.Errorf("%s", e.Error)
			}
			if e.Code != 0 {
				return exitCode(e.Code)
			}
			return nil
		}
	}
}

// watchSize tells the other side when the terminal's size changes.
func watchSize(fd int, out *admin.FrameWriter) (stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-c:
				if w, h, err := term.GetSize(fd); err == nil {
					out.WriteJSON(admin.FrameResize, admin.Size{Rows: uint16(h), Cols: uint16(w)})
				}
			case <-done:
				return
			}
		}
	}()
	return func() { signal.Stop(c); close(done) }
}

// upgrade makes a request whose connection is then used for frames.
func (s *session) upgrade(ctx context.Context, path string, body any) (net.Conn, *bufio.Reader, error) {
	u, err := url.Parse(s.endpoint)
	if err != nil {
		return nil, nil, err
	}
	b, err := json.Marshal(body)
	if err != nil {
		return nil, nil, err
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.endpoint+"/_slipway/"+path, strings.NewReader(string(b)))
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	req.SetBasicAuth(s.keys.AccessKeyID, s.keys.SecretAccessKey)
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "slipway-exec")
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, nil, err
	}
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		msg, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		conn.Close()
		return nil, nil, fmt.Errorf("%s", strings.TrimSpace(string(msg)))
	}
	return conn, r, nil
}

func killCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "kill INSTANCE", Short: "Pull the plug on an instance, to see it replaced", Args: arguments(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := connect(o)
			if err != nil {
				return err
			}
			if err := s.admin(cmd.Context(), http.MethodPost, "instances/"+url.PathEscape(args[0])+"/kill", nil, nil); err != nil {
				return err
			}
			fmt.Printf("%s is dead; %s status -w shows its replacement\n", args[0], command(o.dataDir))
			return nil
		},
	}
}
