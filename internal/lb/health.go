package lb

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"slipway/internal/clock"
	"slipway/internal/lb/h1"
)

// checkConf is a health check, compiled.
type checkConf struct {
	https    bool
	port     int // 0 is the traffic port
	path     string
	interval time.Duration
	timeout  time.Duration
	up, down int
	codes    [][2]int
}

func (c checkConf) portOf(traffic int) int {
	if c.port != 0 {
		return c.port
	}
	return traffic
}

func compileCheck(g *TargetGroup) (checkConf, error) {
	h := &g.HealthCheck
	or := func(v, def int) int {
		if v == 0 {
			return def
		}
		return v
	}
	c := checkConf{
		https: h.Protocol == "HTTPS", path: h.Path,
		interval: time.Duration(or(h.IntervalSeconds, 30)) * time.Second,
		timeout:  time.Duration(or(h.TimeoutSeconds, 5)) * time.Second,
		up:       or(h.HealthyThreshold, 5), down: or(h.UnhealthyThreshold, 2),
	}
	if c.path == "" {
		c.path = "/"
	}
	if c.path[0] != '/' || strings.ContainsAny(c.path, " \r\n") {
		return c, fmt.Errorf("target group %s: health check path %q", g.Name, h.Path)
	}
	if h.Port != "" && h.Port != "traffic-port" {
		n, err := strconv.Atoi(h.Port)
		if err != nil || n < 1 || n > 65535 {
			return c, fmt.Errorf("target group %s: health check port %q", g.Name, h.Port)
		}
		c.port = n
	}
	matcher := h.Matcher
	if matcher == "" {
		matcher = "200"
	}
	var err error
	if c.codes, err = parseMatcher(matcher); err != nil {
		return c, fmt.Errorf("target group %s: matcher %q: %w", g.Name, matcher, err)
	}
	return c, nil
}

func parseMatcher(s string) ([][2]int, error) {
	var codes [][2]int
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			hi = lo
		}
		a, err := strconv.Atoi(lo)
		if err != nil {
			return nil, err
		}
		b, err := strconv.Atoi(hi)
		if err != nil {
			return nil, err
		}
		codes = append(codes, [2]int{a, b})
	}
	return codes, nil
}

// verdict is the outcome of one check; reason and text are AWS's, empty when good.
type verdict struct{ reason, text string }

// probe makes one check on a connection of its own, as ALB does. Its timeout is
// real time: the target answers in real time.
func (c checkConf) probe(ctx context.Context, conf Target) verdict {
	addr := net.JoinHostPort(conf.IP, strconv.Itoa(c.portOf(conf.Port)))
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	status, err := c.get(ctx, addr)
	if err != nil {
		var ne net.Error
		if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
			return verdict{"Target.Timeout", "Request timed out"}
		}
		return verdict{"Target.FailedHealthChecks", "Health checks failed"}
	}
	for _, r := range c.codes {
		if status >= r[0] && status <= r[1] {
			return verdict{}
		}
	}
	return verdict{"Target.ResponseCodeMismatch", fmt.Sprintf("Health checks failed with these codes: [%d]", status)}
}

func (c checkConf) get(ctx context.Context, addr string) (int, error) {
	var d net.Dialer
	d.SetMultipathTCP(false)
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = nc.Close() }()
	if c.https {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10})
	}
	if t, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(t); err != nil {
			return 0, err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_, err = fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nUser-Agent: ELB-HealthChecker/2.0\r\nAccept-Encoding: gzip, compressed\r\n\r\n", c.path, addr)
	if err != nil {
		return 0, err
	}
	var res h1.Response
	r := bufio.NewReaderSize(nc, h1.MaxResponseHead)
	for want := 1; ; want = r.Buffered() + 1 {
		_, err := r.Peek(want)
		b, _ := r.Peek(r.Buffered()) // what is buffered is always there
		n, perr := res.Parse(b)
		if perr != nil {
			return 0, perr
		}
		if n > 0 && res.Status >= 200 {
			return res.Status, nil
		}
		if n > 0 {
			_, _ = r.Discard(n) // it is buffered
			continue
		}
		if err != nil {
			return 0, err
		}
	}
}

// checker checks one target until its context ends. The schedule does not shift
// when an answer is slow.
type checker struct {
	t       *target
	clock   clock.Clock
	changed func(*target)
	first   bool // the state is Elb.RegistrationInProgress until the first check starts
}

// Run checks at once and then every interval.
func (c *checker) Run(ctx context.Context) error {
	next := c.clock.Now()
	good := false
	for {
		conf := c.t.group.conf.Load()
		if c.first {
			c.first = false
			c.t.mu.Lock()
			if c.t.state == StateInitial {
				c.t.setReason("Elb.InitialHealthChecking", "Initial health checks in progress")
			}
			c.t.mu.Unlock()
			c.changed(c.t)
		}
		v := conf.check.probe(ctx, c.t.conf)
		if ctx.Err() != nil {
			return nil
		}
		if c.t.judge(conf, v, c.clock.Now()) {
			c.changed(c.t)
		}
		good = good || v.reason == ""
		now := c.clock.Now()
		for next = next.Add(conf.check.interval); next.Before(now); {
			next = next.Add(conf.check.interval)
		}
		if !good {
			good = c.peek(ctx, next)
		}
		if err := c.clock.Sleep(ctx, c.clock.Until(next)); err != nil {
			return nil
		}
	}
}

// The pauses between the extra checks of a target that never was healthy.
const (
	firstPeek = 50 * time.Millisecond
	maxPeek   = time.Second
)

// peek looks more often than the interval says at a target that never was
// healthy, until the next regular check: most were registered while they were
// still starting, and one good answer makes them healthy. A bad answer to
// such an extra check counts for nothing. It returns whether one was good.
func (c *checker) peek(ctx context.Context, next time.Time) bool {
	for pause := firstPeek; c.clock.Until(next) > pause; pause = min(2*pause, maxPeek) {
		if c.clock.Sleep(ctx, pause) != nil || !c.t.initial() {
			return false
		}
		conf := c.t.group.conf.Load()
		if v := conf.check.probe(ctx, c.t.conf); v.reason == "" && ctx.Err() == nil {
			if c.t.judge(conf, v, c.clock.Now()) {
				c.changed(c.t)
			}
			return true
		}
	}
	return false
}

// initial tells whether no verdict was reached yet.
func (t *target) initial() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state == StateInitial
}

// judge moves the state machine (ALB user guide, "Health checks for your target
// groups"): one success makes a new target healthy; later it takes the thresholds.
func (t *target) judge(conf *groupConf, v verdict, now time.Time) (changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v == (verdict{}) {
		t.bad = 0
		t.good++
		if t.state == StateHealthy || t.state == StateUnhealthy && t.good < conf.check.up {
			return false
		}
		t.state, t.since = StateHealthy, now
		t.setReason("", "")
		t.startRamp(conf, now)
		t.ok.Store(true)
		return true
	}
	t.good = 0
	t.bad++
	if t.state == StateUnhealthy {
		changed = t.reason != v.reason || t.text != v.text
		t.setReason(v.reason, v.text)
		return changed
	}
	if t.bad < conf.check.down {
		return false
	}
	t.state, t.since = StateUnhealthy, now
	t.setReason(v.reason, v.text)
	t.ok.Store(false)
	t.rampSince.Store(0)
	return true
}
