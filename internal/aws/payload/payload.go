// Package payload reads S3's request bodies: it takes off the aws-chunked
// framing and checks, while the bytes stream by, everything the client said
// about them: chunk signatures, x-amz-content-sha256, Content-MD5, the
// flexible checksums in headers or trailers, and the length. What is wrong
// comes out of Read in place of io.EOF, as an *awserr.Error: a handler must
// not keep the bytes before it has read io.EOF.
package payload

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strconv"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/sigv4"
)

// nvme is the CRC-64/NVME polynomial, reversed as hash/crc64 wants it.
var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// algorithms are S3's flexible checksums, by the end of their header's name.
var algorithms = map[string]func() hash.Hash{
	"crc32":     func() hash.Hash { return crc32.NewIEEE() },
	"crc32c":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
	"crc64nvme": func() hash.Hash { return crc64.New(nvme) },
	"sha1":      sha1.New,
	"sha256":    sha256.New,
}

// NewHash returns the hash of a flexible checksum ("CRC32", "CRC32C",
// "CRC64NVME", "SHA1", "SHA256", any case), or nil for an unknown name.
func NewHash(algorithm string) hash.Hash {
	if f := algorithms[strings.ToLower(algorithm)]; f != nil {
		return f()
	}
	return nil
}

const headerPrefix = "x-amz-checksum-"

// check is one claim about the body.
type check struct {
	sum     hash.Hash
	want    []byte // nil: in the trailer
	name    string // "md5", "content-sha256", or the checksum's algorithm
	trailer string
}

// Body is a checked request body. Not safe for concurrent use.
type Body struct {
	src     io.Reader
	closer  io.Closer
	chunks  *chunked
	checks  []check
	length  int64 // -1: not known
	read    int64
	err     error
	trailer map[string]string // checksums that came in the trailer
}

// New wraps r's body. sig is the verified signature, nil where none is
// checked. Length is the decoded body's, -1 where the client did not say.
func New(r *http.Request, sig *sigv4.Result) (*Body, error) {
	b := &Body{src: r.Body, closer: r.Body, length: r.ContentLength, trailer: map[string]string{}}
	if r.Body == nil {
		b.src, b.closer, b.length = strings.NewReader(""), http.NoBody, 0
	}
	stated := r.Header.Get("X-Amz-Content-Sha256")
	announced := strings.ToLower(r.Header.Get("X-Amz-Trailer"))
	switch {
	case strings.HasPrefix(stated, "STREAMING-"):
		if err := b.unchunk(r, sig, stated, announced); err != nil {
			return nil, err
		}
	case stated != "" && stated != sigv4.Unsigned:
		want, err := hex.DecodeString(stated)
		if err != nil || len(want) != sha256.Size {
			return nil, awserr.New("InvalidArgument", "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER, STREAMING-AWS4-HMAC-SHA256-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER, or a valid sha256 value.").WithStatus(400)
		}
		b.checks = append(b.checks, check{sum: sha256.New(), want: want, name: "content-sha256"})
	}
	return b, b.addChecks(r, announced)
}

func (b *Body) unchunk(r *http.Request, sig *sigv4.Result, stated, announced string) error {
	signed := false
	switch stated {
	case "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER":
		signed = true
	case "STREAMING-UNSIGNED-PAYLOAD-TRAILER":
	default:
		return awserr.New("NotImplemented", "Slipway does not implement the payload signature %s.", stated).WithStatus(501)
	}
	b.length = -1
	if s := r.Header.Get("X-Amz-Decoded-Content-Length"); s != "" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || n < 0 {
			return awserr.New("InvalidArgument", "x-amz-decoded-content-length must be a number of bytes.").WithStatus(400)
		}
		b.length = n
	} else {
		return awserr.New("MissingContentLength", "You must provide the Content-Length HTTP header.").WithStatus(411)
	}
	b.chunks = newChunked(b.src, sig, signed, strings.HasSuffix(stated, "-TRAILER") && announced != "")
	b.src = b.chunks
	return nil
}

