"""Summaries of the recent past: a ring of slots of time, each of which a newer one takes over in its turn."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.runs import run_of
from penstock.aggregates.whole import WIDE, floats, floats_plain, narrowed, needs_unit, summed, whole, whole_plain
from penstock.clock import SECOND, duration
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array, Kind, Micros

_NEVER = -(2**62)  # the newest slot of no event
_MOST = 4_096


@dataclass(frozen=True, eq=False)
class _Ring(Aggregate):
    """The newest `slots` slots of time, of `width` microseconds each, slot i in place i mod `slots`.

    Which slots are kept depends on the newest event alone, and what a slot holds is merged by itself: any order and
    split gives the same bytes.
    """

    windowed: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise DefinitionError(
                f"{type(self).__name__} has slots of at least a microsecond", got=f"{self.width} µs",
                remedy="declare a longer time",
            )  # fmt: skip
        if self.window is not None:
            raise DefinitionError(
                f"{type(self).__name__} says itself how far it looks back",
                got=f"window={self.window!r}", remedy="leave window out",
            )  # fmt: skip

    @property
    @abstractmethod
    def width(self) -> Micros: ...

    @property
    @abstractmethod
    def slots(self) -> int: ...

    @property
    @abstractmethod
    def slot(self) -> np.dtype[Any]:
        """What is kept of one slot."""

    @abstractmethod
    def _unused(self, shape: tuple[int, ...]) -> Array:
        """Slots of no event."""

    @abstractmethod
    def _of(self, values: Array, time: NDArray[np.int64]) -> Array:
        """A slot an event."""

    @abstractmethod
    def _united(self, slots: Array, starts: NDArray[np.int64]) -> Array:
        """Each run of slots as one, along the first axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([("newest", "<i8"), ("slots", self.slot, (self.slots,))])

    def empty(self, n: int) -> Array:
        states = np.empty(n, self.dtype)
        states["newest"], states["slots"] = _NEVER, self._unused((n, self.slots))
        return states

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(time)))

    def merge(self, a: Array, b: Array) -> Array:
        n = len(a)
        both = np.empty(2 * n, self.dtype)
        both[0::2], both[1::2] = a, b
        return self.reduce(both, np.arange(0, 2 * n, 2))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        out = self.empty(len(starts))
        if len(starts):
            out["newest"] = newest = np.maximum.reduceat(states["newest"], starts.astype(np.intp))
            kept = self._numbers(states["newest"]) > (newest[run_of(starts, len(states))] - self.slots)[:, None]
            slots = np.where(kept, states["slots"], self._unused((1, 1)))
            out["slots"] = self._united(slots, starts)
        return out

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        out = self.empty(len(starts))
        if not len(starts):
            return out
        number, owner = time // self.width, run_of(starts, len(time))
        out["newest"] = newest = np.maximum.reduceat(number, starts.astype(np.intp))
        held = np.flatnonzero(number > newest[owner] - self.slots)
        place = owner[held] * self.slots + number[held] % self.slots
        order = held[np.argsort(place, kind="stable")]
        place = np.sort(place)
        first = np.flatnonzero(np.append(True, place[1:] != place[:-1]))
        owner, at = np.divmod(place[first], self.slots)
        out["slots"][owner, at] = self._united(self._of(values[order], time[order]), first)
        return out

    def _numbers(self, newest: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the slot in each place, (n, slots)."""
        last = newest[:, None]
        return np.asarray(last - (last - np.arange(self.slots)) % self.slots)

    def _aged(self, states: Array, now: NDArray[np.int64]) -> Array:
        """The slots of the ring that ends with the one of `now`, oldest first, (n, slots)."""
        newest = now // self.width
        ages = np.arange(self.slots - 1, -1, -1)
        place = (newest[:, None] - ages) % self.slots
        numbers = np.take_along_axis(self._numbers(states["newest"]), place, axis=1)
        slots = np.take_along_axis(states["slots"], place, axis=1)
        return np.where(numbers == newest[:, None] - ages, slots, self._unused((1, 1)))

    def _recent(self, events: Sequence[Event], now: int) -> list[Event]:
        """The events in the ring that ends with the slot of `now`, by time."""
        first = (now // self.width - self.slots + 1) * self.width
        return sorted((event for event in events if event[1] >= first), key=lambda event: event[1])


_SPAN = np.dtype([("first", "<i8"), ("last", "<i8")])


@dataclass(frozen=True, eq=False)
class _Visits(_Ring):
    """The first and the last time in each slot as wide as the gap: events in one slot are of one session."""

    gap: str = "30min"
    span: str = "1d"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= -(-duration(self.span) // self.width) <= _MOST:
            raise DefinitionError(
                f"a span is at most {_MOST:,} gaps long", got=f"gap={self.gap!r}, span={self.span!r}",
                remedy="declare a longer gap or a shorter span",
            )  # fmt: skip

    @property
    def width(self) -> Micros:
        return duration(self.gap)

    @property
    def slots(self) -> int:
        return -(-duration(self.span) // self.width) + 1

    @property
    def slot(self) -> np.dtype[Any]:
        return _SPAN

    def _unused(self, shape: tuple[int, ...]) -> Array:
        out = np.empty(shape, _SPAN)
        out["first"], out["last"] = -_NEVER, _NEVER
        return out

    def _of(self, values: Array, time: NDArray[np.int64]) -> Array:
        out = np.empty(len(time), _SPAN)
        out["first"] = out["last"] = time
        return out

    def _united(self, slots: Array, starts: NDArray[np.int64]) -> Array:
        at = starts.astype(np.intp)
        out = np.empty((len(starts), *slots.shape[1:]), _SPAN)
        out["first"] = np.minimum.reduceat(slots["first"], at)
        out["last"] = np.maximum.reduceat(slots["last"], at)
        return out

    def _sessions(self, states: Array, now: NDArray[np.int64]) -> tuple[Array, Array]:
        """How many there are, and how long they are together in microseconds."""
        slots = self._aged(states, now)
        first, last = slots["first"], slots["last"]
        before = np.full_like(last, _NEVER)
        before[:, 1:] = np.maximum.accumulate(last, axis=1)[:, :-1]
        used = last != _NEVER
        begins = used & (first - before > self.width)
        length = np.where(used, last - np.where(begins, first, before), 0)
        return begins.sum(axis=1), length.sum(axis=1)

    def _plain_sessions(self, events: Sequence[Event], now: int) -> list[list[int]]:
        sessions: list[list[int]] = []
        for _, time, _ in self._recent(events, now):
            if sessions and time - sessions[-1][-1] <= self.width:
                sessions[-1].append(time)
            else:
                sessions.append([time])
        return sessions


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Sessions(_Visits):
    """How many sessions: runs of events of which none is more than `gap` after the one before.

    State: 16 bytes a gap in the span and 24 more, 792 by default. Exact over the span, which is rounded up to whole
    gaps of the clock and one more; a session that begins before it counts from there. No event gives 0.

    Args:
        gap: how long nothing may happen within a session.
        span: how far back it looks, at most 4,096 gaps; it takes no window.

    >>> s, t = Sessions(gap="30min"), np.array([0, 20, 100]) * 60_000_000
    >>> s.value(s.collect(t, t, t.astype(np.uint64), np.array([0])), t[-1:])
    array([2.])
    """

    has_empty_value: ClassVar[bool] = True

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        count, _ = self._sessions(states, now)
        return count.astype(np.float64)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        return float(len(self._plain_sessions(events, now)))


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class SessionLength(_Visits):
    """How long sessions are in the mean, in seconds from their first to their last event.

    State, span and arguments are those of `Sessions`. A session of one event has length 0; no event gives NaN.

    >>> s, t = SessionLength(gap="30min"), np.array([0, 20, 100]) * 60_000_000
    >>> s.value(s.collect(t, t, t.astype(np.uint64), np.array([0])), t[-1:])  # 20 minutes and none
    array([600.])
    """

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        count, length = (part.astype(np.float64) for part in self._sessions(states, now))
        mean: Array = np.divide(length, count, out=np.full(len(states), np.nan), where=count > 0)
        return mean / SECOND

    def plain(self, events: Sequence[Event], now: int) -> Any:
        sessions = self._plain_sessions(events, now)
        length = sum(later - earlier for times in sessions for earlier, later in pairwise(times))
        return float(length) / float(len(sessions)) / SECOND if sessions else math.nan


_PER_LIFE, _LIVES, _PARTS = 4, 10, 256  # slots a half-life, half-lives that are kept, parts of a slot
_DECAYED = np.dtype([("total", WIDE), ("moment", WIDE)])
# Within a slot 2**-x as a line: through its slope in the middle, and as far below it there as above it at the ends.
_SLOPE = math.log(2.0) / (_PER_LIFE * _PARTS)
_LEVEL = 1.0 + (math.log(2.0) / _PER_LIFE) ** 2 / 16


@cache
def _weights() -> NDArray[np.float64]:
    """2**-i/1024 for i below 1,024, by square roots and products, which every processor rounds alike."""
    root = 0.5
    for _ in range((_PER_LIFE * _PARTS).bit_length() - 1):
        root = math.sqrt(root)
    return np.cumprod(np.append(1.0, np.full(_PER_LIFE * _PARTS - 1, root)))


@dataclass(frozen=True, eq=False)
class _Decayed(_Ring):
    """Of each slot the sum of its values, and their moment about its middle: weights are linear within a slot."""

    half_life: str = "1d"

    has_empty_value: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if duration(self.half_life) < _PER_LIFE * SECOND:
            raise DefinitionError(
                f"a half-life is at least {_PER_LIFE}s", got=f"half_life={self.half_life!r}", remedy="declare a longer"
            )

    @property
    def width(self) -> Micros:
        return duration(self.half_life) // _PER_LIFE

    @property
    def slots(self) -> int:
        return _PER_LIFE * _LIVES + 1

    @property
    def slot(self) -> np.dtype[Any]:
        return _DECAYED

    def _unused(self, shape: tuple[int, ...]) -> Array:
        return np.zeros(shape, _DECAYED)

    @property
    def _scale(self) -> float:
        """What one unit is worth."""
        return 1.0

    @abstractmethod
    def _each(self, values: Array) -> NDArray[np.int64]:
        """What each event adds, in units."""

    @abstractmethod
    def _each_plain(self, value: Any) -> int: ...

    def _of(self, values: Array, time: NDArray[np.int64]) -> Array:
        units = self._each(values)
        out = np.empty(len(units), _DECAYED)
        out["total"]["low"], out["total"]["high"] = units.view(np.uint64), units >> 63
        # 64 bits times 8, in halves of 32.
        off = time % self.width * _PARTS // self.width - _PARTS // 2
        low, high = (units & 0xFFFFFFFF) * off, (units >> 32) * off + ((units & 0xFFFFFFFF) * off >> 32)
        out["moment"]["low"] = (low & 0xFFFFFFFF).view(np.uint64) | (high << 32).view(np.uint64)
        out["moment"]["high"] = high >> 32
        return out

    def _united(self, slots: Array, starts: NDArray[np.int64]) -> Array:
        out = np.empty((len(starts), *slots.shape[1:]), _DECAYED)
        for name in ("total", "moment"):
            part = slots[name]
            out[name]["low"], out[name]["high"] = summed(part["low"], part["high"], starts)
        return out

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        slots = self._aged(states, now)
        total, moment = slots["total"], slots["moment"]
        units = narrowed(total["low"], total["high"], f"a slot's total of {self.column!r}").astype(np.float64)
        about = floats(moment["low"], moment["high"])
        ages = np.arange(self.slots - 1, -1, -1) * _PARTS - _PARTS // 2
        age = ages + (now % self.width * _PARTS // self.width)[:, None]
        lives, rest = np.divmod(age, _PER_LIFE * _PARTS)
        each = np.ldexp(_weights()[rest], -lives) * (_LEVEL * units + _SLOPE * about)
        # Added one after the other: a sum in pairs would depend on the processor.
        return np.asarray(np.cumsum(each, axis=1)[:, -1] * self._scale)

    def exact(self, events: Sequence[Event], now: int) -> tuple[float, float] | None:
        value = off = 0.0
        for each, time, _ in events:
            age = (now - time) / duration(self.half_life)
            part = self._each_plain(each) * self._scale * 2.0**-age
            value += part
            off += abs(part) * (0.003 if age < _LIVES else 1.0)
        return value, off

    def plain(self, events: Sequence[Event], now: int) -> Any:
        slots: dict[int, tuple[int, int]] = {}
        for value, time, _ in self._recent(events, now):
            number, inside = divmod(time, self.width)
            units, off = self._each_plain(value), inside * _PARTS // self.width - _PARTS // 2
            total, moment = slots.get(number, (0, 0))
            slots[number] = total + units, moment + units * off
        newest, inside = divmod(now, self.width)
        answer = 0.0
        for number, (total, moment) in sorted(slots.items()):
            age = (newest - number) * _PARTS + inside * _PARTS // self.width - _PARTS // 2
            lives, rest = divmod(age, _PER_LIFE * _PARTS)
            about = floats_plain(moment)
            answer += math.ldexp(float(_weights()[rest]), -lives) * (_LEVEL * float(total) + _SLOPE * about)
        return answer * self._scale


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class DecayedCount(_Decayed):
    """How many events, each weighing half as much with every `half_life` that goes by.

    State: 1,320 bytes, 41 slots of a quarter of the half-life; nothing decays in it, `value` weighs the slots. Within
    0.3 % of the exact exponential; events older than ten half-lives, which weigh less than a thousandth, are passed
    over. No event gives 0.

    Args:
        half_life: at least 4 s; it takes no window.

    Source: Cohen and Strauss, "Maintaining time-decaying stream aggregates" (2003), its sums in buckets of time.

    >>> d, t = DecayedCount(half_life="1h"), np.array([0, 3600, 7200]) * 1_000_000
    >>> d.value(d.collect(t, t, t.astype(np.uint64), np.array([0])), t[-1:]).round(2)  # 1/4 + 1/2 + 1
    array([1.75])
    """

    def _each(self, values: Array) -> NDArray[np.int64]:
        return np.ones(len(values), np.int64)

    def _each_plain(self, value: Any) -> int:
        return 1


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class DecayedSum(_Decayed):
    """The sum of values, each weighing half as much with every `half_life` that goes by.

    State, bound and source are those of `DecayedCount`; the bound is of the sum of absolute values.

    Args:
        half_life: at least 4 s; it takes no window.
        unit: floats are kept as whole numbers of this size; other values need none.

    >>> d, t = DecayedSum("price", half_life="1h"), np.array([0, 3600]) * 1_000_000
    >>> d.value(d.collect(np.array([400, 10]), t, t.astype(np.uint64), np.array([0])), t[-1:]).round()
    array([210.])
    """

    unit: float | None = None

    reads: ClassVar[tuple[Kind, ...]] = ("int", "money", "float", "bool")

    def check(self, kind: Kind) -> None:
        super().check(kind)
        if needs_unit(kind, self.unit):
            raise DefinitionError(
                "a sum of floats depends on their order, so it is kept in whole units of a declared size",
                got=f"{self.column!r} of kind float and unit={self.unit!r}",
                remedy='declare one, ps.decayed_sum("weight", unit=0.001), or make the field an int or Money',
            )

    @property
    def _scale(self) -> float:
        return self.unit or 1.0

    def _each(self, values: Array) -> NDArray[np.int64]:
        return whole(values, self.unit)

    def _each_plain(self, value: Any) -> int:
        return whole_plain(value, self.unit)
