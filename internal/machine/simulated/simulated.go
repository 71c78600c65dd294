// Package simulated is a machine.Driver that boots nothing: machines are entries
// in memory, commands end at once with exit code 0, and everything else keeps
// the contract of package machine. It needs no root and no Linux, and holds ten
// thousand machines. Faults can be injected for tests of what is built on it.
//
// What it does not do is refused, never pretended: Snapshot records an image
// without content, and Exec runs only what Options.Exec implements.
package simulated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"time"

	"slipway/internal/clock"
	"slipway/internal/machine"
)

// Options of a driver; the zero value is ready to use.
type Options struct {
	Clock clock.Clock // nil means clock.Real
	// BootTime is how long a Boot or Start takes on Clock; 0 means no time at all.
	BootTime time.Duration
	// Exec stands for the programs inside; nil means: exit code 0, no output.
	Exec func(ctx context.Context, id string, spec machine.ExecSpec) (int, error)
}

// Driver implements machine.Driver in memory. Nothing survives the process.
type Driver struct {
	opts Options
	clk  clock.Clock
	hub  machine.Hub

	mu       sync.Mutex
	machines map[string]*sim
	images   map[string]machine.Image
	failBoot func(machine.Spec) error
	nextPID  int
	closed   bool
}

type sim struct {
	status  machine.Status
	stats   machine.Stats
	console []byte
	files   map[string]machine.File
	ctx     context.Context // of the running machine; its execs end with it
	end     context.CancelFunc
	busy    chan struct{} // one token: calls that change this machine
	gone    bool
}

var _ machine.Driver = (*Driver)(nil)

// New returns a driver without machines.
func New(opts Options) *Driver {
	if opts.Clock == nil {
		opts.Clock = clock.Real
	}
	return &Driver{opts: opts, clk: opts.Clock, machines: map[string]*sim{}, nextPID: 1000,
		images: map[string]machine.Image{machine.DefaultImage: {ID: machine.DefaultImage, Name: machine.DefaultImage}}}
}

// FailBoots makes Boot and Start fail with what f returns, until f is nil.
func (d *Driver) FailBoots(f func(machine.Spec) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failBoot = f
}

// SetStats sets what Stats answers for a machine, At excepted.
func (d *Driver) SetStats(id string, s machine.Stats) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.machines[id]
	if !ok {
		return notFound(id)
	}
	m.stats = s
	return nil
}

// Die ends a machine as if its PID 1 had died for that cause.
func (d *Driver) Die(id, cause string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.machines[id]
	if !ok {
		return notFound(id)
	}
	d.exit(m, cause)
	return nil
}

func notFound(id string) error { return fmt.Errorf("machine %s: %w", id, machine.ErrNotFound) }

// Name implements machine.Driver.
func (d *Driver) Name() string { return "simulated" }

// take finds a machine and reserves it for one change.
func (d *Driver) take(ctx context.Context, id string) (*sim, func(), error) {
	d.mu.Lock()
	m, ok := d.machines[id]
	d.mu.Unlock()
	if !ok {
		return nil, nil, notFound(id)
	}
	select {
	case m.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	if m.gone {
		<-m.busy
		return nil, nil, notFound(id)
	}
	return m, func() { <-m.busy }, nil
}

// Boot implements machine.Driver.
func (d *Driver) Boot(ctx context.Context, spec machine.Spec) (machine.Status, error) {
	if err := machine.CheckSpec(&spec); err != nil {
		return machine.Status{}, err
	}
	for {
		m, release, err := d.take(ctx, spec.ID)
		if err == nil {
			defer release()
			return d.up(ctx, m, false)
		}
		if !errors.Is(err, machine.ErrNotFound) {
			return machine.Status{}, err
		}
		m, err = d.enlist(spec)
		if errors.Is(err, errRaced) {
			continue
		}
		if err != nil {
			return machine.Status{}, err
		}
		defer func() { <-m.busy }()
		return d.up(ctx, m, true)
	}
}

var errRaced = errors.New("another Boot was first")

// enlist makes an entry whose token the caller holds.
func (d *Driver) enlist(spec machine.Spec) (*sim, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errors.New("the driver is closed")
	}
	if _, ok := d.machines[spec.ID]; ok {
		return nil, errRaced
	}
	if _, ok := d.images[cmp.Or(spec.Image, machine.DefaultImage)]; !ok {
		return nil, fmt.Errorf("image %s: %w", spec.Image, machine.ErrNotFound)
	}
	for id, other := range d.machines {
		if spec.PrivateIP != "" && other.status.Spec.PrivateIP == spec.PrivateIP {
			return nil, fmt.Errorf("address %s belongs to %s: %w", spec.PrivateIP, id, machine.ErrExists)
		}
	}
	m := &sim{status: machine.Status{ID: spec.ID, State: machine.StateBooting, Spec: spec},
		files: map[string]machine.File{}, busy: make(chan struct{}, 1)}
	m.busy <- struct{}{}
	d.machines[spec.ID] = m
	return m, nil
}

