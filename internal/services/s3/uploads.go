package s3

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/payload"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// upload is a multipart upload in progress.
type upload struct {
	version   // what the object will be; Bucket and Key
	Upload    string
	Initiated time.Time
	Algorithm string // checksum, "" where none was asked for
	SumType   string // COMPOSITE or FULL_OBJECT
}

type uploadedPart struct {
	part
	Upload string
}

const (
	minPart  = 5 << 20
	maxParts = 10_000
)

func (s *Service) registerUploads(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpCreateMultipartUpload, s.createUpload)
	dispatch.Register(m, s3.OpUploadPart, s.uploadPart)
	dispatch.Register(m, s3.OpUploadPartCopy, s.uploadPartCopy)
	dispatch.Register(m, s3.OpCompleteMultipartUpload, s.completeUpload)
	dispatch.Register(m, s3.OpListParts, s.listParts)
	dispatch.Register(m, s3.OpListMultipartUploads, s.listUploads)
	dispatch.Register(m, s3.OpAbortMultipartUpload, func(ctx context.Context, in *s3.AbortMultipartUploadInput) (*s3.AbortMultipartUploadOutput, error) {
		var freed []string
		err := s.Store.Update(ctx, func(tx store.Tx) error {
			_, u, err := uploadIn(ctx, tx, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner)
			if err != nil {
				return err
			}
			freed, err = s.dropUpload(tx, u, nil)
			return err
		})
		if err == nil {
			s.release(freed)
		}
		return &s3.AbortMultipartUploadOutput{}, err
	})
}

func noUpload(id string) error {
	return awserr.New("NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.").WithStatus(404).WithField("UploadId", id)
}

func uploadIn(ctx context.Context, r store.Reader, name, key, id, owner *string) (*bucket, *store.Row[upload], error) {
	b, err := bucketIn(ctx, r, name, owner)
	if err != nil {
		return nil, nil, err
	}
	row, err := uploads.Get(r, b.Doc.Account, b.Doc.Region, ptr.Value(id))
	if errors.Is(err, store.ErrNotFound) || err == nil && (row.Doc.Bucket != b.Doc.Name || row.Doc.Key != ptr.Value(key)) {
		return nil, nil, noUpload(ptr.Value(id))
	}
	return &b.Doc, row, err
}

func partRowID(upload string, number int64) string { return fmt.Sprintf("%s/%05d", upload, number) }

// dropUpload ends an upload. Parts whose numbers are in keep live on as parts
// of the object; the blobs of the others lose a user.
func (s *Service) dropUpload(tx store.Tx, u *store.Row[upload], keep map[int64]bool) (freed []string, err error) {
	rows, err := parts.List(tx, store.Query{Account: u.Account, Region: u.Region, Parent: u.ID})
	if err != nil {
		return nil, err
	}
	for _, p := range rows {
		if !keep[p.Doc.Number] {
			n, err := tx.Counter(blobRefs(p.Doc.Blob.Hash), -1)
			if err != nil {
				return nil, err
			}
			if n <= 0 {
				freed = append(freed, p.Doc.Blob.Hash)
			}
		}
		if err := parts.Delete(tx, p, "Deleted", nil); err != nil {
			return nil, err
		}
	}
	return freed, uploads.Delete(tx, u, "Deleted", nil)
}

