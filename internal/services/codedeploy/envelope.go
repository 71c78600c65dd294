package codedeploy

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/smallstep/pkcs7"

	api "slipway/internal/api/codedeploy"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
)

// envelopeFormat is the only format that AWS's agents take from a service.
const envelopeFormat = "PKCS7/JSON"

// envelopeLimit is the longest payload that the agents' model allows.
const envelopeLimit = 8192

// signer signs deployment specifications. Agents verify that the signature
// fits the content; the signer's name they take on trust.
type signer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// loadSigner reads the installation's key from dir, or makes it.
func loadSigner(dir string) (*signer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("directory of the signing key: %w", err)
	}
	path := filepath.Join(dir, "specification-signer.pem")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if data, err = newSigner(); err != nil {
			return nil, fmt.Errorf("make the signing key: %w", err)
		}
		err = writeWhole(path, data)
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	return parseSigner(path, data)
}

func parseSigner(path string, data []byte) (*signer, error) {
	var s signer
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		var err error
		switch block.Type {
		case "EC PRIVATE KEY":
			s.key, err = x509.ParseECPrivateKey(block.Bytes)
		case "CERTIFICATE":
			s.cert, err = x509.ParseCertificate(block.Bytes)
		}
		if err != nil {
			return nil, fmt.Errorf("signing key in %s: %w", path, err)
		}
	}
	if s.key == nil || s.cert == nil {
		return nil, fmt.Errorf("signing key: %s holds no key and certificate; remove it to have a new one made", path)
	}
	return &s, nil
}

func newSigner() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := clock.Real.Now()
	cert := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "slipway codedeploy signer"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.AddDate(30, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, block := range []*pem.Block{{Type: "EC PRIVATE KEY", Bytes: keyDER}, {Type: "CERTIFICATE", Bytes: der}} {
		if err := pem.Encode(&b, block); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// writeWhole writes a secret file so that it is there whole or not at all.
func writeWhole(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// specification is what the agent is told about a deployment; the names are
// those of AWS's agent.
type specification struct {
	DeploymentId               string
	DeploymentGroupId          string
	DeploymentGroupName        string
	ApplicationName            string
	DeploymentCreator          string
	DeploymentType             string
	AppSpecFilename            string                `json:",omitempty"`
	AgentActionOverrides       *agentActionOverrides `json:",omitempty"`
	AllPossibleLifecycleEvents []string              `json:",omitempty"`
	Revision                   specificationRevision
}

type agentActionOverrides struct {
	AgentOverrides struct{ FileExistsBehavior string }
}

type specificationRevision struct {
	RevisionType   string
	S3Revision     *s3Revision     `json:",omitempty"`
	GitHubRevision *gitHubRevision `json:",omitempty"`
}

type s3Revision struct {
	Bucket     string
	Key        string
	BundleType string
	Version    string `json:",omitempty"`
	ETag       string `json:",omitempty"`
}

type gitHubRevision struct {
	Account    string
	Repository string
	CommitId   string
}

func specificationOf(d *Deployment) specification {
	spec := specification{
		DeploymentId: d.ID, DeploymentGroupId: d.GroupID, DeploymentGroupName: d.Group, ApplicationName: d.Application,
		DeploymentCreator: d.Creator, DeploymentType: api.DeploymentTypeInPlace,
	}
	if d.FileExists != "" {
		spec.AgentActionOverrides = &agentActionOverrides{}
		spec.AgentActionOverrides.AgentOverrides.FileExistsBehavior = d.FileExists
	}
	switch r := d.Revision; {
	case r.S3Location != nil:
		l := r.S3Location
		version := ptr.Value(l.Version)
		if version == "" {
			version = d.Version
		}
		spec.Revision = specificationRevision{RevisionType: "S3", S3Revision: &s3Revision{
			Bucket: ptr.Value(l.Bucket), Key: ptr.Value(l.Key), BundleType: strings.ToLower(ptr.Value(l.BundleType)), Version: version, ETag: ptr.Value(l.ETag),
		}}
	case r.GitHubLocation != nil:
		owner, repo, _ := strings.Cut(ptr.Value(r.GitHubLocation.Repository), "/")
		spec.Revision = specificationRevision{RevisionType: "GitHub", GitHubRevision: &gitHubRevision{
			Account: owner, Repository: repo, CommitId: ptr.Value(r.GitHubLocation.CommitId),
		}}
	}
	return spec
}

// seal signs a specification into a PEM envelope.
func (s *signer) seal(spec specification) (string, error) {
	body, err := json.Marshal(spec)
	if err != nil {
		return "", err
	}
	signed, err := pkcs7.NewSignedData(body)
	if err != nil {
		return "", err
	}
	signed.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := signed.AddSigner(s.cert, s.key, pkcs7.SignerInfoConfig{}); err != nil {
		return "", err
	}
	der, err := signed.Finish()
	if err != nil {
		return "", err
	}
	out := string(pem.EncodeToMemory(&pem.Block{Type: "PKCS7", Bytes: der}))
	if len(out) > envelopeLimit {
		return "", fmt.Errorf("the deployment specification takes %d characters, and agents take at most %d: shorten the names or the S3 key", len(out), envelopeLimit)
	}
	return out, nil
}
