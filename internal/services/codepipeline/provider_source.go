package codepipeline

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	api "slipway/internal/api/codepipeline"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/git"
	"slipway/internal/store"
)

// commit is the one to build: the override, or the tip of the branch.
func (s *Service) commit(ctx context.Context, key store.Key, repository, branch, override string) (*git.Commit, error) {
	spec := override
	if spec == "" {
		spec = "refs/heads/" + branch
	}
	c, err := s.deps.Repositories.Commit(ctx, key.Account, key.Region, repository, spec)
	if override == "" && awserr.Is(err, "CommitDoesNotExistException") {
		return nil, awserr.New("BranchDoesNotExistException", "The branch %s does not exist in the repository %s", branch, repository)
	}
	return c, err
}

func (s *Service) headCodeCommit(ctx context.Context, key store.Key, decl *api.ActionDeclaration) (string, error) {
	c, err := s.commit(ctx, key, decl.Configuration["RepositoryName"], decl.Configuration["BranchName"], "")
	if err != nil {
		return "", err
	}
	return c.ID, nil
}

// stepCodeCommit puts the files of a commit into the artifact store.
func (s *Service) stepCodeCommit(ctx context.Context, a *action) (*outcome, error) {
	c := a.run.Resolved
	if f := c["OutputArtifactFormat"]; f != "" && f != "CODE_ZIP" {
		return a.fail(configurationError, "OutputArtifactFormat "+f+" is not supported yet, CODE_ZIP is"), nil
	}
	commit, err := s.commit(ctx, a.key, c["RepositoryName"], c["BranchName"], a.exec.Overrides[a.run.Name])
	if err != nil {
		return nil, err
	}
	to := a.output(ptr.Value(a.decl.OutputArtifacts[0].Name))
	to, err = s.putFile(ctx, to, "application/zip", func(w io.Writer) error {
		return s.deps.Repositories.Archive(ctx, a.key.Account, a.key.Region, c["RepositoryName"], commit.ID, w)
	})
	if err != nil {
		return nil, err
	}
	a.run.Variables = map[string]string{"CommitId": commit.ID, "CommitMessage": commit.Message, "BranchName": c["BranchName"], "RepositoryName": c["RepositoryName"],
		"AuthorDate": commit.Author.When.UTC().Format(time.RFC3339), "CommitterDate": commit.Committer.When.UTC().Format(time.RFC3339)}
	return a.source(to, commit.ID, strings.TrimSpace(commit.Message), commit.Committer.When), nil
}

// source ends a source action with the revision that it found.
func (a *action) source(to Artifact, id, summary string, created time.Time) *outcome {
	name := ptr.Value(a.decl.OutputArtifacts[0].Name)
	a.run.Outputs = map[string]Artifact{name: to}
	a.run.External = id
	out := a.succeed(summary)
	out.revision = &Revision{Action: a.run.Name, Artifact: name, ID: id, Summary: summary, Created: created}
	return out
}

// putFile stores what write writes. It is a file first, because S3 is told
// the length before the content.
func (s *Service) putFile(ctx context.Context, to Artifact, contentType string, write func(io.Writer) error) (Artifact, error) {
	f, err := os.CreateTemp("", "slipway-artifact-")
	if err != nil {
		return to, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := write(f); err != nil {
		return to, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return to, err
	}
	return s.put(ctx, to, contentType, f, size, nil)
}

func (s *Service) put(ctx context.Context, to Artifact, contentType string, r io.Reader, size int64, change func(*s3.PutObjectInput)) (Artifact, error) {
	in := &s3.PutObjectInput{Bucket: &to.Bucket, Key: &to.Key, Body: io.NopCloser(r), ContentLength: &size, ContentType: ptr.NonZero(contentType)}
	if change != nil {
		change(in)
	}
	out, err := dispatch.Call(ctx, s.deps.Mux, s3.OpPutObject, in)
	if err != nil {
		return to, located(err, to.Bucket, to.Key)
	}
	to.Version, to.ETag = ptr.Value(out.VersionId), ptr.Value(out.ETag)
	return to, nil
}

// located says which object an error of S3 is about.
func located(err error, bucket, key string) error {
	if e := awserr.As(err); e != nil {
		return awserr.New(e.Code, "s3://%s/%s: %s", bucket, key, e.Message).WithStatus(e.Status)
	}
	return fmt.Errorf("s3://%s/%s: %w", bucket, key, err)
}

// headS3 is the version of the object, or its ETag in a bucket without versions.
func (s *Service) headS3(ctx context.Context, key store.Key, decl *api.ActionDeclaration) (string, error) {
	if decl.Configuration["PollForSourceChanges"] == "false" {
		return "", nil
	}
	out, err := dispatch.Call(s.as(ctx, key), s.deps.Mux, s3.OpHeadObject, &s3.HeadObjectInput{Bucket: new(decl.Configuration["S3Bucket"]), Key: new(decl.Configuration["S3ObjectKey"])})
	if err != nil {
		return "", err
	}
	return objectRevision(out.VersionId, out.ETag), nil
}

func objectRevision(version, etag *string) string {
	if v := ptr.Value(version); v != "" && v != "null" {
		return v
	}
	return strings.Trim(ptr.Value(etag), `"`)
}

// stepS3Source copies a ZIP into the artifact store.
func (s *Service) stepS3Source(ctx context.Context, a *action) (*outcome, error) {
	in := &s3.GetObjectInput{Bucket: new(a.run.Resolved["S3Bucket"]), Key: new(a.run.Resolved["S3ObjectKey"]), VersionId: ptr.NonZero(a.exec.Overrides[a.run.Name])}
	got, err := dispatch.Call(ctx, s.deps.Mux, s3.OpGetObject, in)
	if err != nil {
		return nil, located(err, *in.Bucket, *in.Key)
	}
	defer got.Body.Close()
	to, err := s.putFile(ctx, a.output(ptr.Value(a.decl.OutputArtifacts[0].Name)), "application/zip", func(w io.Writer) error {
		_, err := io.Copy(w, got.Body)
		return err
	})
	if err != nil {
		return nil, err
	}
	a.run.Variables = map[string]string{"ETag": strings.Trim(ptr.Value(got.ETag), `"`), "VersionId": ptr.Value(got.VersionId)}
	id, created := objectRevision(got.VersionId, got.ETag), s.deps.Clock.Now()
	if got.LastModified != nil {
		created = *got.LastModified
	}
	summary := got.Metadata["codepipeline-artifact-revision-summary"]
	if summary == "" {
		summary = "Amazon S3 version id: " + id
	}
	return a.source(to, id, summary, created), nil
}
