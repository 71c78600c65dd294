package ssm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"slipway/internal/api/ssm"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
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
	// DefaultImage names the AMI that public parameters stand for in a
	// region; nil: there are no public parameters.
	DefaultImage func(region string) string
	Log          *slog.Logger // nil: slog.Default
}

// Service is the Parameter Store. All methods are safe for concurrent use.
type Service struct{ Deps }

// New makes the service; Register brings it to life.
func New(deps Deps) *Service {
	if deps.Clock == nil {
		deps.Clock = clock.Real
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	return &Service{deps}
}

// Run has nothing to do. It returns when ctx ends.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Register serves the operations.
func (s *Service) Register(m *dispatch.Mux) {
	dispatch.Register(m, ssm.OpPutParameter, s.put)
	dispatch.Register(m, ssm.OpGetParameter, s.get)
	dispatch.Register(m, ssm.OpGetParameters, s.getMany)
	dispatch.Register(m, ssm.OpGetParametersByPath, s.byPath)
	dispatch.Register(m, ssm.OpDeleteParameter, s.delete)
	dispatch.Register(m, ssm.OpDeleteParameters, s.deleteMany)
	dispatch.Register(m, ssm.OpDescribeParameters, s.describe)
	dispatch.Register(m, ssm.OpGetParameterHistory, s.history)
	dispatch.Register(m, ssm.OpLabelParameterVersion, s.label)
	dispatch.Register(m, ssm.OpUnlabelParameterVersion, s.unlabel)
	dispatch.Register(m, ssm.OpAddTagsToResource, s.addTags)
	dispatch.Register(m, ssm.OpRemoveTagsFromResource, s.removeTags)
	dispatch.Register(m, ssm.OpListTagsForResource, s.listTags)
}

const (
	typeString     = "String"
	typeStringList = "StringList"
	typeSecure     = "SecureString"
	tierStandard   = "Standard"
	tierAdvanced   = "Advanced"
	maxVersions    = 100
	maxLabels      = 10
)

// value is one version of a parameter.
type value struct {
	Version        int64
	Type           string
	Value          string `json:",omitempty"` // of String and StringList
	Sealed         []byte `json:",omitempty"` // of SecureString
	KeyID          string `json:",omitempty"`
	Description    string `json:",omitempty"`
	AllowedPattern string `json:",omitempty"`
	Tier           string
	DataType       string
	Modified       time.Time
	User           string
	Labels         []string `json:",omitempty"`
}

// parameter is a parameter and its newest version.
type parameter struct {
	Name string
	value
	Tags map[string]string `json:",omitempty"`
}

// olderValue is a version behind the newest.
type olderValue struct {
	Name string
	value
}

var (
	parameters = store.NewTable[parameter]("ssm:parameter", nil)
	versions   = store.NewTable("ssm:parameter-version", func(v *olderValue) (string, string) { return v.Name, "" })
)

func versionID(name string, n int64) string { return fmt.Sprintf("%s:%010d", name, n) }

func notFound(name string) error {
	return awserr.New("ParameterNotFound", "Parameter %s not found.", name)
}

func arn(id caller.Identity, name string) string {
	return "arn:aws:ssm:" + id.Region + ":" + id.Account + ":parameter/" + strings.TrimPrefix(name, "/")
}

// plainName takes the name out of a name or ARN of a parameter.
func plainName(s string) string {
	parts := strings.SplitN(s, ":", 6)
	if len(parts) == 6 && parts[0] == "arn" {
		name := strings.TrimPrefix(parts[5], "parameter")
		if strings.Count(name, "/") == 1 { // "/name" of a parameter without a path
			name = name[1:]
		}
		return name
	}
	return s
}

// sealContext binds a sealed value to its parameter.
func sealContext(id caller.Identity, name string) string {
	return id.Account + "/" + id.Region + "/" + name
}

// load finds a parameter by name or ARN.
func load(ctx context.Context, r store.Reader, name string) (*store.Row[parameter], error) {
	id := caller.From(ctx)
	row, err := parameters.Get(r, id.Account, id.Region, plainName(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, notFound(name)
	}
	return row, err
}

// older lists the versions behind the newest, oldest first.
func older(r store.Reader, row *store.Row[parameter]) ([]*store.Row[olderValue], error) {
	return versions.List(r, store.Query{Account: row.Account, Region: row.Region, Parent: row.Doc.Name})
}
