package s3_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	api "slipway/internal/api/s3"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/blob"
	"slipway/internal/clock"
	"slipway/internal/keyring"
	"slipway/internal/services/iam"
	"slipway/internal/services/s3"
	"slipway/internal/store"
)

type server struct {
	mux   *dispatch.Mux
	env   []string
	blobs *blob.Dir
	ctx   context.Context
}

func start(t *testing.T) *server {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	blobs, err := blob.OpenDir(filepath.Join(t.TempDir(), "blobs"), false)
	if err != nil {
		t.Fatal(err)
	}
	m := dispatch.New()
	root := iam.NewRoot()
	keys := iam.New(iam.Deps{Store: st, Ring: keyring.Ephemeral(), Root: root})
	s3.New(s3.Deps{Store: st, Blobs: blobs}).Register(m)
	srv := httptest.NewServer(m.Handler(dispatch.Config{Keys: keys, Now: clock.Real.Now, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}))
	t.Cleanup(srv.Close)
	home := t.TempDir() // no configuration of whoever runs the test
	env := append(os.Environ(), "AWS_ENDPOINT_URL="+srv.URL, "AWS_ACCESS_KEY_ID="+root.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+root.Secret,
		"AWS_SESSION_TOKEN=", "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1", "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE="+home+"/config", "AWS_SHARED_CREDENTIALS_FILE="+home+"/credentials")
	return &server{mux: m, env: env, blobs: blobs, ctx: caller.With(t.Context(), caller.Identity{Account: "123456789012", Region: "us-east-1"})}
}

func TestBoto3(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Python: slow")
	}
	if err := exec.Command("python3", "-c", "import boto3").Run(); err != nil {
		t.Skip("needs python3 with boto3")
	}
	cmd := exec.CommandContext(t.Context(), "python3", "testdata/client.py")
	cmd.Env = start(t).env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestCLI(t *testing.T) {
	if testing.Short() {
		t.Skip("starts Python: slow")
	}
	if _, err := exec.LookPath("aws"); err != nil {
		t.Skip("needs the aws CLI")
	}
	s, dir := start(t), t.TempDir()
	for _, f := range []string{"a.txt", "sub/b.txt", "sub/c d.txt"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, f)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, f), []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	back := filepath.Join(t.TempDir(), "back")
	for _, step := range []struct{ args, want string }{
		{"s3 mb s3://cli-bucket", "make_bucket: cli-bucket"},
		{"s3 sync " + dir + " s3://cli-bucket/x", "upload:"},
		{"s3 ls s3://cli-bucket --recursive", "x/sub/c d.txt"},
		{"s3 ls s3://cli-bucket/x/", "PRE sub/"},
		{"s3 sync s3://cli-bucket/x " + back, "download:"},
		{"s3 cp s3://cli-bucket/x/a.txt -", "a.txt"},
		{"s3 mv s3://cli-bucket/x/a.txt s3://cli-bucket/y.txt", "move:"},
		{"s3 rb s3://cli-bucket --force", "remove_bucket: cli-bucket"},
	} {
		cmd := exec.CommandContext(t.Context(), "aws", strings.Fields(step.args)...)
		cmd.Env = s.env
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), step.want) {
			t.Fatalf("aws %s: %v\n%s", step.args, err, out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(back, "sub", "c d.txt")); err != nil || string(b) != "sub/c d.txt" {
		t.Errorf("synced back: %q %v", b, err)
	}
}

// TestInProcess is how the other services put and get artifacts.
func TestInProcess(t *testing.T) {
	s := start(t)
	if _, err := dispatch.Call(s.ctx, s.mux, api.OpCreateBucket, &api.CreateBucketInput{Bucket: new("artifacts")}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		body := fmt.Sprint("artifact ", i)
		if _, err := dispatch.Call(s.ctx, s.mux, api.OpPutObject, &api.PutObjectInput{Bucket: new("artifacts"), Key: new("k"), Body: io.NopCloser(strings.NewReader(body))}); err != nil {
			t.Fatal(err)
		}
		got, err := dispatch.Call(s.ctx, s.mux, api.OpGetObject, &api.GetObjectInput{Bucket: new("artifacts"), Key: new("k")})
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(got.Body)
		if err != nil || string(b) != body {
			t.Fatalf("%q %v", b, err)
		}
		if err := got.Body.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// A body that breaks leaves the old object.
	_, err := dispatch.Call(s.ctx, s.mux, api.OpPutObject, &api.PutObjectInput{Bucket: new("artifacts"), Key: new("k"),
		Body: io.NopCloser(io.MultiReader(bytes.NewReader([]byte("half")), broken{}))})
	if err == nil {
		t.Fatal("half a body was stored")
	}
	h, err := dispatch.Call(s.ctx, s.mux, api.OpHeadObject, &api.HeadObjectInput{Bucket: new("artifacts"), Key: new("k")})
	if err != nil || *h.ContentLength != int64(len("artifact 2")) {
		t.Fatalf("%+v %v", h, err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
