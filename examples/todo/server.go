package main

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"
)

// Server answers HTTP: the REST interface under /tasks, the page at /, and /healthz.
type Server struct {
	store    *Store
	instance *Instance
	log      *slog.Logger
	now      func() time.Time
	stopping atomic.Bool
}

// NewServer needs an open store; it does not close it.
func NewServer(store *Store, instance *Instance, log *slog.Logger) *Server {
	return &Server{store: store, instance: instance, log: log, now: time.Now}
}

// Stopping makes /healthz fail, for a load balancer that still looks.
func (s *Server) Stopping() { s.stopping.Store(true) }

// Handler is the whole application.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	s.restRoutes(mux)
	s.pageRoutes(mux)
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.apiFail(w, r, failed(http.StatusNotFound, "not_found", "There is nothing at %s.", r.URL.Path))
	})
	// Forms of other sites cannot change anything here: what a browser says about
	// the origin of an unsafe request must fit (Sec-Fetch-Site, else Origin against Host).
	csrf := http.NewCrossOriginProtection()
	csrf.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.apiFail(w, r, failed(http.StatusForbidden, "cross_origin", "Requests from other sites are refused."))
	}))
	return s.around(csrf.Handler(mux))
}

func (s *Server) restRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /tasks", s.api(s.listTasks))
	mux.HandleFunc("POST /tasks", s.api(s.createTask))
	mux.HandleFunc("GET /tasks/{id}", s.api(s.getTask))
	mux.HandleFunc("PUT /tasks/{id}", s.api(s.putTask))
	mux.HandleFunc("PATCH /tasks/{id}", s.api(s.patchTask))
	mux.HandleFunc("DELETE /tasks/{id}", s.api(s.deleteTask))
	s.only(mux, "/tasks", "GET, HEAD, POST")
	s.only(mux, "/tasks/{id}", "GET, HEAD, PUT, PATCH, DELETE")
	s.only(mux, "/healthz", "GET, HEAD")
}

// only answers every method that has no handler of its own, in JSON.
func (s *Server) only(mux *http.ServeMux, pattern, allow string) {
	mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		s.apiFail(w, r, failed(http.StatusMethodNotAllowed, "method_not_allowed", "%s is not allowed here; %s are.", r.Method, allow))
	})
}

// healthz says 200 only when the database answers and the process is not about to end.
func (s *Server) healthz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	status, text := http.StatusOK, "ok"
	if err := s.store.Check(ctx); err != nil {
		status, text = http.StatusServiceUnavailable, "database unavailable"
		s.log.LogAttrs(ctx, slog.LevelError, "health check failed", slog.Any("error", err))
	} else if s.stopping.Load() {
		status, text = http.StatusServiceUnavailable, "stopping"
	}
	writeJSON(w, status, map[string]string{
		"status": text, "version": s.instance.Version, "instance": s.instance.Host,
		"zone": s.instance.Zone(), "database": s.store.Engine(),
	})
}

// recorder remembers what was answered, for the log.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// policy lets the page use its own style sheet and script and nothing else.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; " +
	"img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// around sets the headers that every answer has, catches panics and logs the request.
func (s *Server) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := s.now()
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("X-Served-By", s.instance.Host)
		h.Set("X-Todo-Version", s.instance.Version)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				s.log.LogAttrs(r.Context(), slog.LevelError, "panic", slog.Any("value", p), slog.String("stack", string(debug.Stack())))
				if rec.status == 0 {
					s.apiFail(rec, r, failed(http.StatusInternalServerError, "internal", "The server could not do this; its log says why."))
				}
			}
			s.logRequest(r, rec, s.now().Sub(start))
		}()
		next.ServeHTTP(rec, r)
	})
}

func (s *Server) logRequest(r *http.Request, rec *recorder, took time.Duration) {
	if r.URL.Path == "/healthz" && rec.status == http.StatusOK {
		return // several a second, all alike
	}
	level := slog.LevelInfo
	if rec.status >= 500 {
		level = slog.LevelError
	}
	s.log.LogAttrs(r.Context(), level, "request",
		slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Int("status", rec.status),
		slog.Int64("bytes", rec.bytes), slog.Float64("ms", float64(took.Microseconds())/1000),
		slog.String("client", client(r)), slog.String("trace", r.Header.Get("X-Amzn-Trace-Id")))
}

// client is who asked, as far as the proxy in front tells. It is for the log
// only: anybody who reaches this port directly can write the header.
func client(r *http.Request) string {
	if f := r.Header.Get("X-Forwarded-For"); f != "" {
		first, _, _ := strings.Cut(f, ",")
		return strings.TrimSpace(first)
	}
	return r.RemoteAddr
}
