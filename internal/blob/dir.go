package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"slipway/internal/clock"
)

// Dir is a Store in a directory: new bytes go to tmp/, are hashed on the way,
// synced, and renamed to HH/REST-OF-HASH. What a crash leaves in tmp/ is
// removed by Open.
type Dir struct {
	root    string
	durable bool
	// locks keep a Put's last step and a Remove of the same content apart.
	locks [64]sync.Mutex
	bufs  sync.Pool
}

// OpenDir opens or makes the directory. Not durable skips every fsync, for
// ephemeral servers.
func OpenDir(root string, durable bool) (*Dir, error) {
	tmp := filepath.Join(root, "tmp")
	if err := os.RemoveAll(tmp); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(root, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, fmt.Errorf("blob: %w", err)
		}
	}
	d := &Dir{root: root, durable: durable}
	d.bufs.New = func() any { return new([128 << 10]byte) }
	return d, d.syncDir(root)
}

func (d *Dir) syncDir(path string) error {
	if !d.durable {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("blob: %w", err)
	}
	return nil
}

func valid(hash string) bool {
	if len(hash) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(hash) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func (d *Dir) path(hash string) string { return filepath.Join(d.root, hash[:2], hash[2:]) }

func (d *Dir) lock(hash string) *sync.Mutex {
	b, _ := hex.DecodeString(hash[:2]) // valid has seen it
	return &d.locks[b[0]%64]
}

// readError keeps an error of the source apart from one of the disk.
type readError struct {
	r   io.Reader
	err error
}

func (r *readError) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Put implements Store.
func (d *Dir) Put(ctx context.Context, r io.Reader) (ref Ref, err error) {
	f, err := os.CreateTemp(filepath.Join(d.root, "tmp"), "put-*")
	if err != nil {
		return Ref{}, full(err)
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	buf := d.bufs.Get().(*[128 << 10]byte)
	defer d.bufs.Put(buf)
	sum, src := sha256.New(), &readError{r: ctxReader{ctx, r}}
	// The wrapper hides ReadFrom and WriteTo, which would ignore buf.
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, sum)}, src, buf[:])
	if src.err != nil {
		return Ref{}, src.err
	}
	if err != nil {
		return Ref{}, full(err)
	}
	if d.durable {
		if err := f.Sync(); err != nil {
			return Ref{}, full(err)
		}
	}
	ref = Ref{Hash: hex.EncodeToString(sum.Sum(nil)), Size: n}
	return ref, d.keep(f.Name(), ref.Hash)
}

// keep gives a finished temporary file its name, or drops it where the
// content is there already: that one becomes young again.
func (d *Dir) keep(tmp, hash string) error {
	mu, path := d.lock(hash), d.path(hash)
	mu.Lock()
	defer mu.Unlock()
	now := clock.Real.Now()
	if err := os.Chtimes(path, now, now); err == nil {
		return os.Remove(tmp)
	}
	if err := os.Rename(tmp, path); err != nil {
		return full(err)
	}
	return d.syncDir(filepath.Dir(path))
}

func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("blob: %w", err)
}

// Open implements Store.
func (d *Dir) Open(hash string) (File, error) {
	if !valid(hash) {
		return nil, fmt.Errorf("%w: %q is no hash", ErrNotFound, hash)
	}
	f, err := os.Open(d.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, hash)
	}
	if err != nil {
		return nil, fmt.Errorf("blob: %w", err)
	}
	return f, nil
}

// Remove implements Store.
func (d *Dir) Remove(hash string, grace time.Duration, unused func() (bool, error)) (bool, error) {
	if !valid(hash) {
		return true, nil
	}
	mu := d.lock(hash)
	mu.Lock()
	defer mu.Unlock()
	fi, err := os.Stat(d.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	if clock.Real.Since(fi.ModTime()) < grace {
		return false, nil
	}
	if ok, err := unused(); err != nil || !ok {
		return false, err
	}
	if err := os.Remove(d.path(hash)); err != nil {
		return false, fmt.Errorf("blob: %w", err)
	}
	return true, nil
}

// Each implements Store.
func (d *Dir) Each(ctx context.Context, fn func(hash string) error) error {
	for i := range 256 {
		if err := ctx.Err(); err != nil {
			return err
		}
		prefix := fmt.Sprintf("%02x", i)
		names, err := os.ReadDir(filepath.Join(d.root, prefix))
		if err != nil {
			return fmt.Errorf("blob: %w", err)
		}
		for _, n := range names {
			if hash := prefix + n.Name(); valid(hash) {
				if err := fn(hash); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
