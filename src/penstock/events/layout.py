"""Events as packed bytes: a header and the stream's own record, under a number that names the layout."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.events.strings import codes_of
from penstock.types import MISSING_INT, Array, Code, Field, Kind, Micros, Rows, Schema

ERASED = 0
"""Where a layout's number would stand: an event that is gone."""
_MISSING: Mapping[Kind, Any] = {
    "text": 0, "int": MISSING_INT, "money": MISSING_INT, "float": np.nan, "bool": MISSING_INT,
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """One version of one stream's record: `time` (raw), `arrived`, `tie`, then its fields."""

    number: int
    schema: Schema

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([("time", "<i8"), ("arrived", "<i8"), ("tie", "<u8"), ("fields", self.schema.dtype)])

    def pack(
        self,
        columns: Sequence[Sequence[Any]],
        times: Sequence[Micros],
        arrived: Sequence[Micros],
        ties: Array,
        codes: dict[str | None, Code],
    ) -> list[bytes]:
        """The records of n events, given as one column of values for each field."""
        records = np.empty(len(times), self.dtype)
        records["time"], records["arrived"], records["tie"] = times, arrived, ties
        fields = records["fields"]
        for field, column in zip(self.schema.fields, columns, strict=True):
            if field.kind == "text":
                fields[field.name] = codes_of(codes, column)
            else:
                missing = _MISSING[field.kind]
                fields[field.name] = [missing if value is None else value for value in column]
        data, size = records.tobytes(), self.dtype.itemsize
        return [data[at : at + size] for at in range(0, len(data), size)]

    def rows(self, bodies: Sequence[bytes], offset: NDArray[np.int64], target: Layout) -> Rows:
        """The events of packed records, with the fields of the stream's present layout."""
        records = np.frombuffer(b"".join(bodies), self.dtype)
        raw, arrived = np.ascontiguousarray(records["time"]), np.ascontiguousarray(records["arrived"])
        fields = records["fields"] if self.schema == target.schema else _filled(records["fields"], target.schema)
        tie = np.ascontiguousarray(records["tie"])
        return Rows(target.schema.stream, offset, np.minimum(raw, arrived), raw, arrived, tie, fields)


def _filled(fields: Array, schema: Schema) -> Array:
    """Records from before the stream gained fields, with missing values in those."""
    out = np.empty(len(fields), schema.dtype)
    held = fields.dtype.names or ()
    for field in schema.fields:
        out[field.name] = fields[field.name] if field.name in held else _MISSING[field.kind]
    return out


class Layouts:
    """Every layout that the log holds, and the present one of each stream."""

    def __init__(self) -> None:
        self._layouts: dict[int, Layout] = {}
        self.present: dict[str, Layout] = {}

    def load(self, db: sqlite3.Connection) -> None:
        """Reads them; the newest layout of a stream is its present one."""
        for number, stream, fields in db.execute("SELECT number, stream, fields FROM schemas ORDER BY number"):
            self._layouts[number] = Layout(number, Schema(stream, tuple(Field(*f) for f in json.loads(fields))))
        self.present = {layout.schema.stream: layout for layout in self._layouts.values()}

    def declare(self, db: sqlite3.Connection, schema: Schema) -> None:
        """Adds a stream, or the fields that it has gained, inside a transaction.

        Raises:
            DefinitionError: anything but new optional fields at the end has changed.
        """
        held = self.present.get(schema.stream)
        if held is not None and held.schema == schema:
            return
        if held is not None:
            _check_grown(held.schema, schema)
        fields = json.dumps([[f.name, f.kind, f.optional] for f in schema.fields])
        db.execute("INSERT INTO schemas (stream, fields) VALUES (?, ?)", (schema.stream, fields))
        self.load(db)

    def rows(self, db: sqlite3.Connection, first: int, numbers: Sequence[int], bodies: Sequence[bytes]) -> list[Rows]:
        """Consecutive records from offset `first` on, as rows of each layout among them; erased ones are none."""
        offsets = np.arange(first, first + len(bodies))
        kinds = set(numbers)
        if not kinds <= self._layouts.keys() | {ERASED}:
            self.load(db)
        if len(kinds) == 1 and ERASED not in kinds:
            return [self._of(numbers[0], bodies, offsets)]
        column = np.fromiter(numbers, np.int64)
        out = []
        for number in sorted(kinds - {ERASED}):
            places = np.flatnonzero(column == number)
            out.append(self._of(number, [bodies[i] for i in places.tolist()], offsets[places]))
        return out

    def _of(self, number: int, bodies: Sequence[bytes], offsets: NDArray[np.int64]) -> Rows:
        layout = self._layouts[number]
        return layout.rows(bodies, offsets, self.present[layout.schema.stream])


def _check_grown(held: Schema, schema: Schema) -> None:
    for before, now in zip(held.fields, schema.fields, strict=False):
        if before != now:
            raise _changed(held, f"{_words(before)} is now {_words(now)}", before.name)
    if len(schema.fields) < len(held.fields):
        gone = held.fields[len(schema.fields)]
        raise _changed(held, f"{gone.name} is gone", gone.name)
    for new in schema.fields[len(held.fields) :]:
        if not new.optional:
            raise _changed(held, f"the new field {new.name} is not optional", new.name)


def _words(field: Field) -> str:
    return f"{field.name} ({field.kind}{', optional' if field.optional else ''})"


def _changed(held: Schema, got: str, field: str) -> DefinitionError:
    return DefinitionError(
        f"stream {held.stream} keeps its fields and gains only optional ones, at the end",
        got=got,
        remedy="undo the change, or give the event class a new name: that is a new stream",
        field=field,
    )


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of one stream from several places, in offset order."""
    if len(parts) == 1:
        return parts[0]
    names = ("offset", "time", "raw_time", "arrived", "tie", "fields")
    whole = Rows(parts[0].stream, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    return whole.take(np.argsort(whole.offset, kind="stable"))
