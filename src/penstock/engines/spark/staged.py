"""A log's events as Parquet files that Spark reads, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from penstock.types import Array, Code, Log, Progress, Rows, Schema

OFFSET, TIME, TIE = "offset", "time", "tie"
# Spark knows no unsigned numbers: the same bits, signed.
_SIGNED = {"<u4": "<i4", "<u8": "<i8"}


def stage(log: Log, stop: int, folder: Path, chunk: int, progress: Progress | None = None) -> dict[str, Path]:
    """Writes the events below `stop`, `chunk` of them at a time, into one folder a stream.

    What no feature reads, when an event arrived and what time it claimed, stays behind.
    """
    folders: dict[str, Path] = {}
    for start in range(0, stop, chunk):
        for stream, rows in log.read(start, min(start + chunk, stop)).items():
            if stream not in folders:
                folders[stream] = folder / stream
                folders[stream].mkdir(parents=True)
            _frame(rows).write_parquet(folders[stream] / f"{start:015d}.parquet")
        if progress:
            progress(min(start + chunk, stop), stop)
    return folders


def column(schema: Schema, field: str) -> str:
    """The column of a field: one that collides with no other."""
    return f"f{[f.name for f in schema.fields].index(field)}"


def _frame(rows: Rows) -> pl.DataFrame:
    own = {OFFSET: rows.offset, TIME: rows.time, TIE: _signed(rows.tie)}
    names = rows.fields.dtype.names or ()
    return pl.DataFrame(own | {f"f{i}": _signed(rows.fields[name]) for i, name in enumerate(names)})


def _signed(values: Array) -> Array:
    values = np.ascontiguousarray(values)
    return values.view(_SIGNED.get(values.dtype.str, values.dtype))


def rows_of(schema: Schema, table: Any) -> Rows:
    """Events from an Arrow table of what was staged, in the order of their offsets."""
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    order = np.argsort(columns[OFFSET], kind="stable")
    fields = np.zeros(len(order), schema.dtype)
    for i, field in enumerate(schema.fields):
        if f"f{i}" in columns:
            fields[field.name] = columns[f"f{i}"][order].view(field.dtype)
    time = columns[TIME][order]
    return Rows(schema.stream, columns[OFFSET][order], time, time, time, columns[TIE][order].view(np.uint64), fields)


@dataclass(frozen=True)
class Words:
    """That part of a log's dictionary which expressions spell out."""

    words: Mapping[Code, str]

    def code(self, text: str) -> Code:
        """The code of `text`, or 0 where it is not among them."""
        return next((code for code, word in self.words.items() if word == text), 0)

    def text(self, code: Code) -> str:
        return self.words[code] if code else ""

    def texts(self, codes: Array) -> list[str]:
        return [self.text(code) for code in codes.tolist()]

    @property
    def cached(self) -> Words:
        return self
