package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// runLine runs one Exec line to its end.
func (s *service) runLine(line string, env []string, limit time.Duration) error {
	c, err := parseCommand(line, env)
	if err != nil {
		return err
	}
	pid, done, err := s.spawn(line, env)
	if err != nil {
		if c.ignoreErrors {
			return nil
		}
		return err
	}
	var ws syscall.WaitStatus
	select {
	case ws = <-done:
	case <-time.After(max(limit, time.Second)):
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-done
		return fmt.Errorf("%s: no end after %v", c.args[0], limit)
	}
	if code(ws) != 0 && !c.ignoreErrors {
		return fmt.Errorf("%s: %s", c.args[0], endOf(ws))
	}
	return nil
}

// marker is in the environment of everything that a service starts: it says to
// which one a process belongs, without guessing by names.
const marker = "SLIPWAY_UNIT="

func (s *service) spawn(line string, env []string) (int, <-chan syscall.WaitStatus, error) {
	u := s.unit
	c, err := parseCommand(line, env)
	if err != nil {
		return 0, nil, err
	}
	user := u.User
	if u.Group != "" && user != "" {
		user += ":" + u.Group
	}
	if c.asRoot {
		user = ""
	}
	dir := strings.TrimPrefix(u.WorkingDirectory, "-")
	if dir == "" {
		dir = "/"
	} else if dir == "~" {
		dir = ""
	}
	p, err := prepare(c.args, mergeEnv(s.in.boot.Spec.Env, env, []string{marker + u.Name}), dir, user)
	if err != nil {
		return 0, nil, err
	}
	out, err := openLog(u, u.StandardOutput)
	if err != nil {
		return 0, nil, err
	}
	defer out.Close()
	errOut := out
	if u.StandardError != "" && u.StandardError != "inherit" {
		if errOut, err = openLog(u, u.StandardError); err != nil {
			return 0, nil, err
		}
		defer errOut.Close()
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer null.Close()
	return s.in.reaper.start(p.path, p.argv, &syscall.ProcAttr{Dir: p.dir, Env: p.env, Files: []uintptr{null.Fd(), out.Fd(), errOut.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: p.cred}})
}

// openLog opens where a unit's output goes; what would be the journal is a file.
func openLog(u *unit, to string) (*os.File, error) {
	path := logPath(u.Name)
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	switch kind, file, _ := strings.Cut(to, ":"); kind {
	case "null":
		return os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	case "append":
		path = file
	case "file", "truncate":
		path = file
		if kind == "truncate" {
			flags |= os.O_TRUNC
		}
	default:
		if err := os.MkdirAll(logDir, 0o755); err != nil {
			return nil, err
		}
		if info, err := os.Stat(path); err == nil && info.Size() > logMost {
			_ = os.Rename(path, path+".1")
		}
	}
	return os.OpenFile(path, flags, 0o644)
}

func logPath(name string) string {
	return filepath.Join(logDir, strings.TrimSuffix(filepath.Base(name), ".service")+".log")
}

// killRest signals what belongs to the service besides its main process.
func (s *service) killRest(sig syscall.Signal) {
	_, main := s.current()
	for _, pid := range s.members() {
		if pid != main {
			_ = syscall.Kill(pid, sig)
		}
	}
}

// members are the living processes of the service: those with its mark in their
// environment, those below its main process, and those in their sessions.
func (s *service) members() []int {
	_, main := s.current()
	want := marker + s.unit.Name
	all := processes()
	in := map[int]bool{}
	for pid, p := range all {
		if pid == main || p.hasEnv(want) {
			in[pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, p := range all {
			if !in[pid] && p.ppid > 1 && in[p.ppid] {
				in[pid], grown = true, true
			}
		}
	}
	var out []int
	for pid := range in {
		if pid > 1 && !all[pid].dead {
			out = append(out, pid)
		}
	}
	return out
}
