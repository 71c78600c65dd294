package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"slipway/internal/aws/client"
	"slipway/internal/aws/model"
	"slipway/internal/hostinfo"
)

// session is one command's connection to a running server.
type session struct {
	dataDir  string
	endpoint string // "http://127.0.0.1:4566"
	keys     hostinfo.Credentials
	region   string
	client   *client.Client
	http     *http.Client
}

// errNoServer says that nothing answers where a server should be.
var errNoServer = errors.New("no Slipway server is running here")

// connect finds the running server of the data directory, or the one that
// AWS_ENDPOINT_URL names, and the keys to it.
func connect(o *options) (*session, error) {
	s := &session{dataDir: o.dataDir, region: o.region, http: &http.Client{}}
	run, err := hostinfo.ReadRunning(o.dataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w (data directory %s); start one with: %s up, or: %s server", errNoServer, o.dataDir, command(o.dataDir), command(o.dataDir))
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%s belongs to another user: run this as root (sudo %s ...)", o.dataDir, self())
	case errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%s is no directory; give the server's data directory with --data-dir", o.dataDir)
	case err != nil:
		return nil, err
	}
	s.endpoint = run.Endpoint
	if s.keys, err = hostinfo.ReadCredentials(o.dataDir); err != nil {
		return nil, err
	}
	s.client, err = client.New(client.Config{Endpoint: s.endpoint, AccessKeyID: s.keys.AccessKeyID, SecretAccessKey: s.keys.SecretAccessKey, Region: s.region})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if _, err := s.health(ctx); err != nil {
		return nil, fmt.Errorf("%w: %s does not answer (%v); its log is %s", errNoServer, s.endpoint, err, filepath.Join(o.dataDir, "server.log"))
	}
	return s, nil
}

// self is how the user calls this program.
func self() string {
	if strings.ContainsRune(os.Args[0], '/') && !filepath.IsAbs(os.Args[0]) {
		return os.Args[0]
	}
	return "slipway"
}

// selfName is self, but for tests.
var selfName = self

// command is how to call this program for the server of a data directory.
func command(dataDir string) string {
	if dataDir == defaultDataDir() {
		return selfName()
	}
	return selfName() + " --data-dir " + shellWord(dataDir)
}

// shellWord quotes s only where a shell would take it for more than a word.
func shellWord(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@", r))
	}) < 0 {
		return s
	}
	return quote(s)
}

type health struct {
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	Machines string `json:"machines"`
}

func (s *session) health(ctx context.Context) (health, error) {
	var h health
	return h, s.admin(ctx, http.MethodGet, "health", nil, &h)
}

// admin calls what AWS has no API for, below /_slipway/.
func (s *session) admin(ctx context.Context, method, path string, in io.Reader, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, s.endpoint+"/_slipway/"+path, in)
	if err != nil {
		return err
	}
	req.SetBasicAuth(s.keys.AccessKeyID, s.keys.SecretAccessKey)
	res, err := s.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err
		}
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s", strings.TrimSpace(string(body)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}

func call[I, O any](ctx context.Context, s *session, op *model.Op[I, O], in *I) (*O, error) {
	return client.Call(ctx, s.client, op, in)
}
