"""First-k, last-k and top-k: short lists of interned strings, exact, with ties broken by (time, event id)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.runs import pairs, place_in_run, run_of, run_starts
from penstock.clock import SECOND
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import MISSING_INT, Array, Kind


@dataclass(frozen=True, eq=False)
class _Ordered(Aggregate):
    """The k values that come first in one order of time."""

    k: int = 1

    reads: ClassVar[tuple[Kind, ...]] = ("text",)
    is_list: ClassVar[bool] = True
    timeless: ClassVar[bool] = True
    _newest: ClassVar[bool]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= 1_000:
            raise DefinitionError("k is between 1 and 1,000", got=str(self.k), remedy="50 is usual")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([("time", "<i8", (self.k,)), ("tie", "<u8", (self.k,)), ("code", "<u4", (self.k,))])

    def empty(self, n: int) -> Array:
        states = np.zeros(n, self.dtype)
        states["time"] = MISSING_INT
        return states

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        states = self.empty(len(values))
        states["time"][:, 0], states["tie"][:, 0], states["code"][:, 0] = time, tie, values
        return states

    def merge(self, a: Array, b: Array) -> Array:
        return self.reduce(*pairs(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        owner, slot = np.nonzero(states["code"])
        run = run_of(starts, len(states))[owner]
        return self._foremost(
            run, states["code"][owner, slot], states["time"][owner, slot], states["tie"][owner, slot], len(starts)
        )

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        return self._foremost(run_of(starts, len(values)), values, time, tie, len(starts))

    def _foremost(self, run: Array, code: Array, time: Array, tie: Array, n: int) -> Array:
        if not _ordered(run, time, tie):
            order = np.lexsort((tie, time, run))
            run, code, time, tie = run[order], code[order], time[order], tie[order]
        starts = run_starts(run)
        ends = np.append(starts[1:], len(run))
        # Of each run the k places at its end, newest first, or at its beginning.
        at = ends[:, None] - 1 - np.arange(self.k) if self._newest else starts[:, None] + np.arange(self.k)
        there = (at >= starts[:, None]) & (at < ends[:, None])
        who, rank = np.nonzero(there)
        at, who = at[there], run[starts][who]
        states = self.empty(n)
        states["time"][who, rank], states["tie"][who, rank], states["code"][who, rank] = time[at], tie[at], code[at]
        return states

    @property
    def choice(self) -> Hashable:
        return self._newest, self.k

    def filled(self, states: Array, values: Array) -> Array:
        states = states.copy()
        there = states["code"] > 0
        states["code"][there] = values[states["code"][there] - 1]
        return states

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return np.ascontiguousarray(states["code"])

    def plain(self, events: Sequence[Event], now: int) -> Any:
        chosen = sorted(events, key=lambda e: (e[1], e[2]), reverse=self._newest)[: self.k]
        return [int(code) for code, _, _ in chosen] + [0] * (self.k - len(chosen))


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Last(_Ordered):
    """The newest k values, newest first. State: 20 k bytes; exact; missing places are code 0.

    >>> l = Last("item", k=2); t = np.array([1, 3, 2])
    >>> l.value(l.collect(np.array([7, 8, 9], np.uint32), t, t.astype(np.uint64), np.array([0])), t[:1])
    array([[8, 9]], dtype=uint32)
    """

    _newest: ClassVar[bool] = True


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class LastTimes(_Ordered):
    """When the newest k values came, newest first: seconds since 1970, uint32. State: 20 k bytes; exact; 0 is missing.

    It stands beside `Last` of the same column, place by place.

    >>> l = LastTimes("item", k=2); t = np.array([1, 3, 2]) * 1_000_000
    >>> l.value(l.collect(np.array([7, 8, 9], np.uint32), t, t.astype(np.uint64), np.array([0])), t[:1])
    array([[3, 2]], dtype=uint32)
    """

    numbers: ClassVar[bool] = True
    _newest: ClassVar[bool] = True

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return np.where(states["code"] > 0, states["time"] // SECOND, 0).astype(np.uint32)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        chosen = sorted(events, key=lambda e: (e[1], e[2]), reverse=True)[: self.k]
        return [time // SECOND for _, time, _ in chosen] + [0] * (self.k - len(chosen))


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class First(_Ordered):
    """The oldest k values, oldest first. State: 20 k bytes; exact; missing places are code 0.

    >>> f = First("item", k=2); t = np.array([1, 3, 2])
    >>> f.value(f.collect(np.array([7, 8, 9], np.uint32), t, t.astype(np.uint64), np.array([0])), t[:1])
    array([[7, 9]], dtype=uint32)
    """

    _newest: ClassVar[bool] = False


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Latest(Last):
    """The newest value alone, such as an item's category or price band. State: 20 bytes; exact.

    A key field that a request does not give is taken from the `Latest` feature of that name.

    >>> Latest("category").k
    1
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k != 1:
            raise DefinitionError("latest keeps one value", got=f"k={self.k}", remedy="use ps.last for a list")


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class TopK(Aggregate):
    """The k most frequent values, exact while at most `capacity` different ones are in the window.

    State: 28 capacity + 4 bytes. Past the capacity the state becomes one absorbing overflow, whose value is
    an empty list (which values were kept would depend on their order). Ties go to the newest by (time, id).

    >>> t = TopK("category", k=1); n = np.arange(3)
    >>> t.value(t.collect(np.array([5, 6, 5], np.uint32), n, n.astype(np.uint64), np.array([0])), n[:1])
    array([[5]], dtype=uint32)
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
        c = (self.capacity,)
        return np.dtype(
            [("full", "<u4"), ("code", "<u4", c), ("count", "<i8", c), ("time", "<i8", c), ("tie", "<u8", c)]
        )

    def empty(self, n: int) -> Array:
        return np.zeros(n, self.dtype)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        states = self.empty(len(values))
        states["code"][:, 0], states["count"][:, 0] = values, 1
        states["time"][:, 0], states["tie"][:, 0] = time, tie
        return states

    def merge(self, a: Array, b: Array) -> Array:
        return self.reduce(*pairs(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        owner, slot = np.nonzero(states["code"])
        runs = run_of(starts, len(states))
        full = np.zeros(len(starts), bool)
        full[runs[states["full"] > 0]] = True
        code, count, time, tie = (states[name][owner, slot] for name in ("code", "count", "time", "tie"))
        return self._union(runs[owner], code, count, time, tie, full)

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        run = run_of(starts, len(values))
        return self._union(run, values, np.ones(len(values), np.int64), time, tie, np.zeros(len(starts), bool))

    def _union(self, run: Array, code: Array, count: Array, time: Array, tie: Array, full: Array) -> Array:
        key = run.astype(np.int64) << 32 | code
        order = np.argsort(key, kind="stable")
        if not _ordered(key[order], time[order], tie[order]):
            order = np.lexsort((tie, time, key))
        run, code = run[order], code[order]
        states = self.empty(len(full))
        if len(run):
            first = run_starts(run, code)
            newest = order[np.append(first[1:], len(order)) - 1]
            total = np.add.reduceat(count[order], first)
            run, code = run[first], code[first]
            rank = place_in_run(run)
            full = full.copy()
            full[run[rank >= self.capacity]] = True
            keep = ~full[run]
            at, rank, newest = run[keep], rank[keep], newest[keep]
            states["code"][at, rank], states["count"][at, rank] = code[keep], total[keep]
            states["time"][at, rank], states["tie"][at, rank] = time[newest], tie[newest]
        states["full"] = full
        return states

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        out = np.zeros((len(states), self.k), np.uint32)
        owner, slot = np.nonzero(states["code"])
        code, count, time, tie = (states[name][owner, slot] for name in ("code", "count", "time", "tie"))
        order = np.lexsort((~tie, ~time, ~count, owner))
        rank = place_in_run(owner[order])
        keep = rank < self.k
        out[owner[order][keep], rank[keep]] = code[order][keep]
        return out

    def plain(self, events: Sequence[Event], now: int) -> Any:
        count: dict[int, int] = {}
        newest: dict[int, tuple[int, int]] = {}
        for code, time, tie in events:
            count[code] = count.get(code, 0) + 1
            newest[code] = max(newest.get(code, (time, tie)), (time, tie))
        if len(count) > self.capacity:
            return [0] * self.k
        ranked = sorted(count, key=lambda code: (count[code], newest[code]), reverse=True)[: self.k]
        return [int(code) for code in ranked] + [0] * (self.k - len(ranked))


def _ordered(run: Array, time: Array, tie: Array) -> bool:
    """Whether events are sorted by (run, time, tie), as they mostly come."""
    later = (run[1:] > run[:-1]) | (run[1:] == run[:-1]) & (time[1:] > time[:-1])
    if later.all():
        return True
    at = np.flatnonzero(~later)
    same = (run[at + 1] == run[at]) & (time[at + 1] == time[at]) & (tie[at + 1] >= tie[at])
    return bool(same.all())


def check_capacity(k: int, capacity: int) -> None:
    """Refuses a k that the values which are counted exactly could not give."""
    if not 1 <= k <= capacity <= 4_096:
        raise DefinitionError(
            "1 ≤ k ≤ capacity ≤ 4,096", got=f"k={k}, capacity={capacity}", remedy="raise the capacity"
        )