func (s *Service) createUpload(ctx context.Context, in *s3.CreateMultipartUploadInput) (*s3.CreateMultipartUploadOutput, error) {
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	u := upload{Upload: hex.EncodeToString([]byte(randomText(8))) + randomText(80), Initiated: s.now(), Algorithm: strings.ToUpper(ptr.Value(in.ChecksumAlgorithm)),
		version: version{Bucket: b.Doc.Name, Key: ptr.Value(in.Key), Meta: in.Metadata,
			Headers: headers{ptr.Value(in.ContentType), ptr.Value(in.ContentEncoding), ptr.Value(in.ContentLanguage), ptr.Value(in.ContentDisposition), ptr.Value(in.CacheControl), ptr.Value(in.Expires), ptr.Value(in.WebsiteRedirectLocation)}}}
	if u.Class, err = storageClass(in.StorageClass); err != nil {
		return nil, err
	}
	if u.Tags, err = parseTags(in.Tagging); err != nil {
		return nil, err
	}
	for _, err := range []error{checkKey(u.Key), checkMeta(u.Meta), checkACL(in.ACL, nil, b.Doc.Account), refuse(in.SSECustomerAlgorithm, in.ObjectLockMode, in.ObjectLockLegalHoldStatus), u.chooseSum(in.ChecksumType)} {
		if err != nil {
			return nil, err
		}
	}
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		if _, err := bucketIn(ctx, tx, in.Bucket, nil); err != nil {
			return err
		}
		_, err := uploads.Insert(tx, b.Doc.Account, b.Doc.Region, u.Upload, u, "Created", nil)
		return err
	})
	return &s3.CreateMultipartUploadOutput{Bucket: in.Bucket, Key: in.Key, UploadId: &u.Upload, ServerSideEncryption: new("AES256"),
		ChecksumAlgorithm: ptr.NonZero(u.Algorithm), ChecksumType: ptr.NonZero(u.SumType)}, err
}

// chooseSum checks the checksum's type: CRC64NVME is of the full object only,
// SHA1 and SHA256 are composite only, CRC32 and CRC32C composite by default
// ("Checking object integrity" in the S3 user guide).
func (u *upload) chooseSum(asked *string) error {
	if u.Algorithm == "" {
		if asked != nil {
			return awserr.New("InvalidRequest", "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.").WithStatus(400)
		}
		return nil
	}
	if payload.NewHash(u.Algorithm) == nil {
		return awserr.New("InvalidRequest", "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]").WithStatus(400)
	}
	u.SumType = "COMPOSITE"
	if u.Algorithm == "CRC64NVME" {
		u.SumType = "FULL_OBJECT"
	}
	if asked == nil || *asked == u.SumType {
		return nil
	}
	if *asked != "FULL_OBJECT" || !strings.HasPrefix(u.Algorithm, "CRC") {
		return awserr.New("InvalidRequest", "The %s checksum type cannot be used with the %s checksum algorithm.", *asked, strings.ToLower(u.Algorithm)).WithStatus(400)
	}
	u.SumType = *asked
	return nil
}

func checkPartNumber(n int64) error {
	if n < 1 || n > maxParts {
		return invalidArgument("partNumber", strconv.FormatInt(n, 10), "Part number must be an integer between 1 and 10000, inclusive")
	}
	return nil
}

// savePart counts the part's blob and replaces a part of the same number.
func (s *Service) savePart(ctx context.Context, name, key, id *string, p part) error {
	var freed []string
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		freed = nil
		_, u, err := uploadIn(ctx, tx, name, key, id, nil)
		if err != nil {
			return err
		}
		if _, err := tx.Counter(blobRefs(p.Blob.Hash), 1); err != nil {
			return err
		}
		row, err := parts.Get(tx, u.Account, u.Region, partRowID(u.ID, p.Number))
		if errors.Is(err, store.ErrNotFound) {
			_, err = parts.Insert(tx, u.Account, u.Region, partRowID(u.ID, p.Number), uploadedPart{p, u.ID}, "Created", nil)
			return err
		}
		if err != nil {
			return err
		}
		n, err := tx.Counter(blobRefs(row.Doc.Blob.Hash), -1)
		if err != nil {
			return err
		}
		if n <= 0 {
			freed = append(freed, row.Doc.Blob.Hash)
		}
		row.Doc.part = p
		return parts.Save(tx, row, "Replaced", nil)
	})
	if err != nil {
		s.release([]string{p.Blob.Hash})
		return disk(err)
	}
	s.release(freed)
	return nil
}

