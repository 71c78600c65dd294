package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"slipway/internal/lazyre"
)

// shell runs commands one process each, and carries exported variables and the working directory from one to
// the next through files (buildspec 0.2). The command starts in line 4 of the script, which is where error
// messages of shells point to in CodeBuild as well.
type shell struct {
	dir    string // holds script.sh, env.sh, dir.txt
	start  string // working directory of the first command
	path   string // sh or bash
	base   map[string]string
	fresh  bool // 0.1: every command starts anew
	out    *lines
	grace  time.Duration // between SIGTERM and SIGKILL
	user   string        // who ran the last command; env.sh belongs to them
	groups []int         // process groups with background processes
}

var shellName = lazyre.New(`^[A-Za-z_][A-Za-z0-9_]*$`)

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// init writes the state files from the base environment.
func (s *shell) init() error {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return err
	}
	s.user = ""
	names := make([]string, 0, len(s.base))
	for n := range s.base {
		if shellName.MatchString(n) {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	var b bytes.Buffer
	for _, n := range names {
		fmt.Fprintf(&b, "export %s=%s\n", n, quote(s.base[n]))
	}
	if err := rewrite(s.file("env.sh"), b.Bytes()); err != nil {
		return err
	}
	return rewrite(s.file("dir.txt"), []byte(s.start))
}

// rewrite replaces a file; secrets may be in it.
func rewrite(name string, data []byte) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, data, 0o600)
}

func (s *shell) file(name string) string { return filepath.Join(s.dir, name) }

// commandError is a command that did not exit with status 0.
type commandError struct {
	command string
	reason  string // "exit status N", "signal: killed"
}

func (e *commandError) Error() string {
	return fmt.Sprintf("Error while executing command: %s. Reason: %s", e.command, e.reason)
}

// run executes a command as a user ("" is the runner's own). extra are lines of shell for line 2.
// Errors are *commandError, ctx's cause, or failures of the runner itself.
func (s *shell) run(ctx context.Context, command, runAs, extra string) error {
	return s.execute(ctx, command, runAs, extra, s.out)
}

// capture executes a command and returns its output (at most 1 MiB) instead of logging it.
func (s *shell) capture(ctx context.Context, command string) (string, error) {
	var b limited
	err := s.execute(ctx, command, "", "", &b)
	return b.String(), err
}

// limited does not embed its buffer: io.Copy would go past Write by ReadFrom.
type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 1<<20 - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) String() string { return l.buf.String() }

func (s *shell) execute(ctx context.Context, command, runAs, extra string, out io.Writer) error {
	if s.fresh {
		if err := s.init(); err != nil {
			return err
		}
	}
	attr, become, err := s.become(runAs)
	if err != nil {
		return &commandError{command, err.Error()}
	}
	if extra != "" {
		become = append(become, extra)
	}
	state, dir := quote(s.file("env.sh")), quote(s.file("dir.txt"))
	script := fmt.Sprintf(". %s; cd \"$(cat %s)\" || exit 1\n%s\ntrap '__s=$?; export -p >%s; pwd >%s; exit $__s' EXIT\n%s\n",
		state, dir, strings.Join(append(become, ":"), "; "), escapeTrap(state), escapeTrap(dir), command)
	name := s.file("script.sh")
	if err := rewrite(name, []byte(script)); err != nil {
		return err
	}
	if runAs != s.user {
		for _, f := range []string{"env.sh", "dir.txt"} {
			if err := s.give(s.file(f), attr); err != nil {
				return err
			}
		}
		s.user = runAs
	}
	if err := s.give(name, attr); err != nil {
		return err
	}
	cmd := exec.Command(s.path, name)
	cmd.Dir, cmd.SysProcAttr = "/", attr
	cmd.Env = []string{"PATH=" + s.base["PATH"]}
	for k, v := range s.base { // names that no shell variable can have pass by the script
		if !shellName.MatchString(k) {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	return s.wait(ctx, cmd, command, out)
}

func escapeTrap(quoted string) string { return strings.ReplaceAll(quoted, "'", `'\''`) }

// give hands a state file to the user of the next command.
func (s *shell) give(name string, attr *syscall.SysProcAttr) error {
	if os.Getuid() != 0 {
		return nil
	}
	uid, gid := 0, 0
	if c := attr.Credential; c != nil {
		uid, gid = int(c.Uid), int(c.Gid)
	}
	return os.Chown(name, uid, gid)
}

// become looks up run-as. When the user changes, HOME and the like change with it, once.
func (s *shell) become(runAs string) (*syscall.SysProcAttr, []string, error) {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if runAs == "" || runAs == "root" && os.Getuid() == 0 {
		var lines []string
		if s.user != "" && s.user != "root" {
			lines = []string{"export HOME=" + quote(s.base["HOME"]) + " USER=root LOGNAME=root"}
		}
		return attr, lines, nil
	}
	u, err := user.Lookup(runAs)
	if err != nil {
		return nil, nil, fmt.Errorf("run-as: there is no user %q in the build environment", runAs)
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err1, err2); err != nil {
		return nil, nil, err
	}
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, nil, fmt.Errorf("run-as: the groups of %q: %w", runAs, err)
	}
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(g))
		}
	}
	attr.Credential = cred
	if s.user == runAs {
		return attr, nil, nil
	}
	return attr, []string{"export HOME=" + quote(u.HomeDir) + " USER=" + quote(runAs) + " LOGNAME=" + quote(runAs)}, nil
}

// wait starts the command and waits for it. Output that a background process still holds open is waited for
// only a moment; it goes on being logged while the build goes on.
func (s *shell) wait(ctx context.Context, cmd *exec.Cmd, command string, out io.Writer) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return &commandError{command, err.Error()}
	}
	var pump sync.WaitGroup
	ended := make(chan struct{})
	pump.Go(func() {
		io.Copy(out, r) // ends with the last writer; the writers here never fail
		r.Close()
		close(ended)
	})
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err = <-exited:
	case <-ctx.Done():
		s.kill(cmd, exited)
		err = context.Cause(ctx)
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-ended:
	case <-t.C:
	}
	if l, ok := out.(*lines); ok {
		l.flush()
	}
	if syscall.Kill(-cmd.Process.Pid, 0) == nil {
		s.groups = append(s.groups, cmd.Process.Pid)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &commandError{command, exit.Error()}
	}
	return err
}

func (s *shell) kill(cmd *exec.Cmd, exited <-chan error) {
	syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // ESRCH: gone, which is the aim
	t := time.NewTimer(s.grace)
	defer t.Stop()
	select {
	case <-exited:
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	case <-t.C:
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-exited
	}
}

// close ends the processes that commands left in the background.
func (s *shell) close() {
	for _, g := range s.groups {
		syscall.Kill(-g, syscall.SIGKILL)
	}
}

// environment returns the exported variables as the next command would see them.
func (s *shell) environment(ctx context.Context) (map[string]string, error) {
	text, err := s.capture(ctx, "cat /proc/self/environ")
	if err != nil {
		return nil, err
	}
	env := map[string]string{}
	for _, kv := range strings.Split(text, "\x00") {
		if k, v, ok := strings.Cut(kv, "="); ok {
			env[k] = v
		}
	}
	return env, nil
}
