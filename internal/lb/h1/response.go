package h1

import "bytes"

// Response is a target's parsed head; slices point into the parsed buffer.
type Response struct {
	Status int
	Line   []byte // "200 OK": status and reason phrase
	Minor  int
	Fields []Field
	// Length of the body: -1 when chunked or ended by the close of the connection.
	Length    int64
	Chunked   bool
	KeepAlive bool
	HasDate   bool
	HasServer bool
	SetCookie bool
	Nominated bool
	// Suspect is true when the framing was contradictory (length and chunked):
	// the connection must not be used again.
	Suspect bool

	seenLength bool
}

// Malformed is a refused response; the client gets a 502.
type Malformed string

func (m Malformed) Error() string { return string(m) }

// Reset forgets everything but the capacity.
func (r *Response) Reset() {
	f := r.Fields[:0]
	*r = Response{Fields: f}
}

// Parse reads a head from the start of b: its length, 0 when incomplete.
func (r *Response) Parse(b []byte) (int, error) {
	end := bytes.Index(b, crlf2)
	if end < 0 {
		if len(b) >= MaxResponseHead {
			return 0, Malformed("response header over 32 KiB")
		}
		return 0, nil
	}
	end += 4
	if end > MaxResponseHead {
		return 0, Malformed("response header over 32 KiB")
	}
	r.Reset()
	head := b[:end-2]
	eol := bytes.IndexByte(head, '\n')
	if eol < 1 || head[eol-1] != '\r' || !r.line(head[:eol-1]) {
		return 0, Malformed("malformed status line")
	}
	if err := r.fields(head[eol+1:]); err != nil {
		return 0, err
	}
	if r.Chunked {
		r.Suspect = r.seenLength || r.Minor == 0
		r.Length = -1
	} else if !r.seenLength {
		r.Length = -1
	}
	return end, nil
}

func (r *Response) line(l []byte) bool {
	if len(l) < 12 || string(l[:7]) != "HTTP/1." || l[8] != ' ' || (l[7] != '0' && l[7] != '1') {
		return false
	}
	r.Minor = int(l[7] - '0')
	r.KeepAlive = r.Minor == 1
	for _, c := range l[9:12] {
		if c < '0' || c > '9' {
			return false
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if len(l) > 12 && l[12] != ' ' || r.Status < 100 || r.Status > 599 {
		return false
	}
	for _, c := range l[12:] {
		if class[c]&charControl != 0 {
			return false
		}
	}
	r.Line = l[9:]
	return true
}

func (r *Response) fields(b []byte) error {
	for len(b) > 0 {
		eol := bytes.IndexByte(b, '\n')
		if eol < 1 || b[eol-1] != '\r' {
			return Malformed("bare LF in the response header")
		}
		line := b[:eol-1]
		b = b[eol+1:]
		colon := bytes.IndexByte(line, ':')
		if colon < 1 {
			return Malformed("response header line without a name")
		}
		name, value := line[:colon], trimOWS(line[colon+1:])
		if _, and := union(name); and&charToken == 0 {
			return Malformed("malformed response header name")
		}
		for _, c := range value {
			if c == 0 || c == '\r' {
				return Malformed("CR or NUL in a response header value")
			}
		}
		if len(r.Fields) >= maxFields {
			return Malformed("too many response header fields")
		}
		id := Lookup(name)
		r.Fields = append(r.Fields, Field{Name: name, Value: value, ID: id})
		if err := r.known(id, value); err != nil {
			return err
		}
	}
	return nil
}

func (r *Response) known(id ID, v []byte) error {
	switch id {
	case ContentLength:
		n, ok := parseLength(v)
		if !ok || r.seenLength && n != r.Length {
			return Malformed("malformed or contradictory Content-Length in the response")
		}
		r.seenLength, r.Length = true, n
	case TransferEncoding:
		if !EqualFold(v, "chunked") || r.Chunked {
			return Malformed("unknown Transfer-Encoding in the response")
		}
		r.Chunked = true
	case Connection:
		r.connection(v)
	case Date:
		r.HasDate = true
	case Server:
		r.HasServer = true
	case SetCookie:
		r.SetCookie = true
	}
	return nil
}

func (r *Response) connection(v []byte) {
	for {
		t, rest, ok := NextToken(v)
		if !ok {
			return
		}
		switch {
		case EqualFold(t, "close"):
			r.KeepAlive = false
		case EqualFold(t, "keep-alive"):
			r.KeepAlive = true
		case EqualFold(t, "upgrade"):
		default:
			r.Nominated = true
		}
		v = rest
	}
}

// Bodyless reports that no body follows whatever the fields say (RFC 9112 6.3).
func (r *Response) Bodyless(head bool) bool {
	return head || r.Status < 200 || r.Status == 204 || r.Status == 304
}
