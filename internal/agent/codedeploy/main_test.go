package codedeploy

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// The machines that agents run in have this mask.
func TestMain(m *testing.M) {
	syscall.Umask(0o022)
	os.Exit(m.Run())
}

// TestServe starts the agent as an instance does: everything but the endpoint comes from the metadata service.
// The bundle has its revision in a directory of its own, as archives made by hosting services do.
func TestServe(t *testing.T) {
	meta := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/latest/api/token":
			io.WriteString(w, "token")
		case "/latest/dynamic/instance-identity/document":
			io.WriteString(w, `{"accountId":"123456789012","region":"us-east-1","instanceId":"i-0123456789abcdef0"}`)
		case "/latest/meta-data/iam/security-credentials/":
			io.WriteString(w, "web")
		case "/latest/meta-data/iam/security-credentials/web":
			fmt.Fprintf(w, `{"Code":"Success","AccessKeyId":"AKID","SecretAccessKey":"s","Token":"t","Expiration":%q}`, time.Now().Add(time.Hour).Format(time.RFC3339))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer meta.Close()
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	s := newService(t)
	ex := s.deployment("d-TOP", map[string]string{"repo-1/appspec.yaml": "version: 0.0\nos: linux\n", "repo-1/f": "x"}, nil)
	root := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- serve(ctx, options{endpoint: s.url, imds: meta.URL, root: root, logDir: filepath.Join(root, "log")}, io.Discard)
	}()
	for _, event := range []string{"DownloadBundle", "BeforeInstall", "Install"} {
		if st, d := s.event(ex, event); st != "Succeeded" {
			t.Errorf("%s: %+v", event, d)
		}
	}
	if got := read(t, filepath.Join(root, "6a5d1c7e-group", "d-TOP", "deployment-archive", "f")); got != "x" {
		t.Errorf("unpacked %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "")
	t.Setenv("AWS_ENDPOINT_URL_CODEDEPLOY_COMMANDS", "")
	for _, args := range [][]string{{}, {"--nosuch"}, {"--endpoint", "http://127.0.0.1:1", "surplus"}} {
		if got := Main(args); got != 2 {
			t.Errorf("%v: status %d", args, got)
		}
	}
}
