package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite"
)

// ErrNotFound means that no task has the id.
var ErrNotFound = errors.New("no such task")

// Store keeps tasks in SQLite or PostgreSQL. Several processes may use one
// database at once; every method is one statement, hence atomic, and may be
// called from several goroutines.
type Store struct {
	db     *sql.DB
	engine string // "sqlite" or "postgres"
	now    func() time.Time
}

// OpenStore opens the database that url names ("postgres://..."), or, when url
// is empty, the SQLite file todo.db in dir, and brings its schema up to date.
func OpenStore(ctx context.Context, dbURL, dir string) (*Store, error) {
	s := &Store{engine: "sqlite", now: time.Now}
	driver, dsn := "sqlite", ""
	switch {
	case dbURL == "":
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, fmt.Errorf("data directory: %w", err)
		}
		dsn = sqliteDSN(filepath.Join(dir, "todo.db"), onNetworkDisk(dir))
	case strings.HasPrefix(dbURL, "postgres://"), strings.HasPrefix(dbURL, "postgresql://"):
		s.engine, driver, dsn = "postgres", "pgx", dbURL
	default:
		// The URL may hold a password, so it is not repeated here.
		return nil, errors.New("DATABASE_URL must start with postgres:// or postgresql://")
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", s.engine, err)
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	db.SetConnMaxIdleTime(5 * time.Minute)
	s.db = db
	if err := s.migrate(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// sqliteDSN asks for what two processes on one file need: a write waits for the
// other's (busy_timeout), a transaction takes the write lock at its start
// (immediate), and an acknowledged write survives a power cut (FULL).
// WAL keeps readers and the writer out of each other's way, but needs memory
// shared between its users; on a network disk the rollback journal is used.
func sqliteDSN(path string, network bool) string {
	mode := "WAL"
	if network {
		mode = "DELETE"
	}
	q := url.Values{
		"_txlock": {"immediate"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(" + mode + ")", "synchronous(FULL)"},
	}
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// Engine is the kind of database, for people: "sqlite" or "postgres".
func (s *Store) Engine() string { return s.engine }

// Close ends all connections.
func (s *Store) Close() error { return s.db.Close() }

// q rewrites SQLite's ?1 into PostgreSQL's $1: the statements are the same otherwise.
func (s *Store) q(query string) string {
	if s.engine == "postgres" {
		return strings.ReplaceAll(query, "?", "$")
	}
	return query
}

// Check fails when the database cannot answer a question about tasks.
func (s *Store) Check(ctx context.Context) error {
	var n int
	err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT id FROM tasks LIMIT 1) AS t`).Scan(&n)
	if err != nil {
		return fmt.Errorf("database check: %w", err)
	}
	return nil
}

// Columns are always named: a newer version may have added some.
const columns = `id, title, done, created_at, updated_at`

type scanner interface{ Scan(dest ...any) error }

func scanTask(row scanner) (Task, error) {
	var t Task
	var created, updated int64
	if err := row.Scan(&t.ID, &t.Title, &t.Done, &created, &updated); err != nil {
		return Task{}, err
	}
	t.CreatedAt, t.UpdatedAt = time.UnixMilli(created).UTC(), time.UnixMilli(updated).UTC()
	return t, nil
}

func (s *Store) one(ctx context.Context, query string, args ...any) (Task, error) {
	t, err := scanTask(s.db.QueryRowContext(ctx, s.q(query), args...))
	if errors.Is(err, sql.ErrNoRows) {
		return Task{}, ErrNotFound
	}
	return t, err
}

// Create adds a task; the title must be clean (CleanTitle).
func (s *Store) Create(ctx context.Context, title string, done bool) (Task, error) {
	t, err := s.one(ctx, `INSERT INTO tasks (title, done, created_at, updated_at)
		VALUES (?1, ?2, ?3, ?3) RETURNING `+columns, title, done, s.now().UnixMilli())
	if err != nil {
		return Task{}, fmt.Errorf("create task: %w", err)
	}
	return t, nil
}

// Get returns one task, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id int64) (Task, error) {
	t, err := s.one(ctx, `SELECT `+columns+` FROM tasks WHERE id = ?1`, id)
	if err != nil {
		return Task{}, fmt.Errorf("get task %d: %w", id, err)
	}
	return t, nil
}

// Update sets what the change names in one atomic statement, so that two people
// who tick and rename one task at once both get their way. ErrNotFound if it is gone.
func (s *Store) Update(ctx context.Context, id int64, c Change) (Task, error) {
	t, err := s.one(ctx, `UPDATE tasks SET title = COALESCE(?2, title), done = COALESCE(?3, done),
		updated_at = ?4 WHERE id = ?1 RETURNING `+columns, id, c.Title, c.Done, s.now().UnixMilli())
	if err != nil {
		return Task{}, fmt.Errorf("update task %d: %w", id, err)
	}
	return t, nil
}

// Delete removes one task, or says ErrNotFound.
func (s *Store) Delete(ctx context.Context, id int64) error {
	res, err := s.db.ExecContext(ctx, s.q(`DELETE FROM tasks WHERE id = ?1`), id)
	if err != nil {
		return fmt.Errorf("delete task %d: %w", id, err)
	}
	if n, err := res.RowsAffected(); err == nil && n == 0 {
		return fmt.Errorf("delete task %d: %w", id, ErrNotFound)
	}
	return nil
}

// DeleteDone removes every done task and says how many there were.
func (s *Store) DeleteDone(ctx context.Context) (int64, error) {
	res, err := s.db.ExecContext(ctx, s.q(`DELETE FROM tasks WHERE done = ?1`), true)
	if err != nil {
		return 0, fmt.Errorf("delete done tasks: %w", err)
	}
	return res.RowsAffected()
}

// List returns at most limit tasks, newest first, below the id before (0 = from
// the newest); next is the value of before for the rest, 0 if there is none.
func (s *Store) List(ctx context.Context, f Filter, before int64, limit int) (tasks []Task, next int64, err error) {
	query, args := `SELECT `+columns+` FROM tasks WHERE (CAST(?1 AS BIGINT) = 0 OR id < CAST(?1 AS BIGINT))`, []any{before, limit + 1}
	if f != FilterAll {
		query += ` AND done = ?3`
		args = append(args, f == FilterDone)
	}
	rows, err := s.db.QueryContext(ctx, s.q(query+` ORDER BY id DESC LIMIT ?2`), args...)
	if err != nil {
		return nil, 0, fmt.Errorf("list tasks: %w", err)
	}
	defer rows.Close()
	tasks = []Task{}
	for rows.Next() {
		t, err := scanTask(rows)
		if err != nil {
			return nil, 0, fmt.Errorf("list tasks: %w", err)
		}
		tasks = append(tasks, t)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, fmt.Errorf("list tasks: %w", err)
	}
	if len(tasks) > limit {
		tasks = tasks[:limit]
		next = tasks[limit-1].ID
	}
	return tasks, next, nil
}

// Counts says how many tasks are open and done.
func (s *Store) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	err := s.db.QueryRowContext(ctx, `SELECT COALESCE(SUM(CASE WHEN done THEN 0 ELSE 1 END), 0),
		COALESCE(SUM(CASE WHEN done THEN 1 ELSE 0 END), 0) FROM tasks`).Scan(&c.Open, &c.Done)
	if err != nil {
		return Counts{}, fmt.Errorf("count tasks: %w", err)
	}
	return c, nil
}
