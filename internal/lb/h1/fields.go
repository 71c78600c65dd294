// Package h1 parses HTTP/1.1 heads and chunked bodies strictly (RFC 9112),
// without allocating in the steady state, and classifies every deviation the way
// AWS's desync mitigation does. It does no I/O.
package h1

// Field is a header field; both parts point into the parsed buffer.
type Field struct {
	Name, Value []byte
	ID          ID
}

// ID identifies the field names that a proxy acts upon.
type ID uint8

// The known fields; everything else is Other.
const (
	Other ID = iota
	Connection
	ContentLength
	Cookie
	Date
	Expect
	Host
	KeepAlive
	ProxyConnection
	Server
	SetCookie
	TE
	Trailer
	TransferEncoding
	Upgrade
	UserAgent
	XAmznTraceID
	XForwardedFor
	XForwardedPort
	XForwardedProto
)

var names = [...]string{
	Connection: "connection", ContentLength: "content-length", Cookie: "cookie", Date: "date",
	Expect: "expect", Host: "host", KeepAlive: "keep-alive", ProxyConnection: "proxy-connection",
	Server: "server", SetCookie: "set-cookie", TE: "te", Trailer: "trailer",
	TransferEncoding: "transfer-encoding", Upgrade: "upgrade", UserAgent: "user-agent",
	XAmznTraceID: "x-amzn-trace-id", XForwardedFor: "x-forwarded-for",
	XForwardedPort: "x-forwarded-port", XForwardedProto: "x-forwarded-proto",
}

// byLength lists the IDs whose names have that many bytes.
var byLength [24][]ID

func init() {
	for id := Other + 1; int(id) < len(names); id++ {
		byLength[len(names[id])] = append(byLength[len(names[id])], id)
	}
}

// Lookup returns the ID of a field name in any case.
func Lookup(name []byte) ID {
	if len(name) >= len(byLength) {
		return Other
	}
	for _, id := range byLength[len(name)] {
		if EqualFold(name, names[id]) {
			return id
		}
	}
	return Other
}

// EqualFold compares b in any case with s, which is lower-case ASCII.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lower[c] != s[i] {
			return false
		}
	}
	return true
}

const (
	charToken   = 1 << iota // tchar of RFC 9110
	charControl             // below 0x20 but HT, and DEL
	charHigh                // 0x80 and above
	charPlain               // letters, digits and the hyphen: what AWS calls a valid name
)

var (
	class [256]uint8
	lower [256]byte
)

func init() {
	for i := range 256 {
		c := byte(i)
		lower[i] = c
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		switch {
		case letter || digit || c == '-':
			class[i] = charToken | charPlain
		case c < 0x20 && c != '\t' || c == 0x7f:
			class[i] = charControl
		case c >= 0x80:
			class[i] = charHigh
		}
		if c >= 'A' && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	for _, c := range []byte("!#$%&'*+.^_`|~") {
		class[c] |= charToken
	}
}

// union ORs and ANDs the classes of all bytes.
func union(b []byte) (all, and uint8) {
	and = 0xff
	for _, c := range b {
		all |= class[c]
		and &= class[c]
	}
	return all, and
}

// PlainName reports whether a field name has only letters, digits and hyphens.
func PlainName(name []byte) bool {
	_, and := union(name)
	return and&charPlain != 0
}

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// NextToken cuts the first member off a comma-separated list; ok is false at its end.
func NextToken(list []byte) (token, rest []byte, ok bool) {
	for len(list) > 0 {
		i := 0
		for i < len(list) && list[i] != ',' {
			i++
		}
		token = trimOWS(list[:i])
		if i < len(list) {
			i++
		}
		list = list[i:]
		if len(token) > 0 {
			return token, list, true
		}
	}
	return nil, nil, false
}

// HasToken reports whether the comma-separated list holds the lower-case token.
func HasToken(list []byte, token string) bool {
	for {
		t, rest, ok := NextToken(list)
		if !ok {
			return false
		}
		if EqualFold(t, token) {
			return true
		}
		list = rest
	}
}

// parseLength reads a Content-Length: digits only, at most 18 of them.
func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	var n int64
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// Lower returns the lower-case form of an ASCII byte.
func Lower(c byte) byte { return lower[c] }
