package admin

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"slipway/internal/machine/simulated"
	"slipway/internal/store"
)

func start(t *testing.T, d Deps) (*httptest.Server, Deps) {
	t.Helper()
	st, err := store.Open(t.Context(), store.Options{Ephemeral: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	d.Store, d.Driver, d.Log, d.Version = st, simulated.New(simulated.Options{}), slog.New(slog.DiscardHandler), "test"
	d.Secret = func(_ context.Context, id string) (string, error) {
		if id != "AKIA" {
			return "", errors.New("unknown")
		}
		return "secret", nil
	}
	d.Listeners = func(context.Context) (any, error) { return []string{}, nil }
	srv := httptest.NewServer(New(d))
	t.Cleanup(srv.Close)
	return srv, d
}

func do(t *testing.T, method, url, user, password string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestWhoMayCall(t *testing.T) {
	srv, _ := start(t, Deps{})
	for _, tc := range []struct {
		name, method, path, user, password string
		header                             []string
		want                               int
	}{
		{"health needs nothing", "GET", "health", "", "", nil, 200},
		{"no password", "GET", "listeners", "", "", nil, 401},
		{"wrong password", "GET", "listeners", "AKIA", "wrong", nil, 401},
		{"unknown key", "GET", "listeners", "AKIB", "secret", nil, 401},
		{"right", "GET", "listeners", "AKIA", "secret", nil, 200},
		{"another site's page", "POST", "instances/i-1/kill", "AKIA", "secret", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another origin", "POST", "instances/i-1/kill", "AKIA", "secret", []string{"Origin", "http://evil.example"}, 403},
		{"no such instance", "POST", "instances/i-1/kill", "AKIA", "secret", nil, 404},
		{"reset of a durable server", "POST", "reset", "AKIA", "secret", nil, 409},
		{"nothing there", "GET", "nope", "AKIA", "secret", nil, 404},
	} {
		if got, body := do(t, tc.method, srv.URL+Prefix+tc.path, tc.user, tc.password, tc.header...); got != tc.want {
			t.Errorf("%s: %d %s, want %d", tc.name, got, body, tc.want)
		}
	}
}

func TestEventsStreamFromThePastOn(t *testing.T) {
	srv, d := start(t, Deps{})
	table := store.NewTable[struct{}]("test:thing", nil)
	put := func(id string) {
		err := d.Store.Update(t.Context(), func(tx store.Tx) error {
			_, err := table.Insert(tx, "a", "r", id, struct{}{}, "Created", nil)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+Prefix+"events?after=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("AKIA", "secret")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got := make(chan string, 4)
	go func() {
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var ev store.Event
				if json.Unmarshal([]byte(data), &ev) == nil {
					got <- ev.Key.ID
				}
			}
		}
	}()
	next := func() string {
		select {
		case id := <-got:
			return id
		case <-time.After(time.Minute):
			t.Fatal("no event")
			return ""
		}
	}
	if id := next(); id != "before" {
		t.Errorf("first %q", id)
	}
	put("after")
	if id := next(); id != "after" {
		t.Errorf("second %q", id)
	}
}

func TestFramesRoundTripAndAreBounded(t *testing.T) {
	var buf bytes.Buffer
	w := &FrameWriter{W: &buf}
	if _, err := w.Stream(FrameStdout).Write(bytes.Repeat([]byte("x"), 100_000)); err != nil {
		t.Fatal(err)
	}
	total := 0
	for buf.Len() > 0 {
		kind, payload, err := ReadFrame(&buf)
		if err != nil || kind != FrameStdout {
			t.Fatal(kind, err)
		}
		total += len(payload)
	}
	if total != 100_000 {
		t.Errorf("%d bytes came through", total)
	}
	if _, _, err := ReadFrame(bytes.NewReader([]byte{0, 0xff, 0xff, 0xff, 0xff})); err == nil {
		t.Error("a frame of 4 GiB was accepted")
	}
}
