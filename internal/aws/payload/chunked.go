package payload

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"net/http"
	"strconv"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/sigv4"
)

const (
	maxChunkLine = 4 << 10
	maxTrailers  = 32
)

// chunked decodes S3's aws-chunked framing and verifies the signature of
// each chunk and of the trailer. Not safe for concurrent use.
type chunked struct {
	r        *bufio.Reader
	sig      *sigv4.Result // nil: chunks carry no signatures, or none is checked
	previous string
	sum      hash.Hash // of the current chunk, where it is signed
	want     string    // the current chunk's signature
	left     int64     // bytes left in the current chunk
	started  bool
	trailing bool // a trailer was announced
	trailer  http.Header
	err      error
}

func newChunked(body io.Reader, sig *sigv4.Result, signed, trailing bool) *chunked {
	c := &chunked{r: bufio.NewReaderSize(body, 64<<10), trailer: http.Header{}, trailing: trailing}
	if signed && sig != nil {
		c.sig, c.previous, c.sum = sig, sig.Signature, sha256.New()
	}
	return c
}

func (c *chunked) Read(p []byte) (int, error) {
	for c.err == nil && c.left == 0 {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	if c.sum != nil {
		c.sum.Write(p[:n])
	}
	if err != nil {
		c.err = incomplete(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

func incomplete(err error) error {
	return awserr.New("IncompleteBody", "The request body terminated unexpectedly").WithStatus(400).WithCause(err)
}

func badChunk(what string) error {
	return awserr.New("InvalidRequest", "The aws-chunked body is malformed: %s.", what).WithStatus(400)
}

func mismatch() error {
	return awserr.New("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your key and signing method.").WithStatus(403)
}

// next ends the current chunk and begins the following one; io.EOF after the last.
func (c *chunked) next() error {
	if c.started {
		if line, err := c.line(); err != nil {
			return err
		} else if line != "" {
			return badChunk("a chunk is longer than its size says")
		}
		if err := c.verify(); err != nil {
			return err
		}
	}
	c.started = true
	line, err := c.line()
	if err != nil {
		return err
	}
	size, ext, _ := strings.Cut(line, ";")
	n, err := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
	if err != nil || n < 0 {
		return badChunk("'" + size + "' is not a chunk's size")
	}
	c.want = strings.TrimPrefix(strings.TrimSpace(ext), "chunk-signature=")
	if c.left = n; n > 0 {
		return nil
	}
	if err := c.verify(); err != nil {
		return err
	}
	return c.end()
}

func (c *chunked) verify() error {
	if c.sig == nil {
		return nil
	}
	if !c.sig.Chunk(c.previous, hex.EncodeToString(c.sum.Sum(nil)), c.want) {
		return mismatch()
	}
	c.previous = c.want
	c.sum.Reset()
	return nil
}

// end reads the trailer.
func (c *chunked) end() error {
	sum := sha256.New()
	for range maxTrailers {
		line, err := c.line()
		if errors.Is(err, io.ErrUnexpectedEOF) && !c.trailing {
			return io.EOF // without a trailer the last empty line may be missing
		}
		if err != nil {
			return err
		}
		if line == "" {
			if c.sig != nil && c.trailing && c.trailer.Get("X-Amz-Trailer-Signature") == "" {
				// SDKs put the empty line before the signature or leave it out.
				if line, err = c.line(); err != nil {
					return mismatch()
				}
				if !strings.HasPrefix(strings.ToLower(line), "x-amz-trailer-signature:") {
					return mismatch()
				}
			} else {
				return io.EOF
			}
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return badChunk("a trailing header without a colon")
		}
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" {
			if c.sig != nil && !c.sig.Trailer(c.previous, hex.EncodeToString(sum.Sum(nil)), value) {
				return mismatch()
			}
			return io.EOF
		}
		c.trailer.Add(name, value)
		io.WriteString(sum, name+":"+value+"\n") // a hash does not fail
	}
	return badChunk("too many trailing headers")
}

// line reads up to CRLF (or a bare LF before a trailer's signature).
func (c *chunked) line() (string, error) {
	var out []byte
	for {
		part, err := c.r.ReadSlice('\n')
		out = append(out, part...)
		switch {
		case len(out) > maxChunkLine:
			return "", badChunk("a line is too long")
		case err == nil:
			return strings.TrimRight(string(out), "\r\n"), nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(out) > 0:
			return strings.TrimRight(string(out), "\r\n"), nil
		case errors.Is(err, io.EOF):
			return "", incomplete(io.ErrUnexpectedEOF)
		default:
			return "", incomplete(err)
		}
	}
}
