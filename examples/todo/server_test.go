package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

// testStore is a fresh SQLite file, or the PostgreSQL database that
// TODO_TEST_DATABASE_URL names, emptied.
func testStore(t *testing.T) *Store {
	t.Helper()
	dbURL := os.Getenv("TODO_TEST_DATABASE_URL")
	s, err := OpenStore(t.Context(), dbURL, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if dbURL != "" {
		if _, err := s.db.ExecContext(t.Context(), `TRUNCATE tasks RESTART IDENTITY`); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func testServer(t *testing.T) (*Server, http.Handler) {
	t.Helper()
	i := &Instance{Host: "ip-172-31-0-9", Version: "0123456789012345678901234567890123456789"}
	zone := "us-east-1b"
	i.zone.Store(&zone)
	s := NewServer(testStore(t), i, slog.New(slog.NewTextHandler(io.Discard, nil)))
	return s, s.Handler()
}

// ask sends a JSON request, or one without a body.
func ask(t *testing.T, h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// submit sends a form as a browser does.
func submit(t *testing.T, h http.Handler, path string, fields url.Values) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, h, "POST", path, fields.Encode(), "Content-Type", "application/x-www-form-urlencoded",
		"Sec-Fetch-Site", "same-origin")
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%v in %q", err, w.Body)
	}
	return v
}

func TestTaskLifeOverREST(t *testing.T) {
	_, h := testServer(t)
	w := ask(t, h, "POST", "/tasks", `{"title":"  buy bread  "}`)
	if w.Code != 201 || w.Header().Get("Location") != "/tasks/1" {
		t.Fatalf("create: %d %v %s", w.Code, w.Header(), w.Body)
	}
	if task := decode[Task](t, w); task.Title != "buy bread" || task.Done || task.CreatedAt.IsZero() {
		t.Fatalf("create: %+v", task)
	}
	w = ask(t, h, "PATCH", "/tasks/1", `{"done":true}`)
	if task := decode[Task](t, w); w.Code != 200 || !task.Done || task.Title != "buy bread" {
		t.Fatalf("patch: %d %s", w.Code, w.Body)
	}
	w = ask(t, h, "PUT", "/tasks/1", `{"title":"buy rye bread"}`)
	if task := decode[Task](t, w); w.Code != 200 || task.Done || task.Title != "buy rye bread" {
		t.Fatalf("put leaves nothing of the old task: %d %s", w.Code, w.Body)
	}
	w = ask(t, h, "GET", "/tasks/1", "")
	if task := decode[Task](t, w); w.Code != 200 || task.Title != "buy rye bread" {
		t.Fatalf("get: %d %s", w.Code, w.Body)
	}
	if w = ask(t, h, "DELETE", "/tasks/1", ""); w.Code != 204 || w.Body.Len() != 0 {
		t.Fatalf("delete: %d %s", w.Code, w.Body)
	}
	for _, method := range []string{"GET", "DELETE"} {
		if w = ask(t, h, method, "/tasks/1", ""); w.Code != 404 {
			t.Errorf("%s of a deleted task: %d %s", method, w.Code, w.Body)
		}
	}
}

func TestListing(t *testing.T) {
	_, h := testServer(t)
	for _, body := range []string{`{"title":"a"}`, `{"title":"b","done":true}`, `{"title":"c"}`} {
		if w := ask(t, h, "POST", "/tasks", body); w.Code != 201 {
			t.Fatal(w.Body)
		}
	}
	for query, want := range map[string]string{
		"": "cba", "?status=open": "ca", "?status=done": "b", "?status=all&limit=2": "cb",
		"?before=2": "a", "?status=open&before=3": "a", "?before=1": "",
	} {
		w := ask(t, h, "GET", "/tasks"+query, "")
		l := decode[listing](t, w)
		got := ""
		for _, task := range l.Tasks {
			got += task.Title
		}
		if w.Code != 200 || got != want || l.Counts != (Counts{Open: 2, Done: 1}) {
			t.Errorf("%q: %d %q %+v", query, w.Code, got, l.Counts)
		}
		if (query == "?status=all&limit=2") != (l.Next == 2) {
			t.Errorf("%q: next is %d", query, l.Next)
		}
	}
}

func TestBadRequests(t *testing.T) {
	_, h := testServer(t)
	if w := ask(t, h, "POST", "/tasks", `{"title":"a"}`); w.Code != 201 {
		t.Fatal(w.Body)
	}
	long := strings.Repeat("ä", MaxTitle+1)
	for _, c := range []struct {
		method, path, body, kind string
		status                   int
		code, field, message     string
	}{
		{"POST", "/tasks", `{}`, "", 400, "validation_failed", "title", "required"},
		{"POST", "/tasks", `{"title":""}`, "", 400, "validation_failed", "title", "empty"},
		{"POST", "/tasks", `{"title":" \t "}`, "", 400, "validation_failed", "title", "empty"},
		{"POST", "/tasks", `{"title":null}`, "", 400, "validation_failed", "title", "string"},
		{"POST", "/tasks", `{"title":7}`, "", 400, "validation_failed", "title", "string"},
		{"POST", "/tasks", `{"title":"a\nb"}`, "", 400, "validation_failed", "title", "one line"},
		{"POST", "/tasks", `{"title":"` + long + `"}`, "", 400, "validation_failed", "title", "201 characters"},
		{"POST", "/tasks", `{"title":"a","done":"yes"}`, "", 400, "validation_failed", "done", "true or false"},
		{"POST", "/tasks", `{"title":"a","done":null}`, "", 400, "validation_failed", "done", "true or false"},
		{"POST", "/tasks", `{"title":"a","urgent":true}`, "", 400, "validation_failed", "urgent", "unknown field"},
		{"POST", "/tasks", `{"title":"a"`, "", 400, "invalid_json", "", "one complete JSON object"},
		{"POST", "/tasks", `{title}`, "", 400, "invalid_json", "", "at byte 2"},
		{"POST", "/tasks", `["a"]`, "", 400, "invalid_json", "", "object"},
		{"POST", "/tasks", `null`, "", 400, "invalid_json", "", "object"},
		{"POST", "/tasks", ` `, "", 400, "invalid_json", "", "empty"},
		{"POST", "/tasks", `{"title":"a"} {}`, "", 400, "invalid_json", "", "follows"},
		{"POST", "/tasks", "{\"title\":\"\xff\"}", "", 400, "invalid_json", "", "UTF-8"},
		{"POST", "/tasks", `{"title":"` + strings.Repeat("a", maxBody) + `"}`, "", 413, "body_too_large", "", "16384"},
		{"POST", "/tasks", `title=a`, "text/plain", 415, "unsupported_media_type", "", "application/json"},
		{"POST", "/tasks", `title=a`, "application/x-www-form-urlencoded", 415, "unsupported_media_type", "", ""},
		{"PUT", "/tasks/1", `{"done":true}`, "", 400, "validation_failed", "title", "PATCH"},
		{"PATCH", "/tasks/1", `{}`, "", 400, "validation_failed", "", "nothing to change"},
		{"PATCH", "/tasks/99", `{"done":true}`, "", 404, "not_found", "", ""},
		{"GET", "/tasks/0", "", "", 404, "not_found", "", ""},
		{"GET", "/tasks/one", "", "", 404, "not_found", "", "whole numbers"},
		{"GET", "/tasks/99999999999999999999", "", "", 404, "not_found", "", ""},
		{"GET", "/tasks?status=late", "", "", 400, "validation_failed", "status", "open or done"},
		{"GET", "/tasks?limit=501", "", "", 400, "validation_failed", "limit", "500"},
		{"GET", "/tasks?before=x", "", "", 400, "validation_failed", "before", ""},
		{"GET", "/tasks?page=2", "", "", 400, "validation_failed", "page", "unknown parameter"},
		{"DELETE", "/tasks", "", "", 405, "method_not_allowed", "", "GET, HEAD, POST"},
		{"POST", "/tasks/1", `{"title":"a"}`, "", 405, "method_not_allowed", "", "PATCH"},
		{"POST", "/healthz", "", "", 405, "method_not_allowed", "", ""},
		{"GET", "/nowhere", "", "", 404, "not_found", "", "/nowhere"},
	} {
		header := []string{}
		if c.kind != "" {
			header = []string{"Content-Type", c.kind}
		}
		w := ask(t, h, c.method, c.path, c.body, header...)
		e := decode[map[string]apiError](t, w)["error"]
		if w.Code != c.status || e.Code != c.code || e.Field != c.field || !strings.Contains(e.Message, c.message) {
			t.Errorf("%s %s %.60q: %d %+v", c.method, c.path, c.body, w.Code, e)
		}
		if c.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: no Allow header", c.method, c.path)
		}
	}
	if l := decode[listing](t, ask(t, h, "GET", "/tasks", "")); l.Counts.All() != 1 {
		t.Errorf("a refused request changed the list: %+v", l)
	}
}

func TestHealth(t *testing.T) {
	s, h := testServer(t)
	w := ask(t, h, "GET", "/healthz", "")
	body := decode[map[string]string](t, w)
	if w.Code != 200 || body["version"] != s.instance.Version || body["instance"] != "ip-172-31-0-9" || body["zone"] != "us-east-1b" {
		t.Fatalf("%d %v", w.Code, body)
	}
	s.Stopping()
	if w := ask(t, h, "GET", "/healthz", ""); w.Code != 503 {
		t.Errorf("stopping: %d", w.Code)
	}
}

func TestHealthNeedsTheDatabase(t *testing.T) {
	s, h := testServer(t)
	s.store.Close()
	w := ask(t, h, "GET", "/healthz", "")
	if body := decode[map[string]string](t, w); w.Code != 503 || body["status"] != "database unavailable" {
		t.Errorf("%d %v", w.Code, body)
	}
	w = ask(t, h, "GET", "/tasks", "")
	if e := decode[map[string]apiError](t, w)["error"]; w.Code != 500 || strings.Contains(e.Message, "sql") {
		t.Errorf("what went wrong inside is nobody's business: %d %+v", w.Code, e)
	}
}
