// Package client calls a Slipway server from its first-party programs: the
// command line and the agents. It speaks JSON 1.1 to every service, with the
// generated types, so that none of AWS's SDKs is linked in. Streaming bodies
// (S3 objects) do not fit it.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"slipway/internal/aws/awserr"
	"slipway/internal/aws/awsjson"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/model"
	"slipway/internal/aws/sigv4"
	"slipway/internal/clock"
)

// maxAnswer bounds an answer; the server's largest pages are far below.
const maxAnswer = 64 << 20

// Config says where to call and as whom.
type Config struct {
	Endpoint        string // "http://127.0.0.1:4566"
	Region          string // "us-east-1" where empty
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	// Credentials, if set, is asked before each call instead: for keys that
	// expire. It is called concurrently.
	Credentials func(ctx context.Context) (Credentials, error)
	// RetryRefused is for how long a refused connection is tried again, for
	// programs that outlive the server; 0: not at all.
	RetryRefused time.Duration
	// HTTP is http.DefaultTransport's client where nil. It must not follow
	// proxies: the endpoint is this machine.
	HTTP *http.Client
	// Clock is clock.Real where nil.
	Clock clock.Clock
}

// Credentials are one key pair, and the token of a temporary one.
type Credentials struct{ AccessKeyID, SecretAccessKey, SessionToken string }

// Client is safe for concurrent use.
type Client struct{ cfg Config }

// New checks the configuration; it does not connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("the endpoint %q is not a URL like http://127.0.0.1:4566", cfg.Endpoint)
	}
	cfg.Endpoint = strings.TrimSuffix(cfg.Endpoint, "/") + "/"
	if cfg.Region == "" {
		cfg.Region = "us-east-1"
	}
	if cfg.HTTP == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = nil
		cfg.HTTP = &http.Client{Transport: t}
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real
	}
	if cfg.Credentials == nil {
		fixed := Credentials{cfg.AccessKeyID, cfg.SecretAccessKey, cfg.SessionToken}
		cfg.Credentials = func(context.Context) (Credentials, error) { return fixed, nil }
	}
	return &Client{cfg}, nil
}

// Region is where the client calls.
func (c *Client) Region() string { return c.cfg.Region }

// Endpoint is what the client calls, with a slash at the end.
func (c *Client) Endpoint() string { return c.cfg.Endpoint }

// Call makes one call. Errors that the server answered are *awserr.Error;
// the others are about the connection.
func Call[I, O any](ctx context.Context, c *Client, op *model.Op[I, O], in *I) (*O, error) {
	if in == nil {
		in = new(I)
	}
	body, err := awsjson.Encode(op.Service, op.Input, in)
	if err != nil {
		return nil, err
	}
	answer, err := c.post(ctx, op.Service, op.Name, body)
	if err != nil {
		return nil, err
	}
	out := new(O)
	if err := awsjson.Decode(op.Service, op.Output, answer, out); err != nil {
		return nil, fmt.Errorf("%s: an answer that cannot be read: %w", op.Name, err)
	}
	return out, nil
}

// post sends a call, again while the connection is refused and time is left.
func (c *Client) post(ctx context.Context, svc *model.Service, op string, body []byte) ([]byte, error) {
	deadline := c.cfg.Clock.Now().Add(c.cfg.RetryRefused)
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		answer, err := c.once(ctx, svc, op, body)
		if !errors.Is(err, syscall.ECONNREFUSED) || c.cfg.RetryRefused == 0 || c.cfg.Clock.Until(deadline) <= 0 {
			return answer, err
		}
		if serr := c.cfg.Clock.Sleep(ctx, wait); serr != nil {
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, svc *model.Service, op string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.cfg.Endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", dispatch.FirstParty+svc.Name+"."+op)
	cr, err := c.cfg.Credentials(ctx)
	if err != nil {
		return nil, fmt.Errorf("credentials for %s: %w", op, err)
	}
	// Signatures are compared with the machine's clock, whatever the time scale.
	sigv4.Sign(r, body, cr.AccessKeyID, cr.SecretAccessKey, cr.SessionToken, c.cfg.Region, svc.SigningName, clock.Real.Now())
	res, err := c.cfg.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: read the answer: %w", op, err)
	case len(answer) > maxAnswer:
		return nil, fmt.Errorf("%s: the answer is larger than %d bytes", op, maxAnswer)
	case res.StatusCode/100 != 2:
		return nil, failure(res, answer)
	}
	return answer, nil
}

// failure reads an error's body; the members of the error's shape stay as
// JSON has them (strings, float64, lists, maps).
func failure(res *http.Response, body []byte) error {
	var fields map[string]any
	if err := json.Unmarshal(body, &fields); err != nil || fields["__type"] == nil {
		return fmt.Errorf("the server at %s answered %s, not as Slipway does", res.Request.URL.Host, res.Status)
	}
	code, _ := fields["__type"].(string)
	msg, ok := fields["message"].(string)
	if !ok {
		msg, _ = fields["Message"].(string)
	}
	for _, k := range []string{"__type", "message", "Message"} {
		delete(fields, k)
	}
	e := awserr.New(code, "%s", msg).WithStatus(res.StatusCode)
	e.Fields = fields
	return e
}
