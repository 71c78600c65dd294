package git

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// Access is what a git client wants to do.
type Access int

const (
	Read  Access = iota // clone, fetch
	Write               // push
)

// Handler serves repositories below Prefix over git's smart HTTP protocol
// (gitprotocol-http(5)); the dumb protocol is not offered.
type Handler struct {
	Prefix string // "/v1/repos/"
	// Open authenticates the request and finds the repository. It answers
	// the request itself and returns nil where it refuses.
	Open func(w http.ResponseWriter, r *http.Request, name string, access Access) *Repo
	// Pushed is called after a push changed the repository and before the
	// client is told, so that an acknowledged push is never forgotten. An
	// error fails the push's answer: the client will try again.
	Pushed func(ctx context.Context, name string) error
	Log    *slog.Logger

	slots chan struct{}
}

// maxProcesses bounds how many git processes serve clients at once.
const maxProcesses = 8

// NewHandler returns h ready to serve.
func NewHandler(h Handler) *Handler {
	h.slots = make(chan struct{}, maxProcesses)
	if h.Log == nil {
		h.Log = slog.Default()
	}
	return &h
}

// maxRequest bounds a request that is no push: a list of commits.
const maxRequest = 32 << 20

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, action, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, h.Prefix), "/")
	if !ok || name == "" {
		http.Error(w, "A repository's address is "+h.Prefix+"NAME; give it to git clone or git remote add.", http.StatusNotFound)
		return
	}
	service := strings.TrimPrefix(action, "git-")
	if action == "info/refs" {
		service = strings.TrimPrefix(r.URL.Query().Get("service"), "git-")
	}
	if service != "upload-pack" && service != "receive-pack" {
		http.Error(w, "Only git's smart HTTP protocol is served here; this git client is too old, or the address is wrong.", http.StatusForbidden)
		return
	}
	access := Read
	if service == "receive-pack" {
		access = Write
	}
	repo := h.Open(w, r, strings.TrimSuffix(name, ".git"), access)
	if repo == nil {
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-r.Context().Done():
		return
	}
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	var err error
	switch {
	case action == "info/refs" && r.Method == http.MethodGet:
		err = h.advertise(w, r, repo, service)
	case action == "git-"+service && r.Method == http.MethodPost:
		err = h.exchange(w, r, repo, service, strings.TrimSuffix(name, ".git"))
	default:
		w.Header().Set("Allow", "GET, POST")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
	if err != nil && r.Context().Err() == nil {
		h.Log.Warn("git request failed", "repository", name, "service", service, "error", err)
	}
}

func (h *Handler) advertise(w http.ResponseWriter, r *http.Request, repo *Repo, service string) error {
	cmd := command(r.Context(), service, "--stateless-rpc", "--advertise-refs", repo.Dir)
	cmd.Env = append(cmd.Env, protocol(r)...)
	var stderr limited
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		http.Error(w, "git could not read the repository", http.StatusInternalServerError)
		return fmt.Errorf("git %s: %w: %s", service, err, bytes.TrimSpace(stderr.Bytes()))
	}
	w.Header().Set("Content-Type", "application/x-git-"+service+"-advertisement")
	line := "# service=git-" + service + "\n"
	fmt.Fprintf(w, "%04x%s0000", len(line)+4, line)
	_, err = w.Write(out)
	return err
}

// protocol passes the client's protocol version on, if it looks like one.
func protocol(r *http.Request) []string {
	if v := r.Header.Get("Git-Protocol"); v != "" && len(v) < 64 && !strings.ContainsAny(v, "\x00\n") {
		return []string{"GIT_PROTOCOL=" + v}
	}
	return nil
}

func (h *Handler) exchange(w http.ResponseWriter, r *http.Request, repo *Repo, service, name string) error {
	limit := int64(maxRequest)
	if service == "receive-pack" {
		limit = maxPush + maxRequest
	}
	body := io.Reader(http.MaxBytesReader(w, r.Body, limit))
	if r.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, "the request's gzip encoding is broken", http.StatusBadRequest)
			return err
		}
		body = io.LimitReader(zr, limit)
	}
	cmd := command(r.Context(), service, "--stateless-rpc", repo.Dir)
	cmd.Env = append(cmd.Env, protocol(r)...)
	var stderr limited
	cmd.Stdin, cmd.Stderr = body, &stderr
	w.Header().Set("Content-Type", "application/x-git-"+service+"-result")
	if service == "upload-pack" {
		cmd.Stdout = &flusher{w: w}
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("git upload-pack: %w: %s", err, stderr.String())
		}
		return nil
	}
	// What receive-pack answers is short: it is held back until the push is
	// recorded, so that "ok" means that the pipeline will see it.
	var answer limited
	cmd.Stdout = &answer
	runErr := cmd.Run()
	// A push may have moved refs and then failed to say so: record whatever
	// is there now. The client's going away must not stop that.
	if err := h.Pushed(context.WithoutCancel(r.Context()), name); err != nil {
		http.Error(w, "the push was stored but could not be recorded; push again", http.StatusInternalServerError)
		return err
	}
	_, werr := w.Write(answer.Bytes())
	if runErr != nil {
		return fmt.Errorf("git receive-pack: %w: %s", runErr, stderr.String())
	}
	return werr
}

// limited keeps the first megabyte of what is written to it. The buffer is not
// embedded: io.Copy would go past Write by its ReadFrom.
type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 1<<20 - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) Bytes() []byte  { return l.buf.Bytes() }
func (l *limited) String() string { return l.buf.String() }

// flusher sends what git says at once: progress is for people who wait. A
// client that takes nothing for a minute is given up, for it holds one of the
// few processes.
type flusher struct{ w http.ResponseWriter }

const takeTime = time.Minute

func (f *flusher) Write(p []byte) (int, error) {
	rc := http.NewResponseController(f.w)
	if err := rc.SetWriteDeadline(time.Now().Add(takeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	n, err := f.w.Write(p)
	if ferr := rc.Flush(); err == nil && ferr != nil && !errors.Is(ferr, http.ErrNotSupported) {
		err = ferr
	}
	if derr := rc.SetWriteDeadline(time.Time{}); err == nil && derr != nil && !errors.Is(derr, http.ErrNotSupported) {
		err = derr
	}
	return n, err
}
