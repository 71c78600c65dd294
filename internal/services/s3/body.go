package s3

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/payload"
	"slipway/internal/aws/ptr"
	"slipway/internal/blob"
)

// claims are the checksums that a request states, by algorithm in capitals.
type claims map[string]*string

// sums of a body that was kept.
type sums struct {
	ref       blob.Ref
	md5       []byte
	checksums map[string]string
}

func (b *sums) etag() string { return hex.EncodeToString(b.md5) }

const maxPut = 5 << 30 // bytes of one PUT or part

// keep streams a body into the blob store, with its MD5, the checksums that
// are claimed (and checked), and the one named by algorithm; CRC64NVME where
// none is named, as AWS does since the end of 2024.
func (s *Service) keep(ctx context.Context, body io.Reader, contentMD5, algorithm *string, want claims) (*sums, error) {
	if body == nil {
		body = bytes.NewReader(nil)
	}
	hashes := map[string]hash.Hash{}
	for a, v := range want {
		if v != nil {
			hashes[a] = payload.NewHash(a)
		}
	}
	if a := strings.ToUpper(ptr.Value(algorithm)); a != "" && hashes[a] == nil {
		h := payload.NewHash(a)
		if h == nil {
			return nil, awserr.New("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]").WithStatus(400)
		}
		hashes[a] = h
	}
	if len(hashes) == 0 {
		hashes["CRC64NVME"] = payload.NewHash("CRC64NVME")
	}
	sum := md5.New()
	ws := []io.Writer{sum}
	for _, h := range hashes {
		ws = append(ws, h)
	}
	src := io.TeeReader(&limited{r: body, left: maxPut}, io.MultiWriter(ws...))
	ref, err := s.Blobs.Put(ctx, src)
	if err != nil {
		return nil, disk(err)
	}
	out := &sums{ref: ref, md5: sum.Sum(nil), checksums: map[string]string{}}
	for a, h := range hashes {
		out.checksums[a] = base64.StdEncoding.EncodeToString(h.Sum(nil))
	}
	if err := out.check(contentMD5, want); err != nil {
		s.release([]string{ref.Hash})
		return nil, err
	}
	return out, nil
}

// check compares with what the request claims. Over HTTP the wire has done so
// already; calls inside the process have only this.
func (b *sums) check(contentMD5 *string, want claims) error {
	if contentMD5 != nil && *contentMD5 != base64.StdEncoding.EncodeToString(b.md5) {
		return awserr.New("BadDigest", "The Content-MD5 you specified did not match what we received.").WithStatus(400)
	}
	for a, v := range want {
		if v != nil && b.checksums[a] != *v {
			return awserr.New("BadDigest", "The %s you specified did not match the calculated checksum.", a).WithStatus(400)
		}
	}
	return nil
}

type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, awserr.New("EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size.").WithStatus(400).WithField("MaxSizeAllowed", int64(maxPut))
	}
	return n, err
}

// content reads a span of a version's bytes over its blobs. All blobs are
// opened at once, so that the version may be deleted meanwhile.
type content struct {
	files []blob.File
	io.Reader
}

func (c *content) Close() error {
	var errs []error
	for _, f := range c.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// open reads n bytes from offset on.
func (s *Service) open(v *version, offset, n int64) (io.ReadCloser, error) {
	c := &content{}
	var rs []io.Reader
	for _, ref := range v.Blobs {
		if n == 0 {
			break
		}
		if offset >= ref.Size {
			offset -= ref.Size
			continue
		}
		f, err := s.Blobs.Open(ref.Hash)
		if err != nil {
			return nil, errors.Join(disk(err), c.Close())
		}
		c.files = append(c.files, f)
		take := min(n, ref.Size-offset)
		rs = append(rs, io.NewSectionReader(f, offset, take))
		n, offset = n-take, 0
	}
	if len(rs) == 1 {
		c.Reader = rs[0]
	} else {
		c.Reader = io.MultiReader(rs...)
	}
	return c, nil
}

// hashAll reads r to its end and returns its checksum in base64.
func hashAll(ctx context.Context, r io.Reader, algorithm string) (string, error) {
	h := payload.NewHash(algorithm)
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", err
		}
	}
}
