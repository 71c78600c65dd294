package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

const columns = "kind, account, region, id, version, parent, state, created, updated, doc"

type statements struct {
	get, insert, save, del, event, counter *sql.Stmt
}

func (st *statements) prepare(ctx context.Context, db *sql.DB) error {
	for _, p := range []struct {
		to    **sql.Stmt
		query string
	}{
		{&st.get, "SELECT " + columns + " FROM resources WHERE kind=? AND account=? AND region=? AND id=?"},
		{&st.insert, "INSERT INTO resources (" + columns + ") VALUES (?,?,?,?,?,?,?,?,?,?)"},
		{&st.save, "UPDATE resources SET version=version+1, parent=?, state=?, updated=?, doc=? WHERE kind=? AND account=? AND region=? AND id=? AND version=?"},
		{&st.del, "DELETE FROM resources WHERE kind=? AND account=? AND region=? AND id=? AND version=? RETURNING parent"},
		{&st.event, "INSERT INTO events (at, kind, account, region, id, version, type, parent, state, deleted, detail) VALUES (?,?,?,?,?,?,?,?,?,?,?)"},
		{&st.counter, "INSERT INTO counters (kind, account, region, id, value) VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET value=value+excluded.value RETURNING value"},
	} {
		stmt, err := db.PrepareContext(ctx, p.query)
		if err != nil {
			return fmt.Errorf("store: prepare: %w", err)
		}
		*p.to = stmt
	}
	return nil
}

func (st *statements) close() {
	for _, s := range []*sql.Stmt{st.get, st.insert, st.save, st.del, st.event, st.counter} {
		if s != nil {
			s.Close()
		}
	}
}

type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

type reader struct {
	ctx context.Context
	q   queryer
}

type scanner interface{ Scan(...any) error }

func scanRecord(row scanner) (*Record, error) {
	var r Record
	var created, updated int64
	if err := row.Scan(&r.Kind, &r.Account, &r.Region, &r.ID, &r.Version, &r.Parent, &r.State, &created, &updated, &r.Doc); err != nil {
		return nil, err
	}
	r.Created, r.Updated = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	return &r, nil
}

func (r *reader) Get(k Key) (*Record, error) {
	rec, err := scanRecord(r.q.QueryRowContext(r.ctx, "SELECT "+columns+" FROM resources WHERE kind=? AND account=? AND region=? AND id=?", k.Kind, k.Account, k.Region, k.ID))
	return found(rec, err, k)
}

func found(rec *Record, err error, k Key) (*Record, error) {
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fmt.Errorf("%w: %s %s", ErrNotFound, k.Kind, k.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("store: get %s %s: %w", k.Kind, k.ID, err)
	}
	return rec, nil
}

// where builds the condition of a query.
func (q Query) where() (string, []any) {
	conds, args := []string{"kind=?"}, []any{q.Kind}
	add := func(cond string, arg any) { conds = append(conds, cond); args = append(args, arg) }
	if q.Account != "" {
		add("account=?", q.Account)
	}
	if q.Region != "" {
		add("region=?", q.Region)
	}
	if q.Parent != "" {
		add("parent=?", q.Parent)
	}
	if q.State != "" {
		add("state=?", q.State)
	}
	if q.Prefix != "" {
		add("id>=?", q.Prefix)
		if end := prefixEnd(q.Prefix); end != "" {
			add("id<?", end)
		}
	}
	if q.After != "" {
		if q.Descending {
			add("id<?", q.After)
		} else {
			add("id>?", q.After)
		}
	}
	return strings.Join(conds, " AND "), args
}

// prefixEnd is the least string greater than every one with this prefix. It
// steps by whole bytes, as SQLite's BINARY collation compares them.
func prefixEnd(p string) string {
	b := []byte(p)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

func (r *reader) List(q Query) ([]*Record, error) {
	cond, args := q.where()
	query := "SELECT " + columns + " FROM resources WHERE " + cond + " ORDER BY id"
	if q.Descending {
		query += " DESC"
	}
	query += ", account, region"
	if q.Limit > 0 {
		query += " LIMIT ?"
		args = append(args, q.Limit)
	}
	rows, err := r.q.QueryContext(r.ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("store: list %s: %w", q.Kind, err)
	}
	defer rows.Close()
	var recs []*Record
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return nil, fmt.Errorf("store: list %s: %w", q.Kind, err)
		}
		recs = append(recs, rec)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("store: list %s: %w", q.Kind, err)
	}
	return recs, nil
}

func (r *reader) Count(q Query) (int, error) {
	cond, args := q.where()
	var n int
	if err := r.q.QueryRowContext(r.ctx, "SELECT count(*) FROM resources WHERE "+cond, args...).Scan(&n); err != nil {
		return 0, fmt.Errorf("store: count %s: %w", q.Kind, err)
	}
	return n, nil
}

