"""The embedded log: SQLite, durable before it answers, deduplicated by event id, old segments in Parquet."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from penstock.errors import DefinitionError, UnavailableError
from penstock.events.strings import SqliteStrings
from penstock.types import MISSING_INT, Accepted, Appended, Array, Field, Micros, Rows, Schema

DEDUPE_LAST = 10_000_000
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS schemas (stream INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, fields TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (
  offset INTEGER PRIMARY KEY, stream INTEGER NOT NULL, time INTEGER NOT NULL, raw_time INTEGER NOT NULL,
  arrived INTEGER NOT NULL, tie BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS ids (hash BLOB PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS strings (code INTEGER PRIMARY KEY, text TEXT UNIQUE NOT NULL);
CREATE TABLE IF NOT EXISTS segments (first INTEGER PRIMARY KEY, end INTEGER NOT NULL, file TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rejects (
  n INTEGER PRIMARY KEY, at INTEGER NOT NULL, source TEXT NOT NULL, idx INTEGER NOT NULL, field TEXT NOT NULL,
  rule TEXT NOT NULL, got TEXT NOT NULL, remedy TEXT NOT NULL, raw BLOB NOT NULL);
"""
_MISSING: Mapping[str, Any] = {
    "text": 0,
    "int": MISSING_INT,
    "money": MISSING_INT,
    "float": np.nan,
    "bool": MISSING_INT,
}
_HASH = 12
_MOST_REJECTS = 100_000


