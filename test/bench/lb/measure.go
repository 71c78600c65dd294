package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// sample is one measurement; cpu is microseconds per request.
type sample struct {
	rate     float64
	p50, p99 time.Duration
	cpu      float64
	requests float64
}

func (c *candidate) measure(ctx context.Context, wrk string, length time.Duration, conns int) error {
	before, err := cpuTime(c.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s, err := runWrk(ctx, wrk, c.addr, length, conns)
	if err != nil {
		return err
	}
	after, err := cpuTime(c.cmd.Process.Pid)
	if err != nil {
		return err
	}
	s.cpu = float64((after - before).Microseconds()) / s.requests
	c.rounds++
	c.total.rate += s.rate
	c.total.p50 += s.p50
	c.total.p99 += s.p99
	c.total.cpu += s.cpu
	return nil
}

func (c *candidate) mean() sample {
	n := c.rounds
	t := c.total
	return sample{rate: t.rate / float64(n), p50: t.p50 / time.Duration(n), p99: t.p99 / time.Duration(n), cpu: t.cpu / float64(n)}
}

var (
	reRate  = regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	reTotal = regexp.MustCompile(`(\d+) requests in`)
	re50    = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)$`)
	re99    = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)$`)
)

// runWrk loads the address and reads wrk's report. A failed request fails the run:
// figures of a proxy that answers errors mean nothing.
func runWrk(ctx context.Context, wrk, addr string, length time.Duration, conns int) (sample, error) {
	out, err := exec.CommandContext(ctx, wrk, "-t1", "-c"+strconv.Itoa(conns), "-d"+strconv.Itoa(int(length.Seconds()))+"s", "--latency", "http://"+addr+"/tasks").CombinedOutput()
	text := string(out)
	if err != nil {
		return sample{}, fmt.Errorf("wrk: %w: %s", err, text)
	}
	if strings.Contains(text, "Non-2xx") || strings.Contains(text, "Socket errors") {
		return sample{}, fmt.Errorf("requests failed: %s", text)
	}
	var s sample
	if s.rate, err = number(reRate, text); err != nil {
		return s, err
	}
	if s.requests, err = number(reTotal, text); err != nil {
		return s, err
	}
	for re, p := range map[*regexp.Regexp]*time.Duration{re50: &s.p50, re99: &s.p99} {
		m := re.FindStringSubmatch(text)
		if m == nil {
			return s, fmt.Errorf("no latency in %s", text)
		}
		if *p, err = time.ParseDuration(m[1]); err != nil {
			return s, err
		}
	}
	return s, nil
}

func number(re *regexp.Regexp, text string) (float64, error) {
	m := re.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no %v in %s", re, text)
	}
	return strconv.ParseFloat(m[1], 64)
}

// cpuTime is user and system time of a process and its children (nginx's workers).
func cpuTime(pid int) (time.Duration, error) {
	total, err := ownCPU(pid)
	if err != nil {
		return 0, err
	}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that has just ended
		}
		for _, f := range strings.Fields(string(b)) {
			child, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			t, err := cpuTime(child)
			if err != nil {
				return 0, err
			}
			total += t
		}
	}
	return total, nil
}

func ownCPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	sys, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, b)
	}
	return time.Duration(user+sys) * 10 * time.Millisecond, nil // USER_HZ is 100 on Linux
}
