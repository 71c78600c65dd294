package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
)

// Instance is what a page tells about the machine that served it. The zone may
// become known later than the rest; every method may be called at any time.
type Instance struct {
	Host    string
	Version string
	zone    atomic.Pointer[string]
}

// NewInstance reads the host's name, and the version from the file VERSION that the
// build puts beside the program. TODO_VERSION and TODO_ZONE go before both.
func NewInstance() *Instance {
	i := &Instance{Host: "unknown", Version: os.Getenv("TODO_VERSION")}
	if h, err := os.Hostname(); err == nil {
		i.Host = h
	}
	if i.Version == "" {
		i.Version = readVersion()
	}
	z := os.Getenv("TODO_ZONE")
	i.zone.Store(&z)
	return i
}

func readVersion() string {
	exe, err := os.Executable()
	if err != nil {
		return "dev"
	}
	b, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "VERSION"))
	if v := strings.TrimSpace(string(b)); err == nil && v != "" {
		return v
	}
	return "dev"
}

// Zone is the availability zone, or "" as long as it is not known.
func (i *Instance) Zone() string { return *i.zone.Load() }

// Short is the version as people write it: the first seven digits of a commit.
func (i *Instance) Short() string {
	if len(i.Version) >= 40 && strings.Trim(i.Version, "0123456789abcdef") == "" {
		return i.Version[:7]
	}
	return i.Version
}

// Hue picks one of twelve colours by the host's name, so that a reload which
// another instance answers is seen at a glance.
func (i *Instance) Hue() int {
	h := fnv.New32a()
	io.WriteString(h, i.Host) //nolint:errcheck // a hash never fails
	return int(h.Sum32() % 12)
}

// FindZone asks the instance metadata service for the zone. It is run beside the
// server and gives up after a few tries: no page ever waits for it.
func (i *Instance) FindZone(ctx context.Context, endpoint string) {
	if i.Zone() != "" {
		return
	}
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for try := range 3 {
		if z, err := askZone(ctx, client, endpoint); err == nil {
			i.zone.Store(&z)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Duration(try+1) * time.Second):
		}
	}
}

func askZone(ctx context.Context, client *http.Client, endpoint string) (string, error) {
	endpoint = strings.TrimSuffix(endpoint, "/")
	token, err := imds(ctx, client, http.MethodPut, endpoint+"/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if err != nil {
		return "", err
	}
	return imds(ctx, client, http.MethodGet, endpoint+"/latest/meta-data/placement/availability-zone", "X-aws-ec2-metadata-token", token)
}

func imds(ctx context.Context, client *http.Client, method, url, header, value string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set(header, value)
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1024))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if res.StatusCode != http.StatusOK || text == "" || strings.ContainsAny(text, "<>\r\n") {
		return "", fmt.Errorf("metadata service: %s", res.Status)
	}
	return text, nil
}
