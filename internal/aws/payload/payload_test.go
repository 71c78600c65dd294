package payload

import (
	"context"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/sigv4"
)

type exampleKey struct{}

func (exampleKey) Lookup(context.Context, string, string) (sigv4.Credential, error) {
	return sigv4.Credential{Secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}, nil
}

// signed verifies the seed signature of a documented example.
func signed(t *testing.T, r *http.Request, headers, signature string) *sigv4.Result {
	t.Helper()
	r.Host = "s3.amazonaws.com"
	r.Header.Set("X-Amz-Date", "20130524T000000Z")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders="+headers+",Signature="+signature)
	s, err := sigv4.Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	res, err := sigv4.Verify(t.Context(), r, s, exampleKey{}, sigv4.Options{S3: true, PayloadHash: s.PayloadHash, Now: time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// chunkedRequest is the example of "Transferring Payload in Multiple Chunks"
// in the S3 API reference: 65 KiB of 'a' in two chunks.
func chunkedRequest(body string) *http.Request {
	r := httptest.NewRequest("PUT", "/examplebucket/chunkObject.txt", strings.NewReader(body))
	for k, v := range map[string]string{"X-Amz-Storage-Class": "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
		"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "66560", "Content-Length": "66824"} {
		r.Header.Set(k, v)
	}
	return r
}

const (
	chunkedHeaders = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class"
	chunkedSeed    = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
)

func chunkedBody(first string) string {
	return "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + first + "\r\n" +
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + strings.Repeat("a", 1024) + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
}

func TestSignedChunks(t *testing.T) {
	full := strings.Repeat("a", 65536)
	for name, tt := range map[string]struct{ body, code string }{
		"as documented":    {chunkedBody(full), ""},
		"a byte changed":   {chunkedBody("b" + full[1:]), "SignatureDoesNotMatch"},
		"cut off":          {chunkedBody(full)[:70000-4000], "IncompleteBody"},
		"without the last": {chunkedBody(full)[:strings.LastIndex(chunkedBody(full), "0;chunk")], "IncompleteBody"},
		"a wrong size":     {strings.Replace(chunkedBody(full), "400;", "3ff;", 1), "InvalidRequest"},
		"not chunks":       {full + full, "InvalidRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			r := chunkedRequest(tt.body)
			b, err := New(r, signed(t, r, chunkedHeaders, chunkedSeed))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(iotest.HalfReader(b))
			if awserr.Code(err) != tt.code {
				t.Fatalf("got %v, want %q", err, tt.code)
			}
			if tt.code == "" && string(got) != strings.Repeat("a", 66560) {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

// The same page's example with a trailing checksum.
func TestSignedTrailer(t *testing.T) {
	body := "10000;chunk-signature=b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2\r\n" + strings.Repeat("a", 65536) + "\r\n" +
		"400;chunk-signature=1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7\r\n" + strings.Repeat("a", 1024) + "\r\n" +
		"0;chunk-signature=2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992\r\n" +
		"x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n"
	for name, tt := range map[string]struct{ body, code string }{
		"as documented":      {body, ""},
		"another checksum":   {strings.Replace(body, "sOO8/Q==", "wdBDMA==", 1), "SignatureDoesNotMatch"},
		"no trailer":         {body[:strings.Index(body, "x-amz-checksum")] + "\r\n", "SignatureDoesNotMatch"},
		"unsigned trailer":   {body[:strings.Index(body, "x-amz-trailer-sig")] + "\r\n", "SignatureDoesNotMatch"},
		"ends in the middle": {body[:strings.Index(body, "x-amz-trailer-sig")], "IncompleteBody"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("PUT", "/examplebucket/chunkObject.txt", strings.NewReader(tt.body))
			for k, v := range map[string]string{"X-Amz-Storage-Class": "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
				"Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "66560", "X-Amz-Trailer": "x-amz-checksum-crc32c"} {
				r.Header.Set(k, v)
			}
			res := signed(t, r, "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer", "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e")
			b, err := New(r, res)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.ReadAll(b); awserr.Code(err) != tt.code {
				t.Fatalf("got %v, want %q", err, tt.code)
			}
			if algorithm, _ := b.Checksum(); tt.code == "" && algorithm != "CRC32C" {
				t.Errorf("checksum %q", algorithm)
			}
		})
	}
}

func TestClaims(t *testing.T) {
	const data = "hello"
	crc := base64.StdEncoding.EncodeToString(func() []byte { h := crc32.NewIEEE(); h.Write([]byte(data)); return h.Sum(nil) }())
	sum := md5.Sum([]byte(data))
	md := base64.StdEncoding.EncodeToString(sum[:])
	unsigned := func(trailer string) string { return fmt.Sprintf("5\r\nhello\r\n0\r\n%s\r\n\r\n", trailer) }
	streaming := map[string]string{"X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "X-Amz-Decoded-Content-Length": "5", "X-Amz-Trailer": "x-amz-checksum-crc32"}
	for name, tt := range map[string]struct {
		body    string
		headers map[string]string
		code    string
	}{
		"nothing said":       {data, nil, ""},
		"content hash":       {data, map[string]string{"X-Amz-Content-Sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}, ""},
		"wrong hash":         {"hellO", map[string]string{"X-Amz-Content-Sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}, "XAmzContentSHA256Mismatch"},
		"no hash at all":     {data, map[string]string{"X-Amz-Content-Sha256": "x"}, "InvalidArgument"},
		"md5":                {data, map[string]string{"Content-Md5": md}, ""},
		"wrong md5":          {"hellO", map[string]string{"Content-Md5": md}, "BadDigest"},
		"no md5":             {data, map[string]string{"Content-Md5": "eA=="}, "InvalidDigest"},
		"crc32":              {data, map[string]string{"X-Amz-Checksum-Crc32": crc}, ""},
		"wrong crc32":        {"hellO", map[string]string{"X-Amz-Checksum-Crc32": crc}, "BadDigest"},
		"no crc32":           {data, map[string]string{"X-Amz-Checksum-Crc32": "eA=="}, "InvalidRequest"},
		"trailer":            {unsigned("x-amz-checksum-crc32:" + crc), streaming, ""},
		"wrong trailer":      {unsigned("x-amz-checksum-crc32:AAAAAA=="), streaming, "BadDigest"},
		"trailer not there":  {unsigned("x-other:1"), streaming, "InvalidRequest"},
		"shorter than said":  {"4\r\nhell\r\n0\r\nx-amz-checksum-crc32:" + crc + "\r\n\r\n", streaming, "IncompleteBody"},
		"longer than said":   {"6\r\nhello!\r\n0\r\nx-amz-checksum-crc32:" + crc + "\r\n\r\n", streaming, "InvalidRequest"},
		"negative chunk":     {"-5\r\nhello\r\n", streaming, "InvalidRequest"},
		"endless chunk line": {strings.Repeat("0", 1<<20), streaming, "InvalidRequest"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("PUT", "/b/k", strings.NewReader(tt.body))
			for k, v := range tt.headers {
				r.Header.Set(k, v)
			}
			b, err := New(r, nil)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(b)
			}
			if awserr.Code(err) != tt.code || tt.code == "" && (err != nil || string(got) != data) {
				t.Errorf("got %q, %v, want %q", got, err, tt.code)
			}
		})
	}
}

func TestChecksumAlgorithms(t *testing.T) {
	// Check values of the CRC catalogue for "123456789", and FIPS 180's "abc".
	for _, tt := range []struct{ name, in, want string }{
		{"CRC32", "123456789", "cbf43926"}, {"CRC32C", "123456789", "e3069283"}, {"CRC64NVME", "123456789", "ae8b14860a799888"},
		{"SHA1", "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
	} {
		h := NewHash(tt.name)
		io.WriteString(h, tt.in)
		if got := fmt.Sprintf("%x", h.Sum(nil)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func FuzzChunked(f *testing.F) {
	f.Add([]byte("5\r\nhello\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"))
	f.Add([]byte("5;chunk-signature=00\r\nhello\r\n0;chunk-signature=00\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newChunked(strings.NewReader(string(in)), nil, false, true)
		n, err := io.Copy(io.Discard, c)
		if n > int64(len(in)) || err == nil && n == int64(len(in)) && n > 0 {
			t.Errorf("%d bytes out of %d", n, len(in))
		}
	})
}
