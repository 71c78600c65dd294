package codedeploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"slipway/internal/spec/appspec"
)

// instruction is one step of an installation; install.json lists them for people to read.
type instruction struct {
	Type        string           `json:"type"` // mkdir copy chown chmod setfacl semanage
	Directory   string           `json:"directory,omitempty"`
	Source      string           `json:"source,omitempty"`
	Destination string           `json:"destination,omitempty"`
	File        string           `json:"file,omitempty"`
	Mode        string           `json:"mode,omitempty"` // octal
	Owner       string           `json:"owner,omitempty"`
	Group       string           `json:"group,omitempty"`
	ACL         []string         `json:"acl,omitempty"`
	Context     *appspec.Context `json:"context,omitempty"`
}

// installer carries out the files and permissions sections. It has three phases, as AWS's agent: what the
// last deployment of the group installed is removed, the whole plan is made (so that a conflict is found
// before anything is written), then the plan is executed, noting each created path in the cleanup file first.
type installer struct {
	archive          string
	behavior         string
	cleanupFile      string
	instructionsFile string

	plan   []instruction
	copies map[string]string // destination -> source, of this plan
	dirs   map[string]bool   // directories that this plan makes
}

func (in *installer) run(spec *appspec.Spec) error {
	if err := in.cleanup(); err != nil {
		return fmt.Errorf("removing the files of the previous deployment: %w", err)
	}
	if err := in.build(spec); err != nil {
		return err
	}
	b, err := json.MarshalIndent(map[string]any{"instructions": in.plan}, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(in.instructionsFile, b, 0o644); err != nil {
		return err
	}
	return in.execute()
}

// cleanup removes what the cleanup file lists, last line first: files, directories that are empty by then,
// SELinux labels. A last line without its line end was cut off by a crash and does not count.
func (in *installer) cleanup() error {
	b, err := os.ReadFile(in.cleanupFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := strings.Split(string(b), "\n")
	lines = lines[:len(lines)-1]
	for _, line := range slices.Backward(lines) {
		if path, ok := strings.CutPrefix(line, "semanage\x00"); ok {
			if err := unlabel(path); err != nil {
				return err
			}
			continue
		}
		if !filepath.IsAbs(line) {
			continue
		}
		err := os.Remove(line)
		if err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) ||
			errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.EBUSY) {
			continue // gone already, or in use by somebody else's files
		}
		return err
	}
	return os.Remove(in.cleanupFile)
}

func (in *installer) build(spec *appspec.Spec) error {
	in.copies, in.dirs = map[string]string{}, map[string]bool{}
	for _, f := range spec.Files {
		if err := in.mapping(f); err != nil {
			return err
		}
	}
	for _, p := range spec.Permissions {
		if err := in.permission(p); err != nil {
			return err
		}
	}
	return nil
}

// mapping plans one entry of the files section: a file goes into the destination directory, a directory's
// contents go there.
func (in *installer) mapping(f appspec.File) error {
	rel := filepath.Clean(strings.TrimLeft(f.Source, "/"))
	if !filepath.IsLocal(rel) {
		return f.At.Errorf("the source %q leaves the bundle", f.Source)
	}
	src, dst := filepath.Join(in.archive, rel), filepath.Clean(f.Destination)
	st, err := os.Lstat(src)
	if errors.Is(err, fs.ErrNotExist) {
		return f.At.Errorf("the source %q is not in the bundle", f.Source)
	}
	if err != nil {
		return err
	}
	if err := in.mkdirs(dst); err != nil {
		return err
	}
	if !st.IsDir() {
		return in.copy(f, src, filepath.Join(dst, filepath.Base(rel)))
	}
	return in.contents(f, src, dst)
}

func (in *installer) contents(f appspec.File, src, dst string) error {
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())
		if strings.Contains(to, "\n") {
			return f.At.Errorf("the bundle has a file name with a line break: %q", to)
		}
		if !e.IsDir() {
			if err := in.copy(f, from, to); err != nil {
				return err
			}
			continue
		}
		if err := in.mkdir(to); err != nil {
			return err
		}
		if err := in.contents(f, from, to); err != nil {
			return err
		}
	}
	return nil
}

