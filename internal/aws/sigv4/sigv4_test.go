package sigv4

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The key pair of the examples in AWS's documentation.
const (
	exampleID     = "AKIAIOSFODNN7EXAMPLE"
	exampleSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

type oneKey struct{ token string }

func (k oneKey) Lookup(_ context.Context, id, token string) (Credential, error) {
	switch {
	case id != exampleID:
		return Credential{}, ErrUnknownKey
	case token != k.token:
		return Credential{}, ErrInvalidToken
	}
	return Credential{Secret: exampleSecret, Account: "123456789012"}, nil
}

var exampleTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)

func request(method, target, host string, headers map[string]string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	return r
}

// The examples of "Authenticating Requests: Using the Authorization Header"
// and "Using Query Parameters" in the S3 API reference.
func TestDocumentedExamples(t *testing.T) {
	const cred = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"
	auth := func(signed, sig string) string {
		return "AWS4-HMAC-SHA256 Credential=" + cred + ",SignedHeaders=" + signed + ",Signature=" + sig
	}
	const host = "examplebucket.s3.amazonaws.com"
	for name, r := range map[string]*http.Request{
		"get with a range": request("GET", "/test.txt", host, map[string]string{"Range": "bytes=0-9",
			"X-Amz-Content-Sha256": emptyHash, "X-Amz-Date": "20130524T000000Z",
			"Authorization": auth("host;range;x-amz-content-sha256;x-amz-date", "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")}),
		"put": request("PUT", "/test%24file.text", host, map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT",
			"X-Amz-Content-Sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "X-Amz-Date": "20130524T000000Z", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY",
			"Authorization": auth("date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class", "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd")}),
		"get lifecycle": request("GET", "/?lifecycle", host, map[string]string{"X-Amz-Content-Sha256": emptyHash, "X-Amz-Date": "20130524T000000Z",
			"Authorization": auth("host;x-amz-content-sha256;x-amz-date", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")}),
		"list": request("GET", "/?max-keys=2&prefix=J", host, map[string]string{"X-Amz-Content-Sha256": emptyHash, "X-Amz-Date": "20130524T000000Z",
			"Authorization": auth("host;x-amz-content-sha256;x-amz-date", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7")}),
		"presigned": request("GET", "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", host, nil),
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			hash := s.PayloadHash
			if s.Presigned {
				hash = Unsigned
			}
			o := Options{SigningName: "s3", S3: true, PayloadHash: hash, Now: exampleTime}
			if _, err := Verify(t.Context(), r, s, oneKey{}, o); err != nil {
				t.Fatal(err)
			}
			tampered := r.Clone(t.Context())
			tampered.Method = "DELETE"
			if _, err := Verify(t.Context(), tampered, s, oneKey{}, o); kind(err) != Mismatch {
				t.Errorf("another method: %v", err)
			}
		})
	}
}

func kind(err error) Kind {
	var p *Problem
	if errors.As(err, &p) {
		return p.Kind
	}
	return -1
}

func TestSignThenVerify(t *testing.T) {
	now := time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	sign := func(change func(*http.Request)) *http.Request {
		r := request("POST", "/a%20b//c?x=1&a=%2F&a=", "127.0.0.1:4566", map[string]string{"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": "A.B"})
		Sign(r, []byte("{}"), exampleID, exampleSecret, "tok", "eu-west-1", "codedeploy", now)
		if change != nil {
			change(r)
		}
		return r
	}
	const hash = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of "{}"
	tests := []struct {
		name   string
		change func(*http.Request)
		opts   func(*Options)
		want   Kind
	}{
		{"good", nil, nil, -1},
		{"15 minutes late", nil, func(o *Options) { o.Now = now.Add(15 * time.Minute) }, -1},
		{"too late", nil, func(o *Options) { o.Now = now.Add(15*time.Minute + time.Second) }, Skewed},
		{"too early", nil, func(o *Options) { o.Now = now.Add(-15*time.Minute - time.Second) }, Skewed},
		{"another body", nil, func(o *Options) { o.PayloadHash = emptyHash }, Mismatch},
		{"another service", nil, func(o *Options) { o.SigningName = "ec2" }, WrongScope},
		{"another target", func(r *http.Request) { r.Header.Set("X-Amz-Target", "A.C") }, nil, Mismatch},
		{"another query", func(r *http.Request) { r.URL.RawQuery = "x=2" }, nil, Mismatch},
		{"another host", func(r *http.Request) { r.Host = "other" }, nil, Mismatch},
		{"another token", func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }, nil, BadToken},
		{"unknown key", func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), exampleID, "AKIANOBODY", 1))
		}, nil, UnknownKey},
		{"no signature", func(r *http.Request) { r.Header.Del("Authorization") }, nil, Missing},
		{"half a signature", func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x") }, nil, Incomplete},
		{"short scope", func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a/b,SignedHeaders=host,Signature=0")
		}, nil, Incomplete},
		{"another scheme", func(r *http.Request) { r.Header.Set("Authorization", "Basic eDp5") }, nil, Unsupported},
		{"date and scope differ", func(r *http.Request) { r.Header.Set("X-Amz-Date", "20261124T010000Z") }, nil, WrongScope},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := sign(tt.change)
			o := Options{SigningName: "codedeploy", PayloadHash: hash, Now: now}
			if tt.opts != nil {
				tt.opts(&o)
			}
			s, err := Parse(r)
			if err == nil {
				_, err = Verify(t.Context(), r, s, oneKey{"tok"}, o)
			}
			if kind(err) != tt.want || tt.want == -1 && err != nil {
				t.Errorf("got %v, want kind %d", err, tt.want)
			}
		})
	}
}

func TestS3HeadersMustBeSigned(t *testing.T) {
	r := request("PUT", "/b/k", "h", map[string]string{})
	Sign(r, nil, exampleID, exampleSecret, "", "us-east-1", "s3", exampleTime)
	r.Header.Set("X-Amz-Acl", "public-read")
	s, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(t.Context(), r, s, oneKey{}, Options{S3: true, PayloadHash: s.PayloadHash, Now: exampleTime}); kind(err) != UnsignedHeaders {
		t.Errorf("got %v", err)
	}
}

func TestPresignedExpires(t *testing.T) {
	r := request("GET", "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404", "examplebucket.s3.amazonaws.com", nil)
	s, err := Parse(r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Verify(t.Context(), r, s, oneKey{}, Options{S3: true, PayloadHash: Unsigned, Now: exampleTime.Add(24*time.Hour + time.Second)})
	if kind(err) != Expired {
		t.Errorf("got %v", err)
	}
}
