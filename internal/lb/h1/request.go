package h1

import "bytes"

// Limits of a request head in bytes (ALB user guide, "Quotas").
const (
	MaxRequestLine  = 16 << 10
	MaxField        = 16 << 10
	MaxRequestHead  = 64 << 10
	MaxResponseHead = 32 << 10
	maxFields       = 512
)

// Request is a parsed head. Its slices point into the parsed buffer. Reuse one
// value for many requests: Parse resets it.
type Request struct {
	Method []byte
	// Target is the request target in origin form (or * for OPTIONS); the
	// authority of an absolute-form target has replaced Host.
	Target []byte
	// Line is the request line as received, for logs.
	Line   []byte
	Minor  int // 0 for HTTP/1.0, else 1
	Fields []Field
	Host   []byte // value without surrounding space; the absolute form's authority when there is one

	Length  int64 // of the body; -1 when chunked
	Chunked bool
	// SeenLength is true when there was a Content-Length, be it 0.
	SeenLength bool
	KeepAlive  bool // what the client asked for
	Upgrade    bool // a WebSocket upgrade
	Expect     bool // Expect: 100-continue

	TraceID   []byte
	Forwarded int // X-Forwarded-For fields
	Cookies   int
	UserAgent []byte

	Class  Class
	Reason Reason
	// Invalid counts fields whose names have other characters than letters,
	// digits and hyphens.
	Invalid int
	// Nominated is true when Connection names fields to drop.
	Nominated bool

	upgradeField, connectionUpgrade, seenHost bool
	identity, closeAsked                      bool
	hostField                                 []byte
	scanned                                   int
}

// Reset forgets everything but the capacity.
func (r *Request) Reset() {
	f := r.Fields[:0]
	*r = Request{Fields: f}
}

// Parse reads a head from the start of b. It returns its length, 0 when b holds
// no complete head yet (call again with more), or the refusal.
func (r *Request) Parse(b []byte) (int, *Error) {
	start := 0
	for start+1 < len(b) && start < 4 && b[start] == '\r' && b[start+1] == '\n' {
		start += 2 // RFC 9112 2.2: empty lines before a request are skipped
	}
	from := max(r.scanned-3, start)
	end := bytes.Index(b[from:], crlf2)
	if end < 0 {
		r.scanned = len(b)
		return 0, incomplete(b[start:])
	}
	end += from + 4
	r.Reset()
	head := b[start : end-2] // keeps each line's CRLF
	if len(head) > MaxRequestHead+MaxRequestLine {
		return 0, errHeadLong
	}
	eol := bytes.IndexByte(head, '\n')
	if eol > MaxRequestLine {
		return 0, errURILong
	}
	if eol < 1 || head[eol-1] != '\r' {
		return 0, errBadLine
	}
	if err := r.line(head[:eol-1]); err != nil {
		return 0, err
	}
	if err := r.fields(head[eol+1:]); err != nil {
		return 0, err
	}
	return end, r.finish()
}

var crlf2 = []byte("\r\n\r\n")

// incomplete refuses a head that is already too long.
func incomplete(b []byte) *Error {
	if len(b) <= MaxRequestLine {
		return nil
	}
	if eol := bytes.IndexByte(b, '\n'); eol < 0 || eol > MaxRequestLine {
		return errURILong
	}
	if len(b) > MaxRequestHead {
		return errHeadLong
	}
	return nil
}

func (r *Request) worse(c Class, why Reason) {
	if c > r.Class {
		r.Class, r.Reason = c, why
	}
}

func (r *Request) line(l []byte) *Error {
	r.Line = l
	sp := bytes.IndexByte(l, ' ')
	if sp < 1 || sp > 32 {
		return errBadMethod
	}
	r.Method = l[:sp]
	if _, and := union(r.Method); and&charToken == 0 {
		return errBadMethod
	}
	last := bytes.LastIndexByte(l, ' ')
	if last <= sp {
		return errBadVersion
	}
	if err := r.version(l[last+1:]); err != nil {
		return err
	}
	return r.target(l[sp+1 : last])
}

