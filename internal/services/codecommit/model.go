package codecommit

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"time"

	"slipway/internal/aws/dispatch"
	"slipway/internal/clock"
	"slipway/internal/git"
	"slipway/internal/lazyre"
	"slipway/internal/store"
)

// Repository is a repository's row; its id is the name.
type Repository struct {
	ID            string // UUID, names the directory on disk
	Description   string
	DefaultBranch string
	KMSKeyID      string
	Tags          map[string]string
	Modified      time.Time
}

// Branch is where a branch points; the row's id is repository + "/" + branch.
type Branch struct {
	Repository string
	Name       string
	Commit     string
}

var (
	repositories = store.NewTable[Repository]("codecommit:repository", nil)
	branches     = store.NewTable("codecommit:branch", func(b *Branch) (string, string) { return b.Repository, b.Commit })
)

// Credential is what a git password is checked against.
type Credential struct {
	Secret  string
	Account string
}

// Deps are what the service needs from outside.
type Deps struct {
	Store store.Store
	Clock clock.Clock
	Log   *slog.Logger
	// Dir holds the bare repositories; it must exist.
	Dir string
	// CloneURL is the base of CloneUrlHttp: "http://127.0.0.1:4566".
	CloneURL func() string
	// Lookup finds the secret of an access key; an error refuses the client.
	Lookup func(ctx context.Context, accessKeyID, sessionToken string) (Credential, error)
	// AnyCredentials accepts whatever user and password a client sends.
	AnyCredentials bool
	// Account and Region are those of a repository address without a hint.
	Account, Region string
}

// Service is CodeCommit. Its methods are safe for concurrent use.
type Service struct {
	deps Deps
	git  *git.Handler
}

// New returns the service; nothing runs until Run.
func New(d Deps) *Service {
	if d.Clock == nil {
		d.Clock = clock.Real
	}
	if d.Log == nil {
		d.Log = slog.Default()
	}
	s := &Service{deps: d}
	s.git = git.NewHandler(git.Handler{Prefix: Prefix, Open: s.open, Pushed: s.pushed, Log: d.Log})
	return s
}

// nameRule is AWS's rule for repository names (API reference, RepositoryName).
var nameRule = lazyre.New(`^[\w.-]{1,100}$`)

func (s *Service) repo(r *store.Row[Repository]) *git.Repo {
	return &git.Repo{Dir: filepath.Join(s.deps.Dir, r.Doc.ID+".git")}
}

// find returns a repository's row as the caller names it.
func (s *Service) find(ctx context.Context, account, region, name string) (*store.Row[Repository], error) {
	row, err := repositories.Find(ctx, s.deps.Store, account, region, name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noRepository(name)
	}
	return row, err
}

// Register serves the operations that are built.
func (s *Service) Register(m *dispatch.Mux) { s.register(m) }
