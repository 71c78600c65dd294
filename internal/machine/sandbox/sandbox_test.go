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
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes namespaces")
	}
	d, err := Open(t.Context(), Options{DataDir: t.TempDir()})
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

func TestEgress(t *testing.T) {
	d := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() { cancel(); <-done }()
	if _, err := d.Boot(t.Context(), machine.Spec{ID: "i-0001", PrivateIP: "172.31.0.10"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{"getent hosts proxy.golang.org ip-172-31-0-10.ec2.internal; ip route get 8.8.8.8", "curl -sS -m 20 -o /dev/null -w '%{http_code} %{time_total} %{speed_download}\\n' https://proxy.golang.org/golang.org/x/sys/@v/list",
		"curl -sS -m 2 http://172.31.9.9/; curl -sS -m 2 http://169.254.0.9/ ; curl -sS -m 2 http://10.255.255.254:1/; ping -c1 -W1 8.8.8.8; true"} {
		out, code := run(t, d, "i-0001", "sh", "-c", c)
		t.Logf("%s -> %d\n%s", c, code, out)
	}
}
