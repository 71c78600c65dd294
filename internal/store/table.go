package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Table binds a kind of row to the Go type of its document.
type Table[T any] struct {
	Kind  string
	index func(*T) (parent, state string)
}

// NewTable declares a kind. index computes the two indexed columns from a
// document; nil leaves them empty.
func NewTable[T any](kind string, index func(*T) (parent, state string)) Table[T] {
	return Table[T]{Kind: kind, index: index}
}

// Row is a Record with its document decoded.
type Row[T any] struct {
	Key
	Version int64
	Created time.Time
	Updated time.Time
	Doc     T
}

// Key is the key of a row of this table.
func (t Table[T]) Key(account, region, id string) Key {
	return Key{Kind: t.Kind, Account: account, Region: region, ID: id}
}

// Get returns the row, or ErrNotFound.
func (t Table[T]) Get(r Reader, account, region, id string) (*Row[T], error) {
	rec, err := r.Get(t.Key(account, region, id))
	if err != nil {
		return nil, err
	}
	return t.decode(rec)
}

// List returns the rows that q selects; q.Kind is filled in.
func (t Table[T]) List(r Reader, q Query) ([]*Row[T], error) {
	q.Kind = t.Kind
	recs, err := r.List(q)
	if err != nil {
		return nil, err
	}
	rows := make([]*Row[T], 0, len(recs))
	for _, rec := range recs {
		row, err := t.decode(rec)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// Count returns how many rows q selects.
func (t Table[T]) Count(r Reader, q Query) (int, error) {
	q.Kind = t.Kind
	return r.Count(q)
}

// Insert adds a row; ErrExists where the id is taken. detail, which may be
// nil, goes into the event as JSON.
func (t Table[T]) Insert(tx Tx, account, region, id string, doc T, event string, detail any) (*Row[T], error) {
	row := &Row[T]{Key: t.Key(account, region, id), Doc: doc}
	rec, err := t.encode(row)
	if err != nil {
		return nil, err
	}
	if err := tx.Insert(rec, event, detail); err != nil {
		return nil, err
	}
	row.Version, row.Created, row.Updated = rec.Version, rec.Created, rec.Updated
	return row, nil
}

// Save writes a row back that was read in this or an earlier transaction;
// ErrConflict where it changed in between.
func (t Table[T]) Save(tx Tx, row *Row[T], event string, detail any) error {
	rec, err := t.encode(row)
	if err != nil {
		return err
	}
	if err := tx.Save(rec, event, detail); err != nil {
		return err
	}
	row.Version, row.Updated = rec.Version, rec.Updated
	return nil
}

// Delete removes a row that was read before.
func (t Table[T]) Delete(tx Tx, row *Row[T], event string, detail any) error {
	return tx.Delete(row.Key, row.Version, event, detail)
}

// Find is Get in a View of its own.
func (t Table[T]) Find(ctx context.Context, s Store, account, region, id string) (*Row[T], error) {
	var row *Row[T]
	err := s.View(ctx, func(r Reader) (err error) {
		row, err = t.Get(r, account, region, id)
		return err
	})
	return row, err
}

// Select is List in a View of its own.
func (t Table[T]) Select(ctx context.Context, s Store, q Query) ([]*Row[T], error) {
	var rows []*Row[T]
	err := s.View(ctx, func(r Reader) (err error) {
		rows, err = t.List(r, q)
		return err
	})
	return rows, err
}

// ErrUnchanged is returned by the function given to Modify to say that there
// is nothing to write: Modify then returns the row and no error.
var ErrUnchanged = errors.New("store: unchanged")

// Modify reads a row, lets fn change its document, and saves it, in one
// transaction of its own.
func (t Table[T]) Modify(ctx context.Context, s Store, account, region, id, event string, fn func(*T) error) (*Row[T], error) {
	var row *Row[T]
	err := s.Update(ctx, func(tx Tx) (err error) {
		if row, err = t.Get(tx, account, region, id); err != nil {
			return err
		}
		if err = fn(&row.Doc); err != nil {
			return err
		}
		return t.Save(tx, row, event, nil)
	})
	if errors.Is(err, ErrUnchanged) {
		err = nil
	}
	return row, err
}

func (t Table[T]) decode(rec *Record) (*Row[T], error) {
	row := &Row[T]{Key: rec.Key, Version: rec.Version, Created: rec.Created, Updated: rec.Updated}
	if err := json.Unmarshal(rec.Doc, &row.Doc); err != nil {
		return nil, fmt.Errorf("store: document of %s %s: %w", rec.Kind, rec.ID, err)
	}
	return row, nil
}

func (t Table[T]) encode(row *Row[T]) (*Record, error) {
	doc, err := json.Marshal(&row.Doc)
	if err != nil {
		return nil, fmt.Errorf("store: document of %s %s: %w", row.Kind, row.ID, err)
	}
	rec := &Record{Key: row.Key, Version: row.Version, Created: row.Created, Updated: row.Updated, Doc: doc}
	if t.index != nil {
		rec.Parent, rec.State = t.index(&row.Doc)
	}
	return rec, nil
}
