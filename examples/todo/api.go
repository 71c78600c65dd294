package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"
)

const (
	maxBody      = 16 << 10 // bytes of a request body
	defaultLimit = 100      // tasks of a listing when none is asked for
	maxLimit     = 500
)

// apiError is what a client of the REST interface gets instead of a result:
// {"error": {"code": ..., "message": ..., "field": ...}}.
type apiError struct {
	Status  int    `json:"-"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field,omitempty"`
}

func (e *apiError) Error() string { return e.Message }

func failed(status int, code, format string, args ...any) *apiError {
	return &apiError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// toAPI turns any error into one that may be shown; what is not the client's
// fault is not explained to it.
func toAPI(err error) *apiError {
	var shown *apiError
	var field *FieldError
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &shown):
		return shown
	case errors.As(err, &field):
		return &apiError{http.StatusBadRequest, "validation_failed", field.Message, field.Field}
	case errors.Is(err, ErrNotFound):
		return failed(http.StatusNotFound, "not_found", "There is no such task.")
	case errors.As(err, &tooBig):
		return failed(http.StatusRequestEntityTooLarge, "body_too_large", "The body has more than %d bytes.", tooBig.Limit)
	}
	return failed(http.StatusInternalServerError, "internal", "The server could not do this; its log says why.")
}

type apiHandler func(r *http.Request) (status int, body any, err error)

// api serves the result of a handler as JSON.
func (s *Server) api(h apiHandler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		status, body, err := h(r)
		if err != nil {
			s.apiFail(w, r, err)
			return
		}
		if t, ok := body.(Task); ok && status == http.StatusCreated {
			w.Header().Set("Location", "/tasks/"+strconv.FormatInt(t.ID, 10))
		}
		writeJSON(w, status, body)
	}
}

