package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sort"
	"strings"
	"time"
)

// Sign adds X-Amz-Date, the session token if any, and the Authorization
// header to r, whose other headers must be final. body is the whole payload;
// X-Amz-Content-Sha256 is set for S3, which demands it.
func Sign(r *http.Request, body []byte, accessKeyID, secret, sessionToken, region, service string, now time.Time) {
	stamp := now.UTC().Format(timeLayout)
	sum := sha256.Sum256(body)
	hash := hex.EncodeToString(sum[:])
	r.Header.Set("X-Amz-Date", stamp)
	if sessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", sessionToken)
	}
	if service == "s3" {
		r.Header.Set("X-Amz-Content-Sha256", hash)
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	signed := []string{"host"}
	for name := range r.Header {
		low := strings.ToLower(name)
		if low == "content-type" || strings.HasPrefix(low, "x-amz") {
			signed = append(signed, low)
		}
	}
	sort.Strings(signed)
	s := &Request{Signed: signed}
	res := &Result{stamp: stamp, scope: stamp[:8] + "/" + region + "/" + service + "/aws4_request",
		key: SigningKey(secret, stamp[:8], region, service)}
	path := canonicalPaths(r, service == "s3")[0]
	sig := res.sign(canonical(r, s, path, hash))
	r.Header.Set("Authorization", algorithm+" Credential="+accessKeyID+"/"+res.scope+
		", SignedHeaders="+strings.Join(signed, ";")+", Signature="+sig)
}
