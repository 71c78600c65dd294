package clients

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to write a data directory of the future
)

// slipway runs a command as a newcomer types it, for a minute at most.
func slipway(t *testing.T, as *syscall.Credential, args ...string) (output string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), args...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("slipway %v goes on, it should have refused\n%s", args, &out)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

// refuses checks that a command fails in one readable sentence that has all
// the wanted words.
func refuses(t *testing.T, as *syscall.Credential, words []string, args ...string) {
	t.Helper()
	out, status := slipway(t, as, args...)
	if status == 0 {
		t.Errorf("slipway %v succeeds:\n%s", args, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			t.Errorf("slipway %v does not say %q:\n%s", args, w, out)
		}
	}
	for _, bad := range []string{"panic", "goroutine ", "%!", "<nil>"} {
		if strings.Contains(out, bad) {
			t.Errorf("slipway %v says %q:\n%s", args, bad, out)
		}
	}
}

// nothingIn fails if a directory is there that a refused command must not make.
func nothingIn(t *testing.T, dir string) {
	t.Helper()
	if es, err := os.ReadDir(dir); err == nil {
		t.Errorf("left behind: %s with %v", dir, es)
	}
}

func TestCommandsWithoutAServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	for _, args := range [][]string{
		{"status"}, {"status", "-w"}, {"env"}, {"logs"}, {"logs", "-f"}, {"mail"}, {"kill", "i-1"}, {"exec", "i-1", "--", "sh"}, {"clone", "todo"},
	} {
		refuses(t, nil, []string{"no Slipway server is running", dir, " up, or: slipway "}, append([]string{"--data-dir", dir}, args...)...)
	}
	if out, status := slipway(t, nil, "--data-dir", dir, "down"); status != 0 || !strings.Contains(out, "nothing is running") {
		t.Errorf("down where nothing is: %d %s", status, out)
	}
	nothingIn(t, dir)
}

func TestWrongWords(t *testing.T) {
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{[]string{"nonsense"}, []string{"nonsense", "--help"}},
		{[]string{"server", "extra"}, []string{"extra", "slipway server"}},
		{[]string{"server", "--nope"}, []string{"--nope", "slipway server --help"}},
		{[]string{"server", "--time-scale=fast"}, []string{"fast", "--time-scale"}},
		{[]string{"exec"}, []string{"slipway exec INSTANCE"}},
		{[]string{"kill"}, []string{"slipway kill INSTANCE"}},
		{[]string{"kill", "a", "b"}, []string{"slipway kill INSTANCE"}},
		{[]string{"clone"}, []string{"slipway clone NAME"}},
		{[]string{"mail", "1", "2"}, []string{"slipway mail"}},
		{[]string{"up", "a", "b"}, []string{"slipway up"}},
		{[]string{"up", "/nonexistent"}, []string{"/nonexistent", "no such directory"}},
		{[]string{"up", "/etc/hostname"}, []string{"/etc/hostname", "is a file"}},
		{[]string{"up", t.TempDir()}, []string{"buildspec.yml", "appspec.yml", "examples/todo"}},
		{[]string{"agent", "nobody"}, []string{"nobody", "codedeploy"}},
	} {
		refuses(t, nil, tc.want, tc.args...)
	}
}

func TestServerRefusesWrongFlags(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	for _, tc := range []struct{ flag, want string }{
		{"--listen=garbage", "--listen"}, {"--listen=", "--listen"}, {"--listen=127.0.0.1", "--listen"}, {"--listen=127.0.0.1:99999", "99999"},
		{"--listen=127.0.0.1:abc", "abc"}, {"--listen=256.1.1.1:80", "256.1.1.1"}, {"--listen=203.0.113.7:4567", "203.0.113.7"},
		{"--machines=foo", "--machines"}, {"--auth=no", "--auth"}, {"--time-scale=0", "--time-scale"}, {"--time-scale=NaN", "--time-scale"}, {"--time-scale=Inf", "--time-scale"},
		{"--account=1", "--account"}, {"--lb-address=8.8.8.8", "--lb-address"}, {"--lb-address=x", "--lb-address"}, {"--region=", "--region"}, {"--region=us east", "--region"},
		{"--port-shift=-5", "--port-shift"}, {"--port-shift=70000", "--port-shift"},
	} {
		refuses(t, nil, []string{tc.want}, "server", "--data-dir", dir, "--machines=simulated", "--ephemeral", "--listen=127.0.0.1:0", tc.flag)
		nothingIn(t, dir)
	}
	refuses(t, nil, []string{"--auth any", "loopback"}, "server", "--data-dir", dir, "--machines=simulated", "--auth=any", "--listen=0.0.0.0:0")
	nothingIn(t, dir)
}

func TestServerOnABusyPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "data")
	refuses(t, nil, []string{l.Addr().String(), "in use", "--listen"}, "server", "--data-dir", dir, "--machines=simulated", "--listen", l.Addr().String())
	nothingIn(t, dir)
	refuses(t, nil, []string{l.Addr().String(), "in use", "--listen"}, "up", "--no-wait", "--data-dir", dir, "--machines=simulated", "--listen", l.Addr().String(), application(t))
	nothingIn(t, dir)
}

// application is a directory that slipway up takes for one.
func application(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "app")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"buildspec.yml": "version: 0.2\nphases:\n  build:\n    commands: [make]\nartifacts:\n  files: ['**/*']\n",
		"appspec.yml":   "version: 0.0\nos: linux\nfiles:\n  - source: /\n    destination: /opt/x\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDataDirectoryThatIsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"server", "--machines=simulated", "--listen", "127.0.0.1:0"}, {"status"}, {"env"}, {"down"}, {"down", "--purge"},
		{"up", "--machines=simulated", "--listen", "127.0.0.1:0", application(t)},
	} {
		refuses(t, nil, []string{file, "directory"}, append(args, "--data-dir", file)...)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "mine" {
		t.Errorf("the file is changed: %q %v", b, err)
	}
}

