"""The log's SQLite file: its tables, connections, and the one way in which its failures are told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.errors import UnavailableError

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schemas (number INTEGER PRIMARY KEY, stream TEXT NOT NULL, fields TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (offset INTEGER PRIMARY KEY, layout INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ids (hash BLOB PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ids_offset ON ids (offset);
CREATE TABLE IF NOT EXISTS strings (code INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS segments (first INTEGER PRIMARY KEY, stop INTEGER NOT NULL, file TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rejects (number INTEGER PRIMARY KEY, time INTEGER NOT NULL, source TEXT NOT NULL,
  idx INTEGER NOT NULL, field TEXT NOT NULL, rule TEXT NOT NULL, got TEXT NOT NULL, remedy TEXT NOT NULL,
  raw TEXT NOT NULL);
"""
FORMAT = 1
_MANY = 500  # parameters in one statement: SQLite's lowest limit is 999


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """One connection, in WAL mode; a writing one waits for the disk at every commit."""
    db = sqlite3.connect(path, isolation_level=None, timeout=30, check_same_thread=False)
    try:
        db.execute("PRAGMA cache_size=-32768")
        if write:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA wal_autocheckpoint=4000")
        else:
            db.execute("PRAGMA query_only=1")
    except sqlite3.Error:
        db.close()
        raise
    return db


def create(db: sqlite3.Connection) -> None:
    """Makes the tables of a new log; refuses a file of another format."""
    held = db.execute("PRAGMA user_version").fetchone()[0]
    if held != FORMAT and db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise UnavailableError(
            f"the log has format {FORMAT}", got=f"format {held}", remedy="name another home, or ingest into a new one"
        )
    db.executescript(TABLES)
    db.execute(f"PRAGMA user_version={FORMAT}")


@contextmanager
def guarded(path: Path, doing: str) -> Iterator[None]:
    """Turns what SQLite and the disk report into an UnavailableError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            f"the log can be {doing}",
            got=f"{path}: {error}",
            remedy="free disk space or mend the folder's permissions, then send again; what was answered is safe",
        ) from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; durable when the block has ended."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        # SQLite has rolled back by itself after some failures, a full disk among them.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(db: sqlite3.Connection) -> Iterator[None]:
    """Several reads of one state of the file."""
    db.execute("BEGIN")
    try:
        yield
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def lookup(db: sqlite3.Connection, query: str, keys: Sequence[Any]) -> Iterator[Any]:
    """The rows of a query that holds ``IN (?)``, for any number of keys."""
    for start in range(0, len(keys), _MANY):
        part = keys[start : start + _MANY]
        yield from db.execute(query.replace("(?)", f"({','.join('?' * len(part))})"), part)
