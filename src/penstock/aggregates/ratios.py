"""One aggregate over another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.runs import run_of, run_starts
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Ratio(Aggregate):
    """The value of one aggregate over that of another, such as revenue over views; `ratio` makes one.

    Each of the two reads its own column under its own filter. State: those of both, side by side; the error is theirs.
    Where either has no value, or the second is 0, it is NaN.

    Args:
        above: an aggregate of one number, without a window of its own; `below` another.

    >>> from penstock.aggregates import Count, Sum
    >>> r, t = Ratio(above=Sum("price"), below=Count()), np.zeros(2, np.int64)
    >>> values = r.joined([(np.array([True, False]), np.array([300, 0])), (np.array([True, True]), t)])
    >>> r.value(r.collect(values, t, t.astype(np.uint64), np.array([0])), t[:1])  # one sale in two events
    array([150.])
    """

    above: Aggregate | None = None
    below: Aggregate | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for part in (self.above, self.below):
            if part is not None and not isinstance(part, Aggregate):
                raise DefinitionError(
                    "a ratio is of two aggregates", got=repr(part), remedy='write ps.ratio(ps.sum("price"), ps.count())'
                )
            fits = isinstance(part, Aggregate) and part.commutative and not part.is_list and not part.parts
            if part is None or not fits or part.window is not None:
                raise DefinitionError(
                    "a ratio is of two aggregates that give a number in any order, the window being its own",
                    got="none" if part is None else f"{type(part).__name__}(window={part.window!r})",
                    remedy='write ps.ratio(ps.sum("price"), ps.count(), window="7d")',
                )

        spans = {part.windowed for part in self.parts}
        if len(spans) == 2 or (spans == {False} and self.window is not None):
            raise DefinitionError(
                "the two aggregates of a ratio look back equally far",
                got=" and ".join(type(part).__name__ for part in self.parts) + f", window={self.window!r}",
                remedy="pair those that say themselves how far they look back, without a window, or neither",
            )

    @property
    def parts(self) -> tuple[Aggregate, ...]:
        return tuple(part for part in (self.above, self.below) if part is not None)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([(name, part.dtype) for name, part in self._named])

    @property
    def _named(self) -> list[tuple[str, Aggregate]]:
        return list(zip(("above", "below"), self.parts, strict=True))

    def empty(self, n: int) -> Array:
        states = np.empty(n, self.dtype)
        for name, part in self._named:
            states[name] = part.empty(n)
        return states

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(values)))

    def merge(self, a: Array, b: Array) -> Array:
        states = np.empty(len(a), self.dtype)
        for name, part in self._named:
            states[name] = part.merge(a[name], b[name])
        return states

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        out = np.empty(len(starts), self.dtype)
        for name, part in self._named:
            out[name] = part.reduce(states[name], starts)
        return out

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        out = self.empty(len(starts))
        owner = run_of(starts, len(values))
        for (name, part), field in zip(self._named, values.dtype.names or (), strict=True):
            at = np.flatnonzero(values[field]["counts"])
            if len(at):
                own = run_starts(owner[at])
                out[name][owner[at][own]] = part.collect(values[field]["value"][at], time[at], tie[at], own)
        return out

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        above, below = (part.served(states[name], now) for name, part in self._named)
        return np.asarray(np.divide(above, below, out=np.full(len(states), np.nan), where=below != 0))

    def plain(self, events: Sequence[Event], now: int) -> Any:
        above, below = (
            part.plain_served([(value[i][1], time, tie) for value, time, tie in events if value[i][0]], now)
            for i, part in enumerate(self.parts)
        )
        return above / below if below != 0 else math.nan


def ratio(
    above: Aggregate,
    below: Aggregate,
    *,
    window: str | None = None,
    where: pl.Expr | None = None,
    default: float | None = None,
) -> Ratio:
    """The value of one aggregate over that of another, both in one window.

    Args:
        above: such as `ps.sum("price", where=col("kind") == "buy")`, without a window; `below` such as `ps.count()`.
        window, where, default: as of any aggregate; `where` filters the events of both.

    >>> from penstock.aggregates import count, sum
    >>> ratio(sum("price"), count(), window="7d", default=0.0).window
    '7d'
    """
    return Ratio(above=above, below=below, window=window, where=where, default=default)
