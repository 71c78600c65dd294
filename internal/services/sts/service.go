package sts

import (
	"context"
	"strings"
	"time"

	"slipway/internal/api/iam"
	"slipway/internal/api/sts"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/dispatch"
	"slipway/internal/aws/ptr"
	"slipway/internal/clock"
	"slipway/internal/keyring"
)

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Mux  *dispatch.Mux // to ask IAM for roles
	Ring *keyring.Ring
}

// Service is STS. All methods are safe for concurrent use.
type Service struct{ Deps }

// New makes the service; Register brings it to life.
func New(deps Deps) *Service { return &Service{deps} }

// Run has nothing to do. It returns when ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Register serves the operations.
func (s *Service) Register(m *dispatch.Mux) {
	dispatch.Register(m, sts.OpGetCallerIdentity, s.getCallerIdentity)
	dispatch.Register(m, sts.OpAssumeRole, s.assumeRole)
	dispatch.Register(m, sts.OpGetSessionToken, s.getSessionToken)
	dispatch.Register(m, sts.OpGetFederationToken, s.getFederationToken)
}

func (s *Service) getCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	id := caller.From(ctx)
	return &sts.GetCallerIdentityOutput{UserId: &id.PrincipalID, Account: &id.Account, Arn: &id.PrincipalARN}, nil
}

// mint makes credentials that last for d of real time: the clients compare
// their expiry with their own clock.
func (s *Service) mint(account, arn, id string, d time.Duration) *sts.Credentials {
	expires := clock.Real.Now().Add(d).Truncate(time.Second)
	c := s.Ring.Mint(keyring.Session{Account: account, PrincipalARN: arn, PrincipalID: id, Expires: expires})
	return &sts.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.Secret, SessionToken: &c.Token, Expiration: &expires}
}

func seconds(p *int64, def time.Duration) time.Duration {
	if p == nil {
		return def
	}
	return time.Duration(*p) * time.Second
}

// roleARN splits "arn:aws:iam::ACCOUNT:role/PATH/NAME".
func roleARN(arn string) (account, name string, err error) {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || !strings.HasPrefix(parts[5], "role/") {
		return "", "", awserr.New("ValidationError", "%s is invalid", arn)
	}
	return parts[4], parts[5][strings.LastIndexByte(parts[5], '/')+1:], nil
}

func (s *Service) assumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	account, name, err := roleARN(ptr.Value(in.RoleArn))
	if err != nil {
		return nil, err
	}
	id := caller.From(ctx)
	denied := awserr.New("AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", id.PrincipalARN, ptr.Value(in.RoleArn)).WithStatus(403)
	if account != id.Account {
		return nil, denied
	}
	got, err := dispatch.Call(ctx, s.Mux, iam.OpGetRole, &iam.GetRoleInput{RoleName: &name})
	if awserr.Is(err, "NoSuchEntity") || err == nil && ptr.Value(got.Role.Arn) != *in.RoleArn {
		return nil, denied
	}
	if err != nil {
		return nil, err
	}
	d := seconds(in.DurationSeconds, time.Hour)
	if max := ptr.Value(got.Role.MaxSessionDuration); max > 0 && d > time.Duration(max)*time.Second {
		return nil, awserr.New("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	session := ptr.Value(in.RoleSessionName)
	arn := "arn:aws:sts::" + account + ":assumed-role/" + ptr.Value(got.Role.RoleName) + "/" + session
	user := ptr.Value(got.Role.RoleId) + ":" + session
	return &sts.AssumeRoleOutput{Credentials: s.mint(account, arn, user, d), SourceIdentity: in.SourceIdentity,
		AssumedRoleUser: &sts.AssumedRoleUser{Arn: &arn, AssumedRoleId: &user}}, nil
}

// isSession reports whether the caller itself uses temporary credentials.
func isSession(id caller.Identity) bool { return strings.HasPrefix(id.AccessKeyID, "ASIA") }

func (s *Service) getSessionToken(ctx context.Context, in *sts.GetSessionTokenInput) (*sts.GetSessionTokenOutput, error) {
	id := caller.From(ctx)
	if isSession(id) {
		return nil, awserr.New("AccessDenied", "Cannot call GetSessionToken with session credentials").WithStatus(403)
	}
	d := seconds(in.DurationSeconds, 12*time.Hour)
	if strings.HasSuffix(id.PrincipalARN, ":root") {
		d = min(d, time.Hour) // root's sessions are short
	}
	return &sts.GetSessionTokenOutput{Credentials: s.mint(id.Account, id.PrincipalARN, id.PrincipalID, d)}, nil
}

func (s *Service) getFederationToken(ctx context.Context, in *sts.GetFederationTokenInput) (*sts.GetFederationTokenOutput, error) {
	id := caller.From(ctx)
	if isSession(id) {
		return nil, awserr.New("AccessDenied", "Cannot call GetFederationToken with session credentials").WithStatus(403)
	}
	arn := "arn:aws:sts::" + id.Account + ":federated-user/" + ptr.Value(in.Name)
	user := id.Account + ":" + ptr.Value(in.Name)
	return &sts.GetFederationTokenOutput{Credentials: s.mint(id.Account, arn, user, seconds(in.DurationSeconds, 12*time.Hour)),
		FederatedUser: &sts.FederatedUser{Arn: &arn, FederatedUserId: &user}}, nil
}
