package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/payload"
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
	row, err := uploads.Get(r, b.Doc.Account, b.Doc.Region, deref(id))
	if errors.Is(err, store.ErrNotFound) || err == nil && (row.Doc.Bucket != b.Doc.Name || row.Doc.Key != deref(key)) {
		return nil, nil, noUpload(deref(id))
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
	u := upload{Upload: hex.EncodeToString([]byte(randomText(8))) + randomText(80), Initiated: s.now(), Algorithm: strings.ToUpper(deref(in.ChecksumAlgorithm)),
		version: version{Bucket: b.Doc.Name, Key: deref(in.Key), Meta: in.Metadata,
			Headers: headers{deref(in.ContentType), deref(in.ContentEncoding), deref(in.ContentLanguage), deref(in.ContentDisposition), deref(in.CacheControl), deref(in.Expires), deref(in.WebsiteRedirectLocation)}}}
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
		ChecksumAlgorithm: opt(u.Algorithm), ChecksumType: opt(u.SumType)}, err
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
	if err := checkPartNumber(deref(in.PartNumber)); err != nil {
		return nil, err
	}
	algorithm := in.ChecksumAlgorithm
	err := s.Store.View(ctx, func(r store.Reader) error {
		_, u, err := uploadIn(ctx, r, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner)
		if err == nil && algorithm == nil {
			algorithm = opt(u.Doc.Algorithm)
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
	if err := checkPartNumber(deref(in.PartNumber)); err != nil {
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
			algorithm = opt(u.Doc.Algorithm)
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

// assemble checks the list of parts that completes an upload, and makes the
// object of them.
func (u *upload) assemble(have map[int64]part, list []s3.CompletedPart) (*version, error) {
	if len(list) == 0 {
		return nil, malformedXML()
	}
	for i := 1; i < len(list); i++ {
		if deref(list[i].PartNumber) <= deref(list[i-1].PartNumber) {
			return nil, awserr.New("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.").WithStatus(400).WithField("UploadId", u.Upload)
		}
	}
	v := u.version
	sum := md5.New()
	for i, c := range list {
		number := deref(c.PartNumber)
		p, ok := have[number]
		bad := !ok || strings.Trim(deref(c.ETag), `"`) != p.ETag
		for a, claim := range map[string]*string{"CRC32": c.ChecksumCRC32, "CRC32C": c.ChecksumCRC32C, "CRC64NVME": c.ChecksumCRC64NVME, "SHA1": c.ChecksumSHA1, "SHA256": c.ChecksumSHA256} {
			bad = bad || claim != nil && p.Checksums[a] != *claim
		}
		if bad {
			return nil, awserr.New("InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.").WithStatus(400).
				WithField("UploadId", u.Upload).WithField("PartNumber", number).WithField("ETag", strings.Trim(deref(c.ETag), `"`))
		}
		if p.Size < minPart && i < len(list)-1 {
			return nil, awserr.New("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size").WithStatus(400).
				WithField("ProposedSize", p.Size).WithField("MinSizeAllowed", int64(minPart)).WithField("PartNumber", number).WithField("ETag", p.ETag)
		}
		raw, err := hex.DecodeString(p.ETag)
		if err != nil {
			return nil, fmt.Errorf("s3: part %d of %s: %w", number, u.Upload, err)
		}
		sum.Write(raw)
		v.Blobs = append(v.Blobs, p.Blob)
		v.Size += p.Size
		v.Parts = append(v.Parts, part{Number: number, Size: p.Size, ETag: p.ETag, Modified: p.Modified, Checksums: p.Checksums})
	}
	v.ETag = fmt.Sprintf("%s-%d", hex.EncodeToString(sum.Sum(nil)), len(list))
	return &v, u.composite(&v)
}

// composite is the checksum of the parts' checksums.
func (u *upload) composite(v *version) error {
	if u.SumType != "COMPOSITE" {
		return nil
	}
	h := payload.NewHash(u.Algorithm)
	for _, p := range v.Parts {
		raw, err := base64.StdEncoding.DecodeString(p.Checksums[u.Algorithm])
		if err != nil || len(raw) == 0 {
			return awserr.New("InvalidRequest", "The upload was created using a %s checksum. The complete request must include the checksum for each part. It was missing for part %d in the request.", strings.ToLower(u.Algorithm), p.Number).WithStatus(400).WithCause(err)
		}
		h.Write(raw)
	}
	v.Checksums = map[string]string{u.Algorithm: fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(h.Sum(nil)), len(v.Parts))}
	v.ChecksumType = u.SumType
	return nil
}

func (s *Service) completeUpload(ctx context.Context, in *s3.CompleteMultipartUploadInput) (*s3.CompleteMultipartUploadOutput, error) {
	if in.MultipartUpload == nil {
		return nil, malformedXML()
	}
	v, err := s.prepare(ctx, in)
	if err != nil {
		return nil, err
	}
	want := map[string]*string{"CRC32": in.ChecksumCRC32, "CRC32C": in.ChecksumCRC32C, "CRC64NVME": in.ChecksumCRC64NVME, "SHA1": in.ChecksumSHA1, "SHA256": in.ChecksumSHA256}
	for a, claim := range want {
		if claim != nil && v.Checksums[a] != "" && v.Checksums[a] != *claim && strings.Split(v.Checksums[a], "-")[0] != *claim {
			return nil, awserr.New("BadDigest", "The %s you specified did not match the calculated checksum.", a).WithStatus(400)
		}
	}
	if in.MpuObjectSize != nil && *in.MpuObjectSize != v.Size {
		return nil, awserr.New("InvalidRequest", "The provided 'x-amz-mp-object-size' header value %d does not match what was computed: %d.", *in.MpuObjectSize, v.Size).WithStatus(400)
	}
	keep := map[int64]bool{}
	for _, p := range v.Parts {
		keep[p.Number] = true
	}
	var b *bucket
	var freed []string
	v.Modified = s.now()
	err = s.Store.Update(ctx, func(tx store.Tx) error {
		var u *store.Row[upload]
		var err error
		if b, u, err = uploadIn(ctx, tx, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner); err != nil {
			return err
		}
		if err := writable(tx, b, v.Key, in.IfMatch, in.IfNoneMatch); err != nil {
			return err
		}
		for _, p := range v.Parts { // a part that was replaced meanwhile took its blob along
			row, err := parts.Get(tx, u.Account, u.Region, partRowID(u.ID, p.Number))
			if err != nil || row.Doc.ETag != p.ETag {
				return awserr.New("InvalidPart", "One or more of the specified parts could not be found.").WithStatus(400).WithCause(err)
			}
		}
		dropped, err := s.dropUpload(tx, u, keep)
		if err != nil {
			return err
		}
		freed, err = s.put(tx, b, v)
		freed = append(freed, dropped...)
		return err
	})
	if err != nil {
		return nil, disk(err)
	}
	s.release(freed)
	return &s3.CompleteMultipartUploadOutput{Location: new("/" + v.Bucket + "/" + v.Key), Bucket: in.Bucket, Key: in.Key, ETag: v.quoted(), VersionId: shown(b, v),
		ServerSideEncryption: new("AES256"), ChecksumCRC32: sumOf(v.Checksums, "CRC32"), ChecksumCRC32C: sumOf(v.Checksums, "CRC32C"),
		ChecksumCRC64NVME: sumOf(v.Checksums, "CRC64NVME"), ChecksumSHA1: sumOf(v.Checksums, "SHA1"), ChecksumSHA256: sumOf(v.Checksums, "SHA256"), ChecksumType: opt(v.ChecksumType)}, nil
}

// prepare makes the object of the parts, with its full checksum where that
// needs all bytes read once.
func (s *Service) prepare(ctx context.Context, in *s3.CompleteMultipartUploadInput) (*version, error) {
	var u *store.Row[upload]
	have := map[int64]part{}
	err := s.Store.View(ctx, func(r store.Reader) (err error) {
		if _, u, err = uploadIn(ctx, r, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner); err != nil {
			return err
		}
		rows, err := parts.List(r, store.Query{Account: u.Account, Region: u.Region, Parent: u.ID})
		for _, p := range rows {
			have[p.Doc.Number] = p.Doc.part
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	v, err := u.Doc.assemble(have, in.MultipartUpload.Parts)
	if err != nil {
		return nil, err
	}
	algorithm := u.Doc.Algorithm
	if algorithm == "" && u.Doc.SumType == "" {
		algorithm = "CRC64NVME"
	} else if u.Doc.SumType != "FULL_OBJECT" {
		return v, nil
	}
	body, err := s.open(v, 0, v.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	sum, err := hashAll(ctx, body, algorithm)
	v.Checksums, v.ChecksumType = map[string]string{algorithm: sum}, "FULL_OBJECT"
	return v, err
}

func (s *Service) listParts(ctx context.Context, in *s3.ListPartsInput) (*s3.ListPartsOutput, error) {
	max, err := pageSize(in.MaxParts, "max-parts")
	if err != nil {
		return nil, err
	}
	marker := deref(in.PartNumberMarker)
	out := &s3.ListPartsOutput{Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, PartNumberMarker: &marker, MaxParts: new(int64(max)), IsTruncated: new(false), NextPartNumberMarker: new(int64(0))}
	err = s.Store.View(ctx, func(r store.Reader) error {
		b, u, err := uploadIn(ctx, r, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		out.Owner, out.Initiator = owner(b.Account), &s3.Initiator{ID: owner(b.Account).ID}
		out.StorageClass, out.ChecksumAlgorithm, out.ChecksumType = u.Doc.class(), opt(u.Doc.Algorithm), opt(u.Doc.SumType)
		rows, err := parts.List(r, store.Query{Account: u.Account, Region: u.Region, Parent: u.ID, After: partRowID(u.ID, marker), Limit: max + 1})
		for i, row := range rows {
			if i == max {
				out.IsTruncated = new(true)
				break
			}
			p := &row.Doc
			out.NextPartNumberMarker = &p.Number
			out.Parts = append(out.Parts, s3.Part{PartNumber: &p.Number, LastModified: &p.Modified, ETag: new(`"` + p.ETag + `"`), Size: &p.Size,
				ChecksumCRC32: sumOf(p.Checksums, "CRC32"), ChecksumCRC32C: sumOf(p.Checksums, "CRC32C"), ChecksumCRC64NVME: sumOf(p.Checksums, "CRC64NVME"),
				ChecksumSHA1: sumOf(p.Checksums, "SHA1"), ChecksumSHA256: sumOf(p.Checksums, "SHA256")})
		}
		return err
	})
	return out, err
}

func (s *Service) listUploads(ctx context.Context, in *s3.ListMultipartUploadsInput) (*s3.ListMultipartUploadsOutput, error) {
	enc, err := encoder(in.EncodingType)
	if err != nil {
		return nil, err
	}
	max, err := pageSize(in.MaxUploads, "max-uploads")
	if err != nil {
		return nil, err
	}
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	rows, err := uploads.Select(ctx, s.Store, store.Query{Parent: b.Doc.Name})
	if err != nil {
		return nil, err
	}
	sort.SliceStable(rows, func(i, j int) bool {
		x, y := &rows[i].Doc, &rows[j].Doc
		return x.Key < y.Key || x.Key == y.Key && x.Upload < y.Upload
	})
	out := &s3.ListMultipartUploadsOutput{Bucket: in.Bucket, KeyMarker: enc(deref(in.KeyMarker)), UploadIdMarker: new(deref(in.UploadIdMarker)), Prefix: enc(deref(in.Prefix)),
		Delimiter: in.Delimiter, EncodingType: in.EncodingType, MaxUploads: new(int64(max)), IsTruncated: new(false)}
	lastCommon := ""
	for _, row := range rows {
		u := &row.Doc
		km := deref(in.KeyMarker)
		if !strings.HasPrefix(u.Key, deref(in.Prefix)) || u.Key < km || u.Key == km && km != "" && (deref(in.UploadIdMarker) == "" || u.Upload <= *in.UploadIdMarker) {
			continue
		}
		cp := roll(u.Key, deref(in.Prefix), deref(in.Delimiter))
		if cp != "" && (cp == lastCommon || cp <= km) {
			continue
		}
		if len(out.Uploads)+len(out.CommonPrefixes) >= max {
			out.IsTruncated = new(true)
			break
		}
		if cp != "" {
			lastCommon = cp
			out.CommonPrefixes = append(out.CommonPrefixes, s3.CommonPrefix{Prefix: enc(cp)})
			out.NextKeyMarker, out.NextUploadIdMarker = enc(cp), new("")
			continue
		}
		out.Uploads = append(out.Uploads, s3.MultipartUpload{UploadId: &u.Upload, Key: enc(u.Key), Initiated: &u.Initiated, StorageClass: u.class(),
			Owner: owner(b.Doc.Account), Initiator: &s3.Initiator{ID: owner(b.Doc.Account).ID}, ChecksumAlgorithm: opt(u.Algorithm), ChecksumType: opt(u.SumType)})
		out.NextKeyMarker, out.NextUploadIdMarker = enc(u.Key), &u.Upload
	}
	return out, nil
}
