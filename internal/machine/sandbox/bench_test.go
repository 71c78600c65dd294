package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"slipway/internal/machine"
)

// benchApp answers on 5000; nginx's default site would need a bake, so the
// benchmark brings its own.
const (
	benchApp  = "import http.server\nclass H(http.server.BaseHTTPRequestHandler):\n  def do_GET(s):\n    s.send_response(200); s.send_header('Content-Length','2'); s.end_headers(); s.wfile.write(b'ok')\nhttp.server.HTTPServer(('127.0.0.1',5000),H).serve_forever()"
	benchConf = "server { listen 80; location / { proxy_pass http://127.0.0.1:5000; } location = /static { return 200 ok; } }\n"
	benchUnit = "[Service]\nExecStart=/usr/bin/python3 /opt/app.py\n[Install]\nWantedBy=multi-user.target\n"
)

// benchBinary may name a slipway executable to boot with; else it is the test's own.
const benchBinary = "SLIPWAY_BENCH_BINARY"

// BenchmarkBoot prints the medians that a person feels: boot to init ready, boot
// to the first answer of nginx and of an application behind it, destroy.
func BenchmarkBoot(b *testing.B) {
	d := open(b)
	if bin := os.Getenv(benchBinary); bin != "" {
		d.opts.Binary = bin
	}
	img, err := d.Bake(b.Context(), machine.BakeSpec{Name: "bench", Files: []machine.File{
		{Path: "/opt/app.py", Data: []byte(benchApp)}, {Path: "/etc/nginx/conf.d/bench.conf", Data: []byte(benchConf)},
		{Path: "/etc/systemd/system/app.service", Data: []byte(benchUnit)},
	}, Script: []byte("#!/bin/sh -e\ncommand -v nginx\nsystemctl enable nginx app\n")})
	if err != nil {
		b.Skipf("needs nginx on the host: %v", err)
	}
	var ready, web, app, gone time.Duration
	n := 0
	for b.Loop() {
		n++
		id, ip := fmt.Sprintf("i-%d", n), fmt.Sprintf("172.31.%d.%d", n/200%200, 10+n%200)
		start := time.Now()
		if _, err := d.Boot(b.Context(), machine.Spec{ID: id, PrivateIP: ip, Image: img.ID, VCPUs: 2, MemoryBytes: 512 << 20}); err != nil {
			b.Fatal(err)
		}
		ready += time.Since(start)
		await(b, d, ip, "/static")
		web += time.Since(start)
		await(b, d, ip, "/")
		app += time.Since(start)
		start = time.Now()
		if err := d.Destroy(context.Background(), id); err != nil {
			b.Fatal(err)
		}
		gone += time.Since(start)
	}
	if _, err := d.Boot(b.Context(), machine.Spec{ID: "i-idle"}); err != nil {
		b.Fatal(err)
	}
	if s, err := d.Stats("i-idle"); err == nil {
		b.ReportMetric(float64(s.MemoryBytes)/(1<<20), "MiB-idle")
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(n) }
	b.ReportMetric(ms(ready), "ms-ready/op")
	b.ReportMetric(ms(web), "ms-nginx/op")
	b.ReportMetric(ms(app), "ms-python-app/op")
	b.ReportMetric(ms(gone), "ms-destroy/op")
}

func await(b *testing.B, d *Driver, ip, path string) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		c, err := d.DialVPC(b.Context(), "tcp", net.JoinHostPort(ip, "80"))
		if err != nil {
			continue
		}
		fmt.Fprintf(c, "GET %s HTTP/1.0\r\n\r\n", path)
		line, _ := bufio.NewReader(c).ReadString('\n')
		c.Close()
		if strings.Contains(line, " 200 ") {
			return
		}
	}
	b.Fatalf("%s%s does not answer", ip, path)
}
