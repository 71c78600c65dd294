package sandbox

import (
	"context"
	"os"
	"strings"
	"testing"

	"slipway/internal/machine"
)

// `slipway down` ends everything that runs, and loses no disk: the next server
// finds what ran as it would after a restart of the host.
func TestPowerOffKeepsDisks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	dir := t.TempDir()
	d, err := Open(t.Context(), Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.PurgeAll(context.WithoutCancel(t.Context()), true) })
	for id, ip := range map[string]string{"i-runs": "172.31.0.76", "i-stopped": "172.31.0.77"} {
		if _, err := d.Boot(t.Context(), machine.Spec{ID: id, PrivateIP: ip}); err != nil {
			t.Fatal(err)
		}
		if out, code := run(t, d, id, "sh", "-c", "echo kept > /var/tmp/note"); code != 0 {
			t.Fatal(out)
		}
	}
	if err := d.Stop(t.Context(), "i-stopped"); err != nil {
		t.Fatal(err)
	}
	if err := d.PurgeAll(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if left := d.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}

	if d, err = Open(t.Context(), Options{DataDir: dir}); err != nil {
		t.Fatal(err)
	}
	for id, cause := range map[string]string{"i-runs": "lost", "i-stopped": "stopped"} {
		s, err := d.Status(id)
		if err != nil || s.State != machine.StateStopped || s.ExitCause != cause {
			t.Errorf("%s: %+v, %v", id, s, err)
			continue
		}
		if _, err := d.Start(t.Context(), id); err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if out, _ := run(t, d, id, "cat", "/var/tmp/note"); strings.TrimSpace(out) != "kept" {
			t.Errorf("%s: %q", id, out)
		}
	}
	if err := d.PurgeAll(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if left := d.Leftovers(); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}
