"""Sets: how many different values there are, and which; maxima and unions that no order or grouping can change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
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


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Members(Aggregate):
    """Which values there were, as a Bloom filter: `contains` of its states answers "has this user seen this item".

    A value that was there is always found. One that was not is taken for one with probability `error` once there are
    `capacity` different ones, with less before. State: 1.44 log2(1 / error) bits a value of the capacity, rounded up
    to 8 bytes: 1,200 bytes by default. Its own value is an estimate of how many there are, from the share of bits that
    are set; an empty window gives 0, and where all bits are set it is what the last but one gives.

    Args:
        capacity: of different values, from 1 to 100,000.
        error: from 1e-6 to 0.5.

    Source: Bloom, "Space/time trade-offs in hash coding with allowable errors" (1970); two hashes for all of a
    value's bits: Kirsch and Mitzenmacher, "Less hashing, same performance" (2006).

    >>> m, t = Members("item"), np.zeros(2, np.int64)
    >>> states = m.collect(np.array([7, 8], np.uint32), t, t.astype(np.uint64), np.array([0]))
    >>> m.contains(states, np.array([[7, 8, 9]])), m.value(states, t[:1]).round()
    (array([[ True,  True, False]]), array([2.]))
    """

    capacity: int = 1_000
    error: float = 0.01

    reads: ClassVar[tuple[Kind, ...]] = ("text", "int", "money", "bool")
    has_empty_value: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        given = isinstance(self.capacity, int) and isinstance(self.error, int | float)
        if not (given and 1 <= self.capacity <= 100_000 and 1e-6 <= self.error <= 0.5):
            raise DefinitionError(
                "a set has a capacity from 1 to 100,000 and an error from 1e-6 to 0.5",
                got=f"capacity={self.capacity!r}, error={self.error!r}", remedy="write capacity=1000, error=0.01",
            )  # fmt: skip

    @cached_property
    def _words(self) -> int:
        return math.ceil(self.capacity * -math.log(self.error) / math.log(2.0) ** 2 / 64)

    @cached_property
    def _hashes(self) -> int:
        return max(1, round(-math.log2(self.error)))

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(("<u8", (self._words,)))

    def empty(self, n: int) -> Array:
        return np.zeros((n, self._words), np.uint64)

    def _bits(self, values: Array) -> NDArray[np.int64]:
        """The bits of each value, along a new last axis."""
        first = mix(values.astype(np.int64).view(np.uint64))
        second = mix(first) | np.uint64(1)
        bits = first[..., None] + second[..., None] * np.arange(self._hashes, dtype=np.uint64)
        return (bits % np.uint64(64 * self._words)).astype(np.int64)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(values)))

    def merge(self, a: Array, b: Array) -> Array:
        return np.asarray(a | b)

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.bitwise_or.reduceat(states, starts.astype(np.intp), axis=0) if len(starts) else self.empty(0)

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        states = self.empty(len(starts))
        bits, owner = self._bits(values), run_of(starts, len(values))[:, None]
        np.bitwise_or.at(states, (owner, bits >> 6), np.uint64(1) << (bits & 63).astype(np.uint64))
        return states

    def contains(self, states: Array, values: Array) -> NDArray[np.bool_]:
        """Whether each of some values (n, k), codes for a text field, was there for each state (n,)."""
        bits = self._bits(np.asarray(values))
        if bits.ndim != 3 or len(bits) != len(states):
            raise DefinitionError(
                "each state is asked for as many values as the others: (states, values)",
                got=f"{len(states)} states and values {np.shape(values)}", remedy="give one row of values a state",
            )  # fmt: skip
        words = states[np.arange(len(states))[:, None, None], bits >> 6]
        return np.asarray((words >> (bits & 63).astype(np.uint64) & np.uint64(1)).all(axis=-1))

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        size = 64 * self._words
        unset = size - np.bitwise_count(states).sum(axis=1, dtype=np.int64)
        return np.asarray(size * _coupons(size)[np.maximum(unset, 1)] / self._hashes)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        size, found = 64 * self._words, set()
        for value, _, _ in events:
            first = mix_plain(int(value) & MASK)
            second = mix_plain(first) | 1
            found |= {(first + i * second & MASK) % size for i in range(self._hashes)}
        draws = 0.0
        for left in range(size, max(size - len(found), 1), -1):
            draws += 1.0 / left
        return size * draws / self._hashes


def _alpha(m: int) -> float:
    return {16: 0.673, 32: 0.697, 64: 0.709}.get(m, 0.7213 / (1 + 1.079 / m))


@cache
def _coupons(m: int) -> NDArray[np.float64]:
    """At v: H(m) - H(v), the expected draws, over m, that leave v of m registers empty."""
    return np.append(np.cumsum(1.0 / np.arange(m, 0, -1))[::-1], 0.0)
