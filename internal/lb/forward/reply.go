package forward

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"slipway/internal/lb/h1"
)

const serverName = "awselb/2.0"

var dateCache atomic.Pointer[dateLine]

type dateLine struct {
	second int64
	text   []byte
}

// appendDate appends the date of the coarse clock, formatted once per second.
func appendDate(b []byte) []byte {
	now := coarse.Load() / int64(time.Second)
	d := dateCache.Load()
	if d == nil || d.second != now {
		d = &dateLine{second: now, text: time.Unix(now, 0).UTC().AppendFormat(nil, http.TimeFormat)}
		dateCache.Store(d)
	}
	return append(b, d.text...)
}

// statusText is the reason phrase as ALB writes it.
func statusText(code int) string {
	switch code {
	case 408:
		return "Request Time-out"
	case 414:
		return "Request-URI Too Large"
	case 460, 463, 464:
		return ""
	case 503:
		return "Service Temporarily Unavailable"
	case 504:
		return "Gateway Time-out"
	case 505:
		return "HTTP Version Not Supported"
	}
	return http.StatusText(code)
}

// reply sends the router's own answer; n is the length of the request's head.
func (c *clientConn) reply(l *link, n int) bool {
	x := &c.x
	l.r += n
	keep := c.keep()
	// A body that follows must not be taken for the next request: one that is
	// already here is skipped, for any other the connection ends.
	if x.Req.HasBody() {
		if x.Req.Length > 0 && x.Req.Length <= int64(l.w-l.r) {
			l.r += int(x.Req.Length)
			x.BytesIn += x.Req.Length
		} else {
			keep = false
		}
	}
	if !c.selfMade(l, x.Reply.Status, !keep) {
		return false
	}
	if !keep {
		c.linger(l)
	}
	return keep
}

// selfMade writes an answer of the load balancer: x.Reply when its status is that,
// else the standard page. It reports whether the client got it.
func (c *clientConn) selfMade(l *link, status int, closing bool) bool {
	x := &c.x
	x.Status = status
	rep := &x.Reply
	if rep.Status != status {
		*rep = Reply{Status: status, HTML: true}
	}
	b := c.out[:0]
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(append(b, ' '), statusText(status)...)
	b = append(b, "\r\n"...)
	if !x.Options.HideServer {
		b = append(b, "Server: "+serverName+"\r\n"...)
	}
	b = appendDate(append(b, "Date: "...))
	body, ctype := rep.Body, rep.ContentType
	if rep.HTML {
		title := strconv.Itoa(status) + " " + statusText(status)
		body = "<html>\r\n<head><title>" + title + "</title></head>\r\n<body>\r\n<center><h1>" + title + "</h1></center>\r\n</body>\r\n</html>\r\n"
		ctype = "text/html"
	}
	if ctype != "" {
		b = append(append(b, "\r\nContent-Type: "...), ctype...)
	}
	if status != 204 && status != 304 {
		b = strconv.AppendInt(append(b, "\r\nContent-Length: "...), int64(len(body)), 10)
	}
	if rep.Location != "" {
		b = append(append(b, "\r\nLocation: "...), rep.Location...)
	}
	b = append(b, "\r\n"...)
	b = append(b, x.Extra...)
	b = appendConnection(b, closing)
	b = append(b, "\r\n"...)
	if string(x.Req.Method) != "HEAD" {
		b = append(b, body...)
	}
	c.out = b
	if l.why() != notCut {
		// Its deadlines are over; one short write still goes through.
		_ = l.nc.SetWriteDeadline(time.Now().Add(lingerLeast))
	} else {
		l.expireIn(x.Options.IdleTimeout)
	}
	n, err := l.write(b)
	x.BytesOut += int64(n)
	return err == nil
}

func appendConnection(b []byte, closing bool) []byte {
	if closing {
		return append(b, "Connection: close\r\n"...)
	}
	return append(b, "Connection: keep-alive\r\n"...)
}

// appendField appends a header line.
func appendField(b []byte, f *h1.Field) []byte {
	b = append(b, f.Name...)
	b = append(b, ": "...)
	b = append(b, f.Value...)
	return append(b, "\r\n"...)
}
