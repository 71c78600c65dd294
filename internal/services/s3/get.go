package s3

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

// markerError adds what a client is told of a delete marker that hides a key.
func markerError(err error, v *version) error {
	return awserr.As(err).WithField(dispatch.HeaderField+"x-amz-delete-marker", "true").WithField(dispatch.HeaderField+"x-amz-version-id", v.ID)
}

// conditions of a read (RFC 9110, section 13).
type conditions struct {
	match, noneMatch     *string
	modified, unmodified *time.Time
}

// matches reports whether a list of entity tags contains etag.
func matches(list, etag string) bool {
	for tag := range strings.SplitSeq(list, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == "*" || strings.Trim(tag, `"`) == etag {
			return true
		}
	}
	return false
}

// check evaluates them in the order of RFC 9110, section 13.2.2.
func (c conditions) check(v *version) error {
	at := v.Modified.Truncate(time.Second) // as Last-Modified says it
	switch {
	case c.match != nil && !matches(*c.match, v.ETag):
		return precondition("If-Match")
	case c.match == nil && c.unmodified != nil && at.After(*c.unmodified):
		return precondition("If-Unmodified-Since")
	case c.noneMatch != nil && matches(*c.noneMatch, v.ETag), c.noneMatch == nil && c.modified != nil && !at.After(*c.modified):
		return awserr.New("NotModified", "Not Modified").WithStatus(304).
			WithField(dispatch.HeaderField+"ETag", *v.quoted()).
			WithField(dispatch.HeaderField+"Last-Modified", v.Modified.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
	}
	return nil
}

// findSource is find for the source of a copy, where every condition that
// fails is a failed precondition.
func (s *Service) findSource(ctx context.Context, bucket, key string, id, owner *string, c conditions) (*bucket, *version, error) {
	b, v, err := s.find(ctx, &bucket, &key, id, owner)
	if err != nil {
		return nil, nil, err
	}
	if v.Marker {
		return nil, nil, awserr.New("InvalidRequest", "The source of a copy request may not specifically refer to a delete marker by version id.").WithStatus(400)
	}
	if err := c.check(v); err != nil {
		if awserr.Is(err, "NotModified") {
			err = precondition("x-amz-copy-source-If-None-Match")
		}
		return nil, nil, err
	}
	return b, v, nil
}

// span is the part of an object that is asked for.
type span struct {
	offset, n int64
	content   *string // Content-Range, nil for the whole
	parts     *int64
}

func invalidRange(header string, size int64) error {
	return awserr.New("InvalidRange", "The requested range is not satisfiable").WithStatus(416).
		WithField("RangeRequested", header).WithField("ActualObjectSize", size).
		WithField(dispatch.HeaderField+"Content-Range", fmt.Sprintf("bytes */%d", size))
}

// parseRange reads a single byte range (RFC 9110, section 14.1.2). What is no
// such range, or more than one, is ignored, as S3 does.
func parseRange(header string, size int64) (first, last int64, ok bool, err error) {
	spec, isBytes := strings.CutPrefix(strings.TrimSpace(header), "bytes=")
	from, to, dash := strings.Cut(spec, "-")
	if !isBytes || !dash || strings.Contains(spec, ",") {
		return 0, 0, false, nil
	}
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if from == "" {
		n, err := strconv.ParseInt(to, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, false, nil
		}
		if n == 0 || size == 0 {
			return 0, 0, false, invalidRange(header, size)
		}
		return max(0, size-n), size - 1, true, nil
	}
	if first, err = strconv.ParseInt(from, 10, 64); err != nil || first < 0 {
		return 0, 0, false, nil
	}
	last = size - 1
	if to != "" {
		if last, err = strconv.ParseInt(to, 10, 64); err != nil || last < first {
			return 0, 0, false, nil
		}
	}
	if first >= size {
		return 0, 0, false, invalidRange(header, size)
	}
	return first, min(last, size-1), true, nil
}

func (v *version) span(rng *string, partNumber *int64) (span, error) {
	sp := span{n: v.Size}
	set := func(first, last int64) {
		sp.offset, sp.n = first, last-first+1
		sp.content = new(fmt.Sprintf("bytes %d-%d/%d", first, last, v.Size))
	}
	if partNumber != nil {
		if rng != nil {
			return sp, awserr.New("InvalidRequest", "Cannot specify both Range header and partNumber query parameter").WithStatus(400)
		}
		return v.partSpan(*partNumber, set, &sp)
	}
	if rng != nil {
		first, last, ok, err := parseRange(*rng, v.Size)
		if err != nil {
			return sp, err
		}
		if ok {
			set(first, last)
		}
	}
	return sp, nil
}

func (v *version) partSpan(number int64, set func(first, last int64), sp *span) (span, error) {
	if len(v.Parts) == 0 && number == 1 {
		if v.Size > 0 {
			set(0, v.Size-1)
		}
		return *sp, nil
	}
	var offset int64
	for i, p := range v.Parts {
		if int64(i+1) == number {
			set(offset, offset+p.Size-1)
			sp.parts = new(int64(len(v.Parts)))
			return *sp, nil
		}
		offset += p.Size
	}
	return *sp, awserr.New("InvalidPartNumber", "The requested partnumber is not satisfiable").WithStatus(416).
		WithField("ActualPartCount", len(v.Parts)).WithField("PartNumberRequested", number)
}

// methodNotAllowed answers a read of a delete marker by its version id.
func methodNotAllowed(v *version) error {
	err := awserr.New("MethodNotAllowed", "The specified method is not allowed against this resource.").WithStatus(405).
		WithField("Method", "GET").WithField("ResourceType", "DeleteMarker").
		WithField(dispatch.HeaderField+"Last-Modified", v.Modified.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
	return markerError(err, v)
}

func (s *Service) getObject(ctx context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
	b, v, sp, err := s.read(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner, in.Range, in.PartNumber,
		conditions{in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	var body io.ReadCloser
	if body, err = s.open(v, sp.offset, sp.n); err != nil {
		return nil, err
	}
	out := &s3.GetObjectOutput{Body: body, AcceptRanges: new("bytes"), LastModified: &v.Modified, ContentLength: &sp.n, ETag: v.quoted(),
		VersionId: shown(b, v), ContentRange: sp.content, PartsCount: sp.parts, ServerSideEncryption: new("AES256"), Metadata: v.Meta,
		StorageClass: ptr.NonZero(v.Class), TagCount: ptr.NonZero(int64(len(v.Tags))), WebsiteRedirectLocation: ptr.NonZero(v.Headers.Redirect),
		CacheControl: override(in.ResponseCacheControl, v.Headers.Cache), ContentDisposition: override(in.ResponseContentDisposition, v.Headers.Disposition),
		ContentEncoding: override(in.ResponseContentEncoding, v.Headers.Encoding), ContentLanguage: override(in.ResponseContentLanguage, v.Headers.Language),
		ContentType: override(in.ResponseContentType, v.Headers.mediaType()), Expires: override(httpTime(in.ResponseExpires), v.Headers.Expires)}
	if sums := v.shownSums(in.ChecksumMode, sp); sums != nil {
		out.ChecksumType = &v.ChecksumType
		out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME = sumOf(sums, "CRC32"), sumOf(sums, "CRC32C"), sumOf(sums, "CRC64NVME")
		out.ChecksumSHA1, out.ChecksumSHA256 = sumOf(sums, "SHA1"), sumOf(sums, "SHA256")
	}
	return out, nil
}

func httpTime(t *time.Time) *string {
	if t == nil {
		return nil
	}
	return new(t.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT"))
}

func override(asked *string, stored string) *string {
	if asked != nil {
		return asked
	}
	return ptr.NonZero(stored)
}

// mediaType is what AWS says of objects that were put without one.
func (h headers) mediaType() string {
	if h.Type == "" {
		return "binary/octet-stream"
	}
	return h.Type
}

// shownSums are the checksums to send: those of the whole object, where they
// were asked for and the whole is sent.
func (v *version) shownSums(mode *string, sp span) map[string]string {
	if ptr.Value(mode) != "ENABLED" || sp.content != nil || v.ChecksumType == "" {
		return nil
	}
	return v.Checksums
}

// read finds what GET and HEAD send.
func (s *Service) read(ctx context.Context, bucket, key, id, owner, rng *string, partNumber *int64, c conditions) (*bucket, *version, span, error) {
	if err := checkKey(ptr.Value(key)); err != nil {
		return nil, nil, span{}, err
	}
	b, v, err := s.find(ctx, bucket, key, id, owner)
	if err != nil {
		return nil, nil, span{}, err
	}
	if v.Marker {
		return nil, nil, span{}, methodNotAllowed(v)
	}
	if err := c.check(v); err != nil {
		return nil, nil, span{}, err
	}
	sp, err := v.span(rng, partNumber)
	return b, v, sp, err
}

func (s *Service) headObject(ctx context.Context, in *s3.HeadObjectInput) (*s3.HeadObjectOutput, error) {
	b, v, sp, err := s.read(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner, in.Range, in.PartNumber,
		conditions{in.IfMatch, in.IfNoneMatch, in.IfModifiedSince, in.IfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	out := &s3.HeadObjectOutput{AcceptRanges: new("bytes"), LastModified: &v.Modified, ContentLength: &sp.n, ETag: v.quoted(),
		VersionId: shown(b, v), ContentRange: sp.content, PartsCount: sp.parts, ServerSideEncryption: new("AES256"), Metadata: v.Meta,
		StorageClass: ptr.NonZero(v.Class), TagCount: ptr.NonZero(int64(len(v.Tags))), WebsiteRedirectLocation: ptr.NonZero(v.Headers.Redirect),
		CacheControl: override(in.ResponseCacheControl, v.Headers.Cache), ContentDisposition: override(in.ResponseContentDisposition, v.Headers.Disposition),
		ContentEncoding: override(in.ResponseContentEncoding, v.Headers.Encoding), ContentLanguage: override(in.ResponseContentLanguage, v.Headers.Language),
		ContentType: override(in.ResponseContentType, v.Headers.mediaType()), Expires: override(httpTime(in.ResponseExpires), v.Headers.Expires)}
	if sums := v.shownSums(in.ChecksumMode, sp); sums != nil {
		out.ChecksumType = &v.ChecksumType
		out.ChecksumCRC32, out.ChecksumCRC32C, out.ChecksumCRC64NVME = sumOf(sums, "CRC32"), sumOf(sums, "CRC32C"), sumOf(sums, "CRC64NVME")
		out.ChecksumSHA1, out.ChecksumSHA256 = sumOf(sums, "SHA1"), sumOf(sums, "SHA256")
	}
	return out, nil
}

func (s *Service) getAttributes(ctx context.Context, in *s3.GetObjectAttributesInput) (*s3.GetObjectAttributesOutput, error) {
	b, v, _, err := s.read(ctx, in.Bucket, in.Key, in.VersionId, in.ExpectedBucketOwner, nil, nil, conditions{})
	if err != nil {
		return nil, err
	}
	out := &s3.GetObjectAttributesOutput{LastModified: &v.Modified, VersionId: shown(b, v)}
	for _, a := range in.ObjectAttributes {
		switch a {
		case "ETag":
			out.ETag = &v.ETag
		case "ObjectSize":
			out.ObjectSize = &v.Size
		case "StorageClass":
			out.StorageClass = v.class()
		case "Checksum":
			if v.ChecksumType != "" {
				out.Checksum = &s3.Checksum{ChecksumType: &v.ChecksumType, ChecksumCRC32: sumOf(v.Checksums, "CRC32"), ChecksumCRC32C: sumOf(v.Checksums, "CRC32C"),
					ChecksumCRC64NVME: sumOf(v.Checksums, "CRC64NVME"), ChecksumSHA1: sumOf(v.Checksums, "SHA1"), ChecksumSHA256: sumOf(v.Checksums, "SHA256")}
			}
		case "ObjectParts":
			if len(v.Parts) > 0 {
				out.ObjectParts = v.attributeParts(ptr.Value(in.PartNumberMarker), in.MaxParts)
			}
		default:
			return nil, invalidArgument("object-attributes", a, "Invalid attribute name specified.")
		}
	}
	return out, nil
}

func (v *version) attributeParts(marker int64, max *int64) *s3.GetObjectAttributesParts {
	n := int64(1000)
	if max != nil {
		n = *max
	}
	out := &s3.GetObjectAttributesParts{TotalPartsCount: new(int64(len(v.Parts))), PartNumberMarker: &marker, MaxParts: &n, IsTruncated: new(false)}
	for i, p := range v.Parts {
		number := int64(i + 1)
		if number <= marker {
			continue
		}
		if int64(len(out.Parts)) >= n {
			out.IsTruncated = new(true)
			break
		}
		out.NextPartNumberMarker = &number
		out.Parts = append(out.Parts, s3.ObjectPart{PartNumber: &number, Size: &p.Size, ChecksumCRC32: sumOf(p.Checksums, "CRC32"), ChecksumCRC32C: sumOf(p.Checksums, "CRC32C"),
			ChecksumCRC64NVME: sumOf(p.Checksums, "CRC64NVME"), ChecksumSHA1: sumOf(p.Checksums, "SHA1"), ChecksumSHA256: sumOf(p.Checksums, "SHA256")})
	}
	return out
}
