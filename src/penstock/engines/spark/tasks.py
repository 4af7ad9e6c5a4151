"""What Spark's workers do with a part of the events: the same kernels as in every other engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from penstock.aggregates.runs import run_starts
from penstock.engines.batch import BatchEngine
from penstock.engines.spark.staged import Words, rows_of
from penstock.engines.stream import StreamEngine
from penstock.events.rows import RowsLog
from penstock.features.records import Tiles, decode, encode, merge_tiles
from penstock.features.view import TILE, View
from penstock.stores.memory import MemoryStore
from penstock.types import Array

ROW, NOW, KNOWN, KEY, RECORD = "row", "now", "known", "key", "record"
STATES = f"{ROW} long, {NOW} long, {RECORD} binary"
VALUES = f"{ROW} long, {RECORD} binary"
TILES = f"{KEY} binary, {RECORD} binary"


@dataclass(frozen=True)
class Task:
    """A view as plain JSON values, and the words that its expressions spell out: all that travels to the workers."""

    spec: Mapping[str, Any]
    words: Words

    @cached_property
    def view(self) -> View:
        return View.from_spec(self.spec)

    @cached_property
    def states(self) -> np.dtype[Any]:
        """One row's states, side by side."""
        return np.dtype([(name, a.dtype) for name, a in self.view.features.items()])

    @cached_property
    def values(self) -> np.dtype[Any]:
        """One row's values, side by side."""
        now = np.zeros(1, np.int64)
        empty = {name: a.served(a.empty(1), now) for name, a in self.view.features.items()}
        return np.dtype([(name, value.dtype, value.shape[1:]) for name, value in empty.items()])

    def partial(self, as_known: bool) -> Callable[[pa.Table, pa.Table], pa.Table]:
        """From events, and rows that ask about their keys, the states that these events alone make."""

        def states(events: pa.Table, asked: pa.Table) -> pa.Table:
            rows = rows_of(self.view.schema, events)
            keys = [asked.column(f"k{i}").to_numpy().view(np.uint32) for i in range(len(self.view.by))]
            known = _numbers(asked, KNOWN) if as_known else None
            codes = np.stack(keys, axis=1) if keys else np.zeros((len(asked), 0), np.uint32)
            found = BatchEngine({rows.stream: rows}, self.words).states(self.view, codes, _numbers(asked, NOW), known)
            return pa.table(
                {ROW: asked.column(ROW), NOW: asked.column(NOW), RECORD: _packed(found, self.states, len(asked))}
            )

        return states

    def finished(self, partial: pa.Table) -> pa.Table:
        """From all states of some rows, as `partial` gives them, their values."""
        order = np.argsort(_numbers(partial, ROW), kind="stable")
        row, now = _numbers(partial, ROW)[order], _numbers(partial, NOW)[order]
        states = unpacked(partial, self.states)[order]
        starts = run_starts(row)
        served = {
            name: aggregate.served(aggregate.reduce(states[name], starts), now[starts])
            for name, aggregate in self.view.features.items()
        }
        return pa.table({ROW: row[starts], RECORD: _packed(served, self.values, len(starts))})

    def tiles(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """From events, one record of tiles a key."""
        part = list(batches)
        if not part:  # a file's row groups are fewer than Spark's splits of it
            return
        table = pa.Table.from_batches(part)
        rows = rows_of(self.view.schema, table)
        store = MemoryStore()
        log = RowsLog({rows.stream: rows}, self.words)
        StreamEngine(log, store, [self.view]).apply({rows.stream: rows}, 0, log.end)
        keys, records = zip(*store.scan(self.view.version), strict=True) if store.sizes() else ((), ())
        yield pa.RecordBatch.from_pydict({KEY: pa.array(keys, pa.binary()), RECORD: pa.array(records, pa.binary())})

    def merged(self, newest: int) -> Callable[[pa.Table], pa.Table]:
        """From records of tiles one a key, without the tiles that no window reaches from `newest` on."""

        def records(table: pa.Table) -> pa.Table:
            keys, position = np.unique(np.array(table.column(KEY).to_pylist(), object), return_inverse=True)
            parts = []
            for group, part in zip(self.view.groups, decode(self.view, table.column(RECORD).to_pylist()), strict=True):
                merged = merge_tiles(group, position[part.owner], part.tiles)
                live = merged.tiles[TILE] >= group.oldest(newest) if group.window is not None else slice(None)
                parts.append(Tiles(merged.tiles[live], merged.owner[live]))
            found = pa.table({KEY: pa.array(keys, pa.binary()), RECORD: encode(self.view, parts, len(keys))})
            return found.take(np.unique(np.concatenate([part.owner for part in parts])))

        return records


def unpacked(table: pa.Table, dtype: np.dtype[Any]) -> Array:
    """The records (n,) that a table holds as bytes."""
    return np.frombuffer(b"".join(table.column(RECORD).to_pylist()), dtype)


def _packed(columns: Mapping[str, Array], dtype: np.dtype[Any], n: int) -> pa.Array:
    """Columns, side by side in n records, as bytes."""
    out = np.empty(n, dtype)
    for name, values in columns.items():
        out[name] = values
    whole = pa.FixedSizeBinaryArray.from_buffers(pa.binary(dtype.itemsize), n, [None, pa.py_buffer(out)])
    return whole.cast(pa.binary())


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    found: NDArray[np.int64] = table.column(name).to_numpy()
    return found
