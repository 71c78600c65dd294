package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"slipway/internal/lb"
)

var answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: bench\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 120\r\n\r\n" +
	`[{"id":1,"title":"` + string(bytes.Repeat([]byte("a"), 99)) + `"}]`)

// serveBackend answers every request head with the same small response, as cheaply
// as possible, so that the proxies are what is measured.
func serveBackend(addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			buf := make([]byte, 16<<10)
			w := 0
			for {
				n, err := c.Read(buf[w:])
				if err != nil {
					return
				}
				w += n
				for {
					i := bytes.Index(buf[:w], []byte("\r\n\r\n"))
					if i < 0 {
						break
					}
					w = copy(buf, buf[i+4:w])
					if _, err := c.Write(answer); err != nil {
						return
					}
				}
			}
		}()
	}
}

// serveLB runs the real process and configures it over its socket.
func serveLB(listen, backend, dir string) error {
	socket := filepath.Join(dir, "lb.sock")
	failed := make(chan error, 1)
	go func() { failed <- configure(socket, listen, backend) }()
	status := lb.Main([]string{"--socket", socket, "--state", filepath.Join(dir, "lb.json")})
	select {
	case err := <-failed:
		if err != nil {
			return err
		}
	default:
	}
	if status != 0 {
		return fmt.Errorf("the load balancer ended with status %d", status)
	}
	return nil
}

func configure(socket, listen, backend string) error {
	host, port, err := net.SplitHostPort(backend)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	snap := lb.Snapshot{Version: 1,
		LoadBalancers: []lb.LoadBalancer{{ARN: "arn:bench", Name: "bench", Listeners: []lb.Listener{{ARN: "arn:bench/l", Protocol: "HTTP", Address: listen, Port: 80,
			DefaultActions: []lb.Action{{Type: "forward", Forward: &lb.Forward{TargetGroups: []lb.WeightedGroup{{ARN: "arn:tg", Weight: 1}}}}}}}}},
		TargetGroups: []lb.TargetGroup{{ARN: "arn:tg", Name: "tg", Protocol: "HTTP", Targets: []lb.Target{
			{ID: "i-1", IP: host, Port: n, Zone: "us-east-1a", State: lb.Registered},
			{ID: "i-2", IP: "127.0.0.2", Port: n, Zone: "us-east-1b", State: lb.Draining},
		}}},
	}
	c := lb.NewClient(socket)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for {
		if _, err = c.Apply(ctx, snap); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			fmt.Fprintln(os.Stderr, "bench:", err)
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// serveReverseProxy is the standard library's proxy with a pool that is large enough.
func serveReverseProxy(listen, backend string) error {
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: backend})
			r.SetXForwarded()
		},
		// wrk closes its connections amid requests at the end: that is no failure.
		ErrorLog:  log.New(io.Discard, "", 0),
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
	}
	return (&http.Server{Addr: listen, Handler: p, ReadHeaderTimeout: time.Minute}).ListenAndServe()
}

func nginxConf(dir, listen, backend string) []byte {
	return fmt.Appendf(nil, `daemon off;
pid %[1]s/nginx.pid;
worker_processes auto;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  keepalive_requests 100000000;
  upstream app { server %[3]s; keepalive 1024; keepalive_requests 100000000; }
  server {
    listen %[2]s;
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Port 80;
      proxy_set_header X-Amzn-Trace-Id $request_id;
    }
  }
}
`, dir, listen, backend)
}
