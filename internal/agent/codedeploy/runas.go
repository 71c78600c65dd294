package codedeploy

import (
	"bufio"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"slipway/internal/spec/appspec"
)

// account is a line of /etc/passwd.
type account struct {
	name, home, shell string
	uid, gid          uint32
}

// command makes the process of a script as runas and sudo ask, in a process group of its own. What su does is
// done here (the user's shell runs the script; HOME, SHELL, USER and LOGNAME are the user's, all else passes),
// without its PAM session, which fails where an instance may not raise limits. Users that only the name service
// knows go through su itself.
func command(path string, sc appspec.Script, env []string) *exec.Cmd {
	attr := &syscall.SysProcAttr{Setpgid: true}
	args := []string{path}
	if sc.RunAs != "" {
		a, local := lookup(sc.RunAs)
		if local && os.Getuid() == 0 && !sc.Sudo {
			attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: groupsOf(a)}
			args = []string{a.shell, "-c", quote(path)}
			env = append(env, "HOME="+a.home, "SHELL="+a.shell, "USER="+a.name, "LOGNAME="+a.name)
		} else {
			args = []string{"su", sc.RunAs, "-c", quote(path)}
		}
	}
	if sc.Sudo {
		args = append([]string{"sudo"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.SysProcAttr = env, attr
	return cmd
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// lookup finds a local user with its shell, which package user does not tell.
func lookup(name string) (account, bool) {
	f, err := os.Open("/etc/passwd")
	if err != nil {
		return account{}, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		p := strings.Split(lines.Text(), ":")
		if len(p) < 7 || p[0] != name {
			continue
		}
		uid, err1 := strconv.ParseUint(p[2], 10, 32)
		gid, err2 := strconv.ParseUint(p[3], 10, 32)
		a := account{name: name, home: p[5], shell: p[6], uid: uint32(uid), gid: uint32(gid)}
		if a.shell == "" {
			a.shell = "/bin/sh"
		}
		return a, err1 == nil && err2 == nil
	}
	return account{}, false
}

func groupsOf(a account) []uint32 {
	groups := []uint32{a.gid}
	u, err := user.Lookup(a.name)
	if err != nil {
		return groups
	}
	ids, err := u.GroupIds()
	if err != nil {
		return groups
	}
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil && uint32(g) != a.gid {
			groups = append(groups, uint32(g))
		}
	}
	return groups
}
