package guest

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// cloudDir and cloudLog are where cloud-init keeps its state and output.
const (
	cloudDir = "/var/lib/cloud"
	cloudLog = "/var/log/cloud-init-output.log"
	// userDataMost bounds what compressed user data may grow to.
	userDataMost = 16 << 20
)

// runUserData runs the Spec's user data once in the life of this machine ID:
// not again after a stop and start, but again in a machine made from its snapshot.
func (in *Init) runUserData() {
	data := in.boot.Spec.UserData
	if len(bytes.TrimSpace(data)) == 0 {
		in.finish("none")
		return
	}
	dir := filepath.Join(cloudDir, "instances", in.boot.Spec.ID)
	done := filepath.Join(dir, "sem", "config_scripts_user")
	if _, err := os.Stat(done); err == nil {
		in.finish("done")
		return
	}
	in.setUserData("running")
	if err := in.userDataOnce(data, dir, done); err != nil {
		in.console.printf("user data finished: %v", err)
		in.finish("failed: " + err.Error())
		return
	}
	in.console.printf("user data finished: ok")
	in.finish("done")
}

// finish leaves the mark that `cloud-init status --wait` style scripts look for.
func (in *Init) finish(state string) {
	in.setUserData(state)
	_ = os.MkdirAll(filepath.Join(cloudDir, "instance"), 0o755)
	_ = os.WriteFile(filepath.Join(cloudDir, "instance", "boot-finished"), []byte(state+"\n"), 0o644)
}

func (in *Init) userDataOnce(data []byte, dir, done string) error {
	for _, d := range []string{filepath.Join(dir, "scripts"), filepath.Dir(done)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	data, err := decompress(data)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "user-data.txt"), data, 0o600); err != nil {
		return err
	}
	// Never closed: what user data leaves running goes on writing to it.
	log, err := os.OpenFile(cloudLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	// The mark comes before the run: a machine that dies amid it does not repeat
	// half of a script at its next start.
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		return err
	}
	r := &runner{in: in, out: io.MultiWriter(log, in.console), dir: dir}
	switch {
	case bytes.HasPrefix(data, []byte("#!")):
		return r.script("part-001", data)
	case bytes.HasPrefix(data, []byte("#cloud-config")):
		return r.cloudConfig(data)
	case bytes.HasPrefix(data, []byte("Content-Type: multipart/")), bytes.HasPrefix(data, []byte("MIME-Version:")):
		return r.multipart(data)
	}
	return errors.New(`starts neither with "#!" nor with "#cloud-config"; it is ignored`)
}

func decompress(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		return data, nil
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("compressed user data: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(z, userDataMost+1))
	if err != nil {
		return nil, fmt.Errorf("compressed user data: %w", err)
	}
	if len(out) > userDataMost {
		return nil, fmt.Errorf("compressed user data holds more than %d bytes", userDataMost)
	}
	return out, nil
}

// runner runs the parts of user data, with their output to log and console.
type runner struct {
	in  *Init
	out io.Writer
	dir string
}

func (r *runner) script(name string, data []byte) error {
	path := filepath.Join(r.dir, "scripts", name)
	if err := os.WriteFile(path, data, 0o700); err != nil {
		return err
	}
	return r.run([]string{path}, nil)
}

// run runs a program to its end.
func (r *runner) run(args, env []string) error {
	p, err := prepare(args, mergeEnv(r.in.boot.Spec.Env, []string{"INSTANCE_ID=" + r.in.boot.Spec.ID}, env), "/", "")
	if err != nil {
		return err
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		pr.Close()
		pw.Close()
		return err
	}
	pid, done, err := r.in.reaper.start(p.path, p.argv, &syscall.ProcAttr{Dir: p.dir, Env: p.env,
		Files: []uintptr{null.Fd(), pw.Fd(), pw.Fd()}, Sys: &syscall.SysProcAttr{Setsid: true}})
	null.Close()
	pw.Close()
	if err != nil {
		pr.Close()
		return err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		defer pr.Close()
		_, _ = io.Copy(r.out, pr)
	}()
	ws := <-done
	select {
	case <-copied:
	case <-time.After(drainTime): // something in the background still holds the pipe
	}
	if code(ws) != 0 {
		return fmt.Errorf("%s (process %s): %s", args[0], strconv.Itoa(pid), endOf(ws))
	}
	return nil
}
