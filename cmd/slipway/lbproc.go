package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/lb"
	"slipway/internal/machine"
)

// balancer keeps a `slipway lb` process running: it adopts the one that
// outlived the last server, starts one where there is none, and starts it
// again when it dies. The process reads its last configuration from disk, so
// it serves before anybody tells it anything.
type balancer struct {
	dir       string // runtime and state files
	driver    machine.Driver
	log       *slog.Logger
	scale     float64 // time scale
	client    *lb.Client
	restarted func() // told after a new process is up
}

func newBalancer(dir string, d machine.Driver, scale float64, log *slog.Logger) (*balancer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return &balancer{dir: dir, driver: d, scale: max(scale, 1), log: log, client: lb.NewClient(lbSocket(dir)), restarted: func() {}}, nil
}

func lbSocket(dir string) string { return filepath.Join(dir, "lb.sock") }

// ensure returns the process that serves now, starting one if need be.
func (b *balancer) ensure(ctx context.Context) (pid int, err error) {
	if info, err := b.ping(ctx); err == nil {
		return info.PID, nil
	}
	logFile, err := os.OpenFile(filepath.Join(b.dir, "lb.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer logFile.Close()
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(exe, "lb", "--socket", lbSocket(b.dir), "--state", filepath.Join(b.dir, "lb.json"), fmt.Sprintf("--time-scale=%v", b.scale))
	cmd.Stdout, cmd.Stderr, cmd.Dir = logFile, logFile, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = b.driver.StartInVPC(cmd, func(hostFD int) {
		if hostFD >= 0 {
			cmd.Args = append(cmd.Args, "--host-netns-fd", strconv.Itoa(hostFD))
		}
	})
	if err != nil {
		return 0, fmt.Errorf("start the load balancer process: %w", err)
	}
	died := make(chan error, 1)
	go func() { died <- cmd.Wait() }()
	deadline := time.After(10 * time.Second)
	for {
		if info, err := b.ping(ctx); err == nil && info.PID == cmd.Process.Pid {
			return info.PID, nil
		}
		select {
		case err := <-died:
			return 0, fmt.Errorf("the load balancer process ended at once (%v); its log is %s", err, logFile.Name())
		case <-deadline:
			_ = cmd.Process.Kill()
			return 0, fmt.Errorf("the load balancer process does not answer; its log is %s", logFile.Name())
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			return 0, ctx.Err()
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (b *balancer) ping(ctx context.Context) (lb.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return b.client.Ping(ctx)
}

// Run watches the process until ctx ends and leaves it running.
func (b *balancer) Run(ctx context.Context) error {
	pid, err := b.ensure(ctx)
	for {
		if err != nil && ctx.Err() == nil {
			b.log.Error("load balancer process", "error", err)
		}
		if err == nil {
			waitExit(ctx, pid)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			b.log.Warn("the load balancer process died; starting it again", "pid", pid)
		}
		wait := time.Duration(0)
		if err != nil {
			wait = time.Second
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if pid, err = b.ensure(ctx); err == nil {
			b.restarted()
		}
	}
}

// waitExit returns when a process, of whomever's, has ended, or with ctx.
func waitExit(ctx context.Context, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // gone already
	}
	defer unix.Close(fd)
	for ctx.Err() == nil {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 200)
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return
		}
	}
}

// stopBalancer ends the process that serves a directory, gracefully first.
func stopBalancer(ctx context.Context, dir string) error {
	c := lb.NewClient(lbSocket(dir))
	defer c.Close()
	pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	info, err := c.Ping(pctx)
	if err != nil {
		return nil // nothing answers
	}
	fd, err := unix.PidfdOpen(info.PID, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil {
			return nil
		}
		wctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		waitExit(wctx, info.PID)
		ended := wctx.Err() == nil
		cancel()
		if ended {
			return nil
		}
	}
	return fmt.Errorf("the load balancer process %d does not end", info.PID)
}
