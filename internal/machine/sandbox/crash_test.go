package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/machine"
)

// crashEnv makes the test binary a server that boots, stops and destroys
// machines until it is killed.
const crashEnv = "SLIPWAY_TEST_CRASH_DIR"

func crashServer(dir string) {
	ctx := context.Background()
	d, err := Open(ctx, Options{DataDir: dir, NoEgress: true})
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	fmt.Println("open")
	go func() { _ = d.Run(ctx) }()
	for w := range 2 {
		go func() {
			for i := 0; ; i++ {
				spec := machine.Spec{ID: fmt.Sprintf("i-w%d-%d", w, i%3), PrivateIP: fmt.Sprintf("172.31.%d.%d", w, 10+i%3)}
				if _, err := d.Boot(ctx, spec); err != nil {
					fmt.Println("boot:", err)
					os.Exit(1)
				}
				switch rand.IntN(4) {
				case 0:
					err = d.Stop(ctx, spec.ID)
				case 1:
					err = d.Destroy(ctx, spec.ID)
				case 2:
					_, err = d.Reboot(ctx, spec.ID)
				}
				if err != nil {
					fmt.Println("change:", err)
					os.Exit(1)
				}
			}
		}()
	}
	select {}
}

func TestKilledServerLeavesNothingHalfMade(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	dir := t.TempDir()
	t.Cleanup(func() { // of a test that fails half-way
		if d, err := Open(context.Background(), Options{DataDir: dir}); err == nil {
			_ = d.PurgeAll(context.Background(), true)
		}
	})
	for round := range rounds {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "open" {
			t.Fatalf("round %d: the server said %q", round, lines.Text())
		}
		time.Sleep(rand.N(150 * time.Millisecond)) // a random instant is the point
		_ = cmd.Process.Signal(syscall.SIGKILL)
		for lines.Scan() {
			t.Errorf("round %d: %s", round, lines.Text())
		}
		_ = cmd.Wait()
	}
	d, err := Open(t.Context(), Options{DataDir: dir, NoEgress: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range d.List() {
		switch s.State {
		case machine.StateRunning:
			if out := must(t, d, s.ID, "hostname"); out != s.Spec.Hostname+"\n" {
				t.Errorf("%s is %q", s.ID, out)
			}
		case machine.StateStopped:
		default:
			t.Errorf("%s is %s after a restart", s.ID, s.State)
		}
	}
	settled(t, d)
	if err := d.PurgeAll(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if left := d.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if procs, _ := exec.Command("pgrep", "-f", dir).Output(); len(strings.TrimSpace(string(procs))) > 0 {
		t.Errorf("processes left: %s", procs)
	}
}

// settled waits until the kernel has taken dead machines' links away.
func settled(t *testing.T, d *Driver) {
	t.Helper()
	var left []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if left = d.Leftovers(); len(left) == 0 {
			return
		}
	}
	t.Errorf("left behind: %q", left)
}

// A closed driver leaves machines running; the next one has them, with their
// processes, and hears of their end.
func TestAdoption(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	dir := t.TempDir()
	d, err := Open(t.Context(), Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	a, err := d.Boot(t.Context(), machine.Spec{ID: "i-a", PrivateIP: "172.31.0.70", Labels: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-b", PrivateIP: "172.31.0.71"}); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(t.Context(), "i-b"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{DataDir: dir}); err == nil {
		t.Error("two drivers opened one data directory")
	}
	must(t, d, "i-a", "echo x >/srv/kept")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if d, err = Open(t.Context(), Options{DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	t.Logf("adopted in %v", time.Since(start))
	got, err := d.Status("i-a")
	if err != nil || got.PID != a.PID || got.State != machine.StateRunning || got.Spec.Labels["k"] != "v" || !got.BootedAt.Equal(a.BootedAt) {
		t.Errorf("adopted %+v, want %+v, %v", got, a, err)
	}
	must(t, d, "i-a", "cat /srv/kept")
	if b, err := d.Status("i-b"); err != nil || b.State != machine.StateStopped {
		t.Errorf("stopped: %+v, %v", b, err)
	}
	events, cancel := d.Events()
	defer cancel()
	if err := d.Kill(t.Context(), "i-a"); err != nil {
		t.Fatal(err)
	}
	select {
	case e := <-events:
		if e.ID != "i-a" || e.Type != machine.EventExited {
			t.Errorf("%+v", e)
		}
	case <-time.After(time.Minute):
		t.Error("no exit event of an adopted machine")
	}
	if err := d.PurgeAll(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if left := d.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// Somebody removed the data directory under running machines: a server that
// starts there again kills them, because nothing says what they were.
func TestMachinesWithoutRecordsArePurged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	dir := t.TempDir()
	d, err := Open(t.Context(), Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Boot(t.Context(), machine.Spec{ID: "i-a", PrivateIP: "172.31.0.75"})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if d, err = Open(t.Context(), Options{DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	if l := d.List(); len(l) != 0 {
		t.Errorf("list: %+v", l)
	}
	settled(t, d)
	var ws syscall.WaitStatus // it is this process's child still: a dead one can be waited for
	if pid, err := syscall.Wait4(s.PID, &ws, syscall.WNOHANG, nil); err != nil || pid != s.PID || !ws.Signaled() {
		t.Errorf("process %d still lives: %v, %v", s.PID, pid, err)
	}
	if err := d.PurgeAll(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if left := d.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
