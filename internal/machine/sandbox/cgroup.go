package sandbox

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"slipway/internal/clock"
	"slipway/internal/machine"
)

// cpuPeriod is the scheduler's accounting period in microseconds; the kernel's
// own default, and long enough that short bursts are not cut.
const cpuPeriod = 100000

// Waiting for the kernel to let go of something: no event tells of it, so the
// condition is looked at again, in the machine's real time.
const (
	pollFirst = 200 * time.Microsecond
	pollMost  = 20 * time.Millisecond
)

// cgroups creates one control group per machine below one group per
// installation, in every hierarchy that this host offers. The group in the
// identity hierarchy is what says to which machine a process belongs: a process
// cannot leave it, and it survives the death of the server.
//
// Safe for concurrent use: it holds no state but the paths found at start.
type cgroups struct {
	parent   string            // "slipway-<installation>"
	unified  string            // mount point of cgroup2, "" if there is none
	full     bool              // unified has the controllers (cgroup v2 proper)
	v1       map[string]string // controller -> mount point, where not full
	enabled  map[string]bool   // controllers that can limit
	identity string            // mount point of the hierarchy that names a machine's processes
}

// openCgroups finds the hierarchies and makes the installation's group in each.
func openCgroups(parent string) (*cgroups, error) {
	c := &cgroups{parent: parent, v1: map[string]string{}, enabled: map[string]bool{}}
	if err := c.findMounts("/proc/self/mountinfo"); err != nil {
		return nil, err
	}
	if c.unified == "" && len(c.v1) == 0 {
		return nil, fmt.Errorf("%w: no control groups are mounted on /sys/fs/cgroup", machine.ErrUnsupported)
	}
	for _, dir := range c.roots() {
		if err := os.MkdirAll(filepath.Join(dir, parent), 0o755); err != nil {
			return nil, fmt.Errorf("%w: cannot make a control group (is this container privileged?): %v", machine.ErrUnsupported, err)
		}
	}
	if c.full {
		c.enableControllers()
	}
	c.weigh()
	c.identity = c.unified
	if c.identity == "" {
		c.identity = c.v1["pids"]
	}
	if c.identity == "" {
		return nil, fmt.Errorf("%w: neither cgroup2 nor the pids controller is mounted", machine.ErrUnsupported)
	}
	return c, nil
}

// weigh gives the machines together the weight of two processes on a busy
// host. By default all of them would count as much as one, and any program of
// the host's could starve them; with much more they could starve the server.
// Best effort: it is fairness, not a limit.
func (c *cgroups) weigh() {
	if c.full {
		_ = os.WriteFile(filepath.Join(c.unified, c.parent, "cpu.weight"), []byte("200"), 0)
	} else if root := c.v1["cpu"]; root != "" {
		_ = os.WriteFile(filepath.Join(root, c.parent, "cpu.shares"), []byte("2048"), 0)
	}
}

func (c *cgroups) findMounts(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("find control groups: %w", err)
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		left, right, ok := strings.Cut(sc.Text(), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 5 || len(r) < 3 || !strings.HasPrefix(l[4], "/sys/fs/cgroup") {
			continue
		}
		switch r[0] {
		case "cgroup2":
			c.unified = l[4]
		case "cgroup":
			for opt := range strings.SplitSeq(r[2], ",") {
				switch opt {
				case "cpu", "cpuacct", "memory", "pids", "blkio":
					c.v1[opt] = l[4]
					c.enabled[opt] = true
				}
			}
		}
	}
	if c.unified != "" {
		b, _ := os.ReadFile(filepath.Join(c.unified, "cgroup.controllers"))
		c.full = slices.Contains(strings.Fields(string(b)), "memory")
	}
	return sc.Err()
}

// enableControllers delegates the controllers down to the machines' groups.
// Where the host refuses (a container whose root group holds processes), the
// machine runs without that limit; limits reports it.
func (c *cgroups) enableControllers() {
	for _, ctl := range []string{"cpu", "memory", "pids", "io"} {
		ok := true
		for _, dir := range []string{c.unified, filepath.Join(c.unified, c.parent)} {
			ok = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+ctl), 0) == nil && ok
		}
		c.enabled[ctl] = ok
	}
}

// roots are the distinct mount points in use.
func (c *cgroups) roots() []string {
	var out []string
	if c.unified != "" {
		out = append(out, c.unified)
	}
	if !c.full {
		for _, m := range c.v1 {
			if !slices.Contains(out, m) {
				out = append(out, m)
			}
		}
	}
	slices.Sort(out)
	return out
}

func (c *cgroups) dirs(id string) []string {
	out := c.roots()
	for i := range out {
		out[i] = filepath.Join(out[i], c.parent, id)
	}
	return out
}

