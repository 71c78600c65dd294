package lb

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// stateFile keeps the last good snapshot. It holds private keys: 0600. One process
// at a time owns it.
type stateFile struct {
	path string
	lock *os.File
}

// openState takes the file's lock; the directory is made when missing.
func openState(path string) (*stateFile, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("state %s belongs to another running load balancer: %w", path, err)
	}
	return &stateFile{path: path, lock: lock}, nil
}

// Close gives the lock back.
func (s *stateFile) Close() error { return s.lock.Close() }

// load returns the stored snapshot, nil when there never was one.
func (s *stateFile) load() (*Snapshot, error) {
	b, err := os.ReadFile(s.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out Snapshot
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return &out, nil
}

// save makes the snapshot durable: it returns after file and directory are on disk.
func (s *stateFile) save(snap *Snapshot) error {
	b, err := json.Marshal(snap)
	if err != nil {
		return err
	}
	return writeDurably(s.path, b)
}

func writeDurably(path string, b []byte) (err error) {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp, path); err != nil {
		return err
	}
	d, derr := os.Open(filepath.Dir(path))
	if derr != nil {
		return nil // renamed already: there is nothing to undo
	}
	return errors.Join(d.Sync(), d.Close())
}

// secret returns the key that seals cookies, made at the first start, so that
// cookies survive a restart.
func (s *stateFile) secret() ([]byte, error) {
	path := s.path + ".key"
	b, err := os.ReadFile(path)
	if err == nil && len(b) == 32 {
		return b, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	b = make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	return b, writeDurably(path, b)
}
