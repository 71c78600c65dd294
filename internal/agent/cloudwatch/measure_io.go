package cloudwatch

import (
	"os"
	"strings"
)

// diskio reads /proc/diskstats: what happened since the last reading.
func (m *meter) diskio(s *section) ([]sample, error) {
	lines, err := m.lines("/proc/diskstats")
	if err != nil {
		return nil, err
	}
	var out []sample
	for _, l := range lines {
		f := strings.Fields(l)
		if len(f) < 14 || !s.wanted(f[2], !strings.HasPrefix(f[2], "loop") && !strings.HasPrefix(f[2], "ram")) {
			continue
		}
		now := map[string]float64{"reads": number(f[3]), "read_bytes": number(f[5]) * 512, "read_time": number(f[6]),
			"writes": number(f[7]), "write_bytes": number(f[9]) * 512, "write_time": number(f[10]), "io_time": number(f[12])}
		dims := map[string]string{"name": f[2]}
		for name, v := range m.since("diskio/"+f[2], now) {
			out = append(out, sample{"diskio_" + name, dims, v})
		}
		out = append(out, sample{"diskio_iops_in_progress", dims, number(f[11])})
	}
	return out, nil
}

// net reads /proc/net/dev: what happened since the last reading.
func (m *meter) net(s *section) ([]sample, error) {
	lines, err := m.lines("/proc/net/dev")
	if err != nil {
		return nil, err
	}
	var out []sample
	for _, l := range lines {
		name, rest, ok := strings.Cut(l, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || len(f) < 12 || !s.wanted(name, name != "lo") {
			continue
		}
		now := map[string]float64{"bytes_recv": number(f[0]), "packets_recv": number(f[1]), "err_in": number(f[2]), "drop_in": number(f[3]),
			"bytes_sent": number(f[8]), "packets_sent": number(f[9]), "err_out": number(f[10]), "drop_out": number(f[11])}
		dims := map[string]string{"interface": name}
		for k, v := range m.since("net/"+name, now) {
			out = append(out, sample{"net_" + k, dims, v})
		}
	}
	return out, nil
}

// tcpStates are the kernel's numbers (include/net/tcp_states.h).
var tcpStates = map[string]string{"01": "established", "02": "syn_sent", "03": "syn_recv", "04": "fin_wait1", "05": "fin_wait2", "06": "time_wait",
	"07": "close", "08": "close_wait", "09": "last_ack", "0A": "listen", "0B": "closing"}

func (m *meter) netstat() ([]sample, error) {
	n := map[string]float64{"tcp_none": 0, "udp_socket": 0}
	for _, s := range tcpStates {
		n["tcp_"+s] = 0
	}
	for _, name := range []string{"tcp", "tcp6", "udp", "udp6"} {
		lines, err := m.lines("/proc/net/" + name)
		if os.IsNotExist(err) {
			continue // no IPv6
		}
		if err != nil {
			return nil, err
		}
		for i, l := range lines {
			f := strings.Fields(l)
			switch {
			case i == 0 || len(f) < 4:
			case strings.HasPrefix(name, "udp"):
				n["udp_socket"]++
			case tcpStates[f[3]] != "":
				n["tcp_"+tcpStates[f[3]]]++
			default:
				n["tcp_none"]++
			}
		}
	}
	var out []sample
	for k, v := range n {
		out = append(out, sample{"netstat_" + k, nil, v})
	}
	return out, nil
}

// processes counts what /proc shows, by state.
func (m *meter) processes() ([]sample, error) {
	entries, err := os.ReadDir(m.root + "/proc")
	if err != nil {
		return nil, err
	}
	n := map[string]float64{"blocked": 0, "dead": 0, "idle": 0, "paging": 0, "running": 0, "sleeping": 0, "stopped": 0, "zombies": 0}
	names := map[byte]string{'R': "running", 'S': "sleeping", 'D': "blocked", 'Z': "zombies", 'X': "dead", 'T': "stopped", 't': "stopped", 'W': "paging", 'I': "idle"}
	total, threads := 0.0, 0.0
	for _, e := range entries {
		if c := e.Name()[0]; c < '1' || c > '9' {
			continue
		}
		b, err := os.ReadFile(m.root + "/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
		f := strings.Fields(rest)
		if len(f) < 18 || f[0] == "" {
			continue
		}
		total++
		threads += number(f[17])
		if k := names[f[0][0]]; k != "" {
			n[k]++
		}
	}
	out := []sample{{"processes_total", nil, total}, {"processes_total_threads", nil, threads}}
	for k, v := range n {
		out = append(out, sample{"processes_" + k, nil, v})
	}
	return out, nil
}
