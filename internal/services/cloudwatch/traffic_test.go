package cloudwatch

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"slipway/internal/lb"
)

// balancerProcess starts a load balancer process of its own, which this test
// program becomes.
func balancerProcess(t *testing.T, scale float64) *lb.Client {
	t.Helper()
	dir := t.TempDir()
	socket := filepath.Join(dir, "lb.sock")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), balancerArgs+"="+strings.Join([]string{"--socket", socket, "--state", filepath.Join(dir, "lb.json"), fmt.Sprintf("--time-scale=%v", scale)}, "\n"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client := lb.NewClient(socket)
	t.Cleanup(func() {
		client.Close()
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the load balancer process: %v\n%s", err, log.String())
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := client.Ping(context.Background()); err == nil {
			return client
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// backend is a target that counts what it is asked and what it answers.
type backend struct {
	id, ip, zone string
	mu           sync.Mutex
	codes        map[int]int
	asked        int
	took         []time.Duration // of the answered requests
	accepted     atomic.Int64    // connections
	open         atomic.Int64
	hanging      chan struct{} // receives for each request that waits for its client to go
	arrived      atomic.Int64  // of /hold
	release      chan struct{} // closed to answer /hold
}

func (b *backend) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	begun := time.Now()
	_, _ = io.Copy(io.Discard, q.Body)
	b.mu.Lock()
	b.asked++
	b.mu.Unlock()
	code := http.StatusOK
	switch {
	case q.URL.Path == "/hang":
		b.hanging <- struct{}{}
		<-q.Context().Done()
		return
	case q.URL.Path == "/hold":
		b.arrived.Add(1)
		<-b.release
	case strings.HasPrefix(q.URL.Path, "/code/"):
		code, _ = strconv.Atoi(q.URL.Path[len("/code/"):])
	case strings.HasPrefix(q.URL.Path, "/wait/"):
		ms, _ := strconv.Atoi(q.URL.Path[len("/wait/"):])
		select { // a program at work
		case <-time.After(time.Duration(ms) * time.Millisecond):
		case <-q.Context().Done():
		}
	}
	b.mu.Lock()
	b.codes[code/100]++
	b.took = append(b.took, time.Since(begun))
	b.mu.Unlock()
	w.WriteHeader(code)
	if code/100 == 2 {
		_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
	}
}

// site is addresses in 127.0.0.0/8 that share a port for traffic and one for
// health checks.
type site struct {
	t             *testing.T
	traffic, look int
	listeners     map[string]net.Listener
}

func newSite(t *testing.T, ips ...string) *site {
	t.Helper()
	s := &site{t: t, listeners: map[string]net.Listener{}}
	s.traffic = s.claim(ips)
	s.look = s.claim(ips)
	return s
}

// claim listens on one free port of all addresses.
func (s *site) claim(ips []string) int {
	s.t.Helper()
next:
	for range 50 {
		first, err := net.Listen("tcp", ips[0]+":0")
		if err != nil {
			s.t.Fatal(err)
		}
		port := first.Addr().(*net.TCPAddr).Port
		got := []net.Listener{first}
		for _, ip := range ips[1:] {
			l, err := net.Listen("tcp", net.JoinHostPort(ip, strconv.Itoa(port)))
			if err != nil {
				for _, l := range got {
					l.Close()
				}
				continue next
			}
			got = append(got, l)
		}
		for i, l := range got {
			s.listeners[net.JoinHostPort(ips[i], strconv.Itoa(port))] = l
		}
		return port
	}
	s.t.Fatal("no port is free on all addresses")
	return 0
}

// serve makes a target at an address; healthy says how its health check goes,
// listening whether it takes traffic at all.
func (s *site) serve(ip, zone string, healthy, listening bool) (*backend, lb.Target) {
	b := &backend{id: "i-" + ip, ip: ip, zone: zone, codes: map[int]int{}, hanging: make(chan struct{}, 10), release: make(chan struct{})}
	status := http.StatusOK
	if !healthy {
		status = http.StatusServiceUnavailable
	}
	s.run(ip, s.look, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }), nil)
	if listening {
		s.run(ip, s.traffic, b, func(_ net.Conn, st http.ConnState) {
			switch st {
			case http.StateNew:
				b.accepted.Add(1)
				b.open.Add(1)
			case http.StateClosed, http.StateHijacked:
				b.open.Add(-1)
			}
		})
	} else {
		s.listeners[net.JoinHostPort(ip, strconv.Itoa(s.traffic))].Close()
	}
	return b, lb.Target{ID: b.id, IP: ip, Port: s.traffic, Zone: zone, State: lb.Registered}
}

func (s *site) run(ip string, port int, h http.Handler, state func(net.Conn, http.ConnState)) {
	srv := &http.Server{Handler: h, ConnState: state}
	done := make(chan struct{})
	l := s.listeners[net.JoinHostPort(ip, strconv.Itoa(port))]
	go func() { defer close(done); _ = srv.Serve(l) }()
	s.t.Cleanup(func() { srv.Close(); <-done })
}

// caller is a client that counts its connections and their bytes.
type traffic struct {
	t           *testing.T
	addr        string
	dials, open atomic.Int64
	sent, got   atomic.Int64
	mu          sync.Mutex
	took        []time.Duration // of requests that a target answered
}

type countedConn struct {
	net.Conn
	of   *traffic
	once sync.Once
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.of.got.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.of.sent.Add(int64(n))
	return n, err
}

func (c *countedConn) Close() error {
	c.once.Do(func() { c.of.open.Add(-1) })
	return c.Conn.Close()
}

func (c *traffic) dial() net.Conn {
	c.t.Helper()
	nc, err := net.Dial("tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.dials.Add(1)
	c.open.Add(1)
	return &countedConn{Conn: nc, of: c}
}

func (c *traffic) client(keep bool) *http.Client {
	tr := &http.Transport{DisableKeepAlives: !keep, DisableCompression: true, MaxIdleConnsPerHost: 64,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return c.dial(), nil }}
	c.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 60 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// ask sends n requests, each on a connection of its own, and wants a status.
func (c *traffic) ask(n int, method, path string, body int, want int, change ...func(*http.Request)) *http.Response {
	c.t.Helper()
	client := c.client(false)
	var last *http.Response
	for range n {
		var r io.Reader
		if body > 0 {
			r = bytes.NewReader(make([]byte, body))
		}
		q, err := http.NewRequest(method, "http://site.test"+path, r)
		if err != nil {
			c.t.Fatal(err)
		}
		for _, f := range change {
			f(q)
		}
		begun := time.Now()
		res, err := client.Do(q)
		if err != nil {
			c.t.Fatalf("%s %.40s: %v", method, path, err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != want {
			c.t.Fatalf("%s %.40s: status %d (%v), want %d", method, path, res.StatusCode, err, want)
		}
		c.mu.Lock()
		c.took = append(c.took, time.Since(begun))
		c.mu.Unlock()
		last = res
	}
	return last
}

// raw sends bytes and returns the status that comes back.
func (c *traffic) raw(text string) int {
	c.t.Helper()
	nc := c.dial()
	defer nc.Close()
	if _, err := io.WriteString(nc, text); err != nil {
		c.t.Fatal(err)
	}
	b, _ := io.ReadAll(nc) // it may end with a reset
	var status int
	fmt.Sscanf(string(b), "HTTP/1.1 %d", &status)
	return status
}

func selfSigned(t *testing.T) (chain, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"site.test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb}))
}
