package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver
	sqlite3 "modernc.org/sqlite/lib"

	"slipway/internal/clock"
)

// Options of Open.
type Options struct {
	// Dir holds the database file; it must exist. Ignored when Ephemeral.
	Dir string
	// Ephemeral keeps the rows in memory only, and allows Reset.
	Ephemeral bool
	// Clock stamps rows and events; nil is clock.Real.
	Clock clock.Clock
}

const (
	readers = 4
	// maxBatch bounds how many updates share one commit.
	maxBatch = 128
	// keepEvents is how many events stay; older ones are pruned.
	keepEvents = 200_000
)

const schema = `
CREATE TABLE IF NOT EXISTS resources (
	kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL,
	version INTEGER NOT NULL, parent TEXT NOT NULL, state TEXT NOT NULL,
	created INTEGER NOT NULL, updated INTEGER NOT NULL, doc BLOB NOT NULL,
	PRIMARY KEY (kind, account, region, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS resources_parent ON resources (kind, parent, id);
CREATE INDEX IF NOT EXISTS resources_state ON resources (kind, state, id);
CREATE TABLE IF NOT EXISTS events (
	seq INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL,
	kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL,
	version INTEGER NOT NULL, type TEXT NOT NULL, parent TEXT NOT NULL, state TEXT NOT NULL,
	deleted INTEGER NOT NULL, detail BLOB
);
CREATE INDEX IF NOT EXISTS events_kind ON events (kind, seq);
CREATE TABLE IF NOT EXISTS counters (
	kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, id TEXT NOT NULL,
	value INTEGER NOT NULL, PRIMARY KEY (kind, account, region, id)
) WITHOUT ROWID;
`

// schemaVersion is kept in SQLite's user_version. A newer file is refused: it
// was written by a newer Slipway.
const schemaVersion = 1

type sqliteStore struct {
	read  *sql.DB
	write *sql.DB
	clock clock.Clock
	bus   *bus
	tmp   string // directory to remove at Close

	queue     chan *update
	stop      chan struct{}
	stopped   chan struct{}
	closeOnce sync.Once

	insertStmts statements
}

type update struct {
	ctx    context.Context
	fn     func(Tx) error
	events []Event
	err    error
	done   chan struct{}
}

