package sandbox

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/clock"
	"slipway/internal/machine"
	"slipway/internal/machine/sandbox/wire"
)

// Options of a driver.
type Options struct {
	// DataDir holds disks, images, volumes and records. One driver at a time.
	DataDir string
	// Binary is the slipway executable shown to machines; "" means this one.
	Binary string
	// Clock stamps events and statuses; nil means clock.Real. Waiting for the
	// kernel and for programs is always in real time.
	Clock clock.Clock
	// Log receives what no caller can be told; nil means slog.Default.
	Log *slog.Logger
	// Hide are further paths of the host that no machine may see. Nearly all of
	// the host is hidden anyway; see hostMask.
	Hide []string
	// ReachHost lets machines connect to the addresses of the host's interfaces,
	// past its firewall. Its loopback stays out of reach.
	ReachHost bool
	// NoEgress keeps machines from the outside world.
	NoEgress bool
}

// Driver implements machine.Driver with Linux namespaces.
type Driver struct {
	opts  Options
	clk   clock.Clock
	log   *slog.Logger
	paths paths
	inst  string // installation: 8 hex digits of the data directory's name
	lock  *os.File
	cg    *cgroups
	vpc   *vpc
	hub   machine.Hub
	locks keyLocks
	mask  maskCache

	mu       sync.Mutex
	machines map[string]*box
	images   map[string]machine.Image
	closed   bool
	watchers sync.WaitGroup
	stop     chan struct{} // closed by Close: watchers end
}

// box is a machine in memory. Its fields are guarded by Driver.mu; the record
// is changed only by the holder of the machine's key lock.
type box struct {
	rec    record
	state  machine.State
	pidfd  *os.File // nil when not running
	exited chan struct{}
}

var _ machine.Driver = (*Driver)(nil)

