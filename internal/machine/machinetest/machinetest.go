// Package machinetest is the contract of machine.Driver as tests. Every driver
// runs the suite; what needs a real machine inside is skipped for those that
// have none.
package machinetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"slipway/internal/machine"
)

// Harness says how to test one driver.
type Harness struct {
	// Open returns a driver with no machines; the suite purges it.
	Open func(t *testing.T) machine.Driver
	// Real: programs run, disks hold files, the network carries packets.
	Real bool
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		real bool
		do   func(*testing.T, machine.Driver)
	}{
		{"boot is idempotent", false, bootTwice},
		{"wrong specs are refused", false, refused},
		{"an address belongs to one", false, addressOnce},
		{"destroy is idempotent", false, destroyTwice},
		{"stop keeps the machine", false, stopStart},
		{"kill sends an exit event", false, killEvent},
		{"an unknown machine is not found", false, unknown},
		{"parallel boots", false, parallel},
		{"a boot given up leaves nothing", false, givenUp},
		{"images", false, images},
		{"exec streams and codes", true, execStreams},
		{"exec ends with its context", true, execCancel},
		{"stats grow", true, stats},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.real && !h.Real {
				t.Skip("needs a real machine")
			}
			d := h.Open(t)
			defer func() {
				ctx := context.WithoutCancel(t.Context())
				if err := d.PurgeAll(ctx, true); err != nil {
					t.Errorf("purge: %v", err)
				}
				if left := d.Leftovers(); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			}()
			c.do(t, d)
		})
	}
}

func spec(n int) machine.Spec {
	return machine.Spec{ID: fmt.Sprintf("i-%017x", n), Kind: machine.KindInstance, Zone: "us-east-1a",
		PrivateIP: fmt.Sprintf("172.31.%d.%d", n/200, 10+n%200), VCPUs: 1, MemoryBytes: 256 << 20}
}

