package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"slipway/internal/machine"
)

// PurgeAll implements machine.Driver.
func (d *Driver) PurgeAll(ctx context.Context, all bool) error {
	var errs []error
	if all {
		for _, s := range d.List() {
			errs = append(errs, d.Destroy(ctx, s.ID))
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	// Watching ends before the power goes: the records go on saying that the
	// machines should run, so that the next driver finds them lost, as after a
	// restart of the host.
	if err := d.Close(); err != nil {
		errs = append(errs, err)
	}
	if !all {
		if err := d.powerOff(ctx); err != nil {
			return err
		}
	}
	errs = append(errs, d.cg.removeParents(), d.vpc.destroy(), os.RemoveAll(d.paths.run), os.RemoveAll(d.paths.bin()))
	if all {
		for _, dir := range []string{d.paths.machines(), d.paths.images(), d.paths.layers(), d.paths.volumes()} {
			errs = append(errs, os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// powerOff ends every process of every machine and keeps their disks.
func (d *Driver) powerOff(ctx context.Context) error {
	var errs []error
	for _, id := range d.cg.ids() {
		errs = append(errs, d.cg.kill(ctx, id), d.cg.remove(ctx, id))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.machines {
		b.pidfd, b.state = nil, machine.StateStopped
	}
	return nil
}

// Leftovers implements machine.Driver.
func (d *Driver) Leftovers() []string {
	var out []string
	alive := map[string]bool{}
	links := map[string]bool{}
	d.mu.Lock()
	for id, b := range d.machines {
		if b.pidfd != nil || b.state == machine.StateBooting {
			alive[id], links[b.rec.Link] = true, true
		}
	}
	closed := d.closed
	d.mu.Unlock()
	for _, id := range d.cg.ids() {
		if !alive[id] {
			out = append(out, fmt.Sprintf("control group of %s with processes %v", id, d.cg.procs(id)))
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(d.paths.run, "*.sock"))
	for _, s := range sockets {
		if id := filepath.Base(s[:len(s)-len(".sock")]); !alive[id] {
			out = append(out, "socket "+s)
		}
	}
	ids, _ := d.paths.ids()
	for _, id := range ids {
		if _, err := d.box(id); err != nil {
			out = append(out, "directory "+d.paths.machine(id))
		}
	}
	if closed {
		for _, root := range d.cg.roots() {
			if p := filepath.Join(root, d.cg.parent); exists(p) {
				out = append(out, "control group "+p)
			}
		}
		if exists(d.paths.run) {
			out = append(out, "directory "+d.paths.run)
		}
		if isNSMount(d.paths.vpc()) {
			out = append(out, "network namespace "+d.paths.vpc())
		}
		return out
	}
	for _, l := range d.vpc.links() {
		if !links[l] {
			out = append(out, "link "+l)
		}
	}
	return out
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
