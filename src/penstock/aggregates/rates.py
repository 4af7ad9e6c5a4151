"""How often one thing follows another: clicks over views, smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array, Kind

_HIT, _TRIAL = 2, 1
_RATE = np.dtype([("hits", "<i8"), ("trials", "<i8")])


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Rate(Aggregate):
    """Hits over trials, drawn towards a prior while there are few: (hits + prior · strength) / (trials + strength).

    State: 16 bytes; exact, rounded once. Without trials and strength it is NaN. `rate` makes one.

    Args:
        prior: the rate to assume where nothing is known.
        strength: how many trials the prior counts for.

    Source: the mean of a beta distribution, after Laplace's rule of succession.

    >>> r, t = Rate("shown", prior=0.1, strength=10), np.zeros(3, np.int64)
    >>> r.value(r.collect(np.array([1, 1, 2]), t, t.astype(np.uint64), np.array([0])), t[:1])  # two views, one click
    array([0.16666667])
    """

    prior: float = 0.0
    strength: float = 0.0

    reads: ClassVar[tuple[Kind, ...]] = ("int",)
    timeless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.prior < math.inf and 0 <= self.strength < math.inf):
            raise DefinitionError(
                "a prior is a rate, and its strength a number of trials, both from 0 on",
                got=f"prior={self.prior!r}, strength={self.strength!r}", remedy="write prior=0.05, strength=20",
            )  # fmt: skip

    @property
    def dtype(self) -> np.dtype[Any]:
        return _RATE

    def empty(self, n: int) -> Array:
        return np.zeros(n, _RATE)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        states = self.empty(len(values))
        whole = values.astype(np.int64)
        states["hits"], states["trials"] = (whole & _HIT) > 0, whole & _TRIAL
        return states

    def merge(self, a: Array, b: Array) -> Array:
        states = self.empty(len(a))
        for name in ("hits", "trials"):
            states[name] = a[name] + b[name]
        return states

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        out = self.empty(len(starts))
        if len(starts):
            for name in ("hits", "trials"):
                out[name] = np.add.reduceat(states[name], starts.astype(np.intp))
        return out

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        above = states["hits"] + self.prior * self.strength
        below = states["trials"] + self.strength
        out: Array = np.divide(above, below, out=np.full(len(states), np.nan), where=below > 0)
        return out

    def plain(self, events: Sequence[Event], now: int) -> Any:
        hits = sum(1 for value, _, _ in events if int(value) & _HIT)
        trials = sum(1 for value, _, _ in events if int(value) & _TRIAL)
        below = trials + self.strength
        return (hits + self.prior * self.strength) / below if below > 0 else math.nan


def rate(
    hits: pl.Expr,
    over: pl.Expr,
    *,
    prior: float = 0.0,
    strength: float = 0.0,
    window: str | None = None,
    where: pl.Expr | None = None,
    default: float | None = None,
) -> Rate:
    """How often `hits` is true for each time that `over` is, such as clicks over views.

    Args:
        hits: an element-wise filter; `over` another. An event may be both.
        prior: the rate to assume where nothing is known; `strength` is how many trials it counts for.
        window, where, default: as of any aggregate.

    >>> rate(pl.col("kind") == "click", pl.col("kind") == "view", prior=0.05, strength=20, window="7d").strength
    20
    """
    value = hits.fill_null(False).cast(pl.Int64) * _HIT + over.fill_null(False).cast(pl.Int64) * _TRIAL
    return Rate(value, window=window, where=where, default=default, prior=prior, strength=strength)
