package s3

import (
	"context"
	"net/url"
	"strings"
	"time"

	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/blob"
	"slipway/internal/store"
)

func (s *Service) registerObjects(m *dispatch.Mux) {
	dispatch.Register(m, s3.OpPutObject, s.putObject)
	dispatch.Register(m, s3.OpGetObject, s.getObject)
	dispatch.Register(m, s3.OpHeadObject, s.headObject)
	dispatch.Register(m, s3.OpDeleteObject, s.deleteObject)
	dispatch.Register(m, s3.OpDeleteObjects, s.deleteObjects)
	dispatch.Register(m, s3.OpCopyObject, s.copyObject)
	dispatch.Register(m, s3.OpGetObjectAttributes, s.getAttributes)
}

// now has the milliseconds that S3 gives.
func (s *Service) now() time.Time { return s.Clock.Now().Truncate(time.Millisecond) }

var storageClasses = map[string]bool{"STANDARD": true, "REDUCED_REDUNDANCY": true, "STANDARD_IA": true, "ONEZONE_IA": true,
	"INTELLIGENT_TIERING": true, "GLACIER": true, "DEEP_ARCHIVE": true, "GLACIER_IR": true}

// storageClass stores the name of a class; all are kept on the same disk.
func storageClass(class *string) (string, error) {
	if class == nil || *class == "STANDARD" {
		return "", nil
	}
	if !storageClasses[*class] {
		return "", awserr.New("InvalidStorageClass", "The storage class you specified is not valid").WithStatus(400).WithField("StorageClassRequested", *class)
	}
	return *class, nil
}

// refuse names request members that would change what is stored and are not built.
func refuse(customerKey, lockMode, hold *string) error {
	switch {
	case customerKey != nil:
		return awserr.New("NotImplemented", "Slipway does not implement server-side encryption with customer-provided keys.").WithStatus(501)
	case lockMode != nil || hold != nil:
		return awserr.New("NotImplemented", "Slipway does not implement object lock retention.").WithStatus(501)
	}
	return nil
}

func checkMeta(meta map[string]string) error {
	n := 0
	for k, v := range meta {
		n += len(k) + len(v)
	}
	if n > 2048 {
		return awserr.New("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size").WithStatus(400).WithField("Size", n).WithField("MaxSizeAllowed", 2048)
	}
	return nil
}

