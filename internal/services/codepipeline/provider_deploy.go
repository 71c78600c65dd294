package codepipeline

import (
	"archive/zip"
	"context"
	"fmt"
	"io"
	"maps"
	"mime"
	"os"
	"path"
	"strings"

	"slipway/internal/api/codedeploy"
	"slipway/internal/api/s3"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
)

func mapKeys[V any](m map[string]V) func(func(string) bool) { return maps.Keys(m) }

// mark is how a deployment names the action run that asked for it:
// CreateDeployment has no idempotency token.
func (a *action) mark() string {
	return "CodePipeline action execution " + a.run.ID
}

// stepDeploy creates a deployment of the input artifact, or asks how it goes.
func (s *Service) stepDeploy(ctx context.Context, a *action) (*outcome, error) {
	if a.run.External == "" {
		id, err := s.findDeployment(ctx, a)
		if err == nil && id == "" {
			id, err = s.createDeployment(ctx, a)
		}
		if awserr.Is(err, codedeploy.ErrCodeDeploymentLimitExceededException) {
			return a.fail(jobFailed, awserr.As(err).Message), nil
		}
		if err != nil {
			return nil, err
		}
		a.run.External = id
		s.own(id, a.key, false)
	}
	out, err := dispatch.Call(ctx, s.deps.Mux, codedeploy.OpGetDeployment, &codedeploy.GetDeploymentInput{DeploymentId: &a.run.External})
	if err != nil {
		return nil, err
	}
	d := out.DeploymentInfo
	switch status := ptr.Value(d.Status); status {
	case codedeploy.DeploymentStatusSucceeded:
		return a.succeed("Deployment Succeeded"), nil
	case codedeploy.DeploymentStatusFailed, codedeploy.DeploymentStatusStopped:
		message := "Deployment " + a.run.External + " " + strings.ToLower(status)
		if d.ErrorInformation != nil && ptr.Value(d.ErrorInformation.Message) != "" {
			message += ": " + *d.ErrorInformation.Message
		}
		return a.fail(jobFailed, message), nil
	}
	return a.wait(), nil
}

// findDeployment finds what an earlier try of this step has created.
func (s *Service) findDeployment(ctx context.Context, a *action) (string, error) {
	list, err := dispatch.Call(ctx, s.deps.Mux, codedeploy.OpListDeployments, &codedeploy.ListDeploymentsInput{
		ApplicationName: new(a.run.Resolved["ApplicationName"]), DeploymentGroupName: new(a.run.Resolved["DeploymentGroupName"]),
		CreateTimeRange: &codedeploy.TimeRange{Start: &a.run.Started}})
	if err != nil {
		return "", err
	}
	for _, id := range list.Deployments {
		out, err := dispatch.Call(ctx, s.deps.Mux, codedeploy.OpGetDeployment, &codedeploy.GetDeploymentInput{DeploymentId: &id})
		if err != nil {
			return "", err
		}
		if ptr.Value(out.DeploymentInfo.Description) == a.mark() {
			return id, nil
		}
	}
	return "", nil
}

func (s *Service) createDeployment(ctx context.Context, a *action) (string, error) {
	_, art := a.input()
	out, err := dispatch.Call(ctx, s.deps.Mux, codedeploy.OpCreateDeployment, &codedeploy.CreateDeploymentInput{
		ApplicationName: new(a.run.Resolved["ApplicationName"]), DeploymentGroupName: new(a.run.Resolved["DeploymentGroupName"]), Description: new(a.mark()),
		Revision: &codedeploy.RevisionLocation{RevisionType: new(codedeploy.RevisionLocationTypeS3), S3Location: &codedeploy.S3Location{
			Bucket: &art.Bucket, Key: &art.Key, BundleType: new(codedeploy.BundleTypeZip), Version: ptr.NonZero(art.Version)}}})
	if err != nil {
		return "", err
	}
	return ptr.Value(out.DeploymentId), nil
}

// stepS3Deploy puts the input artifact, or the files in it, into a bucket.
func (s *Service) stepS3Deploy(ctx context.Context, a *action) (*outcome, error) {
	_, art := a.input()
	got, err := dispatch.Call(ctx, s.deps.Mux, s3.OpGetObject, &s3.GetObjectInput{Bucket: &art.Bucket, Key: &art.Key, VersionId: ptr.NonZero(art.Version)})
	if err != nil {
		return nil, located(err, art.Bucket, art.Key)
	}
	defer got.Body.Close()
	f, err := os.CreateTemp("", "slipway-deploy-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	size, err := io.Copy(f, got.Body)
	if err != nil {
		return nil, err
	}
	c := a.run.Resolved
	change := func(in *s3.PutObjectInput) {
		in.ACL, in.CacheControl = ptr.NonZero(c["CannedACL"]), ptr.NonZero(c["CacheControl"])
	}
	if c["Extract"] != "true" {
		if c["ObjectKey"] == "" {
			return a.fail(configurationError, "ObjectKey is required when Extract is false"), nil
		}
		_, err = s.put(ctx, Artifact{Bucket: c["BucketName"], Key: c["ObjectKey"]}, "application/zip", io.NewSectionReader(f, 0, size), size, change)
		if err != nil {
			return nil, err
		}
		return a.succeed("Deployment Succeeded"), nil
	}
	z, err := zip.NewReader(f, size)
	if err != nil {
		return a.fail(jobFailed, fmt.Sprintf("The artifact is not a ZIP archive: %v", err)), nil
	}
	for _, file := range z.File {
		if strings.HasSuffix(file.Name, "/") {
			continue
		}
		if err := s.putEntry(ctx, file, Artifact{Bucket: c["BucketName"], Key: strings.TrimPrefix(path.Join(c["ObjectKey"], file.Name), "/")}, change); err != nil {
			return nil, err
		}
	}
	return a.succeed("Deployment Succeeded"), nil
}

func (s *Service) putEntry(ctx context.Context, file *zip.File, to Artifact, change func(*s3.PutObjectInput)) error {
	r, err := file.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = s.put(ctx, to, mime.TypeByExtension(path.Ext(file.Name)), r, int64(file.UncompressedSize64), change)
	return err
}
