package lb

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestRulesRedirectsAndFixedResponses(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("default"))
	fixed := func(s string) []Action {
		return []Action{{Type: "fixed-response", FixedResponse: &FixedResponse{StatusCode: 200, ContentType: "text/plain", Body: s}}}
	}
	r.snap.LoadBalancers[0].Listeners[0].Rules = []Rule{
		{ARN: "r9", Priority: 9, Conditions: []Condition{{Field: "path-pattern", Values: []string{"/p/*"}}}, Actions: fixed("later")},
		{ARN: "r1", Priority: 1, Conditions: []Condition{{Field: "path-pattern", Values: []string{"/p/?.html"}}}, Actions: fixed("path")},
		{ARN: "r2", Priority: 2, Conditions: []Condition{{Field: "host-header", Values: []string{"*.Example.com"}}}, Actions: fixed("host")},
		{ARN: "r3", Priority: 3, Conditions: []Condition{{Field: "query-string", Query: []QueryString{{Key: "v", Value: "a*"}}}}, Actions: fixed("query")},
		{ARN: "r4", Priority: 4, Conditions: []Condition{{Field: "http-header", HeaderName: "X-Kind", Values: []string{"beta"}}, {Field: "source-ip", Values: []string{"127.0.0.0/8"}}}, Actions: fixed("header")},
		{ARN: "r5", Priority: 5, Conditions: []Condition{{Field: "path-pattern", Values: []string{"/old"}}},
			Actions: []Action{{Type: "redirect", Redirect: &Redirect{StatusCode: "HTTP_301", Protocol: "HTTPS", Port: "443", Path: "/new/#{path}"}}}},
		{ARN: "r6", Priority: 6, Conditions: []Condition{{Field: "http-request-method", Values: []string{"DELETE"}}}, Actions: fixed("method")},
	}
	r.apply()
	r.healthy(1)
	c := newClient(t)
	for _, tt := range []struct{ method, path, host, kind, want string }{
		{"GET", "/", "", "", "default"},
		{"GET", "/p/a.html", "", "", "path"},
		{"GET", "/p/ab.html", "", "", "later"},
		{"GET", "/P/a.html", "", "", "default"},
		{"GET", "/", "www.EXAMPLE.com:8080", "", "host"},
		{"GET", "/?x=1&V=Abc", "", "", "query"},
		{"GET", "/", "", "BETA", "header"},
		{"DELETE", "/", "", "", "method"},
	} {
		q, _ := http.NewRequest(tt.method, r.url()+tt.path, nil)
		q.Host = tt.host
		if tt.kind != "" {
			q.Header.Set("X-Kind", tt.kind)
		}
		res, err := c.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(b) != tt.want {
			t.Errorf("%s %s %s: %q, want %q", tt.method, tt.path, tt.host, b, tt.want)
		}
	}
	q, _ := http.NewRequest("GET", r.url()+"/old?a=b", nil)
	q.Host = "x.test"
	res, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if loc := res.Header.Get("Location"); res.StatusCode != 301 || loc != "https://x.test:443/new/old?a=b" {
		t.Error(res.StatusCode, loc)
	}
	// A client of a shifted port is sent to shifted ports, and targets see its Host.
	real := r.addr()[strings.LastIndexByte(r.addr(), ':'):]
	r.snap.LoadBalancers[0].Listeners[0].Rules[5].Actions[0].Redirect.Port = "80"
	r.apply()
	q.Host = "x.test" + real
	if res, err = c.Do(q); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if loc := res.Header.Get("Location"); loc != "https://x.test"+real+"/new/old?a=b" {
		t.Error(loc)
	}
}

