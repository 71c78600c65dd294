package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// stopGrace is how long services may take to end before they are killed.
const stopGrace = 10 * time.Second

// watch waits for the end of a machine whose init is alive, in a goroutine.
func (d *Driver) watch(b *box, pidfd int, ours bool) {
	_ = unix.SetNonblock(pidfd, true)
	f := os.NewFile(uintptr(pidfd), "pidfd")
	exited := make(chan struct{})
	d.mu.Lock()
	b.pidfd, b.exited, b.state = f, exited, machine.StateRunning
	id, pid := b.rec.Spec.ID, b.rec.PID
	d.watchers.Go(func() { d.awaitExit(b, f, exited, id, pid, ours) })
	d.mu.Unlock()
	d.hub.Send(machine.Event{Type: machine.EventReady, ID: id, PID: pid, At: d.clk.Now()})
}

func (d *Driver) awaitExit(b *box, f *os.File, exited chan struct{}, id string, pid int, ours bool) {
	raw, err := f.SyscallConn()
	if err == nil {
		err = raw.Read(func(fd uintptr) bool {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, _ := unix.Poll(fds, 0)
			return n > 0
		})
	}
	if err != nil { // closed: the driver lets go, the machine lives on
		close(exited)
		return
	}
	cause := ""
	if ours {
		var ws syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err == nil {
			cause = describeExit(ws)
		}
	}
	d.mu.Lock()
	if b.rec.Cause == "" {
		b.rec.Cause = cause
		if cause == "" {
			b.rec.Cause = "exited"
		}
	}
	b.state, b.rec.ExitedAt = machine.StateStopped, d.clk.Now()
	e := machine.Event{Type: machine.EventExited, ID: id, PID: pid, Cause: b.rec.Cause, At: b.rec.ExitedAt}
	if b.rec.Intent == intentRun {
		if err := d.paths.save(&b.rec); err != nil {
			d.log.Warn("an instance's end could not be recorded", "instance", id, "error", err)
		}
	}
	d.mu.Unlock()
	d.hub.Send(e)

	ctx, cancel := cleanupContext(context.Background())
	defer cancel()
	if err := errors.Join(d.cg.kill(ctx, id), d.cg.remove(ctx, id)); err != nil {
		d.log.Warn("a dead instance's control groups remain", "instance", id, "error", err)
	}
	_ = os.Remove(d.paths.socket(id))
	f.Close()
	d.mu.Lock()
	b.pidfd = nil
	d.mu.Unlock()
	close(exited)
}

func describeExit(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "signal: " + ws.Signal().String()
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// abandon undoes a launch that failed half-way; the disk stays.
func (d *Driver) abandon(ctx context.Context, b *box) error {
	id := b.rec.Spec.ID
	pids := d.cg.procs(id)
	err := errors.Join(d.cg.kill(ctx, id), d.cg.remove(ctx, id))
	for _, pid := range pids {
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil) // ours alone; others give ECHILD
	}
	if b.rec.Link != "" {
		d.vpc.detach(b.rec.Link)
	}
	_ = os.Remove(d.paths.socket(id))
	return err
}

