package codedeploy

import (
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/smallstep/pkcs7"

	"slipway/internal/lazyre"
)

// specification is what a deployment is: the signed document behind GetDeploymentSpecification.
type specification struct {
	DeploymentId         string
	DeploymentGroupId    string
	DeploymentGroupName  string
	ApplicationName      string
	DeploymentCreator    string // default "user"
	DeploymentType       string // default IN_PLACE
	AppSpecFilename      string // default appspec.yml
	Revision             revision
	AgentActionOverrides struct {
		AgentOverrides struct{ FileExistsBehavior string }
	}
	AllPossibleLifecycleEvents []string
}

type revision struct {
	RevisionType string
	S3Revision   *s3Revision `json:",omitempty"`
	// Some services write the fields of S3 revisions flat; both forms are read.
	Bucket, Key, BundleType, Version, ETag string
}

type s3Revision struct{ Bucket, Key, BundleType, Version, ETag string }

// decodeSpecification opens an envelope. A PKCS7 signature must fit the content; any signer is accepted, since
// the call itself is authenticated and the signer's certificate has no published root.
func decodeSpecification(e envelope, developer bool) (*specification, error) {
	var content []byte
	switch e.Format {
	case "PKCS7/JSON":
		block, _ := pem.Decode([]byte(e.Payload))
		if block == nil || block.Type != "PKCS7" {
			return nil, errors.New("the deployment specification is no PEM block of type PKCS7")
		}
		p, err := pkcs7.Parse(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the deployment specification is no PKCS7 message: %w", err)
		}
		if err := p.Verify(); err != nil {
			return nil, fmt.Errorf("the signature of the deployment specification is not valid: %w", err)
		}
		content = p.Content
	case "TEXT/JSON":
		if !developer {
			return nil, errors.New("an unsigned deployment specification (TEXT/JSON) is accepted in developer mode only")
		}
		content = []byte(e.Payload)
	default:
		return nil, fmt.Errorf("the deployment specification has the unknown format %q", e.Format)
	}
	var s specification
	if err := json.Unmarshal(content, &s); err != nil {
		return nil, fmt.Errorf("the deployment specification is not valid JSON: %w", err)
	}
	return &s, s.check()
}

// plainName is what may become a directory name.
var plainName = lazyre.New(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func (s *specification) check() error {
	s.DeploymentId = s.DeploymentId[strings.LastIndexAny(s.DeploymentId, "/:")+1:]
	for _, f := range []struct{ name, value string }{{"DeploymentId", s.DeploymentId}, {"DeploymentGroupId", s.DeploymentGroupId}} {
		if !plainName.MatchString(f.value) {
			return fmt.Errorf("the deployment specification's %s is missing or not usable: %q", f.name, f.value)
		}
	}
	for _, f := range []struct{ name, value string }{{"DeploymentGroupName", s.DeploymentGroupName},
		{"ApplicationName", s.ApplicationName}, {"Revision.RevisionType", s.Revision.RevisionType}} {
		if f.value == "" {
			return fmt.Errorf("the deployment specification lacks %s", f.name)
		}
	}
	for _, f := range []struct {
		value *string
		def   string
	}{{&s.DeploymentCreator, "user"}, {&s.DeploymentType, "IN_PLACE"}, {&s.AppSpecFilename, "appspec.yml"}} {
		if *f.value == "" {
			*f.value = f.def
		}
	}
	if !filepath.IsLocal(s.AppSpecFilename) {
		return fmt.Errorf("the AppSpec file name %q leaves the bundle", s.AppSpecFilename)
	}
	switch s.AgentActionOverrides.AgentOverrides.FileExistsBehavior {
	case "", "DISALLOW", "OVERWRITE", "RETAIN":
	default:
		return fmt.Errorf("the deployment specification has the unknown FileExistsBehavior %q", s.AgentActionOverrides.AgentOverrides.FileExistsBehavior)
	}
	return s.checkRevision()
}

func (s *specification) checkRevision() error {
	r := &s.Revision
	if r.S3Revision != nil {
		r.Bucket, r.Key, r.BundleType, r.Version, r.ETag = r.S3Revision.Bucket, r.S3Revision.Key, r.S3Revision.BundleType, r.S3Revision.Version, r.S3Revision.ETag
	}
	if r.RevisionType != "S3" {
		return nil // told when it is to be downloaded, so that the event and not the poll fails
	}
	if r.Bucket == "" || r.Key == "" || r.BundleType == "" {
		return errors.New("the deployment specification's S3 revision needs Bucket, Key and BundleType")
	}
	return nil
}

// env is what hook scripts learn about the deployment.
func (s *specification) env(event string) []string {
	out := []string{
		"LIFECYCLE_EVENT=" + event,
		"DEPLOYMENT_ID=" + s.DeploymentId,
		"APPLICATION_NAME=" + s.ApplicationName,
		"DEPLOYMENT_GROUP_NAME=" + s.DeploymentGroupName,
		"DEPLOYMENT_GROUP_ID=" + s.DeploymentGroupId,
	}
	if r := s.Revision; r.RevisionType == "S3" {
		out = append(out, "BUNDLE_BUCKET="+r.Bucket, "BUNDLE_KEY="+r.Key, "BUNDLE_VERSION="+r.Version, "BUNDLE_ETAG="+r.ETag)
	}
	return out
}
