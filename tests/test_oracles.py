"""What others compute of the same values: SciPy, river, and Apache DataSketches, each within its bound and ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import datasketches
import numpy as np
import pytest
import river.stats
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.aggregates import Aggregate, Running

WHOLE = st.lists(st.integers(-1_000_000, 1_000_000), min_size=2, max_size=60)


def kept(aggregate: Aggregate, values: Iterable[Any]) -> Running:
    """The aggregate of the values, added one at a time."""
    running = ps.running(aggregate)
    for value in values:
        running.add(value)
    return running


@pytest.mark.filterwarnings("ignore:Precision loss")  # SciPy says so of values that are all the same
@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=WHOLE)
def test_numbers_are_those_of_river_and_scipy(values: list[int]) -> None:
    """One value at a time against river, all at once against SciPy, to the rounding of floats."""
    for ours, theirs in (
        (ps.sum(), river.stats.Sum()),
        (ps.mean(), river.stats.Mean()),
        (ps.min(), river.stats.Min()),
        (ps.max(), river.stats.Max()),
        (ps.variance(ddof=1), river.stats.Var(ddof=1)),
    ):
        for value in values:
            theirs.update(value)
        assert kept(ours, values).get() == pytest.approx(theirs.get(), rel=1e-9, abs=1e-6)
    assert kept(ps.variance(ddof=1), values).get() == pytest.approx(scipy.stats.tvar(values), rel=1e-12, abs=1e-9)
    assert kept(ps.max_run(), values).get() == max(max(accumulate(values[first:])) for first in range(len(values)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(pairs=st.lists(st.tuples(st.booleans(), st.integers(0, 20)), min_size=2, max_size=60))
def test_the_area_under_the_curve_is_the_mann_whitney_statistic(pairs: list[tuple[bool, int]]) -> None:
    """SciPy's U over all pairs, ties with their average rank."""
    positive, negative = ([score for label, score in pairs if label is wanted] for wanted in (True, False))
    if positive and negative:
        u = scipy.stats.mannwhitneyu(positive, negative).statistic
        truth, score = zip(*pairs, strict=True)
        assert ps.roc_auc(truth, score) == pytest.approx(u / (len(positive) * len(negative)), rel=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    values=st.lists(st.integers(1, 1_000_000), min_size=1, max_size=80), q=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])
)
def test_a_quantile_is_within_its_error_of_the_empirical_one(values: list[int], q: float) -> None:
    exact = scipy.stats.ecdf(values).cdf.quantiles[
        int(np.argmax(scipy.stats.ecdf(values).cdf.probabilities >= q - 1e-12))
    ]
    assert kept(ps.quantile(q=q, error=0.02), values).get() == pytest.approx(exact, rel=0.02 + 1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=st.lists(st.integers(-50, 150), min_size=1, max_size=80))
def test_a_histogram_has_the_counts_of_numpy(values: list[int]) -> None:
    found = kept(ps.histogram(edges=(0, 10, 50, 100)), values)
    counts, _ = np.histogram(values, [-1_000, 0, 10, 50, 100, 1_000])
    assert found.aggregate.counts(found.state)[0].tolist() == counts.tolist()  # type: ignore[attr-defined]
    assert counts[int(found.get())] == counts.max()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(gaps=st.lists(st.integers(1, 4_000), min_size=1, max_size=40))
def test_sessions_are_the_runs_between_long_gaps(gaps: list[int]) -> None:
    times = [*accumulate([1_700_000_000, *gaps])]
    sessions, length = ps.running(ps.sessions(span="7d")), ps.running(ps.session_length(span="7d"))
    for time in times:
        sessions.add(time=time)
        length.add(time=time)
    long = [later - earlier > 1_800 for earlier, later in pairwise(times)]
    assert sessions.get() == 1 + sum(long)
    assert length.get() == pytest.approx(
        sum(gap for gap, cut in zip(gaps, long, strict=True) if not cut) / (1 + sum(long))
    )


@pytest.mark.parametrize("n", [10, 1_000, 50_000])
def test_distinct_counts_and_those_of_datasketches_are_within_their_bounds(n: int) -> None:
    """Four standard errors of ours; DataSketches' own bounds at three standard deviations."""
    values = np.random.default_rng(n).integers(0, 2**60, n)
    theirs = datasketches.hll_sketch(12)
    for value in values.tolist():
        theirs.update(value)
    ours = kept(ps.distinct(precision=12), values.tolist()).get()
    assert abs(ours - n) <= 4 * 1.04 / 64 * n
    assert theirs.get_lower_bound(3) <= n <= theirs.get_upper_bound(3)
    assert theirs.get_lower_bound(3) * (1 - 4 * 1.04 / 64) <= ours <= theirs.get_upper_bound(3) * (1 + 4 * 1.04 / 64)


def test_quantiles_and_those_of_datasketches_agree_in_rank() -> None:
    """KLL is right in rank and ours in value: what we give has about the rank that was asked for in theirs."""
    values = np.random.default_rng(1).lognormal(5, 2, 20_000)
    theirs = datasketches.kll_doubles_sketch(400)
    theirs.update(values)
    error = theirs.normalized_rank_error(False)
    for q in (0.1, 0.5, 0.9, 0.99):
        ours = kept(ps.quantile(q=q, least=0.01, most=1e9, error=0.01), values.tolist()).get()
        assert theirs.get_rank(ours / 1.01) - error <= q <= theirs.get_rank(ours * 1.01) + error


def test_frequent_values_and_those_of_datasketches_have_bounds_that_hold_the_truth() -> None:
    """What theirs is sure of is found by ours too, and each count lies between both pairs of bounds."""
    values = np.random.default_rng(2).zipf(1.3, 30_000)
    words = [f"w{value}" for value in np.minimum(values, 100_000).tolist()]
    exact = Counter(words)
    theirs = datasketches.frequent_strings_sketch(8)
    for word in words:
        theirs.update(word)
    found = kept(ps.frequent(k=10, capacity=256), words)
    sure = theirs.get_frequent_items(datasketches.frequent_items_error_type.NO_FALSE_POSITIVES)[:5]
    assert {word for word, *_ in sure} <= set(found.get())
    assert set(found.get()[:5]) <= {word for word, _ in exact.most_common(8)}
    bounds = found.aggregate.bounds(found.state)  # type: ignore[attr-defined]
    ours = dict(zip(Running.texts(bounds.codes[0]), zip(bounds.lower[0], bounds.upper[0], strict=True), strict=True))
    for word, _, low, high in sure:
        assert low <= exact[word] <= high
        assert ours[word][0] <= exact[word] <= ours[word][1]