func boot(t *testing.T, d machine.Driver, n int) machine.Status {
	t.Helper()
	s, err := d.Boot(t.Context(), spec(n))
	if err != nil {
		t.Fatalf("boot: %v", err)
	}
	if s.State != machine.StateRunning || s.PID == 0 || s.BootedAt.IsZero() {
		t.Fatalf("booted: %+v", s)
	}
	return s
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func bootTwice(t *testing.T, d machine.Driver) {
	a := boot(t, d, 1)
	if b := boot(t, d, 1); a.PID != b.PID {
		t.Errorf("a second Boot started another machine: %d, %d", a.PID, b.PID)
	}
	if l := d.List(); len(l) != 1 || l[0].ID != a.ID {
		t.Errorf("list: %+v", l)
	}
	if a.Spec.Hostname != "ip-172-31-0-11" {
		t.Errorf("host name %q", a.Spec.Hostname)
	}
}

func refused(t *testing.T, d machine.Driver) {
	for field, change := range map[string]func(*machine.Spec){
		"ID":               func(s *machine.Spec) { s.ID = "../etc" },
		"PrivateIP":        func(s *machine.Spec) { s.PrivateIP = "10.0.0.1" },
		"VCPUs":            func(s *machine.Spec) { s.VCPUs = -1 },
		"MemoryBytes":      func(s *machine.Spec) { s.MemoryBytes = 1 },
		"Hostname":         func(s *machine.Spec) { s.Hostname = "a b" },
		"Mounts[0].Target": func(s *machine.Spec) { s.Mounts = []machine.Mount{{Source: "data", Target: "data"}} },
		"Mounts[0].Source": func(s *machine.Spec) { s.Mounts = []machine.Mount{{Source: "../x", Target: "/data"}} },
		"Agents[0]":        func(s *machine.Spec) { s.Agents = []machine.AgentCommand{{Name: "x"}} },
	} {
		s := spec(1)
		change(&s)
		_, err := d.Boot(t.Context(), s)
		wantErr(t, err, machine.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
	s := spec(1)
	s.Image = "sha256:none"
	_, err := d.Boot(t.Context(), s)
	wantErr(t, err, machine.ErrNotFound)
	if l := d.List(); len(l) != 0 {
		t.Errorf("refused machines are listed: %+v", l)
	}
}

func addressOnce(t *testing.T, d machine.Driver) {
	boot(t, d, 1)
	other := spec(2)
	other.PrivateIP = spec(1).PrivateIP
	_, err := d.Boot(t.Context(), other)
	wantErr(t, err, machine.ErrExists)
	if err := d.Destroy(t.Context(), spec(1).ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(t.Context(), other); err != nil {
		t.Errorf("the address is not free again: %v", err)
	}
}

func destroyTwice(t *testing.T, d machine.Driver) {
	s := boot(t, d, 1)
	for range 2 {
		if err := d.Destroy(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	_, err := d.Status(s.ID)
	wantErr(t, err, machine.ErrNotFound)
	if left := d.Leftovers(); len(left) > 0 {
		// The kernel takes a dead machine's link away in its own time.
		waitFor(t, "nothing left", func() bool { left = d.Leftovers(); return len(left) == 0 })
	}
}

func stopStart(t *testing.T, d machine.Driver) {
	s := boot(t, d, 1)
	for range 2 {
		if err := d.Stop(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
	got, err := d.Status(s.ID)
	if err != nil || got.State != machine.StateStopped || got.PID != 0 || got.ExitCause != "stopped" {
		t.Errorf("stopped: %+v, %v", got, err)
	}
	_, err = d.Exec(t.Context(), s.ID, machine.ExecSpec{Args: []string{"true"}})
	wantErr(t, err, machine.ErrNotRunning)
	_, err = d.Stats(s.ID)
	wantErr(t, err, machine.ErrNotRunning)
	wantErr(t, d.Kill(t.Context(), s.ID), machine.ErrNotRunning)
	if got, err = d.Start(t.Context(), s.ID); err != nil || got.State != machine.StateRunning {
		t.Fatalf("started: %+v, %v", got, err)
	}
	again, err := d.Reboot(t.Context(), s.ID)
	if err != nil || again.State != machine.StateRunning || again.PID == got.PID {
		t.Errorf("rebooted: %+v, %v", again, err)
	}
}

func killEvent(t *testing.T, d machine.Driver) {
	events, cancel := d.Events()
	defer cancel()
	s := boot(t, d, 1)
	if e := next(t, events); e.Type != machine.EventReady || e.ID != s.ID || e.PID != s.PID {
		t.Errorf("event %+v", e)
	}
	if err := d.Kill(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	if e := next(t, events); e.Type != machine.EventExited || e.ID != s.ID || e.Cause != "killed" || e.PID != s.PID {
		t.Errorf("event %+v", e)
	}
	if got, err := d.Status(s.ID); err != nil || got.State != machine.StateStopped {
		t.Errorf("killed: %+v, %v", got, err)
	}
	if got, err := d.Start(t.Context(), s.ID); err != nil || got.State != machine.StateRunning {
		t.Errorf("started after a kill: %+v, %v", got, err)
	}
}

func next(t *testing.T, events <-chan machine.Event) machine.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(time.Minute):
		t.Fatal("no event")
		panic("unreachable")
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s after a minute", what)
		}
	}
}

func unknown(t *testing.T, d machine.Driver) {
	ctx := t.Context()
	_, err := d.Status("i-none")
	wantErr(t, err, machine.ErrNotFound)
	_, err = d.Start(ctx, "i-none")
	wantErr(t, err, machine.ErrNotFound)
	_, err = d.Reboot(ctx, "i-none")
	wantErr(t, err, machine.ErrNotFound)
	_, err = d.Exec(ctx, "i-none", machine.ExecSpec{Args: []string{"true"}})
	wantErr(t, err, machine.ErrNotFound)
	_, err = d.ConsoleOutput("i-none")
	wantErr(t, err, machine.ErrNotFound)
	_, err = d.Snapshot(ctx, "i-none", "x", nil)
	wantErr(t, err, machine.ErrNotFound)
	wantErr(t, d.Stop(ctx, "i-none"), machine.ErrNotFound)
	wantErr(t, d.Kill(ctx, "i-none"), machine.ErrNotFound)
	wantErr(t, d.RemoveImage(ctx, "sha256:none"), machine.ErrNotFound)
	if err := d.Destroy(ctx, "i-none"); err != nil {
		t.Error(err)
	}
}

func parallel(t *testing.T, d machine.Driver) {
	const n = 8
	errs := make(chan error, 2*n)
	for i := range 2 * n { // each twice
		go func() {
			_, err := d.Boot(t.Context(), spec(i%n))
			errs <- err
		}()
	}
	for range 2 * n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if l := d.List(); len(l) != n {
		t.Errorf("%d machines, want %d", len(l), n)
	}
}

func givenUp(t *testing.T, d machine.Driver) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Boot(ctx, spec(1)); err == nil {
		t.Error("a boot without time succeeded")
	}
	if l := d.List(); len(l) != 0 {
		t.Errorf("list: %+v", l)
	}
	waitFor(t, "clean state", func() bool { return len(d.Leftovers()) == 0 })
	boot(t, d, 1)
}

func images(t *testing.T, d machine.Driver) {
	ctx := t.Context()
	if l := d.Images(); len(l) != 1 || l[0].ID != machine.DefaultImage {
		t.Fatalf("images: %+v", l)
	}
	s := boot(t, d, 1)
	img, err := d.Snapshot(ctx, s.ID, "mine", map[string]string{"a": "b"})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(img.ID, "sha256:") || img.Name != "mine" || img.Labels["a"] != "b" {
		t.Errorf("image %+v", img)
	}
	if l := d.Images(); len(l) != 2 || l[1].ID != img.ID {
		t.Errorf("images: %+v", l)
	}
	other := spec(2)
	other.Image = img.ID
	if _, err := d.Boot(ctx, other); err != nil {
		t.Fatal(err)
	}
	wantErr(t, d.RemoveImage(ctx, img.ID), machine.ErrInUse)
	if err := d.Destroy(ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveImage(ctx, img.ID); err != nil {
		t.Error(err)
	}
}

func execStreams(t *testing.T, d machine.Driver) {
	id := boot(t, d, 1).ID
	var out, errOut bytes.Buffer
	code, err := d.Exec(t.Context(), id, machine.ExecSpec{
		Args: []string{"sh", "-c", `cat; echo "$X $USER $PWD" >&2; exit 7`}, Env: []string{"X=y"}, Dir: "/usr",
		Stdin: strings.NewReader(strings.Repeat("line\n", 100000)), Stdout: &out, Stderr: &errOut,
	})
	if err != nil || code != 7 || out.Len() != 500000 || errOut.String() != "y root /usr\n" {
		t.Errorf("code %d, %v, %d bytes, %q", code, err, out.Len(), errOut.String())
	}
	code, err = d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"sh", "-c", "kill -9 $$"}})
	if err != nil || code != 137 {
		t.Errorf("killed: %d, %v", code, err)
	}
	// A server left in the background must not hold the call.
	code, err = d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"sh", "-c", "sleep 600 & exit 0"}, Timeout: time.Minute})
	if err != nil || code != 0 {
		t.Errorf("with a background child: %d, %v", code, err)
	}
	out.Reset()
	code, err = d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"sh", "-c", "stty size; id -un"}, User: "ec2-user", TTY: true, Stdout: &out,
		Resize: sized(machine.WinSize{Rows: 33, Cols: 77})})
	if err != nil || code != 0 || !strings.HasSuffix(out.String(), "ec2-user\r\n") {
		t.Errorf("terminal: %d, %v, %q", code, err, out.String())
	}
	if _, err = d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"no-such-program"}}); err == nil {
		t.Error("a missing program ran")
	}
	if _, err = d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"true"}, User: "nobody-here"}); err == nil {
		t.Error("a missing user ran")
	}
}

