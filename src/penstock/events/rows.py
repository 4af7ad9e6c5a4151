"""A log over rows already in memory: what checks replay, reordered, delayed and duplicated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from penstock.errors import UnavailableError
from penstock.types import Accepted, Appended, Erasure, Micros, Rows, Strings


class RowsLog:
    """A read-only log of the given rows; offsets must lie in [0, end)."""

    def __init__(self, rows: Mapping[str, Rows], strings: Strings) -> None:
        self._rows = dict(rows)
        self.id = "rows"
        self.strings = strings
        self.erasures: Sequence[Erasure] = ()
        self.end = 1 + max((int(part.offset.max(initial=-1)) for part in rows.values()), default=-1)
        self.newest = max((int(part.time.max(initial=0)) for part in rows.values()), default=0)

    def append(self, events: Sequence[Accepted], arrived: Micros | Sequence[Micros]) -> Appended:
        raise UnavailableError("rows in memory are read only", remedy="append to the SQLite log")

    def read(self, start: int, stop: int) -> dict[str, Rows]:
        out = {}
        for stream, part in self._rows.items():
            a, b = np.searchsorted(part.offset, [start, stop])
            if a < b:
                out[stream] = part.take(slice(int(a), int(b)))
        return out

    def close(self) -> None:
        """Nothing to release."""