func TestStickinessAndAccessLog(t *testing.T) {
	r := newRig(t)
	for i := range 3 {
		r.add(fmt.Sprint("i-", i), "a", say(fmt.Sprint("i-", i)))
	}
	r.snap.TargetGroups[0].Attributes["stickiness.enabled"] = "true"
	r.snap.LoadBalancers[0].Attributes["access_logs.s3.enabled"] = "true"
	r.apply()
	r.healthy(3)
	c := newClient(t)
	var jar []*http.Cookie
	var first string
	for i := range 8 {
		q, _ := http.NewRequest("GET", r.url()+`/a"b`, nil)
		for _, k := range jar {
			q.AddCookie(&http.Cookie{Name: k.Name, Value: k.Value})
		}
		res, err := c.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if jar = res.Cookies(); len(jar) != 2 || jar[0].Name != "AWSALB" || jar[1].Name != "AWSALBCORS" || jar[0].Expires.IsZero() {
			t.Fatal("cookies", jar)
		}
		if i == 0 {
			first = string(b)
		} else if string(b) != first {
			t.Fatal("bound to", first, "but", string(b), "answered")
		}
	}
	jar[0].Value = "forged" + jar[0].Value[6:]
	q, _ := http.NewRequest("GET", r.url(), nil)
	q.AddCookie(jar[0])
	res, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	r.until("the first request and the forged cookie are counted", func() bool {
		m, err := r.client.Metrics(context.Background())
		return err == nil && m.LoadBalancers[0].Counters["NonStickyRequestCount"] == 2
	})
	var text []byte
	r.until("the log has nine lines", func() bool {
		text, _ = os.ReadFile(filepath.Join(r.dir, "state.json.access", "todo.log"))
		return strings.Count(string(text), "\n") == 9
	})
	line, _, _ := strings.Cut(string(text), "\n")
	if !strings.HasPrefix(line, "http 20") || !strings.Contains(line, " app/todo/0123456789abcdef 127.0.0.1:") ||
		!strings.Contains(line, `"GET http://127.0.0.1:80/a%22b HTTP/1.1" "Go-http-client/1.1" - - arn:tg "Root=1-`) ||
		!strings.Contains(line, " 200 200 ") || !strings.Contains(line, `"forward"`) {
		t.Error("the line is", line)
	}
}

func TestDrainingCutsWhatTakesTooLong(t *testing.T) {
	r := newRig(t)
	started := make(chan struct{}, 2)
	hold := make(chan struct{})
	r.add("i-1", "a", func(w http.ResponseWriter, _ *http.Request) {
		started <- struct{}{}
		<-hold
		fmt.Fprint(w, "finished")
	})
	t.Cleanup(func() { close(hold) })
	r.snap.TargetGroups[0].Attributes["deregistration_delay.timeout_seconds"] = "50" // one second at the rig's scale
	r.apply()
	r.healthy(1)
	events := make(chan Event, 100)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	watching := make(chan error, 1)
	go func() { watching <- r.client.Watch(ctx, func(e Event) error { events <- e; return nil }) }()
	for e := range events {
		if e.Kind == EventSynced {
			break
		}
	}
	got := make(chan int, 1)
	go func() {
		res, err := newClient(t).Get(r.url())
		if err != nil {
			got <- 0
			return
		}
		res.Body.Close()
		got <- res.StatusCode
	}()
	<-started
	begin := time.Now() // one second; six would be the delay that is usual
	r.snap.TargetGroups[0].Targets[0].State = Draining
	r.apply()
	if status, _ := get(t, newClient(t), r.url()); status != 503 {
		t.Error("a new request at a draining target got", status)
	}
	if status := <-got; status != 502 {
		t.Error("the request in flight got", status)
	}
	if d := time.Since(begin); d < 900*time.Millisecond || d > 5*time.Second {
		t.Error("it was cut after", d)
	}
	var kinds []string
	for e := range events {
		if e.Health != nil {
			kinds = append(kinds, string(e.Kind)+":"+string(e.Health.State))
		}
		if e.Kind == EventDrained {
			break
		}
	}
	if s := strings.Join(kinds, " "); s != "health:draining drained:draining" {
		t.Error("events:", s)
	}
	cancel()
	<-watching
}

func TestUnhealthyTargetLeavesAndComesBack(t *testing.T) {
	r := newRig(t)
	var sick atomic.Bool
	s := r.add("i-1", "a", say("one"))
	inner := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/healthz" && sick.Load() {
			w.WriteHeader(500)
			return
		}
		inner.ServeHTTP(w, q)
	})
	r.add("i-2", "b", say("two"))
	r.apply()
	r.healthy(2)
	sick.Store(true)
	r.healthy(1)
	hs, err := r.client.Health(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range hs {
		if h.ID == "i-1" && (h.Reason != "Target.ResponseCodeMismatch" || h.Description != "Health checks failed with these codes: [500]") {
			t.Error(h)
		}
	}
	c := newClient(t)
	for range 6 {
		if _, body := get(t, c, r.url()); body != "two" {
			t.Error("the unhealthy target answered")
		}
	}
	sick.Store(false)
	r.healthy(2)
}

