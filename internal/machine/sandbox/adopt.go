package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/machine"
)

// adoptAll brings memory and world together after a start: every record is
// adopted, finished or given back, and whatever has no record is purged.
func (d *Driver) adoptAll(ctx context.Context) error {
	ids, err := d.paths.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		rec, err := d.paths.load(id)
		if err != nil || !idPattern.MatchString(id) {
			// A crash before the first record: nothing was started for it.
			d.log.Warn("an instance directory without a readable record is removed", "instance", id, "error", err)
			rec = &record{Intent: intentDestroy}
			rec.Spec.ID = id
		}
		if err := d.adopt(ctx, rec); err != nil {
			return fmt.Errorf("adopt %s: %w", id, err)
		}
	}
	for _, id := range d.cg.ids() {
		if !slices.Contains(ids, id) {
			if err := errors.Join(d.cg.kill(ctx, id), d.cg.remove(ctx, id)); err != nil {
				return fmt.Errorf("purge %s: %w", id, err)
			}
		}
	}
	sockets, _ := filepath.Glob(filepath.Join(d.paths.run, "*.sock"))
	for _, s := range sockets {
		b, ok := d.machines[strings.TrimSuffix(filepath.Base(s), ".sock")]
		if !ok || b.pidfd == nil {
			_ = os.Remove(s)
		}
	}
	return nil
}

func (d *Driver) adopt(ctx context.Context, rec *record) error {
	id := rec.Spec.ID
	b := &box{rec: *rec, state: machine.StateStopped}
	d.mu.Lock()
	d.machines[id] = b
	d.mu.Unlock()
	if rec.Intent == intentBoot || rec.Intent == intentRun || rec.Intent == intentStart {
		if pid, fd, ok := d.findInit(ctx, id); ok {
			if rec.PID != pid || rec.Intent != intentRun {
				b.rec.PID, b.rec.Intent = pid, intentRun
				if b.rec.BootedAt.IsZero() {
					b.rec.BootedAt = d.clk.Now()
				}
				if err := d.saveBox(b); err != nil {
					unix.Close(fd)
					return err
				}
			}
			d.watch(b, fd, false)
			return nil
		}
	}
	if rec.Intent == intentBoot || rec.Intent == intentDestroy {
		return d.erase(ctx, b)
	}
	if err := errors.Join(d.cg.kill(ctx, id), d.cg.remove(ctx, id)); err != nil {
		return err
	}
	if rec.Intent != intentStop {
		b.rec.Intent = intentStop
		if b.rec.Cause == "" {
			b.rec.Cause, b.rec.ExitedAt = "lost", d.clk.Now()
		}
		return d.saveBox(b)
	}
	return nil
}

// findInit finds a machine's living PID 1 by its control group, and proves it by
// asking it who it is.
func (d *Driver) findInit(ctx context.Context, id string) (pid, pidfd int, ok bool) {
	for _, pid := range d.cg.procs(id) {
		if !isInit(pid) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		// The number may have been reused between the look and the open.
		if d.cg.contains(id, pid) && isInit(pid) && d.answers(ctx, id) {
			return pid, fd, true
		}
		unix.Close(fd)
	}
	return 0, 0, false
}

func (d *Driver) answers(ctx context.Context, id string) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	p, err := d.ping(ctx, id)
	return err == nil && p.ID == id
}

// isInit says whether a process is number 1 in a namespace of its own.
func isInit(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			f := strings.Fields(rest)
			return len(f) > 1 && f[len(f)-1] == "1"
		}
	}
	return false
}
