package codedeploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"slipway/internal/spec/appspec"
)

// hooks runs the scripts of an event in order; the first failure ends it.
func (x *executor) hooks(ctx context.Context, s *specification, event string) error {
	archive, scripts, err := x.scripts(s, event)
	if err != nil || len(scripts) == 0 {
		return err
	}
	log, err := openScriptLog(x.l.logs(s), x.log, s.DeploymentId)
	if err != nil {
		return err
	}
	defer log.close()
	log.line("LifecycleEvent - " + event)
	for _, sc := range scripts {
		log.line("Script - " + sc.Location)
		if err := x.script(ctx, archive, sc, append(os.Environ(), s.env(event)...), log); err != nil {
			var e *eventError
			if errors.As(err, &e) {
				e.script, e.log = sc.Location, log.tail()
			}
			return err
		}
	}
	return nil
}

// script runs one script: own process group, no input, output to the log, at most its timeout.
func (x *executor) script(ctx context.Context, archive string, sc appspec.Script, env []string, log *scriptLog) error {
	path := filepath.Join(archive, sc.Location)
	if err := makeExecutable(path); err != nil {
		return err
	}
	cmd := command(path, sc, env)
	cmd.Dir = x.cfg.WorkDir
	stdin, inW, err := os.Pipe()
	if err != nil {
		return err
	}
	inW.Close() // the script reads end-of-file
	defer stdin.Close()
	cmd.Stdin = stdin
	out, err := captureOutput(cmd, log)
	if err != nil {
		return err
	}
	defer out.close()
	timeout := time.NewTimer(time.Duration(sc.Timeout) * time.Second)
	defer timeout.Stop()
	if err := cmd.Start(); err != nil {
		return &eventError{code: codeNotExecutable, msg: fmt.Sprintf("Unable to run script at specified location: %s: %v", sc.Location, err)}
	}
	out.started()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	select {
	case err = <-exited:
	case <-timeout.C:
		x.kill(cmd, exited)
		out.drain(time.Second)
		return &eventError{code: codeTimedOut, msg: fmt.Sprintf("Script at specified location: %s failed to complete in %d seconds", sc.Location, sc.Timeout)}
	case <-ctx.Done():
		x.kill(cmd, exited)
		return ctx.Err()
	}
	if code := exitCode(cmd, err); code != 0 {
		out.drain(time.Second)
		return &eventError{code: codeFailed, msg: failure(sc, code)}
	}
	select { // a child may still hold the outputs: its lines belong to this script
	case <-out.done:
	case <-timeout.C:
		return &eventError{code: codeOutputsOpen, msg: fmt.Sprintf("Script at specified location: %s failed to close STDOUT or STDERR", sc.Location)}
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func failure(sc appspec.Script, code int) string {
	user := ""
	if sc.RunAs != "" {
		user = " run as user " + sc.RunAs
	}
	return fmt.Sprintf("Script at specified location: %s%s failed with exit code %d", sc.Location, user, code)
}

// exitCode gives the shell's number: 128 plus the signal for a killed script.
func exitCode(cmd *exec.Cmd, err error) int {
	if err == nil {
		return 0
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	if c := cmd.ProcessState.ExitCode(); c > 0 {
		return c
	}
	return 1
}

// kill ends the script's process group: SIGTERM, then SIGKILL after the grace time. It returns when the
// script itself is gone; the SIGKILL reaches what is left of the group in any case.
func (x *executor) kill(cmd *exec.Cmd, exited <-chan error) {
	group := -cmd.Process.Pid
	syscall.Kill(group, syscall.SIGTERM) // ESRCH means that it is gone, which is the aim
	deadline := time.Now().Add(x.cfg.KillGrace)
	gone := false
	for time.Now().Before(deadline) && !(gone && syscall.Kill(group, 0) != nil) {
		select {
		case <-exited:
			gone, exited = true, nil
		case <-time.After(20 * time.Millisecond):
		}
	}
	syscall.Kill(group, syscall.SIGKILL)
	if !gone {
		<-exited
	}
}

// makeExecutable checks that the script is there and gives it execute permission if it has none.
func makeExecutable(path string) error {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && st.IsDir() {
		return &eventError{code: codeMissing, msg: "Script does not exist at specified location: " + path}
	}
	if err != nil {
		return err
	}
	if st.Mode()&0o111 != 0 {
		return nil
	}
	if err := os.Chmod(path, st.Mode().Perm()|0o755); err != nil {
		return &eventError{code: codeNotExecutable, msg: "Unable to set script at specified location: " + path + " as executable"}
	}
	return nil
}
