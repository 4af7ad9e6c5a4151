"""The laws of aggregates as checks: run them on a class of your own before it counts anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates import Aggregate
from penstock.errors import DefinitionError
from penstock.types import Array


@dataclass(frozen=True, eq=False)
class Sample:
    """n events that an aggregate counts, and how to cut them.

    Attributes:
        values: (n,) in the column's own dtype, none missing; anything where the aggregate reads no column.
        time: (n,) int64 microseconds.
        tie: (n,) uint64, all different: the tie-break of events at the same time.
        now: when the value is asked, microseconds, not before any of them.
        cuts: positions at which the events are split.
    """

    values: Array
    time: NDArray[np.int64]
    tie: NDArray[np.uint64]
    now: int
    cuts: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.time)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each part of the split begins; no part is empty."""
        inner = {cut for cut in self.cuts if 0 < cut < len(self)}
        return np.array(sorted({0} | inner) if len(self) else [], np.int64)

    @cached_property
    def whole(self) -> NDArray[np.int64]:
        """The split into one part."""
        return np.zeros(min(len(self), 1), np.int64)

    def spans(self, starts: NDArray[np.int64]) -> list[tuple[int, int]]:
        """[start, end) of each part."""
        return list(zip(starts.tolist(), [*starts[1:].tolist(), len(self)], strict=False))

    def lifted(self, aggregate: Aggregate) -> Array:
        """One state an event."""
        return aggregate.lift(self.values, self.time, self.tie)

    def collected(self, aggregate: Aggregate, starts: NDArray[np.int64]) -> Array:
        """One state a part."""
        return aggregate.collect(self.values, self.time, self.tie, starts)

    def take(self, index: Array) -> Sample:
        """The events at `index`, in its order."""
        return Sample(self.values[index], self.time[index], self.tie[index], self.now, self.cuts)

    def with_values(self, values: Array) -> Sample:
        """The same events with other values."""
        return Sample(values, self.time, self.tie, self.now, self.cuts)

    def nows(self, states: Array) -> NDArray[np.int64]:
        """`now` for each of some states."""
        return np.full(len(states), self.now, np.int64)


def check_aggregate(aggregate: Aggregate, sample: Sample) -> None:
    """Checks that the kernel of `aggregate` obeys the algebra on these events, byte for byte.

    Every engine rests on these laws: they make any order, split and batching of a stream give the same bytes. Where
    order carries meaning (`commutative` is False) the events are sorted by (time, tie), and no other order is tried.

    Raises:
        DefinitionError: names the first law that is broken.

    >>> import penstock as ps
    >>> time = np.array([3, 1, 2])
    >>> check_aggregate(ps.sum("price"), Sample(np.array([250, 99, -5]), time, time.astype(np.uint64), now=9, cuts=[1]))
    """
    if not aggregate.commutative:
        sample = sample.take(np.lexsort((sample.tie, sample.time)))
    inputs = (sample.values, sample.time, sample.tie)
    before = [_bytes(column) for column in inputs]
    for law in LAWS:
        for a, b in law(aggregate, sample):
            if _bytes(a) != _bytes(b):
                raise DefinitionError(
                    f"{type(aggregate).__name__}: {law.__doc__}",
                    got=f"{_short(a)} and {_short(b)}",
                    remedy="make its kernel obey the law; Aggregate says what each method gives",
                )
    if before != [_bytes(column) for column in inputs]:
        raise DefinitionError(
            f"{type(aggregate).__name__}: the events are left as they were",
            got="other values after than before",
            remedy="copy before writing",
        )


Pairs = Iterable[tuple[Any, Any]]
Law = Callable[[Aggregate, Sample], Pairs]


def _fixed_width(aggregate: Aggregate, sample: Sample) -> Pairs:
    """its states are the fixed-width records that it declares, one a key"""
    dtype = aggregate.dtype
    for states, n in (
        (aggregate.empty(3), 3),
        (sample.lifted(aggregate), len(sample)),
        (sample.collected(aggregate, sample.starts), len(sample.starts)),
    ):
        yield (states.dtype, states.shape), (dtype.base, (n, *dtype.shape))


