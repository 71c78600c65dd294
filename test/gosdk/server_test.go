package gosdk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// soon bounds every wait of the SDK's waiters and of this package.
const soon = 2 * time.Minute

// logBuffer keeps what the server writes while the test may read it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs a server without machines on a free port, stops it with the test,
// and returns the SDK's configuration for it. Nothing of whoever runs the test
// is read: no files of the home directory and no environment.
func start(t *testing.T) aws.Config {
	t.Helper()
	t.Parallel()
	bin := os.Getenv("SLIPWAY")
	if bin == "" {
		t.Skip("needs SLIPWAY=path of the built binary: run make scenarios")
	}
	dir := filepath.Join(t.TempDir(), "data")
	log := &logBuffer{}
	cmd := exec.Command(bin, "server", "--data-dir", dir, "--machines=simulated", "--ephemeral", "--listen", "127.0.0.1:0")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan struct{})
	go func() { cmd.Wait(); close(died) }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-died:
		case <-time.After(soon):
			cmd.Process.Kill()
			t.Error("the server did not end when it was asked to")
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", log)
		}
	})
	var run struct {
		PID      int
		Endpoint string
	}
	eventually(t, "the server to be ready", func() bool {
		select {
		case <-died:
			t.Fatalf("the server ended:\n%s", log)
		default:
		}
		b, err := os.ReadFile(filepath.Join(dir, "server.json"))
		return err == nil && json.Unmarshal(b, &run) == nil && run.PID == cmd.Process.Pid
	})
	var keys struct{ AccessKeyId, SecretAccessKey string }
	b, err := os.ReadFile(filepath.Join(dir, "root-credentials.json"))
	if err == nil {
		err = json.Unmarshal(b, &keys)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithRegion("us-east-1"), config.WithBaseEndpoint(run.Endpoint),
		config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(keys.AccessKeyId, keys.SecretAccessKey, "")),
		config.WithSharedConfigFiles([]string{}), config.WithSharedCredentialsFiles([]string{}), config.WithRetryer(connections))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// connections retries what the SDK takes for trouble of a connection, such as
// its own transport closing one while an answer is read, and no error that the
// server answered.
func connections() aws.Retryer {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.Retryables = []retry.IsErrorRetryable{retry.RetryableConnectionError{}}
	})
}

// eventually polls until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// must is the answer of a call that has to succeed: must(t)(client.Op(...)).
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// ok fails the test if a call did.
func ok(t *testing.T, _ any, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused wants one of the SDK's exception types, which it makes only of the
// right code in the right place of the answer.
func refused[E error](t *testing.T, what string, _ any, err error) {
	t.Helper()
	var want E
	if !errors.As(err, &want) {
		t.Errorf("%s: want a %T, got %v", what, want, err)
	}
}

// coded wants an error code for which the SDK has no type.
func coded(t *testing.T, code string, _ any, err error) {
	t.Helper()
	var e smithy.APIError
	if !errors.As(err, &e) || e.ErrorCode() != code {
		t.Errorf("want %s, got %v", code, err)
	} else if e.ErrorMessage() == "" {
		t.Errorf("%s without a message", code)
	}
}

// pager is any paginator of the SDK.
type pager[P, O any] interface {
	HasMorePages() bool
	NextPage(context.Context, ...func(*O)) (P, error)
}

// pages reads all pages, and returns how many there were.
func pages[P, O any](t *testing.T, p pager[P, O], each func(P)) int {
	t.Helper()
	n := 0
	for ; p.HasMorePages() && n < 1000; n++ {
		page, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		each(page)
	}
	return n
}

// hostAsItIs keeps the SDK from putting a prefix before the endpoint's host.
func hostAsItIs(stack *middleware.Stack) error {
	return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("HostAsItIs", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
		return next.HandleInitialize(smithyhttp.DisableEndpointHostPrefix(ctx, true), in)
	}), middleware.Before)
}
