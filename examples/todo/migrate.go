package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// migrations are applied in order, once each. A rolling deployment runs the old
// and the new version on one database at the same time, and a rollback puts the
// old one back for good. So a migration only ever adds: tables, indexes, columns
// that may be null or have a default. Removing something takes two releases, one that
// stops using it and a later one that drops it. A version that finds migrations
// it does not know goes on working.
var migrations = []string{
	`CREATE TABLE IF NOT EXISTS tasks (
		id {{id}},
		title TEXT NOT NULL,
		done BOOLEAN NOT NULL,
		created_at BIGINT NOT NULL,
		updated_at BIGINT NOT NULL
	)`,
	`CREATE INDEX IF NOT EXISTS tasks_done ON tasks (done, id)`,
}

// advisoryLock keeps two PostgreSQL clients from migrating at once; the number
// only has to be the same in every version of this program.
const advisoryLock = 7020616

// migrate brings the schema up to date. Two instances may start at the same
// moment: the loser of the race for the lock waits and finds the work done.
func (s *Store) migrate(ctx context.Context) error {
	var err error
	// Setting up a new SQLite file in WAL mode may answer "locked" at once,
	// without the busy timeout, while another process does the same.
	for range 100 {
		if err = s.migrateOnce(ctx); err == nil || !isBusy(err) {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("migrate: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	if err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

func (s *Store) migrateOnce(ctx context.Context) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	id := "INTEGER PRIMARY KEY AUTOINCREMENT"
	if s.engine == "postgres" {
		id = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
		if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, advisoryLock); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS schema_migrations (
		version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)`); err != nil {
		return err
	}
	var have sql.NullInt64
	if err := tx.QueryRowContext(ctx, `SELECT MAX(version) FROM schema_migrations`).Scan(&have); err != nil {
		return err
	}
	for i, m := range migrations {
		version := int64(i + 1)
		if version <= have.Int64 {
			continue
		}
		if _, err := tx.ExecContext(ctx, strings.ReplaceAll(m, "{{id}}", id)); err != nil {
			return fmt.Errorf("version %d: %w", version, err)
		}
		if _, err := tx.ExecContext(ctx, s.q(`INSERT INTO schema_migrations VALUES (?1, ?2)`),
			version, s.now().UnixMilli()); err != nil {
			return fmt.Errorf("version %d: %w", version, err)
		}
	}
	return tx.Commit()
}

func isBusy(err error) bool {
	var coded interface{ Code() int }
	if !errors.As(err, &coded) {
		return false
	}
	const busy, locked = 5, 6 // primary result codes of SQLite
	c := coded.Code() & 0xff
	return c == busy || c == locked
}

// onNetworkDisk says whether the directory is on NFS (EFS is) or SMB, where
// SQLite's WAL mode does not work because there is no shared memory.
func onNetworkDisk(dir string) bool {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return false // opening the database will say what is wrong
	}
	switch uint32(st.Type) {
	case 0x6969, 0x517b, 0xff534d42, 0xfe534d42: // NFS, SMB, CIFS, SMB2
		return true
	}
	return false
}
