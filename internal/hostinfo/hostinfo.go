// Package hostinfo is what a server leaves in its data directory for the
// command line to find: where it listens, its process, and the first keys.
package hostinfo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Running describes a server that is up.
type Running struct {
	PID      int       `json:"pid"`
	Endpoint string    `json:"endpoint"`
	Started  time.Time `json:"started"`
	Version  string    `json:"version"`
}

// Credentials are an access key and its secret.
type Credentials struct {
	AccessKeyID     string `json:"AccessKeyId"`
	SecretAccessKey string `json:"SecretAccessKey"`
}

const (
	runningFile     = "server.json"
	credentialsFile = "root-credentials.json"
)

// CredentialsPath is where the first keys are kept, mode 0600.
func CredentialsPath(dir string) string { return filepath.Join(dir, credentialsFile) }

// ReadCredentials returns the keys made at the first start.
func ReadCredentials(dir string) (Credentials, error) {
	var c Credentials
	return c, read(CredentialsPath(dir), &c)
}

// ReadRunning returns what the last server said of itself; it may be gone.
func ReadRunning(dir string) (Running, error) {
	var r Running
	return r, read(filepath.Join(dir, runningFile), &r)
}

// WriteRunning says that this server is up.
func WriteRunning(dir string, r Running) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, runningFile+".tmp")
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, runningFile))
}

// RemoveRunning says that this server is gone.
func RemoveRunning(dir string) error {
	err := os.Remove(filepath.Join(dir, runningFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func read(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s is damaged: %w", path, err)
	}
	return nil
}

// ErrLocked says that another server uses the data directory.
var ErrLocked = errors.New("another Slipway server uses this data directory")

// Lock takes the data directory for this process; the lock goes with the
// process. Close the file to give it back.
func Lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrLocked, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}
