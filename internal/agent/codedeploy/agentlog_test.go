package codedeploy

import (
	"bytes"
	"path/filepath"
	"regexp"
	"testing"
)

func TestAgentLog(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "dir")
	var console bytes.Buffer
	log := newAgentLog(dir, &console)
	log.With("deployment", "d-1").Warn("something\nodd", "err", "a b")
	log.Debug("not shown")
	got := read(t, filepath.Join(dir, "codedeploy-agent.log"))
	want := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d WARN  \[codedeploy-agent\(\d+\)\]: something\\nodd deployment=d-1 err="a b"\n$`)
	if !want.MatchString(got) || console.String() != got {
		t.Errorf("file %q, console %q", got, console.String())
	}
	newAgentLog("/proc/nowhere", &console).Info("still on the console")
	if !bytes.Contains(console.Bytes(), []byte("still on the console")) {
		t.Error("a useless log directory silenced the agent")
	}
}
