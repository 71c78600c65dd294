package httpguard

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestKnownHosts(t *testing.T) {
	h := KnownHosts(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), ".amazonaws.com")
	for host, want := range map[string]int{
		"127.0.0.1:4566": 204, "127.0.0.1": 204, "[::1]:4566": 204, "[::1]": 204, "localhost": 204, "LOCALHOST:1": 204, "b.s3.localhost:4566": 204,
		"slipway:4566": 204, "b.s3.us-east-1.amazonaws.com": 204, "localhost.": 204, "": 204,
		"evil.example": 403, "evil.example:4566": 403, "localhost.evil.example": 403, "127.0.0.1.evil.example": 403, "evilamazonaws.com": 403,
	} {
		r := httptest.NewRequest("POST", "/", nil)
		r.Host = host
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, not %d", host, w.Code, want)
		}
	}
}

// A body that stops is given up; one that is slow but moves is not; and a
// handler that waits after its body is not taken for a client that left.
func TestPatient(t *testing.T) {
	const idle = 400 * time.Millisecond
	got := make(chan string, 1)
	srv := httptest.NewServer(Patient(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			got <- "error after " + string(b)
			return
		}
		timer := time.NewTimer(3 * idle)
		defer timer.Stop()
		select {
		case <-r.Context().Done():
			got <- "context ended"
		case <-timer.C:
			got <- string(b)
		}
	}), idle))
	defer srv.Close()
	send := func(chunks []string, pause time.Duration) string {
		c, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
		for _, s := range chunks {
			time.Sleep(pause)
			if _, err := io.WriteString(c, s); err != nil {
				break
			}
		}
		return <-got
	}
	// Longer than idle in all. A machine that has no time for the sender looks
	// like a body that stops: one good try of a few shows it.
	s := ""
	for range 5 {
		if s = send(strings.Split("0123456789", ""), idle/8); s == "0123456789" {
			break
		}
	}
	if s != "0123456789" {
		t.Errorf("a slow body that moves: %q", s)
	}
	if s := send([]string{"0123"}, 0); s != "error after 0123" {
		t.Errorf("a body that stops: %q", s)
	}
	if s := send([]string{"0123456789"}, 0); s != "0123456789" {
		t.Errorf("a handler that waits: %q", s)
	}
}
