package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// States of a service, in systemd's words. inactive -> activating -> active ->
// deactivating -> inactive; failed instead of inactive when it ended badly.
const (
	stInactive     = "inactive"
	stActivating   = "activating"
	stActive       = "active"
	stDeactivating = "deactivating"
	stFailed       = "failed"
)

// logDir is where the services' output goes; journalctl's stand-in reads it.
const (
	logDir  = "/var/log/services"
	logMost = 16 << 20 // turned over to .1 at a start
)

// startLimit restarts within startWindow make a service fail (systemd's defaults).
const (
	startLimit  = 5
	startWindow = 10 * time.Second
)

// service is one unit that PID 1 runs. op serialises start, stop and restart;
// mu guards the state, which the reaper's side changes too.
type service struct {
	in *Init
	op sync.Mutex

	mu     sync.Mutex
	unit   *unit
	state  string
	result string // why it failed
	pid    int    // main process, 0 if none
	since  time.Time
	wanted bool          // false once a stop was asked for: no restart
	gone   chan struct{} // closed when the main process of this run has ended
	starts []time.Time   // of automatic restarts, for the limit
}

func (s *service) set(state, result string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.result, s.since = state, result, time.Now()
}

func (s *service) current() (state string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, s.pid
}

// start brings the service up and returns when it is, as `systemctl start` does.
func (s *service) start(u *unit) error {
	s.op.Lock()
	defer s.op.Unlock()
	if st, _ := s.current(); st == stActive || st == stActivating {
		return nil
	}
	s.mu.Lock()
	s.unit, s.wanted, s.starts = u, true, nil
	s.mu.Unlock()
	return s.launch()
}

// launch runs the start commands; op is held.
func (s *service) launch() error {
	s.set(stActivating, "")
	err := s.runStart()
	if err != nil {
		s.killRest(syscall.SIGKILL)
		s.set(stFailed, err.Error())
		s.in.console.printf("%s failed: %v", s.unit.Name, err)
	}
	return err
}

func (s *service) runStart() error {
	u := s.unit
	env, err := u.environ()
	if err != nil {
		return err
	}
	if err := s.makeDirs(); err != nil {
		return err
	}
	for _, l := range u.ExecStartPre {
		if err := s.runLine(l, env, u.TimeoutStart); err != nil {
			return fmt.Errorf("ExecStartPre: %w", err)
		}
	}
	switch u.Type {
	case "oneshot":
		for _, l := range u.ExecStart {
			if err := s.runLine(l, env, u.TimeoutStart); err != nil {
				return fmt.Errorf("ExecStart: %w", err)
			}
		}
		s.set(stInactive, "")
		if u.RemainAfterExit {
			s.set(stActive, "")
		}
	case "forking":
		if err := s.runLine(u.ExecStart[0], env, u.TimeoutStart); err != nil {
			return fmt.Errorf("ExecStart: %w", err)
		}
		if err := s.findDaemon(); err != nil {
			return err
		}
	default:
		pid, done, err := s.spawn(u.ExecStart[0], env)
		if err != nil {
			return fmt.Errorf("ExecStart: %w", err)
		}
		s.follow(pid, done)
	}
	_, pid := s.current()
	for _, l := range u.ExecStartPost {
		if err := s.runLine(l, append(env, "MAINPID="+strconv.Itoa(pid)), u.TimeoutStart); err != nil {
			return fmt.Errorf("ExecStartPost: %w", err)
		}
	}
	return nil
}

func (s *service) makeDirs() error {
	u := s.unit
	uid, gid := -1, -1
	if u.User != "" {
		_, cred, err := lookUser(u.User)
		if err != nil {
			return err
		}
		uid, gid = int(cred.Uid), int(cred.Gid)
	}
	for base, names := range map[string][]string{"/run": u.RuntimeDirectory, "/var/lib": u.StateDirectory, "/var/log": u.LogsDirectory} {
		for _, n := range names {
			dir := filepath.Join(base, filepath.Clean("/"+n))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := os.Chown(dir, uid, gid); err != nil {
				return err
			}
		}
	}
	return nil
}

// findDaemon learns the main process of a service that forked: from its PID
// file, which it may write a moment later.
func (s *service) findDaemon() error {
	u := s.unit
	if u.PIDFile == "" {
		s.set(stActive, "")
		for _, pid := range s.members() {
			if ppidOf(pid) == 1 {
				s.follow(pid, s.in.reaper.watch(pid))
				break
			}
		}
		return nil
	}
	path := u.PIDFile
	if !filepath.IsAbs(path) {
		path = "/run/" + path
	}
	deadline := time.Now().Add(min(u.TimeoutStart, 5*time.Second))
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		b, err := os.ReadFile(path)
		if pid, convErr := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && convErr == nil && pid > 1 && syscall.Kill(pid, 0) == nil {
			s.follow(pid, s.in.reaper.watch(pid))
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("PIDFile %s names no running process after the start", path)
		}
		time.Sleep(wait)
	}
}

// follow makes pid the main process and watches its end.
func (s *service) follow(pid int, done <-chan syscall.WaitStatus) {
	gone := make(chan struct{})
	s.mu.Lock()
	s.pid, s.gone, s.state, s.since, s.result = pid, gone, stActive, time.Now(), ""
	s.mu.Unlock()
	go func() {
		ws := <-done
		s.ended(pid, ws)
		close(gone)
	}()
}

