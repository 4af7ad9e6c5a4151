"""Variance is exact whatever the size of the values, a quantile keeps its declared error, a rate keeps to its prior."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.aggregates import Aggregate
from penstock.errors import DefinitionError


def value(aggregate: Aggregate, values: list[float]) -> float:
    time = np.zeros(len(values), np.int64)
    states = aggregate.collect(np.array(values), time, time.astype(np.uint64), np.zeros(min(1, len(values)), np.int64))
    return float(aggregate.value(states, np.zeros(1, np.int64))[0])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=2, max_size=40))
def test_variance_is_that_of_the_statistics_module(values: list[int]) -> None:
    """Which computes with fractions; also where the squares have 124 bits."""
    fractions = [Fraction(v) for v in values]
    assert value(ps.variance("x"), values) == pytest.approx(float(statistics.pvariance(fractions)), rel=1e-15)
    assert value(ps.variance("x", ddof=1), values) == pytest.approx(float(statistics.variance(fractions)), rel=1e-15)


def test_variance_far_from_zero_loses_nothing() -> None:
    """Where sums of squares in floating point would give anything but 2/3."""
    assert value(ps.variance("x"), [10**15, 10**15 + 1, 10**15 + 2]) == pytest.approx(2 / 3, rel=1e-15)
    assert math.isnan(value(ps.variance("x", ddof=1), [5]))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=60), st.floats(0, 1), st.sampled_from([0.01, 0.025, 0.2]))
def test_a_quantile_is_within_its_error(values: list[float], q: float, error: float) -> None:
    """Of the value of rank ⌈q n⌉."""
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    found = value(ps.quantile("x", q=q, error=error), values)
    assert abs(found - exact) <= error * exact * (1 + 1e-9)


def test_a_quantile_beyond_its_range_is_the_end_of_it() -> None:
    assert value(ps.median("x", least=10, most=100), [-5.0, 0.0, 3.0]) == 10
    assert value(ps.median("x", least=10, most=100), [1e9]) == 100


@pytest.mark.parametrize(
    "bad", [{"q": 1.1}, {"least": 0.0}, {"most": 0.5}, {"error": 0.0}, {"least": 1e-300, "error": 0.001}]
)
def test_a_quantile_that_cannot_be_kept_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match="0 < least < most"):
        ps.quantile("x", **bad)


def test_a_rate_counts_clicks_over_views_and_leans_on_its_prior() -> None:
    """Of three views and two clicks, in any app's own terms; without any event the prior alone."""
    rate = ps.rate(pl.col("kind") == "click", pl.col("kind") == "view", prior=0.05, strength=20)
    kinds = pl.DataFrame({"kind": ["view", "click", "view", None, "buy", "click", "view"]})
    column = kinds.select(rate.column).to_series().to_list()
    assert column == [1, 2, 1, 0, 0, 2, 1]
    assert value(rate, column) == pytest.approx((2 + 0.05 * 20) / (3 + 20))
    assert rate.value(rate.empty(1), np.zeros(1, np.int64)) == pytest.approx(0.05)
    plain = ps.rate(pl.col("kind") == "click", pl.col("kind") == "view")
    assert np.isnan(plain.value(plain.empty(1), np.zeros(1, np.int64)))
