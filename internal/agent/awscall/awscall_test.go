package awscall

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"slipway/internal/aws/sigv4"
)

type keys struct{}

func (keys) Lookup(_ context.Context, id, token string) (sigv4.Credential, error) {
	if id != "AKID" {
		return sigv4.Credential{}, sigv4.ErrUnknownKey
	}
	return sigv4.Credential{Secret: "secret"}, nil
}

// checked answers with f after the house's own verifier has accepted the signature at the server's time.
func checked(t *testing.T, offset time.Duration, f http.HandlerFunc) *httptest.Server {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := time.Now().Add(offset)
		w.Header().Set("Date", now.UTC().Format(http.TimeFormat))
		s, err := sigv4.Parse(r)
		if err != nil {
			t.Error(err)
		}
		body, _ := io.ReadAll(r.Body)
		sum := sha256.Sum256(body)
		_, err = sigv4.Verify(r.Context(), r, s, keys{}, sigv4.Options{S3: s.Service == "s3", PayloadHash: hex.EncodeToString(sum[:]), Now: now})
		if err == nil {
			f(w, r)
			return
		}
		code := "IncompleteSignatureException"
		var p *sigv4.Problem
		switch errors.As(err, &p); p.Kind {
		case sigv4.Skewed:
			code = "InvalidSignatureException"
		case sigv4.UnknownKey:
			code = "UnrecognizedClientException"
		}
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `{"__type":"`+code+`","message":"refused"}`)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// changing credentials are wrong until they have been forgotten once.
type changing struct{ id string }

func (c *changing) Keys(context.Context) (aws.Credentials, error) {
	return aws.Credentials{AccessKeyID: c.id, SecretAccessKey: "secret"}, nil
}
func (c *changing) Forget() { c.id = "AKID" }

func TestSignatures(t *testing.T) {
	for name, offset := range map[string]time.Duration{"same time": 0, "the server's clock is scaled ahead": 400 * time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			srv := checked(t, offset, func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					io.WriteString(w, r.URL.Path+"?"+r.URL.RawQuery)
					return
				}
				io.WriteString(w, `{"Answer":"`+r.Header.Get("X-Amz-Target")+`"}`)
			})
			c, err := New(srv.URL+"/", "us-east-1", &changing{id: "OLD"})
			if err != nil {
				t.Fatal(err)
			}
			var out struct{ Answer string }
			if err := c.JSON(t.Context(), "codedeploy-commands", "T.Op", http.Header{"X-Extra": {"1"}}, map[string]string{"a": "b"}, &out); err != nil {
				t.Fatal(err)
			}
			if out.Answer != "T.Op" {
				t.Errorf("answer %q", out.Answer)
			}
			resp, err := c.GetObject(t.Context(), "bucket", "a b/ü+?&%/d-1.zip", "v/1=")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, _ := io.ReadAll(resp.Body); string(got) != "/bucket/a b/ü+?&%/d-1.zip?versionId=v%2F1%3D" {
				t.Errorf("object %s", got)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		status    int
		body      string
		code, msg string
		temporary bool
	}{
		{400, `{"__type":"com.amazonaws#ClientException","message":"no"}`, "ClientException", "no", false},
		{400, `{"__type":"ThrottlingException","Message":"slow"}`, "ThrottlingException", "slow", true},
		{404, `<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>`, "NoSuchKey", "gone", false},
		{500, `oops`, "InternalServerError", "oops", true},
		{501, ``, "NotImplemented", "", false},
	}
	for _, tt := range tests {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(tt.status)
			io.WriteString(w, tt.body)
		}))
		c, _ := New(srv.URL, "us-east-1", Static{AccessKeyID: "a", SecretAccessKey: "b"})
		err := c.JSON(t.Context(), "x", "T.Op", nil, struct{}{}, nil)
		srv.Close()
		var e *Error
		if !errors.As(err, &e) || e.Status != tt.status || e.Code != tt.code || e.Message != tt.msg || Temporary(err) != tt.temporary {
			t.Errorf("%d %s: %+v, temporary %v", tt.status, tt.body, e, Temporary(err))
		}
	}
	if _, err := New("172.31.0.2:4566", "r", nil); err == nil {
		t.Error("an endpoint that is no URL was taken")
	}
}
