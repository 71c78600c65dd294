package sandbox

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"

	"slipway/internal/machine"
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

func TestBootExecDestroy(t *testing.T) {
	d := open(t)
	start := time.Now()
	s, err := d.Boot(t.Context(), machine.Spec{ID: "i-0001", PrivateIP: "172.31.0.10", VCPUs: 1, MemoryBytes: 256 << 20})
	if err != nil {
		c, _ := d.ConsoleOutput("i-0001")
		t.Fatalf("%v\n%s", err, c)
	}
	t.Logf("boot %v %+v", time.Since(start), s)
	for _, c := range []string{"id; hostname; ls -la / /root /home /tmp /var /var/lib; cat /proc/mounts; ip addr; ip route; ps aux; cat /etc/passwd | tail -3; grep Cap /proc/self/status; ls -la /etc/ | head -60"} {
		out, code := run(t, d, "i-0001", "sh", "-c", c)
		t.Logf("%s -> %d\n%s", c, code, out)
	}
	start = time.Now()
	if err := d.Destroy(t.Context(), "i-0001"); err != nil {
		t.Fatal(err)
	}
	t.Logf("destroy %v", time.Since(start))
}
