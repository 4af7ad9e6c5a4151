"""Sessions and decayed sums over rings of slots are what one would count from the list of all events."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.aggregates import Aggregate
from penstock.clock import DAY, HOUR, MINUTE, SECOND, duration
from penstock.errors import DefinitionError, OverflowedError
from penstock.laws import Sample, check_aggregate

START = 1_700_000_000 * SECOND


def spread(seed: int, n: int, over: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """n times at random, many near each other, in any order."""
    random = np.random.default_rng(seed)
    return START + random.permutation(
        (random.integers(0, over, n) // (10 * MINUTE) * 10 * MINUTE) + random.integers(0, 3 * MINUTE, n)
    )


def valued(aggregate: Aggregate, values: Any, time: Any, now: int, parts: int = 5) -> float:
    """The value of states of some parts of the events, merged backwards."""
    tie = np.arange(len(time), dtype=np.uint64)
    state = aggregate.empty(1)
    for at in reversed(np.array_split(np.arange(len(time)), parts)):
        if len(at):
            state = aggregate.merge(state, aggregate.collect(values[at], time[at], tie[at], np.zeros(1, np.int64)))
    return float(aggregate.served(state, np.array([now]))[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    aggregate=st.sampled_from(
        [
            ps.sessions(gap="10min", span="6h"),
            ps.session_length(gap="10min", span="1d"),
            ps.sessions(gap="2min", span="2d"),
            ps.session_length(gap="1h", span="1h"),
            ps.decayed_count(half_life="1h"),
            ps.decayed_count(half_life="5min"),
            ps.decayed_sum("price", half_life="1d"),
        ]
    ),
)
def test_rings_that_turn_obey_every_law(seed: int, n: int, aggregate: Aggregate) -> None:
    """Streams of two days, much longer than some rings: slots are taken over in whatever order events come."""
    time = spread(seed, n, 2 * DAY)
    tie = np.random.default_rng(seed).permutation(n).astype(np.uint64)
    check_aggregate(
        aggregate, Sample(tie.astype(np.int64) - 20, time, tie, int(time.max()) + seed * SECOND, cuts=[n // 3, n // 2])
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 80), gap=st.sampled_from(["1min", "10min", "1h"]))
def test_sessions_are_cut_where_nothing_happens_for_longer_than_the_gap(seed: int, n: int, gap: str) -> None:
    time = spread(seed, n, DAY)
    ordered = np.sort(time)
    apart = np.diff(ordered) > duration(gap)
    ends, starts = ordered[np.append(apart, True)], ordered[np.append(True, apart)]
    now = int(ordered[-1]) + seed
    assert valued(ps.sessions(gap=gap, span="2d"), time, time, now) == len(starts)
    mean = float((ends - starts).mean()) / SECOND
    assert valued(ps.session_length(gap=gap, span="2d"), time, time, now) == pytest.approx(mean, rel=1e-12)


def test_a_gap_that_is_just_reached_still_joins() -> None:
    aggregate, longer = ps.sessions(gap="10min", span="1d"), 10 * MINUTE + 1
    for step, count in ((10 * MINUTE, 1), (longer, 4)):
        time = START + np.arange(4) * step
        assert valued(aggregate, time, time, int(time[-1])) == count
        assert aggregate.plain([(0, at, 0) for at in time.tolist()], int(time[-1])) == count


def test_sessions_before_the_span_are_left_out() -> None:
    time = START + np.array([0, 3 * HOUR, 26 * HOUR])
    assert valued(ps.sessions(span="1d"), time, time, int(time[-1])) == 2
    assert valued(ps.sessions(span="1d"), time, time, START + 60 * HOUR) == 0
    assert math.isnan(valued(ps.session_length(span="1d"), time, time, START + 60 * HOUR))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 80), half_life=st.sampled_from(["5min", "1h", "6h", "30d"]))
def test_decayed_sums_are_within_their_bound_of_the_exact_exponential(seed: int, n: int, half_life: str) -> None:
    """The bound is of the sum of absolute values; what is passed over weighs less than a thousandth each."""
    random = np.random.default_rng(seed)
    time, values = spread(seed, n, DAY), random.integers(-10_000, 10_000, n)
    now = int(time.max()) + int(random.integers(0, HOUR))
    weights = np.exp2(-(now - time) / duration(half_life))
    for aggregate, each in (
        (ps.decayed_count(half_life=half_life), np.ones(n)),
        (ps.decayed_sum("price", half_life=half_life), values),
    ):
        found = valued(aggregate, values, time, now)
        bound = (np.abs(each) * np.where(weights > 2**-10, 0.003 * weights, 2**-10)).sum()
        assert abs(found - (each * weights).sum()) <= bound + 1e-9


def test_a_decayed_sum_of_floats_is_in_its_units() -> None:
    time = np.array([START])
    assert valued(ps.decayed_sum("weight", unit=0.5), np.array([2.6]), time, START) == pytest.approx(2.5, rel=0.003)
    with pytest.raises(DefinitionError, match="whole units of a declared size"):
        ps.running(ps.decayed_sum()).add(0.5)


def test_one_absurd_value_stops_nothing() -> None:
    """It counts as 2**62 units wherever in its slot it lies; the others are as they would be without it."""
    aggregate = ps.decayed_sum("weight", half_life="4s", unit=0.01)
    time = START + np.array([0, 250_000, 500_000, 999_999])
    tie = np.arange(4, dtype=np.uint64)
    states = aggregate.lift(np.array([1.0, 1e300, -1e300, 2.0]), time, tie)
    found = aggregate.value(states, time)
    assert found.tolist() == pytest.approx([1.0, 2**62 * 0.01, -(2**62) * 0.01, 2.0], rel=0.003)


def test_a_decayed_sum_too_large_is_refused_when_read() -> None:
    m = ps.running(ps.decayed_sum())
    for _ in range(4):
        m.add(2**62)
    with pytest.raises(OverflowedError, match="stays within 63 bits when it is read"):
        m.get()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ps.sessions(window="1d"), "says itself how far it looks back; got window='1d'"),
        (lambda: ps.decayed_count(window="1d"), "says itself how far it looks back"),
        (lambda: ps.sessions(gap="1s", span="2d"), "a span is at most 4,096 gaps long"),
        (lambda: ps.decayed_count(half_life="3s"), "a half-life is at least 4s"),
        (lambda: ps.sessions(gap="soon"), "soon"),
        (lambda: ps.sessions(gap="0.0001ms"), "slots of at least a microsecond"),
        (lambda: ps.histogram("price", edges=5), "finite edges in ascending order"),
        (lambda: ps.histogram("price", edges=("a",)), "finite edges in ascending order"),
        (lambda: ps.members("item", capacity=None), "a capacity from 1 to 100,000"),
        (lambda: ps.ratio("price", "views"), "a ratio is of two aggregates"),
        (lambda: ps.ratio(ps.count(), ps.sessions(), window="30d"), "look back equally far"),
        (lambda: ps.ratio(ps.count(), ps.sessions()), "look back equally far"),
        (lambda: ps.histogram("price"), "finite edges in ascending order"),
        (lambda: ps.histogram("price", edges=(2, 1)), "finite edges in ascending order"),
        (lambda: ps.histogram("price", edges=(1, math.inf)), "finite edges in ascending order"),
        (lambda: ps.members("item", capacity=0), "a capacity from 1 to 100,000"),
        (lambda: ps.members("item", error=0.9), "an error from 1e-6 to 0.5"),
        (lambda: ps.ratio(ps.count(window="1h"), ps.count()), "the window being its own"),
        (lambda: ps.ratio(ps.last("item"), ps.count()), "a number in any order"),
        (lambda: ps.ratio(ps.max_run(), ps.count()), "a number in any order"),
        (lambda: ps.ratio(ps.ratio(ps.count(), ps.count()), ps.count()), "a ratio is of two aggregates"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused_when_it_is_declared(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


def test_a_bloom_filter_finds_all_and_errs_as_often_as_declared() -> None:
    """At its capacity: nothing that was added is missed, and of 20,000 others about 1 % are taken for members."""
    random = np.random.default_rng(3)
    drawn = random.choice(2**31, 21_000, replace=False).astype(np.uint32)
    members, others = drawn[:1_000], drawn[1_000:]
    m = ps.members("item", capacity=1_000, error=0.01)
    time = np.zeros(1_000, np.int64)
    state = m.collect(members, time, time.astype(np.uint64), np.zeros(1, np.int64))
    assert m.contains(state, members[None, :]).all()
    assert 0.006 < m.contains(state, others[None, :]).mean() < 0.014
    assert float(m.value(state, time[:1])[0]) == pytest.approx(1_000, rel=0.05)