def _associative(aggregate: Aggregate, sample: Sample) -> Pairs:
    """merge is associative"""
    for a, b, c in _triples(aggregate, sample):
        yield aggregate.merge(aggregate.merge(a, b), c), aggregate.merge(a, aggregate.merge(b, c))


def _commutative(aggregate: Aggregate, sample: Sample) -> Pairs:
    """merge is commutative"""
    if not aggregate.commutative:
        return
    for a, b, _ in _triples(aggregate, sample):
        yield aggregate.merge(a, b), aggregate.merge(b, a)


def _neutral(aggregate: Aggregate, sample: Sample) -> Pairs:
    """merging with the empty state changes nothing"""
    for states, _, _ in _triples(aggregate, sample):
        empty = aggregate.empty(len(states))
        yield aggregate.merge(states, empty), states
        yield aggregate.merge(empty, states), states


def _untouched(aggregate: Aggregate, sample: Sample) -> Pairs:
    """no operation writes into the states that it is given"""
    for a, b, _ in _triples(aggregate, sample):
        kept = _bytes(a), _bytes(b)
        aggregate.merge(a, b)
        if len(a) == len(sample):
            aggregate.reduce(a, sample.starts)
            aggregate.scan(a, sample.starts)
        aggregate.served(a, sample.nows(a))
        yield (_bytes(a), _bytes(b)), kept


def _folds(aggregate: Aggregate, sample: Sample) -> Pairs:
    """reduce, collect and one merge after the other give the same"""
    states = sample.lifted(aggregate)
    for starts in (sample.starts, sample.whole, np.arange(len(sample))):
        one_by_one = [_folded(aggregate, states[start:end]) for start, end in sample.spans(starts)]
        folded = np.concatenate([aggregate.empty(0), *one_by_one])
        yield aggregate.reduce(states, starts), folded
        yield sample.collected(aggregate, starts), folded


def _running(aggregate: Aggregate, sample: Sample) -> Pairs:
    """scan gives, at each event, the reduction of its run so far"""
    states = sample.lifted(aggregate)
    running = aggregate.scan(states, sample.starts)
    for start, end in sample.spans(sample.starts):
        for i in range(start, end):
            yield running[i : i + 1], aggregate.reduce(states[start : i + 1], np.zeros(1, np.int64))


def _any_split(aggregate: Aggregate, sample: Sample) -> Pairs:
    """any split of the events, merged, gives what all at once give"""
    parts = sample.collected(aggregate, sample.starts)
    yield aggregate.reduce(parts, sample.whole), sample.collected(aggregate, sample.whole)


def _any_order(aggregate: Aggregate, sample: Sample) -> Pairs:
    """any order of the events gives the same"""
    if not aggregate.commutative:
        return
    wanted = sample.collected(aggregate, sample.whole)
    for order in (np.arange(len(sample))[::-1], np.lexsort((sample.tie, sample.time)), np.argsort(sample.tie)):
        yield sample.take(order).collected(aggregate, sample.whole), wanted


def _survives(aggregate: Aggregate, sample: Sample) -> Pairs:
    """a state read back from its bytes is the same and has the same value"""
    for states in (aggregate.empty(2), sample.collected(aggregate, sample.starts)):
        field = np.dtype([("state", aggregate.dtype)])
        again = np.frombuffer(states.tobytes(), field)["state"]
        yield again, states
        yield aggregate.served(again, sample.nows(again)), aggregate.served(states, sample.nows(states))
        yield aggregate.merge(again, again), aggregate.merge(states, states)


