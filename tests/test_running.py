"""An aggregate by itself gives what its plain definition gives, whatever is merged, and says what it cannot take."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.aggregates import Running
from penstock.errors import OverflowedError, PenstockError


def filled(aggregate: Any, values: list[Any], times: list[Any] | None = None) -> Running:
    running = ps.running(aggregate)
    for i, value in enumerate(values):
        running.add(value, None if times is None else times[i])
    return running


def best_run(values: list[int]) -> float:
    """Kadane's problem by trying every run."""
    return float(max(max(accumulate(values[first:])) for first in range(len(values))))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(values=st.lists(st.integers(-(2**55), 2**55) | st.integers(-3, 3), min_size=1, max_size=40))
def test_the_best_run_is_that_of_trying_every_one(values: list[int]) -> None:
    assert filled(ps.max_run(), values).get() == best_run(values)


def test_a_series_of_losses_has_its_smallest_loss_as_best_run() -> None:
    assert filled(ps.max_run(), [-5, -2, -9]).get() == -2.0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(-9, 9), min_size=2, max_size=30), cuts=st.lists(st.integers(1, 29), max_size=3),
    timed=st.booleans(), left_first=st.booleans(),
)  # fmt: skip
def test_any_split_of_a_series_merges_to_the_same(
    values: list[int], cuts: list[int], timed: bool, left_first: bool
) -> None:
    """Parts give what the whole gives, in whatever grouping neighbours are merged."""
    edges = sorted({0, len(values)} | {cut for cut in cuts if cut < len(values)})
    times = [i / 4 for i in range(len(values))]
    parts = [filled(ps.max_run(), values[a:b], times[a:b] if timed else None) for a, b in pairwise(edges)]
    while len(parts) > 1:
        at = 0 if left_first else len(parts) - 2
        parts[at].merge(parts.pop(at + 1))
    assert parts[0].get() == best_run(values)
    assert len(parts[0]) == len(values)


def test_the_later_of_two_may_take_in_the_earlier() -> None:
    """With times the order is theirs, not that of the call; what overlaps is refused."""
    first, second = filled(ps.max_run(), [-3, 5], [1, 2]), filled(ps.max_run(), [4, -9], [3, 4])
    second.merge(first)
    assert second.get() == 9.0
    with pytest.raises(PenstockError, match=r"lies before or after it in time; got times that overlap by 2 s; split"):
        second.merge(filled(ps.max_run(), [1], [2]))
    assert second.get() == 9.0


def test_a_time_before_an_earlier_one_is_refused_where_order_carries_meaning() -> None:
    best = filled(ps.max_run(), [1, 2], [10, 20])
    with pytest.raises(
        PenstockError, match=r"in the order of their times; got time=15, 5 s before .*; sort the values"
    ):
        best.add(3, 15)
    assert (best.get(), len(best)) == (3.0, 2)
    newest = filled(ps.last(k=2), ["b", "a"], [datetime(2026, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)])
    assert newest.get() == ["b", "a"]


def test_more_values_than_wait_are_all_counted() -> None:
    values = [(i * 7919) % 2001 - 1000 for i in range(5_000)]
    best = filled(ps.max_run(), values)
    low, high = 0, -math.inf
    for total in accumulate(values):
        high, low = max(high, total - low), min(low, total)
    assert (best.get(), len(best)) == (float(high), 5_000)


def test_sums_beyond_64_bits_on_the_way_are_exact_and_refused_only_when_read() -> None:
    """The state is of 128 bits: a best run that fits is right whatever lies beside it."""
    big = 2**62
    assert filled(ps.max_run(), [-big, -big, -big, -big, 7, 8]).get() == 15.0
    beyond = filled(ps.max_run(), [big, big, big])
    with pytest.raises(OverflowedError, match="stays within 63 bits when it is read"):
        beyond.get()


@pytest.mark.parametrize(
    ("aggregate", "values", "wanted"),
    [
        (ps.count(), [None, None, None], 3.0),
        (ps.sum(), [1, 2.0, True], 4.0),
        (ps.sum(unit=0.5), [1, 2.5, -0.5], 3.0),
        (ps.mean(), [1, 2], 1.5),
        (ps.min(), [3, 2.5], 2.5),
        (ps.max(), [np.float64(3.5), np.int64(2), np.bool_(True)], 3.5),
        (ps.max_run(unit=0.25), [-1, 0.5, 2, -3], 2.5),
        (ps.max_run("gain"), [2.0, -1.0], 2.0),
        (ps.recency(), [None], 0.0),
        (ps.last(k=3), ["oak", "ash", "oak"], ["oak", "ash", "oak"]),
        (ps.latest(), ["oak", "ash"], ["ash"]),
        (ps.top_k(k=1), ["ash", "oak", "ash"], ["ash"]),
    ],
    ids=lambda x: type(x).__name__ if not isinstance(x, list | float) else "",
)
def test_every_kind_of_aggregate_works_by_itself(aggregate: Any, values: list[Any], wanted: Any) -> None:
    """Numbers, bools and texts are read as the aggregate reads them; floats are whole units where it adds."""
    assert filled(aggregate, values).get() == wanted


def test_texts_are_the_same_in_all_of_a_process() -> None:
    """What two counted separately can be merged."""
    one, two = filled(ps.top_k(k=2), ["x", "y", "y"]), filled(ps.top_k(k=2), ["z", "x", "x", "x"])
    one.merge(two)
    assert one.get() == ["x", "y"]
    assert two.get() == ["x", "z"]


