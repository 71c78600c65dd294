package h1

import "bytes"

func (r *Request) fields(b []byte) *Error {
	for len(b) > 0 {
		eol := bytes.IndexByte(b, '\n')
		if eol < 1 || b[eol-1] != '\r' {
			return errBadLine
		}
		line := b[:eol-1]
		b = b[eol+1:]
		if len(line) > MaxField {
			return errFieldLong
		}
		if err := r.field(line); err != nil {
			return err
		}
	}
	return nil
}

func (r *Request) field(line []byte) *Error {
	if line[0] == ' ' || line[0] == '\t' {
		if len(trimOWS(line)) > 0 {
			return errFolded
		}
		r.worse(Ambiguous, EmptyHeader)
		return nil
	}
	colon := bytes.IndexByte(line, ':')
	if colon < 0 {
		return errBadLine
	}
	name, value := line[:colon], trimOWS(line[colon+1:])
	if colon == 0 {
		r.worse(Ambiguous, EmptyHeader)
		return nil
	}
	if err := r.checkName(name); err != nil {
		return err
	}
	for _, c := range value {
		if class[c]&(charControl|charHigh) != 0 {
			if c == 0 || c == '\r' {
				return errBadValue
			}
			r.worse(Acceptable, NonCompliantHeader)
		}
	}
	if len(r.Fields) >= maxFields {
		return errHeadLong
	}
	id := Lookup(name)
	r.Fields = append(r.Fields, Field{Name: name, Value: value, ID: id})
	if id == Other {
		return nil
	}
	return r.known(id, value)
}

func (r *Request) checkName(name []byte) *Error {
	all, and := union(name)
	if and&charPlain != 0 {
		return nil
	}
	r.Invalid++
	for _, c := range name {
		if class[c]&(charToken|charHigh) == 0 {
			return errBadName
		}
	}
	if all&charHigh != 0 {
		r.worse(Acceptable, NonCompliantHeader)
	}
	if suspicious(name) {
		r.worse(Ambiguous, SuspiciousHeader)
	}
	return nil
}

func (r *Request) known(id ID, v []byte) *Error {
	switch id {
	case Host:
		if r.seenHost || !validHost(v) {
			return errHost
		}
		r.seenHost, r.hostField = true, v
	case ContentLength:
		return r.contentLength(v)
	case TransferEncoding:
		return r.transferEncoding(v)
	case Connection:
		r.connection(v)
	case Upgrade:
		r.upgradeField = r.upgradeField || EqualFold(v, "websocket")
	case Expect:
		r.Expect = r.Expect || EqualFold(v, "100-continue")
	case XAmznTraceID:
		r.TraceID = v
	case XForwardedFor:
		r.Forwarded++
	case Cookie:
		r.Cookies++
	case UserAgent:
		r.UserAgent = v
	}
	return nil
}

func (r *Request) contentLength(v []byte) *Error {
	n, ok := parseLength(v)
	if !ok {
		return errLength
	}
	if r.SeenLength {
		if n != r.Length {
			return errLengths
		}
		r.worse(Ambiguous, DuplicateContentLength)
	}
	r.SeenLength, r.Length = true, n
	return nil
}

func (r *Request) transferEncoding(v []byte) *Error {
	if len(v) == 0 {
		return errEncoding
	}
	for {
		t, rest, ok := NextToken(v)
		if !ok {
			return nil
		}
		switch {
		case EqualFold(t, "chunked"):
			if r.Chunked {
				return errEncodings
			}
			r.Chunked = true
		case EqualFold(t, "identity"):
			r.identity = true
		default:
			if _, and := union(t); and&charToken == 0 {
				return errEncoding
			}
			return errNotImpl
		}
		v = rest
	}
}

func (r *Request) connection(v []byte) {
	for {
		t, rest, ok := NextToken(v)
		if !ok {
			return
		}
		switch {
		case EqualFold(t, "close"):
			r.closeAsked = true
		case EqualFold(t, "keep-alive"):
			r.KeepAlive = true
		case EqualFold(t, "upgrade"):
			r.connectionUpgrade = true
		default:
			r.Nominated = true
		}
		v = rest
	}
}
