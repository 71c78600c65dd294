"""Tasks in SQLite (the standard library's) or PostgreSQL (where psycopg is installed).

Several processes may use one database at once. The schema is that of the Go
example: both can work on the same file.
"""

import os
import sqlite3
import time
from contextlib import contextmanager

COLUMNS = "id, title, done, created_at, updated_at"

# Only ever add: during a rolling deployment, and after a rollback, an older version
# works on the newer schema.
MIGRATIONS = [
    """CREATE TABLE IF NOT EXISTS tasks (
        id {id}, title TEXT NOT NULL, done BOOLEAN NOT NULL,
        created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL)""",
    "CREATE INDEX IF NOT EXISTS tasks_done ON tasks (done, id)",
]
ADVISORY_LOCK = 7020616


class NotFound(Exception):
    """No task has the id."""


class Store:
    """All methods are one statement, hence atomic, and may be called from several threads."""

    def __init__(self, directory, url=""):
        self.engine = "sqlite"
        if url.startswith(("postgres://", "postgresql://")):
            import psycopg  # only who uses PostgreSQL needs it

            self.engine = "postgres"
            self._open = lambda: psycopg.connect(url, autocommit=True)
        elif url:
            # It may hold a password, so it is not repeated here.
            raise ValueError("DATABASE_URL must start with postgres:// or postgresql://")
        else:
            os.makedirs(directory, mode=0o750, exist_ok=True)
            path = os.path.join(directory, "todo.db")
            self._open = lambda: self._sqlite(path)
        self._migrate()

    @staticmethod
    def _sqlite(path):
        # A write waits up to 5 s for another process's; what is acknowledged is on the disk.
        db = sqlite3.connect(path, timeout=5, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        return db

    @contextmanager
    def _connection(self):
        db = self._open()
        try:
            yield db
        finally:
            db.close()

    def _query(self, query):
        return query.replace("?", "%s") if self.engine == "postgres" else query

    def _migrate(self):
        deadline = time.monotonic() + 10
        while True:
            try:
                return self._migrate_once()
            except sqlite3.OperationalError as e:
                # Making a new file a WAL file may fail at once while another process does it.
                if "locked" not in str(e) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _migrate_once(self):
        with self._connection() as db:
            kind = "INTEGER PRIMARY KEY AUTOINCREMENT"
            if self.engine == "postgres":
                kind = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
                db.execute("BEGIN")
                db.execute("SELECT pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))
            else:
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("BEGIN IMMEDIATE")
            db.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY, applied_at BIGINT NOT NULL)")
            have = db.execute("SELECT MAX(version) FROM schema_migrations").fetchone()[0] or 0
            for version, statement in enumerate(MIGRATIONS, start=1):
                if version > have:
                    db.execute(statement.format(id=kind))
                    db.execute(self._query("INSERT INTO schema_migrations VALUES (?, ?)"), (version, now()))
            db.execute("COMMIT")

    def _one(self, query, *args):
        with self._connection() as db:
            row = db.execute(self._query(query), args).fetchone()
        if row is None:
            raise NotFound
        return task(row)

    def check(self):
        """Raises when the database cannot answer a question about tasks."""
        with self._connection() as db:
            db.execute("SELECT id FROM tasks LIMIT 1").fetchone()

    def create(self, title, done=False):
        at = now()
        return self._one(f"INSERT INTO tasks (title, done, created_at, updated_at) VALUES (?, ?, ?, ?) RETURNING {COLUMNS}",
                         title, done, at, at)

    def get(self, id):
        return self._one(f"SELECT {COLUMNS} FROM tasks WHERE id = ?", id)

    def update(self, id, title=None, done=None):
        """Sets what is given; who renames and who ticks at the same moment both get their way."""
        sets, args = ["updated_at = ?"], [now()]
        for column, value in (("title", title), ("done", done)):
            if value is not None:
                sets.append(f"{column} = ?")
                args.append(value)
        return self._one(f"UPDATE tasks SET {', '.join(sets)} WHERE id = ? RETURNING {COLUMNS}", *args, id)

    def delete(self, id):
        self._one(f"DELETE FROM tasks WHERE id = ? RETURNING {COLUMNS}", id)

    def delete_done(self):
        with self._connection() as db:
            db.execute(self._query("DELETE FROM tasks WHERE done = ?"), (True,))

    def list(self, status="all", before=0, limit=100):
        """At most limit tasks, newest first, below the id before; and the "before" of the rest, or 0."""
        where, args = ["id < ?"], [before or 1 << 62]
        if status != "all":
            where.append("done = ?")
            args.append(status == "done")
        with self._connection() as db:
            rows = db.execute(self._query(f"SELECT {COLUMNS} FROM tasks WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"),
                              (*args, limit + 1)).fetchall()
        tasks = [task(r) for r in rows[:limit]]
        return tasks, tasks[-1]["id"] if len(rows) > limit else 0

    def counts(self):
        with self._connection() as db:
            n = dict(db.execute("SELECT done, COUNT(*) FROM tasks GROUP BY done").fetchall())
        return {"open": n.get(False, 0), "done": n.get(True, 0)}


def now():
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def task(row):
    return {"id": row[0], "title": row[1], "done": bool(row[2]), "created_at": moment(row[3]), "updated_at": moment(row[4])}


def moment(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1000)) + f".{ms % 1000:03d}Z"
