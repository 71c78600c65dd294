package codedeploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/internal/spec/appspec"
)

func owner(st os.FileInfo) int { return int(st.Sys().(*syscall.Stat_t).Uid) }

func TestScripts(t *testing.T) {
	tests := []struct {
		name, body string
		script     appspec.Script
		code       int
		msg        string
	}{
		{"fine", "exit 0", appspec.Script{Timeout: 60}, 0, ""},
		{"status", "exit 42", appspec.Script{Timeout: 60}, codeFailed, "failed with exit code 42"},
		{"signal", "kill -9 $$", appspec.Script{Timeout: 60}, codeFailed, "failed with exit code 137"},
		{"no interpreter", "#!/no/such/interpreter", appspec.Script{Timeout: 60}, codeNotExecutable, "Unable to run script"},
		{"outputs open", "sleep 30 &", appspec.Script{Timeout: 2}, codeOutputsOpen, "failed to close STDOUT"},
		{"background with nohup", "sleep 100 >/dev/null 2>&1 &", appspec.Script{Timeout: 60}, 0, ""},
		{"reads no input", "read x && exit 1; exit 0", appspec.Script{Timeout: 60}, 0, ""},
		{"runas", `[ "$(id -un)" = nobody ] && [ "$MARK" = yes ]`, appspec.Script{Timeout: 60, RunAs: "nobody"}, -1, "failed with exit code 1"},
		{"runas root", `[ "$(id -un):$HOME:$USER:$MARK" = "root:/root:root:yes" ]`, appspec.Script{Timeout: 60, RunAs: "root"}, 0, ""},
		{"runas nobody there", "exit 0", appspec.Script{Timeout: 60, RunAs: "nosuchuser"}, codeFailed, "run as user nosuchuser failed with exit code"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			body := tt.body + "\n"
			if !strings.HasPrefix(body, "#!") {
				body = "#!/bin/sh\n" + body
			}
			os.WriteFile(filepath.Join(dir, "it's.sh"), []byte(body), 0o644) // not executable: the agent makes it so
			all := &deploymentsLog{dir: filepath.Join(dir, "all")}
			log, err := openScriptLog(filepath.Join(dir, "logs"), all, "d-1")
			if err != nil {
				t.Fatal(err)
			}
			defer log.close()
			x := newExecutor(Config{WorkDir: "/", KillGrace: 100 * time.Millisecond}.withDefaults(), layout{dir})
			tt.script.Location = "it's.sh"
			if tt.script.RunAs != "" && os.Getuid() != 0 {
				t.Skip("needs root: runas changes the user")
			}
			if tt.script.RunAs == "nobody" {
				tt.code = codeFailed // nobody's shell is nologin, which su obeys
			}
			err = x.script(t.Context(), dir, tt.script, append(os.Environ(), "MARK=yes"), log)
			var e *eventError
			if tt.code == 0 && err != nil || tt.code != 0 && (!errors.As(err, &e) || e.code != tt.code || !strings.Contains(e.msg, tt.msg) && tt.script.RunAs != "nobody") {
				t.Errorf("got %v, want %d %q", err, tt.code, tt.msg)
			}
		})
	}
}

func TestTail(t *testing.T) {
	dir := t.TempDir()
	log, err := openScriptLog(dir, &deploymentsLog{dir: dir}, "d-1")
	if err != nil {
		t.Fatal(err)
	}
	defer log.close()
	for i := range 500 {
		log.line(fmt.Sprintf("[stdout]line %d", i))
	}
	tail := log.tail()
	if len(tail) > tailSize || len(tail) < tailSize-40 || !strings.HasPrefix(tail, "[stdout]line ") || !strings.HasSuffix(tail, "[stdout]line 499\n") {
		t.Errorf("%d characters: %q", len(tail), tail)
	}
	log.line(strings.Repeat("x", 5000))
	if tail := log.tail(); len(tail) != tailSize {
		t.Errorf("%d characters of one long line", len(tail))
	}
	b, err := os.ReadFile(filepath.Join(dir, "scripts.log"))
	if err != nil || !strings.Contains(string(b), " [stdout]line 0\n") || len(strings.SplitN(string(b), " ", 3)[0]) != len("2006-01-02") {
		t.Errorf("scripts.log: %.60q %v", b, err)
	}
}

// TestScriptSource is the table of which revision's scripts an event runs.
func TestScriptSource(t *testing.T) {
	root := t.TempDir()
	l := layout{root}
	x := newExecutor(Config{}, l)
	replaceFile(l.lastSuccessful("g"), []byte("/last"), 0o644)
	replaceFile(l.mostRecent("g"), []byte("/recent"), 0o644)
	os.MkdirAll(filepath.Join(root, "g/d-here/deployment-archive"), 0o755)
	tests := []struct{ deployment, creator, kind, event, want string }{
		{"d-new", "user", "IN_PLACE", "ApplicationStop", "/last"},
		{"d-new", "user", "IN_PLACE", "BeforeBlockTraffic", "/last"},
		{"d-here", "user", "IN_PLACE", "ApplicationStop", "current"},
		{"d-here", "user", "IN_PLACE", "AfterInstall", "current"},
		{"d-new", "user", "IN_PLACE", "AfterInstall", "current"},
		{"d-new", "codeDeployRollback", "IN_PLACE", "BeforeAllowTraffic", "current"},
		{"d-new", "codeDeployRollback", "BLUE_GREEN", "BeforeAllowTraffic", "/last"},
		{"d-new", "codeDeployRollback", "BLUE_GREEN", "AfterBlockTraffic", "/recent"},
	}
	for _, tt := range tests {
		s := &specification{DeploymentGroupId: "g", DeploymentId: tt.deployment, DeploymentCreator: tt.creator, DeploymentType: tt.kind}
		want := tt.want
		if want == "current" {
			want = l.deployment(s)
		}
		if got, err := x.scriptSource(s, tt.event); err != nil || got != want {
			t.Errorf("%+v: %s %v", tt, got, err)
		}
	}
}
