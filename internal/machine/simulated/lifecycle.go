package simulated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"slipway/internal/machine"
)

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