func (s *Service) uploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	if in.Body != nil {
		defer in.Body.Close()
	}
	if err := checkPartNumber(ptr.Value(in.PartNumber)); err != nil {
		return nil, err
	}
	algorithm := in.ChecksumAlgorithm
	err := s.Store.View(ctx, func(r store.Reader) error {
		_, u, err := uploadIn(ctx, r, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner)
		if err == nil && algorithm == nil {
			algorithm = ptr.NonZero(u.Doc.Algorithm)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	kept, err := s.keep(ctx, in.Body, in.ContentMD5, algorithm, claims{"CRC32": in.ChecksumCRC32, "CRC32C": in.ChecksumCRC32C,
		"CRC64NVME": in.ChecksumCRC64NVME, "SHA1": in.ChecksumSHA1, "SHA256": in.ChecksumSHA256})
	if err != nil {
		return nil, err
	}
	p := part{Number: *in.PartNumber, Size: kept.ref.Size, ETag: kept.etag(), Modified: s.now(), Blob: kept.ref, Checksums: kept.checksums}
	if err := s.savePart(ctx, in.Bucket, in.Key, in.UploadId, p); err != nil {
		return nil, err
	}
	return &s3.UploadPartOutput{ETag: new(`"` + p.ETag + `"`), ServerSideEncryption: new("AES256"), ChecksumCRC32: sumOf(p.Checksums, "CRC32"), ChecksumCRC32C: sumOf(p.Checksums, "CRC32C"),
		ChecksumCRC64NVME: sumOf(p.Checksums, "CRC64NVME"), ChecksumSHA1: sumOf(p.Checksums, "SHA1"), ChecksumSHA256: sumOf(p.Checksums, "SHA256")}, nil
}

func (s *Service) uploadPartCopy(ctx context.Context, in *s3.UploadPartCopyInput) (*s3.UploadPartCopyOutput, error) {
	if err := checkPartNumber(ptr.Value(in.PartNumber)); err != nil {
		return nil, err
	}
	srcBucket, srcKey, srcID, err := copySource(in.CopySource)
	if err != nil {
		return nil, err
	}
	sb, src, err := s.findSource(ctx, srcBucket, srcKey, srcID, in.ExpectedSourceBucketOwner, conditions{match: in.CopySourceIfMatch, noneMatch: in.CopySourceIfNoneMatch,
		modified: in.CopySourceIfModifiedSince, unmodified: in.CopySourceIfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	offset, n := int64(0), src.Size
	if in.CopySourceRange != nil {
		first, last, ok, err := parseRange(*in.CopySourceRange, src.Size)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, invalidArgument("x-amz-copy-source-range", *in.CopySourceRange, "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy")
		}
		offset, n = first, last-first+1
	}
	var algorithm *string
	err = s.Store.View(ctx, func(r store.Reader) error {
		_, u, err := uploadIn(ctx, r, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner)
		if err == nil {
			algorithm = ptr.NonZero(u.Doc.Algorithm)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	body, err := s.open(src, offset, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	kept, err := s.keep(ctx, body, nil, algorithm, nil)
	if err != nil {
		return nil, err
	}
	p := part{Number: *in.PartNumber, Size: kept.ref.Size, ETag: kept.etag(), Modified: s.now(), Blob: kept.ref, Checksums: kept.checksums}
	if err := s.savePart(ctx, in.Bucket, in.Key, in.UploadId, p); err != nil {
		return nil, err
	}
	return &s3.UploadPartCopyOutput{CopySourceVersionId: shown(sb, src), ServerSideEncryption: new("AES256"), CopyPartResult: &s3.CopyPartResult{ETag: new(`"` + p.ETag + `"`), LastModified: &p.Modified,
		ChecksumCRC32: sumOf(p.Checksums, "CRC32"), ChecksumCRC32C: sumOf(p.Checksums, "CRC32C"), ChecksumCRC64NVME: sumOf(p.Checksums, "CRC64NVME"),
		ChecksumSHA1: sumOf(p.Checksums, "SHA1"), ChecksumSHA256: sumOf(p.Checksums, "SHA256")}}, nil
}