func sized(w machine.WinSize) <-chan machine.WinSize {
	ch := make(chan machine.WinSize, 1)
	ch <- w
	return ch
}

func execCancel(t *testing.T, d machine.Driver) {
	id := boot(t, d, 1).ID
	start := time.Now()
	// It reads no input: the end must not wait for the pipe to drain.
	_, err := d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"sh", "-c", "sleep 321 & sleep 321"},
		Stdin: strings.NewReader(strings.Repeat("x", 4<<20)), Timeout: 100 * time.Millisecond})
	wantErr(t, err, machine.ErrTimeout)
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
	waitFor(t, "dead process group", func() bool {
		code, err := d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"sh", "-c", "! grep -lz ^321 /proc/[0-9]*/cmdline"}})
		return err == nil && code == 0
	})
}

func stats(t *testing.T, d machine.Driver) {
	id := boot(t, d, 1).ID
	before, err := d.Stats(id)
	if err != nil {
		t.Fatal(err)
	}
	if code, err := d.Exec(t.Context(), id, machine.ExecSpec{Args: []string{"sh", "-c", "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done"}}); err != nil || code != 0 {
		t.Fatal(code, err)
	}
	after, err := d.Stats(id)
	if err != nil || after.CPUNanos <= before.CPUNanos || after.MemoryBytes <= 0 || after.MemoryLimit != 256<<20 || after.Processes < 1 {
		t.Errorf("stats %+v then %+v, %v", before, after, err)
	}
}
