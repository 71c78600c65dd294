// Package caller carries who makes a request, and for which account and
// region, through a context.
package caller

import "context"

// Identity is who calls, as the signature proved it, and where to.
type Identity struct {
	Account string // twelve digits
	Region  string // from the credential scope; "us-east-1" for global services
	// AccessKeyID is empty for calls between services.
	AccessKeyID string
	// PrincipalARN is the user, the assumed role, or for calls between
	// services "service/codepipeline.amazonaws.com".
	PrincipalARN string
	// PrincipalID is the unique id ("AIDA...", "AROA...:session").
	PrincipalID string
	// SourceARN is what a service acts for (aws:SourceArn in policies); empty
	// where it does not say, and for all others.
	SourceARN string
	SourceIP  string
	UserAgent string
	RequestID string
}

type key struct{}

// With returns a context that carries id.
func With(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, key{}, id)
}

// From returns the identity in ctx; the zero Identity where there is none.
func From(ctx context.Context) Identity {
	id, _ := ctx.Value(key{}).(Identity)
	return id
}

// ForService returns a context for a call that a service makes on its own
// behalf, for example from a controller.
func ForService(ctx context.Context, service, account, region string) context.Context {
	return With(ctx, Identity{
		Account: account, Region: region,
		PrincipalARN: "service/" + service + ".amazonaws.com",
		PrincipalID:  service + ".amazonaws.com",
		SourceIP:     service + ".amazonaws.com",
		UserAgent:    service + ".amazonaws.com",
	})
}
