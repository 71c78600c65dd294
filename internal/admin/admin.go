// Package admin serves what AWS has no API for, below /_slipway/: health,
// reset, shells in instances, fault injection, listeners, the event stream.
// Whoever calls needs the access key as user and its secret as password
// (health needs nothing), and a browser's foreign pages are refused.
package admin

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"slipway/internal/machine"
	"slipway/internal/store"
)

// Prefix of every path served here.
const Prefix = "/_slipway/"

// Deps are what the handlers work on.
type Deps struct {
	Store   store.Store
	Driver  machine.Driver
	Log     *slog.Logger
	Version string
	Started time.Time
	PID     int
	// Secret returns the secret of an access key id.
	Secret func(ctx context.Context, accessKeyID string) (string, error)
	// AnyCredentials takes whatever a caller sends.
	AnyCredentials bool
	// Listeners lists where load balancers can be reached.
	Listeners func(ctx context.Context) (any, error)
	// Reset brings back the freshly started state; nil where the server is
	// not ephemeral.
	Reset func(ctx context.Context) error
}

// Handler serves Prefix. Extra handlers join it by Handle.
type Handler struct {
	deps  Deps
	mux   *http.ServeMux
	guard *http.CrossOriginProtection
}

// New returns the handler.
func New(d Deps) *Handler {
	h := &Handler{deps: d, mux: http.NewServeMux(), guard: http.NewCrossOriginProtection()}
	h.mux.HandleFunc("GET "+Prefix+"health", h.health)
	h.Handle("GET "+Prefix+"listeners", h.listeners)
	h.Handle("POST "+Prefix+"reset", h.reset)
	h.Handle("GET "+Prefix+"events", h.events)
	h.Handle("GET "+Prefix+"instances", h.instances)
	h.Handle("POST "+Prefix+"instances/{id}/kill", h.kill)
	h.Handle("POST "+Prefix+"instances/{id}/exec", h.exec)
	h.Handle("GET "+Prefix+"instances/{id}/console", h.console)
	return h
}

// Handle adds a handler that needs credentials; pattern as for ServeMux.
func (h *Handler) Handle(pattern string, f http.HandlerFunc) {
	h.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if h.allowed(w, r) {
			f(w, r)
		}
	})
}

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h.guard.Check(r); err != nil {
		http.Error(w, "requests from other sites are refused", http.StatusForbidden)
		return
	}
	h.mux.ServeHTTP(w, r)
}

func (h *Handler) allowed(w http.ResponseWriter, r *http.Request) bool {
	if h.deps.AnyCredentials {
		return true
	}
	user, password, ok := r.BasicAuth()
	if ok {
		secret, err := h.deps.Secret(r.Context(), user)
		if err == nil && subtle.ConstantTimeCompare([]byte(secret), []byte(password)) == 1 {
			return true
		}
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="Slipway: access key id and secret access key", charset="UTF-8"`)
	http.Error(w, "give an access key id as user and its secret access key as password; slipway env prints a pair", http.StatusUnauthorized)
	return false
}

// JSON answers with v.
func JSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The client may be gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

func (h *Handler) health(w http.ResponseWriter, _ *http.Request) {
	JSON(w, map[string]any{"status": "ok", "version": h.deps.Version, "pid": h.deps.PID, "machines": h.deps.Driver.Name(), "started": h.deps.Started})
}

// LocalStackHealth answers /_localstack/health, by which tools made for
// LocalStack find out that something is there.
func (h *Handler) LocalStackHealth(services []string) http.HandlerFunc {
	state := map[string]string{}
	for _, s := range services {
		state[s] = "available"
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		JSON(w, map[string]any{"services": state, "edition": "slipway", "version": h.deps.Version})
	}
}

func (h *Handler) fail(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, machine.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, machine.ErrNotRunning):
		status = http.StatusConflict
	}
	http.Error(w, err.Error(), status)
}

func (h *Handler) listeners(w http.ResponseWriter, r *http.Request) {
	v, err := h.deps.Listeners(r.Context())
	if err != nil {
		h.fail(w, err)
		return
	}
	JSON(w, v)
}

func (h *Handler) reset(w http.ResponseWriter, r *http.Request) {
	if h.deps.Reset == nil {
		http.Error(w, "only a server started with --ephemeral can be reset; this one keeps its data", http.StatusConflict)
		return
	}
	if err := h.deps.Reset(r.Context()); err != nil {
		h.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) instances(w http.ResponseWriter, _ *http.Request) {
	type machineView struct {
		ID      string    `json:"id"`
		State   string    `json:"state"`
		PID     int       `json:"pid"`
		Address string    `json:"address"`
		Booted  time.Time `json:"booted"`
		Kind    string    `json:"kind"`
	}
	out := []machineView{}
	for _, st := range h.deps.Driver.List() {
		out = append(out, machineView{st.ID, string(st.State), st.PID, st.Spec.PrivateIP, st.BootedAt, string(st.Spec.Kind)})
	}
	JSON(w, out)
}

func (h *Handler) kill(w http.ResponseWriter, r *http.Request) {
	if err := h.deps.Driver.Kill(r.Context(), r.PathValue("id")); err != nil {
		h.fail(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) console(w http.ResponseWriter, r *http.Request) {
	out, err := h.deps.Driver.ConsoleOutput(r.PathValue("id"))
	if err != nil {
		h.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(out)
}

// events streams every transition as server-sent events, from ?after=SEQ on
// or from now.
func (h *Handler) events(w http.ResponseWriter, r *http.Request) {
	sub := h.deps.Store.Subscribe()
	defer sub.Close()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	rc := http.NewResponseController(w)
	send := func(ev store.Event) error {
		b, err := json.Marshal(ev)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, "id: "+strconv.FormatInt(ev.Seq, 10)+"\ndata: "+string(b)+"\n\n"); err != nil {
			return err
		}
		return rc.Flush()
	}
	last := int64(0)
	if after, err := strconv.ParseInt(r.URL.Query().Get("after"), 10, 64); err == nil {
		past, err := h.past(r.Context(), after)
		if err != nil {
			h.fail(w, err)
			return
		}
		for _, ev := range past {
			if send(ev) != nil {
				return
			}
			last = ev.Seq
		}
	}
	if rc.Flush() != nil {
		return
	}
	for {
		ev, err := sub.Next(r.Context())
		if errors.Is(err, store.ErrLagged) {
			continue
		}
		if err != nil {
			return
		}
		if ev.Seq > last && send(ev) != nil {
			return
		}
	}
}

// maxPast bounds how many old events a stream begins with.
const maxPast = 10_000

func (h *Handler) past(ctx context.Context, after int64) (evs []store.Event, err error) {
	err = h.deps.Store.View(ctx, func(r store.Reader) (err error) {
		evs, err = r.Events(after, maxPast)
		return err
	})
	return evs, err
}
