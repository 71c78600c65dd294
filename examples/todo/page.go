package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed templates static
var files embed.FS

var pages = template.Must(template.New("").ParseFS(files, "templates/*.html"))

// assets maps the name of a file under static/ to its content and a digest of it.
var assets = loadAssets()

type asset struct {
	content []byte
	digest  string
	kind    string
}

func loadAssets() map[string]asset {
	kinds := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	m := map[string]asset{}
	entries, err := fs.ReadDir(files, "static")
	if err != nil {
		panic(err) // the directory is part of the program
	}
	for _, e := range entries {
		b, err := fs.ReadFile(files, "static/"+e.Name())
		if err != nil {
			panic(err)
		}
		sum := sha256.Sum256(b)
		m[e.Name()] = asset{b, hex.EncodeToString(sum[:6]), kinds[path.Ext(e.Name())]}
	}
	return m
}

// pageSize is the number of tasks on one page.
const pageSize = 100

// view is everything that the template shows.
type view struct {
	Tasks    []Task
	Counts   Counts
	Filter   Filter
	Next     int64
	Before   int64
	Edit     int64
	Draft    string // what was typed and refused
	Error    string
	ErrorID  int64 // the task that the error is about; 0 is the new one
	Theme    string
	Instance *Instance
	Now      time.Time
	Max      int
}

// Percent of the list that is done.
func (v view) Percent() int64 {
	if v.Counts.All() == 0 {
		return 0
	}
	return 100 * v.Counts.Done / v.Counts.All()
}

// Asset is the address of an embedded file; the digest in it lets browsers keep it for ever.
func (v view) Asset(name string) string { return "/static/" + assets[name].digest + "/" + name }

// Here is the address of this view, to come back to after a form.
func (v view) Here() string { return here(v.Filter, v.Before) }

func here(f Filter, before int64) string {
	q := url.Values{}
	if f != FilterAll {
		q.Set("status", string(f))
	}
	if before > 0 {
		q.Set("before", strconv.FormatInt(before, 10))
	}
	if len(q) == 0 {
		return "/"
	}
	return "/?" + q.Encode()
}

// Ago says roughly how long ago something was.
func (v view) Ago(t time.Time) string {
	d := v.Now.Sub(t)
	switch {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	case d < 7*24*time.Hour:
		return fmt.Sprintf("%d d ago", int(d.Hours()/24))
	}
	return t.Format("2 Jan 2006")
}

func (s *Server) pageRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { s.render(w, r, http.StatusOK, view{}) })
	mux.HandleFunc("POST /add", s.form(s.addForm))
	mux.HandleFunc("POST /edit/{id}", s.form(s.editForm))
	mux.HandleFunc("POST /tick/{id}", s.form(s.tickForm))
	mux.HandleFunc("POST /delete/{id}", s.form(s.deleteForm))
	mux.HandleFunc("POST /clear", s.form(func(r *http.Request) error {
		_, err := s.store.DeleteDone(r.Context())
		return err
	}))
	mux.HandleFunc("POST /theme", s.themeForm)
	mux.HandleFunc("GET /static/{digest}/{name}", s.static)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, view{}.Asset("icon.svg"), http.StatusFound)
	})
	s.only(mux, "/{$}", "GET, HEAD")
	for _, p := range []string{"/add", "/edit/{id}", "/tick/{id}", "/delete/{id}", "/clear", "/theme"} {
		s.only(mux, p, "POST")
	}
}

// form runs the action of a form and sends the browser back to the list, so that a
// reload repeats nothing. What the person got wrong is shown beside what they typed.
func (s *Server) form(action func(r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if err := r.ParseForm(); err != nil {
			s.apiFail(w, r, badForm(err))
			return
		}
		err := action(r)
		var field *FieldError
		switch {
		case errors.As(err, &field):
			id, _ := pathID(r) // 0 is the form for a new task
			s.render(w, r, http.StatusUnprocessableEntity,
				view{Error: sentence(field.Message), ErrorID: id, Edit: id, Draft: r.PostForm.Get("title")})
		case errors.Is(err, ErrNotFound):
			s.render(w, r, http.StatusNotFound, view{Error: "That task is gone: somebody else deleted it."})
		case err != nil:
			s.apiFail(w, r, err)
		default:
			f, before := where(r.PostForm)
			http.Redirect(w, r, here(f, before), http.StatusSeeOther)
		}
	}
}

// sentence makes a message of the REST interface one for a page.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}

