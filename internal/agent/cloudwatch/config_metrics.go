package cloudwatch

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// metricsConfig is what is measured and how it is published.
type metricsConfig struct {
	Namespace string
	Endpoint  string
	Flush     time.Duration
	// Identity are the dimensions that every metric gets: names with the placeholders that they stand for.
	Identity  map[string]string
	Hostname  bool // the dimension host, where no identity is asked for
	Aggregate [][]string
	Sections  []section
}

// section is one kind of measurement: cpu, mem, ...
type section struct {
	Name      string
	Interval  time.Duration
	Resources []string // nil: the section's default
	Measures  []measure
	Extra     map[string]string // append_dimensions of the section
	TotalCPU  bool
	Drop      bool     // drop_device
	IgnoreFS  []string // ignore_file_system_types
}

// measure is one metric of a section.
type measure struct {
	Name   string // with the section's name before it: mem_used_percent
	Rename string
	Unit   string
}

type rawMetrics struct {
	Namespace string                     `json:"namespace"`
	Endpoint  string                     `json:"endpoint_override"`
	Flush     *float64                   `json:"force_flush_interval"`
	Append    map[string]string          `json:"append_dimensions"`
	Aggregate [][]string                 `json:"aggregation_dimensions"`
	Collected map[string]json.RawMessage `json:"metrics_collected"`
}

type rawSection struct {
	Measurement []json.RawMessage `json:"measurement"`
	Resources   []string          `json:"resources"`
	Interval    *float64          `json:"metrics_collection_interval"`
	Append      map[string]string `json:"append_dimensions"`
	TotalCPU    *bool             `json:"totalcpu"`
	DropDevice  bool              `json:"drop_device"`
	IgnoreFS    []string          `json:"ignore_file_system_types"`
}

// identities are the values that append_dimensions of the metrics section may have.
var identities = map[string]string{"InstanceId": "${aws:InstanceId}", "ImageId": "${aws:ImageId}", "InstanceType": "${aws:InstanceType}", "AutoScalingGroupName": "${aws:AutoScalingGroupName}"}