// parseTags reads the x-amz-tagging header: "a=b&c=d".
func parseTags(header *string) (map[string]string, error) {
	if header == nil || *header == "" {
		return nil, nil
	}
	q, err := url.ParseQuery(*header)
	if err != nil {
		return nil, invalidArgument("x-amz-tagging", *header, "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
	}
	var tags []s3.Tag
	for k, vs := range q {
		for _, v := range vs {
			tags = append(tags, s3.Tag{Key: &k, Value: &v})
		}
	}
	return objectTags(tags)
}

func objectTags(tags []s3.Tag) (map[string]string, error) {
	if len(tags) > 10 {
		return nil, awserr.New("BadRequest", "Object tags cannot be greater than 10").WithStatus(400)
	}
	return tagMap(tags)
}

func (s *Service) putObject(ctx context.Context, in *s3.PutObjectInput) (*s3.PutObjectOutput, error) {
	if in.Body != nil {
		defer in.Body.Close()
	}
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	v := &version{Bucket: b.Doc.Name, Key: ptr.Value(in.Key), Meta: in.Metadata,
		Headers: headers{ptr.Value(in.ContentType), ptr.Value(in.ContentEncoding), ptr.Value(in.ContentLanguage), ptr.Value(in.ContentDisposition), ptr.Value(in.CacheControl), ptr.Value(in.Expires), ptr.Value(in.WebsiteRedirectLocation)}}
	if v.Class, err = storageClass(in.StorageClass); err != nil {
		return nil, err
	}
	if v.Tags, err = parseTags(in.Tagging); err != nil {
		return nil, err
	}
	for _, err := range []error{checkKey(v.Key), checkMeta(v.Meta), checkACL(in.ACL, nil, b.Doc.Account), refuse(in.SSECustomerAlgorithm, in.ObjectLockMode, in.ObjectLockLegalHoldStatus)} {
		if err != nil {
			return nil, err
		}
	}
	if err := s.Store.View(ctx, func(r store.Reader) error { return writable(r, &b.Doc, v.Key, in.IfMatch, in.IfNoneMatch) }); err != nil {
		return nil, err
	}
	kept, err := s.keep(ctx, in.Body, in.ContentMD5, in.ChecksumAlgorithm, claims{"CRC32": in.ChecksumCRC32, "CRC32C": in.ChecksumCRC32C,
		"CRC64NVME": in.ChecksumCRC64NVME, "SHA1": in.ChecksumSHA1, "SHA256": in.ChecksumSHA256})
	if err != nil {
		return nil, err
	}
	v.Blobs, v.Size, v.ETag = []blob.Ref{kept.ref}, kept.ref.Size, kept.etag()
	v.Checksums, v.ChecksumType = kept.checksums, "FULL_OBJECT"
	stored, err := s.commit(ctx, in.Bucket, v, in.IfMatch, in.IfNoneMatch)
	if err != nil {
		s.release([]string{kept.ref.Hash})
		return nil, err
	}
	out := &s3.PutObjectOutput{ETag: v.quoted(), VersionId: shown(stored, v), ServerSideEncryption: new("AES256"),
		ChecksumCRC32: sumOf(v.Checksums, "CRC32"), ChecksumCRC32C: sumOf(v.Checksums, "CRC32C"), ChecksumCRC64NVME: sumOf(v.Checksums, "CRC64NVME"),
		ChecksumSHA1: sumOf(v.Checksums, "SHA1"), ChecksumSHA256: sumOf(v.Checksums, "SHA256"), ChecksumType: &v.ChecksumType}
	return out, nil
}

func sumOf(m map[string]string, algorithm string) *string { return ptr.NonZero(m[algorithm]) }

// shown is the version id that a response names: none while versioning was
// never on.
func shown(b *bucket, v *version) *string {
	if b.Versioning == "" {
		return nil
	}
	return &v.ID
}

// writable checks the conditions of a write: If-None-Match knows only "*".
func writable(r store.Reader, b *bucket, key string, ifMatch, ifNoneMatch *string) error {
	if ifMatch == nil && ifNoneMatch == nil {
		return nil
	}
	if ifNoneMatch != nil && strings.TrimSpace(*ifNoneMatch) != "*" {
		return awserr.New("NotImplemented", "A header you provided implies functionality that is not implemented").WithStatus(501).WithField("Header", "If-None-Match")
	}
	cur, err := current(r, b, key)
	if err != nil {
		return err
	}
	exists := cur != nil && !cur.Doc.Marker
	switch {
	case ifNoneMatch != nil && exists:
		return precondition("If-None-Match")
	case ifMatch != nil && !exists:
		return noKey(key)
	case ifMatch != nil && !matches(*ifMatch, cur.Doc.ETag):
		return precondition("If-Match")
	}
	return nil
}

// commit makes v durable as the newest version of its key.
func (s *Service) commit(ctx context.Context, name *string, v *version, ifMatch, ifNoneMatch *string) (*bucket, error) {
	var freed []string
	var b *bucket
	v.Modified = s.now()
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := bucketIn(ctx, tx, name, nil)
		if err != nil {
			return err
		}
		b = &row.Doc
		if err := writable(tx, b, v.Key, ifMatch, ifNoneMatch); err != nil {
			return err
		}
		if _, err := count(tx, v.Blobs, 1); err != nil {
			return err
		}
		freed, err = s.put(tx, b, v)
		return err
	})
	if err != nil {
		return nil, disk(err)
	}
	s.release(freed)
	return b, nil
}

