package codecommit

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "slipway/internal/api/codecommit"
	"slipway/internal/aws/awserr"
	"slipway/internal/aws/caller"
	"slipway/internal/store"
)

const account, region, keyID, secret = "123456789012", "us-east-1", "AKIAEXAMPLE", "s3cr3t/+"

func start(t *testing.T) (*Service, store.Store, string) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	s := New(Deps{
		Store: st, Dir: t.TempDir(), CloneURL: func() string { return "http://example.invalid" }, Account: account, Region: region,
		Lookup: func(_ context.Context, id, _ string) (Credential, error) {
			if id != keyID {
				return Credential{}, errors.New("unknown")
			}
			return Credential{Secret: secret, Account: account}, nil
		},
	})
	srv := httptest.NewServer(s.Git())
	t.Cleanup(srv.Close)
	return s, st, srv.URL
}

func as(t *testing.T) context.Context {
	return caller.With(t.Context(), caller.Identity{Account: account, Region: region})
}

func create(t *testing.T, s *Service, name string) {
	t.Helper()
	if _, err := s.createRepository(as(t), &api.CreateRepositoryInput{RepositoryName: &name}); err != nil {
		t.Fatal(err)
	}
}

// gitIn runs git in dir the way a developer does.
func gitIn(t *testing.T, dir string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=A Dev", "GIT_AUTHOR_EMAIL=dev@example.com", "GIT_COMMITTER_NAME=A Dev", "GIT_COMMITTER_EMAIL=dev@example.com",
		"GIT_TERMINAL_PROMPT=0", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := gitIn(t, dir, args...)
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

func work(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	mustGit(t, dir, "init", "-q", "-b", "main")
	for name, f := range map[string]struct {
		data string
		mode os.FileMode
	}{"run.sh": {"#!/bin/sh\n", 0o755}, "dir/a.txt": {"hello\n", 0o644}, ".gitattributes": {"dir/a.txt export-ignore\n", 0o644}} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(f.data), f.mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("dir/a.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	mustGit(t, dir, "add", "-A")
	mustGit(t, dir, "commit", "-q", "-m", "First\n\nWith a body.")
	return dir
}

func remote(base, user, password, name string) string {
	u, _ := url.Parse(base)
	u.User = url.UserPassword(user, password)
	return u.String() + Prefix + name
}

func TestPushIsRecordedBeforeItIsAcknowledged(t *testing.T) {
	s, st, base := start(t)
	create(t, s, "app")
	sub := st.Subscribe(branches.Kind)
	defer sub.Close()
	dir := work(t)
	mustGit(t, dir, "push", "-q", remote(base, keyID, secret, "app"), "main")
	head := mustGit(t, dir, "rev-parse", "HEAD")
	ev, err := sub.Next(t.Context())
	if err != nil || ev.Type != "Pushed" || ev.Key.ID != "app/main" || ev.State != head {
		t.Fatalf("event %+v %v", ev, err)
	}
	repo, err := s.getRepository(as(t), &api.GetRepositoryInput{RepositoryName: new("app")})
	if err != nil || *repo.RepositoryMetadata.DefaultBranch != "main" {
		t.Errorf("repository %+v %v", repo, err)
	}
	h, err := s.Head(as(t), account, region, "app", "main")
	if err != nil || h.Commit.ID != head || h.Commit.Author.Email != "dev@example.com" || !strings.HasPrefix(h.Commit.Message, "First") {
		t.Errorf("head %+v %v", h, err)
	}
	clone := t.TempDir()
	mustGit(t, clone, "clone", "-q", remote(base, keyID, secret, "app"), "c")
	if got := mustGit(t, clone+"/c", "rev-parse", "HEAD"); got != head {
		t.Errorf("clone has %s", got)
	}
	mustGit(t, dir, "push", "-q", remote(base, keyID, secret, "app"), "main:feature/x")
	mustGit(t, dir, "push", "-q", remote(base, keyID, secret, "app"), ":feature/x")
	list, err := s.listBranches(as(t), &api.ListBranchesInput{RepositoryName: new("app")})
	if err != nil || strings.Join(list.Branches, ",") != "main" {
		t.Errorf("branches %v %v", list, err)
	}
}

func TestArchiveKeepsModesAndIgnoresAttributes(t *testing.T) {
	s, _, base := start(t)
	create(t, s, "app")
	dir := work(t)
	mustGit(t, dir, "push", "-q", remote(base, keyID, secret, "app"), "main")
	var buf, again bytes.Buffer
	for _, b := range []*bytes.Buffer{&buf, &again} {
		if err := s.Archive(as(t), account, region, "app", mustGit(t, dir, "rev-parse", "HEAD"), b); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(buf.Bytes(), again.Bytes()) {
		t.Error("the same commit gave two archives")
	}
	zr, err := zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]os.FileMode{}
	for _, f := range zr.File {
		got[f.Name] = f.Mode()
	}
	want := map[string]os.FileMode{"run.sh": 0o755, "dir/a.txt": 0o644, ".gitattributes": 0o644, "link": os.ModeSymlink | 0o777}
	for name, mode := range want {
		if got[name] != mode {
			t.Errorf("%s: mode %v, want %v", name, got[name], mode)
		}
	}
	if len(got) != len(want) {
		t.Errorf("files %v", got)
	}
}

func TestPasswords(t *testing.T) {
	s, _, base := start(t)
	create(t, s, "app")
	dir := work(t)
	u, _ := url.Parse(base)
	stamp := func(at time.Time) string {
		st := at.UTC().Format("20060102T150405")
		return st + "Z" + helperSignature(secret, st, region, Prefix+"app", u.Hostname())
	}
	for name, tc := range map[string]struct {
		user, password string
		ok             bool
	}{
		"secret":        {keyID, secret, true},
		"helper":        {keyID, stamp(time.Now()), true},
		"old helper":    {keyID, stamp(time.Now().Add(-time.Hour)), false},
		"wrong secret":  {keyID, secret + "x", false},
		"unknown key":   {"AKIAOTHER", secret, false},
		"empty":         {keyID, "", false},
		"odd timestamp": {keyID, "20Z", false},
	} {
		out, err := gitIn(t, dir, "ls-remote", remote(base, tc.user, tc.password, "app"))
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v %s", name, err, out)
		}
	}
	if out, err := gitIn(t, dir, "ls-remote", base+Prefix+"app"); err == nil {
		t.Errorf("no password at all was accepted: %s", out)
	}
	if out, err := gitIn(t, dir, "ls-remote", remote(base, keyID, secret, "other")); err == nil {
		t.Errorf("a repository that does not exist: %s", out)
	}
}

func TestAPushThatACrashInterruptedIsFoundAtStart(t *testing.T) {
	s, st, base := start(t)
	create(t, s, "app")
	dir := work(t)
	mustGit(t, dir, "push", "-q", remote(base, keyID, secret, "app"), "main")
	row, err := repositories.Find(t.Context(), st, account, region, "app")
	if err != nil {
		t.Fatal(err)
	}
	mustGit(t, dir, "commit", "-q", "--allow-empty", "-m", "second")
	head := mustGit(t, dir, "rev-parse", "HEAD")
	mustGit(t, dir, "push", "-q", s.repo(row).Dir, "main") // behind the service's back
	orphan := filepath.Join(s.deps.Dir, "0-0.git")
	if err := os.Mkdir(orphan, 0o700); err != nil {
		t.Fatal(err)
	}
	sub := st.Subscribe(branches.Kind)
	defer sub.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	ev, err := sub.Next(t.Context())
	if err != nil || ev.State != head {
		t.Errorf("event %+v %v", ev, err)
	}
	for _, err := os.Stat(orphan); err == nil; _, err = os.Stat(orphan) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestRepositoryErrors(t *testing.T) {
	s, _, _ := start(t)
	create(t, s, "app")
	for _, tc := range []struct{ name, code string }{{"app", "RepositoryNameExistsException"}, {"a/b", "InvalidRepositoryNameException"}, {"x.git", "InvalidRepositoryNameException"}, {"../x", "InvalidRepositoryNameException"}} {
		_, err := s.createRepository(as(t), &api.CreateRepositoryInput{RepositoryName: &tc.name})
		if !awserr.Is(err, tc.code) {
			t.Errorf("create %q: %v", tc.name, err)
		}
	}
	_, err := s.getBranch(as(t), &api.GetBranchInput{RepositoryName: new("app"), BranchName: new("main")})
	if !awserr.Is(err, "BranchDoesNotExistException") {
		t.Errorf("branch: %v", err)
	}
	_, err = s.getFile(as(t), &api.GetFileInput{RepositoryName: new("app"), FilePath: new("x"), CommitSpecifier: new("HEAD^{/x}")})
	if !awserr.Is(err, "CommitDoesNotExistException") {
		t.Errorf("file: %v", err)
	}
	if out, err := s.deleteRepository(as(t), &api.DeleteRepositoryInput{RepositoryName: new("app")}); err != nil || out.RepositoryId == nil {
		t.Errorf("delete: %v %v", out, err)
	}
	entries, err := os.ReadDir(s.deps.Dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
