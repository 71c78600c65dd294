package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// SIGTERM ends serve's context: what is under way is finished, new requests are not taken.
func TestGracefulStop(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s, _ := testServer(t)
	pr, pw := io.Pipe() // the log says where it listens
	s.log = slog.New(slog.NewJSONHandler(pw, nil))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, "127.0.0.1:0", s); pw.Close() }()
	dec := json.NewDecoder(pr)
	var line struct{ Address string }
	if err := dec.Decode(&line); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, io.MultiReader(dec.Buffered(), pr)) //nolint:errcheck // only to keep the pipe empty
	// A request whose body comes slowly is under way as long as we like. It waits
	// for "100 Continue": its body begins when the handler reads it. Before that,
	// a server that ends is free to hang up.
	body, send := io.Pipe()
	tr := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer tr.CloseIdleConnections()
	result := make(chan error, 1)
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+line.Address+"/tasks", body)
		if err != nil {
			result <- err
			return
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Expect", "100-continue")
		res, err := (&http.Client{Transport: tr}).Do(req)
		if err == nil {
			defer res.Body.Close()
			if res.StatusCode != 201 {
				err = fmt.Errorf("status %d", res.StatusCode)
			}
		}
		result <- err
	}()
	go func() {
		send.Write([]byte(`{"title":`)) //nolint:errcheck // the answer tells
		close(entered)
		<-release
		send.Write([]byte(`"slow"}`)) //nolint:errcheck // the answer tells
		send.Close()
	}()
	<-entered
	cancel()
	for !s.stopping.Load() {
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-ended:
		t.Fatalf("stopped with a request under way: %v", err)
	default:
	}
	close(release)
	if err := <-result; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("serve: %v", err)
	}
}

func TestZoneFromMetadataService(t *testing.T) {
	imds := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == "PUT" && r.URL.Path == "/latest/api/token" && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "":
			fmt.Fprint(w, "token")
		case r.Method == "GET" && r.URL.Path == "/latest/meta-data/placement/availability-zone" && r.Header.Get("X-aws-ec2-metadata-token") == "token":
			fmt.Fprint(w, "eu-west-1c\n")
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer imds.Close()
	t.Setenv("TODO_ZONE", "")
	i := NewInstance()
	i.FindZone(t.Context(), imds.URL+"/")
	if i.Zone() != "eu-west-1c" {
		t.Errorf("zone %q", i.Zone())
	}
	t.Setenv("TODO_ZONE", "here")
	i = NewInstance()
	i.FindZone(t.Context(), "http://127.0.0.1:1")
	if i.Zone() != "here" {
		t.Errorf("zone %q", i.Zone())
	}
}

func TestShortVersion(t *testing.T) {
	for version, want := range map[string]string{
		"0123456789abcdef0123456789abcdef01234567": "0123456", "dev": "dev", "v1.2.3": "v1.2.3",
		"arn:aws:s3:::bucket/some/long/key/which/is/no/commit": "arn:aws:s3:::bucket/some/long/key/which/is/no/commit",
	} {
		if got := (&Instance{Version: version}).Short(); got != want {
			t.Errorf("%q: %q", version, got)
		}
	}
}

func TestLogFileIsOpenedAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	l, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	log := slog.New(slog.NewJSONHandler(l, &slog.HandlerOptions{ReplaceAttr: utcMillis}))
	log.Info("before")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	l.reopen()
	log.Info("after")
	for name, want := range map[string]string{path + ".1": "before", path: "after"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var line struct{ Time, Msg string }
		if err := json.Unmarshal(b, &line); err != nil || line.Msg != want {
			t.Errorf("%s: %s", name, b)
		}
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", line.Time); err != nil || !strings.HasSuffix(line.Time, "Z") {
			t.Errorf("time %q: %v", line.Time, err)
		}
	}
}
