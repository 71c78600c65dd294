package h1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
)

// FuzzRequest: whatever the parser accepts means the same to net/http, which stands
// for a target: same method, same framing. What arrives in pieces parses the same.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\nContent-Length: 1\r\n\r\na",
		"GET http://y/ HTTP/1.1\r\nHost: x\r\nConnection: close, X-A\r\nX-A: 1\r\n\r\n",
		"\r\nHEAD * HTTP/1.0\r\nTransfer_Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\n \t\r\n: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole, parts Request
		n, err := whole.Parse(b)
		if n > len(b) || n < 0 || (err != nil && (err.Status < 400 || err.Status > 599)) {
			t.Fatal(n, err)
		}
		if err != nil || n == 0 {
			return
		}
		for i := 0; i <= len(b); i++ {
			if m, perr := parts.Parse(b[:i]); m > 0 || perr != nil {
				if perr != nil || m != n || parts.Length != whole.Length || parts.Class != whole.Class {
					t.Fatalf("in pieces: %d %v, at once: %d", m, perr, n)
				}
				break
			}
		}
		if whole.Class != Compliant || whole.Invalid > 0 {
			return
		}
		std, serr := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimLeft(b[:n], "\r\n"))))
		if serr != nil {
			return // stricter than we are: the target refuses
		}
		if std.Method != string(whole.Method) {
			t.Fatalf("method %q, net/http says %q", whole.Method, std.Method)
		}
		if std.ContentLength != whole.Length && !(whole.Length == 0 && std.ContentLength <= 0) && whole.Minor == 1 {
			t.Fatalf("length %d, net/http says %d", whole.Length, std.ContentLength)
		}
	})
}

// FuzzResponse: no input makes the parser panic or take more than there is.
func FuzzResponse(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\n\r\nok"))
	f.Add([]byte("HTTP/1.0 304\r\nConnection: keep-alive\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Response
		n, err := r.Parse(b)
		if n > len(b) || err == nil && n > 0 && (r.Status < 100 || r.Status > 599 || r.Length < -1) {
			t.Fatal(n, err, r.Status, r.Length)
		}
	})
}

// FuzzChunked: decoding in any pieces gives the same data, and what we accept
// net/http decodes to the same bytes.
func FuzzChunked(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\n\r\n"), uint8(1))
	f.Add([]byte("2;a=b\r\nhi\r\n00\r\nA: b\r\n\r\nrest"), uint8(3))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		decode := func(step int) (string, int, bool, error) {
			var c Chunked
			var out []byte
			pos, limit := 0, min(step, len(b))
			for {
				data, n, done, err := c.Next(b[pos:limit])
				pos += n
				out = append(out, data...)
				if err != nil || done {
					return string(out), pos, done, err
				}
				if n == 0 || pos == limit {
					if limit == len(b) {
						return string(out), pos, false, nil
					}
					limit = min(limit+step, len(b))
				}
			}
		}
		data, n, done, err := decode(len(b) + 1)
		pdata, pn, pdone, perr := decode(int(step) + 1)
		if done != pdone || (err == nil) != (perr == nil) || err == nil && (data != pdata || done && n != pn) {
			t.Fatalf("at once %q %d %v %v, in pieces %q %d %v %v", data, n, done, err, pdata, pn, pdone, perr)
		}
		if !done || err != nil {
			return
		}
		req := "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + string(b[:n])
		std, serr := http.ReadRequest(bufio.NewReader(strings.NewReader(req)))
		if serr != nil {
			t.Fatal(serr)
		}
		if got, serr := io.ReadAll(std.Body); serr == nil && string(got) != data {
			t.Fatalf("%q, net/http says %q", data, got)
		}
	})
}
