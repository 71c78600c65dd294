package lb

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestHTTP2Clients(t *testing.T) {
	r := newRig(t)
	for i := range 2 {
		r.add(fmt.Sprint("i-", i), "a", func(w http.ResponseWriter, q *http.Request) {
			b, _ := io.ReadAll(q.Body)
			_ = json.NewEncoder(w).Encode(map[string]any{"uri": q.RequestURI, "host": q.Host, "h": q.Header, "body": string(b), "proto": q.Proto})
		})
	}
	l := &r.snap.LoadBalancers[0].Listeners[0]
	l.Protocol, l.Port = "HTTPS", 443
	l.Certificates = []Certificate{certificate(t, "one.test")}
	r.snap.LoadBalancers[0].Attributes["access_logs.s3.enabled"] = "true"
	r.apply()
	r.healthy(2)
	var dials atomic.Int32
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		return new(net.Dialer).DialContext(ctx, network, addr)
	}, ForceAttemptHTTP2: true, DisableCompression: true, TLSClientConfig: &tls.Config{ServerName: "one.test", InsecureSkipVerify: true}}
	t.Cleanup(tr.CloseIdleConnections)
	c := &http.Client{Transport: tr, Timeout: time.Minute}
	q, _ := http.NewRequest("POST", "https://"+r.addr()+"/a%2Fb/../c?x=%zz;y", strings.NewReader("hello"))
	q.Header.Set("X-Forwarded-For", "203.0.113.7")
	res, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		URI, Host, Body, Proto string
		H                      http.Header
	}
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
		t.Fatal(res.Status, err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 || got.Proto != "HTTP/1.1" || got.URI != "/a%2Fb/../c?x=%zz;y" || got.Body != "hello" {
		t.Error(res.Proto, got)
	}
	if v := got.H.Get("X-Forwarded-For"); v != "203.0.113.7, 127.0.0.1" {
		t.Error("X-Forwarded-For", v)
	}
	if v := got.H.Get("X-Forwarded-Proto"); v != "https" {
		t.Error("X-Forwarded-Proto", v)
	}
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			res, err := c.Get("https://" + r.addr() + "/x")
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Error(res.Status)
			}
		})
	}
	wg.Wait()
	if n := dials.Load(); n != 1 {
		t.Errorf("101 requests over %d connections", n)
	}
	// Connections to targets count as well: at most one for each request.
	r.until("101 requests over one connection are counted", func() bool {
		m, err := r.client.Metrics(context.Background())
		return err == nil && m.LoadBalancers[0].Counters["RequestCount"] == 101 && m.LoadBalancers[0].Counters["NewConnectionCount"] <= 102
	})
	r.until("the log names HTTP/2", func() bool {
		text, _ := os.ReadFile(filepath.Join(r.dir, "state.json.access", "todo.log"))
		return strings.HasPrefix(string(text), "h2 ")
	})
}
