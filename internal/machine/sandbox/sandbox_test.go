package sandbox

import (
	"bytes"
	"context"
	"os"
	"testing"

	"slipway/internal/machine"
	"slipway/internal/machine/machinetest"
)

func open(t testing.TB) *Driver {
	t.Helper()
	return openWith(t, Options{})
}

func openWith(t testing.TB, o Options) *Driver {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	o.DataDir = t.TempDir()
	d, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.PurgeAll(context.WithoutCancel(t.Context()), true); err != nil {
			t.Error(err)
		}
		if left := d.Leftovers(); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
	return d
}

func run(t testing.TB, d *Driver, id string, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code, err := d.Exec(t.Context(), id, machine.ExecSpec{Args: args, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return out.String(), code
}

func TestConformance(t *testing.T) {
	machinetest.Run(t, machinetest.Harness{Real: true, Open: func(t *testing.T) machine.Driver {
		if os.Getuid() != 0 {
			t.Skip("needs root: it makes namespaces")
		}
		d, err := Open(t.Context(), Options{DataDir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}})
}
