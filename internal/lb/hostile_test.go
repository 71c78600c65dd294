package lb

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw sends bytes and returns everything that comes until the other side closes.
func raw(t *testing.T, addr, send string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, send); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

func TestHostileRequests(t *testing.T) {
	r := newRig(t)
	reached := make(chan string, 100)
	r.add("i-1", "a", func(w http.ResponseWriter, q *http.Request) {
		b, err := io.ReadAll(q.Body)
		if err != nil {
			return // a body that broke off: seen, but not as a request; and late
		}
		reached <- q.Method + " " + q.RequestURI + " " + string(b)
		fmt.Fprint(w, "ok")
	})
	r.apply()
	r.healthy(1)
	const h = "Host: x.test\r\n"
	const end = "Connection: close\r\n\r\n"
	tests := []struct {
		name, send string
		status     int
		requests   int // how many the target gets to see
	}{
		{"plain", "GET / HTTP/1.1\r\n" + h + end, 200, 1},
		{"empty line first", "\r\nGET / HTTP/1.1\r\n" + h + end, 200, 1},
		{"absolute form", "GET http://y.test/p HTTP/1.1\r\n" + h + end, 200, 1},
		{"version 1.0", "GET / HTTP/1.0\r\n\r\n", 200, 1},
		{"version 2.0", "GET / HTTP/2.0\r\n" + h + end, 505, 0},
		{"version missing", "GET /\r\n" + h + end, 400, 0},
		{"version garbage", "GET / HTPP/1.1\r\n" + h + end, 400, 0},
		{"bad method", "G@T / HTTP/1.1\r\n" + h + end, 400, 0},
		{"trace", "TRACE / HTTP/1.1\r\n" + h + end, 405, 0},
		{"connect", "CONNECT x:1 HTTP/1.1\r\n" + h + end, 400, 0},
		{"no host", "GET / HTTP/1.1\r\n" + end, 400, 0},
		{"two hosts", "GET / HTTP/1.1\r\n" + h + h + end, 400, 0},
		{"bare LF", "GET / HTTP/1.1\n" + h + end, 400, 0},
		{"LF between fields", "GET / HTTP/1.1\r\nA: b\n" + h + end, 400, 0},
		{"CR in a value", "GET / HTTP/1.1\r\nA: b\rc\r\n" + h + end, 400, 0},
		{"NUL in a value", "GET / HTTP/1.1\r\nA: b\x00c\r\n" + h + end, 400, 0},
		{"NUL in the target", "GET /\x00 HTTP/1.1\r\n" + h + end, 400, 0},
		{"folded", "GET / HTTP/1.1\r\n" + h + "A: b\r\n c\r\n" + end, 400, 0},
		{"space before colon", "POST / HTTP/1.1\r\n" + h + "Content-Length : 5\r\n" + end + "hello", 400, 0},
		{"no colon", "GET / HTTP/1.1\r\n" + h + "garbage\r\n" + end, 400, 0},
		{"length twice, different", "POST / HTTP/1.1\r\n" + h + "Content-Length: 5\r\nContent-Length: 6\r\n" + end + "hello", 400, 0},
		{"length twice, same", "POST / HTTP/1.1\r\n" + h + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 200, 1},
		{"length signed", "POST / HTTP/1.1\r\n" + h + "Content-Length: +5\r\n" + end + "hello", 400, 0},
		{"length list", "POST / HTTP/1.1\r\n" + h + "Content-Length: 5, 5\r\n" + end + "hello", 400, 0},
		{"length negative", "POST / HTTP/1.1\r\n" + h + "Content-Length: -1\r\n" + end, 400, 0},
		{"length huge", "POST / HTTP/1.1\r\n" + h + "Content-Length: 99999999999999999999\r\n" + end, 400, 0},
		{"CL.TE smuggling", "POST / HTTP/1.1\r\n" + h + "Content-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n" + h + end, 200, 1},
		{"TE twice", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n" + end, 400, 0},
		{"TE gzip", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: gzip, chunked\r\n" + end, 501, 0},
		{"TE obscured", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: \x0bchunked\r\n" + end, 400, 0},
		{"TE in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, 0},
		{"chunk size not hex", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\nxx\r\nhello\r\n0\r\n\r\n", 400, -1},
		{"chunk without CRLF", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", 400, -1},
		{"chunk size with LF only", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400, -1},
		{"chunk size overflow", "POST / HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nhello\r\n0\r\n\r\n", 400, -1},
		{"suspicious name", "POST / HTTP/1.1\r\n" + h + "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", 200, 1},
		{"GET with length closes", "GET / HTTP/1.1\r\n" + h + "Content-Length: 5\r\n\r\nhelloGET /smuggled HTTP/1.1\r\n" + h + end, 200, 1},
		{"line too long", "GET /" + strings.Repeat("a", 17<<10) + " HTTP/1.1\r\n" + h + end, 414, 0},
		{"field too long", "GET / HTTP/1.1\r\n" + h + "A: " + strings.Repeat("a", 17<<10) + "\r\n" + end, 400, 0},
		{"head too long", "GET / HTTP/1.1\r\n" + h + strings.Repeat("A: "+strings.Repeat("a", 1000)+"\r\n", 90) + end, 400, 0},
		{"31 forwarded", "GET / HTTP/1.1\r\n" + h + "X-Forwarded-For: " + strings.Repeat("10.0.0.1, ", 30) + "10.0.0.1\r\n" + end, 463, 0},
		{"30 forwarded", "GET / HTTP/1.1\r\n" + h + "X-Forwarded-For: " + strings.Repeat("10.0.0.1, ", 29) + "10.0.0.1\r\n" + end, 200, 1},
		{"h2c upgrade is not passed on", "GET / HTTP/1.1\r\n" + h + "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n", 200, 1},
		{"preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, 0},
		{"TLS hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, 0},
		{"pipelined", "GET /1 HTTP/1.1\r\n" + h + "\r\nGET /2 HTTP/1.1\r\n" + h + end, 200, 2},
		{"pipelined behind chunks", "POST /1 HTTP/1.1\r\n" + h + "Transfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n0\r\nA: b\r\n\r\nGET /2 HTTP/1.1\r\n" + h + end, 200, 2},
		{"pipelined behind a length", "POST /1 HTTP/1.1\r\n" + h + "Content-Length: 5\r\n\r\nhelloGET /2 HTTP/1.1\r\n" + h + end, 200, 2},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := raw(t, r.addr(), tt.send)
			if want := fmt.Sprintf("HTTP/1.1 %d ", tt.status); !strings.HasPrefix(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if n := strings.Count(got, "HTTP/1.1 "); tt.requests > 0 && n != tt.requests {
				t.Errorf("%d responses, want %d: %q", n, tt.requests, got)
			}
			n := 0
			for len(reached) > 0 {
				if s := <-reached; strings.Contains(s, "smuggled") {
					t.Error("smuggled:", s)
				}
				n++
			}
			if tt.requests >= 0 && n != tt.requests {
				t.Errorf("the target saw %d requests, want %d", n, tt.requests)
			}
		})
	}
}

// rawTarget is a target that answers each request by hand; f gets the connection
// after the request's head was read.
func (r *rig) rawTarget(f func(c net.Conn, in *bufio.Reader, q *http.Request)) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					q, err := http.ReadRequest(in)
					if err != nil {
						return
					}
					if q.URL.Path == "/healthz" {
						_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
						continue
					}
					f(c, in, q)
				}
			}()
		}
	}()
	r.addAddr("i-raw", "a", ln.Addr().String())
}

func TestHostileResponses(t *testing.T) {
	r := newRig(t)
	answers := make(chan string, 1)
	r.rawTarget(func(c net.Conn, _ *bufio.Reader, _ *http.Request) {
		_, _ = io.WriteString(c, <-answers)
		_ = c.Close()
	})
	r.apply()
	r.healthy(1)
	tests := []struct{ name, answer, want string }{
		{"nothing", "", "HTTP/1.1 502 "},
		{"garbage", "hello\r\n\r\n", "HTTP/1.1 502 "},
		{"half a head", "HTTP/1.1 200 OK\r\nA:", "HTTP/1.1 502 "},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "HTTP/1.1 502 "},
		{"unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 502 "},
		{"switching unasked", "HTTP/1.1 101 Switching Protocols\r\n\r\n", "HTTP/1.1 502 "},
		{"huge head", "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 33<<10) + "\r\n\r\n", "HTTP/1.1 502 "},
		{"until close", "HTTP/1.1 200 OK\r\n\r\nhello", "5\r\nhello\r\n0\r\n\r\n"},
		{"interim first", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n"},
		{"chunks with trailer", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n", "2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"},
		{"204 without body", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", "HTTP/1.1 204 No Content\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answers <- tt.answer
			got := raw(t, r.addr(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q in it", got, tt.want)
			}
			if strings.Contains(tt.name, "204") && strings.Contains(got, "hello") {
				t.Error("a 204 had a body:", got)
			}
		})
	}
	// A body that ends early must not look complete.
	answers <- "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
	if got := raw(t, r.addr(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("a truncated body looks whole: %q", got)
	}
}

func TestContinueAndWebSocket(t *testing.T) {
	r := newRig(t)
	r.rawTarget(func(c net.Conn, in *bufio.Reader, q *http.Request) {
		if q.Header.Get("Upgrade") == "websocket" && q.Header.Get("Connection") == "Upgrade" {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhi")
			_, _ = io.Copy(c, in)
			_ = c.Close()
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		b, _ := io.ReadAll(q.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	})
	r.apply()
	r.healthy(1)
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	in := bufio.NewReader(c)
	_, _ = io.WriteString(c, "PUT /x HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	if line, _ := in.ReadString('\n'); line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q", line)
	}
	_, _ = in.ReadString('\n')
	_, _ = io.WriteString(c, "hello")
	res, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "hello" {
		t.Fatalf("got %q", b)
	}
	_, _ = io.WriteString(c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nping")
	res, err = http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "websocket" {
		t.Fatal(res, err)
	}
	b := make([]byte, 6)
	if _, err := io.ReadFull(in, b); err != nil || string(b) != "hiping" {
		t.Fatalf("got %q, %v", b, err)
	}
	_ = c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
		t.Fatalf("after the end %q, %v", rest, err)
	}
}

func TestSlowClientsAndTargetsTimeOut(t *testing.T) {
	r := newRig(t)
	hold := make(chan struct{})
	r.add("i-1", "a", func(http.ResponseWriter, *http.Request) { <-hold })
	t.Cleanup(func() { close(hold) })
	r.snap.LoadBalancers[0].Attributes["idle_timeout.timeout_seconds"] = "1"
	r.apply()
	r.healthy(1)
	for name, tt := range map[string]struct{ send, want string }{
		"idle":            {"", ""},
		"half a head":     {"GET / HTTP/1.1\r\nHost: x\r\n", "HTTP/1.1 408 Request Time-out\r\n"},
		"half a body":     {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello", "HTTP/1.1 408 Request Time-out\r\n"},
		"a silent target": {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "HTTP/1.1 504 Gateway Time-out\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := raw(t, r.addr(), tt.send); !strings.HasPrefix(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("got %q", got)
			}
		})
	}
}
