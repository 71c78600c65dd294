package sandbox

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"slipway/internal/machine"
)

// Stats implements machine.Driver.
func (d *Driver) Stats(id string) (machine.Stats, error) {
	b, err := d.running(id)
	if err != nil {
		return machine.Stats{}, err
	}
	d.mu.Lock()
	link := b.rec.Link
	d.mu.Unlock()
	s := machine.Stats{At: d.clk.Now()}
	if d.cg.full {
		d.cg.statsV2(id, &s)
	} else {
		d.cg.statsV1(id, &s)
	}
	s.Processes = d.cg.number(id, "pids", "pids.current")
	if b.rec.Spec.PrivateIP != "" {
		l, err := d.vpc.nl.LinkByName(link)
		if err != nil {
			return s, fmt.Errorf("network counters of %s: %w", id, err)
		}
		if n := l.Attrs().Statistics; n != nil {
			// What the VPC's side sent, the machine received.
			s.NetRxBytes, s.NetRxPackets = int64(n.TxBytes), int64(n.TxPackets)
			s.NetTxBytes, s.NetTxPackets = int64(n.RxBytes), int64(n.RxPackets)
		}
	}
	return s, nil
}

func (c *cgroups) read(id, controller, file string) string {
	if !c.full && c.v1[controller] == "" {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(c.ctl(id, controller), file))
	if err != nil {
		return "" // the host does not count it
	}
	return string(b)
}

func (c *cgroups) number(id, controller, file string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(c.read(id, controller, file)), 10, 64)
	return n
}

// field finds "name value" in a flat keyed file.
func field(text, name string) int64 {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == name {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

func (c *cgroups) statsV2(id string, s *machine.Stats) {
	s.CPUNanos = field(c.read(id, "cpu", "cpu.stat"), "usage_usec") * 1000
	s.MemoryBytes = max(0, c.number(id, "memory", "memory.current")-field(c.read(id, "memory", "memory.stat"), "inactive_file"))
	s.MemoryLimit = c.number(id, "memory", "memory.max") // "max" reads as 0
	for line := range strings.Lines(c.read(id, "io", "io.stat")) {
		for kv := range strings.FieldsSeq(line) {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseInt(v, 10, 64)
			switch k {
			case "rbytes":
				s.DiskReadBytes += n
			case "wbytes":
				s.DiskWriteBytes += n
			case "rios":
				s.DiskReadOps += n
			case "wios":
				s.DiskWriteOps += n
			}
		}
	}
}

// unlimitedV1 is what the memory controller says when nobody set a limit: the
// largest page-aligned number, or near it.
const unlimitedV1 = 1 << 62

func (c *cgroups) statsV1(id string, s *machine.Stats) {
	s.CPUNanos = c.number(id, "cpuacct", "cpuacct.usage")
	s.MemoryBytes = max(0, c.number(id, "memory", "memory.usage_in_bytes")-field(c.read(id, "memory", "memory.stat"), "total_inactive_file"))
	if s.MemoryLimit = c.number(id, "memory", "memory.limit_in_bytes"); s.MemoryLimit >= unlimitedV1 {
		s.MemoryLimit = 0
	}
	count := func(file string, read, write *int64) {
		for line := range strings.Lines(c.read(id, "blkio", file)) {
			f := strings.Fields(line)
			if len(f) != 3 {
				continue
			}
			n, _ := strconv.ParseInt(f[2], 10, 64)
			switch f[1] {
			case "Read":
				*read += n
			case "Write":
				*write += n
			}
		}
	}
	count("blkio.throttle.io_service_bytes_recursive", &s.DiskReadBytes, &s.DiskWriteBytes)
	count("blkio.throttle.io_serviced_recursive", &s.DiskReadOps, &s.DiskWriteOps)
}

// ConsoleOutput implements machine.Driver.
func (d *Driver) ConsoleOutput(id string) ([]byte, error) {
	if _, err := d.box(id); err != nil {
		return nil, err
	}
	f, err := os.Open(d.paths.console(id))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", id, err)
	}
	defer f.Close()
	const last = 64 << 10 // as much as EC2 keeps
	if info, err := f.Stat(); err == nil && info.Size() > last {
		if _, err := f.Seek(-last, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, last))
}
