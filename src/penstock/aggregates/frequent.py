"""The most frequent values of any number of different ones, with bounds on how often each came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.lists import check_capacity
from penstock.aggregates.mixing import mix, mix_plain
from penstock.aggregates.runs import pairs, place_in_run, run_of, run_starts
from penstock.registry import registered
from penstock.types import Array, Kind

_ROWS = 4
_BITS = 32
_MOST = 2**32 - 1  # counters stop here, and say nothing from there on
_PLACES = np.uint64(1) << np.arange(_BITS, dtype=np.uint64)


@dataclass(frozen=True, eq=False)
class Bounds:
    """The k most frequent values of n states, and between which counts that of each lies for certain.

    Attributes:
        codes: (n, k) uint32, the most frequent first; 0 where there is none.
        lower: (n, k) int64.
        upper: (n, k) int64; equal to `lower` while the count is exact.
    """

    codes: NDArray[np.uint32]
    lower: NDArray[np.int64]
    upper: NDArray[np.int64]


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Frequent(Aggregate):
    """The k most frequent values: exact up to `capacity` different ones, beyond it from a sketch that can be searched.

    State: 540 capacity + 4 bytes (34,564 at the default of 64): a table of counts, and combinatorial group testing over
    4 rows of `capacity` cells. The sketch is linear, so any order and split of the events gives the same bytes. Past
    the capacity, a value with more than 4 / capacity of all events is found with a probability of at least 1 - 4**-4 =
    99.6 %, over the hashes; the `bounds` on its count hold for certain. Ties go to the text that the log saw first.
    Counts of a cell stop at 2**32 - 1, where it is no longer searched.

    Args:
        k: how many values.
        capacity: different values that are counted exactly, and cells a row.

    Source: Cormode and Muthukrishnan, "What's hot and what's not: tracking most frequent items dynamically" (2005).

    >>> f, t = Frequent("item", k=2), np.arange(4)
    >>> state = f.collect(np.array([5, 6, 5, 7], np.uint32), t, t.astype(np.uint64), np.array([0]))
    >>> f.value(state, t[:1]), f.bounds(state).lower
    (array([[5, 6]], dtype=uint32), array([[2, 1]]))
    """

    k: int = 5
    capacity: int = 64

    reads: ClassVar[tuple[Kind, ...]] = ("text",)
    is_list: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_capacity(self.k, self.capacity)

    @property
    def dtype(self) -> np.dtype[Any]:
        c = self.capacity
        return np.dtype(
            [("full", "<u4"), ("code", "<u4", (c,)), ("count", "<i8", (c,)), ("cells", "<u4", (_ROWS, c, 1 + _BITS))]
        )

    def empty(self, n: int) -> Array:
        return np.zeros(n, self.dtype)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(values)))

    def merge(self, a: Array, b: Array) -> Array:
        return self.reduce(*pairs(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        out = self.empty(len(starts))
        if len(starts):
            owner, slot = np.nonzero(states["code"])
            run = run_of(starts, len(states))
            full = np.zeros(len(starts), bool)
            full[run[states["full"] > 0]] = True
            self._tabulate(out, run[owner], states["code"][owner, slot], states["count"][owner, slot], full)
            cells = np.add.reduceat(states["cells"], starts.astype(np.intp), axis=0, dtype=np.uint64)
            out["cells"] = np.minimum(cells, _MOST)
        return out

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        out = self.empty(len(starts))
        run, code, count = _counted(run_of(starts, len(values)), values, np.ones(len(values), np.int64))
        self._tabulate(out, run, code, count, np.zeros(len(starts), bool))
        share = np.append(np.ones((len(code), 1), np.uint64), _bits(code), axis=1) * count.astype(np.uint64)[:, None]
        for row in range(_ROWS):
            cells = np.zeros((len(starts), self.capacity, 1 + _BITS), np.uint64)
            np.add.at(cells, (run, self._cell(code, row)), share)
            out["cells"][:, row] = np.minimum(cells, _MOST)
        return out

    def _tabulate(self, out: Array, run: Array, code: Array, count: Array, full: NDArray[np.bool_]) -> None:
        """Fills the tables of states with the counts of values; those that hold too many are empty and full."""
        run, code, count = _counted(run, code, count)
        place = place_in_run(run)
        full[run[place >= self.capacity]] = True
        keep = ~full[run]
        out["code"][run[keep], place[keep]], out["count"][run[keep], place[keep]] = code[keep], count[keep]
        out["full"] = full

    def _cell(self, code: Array, row: int) -> NDArray[np.int64]:
        salted = code.astype(np.uint64) + np.uint64((row + 1) << 32)
        return (mix(salted) % np.uint64(self.capacity)).astype(np.int64)

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return self.bounds(states).codes

    def bounds(self, states: Array) -> Bounds:
        """The most frequent values of each state, by their upper bound, and the bounds on their counts."""
        owner, slot = np.nonzero(states["code"])
        code, count = states["code"][owner, slot], states["count"][owner, slot]
        found, searched, lower, upper = self._search(states)
        owner, code = np.append(owner, found), np.append(code, searched)
        lower, upper = np.append(count, lower), np.append(count, upper)
        order = np.lexsort((code, -lower, -upper, owner))
        place = place_in_run(owner[order])
        at, place = order[place < self.k], place[place < self.k]
        shape = (len(states), self.k)
        out = Bounds(np.zeros(shape, np.uint32), np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        for column, values in ((out.codes, code), (out.lower, lower), (out.upper, upper)):
            column[owner[at], place] = values[at]
        return out

    def _search(self, states: Array) -> tuple[Array, Array, Array, Array]:
        """The values that hold more than half of a cell of a full state: owner, code, and bounds on the count."""
        full = np.flatnonzero(states["full"])
        cells = states["cells"][full].astype(np.int64)
        total = cells[..., 0]
        code = ((2 * cells[..., 1:] > total[..., None]) * _PLACES).sum(axis=-1, dtype=np.uint64)
        fits = (total > 0) & (total < _MOST) & (code > 0)
        for row in range(_ROWS):
            fits[:, row] &= self._cell(code[:, row], row) == np.arange(self.capacity)
        who, code, _ = _counted(np.nonzero(fits)[0], code[fits], np.ones(int(fits.sum()), np.int64))
        lower, upper = np.zeros(len(who), np.int64), np.full(len(who), _MOST)
        bits = _bits(code).astype(bool)
        for row in range(_ROWS):
            cell = cells[who, row, self._cell(code, row)]
            known = cell[:, 0] < _MOST
            alike = np.where(bits, cell[:, 1:], cell[:, :1] - cell[:, 1:])
            # Each other value of the cell differs in some bit.
            others = (cell[:, :1] - alike).sum(axis=1)
            lower = np.where(known, np.maximum(lower, cell[:, 0] - others), lower)
            upper = np.where(known, np.minimum(upper, alike.min(axis=1)), upper)
        return full[who], code, lower, upper

    def plain(self, events: Sequence[Event], now: int) -> Any:
        counts = Counter(int(code) for code, _, _ in events)
        ranked = [(-count, -count, code) for code, count in counts.items()]
        if len(counts) > self.capacity:
            ranked = [(-upper, -lower, code) for code, lower, upper in self._plain_search(counts)]
        best = [code for _, _, code in sorted(ranked)[: self.k]]
        return best + [0] * (self.k - len(best))

    def _plain_search(self, counts: Counter[int]) -> list[tuple[int, int, int]]:
        cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for code, count in counts.items():
            for row in range(_ROWS):
                cells.setdefault(self._plain_cell(code, row), []).append((code, count))
        found = set()
        for at, held in cells.items():
            total = sum(count for _, count in held)
            ones = [sum(count for code, count in held if code >> bit & 1) for bit in range(_BITS)]
            code = sum(1 << bit for bit in range(_BITS) if 2 * ones[bit] > total)
            if code and self._plain_cell(code, at[0]) == at:
                found.add(code)
        out = []
        for code in found:
            lower, upper = 0, _MOST
            for row in range(_ROWS):
                held = cells.get(self._plain_cell(code, row), [])
                differ = [sum(n for other, n in held if (other ^ code) >> bit & 1) for bit in range(_BITS)]
                total = sum(n for _, n in held)
                lower, upper = max(lower, total - sum(differ)), min(upper, total - max(differ))
            out.append((code, lower, upper))
        return out

    def _plain_cell(self, code: int, row: int) -> tuple[int, int]:
        return row, mix_plain(code + ((row + 1) << 32)) % self.capacity


def _bits(code: Array) -> NDArray[np.uint64]:
    return (code.astype(np.uint64)[:, None] >> np.arange(_BITS, dtype=np.uint64)) & np.uint64(1)


def _counted(run: Array, code: Array, count: Array) -> tuple[Array, Array, Array]:
    """Each different code of a run once, sorted, with the sum of its counts."""
    order = np.lexsort((code, run))
    run, code = run[order], code[order]
    first = run_starts(run, code)
    total = np.add.reduceat(count[order], first) if len(first) else count[:0]
    return run[first], code[first], total