class SqliteLog:
    """The log of one home folder, in one SQLite file (WAL, ``synchronous=FULL``).

    An append returns once its transaction is on disk. A full disk or a failing one raises
    `UnavailableError`, with nothing half done. One thread appends; any thread reads.

    Args:
        path: the database file; archived segments lie in a folder beside it.
        schemas: the streams of the app. A stream may gain optional fields at its end, nothing else changes.
        dedupe_last: a repeated id is noticed among so many newest events, across restarts too.
    """

    def __init__(self, path: Path | str, schemas: Sequence[Schema] = (), *, dedupe_last: int = DEDUPE_LAST) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._dedupe_last = dedupe_last
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        with self._guard("opened"):
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR IGNORE INTO meta VALUES ('log', ?)", (uuid.uuid4().hex,))
        self.id: str = self._meta("log") or ""
        self.strings = SqliteStrings(lambda: self._db)
        self._streams: dict[str, int] = {}
        self._schemas: dict[int, Schema] = {}
        for schema in schemas:
            self._declare(schema)
        for number, name, fields in self._db.execute("SELECT stream, name, fields FROM schemas"):
            self._streams[name] = number
            self._schemas.setdefault(number, Schema(name, tuple(Field(*f) for f in json.loads(fields))))
        held = self._db.execute("SELECT max(offset) FROM events").fetchone()[0]
        archived = self._db.execute("SELECT max(end) FROM segments").fetchone()[0]
        self.end: int = max(-1 if held is None else held, (archived or 0) - 1) + 1
        self.newest: Micros = int(self._meta("newest") or 0)

    @property
    def schemas(self) -> dict[str, Schema]:
        """Every stream that the log holds, by name."""
        return {schema.stream: schema for schema in self._schemas.values()}

    def append(
        self,
        events: Sequence[Accepted],
        arrived: Micros | Sequence[Micros],
        *,
        note: tuple[str, str] | None = None,
    ) -> Appended:
        """Appends what is new, in order, in one transaction that is on disk when this returns.

        Args:
            events: checked events.
            arrived: when they arrived, for all or for each.
            note: a (name, value) kept in the same transaction, such as how far a file has been read.
        """
        times = [arrived] * len(events) if isinstance(arrived, int) else list(arrived)
        hashes = [hashlib.blake2b(event.id.encode(), digest_size=_HASH).digest() for event in events]
        first = self.end
        with self._guard("appended to"), self._transaction() as db:
            new = self._new(db, hashes)
            kept = [i for i, fresh in enumerate(new) if fresh]
            bodies = self._bodies([events[i] for i in kept])
            rows, newest = [], self.newest
            for offset, (i, body) in enumerate(zip(kept, bodies, strict=True), first):
                event, at = events[i], times[i]
                time = min(event.time, at)
                newest = max(newest, time)
                stream = self._streams[event.stream]
                rows.append((offset, stream, time, event.time, at, hashes[i][:8], body))
            self.strings.write_new(db)
            db.executemany("INSERT INTO events VALUES (?,?,?,?,?,?,?)", rows)
            db.executemany(
                "INSERT OR REPLACE INTO ids VALUES (?,?)", [(hashes[i], first + n) for n, i in enumerate(kept)]
            )
            end = first + len(kept)
            db.execute("INSERT OR REPLACE INTO meta VALUES ('newest', ?)", (str(newest),))
            if note is not None:
                db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", note)
            if end // 10_000 > first // 10_000:
                db.execute("DELETE FROM ids WHERE offset < ?", (end - self._dedupe_last,))
        self.end, self.newest = end, newest
        return Appended(new, first, end)

    def read(self, start: int, stop: int) -> dict[str, Rows]:
        """The events with start ≤ offset < stop, by stream."""
        parts = [self._archived(path, start, stop) for path in self._segments(start, stop)]
        query = "SELECT offset, stream, time, raw_time, arrived, tie, body FROM events WHERE offset >= ? AND offset < ?"
        live = self._db.execute(query + " ORDER BY offset", (start, stop)).fetchall()
        by_stream: dict[int, list[tuple[Any, ...]]] = {}
        for row in live:
            by_stream.setdefault(row[1], []).append(row)
        parts.append({number: self._rows(number, rows) for number, rows in by_stream.items()})
        out: dict[str, Rows] = {}
        for number, schema in self._schemas.items():
            mine = [part[number] for part in parts if number in part]
            if mine:
                out[schema.stream] = mine[0] if len(mine) == 1 else _joined(mine)
        return out

    def note(self, name: str) -> str | None:
        """What `append` kept under `name`."""
        return self._meta(name)

    def archive(self, before: int) -> int:
        """Moves the events below an offset to a Parquet segment, still read as one log; returns how many."""
        row = self._db.execute("SELECT min(offset) FROM events").fetchone()
        first = row[0]
        before = min(before, self.end)
        if first is None or first >= before:
            return 0
        query = "SELECT offset, stream, time, raw_time, arrived, tie, body FROM events WHERE offset < ? ORDER BY offset"
        names = ("offset", "stream", "time", "raw_time", "arrived", "tie", "body")
        columns = list(zip(*self._db.execute(query, (before,)), strict=True))
        folder = self.path.with_suffix(".segments")
        folder.mkdir(exist_ok=True)
        file = folder / f"{first:015d}.parquet"
        part = file.with_suffix(".part")
        with self._guard("archived"):
            types_ = {"tie": pl.Binary, "body": pl.Binary}
            frame = pl.DataFrame(
                {n: pl.Series(n, list(c), types_.get(n, pl.Int64)) for n, c in zip(names, columns, strict=True)}
            )
            frame.write_parquet(part)
            with part.open("rb") as handle:
                os.fsync(handle.fileno())
            part.rename(file)
            directory = os.open(folder, os.O_RDONLY)
            os.fsync(directory)
            os.close(directory)
            with self._transaction() as db:
                db.execute("INSERT OR REPLACE INTO segments VALUES (?,?,?)", (first, before, file.name))
                db.execute("DELETE FROM events WHERE offset < ?", (before,))
        return len(frame)

    def reject(self, rejections: Sequence[Rejected], source: str, at: Micros = 0) -> None:
        """Keeps what was refused as dead letters; the newest 100,000 of them."""
        rows = [(at, source, r.index, r.field, r.rule, r.got, r.remedy, r.raw[:4096]) for r in rejections]
        with self._guard("written"), self._transaction() as db:
            columns = "(at, source, idx, field, rule, got, remedy, raw)"
            db.executemany(f"INSERT INTO rejects {columns} VALUES (?,?,?,?,?,?,?,?)", rows)
            db.execute("DELETE FROM rejects WHERE n <= (SELECT max(n) FROM rejects) - ?", (_MOST_REJECTS,))

    def rejects(self, most: int = 100) -> list[dict[str, Any]]:
        """The newest dead letters, newest first."""
        names = ("n", "at", "source", "index", "field", "rule", "got", "remedy", "raw")
        query = "SELECT n, at, source, idx, field, rule, got, remedy, raw FROM rejects ORDER BY n DESC LIMIT ?"
        rows = self._db.execute(query, (most,))
        return [dict(zip(names, (*row[:-1], row[-1].decode("utf-8", "replace")), strict=True)) for row in rows]

    def close(self) -> None:
        for db in self._connections:
            db.close()

    # Connections

    @property
    def _db(self) -> sqlite3.Connection:
        if not hasattr(self._local, "db"):
            db = sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            self._local.db = db
            self._connections.append(db)
        found: sqlite3.Connection = self._local.db
        return found

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self.strings.forget_new()
            raise
        self.strings.keep_new()

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise UnavailableError(
                f"the log can be {what}",
                got=f"{self.path}: {error}",
                remedy="free some disk or mend its permissions, then send again; nothing acknowledged is lost",
            ) from error

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    # Writing

    def _declare(self, schema: Schema) -> None:
        fields = [[f.name, f.kind, f.optional] for f in schema.fields]
        with self._guard("opened"), self._transaction() as db:
            row = db.execute("SELECT stream, fields FROM schemas WHERE name = ?", (schema.stream,)).fetchone()
            if row is None:
                db.execute("INSERT INTO schemas (name, fields) VALUES (?, ?)", (schema.stream, json.dumps(fields)))
                row = db.execute("SELECT stream, fields FROM schemas WHERE name = ?", (schema.stream,)).fetchone()
            held = json.loads(row[1])
            grown = fields[: len(held)] == held and all(optional for _, _, optional in fields[len(held) :])
            if not grown:
                changed = next((a[0] for a, b in zip(held, fields, strict=False) if a != b), None)
                raise DefinitionError(
                    f"stream {schema.stream} may gain optional fields at its end, and keeps those it has",
                    got=f"a change at {changed!r}" if changed else "a missing or a new required field",
                    remedy="undo it, or name the changed event type anew",
                )
            db.execute("UPDATE schemas SET fields = ? WHERE stream = ?", (json.dumps(fields), row[0]))
        self._schemas[row[0]] = schema

    def _new(self, db: sqlite3.Connection, hashes: Sequence[bytes]) -> list[bool]:
        """Which ids have not been seen within the horizon, nor earlier in this batch."""
        horizon = self.end - self._dedupe_last
        known: set[bytes] = set()
        for at in range(0, len(hashes), 500):
            part = hashes[at : at + 500]
            marks = ",".join("?" * len(part))
            known.update(
                row[0]
                for row in db.execute(f"SELECT hash FROM ids WHERE hash IN ({marks}) AND offset >= ?", (*part, horizon))
            )
        new = []
        for key in hashes:
            new.append(key not in known)
            known.add(key)
        return new

    def _bodies(self, events: Sequence[Accepted]) -> list[bytes]:
        by_stream: dict[str, list[int]] = {}
        for i, event in enumerate(events):
            by_stream.setdefault(event.stream, []).append(i)
        bodies: list[bytes] = [b""] * len(events)
        for stream, at in by_stream.items():
            schema = self._schemas[self._streams[stream]]
            table = np.empty(len(at), schema.dtype)
            for place, field in enumerate(schema.fields):
                column = [events[i].values[place] for i in at]
                if field.kind == "text":
                    table[field.name] = self.strings.intern(column)
                else:
                    missing = _MISSING[field.kind]
                    table[field.name] = [missing if value is None else value for value in column]
            data, size = table.tobytes(), schema.dtype.itemsize
            for n, i in enumerate(at):
                bodies[i] = data[n * size : (n + 1) * size]
        return bodies

    # Reading

    def _rows(self, number: int, rows: Sequence[Sequence[Any]]) -> Rows:
        offset, _, time, raw_time, arrived, tie, body = zip(*rows, strict=True)
        return Rows(
            self._schemas[number].stream,
            np.array(offset, np.int64),
            np.array(time, np.int64),
            np.array(raw_time, np.int64),
            np.array(arrived, np.int64),
            np.frombuffer(b"".join(tie), "<u8"),
            self._table(number, body),
        )

    def _table(self, number: int, bodies: Sequence[bytes]) -> Array:
        schema = self._schemas[number]
        size = schema.dtype.itemsize
        if len(set(map(len, bodies))) <= 1 and len(bodies[0]) == size:
            return np.frombuffer(b"".join(bodies), schema.dtype)
        # Records from before the stream gained fields are filled up with missing values.
        blank = np.array([tuple(_MISSING[f.kind] for f in schema.fields)], schema.dtype).tobytes()
        return np.frombuffer(b"".join([body + blank[len(body) :] for body in bodies]), schema.dtype)

    def _segments(self, start: int, stop: int) -> list[Path]:
        query = "SELECT file FROM segments WHERE end > ? AND first < ? ORDER BY first"
        folder = self.path.with_suffix(".segments")
        return [folder / row[0] for row in self._db.execute(query, (start, stop))]

    def _archived(self, path: Path, start: int, stop: int) -> dict[int, Rows]:
        frame = pl.read_parquet(path).filter((pl.col("offset") >= start) & (pl.col("offset") < stop))
        return {
            int(number): self._rows(int(number), part.rows())
            for (number,), part in frame.partition_by("stream", as_dict=True).items()
        }


@dataclass(frozen=True)
class Rejected:
    """One event that was refused: where it stood, the offending field, the rule, what came, the remedy."""

    index: int
    field: str
    rule: str
    got: str
    remedy: str
    raw: bytes

    @property
    def error(self) -> str:
        """One line: the rule, what came, the remedy."""
        return "; ".join(filter(None, [self.rule, self.got and f"got {self.got}", self.remedy]))


def _joined(parts: Sequence[Rows]) -> Rows:
    columns = ("offset", "time", "raw_time", "arrived", "tie", "fields")
    return Rows(parts[0].stream, *(np.concatenate([getattr(part, name) for part in parts]) for name in columns))