// mkdirs plans a directory with its missing parents.
func (in *installer) mkdirs(dir string) error {
	if dir == "/" || in.dirs[dir] {
		return nil
	}
	if err := in.mkdirs(filepath.Dir(dir)); err != nil {
		return err
	}
	return in.mkdir(dir)
}

func (in *installer) mkdir(dir string) error {
	if in.dirs[dir] {
		return nil
	}
	if _, clash := in.copies[dir]; clash {
		return fmt.Errorf("The deployment failed because the application specification file maps both a file and a directory to %s", dir)
	}
	st, err := os.Stat(dir)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("The deployment failed because %s must be a directory, but a file of that name exists", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("The deployment failed because %s must be a directory, but is a symbolic link to nothing", dir)
	}
	in.dirs[dir] = true
	in.plan = append(in.plan, instruction{Type: "mkdir", Directory: dir})
	return nil
}

func (in *installer) copy(f appspec.File, src, dst string) error {
	if other, twice := in.copies[dst]; twice {
		return f.At.Errorf("The deployment failed because the application specification file specifies two source files named %s and %s for the same destination (%s)", other, src, dst)
	}
	if in.dirs[dst] {
		return f.At.Errorf("The deployment failed because the application specification file maps both a file and a directory to %s", dst)
	}
	st, err := os.Lstat(dst)
	switch {
	case err == nil && st.IsDir():
		return fmt.Errorf("The deployment failed because a directory exists at this location, where a file is to be installed: %s", dst)
	case err == nil && in.behavior == appspec.Retain:
		return nil
	case err == nil && in.behavior == appspec.Disallow:
		return fmt.Errorf("The deployment failed because a specified file already exists at this location: %s", dst)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	in.copies[dst] = src
	in.plan = append(in.plan, instruction{Type: "copy", Source: src, Destination: dst})
	return nil
}

// execute carries the plan out. A path stands in the cleanup file before it is created, so that an agent that is
// killed leaves nothing unknown behind.
func (in *installer) execute() error {
	f, err := os.OpenFile(in.cleanupFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, i := range in.plan {
		note := ""
		switch i.Type {
		case "mkdir":
			note = i.Directory
		case "copy":
			note = i.Destination
		case "semanage":
			note = "semanage\x00" + i.File
		}
		if note != "" {
			if _, err := f.WriteString(note + "\n"); err != nil {
				return err
			}
		}
		if err := i.do(); err != nil {
			return err
		}
	}
	return f.Sync()
}

func (i instruction) do() error {
	switch i.Type {
	case "mkdir":
		err := os.Mkdir(i.Directory, 0o755)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	case "copy":
		return copyEntry(i.Source, i.Destination)
	}
	return i.permit()
}

// copyEntry puts a file or a link at dst by a rename: a running program can be replaced, and a link at dst is
// replaced and not followed.
func copyEntry(src, dst string) (err error) {
	st, err := os.Lstat(src)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(dst), ".codedeploy-"+filepath.Base(dst))
	if len(filepath.Base(tmp)) > 255 {
		tmp = filepath.Join(filepath.Dir(dst), ".codedeploy-new")
	}
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(tmp)
		}
	}()
	if st.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(src)
		if err != nil {
			return err
		}
		if err := os.Symlink(target, tmp); err != nil {
			return err
		}
		return os.Rename(tmp, dst)
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%s is neither a file, a directory nor a link", src)
	}
	if err := copyFile(src, tmp, st.Mode()); err != nil {
		return err
	}
	return os.Rename(tmp, dst)
}

func copyFile(src, dst string, mode fs.FileMode) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err == nil {
		err = to.Chmod(mode.Perm() | mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky))
	}
	if cerr := to.Close(); err == nil {
		err = cerr
	}
	return err
}
