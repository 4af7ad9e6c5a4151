"""The decision log: what was decided, from which offset, with digests of the features it saw."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.errors import UnavailableError
from penstock.events import ties
from penstock.learn import Acted, Asks, Impressions, Recipe
from penstock.serve.batches import PAUSE, Batches
from penstock.serve.faults import FAULTS
from penstock.types import Micros, Strings

_COLUMNS = (
    "id TEXT PRIMARY KEY",
    "decision TEXT NOT NULL",
    "release TEXT",
    "tier TEXT NOT NULL",
    "arm TEXT NOT NULL",
    "entity TEXT NOT NULL",
    "time INTEGER NOT NULL",
    "offset INTEGER NOT NULL",
    "context TEXT NOT NULL",
    "items BLOB NOT NULL",
    "found_by BLOB NOT NULL",
    "shown BLOB NOT NULL",
    "scores BLOB NOT NULL",
    "propensities BLOB NOT NULL",
    "digests BLOB NOT NULL",
    "timings TEXT NOT NULL",
    "verdict TEXT",
)
_NAMES = tuple(column.split()[0] for column in _COLUMNS)
_EVENT, _ACTION = "json_extract(verdict, '$.event')", "json_extract(verdict, '$.action')"
_INDEXES = (
    "by_time ON decisions (time)",
    # Of expressions, so that a log of an earlier version has them without being rewritten.
    f"by_event ON decisions (decision, {_EVENT}) WHERE verdict IS NOT NULL",
    f"reviews ON decisions (decision, time) WHERE {_ACTION} = 'review'",
)
DIGEST = 8
DECISIONS = "decisions.sqlite"
"""The decision log's file in a home folder."""
_MOST_WAITING = 10_000
_log = logging.getLogger("penstock.serve")


@dataclass(frozen=True)
class Decided:
    """One logged decision.

    Attributes:
        time: its moment, microseconds; `offset`: only events below it were known.
        items: (n,) uint32 codes of all candidates; `found_by` (n,) uint32, a bit a source.
        shown: (k,) positions in `items`, in the order of the answer; `scores` and `propensities` (k,) theirs.
        digests: 8 bytes a feature column, over the candidates in order; empty where no features were read.
        rows: the features themselves, (n, features) float64, where their digests are yet to be made.
        verdict: of a decision on one event: its id, the action, the rule, the saving and price of a review, and the
            reasons; `context` then holds the event's fields.
    """

    id: str
    decision: str
    release: str | None
    tier: str
    arm: str
    entity: str
    time: Micros
    offset: int
    context: dict[str, Any]
    items: NDArray[np.uint32]
    found_by: NDArray[np.uint32]
    shown: NDArray[np.uint32]
    scores: NDArray[np.float32]
    propensities: NDArray[np.float32]
    digests: bytes = b""
    timings: dict[str, float] = field(default_factory=dict)
    rows: NDArray[np.float64] | None = None
    verdict: dict[str, Any] | None = None

    def row(self) -> tuple[Any, ...]:
        """As SQLite keeps it."""
        blobs = (self.items, self.found_by, self.shown, self.scores, self.propensities)
        texts = (self.id, self.decision, self.release, self.tier, self.arm, self.entity)
        numbers = (self.time, self.offset, json.dumps(self.context) if self.context else "{}")
        return (
            *texts,
            *numbers,
            *(blob.tobytes() for blob in blobs),
            self.digests if self.rows is None else digests(self.rows),
            msgspec.json.encode(self.timings).decode(),
            None if self.verdict is None else msgspec.json.encode(self.verdict).decode(),
        )

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> Decided:
        values = dict(zip(_NAMES, row, strict=True))
        for name in ("items", "found_by", "shown"):
            values[name] = np.frombuffer(values[name], "<u4")
        for name in ("scores", "propensities"):
            values[name] = np.frombuffer(values[name], "<f4")
        for name in ("context", "timings"):
            values[name] = json.loads(values[name])
        values["verdict"] = None if values["verdict"] is None else json.loads(values["verdict"])
        return cls(**values)


@dataclass(frozen=True)
class Brief:
    """One logged decision in a list: `items` says how many it showed, `timings` milliseconds by stage."""

    id: str
    decision: str
    release: str | None
    tier: str
    entity: str
    time: Micros
    items: int
    timings: dict[str, float]


def impressions(decided: Sequence[Decided], recipe: Recipe, strings: Strings) -> Impressions:
    """What logged decisions showed, for learning from it.

    Answers of fallback tiers are passed over: nobody knows which events they could have seen.
    """
    read = sorted((d for d in decided if d.digests), key=lambda d: (d.offset, d.time))
    context = {
        name: np.array([strings.code(str(d.context.get(name) or "")) for d in read], np.uint32)
        for name in recipe.context
    }
    texts = {name: np.array([str(d.context.get(name) or "") for d in read], object) for name in recipe.asks}
    asks = Asks(
        np.array([strings.code(d.entity) for d in read], np.uint32),
        np.array([d.time for d in read], np.int64),
        np.array([d.offset for d in read], np.int64),
        context,
        texts,
    )
    owner = np.repeat(np.arange(len(read)), [len(d.shown) for d in read])
    return Impressions(asks, owner, np.concatenate([np.zeros(0, np.uint32), *(d.items[d.shown] for d in read)]))


