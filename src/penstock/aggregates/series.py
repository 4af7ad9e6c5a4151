"""Summaries in which the order of events carries meaning: their merge is associative, not commutative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.whole import WIDE, added, narrowed, needs_unit, whole, whole_plain
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array, Kind

_RUN = np.dtype([("total", WIDE), ("prefix", WIDE), ("suffix", WIDE), ("best", WIDE)])
_NONE = -(2**62)  # the high half of -2**126, which stands for "no run": any sum of events is above it


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class MaxRun(Aggregate):
    """The largest sum over any run of neighbouring events, in order of (time, tie): Kadane's problem.

    State: 64 bytes (total, best prefix, best suffix, best run, each an integer of 128 bits); exact; no event gives
    NaN, and a series of negative values its largest one. Events lie beside each other in the order of time, so the
    merge is not commutative and views do not take it: `running` does.

    Args:
        unit: floats are kept as whole numbers of this size; other values need none.

    Source: Bentley, "Programming Pearls: Algorithm Design Techniques" (1984), its divide and conquer.

    >>> m, t = MaxRun("gain"), np.arange(6)
    >>> m.value(m.collect(np.array([-2, 4, -1, 3, -9, 5]), t, t.astype(np.uint64), np.array([0, 4])), t[:2])
    array([6., 5.])
    """

    unit: float | None = None

    reads: ClassVar[tuple[Kind, ...]] = ("int", "money", "float", "bool")
    timeless: ClassVar[bool] = True
    commutative: ClassVar[bool] = False

    def check(self, kind: Kind) -> None:
        super().check(kind)
        if needs_unit(kind, self.unit):
            raise DefinitionError(
                "a sum of floats depends on how they are grouped, so it is kept in whole units of a declared size",
                got=f"{self.column!r} of kind float and unit={self.unit!r}",
                remedy='declare one, ps.max_run("gain", unit=0.001), or give whole numbers',
            )

    @property
    def dtype(self) -> np.dtype[Any]:
        return _RUN

    def empty(self, n: int) -> Array:
        states = np.zeros(n, _RUN)
        for name in ("prefix", "suffix", "best"):
            states[name]["high"] = _NONE
        return states

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        units = whole(values, self.unit)
        states = np.empty(len(units), _RUN)
        for name in _RUN.names or ():
            states[name]["low"], states[name]["high"] = units.view(np.uint64), units >> 63
        return states

    def merge(self, a: Array, b: Array) -> Array:
        out = np.empty(len(a), _RUN)
        out["total"] = _added(a["total"], b["total"])
        out["prefix"] = _larger(a["prefix"], _added(a["total"], b["prefix"]))
        out["suffix"] = _larger(b["suffix"], _added(a["suffix"], b["total"]))
        out["best"] = _larger(_larger(a["best"], b["best"]), _added(a["suffix"], b["prefix"]))
        return out

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        best, none = states["best"], states["best"]["high"] == _NONE
        units = narrowed(best["low"], np.where(none, 0, best["high"]), f"the best run of {self.column!r}")
        return np.where(none, np.nan, units.astype(np.float64) * (self.unit or 1.0))

    def plain(self, events: Sequence[Event], now: int) -> Any:
        unit = self.unit or 1.0
        units = [whole_plain(value, unit) for value, _, _ in sorted(events, key=lambda event: event[1:])]
        # Every run there is: for each first event, the sums up to each later one.
        best = max((max(accumulate(units[first:])) for first in range(len(units))), default=None)
        return math.nan if best is None else float(best) * unit


def _added(a: Array, b: Array) -> Array:
    out = np.empty(len(a), WIDE)
    out["low"], out["high"] = added(a["low"], a["high"], b["low"], b["high"])
    return out


def _larger(a: Array, b: Array) -> Array:
    return np.where((a["high"] > b["high"]) | ((a["high"] == b["high"]) & (a["low"] >= b["low"])), a, b)
