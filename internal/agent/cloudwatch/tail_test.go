package cloudwatch

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// rig drives the logs agent round by round, at times that the test sets.
type rig struct {
	*testing.T
	store *logStore
	dir   string
	cfg   string
	agent *logsAgent
	now   time.Time
}

func newRig(t *testing.T, entry string) *rig {
	r := &rig{T: t, store: newLogStore(t), dir: t.TempDir(), now: time.Now()}
	r.cfg = fmt.Sprintf(`{"logs": {"logs_collected": {"files": {"collect_list": [{"log_group_name": "g", "log_stream_name": "s", %s}]}}}}`, strings.ReplaceAll(entry, "DIR", r.dir))
	r.restart()
	return r
}

// restart makes a new agent from the state on disk, as after a crash.
func (r *rig) restart() {
	r.Helper()
	cfg, err := parseConfig("x", []byte(r.cfg))
	if err != nil {
		r.Fatal(err)
	}
	st, err := loadState(filepath.Join(r.dir, "state"))
	if err != nil {
		r.Fatal(err)
	}
	if r.agent != nil {
		for _, s := range r.agent.sources {
			s.close()
		}
	}
	r.agent = newLogsAgent(cfg.Logs, st, &host{InstanceID: "i"}, mustClient(r.T, r.store.URL), slog.New(slog.DiscardHandler))
	for _, s := range r.agent.sources {
		s.resume(r.now)
	}
}

func (r *rig) write(name, text string) {
	r.Helper()
	f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		r.Fatal(err)
	}
}

// pass lets time pass and the agent look and send.
func (r *rig) pass(d time.Duration) {
	for end := r.now.Add(d); r.now.Before(end); {
		r.now = r.now.Add(poll)
		r.agent.round(r.Context(), r.agent.cfg.Flush, r.now)
	}
}

func (r *rig) want(lines ...string) {
	r.Helper()
	if got := r.store.messages("g", "s"); strings.Join(got, "|") != strings.Join(lines, "|") {
		r.Errorf("stored %q, want %q", got, lines)
	}
}

func TestGlobAndAutoRemoval(t *testing.T) {
	r := newRig(t, `"file_path": "DIR/app-*.log", "auto_removal": true, "blacklist": "skip"`)
	r.write("app-skip.log", "never\n")
	r.write("app-1.log", "one\n")
	r.pass(7 * time.Second)
	r.want("one")
	r.write("app-1.log", "two\nunfinished")
	r.pass(time.Second)
	os.Chtimes(filepath.Join(r.dir, "app-1.log"), time.Time{}, time.Now().Add(-time.Minute))
	r.write("app-2.log", "three\n")
	r.pass(30 * time.Second)
	r.want("one", "two", "unfinished", "three")
	if _, err := os.Stat(filepath.Join(r.dir, "app-1.log")); !os.IsNotExist(err) {
		t.Error("the file that was read to its end is still there:", err)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "app-2.log")); err != nil {
		t.Error(err)
	}
}

func TestOldFileGrowsAgain(t *testing.T) {
	r := newRig(t, `"file_path": "DIR/app-*.log"`)
	one, two := filepath.Join(r.dir, "app-1.log"), filepath.Join(r.dir, "app-2.log")
	r.write("app-1.log", "one\n")
	r.pass(7 * time.Second)
	os.Chtimes(one, time.Time{}, time.Now().Add(-time.Minute))
	r.write("app-2.log", "two\n")
	r.pass(30 * time.Second) // the first is given up meanwhile
	os.Chtimes(two, time.Time{}, time.Now().Add(-time.Minute))
	r.write("app-1.log", "three\n")
	r.restart()
	r.pass(10 * time.Second)
	r.want("one", "two", "three")
}

func TestTruncated(t *testing.T) {
	r := newRig(t, `"file_path": "DIR/a.log"`)
	r.write("a.log", "one\ntwo\n")
	r.pass(7 * time.Second)
	if err := os.Truncate(filepath.Join(r.dir, "a.log"), 0); err != nil {
		t.Fatal(err)
	}
	r.pass(time.Second)
	r.write("a.log", "three\n")
	r.pass(7 * time.Second)
	if err := os.WriteFile(filepath.Join(r.dir, "a.log"), []byte("a new file that is longer than the old one was\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.restart()
	r.pass(7 * time.Second)
	r.want("one", "two", "three", "a new file that is longer than the old one was")
}

func TestSeveralLines(t *testing.T) {
	r := newRig(t, `"file_path": "DIR/a.log", "multi_line_start_pattern": "{timestamp_format}", "timestamp_format": "%H:%M:%S", "filters": [{"type": "exclude", "expression": "DEBUG"}]`)
	r.write("a.log", "10:00:00 panic\n\tat x\n\tat y\n10:00:01 DEBUG\n\tat z\n10:00:02 next\n")
	r.pass(10 * time.Second)
	r.want("10:00:00 panic\n\tat x\n\tat y", "10:00:02 next")
}

// TestRotatedWhileAway rotates twice while no agent runs.
func TestRotatedWhileAway(t *testing.T) {
	r := newRig(t, `"file_path": "DIR/a.log"`)
	log := filepath.Join(r.dir, "a.log")
	r.write("a.log", "one\n")
	r.pass(7 * time.Second)
	r.write("a.log", "two\n")
	os.Chtimes(log, time.Time{}, time.Now().Add(-2*time.Minute))
	os.Rename(log, log+".2")
	r.write("a.log.1", "three\n")
	os.Chtimes(log+".1", time.Time{}, time.Now().Add(-time.Minute))
	r.write("a.log.bak", "a copy\n")
	r.write("a.log", "four\n")
	r.restart()
	r.pass(30 * time.Second)
	r.want("one", "two", "three", "four")
	r.restart() // what has been read to its end is not read again
	r.pass(30 * time.Second)
	r.want("one", "two", "three", "four")
}