def acted(decided: Sequence[Decided], stream: str) -> Acted:
    """What logged verdicts did with events of a stream, and from what, for learning from it."""
    done = [(one, one.verdict) for one in decided if one.verdict is not None]
    if not done:
        return Acted.nothing()
    return Acted(
        ties(stream, [verdict["event"] for _, verdict in done]),
        np.array([verdict["action"] == "decline" for _, verdict in done]),
        np.array([one.propensities[0] for one, _ in done], np.float64),
        np.array([one.time for one, _ in done], np.int64),
        # Nobody knows which events those could have seen that read no features.
        np.array([one.offset if one.digests else -1 for one, _ in done], np.int64),
    )


def logged(
    path: Path, decision: str | None = None, *, id: str | None = None, audited: bool = True, since: Micros = 0
) -> list[Decided]:
    """The decisions that a home folder's decision log holds, or the one of an id.

    Args:
        audited: only those with features; an id's is there with or without.
        since: only those from a time on.

    Returns:
        None where there is no log yet.
    """
    if not path.exists():
        return []
    log = DecisionLog(path)
    try:
        if id is None:
            return log.read(decision, audited=audited, since=since)
        found = log.find(id)
        return [] if found is None else [found]
    finally:
        log.close()


def naming(path: Path, value: str, keyed_otherwise: Collection[str] = ()) -> list[str]:
    """Ids of the logged decisions that were made for the entity `value`, or name it in their context.

    Args:
        keyed_otherwise: decisions whose entities are of another kind.
    """
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
        held = db.execute(
            "SELECT id, decision, entity, context FROM decisions WHERE entity = ? OR instr(context, ?)",
            (value, json.dumps(value)),
        ).fetchall()
    return [
        id
        for id, decision, entity, context in held
        if (entity == value and decision not in keyed_otherwise) or value in json.loads(context).values()
    ]


def drop(path: Path, ids: Sequence[str]) -> None:
    """Deletes logged decisions; no server may be running."""
    if ids:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as db:
            db.execute("PRAGMA secure_delete=ON")
            db.execute("BEGIN IMMEDIATE")
            db.executemany("DELETE FROM decisions WHERE id = ?", ((id,) for id in ids))
            db.execute("COMMIT")


