package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/go/bin"

// reaper starts programs and waits for every child of PID 1, its own and the
// orphans that the kernel hands to it. Nothing else in this process may wait:
// that is why os/exec's Start is not used. Safe for concurrent use.
type reaper struct {
	mu   sync.Mutex
	wait map[int]chan syscall.WaitStatus
}

func newReaper() *reaper { return &reaper{wait: map[int]chan syscall.WaitStatus{}} }

// run reaps until the process ends; PID 1 has no other end.
func (r *reaper) run() {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGCHLD)
	for {
		r.reapAll()
		<-sig
	}
}

func (r *reaper) reapAll() {
	for {
		var ws syscall.WaitStatus
		// start holds the lock across fork and registration, so a child that
		// ends at once still finds its channel here.
		r.mu.Lock()
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		ch := r.wait[pid]
		if pid > 0 {
			delete(r.wait, pid)
		}
		r.mu.Unlock()
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if pid <= 0 {
			return
		}
		if ch != nil {
			ch <- ws
		}
	}
}

// start runs argv with attr; the channel receives its wait status once.
func (r *reaper) start(path string, argv []string, attr *syscall.ProcAttr) (int, <-chan syscall.WaitStatus, error) {
	ch := make(chan syscall.WaitStatus, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	var pid int
	err := withoutInheritable(func() (err error) {
		pid, err = syscall.ForkExec(path, argv, attr)
		return err
	})
	if err != nil {
		return 0, nil, &os.PathError{Op: "exec", Path: argv[0], Err: err}
	}
	r.wait[pid] = ch
	return pid, ch, nil
}

// code is the shell's view of how a program ended.
func code(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// program is what to start, before its streams are known.
type program struct {
	path string
	argv []string
	env  []string
	dir  string
	cred *syscall.Credential
}

// prepare resolves user, environment, directory and path of a command.
func prepare(args, env []string, dir, userName string) (*program, error) {
	if len(args) == 0 || args[0] == "" {
		return nil, errors.New("no command")
	}
	p := &program{argv: args, dir: dir}
	home, name := "/root", "root"
	if userName != "" && userName != "root" && userName != "0" {
		u, cred, err := lookUser(userName)
		if err != nil {
			return nil, err
		}
		home, name, p.cred = u.HomeDir, u.Username, cred
	}
	base := []string{"PATH=" + defaultPath, "HOME=" + home, "USER=" + name, "LOGNAME=" + name, "SHELL=/bin/sh", "LANG=C.UTF-8"}
	p.env = mergeEnv(base, env)
	if p.dir == "" {
		p.dir = home
		if _, err := os.Stat(p.dir); err != nil {
			p.dir = "/"
		}
	}
	if info, err := os.Stat(p.dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("working directory %s does not exist", p.dir)
	}
	path, err := lookPath(args[0], p.dir, p.env)
	if err != nil {
		return nil, err
	}
	p.path = path
	return p, nil
}

// mergeEnv appends sets of KEY=VALUE; the last of a key wins.
func mergeEnv(sets ...[]string) []string {
	var out []string
	at := map[string]int{}
	for _, set := range sets {
		for _, kv := range set {
			k, _, ok := strings.Cut(kv, "=")
			if !ok || k == "" || strings.ContainsRune(kv, 0) {
				continue
			}
			if i, seen := at[k]; seen {
				out[i] = kv
				continue
			}
			at[k] = len(out)
			out = append(out, kv)
		}
	}
	return out
}

func envValue(env []string, key string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !strings.HasPrefix(name, "/") {
			name = dir + "/" + name
		}
		return name, nil
	}
	for d := range strings.SplitSeq(envValue(env, "PATH"), ":") {
		if d == "" {
			continue
		}
		p := d + "/" + name
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// lookUser accepts a name or uid, with an optional :group.
func lookUser(spec string) (*user.User, *syscall.Credential, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	u, err := user.Lookup(name)
	if err != nil {
		if n, convErr := strconv.ParseUint(name, 10, 32); convErr == nil {
			if u, err = user.LookupId(name); err != nil {
				u, err = &user.User{Uid: strconv.FormatUint(n, 10), Gid: name, Username: name, HomeDir: "/"}, nil
			}
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("user %s does not exist", name)
	}
	uid, _ := strconv.ParseUint(u.Uid, 10, 32)
	gid, _ := strconv.ParseUint(u.Gid, 10, 32)
	cred := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	if hasGroup {
		g, err := lookGroup(group)
		if err != nil {
			return nil, nil, err
		}
		cred.Gid = g
	}
	ids, _ := u.GroupIds()
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 32); err == nil {
			cred.Groups = append(cred.Groups, uint32(n))
		}
	}
	return u, cred, nil
}

func lookGroup(name string) (uint32, error) {
	if g, err := user.LookupGroup(name); err == nil {
		name = g.Gid
	}
	n, err := strconv.ParseUint(name, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("group %s does not exist", name)
	}
	return uint32(n), nil
}
