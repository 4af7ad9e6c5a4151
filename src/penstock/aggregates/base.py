"""The small algebra that everything counted obeys: empty, lift, merge, value.

States are fixed-width records, so the same bytes live in memory, on disk and on the wire. `merge` is
associative and exact (integers, maxima, sorted sets), so any split of a stream gives the same bytes; it is
commutative as well, so that any order does, but for the classes that say otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.runs import run_lengths, run_starts
from penstock.clock import duration
from penstock.errors import DefinitionError
from penstock.types import MISSING_INT, Array, Kind

Event = tuple[Any, int, int]
"""What `plain` sees of one event: (value, time in microseconds, tie)."""


@dataclass(frozen=True, eq=False)
class Aggregate(ABC):
    """A mergeable summary of one column of a stream, in a window, under a filter.

    Args:
        column: the field it reads, or an element-wise Polars expression over fields; events where it
            is missing are passed over. Aggregates that read no column take none, and those by themselves need none.
        window: how far back it looks (``"1h"``, ``"7d"``); none means since the beginning.
        where: an element-wise Polars filter; only events where it is true count.
        default: the value of an empty window, for aggregates that have none of their own.
    """

    column: str | pl.Expr | None = None
    window: str | None = None
    where: pl.Expr | None = None
    default: float | None = None

    reads: ClassVar[tuple[Kind, ...]] = ()
    """Kinds of column it can read; empty: it reads none."""
    is_list: ClassVar[bool] = False
    """True where `value` gives interned codes, (keys, k), instead of one float64 a key."""
    numbers: ClassVar[bool] = False
    """True where a list's values are numbers, and no codes."""
    has_empty_value: ClassVar[bool] = False
    """True where an empty window has a value of its own (a count is 0)."""
    timeless: ClassVar[bool] = False
    """True where `value` does not look at `now`, so that it holds until the state changes."""
    commutative: ClassVar[bool] = True
    """False where order carries meaning: `lift`, `collect` and `merge` then take what is sorted by (time, tie)."""
    windowed: ClassVar[bool] = True
    """False where it says itself how far it looks back, and refuses a window."""
    columnwise: ClassVar[bool] = False
    """True where `reduce` takes the states of m aggregates of the class at once, (n, m), and merges each column."""

    def __post_init__(self) -> None:
        if self.window is not None:
            duration(self.window)
        if self.column is not None and not self.reads:
            raise DefinitionError(
                f"{type(self).__name__} reads no column", got=f"column={self.column!r}", remedy="leave the column out"
            )
        if self.default is not None and (self.has_empty_value or self.is_list):
            raise DefinitionError(
                f"{type(self).__name__} has a value for an empty window already and takes no default",
                got=f"default={self.default!r}",
                remedy="leave default out",
            )

    def check(self, kind: Kind) -> None:
        """Refuses a column whose kind it cannot read."""
        if kind not in self.reads:
            raise DefinitionError(
                f"{type(self).__name__} reads columns of kind {', '.join(self.reads)}",
                got=f"{self.column!r} of kind {kind}",
                remedy="name another column or aggregate",
            )

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """The fixed-width state of one key and tile."""

    @abstractmethod
    def empty(self, n: int) -> Array:
        """n states of no event: the neutral element of `merge`."""

    @abstractmethod
    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        """One state an event; `values` in the column's own dtype, times in microseconds."""

    @abstractmethod
    def merge(self, a: Array, b: Array) -> Array:
        """Element-wise union of two equally long arrays of states; the inputs are left as they were."""

    @abstractmethod
    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        """What is served: float64 (n,), or uint32 codes (n, k). NaN where an empty window has no value."""

    @abstractmethod
    def plain(self, events: Sequence[Event], now: int) -> Any:
        """The definition, independently and in plain Python: the oracle of the kernel above."""

    def exact(self, events: Sequence[Event], now: int) -> tuple[float, float] | None:
        """What `plain` comes near to, and by how much at most it is off; None where it is exact, or off by chance."""
        return None

    @property
    def parts(self) -> tuple[Aggregate, ...]:
        """The aggregates that it is made of, each with a column and a filter of its own: its values are `joined`."""
        return ()

    @property
    def with_parts(self) -> tuple[Aggregate, ...]:
        """It and all its parts."""
        return (self, *(leaf for part in self.parts for leaf in part.with_parts))

    @property
    def choice(self) -> Hashable:
        """What, beside the events that count, decides which of them a state keeps; None where their values have a say.

        States of one choice differ only in the values, which are `filled` in.
        """
        return None

    def filled(self, states: Array, values: Array) -> Array:
        """States that kept 1 + the places of events, with the `values` at these places instead."""
        raise NotImplementedError(f"{type(self).__name__} has no choice")

    @staticmethod
    def joined(parts: Sequence[tuple[NDArray[np.bool_], Array]]) -> Array:
        """For each event what every part reads: (n,) records of a pair (`counts`, `value`) a part."""
        records: list[Any] = [(f"{i}", [("counts", "?"), ("value", v.dtype)]) for i, (_, v) in enumerate(parts)]
        out = np.empty(len(parts[0][0]), records)
        for i, (counts, value) in enumerate(parts):
            out[f"{i}"]["counts"], out[f"{i}"]["value"] = counts, value
        return out

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        """Merges runs of neighbouring states; run i begins at starts[i], no run is empty."""
        run = np.zeros(len(states), np.int64)
        run[starts[1:]] = 1
        run = np.cumsum(run)
        while len(states) > len(starts):
            first = run_starts(run)
            left = np.flatnonzero((np.arange(len(run)) - first[run]) % 2 == 0)
            merged = states[left]
            paired = np.flatnonzero((left + 1 < len(run)) & (run[np.minimum(left + 1, len(run) - 1)] == run[left]))
            merged[paired] = self.merge(states[left[paired]], states[left[paired] + 1])
            states, run = merged, run[left]
        return states

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        """`reduce` of `lift`; wide states override it, to skip the wide state of every event."""
        return self.reduce(self.lift(values, time, tie), starts)

    def scan(self, states: Array, starts: NDArray[np.int64]) -> Array:
        """Running merges within runs: out[i] is the merge of its run's states up to and with i."""
        position = np.arange(len(states)) - np.repeat(starts, run_lengths(starts, len(states)))
        # Of each two neighbours the merge; of these the running merges, half as many; from them all others.
        second = np.flatnonzero(position % 2 == 1)
        out = states.copy()
        if len(second):
            two = position[second] // 2
            out[second] = self.scan(self.merge(states[second - 1], states[second]), np.flatnonzero(two == 0))
            first = np.flatnonzero((position % 2 == 0) & (position > 0))
            out[first] = self.merge(out[first - 1], states[first])
        return out

    def served(self, states: Array, now: NDArray[np.int64]) -> Array:
        """`value`, with the declared default where there is none."""
        value = self.value(states, now)
        if self.default is not None:
            value = np.where(np.isnan(value), self.default, value)
        return value

    def plain_served(self, events: Sequence[Event], now: int) -> Any:
        """`plain`, with the declared default where there is none."""
        value = self.plain(events, now)
        if self.default is not None and isinstance(value, float) and math.isnan(value):
            return float(self.default)
        return value


def present(values: Array) -> NDArray[np.bool_]:
    """Where a column, as the log keeps it, is not missing.

    >>> present(np.array([1.5, np.nan]))
    array([ True, False])
    """
    if values.dtype.kind == "f":
        return np.asarray(~np.isnan(values))
    if values.dtype.kind == "u":
        return np.asarray(values != 0)
    return np.asarray(values != MISSING_INT)
