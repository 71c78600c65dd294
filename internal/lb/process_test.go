package lb

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestForwardsOverHealthyTargets(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.add("i-2", "b", say("two"))
	r.apply()
	r.healthy(2)
	c := newClient(t)
	seen := map[string]int{}
	for range 20 {
		status, body := get(t, c, r.url()+"/")
		if status != 200 {
			t.Fatal(status, body)
		}
		seen[body]++
	}
	if seen["one"] != 10 || seen["two"] != 10 {
		t.Fatal("round robin gave", seen)
	}
	m, err := r.client.Metrics(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	r.until("the counters hold 20 requests", func() bool {
		m, err = r.client.Metrics(context.Background())
		return err == nil && m.LoadBalancers[0].Counters["RequestCount"] == 20
	})
	var hist, ok float64
	for _, x := range m.Targets {
		hist += float64(x.ResponseTime.Count)
		ok += x.Counters["HTTPCode_Target_2XX_Count"]
	}
	if hist != 20 || ok != 20 {
		t.Fatal("histogram", hist, "2xx", ok)
	}
}

func TestHeadersToTheTarget(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", func(w http.ResponseWriter, q *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"host": q.Host, "h": q.Header, "uri": q.RequestURI})
	})
	r.apply()
	r.healthy(1)
	q, _ := http.NewRequest("GET", r.url()+"/a%2Fb/../c?x=1", nil)
	q.Host = "example.com:8080"
	q.Header.Set("X-Forwarded-For", "203.0.113.7")
	q.Header.Set("X-Forwarded-Proto", "gopher")
	q.Header.Set("X-Amzn-Trace-Id", "Root=1-67891233-abcdef012345678912345678;CalledFrom=app")
	q.Header.Set("Connection", "X-Secret")
	q.Header.Set("X-Secret", "drop me")
	res, err := newClient(t).Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got struct {
		Host, URI string
		H         http.Header
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Host != "example.com" || got.URI != "/a%2Fb/../c?x=1" {
		t.Error("host or target:", got.Host, got.URI)
	}
	for name, want := range map[string]string{
		"X-Forwarded-For": "203.0.113.7, 127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Port": "80", "X-Secret": "", "Connection": "",
	} {
		if v := got.H.Get(name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if v := got.H.Get("X-Amzn-Trace-Id"); !strings.HasPrefix(v, "Self=1-") || !strings.HasSuffix(v, ";Root=1-67891233-abcdef012345678912345678;CalledFrom=app") {
		t.Error("trace", v)
	}
}

func TestNoTargetIs503AndNothingToReachIs502(t *testing.T) {
	r := newRig(t)
	r.apply()
	c := newClient(t)
	res, err := c.Get(r.url())
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != 503 || res.Header.Get("Server") != "awselb/2.0" || !strings.Contains(string(body), "<center><h1>503 Service Temporarily Unavailable</h1></center>") {
		t.Fatal(res.StatusCode, res.Header, string(body))
	}
	r.addAddr("i-dead", "a", freeAddr(t))
	r.apply()
	if status, _ := get(t, c, r.url()); status != 502 {
		t.Fatal("a dead target alone gives", status)
	}
	r.until("the dead target is unhealthy", func() bool {
		hs, err := r.client.Health(context.Background())
		return err == nil && hs[0].State == StateUnhealthy && hs[0].Reason == "Target.FailedHealthChecks"
	})
	r.add("i-good", "a", say("fine"))
	r.apply()
	r.healthy(1)
	for range 10 {
		if status, _ := get(t, c, r.url()); status != 200 {
			t.Fatal("with a healthy target:", status)
		}
	}
}

// load sends requests until stopped and counts what was not a 200 with a body.
type load struct {
	ok, bad atomic.Int64
	first   atomic.Value
	stop    chan struct{}
	wg      sync.WaitGroup
}

func startLoad(c *http.Client, url string, workers int) *load {
	l := &load{stop: make(chan struct{})}
	for i := range workers {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				method, body := "GET", io.Reader(nil)
				if i%2 == 1 {
					method, body = "POST", strings.NewReader("some body")
				}
				q, _ := http.NewRequest(method, url, body)
				res, err := c.Do(q)
				if err == nil {
					_, err = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					if err == nil && res.StatusCode != 200 {
						err = fmt.Errorf("%s: status %d", method, res.StatusCode)
					}
				}
				if err != nil {
					l.bad.Add(1)
					l.first.CompareAndSwap(nil, err.Error())
				} else {
					l.ok.Add(1)
				}
			}
		})
	}
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	if l.bad.Load() > 0 {
		t.Errorf("%d of %d requests failed, the first: %v", l.bad.Load(), l.bad.Load()+l.ok.Load(), l.first.Load())
	}
}

