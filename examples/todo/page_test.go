package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestPageWithoutScript(t *testing.T) {
	_, h := testServer(t)
	back := func(path string, fields url.Values, want string) {
		t.Helper()
		if w := submit(t, h, path, fields); w.Code != 303 || w.Header().Get("Location") != want {
			t.Fatalf("%s %v: %d to %q, want a redirect to %q: %.200s", path, fields, w.Code, w.Header().Get("Location"), want, w.Body)
		}
	}
	shows := func(path string, want ...string) string {
		t.Helper()
		w := ask(t, h, "GET", path, "")
		for _, text := range want {
			if w.Code != 200 || !strings.Contains(w.Body.String(), text) {
				t.Fatalf("%s: %d without %q", path, w.Code, text)
			}
		}
		return w.Body.String()
	}
	shows("/", "Nothing to do yet", "ip-172-31-0-9", "us-east-1b", ">0123456</span>")
	back("/add", url.Values{"title": {"<b>bread</b> & jam"}}, "/")
	if page := shows("/", "&lt;b&gt;bread&lt;/b&gt; &amp; jam"); strings.Contains(page, "<b>bread") {
		t.Fatal("a title is not markup")
	}
	back("/add", url.Values{"title": {"milk"}, "status": {"open"}}, "/?status=open")
	back("/tick/2", url.Values{"done": {"true"}, "status": {"open"}}, "/?status=open")
	back("/tick/2", url.Values{"done": {"true"}}, "/") // twice is once
	if page := shows("/?status=open"); strings.Contains(page, "milk") {
		t.Fatal("a done task is not open")
	}
	shows("/?status=done", "milk", `aria-checked="true"`)
	shows("/?edit=1", `action="/edit/1"`, `value="&lt;b&gt;bread`)
	back("/edit/1", url.Values{"title": {"rye bread"}}, "/")
	shows("/", "rye bread", "(1) Todo")
	back("/delete/1", nil, "/")
	back("/delete/1", nil, "/") // gone is gone
	back("/clear", url.Values{"status": {"done"}}, "/?status=done")
	shows("/", "Nothing to do yet")
}

func TestPageKeepsWhatWasRefused(t *testing.T) {
	_, h := testServer(t)
	submit(t, h, "/add", url.Values{"title": {"milk"}})
	long := strings.Repeat("x", MaxTitle+1)
	for path, button := range map[string]string{"/add": "Add", "/edit/1": "Save"} {
		w := submit(t, h, path, url.Values{"title": {long}})
		page := w.Body.String()
		if w.Code != 422 || !strings.Contains(page, "201 characters") || !strings.Contains(page, `value="`+long) || !strings.Contains(page, button) {
			t.Errorf("%s: status %d, or the page does not show the problem with what was typed", path, w.Code)
		}
	}
	if w := submit(t, h, "/tick/7", url.Values{"done": {"true"}}); w.Code != 404 || !strings.Contains(w.Body.String(), "deleted it") {
		t.Errorf("a task that is gone: %d", w.Code)
	}
	if w := submit(t, h, "/tick/1", url.Values{"done": {"maybe"}}); w.Code != 400 {
		t.Errorf("neither done nor open: %d", w.Code)
	}
	if w := submit(t, h, "/add", url.Values{"title": {strings.Repeat("x", maxBody)}}); w.Code != 413 {
		t.Errorf("a form without end: %d", w.Code)
	}
}

func TestOtherSitesChangeNothing(t *testing.T) {
	_, h := testServer(t)
	form := url.Values{"title": {"spam"}}.Encode()
	for _, header := range [][]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "http://evil.example"}, {"Origin", "null"},
	} {
		w := ask(t, h, "POST", "/add", form, append(header, "Content-Type", "application/x-www-form-urlencoded")...)
		if w.Code != 403 {
			t.Errorf("%v: %d", header, w.Code)
		}
	}
	// The proxy hands on the port, so that a browser without Sec-Fetch-Site passes.
	w := ask(t, h, "POST", "/add", form, "Content-Type", "application/x-www-form-urlencoded", "Origin", "http://example.com")
	if w.Code != 303 {
		t.Errorf("same origin: %d", w.Code)
	}
}

