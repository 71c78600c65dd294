package sandbox

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// bootTime bounds how long a machine may take until its init answers; it is
// 10 to 50 ms on a quiet host.
const bootTime = 30 * time.Second

// Boot implements machine.Driver.
func (d *Driver) Boot(ctx context.Context, spec machine.Spec) (machine.Status, error) {
	if err := machine.CheckSpec(&spec); err != nil {
		return machine.Status{}, err
	}
	release, err := d.locks.take(ctx, spec.ID)
	if err != nil {
		return machine.Status{}, err
	}
	defer release()
	if b, err := d.box(spec.ID); err == nil {
		return d.start(ctx, b)
	}
	layers, err := d.imageLayers(spec.Image)
	if err != nil {
		return machine.Status{}, err
	}
	b := &box{rec: record{Intent: intentBoot, Spec: spec, Layers: layers}, state: machine.StateBooting}
	if err := d.enlist(b); err != nil {
		return machine.Status{}, err
	}
	if err := d.launch(ctx, b); err != nil {
		clean, cancel := cleanupContext(ctx)
		defer cancel()
		return machine.Status{}, errors.Join(fmt.Errorf("boot %s: %w", spec.ID, err), d.erase(clean, b))
	}
	return d.Status(spec.ID)
}

// enlist reserves the ID and the address.
func (d *Driver) enlist(b *box) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("the driver is closed")
	}
	for id, other := range d.machines {
		if b.rec.Spec.PrivateIP != "" && other.rec.Spec.PrivateIP == b.rec.Spec.PrivateIP {
			return fmt.Errorf("address %s belongs to %s: %w", b.rec.Spec.PrivateIP, id, machine.ErrExists)
		}
	}
	d.machines[b.rec.Spec.ID] = b
	return nil
}

// launch starts the machine of b, whose key lock the caller holds. When it
// fails nothing runs, and the disk is as it was.
func (d *Driver) launch(ctx context.Context, b *box) (err error) {
	spec := b.rec.Spec
	boot, err := d.bootConfig(b)
	if err != nil {
		return err
	}
	d.mu.Lock()
	b.rec.Link = newLinkName()
	d.mu.Unlock()
	if err := d.saveBox(b); err != nil {
		return err
	}
	if err := d.makeDisk(spec.ID); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			clean, cancel := cleanupContext(ctx)
			defer cancel()
			err = errors.Join(err, d.abandon(clean, b))
		}
	}()
	if err := d.cg.create(spec); err != nil {
		return err
	}
	child, err := d.clone(spec.ID)
	if err != nil {
		return err
	}
	defer child.close()
	if err := d.cg.add(spec.ID, child.pid); err != nil {
		return err
	}
	if spec.PrivateIP != "" {
		if err := d.vpc.attach(b.rec.Link, spec.PrivateIP, child.pid); err != nil {
			return err
		}
	}
	if err := child.handOver(ctx, boot); err != nil {
		return err
	}
	d.mu.Lock()
	b.rec.PID, b.rec.BootedAt, b.rec.Intent = child.pid, d.clk.Now(), intentRun
	b.rec.Cause, b.rec.ExitedAt = "", time.Time{}
	d.mu.Unlock()
	if err := d.saveBox(b); err != nil {
		return err
	}
	d.watch(b, child.takePidfd(), true)
	return nil
}

// bootConfig is what the child is told.
func (d *Driver) bootConfig(b *box) (*wire.Boot, error) {
	spec := b.rec.Spec
	mask, err := d.hostMask()
	if err != nil {
		return nil, err
	}
	boot := &wire.Boot{Spec: spec, Hostname: spec.Hostname, Upper: d.paths.upper(spec.ID), Work: d.paths.work(spec.ID),
		Stage: d.paths.stage(), Binary: d.opts.Binary, Volatile: spec.Kind == machine.KindBuild,
		Mask: append(mask, identity(spec)...)}
	for _, l := range b.rec.Layers {
		boot.Layers = append(boot.Layers, d.paths.layer(l))
	}
	for _, m := range spec.Mounts {
		if !filepath.IsAbs(m.Source) {
			m.Source = d.paths.volume(m.Source)
			// World-writable like a shared disk's root: applications of several
			// users write there.
			if err := os.MkdirAll(m.Source, 0o755); err != nil {
				return nil, fmt.Errorf("volume: %w", err)
			}
			if err := os.Chmod(m.Source, 0o1777); err != nil {
				return nil, fmt.Errorf("volume: %w", err)
			}
		} else if _, err := os.Stat(m.Source); err != nil {
			return nil, fmt.Errorf("%w: mount source: %v", machine.ErrInvalid, err)
		}
		boot.Mounts = append(boot.Mounts, m)
	}
	if spec.PrivateIP != "" {
		boot.Net = &wire.Net{Address: spec.PrivateIP, Gateway: gatewayIP, GwMAC: gatewayMAC, DNS: vpcHost}
	}
	return boot, nil
}