func (c *cgroups) ident(id string) string { return filepath.Join(c.identity, c.parent, id) }

// ctl is the directory in which a machine's files of one controller are.
func (c *cgroups) ctl(id, controller string) string {
	if c.full {
		return filepath.Join(c.unified, c.parent, id)
	}
	return filepath.Join(c.v1[controller], c.parent, id)
}

// create makes the machine's groups with the limits of its Spec.
func (c *cgroups) create(spec machine.Spec) error {
	for _, dir := range c.dirs(spec.ID) {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("control group: %w", err)
		}
	}
	pids := spec.PidsLimit
	if pids == 0 {
		pids = 1024
	}
	set := func(controller, file, value string) error {
		if !c.enabled[controller] {
			return nil
		}
		if err := os.WriteFile(filepath.Join(c.ctl(spec.ID, controller), file), []byte(value), 0); err != nil {
			return fmt.Errorf("control group limit %s: %w", file, err)
		}
		return nil
	}
	err := set("pids", "pids.max", strconv.FormatInt(pids, 10))
	quota := strconv.FormatInt(int64(spec.VCPUs*cpuPeriod), 10)
	memory := strconv.FormatInt(spec.MemoryBytes, 10)
	switch {
	case c.full:
		if spec.VCPUs > 0 {
			err = errors.Join(err, set("cpu", "cpu.max", quota+" "+strconv.Itoa(cpuPeriod)))
		}
		if spec.MemoryBytes > 0 {
			err = errors.Join(err, set("memory", "memory.max", memory))
		}
	default:
		if spec.VCPUs > 0 {
			err = errors.Join(err, set("cpu", "cpu.cfs_period_us", strconv.Itoa(cpuPeriod)), set("cpu", "cpu.cfs_quota_us", quota))
		}
		if spec.MemoryBytes > 0 {
			err = errors.Join(err, set("memory", "memory.limit_in_bytes", memory))
		}
	}
	return err
}

// add puts a process into the machine's groups (v1, and v2 where the clone
// could not do it).
func (c *cgroups) add(id string, pid int) error {
	for _, dir := range c.dirs(id) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
			return fmt.Errorf("enter control group: %w", err)
		}
	}
	return nil
}

// procs lists the machine's processes.
func (c *cgroups) procs(id string) []int {
	b, err := os.ReadFile(filepath.Join(c.ident(id), "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for f := range strings.FieldsSeq(string(b)) {
		if n, err := strconv.Atoi(f); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	return out
}

// contains says whether the process is in the machine's identity group now.
func (c *cgroups) contains(id string, pid int) bool { return slices.Contains(c.procs(id), pid) }

// kill ends every process of the machine. cgroup.kill (Linux 5.14) does it in
// one step; before that, processes are signalled until none is left.
func (c *cgroups) kill(ctx context.Context, id string) error {
	if os.WriteFile(filepath.Join(c.ident(id), "cgroup.kill"), []byte("1"), 0) != nil {
		for _, pid := range c.procs(id) {
			// A pidfd and a second look close the race with a reused number.
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue
			}
			if c.contains(id, pid) {
				_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			}
			unix.Close(fd)
		}
	}
	return c.await(ctx, id)
}

// await returns when the machine has no process left.
func (c *cgroups) await(ctx context.Context, id string) error {
	for wait, n := pollFirst, 0; len(c.procs(id)) > 0; n++ {
		if n > 200 {
			return fmt.Errorf("processes of %s do not die: %v", id, c.procs(id))
		}
		if err := clock.Real.Sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(wait*2, pollMost)
	}
	return nil
}

// remove deletes the machine's groups; its processes must be gone.
func (c *cgroups) remove(ctx context.Context, id string) error {
	for _, dir := range c.dirs(id) {
		wait := pollFirst
		for n := 0; ; n++ {
			err := os.Remove(dir)
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				break
			}
			// The kernel empties a group a moment after its last process is reaped.
			if !errors.Is(err, unix.EBUSY) || n > 100 {
				return fmt.Errorf("control group: %w", err)
			}
			if err := clock.Real.Sleep(ctx, wait); err != nil {
				return err
			}
			wait = min(wait*2, pollMost)
		}
	}
	return nil
}

// ids lists the machines that have a group in any hierarchy.
func (c *cgroups) ids() []string {
	var out []string
	for _, root := range c.roots() {
		entries, _ := os.ReadDir(filepath.Join(root, c.parent))
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(out, e.Name()) {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// removeParents deletes the installation's own groups.
func (c *cgroups) removeParents() error {
	var errs []error
	for _, root := range c.roots() {
		if err := os.Remove(filepath.Join(root, c.parent)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
