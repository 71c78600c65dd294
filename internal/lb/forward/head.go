package forward

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"time"

	"slipway/internal/lb/h1"
)

// hopByHop are the fields that end here; framing fields are written anew.
func hopByHop(id h1.ID) bool {
	switch id {
	case h1.Connection, h1.KeepAlive, h1.ProxyConnection, h1.TE, h1.Trailer, h1.TransferEncoding,
		h1.Upgrade, h1.ContentLength:
		return true
	}
	return false
}

// nominated reports whether a Connection field names f as hop-by-hop. Fields that
// the proxy itself depends upon cannot be dropped this way.
func nominated(fields []h1.Field, f *h1.Field) bool {
	if f.ID != h1.Other {
		return false
	}
	for i := range fields {
		if fields[i].ID != h1.Connection {
			continue
		}
		for list := fields[i].Value; ; {
			t, rest, ok := h1.NextToken(list)
			if !ok {
				break
			}
			if bytes.EqualFold(t, f.Name) {
				return true
			}
			list = rest
		}
	}
	return false
}

// requestHead writes the head that the target gets.
func (c *clientConn) requestHead(b []byte) []byte {
	x := &c.x
	r, o := &x.Req, x.Options
	b = append(b, r.Method...)
	b = append(b, ' ')
	b = append(b, r.Target...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = appendHost(b, r.Host, o)
	b = append(b, "\r\n"...)
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.ID != h1.Other {
			switch f.ID {
			case h1.Host, h1.XForwardedFor, h1.XForwardedPort, h1.XForwardedProto, h1.XAmznTraceID:
				continue
			}
			if hopByHop(f.ID) {
				continue
			}
		} else if r.Nominated && nominated(r.Fields, f) || o.DropInvalid && r.Invalid > 0 && !h1.PlainName(f.Name) {
			continue
		}
		b = appendField(b, f)
	}
	b = appendForwarded(b, x)
	x.Trace = appendTrace(x.traceBuf[:0], r.TraceID)
	b = append(append(append(b, "X-Amzn-Trace-Id: "...), x.Trace...), "\r\n"...)
	if o.TLSHeaders && c.tls != nil {
		b = append(append(append(b, "X-Amzn-Tls-Version: "...), tls.VersionName(c.tls.Version)...), "\r\n"...)
		b = append(append(append(b, "X-Amzn-Tls-Cipher-Suite: "...), tls.CipherSuiteName(c.tls.CipherSuite)...), "\r\n"...)
	}
	switch {
	case r.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case r.Length > 0 || r.SeenLength:
		b = strconv.AppendInt(append(b, "Content-Length: "...), r.Length, 10)
		b = append(b, "\r\n"...)
	}
	if r.Upgrade {
		b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	}
	return append(b, "\r\n"...)
}

// appendHost writes Host: with preserve_host_header off, ALB appends a listener
// port other than 80 and 443 and strips those two (ALB user guide, "Host header
// preservation").
func appendHost(b, host []byte, o *Options) []byte {
	if o.PreserveHost || Shifted(host, o) {
		return append(b, host...)
	}
	name := stripPort(host)
	b = append(b, name...)
	if o.Port != 80 && o.Port != 443 && len(name) > 0 {
		b = append(b, ':')
		b = strconv.AppendInt(b, int64(o.Port), 10)
	}
	return b
}

// Shifted reports whether the client addressed a port that stands for another one
// of AWS's: links that a target makes from Host must lead back to it.
func Shifted(host []byte, o *Options) bool {
	if o.RealPort == o.Port || o.RealPort == 0 {
		return false
	}
	name := stripPort(host)
	if len(name) == len(host) {
		return false
	}
	n := 0
	for _, c := range host[len(name)+1:] {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return n == o.RealPort
}

func stripPort(host []byte) []byte {
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		return host[:i]
	}
	return host
}

