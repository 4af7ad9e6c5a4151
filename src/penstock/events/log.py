"""The embedded log: SQLite, durable before it answers, deduplicated by event id, old segments in Parquet."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.clock import Clock, SystemClock
from penstock.errors import DefinitionError, NotFoundError, UnavailableError
from penstock.events.archive import Archive, segments, sync_folder
from penstock.events.erasure import erasures
from penstock.events.layout import Layout, Layouts, joined
from penstock.events.rejection import DeadLetter, Rejection, storable
from penstock.events.strings import SqliteStrings
from penstock.events.tables import connect, create, guarded, lookup, snapshot, transaction
from penstock.types import Accepted, Appended, Code, Erasure, Micros, Progress, Rows, Schema

DEDUPE_LAST = 10_000_000
SEGMENT = 1 << 18
MOST_REJECTS = 100_000
_MOST_RAW = 4096


class SqliteLog:
    """The log of one home folder, in one SQLite file (WAL, ``synchronous=FULL``).

    An append has been fsynced when it returns. A full or failing disk raises `UnavailableError`: nothing of
    the batch is kept, and the log goes on. One thread appends at a time; any thread reads, and so does any
    process that opens the log with ``read_only``.

    Args:
        path: the database file; archived segments lie in a folder beside it.
        schemas: the streams of the app. A stream may gain optional fields at its end; nothing else changes.
        dedupe_last: a repeated id is noticed among this many newest events, across restarts too.
        segment: events in an archived file.
        clock: dates the dead letters.
        read_only: for a process that never appends; `refresh` shows it what others have.

    Raises:
        DefinitionError: a stream has changed otherwise.
        UnavailableError: the file cannot be opened.
    """

    def __init__(
        self,
        path: Path | str,
        schemas: Sequence[Schema] = (),
        *,
        dedupe_last: int = DEDUPE_LAST,
        segment: int = SEGMENT,
        clock: Clock | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self._dedupe_last = dedupe_last
        self._segment = segment
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._archive = Archive(self.path.with_name(f"{self.path.stem}-archive"))
        self._layouts = Layouts()
        self._strings = SqliteStrings(self.path, self._reader)
        self._end, self._newest = 0, 0
        self._erasures: tuple[Erasure, ...] = ()
        try:
            with guarded(self.path, "opened"):
                self._open(schemas, read_only)
        except BaseException:
            self.close()
            raise

    def _open(self, schemas: Sequence[Schema], read_only: bool) -> None:
        if read_only:
            if not self.path.exists():
                raise NotFoundError("the log exists", got=str(self.path), remedy="ingest some events first")
            self._layouts.load(self._reader())
        else:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = self._writer = connect(self.path, write=True)
            create(db)
            with transaction(db):
                db.execute("INSERT OR IGNORE INTO meta VALUES ('log', ?)", (uuid.uuid4().hex,))
                self._layouts.load(db)
                for schema in schemas:
                    self._layouts.declare(db, schema)
            sync_folder(self.path.parent)
        self._erasures = erasures(self._reader())
        self._id = str(self._reader().execute("SELECT value FROM meta WHERE name = 'log'").fetchone()[0])
        self.refresh()

    @property
    def id(self) -> str:
        """Names this log: codes and offsets mean something only beside it."""
        return self._id

    @property
    def strings(self) -> SqliteStrings:
        """The dictionary of interned strings."""
        return self._strings

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """Every stream that the log holds, by name."""
        return {stream: layout.schema for stream, layout in self._layouts.present.items()}

    @property
    def end(self) -> int:
        """The offset that the next event will get."""
        return self._end

    @property
    def erasures(self) -> tuple[Erasure, ...]:
        """What was taken out of it, oldest first; as it was when the log was opened."""
        return self._erasures

    @property
    def newest(self) -> Micros:
        """The newest effective time in the log, 0 while empty."""
        return self._newest

    # Writing

    def append(
        self,
        events: Sequence[Accepted],
        arrived: Micros | Sequence[Micros],
        *,
        notes: Mapping[str, str] | None = None,
        rejected: Sequence[Rejection] = (),
        source: str = "",
    ) -> Appended:
        """Appends what is new, in order, in one transaction that is on disk when this returns.

        Args:
            events: checked events.
            arrived: when they arrived, for all or for each.
            notes: texts by name, kept in the same transaction (how far a file has been read).
            rejected: dead letters of the same transaction, which came from `source`.
        """
        times = [arrived] * len(events) if isinstance(arrived, int) else list(arrived)
        hashes = [_hash(event.stream, event.id) for event in events]
        with self._lock, guarded(self.path, "appended to"):
            db = self._writing()
            with transaction(db):
                first, newest = self._state(db)
                new = self._claim(db, hashes, first)
                kept = [i for i, fresh in enumerate(new) if fresh]
                codes, reached = self._insert(db, first, events, times, hashes, kept)
                end, newest = first + len(kept), max(newest, reached)
                self._note(db, {"end": end, "newest": newest, **(notes or {})})
                self._bury(db, rejected, source)
            self._strings.keep(codes)
            self._end, self._newest = end, newest
        return Appended(new, first, end)

    def reject(self, rejections: Sequence[Rejection], source: str) -> None:
        """Keeps what was refused as dead letters; the newest 100,000 of them, raw text up to 4 KB."""
        with self._lock, guarded(self.path, "written to"):
            db = self._writing()
            with transaction(db):
                self._bury(db, rejections, source)

    def checkpoint(self) -> None:
        """Copies what stands in SQLite's write-ahead log into the database, on any thread, while appends go on.

        An append does that by itself once 16 MB have gathered, and takes some ten milliseconds longer then.
        """
        # On a connection of its own: that of appends is in use. Passive waits for nobody.
        with guarded(self.path, "checkpointed"), closing(connect(self.path, write=True)) as db:
            db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def archive(self, before_offset: int, progress: Progress | None = None) -> int:
        """Moves whole segments below an offset into Parquet files, still read as one log.

        The space is used again by new events; the file itself does not shrink. Returns how many events moved.
        """
        moved = 0
        with self._lock, guarded(self.path, "archived"):
            db = self._writing()
            start = db.execute("SELECT coalesce(max(stop), 0) FROM segments").fetchone()[0]
            stop = start + (min(before_offset, self._end) - start) // self._segment * self._segment
            for first in range(start, stop, self._segment):
                rows = self._live(db, first, first + self._segment)
                try:
                    segment = self._archive.write(first, rows)
                except pl.exceptions.PolarsError as error:
                    raise OSError(str(error)) from error
                with transaction(db):
                    db.execute("INSERT INTO segments VALUES (?, ?, ?)", (segment.first, segment.stop, segment.file))
                    db.execute("DELETE FROM events WHERE offset >= ? AND offset < ?", (segment.first, segment.stop))
                moved += len(rows)
                if progress is not None:
                    progress(moved, stop - start)
        return moved

    def _writing(self) -> sqlite3.Connection:
        if self._writer is None:
            raise UnavailableError(
                "the log is open for writing",
                got=f"{self.path}, read only or closed",
                remedy="open it without read_only",
            )
        return self._writer

    def _state(self, db: sqlite3.Connection) -> tuple[int, Micros]:
        held = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('end', 'newest')"))
        return held.get("end", 0), held.get("newest", 0)

    def _claim(self, db: sqlite3.Connection, hashes: Sequence[bytes], first: int) -> list[bool]:
        """Enters the ids that are new from offset `first` on, and says which those are."""
        db.execute("DELETE FROM ids WHERE offset < ?", (first - self._dedupe_last,))
        before = db.total_changes
        insert = "INSERT OR IGNORE INTO ids VALUES (?, ?)"
        db.executemany(insert, zip(hashes, range(first, first + len(hashes)), strict=True))
        if db.total_changes - before == len(hashes):
            return [True] * len(hashes)
        # Some are known: their places must not leave gaps in the offsets, so all is entered anew.
        db.execute("DELETE FROM ids WHERE offset >= ?", (first,))
        seen = {row[0] for row in lookup(db, "SELECT hash FROM ids WHERE hash IN (?)", hashes)}
        new = []
        for key in hashes:
            new.append(key not in seen)
            seen.add(key)
        fresh = [key for key, is_new in zip(hashes, new, strict=True) if is_new]
        db.executemany(insert, zip(fresh, range(first, first + len(fresh)), strict=True))
        return new

    def _insert(
        self,
        db: sqlite3.Connection,
        first: int,
        events: Sequence[Accepted],
        arrived: Sequence[Micros],
        hashes: Sequence[bytes],
        kept: Sequence[int],
    ) -> tuple[dict[str | None, Code], Micros]:
        """Writes the events at places `kept`; gives the codes of their strings and their newest time."""
        by_stream: dict[str, list[int]] = {}
        for at, i in enumerate(kept):
            by_stream.setdefault(events[i].stream, []).append(at)
        codes: dict[str | None, Code] = {}
        rows: list[Any] = [None] * len(kept)
        newest = 0
        for stream, places in by_stream.items():
            layout = self._layout(stream)
            chosen = [kept[at] for at in places]
            columns = list(zip(*(events[i].values for i in chosen), strict=True))
            texts = [column for f, column in zip(layout.schema.fields, columns, strict=True) if f.kind == "text"]
            codes.update(self._strings.intern(db, chain.from_iterable(texts)))
            times, at_ = [events[i].time for i in chosen], [arrived[i] for i in chosen]
            newest = max(newest, max(map(min, times, at_)))
            bodies = layout.pack(columns, times, at_, _ties([hashes[i] for i in chosen]), codes)
            for at, body in zip(places, bodies, strict=True):
                rows[at] = (first + at, layout.number, body)
        db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        return codes, newest

    def _layout(self, stream: str) -> Layout:
        held = self._layouts.present.get(stream)
        if held is None:
            known = ", ".join(self._layouts.present) or "none"
            raise DefinitionError("a stream is declared when the log opens", got=stream, remedy=f"known: {known}")
        return held

    def _note(self, db: sqlite3.Connection, notes: Mapping[str, Any]) -> None:
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", notes.items())

    def _bury(self, db: sqlite3.Connection, rejections: Sequence[Rejection], source: str) -> None:
        if not rejections:
            return
        now = self._clock.now()
        rows = [
            (now, source, r.index, *map(storable, (r.field, r.rule, r.got, r.remedy, r.raw[:_MOST_RAW])))
            for r in rejections[-MOST_REJECTS:]
        ]
        columns = "(time, source, idx, field, rule, got, remedy, raw)"
        db.executemany(f"INSERT INTO rejects {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("DELETE FROM rejects WHERE number <= (SELECT max(number) FROM rejects) - ?", (MOST_REJECTS,))

    # Reading

    def read(self, start: int, stop: int) -> dict[str, Rows]:
        """The events with start ≤ offset < stop, by stream."""
        with guarded(self.path, "read"):
            db = self._reader()
            with snapshot(db):
                old = segments(db, start, stop)
                first = max(start, 0, old[-1].stop if old else 0)
                live = self._live(db, first, stop)
            parts = [self._archive.read(segment, start, stop) for segment in old]
            if live:
                parts.append((first, [row[0] for row in live], [row[1] for row in live]))
            by_stream: dict[str, list[Rows]] = {}
            for part in parts:
                for rows in self._layouts.rows(db, *part):
                    by_stream.setdefault(rows.stream, []).append(rows)
        return {stream: joined(rows) for stream, rows in by_stream.items()}

    def note(self, name: str) -> str | None:
        """What `append` kept under `name`."""
        with guarded(self.path, "read"):
            row = self._reader().execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def rejects(self, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, newest first."""
        query = "SELECT time, source, idx, field, rule, got, remedy, raw FROM rejects ORDER BY number DESC LIMIT ?"
        with guarded(self.path, "read"):
            rows = self._reader().execute(query, (limit,)).fetchall()
        return [DeadLetter(time, source, Rejection(*rest)) for time, source, *rest in rows]

    def refresh(self) -> int:
        """Looks where the log ends now, as another process may have appended; gives that offset."""
        with self._lock, guarded(self.path, "read"):
            self._end, self._newest = self._state(self._reader())
        return self._end

    def close(self) -> None:
        """Closes every connection; what was appended is on disk already."""
        with self._lock:
            for db in [*self._readers, *([self._writer] if self._writer else [])]:
                db.close()
            self._readers, self._writer, self._local = [], None, threading.local()

    def _live(self, db: sqlite3.Connection, first: int, stop: int) -> list[tuple[int, bytes]]:
        query = "SELECT layout, body FROM events WHERE offset >= ? AND offset < ? ORDER BY offset"
        return db.execute(query, (first, stop)).fetchall()

    def _reader(self) -> sqlite3.Connection:
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is None:
            found = self._local.db = connect(self.path, write=False)
            self._readers.append(found)
        return found


def ties(stream: str, ids: Iterable[str]) -> NDArray[np.uint64]:
    """The ties (n,) of the events of a stream that have these ids.

    >>> int(ties("payment", ["p1"])[0]) == int(ties("refund", ["p1"])[0])
    False
    """
    return _ties([_hash(stream, id) for id in ids])


def _hash(stream: str, id: str) -> bytes:
    return hashlib.blake2b(f"{stream}\0{id}".encode(), digest_size=16).digest()


def _ties(hashes: Sequence[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(hashes), "<u8")[::2]
