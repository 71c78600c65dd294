package imds

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// source is one instance at one address.
type source struct {
	instance Instance
	state    string
	fetched  int
	life     time.Duration
	now      func() time.Time
	fail     error
}

func (s *source) ByAddress(_ context.Context, ip netip.Addr) (*Instance, error) {
	if ip.String() != s.instance.PrivateIP {
		return nil, ErrUnknown
	}
	i := s.instance
	return &i, nil
}

func (s *source) Role(context.Context, *Instance) (string, string, error) {
	return "web-role", "arn:aws:iam::123456789012:role/web-role", nil
}

func (s *source) Credentials(context.Context, *Instance, string) (Credentials, error) {
	if s.fail != nil {
		return Credentials{}, s.fail
	}
	s.fetched++
	return Credentials{"ASIA", "secret", "token", s.now().Add(s.life)}, nil
}

func (s *source) LifecycleState(context.Context, *Instance) (string, error) { return s.state, nil }

func testInstance() Instance {
	return Instance{ID: "i-0123456789abcdef0", Account: "123456789012", Region: "us-east-1", Image: "ami-1", Type: "t3.micro", Arch: "x86_64", Zone: "us-east-1b", ZoneID: "use1-az2",
		PrivateIP: "172.31.16.9", MAC: "02:00:00:00:00:01", Hostname: "ip-172-31-16-9.ec2.internal", ENI: "eni-1", Subnet: "subnet-1", SubnetCIDR: "172.31.16.0/20", VPC: "vpc-1", VPCCIDR: "172.31.0.0/16",
		GroupIDs: []string{"sg-1"}, GroupNames: []string{"default"}, KeyName: "me", PublicKey: "ssh-ed25519 AAAA me", Lifecycle: "on-demand", UserData: []byte("#!/bin/sh\n"),
		ProfileArn: "arn:aws:iam::123456789012:instance-profile/web", ProfileID: "AIPA", ProfileName: "web", Tags: map[string]string{"Name": "web"}}
}

type tester struct {
	t *testing.T
	h *Handler
	s *source
}

func newTester(t *testing.T) *tester {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	x := &tester{t: t, s: &source{instance: testInstance(), life: time.Hour}}
	x.h = New(x.s, slog.New(slog.DiscardHandler))
	x.h.tokens.now = func() time.Time { return now }
	x.s.now = func() time.Time { return x.h.tokens.now() }
	return x
}