// Open takes the data directory, adopts what runs, and purges what is half made.
// It fails with machine.ErrUnsupported, saying why, where machines cannot run.
func Open(ctx context.Context, opts Options) (_ *Driver, err error) {
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w: running instances as sandboxes needs root; run with sudo, or with --machines=simulated", machine.ErrUnsupported)
	}
	d := &Driver{opts: opts, clk: opts.Clock, log: opts.Log, machines: map[string]*box{}, stop: make(chan struct{})}
	if d.clk == nil {
		d.clk = clock.Real
	}
	if d.log == nil {
		d.log = slog.Default()
	}
	if err := d.locate(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if err := d.prepare(); err != nil {
		return nil, err
	}
	if err := d.loadImages(); err != nil {
		return nil, err
	}
	if err := d.adoptAll(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// locate makes the directories and takes the lock.
func (d *Driver) locate(ctx context.Context) error {
	data, err := filepath.Abs(d.opts.DataDir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if data, err = filepath.EvalSymlinks(data); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	sum := sha256.Sum256([]byte(data))
	d.inst = hex.EncodeToString(sum[:4])
	d.paths = paths{data: data, run: "/run/slipway-" + d.inst}
	d.lock, err = os.OpenFile(d.paths.lock(), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	if err := d.takeLock(ctx, lockTime); err != nil {
		d.lock.Close()
		return fmt.Errorf("%w: another server uses the data directory %s", machine.ErrInUse, data)
	}
	return nil
}

// lockTime is how long a lock may be held by a process that a killed server was
// just cloning: it lets go when it executes its program.
const lockTime = 2 * time.Second

func (d *Driver) takeLock(ctx context.Context, patience time.Duration) error {
	for end := clock.Real.Now().Add(patience); ; {
		err := unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !clock.Real.Now().Before(end) {
			return err
		}
		if err := clock.Real.Sleep(ctx, pollMost); err != nil {
			return err
		}
	}
}

// prepare makes what all machines share.
func (d *Driver) prepare() (err error) {
	for _, dir := range []string{d.paths.machines(), d.paths.images(), d.paths.layers(), d.paths.volumes(), d.paths.bin(), d.paths.stage()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare machines: %w", err)
		}
	}
	if err := d.placeBinary(); err != nil {
		return err
	}
	if d.cg, err = openCgroups("slipway-" + d.inst); err != nil {
		return err
	}
	if d.vpc, err = openVPC(d.paths.vpc()); err != nil {
		if errors.Is(err, machine.ErrUnsupported) {
			d.giveBack()
		}
		return err
	}
	return nil
}

// giveBack removes what prepare made on a host that turned out not to have
// network namespaces. Only what is empty goes: a machine's group stays.
func (d *Driver) giveBack() {
	for _, path := range []string{d.paths.vpc(), d.paths.stage(), d.paths.run} {
		_ = os.Remove(path) // in use, or never made
	}
	_ = d.cg.removeParents() // the same
}

// placeBinary keeps this version of the executable for the machines that run
// it, by a hard link where possible: an upgrade must not pull it from under them.
// One that only its owner may run is copied, for in machines every user may.
func (d *Driver) placeBinary() error {
	src := d.opts.Binary
	if src == "" {
		var err error
		if src, err = os.Executable(); err != nil {
			return fmt.Errorf("find the slipway executable: %w", err)
		}
	}
	info, err := os.Stat(src)
	if err != nil {
		return fmt.Errorf("the slipway executable: %w", err)
	}
	dst := filepath.Join(d.paths.bin(), fmt.Sprintf("slipway-%x-%x", info.ModTime().UnixNano(), info.Size()))
	const mode = 0o755
	if kept, err := os.Stat(dst); err != nil || kept.Mode().Perm()&mode != mode {
		if info.Mode().Perm()&mode != mode || os.Link(src, dst) != nil {
			if err := copyFile(src, dst, mode); err != nil {
				return fmt.Errorf("keep the slipway executable: %w", err)
			}
		}
	}
	d.opts.Binary = dst
	return nil
}

// Name implements machine.Driver.
func (d *Driver) Name() string { return "sandbox" }

// Events implements machine.Driver.
func (d *Driver) Events() (<-chan machine.Event, func()) { return d.hub.Subscribe() }

// List implements machine.Driver.
func (d *Driver) List() []machine.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]machine.Status, 0, len(d.machines))
	for _, b := range d.machines {
		out = append(out, b.status())
	}
	slices.SortFunc(out, func(a, b machine.Status) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Status implements machine.Driver.
func (d *Driver) Status(id string) (machine.Status, error) {
	b, err := d.box(id)
	if err != nil {
		return machine.Status{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return b.status(), nil
}

func (b *box) status() machine.Status {
	s := machine.Status{ID: b.rec.Spec.ID, State: b.state, Spec: b.rec.Spec, BootedAt: b.rec.BootedAt}
	if b.pidfd != nil {
		s.PID = b.rec.PID
	} else {
		s.ExitedAt, s.ExitCause = b.rec.ExitedAt, b.rec.Cause
	}
	return s
}

func (d *Driver) box(id string) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b, ok := d.machines[id]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("machine %s: %w", id, machine.ErrNotFound)
}

// running returns the box if its init is alive.
func (d *Driver) running(id string) (*box, error) {
	b, err := d.box(id)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.pidfd == nil || b.state == machine.StateBooting {
		return nil, fmt.Errorf("machine %s: %w", id, machine.ErrNotRunning)
	}
	return b, nil
}

// ListenVPC implements machine.Driver.
func (d *Driver) ListenVPC(ctx context.Context, network, addr string) (net.Listener, error) {
	return d.vpc.listen(ctx, network, addr)
}

// DialVPC implements machine.Driver.
func (d *Driver) DialVPC(ctx context.Context, network, addr string) (net.Conn, error) {
	return d.vpc.dial(ctx, network, addr)
}

// StartInVPC implements machine.Driver.
func (d *Driver) StartInVPC(cmd *exec.Cmd, prepare func(hostFD int)) error {
	return d.vpc.start(cmd, prepare)
}

// InVPC runs f on a thread inside the VPC's network namespace; sockets that it
// opens stay there.
func (d *Driver) InVPC(f func() error) error { return d.vpc.do(f) }

// Close implements machine.Driver. It is idempotent.
func (d *Driver) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.stop)
	for _, b := range d.machines {
		if b.pidfd != nil {
			b.pidfd.Close() // its watcher ends
		}
	}
	d.mu.Unlock()
	d.watchers.Wait()
	d.hub.Close()
	if d.vpc != nil {
		d.vpc.close()
	}
	return d.lock.Close()
}

// ping asks a machine's init who it is.
func (d *Driver) ping(ctx context.Context, id string) (wire.Pong, error) {
	var p wire.Pong
	err := d.request(ctx, id, wire.Req{Op: "ping"}, &p)
	return p, err
}

// maskCache keeps what is hidden of the host for a moment, because looking at
// all of /etc takes a few milliseconds.
type maskCache struct {
	mu      sync.Mutex
	at      time.Time
	entries []wire.MaskEntry
}

const maskFresh = 10 * time.Second

func (d *Driver) hostMask() ([]wire.MaskEntry, error) {
	d.mask.mu.Lock()
	defer d.mask.mu.Unlock()
	if now := clock.Real.Now(); d.mask.entries == nil || now.Sub(d.mask.at) > maskFresh {
		entries, err := hostMask("/", append([]string{d.paths.data}, d.opts.Hide...))
		if err != nil {
			return nil, err
		}
		d.mask.entries, d.mask.at = entries, now
	}
	return slices.Clone(d.mask.entries), nil
}

// keyLocks serialises what is done to one machine.
type keyLocks struct {
	mu sync.Mutex
	m  map[string]*keyLock
}

type keyLock struct {
	ch   chan struct{} // one token
	uses int
}

// take returns the release; it fails only when ctx ends first.
func (k *keyLocks) take(ctx context.Context, key string) (func(), error) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyLock{}
	}
	l := k.m[key]
	if l == nil {
		l = &keyLock{ch: make(chan struct{}, 1)}
		k.m[key] = l
	}
	l.uses++
	k.mu.Unlock()
	drop := func() {
		k.mu.Lock()
		if l.uses--; l.uses == 0 {
			delete(k.m, key)
		}
		k.mu.Unlock()
	}
	select {
	case l.ch <- struct{}{}:
		return func() { <-l.ch; drop() }, nil
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
}
