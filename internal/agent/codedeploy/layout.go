package codedeploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// layout is the tree under the deployment root; the names are those of AWS's agent, which people look for.
type layout struct{ root string }

func (l layout) deployment(s *specification) string {
	return filepath.Join(l.root, s.DeploymentGroupId, s.DeploymentId)
}
func (l layout) bundle(s *specification) string  { return filepath.Join(l.deployment(s), "bundle.tar") }
func (l layout) archive(s *specification) string { return archiveIn(l.deployment(s)) }
func (l layout) logs(s *specification) string    { return filepath.Join(l.deployment(s), "logs") }
func (l layout) instructions() string            { return filepath.Join(l.root, "deployment-instructions") }
func (l layout) ongoing() string                 { return filepath.Join(l.root, "ongoing-deployment") }
func (l layout) pending() string                 { return filepath.Join(l.root, "pending-results") }
func (l layout) cleanup(group string) string {
	return filepath.Join(l.instructions(), group+"-cleanup")
}
func (l layout) install(group string) string {
	return filepath.Join(l.instructions(), group+"-install.json")
}
func (l layout) lastSuccessful(group string) string {
	return filepath.Join(l.instructions(), group+"_last_successful_install")
}
func (l layout) mostRecent(group string) string {
	return filepath.Join(l.instructions(), group+"_most_recent_install")
}

func archiveIn(deployment string) string { return filepath.Join(deployment, "deployment-archive") }

// pointer reads a file that holds one deployment directory; "" when there is none yet.
func pointer(file string) (string, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", file, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// replaceFile writes a file so that after a crash there is the old or the new content, never a part.
func replaceFile(name string, data []byte, mode fs.FileMode) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
