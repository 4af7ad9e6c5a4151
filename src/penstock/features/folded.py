"""Feature values as they were last folded, for as long as neither the record nor the moment changes them.

Most of what a decision reads has not changed since the decision before it: then comparing a record's bytes
takes the place of decoding and folding them. Nothing is ever stale: every record is read, and compared.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.features.assemble import Read
from penstock.features.records import FOREVER, decode, merged
from penstock.features.view import View
from penstock.types import Array, Micros, Snapshot

MOST = 32_768
"""Entities of a view that are kept; with one more, all are let go."""


class Folded:
    """Reads views from snapshots of one store, and keeps what it folded. Any thread may use it.

    Args:
        most: entities kept a view.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tables: dict[bytes, _Table] = {}
        self._lock = threading.Lock()

    def reader(self, snapshot: Snapshot, now: Micros) -> Read:
        """How views are read at one moment of one snapshot."""

        def read(view: View, keys: NDArray[np.uint32], at: NDArray[np.int64]) -> Mapping[str, Array]:
            n, width = keys.shape
            data, size = keys.astype(">u4").tobytes(), 4 * width
            names = [data[i * size : (i + 1) * size] for i in range(n)]
            records = snapshot.get(view.version, names)
            with self._lock:
                table = self._tables.get(view.version)
                if table is None:
                    table = self._tables[view.version] = _Table(view, self._most)
                return table.read(names, records, now)

        return read


class _Table:
    """The rows of one view's entities.

    A column holds values where they are timeless, and otherwise the states that give them.
    """

    def __init__(self, view: View, most: int) -> None:
        self._view = view
        self._most = most
        self._places: dict[bytes, int] = {}
        self._records: list[bytes | None] = []
        # From when and until when a row holds; no row holds before it was folded.
        self._since = np.zeros(0, np.int64)
        self._until = np.zeros(0, np.int64)
        self._columns: dict[str, Array] = {}

    def read(self, names: Sequence[bytes], records: Sequence[bytes | None], now: Micros) -> dict[str, Array]:
        """The values of some entities whose records are these."""
        get = self._places.get
        places = [get(name, -1) for name in names]
        if -1 in places:
            self._add(names)
            places = [get(name, -1) for name in names]
        held = self._records
        changed = [i for i, place in enumerate(places) if held[place] != records[i]]
        at = np.array(places, np.int64)
        passed = (self._until[at] <= now) | (self._since[at] > now)
        if passed.any():
            changed = sorted({*changed, *np.flatnonzero(passed).tolist()})
        if changed:
            self._fold([places[i] for i in changed], [records[i] for i in changed], now)
        moment = np.full(len(at), now)
        return {
            name: self._columns[name][at] if aggregate.timeless else aggregate.served(self._columns[name][at], moment)
            for name, aggregate in self._view.features.items()
        }

    def _add(self, names: Sequence[bytes]) -> None:
        """Makes rows for those that have none yet."""
        new = dict.fromkeys(name for name in names if name not in self._places)
        if len(self._places) + len(new) > self._most:
            self._places.clear()
            self._records.clear()
            self._since[:] = FOREVER
            new = dict.fromkeys(names)
        begin = len(self._places)
        self._places.update(zip(new, range(begin, begin + len(new)), strict=True))
        self._records += [None] * len(new)
        if len(self._records) > len(self._since):
            grown = max(len(self._records), 64)
            self._since = np.concatenate([self._since, np.full(grown, FOREVER)])
            self._until = np.concatenate([self._until, np.zeros(grown, np.int64)])
            self._columns = {
                name: np.concatenate([column, np.empty((grown, *column.shape[1:]), column.dtype)])
                for name, column in self._columns.items()
            }

    def _fold(self, places: list[int], records: list[bytes | None], now: Micros) -> None:
        moment = np.full(len(places), now)
        states, until = merged(self._view, decode(self._view, records), moment)
        for name, aggregate in self._view.features.items():
            found = aggregate.served(states[name], moment) if aggregate.timeless else states[name]
            if name not in self._columns:
                self._columns[name] = np.empty((len(self._since), *found.shape[1:]), found.dtype)
            self._columns[name][places] = found
        self._since[places], self._until[places] = now, until
        for place, record in zip(places, records, strict=True):
            self._records[place] = record
