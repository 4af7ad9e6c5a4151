"""How values spread: variance, quantiles and histograms, exact or within a declared error, in any order."""

from __future__ import annotations

import math
from abc import abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.numbers import Mean
from penstock.aggregates.runs import run_of
from penstock.aggregates.whole import whole, whole_plain
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array, Kind

_LIMBS = 6
_MASK = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Variance(Mean):
    """The variance about the mean, from exact sums of values and squares, rounded once.

    State: 72 bytes (a sum of 128 bits, a sum of squares of 192, a count). Too few values give NaN.

    Args:
        ddof: 0 divides by the count, 1 by the count less one, as a sample's estimate does.

    >>> v, t = Variance("price"), np.zeros(4, np.int64)
    >>> v.value(v.collect(np.array([1, 2, 3, 4]), t, t.astype(np.uint64), np.array([0])), t[:1])
    array([1.25])
    """

    ddof: int = 0

    columnwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ddof not in (0, 1):
            raise DefinitionError("ddof is 0 or 1", got=repr(self.ddof), remedy="1 estimates from a sample")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([("total", super().dtype), ("squares", "<u8", (_LIMBS,))])

    def empty(self, n: int) -> Array:
        return np.zeros(n, self.dtype)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        states = self.empty(len(values))
        states["total"] = super().lift(values, time, tie)
        size = np.abs(whole(values, self.unit)).view(np.uint64)
        low, high = size & _MASK, size >> _32
        squares = np.zeros((len(values), _LIMBS), np.uint64)
        # (high · 2³² + low)², each product in limbs of 32 bits.
        for place, product, twice in ((0, low * low, 1), (1, low * high, 2), (2, high * high, 1)):
            for _ in range(twice):
                squares[:, place] += product & _MASK
                squares[:, place + 1] += product >> _32
        states["squares"] = _carried(squares)
        return states

    def merge(self, a: Array, b: Array) -> Array:
        states = self.empty(len(a))
        states["total"] = super().merge(a["total"], b["total"])
        states["squares"] = _carried(a["squares"] + b["squares"])
        return states

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        return self.reduce(self.lift(values, time, tie), starts)

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        out = self.empty(len(starts))
        if len(starts):
            out["total"] = super().reduce(states["total"], starts)
            # Limbs of 32 bits cannot overflow 64 in fewer than 2**32 states.
            out["squares"] = _carried(np.add.reduceat(states["squares"], starts.astype(np.intp), axis=0))
        return out

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        out = np.full(len(states), np.nan)
        total, limbs = states["total"], states["squares"].tolist()
        columns = (total[name].tolist() for name in ("low", "high", "count"))
        for i, (low, high, n) in enumerate(zip(*columns, strict=True)):
            squares = sum(limb << (32 * place) for place, limb in enumerate(limbs[i]))
            out[i] = self._exact(n, (high << 64) + low, squares)
        return out

    def _exact(self, n: int, total: int, squares: int) -> float:
        if n <= self.ddof:
            return math.nan
        return (n * squares - total * total) / (n * (n - self.ddof)) * self._scale() ** 2

    def plain(self, events: Sequence[Event], now: int) -> Any:
        units = [whole_plain(value, self.unit) for value, _, _ in events]
        return self._exact(len(units), sum(units), sum(value * value for value in units))


def _carried(limbs: Array) -> Array:
    """Limbs (n, 6) of 32 bits each, what was beyond them carried on."""
    limbs = limbs.copy()
    for place in range(_LIMBS - 1):
        limbs[:, place + 1] += limbs[:, place] >> _32
        limbs[:, place] &= _MASK
    return limbs


