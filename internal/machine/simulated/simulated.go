// Package simulated is a machine.Driver that boots nothing: machines are entries
// in memory, commands end at once with exit code 0, and everything else keeps
// the contract of package machine. It needs no root and no Linux, and holds ten
// thousand machines. Faults can be injected for tests of what is built on it.
//
// What it does not do is refused, never pretended: Snapshot records an image
// without content, and Exec runs only what Options.Exec implements.
package simulated

import (
	"context"
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