func (b *Body) addChecks(r *http.Request, announced string) error {
	if s := r.Header.Get("Content-Md5"); s != "" {
		want, err := base64.StdEncoding.DecodeString(s)
		if err != nil || len(want) != md5.Size {
			return awserr.New("InvalidDigest", "The Content-MD5 you specified was invalid.").WithStatus(400)
		}
		b.checks = append(b.checks, check{sum: md5.New(), want: want, name: "md5"})
	}
	for name, newHash := range algorithms {
		header := headerPrefix + name
		s := r.Header.Get(header)
		switch {
		case s != "":
			sum := newHash()
			want, err := base64.StdEncoding.DecodeString(s)
			if err != nil || len(want) != sum.Size() {
				return awserr.New("InvalidRequest", "Value for %s header is invalid.", header).WithStatus(400)
			}
			b.checks = append(b.checks, check{sum: sum, want: want, name: name})
		case announced == header:
			b.checks = append(b.checks, check{sum: newHash(), name: name, trailer: header})
		}
	}
	return nil
}

// Length is the number of bytes that Read will give, -1 where unknown.
func (b *Body) Length() int64 { return b.length }

// Checksum returns the checksum that the client sent in the trailer (base64)
// and its algorithm in capitals; it is known after Read returned io.EOF.
func (b *Body) Checksum() (algorithm, value string) {
	for a, v := range b.trailer {
		return strings.ToUpper(a), v
	}
	return "", ""
}

// Read gives the decoded bytes; io.EOF comes only after all checks passed.
func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.src.Read(p)
	b.read += int64(n)
	for i := range b.checks {
		b.checks[i].sum.Write(p[:n])
	}
	switch {
	case err == nil:
		if b.length >= 0 && b.read > b.length {
			b.err = awserr.New("InvalidRequest", "The body is longer than its stated length of %d bytes.", b.length).WithStatus(400)
			return 0, b.err
		}
		return n, nil
	case errors.Is(err, io.EOF):
		b.err = b.finish()
	case awserr.As(err) != nil:
		b.err = err
	default:
		b.err = incomplete(err)
	}
	if n > 0 && b.err == io.EOF {
		return n, nil // the next call says io.EOF
	}
	return n, b.err
}

func (b *Body) finish() error {
	if b.length >= 0 && b.read != b.length {
		return awserr.New("IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header").WithStatus(400)
	}
	for _, c := range b.checks {
		want := c.want
		if c.trailer != "" {
			s := b.chunks.value(c.trailer)
			var err error
			if want, err = base64.StdEncoding.DecodeString(s); err != nil || len(want) != c.sum.Size() {
				return awserr.New("InvalidRequest", "Value for %s trailing header is invalid.", c.trailer).WithStatus(400)
			}
			b.trailer[c.name] = s
		}
		if subtle.ConstantTimeCompare(want, c.sum.Sum(nil)) != 1 {
			return wrongSum(c)
		}
	}
	return io.EOF
}

// value is a trailing header; there are none without chunks.
func (c *chunked) value(name string) string {
	if c == nil {
		return ""
	}
	return c.trailer.Get(name)
}

func wrongSum(c check) error {
	switch c.name {
	case "md5":
		return awserr.New("BadDigest", "The Content-MD5 you specified did not match what we received.").WithStatus(400)
	case "content-sha256":
		return awserr.New("XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed.").WithStatus(400).
			WithField("ClientComputedContentSHA256", hex.EncodeToString(c.want)).
			WithField("S3ComputedContentSHA256", hex.EncodeToString(c.sum.Sum(nil)))
	}
	return awserr.New("BadDigest", "The %s you specified did not match the calculated checksum.", strings.ToUpper(c.name)).WithStatus(400)
}

// Close closes the connection's body.
func (b *Body) Close() error { return b.closer.Close() }

// Done says that the body was read to its end, well or not.
func (b *Body) Done() bool { return b.err != nil || b.length == 0 }
