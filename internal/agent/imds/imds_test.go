package imds

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// fake is a metadata service with tokens; life is the remaining life of the credentials it hands out.
type fake struct {
	tokens, creds atomic.Int64
	revoked       atomic.Bool
	life          time.Duration
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" {
		io.WriteString(w, fmt.Sprintf("token-%d", f.tokens.Add(1)))
		f.revoked.Store(false)
		return
	}
	if r.Header.Get("X-Aws-Ec2-Metadata-Token") != fmt.Sprintf("token-%d", f.tokens.Load()) || f.revoked.Load() {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/latest/meta-data/iam/security-credentials/":
		io.WriteString(w, "role")
	case "/latest/meta-data/iam/security-credentials/role":
		fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":"AK%d","SecretAccessKey":"s","Token":"t","Expiration":%q}`,
			f.creds.Add(1), time.Now().Add(f.life).UTC().Format(time.RFC3339))
	case "/latest/dynamic/instance-identity/document":
		io.WriteString(w, `{"accountId":"123456789012","region":"us-east-1","instanceId":"i-1"}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func TestClient(t *testing.T) {
	f := &fake{life: time.Hour}
	srv := httptest.NewServer(f)
	defer srv.Close()
	c := New(srv.URL)
	for range 3 {
		if id, err := c.Identity(t.Context()); err != nil || id.InstanceID != "i-1" {
			t.Fatal(id, err)
		}
		if cr, err := c.Credentials(t.Context()); err != nil || cr.AccessKeyID != "AK1" {
			t.Fatal(cr, err)
		}
	}
	if n := f.tokens.Load(); n != 1 {
		t.Errorf("%d tokens for one session", n)
	}
	f.revoked.Store(true) // the service has restarted
	if _, err := c.Identity(t.Context()); err != nil {
		t.Error(err)
	}
	c.Forget()
	if cr, err := c.Credentials(t.Context()); err != nil || cr.AccessKeyID != "AK2" {
		t.Error("Forget did not lead to fresh credentials", cr, err)
	}
	if _, err := c.Get(t.Context(), "/latest/nothing"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if p := c.Partition(t.Context()); p != "aws" {
		t.Error(p)
	}
}

func TestRefresh(t *testing.T) {
	f := &fake{life: 2 * time.Minute}
	srv := httptest.NewServer(f)
	c := New(srv.URL)
	c.Credentials(t.Context())
	if cr, err := c.Credentials(t.Context()); err != nil || cr.AccessKeyID != "AK2" {
		t.Error("credentials near their end were not renewed", cr, err)
	}
	srv.Close()
	if cr, err := c.Credentials(t.Context()); err != nil || cr.AccessKeyID != "AK2" {
		t.Error("credentials that are still good were dropped while the service is away", cr, err)
	}
}
