// Package sigv4 verifies AWS Signature Version 4: the Authorization header,
// presigned URLs, and S3's signed chunks. The rules are those of "Create a
// signed AWS API request" in the IAM user guide and "Signature Calculations"
// in the S3 API reference. Signing, for first-party clients, is in sign.go.
package sigv4

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeLayout = "20060102T150405Z"
	// Skew is how far a request's clock may be off.
	Skew = 15 * time.Minute
	// Unsigned is the payload hash of a body that is not part of the signature.
	Unsigned  = "UNSIGNED-PAYLOAD"
	maxExpiry = 7 * 24 * time.Hour
)

// What Keys.Lookup can fail with; anything else is an internal error.
var (
	ErrUnknownKey   = errors.New("the access key does not exist or is not active")
	ErrInvalidToken = errors.New("the session token does not belong to the access key")
	ErrExpiredToken = errors.New("the session token has expired")
)

// Credential is what a key pair stands for.
type Credential struct {
	Secret       string
	Account      string
	PrincipalARN string
	PrincipalID  string
	Expires      time.Time // zero: never
}

// Keys finds credentials. Lookup is called concurrently. sessionToken is ""
// where the request has none; a temporary key without its token is
// ErrInvalidToken.
type Keys interface {
	Lookup(ctx context.Context, accessKeyID, sessionToken string) (Credential, error)
}

// Request is a signature as the request states it, before it is checked.
type Request struct {
	AccessKeyID  string
	SessionToken string
	Date         string // YYYYMMDD of the scope
	Region       string
	Service      string // the scope's signing name
	Time         time.Time
	Signed       []string // lower-case header names, sorted
	Signature    string
	PayloadHash  string // as the request states it, "" where it does not
	Presigned    bool
	Expires      time.Duration // presigned URLs only
	v2           bool          // see v2.go; Time is then the expiry
}

// Result is a verified signature. Key and the rest verify signed chunks.
type Result struct {
	Request
	Credential Credential
	key        []byte
	stamp      string
	scope      string
}

// Problem is why a signature was refused; Errors turns it into AWS's code.
type Problem struct {
	Kind   Kind
	Detail string
	Err    error
}

func (p *Problem) Error() string { return p.Detail }
func (p *Problem) Unwrap() error { return p.Err }

// Kind is a class of refusal.
type Kind int

const (
	Missing    Kind = iota // no signature at all
	Incomplete             // the signature's parts are missing or malformed
	UnknownKey
	BadToken
	ExpiredToken
	Mismatch
	WrongScope
	Skewed  // the request's date is too far from now
	Expired // a presigned URL after its time
	Unsupported
	UnsignedHeaders
)

// Parse reads the signature of r: header, or query parameters. It returns a
// Problem of kind Missing where there is none.
func Parse(r *http.Request) (*Request, error) {
	if h := r.Header.Get("Authorization"); h != "" {
		return parseHeader(r, h)
	}
	q := r.URL.Query()
	if q.Get("X-Amz-Algorithm") != "" || q.Get("X-Amz-Signature") != "" {
		return parseQuery(r, q)
	}
	if q.Get("AWSAccessKeyId") != "" {
		return parseV2(q)
	}
	return nil, &Problem{Kind: Missing, Detail: "Request is missing Authentication Token"}
}

func parseHeader(r *http.Request, h string) (*Request, error) {
	scheme, rest, _ := strings.Cut(h, " ")
	if scheme != algorithm {
		return nil, &Problem{Kind: Unsupported, Detail: "Unsupported authorization type: '" + scheme + "'"}
	}
	s := &Request{SessionToken: r.Header.Get("X-Amz-Security-Token"), PayloadHash: r.Header.Get("X-Amz-Content-Sha256")}
	var cred, signed string
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch k {
		case "Credential":
			cred = v
		case "SignedHeaders":
			signed = v
		case "Signature":
			s.Signature = v
		}
	}
	var missing []string
	for _, f := range [][2]string{{"Credential", cred}, {"Signature", s.Signature}, {"SignedHeaders", signed}} {
		if f[1] == "" {
			missing = append(missing, "Authorization header requires '"+f[0]+"' parameter.")
		}
	}
	stamp := r.Header.Get("X-Amz-Date")
	if stamp == "" {
		if d, err := http.ParseTime(r.Header.Get("Date")); err == nil {
			stamp = d.UTC().Format(timeLayout)
		} else {
			missing = append(missing, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
		}
	}
	if len(missing) > 0 {
		return nil, &Problem{Kind: Incomplete, Detail: strings.Join(missing, " ")}
	}
	return s, s.fill(cred, signed, stamp)
}

