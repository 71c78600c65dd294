package s3

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/payload"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

// assemble checks the list of parts that completes an upload, and makes the
// object of them.
func (u *upload) assemble(have map[int64]part, list []s3.CompletedPart) (*version, error) {
	if len(list) == 0 {
		return nil, malformedXML()
	}
	for i := 1; i < len(list); i++ {
		if ptr.Value(list[i].PartNumber) <= ptr.Value(list[i-1].PartNumber) {
			return nil, awserr.New("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number.").WithStatus(400).WithField("UploadId", u.Upload)
		}
	}
	v := u.version
	sum := md5.New()
	for i, c := range list {
		number := ptr.Value(c.PartNumber)
		p, ok := have[number]
		bad := !ok || strings.Trim(ptr.Value(c.ETag), `"`) != p.ETag
		for a, claim := range map[string]*string{"CRC32": c.ChecksumCRC32, "CRC32C": c.ChecksumCRC32C, "CRC64NVME": c.ChecksumCRC64NVME, "SHA1": c.ChecksumSHA1, "SHA256": c.ChecksumSHA256} {
			bad = bad || claim != nil && p.Checksums[a] != *claim
		}
		if bad {
			return nil, awserr.New("InvalidPart", "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.").WithStatus(400).
				WithField("UploadId", u.Upload).WithField("PartNumber", number).WithField("ETag", strings.Trim(ptr.Value(c.ETag), `"`))
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
		ChecksumCRC64NVME: sumOf(v.Checksums, "CRC64NVME"), ChecksumSHA1: sumOf(v.Checksums, "SHA1"), ChecksumSHA256: sumOf(v.Checksums, "SHA256"), ChecksumType: ptr.NonZero(v.ChecksumType)}, nil
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