@dataclass(frozen=True, eq=False)
class _Binned(Aggregate):
    """How many values lie below the first edge, from each edge to the next, and from the last one on."""

    reads: ClassVar[tuple[Kind, ...]] = ("int", "money", "float")
    timeless: ClassVar[bool] = True

    @property
    @abstractmethod
    def _edges(self) -> Sequence[float]: ...

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(("<i8", (len(self._edges) + 1,)))

    def empty(self, n: int) -> Array:
        return np.zeros((n, len(self._edges) + 1), np.int64)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(values)))

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        out = self.empty(len(starts))
        at = np.searchsorted(np.array(self._edges), values.astype(np.float64), side="right")
        np.add.at(out, (run_of(starts, len(values)), at), 1)
        return out

    def merge(self, a: Array, b: Array) -> Array:
        return a + b

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.add.reduceat(states, starts.astype(np.intp), axis=0) if len(starts) else self.empty(0)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Quantile(_Binned):
    """The value below which a share `q` of all values lie, within a relative error.

    Values are counted in bins whose edges grow by a fixed factor, so any order and split of the events gives the same
    bytes. State: 8 bytes a bin, some ln(most / least) / (2 error) + 2 bins (279 at the defaults). Of n values that of
    rank ⌈q n⌉ is given, off by at most `error` of itself where it lies from `least` to `most`; smaller ones, 0 and
    negative ones among them, count as `least`, larger ones as `most`.

    Args:
        q: from 0 to 1; 0.5 is the median.
        least: the smallest value to tell apart, above 0, in the column's unit (cents for money).
        most: the largest.
        error: the relative error, from 0.001 to 0.5.

    Source: Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees"
    (2019), with bins that are fixed beforehand.

    >>> m, t = Quantile("price", q=0.5), np.zeros(3, np.int64)
    >>> m.value(m.collect(np.array([100, 900, 200]), t, t.astype(np.uint64), np.array([0])), t[:1]).round()
    array([196.])
    """

    q: float = 0.5
    least: float = 1.0
    most: float = 1e6
    error: float = 0.025

    def __post_init__(self) -> None:
        super().__post_init__()
        fits = 0 <= self.q <= 1 and 0 < self.least < self.most < math.inf and 0.001 <= self.error <= 0.5
        if not fits or len(self.edges) > 10_000:
            raise DefinitionError(
                "a quantile has q from 0 to 1, 0 < least < most, an error from 0.001 to 0.5, and at most 10,000 bins",
                got=f"q={self.q}, least={self.least}, most={self.most}, error={self.error}",
                remedy='write ps.quantile("price", q=0.9, least=1, most=1e6, error=0.025)',
            )

    @cached_property
    def edges(self) -> list[float]:
        """Where each bin but the first begins."""
        factor = (1 + self.error) / (1 - self.error)
        edges, at = [self.least], self.least
        while at < self.most:
            at *= factor
            edges.append(min(at, self.most))
        return edges

    @property
    def _edges(self) -> Sequence[float]:
        return self.edges

    @cached_property
    def _told(self) -> list[float]:
        """What stands for each bin: as far from its lower edge as from its upper one, in proportion."""
        inner = [2 * a * b / (a + b) for a, b in zip(self.edges, self.edges[1:], strict=False)]
        return [self.least, *inner, self.most]

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        up_to = np.cumsum(states, axis=1)
        count = up_to[:, -1:]
        rank = np.maximum(np.ceil(self.q * count), 1)
        found = np.array(self._told)[np.argmax(up_to >= rank, axis=1)]
        return np.where(count[:, 0] > 0, found, np.nan)

    def exact(self, events: Sequence[Event], now: int) -> tuple[float, float] | None:
        if not events:
            return None
        chosen = min(max(self._ranked(events), self.least), self.most)
        return chosen, self.error * chosen

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return self._told[bisect_right(self.edges, self._ranked(events))] if events else math.nan

    def _ranked(self, events: Sequence[Event]) -> float:
        ordered = sorted(float(value) for value, _, _ in events)
        return ordered[max(math.ceil(self.q * len(ordered)), 1) - 1]


def median(column: Any, **options: Any) -> Quantile:
    """`Quantile` at 0.5.

    >>> median("price", window="1h").q
    0.5
    """
    return Quantile(column, q=0.5, **options)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Histogram(_Binned):
    """How many values lie in each bin; its value is the number of the fullest bin, the lowest of equals.

    State: 8 bytes an edge and 8 more; exact. Bin 0 is below the first edge, bin i from edge i - 1 up to but without
    the next, the last one from the last edge on. `counts` of its states gives all of them. No event gives NaN.

    Args:
        edges: ascending, at most 4,096, in the column's unit (cents for money).

    >>> h, t = Histogram("price", edges=(1000, 5000)), np.zeros(4, np.int64)
    >>> states = h.collect(np.array([100, 2000, 1000, 5000]), t, t.astype(np.uint64), np.array([0]))
    >>> h.counts(states).tolist(), h.value(states, t[:1])
    ([[1, 2, 1]], array([1.]))
    """

    edges: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            edges = tuple(float(edge) for edge in self.edges)
        except (TypeError, ValueError):
            edges = ()
        if not 1 <= len(edges) <= 4_096 or any(not a < b for a, b in zip(edges, (*edges[1:], math.inf), strict=True)):
            raise DefinitionError(
                "a histogram has from 1 to 4,096 finite edges in ascending order", got=f"edges={self.edges!r}",
                remedy='write ps.histogram("price", edges=(1000, 5000, 20000))',
            )  # fmt: skip
        object.__setattr__(self, "edges", edges)

    @property
    def _edges(self) -> Sequence[float]:
        return self.edges

    def counts(self, states: Array) -> NDArray[np.int64]:
        """How many values lie in each bin, (n, edges + 1)."""
        return np.asarray(states)

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return np.where(states.any(axis=1), states.argmax(axis=1).astype(np.float64), np.nan)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        bins = Counter(sum(1 for edge in self.edges if edge <= float(value)) for value, _, _ in events)
        return float(min(bins, key=lambda number: (-bins[number], number))) if bins else math.nan
