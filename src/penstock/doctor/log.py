"""The event log and the decision log: how much they hold, how old the newest is, how much was refused."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from penstock.clock import MINUTE, SECOND
from penstock.doctor.finding import Finding, size, span
from penstock.doctor.folder import weight
from penstock.events import SqliteLog
from penstock.events.erasure import begun
from penstock.serve.decisions import DECISIONS

MANY_REJECTS = 0.05


def log(held: SqliteLog) -> Iterator[Finding]:
    """What the log holds, whether all of it is there, and what was refused."""
    bytes_ = weight(held.path) + weight(held.path.with_name("log.sqlite-wal"))
    archived = weight(folder) if (folder := held.path.with_name("log-archive")).exists() else 0
    with closing(sqlite3.connect(f"file:{held.path}?mode=ro", uri=True)) as db:
        live = db.execute("SELECT count(*) FROM events").fetchone()[0]
        end = db.execute("SELECT coalesce(max(value), 0) FROM meta WHERE name = 'end'").fetchone()[0]
        segments = db.execute("SELECT first, stop, file FROM segments ORDER BY first").fetchall()
        refused = db.execute("SELECT count(*) FROM rejects").fetchone()[0]
    below = sum(stop - start for start, stop, _ in segments)
    values = {"events": end, "bytes": bytes_, "segments": len(segments), "segment_bytes": archived}
    missing = [file for *_, file in segments if not (folder / file).is_file()]
    if missing:
        told = f"{len(missing)} archived segments are gone, {missing[0]} the first"
        yield Finding("log", "segments", "wrong", told, f"restore them from a backup into {folder}", values)
    if below + live != end:
        told = f"{end:,} events were taken, {below + live:,} are there"
        yield Finding("log", "events", "wrong", told, "restore the folder from a backup", values)
    else:
        text = f"{end:,} in {size(bytes_)}"
        text += f", {below:,} of them in {len(segments)} Parquet segments of {size(archived)}" if segments else ""
        yield Finding("log", "events", "ok", text, values=values)
    if begun(held.path):
        told = "one was cut short: some of a person is still there"
        yield Finding("log", "erasure", "wrong", told, "penstock forget FIELD=VALUE once more, with the server stopped")
    yield _newest(held)
    share = refused / (end + refused) if refused else 0.0
    told = f"{refused:,} dead letters" + (f", {share:.1%} of what came" if refused else "")
    values = {"rejects": refused, "share": share}
    if share > MANY_REJECTS:
        yield Finding("log", "rejects", "warn", told, "penstock ingest --rejects", values)
    else:
        yield Finding("log", "rejects", "ok", told, values=values)


def _newest(held: SqliteLog) -> Finding:
    if not held.newest:
        return Finding("log", "newest event", "warn", "none: the log is empty", "penstock ingest FILE")
    ahead = held.newest / SECOND - time.time()
    at = f"{datetime.fromtimestamp(held.newest / SECOND, UTC):%Y-%m-%d %H:%M} UTC"
    values = {"newest": held.newest, "age_s": -ahead}
    if ahead > 5 * MINUTE / SECOND:
        # Arrival bounds it: either the clock went back, or the recording is dated in the future.
        told = f"{at}, {span(ahead)} ahead of this machine's clock"
        remedy = "timedatectl set-ntp true, or penstock serve --clock events for recorded days"
        return Finding("log", "newest event", "warn", told, remedy, values)
    return Finding("log", "newest event", "ok", f"{at}, {span(max(0.0, -ahead))} ago", values=values)


def decisions(home: Path) -> Finding:
    """How large the decision log is."""
    path = home / DECISIONS
    if not path.exists():
        return Finding("decisions", "log", "ok", "none served yet")
    bytes_ = weight(path) + weight(path.with_name(f"{DECISIONS}-wal"))
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        count = db.execute("SELECT count(*) FROM decisions").fetchone()[0]
    each = f", {size(bytes_ / count)} each" if count else ""
    return Finding(
        "decisions", "log", "ok", f"{count:,} in {size(bytes_)}{each}", values={"count": count, "bytes": bytes_}
    )