// up boots m, whose token the caller holds; a first boot that fails leaves nothing.
func (d *Driver) up(ctx context.Context, m *sim, first bool) (machine.Status, error) {
	d.mu.Lock()
	if m.status.State == machine.StateRunning {
		defer d.mu.Unlock()
		return m.status, nil
	}
	m.status.State = machine.StateBooting
	fail := d.failBoot
	d.mu.Unlock()

	var err error
	if d.opts.BootTime > 0 {
		err = d.clk.Sleep(ctx, d.opts.BootTime)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && fail != nil {
		err = fail(m.status.Spec)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		m.status.State = machine.StateStopped
		if first {
			m.gone = true
			delete(d.machines, m.status.ID)
		}
		return machine.Status{}, fmt.Errorf("boot %s: %w", m.status.ID, err)
	}
	d.nextPID++
	m.ctx, m.end = context.WithCancel(context.Background())
	m.status.State, m.status.PID, m.status.BootedAt = machine.StateRunning, d.nextPID, d.clk.Now()
	m.status.ExitedAt, m.status.ExitCause = time.Time{}, ""
	m.console = fmt.Appendf(m.console, "slipway: %s is up (simulated)\n", m.status.ID)
	d.hub.Send(machine.Event{Type: machine.EventReady, ID: m.status.ID, PID: m.status.PID, At: m.status.BootedAt})
	return m.status, nil
}

// exit ends a running machine; d.mu is held.
func (d *Driver) exit(m *sim, cause string) {
	if m.status.State != machine.StateRunning && m.status.State != machine.StateStopping {
		return
	}
	m.end()
	e := machine.Event{Type: machine.EventExited, ID: m.status.ID, PID: m.status.PID, Cause: cause, At: d.clk.Now()}
	m.status.State, m.status.PID, m.status.ExitedAt, m.status.ExitCause = machine.StateStopped, 0, e.At, cause
	d.hub.Send(e)
}

// Stop implements machine.Driver.
func (d *Driver) Stop(ctx context.Context, id string) error {
	m, release, err := d.take(ctx, id)
	if err != nil {
		return err
	}
	defer release()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exit(m, "stopped")
	return nil
}

// Start implements machine.Driver.
func (d *Driver) Start(ctx context.Context, id string) (machine.Status, error) {
	m, release, err := d.take(ctx, id)
	if err != nil {
		return machine.Status{}, err
	}
	defer release()
	return d.up(ctx, m, false)
}

// Reboot implements machine.Driver.
func (d *Driver) Reboot(ctx context.Context, id string) (machine.Status, error) {
	m, release, err := d.take(ctx, id)
	if err != nil {
		return machine.Status{}, err
	}
	defer release()
	d.mu.Lock()
	d.exit(m, "stopped")
	d.mu.Unlock()
	return d.up(ctx, m, false)
}

// Kill implements machine.Driver.
func (d *Driver) Kill(_ context.Context, id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.live(id)
	if err != nil {
		return err
	}
	d.exit(m, "killed")
	return nil
}

// Destroy implements machine.Driver.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	m, release, err := d.take(ctx, id)
	if errors.Is(err, machine.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.exit(m, "destroyed")
	m.gone = true
	delete(d.machines, id)
	return nil
}

// live is a running machine; d.mu is held.
func (d *Driver) live(id string) (*sim, error) {
	m, ok := d.machines[id]
	if !ok {
		return nil, notFound(id)
	}
	if m.status.State != machine.StateRunning {
		return nil, fmt.Errorf("machine %s: %w", id, machine.ErrNotRunning)
	}
	return m, nil
}

// Exec implements machine.Driver.
func (d *Driver) Exec(ctx context.Context, id string, spec machine.ExecSpec) (int, error) {
	if len(spec.Args) == 0 {
		return 0, fmt.Errorf("%w: Args: no command", machine.ErrInvalid)
	}
	d.mu.Lock()
	m, err := d.live(id)
	d.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if d.opts.Exec == nil {
		return 0, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.ctx, cancel)()
	if spec.Timeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, spec.Timeout, machine.ErrTimeout)
		defer cancel()
	}
	code, err := d.opts.Exec(ctx, id, spec)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return code, err
}

