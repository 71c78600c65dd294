// Package awscall is the little of an AWS client that the programs inside instances need: signed JSON calls
// and signed S3 downloads against one endpoint. A whole SDK would cost every idle instance memory.
package awscall

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// maxAnswer bounds the body of a JSON answer, in bytes.
const maxAnswer = 4 << 20

// Credentials provides keys for signing. Forget is called when a service refused them as expired or unknown.
type Credentials interface {
	Keys(ctx context.Context) (aws.Credentials, error)
	Forget()
}

// Error is an error answer of a service.
type Error struct {
	Status  int
	Code    string
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (status %d): %s", e.Code, e.Status, e.Message) }

// Temporary reports whether the same call may succeed later: throttling, faults of the server, refused
// credentials (they are renewed between attempts).
func Temporary(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return true // the network, or a half-read answer
	}
	return e.Status >= 500 && e.Status != http.StatusNotImplemented || e.Status == http.StatusForbidden ||
		e.Status == http.StatusTooManyRequests || strings.Contains(e.Code, "Throttl")
}

// Client calls services at one endpoint. It may be used from several goroutines.
type Client struct {
	endpoint string
	region   string
	creds    Credentials
	http     *http.Client
	signer   *v4.Signer
	skew     atomic.Int64 // nanoseconds to add to our clock to get the server's
}

// New makes a client for an endpoint such as http://172.31.0.2:4566.
func New(endpoint, region string, creds Credentials) (*Client, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("the endpoint %q is not an http or https URL", endpoint)
	}
	tr := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxIdleConns:          4,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: 80 * time.Second, // above the 60 s for which a poll is held open
		WriteBufferSize:       2 << 10,
		ReadBufferSize:        4 << 10,
		DisableCompression:    true,
	}
	return &Client{endpoint: strings.TrimRight(endpoint, "/"), region: region, creds: creds,
		http: &http.Client{Transport: tr}, signer: v4.NewSigner()}, nil
}

// JSON calls an operation of an awsJson 1.1 service. signName is the SigV4 service name; header may add fields.
// The error is an *Error when the service answered, otherwise what the network said.
func (c *Client) JSON(ctx context.Context, signName, target string, header http.Header, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	sum := sha256.Sum256(body)
	resp, err := c.send(ctx, signName, hex.EncodeToString(sum[:]), func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint+"/", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		for k, v := range header {
			req.Header[k] = v
		}
		req.Header.Set("Content-Type", "application/x-amz-json-1.1")
		req.Header.Set("X-Amz-Target", target)
		return req, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	if out == nil || len(bytes.TrimSpace(answer)) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s: the answer is not JSON: %w", target, err)
	}
	return nil
}

// GetObject opens an S3 object, path style. The caller closes the body.
func (c *Client) GetObject(ctx context.Context, bucket, key, version string) (*http.Response, error) {
	u, err := url.Parse(c.endpoint)
	if err != nil {
		return nil, err
	}
	raw := "/" + escape(bucket) + "/" + escape(key)
	u.Path, u.RawPath = "/"+bucket+"/"+key, raw
	if version != "" {
		u.RawQuery = "versionId=" + url.QueryEscape(version)
	}
	const emptySum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	resp, err := c.send(ctx, "s3", emptySum, func() (*http.Request, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err == nil {
			req.Header.Set("X-Amz-Content-Sha256", emptySum)
		}
		return req, err
	})
	if err != nil {
		return nil, fmt.Errorf("GetObject s3://%s/%s: %w", bucket, key, err)
	}
	return resp, nil
}

// escape is the URI encoding of S3 keys: everything but unreserved characters and the slash.
func escape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		ch := s[i]
		if ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= '0' && ch <= '9' || strings.IndexByte("-._~/", ch) >= 0 {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

// send signs and sends; a refusal because of stale keys or a wrong clock is tried again, corrected.
func (c *Client) send(ctx context.Context, signName, sum string, make func() (*http.Request, error)) (*http.Response, error) {
	for attempt := 0; ; attempt++ {
		req, err := make()
		if err != nil {
			return nil, err
		}
		keys, err := c.creds.Keys(ctx)
		if err != nil {
			return nil, fmt.Errorf("no credentials: %w", err)
		}
		now := time.Now().Add(time.Duration(c.skew.Load()))
		err = c.signer.SignHTTP(ctx, keys, req, sum, signName, c.region, now, func(o *v4.SignerOptions) {
			o.DisableURIPathEscaping = signName == "s3"
		})
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		resp, err := c.http.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		e := readError(resp)
		if attempt > 1 || !c.correct(e, resp.Header.Get("Date")) {
			return nil, e
		}
	}
}

// correct prepares a second attempt after a refusal and reports whether one makes sense.
func (c *Client) correct(e *Error, date string) bool {
	switch e.Code {
	case "ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "TokenRefreshRequired":
		c.creds.Forget()
		return true
	case "RequestTimeTooSkewed", "RequestExpired", "InvalidSignatureException", "SignatureDoesNotMatch", "RequestInTheFuture":
		server, err := http.ParseTime(date)
		if err != nil {
			return false
		}
		skew := time.Until(server)
		if d := skew - time.Duration(c.skew.Load()); d > -time.Minute && d < time.Minute {
			return false
		}
		c.skew.Store(int64(skew))
		return true
	}
	return false
}

func readError(resp *http.Response) *Error {
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the status alone is an answer too
	e := &Error{Status: resp.StatusCode, Code: resp.Header.Get("X-Amzn-Errortype")}
	var j struct {
		Type     string `json:"__type"`
		Code     string `json:"code"`
		Message  string `json:"message"`
		Message2 string `json:"Message"`
	}
	var x struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	if json.Unmarshal(body, &j) == nil {
		e.Message = j.Message + j.Message2
		if j.Message == j.Message2 {
			e.Message = j.Message
		}
		for _, code := range []string{j.Type, j.Code} {
			if e.Code == "" {
				e.Code = code
			}
		}
	} else if xml.Unmarshal(body, &x) == nil {
		e.Code, e.Message = x.Code, x.Message
	} else {
		e.Message = strings.TrimSpace(string(body[:min(len(body), 300)]))
	}
	if _, after, ok := strings.Cut(e.Code, "#"); ok {
		e.Code = after
	}
	e.Code, _, _ = strings.Cut(e.Code, ":")
	if e.Code == "" {
		e.Code = strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", "")
	}
	return e
}
