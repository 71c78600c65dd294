package sandbox

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"slipway/internal/machine"
)

func put(t *testing.T, path, data string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestFindHierarchies(t *testing.T) {
	for name, c := range map[string]struct {
		info            string
		unified, memory string
	}{
		"v2":     {"30 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup", ""},
		"hybrid": {"30 1 0:1 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n31 1 0:2 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory"},
		"joined": {"31 1 0:2 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n32 1 0:3 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n", "", ""},
	} {
		path := filepath.Join(t.TempDir(), "mountinfo")
		put(t, path, c.info)
		g := &cgroups{v1: map[string]string{}, enabled: map[string]bool{}}
		if err := g.findMounts(path); err != nil {
			t.Fatal(err)
		}
		if g.unified != c.unified || g.v1["memory"] != c.memory {
			t.Errorf("%s: %+v", name, g)
		}
		if name == "joined" && (g.v1["cpu"] != g.v1["cpuacct"] || len(g.roots()) != 2) {
			t.Errorf("%s: %+v %v", name, g, g.roots())
		}
	}
}

// The files of cgroup v2, which not every test host has mounted.
func TestUnifiedLimitsAndStats(t *testing.T) {
	g := &cgroups{parent: "slipway-x", unified: t.TempDir(), full: true, enabled: map[string]bool{"cpu": true, "memory": true, "pids": true, "io": true}}
	g.identity = g.unified
	dir := g.ident("i-1")
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"cpu.max", "memory.max", "pids.max"} {
		put(t, filepath.Join(dir, f), "max")
	}
	if err := g.create(machine.Spec{ID: "i-1", VCPUs: 1.5, MemoryBytes: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if a, b, c := get(t, filepath.Join(dir, "cpu.max")), get(t, filepath.Join(dir, "memory.max")), get(t, filepath.Join(dir, "pids.max")); a != "150000 100000" || b != "1073741824" || c != "1024" {
		t.Errorf("limits %q %q %q", a, b, c)
	}
	put(t, filepath.Join(dir, "cpu.stat"), "usage_usec 1500\nuser_usec 1000\n")
	put(t, filepath.Join(dir, "memory.current"), "5000\n")
	put(t, filepath.Join(dir, "memory.stat"), "anon 1\ninactive_file 2000\n")
	put(t, filepath.Join(dir, "io.stat"), "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n9:0 rbytes=1 wbytes=1 rios=1 wios=1\n")
	var s machine.Stats
	g.statsV2("i-1", &s)
	if want := (machine.Stats{CPUNanos: 1500000, MemoryBytes: 3000, MemoryLimit: 1 << 30, DiskReadBytes: 11, DiskWriteBytes: 21, DiskReadOps: 2, DiskWriteOps: 3}); s != want {
		t.Errorf("stats %+v, want %+v", s, want)
	}
}
