package codedeploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"slipway/internal/spec/appspec"
)

// permission plans one entry of the permissions section: for what this plan copies or creates, nothing else.
func (in *installer) permission(p appspec.Permission) error {
	object := filepath.Clean(p.Object)
	if _, file := in.copies[object]; file {
		for _, no := range []struct {
			given bool
			key   string
		}{{p.Explicit.Pattern && p.Pattern != "**", "pattern"}, {p.Explicit.Except, "except"}, {p.Explicit.Type && !slices.Contains(p.Types, "file"), "type"}} {
			if no.given {
				return p.At.Errorf("The deployment failed because %s is a file: %s applies to directories", object, no.key)
			}
		}
		for _, a := range p.ACLs {
			if strings.HasPrefix(a, "default:") || strings.HasPrefix(a, "d:") {
				return p.At.Errorf("The deployment failed because %s is a file: default access control entries (%s) apply to directories", object, a)
			}
		}
		in.permit(object, p)
		return nil
	}
	var targets []string
	if slices.Contains(p.Types, "directory") {
		for d := range in.dirs {
			if d == object && p.Pattern == "**" || matches(p, object, d) {
				targets = append(targets, d)
			}
		}
	}
	if slices.Contains(p.Types, "file") {
		for f := range in.copies {
			if matches(p, object, f) {
				targets = append(targets, f)
			}
		}
	}
	sort.Strings(targets)
	for _, t := range targets {
		in.permit(t, p)
	}
	return nil
}

// matches reports whether path lies under object and fits pattern and except. "**" is everything below, any
// other pattern is one level, where * stands for any part of a name.
func matches(p appspec.Permission, object, path string) bool {
	rel, below := strings.CutPrefix(path, strings.TrimRight(object, "/")+"/")
	if !below || rel == "" {
		return false
	}
	if p.Pattern != "**" && !oneLevel(p.Pattern, rel) {
		return false
	}
	for _, e := range p.Except {
		if oneLevel(e, rel) || strings.HasPrefix(rel, strings.TrimRight(e, "/")+"/") {
			return false
		}
	}
	return true
}

func oneLevel(pattern, rel string) bool {
	// Only * is special; filepath.Match would also give a meaning to ?, [ and \.
	quoted := strings.NewReplacer(`\`, `\\`, `?`, `\?`, `[`, `\[`).Replace(strings.TrimLeft(pattern, "/"))
	ok, err := filepath.Match(quoted, rel)
	return err == nil && ok
}

func (in *installer) permit(path string, p appspec.Permission) {
	if p.Owner != "" || p.Group != "" { // before the mode: a change of owner drops set-id bits
		in.plan = append(in.plan, instruction{Type: "chown", File: path, Owner: p.Owner, Group: p.Group})
	}
	if p.Mode != nil {
		in.plan = append(in.plan, instruction{Type: "chmod", File: path, Mode: fmt.Sprintf("%04o", uint32(*p.Mode))})
	}
	if len(p.ACLs) > 0 {
		acls := p.ACLs
		if !in.dirs[path] { // default entries exist on directories only
			acls = slices.DeleteFunc(slices.Clone(acls), func(a string) bool { return strings.HasPrefix(a, "d") })
		}
		in.plan = append(in.plan, instruction{Type: "setfacl", File: path, ACL: acls})
	}
	if p.Context != nil {
		in.plan = append(in.plan, instruction{Type: "semanage", File: path, Context: p.Context})
	}
}

func (i instruction) permit() error {
	switch i.Type {
	case "chown":
		return chown(i.File, i.Owner, i.Group)
	case "chmod":
		return chmod(i.File, i.Mode)
	case "setfacl":
		if isLink(i.File) || len(i.ACL) == 0 {
			return nil
		}
		return tool("setfacl", "-m", strings.Join(i.ACL, ","), i.File)
	case "semanage":
		return label(i.File, i.Context)
	}
	return fmt.Errorf("unknown instruction %q", i.Type)
}

// chown changes owner and group by name or number; a link's own, not what it points to.
func chown(path, owner, group string) error {
	uid, gid := -1, -1
	if owner != "" {
		if n, err := strconv.Atoi(owner); err == nil {
			uid = n
		} else if u, err := user.Lookup(owner); err == nil {
			uid, _ = strconv.Atoi(u.Uid) // numeric on Linux
		} else {
			return fmt.Errorf("permissions of %s: there is no user %q on this host", path, owner)
		}
	}
	if group != "" {
		if n, err := strconv.Atoi(group); err == nil {
			gid = n
		} else if g, err := user.LookupGroup(group); err == nil {
			gid, _ = strconv.Atoi(g.Gid)
		} else {
			return fmt.Errorf("permissions of %s: there is no group %q on this host", path, group)
		}
	}
	return os.Lchown(path, uid, gid)
}

func chmod(path, octal string) error {
	if isLink(path) {
		return nil // a link has no mode, and what it points to is none of ours
	}
	n, err := strconv.ParseUint(octal, 8, 32)
	if err != nil {
		return err
	}
	mode := fs.FileMode(n & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if n&bit != 0 {
			mode |= flag
		}
	}
	return os.Chmod(path, mode)
}

func isLink(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&fs.ModeSymlink != 0
}

// tool runs a program of the host; its absence is said plainly.
func tool(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("the AppSpec file needs %s, which is not installed on this host", name)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func label(path string, c *appspec.Context) error {
	args := []string{"fcontext", "-a", "-t", c.Type}
	if c.User != "" {
		args = append(args, "-s", c.User)
	}
	if c.Range != "" {
		args = append(args, "-r", c.Range)
	}
	if err := tool("semanage", append(args, path)...); err != nil {
		return err
	}
	return tool("restorecon", "-v", path)
}

func unlabel(path string) error { return tool("semanage", "fcontext", "-d", path) }
