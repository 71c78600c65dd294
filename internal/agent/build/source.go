package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/agent/archive"
	"slipway/internal/agent/awscall"
	"slipway/internal/spec/buildspec"
)

// fetch puts a source into place and returns its directory.
func (r *runner) fetch(ctx context.Context, src Source) (string, error) {
	if src.Dir != "" {
		if st, err := os.Stat(src.Dir); err != nil || !st.IsDir() {
			return "", fmt.Errorf("the source directory %s does not exist", src.Dir)
		}
		return filepath.Clean(src.Dir), nil
	}
	dir := filepath.Join(r.root, "output", fmt.Sprintf("src%09d", rand.N(1_000_000_000)), "src")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if src.Bucket == "" && src.URL == "" {
		return dir, nil
	}
	f, err := os.CreateTemp(r.tmp, "source-*")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := patiently(ctx, func() error {
		if err := f.Truncate(0); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return r.download(ctx, src, f)
	}); err != nil {
		return "", err
	}
	return dir, archive.Unpack(f.Name(), archive.Zip, dir, archive.DefaultLimits)
}

// patiently repeats a call for a minute while the server is away: its restart should not fail a build.
func patiently(ctx context.Context, call func() error) error {
	end := time.Now().Add(time.Minute)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := call()
		var answered *awscall.Error
		if err == nil || ctx.Err() != nil || time.Now().After(end) || errors.Is(err, errForGood) ||
			errors.As(err, &answered) && answered.Status < 500 || errors.As(err, &answered) && answered.Status == http.StatusNotImplemented {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

var errForGood = errors.New("trying again cannot help")

func (r *runner) download(ctx context.Context, src Source, to io.Writer) error {
	var resp *http.Response
	if src.Bucket != "" {
		api, err := r.client()
		if err != nil {
			return err
		}
		if resp, err = api.GetObject(ctx, src.Bucket, src.Key, src.VersionID); err != nil {
			return err
		}
	} else {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.URL, nil)
		if err != nil {
			return fmt.Errorf("the source's URL is not valid: %w", errForGood)
		}
		if resp, err = http.DefaultClient.Do(req); err != nil {
			return fmt.Errorf("downloading the source: %w", err)
		}
		if resp.StatusCode != http.StatusOK {
			resp.Body.Close()
			return &awscall.Error{Status: resp.StatusCode, Code: "SourceDownload", Message: "the source's URL was not answered with an object"}
		}
	}
	defer resp.Body.Close()
	if _, err := io.Copy(to, resp.Body); err != nil {
		return fmt.Errorf("downloading the source: %w", err)
	}
	return nil
}

// inline reports whether the project's buildspec is the document itself and not a path.
func inline(text string) bool {
	return strings.Contains(text, "\n") || strings.HasPrefix(strings.TrimSpace(text), "version:") || strings.HasPrefix(strings.TrimSpace(text), "{")
}

// readSpec finds and parses the buildspec. Its path in the log is the one AWS shows.
func (r *runner) readSpec() (*buildspec.Spec, error) {
	if inline(r.job.Buildspec) {
		r.e.container("YAML location is %s", filepath.Join(r.root, "readonly/buildspec.yml"))
		return buildspec.Parse("buildspec.yml", []byte(r.job.Buildspec))
	}
	name := r.job.Buildspec
	if name == "" {
		name = "buildspec.yml"
	}
	r.e.container("YAML location is %s", filepath.Join(r.src, name))
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("the path of the buildspec leaves the source: %s", name)
	}
	dir, err := os.OpenRoot(r.src)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("stat %s: no such file or directory", filepath.Join(r.src, name))
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2<<20))
	if err != nil {
		return nil, err
	}
	return buildspec.Parse(name, data)
}