// awaitEnd waits until a dead or dying machine is fully given back.
func (d *Driver) awaitEnd(ctx context.Context, b *box) error {
	d.mu.Lock()
	alive, exited := b.pidfd != nil, b.exited
	d.mu.Unlock()
	if !alive {
		return nil
	}
	select {
	case <-exited:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Start implements machine.Driver.
func (d *Driver) Start(ctx context.Context, id string) (machine.Status, error) {
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return machine.Status{}, err
	}
	defer release()
	b, err := d.box(id)
	if err != nil {
		return machine.Status{}, err
	}
	return d.start(ctx, b)
}

func (d *Driver) start(ctx context.Context, b *box) (machine.Status, error) {
	id := b.rec.Spec.ID
	d.mu.Lock()
	running := b.state == machine.StateRunning
	d.mu.Unlock()
	if running {
		return d.Status(id)
	}
	if err := d.awaitEnd(ctx, b); err != nil {
		return machine.Status{}, err
	}
	d.set(b, machine.StateBooting, intentStart)
	if err := d.launch(ctx, b); err != nil {
		d.set(b, machine.StateStopped, intentStop)
		return machine.Status{}, errors.Join(fmt.Errorf("start %s: %w", id, err), d.saveBox(b))
	}
	return d.Status(id)
}

// Stop implements machine.Driver.
func (d *Driver) Stop(ctx context.Context, id string) error {
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	b, err := d.box(id)
	if err != nil {
		return err
	}
	return d.stopBox(ctx, b)
}

func (d *Driver) stopBox(ctx context.Context, b *box) error {
	d.mu.Lock()
	alive := b.pidfd != nil
	if alive && b.state == machine.StateRunning {
		b.state, b.rec.Cause = machine.StateStopping, "stopped"
	}
	b.rec.Intent = intentStop
	d.mu.Unlock()
	if err := d.saveBox(b); err != nil {
		return err
	}
	if !alive {
		return nil
	}
	id := b.rec.Spec.ID
	// An init that does not answer is killed below.
	asked := d.request(ctx, id, wire.Req{Op: "shutdown", GraceMillis: stopGrace.Milliseconds()}, nil)
	if asked == nil {
		patience, cancel := context.WithTimeout(ctx, stopGrace+2*time.Second)
		defer cancel()
		if d.awaitEnd(patience, b) == nil {
			return nil
		}
	}
	clean, cancel := cleanupContext(ctx)
	defer cancel()
	return errors.Join(d.cg.kill(clean, id), d.awaitEnd(clean, b))
}

// Reboot implements machine.Driver.
func (d *Driver) Reboot(ctx context.Context, id string) (machine.Status, error) {
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return machine.Status{}, err
	}
	defer release()
	b, err := d.box(id)
	if err != nil {
		return machine.Status{}, err
	}
	if err := d.stopBox(ctx, b); err != nil {
		return machine.Status{}, err
	}
	return d.start(ctx, b)
}

// Kill implements machine.Driver. It does not wait for a Boot or Stop under way.
func (d *Driver) Kill(_ context.Context, id string) error {
	b, err := d.running(id)
	if err != nil {
		return err
	}
	d.mu.Lock()
	link := b.rec.Link
	d.mu.Unlock()
	d.vpc.unplug(link)
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.pidfd == nil {
		return nil
	}
	raw, err := b.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	if b.rec.Cause == "" {
		b.rec.Cause = "killed"
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return nil
	}
	return sent
}

// Destroy implements machine.Driver.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	release, err := d.locks.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	b, err := d.box(id)
	if err != nil {
		return nil // unknown: already so
	}
	d.mu.Lock()
	b.rec.Intent = intentDestroy
	if b.rec.Cause == "" {
		b.rec.Cause = "destroyed"
	}
	d.mu.Unlock()
	if err := d.saveBox(b); err != nil {
		return err
	}
	return d.erase(ctx, b)
}

// erase ends the machine and deletes its disk; the caller holds its key lock.
func (d *Driver) erase(ctx context.Context, b *box) error {
	id := b.rec.Spec.ID
	d.vpc.unplug(b.rec.Link)
	err := d.cg.kill(ctx, id)
	if err == nil {
		err = d.awaitEnd(ctx, b)
	}
	if err == nil {
		err = d.cg.remove(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	if err := os.Remove(d.paths.socket(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.RemoveAll(d.paths.machine(id)); err != nil {
		return fmt.Errorf("destroy %s: %w", id, err)
	}
	d.mu.Lock()
	delete(d.machines, id)
	d.mu.Unlock()
	return nil
}

func (d *Driver) set(b *box, s machine.State, i intent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b.state, b.rec.Intent = s, i
}

// saveBox writes the record; the watcher writes it too, so under the lock.
func (d *Driver) saveBox(b *box) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.paths.save(&b.rec)
}
