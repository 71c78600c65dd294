package cloudwatch

import (
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/internal/api/ec2"
	"slipway/internal/aws/dispatch"
)

// kernel writes the files that the meter reads.
func kernel(t *testing.T, root string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func value(samples []sample, name, dim string) (float64, bool) {
	for _, s := range samples {
		if s.name != name {
			continue
		}
		for _, v := range s.dims {
			if v == dim {
				return s.v, true
			}
		}
		if dim == "" {
			return s.v, true
		}
	}
	return 0, false
}

func TestMeter(t *testing.T) {
	root := t.TempDir()
	first := map[string]string{
		"proc/stat":      "cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 100 0 100 700 100 0 0 0 0 0\nctxt 1\n",
		"proc/meminfo":   "MemTotal: 1000 kB\nMemFree: 200 kB\nMemAvailable: 600 kB\nBuffers: 50 kB\nCached: 300 kB\nSReclaimable: 50 kB\nShmem: 100 kB\nSwapTotal: 100 kB\nSwapFree: 75 kB\n",
		"proc/net/dev":   "Inter-|   Receive |  Transmit\n face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop fifo colls carrier compressed\n  eth0: 1000 10 0 0 0 0 0 0 500 5 0 0 0 0 0 0\n    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n",
		"proc/net/tcp":   "  sl  local_address rem_address   st\n   0: 0100007F:0016 00000000:0000 0A x\n   1: 0100007F:0016 0100007F:0017 01 x\n",
		"proc/diskstats": " 8 0 sda 10 0 100 5 20 0 200 6 1 7 8\n",
		"proc/1/stat":    "1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 9\n", "proc/7/stat": "7 (x) R 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9\n",
	}
	kernel(t, root, first)
	m := newMeter(root)
	sections := map[string]*section{}
	for _, n := range []string{"cpu", "mem", "swap", "net", "netstat", "diskio", "processes"} {
		sections[n] = &section{Name: n, TotalCPU: true}
	}
	sections["cpu"].Resources = []string{"*"}
	for _, s := range sections {
		if _, err := m.read(s); err != nil {
			t.Fatal(s.Name, err)
		}
	}
	kernel(t, root, map[string]string{
		"proc/stat":      "cpu  140 0 120 720 120 0 0 0 0 0\ncpu0 140 0 120 720 120 0 0 0 0 0\n",
		"proc/net/dev":   strings.Replace(first["proc/net/dev"], "eth0: 1000 10", "eth0: 1600 16", 1),
		"proc/diskstats": " 8 0 sda 13 0 104 5 20 0 200 6 1 7 8\n",
	})
	for _, c := range []struct {
		section, name, dim string
		want               float64
	}{
		{"cpu", "cpu_usage_user", "cpu-total", 40}, {"cpu", "cpu_usage_idle", "cpu0", 20}, {"cpu", "cpu_usage_active", "cpu-total", 60}, {"cpu", "cpu_time_user", "cpu0", 1.4},
		{"mem", "mem_used_percent", "", 50}, {"mem", "mem_available_percent", "", 60}, {"mem", "mem_total", "", 1024000}, {"swap", "swap_used_percent", "", 25},
		{"net", "net_bytes_recv", "eth0", 600}, {"net", "net_packets_recv", "eth0", 6}, {"net", "net_bytes_sent", "eth0", 0},
		{"netstat", "netstat_tcp_established", "", 1}, {"netstat", "netstat_tcp_listen", "", 1}, {"diskio", "diskio_reads", "sda", 3}, {"diskio", "diskio_read_bytes", "sda", 2048},
		{"processes", "processes_total", "", 2}, {"processes", "processes_running", "", 1}, {"processes", "processes_total_threads", "", 4},
	} {
		m2 := *m // every case sees the same reading before
		m2.last = map[string]map[string]float64{}
		for k, v := range m.last {
			m2.last[k] = v
		}
		samples, err := m2.read(sections[c.section])
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := value(samples, c.name, c.dim); !ok || got < c.want-1e-9 || got > c.want+1e-9 {
			t.Errorf("%s %s: %v %v, want %v", c.name, c.dim, got, ok, c.want)
		}
	}
	if _, ok := value(mustRead(t, m, "net"), "net_bytes_recv", "lo"); ok {
		t.Error("lo is measured by default")
	}
	disk, err := newMeter("").read(&section{Name: "disk", Resources: []string{"/"}})
	if used, ok := value(disk, "disk_used_percent", "/"); err != nil || !ok || used <= 0 || used > 100 {
		t.Error("the root file system:", used, ok, err)
	}
}

func mustRead(t *testing.T, m *meter, name string) []sample {
	t.Helper()
	s, err := m.read(&section{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestMetrics runs the agent's metrics against the service, which is away at first.
func TestMetrics(t *testing.T) {
	store := newLogStore(t)
	down := true
	store.fail = func(string) (bool, bool) { return down, false }
	cfg, err := parseConfig("x.json", []byte(`{"agent": {"metrics_collection_interval": 1}, "metrics": {"namespace": "Mine", "force_flush_interval": 1,
		"append_dimensions": {"InstanceId": "${aws:InstanceId}", "AutoScalingGroupName": "${aws:AutoScalingGroupName}"}, "aggregation_dimensions": [["AutoScalingGroupName"], []],
		"metrics_collected": {"mem": {"measurement": ["used_percent", {"name": "mem_total", "rename": "MemoryTotal", "unit": "Bytes"}], "append_dimensions": {"tier": "web"}}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	a := &metricsAgent{cfg: cfg.Metrics, meter: newMeter(""), api: mustClient(t, store.URL), log: slog.New(slog.DiscardHandler),
		resolve: func(context.Context) (map[string]string, error) {
			return map[string]string{"InstanceId": "i-1", "AutoScalingGroupName": "asg"}, nil
		}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	pause(ctx, 2500*time.Millisecond)
	store.mu.Lock()
	down = false
	store.mu.Unlock()
	eventually(t, time.Minute, "metrics", func() bool {
		store.mu.Lock()
		defer store.mu.Unlock()
		return len(store.metrics) >= 12 // two readings of two metrics, each in three forms
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	forms := map[string]int{}
	times := map[any]bool{}
	for _, d := range store.metrics {
		dims := ""
		list, _ := d["Dimensions"].([]any)
		for _, x := range list {
			m := x.(map[string]any)
			dims += m["Name"].(string) + "=" + m["Value"].(string) + " "
		}
		forms[d["MetricName"].(string)+" "+dims]++
		times[d["Timestamp"]] = true
		if v := d["Value"].(float64); v <= 0 || d["StorageResolution"].(float64) != 1 {
			t.Errorf("%v", d)
		}
	}
	for _, want := range []string{"mem_used_percent tier=web AutoScalingGroupName=asg InstanceId=i-1 ", "mem_used_percent AutoScalingGroupName=asg ", "mem_used_percent ",
		"MemoryTotal tier=web AutoScalingGroupName=asg InstanceId=i-1 "} {
		if forms[want] < 2 {
			t.Errorf("%q came %d times: %v", want, forms[want], forms)
		}
	}
	if len(times) < 2 {
		t.Error("the readings of the time without a service are lost")
	}
}

// TestGroupOfInstance asks over the wire that EC2's service has.
func TestGroupOfInstance(t *testing.T) {
	mux := dispatch.New()
	dispatch.Register(mux, ec2.OpDescribeTags, func(_ context.Context, in *ec2.DescribeTagsInput) (*ec2.DescribeTagsOutput, error) {
		if len(in.Filters) != 2 || *in.Filters[0].Name != "resource-id" || in.Filters[0].Values[0] != "i-1" {
			t.Errorf("filters: %+v", in.Filters)
		}
		return &ec2.DescribeTagsOutput{Tags: []ec2.TagDescription{{ResourceId: new("i-1"), Key: new("aws:autoscaling:groupName"), Value: new("web")}}}, nil
	})
	srv := httptest.NewServer(mux.Handler(dispatch.Config{AuthAny: true, Account: "123456789012", Now: time.Now}))
	defer srv.Close()
	if got, err := groupOfInstance(t.Context(), mustClient(t, srv.URL), "i-1"); err != nil || got != "web" {
		t.Error(got, err)
	}
}