// Open opens or creates the store. Its writer goroutine ends with Close.
func Open(ctx context.Context, o Options) (Store, error) {
	if o.Clock == nil {
		o.Clock = clock.Real
	}
	s := &sqliteStore{
		clock: o.Clock, bus: newBus(),
		queue: make(chan *update, maxBatch), stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	dir, sync := o.Dir, "FULL"
	if o.Ephemeral {
		tmp, err := os.MkdirTemp(memoryDir(), "slipway-store-")
		if err != nil {
			return nil, fmt.Errorf("store: a directory in memory: %w", err)
		}
		s.tmp, dir, sync = tmp, tmp, "OFF"
	}
	if err := s.open(ctx, filepath.Join(dir, "state.db"), sync); err != nil {
		s.closeFiles()
		return nil, err
	}
	go s.writer()
	return s, nil
}

// memoryDir is a tmpfs where there is one.
func memoryDir() string {
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func (s *sqliteStore) open(ctx context.Context, path, sync string) error {
	dsn := func(extra string) string {
		return "file:" + (&url.URL{Path: path}).EscapedPath() +
			"?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(" + sync + ")" +
			"&_pragma=cache_size(-2000)&_pragma=foreign_keys(0)" + extra
	}
	err := private(path)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if s.write, err = sql.Open("sqlite", dsn("&_txlock=immediate")); err != nil {
		return fmt.Errorf("store: open %s: %w", path, err)
	}
	s.write.SetMaxOpenConns(1)
	var version int
	if err := s.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return fmt.Errorf("store: open %s: %w", path, classify(err))
	}
	if version > schemaVersion {
		return fmt.Errorf("store: %s was written by a newer Slipway (data version %d, this one knows %d): use that version, or another --data-dir", path, version, schemaVersion)
	}
	if _, err := s.write.ExecContext(ctx, schema+fmt.Sprintf("PRAGMA user_version=%d;", schemaVersion)); err != nil {
		return fmt.Errorf("store: create tables in %s: %w", path, classify(err))
	}
	if s.read, err = sql.Open("sqlite", dsn("&_pragma=query_only(1)")); err != nil {
		return fmt.Errorf("store: open %s: %w", path, err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	return s.insertStmts.prepare(ctx, s.write)
}

// private makes the database readable by its owner only, before anything is in
// it: SQLite gives the log beside it the database's own mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, p := range []string{path, path + "-wal", path + "-shm"} {
		if err := os.Chmod(p, 0o600); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (s *sqliteStore) closeFiles() error {
	var errs []error
	s.insertStmts.close()
	if s.read != nil {
		errs = append(errs, s.read.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.Close())
	}
	if s.tmp != "" {
		errs = append(errs, os.RemoveAll(s.tmp))
	}
	return errors.Join(errs...)
}

func (s *sqliteStore) Close() error {
	var err error
	s.closeOnce.Do(func() {
		close(s.stop)
		<-s.stopped
		err = s.closeFiles()
	})
	return err
}

func (s *sqliteStore) Subscribe(kinds ...string) *Subscription { return s.bus.subscribe(kinds) }

func (s *sqliteStore) View(ctx context.Context, fn func(Reader) error) error {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	defer tx.Rollback()
	return fn(&reader{ctx: ctx, q: tx})
}

func (s *sqliteStore) Update(ctx context.Context, fn func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	u := &update{ctx: ctx, fn: fn, done: make(chan struct{})}
	select {
	case s.queue <- u:
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	// Once queued, the outcome is known only when it is done: waiting for it
	// is what makes the acknowledgement true. The writer answers promptly.
	select {
	case <-u.done:
		return u.err
	case <-s.stopped:
		select {
		case <-u.done:
			return u.err
		default:
			return ErrClosed
		}
	}
}

// writer runs the updates, as many as wait in one commit.
func (s *sqliteStore) writer() {
	defer close(s.stopped)
	for {
		var batch []*update
		select {
		case u := <-s.queue:
			batch = append(batch, u)
		case <-s.stop:
			return
		}
	fill:
		for len(batch) < maxBatch {
			select {
			case u := <-s.queue:
				batch = append(batch, u)
			default:
				break fill
			}
		}
		s.commit(batch)
		for _, u := range batch {
			close(u.done)
		}
	}
}

// commit runs a batch in one transaction, each update in a savepoint of its
// own, so that one that fails takes no other with it.
func (s *sqliteStore) commit(batch []*update) {
	fail := func(err error) {
		for _, u := range batch {
			if u.err == nil {
				u.err = err
			}
		}
	}
	ctx := context.Background() // an update under way is finished, whoever waits
	sqlTx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		fail(fmt.Errorf("store: %w", classify(err)))
		return
	}
	defer sqlTx.Rollback()
	var events []Event
	for _, u := range batch {
		if u.err = s.runOne(ctx, sqlTx, u); u.err == nil {
			events = append(events, u.events...)
		}
	}
	if n := len(events); n > 0 && events[n-1].Seq%10_000 < int64(n) {
		if _, err := sqlTx.ExecContext(ctx, "DELETE FROM events WHERE seq <= ?", events[n-1].Seq-keepEvents); err != nil {
			fail(fmt.Errorf("store: prune events: %w", classify(err)))
			return
		}
	}
	if err := sqlTx.Commit(); err != nil {
		fail(fmt.Errorf("store: commit: %w", classify(err)))
		return
	}
	s.bus.publish(events)
}

func (s *sqliteStore) runOne(ctx context.Context, sqlTx *sql.Tx, u *update) (err error) {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	if _, err := sqlTx.ExecContext(ctx, "SAVEPOINT u"); err != nil {
		return fmt.Errorf("store: %w", classify(err))
	}
	t := &tx{reader: reader{ctx: ctx, q: sqlTx}, s: s, sqlTx: sqlTx, now: s.clock.Now()}
	err = func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("store: panic in an update: %v\n%s", p, debug.Stack())
			}
		}()
		return u.fn(t)
	}()
	end := "RELEASE u"
	if err != nil {
		end = "ROLLBACK TO u; RELEASE u"
	} else if err = t.err; err != nil {
		end = "ROLLBACK TO u; RELEASE u"
	}
	if _, endErr := sqlTx.ExecContext(ctx, end); endErr != nil && err == nil {
		err = fmt.Errorf("store: %w", classify(endErr))
	}
	u.events = t.events
	return err
}

func (s *sqliteStore) LastTime(ctx context.Context) (time.Time, error) {
	var at sql.NullInt64
	if err := s.read.QueryRowContext(ctx, "SELECT max(at) FROM (SELECT at FROM events ORDER BY seq DESC LIMIT 100)").Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("store: %w", err)
	}
	if !at.Valid {
		return time.Time{}, nil
	}
	return time.UnixMicro(at.Int64).UTC(), nil
}

func (s *sqliteStore) Reset(ctx context.Context) error {
	if s.tmp == "" {
		return errors.New("store: only an ephemeral store can be reset")
	}
	return s.Update(ctx, func(t Tx) error {
		_, err := t.(*tx).sqlTx.ExecContext(ctx, "DELETE FROM resources; DELETE FROM events; DELETE FROM counters")
		return err
	})
}

// classify turns SQLite's words into this package's errors.
func classify(err error) error {
	var coded interface{ Code() int }
	if errors.As(err, &coded) {
		switch coded.Code() & 0xff {
		case sqlite3.SQLITE_IOERR & 0xff:
			// The shared-memory file cannot grow, which only space prevents.
			if coded.Code() == sqlite3.SQLITE_IOERR_SHMSIZE {
				return fmt.Errorf("%w: %w", ErrFull, err)
			}
		case sqlite3.SQLITE_FULL:
			return fmt.Errorf("%w: %w", ErrFull, err)
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return fmt.Errorf("the file is not a Slipway database or is damaged: %w", err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "no space left") {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
