package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func parse(t *testing.T, name, text string) (*unit, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	u := &unit{Name: name, Path: path}
	if err := u.parseFile(path); err != nil {
		return u, err
	}
	return u, u.complete()
}

func TestUnitFile(t *testing.T) {
	u, err := parse(t, "web@blue.service", `# comment
[Unit]
Description=The %i of %p
Wants=network.target
[Service]
Type=forking
PIDFile=/run/%N.pid
ExecStartPre=/bin/a
ExecStartPre=
ExecStartPre=/bin/b \
   --more
ExecStart=-/usr/bin/web -g 'daemon on; master on;' $OPTS "${NAME}x" $$HOME
RestartSec=1min 500ms
TimeoutStopSec=5
UMask=0027
[Install]
WantedBy=multi-user.target default.target
`)
	if err != nil {
		t.Fatal(err)
	}
	if u.Description != "The blue of web" || u.PIDFile != "/run/web@blue.pid" || u.RestartSec != time.Minute+500*time.Millisecond || u.TimeoutStop != 5*time.Second ||
		u.UMask != 0o027 || len(u.WantedBy) != 2 || len(u.ExecStartPre) != 1 {
		t.Errorf("%+v", u)
	}
	c, err := parseCommand(u.ExecStart[0], []string{"OPTS=-a  -b", "NAME=n"})
	want := []string{"/usr/bin/web", "-g", "daemon on; master on;", "-a", "-b", "nx", "$HOME"}
	if err != nil || !c.ignoreErrors || !slices.Equal(c.args, want) {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestUnitFileErrors(t *testing.T) {
	for text, want := range map[string]string{
		"[Service]\nExecStart=/a\nnonsense\n":                ":3: ",
		"[Service]\nExecStart=/a\nRestartSec=soon\n":         ":3: RestartSec",
		"[Service]\nType=magic\nExecStart=/a\n":              "Type=magic",
		"[Service]\nType=simple\n":                           "no ExecStart",
		"[Service]\nExecStart=/a\nExecStart=/b\n":            "more than one",
		"[Service]\nExecStart=/a\nRemainAfterExit=perhaps\n": ":3: RemainAfterExit",
	} {
		if _, err := parse(t, "x.service", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if _, err := parseCommand(`/a "b`, nil); err == nil {
		t.Error("an unbalanced quote passed")
	}
}

func TestQuotingRoundTrip(t *testing.T) {
	args := []string{"/bin/sh", "-c", `echo "$X" '$$' \ ${Y} a\nb`, "", "line\nbreak"}
	c, err := parseCommand(quoteWords(args), []string{"X=no", "Y=no"})
	if err != nil || !slices.Equal(c.args, args) {
		t.Errorf("%q, %v", c.args, err)
	}
}
