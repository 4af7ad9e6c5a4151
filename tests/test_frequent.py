"""Frequent values are found as often as promised, and their counts lie within the bounds, always."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.aggregates.frequent import Bounds, Frequent
from penstock.types import Array


def state_of(frequent: Frequent, codes: Array) -> Array:
    at = np.arange(len(codes))
    return frequent.collect(codes.astype(np.uint32), at, at.astype(np.uint64), np.zeros(1, np.int64))


def check_bounds(codes: Array, bounds: Bounds) -> None:
    for code, low, high in zip(bounds.codes[0], bounds.lower[0], bounds.upper[0], strict=True):
        if code:
            assert low <= np.sum(codes == code) <= high


@settings(max_examples=100, deadline=None, derandomize=True)
@given(codes=st.lists(st.integers(1, 40) | st.integers(1, 2**32 - 1), min_size=1, max_size=200))
def test_a_count_lies_within_its_bounds_whatever_is_counted(codes: list[int]) -> None:
    """For certain, not with some probability; and up to the capacity both are the count."""
    frequent, values = ps.frequent("item", k=8, capacity=8), np.array(codes)
    bounds = frequent.bounds(state_of(frequent, values))
    check_bounds(values, bounds)
    if len(set(codes)) <= 8:
        assert (bounds.lower == bounds.upper).all()
        assert set(bounds.codes[0].tolist()) - {0} == set(codes)


def test_what_is_frequent_is_found_as_often_as_promised() -> None:
    """Of values with 6.5 % of the events each, a little more than 4 / 64, at most one in 256 is missed."""
    frequent, missed = ps.frequent("item", k=12, capacity=64), 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        hot = random.choice(2**32 - 2, 8, replace=False) + 1
        rare = random.choice(2**32 - 2, 4_000, replace=False) + 1
        codes = np.concatenate([np.repeat(hot, 6_500), np.repeat(rare, 12)])
        bounds = frequent.bounds(state_of(frequent, codes))
        check_bounds(codes, bounds)
        missed += len(set(hot.tolist()) - set(bounds.codes[0].tolist()))
    assert 6_500 / len(codes) > 4 / 64
    assert missed <= 4  # 320 / 256 are expected at worst


def test_the_most_frequent_of_many_come_first() -> None:
    """Zipf's law over 5,000 values, in a state for 256: the first five in their order, with their counts close by."""
    frequent = ps.frequent("item", k=5, capacity=256)
    random = np.random.default_rng(7)
    weights = 1 / np.arange(1, 5_001)
    codes = 1_000 + random.choice(5_000, 200_000, p=weights / weights.sum())
    bounds = frequent.bounds(state_of(frequent, codes))
    assert bounds.codes[0].tolist() == [1_000, 1_001, 1_002, 1_003, 1_004]
    count = np.bincount(codes)[1_000:1_005]
    assert (np.abs(bounds.upper[0] - count) <= 2 / 256 * len(codes)).all()


def test_a_count_that_cannot_be_kept_is_not_told() -> None:
    """Past 2**32 - 1 a cell says nothing: merged again and again, its bound is that number and no lie."""
    frequent = ps.frequent("item", k=1, capacity=1)
    state = state_of(frequent, np.array([5, 6, 5]))
    for _ in range(40):
        state = frequent.merge(state, state)
    assert (state["cells"][..., 0] == 2**32 - 1).all()
    assert state["cells"].dtype == np.uint32
    assert frequent.value(state, np.zeros(1, np.int64)).tolist() == [[0]]
