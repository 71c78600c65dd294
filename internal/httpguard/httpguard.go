// Package httpguard keeps a server's connections from being held or borrowed:
// bodies that stop arriving, and web pages whose name was made to point here.
package httpguard

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// Patient gives up on a request whose body does not move for idle: a client
// that sends a byte now and then, or has vanished, would otherwise keep what
// its handler holds for ever. How long a body takes as a whole does not
// matter, nor how long a handler waits once it has read it.
func Patient(h http.Handler, idle time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			r.Body = &body{ReadCloser: r.Body, rc: http.NewResponseController(w), idle: idle}
		}
		h.ServeHTTP(w, r)
	})
}

type body struct {
	io.ReadCloser
	rc   *http.ResponseController
	idle time.Duration
}

// Read sets the deadline anew each time, and takes it away afterwards: the
// server watches the connection while a handler works, and a deadline that
// passes then would look like a client that left.
func (b *body) Read(p []byte) (int, error) {
	if err := b.rc.SetReadDeadline(time.Now().Add(b.idle)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := b.ReadCloser.Read(p)
	if derr := b.rc.SetReadDeadline(time.Time{}); err == nil && derr != nil && !errors.Is(derr, http.ErrNotSupported) {
		err = derr
	}
	return n, err
}

// KnownHosts serves only requests for a host that no stranger can have made to
// point at this machine: an address, localhost and below, a name without dots,
// or a name below suffixes. It is for servers that ask for no credentials: a
// page of evil.example whose name resolves to 127.0.0.1 (DNS rebinding) is for
// the browser the same site as the server, so nothing else would stop it.
func KnownHosts(h http.Handler, suffixes ...string) http.Handler {
	suffixes = append([]string{".localhost"}, suffixes...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !known(r.Host, suffixes) {
			http.Error(w, "requests without credentials are taken at an address, at localhost or at a name of AWS, not at the host name of this request", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func known(host string, suffixes []string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if net.ParseIP(host) != nil || !strings.Contains(host, ".") {
		return true
	}
	for _, s := range suffixes {
		if strings.HasSuffix(host, s) {
			return true
		}
	}
	return false
}
