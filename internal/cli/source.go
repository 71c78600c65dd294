package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v4"

	"slipway/internal/lazyre"
	"slipway/internal/spec/appspec"
	"slipway/internal/spec/buildspec"
)

// settings are what an application may say of itself in slipway.yml.
type settings struct {
	Name            string `yaml:"name"`
	HealthCheckPath string `yaml:"health_check_path"`
	VolumePath      string `yaml:"volume"`
	InstanceType    string `yaml:"instance_type"`
}

var nameRule = lazyre.New(`^[a-z][a-z0-9-]{0,18}[a-z0-9]$`)

// readSettings reads DIR/slipway.yml, if there is one, and fills in what it
// leaves open.
func readSettings(dir string) (settings, error) {
	st := settings{HealthCheckPath: "/", InstanceType: "t2.micro"}
	path := filepath.Join(dir, "slipway.yml")
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return st, err
	}
	if err == nil {
		dec := yaml.NewDecoder(bytes.NewReader(b))
		dec.KnownFields(true)
		if err := dec.Decode(&st); err != nil {
			return st, fmt.Errorf("%s: %w", path, err)
		}
	}
	if st.Name == "" {
		st.Name = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
				return r
			}
			return '-'
		}, strings.ToLower(filepath.Base(dir)))
	}
	if !nameRule.MatchString(st.Name) {
		return st, fmt.Errorf("%q is no name for an application: it takes 2 to 20 of a-z, 0-9 and -, beginning with a letter; set name: in %s", st.Name, path)
	}
	if !strings.HasPrefix(st.HealthCheckPath, "/") {
		return st, fmt.Errorf("%s: health_check_path must begin with /", path)
	}
	if st.VolumePath != "" && !filepath.IsAbs(st.VolumePath) {
		return st, fmt.Errorf("%s: volume must be an absolute path inside the instances", path)
	}
	return st, nil
}

// checkApplication says precisely why dir is nothing that can be deployed.
func checkApplication(dir string) error {
	fi, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("%s: there is no such directory", dir)
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is a file; give the directory of an application", dir)
	}
	var missing []string
	if !exists(dir, "buildspec.yml", "buildspec.yaml") {
		missing = append(missing, "buildspec.yml (how to build and test it: CodeBuild's build specification)")
	}
	if !exists(dir, "appspec.yml", "appspec.yaml") {
		missing = append(missing, "appspec.yml (which files go where and which scripts run: CodeDeploy's application specification)")
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s cannot be deployed, it has no %s.\nexamples/todo shows both", dir, strings.Join(missing, "\nand no "))
	}
	for _, name := range []string{"buildspec.yml", "appspec.yml"} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the other spelling, which the pipeline reads itself
		}
		if err != nil {
			return err
		}
		if name == "buildspec.yml" {
			_, err = buildspec.Parse(path, b)
		} else {
			_, err = appspec.Parse(path, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func exists(dir string, names ...string) bool {
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(dir, n)); err == nil {
			return true
		}
	}
	return false
}

// git runs the user's git, for a repository that is the user's.
func git(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GIT_TERMINAL_PROMPT=0"), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(string(out)), nil
}

// credentialHelper makes git ask this program for the password, so that it
// appears in no command line and no file.
func (s *session) credentialHelper() []string {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	return []string{
		"GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=credential." + s.endpoint + ".helper", "GIT_CONFIG_VALUE_0=",
		"GIT_CONFIG_KEY_1=credential." + s.endpoint + ".helper",
		"GIT_CONFIG_VALUE_1=!" + quote(exe) + " --data-dir " + quote(s.dataDir) + " git-credential",
	}
}

// quote makes one shell word of s.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// push brings dir into the repository at url. Where dir is the top of a git
// work tree, its HEAD is pushed; otherwise its files become one commit on
// top of what the repository has, if they differ from it.
func (s *session) push(ctx context.Context, dir, url, branch string) (bool, error) {
	env := s.credentialHelper()
	remote, err := git(ctx, "", env, "ls-remote", url, "refs/heads/"+branch)
	if err != nil {
		return false, err
	}
	old, _, _ := strings.Cut(remote, "\t")
	if top, err := git(ctx, dir, nil, "rev-parse", "--show-toplevel"); err == nil && sameDir(top, dir) {
		head, err := git(ctx, dir, nil, "rev-parse", "HEAD")
		if err != nil {
			return false, fmt.Errorf("%s is a git repository without a commit; commit first: %w", dir, err)
		}
		if head == old {
			return false, nil
		}
		_, err = git(ctx, dir, env, "push", "--quiet", url, "HEAD:refs/heads/"+branch)
		return err == nil, err
	}
	return s.pushFiles(ctx, dir, url, branch, old, env)
}

func sameDir(a, b string) bool {
	fa, err1 := os.Stat(a)
	fb, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(fa, fb)
}

// pushFiles commits the files of dir in a repository of its own in a
// temporary directory.
func (s *session) pushFiles(ctx context.Context, dir, url, branch, old string, env []string) (bool, error) {
	tmp, err := os.MkdirTemp("", "slipway-push-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	at := append(env, "GIT_DIR="+filepath.Join(tmp, "git"), "GIT_WORK_TREE="+dir,
		"GIT_AUTHOR_NAME=slipway up", "GIT_AUTHOR_EMAIL="+importer, "GIT_COMMITTER_NAME=slipway up", "GIT_COMMITTER_EMAIL="+importer)
	if _, err := git(ctx, dir, at, "init", "--quiet"); err != nil {
		return false, err
	}
	if old != "" {
		if _, err := git(ctx, dir, at, "fetch", "--quiet", url, "refs/heads/"+branch); err != nil {
			return false, err
		}
	}
	if _, err := git(ctx, dir, at, "add", "--all", "."); err != nil {
		return false, err
	}
	tree, err := git(ctx, dir, at, "write-tree")
	if err != nil {
		return false, err
	}
	args := []string{"commit-tree", tree, "-m", "Import " + filepath.Base(dir)}
	if old != "" {
		if known, err := alreadyThere(ctx, dir, at, old, tree); err != nil || known {
			return false, err
		}
		args = append(args, "-p", old)
	}
	commit, err := git(ctx, dir, at, args...)
	if err != nil {
		return false, err
	}
	_, err = git(ctx, dir, at, "push", "--quiet", url, commit+":refs/heads/"+branch)
	return err == nil, err
}

// importer is the author of the commits that up makes of a directory.
const importer = "slipway@localhost"

// alreadyThere tells whether the files of dir (as tree) have been pushed
// before: they are the newest commit's, or the last import's, in which case
// whatever was pushed since is newer than dir. Where both changed it refuses:
// one of them would be undone.
func alreadyThere(ctx context.Context, dir string, env []string, head, tree string) (bool, error) {
	last, err := git(ctx, dir, env, "log", "-1", "--author="+importer, "--format=%H", head)
	if err != nil {
		return false, err
	}
	for _, commit := range []string{head, last} {
		if commit == "" {
			continue
		}
		if have, err := git(ctx, dir, env, "rev-parse", commit+"^{tree}"); err != nil || have == tree {
			return have == tree, err
		}
	}
	if last != head {
		return false, fmt.Errorf("%s changed, and the repository has commits of others that it lacks: pushing it would undo them. Clone the repository (%s clone), bring the changes there, and push", dir, self())
	}
	return false, nil
}