func parseQuery(r *http.Request, q url.Values) (*Request, error) {
	if a := q.Get("X-Amz-Algorithm"); a != algorithm {
		return nil, &Problem{Kind: Unsupported, Detail: "X-Amz-Algorithm only supports \"AWS4-HMAC-SHA256\""}
	}
	s := &Request{Presigned: true, Signature: q.Get("X-Amz-Signature"), SessionToken: q.Get("X-Amz-Security-Token"),
		PayloadHash: q.Get("X-Amz-Content-Sha256")}
	for _, name := range []string{"X-Amz-Credential", "X-Amz-Signature", "X-Amz-SignedHeaders", "X-Amz-Date"} {
		if q.Get(name) == "" {
			return nil, &Problem{Kind: Incomplete, Detail: "Query-string authentication requires the " + name + " parameter."}
		}
	}
	if s.PayloadHash == "" {
		s.PayloadHash = r.Header.Get("X-Amz-Content-Sha256")
	}
	s.Expires = Skew
	if e := q.Get("X-Amz-Expires"); e != "" {
		n, err := strconv.Atoi(e)
		if err != nil || n < 0 || n > int(maxExpiry/time.Second) {
			return nil, &Problem{Kind: Incomplete, Detail: "X-Amz-Expires must be a number of seconds between 0 and 604800"}
		}
		s.Expires = time.Duration(n) * time.Second
	}
	return s, s.fill(q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Date"))
}

func (s *Request) fill(cred, signed, stamp string) error {
	parts := strings.Split(cred, "/")
	n := len(parts)
	if n < 5 || parts[n-1] != "aws4_request" {
		return &Problem{Kind: Incomplete, Detail: "Credential must have at least 5 slash-delimited elements and end in aws4_request, e.g. keyid/date/region/service/aws4_request, got '" + cred + "'"}
	}
	s.AccessKeyID = strings.Join(parts[:n-4], "/")
	s.Date, s.Region, s.Service = parts[n-4], parts[n-3], parts[n-2]
	t, err := time.Parse(timeLayout, stamp)
	if err != nil {
		return &Problem{Kind: Incomplete, Detail: "Date must be in ISO-8601 'basic format'. Got '" + stamp + "'."}
	}
	s.Time = t
	if s.Date != stamp[:8] {
		return &Problem{Kind: WrongScope, Detail: "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '" + s.Date + "' != '" + stamp[:8] + "', from '" + stamp + "'."}
	}
	s.Signed = strings.Split(signed, ";")
	host := false
	for _, h := range s.Signed {
		host = host || h == "host"
	}
	if !host {
		return &Problem{Kind: Mismatch, Detail: "'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization."}
	}
	return nil
}

// Options say how a service's signatures are checked.
type Options struct {
	// SigningName must be the scope's service; "" accepts any.
	SigningName string
	// S3 paths are encoded once, and their x-amz-* headers must be signed.
	S3 bool
	// PayloadHash goes into the canonical request: what the body really has,
	// or for S3 what the request states.
	PayloadHash string
	// HostBucket is the bucket that the host names, "" for path style.
	HostBucket string
	Now        time.Time
}

// Verify checks the signature of r. The body is not touched.
func Verify(ctx context.Context, r *http.Request, s *Request, keys Keys, o Options) (*Result, error) {
	if s.v2 {
		if !o.S3 {
			return nil, &Problem{Kind: Unsupported, Detail: "Signature version 2 is not supported."}
		}
		return verifyV2(ctx, r, s, keys, o)
	}
	if o.SigningName != "" && s.Service != o.SigningName {
		return nil, &Problem{Kind: WrongScope, Detail: "Credential should be scoped to correct service: '" + o.SigningName + "'. "}
	}
	if err := s.fresh(o.Now); err != nil {
		return nil, err
	}
	cred, err := lookup(ctx, s, keys, o)
	if err != nil {
		return nil, err
	}
	if o.S3 {
		if err := s.allSigned(r); err != nil {
			return nil, err
		}
	}
	res := &Result{Request: *s, Credential: cred, stamp: s.Time.Format(timeLayout),
		scope: s.Date + "/" + s.Region + "/" + s.Service + "/aws4_request",
		key:   SigningKey(cred.Secret, s.Date, s.Region, s.Service)}
	for _, path := range canonicalPaths(r, o.S3) {
		want := res.sign(canonical(r, s, path, o.PayloadHash))
		if hmac.Equal([]byte(want), []byte(s.Signature)) {
			return res, nil
		}
	}
	return nil, &Problem{Kind: Mismatch, Detail: "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."}
}

// lookup finds the credential and refuses an expired one.
func lookup(ctx context.Context, s *Request, keys Keys, o Options) (Credential, error) {
	cred, err := keys.Lookup(ctx, s.AccessKeyID, s.SessionToken)
	switch {
	case errors.Is(err, ErrUnknownKey):
		return cred, &Problem{Kind: UnknownKey, Detail: "The security token included in the request is invalid.", Err: err}
	case errors.Is(err, ErrInvalidToken):
		return cred, &Problem{Kind: BadToken, Detail: "The security token included in the request is invalid.", Err: err}
	case errors.Is(err, ErrExpiredToken):
		return cred, &Problem{Kind: ExpiredToken, Detail: "The security token included in the request is expired", Err: err}
	case err != nil:
		return cred, err
	}
	if !cred.Expires.IsZero() && o.Now.After(cred.Expires) {
		return cred, &Problem{Kind: ExpiredToken, Detail: "The security token included in the request is expired"}
	}
	return cred, nil
}

func (s *Request) fresh(now time.Time) error {
	stamp, at := s.Time.Format(timeLayout), now.UTC().Format(timeLayout)
	if s.Presigned {
		if now.After(s.Time.Add(s.Expires)) {
			return &Problem{Kind: Expired, Detail: "Request has expired"}
		}
		if s.Time.After(now.Add(Skew)) {
			return &Problem{Kind: Skewed, Detail: "Signature not yet current: " + stamp + " is still later than " + at + " (+ 15 min.)"}
		}
		return nil
	}
	if d := now.Sub(s.Time); d > Skew {
		return &Problem{Kind: Skewed, Detail: "Signature expired: " + stamp + " is now earlier than " + now.Add(-Skew).UTC().Format(timeLayout) + " (" + at + " - 15 min.)"}
	} else if d < -Skew {
		return &Problem{Kind: Skewed, Detail: "Signature not yet current: " + stamp + " is still later than " + now.Add(Skew).UTC().Format(timeLayout) + " (" + at + " + 15 min.)"}
	}
	return nil
}

func (s *Request) allSigned(r *http.Request) error {
	for name := range r.Header {
		low := strings.ToLower(name)
		if !strings.HasPrefix(low, "x-amz-") || low == "x-amz-content-sha256" && s.Presigned {
			continue
		}
		i := sort.SearchStrings(s.Signed, low)
		if i >= len(s.Signed) || s.Signed[i] != low {
			return &Problem{Kind: UnsignedHeaders, Detail: "There were headers present in the request which were not signed"}
		}
	}
	return nil
}

// sign makes the signature of a canonical request.
func (r *Result) sign(canonical string) string {
	sum := sha256.Sum256([]byte(canonical))
	toSign := algorithm + "\n" + r.stamp + "\n" + r.scope + "\n" + hex.EncodeToString(sum[:])
	return hex.EncodeToString(mac(r.key, toSign))
}

// SigningKey derives the key of a scope.
func SigningKey(secret, date, region, service string) []byte {
	k := mac([]byte("AWS4"+secret), date)
	k = mac(k, region)
	k = mac(k, service)
	return mac(k, "aws4_request")
}

func mac(key []byte, data string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(data))
	return h.Sum(nil)
}

// emptyHash is the SHA-256 of no bytes.
const emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Chunk checks the signature of one chunk of a signed stream: previous is
// the signature of the chunk before (the request's own for the first), hash
// the hex SHA-256 of the chunk's data.
func (r *Result) Chunk(previous, hash, signature string) bool {
	return r.follows("AWS4-HMAC-SHA256-PAYLOAD", previous, emptyHash+"\n"+hash, signature)
}

// Trailer checks the signature of a stream's trailing headers; hash is the
// hex SHA-256 of "name:value\n" for each of them.
func (r *Result) Trailer(previous, hash, signature string) bool {
	return r.follows("AWS4-HMAC-SHA256-TRAILER", previous, hash, signature)
}

func (r *Result) follows(kind, previous, rest, signature string) bool {
	want := hex.EncodeToString(mac(r.key, kind+"\n"+r.stamp+"\n"+r.scope+"\n"+previous+"\n"+rest))
	return hmac.Equal([]byte(want), []byte(signature))
}
