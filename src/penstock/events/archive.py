"""Old parts of the log as Parquet files: whole segments, written once, and once more only to erase events in them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl


@dataclass(frozen=True)
class Segment:
    """The events with first ≤ offset < stop, in one file of the archive's folder."""

    first: int
    stop: int
    file: str


class Archive:
    """The folder of segments beside the log.

    A file holds the columns `layout` and `body`, in offset order, as the log's own table does.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[str, pl.DataFrame] | None = None

    def write(self, first: int, rows: Sequence[tuple[int, bytes]], erasure: int = 0) -> Segment:
        """Writes a segment; it is on disk under its name when this returns.

        Args:
            erasure: the number of the erasure for which it is written once more, under another name.
        """
        self.folder.mkdir(exist_ok=True)
        name = f"{first:015d}-{first + len(rows):015d}" + (f"-{erasure}" if erasure else "")
        segment = Segment(first, first + len(rows), f"{name}.parquet")
        layouts, bodies = zip(*rows, strict=True)
        frame = pl.DataFrame({"layout": pl.Series(layouts, dtype=pl.Int64), "body": pl.Series(bodies, dtype=pl.Binary)})
        part = self.folder / f"{segment.file}.part"
        try:
            with part.open("wb") as file:
                frame.write_parquet(file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(self.folder / segment.file)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        sync_folder(self.folder)
        return segment

    def sweep(self, kept: Collection[str]) -> None:
        """Deletes every file but those of the names `kept`."""
        for path in self.folder.glob("*.parquet*"):
            if path.name not in kept:
                path.unlink()
        if self.folder.exists():
            sync_folder(self.folder)

    def read(self, segment: Segment, start: int, stop: int) -> tuple[int, Sequence[int], Sequence[bytes]]:
        """The first offset, layouts and bodies of what the segment holds of [start, stop)."""
        held = self._last
        if held is None or held[0] != segment.file:
            # Readers go forward in small steps, so the segment at hand is worth keeping.
            held = self._last = (segment.file, pl.read_parquet(self.folder / segment.file))
        first = max(start, segment.first)
        part = held[1].slice(first - segment.first, min(stop, segment.stop) - first)
        return first, part["layout"].to_list(), part["body"].to_list()


def segments(db: sqlite3.Connection, start: int, stop: int) -> list[Segment]:
    """Those that hold any of [start, stop), in order."""
    query = "SELECT first, stop, file FROM segments WHERE stop > ? AND first < ? ORDER BY first"
    return [Segment(*row) for row in db.execute(query, (start, stop))]


def sync_folder(folder: Path) -> None:
    """Makes new names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
