package cloudwatch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// config is what the agent does, put together from all configuration files.
type config struct {
	Region  string // "" means that of the instance
	Logs    logsConfig
	Metrics *metricsConfig // nil: none are collected

	// Warnings name the parts of the configuration that this agent does not do.
	Warnings []string
}

type logsConfig struct {
	Endpoint string        // "" means the agent's
	Flush    time.Duration // longest time that a line waits to be sent
	Files    []fileConfig
}

// rawConfig is the configuration as it is written.
type rawConfig struct {
	Agent   rawAgent        `json:"agent"`
	Logs    *rawLogs        `json:"logs"`
	Metrics *rawMetrics     `json:"metrics"`
	Traces  json.RawMessage `json:"traces"`
}

type rawAgent struct {
	Interval     *float64 `json:"metrics_collection_interval"`
	Region       string   `json:"region"`
	OmitHostname bool     `json:"omit_hostname"`
	Logfile      string   `json:"logfile"`
	RunAsUser    string   `json:"run_as_user"`
	Debug        bool     `json:"debug"`
}

type rawLogs struct {
	Collected        map[string]json.RawMessage `json:"logs_collected"`
	MetricsCollected map[string]json.RawMessage `json:"metrics_collected"`
	LogStreamName    string                     `json:"log_stream_name"`
	Flush            *float64                   `json:"force_flush_interval"`
	Endpoint         string                     `json:"endpoint_override"`
}

type rawFiles struct {
	CollectList []rawFile `json:"collect_list"`
}

// loadConfig reads all *.json of a directory, in the order of their names. No file is an empty configuration.
func loadConfig(dir string) (*config, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	c := &config{Logs: logsConfig{Flush: 5 * time.Second}}
	from := map[string]string{} // setting -> file that made it
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		if err := c.add(p, b, from); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// parseConfig checks one file for itself.
func parseConfig(name string, text []byte) (*config, error) {
	c := &config{Logs: logsConfig{Flush: 5 * time.Second}}
	return c, c.add(name, text, map[string]string{})
}

// add merges one file in; two files must not set the same thing differently.
func (c *config) add(name string, text []byte, from map[string]string) error {
	if len(text) > maxConfig {
		return fmt.Errorf("%s: is larger than %d bytes", name, maxConfig)
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
	var raw rawConfig
	if err := json.Unmarshal(text, &raw); err != nil {
		return atPosition(name, text, err)
	}
	once := func(key, value string) error {
		if old, ok := from[key]; ok && old != value {
			return fmt.Errorf("%s: %s is %s here and %s in another file", name, key, value, old)
		}
		from[key] = value
		return nil
	}
	if raw.Agent.Region != "" {
		if err := once("agent.region", raw.Agent.Region); err != nil {
			return err
		}
		c.Region = raw.Agent.Region
	}
	if len(raw.Traces) > 0 {
		c.warn("traces are not collected")
	}
	if raw.Logs != nil {
		if err := c.addLogs(name, raw.Logs, once); err != nil {
			return err
		}
	}
	if raw.Metrics != nil {
		if err := c.addMetrics(name, &raw, once); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) addLogs(name string, l *rawLogs, once func(key, value string) error) error {
	if l.Flush != nil {
		if *l.Flush < 1 || *l.Flush > 86400 {
			return fmt.Errorf("%s: logs.force_flush_interval is %v; it must be 1 to 86400 seconds", name, *l.Flush)
		}
		if err := once("logs.force_flush_interval", fmt.Sprint(*l.Flush)); err != nil {
			return err
		}
		c.Logs.Flush = time.Duration(*l.Flush * float64(time.Second))
	}
	if l.Endpoint != "" {
		if err := once("logs.endpoint_override", l.Endpoint); err != nil {
			return err
		}
		c.Logs.Endpoint = l.Endpoint
	}
	for section := range l.MetricsCollected {
		c.warn("logs.metrics_collected.%s is not collected", section)
	}
	for section, text := range l.Collected {
		if section != "files" {
			c.warn("logs.logs_collected.%s is not collected", section)
			continue
		}
		var files rawFiles
		if err := json.Unmarshal(text, &files); err != nil {
			return fmt.Errorf("%s: logs.logs_collected.files: %w", name, err)
		}
		for i, f := range files.CollectList {
			fc, err := f.check(l.LogStreamName)
			if err != nil {
				return fmt.Errorf("%s: logs.logs_collected.files.collect_list[%d].%w", name, i, err)
			}
			if slices.ContainsFunc(c.Logs.Files, func(o fileConfig) bool { return o.id() == fc.id() }) {
				continue // the same entry twice must not double its lines
			}
			c.Logs.Files = append(c.Logs.Files, fc)
		}
	}
	return nil
}

func (c *config) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// atPosition gives a JSON error the line and column where it is.
func atPosition(name string, text []byte, err error) error {
	offset := int64(-1)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
		err = fmt.Errorf("%s is a %s where a %s is expected", kind.Field, kind.Value, kind.Type)
	}
	if offset < 0 || offset > int64(len(text)) {
		return fmt.Errorf("%s: %w", name, err)
	}
	before := string(text[:offset])
	line := 1 + strings.Count(before, "\n")
	column := len(before) - strings.LastIndexByte(before, '\n') - 1
	return fmt.Errorf("%s:%d:%d: %w", name, line, max(column, 1), err)
}
