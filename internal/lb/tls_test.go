package lb

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func certificate(t *testing.T, name string) Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Certificate{ARN: "arn:cert/" + name, ChainPEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		KeyPEM: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pk}))}
}

func TestHTTPSFrontAndTarget(t *testing.T) {
	r := newRig(t)
	target := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprint(w, q.Header.Get("X-Forwarded-Proto"), " ", q.Header.Get("X-Forwarded-Port"))
	}))
	t.Cleanup(target.Close)
	r.addAddr("i-1", "a", target.Listener.Addr().String())
	tg := &r.snap.TargetGroups[0]
	tg.Protocol, tg.HealthCheck.Protocol = "HTTPS", "HTTPS"
	l := &r.snap.LoadBalancers[0].Listeners[0]
	l.Protocol, l.Port = "HTTPS", 443
	one, two := certificate(t, "one.test"), certificate(t, "two.test")
	two.Default = true
	l.Certificates = []Certificate{one, two}
	r.apply()
	r.healthy(1)
	for sni, want := range map[string]string{"one.test": "one.test", "two.test": "two.test", "other.test": "two.test"} {
		var got string
		tr := &http.Transport{TLSClientConfig: &tls.Config{ServerName: sni, InsecureSkipVerify: true,
			VerifyConnection: func(s tls.ConnectionState) error { got = s.PeerCertificates[0].Subject.CommonName; return nil }}}
		status, body := get(t, &http.Client{Transport: tr}, "https://"+r.addr()+"/")
		tr.CloseIdleConnections()
		if status != 200 || body != "https 443" || got != want {
			t.Errorf("%s: %d %q, certificate %s", sni, status, body, got)
		}
	}
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, _ = io.ReadAll(c) // whatever it is, it ends
	c.Close()
	r.until("the failed handshake is counted", func() bool {
		m, err := r.client.Metrics(context.Background())
		return err == nil && m.LoadBalancers[0].Counters["ClientTLSNegotiationErrorCount"] == 1
	})
}

// TestListensInTheHostNamespace runs the process in a network namespace of its own
// with a descriptor of this one: its listener must be here.
func TestListensInTheHostNamespace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it makes a network namespace")
	}
	host, err := os.Open("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	r := newRig(t)
	r.stop()
	c := exec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	c.Env = append(os.Environ(), "SLIPWAY_LB_ARGS=--socket "+r.dir+"/s --state "+r.dir+"/st --host-netns-fd 3")
	c.ExtraFiles = []*os.File{host}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Signal(syscall.SIGTERM); _ = c.Wait() })
	r.client = NewClient(r.dir + "/s")
	t.Cleanup(r.client.Close)
	r.until("it answers", func() bool { _, err := r.client.Ping(context.Background()); return err == nil })
	// The target is here and the process's own loopback is down: unreachable from there.
	r.add("i-1", "a", say("one"))
	r.snap.LoadBalancers[0].Listeners[0].Rules = []Rule{{ARN: "r", Priority: 1, Conditions: []Condition{{Field: "path-pattern", Values: []string{"/hi"}}},
		Actions: []Action{{Type: "fixed-response", FixedResponse: &FixedResponse{StatusCode: 200, Body: "hi"}}}}}
	for range 3 { // several times: each may run on another thread
		r.snap.LoadBalancers[0].Listeners[0].Address = freeAddr(t)
		if out := r.apply(); len(out.ListenerErrors) > 0 {
			t.Fatal(out)
		}
		if status, body := get(t, newClient(t), r.url()+"/hi"); status != 200 || body != "hi" {
			t.Error(status, body)
		}
		if status, _ := get(t, newClient(t), r.url()); status != 502 {
			t.Error("a target outside the process's namespace was reached:", status)
		}
	}
}