func (x *tester) do(method, path string, headers ...string) (int, string) {
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = x.s.instance.PrivateIP + ":40000"
	for n := 0; n < len(headers); n += 2 {
		if headers[n] == "from" {
			r.RemoteAddr = headers[n+1]
			continue
		}
		r.Header.Set(headers[n], headers[n+1])
	}
	w := httptest.NewRecorder()
	x.h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestTree(t *testing.T) {
	x := newTester(t)
	for path, want := range map[string]string{
		"/latest/meta-data/instance-id":                                      "i-0123456789abcdef0",
		"/2021-07-15/meta-data/instance-id":                                  "i-0123456789abcdef0",
		"/latest/meta-data/placement/availability-zone":                      "us-east-1b",
		"/latest/meta-data/placement/availability-zone-id":                   "use1-az2",
		"/latest/meta-data/placement/region":                                 "us-east-1",
		"/latest/meta-data/placement/":                                       "availability-zone\navailability-zone-id\nregion",
		"/latest/meta-data/placement":                                        "availability-zone\navailability-zone-id\nregion",
		"/latest/meta-data/local-ipv4":                                       "172.31.16.9",
		"/latest/meta-data/network/interfaces/macs/":                         "02:00:00:00:00:01/",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/vpc-id": "vpc-1",
		"/latest/meta-data/iam/security-credentials/":                        "web-role",
		"/latest/meta-data/tags/instance/Name":                               "web",
		"/latest/meta-data/public-keys/":                                     "0=me",
		"/latest/meta-data/public-keys/0/openssh-key":                        "ssh-ed25519 AAAA me",
		"/latest/meta-data/services/domain":                                  "amazonaws.com",
		"/latest/user-data":                                                  "#!/bin/sh\n",
		"/latest/":                                                           "dynamic\nmeta-data\nuser-data",
	} {
		if code, body := x.do("GET", path); code != 200 || body != want {
			t.Errorf("%s: %d %q, want %q", path, code, body, want)
		}
	}
	_, list := x.do("GET", "/latest/meta-data/")
	for _, want := range []string{"iam/", "instance-id", "network/", "placement/", "tags/"} {
		if !strings.Contains("\n"+list+"\n", "\n"+want+"\n") {
			t.Errorf("the listing lacks %s:\n%s", want, list)
		}
	}
	_, body := x.do("GET", "/latest/dynamic/instance-identity/document")
	var doc map[string]any
	if err := json.Unmarshal([]byte(body), &doc); err != nil || doc["instanceId"] != "i-0123456789abcdef0" || doc["privateIp"] != "172.31.16.9" {
		t.Errorf("identity document %s: %v", body, err)
	}
	for _, path := range []string{"/latest/meta-data/nothing", "/latest/dynamic/instance-identity/pkcs7", "/latest/meta-data/autoscaling/target-lifecycle-state", "/latest/meta-data/public-ipv4", "/latest/meta-data/iam/security-credentials/other", "/latest/../etc/passwd"} {
		if code, _ := x.do("GET", path); code != 404 {
			t.Errorf("%s: %d, want 404", path, code)
		}
	}
	x.s.state = "InService"
	if _, body := x.do("GET", "/latest/meta-data/autoscaling/target-lifecycle-state"); body != "InService" {
		t.Errorf("target state %q", body)
	}
}

func TestTokens(t *testing.T) {
	x := newTester(t)
	const ttl, token = "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
	id := "/latest/meta-data/instance-id"
	code, session := x.do("PUT", "/latest/api/token", ttl, "60")
	if code != 200 || session == "" {
		t.Fatalf("token: %d", code)
	}
	other := x.h.tokens.issue("i-0fffffffffffffff0", time.Minute)
	x.s.instance.TokensRequired = true
	for _, c := range []struct {
		what    string
		method  string
		path    string
		headers []string
		want    int
	}{
		{"with the token", "GET", id, []string{token, session}, 200},
		{"without one", "GET", id, nil, 401},
		{"another instance's", "GET", id, []string{token, other}, 401},
		{"nonsense", "GET", id, []string{token, "AAAA"}, 401},
		{"tampered", "GET", id, []string{token, "A" + session[1:]}, 401},
		{"GET for a token", "GET", "/latest/api/token", nil, 405},
		{"PUT elsewhere", "PUT", id, []string{token, session}, 405},
		{"POST", "POST", id, []string{token, session}, 405},
		{"no ttl", "PUT", "/latest/api/token", nil, 400},
		{"ttl 0", "PUT", "/latest/api/token", []string{ttl, "0"}, 400},
		{"ttl beyond six hours", "PUT", "/latest/api/token", []string{ttl, "21601"}, 400},
		{"through a proxy", "PUT", "/latest/api/token", []string{ttl, "60", "X-Forwarded-For", "1.2.3.4"}, 403},
		{"from nowhere", "GET", id, []string{"from", "172.31.0.99:1", token, session}, 404},
	} {
		if code, _ := x.do(c.method, c.path, c.headers...); code != c.want {
			t.Errorf("%s: %d, want %d", c.what, code, c.want)
		}
	}
	later := x.h.tokens.now().Add(61 * time.Second)
	x.h.tokens.now = func() time.Time { return later }
	if code, _ := x.do("GET", id, token, session); code != 401 {
		t.Errorf("an expired token: %d", code)
	}
	x.s.instance.Disabled = true
	if code, _ := x.do("GET", id); code != http.StatusForbidden {
		t.Errorf("disabled: %d", code)
	}
}

func TestCredentialsAreRenewedBeforeTheyExpire(t *testing.T) {
	x := newTester(t)
	get := func() string {
		t.Helper()
		code, body := x.do("GET", "/latest/meta-data/iam/security-credentials/web-role")
		var c roleCredentials
		if err := json.Unmarshal([]byte(body), &c); err != nil || code != 200 || c.Code != "Success" || c.Type != "AWS-HMAC" {
			t.Fatalf("%d %s: %v", code, body, err)
		}
		return c.Expiration
	}
	now := x.h.tokens.now()
	first := get()
	if get() != first || x.s.fetched != 1 {
		t.Errorf("fetched %d times", x.s.fetched)
	}
	now = now.Add(46 * time.Minute)
	x.h.tokens.now = func() time.Time { return now }
	x.s.fail = errors.New("sts is away")
	if get() != first {
		t.Error("valid credentials were thrown away")
	}
	x.s.fail = nil
	if get() == first {
		t.Error("not renewed with fourteen minutes left")
	}
}
