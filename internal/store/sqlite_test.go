package store_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"slipway/internal/store"
	"slipway/internal/store/storetest"
)

func open(t *testing.T, o store.Options) store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestDurable(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, store.Options{Dir: t.TempDir()}) })
}

func TestEphemeral(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, store.Options{Ephemeral: true}) })
}

type note struct{ N int }

var notes = store.NewTable[note]("test:note", nil)

func TestResetIsForEphemeralOnly(t *testing.T) {
	s := open(t, store.Options{Ephemeral: true})
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := notes.Insert(tx, "a", "r", "x", note{}, "Created", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rows, err := notes.Select(t.Context(), s, store.Query{}); err != nil || len(rows) != 0 {
		t.Errorf("after reset: %v %v", rows, err)
	}
	if err := open(t, store.Options{Dir: t.TempDir()}).Reset(t.Context()); err == nil {
		t.Error("a durable store was reset")
	}
}

func TestNewerDataIsRefused(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// user_version is the four bytes at offset 60 of the file's header.
	f, err := os.OpenFile(dir+"/state.db", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0, 0, 0, 99}, 60); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, err := store.Open(t.Context(), store.Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "newer Slipway") {
		t.Errorf("got %v", err)
	}
}

// TestMain turns the test binary into the writer that TestKill9 kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SLIPWAY_STORE_WRITER"); dir != "" {
		writeForEver(dir)
	}
	os.Exit(m.Run())
}

func writeForEver(dir string) {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{Dir: dir})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	rows, err := notes.Select(ctx, s, store.Query{})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for i := len(rows); ; i++ {
		err := s.Update(ctx, func(tx store.Tx) error {
			_, err := notes.Insert(tx, "a", "r", fmt.Sprintf("%08d", i), note{N: i}, "Created", nil)
			return err
		})
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println("ack", i)
	}
}

// Every write that was acknowledged before a kill -9 is there afterwards.
func TestKill9LosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	acked := -1
	for round := range 5 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SLIPWAY_STORE_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The first two may die before they have written, the others do not.
		after := time.Duration(100+37*round) * time.Millisecond
		kill := time.AfterFunc(after, func() { cmd.Process.Kill() })
		if round >= 2 {
			kill.Reset(time.Minute)
		}
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if round >= 2 && after > 0 && strings.HasPrefix(sc.Text(), "ack") {
				kill.Reset(after)
				after = 0
			}
			if strings.HasPrefix(sc.Text(), "error") {
				t.Error(sc.Text())
			}
			fmt.Sscanf(sc.Text(), "ack %d", &acked)
		}
		cmd.Wait()
		kill.Stop()
	}
	s := open(t, store.Options{Dir: dir})
	rows, err := notes.Select(t.Context(), s, store.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if acked < 0 || len(rows) < acked+1 {
		t.Errorf("%d rows, but number %d was acknowledged", len(rows), acked)
	}
	for i, row := range rows {
		if row.Doc.N != i {
			t.Fatalf("row %d holds %d", i, row.Doc.N)
		}
	}
}
