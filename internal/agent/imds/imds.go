// Package imds is a small client of the instance metadata service: identity, role credentials, any path.
// It speaks version 2 (session tokens) and falls back to version 1 only where the service knows no tokens.
// Source: EC2 User Guide, "Use the Instance Metadata Service".
package imds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	defaultEndpoint = "http://169.254.169.254"
	tokenTTL        = 21600 * time.Second
	maxBody         = 64 << 10
)

// ErrNotFound says that the service has no such path, for instance because the instance has no role.
var ErrNotFound = errors.New("imds: not found")

// Client asks the metadata service. It may be used from several goroutines.
type Client struct {
	endpoint string
	http     *http.Client

	mu       sync.Mutex
	token    string
	tokenEnd time.Time
	creds    Credentials
}

// Credentials of the instance's role.
type Credentials struct {
	AccessKeyID     string    `json:"AccessKeyId"`
	SecretAccessKey string    `json:"SecretAccessKey"`
	Token           string    `json:"Token"`
	Expiration      time.Time `json:"Expiration"`
	Code            string    `json:"Code"`
	Message         string    `json:"Message"`
}

// Identity is the part of the instance identity document that agents need.
type Identity struct {
	AccountID        string `json:"accountId"`
	Region           string `json:"region"`
	InstanceID       string `json:"instanceId"`
	AvailabilityZone string `json:"availabilityZone"`
	ImageID          string `json:"imageId"`
	InstanceType     string `json:"instanceType"`
	PrivateIP        string `json:"privateIp"`
}

// New makes a client. endpoint "" means AWS_EC2_METADATA_SERVICE_ENDPOINT or else the link-local address.
func New(endpoint string) *Client {
	if endpoint == "" {
		endpoint = os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")
	}
	if endpoint == "" {
		endpoint = defaultEndpoint
	}
	tr := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		MaxIdleConns:        1,
		IdleConnTimeout:     5 * time.Second,
		MaxIdleConnsPerHost: 1,
	}
	return &Client{endpoint: strings.TrimRight(endpoint, "/"), http: &http.Client{Transport: tr, Timeout: 5 * time.Second}}
}

// Get returns the text at a path such as /latest/meta-data/instance-id; ErrNotFound when there is none.
func (c *Client) Get(ctx context.Context, path string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.get(ctx, path)
}

func (c *Client) get(ctx context.Context, path string) (string, error) {
	for attempt := 0; ; attempt++ {
		if err := c.renewToken(ctx); err != nil {
			return "", err
		}
		body, status, err := c.do(ctx, http.MethodGet, path, "X-Aws-Ec2-Metadata-Token", c.token)
		switch {
		case err != nil:
			return "", err
		case status == http.StatusOK:
			return body, nil
		case status == http.StatusNotFound:
			return "", fmt.Errorf("%s: %w", path, ErrNotFound)
		case status == http.StatusUnauthorized && attempt == 0:
			c.token, c.tokenEnd = "", time.Time{} // the service restarted or the token ended early
		default:
			return "", fmt.Errorf("imds: %s answered status %d", path, status)
		}
	}
}

func (c *Client) renewToken(ctx context.Context) error {
	if time.Now().Before(c.tokenEnd) {
		return nil
	}
	ttl := fmt.Sprintf("%d", int(tokenTTL/time.Second))
	body, status, err := c.do(ctx, http.MethodPut, "/latest/api/token", "X-Aws-Ec2-Metadata-Token-Ttl-Seconds", ttl)
	if err != nil {
		return err
	}
	switch status {
	case http.StatusOK:
		c.token, c.tokenEnd = strings.TrimSpace(body), time.Now().Add(tokenTTL-time.Minute)
	case http.StatusNotFound, http.StatusMethodNotAllowed: // a service of version 1 only
		c.token, c.tokenEnd = "", time.Now().Add(time.Minute)
	default:
		return fmt.Errorf("imds: the token request was answered with status %d", status)
	}
	return nil
}

func (c *Client) do(ctx context.Context, method, path, header, value string) (string, int, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.endpoint+path, nil)
	if err != nil {
		return "", 0, fmt.Errorf("imds: %w", err)
	}
	if value != "" {
		req.Header.Set(header, value)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return "", 0, fmt.Errorf("imds: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return "", 0, fmt.Errorf("imds: reading %s: %w", path, err)
	}
	return string(body), resp.StatusCode, nil
}

// Identity returns the identity document.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	var id Identity
	text, err := c.Get(ctx, "/latest/dynamic/instance-identity/document")
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal([]byte(text), &id); err != nil {
		return id, fmt.Errorf("imds: identity document: %w", err)
	}
	if id.InstanceID == "" || id.Region == "" || id.AccountID == "" {
		return id, errors.New("imds: the identity document lacks instanceId, region or accountId")
	}
	return id, nil
}

// Partition returns the AWS partition, "aws" when the service does not say.
func (c *Client) Partition(ctx context.Context) string {
	p, err := c.Get(ctx, "/latest/meta-data/services/partition")
	if err != nil || p == "" {
		return "aws"
	}
	return strings.TrimSpace(p)
}

// Credentials returns the role's credentials, from memory until five minutes before they expire.
func (c *Client) Credentials(ctx context.Context) (Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.creds.AccessKeyID != "" && time.Until(c.creds.Expiration) > 5*time.Minute {
		return c.creds, nil
	}
	fresh, err := c.fetchCredentials(ctx)
	if err != nil {
		if c.creds.AccessKeyID != "" && time.Until(c.creds.Expiration) > 0 {
			return c.creds, nil // still good: the metadata service may be back before they end
		}
		return Credentials{}, err
	}
	c.creds = fresh
	return fresh, nil
}

// Forget drops the remembered credentials: a service has refused them.
func (c *Client) Forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.creds = Credentials{}
}

func (c *Client) fetchCredentials(ctx context.Context) (Credentials, error) {
	const base = "/latest/meta-data/iam/security-credentials/"
	roles, err := c.get(ctx, base)
	if errors.Is(err, ErrNotFound) {
		return Credentials{}, fmt.Errorf("the instance has no role (no instance profile): %w", err)
	}
	if err != nil {
		return Credentials{}, err
	}
	role, _, _ := strings.Cut(strings.TrimSpace(roles), "\n")
	if role == "" {
		return Credentials{}, fmt.Errorf("the instance has no role (no instance profile): %w", ErrNotFound)
	}
	text, err := c.get(ctx, base+role)
	if err != nil {
		return Credentials{}, err
	}
	var cr Credentials
	if err := json.Unmarshal([]byte(text), &cr); err != nil {
		return Credentials{}, fmt.Errorf("imds: credentials of %s: %w", role, err)
	}
	if cr.AccessKeyID == "" || cr.SecretAccessKey == "" {
		return Credentials{}, fmt.Errorf("imds: credentials of %s: code %s %s", role, cr.Code, cr.Message)
	}
	return cr, nil
}
