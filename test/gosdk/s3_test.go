package gosdk

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/s3/manager"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// TestS3 is a day with objects: checksums as the SDK makes them by itself
// (CRC32, as a trailer behind a chunked body where that is a stream), uploads
// in parts, presigned URLs, pages, waiters, and exceptions.
func TestS3(t *testing.T) {
	cfg := start(t)
	ctx := t.Context()
	c := s3.NewFromConfig(cfg, func(o *s3.Options) { o.UsePathStyle = true })
	bucket := aws.String("go-sdk")
	_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket})
	ok(t, nil, err)
	ok(t, nil, s3.NewBucketExistsWaiter(c).Wait(ctx, &s3.HeadBucketInput{Bucket: bucket}, soon))

	for _, tc := range []struct {
		name string
		body io.Reader
		alg  types.ChecksumAlgorithm
	}{
		{"plain", strings.NewReader("hello"), ""},
		{"a b/ü+%&=", strings.NewReader("hello"), types.ChecksumAlgorithmSha256},
		{"crc64", strings.NewReader("hello"), types.ChecksumAlgorithmCrc64nvme},
		{"crc32c", strings.NewReader("hello"), types.ChecksumAlgorithmCrc32c},
		{"sha1", strings.NewReader("hello"), types.ChecksumAlgorithmSha1},
	} {
		put := must[*s3.PutObjectOutput](t)(c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: &tc.name, Body: tc.body, ChecksumAlgorithm: tc.alg, Metadata: map[string]string{"who": "me"}, ContentType: aws.String("text/plain")}))
		if tc.alg == "" && aws.ToString(put.ChecksumCRC32) == "" {
			t.Errorf("%s: no CRC32 in the answer", tc.name)
		}
		get := must[*s3.GetObjectOutput](t)(c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: &tc.name, ChecksumMode: types.ChecksumModeEnabled}))
		b, err := io.ReadAll(get.Body) // which verifies the checksum
		if err != nil || string(b) != "hello" || get.Metadata["who"] != "me" || aws.ToString(get.ContentType) != "text/plain" || *get.ETag != fmt.Sprintf(`"%x"`, md5.Sum(b)) {
			t.Errorf("%s: %q, %v, %+v", tc.name, b, err, get)
		}
		head := must[*s3.HeadObjectOutput](t)(c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: &tc.name, ChecksumMode: types.ChecksumModeEnabled}))
		if *head.ContentLength != 5 || head.ChecksumCRC32 == nil && head.ChecksumSHA256 == nil && head.ChecksumCRC64NVME == nil && head.ChecksumCRC32C == nil && head.ChecksumSHA1 == nil {
			t.Errorf("%s: %+v", tc.name, head)
		}
	}
	_, err = c.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("wrong"), Body: strings.NewReader("hello"), ChecksumCRC32: aws.String("AAAAAA==")})
	coded(t, "BadDigest", nil, err)

	// The transfer manager uploads a stream of unknown length in parts, and
	// downloads by ranges.
	big := make([]byte, 12<<20)
	rand.NewChaCha8([32]byte{1}).Read(big)
	up := must[*manager.UploadOutput](t)(manager.NewUploader(c, func(u *manager.Uploader) { u.PartSize = 5 << 20 }).Upload(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("big"), Body: struct{ io.Reader }{bytes.NewReader(big)}}))
	if len(up.CompletedParts) != 3 || !strings.HasSuffix(strings.Trim(*up.ETag, `"`), "-3") || up.ChecksumCRC32 == nil {
		t.Errorf("upload: %+v", up)
	}
	buf := manager.NewWriteAtBuffer(nil)
	if _, err := manager.NewDownloader(c).Download(ctx, buf, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("big")}); err != nil || !bytes.Equal(buf.Bytes(), big) {
		t.Errorf("download: %d bytes, %v", len(buf.Bytes()), err)
	}

	sign := s3.NewPresignClient(c)
	url, err := sign.PresignGetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("a b/ü+%&=")})
	ok(t, nil, err)
	if status, body := fetch(t, url.Method, url.URL, url.SignedHeader, ""); status != 200 || body != "hello" {
		t.Errorf("presigned get: %d %s", status, body)
	}
	if status, body := fetch(t, url.Method, strings.Replace(url.URL, "X-Amz-Expires=900", "X-Amz-Expires=901", 1), nil, ""); status != 403 || !strings.Contains(body, "SignatureDoesNotMatch") {
		t.Errorf("a changed presigned URL: %d %s", status, body)
	}
	url, err = sign.PresignPutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: aws.String("presigned")})
	ok(t, nil, err)
	if status, body := fetch(t, url.Method, url.URL, url.SignedHeader, "by URL"); status != 200 {
		t.Errorf("presigned put: %d %s", status, body)
	}
	ok(t, nil, s3.NewObjectExistsWaiter(c).Wait(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("presigned")}, soon))

	var ids []types.ObjectIdentifier
	n := pages(t, s3.NewListObjectsV2Paginator(c, &s3.ListObjectsV2Input{Bucket: bucket, MaxKeys: aws.Int32(3)}), func(p *s3.ListObjectsV2Output) {
		for _, o := range p.Contents {
			ids = append(ids, types.ObjectIdentifier{Key: o.Key})
		}
	})
	if len(ids) != 7 || n != 3 {
		t.Errorf("%d objects on %d pages", len(ids), n)
	}
	_, err = c.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: aws.String("none")})
	refused[*types.NoSuchKey](t, "an object that is not there", nil, err)
	_, err = c.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: aws.String("none")})
	refused[*types.NotFound](t, "the head of an object that is not there", nil, err)
	_, err = c.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("go-sdk-none")})
	refused[*types.NoSuchBucket](t, "a bucket that is not there", nil, err)
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket})
	coded(t, "BucketNotEmpty", nil, err)
	deleted := must[*s3.DeleteObjectsOutput](t)(c.DeleteObjects(ctx, &s3.DeleteObjectsInput{Bucket: bucket, Delete: &types.Delete{Objects: ids}}))
	if len(deleted.Deleted) != len(ids) || len(deleted.Errors) != 0 {
		t.Errorf("deleted: %+v", deleted)
	}
	_, err = c.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket})
	ok(t, nil, err)
	ok(t, nil, s3.NewBucketNotExistsWaiter(c).Wait(ctx, &s3.HeadBucketInput{Bucket: bucket}, soon))
}

// fetch is a request of somebody who has the URL only.
func fetch(t *testing.T, method, url string, header http.Header, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if k != "Host" && k != "Content-Length" {
			req.Header[k] = v
		}
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}
