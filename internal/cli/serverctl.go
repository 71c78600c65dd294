package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"slipway/internal/hostinfo"
)

func (o *ServerOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.Listen, "listen", "127.0.0.1:4566", "address of the API endpoint")
	f.StringVar(&o.Account, "account", account, "AWS account id that everything belongs to")
	f.StringVar(&o.Machines, "machines", "sandbox", "what instances are: sandbox (Linux namespaces, needs root) or simulated (nothing boots)")
	f.StringVar(&o.Auth, "auth", "verify", "verify signatures, or take any credentials (loopback only)")
	f.Float64Var(&o.TimeScale, "time-scale", 1, "how many times faster than real waiting passes")
	f.BoolVar(&o.Ephemeral, "ephemeral", false, "keep state in memory only; POST /_slipway/reset clears it")
	f.BoolVar(&o.StrictImages, "strict-images", false, "refuse image ids that are not registered, instead of taking the default image")
	f.BoolVar(&o.ReachHost, "reach-host", false, "let instances and builds connect to the addresses of this host's interfaces, past its firewall (never its loopback)")
	f.IntVar(&o.PortShift, "port-shift", 8000, "added to listener ports under 1024")
	f.StringVar(&o.LBAddress, "lb-address", "127.0.0.1", "loopback address of the first load balancer; further ones take the addresses 256, 257, ... above it")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "log every request")
}

func serverCommand(o *options, server Server) *cobra.Command {
	var so ServerOptions
	c := &cobra.Command{
		Use: "server", Short: "Run the server in the foreground", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			so.DataDir, so.Region = o.dataDir, o.region
			so.Ready = func(endpoint string) { fmt.Fprintln(os.Stderr, "ready: "+endpoint) }
			return server(cmd.Context(), so)
		},
	}
	so.flags(c.Flags())
	return c
}

// ensureServer connects to the running server, or starts one.
func (u *upOptions) ensureServer(ctx context.Context, scr *screen) (*session, error) {
	s, err := connect(u.options)
	if err == nil || !errors.Is(err, errNoServer) {
		return s, err
	}
	if err := u.preflight(ctx, scr); err != nil {
		return nil, err
	}
	if err := u.startServer(ctx); err != nil {
		return nil, err
	}
	if s, err = connect(u.options); err != nil {
		return nil, err
	}
	scr.say(scr.mark("OK") + " server " + s.endpoint + " (data in " + u.dataDir + ")")
	return s, nil
}

// preflight says what this machine lacks, before anything is made, and
// installs what a package manager has.
func (u *upOptions) preflight(ctx context.Context, scr *screen) error {
	if u.server.Machines != "sandbox" {
		return needPrograms(ctx, scr, "git")
	}
	if runtime.GOOS != "linux" {
		return fmt.Errorf("instances are Linux sandboxes and this is %s; --machines=simulated runs everything but them", runtime.GOOS)
	}
	if os.Getuid() != 0 {
		return errors.New("instances need root: run it with sudo. (--machines=simulated needs no root; nothing boots then.)")
	}
	return needPrograms(ctx, scr, "git", "nginx")
}

// needPrograms installs what is not there, saying so.
func needPrograms(ctx context.Context, scr *screen, names ...string) error {
	var missing []string
	for _, n := range names {
		if _, err := exec.LookPath(n); err != nil {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	list := strings.Join(missing, " and ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		return fmt.Errorf("%s must be installed first (for example: apt-get install %s)", list, strings.Join(missing, " "))
	}
	scr.say("installing " + list + " with apt-get")
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-y", "-q", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		// A package must not start its service: port 80 is the user's.
		if args[0] == "install" {
			undo, err := forbidServices()
			if err != nil {
				return err
			}
			defer undo()
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, lastLines(string(out), 8))
		}
	}
	return nil
}