func (d *Driver) makeDisk(id string) error {
	for _, dir := range []string{d.paths.upper(id), d.paths.work(id)} {
		if _, err := os.Stat(dir); err == nil {
			continue // of an earlier boot
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("disk: %w", err)
		}
		// The upper directory's mode is that of the machine's /, whatever this
		// process's mask is.
		if err := os.Chmod(dir, 0o755); err != nil {
			return fmt.Errorf("disk: %w", err)
		}
	}
	// A mount of an earlier kernel with "volatile" leaves a mark that refuses
	// the next one.
	return os.RemoveAll(filepath.Join(d.paths.work(id), "work", "incompat"))
}

// newLinkName is unique: a dead machine's link may linger under its old name.
func newLinkName() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b)
	return "sw" + hex.EncodeToString(b)
}

// child is a cloned process that waits for its configuration.
type child struct {
	pid    int
	pidfd  int
	config *os.File
	ready  *os.File
}

// clone starts stage 1 of init in its namespaces.
func (d *Driver) clone(id string) (*child, error) {
	socket := d.paths.socket(id)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	var theirs []*os.File
	c := &child{pidfd: -1}
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if c.pid == 0 {
			c.close()
		}
	}()
	keep := func(f *os.File, err error) (*os.File, error) {
		if err == nil {
			theirs = append(theirs, f)
		}
		return f, err
	}
	sock, err := keep(ln.File())
	if err != nil {
		return nil, err
	}
	console, err := keep(os.OpenFile(d.paths.console(id), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600))
	if err != nil {
		return nil, err
	}
	null, err := keep(os.OpenFile(os.DevNull, os.O_RDWR, 0))
	if err != nil {
		return nil, err
	}
	configR, configW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.config = configW
	theirs = append(theirs, configR)
	readyR, readyW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.ready = readyR
	theirs = append(theirs, readyW)

	attr := &syscall.SysProcAttr{Setsid: true, PidFD: &c.pidfd,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET}
	if d.cg.unified != "" {
		dir, err := keep(os.Open(filepath.Join(d.cg.unified, d.cg.parent, id)))
		if err != nil {
			return nil, err
		}
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	p, err := os.StartProcess(d.opts.Binary, []string{"slipway", "init"}, &os.ProcAttr{Dir: "/", Env: []string{"GOGC=off"},
		Files: []*os.File{null, console, console, configR, readyW, sock, console}, Sys: attr})
	if err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSPC) {
			return nil, fmt.Errorf("%w: this host does not let us make namespaces (in a container? give it CAP_SYS_ADMIN): %v", machine.ErrUnsupported, err)
		}
		return nil, err
	}
	c.pid = p.Pid
	return c, p.Release() // the watcher waits
}

func (c *child) close() {
	for _, f := range []*os.File{c.config, c.ready} {
		if f != nil {
			f.Close()
		}
	}
	if c.pidfd >= 0 {
		unix.Close(c.pidfd)
		c.pidfd = -1
	}
}

func (c *child) takePidfd() int {
	fd := c.pidfd
	c.pidfd = -1
	return fd
}

// handOver sends the configuration and waits until init is ready.
func (c *child) handOver(ctx context.Context, boot *wire.Boot) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		_ = c.ready.SetReadDeadline(time.Unix(1, 0))
		_ = c.config.SetWriteDeadline(time.Unix(1, 0))
	})()
	err := json.NewEncoder(c.config).Encode(boot)
	_ = c.config.Close()
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		return fmt.Errorf("configure init: %w", errors.Join(ctx.Err(), err))
	}
	sc := bufio.NewScanner(c.ready)
	for sc.Scan() {
		var s wire.Stage
		if err := json.Unmarshal(sc.Bytes(), &s); err != nil {
			return fmt.Errorf("init: %w", err)
		}
		if s.Ready {
			return nil
		}
		return fmt.Errorf("init: %s", s.Error)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("init is not ready: %w", err)
	}
	return errors.New("init died before it was ready")
}

// cleanupContext outlives the caller's patience: what was begun is given back.
func cleanupContext(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), bootTime)
}