// A target that closes each connection after one response without saying so is what
// a keep-alive time-out looks like: no GET and no POST may be lost to it.
func TestSilentlyClosedIdleConnections(t *testing.T) {
	r := newRig(t)
	r.rawTarget(func(c net.Conn, _ *bufio.Reader, q *http.Request) {
		_, _ = io.Copy(io.Discard, q.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = c.Close()
	})
	r.apply()
	r.healthy(1)
	c := newClient(t)
	for i := range 200 {
		if status, body := get(t, c, r.url()); status != 200 || body != "ok" {
			t.Fatal("GET", i, status, body)
		}
	}
	for i := range 50 {
		time.Sleep(time.Millisecond) // the close must have arrived for the look before a POST to see it
		res, err := c.Post(r.url(), "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Fatal("POST", i, res.StatusCode)
		}
	}
}

func TestConfigurationSwapsUnderLoad(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.add("i-2", "b", say("two"))
	r.apply()
	r.healthy(2)
	l := startLoad(newClient(t), r.url(), 4)
	for i := range 30 {
		r.snap.LoadBalancers[0].Attributes["idle_timeout.timeout_seconds"] = fmt.Sprint(30 + i)
		r.snap.LoadBalancers[0].Listeners[0].Rules = []Rule{{ARN: "r", Priority: i + 1,
			Conditions: []Condition{{Field: "path-pattern", Values: []string{"/never"}}}, Actions: r.snap.LoadBalancers[0].Listeners[0].DefaultActions}}
		r.apply()
		hs, err := r.client.Health(context.Background())
		if err != nil || hs[0].State != StateHealthy || hs[1].State != StateHealthy {
			t.Fatal("health was forgotten:", hs, err)
		}
	}
	l.end(t)
}

func TestBusyPortIsReportedAndTakenLater(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	ln, err := net.Listen("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	out := r.apply()
	if !strings.Contains(out.ListenerErrors["arn:l"], "address already in use") {
		t.Fatal(out)
	}
	ln.Close()
	r.healthy(1)
	r.until("the freed port is taken", func() bool {
		c, err := net.Dial("tcp", r.addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func TestSnapshotMistakesChangeNothing(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.apply()
	r.healthy(1)
	for name, spoil := range map[string]func(*Snapshot){
		"unknown group": func(s *Snapshot) {
			s.LoadBalancers[0].Listeners[0].DefaultActions[0].Forward.TargetGroups[0].ARN = "arn:no"
		},
		"bad address":   func(s *Snapshot) { s.LoadBalancers[0].Listeners[0].Address = "nowhere" },
		"bad target":    func(s *Snapshot) { s.TargetGroups[0].Targets[0].IP = "x" },
		"bad state":     func(s *Snapshot) { s.TargetGroups[0].Targets[0].State = "" },
		"bad attribute": func(s *Snapshot) { s.LoadBalancers[0].Attributes["idle_timeout.timeout_seconds"] = "soon" },
		"HTTP/2 group":  func(s *Snapshot) { s.TargetGroups[0].ProtocolVersion = "HTTP2" },
		"no cert":       func(s *Snapshot) { s.LoadBalancers[0].Listeners[0].Protocol = "HTTPS" },
	} {
		t.Run(name, func(t *testing.T) {
			st := stateFile{path: filepath.Join(r.dir, "state.json")}
			s, err := st.load()
			if err != nil {
				t.Fatal(err)
			}
			s.Version++
			if s.LoadBalancers[0].Attributes == nil {
				s.LoadBalancers[0].Attributes = map[string]string{}
			}
			spoil(s)
			if _, err := r.client.Apply(context.Background(), *s); err == nil {
				t.Error("accepted")
			}
			if status, _ := get(t, newClient(t), r.url()); status != 200 {
				t.Error("no longer serving:", status)
			}
		})
	}
}

// TestHelperProcess is the load balancer as a process of its own.
func TestHelperProcess(t *testing.T) {
	args := os.Getenv("SLIPWAY_LB_ARGS")
	if args == "" {
		t.Skip("only run by other tests")
	}
	os.Exit(Main(strings.Fields(args)))
}

func TestKillNineAndRestart(t *testing.T) {
	r := newRig(t)
	r.add("i-1", "a", say("one"))
	r.stop()
	dir := t.TempDir()
	start := func() *exec.Cmd {
		c := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
		c.Env = append(os.Environ(), "SLIPWAY_LB_ARGS=--socket "+dir+"/s --state "+dir+"/state.json")
		c.Stderr = os.Stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		r.client = NewClient(dir + "/s")
		t.Cleanup(r.client.Close)
		r.until("it answers", func() bool { _, err := r.client.Ping(context.Background()); return err == nil })
		return c
	}
	p := start()
	r.apply()
	r.healthy(1)
	_ = p.Process.Kill()
	_ = p.Wait()
	p = start()
	c := newClient(t)
	r.until("the old configuration serves", func() bool {
		res, err := c.Get(r.url())
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == 200
	})
	if st, err := os.Stat(dir + "/state.json"); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}
	if st, err := os.Stat(dir + "/s"); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st, err)
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Error("SIGTERM:", err)
	}
}
