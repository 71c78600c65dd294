package codedeploy

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/smallstep/pkcs7"

	"slipway/internal/agent/awscall"
)

const host = "arn:aws:ec2:us-east-1:123456789012:instance/i-0123456789abcdef0"

// service is a command service and an S3 with one bucket, for the tests of the whole loop.
type service struct {
	t       testing.TB
	url     string
	key     *ecdsa.PrivateKey
	cert    *x509.Certificate
	queue   chan hostCommand
	results chan completion

	mu      sync.Mutex
	down    bool
	acks    []string
	specs   map[string]envelope // by execution id
	objects map[string][]byte
}

func newService(t testing.TB) *service {
	t.Helper()
	s := &service{t: t, queue: make(chan hostCommand, 16), results: make(chan completion, 16),
		specs: map[string]envelope{}, objects: map[string][]byte{}}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &s.key.PublicKey, s.key)
	if err != nil {
		t.Fatal(err)
	}
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *service) sign(content []byte) envelope {
	sd, err := pkcs7.NewSignedData(content)
	if err != nil {
		s.t.Fatal(err)
	}
	sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := sd.AddSigner(s.cert, s.key, pkcs7.SignerInfoConfig{}); err != nil {
		s.t.Fatal(err)
	}
	der, err := sd.Finish()
	if err != nil {
		s.t.Fatal(err)
	}
	return envelope{Format: "PKCS7/JSON", Payload: string(pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: der}))}
}

func (s *service) setDown(down bool) { s.mu.Lock(); s.down = down; s.mu.Unlock() }

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	down := s.down
	s.mu.Unlock()
	if down {
		w.WriteHeader(503)
		return
	}
	auth := r.Header.Get("Authorization")
	if r.Method == http.MethodGet {
		s.mu.Lock()
		body, ok := s.objects[r.URL.Path]
		s.mu.Unlock()
		if !ok || !strings.Contains(auth, "/us-east-1/s3/aws4_request") {
			w.WriteHeader(404)
			fmt.Fprint(w, "<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>")
			return
		}
		w.Header().Set("ETag", `"etag1"`)
		w.Write(body)
		return
	}
	if !strings.Contains(auth, "/us-east-1/codedeploy-commands/aws4_request") {
		w.WriteHeader(403)
		return
	}
	op, _ := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "CodeDeployCommandService_v20141006.")
	body, _ := io.ReadAll(r.Body)
	if out := s.operation(r.Context(), op, body); out != nil {
		json.NewEncoder(w).Encode(out)
	}
}

func (s *service) operation(ctx context.Context, op string, body []byte) any {
	switch op {
	case "PollHostCommand":
		select {
		case c := <-s.queue:
			return map[string]any{"HostCommand": c}
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
		return map[string]any{}
	case "GetDeploymentSpecification":
		var in struct{ DeploymentExecutionId string }
		json.Unmarshal(body, &in)
		s.mu.Lock()
		defer s.mu.Unlock()
		return map[string]any{"DeploymentSystem": "CodeDeploy", "DeploymentSpecification": map[string]any{"GenericEnvelope": s.specs[in.DeploymentExecutionId]}}
	case "PutHostCommandAcknowledgement":
		var in struct{ Diagnostics envelope }
		json.Unmarshal(body, &in)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.acks = append(s.acks, in.Diagnostics.Payload)
		return map[string]string{"CommandStatus": "InProgress"}
	case "PutHostCommandComplete":
		var in completion
		json.Unmarshal(body, &in)
		s.results <- in
		return nil
	}
	s.t.Errorf("unexpected operation %q", op)
	return map[string]any{}
}

// deployment registers a bundle and a signed specification; the result is the execution id.
func (s *service) deployment(id string, files map[string]string, change func(map[string]any)) string {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(0o644)
		w, err := z.CreateHeader(h)
		if err != nil {
			s.t.Fatal(err)
		}
		io.WriteString(w, text)
	}
	z.Close()
	spec := map[string]any{"DeploymentId": "arn:aws:codedeploy:us-east-1:123456789012:deployment/" + id, "DeploymentGroupId": "6a5d1c7e-group",
		"DeploymentGroupName": "grp", "ApplicationName": "app",
		"Revision": map[string]any{"RevisionType": "S3", "S3Revision": map[string]any{"Bucket": "b", "Key": "dir/" + id + " 1.zip", "BundleType": "zip", "ETag": `"etag1"`}}}
	if change != nil {
		change(spec)
	}
	text, err := json.Marshal(spec)
	if err != nil {
		s.t.Fatal(err)
	}
	execution := "CodeDeploy/us-east-1/prod/" + id
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects["/b/dir/"+id+" 1.zip"] = b.Bytes()
	s.specs[execution] = s.sign(text)
	return execution
}

// event queues one event and waits for its diagnostics.
func (s *service) event(execution, name string) (string, diagnostics) {
	s.t.Helper()
	s.queue <- hostCommand{HostCommandIdentifier: execution + ":" + name, HostIdentifier: host, DeploymentExecutionId: execution, CommandName: name}
	return s.result()
}

func (s *service) result() (string, diagnostics) {
	s.t.Helper()
	select {
	case c := <-s.results:
		var d diagnostics
		if err := json.Unmarshal([]byte(c.Diagnostics.Payload), &d); err != nil {
			s.t.Fatal(err)
		}
		return c.CommandStatus, d
	case <-time.After(time.Minute):
		s.t.Fatal("no completion came")
	}
	return "", diagnostics{}
}

func (s *service) config(root string) Config {
	api, err := awscall.New(s.url, "us-east-1", awscall.Static(aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}))
	if err != nil {
		s.t.Fatal(err)
	}
	return Config{Host: host, API: api, Root: root, WorkDir: "/", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), KillGrace: 300 * time.Millisecond}
}

// start runs an agent until stop is called.
func (s *service) start(root string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	a := New(s.config(root))
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				s.t.Errorf("Run: %v", err)
			}
		})
	}
	s.t.Cleanup(stop)
	return stop
}