func (s *Server) apiFail(w http.ResponseWriter, r *http.Request, err error) {
	e := toAPI(err)
	if e.Status >= 500 && r.Context().Err() == nil {
		s.log.LogAttrs(r.Context(), slog.LevelError, "request failed",
			slog.String("method", r.Method), slog.String("path", r.URL.Path), slog.Any("error", err))
	}
	writeJSON(w, e.Status, map[string]any{"error": e})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	if body == nil {
		w.WriteHeader(status)
		return
	}
	b, err := json.Marshal(body)
	if err != nil { // our own types always marshal
		http.Error(w, `{"error":{"code":"internal"}}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) //nolint:errcheck // the client is gone, there is nobody to tell
}

// pathID reads {id}. A path that cannot name a task is a path without one.
func pathID(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, failed(http.StatusNotFound, "not_found", "There is no task %q; ids are whole numbers from 1.", r.PathValue("id"))
	}
	return id, nil
}

type listing struct {
	Tasks  []Task `json:"tasks"`
	Counts Counts `json:"counts"`
	Next   int64  `json:"next,omitempty"` // value of "before" for the rest
}

func (s *Server) listTasks(r *http.Request) (int, any, error) {
	q := r.URL.Query()
	for k := range q {
		if !slices.Contains([]string{"status", "before", "limit"}, k) {
			return 0, nil, invalid(k, "unknown parameter %q; there are status, before and limit", k)
		}
	}
	f, err := ParseFilter(q.Get("status"))
	if err != nil {
		return 0, nil, err
	}
	before, err := number(q.Get("before"), "before", 0, 1<<62)
	if err != nil {
		return 0, nil, err
	}
	limit, err := number(q.Get("limit"), "limit", defaultLimit, maxLimit)
	if err != nil {
		return 0, nil, err
	}
	tasks, next, err := s.store.List(r.Context(), f, before, int(limit))
	if err != nil {
		return 0, nil, err
	}
	counts, err := s.store.Counts(r.Context())
	return http.StatusOK, listing{tasks, counts, next}, err
}

// number parses a positive whole number up to max; an empty string is def.
func number(s, field string, def, max int64) (int64, error) {
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 1 || n > max {
		return 0, invalid(field, "%s must be a whole number from 1 to %d, not %q", field, max, s)
	}
	return n, nil
}

func (s *Server) createTask(r *http.Request) (int, any, error) {
	c, err := readChange(r)
	if err != nil {
		return 0, nil, err
	}
	if c.Title == nil {
		return 0, nil, invalid("title", "title is required")
	}
	t, err := s.store.Create(r.Context(), *c.Title, c.Done != nil && *c.Done)
	return http.StatusCreated, t, err
}

func (s *Server) getTask(r *http.Request) (int, any, error) {
	id, err := pathID(r)
	if err != nil {
		return 0, nil, err
	}
	t, err := s.store.Get(r.Context(), id)
	return http.StatusOK, t, err
}

// putTask replaces a task: what the body leaves out gets its default.
func (s *Server) putTask(r *http.Request) (int, any, error) {
	return s.changeTask(r, func(c *Change) error {
		if c.Title == nil {
			return invalid("title", "title is required; PATCH changes single fields")
		}
		if c.Done == nil {
			c.Done = new(bool)
		}
		return nil
	})
}

// patchTask changes only what the body names.
func (s *Server) patchTask(r *http.Request) (int, any, error) {
	return s.changeTask(r, func(c *Change) error {
		if c.Title == nil && c.Done == nil {
			return invalid("", "nothing to change: give title, done or both")
		}
		return nil
	})
}

func (s *Server) changeTask(r *http.Request, check func(*Change) error) (int, any, error) {
	id, err := pathID(r)
	if err != nil {
		return 0, nil, err
	}
	c, err := readChange(r)
	if err != nil {
		return 0, nil, err
	}
	if err := check(&c); err != nil {
		return 0, nil, err
	}
	t, err := s.store.Update(r.Context(), id, c)
	return http.StatusOK, t, err
}

func (s *Server) deleteTask(r *http.Request) (int, any, error) {
	id, err := pathID(r)
	if err != nil {
		return 0, nil, err
	}
	return http.StatusNoContent, nil, s.store.Delete(r.Context(), id)
}

// readChange reads {"title": string, "done": bool}: nothing else, and no null.
func readChange(r *http.Request) (Change, error) {
	var c Change
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || (mt != "application/json" && mt != "application/merge-patch+json") {
		return c, failed(http.StatusUnsupportedMediaType, "unsupported_media_type", "Content-Type must be application/json.")
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var tooBig *http.MaxBytesError
		if errors.As(err, &tooBig) {
			return c, err
		}
		return c, failed(http.StatusBadRequest, "invalid_body", "The body could not be read.")
	}
	fields, err := jsonObject(body)
	if err != nil {
		return c, err
	}
	for name, raw := range fields {
		switch name {
		case "title":
			c.Title = new(string)
			if json.Unmarshal(raw, c.Title) != nil || raw[0] != '"' {
				return c, invalid(name, "title must be a string")
			}
			if *c.Title, err = CleanTitle(*c.Title); err != nil {
				return c, err
			}
		case "done":
			c.Done = new(bool)
			if json.Unmarshal(raw, c.Done) != nil || raw[0] == 'n' {
				return c, invalid(name, "done must be true or false")
			}
		default:
			return c, invalid(name, "unknown field %q; a task has title and done", name)
		}
	}
	return c, nil
}

func jsonObject(body []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(body) {
		return nil, failed(http.StatusBadRequest, "invalid_json", "The body is not valid UTF-8.")
	}
	var fields map[string]json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(body))
	var syntax *json.SyntaxError
	switch err := dec.Decode(&fields); {
	case errors.Is(err, io.EOF):
		return nil, failed(http.StatusBadRequest, "invalid_json", "The body is empty; a JSON object is expected.")
	case errors.As(err, &syntax):
		return nil, failed(http.StatusBadRequest, "invalid_json", "The body is not JSON: %v at byte %d.", syntax, syntax.Offset)
	case err != nil || fields == nil:
		return nil, failed(http.StatusBadRequest, "invalid_json", "The body must be one complete JSON object.")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, failed(http.StatusBadRequest, "invalid_json", "Something follows the JSON object.")
	}
	return fields, nil
}
