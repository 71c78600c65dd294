package codedeploy

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"slipway/internal/agent/awscall"
	agent "slipway/internal/agent/codedeploy"
	api "slipway/internal/api/codedeploy"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/sigv4"
)

// roleKeys are the credentials of an instance's role: the access key is the
// instance's id.
type roleKeys struct{}

func (roleKeys) Lookup(_ context.Context, id, _ string) (sigv4.Credential, error) {
	if id == "dev" {
		return sigv4.Credential{Secret: "secret", Account: testAccount, PrincipalARN: "arn:aws:iam::123456789012:user/dev"}, nil
	}
	if !validInstanceID(id) {
		return sigv4.Credential{}, errors.New("unknown key")
	}
	return sigv4.Credential{Secret: "secret", Account: testAccount, PrincipalARN: "arn:aws:sts::123456789012:assumed-role/app/" + id}, nil
}

func bundle(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range files {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(0o755)
		f, err := z.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Slipway's own host agent and this service, over HTTP with signatures: a
// deployment that installs files and runs scripts, one that fails, and its
// rollback.
func TestRealAgentOverTheWire(t *testing.T) {
	const id = "i-0123456789abcdef0"
	w := newWorld(t).start()
	root, dest := t.TempDir(), t.TempDir()
	spec := "version: 0.0\nos: linux\nfiles:\n  - source: page.txt\n    destination: " + dest + "\nfile_exists_behavior: OVERWRITE\nhooks:\n  ValidateService:\n    - location: validate.sh\n      timeout: 10\n"
	revisions := map[string][]byte{
		"app.zip":  bundle(t, map[string]string{"appspec.yml": spec, "page.txt": "one", "validate.sh": "#!/bin/sh\necho checked $DEPLOYMENT_GROUP_NAME\n"}),
		"next.zip": bundle(t, map[string]string{"appspec.yml": spec, "page.txt": "two", "validate.sh": "#!/bin/sh\necho no answer on port 80 >&2\nexit 7\n"}),
	}
	dispatch.Register(w.mux, s3.OpGetObject, func(_ context.Context, in *s3.GetObjectInput) (*s3.GetObjectOutput, error) {
		b, ok := revisions[*in.Key]
		if !ok {
			return nil, awserr.New("NoSuchKey", "no such key")
		}
		return &s3.GetObjectOutput{Body: io.NopCloser(bytes.NewReader(b)), ContentLength: new(int64(len(b))), ETag: new(`"e1"`)}, nil
	})
	server := httptest.NewServer(w.mux.Handler(dispatch.Config{Keys: roleKeys{}, Now: time.Now}))
	defer server.Close()
	client := func(key string) *awscall.Client {
		c, err := awscall.New(server.URL, testRegion, awscall.Static(aws.Credentials{AccessKeyID: key, SecretAccessKey: "secret"}))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	w.addInstance(id, "us-east-1a")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- agent.New(agent.Config{Host: hostARN(id), API: client(id), Root: root, WorkDir: root}).Run(ctx)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	w.setUp(nil)
	started := time.Now()
	d := w.deploy("app.zip")
	if info := w.wait(d); *info.Status != "Succeeded" {
		t.Fatalf("%s", *info.ErrorInformation.Message)
	}
	t.Logf("seven events took %s", time.Since(started).Round(time.Millisecond))
	if b, err := os.ReadFile(filepath.Join(dest, "page.txt")); err != nil || string(b) != "one" {
		t.Errorf("%q %v", b, err)
	}
	info := w.wait(w.deploy("next.zip"))
	if *info.Status != "Failed" || !strings.Contains(*info.ErrorInformation.Message, "no answer on port 80") || !strings.Contains(*info.ErrorInformation.Message, "validate.sh") {
		t.Fatalf("%s %s", *info.Status, *info.ErrorInformation.Message)
	}
	back := w.wait(*info.RollbackInfo.RollbackDeploymentId)
	if *back.Status != "Succeeded" {
		t.Fatalf("%s", *back.ErrorInformation.Message)
	}
	if b, err := os.ReadFile(filepath.Join(dest, "page.txt")); err != nil || string(b) != "one" {
		t.Errorf("after the rollback: %q %v", b, err)
	}
	// The public API over the wire, with AWS's errors.
	var out struct{ Deployments []string }
	in := map[string]any{"applicationName": "todo", "deploymentGroupName": "web"}
	if err := client("dev").JSON(ctx, "codedeploy", "CodeDeploy_20141006.ListDeployments", nil, in, &out); err != nil || len(out.Deployments) != 3 {
		t.Errorf("%v %v", out, err)
	}
	err := client("dev").JSON(ctx, "codedeploy", "CodeDeploy_20141006.GetApplication", nil, map[string]string{"applicationName": "none"}, &out)
	if e := (&awscall.Error{}); !errors.As(err, &e) || e.Status != 400 || e.Code != api.ErrCodeApplicationDoesNotExistException {
		t.Error(err)
	}
}