func (r *Request) version(v []byte) *Error {
	if len(v) != 8 || string(v[:5]) != "HTTP/" || v[6] != '.' || v[5] < '0' || v[5] > '9' || v[7] < '0' || v[7] > '9' {
		return errBadVersion
	}
	if v[5] != '1' {
		return errVersion
	}
	r.Minor = 1
	switch v[7] {
	case '1':
	case '0':
		r.Minor = 0
	default:
		r.worse(Acceptable, NonCompliantVersion)
	}
	return nil
}

func (r *Request) target(t []byte) *Error {
	if len(t) == 0 {
		return errBadURI
	}
	for _, c := range t {
		switch {
		case c == 0 || c == '\r' || c == '\n':
			return errBadURI
		case c == ' ':
			r.worse(Acceptable, SpaceInURI)
		case class[c]&charControl != 0 || c == '\t':
			r.worse(Ambiguous, AmbiguousURI)
		}
	}
	switch {
	case t[0] == '/':
	case len(t) == 1 && t[0] == '*' && string(r.Method) == "OPTIONS":
	default:
		return r.absolute(t)
	}
	r.Target = t
	return nil
}

var slash = []byte("/")

// absolute takes an absolute-form target apart: its authority replaces Host
// (RFC 9112 3.2.2).
func (r *Request) absolute(t []byte) *Error {
	n := bytes.Index(t, []byte("://"))
	if n < 0 || !EqualFold(t[:n], "http") && !EqualFold(t[:n], "https") {
		return errBadURI
	}
	t = t[n+3:]
	end := bytes.IndexAny(t, "/?#")
	if end < 0 {
		end = len(t)
	}
	r.Host = t[:end]
	if len(r.Host) == 0 || !validHost(r.Host) {
		return errBadURI
	}
	r.Target = t[end:]
	if len(r.Target) == 0 {
		r.Target = slash
	} else if r.Target[0] != '/' {
		return errBadURI
	}
	return nil
}

func validHost(h []byte) bool {
	for _, c := range h {
		if c <= ' ' || c >= 0x7f || c == '/' || c == '\\' || c == '@' || c == '?' || c == '#' || c == ',' {
			return false
		}
	}
	return true
}

func (r *Request) finish() *Error {
	r.KeepAlive = !r.closeAsked && (r.KeepAlive || r.Minor == 1) // close wins wherever it stands
	if r.Host == nil {
		if !r.seenHost && r.Minor == 1 {
			return errHost
		}
		r.Host = r.hostField
	} else if !r.seenHost && r.Minor == 1 {
		return errHost
	}
	if r.Chunked && r.Minor == 0 {
		return errEncoding // RFC 9112 6.1: the framing of such a message is faulty
	}
	bodyless := string(r.Method) == "GET" || string(r.Method) == "HEAD"
	if r.Chunked || r.identity {
		if r.SeenLength {
			r.worse(Ambiguous, BothTeClPresent)
		}
		if bodyless {
			r.worse(Ambiguous, UndefinedTransferEncodingSemantics)
		}
	}
	if r.SeenLength && bodyless {
		if r.Length == 0 {
			r.worse(Acceptable, GetHeadZeroContentLength)
		} else {
			r.worse(Ambiguous, UndefinedContentLengthSemantics)
		}
	}
	if r.Chunked {
		r.Length = -1
	}
	r.Upgrade = r.upgradeField && r.connectionUpgrade && r.Minor == 1
	switch string(r.Method) {
	case "TRACE":
		return errMethodMissing
	case "CONNECT":
		return errBadMethod
	}
	return nil
}

// HasBody reports whether bytes follow the head.
func (r *Request) HasBody() bool { return r.Length != 0 }

// Idempotent reports whether the method may be sent twice (RFC 9110 9.2.2).
func (r *Request) Idempotent() bool {
	switch string(r.Method) {
	case "GET", "HEAD", "OPTIONS", "PUT", "DELETE":
		return true
	}
	return false
}

// Path returns the target up to its query, and the raw query after the mark.
func (r *Request) Path() (path, query []byte, hasQuery bool) {
	return bytes.Cut(r.Target, []byte("?"))
}