func badForm(err error) error {
	var tooBig *http.MaxBytesError
	if errors.As(err, &tooBig) {
		return err
	}
	return failed(http.StatusBadRequest, "invalid_form", "The form could not be read.")
}

// where is the part of the list that a form or a link was in; nonsense is the start.
func where(q url.Values) (Filter, int64) {
	f, err := ParseFilter(q.Get("status"))
	if err != nil {
		f = FilterAll
	}
	before, err := strconv.ParseInt(q.Get("before"), 10, 64)
	if err != nil || before < 0 {
		before = 0
	}
	return f, before
}

func (s *Server) addForm(r *http.Request) error {
	title, err := CleanTitle(r.PostForm.Get("title"))
	if err != nil {
		return err
	}
	_, err = s.store.Create(r.Context(), title, false)
	return err
}

func (s *Server) editForm(r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	title, err := CleanTitle(r.PostForm.Get("title"))
	if err != nil {
		return err
	}
	_, err = s.store.Update(r.Context(), id, Change{Title: &title})
	return err
}

// tickForm says what the state shall be, so that sending it twice does no harm.
func (s *Server) tickForm(r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	done, err := strconv.ParseBool(r.PostForm.Get("done"))
	if err != nil {
		return failed(http.StatusBadRequest, "invalid_form", "done must be true or false.")
	}
	_, err = s.store.Update(r.Context(), id, Change{Done: &done})
	return err
}

// deleteForm: somebody else may have been quicker, and then it is gone as wished.
func (s *Server) deleteForm(r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if err := s.store.Delete(r.Context(), id); err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	return nil
}

const themeCookie = "todo-theme"

func (s *Server) themeForm(w http.ResponseWriter, r *http.Request) {
	s.form(func(r *http.Request) error {
		c := &http.Cookie{Name: themeCookie, Path: "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, SameSite: http.SameSiteLaxMode}
		switch t := r.PostForm.Get("theme"); t {
		case "light", "dark":
			c.Value = t
		default:
			c.MaxAge = -1 // back to what the system says
		}
		http.SetCookie(w, c)
		return nil
	})(w, r)
}

func theme(r *http.Request) string {
	if c, err := r.Cookie(themeCookie); err == nil && (c.Value == "light" || c.Value == "dark") {
		return c.Value
	}
	return "auto"
}

// render shows the list; v brings what is special about this time.
func (s *Server) render(w http.ResponseWriter, r *http.Request, status int, v view) {
	q := r.URL.Query()
	if r.Method == http.MethodPost {
		q = r.PostForm
	} else if id, err := strconv.ParseInt(q.Get("edit"), 10, 64); err == nil {
		v.Edit = id
	}
	v.Filter, v.Before = where(q)
	v.Theme, v.Instance, v.Now, v.Max = theme(r), s.instance, s.now(), MaxTitle
	var err error
	if v.Tasks, v.Next, err = s.store.List(r.Context(), v.Filter, v.Before, pageSize); err == nil {
		v.Counts, err = s.store.Counts(r.Context())
	}
	var b bytes.Buffer
	if err == nil {
		err = pages.ExecuteTemplate(&b, "page.html", v)
	}
	if err != nil {
		s.log.LogAttrs(r.Context(), slog.LevelError, "page failed", slog.Any("error", err))
		http.Error(w, "The list cannot be shown right now. Please try again in a moment.", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(b.Bytes()) //nolint:errcheck // the client is gone, there is nobody to tell
}

// static serves an embedded file. During a deployment the page may come from one
// version and this request reach another: then the browser gets what there is, and
// is told not to keep it under the other version's address.
func (s *Server) static(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[r.PathValue("name")]
	if !ok {
		s.apiFail(w, r, failed(http.StatusNotFound, "not_found", "There is nothing at %s.", r.URL.Path))
		return
	}
	if r.PathValue("digest") == a.digest {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-store")
	}
	w.Header().Set("Content-Type", a.kind)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.content))
}

// row is one task together with the view around it.
type row struct {
	Task
	View view
}

// Row pairs a task with the view, for the templates of one task.
func (v view) Row(t Task) row { return row{t, v} }

// EditLink is this view with the task opened for editing.
func (r row) EditLink() string {
	h := r.View.Here()
	if h == "/" {
		h = "/?"
	} else {
		h += "&"
	}
	return fmt.Sprintf("%sedit=%d#t%d", h, r.ID, r.ID)
}

// Start is the address of the newest part of the same list.
func (v view) Start() string { return here(v.Filter, 0) }

// More is the address of the next older part of the list.
func (v view) More() string { return here(v.Filter, v.Next) }
