package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Errors of this package; compare with errors.Is.
var (
	ErrNotFound = errors.New("store: not found")
	ErrExists   = errors.New("store: exists already")
	// ErrConflict says that the row changed since it was read: read it
	// again and decide anew.
	ErrConflict = errors.New("store: version conflict")
	// ErrLagged says that a subscriber fell so far behind that events were
	// dropped for it: it must look at everything again.
	ErrLagged = errors.New("store: subscriber lagged, events were dropped")
	ErrClosed = errors.New("store: closed")
	// ErrFull says that the disk has no room; the write did not happen.
	ErrFull = errors.New("store: no space left on the disk that holds the data directory")
)

// Key names a row. Region is empty for what AWS keeps per account (IAM).
type Key struct {
	Kind    string // "<service>:<resource>", e.g. "ec2:instance"
	Account string
	Region  string
	ID      string
}

// Record is a row as stored.
type Record struct {
	Key
	Version int64 // 1 at insertion, one more at every save
	// Parent and State are indexed for List; a service chooses what they mean.
	Parent  string
	State   string
	Created time.Time
	Updated time.Time
	Doc     []byte // JSON
}

// Event is one transition of a row. It is written in the transaction that
// made the transition and delivered after the commit.
type Event struct {
	Seq     int64
	At      time.Time
	Key     Key
	Version int64  // of the row after the transition
	Type    string // a word of the service's: "Created", "Terminated", ...
	Parent  string
	State   string // of the row after the transition; "" when deleted
	Deleted bool
	Detail  json.RawMessage
}

// Query selects rows of one kind, ordered by id. Empty fields select all.
type Query struct {
	Kind    string
	Account string
	Region  string
	Parent  string
	State   string
	Prefix  string // of the id
	After   string // ids behind this one only (before it, when Descending)
	Limit   int    // 0: no limit
	// Descending turns the order by id round.
	Descending bool
}

// Reader reads a consistent snapshot.
type Reader interface {
	Get(Key) (*Record, error)
	List(Query) ([]*Record, error)
	Count(Query) (int, error)
	// Events returns the events after seq, oldest first, of these kinds
	// (of all, when there are none), at most limit.
	Events(after int64, limit int, kinds ...string) ([]Event, error)
}

// Tx reads its own writes and writes. Everything in it becomes durable at
// once, or not at all.
type Tx interface {
	Reader
	// Insert adds a row; ErrExists where the key is taken. It sets Version,
	// Created and Updated.
	Insert(rec *Record, event string, detail any) error
	// Save replaces the row whose version is rec.Version; ErrConflict where
	// the stored one differs. It sets Version and Updated.
	Save(rec *Record, event string, detail any) error
	// Delete removes the row; ErrConflict as for Save.
	Delete(key Key, version int64, event string, detail any) error
	// Counter adds delta to a named counter and returns the sum; a counter
	// that was never used is 0.
	Counter(key Key, delta int64) (int64, error)
}

// Store keeps rows. All methods are safe for concurrent use.
type Store interface {
	// View runs fn on a snapshot. fn must not call Update.
	View(ctx context.Context, fn func(Reader) error) error
	// Update runs fn in a write transaction and returns when its effect is
	// durable. fn may run beside nothing else: it must be quick, do no I/O
	// and call no other method of the store. An error from fn undoes its
	// writes and is returned as it is.
	Update(ctx context.Context, fn func(Tx) error) error
	// Subscribe delivers every event of these kinds (all, when there are
	// none) that is committed after the call.
	Subscribe(kinds ...string) *Subscription
	// LastTime is the time of the newest event, zero where there is none:
	// a scaled clock resumes from it.
	LastTime(ctx context.Context) (time.Time, error)
	// Reset removes every row, event and counter. Only an ephemeral store
	// allows it.
	Reset(ctx context.Context) error
	Close() error
}
