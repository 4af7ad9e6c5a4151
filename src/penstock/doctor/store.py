"""The store: how far behind the log, and what takes its room."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from penstock.doctor.finding import Finding, size
from penstock.stores import LmdbStore, trusted
from penstock.types import Progress, Strings

LARGEST = 10
FAR_BEHIND = 100_000
_FULL = 0.8


@dataclass
class Weighed:
    """What a scan of the store found.

    Attributes:
        views: by version, its records and their bytes, keys included.
        largest: (bytes, version, key) of the largest records, largest first.
    """

    views: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    largest: list[tuple[int, bytes, bytes]] = field(default_factory=list)


def weigh(store: LmdbStore, progress: Progress) -> Weighed:
    """Reads every record once; a view at a time, so that a running server can reuse pages in between."""
    found = Weighed()
    total, done = store.records, 0
    for version in store.views():
        count = bytes_ = 0
        for key, record in store.scan(version):
            length = len(version) + len(key) + len(record)
            count, bytes_ = count + 1, bytes_ + length
            entry = (length, version, key)
            if len(found.largest) < LARGEST:
                heapq.heappush(found.largest, entry)
            elif entry > found.largest[0]:
                heapq.heapreplace(found.largest, entry)
            done += 1
            if not done % 5_000:
                progress(done, total)
        found.views[version] = (count, bytes_)
    found.largest.sort(reverse=True)
    return found


def store(
    home: Path,
    *,
    end: int,
    strings: Strings,
    names: Mapping[bytes, str],
    kept: set[bytes],
    running: bool,
    progress: Progress,
) -> Iterator[Finding]:
    """Offsets, room, records by view and the largest keys.

    Args:
        end: of the log.
        strings: turns keys into text.
        names: of view versions, from the app and the releases.
        kept: versions that the app or a champion, present or past, needs.
        running: whether a process writes the home.
    """
    path = home / "store"
    if not (path / "data.mdb").exists():
        yield Finding("store", "records", "ok", "none yet: the first start builds them from the log")
        return
    if not trusted(path):
        told = "the machine went down while it was open: not read, since pages may be torn"
        yield Finding("store", "records", "warn", told, "penstock serve: its start rebuilds the store from the log")
        return
    held = LmdbStore(path, read_only=True)
    try:
        yield _behind(held, end, running)
        used, limit = held.room
        values = {"used": used, "limit": limit}
        full = used > _FULL * limit
        remedy = "rm -r of the folder store while the server is stopped: it is rebuilt without gaps" if full else ""
        yield Finding("store", "map", "warn" if full else "ok", f"{size(used)} of {size(limit)}", remedy, values)
        found = weigh(held, progress)
    finally:
        held.close()
    for version, (count, bytes_) in sorted(found.views.items(), key=lambda item: -item[1][1]):
        name = names.get(version, version.hex())
        told = f"{count:,} records, {size(bytes_)}" + (f", {size(bytes_ / count)} each" if count else "")
        more = {"version": version.hex(), "records": count, "bytes": bytes_, "obsolete": version not in kept}
        if version in kept:
            yield Finding("store", f"view {name}", "ok", told, values=more)
        else:
            remedy = "penstock serve: its start drops what no app and no rollback needs"
            yield Finding("store", f"view {name}", "warn", f"{told}; obsolete ({version.hex()})", remedy, more)
    yield _largest(found, names, strings)


def _behind(held: LmdbStore, end: int, running: bool) -> Finding:
    with held.snapshot() as snapshot:
        offset = snapshot.offset
    behind = max(0, end - offset)
    values = {"offset": offset, "behind": behind}
    if not behind:
        return Finding("store", "offset", "ok", f"{offset:,}, level with the log", values=values)
    told = f"{offset:,}, {behind:,} events behind the log"
    if running and behind > FAR_BEHIND:
        return Finding("store", "offset", "warn", told, "penstock doctor once more: it should be catching up", values)
    return Finding("store", "offset", "ok", told + ("" if running else "; the next start catches up"), values=values)


def _largest(found: Weighed, names: Mapping[bytes, str], strings: Strings) -> Finding:
    rows: list[dict[str, Any]] = []
    for length, version, key in found.largest:
        codes = np.frombuffer(key, ">u4").astype(np.uint32)
        text = ",".join(strings.texts(codes)) if len(codes) else "(all)"
        rows.append({"view": names.get(version, version.hex()), "key": text, "bytes": length})
    told = "\n".join(f"{size(row['bytes']):>9}  {row['view']} {row['key']}" for row in rows) or "none"
    return Finding("store", "largest keys", "ok", told, values={"largest": rows})
