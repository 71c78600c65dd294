package h1

import "bytes"

// Chunked decodes a chunked body piecewise. The zero value starts a body.
type Chunked struct {
	state   chunkState
	left    int64 // data bytes of the current chunk still to come
	digits  int
	line    int // bytes of the current size line or of the trailer section
	Trailer []byte
}

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExt
	chunkSizeLF
	chunkData
	chunkCR
	chunkLF
	chunkTrailer
	chunkDone
)

const (
	maxChunkLine = 4 << 10
	maxTrailer   = 16 << 10
)

// Next takes bytes off b: it returns one piece of body data (maybe empty), how
// many bytes of b it took, and whether the body is complete. Taking nothing
// means that more input is needed. A chunk size with anything but hexadecimal
// digits, a bare CR or LF, and an oversize line are malformed; chunk extensions
// are dropped.
func (c *Chunked) Next(b []byte) (data []byte, n int, done bool, err error) {
	for n < len(b) {
		switch c.state {
		case chunkData:
			size := int(min(int64(len(b)-n), c.left))
			data = b[n : n+size]
			c.left -= int64(size)
			if c.left == 0 {
				c.state = chunkCR
			}
			return data, n + size, false, nil
		case chunkTrailer:
			took, done, err := c.trailer(b[n:])
			return nil, n + took, done, err
		case chunkDone:
			return nil, n, true, nil
		default:
			if !c.step(b[n]) {
				return nil, n, false, Malformed("malformed chunk")
			}
			n++
		}
	}
	return nil, n, c.state == chunkDone, nil
}

func (c *Chunked) step(ch byte) bool {
	switch c.state {
	case chunkSize:
		if d, ok := hex(ch); ok {
			c.digits++
			c.left = c.left<<4 | int64(d)
			return c.digits <= 15
		}
		if c.digits == 0 {
			return false
		}
		c.line = 0
		switch ch {
		case '\r':
			c.state = chunkSizeLF
		case ';':
			c.state = chunkExt
		default:
			return false
		}
		return true
	case chunkExt:
		if c.line++; c.line > maxChunkLine || ch == '\n' || ch == 0 {
			return false
		}
		if ch == '\r' {
			c.state = chunkSizeLF
		}
		return true
	case chunkSizeLF:
		c.digits = 0
		if c.state = chunkData; c.left == 0 {
			c.state = chunkTrailer
		}
		return ch == '\n'
	case chunkCR:
		c.state = chunkLF
		return ch == '\r'
	case chunkLF:
		c.state = chunkSize
		return ch == '\n'
	}
	return false
}

func hex(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// trailer waits for the whole section: it takes bytes only when b holds all of
// the rest, so a caller's buffer must be able to hold 16 KiB.
func (c *Chunked) trailer(b []byte) (n int, done bool, err error) {
	if len(b) >= 2 && b[0] == '\r' && b[1] == '\n' {
		c.state = chunkDone
		return 2, true, nil
	}
	if b[0] == '\n' {
		return 0, false, Malformed("malformed trailer")
	}
	end := bytes.Index(b, crlf2)
	if end < 0 {
		if len(b) > maxTrailer {
			return 0, false, Malformed("trailer over 16 KiB")
		}
		return 0, false, nil
	}
	if c.Trailer = b[:end+2]; !validTrailer(c.Trailer) {
		return 0, false, Malformed("malformed trailer")
	}
	c.state = chunkDone
	return end + 4, true, nil
}

// validTrailer refuses malformed lines and fields that must not come late
// (RFC 9110 6.5.1): a trailer can never change how the message was framed or routed.
func validTrailer(b []byte) bool {
	for len(b) > 0 {
		eol := bytes.IndexByte(b, '\n')
		if eol < 1 || b[eol-1] != '\r' {
			return false
		}
		line := b[:eol-1]
		b = b[eol+1:]
		colon := bytes.IndexByte(line, ':')
		if colon < 1 {
			return false
		}
		if _, and := union(line[:colon]); and&charToken == 0 {
			return false
		}
		if Lookup(line[:colon]) != Other {
			return false
		}
		for _, c := range line[colon:] {
			if c == 0 || c == '\r' {
				return false
			}
		}
	}
	return true
}