func (r *reader) Events(after int64, limit int, kinds ...string) ([]Event, error) {
	query, args := "SELECT seq, at, kind, account, region, id, version, type, parent, state, deleted, detail FROM events WHERE seq>?", []any{after}
	if len(kinds) > 0 {
		query += " AND kind IN (?" + strings.Repeat(",?", len(kinds)-1) + ")"
		for _, k := range kinds {
			args = append(args, k)
		}
	}
	query += " ORDER BY seq LIMIT ?"
	rows, err := r.q.QueryContext(r.ctx, query, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("store: events: %w", err)
	}
	defer rows.Close()
	var events []Event
	for rows.Next() {
		var e Event
		var at int64
		var detail []byte
		if err := rows.Scan(&e.Seq, &at, &e.Key.Kind, &e.Key.Account, &e.Key.Region, &e.Key.ID, &e.Version, &e.Type, &e.Parent, &e.State, &e.Deleted, &detail); err != nil {
			return nil, fmt.Errorf("store: events: %w", err)
		}
		e.At, e.Detail = time.UnixMicro(at).UTC(), detail
		events = append(events, e)
	}
	return events, rows.Err()
}

type tx struct {
	reader
	s      *sqliteStore
	sqlTx  *sql.Tx
	now    time.Time
	events []Event
	err    error // the first error of the engine: such a transaction must not commit
}

func (t *tx) stmt(s *sql.Stmt) *sql.Stmt { return t.sqlTx.StmtContext(t.ctx, s) }

// broken remembers an engine error, so that a caller who ignores it does not
// commit half of what it meant.
func (t *tx) broken(what string, err error) error {
	err = fmt.Errorf("store: %s: %w", what, classify(err))
	if t.err == nil {
		t.err = err
	}
	return err
}

func (t *tx) Get(k Key) (*Record, error) {
	rec, err := scanRecord(t.stmt(t.s.insertStmts.get).QueryRowContext(t.ctx, k.Kind, k.Account, k.Region, k.ID))
	return found(rec, err, k)
}

func (t *tx) Insert(rec *Record, event string, detail any) error {
	now := t.now.UnixMicro()
	_, err := t.stmt(t.s.insertStmts.insert).ExecContext(t.ctx, rec.Kind, rec.Account, rec.Region, rec.ID, 1, rec.Parent, rec.State, now, now, rec.Doc)
	var coded interface{ Code() int }
	if errors.As(err, &coded) && (coded.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || coded.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE) {
		return fmt.Errorf("%w: %s %s", ErrExists, rec.Kind, rec.ID)
	}
	if err != nil {
		return t.broken("insert "+rec.Kind+" "+rec.ID, err)
	}
	rec.Version, rec.Created, rec.Updated = 1, time.UnixMicro(now).UTC(), time.UnixMicro(now).UTC()
	return t.emit(Event{Key: rec.Key, Version: 1, Type: event, Parent: rec.Parent, State: rec.State}, detail)
}

func (t *tx) Save(rec *Record, event string, detail any) error {
	now := t.now.UnixMicro()
	res, err := t.stmt(t.s.insertStmts.save).ExecContext(t.ctx, rec.Parent, rec.State, now, rec.Doc, rec.Kind, rec.Account, rec.Region, rec.ID, rec.Version)
	if err != nil {
		return t.broken("save "+rec.Kind+" "+rec.ID, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return t.missed(rec.Key, err)
	}
	rec.Version, rec.Updated = rec.Version+1, time.UnixMicro(now).UTC()
	return t.emit(Event{Key: rec.Key, Version: rec.Version, Type: event, Parent: rec.Parent, State: rec.State}, detail)
}

func (t *tx) Delete(k Key, version int64, event string, detail any) error {
	var parent string
	err := t.stmt(t.s.insertStmts.del).QueryRowContext(t.ctx, k.Kind, k.Account, k.Region, k.ID, version).Scan(&parent)
	if errors.Is(err, sql.ErrNoRows) {
		return t.missed(k, nil)
	}
	if err != nil {
		return t.broken("delete "+k.Kind+" "+k.ID, err)
	}
	return t.emit(Event{Key: k, Version: version, Type: event, Parent: parent, Deleted: true}, detail)
}

// missed tells a row that is gone from one that changed.
func (t *tx) missed(k Key, err error) error {
	if err != nil {
		return t.broken("write "+k.Kind+" "+k.ID, err)
	}
	if _, err := t.Get(k); errors.Is(err, ErrNotFound) {
		return err
	}
	return fmt.Errorf("%w: %s %s", ErrConflict, k.Kind, k.ID)
}

func (t *tx) Counter(k Key, delta int64) (int64, error) {
	var v int64
	if err := t.stmt(t.s.insertStmts.counter).QueryRowContext(t.ctx, k.Kind, k.Account, k.Region, k.ID, delta).Scan(&v); err != nil {
		return 0, t.broken("counter "+k.ID, err)
	}
	return v, nil
}

func (t *tx) emit(e Event, detail any) error {
	e.At = t.now
	if detail != nil {
		b, err := json.Marshal(detail)
		if err != nil {
			return fmt.Errorf("store: detail of event %s: %w", e.Type, err)
		}
		e.Detail = b
	}
	res, err := t.stmt(t.s.insertStmts.event).ExecContext(t.ctx, t.now.UnixMicro(), e.Key.Kind, e.Key.Account, e.Key.Region, e.Key.ID, e.Version, e.Type, e.Parent, e.State, e.Deleted, []byte(e.Detail))
	if err != nil {
		return t.broken("event of "+e.Key.Kind+" "+e.Key.ID, err)
	}
	if e.Seq, err = res.LastInsertId(); err != nil {
		return t.broken("event of "+e.Key.Kind+" "+e.Key.ID, err)
	}
	t.events = append(t.events, e)
	return nil
}