def _one_by_one_valued(aggregate: Aggregate, sample: Sample) -> Pairs:
    """a state's value does not depend on those beside it"""
    states = sample.collected(aggregate, sample.starts)
    values = aggregate.served(states, sample.nows(states))
    for i in range(len(states)):
        yield aggregate.served(states[i : i + 1], sample.nows(states[:1])), values[i : i + 1]


def _timeless(aggregate: Aggregate, sample: Sample) -> Pairs:
    """a value that is declared timeless is the same at any time"""
    if aggregate.timeless:
        states = sample.collected(aggregate, sample.starts)
        later = sample.nows(states) + 3_600_000_000
        yield aggregate.served(states, later), aggregate.served(states, sample.nows(states))


def _plain(aggregate: Aggregate, sample: Sample) -> Pairs:
    """its value is the one of its plain definition"""
    events = list(zip(sample.values.tolist(), sample.time.tolist(), sample.tie.tolist(), strict=True))
    dtype = np.dtype(np.uint32 if aggregate.is_list else np.float64)
    parts = [events[start:end] for starts in (sample.whole, sample.starts) for start, end in sample.spans(starts)]
    collected = [sample.collected(aggregate, starts) for starts in (sample.whole, sample.starts)]
    states = np.concatenate([aggregate.empty(1), *collected])
    values = aggregate.served(states, sample.nows(states))
    yield values.dtype, dtype
    for value, part in zip(values, [[], *parts], strict=True):
        wanted = aggregate.plain_served(part, sample.now)
        if isinstance(wanted, float) and math.isnan(wanted):
            yield bool(np.isnan(value)), True
        else:
            yield value, np.array(wanted, dtype)


def _finite(aggregate: Aggregate, sample: Sample) -> Pairs:
    """its value is a finite number, or missing"""
    if not aggregate.is_list:
        states = sample.collected(aggregate, sample.starts)
        yield bool(np.isinf(aggregate.served(states, sample.nows(states))).any()), False


def _within_its_bound(aggregate: Aggregate, sample: Sample) -> Pairs:
    """its value is as near to the exact one as it declares"""
    events = list(zip(sample.values.tolist(), sample.time.tolist(), sample.tie.tolist(), strict=True))
    declared = aggregate.exact(events, sample.now)
    if declared is not None and len(sample):
        exact, off = declared
        states = sample.collected(aggregate, sample.whole)
        value = float(aggregate.value(states, sample.nows(states))[0])
        # Floats, the exact one's among them, are rounded.
        yield abs(value - exact) <= off + 1e-9 * max(abs(exact), off, 1.0), True


def _filled(aggregate: Aggregate, sample: Sample) -> Pairs:
    """where time alone chooses, states of the events' places, filled with their values, are those of the values"""
    if aggregate.choice is not None:
        places = sample.with_values(np.arange(1, len(sample) + 1, dtype=np.uint32))
        states = places.collected(aggregate, sample.starts)
        yield aggregate.filled(states, sample.values), sample.collected(aggregate, sample.starts)


LAWS: tuple[Law, ...] = (
    _fixed_width, _untouched, _associative, _commutative, _neutral, _folds, _running, _any_split, _any_order,
    _survives, _one_by_one_valued, _timeless, _finite, _plain, _within_its_bound, _filled,
)  # fmt: skip


def _triples(aggregate: Aggregate, sample: Sample) -> Iterable[tuple[Array, Array, Array]]:
    """States of single events and of many, each beside two others."""
    lifted = sample.lifted(aggregate)
    for states in (lifted, aggregate.scan(lifted, sample.whole), sample.collected(aggregate, sample.starts)):
        yield states, np.roll(states, 1, axis=0), np.roll(states, 2, axis=0)


def _folded(aggregate: Aggregate, states: Array) -> Array:
    out = aggregate.empty(1)
    for i in range(len(states)):
        out = aggregate.merge(out, states[i : i + 1])
    return out


def _bytes(value: Any) -> Any:
    return (value.shape, value.tobytes()) if isinstance(value, np.ndarray | np.generic) else value


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 200 else text[:199] + "…"
