package codebuild

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"

	"slipway/internal/agent/build"
	api "slipway/internal/api/codebuild"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/machine"
)

// storedArtifact is an artifact in its bucket.
type storedArtifact struct {
	identifier, location, sha256, md5 string
}

// show puts it into what BatchGetBuilds answers.
func (a storedArtifact) show(b *Build) {
	out := api.BuildArtifacts{Location: &a.location, Sha256sum: ptr.NonZero(a.sha256), Md5sum: ptr.NonZero(a.md5), ArtifactIdentifier: ptr.NonZero(a.identifier)}
	if a.identifier == "" {
		b.API.Artifacts = &out
		return
	}
	for i := range b.API.SecondaryArtifacts {
		if ptr.Value(b.API.SecondaryArtifacts[i].ArtifactIdentifier) == a.identifier {
			b.API.SecondaryArtifacts[i] = out
			return
		}
	}
	b.API.SecondaryArtifacts = append(b.API.SecondaryArtifacts, out)
}

// storeArtifact copies a packed artifact from the machine into its bucket. An
// AWS error is the user's to solve; any other is ours.
func (s *Service) storeArtifact(ctx context.Context, row *buildRow, p *build.PackedArtifact) (storedArtifact, error) {
	b := &row.Doc
	to := b.Artifacts
	if p.Identifier != "" {
		to = nil
		for i := range b.Secondary {
			if ptr.Value(b.Secondary[i].ArtifactIdentifier) == p.Identifier {
				to = &b.Secondary[i]
			}
		}
	}
	if to == nil {
		return storedArtifact{}, awserr.New(api.ErrCodeInvalidInputException, "The artifact %s is in the buildspec but not in the project.", p.Identifier)
	}
	bucket := strings.TrimPrefix(ptr.Value(to.Location), "arn:aws:s3:::")
	key := artifactKey(row, to, p)
	done := storedArtifact{p.Identifier, "arn:aws:s3:::" + bucket + "/" + strings.TrimPrefix(key, "/"), p.SHA256, p.MD5}
	if p.Packaging == api.ArtifactPackagingZip {
		return done, s.upload(ctx, row, bucket, key, p.Path, p.Size)
	}
	files, err := s.filesIn(ctx, row, p.Path)
	if err != nil {
		return done, err
	}
	for _, f := range files {
		if err := s.upload(ctx, row, bucket, strings.TrimPrefix(path.Join(key, f.name), "/"), path.Join(p.Path, f.name), f.size); err != nil {
			return done, err
		}
	}
	return done, nil
}

// artifactKey is path/[build id/]name (API reference, ProjectArtifacts).
func artifactKey(row *buildRow, to *api.ProjectArtifacts, p *build.PackedArtifact) string {
	name := ptr.Value(to.Name)
	if p.Name != "" && ptr.Value(to.OverrideArtifactName) {
		name = p.Name
	}
	if name == "" {
		name = ptr.Value(row.Doc.API.ProjectName)
	}
	parts := []string{ptr.Value(to.Path)}
	if ptr.Value(to.Type) == api.ArtifactsTypeS3 {
		parts = []string{p.Prefix, ptr.Value(to.Path)}
	}
	if ptr.Value(to.NamespaceType) == api.ArtifactNamespaceBuildId {
		parts = append(parts, strings.TrimPrefix(machineID(row.ID), "build-"))
	}
	return strings.TrimPrefix(path.Join(append(parts, name)...), "/")
}

type fileIn struct {
	name string
	size int64
}

// filesIn lists the regular files below a directory of the machine.
func (s *Service) filesIn(ctx context.Context, row *buildRow, dir string) ([]fileIn, error) {
	// The machine is the user's, and so is what it calls find.
	out := listing{room: maxListing}
	code, err := s.deps.Machines.Exec(ctx, machineID(row.ID), machine.ExecSpec{
		Args: []string{"find", dir, "-type", "f", "-printf", `%s %P\0`}, Dir: "/", Stdout: &out, Timeout: time.Minute})
	if err != nil {
		return nil, err
	}
	if code != 0 {
		return nil, fmt.Errorf("the artifact's files could not be listed (exit status %d)", code)
	}
	var files []fileIn
	for entry := range strings.SplitSeq(out.buf.String(), "\x00") {
		var f fileIn
		size, name, ok := strings.Cut(entry, " ")
		if !ok {
			continue
		}
		if _, err := fmt.Sscan(size, &f.size); err != nil {
			return nil, err
		}
		if !fs.ValidPath(name) {
			return nil, fmt.Errorf("the artifact holds a file with the name %q", name)
		}
		f.name = name
		files = append(files, f)
	}
	return files, nil
}

// maxListing bounds the names and sizes of an artifact's files, in bytes.
const maxListing = 32 << 20

// listing keeps what a program says and ends it when that is too much. The
// buffer is not embedded: io.Copy would go past Write by its ReadFrom.
type listing struct {
	buf  bytes.Buffer
	room int
}

func (l *listing) Write(p []byte) (int, error) {
	if l.room -= len(p); l.room < 0 {
		return 0, fmt.Errorf("the list of the artifact's files has more than %d bytes", maxListing)
	}
	return l.buf.Write(p)
}

// upload streams one file from the machine into a bucket.
func (s *Service) upload(ctx context.Context, row *buildRow, bucket, key, file string, size int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		code, err := s.deps.Machines.Exec(ctx, machineID(row.ID), machine.ExecSpec{Args: []string{"cat", file}, Dir: "/", Stdout: pw})
		if err == nil && code != 0 {
			err = fmt.Errorf("%s cannot be read in the build's machine", file)
		}
		pw.CloseWithError(err)
	}()
	_, err := dispatch.Call(s.as(ctx, row.Key), s.deps.Mux, s3.OpPutObject, &s3.PutObjectInput{
		Bucket: &bucket, Key: &key, Body: pr, ContentLength: &size, Metadata: map[string]string{"codebuild-buildarn": ptr.Value(row.Doc.API.Arn)}})
	pr.Close()
	cancel()
	<-done
	if e := awserr.As(err); e != nil && e.Status < 500 {
		return awserr.New(e.Code, "Error while uploading artifacts to s3://%s/%s: %s", bucket, key, e.Message)
	}
	return err
}
