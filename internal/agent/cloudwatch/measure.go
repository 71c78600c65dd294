package cloudwatch

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// sample is one value with the dimensions that tell it from others of its name.
type sample struct {
	name string
	dims map[string]string
	v    float64
}

// meter reads the host's counters. Rates are relative to the reading before. It belongs to one goroutine.
type meter struct {
	root string // before /proc and /sys; "" outside of tests
	last map[string]map[string]float64
}

func newMeter(root string) *meter { return &meter{root: root, last: map[string]map[string]float64{}} }

// read takes one reading of a section.
func (m *meter) read(s *section) ([]sample, error) {
	switch s.Name {
	case "cpu":
		return m.cpu(s)
	case "mem", "swap":
		return m.memory(s.Name)
	case "disk":
		return m.disk(s)
	case "diskio":
		return m.diskio(s)
	case "net":
		return m.net(s)
	case "netstat":
		return m.netstat()
	case "processes":
		return m.processes()
	}
	return nil, fmt.Errorf("%s cannot be measured", s.Name)
}

// since returns how much each counter grew since the last reading; nil at the first one. A counter that fell, because
// the device went and came, counts as not grown.
func (m *meter) since(key string, now map[string]float64) map[string]float64 {
	before := m.last[key]
	m.last[key] = now
	if before == nil {
		return nil
	}
	out := make(map[string]float64, len(now))
	for k, v := range now {
		out[k] = max(v-before[k], 0)
	}
	return out
}

// wanted reports whether a section's resources have a name.
func (s *section) wanted(name string, byDefault bool) bool {
	if s.Resources == nil {
		return byDefault
	}
	return slices.ContainsFunc(s.Resources, func(p string) bool {
		ok, err := path.Match(p, name)
		return p == "*" || err == nil && ok
	})
}

func (m *meter) lines(name string) ([]string, error) {
	f, err := os.Open(m.root + name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []string
	sc := bufio.NewScanner(f)
	for sc.Scan() && len(out) < 1<<16 {
		out = append(out, sc.Text())
	}
	return out, sc.Err()
}

var cpuTimes = []string{"user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"}

// cpu reads /proc/stat (proc(5)): hundredths of seconds per state.
func (m *meter) cpu(s *section) ([]sample, error) {
	lines, err := m.lines("/proc/stat")
	if err != nil {
		return nil, err
	}
	var out []sample
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 5 || !strings.HasPrefix(f[0], "cpu") {
			continue
		}
		name := f[0]
		if name == "cpu" {
			name = "cpu-total"
			if !s.TotalCPU {
				continue
			}
		} else if !s.wanted(name, false) {
			continue
		}
		now := map[string]float64{}
		total := 0.0
		for i, state := range cpuTimes {
			if i+1 < len(f) {
				now[state] = number(f[i+1]) / 100
			}
			if i < 8 { // guest times are part of user and nice
				total += now[state]
			}
		}
		now["active"], now["total"] = total-now["idle"]-now["iowait"], total
		dims := map[string]string{"cpu": name}
		delta := m.since("cpu/"+name, now)
		for state, v := range now {
			if state == "total" {
				continue
			}
			out = append(out, sample{"cpu_time_" + state, dims, v})
			if delta != nil && delta["total"] > 0 {
				out = append(out, sample{"cpu_usage_" + state, dims, min(100*delta[state]/delta["total"], 100)})
			}
		}
	}
	return out, nil
}

// memory reads /proc/meminfo. "used" is what is neither free, cache nor buffer.
func (m *meter) memory(section string) ([]sample, error) {
	lines, err := m.lines("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	v := map[string]float64{}
	for _, l := range lines {
		if f := strings.Fields(l); len(f) >= 2 {
			v[strings.TrimSuffix(f[0], ":")] = number(f[1]) * 1024
		}
	}
	out := []sample{}
	add := func(name string, x float64) { out = append(out, sample{section + "_" + name, nil, x}) }
	if section == "swap" {
		used := v["SwapTotal"] - v["SwapFree"]
		add("total", v["SwapTotal"])
		add("free", v["SwapFree"])
		add("used", used)
		add("used_percent", percent(used, v["SwapTotal"]))
		return out, nil
	}
	m.limitMemory(v)
	cached := v["Cached"] + v["SReclaimable"] - v["Shmem"]
	used := max(v["MemTotal"]-v["MemFree"]-v["Buffers"]-cached, 0)
	for name, x := range map[string]float64{"total": v["MemTotal"], "free": v["MemFree"], "available": v["MemAvailable"], "buffered": v["Buffers"],
		"cached": cached, "active": v["Active"], "inactive": v["Inactive"], "shared": v["Shmem"], "used": used,
		"used_percent": percent(used, v["MemTotal"]), "available_percent": percent(v["MemAvailable"], v["MemTotal"])} {
		add(name, x)
	}
	return out, nil
}

// limitMemory replaces the machine's memory by the instance's own where it has a limit that can be seen.
func (m *meter) limitMemory(v map[string]float64) {
	for _, g := range []struct{ dir, limit, usage, cache string }{
		{"/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
	} {
		limit, err1 := m.value(g.dir + "/" + g.limit)
		usage, err2 := m.value(g.dir + "/" + g.usage)
		if err1 != nil || err2 != nil || limit <= 0 || limit >= v["MemTotal"] {
			continue
		}
		cache := 0.0
		lines, _ := m.lines(g.dir + "/memory.stat") // without it the cache counts as used
		for _, l := range lines {
			if rest, ok := strings.CutPrefix(l, g.cache+" "); ok {
				cache = number(rest)
			}
		}
		v["MemTotal"], v["MemFree"], v["Cached"] = limit, max(limit-usage, 0), cache
		v["SReclaimable"], v["Shmem"], v["Buffers"] = 0, 0, 0
		v["MemAvailable"] = max(limit-usage+cache, 0)
		return
	}
}

func (m *meter) value(name string) (float64, error) {
	b, err := os.ReadFile(m.root + name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
}

// pseudo are file systems that hold no files of anybody's.
var pseudo = []string{"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "securityfs", "debugfs", "tracefs", "bpf", "pstore", "configfs", "fusectl", "hugetlbfs", "autofs", "binfmt_misc", "rpc_pipefs", "nsfs", "efivarfs"}

func (m *meter) disk(s *section) ([]sample, error) {
	lines, err := m.lines("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	var out []sample
	seen := map[string]bool{}
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 3 {
			continue
		}
		where := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[1])
		if seen[where] || slices.Contains(pseudo, f[2]) || slices.Contains(s.IgnoreFS, f[2]) || !s.wanted(where, true) {
			continue
		}
		seen[where] = true
		var st syscall.Statfs_t
		if syscall.Statfs(m.root+where, &st) != nil || st.Blocks == 0 {
			continue
		}
		dims := map[string]string{"path": where, "fstype": f[2]}
		if !s.Drop {
			dims["device"] = filepath.Base(f[0])
		}
		size := float64(st.Bsize)
		total, free, avail := float64(st.Blocks)*size, float64(st.Bfree)*size, float64(st.Bavail)*size
		files, ffree := float64(st.Files), float64(st.Ffree)
		used := total - free
		for name, x := range map[string]float64{"total": total, "free": avail, "used": used, "used_percent": percent(used, used+avail),
			"inodes_total": files, "inodes_free": ffree, "inodes_used": files - ffree, "inodes_used_percent": percent(files-ffree, files)} {
			out = append(out, sample{"disk_" + name, dims, x})
		}
	}
	return out, nil
}

func percent(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
}

func number(s string) float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil {
		return 0 // the kernel writes numbers
	}
	return v
}
