package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// S3's older presigned URLs (signature version 2, "Signing and Authenticating
// REST Requests" in the S3 developer guide) are what boto3 and the AWS CLI
// still make by default, so they are verified as well. Nothing else of that
// version is.

// parseV2 reads AWSAccessKeyId, Expires and Signature.
func parseV2(q url.Values) (*Request, error) {
	s := &Request{AccessKeyID: q.Get("AWSAccessKeyId"), Signature: q.Get("Signature"), SessionToken: q.Get("x-amz-security-token"),
		Service: "s3", Presigned: true, v2: true, PayloadHash: Unsigned}
	n, err := strconv.ParseInt(q.Get("Expires"), 10, 64)
	if err != nil || s.Signature == "" {
		return nil, &Problem{Kind: Incomplete, Detail: "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters"}
	}
	s.Time = time.Unix(n, 0)
	return s, nil
}

// subresources are the query parameters that version 2 signs.
var subresources = []string{"accelerate", "acl", "analytics", "cors", "delete", "inventory", "lifecycle", "location",
	"logging", "metrics", "notification", "object-lock", "partNumber", "policy", "replication", "requestPayment",
	"response-cache-control", "response-content-disposition", "response-content-encoding", "response-content-language",
	"response-content-type", "response-expires", "restore", "select", "select-type", "storageClass", "tagging", "torrent",
	"uploadId", "uploads", "versionId", "versioning", "versions", "website"}

func verifyV2(ctx context.Context, r *http.Request, s *Request, keys Keys, o Options) (*Result, error) {
	if o.Now.After(s.Time) {
		return nil, &Problem{Kind: Expired, Detail: "Request has expired"}
	}
	if s.Time.Sub(o.Now) > maxExpiry+Skew {
		return nil, &Problem{Kind: Incomplete, Detail: "Expires must be within seven days"}
	}
	cred, err := lookup(ctx, s, keys, o)
	if err != nil {
		return nil, err
	}
	resource := rawPath(r)
	if o.HostBucket != "" {
		resource = "/" + o.HostBucket + resource
	}
	q := r.URL.Query()
	toSign := r.Method + "\n" + r.Header.Get("Content-Md5") + "\n" + r.Header.Get("Content-Type") + "\n" + q.Get("Expires") + "\n" +
		amzHeaders(r, q) + resource + signedQuery(q)
	h := hmac.New(sha1.New, []byte(cred.Secret))
	h.Write([]byte(toSign))
	want := base64.StdEncoding.EncodeToString(h.Sum(nil))
	if !hmac.Equal([]byte(want), []byte(s.Signature)) {
		return nil, &Problem{Kind: Mismatch, Detail: "The request signature we calculated does not match the signature you provided. Check your key and signing method."}
	}
	return &Result{Request: *s, Credential: cred}, nil
}

func amzHeaders(r *http.Request, q url.Values) string {
	var lines []string
	for name, vals := range r.Header {
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-amz-") {
			lines = append(lines, low+":"+strings.Join(vals, ",")+"\n")
		}
	}
	for name, vals := range q { // what a client moved from its headers into the URL
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-amz-") && r.Header.Get(name) == "" {
			lines = append(lines, low+":"+vals[0]+"\n")
		}
	}
	sort.Strings(lines)
	return strings.Join(lines, "")
}

func signedQuery(q url.Values) string {
	var parts []string
	for name, vals := range q {
		if !slices.Contains(subresources, name) {
			continue
		}
		if vals[0] == "" {
			parts = append(parts, name)
		} else {
			parts = append(parts, name+"="+vals[0])
		}
	}
	if parts == nil {
		return ""
	}
	sort.Strings(parts)
	return "?" + strings.Join(parts, "&")
}