// forbidServices keeps Debian's packages from starting their services for as
// long as they are installed (policy-rc.d, Debian Policy 9.3).
func forbidServices() (undo func(), err error) {
	const path = "/usr/sbin/policy-rc.d"
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if errors.Is(err, os.ErrExist) {
		return func() {}, nil // the machine has a policy of its own
	}
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(f, "#!/bin/sh\nexit 101\n"); err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return func() { os.Remove(path) }, f.Close()
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// startServer starts `slipway server` in the background and waits until it
// serves, or says why it does not.
func (u *upOptions) startServer(ctx context.Context) error {
	fresh, err := hostinfo.Claim(u.dataDir)
	if err != nil {
		return err
	}
	// Asked here as well as by the server, for a sentence instead of a log.
	l, err := net.Listen("tcp", u.server.Listen)
	if err != nil {
		return fmt.Errorf("the API endpoint cannot listen on %s: %w; give another with --listen", u.server.Listen, err)
	}
	l.Close()
	if err := os.MkdirAll(u.dataDir, 0o700); err != nil {
		return hostinfo.Explain(u.dataDir, err)
	}
	logPath := filepath.Join(u.dataDir, hostinfo.LogFile)
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return hostinfo.Explain(u.dataDir, err)
	}
	defer logFile.Close()
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	so := u.server
	args := []string{"server", "--data-dir", u.dataDir, "--region", u.region, "--listen", so.Listen, "--account", so.Account, "--machines", so.Machines,
		"--auth", so.Auth, fmt.Sprintf("--time-scale=%v", so.TimeScale), fmt.Sprintf("--ephemeral=%v", so.Ephemeral),
		fmt.Sprintf("--strict-images=%v", so.StrictImages), fmt.Sprintf("--reach-host=%v", so.ReachHost), fmt.Sprintf("--port-shift=%d", so.PortShift), "--lb-address", so.LBAddress, fmt.Sprintf("--verbose=%v", so.Verbose)}
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	from, err := logFile.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	deadline := time.After(60 * time.Second)
	for {
		if run, err := hostinfo.ReadRunning(u.dataDir); err == nil && run.PID == cmd.Process.Pid {
			return nil
		}
		select {
		case err := <-died:
			said := since(logFile, from)
			if fresh {
				// The server took back what it had made; so does this.
				err = errors.Join(err, os.Remove(logPath), hostinfo.Discard(u.dataDir))
			}
			return fmt.Errorf("the server did not start (%v):\n%s", err, said)
		case <-deadline:
			return fmt.Errorf("the server is not ready after a minute; its log is %s", logPath)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// since returns what was written to a log from an offset on.
func since(f *os.File, from int64) string {
	b, err := io.ReadAll(io.LimitReader(io.NewSectionReader(f, from, 1<<20), 1<<20))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(b), 10)
}

func downCommand(o *options) *cobra.Command {
	var purge bool
	c := &cobra.Command{
		Use: "down", Short: "Stop the instances, the load balancers and the server; the data stays", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return down(cmd.Context(), o, purge) },
	}
	c.Flags().BoolVar(&purge, "purge", false, "remove the data as well")
	return c
}

// Down stops what a dead server left behind; cmd/slipway provides it.
var Down func(ctx context.Context, dataDir string, purge bool) error

func down(ctx context.Context, o *options, purge bool) error {
	if _, err := os.Stat(o.dataDir); errors.Is(err, os.ErrNotExist) {
		fmt.Println("nothing is running and there is no data in " + o.dataDir)
		return nil
	}
	if _, err := hostinfo.Claim(o.dataDir); err != nil {
		return err
	}
	if run, err := hostinfo.ReadRunning(o.dataDir); err == nil {
		if err := stopServer(ctx, o.dataDir, run.PID); err != nil {
			return err
		}
	}
	if err := Down(ctx, o.dataDir, purge); err != nil {
		return err
	}
	if purge {
		fmt.Println("everything is stopped and " + o.dataDir + " is removed")
	} else {
		fmt.Println("everything is stopped; the data stays in " + o.dataDir + " (slipway up starts again, slipway down --purge removes it)")
	}
	return nil
}

// stopServer ends the server of a data directory, if it still holds the
// directory's lock: a process id alone may by now be somebody else's.
func stopServer(ctx context.Context, dir string, pid int) error {
	deadline := time.Now().Add(30 * time.Second)
	for asked := false; ; {
		lock, err := hostinfo.Lock(dir)
		if err == nil {
			return lock.Close()
		}
		if !errors.Is(err, hostinfo.ErrLocked) {
			return err
		}
		if !asked {
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("the server (process %d) cannot be stopped: %w", pid, err)
			}
			asked = true
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server (process %d) does not stop; its log is %s", pid, filepath.Join(dir, "server.log"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}