func (c *config) addMetrics(name string, raw *rawConfig, once func(key, value string) error) error {
	m := raw.Metrics
	if c.Metrics == nil {
		c.Metrics = &metricsConfig{Namespace: "CWAgent", Identity: map[string]string{}, Hostname: true, Flush: time.Minute}
	}
	out := c.Metrics
	if m.Namespace != "" {
		if len(m.Namespace) > 255 || strings.HasPrefix(m.Namespace, "AWS/") {
			return fmt.Errorf("%s: metrics.namespace: %q must have at most 255 characters and not begin with AWS/", name, m.Namespace)
		}
		if err := once("metrics.namespace", m.Namespace); err != nil {
			return err
		}
		out.Namespace = m.Namespace
	}
	if m.Endpoint != "" {
		out.Endpoint = m.Endpoint
	}
	if m.Flush != nil {
		if *m.Flush < 1 || *m.Flush > 86400 {
			return fmt.Errorf("%s: metrics.force_flush_interval is %v; it must be 1 to 86400 seconds", name, *m.Flush)
		}
		out.Flush = time.Duration(*m.Flush * float64(time.Second))
	}
	for k, v := range m.Append {
		if identities[k] == "" || identities[k] != v {
			return fmt.Errorf("%s: metrics.append_dimensions.%s: only InstanceId, ImageId, InstanceType and AutoScalingGroupName with the value ${aws:...} of the same name are possible", name, k)
		}
		out.Identity[k] = v
	}
	if raw.Agent.OmitHostname || len(out.Identity) > 0 {
		out.Hostname = false
	}
	out.Aggregate = append(out.Aggregate, m.Aggregate...)
	interval := 60.0
	if raw.Agent.Interval != nil {
		interval = *raw.Agent.Interval
	}
	for key, text := range m.Collected {
		if catalogue[key] == nil {
			c.warn("metrics.metrics_collected.%s is not collected", key)
			continue
		}
		s, err := parseSection(key, text, interval)
		if err != nil {
			return fmt.Errorf("%s: metrics.metrics_collected.%s%w", name, key, err)
		}
		if slices.ContainsFunc(out.Sections, func(o section) bool { return o.Name == key }) {
			return fmt.Errorf("%s: metrics.metrics_collected.%s is in another file already", name, key)
		}
		out.Sections = append(out.Sections, s)
	}
	slices.SortFunc(out.Sections, func(a, b section) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func parseSection(key string, text []byte, interval float64) (section, error) {
	var raw rawSection
	s := section{Name: key}
	if err := json.Unmarshal(text, &raw); err != nil {
		return s, fmt.Errorf(": %w", err)
	}
	if raw.Interval != nil {
		interval = *raw.Interval
	}
	if interval < 1 || interval > 172800 {
		return s, fmt.Errorf(".metrics_collection_interval: %v is not within 1 to 172800 seconds", interval)
	}
	s.Interval = time.Duration(interval * float64(time.Second))
	s.Resources, s.Extra, s.Drop, s.IgnoreFS = raw.Resources, raw.Append, raw.DropDevice, raw.IgnoreFS
	s.TotalCPU = raw.TotalCPU == nil || *raw.TotalCPU
	for _, r := range s.Resources {
		if _, err := path.Match(r, "x"); err != nil {
			return s, fmt.Errorf(".resources: %q: %w", r, err)
		}
	}
	for i, text := range raw.Measurement {
		var m measure
		if json.Unmarshal(text, &m.Name) != nil {
			var full struct{ Name, Rename, Unit string }
			if err := json.Unmarshal(text, &full); err != nil {
				return s, fmt.Errorf(".measurement[%d]: %w", i, err)
			}
			m = measure{full.Name, full.Rename, full.Unit}
		}
		m.Name = key + "_" + strings.TrimPrefix(m.Name, key+"_")
		if _, ok := catalogue[key][m.Name]; !ok {
			return s, fmt.Errorf(".measurement[%d]: %s is not known", i, m.Name)
		}
		s.Measures = append(s.Measures, m)
	}
	return s, nil
}

// catalogue has the metrics of each section with their units (CloudWatch User Guide, "Metrics collected by the
// CloudWatch agent on Linux").
var catalogue = map[string]map[string]string{
	"cpu": units("cpu", "Percent", "usage_active usage_guest usage_guest_nice usage_idle usage_iowait usage_irq usage_nice usage_softirq usage_steal usage_system usage_user",
		"None", "time_active time_guest time_guest_nice time_idle time_iowait time_irq time_nice time_softirq time_steal time_system time_user"),
	"mem":       units("mem", "Bytes", "active available buffered cached free inactive total used shared", "Percent", "available_percent used_percent"),
	"swap":      units("swap", "Bytes", "free used total", "Percent", "used_percent"),
	"disk":      units("disk", "Bytes", "free total used", "Percent", "used_percent inodes_used_percent", "Count", "inodes_free inodes_total inodes_used"),
	"diskio":    units("diskio", "Count", "reads writes iops_in_progress", "Bytes", "read_bytes write_bytes", "Milliseconds", "io_time read_time write_time"),
	"net":       units("net", "Bytes", "bytes_recv bytes_sent", "Count", "packets_recv packets_sent drop_in drop_out err_in err_out"),
	"netstat":   units("netstat", "Count", "tcp_close tcp_close_wait tcp_closing tcp_established tcp_fin_wait1 tcp_fin_wait2 tcp_last_ack tcp_listen tcp_none tcp_syn_sent tcp_syn_recv tcp_time_wait udp_socket"),
	"processes": units("processes", "Count", "blocked dead idle paging running sleeping stopped total total_threads zombies"),
}

// units reads pairs of a unit and the names that have it.
func units(prefix string, pairs ...string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		for name := range strings.FieldsSeq(pairs[i+1]) {
			out[prefix+"_"+name] = pairs[i]
		}
	}
	return out
}