func (s *Service) deleteObject(ctx context.Context, in *s3.DeleteObjectInput) (*s3.DeleteObjectOutput, error) {
	if err := checkKey(ptr.Value(in.Key)); err != nil {
		return nil, err
	}
	var d deleted
	var b *bucket
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		row, err := bucketIn(ctx, tx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		b = &row.Doc
		if in.IfMatch != nil {
			if err := writable(tx, b, *in.Key, in.IfMatch, nil); err != nil {
				return err
			}
		}
		d, err = s.remove(tx, b, *in.Key, ptr.Value(in.VersionId))
		return err
	})
	if err != nil {
		return nil, disk(err)
	}
	s.release(d.freed)
	out := &s3.DeleteObjectOutput{VersionId: ptr.NonZero(d.id)}
	if d.marker {
		out.DeleteMarker = new(true)
	}
	return out, nil
}

func (s *Service) deleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (*s3.DeleteObjectsOutput, error) {
	if in.Delete == nil || len(in.Delete.Objects) == 0 || len(in.Delete.Objects) > 1000 {
		return nil, malformedXML()
	}
	if _, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner); err != nil {
		return nil, err
	}
	var out *s3.DeleteObjectsOutput
	var freed []string
	err := s.Store.Update(ctx, func(tx store.Tx) error {
		out, freed = &s3.DeleteObjectsOutput{}, nil
		row, err := bucketIn(ctx, tx, in.Bucket, in.ExpectedBucketOwner)
		if err != nil {
			return err
		}
		for _, o := range in.Delete.Objects {
			if err := s.deleteOne(tx, &row.Doc, o, ptr.Value(in.Delete.Quiet), out, &freed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, disk(err)
	}
	s.release(freed)
	return out, nil
}

// deleteOne deletes one key of many. What is wrong with the key goes into
// out; an error ends the whole call.
func (s *Service) deleteOne(tx store.Tx, b *bucket, o s3.ObjectIdentifier, quiet bool, out *s3.DeleteObjectsOutput, freed *[]string) error {
	key := ptr.Value(o.Key)
	err := checkKey(key)
	if err == nil && o.ETag != nil {
		err = writable(tx, b, key, o.ETag, nil)
	}
	if ae := awserr.As(err); ae != nil {
		out.Errors = append(out.Errors, s3.Error{Key: o.Key, VersionId: o.VersionId, Code: &ae.Code, Message: &ae.Message})
		return nil
	}
	if err != nil {
		return err
	}
	d, err := s.remove(tx, b, key, ptr.Value(o.VersionId))
	if err != nil {
		return err
	}
	*freed = append(*freed, d.freed...)
	if quiet {
		return nil
	}
	del := s3.DeletedObject{Key: o.Key, VersionId: o.VersionId}
	if d.marker {
		del.DeleteMarker, del.DeleteMarkerVersionId = new(true), ptr.NonZero(d.id)
	}
	out.Deleted = append(out.Deleted, del)
	return nil
}

// copySource reads "/bucket/key?versionId=..." as CopyObject's header has it.
func copySource(header *string) (bucket, key string, id *string, err error) {
	src := strings.TrimPrefix(ptr.Value(header), "/")
	if i := strings.LastIndex(src, "?versionId="); i >= 0 {
		id, src = new(src[i+len("?versionId="):]), src[:i]
	}
	plain, uerr := url.PathUnescape(src)
	bucket, key, ok := strings.Cut(plain, "/")
	if uerr != nil || !ok || bucket == "" || key == "" {
		return "", "", nil, invalidArgument("x-amz-copy-source", ptr.Value(header), "Copy Source must mention the source bucket and key: sourcebucket/sourcekey")
	}
	return bucket, key, id, nil
}

func (s *Service) copyObject(ctx context.Context, in *s3.CopyObjectInput) (*s3.CopyObjectOutput, error) {
	srcBucket, srcKey, srcID, err := copySource(in.CopySource)
	if err != nil {
		return nil, err
	}
	sb, src, err := s.findSource(ctx, srcBucket, srcKey, srcID, in.ExpectedSourceBucketOwner, conditions{match: in.CopySourceIfMatch, noneMatch: in.CopySourceIfNoneMatch,
		modified: in.CopySourceIfModifiedSince, unmodified: in.CopySourceIfUnmodifiedSince})
	if err != nil {
		return nil, err
	}
	b, err := s.bucket(ctx, in.Bucket, in.ExpectedBucketOwner)
	if err != nil {
		return nil, err
	}
	v := *src
	v.Bucket, v.Key, v.Older, v.Parts = b.Doc.Name, ptr.Value(in.Key), false, nil
	if err := s.applyDirectives(&v, in, b.Doc.Account); err != nil {
		return nil, err
	}
	if sb.Name == v.Bucket && srcKey == v.Key && srcID == nil && ptr.Value(in.MetadataDirective) != "REPLACE" && in.StorageClass == nil && in.WebsiteRedirectLocation == nil && ptr.Value(in.TaggingDirective) != "REPLACE" {
		return nil, awserr.New("InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself without changing the object's metadata, storage class, website redirect location or encryption attributes.").WithStatus(400)
	}
	if len(src.Parts) > 0 { // a copy is one object: its ETag is the MD5 of its bytes
		if err := s.flatten(ctx, &v, src, in.ChecksumAlgorithm); err != nil {
			return nil, err
		}
	}
	srcShown := shown(sb, src)
	// Blobs without users stay for the grace period, so that none of src's can
	// go between the reading of its row above and their counting here.
	stored, err := s.commit(ctx, in.Bucket, &v, in.IfMatch, in.IfNoneMatch)
	if err != nil {
		if len(src.Parts) > 0 {
			s.release([]string{v.Blobs[0].Hash})
		}
		return nil, err
	}
	return &s3.CopyObjectOutput{CopySourceVersionId: srcShown, VersionId: shown(stored, &v), ServerSideEncryption: new("AES256"),
		CopyObjectResult: &s3.CopyObjectResult{ETag: v.quoted(), LastModified: &v.Modified, ChecksumCRC32: sumOf(v.Checksums, "CRC32"),
			ChecksumCRC32C: sumOf(v.Checksums, "CRC32C"), ChecksumCRC64NVME: sumOf(v.Checksums, "CRC64NVME"), ChecksumSHA1: sumOf(v.Checksums, "SHA1"),
			ChecksumSHA256: sumOf(v.Checksums, "SHA256"), ChecksumType: ptr.NonZero(v.ChecksumType)}}, nil
}

// flatten reads the parts of src into one blob.
func (s *Service) flatten(ctx context.Context, v, src *version, algorithm *string) error {
	r, err := s.open(src, 0, src.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	kept, err := s.keep(ctx, r, nil, algorithm, nil)
	if err != nil {
		return err
	}
	v.Blobs, v.ETag, v.Checksums, v.ChecksumType = []blob.Ref{kept.ref}, kept.etag(), kept.checksums, "FULL_OBJECT"
	return nil
}

func (s *Service) applyDirectives(v *version, in *s3.CopyObjectInput, account string) (err error) {
	if ptr.Value(in.MetadataDirective) == "REPLACE" {
		v.Meta = in.Metadata
		v.Headers = headers{ptr.Value(in.ContentType), ptr.Value(in.ContentEncoding), ptr.Value(in.ContentLanguage), ptr.Value(in.ContentDisposition), ptr.Value(in.CacheControl), ptr.Value(in.Expires), ""}
	}
	v.Headers.Redirect = ptr.Value(in.WebsiteRedirectLocation)
	if ptr.Value(in.TaggingDirective) == "REPLACE" {
		if v.Tags, err = parseTags(in.Tagging); err != nil {
			return err
		}
	}
	if v.Class, err = storageClass(in.StorageClass); err != nil {
		return err
	}
	for _, err := range []error{checkKey(v.Key), checkMeta(v.Meta), checkACL(in.ACL, nil, account), refuse(in.SSECustomerAlgorithm, in.ObjectLockMode, in.ObjectLockLegalHoldStatus)} {
		if err != nil {
			return err
		}
	}
	return nil
}
