package iam

import (
	"context"
	"errors"
	"sort"
	"strings"
	"time"

	"slipway/internal/api/iam"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/aws/ptr"
	"slipway/internal/keyring"
	"slipway/internal/store"
)

// entity is a user, a group, a role or an instance profile.
type entity struct {
	Path     string
	Name     string
	ID       string // "AIDA...", "AGPA...", "AROA...", "AIPA..."
	ARN      string
	Created  time.Time
	Tags     []iam.Tag         `json:",omitempty"`
	Inline   map[string]string `json:",omitempty"` // policy name -> document
	Attached []string          `json:",omitempty"` // ARNs
	Boundary string            `json:",omitempty"` // ARN

	Groups []string `json:",omitempty"` // a user's
	Login  *login   `json:",omitempty"` // a user's console password

	Trust       string `json:",omitempty"` // a role's AssumeRolePolicyDocument
	Description string `json:",omitempty"`
	MaxSession  int64  `json:",omitempty"` // seconds

	Role string `json:",omitempty"` // a profile's
}

type login struct {
	Hash    []byte // of the password; nothing logs in with it yet
	Created time.Time
	Reset   bool
}

// class is what differs between the four.
type class struct {
	store.Table[entity]
	word   string // as in AWS's messages
	field  string // as in AWS's ARNs
	prefix string // of the unique id
}

func entityTable(kind string) store.Table[entity] { return store.NewTable[entity](kind, nil) }

var (
	users    = class{entityTable("iam:user"), "user", "user", "AIDA"}
	groups   = class{entityTable("iam:group"), "group", "group", "AGPA"}
	roles    = class{entityTable("iam:role"), "role", "role", "AROA"}
	profiles = class{entityTable("iam:instance-profile"), "Instance Profile", "instance-profile", "AIPA"}
)

func account(ctx context.Context) string { return caller.From(ctx).Account }

func (c class) title() string { return strings.ToUpper(c.word[:1]) + c.word[1:] }

func (c class) missing(name string) error {
	return awserr.New("NoSuchEntity", "The %s with name %s cannot be found.", c.word, name).WithStatus(404)
}

// fail turns the store's errors into AWS's; others come back as they are.
func (c class) fail(err error, name string) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return c.missing(name)
	case errors.Is(err, store.ErrExists):
		return awserr.New("EntityAlreadyExists", "%s with name %s already exists.", c.title(), name).WithStatus(409)
	}
	return err
}

// create adds an entity: names are unique whatever their case.
func (s *Service) create(ctx context.Context, c class, path *string, e entity) (*store.Row[entity], error) {
	e.Path = ptr.Value(path)
	if e.Path == "" {
		e.Path = "/"
	}
	if !strings.HasPrefix(e.Path, "/") || !strings.HasSuffix(e.Path, "/") {
		return nil, awserr.New("ValidationError", "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.")
	}
	if err := checkTags(e.Tags); err != nil {
		return nil, err
	}
	acct := account(ctx)
	e.ID = keyring.NewID(c.prefix, 17)
	e.ARN = "arn:aws:iam::" + acct + ":" + c.field + e.Path + e.Name
	e.Created = s.Clock.Now().Truncate(time.Second)
	var row *store.Row[entity]
	err := s.Store.Update(ctx, func(tx store.Tx) (err error) {
		row, err = c.Insert(tx, acct, "", strings.ToLower(e.Name), e, "Created", nil)
		return err
	})
	return row, c.fail(err, e.Name)
}

// get reads an entity by name.
func (s *Service) get(ctx context.Context, c class, name *string) (*entity, error) {
	row, err := c.Find(ctx, s.Store, account(ctx), "", strings.ToLower(ptr.Value(name)))
	if err != nil {
		return nil, c.fail(err, ptr.Value(name))
	}
	return &row.Doc, nil
}

// change modifies an entity in a transaction of its own.
func (s *Service) change(ctx context.Context, c class, name *string, event string, fn func(*entity) error) (*entity, error) {
	row, err := c.Modify(ctx, s.Store, account(ctx), "", strings.ToLower(ptr.Value(name)), event, fn)
	if err != nil {
		return nil, c.fail(err, ptr.Value(name))
	}
	return &row.Doc, nil
}

// list gives the entities under a path, by name.
func (s *Service) list(ctx context.Context, c class, pathPrefix *string) ([]*entity, error) {
	rows, err := c.Select(ctx, s.Store, store.Query{Account: account(ctx)})
	if err != nil {
		return nil, err
	}
	var out []*entity
	for _, r := range rows {
		if strings.HasPrefix(r.Doc.Path, ptr.Value(pathPrefix)) {
			out = append(out, &r.Doc)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// paged cuts one page out of items, which are sorted by key: those behind
// marker, at most max (100 where it is not given).
func paged[T any](items []T, key func(T) string, marker *string, max *int64) (page []T, truncated *bool, next *string) {
	if marker != nil {
		i := sort.Search(len(items), func(i int) bool { return key(items[i]) > *marker })
		items = items[i:]
	}
	n := 100
	if max != nil {
		n = int(*max)
	}
	if n >= len(items) {
		return items, new(false), nil
	}
	return items[:n], new(true), new(key(items[n-1]))
}

func self(s string) string { return s }

func checkTags(tags []iam.Tag) error {
	seen := map[string]bool{}
	for _, t := range tags {
		k := strings.ToLower(ptr.Value(t.Key))
		if seen[k] {
			return awserr.New("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[k] = true
	}
	if len(tags) > 50 {
		return awserr.New("LimitExceeded", "The number of tags has reached the maximum limit.").WithStatus(409)
	}
	return nil
}

// mergeTags replaces tags of the same key, whatever its case.
func mergeTags(have, set []iam.Tag) ([]iam.Tag, error) {
	if err := checkTags(set); err != nil {
		return nil, err
	}
	var keys []string
	for _, t := range set {
		keys = append(keys, ptr.Value(t.Key))
	}
	out := append(dropTags(have, keys), set...)
	sort.Slice(out, func(i, j int) bool { return ptr.Value(out[i].Key) < ptr.Value(out[j].Key) })
	return out, checkTags(out)
}

func dropTags(have []iam.Tag, keys []string) []iam.Tag {
	var out []iam.Tag
	for _, t := range have {
		keep := true
		for _, k := range keys {
			keep = keep && !strings.EqualFold(k, ptr.Value(t.Key))
		}
		if keep {
			out = append(out, t)
		}
	}
	return out
}

func tagKey(t iam.Tag) string { return ptr.Value(t.Key) }

// boundary is the wire form of a permissions boundary.
func boundary(arn string) *iam.AttachedPermissionsBoundary {
	if arn == "" {
		return nil
	}
	return &iam.AttachedPermissionsBoundary{PermissionsBoundaryArn: &arn, PermissionsBoundaryType: new("PermissionsBoundaryPolicy")}
}
