"""Counts, exact sums, means, extremes and recency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.runs import run_lengths
from penstock.aggregates.whole import added, narrowed, needs_unit, summed, whole, whole_plain
from penstock.clock import SECOND
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import MISSING_INT, Array, Kind

_NUMBERS: tuple[Kind, ...] = ("int", "money", "float", "bool")


def _at(starts: NDArray[np.int64]) -> NDArray[np.intp]:
    return starts.astype(np.intp, copy=False)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Count(Aggregate):
    """How many events. State: 8 bytes; exact; an empty window gives 0.

    >>> c = Count(); c.value(c.reduce(c.lift(np.zeros(3), np.arange(3), np.arange(3)), np.array([0, 2])), np.zeros(2))
    array([2., 1.])
    """

    has_empty_value: ClassVar[bool] = True
    timeless: ClassVar[bool] = True
    columnwise: ClassVar[bool] = True

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<i8")

    def empty(self, n: int) -> Array:
        return np.zeros(n, np.int64)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return np.ones(len(time), np.int64)

    def merge(self, a: Array, b: Array) -> Array:
        return a + b

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.add.reduceat(states, _at(starts)) if len(starts) else self.empty(0)

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        return run_lengths(starts, len(time))

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return states.astype(np.float64)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return float(len(events))


_SUM = np.dtype([("low", "<u8"), ("high", "<i8"), ("count", "<i8")])


@dataclass(frozen=True, eq=False)
class _Total(Aggregate):
    """A 128-bit integer total and a count: exact in any order, range-checked only when read."""

    unit: float | None = None

    reads: ClassVar[tuple[Kind, ...]] = _NUMBERS
    timeless: ClassVar[bool] = True
    columnwise: ClassVar[bool] = True

    def check(self, kind: Kind) -> None:
        super().check(kind)
        if needs_unit(kind, self.unit):
            raise DefinitionError(
                "a sum of floats depends on their order, so it is kept in whole units of a declared size",
                got=f"{self.column!r} of kind float and unit={self.unit!r}",
                remedy='declare one, ps.sum("weight", unit=0.001), or make the field an int or Money',
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        return _SUM

    def empty(self, n: int) -> Array:
        return np.zeros(n, _SUM)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        units = whole(values, self.unit)
        states = np.empty(len(units), _SUM)
        states["low"], states["high"], states["count"] = units.view(np.uint64), units >> 63, 1
        return states

    def merge(self, a: Array, b: Array) -> Array:
        out = np.empty(len(a), _SUM)
        out["low"], out["high"] = added(a["low"], a["high"], b["low"], b["high"])
        out["count"] = a["count"] + b["count"]
        return out

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        out = np.empty((len(starts), *states.shape[1:]), _SUM)
        if not len(starts):
            return out
        out["low"], out["high"] = summed(states["low"], states["high"], starts)
        out["count"] = np.add.reduceat(states["count"], _at(starts))
        return out

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        out = np.empty(len(starts), _SUM)
        if len(starts):
            units, at = whole(values, self.unit), _at(starts)
            low, high = np.add.reduceat(units & 0xFFFFFFFF, at), np.add.reduceat(units >> 32, at)
            high += low >> 32
            out["low"] = (high << 32 | low & 0xFFFFFFFF).view(np.uint64)
            out["high"], out["count"] = high >> 32, run_lengths(starts, len(values))
        return out

    def _total(self, states: Array) -> NDArray[np.int64]:
        return narrowed(states["low"], states["high"], f"the total of {self.column!r}")

    def _plain_total(self, events: Sequence[Event]) -> int:
        return sum(whole_plain(value, self.unit) for value, _, _ in events)

    def _scale(self) -> float:
        return 1.0 if self.unit is None else self.unit


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Sum(_Total):
    """The exact sum, in the column's unit (cents for money; `unit` for floats). State: 24 bytes.

    An empty window gives 0. Integers are added in 128 bits, floats as whole numbers of `unit`.

    >>> s = Sum("price"); s.value(s.lift(np.array([250, -50]), np.zeros(2), np.zeros(2)), np.zeros(2))
    array([250., -50.])
    """

    has_empty_value: ClassVar[bool] = True

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return self._total(states).astype(np.float64) * self._scale()

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return float(self._plain_total(events)) * self._scale()


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Mean(_Total):
    """The exact sum over the count, rounded once. State: 24 bytes; an empty window gives NaN.

    >>> m = Mean("price"); m.value(m.lift(np.array([250]), np.zeros(1), np.zeros(1)), np.zeros(1))
    array([250.])
    """

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        count = states["count"].astype(np.float64)
        total = self._total(states).astype(np.float64)
        mean: Array = np.divide(total, count, out=np.full(len(states), np.nan), where=count > 0)
        return mean * self._scale()

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return float(self._plain_total(events)) / len(events) * self._scale() if events else math.nan


@dataclass(frozen=True, eq=False)
class _Extreme(Aggregate):
    reads: ClassVar[tuple[Kind, ...]] = _NUMBERS
    timeless: ClassVar[bool] = True
    columnwise: ClassVar[bool] = True
    worst: ClassVar[float]
    better: ClassVar[np.ufunc]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<f8")

    def empty(self, n: int) -> Array:
        return np.full(n, self.worst)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        # Adding zero turns -0.0 into 0.0, which differ in bytes but not in order.
        return values.astype(np.float64) + 0.0

    def merge(self, a: Array, b: Array) -> Array:
        return np.asarray(self.better(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.asarray(self.better.reduceat(states, _at(starts))) if len(starts) else self.empty(0)

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return np.where(np.isinf(states), np.nan, states)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Min(_Extreme):
    """The smallest value. State: 8 bytes; exact; an empty window gives NaN.

    >>> m = Min("price"); m.value(m.merge(np.array([3.0]), np.array([2.0])), np.zeros(1))
    array([2.])
    """

    worst: ClassVar[float] = math.inf
    better: ClassVar[np.ufunc] = np.minimum

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return min((float(value) + 0.0 for value, _, _ in events), default=math.nan)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Max(_Extreme):
    """The largest value. State: 8 bytes; exact; an empty window gives NaN.

    >>> m = Max("price"); m.value(m.empty(1), np.zeros(1))
    array([nan])
    """

    worst: ClassVar[float] = -math.inf
    better: ClassVar[np.ufunc] = np.maximum

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return max((float(value) + 0.0 for value, _, _ in events), default=math.nan)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Recency(Aggregate):
    """Seconds since the newest event. State: 8 bytes; exact; an empty window gives NaN.

    >>> r = Recency(); r.value(r.lift(np.zeros(1), np.array([4_000_000]), np.zeros(1)), np.array([5_500_000]))
    array([1.5])
    """

    columnwise: ClassVar[bool] = True

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype("<i8")

    def empty(self, n: int) -> Array:
        return np.full(n, MISSING_INT)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return time.astype(np.int64)

    def merge(self, a: Array, b: Array) -> Array:
        return np.asarray(np.maximum(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.maximum.reduceat(states, _at(starts)) if len(starts) else self.empty(0)

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        seen = states != MISSING_INT
        return np.where(seen, (now - np.where(seen, states, now)) / SECOND, np.nan)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return float(now - max(time for _, time, _ in events)) / SECOND if events else math.nan
