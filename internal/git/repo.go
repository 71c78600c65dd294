// Package git keeps bare repositories and serves them over git's smart HTTP
// protocol. The work is done by the git program itself, in a clean
// environment: no configuration of the machine or its users, no hooks.
package git

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"slipway/internal/lazyre"
)

// ErrNotFound says that a revision, path or object is not in the repository.
var ErrNotFound = errors.New("git: not found")

// Repo is a bare repository. Its methods are safe for concurrent use: git
// locks what it changes.
type Repo struct{ Dir string }

// Commit is what a commit object says.
type Commit struct {
	ID, Tree          string
	Parents           []string
	Author, Committer Person
	Message           string
}

// Person is an author or committer with the time of the deed.
type Person struct {
	Name, Email string
	When        time.Time
	// Raw is git's own form of the time: seconds and zone.
	Raw string
}

// Entry is one entry of a tree.
type Entry struct {
	Mode string // "100644", "100755", "120000" symlink, "160000" submodule, "040000" tree
	Type string // blob, tree, commit
	ID   string
	Path string // from the root of the tree
	Size int64  // of a blob
}

// maxPush bounds what one push may bring, in bytes.
const maxPush = 2 << 30

// A few kilobytes pushed can name a billion files (trees that hold the same
// tree many times) or unpack to any size, so what git says of a repository is
// bounded: its answers in memory, the files and bytes of an archive.
const (
	maxAnswer       = 64 << 20
	maxArchiveFiles = 300_000
	maxArchiveBytes = 8 << 30
)

// ErrTooLarge says that a repository holds more than is taken of it.
var ErrTooLarge = errors.New("git: too large")

// settings of every git process: nothing from outside, nothing executed,
// objects and refs on disk before the answer.
var settings = []string{
	"-c", "core.hooksPath=/dev/null", "-c", "core.fsync=committed,reference", "-c", "core.fsyncMethod=batch",
	"-c", "receive.fsckObjects=true", "-c", "receive.maxInputSize=" + strconv.Itoa(maxPush), "-c", "receive.autogc=false",
	"-c", "transfer.hideRefs=refs/slipway", "-c", "uploadpack.allowFilter=true", "-c", "uploadpack.allowAnySHA1InWant=false",
	"-c", "safe.directory=*", "-c", "gc.auto=0", "-c", "core.alternateRefsCommand=true", "-c", "protocol.allow=never",
}

// command prepares a git process that ends with ctx.
func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", append(append([]string{}, settings...), args...)...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "GIT_NO_REPLACE_OBJECTS=1", "GIT_ATTR_NOSYSTEM=1",
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Init makes an empty bare repository in dir, which must not exist yet.
func Init(ctx context.Context, dir string) (*Repo, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("git: %w", err)
	}
	if out, err := command(ctx, "init", "--bare", "--quiet", "--initial-branch=main", "--template=", dir).CombinedOutput(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("git init: %w: %s", err, bytes.TrimSpace(out))
	}
	return &Repo{Dir: dir}, nil
}

func (r *Repo) run(ctx context.Context, args ...string) ([]byte, error) {
	cmd := command(ctx, append([]string{"--git-dir", r.Dir}, args...)...)
	var stderr limited
	out := answer{room: maxAnswer}
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if out.room < 0 {
		return nil, fmt.Errorf("%w: git %s answers more than %d bytes", ErrTooLarge, args[0], maxAnswer)
	}
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out.buf.Bytes(), nil
}

// answer keeps what a program says, and ends it when that is too much: a
// failed write closes the pipe. The buffer is not embedded: io.Copy would go
// past Write by its ReadFrom.
type answer struct {
	buf  bytes.Buffer
	room int
}

func (a *answer) Write(p []byte) (int, error) {
	if a.room -= len(p); a.room < 0 {
		a.room = -1
		return 0, ErrTooLarge
	}
	return a.buf.Write(p)
}

