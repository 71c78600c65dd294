package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const sigTerm = syscall.SIGTERM

// query answers the systemctl commands that change nothing.
func (s *supervisor) query(a ask, t *told) {
	switch a.Verb {
	case "is-active":
		t.Code = 3
		for _, n := range a.Units {
			st := s.stateOf(fullName(n))
			t.Out += st + "\n"
			if st == stActive {
				t.Code = 0
			}
		}
	case "is-failed":
		t.Code = 1
		for _, n := range a.Units {
			st := s.stateOf(fullName(n))
			t.Out += st + "\n"
			if st == stFailed {
				t.Code = 0
			}
		}
	case "is-enabled":
		t.Code = 1
		for _, n := range a.Units {
			st, ok := s.enabledState(fullName(n))
			t.Out += st + "\n"
			if ok {
				t.Code = 0
			}
		}
	case "is-system-running":
		t.Out = "running\n"
	case "get-default":
		t.Out = bootTarget + "\n"
	case "status":
		s.status(a, t)
	case "show":
		s.show(a, t)
	case "cat":
		for _, n := range a.Units {
			u, err := s.load(fullName(n))
			if err != nil || u.Path == "" {
				t.Err, t.Code = fmt.Sprintf("No files found for %s.\n", fullName(n)), 1
				continue
			}
			b, err := os.ReadFile(u.Path)
			if err != nil {
				t.Err, t.Code = err.Error()+"\n", 1
			}
			t.Out += "# " + u.Path + "\n" + string(b)
		}
	case "list-units", "":
		t.Out = fmt.Sprintf("%-40s %-8s %s\n", "UNIT", "ACTIVE", "DESCRIPTION")
		for _, v := range s.known() {
			st, _ := v.current()
			t.Out += fmt.Sprintf("%-40s %-8s %s\n", v.unit.Name, st, v.unit.Description)
		}
	case "list-unit-files":
		for _, dir := range unitDirs {
			files, _ := filepath.Glob(filepath.Join(dir, "*.service"))
			for _, f := range files {
				st, _ := s.enabledState(filepath.Base(f))
				t.Out += fmt.Sprintf("%-50s %s\n", filepath.Base(f), st)
			}
		}
	default:
		t.Err, t.Code = fmt.Sprintf("Unknown command verb %s.\n", a.Verb), 1
	}
}

// stateOf does not create an entry for a name that nobody uses.
func (s *supervisor) stateOf(name string) string {
	if u, err := s.load(name); err == nil {
		name = u.Name
	}
	s.mu.Lock()
	v := s.services[name]
	s.mu.Unlock()
	if v == nil {
		return stInactive
	}
	st, _ := v.current()
	return st
}

func (s *supervisor) status(a ask, t *told) {
	if len(a.Units) == 0 {
		a.Verb = "list-units"
		s.query(a, t)
		return
	}
	for _, n := range a.Units {
		name := fullName(n)
		u, err := s.load(name)
		if err != nil {
			t.Err += fmt.Sprintf("Unit %s could not be found.\n", name)
			t.Code = 4
			continue
		}
		v := s.service(u.Name)
		st, pid := v.current()
		v.mu.Lock()
		since, result := v.since, v.result
		v.mu.Unlock()
		enabled, _ := s.enabledState(u.Name)
		t.Out += fmt.Sprintf("* %s - %s\n     Loaded: loaded (%s; %s)\n", u.Name, u.Description, u.Path, enabled)
		t.Out += "     Active: " + st
		if !since.IsZero() {
			t.Out += fmt.Sprintf(" since %s; %s ago", since.Format("Mon 2006-01-02 15:04:05 MST"), time.Since(since).Round(time.Second))
		}
		t.Out += "\n"
		if result != "" {
			t.Out += "     Result: " + result + "\n"
		}
		if pid > 0 {
			comm, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
			t.Out += fmt.Sprintf("   Main PID: %d (%s)\n", pid, strings.TrimSpace(string(comm)))
		}
		for _, line := range tail(logPath(u.Name), 10) {
			t.Out += "  " + line + "\n"
		}
		if st != stActive && st != stActivating {
			t.Code = max(t.Code, 3)
		}
	}
}

func (s *supervisor) show(a ask, t *told) {
	for _, n := range a.Units {
		name := fullName(n)
		u, err := s.load(name)
		load, st, pid, path, desc := "loaded", stInactive, 0, "", name
		if err != nil {
			load = "not-found"
		} else {
			st, pid = s.service(u.Name).current()
			path, desc = u.Path, u.Description
		}
		sub := map[string]string{stActive: "running", stInactive: "dead", stFailed: "failed", stActivating: "start", stDeactivating: "stop"}[st]
		enabled, _ := s.enabledState(name)
		for _, kv := range [][2]string{{"Id", name}, {"Names", name}, {"Description", desc}, {"LoadState", load}, {"ActiveState", st}, {"SubState", sub},
			{"FragmentPath", path}, {"UnitFileState", enabled}, {"MainPID", strconv.Itoa(pid)}, {"CanReload", map[bool]string{true: "yes", false: "no"}[u != nil && len(u.ExecReload) > 0]}} {
			if len(a.Props) > 0 && !contains(a.Props, kv[0]) {
				continue
			}
			if a.Value {
				t.Out += kv[1] + "\n"
			} else {
				t.Out += kv[0] + "=" + kv[1] + "\n"
			}
		}
	}
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// tail is the last n lines of a file's last 64 KiB.
func tail(path string, n int) []string {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	buf := make([]byte, min(info.Size(), 64<<10))
	m, _ := f.ReadAt(buf, info.Size()-int64(len(buf)))
	lines := strings.Split(strings.TrimRight(string(buf[:m]), "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return nil
	}
	return lines[max(0, len(lines)-n):]
}
