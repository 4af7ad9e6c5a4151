"""Events taken out of the log for good. Their offsets stay, with nothing in them, so that all others keep theirs.

An erasure takes an offset of its own: what was decided from a lower one, or from this very one, may have known the
events, and what was decided later did not.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from penstock.errors import UnavailableError
from penstock.events.archive import Archive, Segment, segments
from penstock.events.layout import ERASED
from penstock.events.tables import connect, guarded, transaction
from penstock.types import Code, Erasure, Micros

_ERASURES = "erasures"
_BEGUN = "erasing"


def erasures(db: sqlite3.Connection) -> tuple[Erasure, ...]:
    """Those of a log, oldest first."""
    row = db.execute("SELECT value FROM meta WHERE name = ?", (_ERASURES,)).fetchone()
    return tuple(Erasure(**one) for one in json.loads(row[0])) if row else ()


def begun(path: Path) -> bool:
    """Whether an erasure was begun and has not come to its end."""
    with guarded(path, "read"), closing(connect(path, write=False)) as db:
        return db.execute("SELECT 1 FROM meta WHERE name = ?", (_BEGUN,)).fetchone() is not None


def begin(path: Path) -> None:
    """Notes, durably, that an erasure has begun."""
    with guarded(path, "written to"), closing(connect(path, write=True)) as db, transaction(db):
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, 1)", (_BEGUN,))


def end(path: Path) -> None:
    """Notes that nothing of it is left to do."""
    with guarded(path, "written to"), closing(connect(path, write=True)) as db, transaction(db):
        db.execute("DELETE FROM meta WHERE name = ?", (_BEGUN,))


def erase(
    path: Path, offsets: Sequence[int], *, texts: Sequence[Code], rejects: Sequence[int], newest: Micros, now: Micros
) -> int:
    """Empties events, texts and dead letters in one transaction; `scour` then overwrites what they occupied.

    Args:
        path: the log's file, which no other process writes.
        offsets: of the events, ascending.
        texts: codes that nobody will ask for again. They are never given to another text.
        rejects: numbers of dead letters.
        newest: the newest effective time among the events that stay, microseconds.
        now: dates the erasure, microseconds.

    Returns:
        How many archived segments were written anew.
    """
    with guarded(path, "erased from"), closing(connect(path, write=True)) as db:
        db.execute("PRAGMA secure_delete=ON")
        held = erasures(db)
        archive = Archive(path.with_name(f"{path.stem}-archive"))
        replaced = _rewritten(db, archive, offsets, len(held) + 1)
        with transaction(db):
            for old, new in replaced:
                db.execute("UPDATE segments SET file = ? WHERE first = ?", (new.file, old.first))
            db.executemany("UPDATE events SET layout = ?, body = x'' WHERE offset = ?", ((ERASED, o) for o in offsets))
            # No text may hold NUL, so none will ever be taken for an erased one.
            db.executemany("UPDATE strings SET text = ? WHERE code = ?", ((f"\0{code}", code) for code in texts))
            db.executemany("DELETE FROM rejects WHERE number = ?", ((number,) for number in rejects))
            if offsets:
                place = db.execute("SELECT value FROM meta WHERE name = 'end'").fetchone()[0]
                db.execute("INSERT INTO events VALUES (?, ?, x'')", (place, ERASED))
                done = [*held, Erasure(place, offsets[0], offsets[-1], len(offsets), now)]
                told = json.dumps([asdict(one) for one in done])
                db.executemany(
                    "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                    [("end", place + 1), ("newest", newest), (_ERASURES, told)],
                )
    return len(replaced)


def _rewritten(
    db: sqlite3.Connection, archive: Archive, offsets: Sequence[int], number: int
) -> list[tuple[Segment, Segment]]:
    """Each archived segment that holds one of the events, and the file that will take its place."""
    replaced = []
    for old in segments(db, offsets[0], offsets[-1] + 1) if offsets else []:
        inside = {offset for offset in offsets if old.first <= offset < old.stop}
        if inside:
            first, layouts, bodies = archive.read(old, old.first, old.stop)
            rows = [
                (ERASED, b"") if first + place in inside else row
                for place, row in enumerate(zip(layouts, bodies, strict=True))
            ]
            replaced.append((old, archive.write(old.first, rows, number)))
    return replaced


def scour(path: Path) -> None:
    """Writes the file anew and empties the write-ahead log, so that no byte of what went is left in either.

    Raises:
        UnavailableError: another process is reading the log.
    """
    rewrite(path)
    with guarded(path, "read"), closing(connect(path, write=False)) as db:
        kept = {row[0] for row in db.execute("SELECT file FROM segments")}
    Archive(path.with_name(f"{path.stem}-archive")).sweep(kept)


def rewrite(path: Path) -> None:
    """Writes a SQLite file anew, without what was deleted from it.

    Raises:
        UnavailableError: another process is reading it.
    """
    with guarded(path, "written anew"), closing(connect(path, write=True)) as db:
        db.execute("PRAGMA secure_delete=ON")
        db.execute("VACUUM")
        busy = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    if busy:
        raise UnavailableError(
            "nobody reads a file while a person is erased from it", got=f"{path}, which another process reads",
            remedy="end that process (penstock train, a notebook), then run the same command again",
        )  # fmt: skip