func TestRollingDeploymentFailsNoRequest(t *testing.T) {
	r := newRig(t)
	slow := func(name string) http.HandlerFunc {
		return func(w http.ResponseWriter, q *http.Request) {
			_, _ = io.Copy(io.Discard, q.Body)
			time.Sleep(3 * time.Millisecond)
			fmt.Fprint(w, name)
		}
	}
	servers := map[string]io.Closer{}
	for i := range 2 {
		id := fmt.Sprint("i-", i)
		s := r.add(id, "a", slow(id))
		servers[id] = closer(s.Close)
	}
	r.apply()
	r.healthy(2)
	l := startLoad(newClient(t), r.url(), 6)
	for round := range 4 {
		old := r.snap.TargetGroups[0].Targets[0]
		r.snap.TargetGroups[0].Targets[0].State = Draining
		r.apply()
		r.until("the target is drained", func() bool {
			hs, err := r.client.Health(context.Background())
			for _, h := range hs {
				if h.ID == old.ID {
					return err == nil && h.Drained && h.InFlight == 0 && h.State == StateDraining
				}
			}
			return false
		})
		_ = servers[old.ID].Close() // gone for good
		r.snap.TargetGroups[0].Targets = r.snap.TargetGroups[0].Targets[1:]
		id := fmt.Sprint("i-new-", round)
		s := r.add(id, "b", slow(id))
		servers[id] = closer(s.Close)
		r.apply()
		r.healthy(2)
		served := l.ok.Load()
		r.until("both serve under load", func() bool { return l.ok.Load() > served+100 })
	}
	l.end(t)
}

// A machine that is gone takes along no request that may be sent twice.
func TestLostTargetFailsNoSafeRequest(t *testing.T) {
	r := newRig(t)
	hang := make(chan struct{})
	arrived := make(chan string, 2)
	r.add("i-0", "a", func(_ http.ResponseWriter, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		arrived <- q.Method
		<-hang
	})
	t.Cleanup(func() { close(hang) }) // before the server closes, which waits for its requests
	r.apply()
	r.healthy(1)
	type answer struct {
		method string
		status int
	}
	answers := make(chan answer, 2)
	client := newClient(t)
	for _, method := range []string{"GET", "POST"} {
		go func() {
			q, _ := http.NewRequest(method, r.url(), strings.NewReader(map[string]string{"POST": "once"}[method]))
			res, err := client.Do(q)
			if err != nil {
				t.Error(method, err)
				answers <- answer{}
				return
			}
			res.Body.Close()
			answers <- answer{method, res.StatusCode}
		}()
	}
	for range 2 {
		<-arrived
	}
	r.add("i-1", "a", say("alive"))
	r.apply()
	r.healthy(2)
	r.snap.TargetGroups[0].Targets = r.snap.TargetGroups[0].Targets[1:]
	r.apply()
	for range 2 {
		switch a := <-answers; {
		case a.method == "GET" && a.status != 200, a.method == "POST" && a.status != 502:
			t.Error(a)
		}
	}
	if status, _ := get(t, client, r.url()); status != 200 {
		t.Error(status)
	}
}

type closer func()

func (c closer) Close() error { c(); return nil }

func TestRestartKeepsTheConfiguration(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.apply()
	r.healthy(1)
	r.stop()
	if _, err := net.DialTimeout("tcp", r.addr(), time.Second); err == nil {
		t.Fatal("still listening")
	}
	r.start()
	r.healthy(1)
	if status, body := get(t, newClient(t), r.url()); status != 200 || body != "one" {
		t.Fatal(status, body)
	}
	info, err := r.client.Ping(context.Background())
	if err != nil || info.Applied != r.snap.Version {
		t.Fatal(info, err)
	}
	old := r.snap
	old.Version = 0
	if _, err := r.client.Apply(context.Background(), old); err == nil || !strings.Contains(err.Error(), "older") {
		t.Fatal("an older snapshot gave", err)
	}
}
