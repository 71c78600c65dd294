package codecommit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"slipway/internal/aws/awserr"
	"slipway/internal/git"
	"slipway/internal/store"
)

// Prefix is where git clients find repositories, as on AWS.
const Prefix = "/v1/repos/"

// Git serves git clients below Prefix.
func (s *Service) Git() http.Handler { return s.git }

// open checks the client's password and finds the repository.
func (s *Service) open(w http.ResponseWriter, r *http.Request, name string, _ git.Access) *git.Repo {
	user, password, ok := r.BasicAuth()
	account := s.deps.Account
	if !s.deps.AnyCredentials {
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="Slipway: access key id and secret access key"`)
			http.Error(w, "Give an access key id as user and its secret access key as password (slipway env prints them), or use aws codecommit credential-helper.", http.StatusUnauthorized)
			return nil
		}
		id, token, _ := strings.Cut(user, "%")
		cred, err := s.deps.Lookup(r.Context(), id, token)
		if err != nil || !s.accepts(r, name, cred.Secret, password) {
			http.Error(w, "The access key or the password is wrong. slipway env prints a pair that works.", http.StatusForbidden)
			return nil
		}
		account = cred.Account
	}
	row, err := s.locate(r.Context(), account, name)
	if errors.Is(err, store.ErrNotFound) {
		http.Error(w, fmt.Sprintf("There is no repository %q. aws codecommit create-repository --repository-name %s makes it.", name, name), http.StatusNotFound)
		return nil
	}
	if err != nil {
		s.deps.Log.Error("git: find repository", "repository", name, "error", err)
		http.Error(w, "the repository could not be read", http.StatusInternalServerError)
		return nil
	}
	return s.repo(row)
}

// locate finds a repository by its name alone: a git address has no region.
// The default region wins where several have one of that name.
func (s *Service) locate(ctx context.Context, account, name string) (*store.Row[Repository], error) {
	rows, err := repositories.Select(ctx, s.deps.Store, store.Query{Account: account, Prefix: name})
	if err != nil {
		return nil, err
	}
	var found *store.Row[Repository]
	for _, row := range rows {
		if row.ID == name && (found == nil || row.Region == s.deps.Region) {
			found = row
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: repository %q", store.ErrNotFound, name)
	}
	return found, nil
}

// skew is how far a credential helper's clock may be off.
const skew = 15 * time.Minute

// accepts tells whether password is the secret itself, or what AWS's git
// credential helper makes of it: a time and a SigV4 signature for method GIT.
func (s *Service) accepts(r *http.Request, name, secret, password string) bool {
	if subtle.ConstantTimeCompare([]byte(secret), []byte(password)) == 1 {
		return true
	}
	stamp, signature, ok := strings.Cut(password, "Z")
	if !ok {
		return false
	}
	at, err := time.Parse("20060102T150405", stamp)
	if err != nil || time.Since(at).Abs() > skew {
		return false
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	row, err := s.locate(r.Context(), s.deps.Account, name)
	regions := []string{s.deps.Region}
	if err == nil && row.Region != s.deps.Region {
		regions = append(regions, row.Region)
	}
	rest := strings.TrimPrefix(r.URL.Path, Prefix)
	path := Prefix + rest[:strings.IndexByte(rest, '/')]
	for _, region := range regions {
		if subtle.ConstantTimeCompare([]byte(helperSignature(secret, stamp, region, path, host)), []byte(signature)) == 1 {
			return true
		}
	}
	return false
}

// helperSignature is what AWS's credential helper signs for git: there is no
// body, no header but the host, and no Z behind the time.
func helperSignature(secret, stamp, region, path, host string) string {
	canonical := "GIT\n" + path + "\n\nhost:" + host + "\n\nhost\n"
	sum := sha256.Sum256([]byte(canonical))
	scope := stamp[:8] + "/" + region + "/codecommit/aws4_request"
	toSign := "AWS4-HMAC-SHA256\n" + stamp + "\n" + scope + "\n" + hex.EncodeToString(sum[:])
	key := []byte("AWS4" + secret)
	for _, part := range []string{stamp[:8], region, "codecommit", "aws4_request", toSign} {
		mac := hmac.New(sha256.New, key)
		io.WriteString(mac, part)
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key)
}

// pushed brings the branch rows in line with git after a push.
func (s *Service) pushed(ctx context.Context, name string) error {
	row, err := s.locate(ctx, s.deps.Account, name)
	if err != nil {
		return err
	}
	return s.sync(ctx, row)
}

// sync makes the branch rows of a repository say what git says. Each branch
// that moved gets an event "Pushed" (or "Deleted"), with the commit it was at
// before as detail. Git may move on while the rows are written, so it is asked
// again afterwards until both agree.
func (s *Service) sync(ctx context.Context, row *store.Row[Repository]) error {
	for range 10 {
		now, err := s.repo(row).Branches(ctx)
		if err != nil {
			return err
		}
		err = s.deps.Store.Update(ctx, func(tx store.Tx) error { return applyBranches(tx, row, maps.Clone(now)) })
		if err != nil {
			return err
		}
		again, err := s.repo(row).Branches(ctx)
		if err != nil {
			return err
		}
		if maps.Equal(now, again) {
			return s.fixDefault(ctx, row, now)
		}
	}
	return fmt.Errorf("codecommit: branches of %s keep moving", row.ID)
}

// applyBranches writes the difference between the rows and now, which it uses
// up.
func applyBranches(tx store.Tx, row *store.Row[Repository], now map[string]string) error {
	known, err := branches.List(tx, store.Query{Account: row.Account, Region: row.Region, Parent: row.ID})
	if err != nil {
		return err
	}
	for _, b := range known {
		id, ok := now[b.Doc.Name]
		switch {
		case !ok:
			if err := branches.Delete(tx, b, "Deleted", changed(row, b.Doc.Name, b.Doc.Commit, "")); err != nil {
				return err
			}
		case id != b.Doc.Commit:
			before := b.Doc.Commit
			b.Doc.Commit = id
			if err := branches.Save(tx, b, "Pushed", changed(row, b.Doc.Name, before, id)); err != nil {
				return err
			}
		}
		delete(now, b.Doc.Name)
	}
	for name, id := range now {
		doc := Branch{Repository: row.ID, Name: name, Commit: id}
		if _, err := branches.Insert(tx, row.Account, row.Region, row.ID+"/"+name, doc, "Pushed", changed(row, name, "", id)); err != nil {
			return err
		}
	}
	return nil
}

// fixDefault makes a branch the default one where there is none yet, as AWS
// does with the first push, and notes the time of the push.
func (s *Service) fixDefault(ctx context.Context, row *store.Row[Repository], now map[string]string) error {
	head := row.Doc.DefaultBranch
	if head == "" && len(now) > 0 {
		head = "main"
		if now[head] == "" {
			head = slices.Min(slices.Collect(maps.Keys(now)))
		}
		if err := s.repo(row).SetHead(ctx, head); err != nil {
			return err
		}
	}
	_, err := repositories.Modify(ctx, s.deps.Store, row.Account, row.Region, row.ID, "Pushed", func(r *Repository) error {
		r.Modified = s.deps.Clock.Now()
		if r.DefaultBranch == "" {
			r.DefaultBranch = head
		}
		return nil
	})
	return err
}

// Run brings all rows in line with git once (a crash may have come between a
// push and its record), removes directories that no row names, and returns
// when ctx ends.
func (s *Service) Run(ctx context.Context) error {
	rows, err := repositories.Select(ctx, s.deps.Store, store.Query{})
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, row := range rows {
		keep[row.Doc.ID+".git"] = true
		if err := s.sync(ctx, row); err != nil && ctx.Err() == nil {
			s.deps.Log.Error("codecommit: repository cannot be read", "repository", row.ID, "error", err)
		}
	}
	if entries, err := os.ReadDir(s.deps.Dir); err == nil {
		for _, e := range entries {
			if e.IsDir() && strings.HasSuffix(e.Name(), ".git") && !keep[e.Name()] {
				s.removeOrphan(ctx, strings.TrimSuffix(e.Name(), ".git"))
			}
		}
	}
	<-ctx.Done()
	return nil
}

// Head is a branch and the commit it points at.
type Head struct {
	Branch string
	Commit *git.Commit
}

// Head returns the commit at the tip of a branch, for a pipeline's source.
func (s *Service) Head(ctx context.Context, account, region, name, branch string) (*Head, error) {
	row, err := s.find(ctx, account, region, name)
	if err != nil {
		return nil, err
	}
	b, err := branches.Find(ctx, s.deps.Store, account, region, name+"/"+branch)
	if errors.Is(err, store.ErrNotFound) {
		return nil, awserr.New("BranchDoesNotExistException", "The branch %s does not exist in the repository %s.", branch, name)
	}
	if err != nil {
		return nil, err
	}
	c, err := s.repo(row).Commit(ctx, b.Doc.Commit)
	if err != nil {
		return nil, err
	}
	return &Head{Branch: branch, Commit: c}, nil
}

// Archive writes a commit's files as a ZIP, for a pipeline's source.
func (s *Service) Archive(ctx context.Context, account, region, name, commit string, w io.Writer) error {
	row, err := s.find(ctx, account, region, name)
	if err != nil {
		return err
	}
	return s.repo(row).Archive(ctx, commit, w)
}

// Commit resolves a commit id, branch or tag.
func (s *Service) Commit(ctx context.Context, account, region, name, spec string) (*git.Commit, error) {
	row, err := s.find(ctx, account, region, name)
	if err != nil {
		return nil, err
	}
	id, err := s.repo(row).Resolve(ctx, spec)
	if err != nil {
		return nil, awserr.New("CommitDoesNotExistException", "The specifier %s names no commit in the repository %s.", spec, name)
	}
	return s.repo(row).Commit(ctx, id)
}
