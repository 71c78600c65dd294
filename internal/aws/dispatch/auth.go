package dispatch

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"strings"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/model"
	"slipway/internal/aws/sigv4"
)

// authenticate fills x.who. Its result is nil where nothing was checked.
func (x *exchange) authenticate(sig *sigv4.Request, sigErr error, hash string) (*sigv4.Result, error) {
	svc := x.t.svc.model
	x.who = caller.Identity{Account: x.h.Account, Region: "us-east-1", SourceIP: sourceIP(x.r), UserAgent: x.r.UserAgent(), RequestID: x.id}
	if sig != nil {
		x.who.AccessKeyID = sig.AccessKeyID
		if sig.Region != "" && !svc.Global {
			x.who.Region = sig.Region
		}
	}
	if x.h.AuthAny {
		return nil, x.unchecked(sig)
	}
	if x.op.unsigned && sig == nil {
		return nil, nil
	}
	if sigErr != nil {
		return nil, sigv4.Error(x.t.proto, sigErr)
	}
	if x.h.Keys == nil {
		return nil, sigv4.Error(x.t.proto, &sigv4.Problem{Kind: sigv4.UnknownKey, Detail: "The security token included in the request is invalid."})
	}
	name := svc.SigningName
	if svc.AltSigningName != "" && sig.Service == svc.AltSigningName {
		name = svc.AltSigningName
	}
	res, err := sigv4.Verify(x.ctx, x.r, sig, x.h.Keys, sigv4.Options{SigningName: name,
		S3: x.t.proto == model.RESTXML, PayloadHash: hash, HostBucket: x.h.hostBucket(x.r.Host), Now: x.h.Now()})
	if err != nil {
		return nil, sigv4.Error(x.t.proto, err)
	}
	c := res.Credential
	x.who.Account, x.who.PrincipalARN, x.who.PrincipalID = c.Account, c.PrincipalARN, c.PrincipalID
	return res, nil
}

// unchecked gives the identity of a request in AuthAny mode.
func (x *exchange) unchecked(sig *sigv4.Request) error {
	if s := x.r.Header.Get("Sec-Fetch-Site"); s == "cross-site" {
		return awserr.New("AccessDenied", "Requests from other web sites are refused with --auth any.").WithStatus(403)
	}
	x.who.PrincipalARN, x.who.PrincipalID = "arn:aws:iam::"+x.h.Account+":root", x.h.Account
	if sig == nil || x.h.Keys == nil {
		return nil
	}
	if c, err := x.h.Keys.Lookup(x.ctx, sig.AccessKeyID, sig.SessionToken); err == nil {
		x.who.Account, x.who.PrincipalARN, x.who.PrincipalID = c.Account, c.PrincipalARN, c.PrincipalID
	}
	return nil
}

func sourceIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// requestID is a random UUID (version 4, RFC 9562).
func requestID() string {
	var b [16]byte
	rand.Read(b[:]) // does not fail
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// s3IDs are S3's two request ids, derived from the one in the logs.
func s3IDs(id string) (request, host string) {
	request = strings.ToUpper(strings.ReplaceAll(id, "-", "")[:16])
	sum := sha256.Sum256([]byte(id))
	return request, base64.StdEncoding.EncodeToString(sum[:])
}

// gone says that the request was given up: the client left, or the server ends.
func gone(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}