func TestHeaders(t *testing.T) {
	_, h := testServer(t)
	for path, status := range map[string]int{"/": 200, "/tasks": 200, "/nowhere": 404, "/static/x/app.css": 200} {
		w := ask(t, h, "GET", path, "")
		if w.Code != status {
			t.Errorf("%s: %d", path, w.Code)
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'", "X-Content-Type-Options": "nosniff",
			"X-Served-By": "ip-172-31-0-9", "X-Todo-Version": "0123456789012345678901234567890123456789",
		} {
			if !strings.Contains(w.Header().Get(name), want) {
				t.Errorf("%s: %s is %q", path, name, w.Header().Get(name))
			}
		}
	}
}

func TestAssets(t *testing.T) {
	_, h := testServer(t)
	page := ask(t, h, "GET", "/", "").Body.String()
	for name, kind := range map[string]string{"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"} {
		path := view{}.Asset(name)
		if !strings.Contains(page, path) {
			t.Errorf("the page does not use %s", path)
		}
		w := ask(t, h, "GET", path, "")
		if w.Code != 200 || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", path, w.Code, w.Header())
		}
		// A page of another version asks under another digest.
		w = ask(t, h, "GET", "/static/000000000000/"+name, "")
		if w.Code != 200 || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s of another version: %d %v", name, w.Code, w.Header())
		}
	}
	for _, path := range []string{"/static/x/page.html", "/static/x/..%2fmain.go", "/static/"} {
		if w := ask(t, h, "GET", path, ""); w.Code != 404 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestTheme(t *testing.T) {
	_, h := testServer(t)
	w := submit(t, h, "/theme", url.Values{"theme": {"dark"}})
	cookie := w.Result().Cookies()
	if w.Code != 303 || len(cookie) != 1 || cookie[0].Value != "dark" || !cookie[0].HttpOnly {
		t.Fatalf("%d %v", w.Code, cookie)
	}
	if page := ask(t, h, "GET", "/", "", "Cookie", themeCookie+"=dark").Body.String(); !strings.Contains(page, `data-theme="dark"`) {
		t.Error("not dark")
	}
	if page := ask(t, h, "GET", "/", "", "Cookie", themeCookie+`="><script>`).Body.String(); !strings.Contains(page, `data-theme="auto"`) {
		t.Error("nonsense is not the system's choice")
	}
	if c := submit(t, h, "/theme", url.Values{"theme": {"auto"}}).Result().Cookies(); len(c) != 1 || c[0].MaxAge >= 0 {
		t.Errorf("the cookie stays: %v", c)
	}
}

func TestLongListHasPages(t *testing.T) {
	s, h := testServer(t)
	for range pageSize + 1 {
		if _, err := s.store.Create(t.Context(), "t", false); err != nil {
			t.Fatal(err)
		}
	}
	if page := ask(t, h, "GET", "/", "").Body.String(); !strings.Contains(page, `href="/?before=2"`) || strings.Contains(page, `id="t1"`) {
		t.Error("the first page")
	}
	if page := ask(t, h, "GET", "/?before=2", "").Body.String(); !strings.Contains(page, `id="t1"`) || !strings.Contains(page, "Back to the newest") {
		t.Error("the second page")
	}
	if w := submit(t, h, "/tick/1", url.Values{"done": {"true"}, "before": {"2"}}); w.Header().Get("Location") != "/?before=2" {
		t.Errorf("back to %q", w.Header().Get("Location"))
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Second: "just now", 59 * time.Second: "just now", time.Minute: "1 min ago", 90 * time.Minute: "1 h ago",
		47 * time.Hour: "1 d ago", 8 * 24 * time.Hour: "26 Apr 2026",
	} {
		if got := (view{Now: now}).Ago(now.Add(-d)); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	s, _ := testServer(t)
	h := s.around(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("oh") }))
	if w := ask(t, h, "GET", "/", ""); w.Code != 500 || !strings.Contains(w.Body.String(), "internal") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
