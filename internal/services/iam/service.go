package iam

import (
	"context"
	"log/slog"

	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/keyring"
	"slipway/internal/store"
)

// Deps is what the service needs from the rest of the server.
type Deps struct {
	Store store.Store
	Clock clock.Clock // nil: clock.Real
	Ring  *keyring.Ring
	// Root are the credentials of the account's root; see OpenRoot.
	Root    RootCredentials
	Account string       // of the root credentials; "" is 123456789012
	Log     *slog.Logger // nil: slog.Default
}

// Service is IAM. All methods are safe for concurrent use.
type Service struct{ Deps }

// New makes the service; Register brings it to life.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = clock.Real
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	if deps.Account == "" {
		deps.Account = "123456789012"
	}
	return &Service{deps}
}

// Run has nothing to do: IAM has no controllers. It returns when ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Register serves the operations.
func (s *Service) Register(m *dispatch.Mux) {
	s.registerUsers(m)
	s.registerRoles(m)
	s.registerGroups(m)
	s.registerProfiles(m)
	s.registerPolicies(m)
	s.registerEntityPolicies(m)
	s.registerAccount(m)
}