// Branches returns the commit of every branch, by the branch's name.
func (r *Repo) Branches(ctx context.Context) (map[string]string, error) {
	out, err := r.run(ctx, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/")
	if err != nil {
		return nil, err
	}
	branches := map[string]string{}
	for line := range strings.Lines(string(out)) {
		id, ref, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			branches[strings.TrimPrefix(ref, "refs/heads/")] = id
		}
	}
	return branches, nil
}

// SetHead makes branch the one that a clone checks out.
func (r *Repo) SetHead(ctx context.Context, branch string) error {
	_, err := r.run(ctx, "symbolic-ref", "HEAD", "refs/heads/"+branch)
	return err
}

// UpdateBranch moves a branch from old to id; "" stands for "does not exist".
func (r *Repo) UpdateBranch(ctx context.Context, branch, id, old string) error {
	const none = "0000000000000000000000000000000000000000"
	if old == "" {
		old = none
	}
	if id == "" {
		_, err := r.run(ctx, "update-ref", "-d", "refs/heads/"+branch, old)
		return err
	}
	_, err := r.run(ctx, "update-ref", "refs/heads/"+branch, id, old)
	return err
}

// ValidBranch tells whether git would take the name for a branch.
func ValidBranch(ctx context.Context, name string) bool {
	return name != "" && !strings.HasPrefix(name, "-") && command(ctx, "check-ref-format", "--branch", name).Run() == nil
}

var fullID = lazyre.New(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// Resolve finds the commit that a branch, tag, full reference or commit id
// names. Git's other ways of naming revisions are not accepted.
func (r *Repo) Resolve(ctx context.Context, spec string) (string, error) {
	if spec == "" || strings.HasPrefix(spec, "-") || strings.ContainsAny(spec, "^~:@{ \\\x00\n*?[") {
		return "", fmt.Errorf("%w: revision %q", ErrNotFound, spec)
	}
	tries := []string{"refs/heads/" + spec, "refs/tags/" + spec, spec}
	if fullID.MatchString(spec) {
		tries = []string{spec, "refs/heads/" + spec, "refs/tags/" + spec}
	}
	for _, try := range tries {
		if out, err := r.run(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", try+"^{commit}"); err == nil {
			return strings.TrimSpace(string(out)), nil
		}
	}
	return "", fmt.Errorf("%w: revision %q", ErrNotFound, spec)
}

// Commit reads a commit object by its full id.
func (r *Repo) Commit(ctx context.Context, id string) (*Commit, error) {
	if !fullID.MatchString(id) {
		return nil, fmt.Errorf("%w: commit %q", ErrNotFound, id)
	}
	out, err := r.run(ctx, "cat-file", "commit", id)
	if err != nil {
		return nil, fmt.Errorf("%w: commit %s: %w", ErrNotFound, id, err)
	}
	c := &Commit{ID: id}
	head, message, _ := strings.Cut(string(out), "\n\n")
	c.Message = message
	for line := range strings.Lines(head) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), " ")
		switch key {
		case "tree":
			c.Tree = value
		case "parent":
			c.Parents = append(c.Parents, value)
		case "author":
			c.Author = person(value)
		case "committer":
			c.Committer = person(value)
		}
	}
	return c, nil
}

// person reads "Name <email> 1700000000 +0100".
func person(s string) Person {
	var p Person
	open, end := strings.LastIndexByte(s, '<'), strings.LastIndexByte(s, '>')
	if open < 0 || end < open {
		p.Name = s
		return p
	}
	p.Name, p.Email, p.Raw = strings.TrimSpace(s[:open]), s[open+1:end], strings.TrimSpace(s[end+1:])
	secs, zone, _ := strings.Cut(p.Raw, " ")
	if n, err := strconv.ParseInt(secs, 10, 64); err == nil {
		loc := time.UTC
		if z, err := time.Parse("-0700", zone); err == nil {
			_, off := z.Zone()
			loc = time.FixedZone(zone, off)
		}
		p.When = time.Unix(n, 0).In(loc)
	}
	return p
}