func appendForwarded(b []byte, x *Exchange) []byte {
	r, o := &x.Req, x.Options
	if o.XFF != XFFRemove && (o.XFF == XFFAppend || r.Forwarded > 0) {
		b = append(b, "X-Forwarded-For: "...)
		first := true
		for i := range r.Fields {
			if f := &r.Fields[i]; f.ID == h1.XForwardedFor && len(f.Value) > 0 {
				if !first {
					b = append(b, ", "...)
				}
				b, first = append(b, f.Value...), false
			}
		}
		if o.XFF == XFFAppend {
			if !first {
				b = append(b, ", "...)
			}
			b = appendClient(b, x.Client, o.XFFPort)
		}
		b = append(b, "\r\n"...)
	}
	b = append(append(b, "X-Forwarded-Proto: "...), o.Scheme...)
	b = append(b, "\r\nX-Forwarded-Port: "...)
	b = strconv.AppendInt(b, int64(o.Port), 10)
	return append(b, "\r\n"...)
}

func appendClient(b []byte, a netip.AddrPort, port bool) []byte {
	if port {
		return a.AppendTo(b)
	}
	return a.Addr().AppendTo(b)
}

const maxTrace = 7 << 10

// appendTrace applies the tracing rules: a fresh Root when there is none, else
// Self before whatever else came, the client's Self dropped (ALB user guide,
// "Request tracing").
func appendTrace(b, have []byte) []byte {
	if len(have) == 0 || len(have) > maxTrace || !bytes.Contains(have, []byte("Root=")) {
		return appendTraceID(append(b, "Root="...))
	}
	b = append(appendTraceID(append(b, "Self="...)), ';')
	for len(have) > 0 {
		part, rest, _ := bytes.Cut(have, []byte(";"))
		have = rest
		if part = bytes.TrimSpace(part); len(part) == 0 || bytes.HasPrefix(part, []byte("Self=")) {
			continue
		}
		b = append(append(b, part...), ';')
	}
	return b[:len(b)-1]
}

func appendTraceID(b []byte) []byte {
	var id [16]byte
	s := uint32(coarse.Load() / int64(time.Second))
	u, v := rand.Uint64(), rand.Uint32()
	id = [16]byte{byte(s >> 24), byte(s >> 16), byte(s >> 8), byte(s),
		byte(u), byte(u >> 8), byte(u >> 16), byte(u >> 24), byte(u >> 32), byte(u >> 40), byte(u >> 48), byte(u >> 56),
		byte(v), byte(v >> 8), byte(v >> 16), byte(v >> 24)}
	b = append(b, "1-"...)
	b = hex.AppendEncode(b, id[:4])
	b = append(b, '-')
	return hex.AppendEncode(b, id[4:])
}

// responseHead writes the head that the client gets; framing says how the body
// follows.
func (c *clientConn) responseHead(b []byte, keep bool, f framing) []byte {
	x := &c.x
	r := x.Res
	b = append(append(append(b, "HTTP/1.1 "...), r.Line...), "\r\n"...)
	for i := range r.Fields {
		h := &r.Fields[i]
		if h.ID != h1.Other {
			if h.ID == h1.ContentLength && f == framedNone && r.Status != 204 {
				b = appendField(b, h) // HEAD and 304 tell the length of what they do not send
				continue
			}
			if hopByHop(h.ID) && h.ID != h1.Trailer || h.ID == h1.Server && x.Options.HideServer {
				continue
			}
		} else if r.Nominated && nominated(r.Fields, h) {
			continue
		}
		b = appendField(b, h)
	}
	if !r.HasDate {
		b = append(appendDate(append(b, "Date: "...)), "\r\n"...)
	}
	b = append(b, x.Extra...)
	switch f {
	case framedLength:
		b = strconv.AppendInt(append(b, "Content-Length: "...), r.Length, 10)
		b = append(b, "\r\n"...)
	case framedChunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	b = appendConnection(b, !keep)
	return append(b, "\r\n"...)
}
