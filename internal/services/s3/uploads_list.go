package s3

import (
	"context"
	"sort"
	"strings"

	"slipway/internal/api/s3"
	"slipway/internal/aws/ptr"
	"slipway/internal/store"
)

func (s *Service) listParts(ctx context.Context, in *s3.ListPartsInput) (*s3.ListPartsOutput, error) {
	max, err := pageSize(in.MaxParts, "max-parts")
	if err != nil {
		return nil, err
	}
	marker := ptr.Value(in.PartNumberMarker)
	out := &s3.ListPartsOutput{Bucket: in.Bucket, Key: in.Key, UploadId: in.UploadId, PartNumberMarker: &marker, MaxParts: new(int64(max)), IsTruncated: new(false), NextPartNumberMarker: new(int64(0))}
	err = s.Store.View(ctx, func(r store.Reader) error {
		b, u, err := uploadIn(ctx, r, in.Bucket, in.Key, in.UploadId, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		out.Owner, out.Initiator = owner(b.Account), &s3.Initiator{ID: owner(b.Account).ID}
		out.StorageClass, out.ChecksumAlgorithm, out.ChecksumType = u.Doc.class(), ptr.NonZero(u.Doc.Algorithm), ptr.NonZero(u.Doc.SumType)
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
	out := &s3.ListMultipartUploadsOutput{Bucket: in.Bucket, KeyMarker: enc(ptr.Value(in.KeyMarker)), UploadIdMarker: new(ptr.Value(in.UploadIdMarker)), Prefix: enc(ptr.Value(in.Prefix)),
		Delimiter: in.Delimiter, EncodingType: in.EncodingType, MaxUploads: new(int64(max)), IsTruncated: new(false)}
	lastCommon := ""
	for _, row := range rows {
		u := &row.Doc
		km := ptr.Value(in.KeyMarker)
		if !strings.HasPrefix(u.Key, ptr.Value(in.Prefix)) || u.Key < km || u.Key == km && km != "" && (ptr.Value(in.UploadIdMarker) == "" || u.Upload <= *in.UploadIdMarker) {
			continue
		}
		cp := roll(u.Key, ptr.Value(in.Prefix), ptr.Value(in.Delimiter))
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
			Owner: owner(b.Doc.Account), Initiator: &s3.Initiator{ID: owner(b.Doc.Account).ID}, ChecksumAlgorithm: ptr.NonZero(u.Algorithm), ChecksumType: ptr.NonZero(u.SumType)})
		out.NextKeyMarker, out.NextUploadIdMarker = enc(u.Key), &u.Upload
	}
	return out, nil
}
