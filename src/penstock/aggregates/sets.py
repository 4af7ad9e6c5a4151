"""Distinct counts: maxima of registers, which no order or grouping can change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.mixing import MASK, mix, mix_plain
from penstock.aggregates.runs import run_of
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array, Kind

_MOST = 38  # ranks stop here, so that a sum of 2**14 powers 2**-rank is exact in a float64


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Distinct(Aggregate):
    """How many different values: HyperLogLog (Flajolet et al., 2007), 2**precision one-byte registers.

    State: 256 bytes at the default precision 8, standard error 1.04 / sqrt(256) = 6.5 %; nearly exact while
    few registers are filled, where the estimate is that of coupon collecting, a sum of fractions instead of
    a logarithm, so that every processor gives the same bits. An empty window gives 0.

    >>> d = Distinct("item"); codes = np.array([7, 8, 7], np.uint32)
    >>> d.value(d.reduce(d.lift(codes, np.zeros(3), np.zeros(3)), np.array([0])), np.zeros(1)).round()
    array([2.])
    """

    precision: int = 8

    reads: ClassVar[tuple[Kind, ...]] = ("text", "int", "money", "bool")
    has_empty_value: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 4 <= self.precision <= 14:
            raise DefinitionError("precision is between 4 and 14", got=str(self.precision), remedy="8 is usual")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(("u1", (1 << self.precision,)))

    @property
    def scans(self) -> bool:
        return True

    def empty(self, n: int) -> Array:
        return np.zeros((n, 1 << self.precision), np.uint8)

    def _register(self, values: Array) -> tuple[NDArray[np.intp], NDArray[np.uint8]]:
        mixed = mix(values.astype(np.int64).view(np.uint64))
        rest = mixed >> np.uint64(self.precision)
        # The lowest set bit is a power of two, so its float exponent is its position, exactly.
        lowest = rest & (~rest + np.uint64(1))
        rank = np.frexp(lowest.astype(np.float64))[1]
        rank = np.where(rest == 0, _MOST, np.minimum(rank, _MOST)).astype(np.uint8)
        return (mixed & np.uint64((1 << self.precision) - 1)).astype(np.intp), rank

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        register, rank = self._register(values)
        states = self.empty(len(values))
        states[np.arange(len(values)), register] = rank
        return states

    def merge(self, a: Array, b: Array) -> Array:
        return np.asarray(np.maximum(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.asarray(np.maximum.reduceat(states, starts.astype(np.intp), axis=0)) if len(starts) else self.empty(0)

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        states = self.empty(len(starts))
        register, rank = self._register(values)
        owner = run_of(starts, len(values))
        np.maximum.at(states, (owner, register), rank)
        return states

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        m = 1 << self.precision
        empty = (states == 0).sum(axis=1)
        harmonic = np.ldexp(1.0, -states.astype(np.int64)).sum(axis=1)
        raw = _alpha(m) * m * m / harmonic
        few = m * _coupons(m)[empty]
        return np.asarray(np.where((raw <= 2.5 * m) & (empty > 0), few, raw))

    def plain(self, events: Sequence[Event], now: int) -> Any:
        m = 1 << self.precision
        registers = [0] * m
        for value, _, _ in events:
            mixed = mix_plain(int(value) & MASK)
            rest = mixed >> self.precision
            rank = min((rest & -rest).bit_length(), _MOST) if rest else _MOST
            registers[mixed % m] = max(registers[mixed % m], rank)
        raw = _alpha(m) * m * m / sum(2.0**-r for r in registers)
        empty = registers.count(0)
        if raw <= 2.5 * m and empty:
            draws = 0.0
            for left in range(m, empty, -1):
                draws += 1.0 / left
            return m * draws
        return raw


def _alpha(m: int) -> float:
    return {16: 0.673, 32: 0.697, 64: 0.709}.get(m, 0.7213 / (1 + 1.079 / m))


@cache
def _coupons(m: int) -> NDArray[np.float64]:
    """At v: H(m) - H(v), the expected draws, over m, that leave v of m registers empty."""
    return np.append(np.cumsum(1.0 / np.arange(m, 0, -1))[::-1], 0.0)
