package codedeploy

import (
	"log/slog"
	"path/filepath"
	"testing"
)

// BenchmarkEvent is the whole way of one lifecycle event with a script of one line: poll, specification,
// acknowledgement, script, completion.
func BenchmarkEvent(b *testing.B) {
	s := newService(b)
	slog.SetLogLoggerLevel(slog.LevelError)
	root, dest := filepath.Join(b.TempDir(), "root"), filepath.Join(b.TempDir(), "app")
	s.start(root)
	ex := s.deployment("d-BENCH", bundle(dest, "one"), nil)
	for _, e := range []string{"DownloadBundle", "Install"} {
		if st, d := s.event(ex, e); st != "Succeeded" {
			b.Fatal(d)
		}
	}
	for b.Loop() {
		if st, d := s.event(ex, "AfterInstall"); st != "Succeeded" {
			b.Fatal(d)
		}
	}
}