def new_id() -> str:
    """An id for a decision; ids sort by time."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def digests(rows: NDArray[np.float64]) -> bytes:
    """8 bytes (BLAKE2b) for each column of a feature matrix (n, features)."""
    columns = np.ascontiguousarray(rows.T)
    return b"".join([hashlib.blake2b(column, digest_size=DIGEST).digest() for column in columns])


@dataclass(frozen=True)
class _Entry:
    """One decision to be written, and who waits for it."""

    decided: Decided
    kept: Future[Decided] | None = None


class DecisionLog:
    """Decisions in SQLite, written in the background: a crash may lose the last fraction of a second.

    What must not be lost, such as a verdict that somebody is to review, is waited for: see `keep`. Whatever comes
    while one batch is on its way to the disk shares the next one.
    Of a verdict on an event there is only the first one; another is passed over.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._batches = Batches("decision-log", self._write, most_waiting=_MOST_WAITING)
        self._writing: sqlite3.Connection | None = None
        db = self._connect()
        db.execute("PRAGMA journal_mode=WAL")
        db.execute(f"CREATE TABLE IF NOT EXISTS decisions ({', '.join(_COLUMNS)}) WITHOUT ROWID")
        held = {row[1] for row in db.execute("PRAGMA table_info(decisions)")}
        for column in _COLUMNS:
            # A log of an earlier version lacks what came later.
            if column.split()[0] not in held:
                db.execute(f"ALTER TABLE decisions ADD COLUMN {column}")
        for index in _INDEXES:
            db.execute(f"CREATE INDEX IF NOT EXISTS {index}")
        db.close()

    def _connect(self) -> sqlite3.Connection:
        # The writing thread's connection is closed by whoever closes the log.
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30)
        db.execute("PRAGMA synchronous=NORMAL")
        return db

    def add(self, decided: Decided) -> None:
        """Hands a decision to the writing thread; never waits."""
        if not self._batches.put(_Entry(decided)):
            _log.error("decision %s is not logged: %d others wait for the disk", decided.id, _MOST_WAITING)

    def keep(self, decided: Decided) -> Future[Decided]:
        """The same for one that somebody waits for: resolves, once on disk, to the decision that stands.

        That is another one where a verdict on the event is there already. Fails with `UnavailableError`.
        """
        kept: Future[Decided] = Future()
        if not self._batches.put(_Entry(decided, kept), hurry=True):
            kept.set_exception(_unwritten(f"{_MOST_WAITING:,} that wait for the disk"))
        return kept

    def _write(self, batch: list[_Entry]) -> None:
        try:
            db = self._writing = self._writing or self._connect()
            awaited = any(entry.kept is not None for entry in batch)
            db.execute(f"PRAGMA synchronous={'FULL' if awaited else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            stand = [_insert(db, entry.decided) for entry in batch]
            db.execute("COMMIT")
        except FAULTS as error:
            # Evidence is lost, decisions go on; the event log is the truth.
            _log.exception("%d decisions could not be logged", len(batch))
            self._hang_up()
            for entry in batch:
                if entry.kept is not None:
                    entry.kept.set_exception(_unwritten(str(error)))
            return
        for entry, stands in zip(batch, stand, strict=True):
            if entry.kept is not None:
                entry.kept.set_result(stands)

    def _hang_up(self) -> None:
        """Closes the writing connection, and so takes back what it has begun."""
        db, self._writing = self._writing, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def flush(self) -> None:
        """Returns once everything added so far can be read."""
        self._batches.flush()

    def close(self) -> None:
        self._batches.close()
        self._hang_up()

    def settle(self) -> None:
        """Returns once what any worker had added can be read: each gathers for a moment before it writes."""
        self.flush()
        time.sleep(2 * PAUSE)

    def find(self, id: str) -> Decided | None:
        """The logged decision of an id, also one that another worker has just made."""
        for wait in (self.flush, self.settle):
            wait()
            for found in self.read(id=id):
                return found
        return None

    def newest(self, most: int) -> list[Brief]:
        """The newest decisions that are written, newest first; of this process, all that were added."""
        self.flush()
        db = self._connect()
        try:
            names = ("id", "decision", "release", "tier", "entity", "time", "items", "timings")
            query = (
                "SELECT id, decision, release, tier, entity, time, length(shown) / 4, timings FROM decisions "
                "ORDER BY time DESC, id DESC LIMIT ?"
            )
            found = [dict(zip(names, row, strict=True)) for row in db.execute(query, [most])]
            return [Brief(**{**one, "timings": json.loads(one["timings"])}) for one in found]
        finally:
            db.close()

    def first(self, decision: str, event: str, *, others: bool = True) -> Decided | None:
        """The verdict that was given on an event, by its id.

        Args:
            others: whether another process may have just given it.
        """
        for wait in (self.flush, self.settle) if others else (self.flush,):
            wait()
            with closing(self._connect()) as db:
                row = _first(db, decision, event)
            if row is not None:
                return Decided.from_row(row)
        return None

    def reviews(self, decision: str, since: Micros) -> list[Decided]:
        """The verdicts from a time on that asked for a review, by time; nothing else is read."""
        self.flush()
        query = (
            f"SELECT {', '.join(_NAMES)} FROM decisions INDEXED BY reviews "
            f"WHERE decision = ? AND {_ACTION} = 'review' AND time >= ? ORDER BY time"
        )
        with closing(self._connect()) as db:
            return [Decided.from_row(row) for row in db.execute(query, (decision, since))]

    def known_by(self, decision: str, time: Micros) -> int:
        """An offset that the log had reached by a time, as far as decisions until then tell; 0 where none does."""
        query = (
            "SELECT offset FROM decisions WHERE time <= ? AND decision = ? AND offset > 0 ORDER BY time DESC LIMIT 1"
        )
        with closing(self._connect()) as db:
            found = db.execute(query, (time, decision)).fetchone()
        return 0 if found is None else int(found[0])

    def read(
        self, decision: str | None = None, *, id: str | None = None, since: Micros = 0, audited: bool = False
    ) -> list[Decided]:
        """Logged decisions by time: of one decision, one id, from a time on, only those with digests."""
        where = ["time >= ?"]
        wanted: list[Any] = [since]
        if decision is not None:
            where.append("decision = ?")
            wanted.append(decision)
        if id is not None:
            where.append("id = ?")
            wanted.append(id)
        if audited:
            where.append("length(digests) > 0")
        db = self._connect()
        try:
            query = f"SELECT {', '.join(_NAMES)} FROM decisions WHERE {' AND '.join(where)} ORDER BY time, id"
            return [Decided.from_row(row) for row in db.execute(query, wanted)]
        finally:
            db.close()


def _first(db: sqlite3.Connection, decision: str, event: str) -> tuple[Any, ...] | None:
    query = (
        f"SELECT {', '.join(_NAMES)} FROM decisions INDEXED BY by_event "
        f"WHERE decision = ? AND {_EVENT} = ? AND verdict IS NOT NULL ORDER BY id LIMIT 1"
    )
    found: tuple[Any, ...] | None = db.execute(query, (decision, event)).fetchone()
    return found


def _insert(db: sqlite3.Connection, decided: Decided) -> Decided:
    """Enters a decision, inside a transaction; gives the one that stands."""
    if decided.verdict is not None:
        held = _first(db, decided.decision, decided.verdict["event"])
        if held is not None:
            return Decided.from_row(held)
    db.execute(f"INSERT OR IGNORE INTO decisions VALUES ({', '.join('?' * len(_NAMES))})", decided.row())
    return decided


def _unwritten(got: str) -> UnavailableError:
    return UnavailableError("the decision log takes a verdict", got=got, remedy="see the server's log")
