package lb

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"slipway/internal/clock"
)

// rig is a running process with its client and a snapshot under construction.
type rig struct {
	t      *testing.T
	dir    string
	client *Client
	snap   Snapshot
	stop   func()
}

const testGroup = "arn:tg"

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	r.start()
	t.Cleanup(func() { r.stop() })
	addr := freeAddr(t)
	r.snap = Snapshot{
		LoadBalancers: []LoadBalancer{{ARN: "arn:aws:elasticloadbalancing:us-east-1:123456789012:loadbalancer/app/todo/0123456789abcdef", Name: "todo", Attributes: map[string]string{}, Listeners: []Listener{{
			ARN: "arn:l", Protocol: "HTTP", Address: addr, Port: 80,
			DefaultActions: []Action{{Type: "forward", Forward: &Forward{TargetGroups: []WeightedGroup{{ARN: testGroup, Weight: 1}}}}},
		}}}},
		TargetGroups: []TargetGroup{{ARN: testGroup, Name: "tg", Protocol: "HTTP", Attributes: map[string]string{},
			HealthCheck: HealthCheck{Path: "/healthz", IntervalSeconds: 5, TimeoutSeconds: 2}}},
	}
	return r
}

func (r *rig) start() {
	ctx, cancel := context.WithCancel(context.Background())
	socket := filepath.Join(r.dir, "lb.sock")
	done := make(chan error, 1)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	go func() {
		done <- serve(ctx, socket, filepath.Join(r.dir, "state.json"), listenHere, clock.Scaled(50, time.Time{}), log)
	}()
	r.client = NewClient(socket)
	var once atomic.Bool
	r.stop = func() {
		if once.Swap(true) {
			return
		}
		r.client.Close()
		cancel()
		if err := <-done; err != nil {
			r.t.Error("the process ended with", err)
		}
	}
	r.until("the process answers", func() bool {
		_, err := r.client.Ping(context.Background())
		return err == nil
	})
}

func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	for end := time.Now().Add(time.Minute); !f(); {
		if time.Now().After(end) {
			r.t.Fatal("it never came true that", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (r *rig) apply() Applied {
	r.t.Helper()
	r.snap.Version++
	out, err := r.client.Apply(context.Background(), r.snap)
	if err != nil {
		r.t.Fatal("apply:", err)
	}
	return out
}

func (r *rig) addr() string { return r.snap.LoadBalancers[0].Listeners[0].Address }
func (r *rig) url() string  { return "http://" + r.addr() }

// add registers a target that answers with the handler; health checks get 200.
func (r *rig) add(id, zone string, h http.HandlerFunc) *httptest.Server {
	r.t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/healthz" {
			return
		}
		h(w, q)
	}))
	r.t.Cleanup(s.Close)
	r.addAddr(id, zone, s.Listener.Addr().String())
	return s
}

func (r *rig) addAddr(id, zone, addr string) {
	host, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	tg := &r.snap.TargetGroups[0]
	tg.Targets = append(tg.Targets, Target{ID: id, IP: host, Port: n, Zone: zone, State: Registered})
}

func (r *rig) healthy(n int) {
	r.t.Helper()
	r.until(fmt.Sprint(n, " targets are healthy"), func() bool {
		hs, err := r.client.Health(context.Background())
		got := 0
		for _, h := range hs {
			if h.State == StateHealthy {
				got++
			}
		}
		return err == nil && got == n
	})
}

// freeAddr is an address nobody listens at. Its port is below those that the
// kernel gives to others, so that nobody comes to have it by accident before it
// is used.
func freeAddr(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		var ln net.Listener
		if ln, err = net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.IntN(20_000))); err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal(err)
	return ""
}

func say(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	res, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