// ended is called when the main process has gone.
func (s *service) ended(pid int, ws syscall.WaitStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != pid {
		return
	}
	s.pid = 0
	if !s.wanted || s.state == stDeactivating {
		return // stop goes on
	}
	good := ws.Exited() && ws.ExitStatus() == 0 || ws.Signaled() && (ws.Signal() == syscall.SIGTERM || ws.Signal() == syscall.SIGINT || ws.Signal() == syscall.SIGHUP)
	s.state, s.result, s.since = stInactive, "", time.Now()
	if !good {
		s.state, s.result = stFailed, "main process ended: "+endOf(ws)
		s.in.console.printf("%s: %s", s.unit.Name, s.result)
	} else if s.unit.RemainAfterExit {
		s.state = stActive
		return
	}
	again := s.unit.Restart == "always" ||
		!good && (s.unit.Restart == "on-failure" || s.unit.Restart == "on-abnormal" && ws.Signaled() || s.unit.Restart == "on-abort" && ws.Signaled()) ||
		good && s.unit.Restart == "on-success"
	if again {
		s.restartLater()
	}
}

func endOf(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return "killed by " + unix.SignalName(ws.Signal())
	}
	return fmt.Sprintf("exit status %d", ws.ExitStatus())
}

// restartLater plans an automatic restart; mu is held.
func (s *service) restartLater() {
	now := time.Now()
	recent := s.starts[:0]
	for _, t := range s.starts {
		if now.Sub(t) < startWindow || s.unit.BackoffMost > 0 && now.Sub(t) < 2*s.unit.BackoffMost {
			recent = append(recent, t)
		}
	}
	s.starts = append(recent, now)
	wait := s.unit.RestartSec
	if s.unit.BackoffMost > 0 {
		wait = min(s.unit.BackoffMost, wait<<min(len(s.starts)-1, 20))
		if len(s.starts) > 64 {
			s.starts = s.starts[len(s.starts)-64:]
		}
	} else if len(s.starts) > startLimit {
		s.state, s.result = stFailed, "restarted too quickly; "+s.result
		s.wanted = false
		return
	}
	s.state = stActivating
	time.AfterFunc(wait, func() {
		s.op.Lock()
		defer s.op.Unlock()
		s.mu.Lock()
		go_ := s.wanted && s.pid == 0 && s.state == stActivating
		s.mu.Unlock()
		if !go_ {
			return
		}
		s.killRest(syscall.SIGKILL)
		_ = s.launch() // recorded as the service's state
	})
}

// stop ends the service: its stop command, then SIGTERM to what is left of it,
// then SIGKILL.
func (s *service) stop(deadline time.Time) error {
	s.op.Lock()
	defer s.op.Unlock()
	s.mu.Lock()
	s.wanted = false
	if s.unit == nil || s.state == stInactive || s.state == stFailed {
		if s.state == stFailed {
			s.state = stInactive
		}
		s.mu.Unlock()
		return nil
	}
	s.state = stDeactivating
	u, pid, gone := s.unit, s.pid, s.gone
	s.mu.Unlock()
	if limit := time.Now().Add(u.TimeoutStop); deadline.IsZero() || deadline.After(limit) {
		deadline = limit
	}
	var failed error
	env, err := u.environ()
	if err == nil {
		for _, l := range u.ExecStop {
			if err := s.runLine(l, append(env, "MAINPID="+strconv.Itoa(pid)), time.Until(deadline)); err != nil {
				failed = fmt.Errorf("ExecStop: %w", err)
			}
		}
	}
	s.endProcesses(u, pid, gone, deadline)
	for _, l := range u.ExecStopPost {
		_ = s.runLine(l, env, u.TimeoutStop)
	}
	s.set(stInactive, "")
	return failed
}

func (s *service) endProcesses(u *unit, pid int, gone chan struct{}, deadline time.Time) {
	if u.KillMode == "none" {
		return
	}
	sig := unix.SignalNum(u.KillSignal)
	if sig == 0 {
		sig = syscall.SIGTERM
	}
	if pid > 0 && alive(gone) {
		_ = syscall.Kill(pid, sig)
		_ = syscall.Kill(pid, syscall.SIGCONT)
	}
	if u.KillMode == "control-group" {
		s.killRest(sig)
	}
	if pid > 0 {
		select {
		case <-gone:
		case <-time.After(time.Until(deadline)):
			_ = syscall.Kill(pid, syscall.SIGKILL)
			<-gone
		}
	}
	if u.KillMode == "process" {
		return
	}
	for wait := time.Millisecond; len(s.members()) > 0; wait = min(2*wait, 50*time.Millisecond) {
		if time.Now().After(deadline) || u.KillMode == "mixed" {
			s.killRest(syscall.SIGKILL)
		}
		time.Sleep(wait)
	}
}

func alive(gone chan struct{}) bool {
	select {
	case <-gone:
		return false
	default:
		return gone != nil
	}
}

// reload asks a running service to read its settings again.
func (s *service) reload() error {
	st, pid := s.current()
	if st != stActive {
		return fmt.Errorf("unit %s is not active, it cannot be reloaded", s.unit.Name)
	}
	if len(s.unit.ExecReload) == 0 {
		return fmt.Errorf("job type reload is not applicable for unit %s", s.unit.Name)
	}
	env, err := s.unit.environ()
	if err != nil {
		return err
	}
	for _, l := range s.unit.ExecReload {
		if err := s.runLine(l, append(env, "MAINPID="+strconv.Itoa(pid)), s.unit.TimeoutStart); err != nil {
			return fmt.Errorf("ExecReload: %w", err)
		}
	}
	return nil
}
