package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain lets this program be started again as an instance of its own, for the
// tests that need several processes on one database.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TODO_TEST_WRITER"); dir != "" {
		if err := writer(dir, os.Getenv("TODO_TEST_NAME")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const perWriter = 40

// writer opens the shared file as an instance does, adds tasks, ticks each one and
// deletes every fourth. It says each task that was acknowledged.
func writer(dir, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := OpenStore(ctx, "", dir)
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range perWriter {
		t, err := s.Create(ctx, fmt.Sprintf("%s-%d", name, i), false)
		if err != nil {
			return err
		}
		done := true
		if _, err := s.Update(ctx, t.ID, Change{Done: &done}); err != nil {
			return err
		}
		if i%4 == 0 {
			if err := s.Delete(ctx, t.ID); err != nil {
				return err
			}
			continue
		}
		fmt.Println(t.Title)
	}
	return nil
}

func startWriter(t *testing.T, dir, name string, out *strings.Builder) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TODO_TEST_WRITER="+dir, "TODO_TEST_NAME="+name)
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// Three processes start at once on an empty directory, as the instances of a new group do.
func TestProcessesShareOneFile(t *testing.T) {
	dir := t.TempDir()
	var outs [3]strings.Builder
	var cmds [3]*exec.Cmd
	for i := range cmds {
		cmds[i] = startWriter(t, dir, fmt.Sprint("w", i), &outs[i])
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := OpenStore(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tasks, _, err := s.List(t.Context(), FilterDone, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, task := range tasks {
		have[task.Title] = true
	}
	want := 0
	for i := range outs {
		for title := range strings.FieldsSeq(outs[i].String()) {
			want++
			if !have[title] {
				t.Errorf("%s was acknowledged and is lost", title)
			}
		}
	}
	if len(tasks) != want || want != len(cmds)*perWriter*3/4 {
		t.Errorf("%d tasks, %d acknowledged", len(tasks), want)
	}
}

// An instance that is killed in the middle of its work loses nothing that it acknowledged,
// and hinders nobody.
func TestKilledProcessLosesNothing(t *testing.T) {
	dir := t.TempDir()
	var out strings.Builder
	cmd := startWriter(t, dir, "killed", &out)
	s, err := OpenStore(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for { // until it is at work
		if c, err := s.Counts(t.Context()); err != nil {
			t.Fatal(err)
		} else if c.All() > 3 {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait() //nolint:errcheck // it was killed
	if _, err := s.Create(t.Context(), "after", false); err != nil {
		t.Fatalf("the dead process holds a lock: %v", err)
	}
	tasks, _, err := s.List(t.Context(), FilterAll, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for title := range strings.FieldsSeq(out.String()) {
		found := false
		for _, task := range tasks {
			found = found || task.Title == title
		}
		if !found {
			t.Errorf("%s was acknowledged and is lost", title)
		}
	}
}

// During a rolling deployment the older version meets a schema from the future.
func TestNewerSchemaIsNoHindrance(t *testing.T) {
	if os.Getenv("TODO_TEST_DATABASE_URL") != "" {
		t.Skip("would change the schema of a database that is not this test's alone")
	}
	dir := t.TempDir()
	newer, err := OpenStore(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	old, err := OpenStore(t.Context(), "", dir) // open already when the newer one migrates
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	for _, q := range []string{
		`ALTER TABLE tasks ADD COLUMN due BIGINT`,
		`ALTER TABLE tasks ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal'`,
		`INSERT INTO schema_migrations VALUES (99, 0)`,
	} {
		if _, err := newer.db.ExecContext(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	again, err := OpenStore(t.Context(), "", dir) // a rollback
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	for _, s := range []*Store{old, again} {
		task, err := s.Create(t.Context(), "a", false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get(t.Context(), task.ID); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.List(t.Context(), FilterOpen, 0, 10); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoChangesOfOneTaskBothCount(t *testing.T) {
	s := testStore(t)
	task, err := s.Create(t.Context(), "a", false)
	if err != nil {
		t.Fatal(err)
	}
	title, done := "b", true
	var wg sync.WaitGroup
	for _, c := range []Change{{Title: &title}, {Done: &done}} {
		wg.Go(func() {
			if _, err := s.Update(t.Context(), task.ID, c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := s.Get(t.Context(), task.ID); err != nil || got.Title != "b" || !got.Done {
		t.Errorf("%+v %v", got, err)
	}
}

func TestIdsAreNeverUsedAgain(t *testing.T) {
	s := testStore(t)
	first, err := s.Create(t.Context(), "a", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), first.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), first.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
	if second, err := s.Create(t.Context(), "b", false); err != nil || second.ID <= first.ID {
		t.Errorf("%d after %d, %v", second.ID, first.ID, err)
	}
}

func TestOpenRefusals(t *testing.T) {
	_, err := OpenStore(t.Context(), "mysql://user:secret@db/todo", t.TempDir())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenStore(t.Context(), "", file); err == nil {
		t.Error("a file is no data directory")
	}
	odd := t.TempDir() + "/with space?and%20more"
	s, err := OpenStore(t.Context(), "", odd)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(odd + "/todo.db"); err != nil {
		t.Error(err)
	}
}
