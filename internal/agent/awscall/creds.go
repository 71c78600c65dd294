package awscall

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"

	"slipway/internal/agent/imds"
)

// Static are credentials that do not change.
type Static aws.Credentials

// Keys returns them.
func (s Static) Keys(context.Context) (aws.Credentials, error) { return aws.Credentials(s), nil }

// Forget does nothing: there is nowhere to get others.
func (s Static) Forget() {}

// Role are the credentials of the instance's role.
type Role struct{ IMDS *imds.Client }

// Keys asks the metadata service, which remembers them until shortly before they expire.
func (r Role) Keys(ctx context.Context) (aws.Credentials, error) {
	c, err := r.IMDS.Credentials(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	return aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.Token}, nil
}

// Forget drops the remembered ones.
func (r Role) Forget() { r.IMDS.Forget() }
