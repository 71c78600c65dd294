package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"slipway/internal/agent/archive"
	"slipway/internal/agent/awscall"
)

// downloadBundle is the DownloadBundle event: old revisions go, the bundle comes and is unpacked. Nothing of
// a failed attempt is taken for a revision: the archive directory appears by a rename, complete.
func (x *executor) downloadBundle(ctx context.Context, s *specification) error {
	if s.Revision.RevisionType != "S3" {
		return fmt.Errorf("revisions of type %s are not supported by this agent; use S3", s.Revision.RevisionType)
	}
	if err := x.pruneRevisions(s); err != nil {
		return err
	}
	dir := x.l.deployment(s)
	if err := os.MkdirAll(x.l.logs(s), 0o755); err != nil {
		return err
	}
	if err := x.fetchWithRetry(ctx, s); err != nil {
		return err
	}
	fresh := filepath.Join(dir, ".unpacking")
	for _, p := range []string{fresh, x.l.archive(s)} {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := archive.Unpack(x.l.bundle(s), s.Revision.BundleType, fresh, x.cfg.Limits); err != nil {
		return fmt.Errorf("unpacking s3://%s/%s: %w", s.Revision.Bucket, s.Revision.Key, err)
	}
	if err := os.Rename(stripTop(fresh), x.l.archive(s)); err != nil {
		return err
	}
	return replaceFile(x.l.mostRecent(s.DeploymentGroupId), []byte(dir), 0o644)
}

// stripTop returns the directory that is the revision: the single directory at the top if it holds an AppSpec
// file, otherwise the top itself.
func stripTop(top string) string {
	entries, err := os.ReadDir(top)
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		return top
	}
	inner := filepath.Join(top, entries[0].Name())
	for _, pattern := range []string{"appspec.yml", "appspec.yaml"} {
		if _, err := os.Lstat(filepath.Join(inner, pattern)); err == nil {
			return inner
		}
	}
	return top
}

// fetchWithRetry downloads the bundle; it tries again for a minute while the store is away, since a restart of
// it should not fail a deployment.
func (x *executor) fetchWithRetry(ctx context.Context, s *specification) error {
	deadline := time.Now().Add(time.Minute)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := x.fetch(ctx, s)
		var answered *awscall.Error
		if err == nil || errors.As(err, &answered) && answered.Status < 500 || errors.Is(err, errWrongBundle) ||
			time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		pause(ctx, wait)
	}
}

var errWrongBundle = errors.New("the bundle is not the registered one")

func (x *executor) fetch(ctx context.Context, s *specification) error {
	r := s.Revision
	resp, err := x.cfg.API.GetObject(ctx, r.Bucket, r.Key, r.Version)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if want, got := strings.Trim(r.ETag, `"`), strings.Trim(resp.Header.Get("ETag"), `"`); want != "" && want != got {
		return fmt.Errorf("%w: s3://%s/%s has the ETag %q, expected %q", errWrongBundle, r.Bucket, r.Key, got, want)
	}
	f, err := os.OpenFile(x.l.bundle(s), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, resp.Body)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("downloading s3://%s/%s: %w", r.Bucket, r.Key, err)
	}
	if resp.ContentLength >= 0 && n != resp.ContentLength {
		return fmt.Errorf("downloading s3://%s/%s: %d of %d bytes came", r.Bucket, r.Key, n, resp.ContentLength)
	}
	return nil
}
