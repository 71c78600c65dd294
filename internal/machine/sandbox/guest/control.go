package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// controlSocket is where systemctl finds PID 1. Only root of the machine may ask.
const controlSocket = "/run/slipway/init.sock"

// ask is one systemctl command; told is its answer.
type ask struct {
	Verb  string
	Units []string
	Now   bool // --now
	Props []string
	Value bool
}

type told struct {
	Out  string
	Err  string
	Code int
}

func (in *Init) listenInside() error {
	// Scripts take this directory as the sign of a machine run by systemd's ways.
	if err := os.MkdirAll("/run/systemd/system", 0o755); err != nil {
		return err
	}
	ln, err := net.Listen("unix", controlSocket)
	if err != nil {
		return fmt.Errorf("control socket inside: %w", err)
	}
	if err := os.Chmod(controlSocket, 0o600); err != nil {
		return err
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go in.answer(c)
		}
	}()
	return nil
}

func (in *Init) answer(c net.Conn) {
	defer c.Close()
	var a ask
	if err := json.NewDecoder(c).Decode(&a); err != nil {
		return
	}
	_ = json.NewEncoder(c).Encode(in.super.do(a))
}

// do carries out a systemctl command. Exit codes are those of systemctl(1).
func (s *supervisor) do(a ask) told {
	var t told
	each := func(f func(name string) error) {
		if len(a.Units) == 0 {
			t.Code, t.Err = 1, "Too few arguments.\n"
		}
		for _, n := range a.Units {
			if err := f(fullName(n)); err != nil {
				t.Err += fmt.Sprintf("%s\n", err)
				t.Code = max(t.Code, failCode(err))
			}
		}
	}
	switch a.Verb {
	case "start":
		each(s.start)
	case "stop":
		each(s.stopOne)
	case "restart":
		each(func(n string) error { return errors.Join(s.stopKnown(n), s.start(n)) })
	case "try-restart", "condrestart":
		each(func(n string) error {
			if st, _ := s.service(n).current(); st != stActive {
				return nil
			}
			return errors.Join(s.stopOne(n), s.start(n))
		})
	case "reload", "force-reload":
		each(func(n string) error { return s.reloadOne(n, false) })
	case "reload-or-restart", "try-reload-or-restart":
		each(func(n string) error { return s.reloadOne(n, true) })
	case "kill":
		each(func(n string) error {
			v := s.service(n)
			if v.unit != nil {
				v.killRest(15)
				if _, pid := v.current(); pid > 0 {
					p, err := os.FindProcess(pid)
					return errors.Join(err, p.Signal(os.Signal(sigTerm)))
				}
			}
			return nil
		})
	case "enable", "reenable", "preset":
		each(func(n string) error {
			out, err := s.enable(n)
			t.Err += out // systemctl says it on stderr
			if err == nil && a.Now {
				err = s.start(n)
			}
			return err
		})
	case "disable":
		each(func(n string) error {
			out, err := s.disable(n)
			t.Err += out
			if err == nil && a.Now {
				err = s.stopOne(n)
			}
			return err
		})
	case "mask":
		each(func(n string) error {
			_ = os.Remove("/etc/systemd/system/" + n)
			return os.Symlink("/dev/null", "/etc/systemd/system/"+n)
		})
	case "unmask":
		each(func(n string) error {
			if l, err := os.Readlink("/etc/systemd/system/" + n); err == nil && l == "/dev/null" {
				return os.Remove("/etc/systemd/system/" + n)
			}
			return nil
		})
	case "reset-failed":
		for _, v := range s.known() {
			if st, _ := v.current(); st == stFailed && (len(a.Units) == 0 || slices.Contains(a.Units, v.unit.Name)) {
				v.set(stInactive, "")
			}
		}
	case "daemon-reload", "daemon-reexec", "set-default", "isolate":
		// Unit files are read at every start: there is nothing to load again.
	default:
		s.query(a, &t)
	}
	return t
}

func failCode(err error) int {
	if errors.Is(err, errNoUnit) {
		return 5
	}
	return 1
}

func (s *supervisor) stopKnown(name string) error {
	if u, err := s.load(name); err == nil {
		name = u.Name
	}
	return s.service(name).stop(time.Time{})
}

func (s *supervisor) stopOne(name string) error {
	if _, err := s.load(name); err != nil {
		if st, _ := s.service(name).current(); st == stInactive && strings.HasSuffix(name, ".service") {
			return fmt.Errorf("failed to stop %s: unit %s not loaded: %w", name, name, errNoUnit)
		}
	}
	return s.stopKnown(name)
}

func (s *supervisor) reloadOne(name string, orRestart bool) error {
	u, err := s.load(name)
	if err != nil {
		return err
	}
	v := s.service(u.Name)
	if st, _ := v.current(); orRestart && (st != stActive || len(u.ExecReload) == 0) {
		return errors.Join(s.stopKnown(u.Name), s.start(u.Name))
	}
	if v.unit == nil {
		return fmt.Errorf("unit %s is not active, it cannot be reloaded", name)
	}
	return v.reload()
}