// TestPurgeOfWhatIsNotOurs: a wrong --data-dir must not cost a directory.
func TestPurgeOfWhatIsNotOurs(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thesis.tex"), []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	refuses(t, nil, []string{dir, "no data of Slipway"}, "down", "--purge", "--data-dir", dir)
	if es, err := os.ReadDir(dir); err != nil || len(es) != 1 {
		t.Errorf("the directory is changed: %v %v", es, err)
	}
}

func TestTwoServersOnOneDirectory(t *testing.T) {
	s := start(t)
	refuses(t, nil, []string{"another Slipway server", s.dir}, "server", "--data-dir", s.dir, "--machines=simulated", "--listen", "127.0.0.1:0")
	if out, status := slipway(t, nil, "env", "--data-dir", s.dir); status != 0 || !strings.Contains(out, s.endpoint) {
		t.Errorf("the first one is forgotten: %s", out)
	}
}

func TestCommandsOfAServer(t *testing.T) {
	s := start(t)
	for _, tc := range []struct{ args, want []string }{
		{[]string{"kill", "i-0123"}, []string{"i-0123"}},
		{[]string{"exec", "i-0123", "--", "sh"}, []string{"i-0123"}},
		{[]string{"clone", "nothing-here", filepath.Join(t.TempDir(), "x")}, []string{"nothing-here", "does not exist"}},
	} {
		refuses(t, nil, tc.want, append([]string{"--data-dir", s.dir}, tc.args...)...)
	}
}

func TestNewerData(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("CREATE TABLE x (y); PRAGMA user_version=999"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	refuses(t, nil, []string{"newer Slipway", "999", "--data-dir"}, "server", "--data-dir", dir, "--machines=simulated", "--listen", "127.0.0.1:0")
	refuses(t, nil, []string{"newer Slipway", "999", "--data-dir"}, "up", "--data-dir", dir, "--machines=simulated", "--listen", "127.0.0.1:0", application(t))
}

func TestDamagedData(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.db"), bytes.Repeat([]byte("junk"), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(t, nil, []string{"state.db", "damaged"}, "server", "--data-dir", dir, "--machines=simulated", "--listen", "127.0.0.1:0")
	for _, name := range []string{"server.json", "root-credentials.json"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if name == "server.json" {
			refuses(t, nil, []string{name, "damaged"}, "status", "--data-dir", dir)
			continue
		}
		refuses(t, nil, []string{name}, "server", "--data-dir", dir, "--machines=simulated", "--listen", "127.0.0.1:0")
	}
}

// nobody is a user without rights.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

func TestWithoutRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it becomes a user without rights")
	}
	old := syscall.Umask(0o022) // whatever ours is, nobody may read what is made here
	defer syscall.Umask(old)
	base, err := os.MkdirTemp("/tmp", "slipway-nobody-") // one that nobody may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	for _, d := range []string{base, filepath.Join(base, "own"), filepath.Join(base, "app")} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(base, "own")
	if err := os.Chown(own, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	copyBinary(t, filepath.Join(base, "slipway"))
	app := filepath.Join(base, "app")
	if err := os.CopyFS(app, os.DirFS(application(t))); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(own, "data")
	refuses(t, nobody, []string{"root", "sudo", "--machines=simulated"}, "server", "--data-dir", data, "--listen", "127.0.0.1:0")
	nothingIn(t, data)
	refuses(t, nobody, []string{"root", "sudo", "--machines=simulated"}, "up", "--data-dir", data, "--listen", "127.0.0.1:0", app)
	nothingIn(t, data)

	locked := filepath.Join(base, "locked") // root's, and not theirs to write
	if err := os.Mkdir(locked, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{locked, filepath.Join(locked, "below")} {
		refuses(t, nobody, []string{d, "permission denied", "--data-dir"}, "server", "--machines=simulated", "--data-dir", d, "--listen", "127.0.0.1:0")
		refuses(t, nobody, []string{d, "permission denied", "--data-dir"}, "up", "--machines=simulated", "--data-dir", d, "--listen", "127.0.0.1:0", app)
	}
	nothingIn(t, filepath.Join(locked, "below"))

	s := start(t)
	if err := os.Chmod(filepath.Dir(filepath.Dir(s.dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(s.dir), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"env"}, {"down"}, {"down", "--purge"}, {"kill", "i-1"}} {
		refuses(t, nobody, []string{s.dir, "another user", "root"}, append([]string{"--data-dir", s.dir}, args...)...)
	}
}

// copyBinary puts the binary where everybody may run it.
func copyBinary(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(binary(t))
	if err == nil {
		err = os.WriteFile(path, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("SLIPWAY", path)
}

func TestNoSpace(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: it mounts a small file system")
	}
	for _, size := range []string{"4k", "16k", "64k"} {
		dir := t.TempDir()
		if err := syscall.Mount("slipway-test", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Skip("needs the right to mount: " + err.Error())
		}
		func() {
			defer func() {
				if err := syscall.Unmount(dir, 0); err != nil {
					t.Errorf("something of a server that did not start is still there: %v", err)
					syscall.Unmount(dir, syscall.MNT_DETACH)
				}
			}()
			data := filepath.Join(dir, "data")
			refuses(t, nil, []string{"no space", data}, "server", "--data-dir", data, "--machines=simulated", "--listen", "127.0.0.1:0")
			refuses(t, nil, []string{"no space", data}, "up", "--data-dir", data, "--machines=simulated", "--listen", "127.0.0.1:0", application(t))
		}()
	}
}
