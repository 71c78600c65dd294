package forward

import (
	"context"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"golang.org/x/net/http2"

	"slipway/internal/lb/h1"
)

// Limits of a client's HTTP/2 connection (ALB user guide, "Listeners").
const maxStreams = 128

// h2Server serves client connections that negotiated HTTP/2. Each stream becomes an
// HTTP/1.1 request on an in-memory connection that the same loop serves as any
// other: rules, stickiness, retries, logs and figures are the same.
type h2Server struct {
	base  *http.Server
	proto *http2.Server
}

func newH2Server() *h2Server {
	s := &h2Server{
		base:  &http.Server{MaxHeaderBytes: h1.MaxRequestHead, ErrorLog: log.New(io.Discard, "", 0)},
		proto: &http2.Server{MaxConcurrentStreams: maxStreams},
	}
	if err := http2.ConfigureServer(s.base, s.proto); err != nil {
		panic(err) // it refuses only a TLS configuration that s.base does not have
	}
	return s
}

// serveH2 serves one connection until its end.
func (c *clientConn) serveH2(nc *tls.Conn) {
	streams := &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			c.srv.acceptStream(ours, c, nc.RemoteAddr())
			return theirs, nil
		},
		DisableCompression: true, MaxIdleConnsPerHost: maxStreams, MaxResponseHeaderBytes: 2 * h1.MaxResponseHead,
	}
	defer streams.CloseIdleConnections()
	proxy := &httputil.ReverseProxy{
		Transport: streams, Rewrite: rewriteStream, FlushInterval: -1, BufferPool: bodyPool{},
		ErrorLog: log.New(io.Discard, "", 0),
		// No answer came: the stream is reset, as an HTTP/1.1 connection is cut.
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	idle := c.srv.options.Load().IdleTimeout
	proto := *c.srv.h2.proto
	proto.IdleTimeout = idle
	// A cut ends the connection at once; Shutdown's GOAWAY came before it.
	stop := context.AfterFunc(c.srv.ctx, func() { _ = nc.NetConn().Close() })
	defer stop()
	proto.ServeConn(nc, &http2.ServeConnOpts{Context: c.srv.ctx, BaseConfig: c.srv.h2.base, Handler: proxy})
}

// rewriteStream keeps the request as the client sent it.
func rewriteStream(r *httputil.ProxyRequest) {
	path, query, _ := strings.Cut(r.In.RequestURI, "?")
	r.Out.URL = &url.URL{Scheme: "http", Host: "stream", Path: r.In.URL.Path, RawPath: r.In.URL.RawPath, RawQuery: query}
	if strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "//") {
		r.Out.URL.Opaque = path
	}
	r.Out.Host = r.In.Host
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "Forwarded"} {
		if v := r.In.Header[name]; v != nil {
			r.Out.Header[name] = v
		}
	}
	if _, ok := r.In.Header["User-Agent"]; !ok {
		r.Out.Header.Set("User-Agent", "") // else the transport makes one up
	}
}

type bodyPool struct{}

func (bodyPool) Get() []byte  { return *bodies.Get().(*[]byte) }
func (bodyPool) Put(b []byte) { bodies.Put(&b) }

// acceptStream serves an in-memory connection on behalf of a client's.
func (s *Server) acceptStream(nc net.Conn, parent *clientConn, from net.Addr) {
	c := &clientConn{srv: s, tls: parent.tls, stream: true}
	c.x.Client = addrPort(from)
	c.x.HTTP2 = true
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wg.Done()
		defer func() { _ = nc.Close() }()
		c.loop(nc)
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
}
