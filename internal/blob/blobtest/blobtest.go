// Package blobtest is the conformance suite of blob.Store: every
// implementation runs it.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"slipway/internal/blob"
)

// Run runs the suite; open returns a fresh empty store.
func Run(t *testing.T, open func(t *testing.T) blob.Store) {
	for name, f := range map[string]func(*testing.T, blob.Store){"PutOpen": putOpen, "BrokenSource": brokenSource, "Remove": remove, "Concurrent": concurrent} {
		t.Run(name, func(t *testing.T) { f(t, open(t)) })
	}
}

func list(t *testing.T, s blob.Store) (out []string) {
	t.Helper()
	if err := s.Each(t.Context(), func(h string) error { out = append(out, h); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func put(t *testing.T, s blob.Store, data []byte) blob.Ref {
	t.Helper()
	ref, err := s.Put(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func putOpen(t *testing.T, s blob.Store) {
	for _, size := range []int{0, 1, 128<<10 - 1, 128 << 10, 1 << 20} {
		data := bytes.Repeat([]byte{'x', byte(size)}, size)[:size]
		sum := sha256.Sum256(data)
		ref := put(t, s, data)
		if ref.Size != int64(size) || ref.Hash != hex.EncodeToString(sum[:]) {
			t.Fatalf("ref %+v of %d bytes", ref, size)
		}
		if again := put(t, s, data); again != ref {
			t.Errorf("put again: %+v", again)
		}
		f, err := s.Open(ref.Hash)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("read %d bytes, %v", len(got), err)
		}
		if size > 10 {
			b := make([]byte, 5)
			if _, err := f.ReadAt(b, 5); err != nil || !bytes.Equal(b, data[5:10]) {
				t.Errorf("ReadAt: %q %v", b, err)
			}
		}
		f.Close()
	}
	if n := len(list(t, s)); n != 5 {
		t.Errorf("%d blobs, want 5", n)
	}
	for _, bad := range []string{"", "../../etc/passwd", strings.Repeat("0", 64), strings.Repeat("A", 64)} {
		if _, err := s.Open(bad); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("Open(%q): %v", bad, err)
		}
	}
}

func brokenSource(t *testing.T, s blob.Store) {
	broken := errors.New("broken")
	if _, err := s.Put(t.Context(), io.MultiReader(strings.NewReader("abc"), errReader{broken})); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, strings.NewReader("abc")); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if l := list(t, s); len(l) != 0 {
		t.Errorf("left behind: %v", l)
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

func remove(t *testing.T, s blob.Store) {
	ref := put(t, s, []byte("abc"))
	yes := func() (bool, error) { return true, nil }
	if gone, err := s.Remove(ref.Hash, time.Hour, yes); gone || err != nil {
		t.Errorf("a young blob: %v %v", gone, err)
	}
	if gone, err := s.Remove(ref.Hash, 0, func() (bool, error) { return false, nil }); gone || err != nil {
		t.Errorf("a used blob: %v %v", gone, err)
	}
	f, err := s.Open(ref.Hash)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if gone, err := s.Remove(ref.Hash, 0, yes); !gone || err != nil {
		t.Errorf("an unused blob: %v %v", gone, err)
	}
	if b, err := io.ReadAll(f); err != nil || string(b) != "abc" {
		t.Errorf("an open file after removal: %q %v", b, err)
	}
	if gone, err := s.Remove(ref.Hash, 0, yes); !gone || err != nil {
		t.Errorf("twice: %v %v", gone, err)
	}
	put(t, s, []byte("abc"))
	if _, err := s.Open(ref.Hash); err != nil {
		t.Errorf("put after removal: %v", err)
	}
}

// concurrent puts and removes the same content: what a Put returned for, and
// was counted as used since, must be there.
func concurrent(t *testing.T, s blob.Store) {
	const young = 50 * time.Millisecond
	stop, done := make(chan struct{}), make(chan struct{})
	sum := sha256.Sum256([]byte("same"))
	hash := hex.EncodeToString(sum[:])
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				s.Remove(hash, young, func() (bool, error) { return true, nil })
			}
		}
	}()
	for range 200 {
		began := time.Now()
		ref := put(t, s, []byte("same"))
		f, err := s.Open(ref.Hash)
		if err == nil {
			f.Close()
		} else if time.Since(began) < young { // else this machine was busy, and it is old
			t.Errorf("just put: %v", err)
			break
		}
	}
	close(stop)
	<-done
}
