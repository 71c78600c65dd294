// Command lb compares the load balancer with nginx and with a plain
// httputil.ReverseProxy in one run: the same backend, the same load, one after the
// other, in rounds. It prints requests per second, latency and CPU time per request,
// and their ratios to nginx. It needs wrk; without nginx that row is left out.
//
//	go run ./test/bench/lb [-d 3s] [-rounds 2] [-c 64]
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

func main() {
	role := flag.String("role", "", "internal: backend, lb or reverseproxy")
	listen := flag.String("listen", "", "internal: address to listen on")
	backend := flag.String("backend", "", "internal: the backend's address")
	dir := flag.String("dir", "", "internal: working directory")
	length := flag.Duration("d", 3*time.Second, "length of one measurement")
	rounds := flag.Int("rounds", 2, "rounds")
	conns := flag.Int("c", 64, "client connections")
	flag.Parse()
	var err error
	switch *role {
	case "":
		err = compare(*length, *rounds, *conns)
	case "backend":
		err = serveBackend(*listen)
	case "lb":
		err = serveLB(*listen, *backend, *dir)
	case "reverseproxy":
		err = serveReverseProxy(*listen, *backend)
	default:
		err = fmt.Errorf("no role %q", *role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// candidate is one proxy under test.
type candidate struct {
	name   string
	addr   string
	cmd    *exec.Cmd
	total  sample
	rounds int
}

func compare(length time.Duration, rounds, conns int) error {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		return fmt.Errorf("wrk is needed (apt-get install wrk): %w", err)
	}
	dir, err := os.MkdirTemp("", "slipway-bench-lb-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rounds)*5*length+time.Minute)
	defer cancel()
	backend := freeAddr()
	var running []*exec.Cmd
	defer func() {
		for _, c := range running {
			_ = c.Process.Signal(os.Interrupt)
			stop := time.AfterFunc(5*time.Second, func() { _ = c.Process.Kill() })
			_ = c.Wait()
			stop.Stop()
		}
	}()
	start := func(addr, name string, args ...string) (*exec.Cmd, error) {
		c := exec.CommandContext(ctx, name, args...)
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			return nil, err
		}
		running = append(running, c)
		return c, waitFor(ctx, addr)
	}
	if _, err := start(backend, self, "-role", "backend", "-listen", backend); err != nil {
		return err
	}
	var all []*candidate
	for _, role := range []string{"lb", "reverseproxy"} {
		c := &candidate{name: role, addr: freeAddr()}
		if c.cmd, err = start(c.addr, self, "-role", role, "-listen", c.addr, "-backend", backend, "-dir", dir); err != nil {
			return fmt.Errorf("%s: %w", role, err)
		}
		all = append(all, c)
	}
	if nginx, err := exec.LookPath("nginx"); err == nil {
		c := &candidate{name: "nginx", addr: freeAddr()}
		conf := filepath.Join(dir, "nginx.conf")
		if err := os.WriteFile(conf, nginxConf(dir, c.addr, backend), 0o600); err != nil {
			return err
		}
		if c.cmd, err = start(c.addr, nginx, "-c", conf, "-p", dir, "-e", filepath.Join(dir, "error.log")); err != nil {
			return fmt.Errorf("nginx: %w", err)
		}
		all = append([]*candidate{c}, all...)
	}
	direct, err := runWrk(ctx, wrk, backend, length, conns)
	if err != nil {
		return err
	}
	fmt.Printf("the backend alone: %.0f requests/s, p50 %v, p99 %v\n", direct.rate, direct.p50, direct.p99)
	for range rounds {
		for _, c := range all {
			if err := c.measure(ctx, wrk, length, conns); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	report(all)
	return nil
}

func report(all []*candidate) {
	fmt.Printf("%-14s %12s %10s %10s %14s   ratios to %s: rate, p50, p99, cpu\n", "", "requests/s", "p50", "p99", "cpu/request", all[0].name)
	ref := all[0].mean()
	for _, c := range all {
		s := c.mean()
		fmt.Printf("%-14s %12.0f %10v %10v %11.2f us   %.2f %.2f %.2f %.2f\n", c.name, s.rate, s.p50, s.p99, s.cpu,
			s.rate/ref.rate, ratio(s.p50, ref.p50), ratio(s.p99, ref.p99), s.cpu/ref.cpu)
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

func freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // a machine without loopback cannot bench
	}
	defer ln.Close()
	return ln.Addr().String()
}

func waitFor(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("nobody listens on %s: %w", addr, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