def test_the_largest_whole_numbers_are_exact() -> None:
    assert filled(ps.distinct(precision=14), [2**63 - 1, 2**63 - 2, 1 - 2**63, 2.0**62]).get() > 3.9
    assert filled(ps.max_run(), [2**63 - 1, -(2**63) + 1, 5.0]).get() == float(2**63 - 1)


def test_recency_looks_at_the_moment_that_it_is_asked_for() -> None:
    assert filled(ps.recency(), [None], [100]).get(now=160.5) == 60.5


def merged(a: Running, b: Running) -> None:
    a.merge(b)


REFUSED = {
    "nothing added": (lambda: ps.running(ps.max_run()).get(), r"MaxRun has a value once something was added; got none"),
    "a window": (lambda: ps.running(ps.count(window="1h")), r"counts everything that is added; got window='1h'"),
    "a text where numbers are read": (
        lambda: filled(ps.max_run(), ["a"]),
        r"reads columns of kind int.*'value'",
    ),
    "no number": (lambda: filled(ps.sum(), [math.nan]), r"finite number, a bool or a text; got float nan; leave"),
    "nothing at all": (lambda: filled(ps.sum(), [None]), r"got NoneType None"),
    "floats without unit": (
        lambda: filled(ps.max_run(), [0.5]),
        r"whole units of a declared size; .*declare one",
    ),
    "a number too large": (lambda: filled(ps.sum(), [-(2**63)]), r"at most 63 bits; got one of 64; add it as a float"),
    "a number far too large": (lambda: filled(ps.max(), [10**400]), r"at most 63 bits; got one of 1329"),
    "a whole float too large": (lambda: filled(ps.sum(), [2.0**63]), r"of kind float"),
    "a bool as time": (lambda: filled(ps.sum(), [1], [True]), r"a datetime with a zone, or seconds .*; got True"),
    "a time too far": (lambda: filled(ps.sum(), [1], [2**43]), r"a datetime with a zone, or seconds"),
    "a unit of nothing": (lambda: filled(ps.max_run(unit=0.0), [0.5]), r"of a declared size; .*unit=0\.0; declare"),
    "a time of no zone": (lambda: filled(ps.sum(), [1], [datetime(2026, 1, 1)]), r"a datetime with a zone"),
    "times for some": (lambda: filled(ps.sum(), [1, 2], [5, None]), r"with every value or with none"),
    "two aggregates": (lambda: merged(filled(ps.last(k=1), ["a"]), filled(ps.last(k=2), ["a"])), r"keep the same"),
    "times beside none": (lambda: merged(filled(ps.sum(), [1]), filled(ps.sum(), [1], [5])), r"with every value or"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_take_is_refused_with_rule_and_offence(case: str) -> None:
    act, said = REFUSED[case]
    with pytest.raises(PenstockError, match=said) as caught:
        act()
    assert caught.value.remedy


def test_a_ratio_takes_a_pair_of_which_either_may_not_count() -> None:
    """Revenue over views: a view without a sale adds to one of the two alone."""
    m = ps.running(ps.ratio(ps.sum(), ps.count()))
    for price in (300, None, None, 50):
        m.add((price, 1))
    assert m.get() == 350 / 4
    other = ps.running(ps.ratio(ps.sum(), ps.count()))
    other.add((50, None))
    m.merge(other)
    assert m.get() == 400 / 4
    with pytest.raises(PenstockError, match=r"takes 2 values at a time.*got 3; write add\(\(250, 1\)\)"):
        m.add(3)


def test_a_set_tells_what_was_added() -> None:
    m = ps.running(ps.members())
    for word in ("oak", "ash"):
        m.add(word)
    assert [word in m for word in ("oak", "ash", "elm")] == [True, True, False]
    with pytest.raises(PenstockError, match="does not tell which values were added"):
        _ = "oak" in ps.running(ps.count())


def test_parts_of_a_ratio_have_no_filter_and_no_expression() -> None:
    """As of any running aggregate: what is added is what counts."""
    filtered = ps.ratio(ps.sum("price", where=pl.col("kind") == "buy"), ps.count())
    with pytest.raises(PenstockError, match="counts everything that is added"):
        ps.running(filtered)
    with pytest.raises(PenstockError, match="reads the values that are added"):
        ps.running(ps.ratio(ps.sum(pl.col("price") * 2), ps.count()))
    one, other = ps.running(ps.ratio(ps.sum("a"), ps.count())), ps.running(ps.ratio(ps.sum("b"), ps.count()))
    one.add((4, 1))
    other.add((2, 1))
    one.merge(other)
    assert one.get() == 3.0


def test_texts_and_numbers_are_not_mixed() -> None:
    """A text is a code inside, which a number must not be taken for; asking keeps nothing."""
    m = ps.running(ps.members())
    m.add("zebra")
    assert [asked in m for asked in ("zebra", 1, 1.5, "never added", True)] == [True, False, False, False, False]
    with pytest.raises(PenstockError, match="all text, or all numbers; got int beside text"):
        m.add(1)
    numbers = ps.running(ps.members())
    numbers.add(7)
    assert [asked in numbers for asked in (7, 7.0, 8, 7.5, "7")] == [True, True, False, False, False]
