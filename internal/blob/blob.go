// Package blob keeps bytes by the hash of their content. It knows nothing of
// who needs them: whoever holds references counts them in the store, and asks
// for removal of what nobody references any more. Removal asks back under a
// lock, so that a blob that is put again in the same moment stays.
package blob

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors of this package; compare with errors.Is.
var (
	ErrNotFound = errors.New("blob: not found")
	// ErrFull says that the disk has no room; nothing was kept.
	ErrFull = errors.New("blob: no space left on the disk that holds the data directory")
)

// Ref names a blob.
type Ref struct {
	Hash string // SHA-256 of the content, 64 lower-case hexadecimal digits
	Size int64  // bytes
}

// File is an open blob. It stays readable after the blob's removal.
type File interface {
	io.Reader
	io.ReaderAt
	io.Seeker
	io.Closer
}

// Store keeps blobs. All methods are safe for concurrent use.
type Store interface {
	// Put keeps what r gives until its end. When it returns, the bytes are
	// durable. An error of r is returned as it is, and nothing is kept.
	Put(ctx context.Context, r io.Reader) (Ref, error)
	// Open opens a blob for reading, or returns ErrNotFound.
	Open(hash string) (File, error)
	// Remove deletes a blob that was not put within the last grace and for
	// which unused returns true; unused is called while no Put of the same
	// content can end. It says whether the blob is gone now.
	Remove(hash string, grace time.Duration, unused func() (bool, error)) (bool, error)
	// Each calls fn for every blob until it returns an error.
	Each(ctx context.Context, fn func(hash string) error) error
}