// List implements machine.Driver.
func (d *Driver) List() []machine.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]machine.Status, 0, len(d.machines))
	for _, id := range slices.Sorted(maps.Keys(d.machines)) {
		out = append(out, d.machines[id].status)
	}
	return out
}

// Status implements machine.Driver.
func (d *Driver) Status(id string) (machine.Status, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.machines[id]
	if !ok {
		return machine.Status{}, notFound(id)
	}
	return m.status, nil
}

// Stats implements machine.Driver: zero, or what SetStats set.
func (d *Driver) Stats(id string) (machine.Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.live(id)
	if err != nil {
		return machine.Stats{}, err
	}
	s := m.stats
	s.At, s.MemoryLimit = d.clk.Now(), m.status.Spec.MemoryBytes
	return s, nil
}

// ConsoleOutput implements machine.Driver.
func (d *Driver) ConsoleOutput(id string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.machines[id]
	if !ok {
		return nil, notFound(id)
	}
	return slices.Clone(m.console), nil
}

// WriteFile implements machine.Driver: the file is kept for File.
func (d *Driver) WriteFile(_ context.Context, id string, f machine.File) error {
	if !strings.HasPrefix(f.Path, "/") {
		return fmt.Errorf("%w: Path: %q is not absolute", machine.ErrInvalid, f.Path)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m, err := d.live(id)
	if err != nil {
		return err
	}
	f.Data = slices.Clone(f.Data)
	m.files[f.Path] = f
	return nil
}

// File returns what WriteFile placed.
func (d *Driver) File(id, path string) (machine.File, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.machines[id]
	if !ok {
		return machine.File{}, false
	}
	f, ok := m.files[path]
	return f, ok
}

// Events implements machine.Driver.
func (d *Driver) Events() (<-chan machine.Event, func()) { return d.hub.Subscribe() }

// ListenVPC implements machine.Driver on a free port of 127.0.0.1.
func (d *Driver) ListenVPC(ctx context.Context, network, _ string) (net.Listener, error) {
	var lc net.ListenConfig
	return lc.Listen(ctx, network, "127.0.0.1:0")
}

// DialVPC implements machine.Driver: nothing listens in a simulated machine.
func (d *Driver) DialVPC(_ context.Context, network, addr string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%s: simulated machines have no network: %w", addr, machine.ErrUnsupported)}
}

// StartInVPC implements machine.Driver: there is one network only.
func (d *Driver) StartInVPC(cmd *exec.Cmd, prepare func(hostFD int)) error {
	if prepare != nil {
		prepare(-1)
	}
	return cmd.Start()
}

// Run implements machine.Driver.
func (d *Driver) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Close implements machine.Driver. Simulated machines end with it.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.machines {
		if m.end != nil {
			m.end()
		}
	}
	d.closed = true
	d.hub.Close()
	return nil
}

// PurgeAll implements machine.Driver.
func (d *Driver) PurgeAll(ctx context.Context, _ bool) error {
	for _, s := range d.List() {
		if err := d.Destroy(ctx, s.ID); err != nil {
			return err
		}
	}
	return d.Close()
}

// Leftovers implements machine.Driver.
func (d *Driver) Leftovers() []string { return nil }