// Tree lists the entries directly below path ("" for the root) in a commit,
// or all files below it when recursive.
func (r *Repo) Tree(ctx context.Context, commit, path string, recursive bool) ([]Entry, error) {
	args := []string{"ls-tree", "-z", "-l", "--full-tree"}
	if recursive {
		args = append(args, "-r")
	}
	spec := commit
	if path != "" {
		spec = commit + ":" + path
	}
	out, err := r.run(ctx, append(args, "--end-of-options", spec)...)
	if err != nil {
		return nil, fmt.Errorf("%w: %q in %s: %w", ErrNotFound, path, commit, err)
	}
	var entries []Entry
	for _, line := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		meta, name, ok := strings.Cut(line, "\t")
		f := strings.Fields(meta)
		if !ok || len(f) != 4 {
			continue
		}
		if path != "" {
			name = strings.TrimRight(path, "/") + "/" + name
		}
		e := Entry{Mode: f[0], Type: f[1], ID: f[2], Path: name}
		e.Size, _ = strconv.ParseInt(f[3], 10, 64) // "-" for what has no size
		entries = append(entries, e)
	}
	return entries, nil
}

// Lookup returns the entry at path in a commit.
func (r *Repo) Lookup(ctx context.Context, commit, path string) (Entry, error) {
	dir, base := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, base = path[:i], path[i+1:]
	}
	entries, err := r.Tree(ctx, commit, dir, false)
	if err != nil {
		return Entry{}, err
	}
	for _, e := range entries {
		if e.Path == strings.TrimLeft(dir+"/"+base, "/") {
			return e, nil
		}
	}
	return Entry{}, fmt.Errorf("%w: %q in %s", ErrNotFound, path, commit)
}

// Blob returns the content of a blob of at most limit bytes.
func (r *Repo) Blob(ctx context.Context, id string, limit int64) ([]byte, error) {
	if !fullID.MatchString(id) {
		return nil, fmt.Errorf("%w: blob %q", ErrNotFound, id)
	}
	out, err := r.run(ctx, "cat-file", "-s", id)
	if err != nil {
		return nil, fmt.Errorf("%w: blob %s", ErrNotFound, id)
	}
	if n, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64); n > limit {
		return nil, fmt.Errorf("git: blob %s has %d bytes, more than %d", id, n, limit)
	}
	return r.run(ctx, "cat-file", "blob", id)
}

// batch streams blobs through one git process, in the order asked for.
type batch struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func (r *Repo) newBatch(ctx context.Context) (*batch, error) {
	cmd := command(ctx, "--git-dir", r.Dir, "cat-file", "--batch")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("git cat-file: %w", err)
	}
	return &batch{cmd: cmd, in: in, out: bufio.NewReaderSize(out, 64<<10)}, nil
}

// copy writes the blob id to w.
func (b *batch) copy(id string, w io.Writer) error {
	if _, err := io.WriteString(b.in, id+"\n"); err != nil {
		return fmt.Errorf("git cat-file: %w", err)
	}
	header, err := b.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("git cat-file: %w", err)
	}
	f := strings.Fields(header)
	if len(f) != 3 || f[1] != "blob" {
		return fmt.Errorf("%w: blob %s: git says %q", ErrNotFound, id, strings.TrimSpace(header))
	}
	n, err := strconv.ParseInt(f[2], 10, 64)
	if err != nil {
		return fmt.Errorf("git cat-file: size %q", f[2])
	}
	if _, err := io.CopyN(w, b.out, n); err != nil {
		return err
	}
	_, err = b.out.Discard(1) // the line feed behind the content
	return err
}

func (b *batch) close() error {
	b.in.Close()
	return b.cmd.Wait()
}
