"""Whole files into the log: in the order of arrival, bad rows set aside, resumable."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from penstock.clock import SystemClock
from penstock.errors import MappingError
from penstock.events.convert import Converted, convert
from penstock.events.log import SqliteLog
from penstock.events.mapping import Mapping
from penstock.events.rejection import Rejection
from penstock.events.schema import Event, EventType, event_type
from penstock.events.tabular import ROW, read_table
from penstock.types import Accepted, Micros, Progress

CHUNK = 50_000
MAX_TEXT = 512


class FileEvents:
    """A file's events in the order in which they go into the log; iterating gives them in chunks.

    Attributes:
        fingerprint: of the file's content.
        rejected: the rows that break a rule, by their number from 0.
        dropped: how many rows the mapping's filter left out.
    """

    def __init__(self, kind: EventType, converted: Converted, fingerprint: str, chunk: int) -> None:
        self.fingerprint = fingerprint
        self.rejected: list[Rejection] = converted.rejected
        self.dropped = converted.dropped
        self._stream = kind.stream
        self._frame = converted.frame
        self._chunk = chunk

    def __len__(self) -> int:
        return len(self._frame)

    def __iter__(self) -> Iterator[list[Accepted]]:
        return (events for events, _ in self.chunks())

    def chunks(self, start: int = 0) -> Iterator[tuple[list[Accepted], list[Micros]]]:
        """Events from place `start` on, and when each arrived."""
        for at in range(start, len(self), self._chunk):
            part = self._frame.slice(at, self._chunk)
            arrived, times, ids, *columns = (part[name].to_list() for name in part.columns)
            yield list(map(Accepted, repeat(self._stream), ids, times, zip(*columns, strict=True))), arrived


@dataclass(frozen=True)
class Ingested:
    """What one run of `ingest_file` did.

    Attributes:
        accepted: new events in the log.
        duplicates: events that the log held already.
        rejected: rows kept as dead letters.
        dropped: rows that the mapping's filter left out.
        resumed: events that an earlier, interrupted run had appended.
        already: whether the file had been finished before, so that nothing was done.
        seconds: of this run.
    """

    accepted: int
    duplicates: int
    rejected: int
    dropped: int
    resumed: int
    already: bool
    seconds: float

    def __str__(self) -> str:
        if self.already:
            return f"finished before: its {self.resumed:,} events are in the log"
        counts = {"duplicates": self.duplicates, "rejected": self.rejected, "filtered out": self.dropped}
        rest = "".join(f", {count:,} {word}" for word, count in counts.items() if count)
        return f"{self.accepted:,} events in {self.seconds:.1f} s{rest}" + (", resumed" if self.resumed else "")


def read_file(
    path: Path | str,
    mapping: Mapping | None,
    event_type_: type[Event],
    *,
    chunk: int = CHUNK,
    max_text: int = MAX_TEXT,
    latest: Micros | None = None,
) -> FileEvents:
    """Reads a whole file (it must fit in memory) and converts it; bad rows become rejections.

    Args:
        path: .csv, .tsv, .ndjson or .jsonl, plain or .gz; or .parquet.
        mapping: how rows become events; None where the columns bear the fields' own names.
        event_type_: the type of the events.
        chunk: events in a chunk.
        max_text: the most characters in a text.
        latest: the latest time that a row may carry, microseconds; 5 minutes from now by default.

    Raises:
        MappingError: the file cannot be read, or does not fit the mapping.
    """
    file = Path(path)
    mark = file_fingerprint(file)
    kind = event_type(event_type_)
    table = read_table(file, mapping.csv if mapping else Mapping.plain(kind.schema, ()).csv)
    if mapping is None:
        mapping = Mapping.plain(kind.schema, tuple(name for name in table.frame.columns if name != ROW))
    latest = SystemClock().latest() if latest is None else latest
    return FileEvents(kind, convert(table, mapping, kind, mark, max_text, latest), mark, chunk)


def file_fingerprint(path: Path) -> str:
    """32 hexadecimal digits (BLAKE2b) that stand for a file's content."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise MappingError("the data file can be read", got=str(error), remedy="name an existing file") from None
    return digest.hexdigest()


def ingest_file(
    log: SqliteLog,
    path: Path | str,
    mapping: Mapping | None,
    event_type_: type[Event],
    *,
    progress: Progress | None = None,
    chunk: int = CHUNK,
    max_text: int = MAX_TEXT,
) -> Ingested:
    """Appends a file's events as history: each arrived when it happened, unless the mapping says otherwise.

    How far it came is kept in the transaction of each chunk, so an interrupted run is resumed by running it
    again, without loss or double count; a finished file is left alone.

    Args:
        log: where the events go.
        path: see `read_file`.
        mapping: see `read_file`.
        event_type_: the type of the events.
        progress: called with (events done, events in all).
        chunk: events in one transaction.
        max_text: the most characters in a text.
    """
    began = time.perf_counter()
    file = Path(path)
    how = mapping.fingerprint if mapping else "plain"
    name = f"file:{event_type(event_type_).stream}:{file_fingerprint(file)}:{how}"
    held = json.loads(log.note(name) or '{"done": 0, "finished": false, "started": false}')
    # A run that goes on judges the rows as the one before it did, or places would shift.
    latest = held.get("latest", SystemClock().latest())
    if held["finished"]:
        return Ingested(0, 0, 0, 0, held["done"], True, time.perf_counter() - began)
    events = read_file(file, mapping, event_type_, chunk=chunk, max_text=max_text, latest=latest)
    rejected = [] if held["started"] else events.rejected
    start = done = held["done"]
    accepted = duplicates = 0
    for part, arrived in events.chunks(start) if start < len(events) else [([], [])]:
        done += len(part)
        state = json.dumps({"done": done, "finished": done == len(events), "started": True, "latest": latest})
        first = () if done - len(part) > start else rejected
        appended = log.append(part, arrived, notes={name: state}, rejected=first, source=file.name)
        accepted += appended.accepted
        duplicates += appended.duplicates
        if progress is not None:
            progress(done, len(events))
    seconds = time.perf_counter() - began
    return Ingested(accepted, duplicates, len(rejected), events.dropped, start, False, seconds)
