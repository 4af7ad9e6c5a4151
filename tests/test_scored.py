"""The area under the curve is scikit-learn's, exactly or within a stated bound, and so are log loss and calibration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss, roc_auc_score

import penstock as ps
from penstock.errors import PenstockError
from penstock.features import View
from penstock.features.plan import Plan
from penstock.types import MISSING_INT, Field, Rows, Schema

SCORES = st.floats(-1e9, 1e9) | st.sampled_from([0.0, -0.0, 0.5, 1.0])
CHANCES = st.floats(0, 1) | st.sampled_from([0.0, 0.25, 0.5, 1.0])


def pairs_of(score: st.SearchStrategy[float], size: int = 60) -> st.SearchStrategy[list[tuple[int, float]]]:
    """Labels and scores with both classes among them."""
    some = st.lists(st.tuples(st.integers(0, 1), score), min_size=2, max_size=size)
    return some.filter(lambda pairs: 0 < sum(label for label, _ in pairs) < len(pairs))


def of_all(aggregate: Any, pairs: list[tuple[int, float]]) -> float:
    running = ps.running(aggregate)
    for label, score in pairs:
        running.add(ps.scored(label, score))
    return float(running.get())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(pairs=pairs_of(SCORES))
def test_the_area_is_that_of_scikit_learn(pairs: list[tuple[int, float]]) -> None:
    """On any scores, many of them tied, given as lists or as arrays of any type."""
    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    area = ps.roc_auc(labels, scores)
    assert math.isclose(area, roc_auc_score(labels, scores), abs_tol=1e-12)
    assert area == ps.roc_auc(np.array(labels, bool), np.array(scores)) == ps.roc_auc(pl.Series(labels), scores)
    assert math.isclose(area, 1 - ps.roc_auc(1 - np.array(labels), scores), abs_tol=1e-15)


@given(pairs_of(SCORES).filter(lambda pairs: len({label for label, _ in pairs}) == 2), st.data())
def test_the_weighted_area_is_that_of_scikit_learn(pairs: list[tuple[int, float]], data: st.DataObject) -> None:
    """Each row counting for any number of rows."""
    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    weight = data.draw(st.lists(st.floats(0.1, 50), min_size=len(pairs), max_size=len(pairs)))
    wanted = roc_auc_score(labels, scores, sample_weight=weight)
    assert math.isclose(ps.roc_auc(labels, scores, weight), wanted, abs_tol=1e-9)


def test_the_area_says_nothing_where_a_class_is_absent() -> None:
    assert [ps.roc_auc([1, 1], [0.1, 0.2]), ps.roc_auc([0], [3]), ps.roc_auc([], [])] == [0.5, 0.5, 0.5]


def test_integers_too_large_for_a_float_are_told_apart() -> None:
    assert ps.roc_auc([0, 1], [2**53, 2**53 + 1]) == 1.0


REFUSED: dict[str, tuple[Any, Any, str]] = {
    "lengths": ([0, 1], [0.5], r"a score for each label; got 2 labels and 1 scores; pass"),
    "a missing score": (
        [0, 1, 1],
        [0.5, math.nan, 1.0],
        r"scores are numbers; got NaN in 1 places .* first in 1",
    ),
    "other labels": ([1, 2], [0.5, 0.5], r"labels are 0 or 1; got y_true with 2; compare"),
    "a missing label": ([1.0, math.nan], [0.5, 0.5], r"labels are 0 or 1; got y_true with nan"),
    "texts": (["yes", "no"], [0.5, 0.5], r"y_true is a list of numbers; got an array of <U3, 1 dim"),
    "a missing number": ([0, 1], [None, 0.5], r"scores are numbers; got NaN"),
    "a table": ([0, 1], [[0.5, 0.5], [0.1, 0.9]], r"y_score is a list of numbers; got an array of float64, 2 dim"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_area_is_refused_with_rule_offence_and_remedy(case: str) -> None:
    labels, scores, said = REFUSED[case]
    with pytest.raises(PenstockError, match=said) as caught:
        ps.roc_auc(labels, scores)
    assert caught.value.remedy


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pairs=pairs_of(CHANCES), bins=st.sampled_from([1, 2, 10, 64]))
def test_the_binned_area_is_within_its_bound(pairs: list[tuple[int, float]], bins: int) -> None:
    """Half of the share of pairs (positive, negative) in one bin, and no more."""
    pairs = [(label, (score + 4) - 4) for label, score in pairs]  # as `scored` rounds them
    place = [min(int(score * bins), bins - 1) for _, score in pairs]
    positive = np.bincount([p for p, (label, _) in zip(place, pairs, strict=True) if label], minlength=bins)
    negative = np.bincount([p for p, (label, _) in zip(place, pairs, strict=True) if not label], minlength=bins)
    bound = (positive * negative).sum() / positive.sum() / negative.sum() / 2
    labels, scores = [label for label, _ in pairs], [score for _, score in pairs]
    assert abs(of_all(ps.auc(bins=bins), pairs) - ps.roc_auc(labels, scores)) <= bound + 1e-12


@pytest.mark.parametrize("score", [0.1, 0.3, 0.7, 0.9, 1e-17, 1 / 3])
def test_equal_scores_of_either_label_are_tied(score: float) -> None:
    """Being put beside its label moves no score into another bin."""
    assert of_all(ps.auc(bins=10), [(1, score), (0, score)]) == 0.5


@settings(max_examples=200, deadline=None, derandomize=True)
@given(pairs=pairs_of(CHANCES))
def test_log_loss_is_that_of_scikit_learn(pairs: list[tuple[int, float]]) -> None:
    """Within its millionth of a nat, of scores clipped as it says."""
    labels = [label for label, _ in pairs]
    clipped = np.clip([score for _, score in pairs], 1e-9, 1 - 1e-9)
    assert math.isclose(of_all(ps.log_loss(), pairs), log_loss(labels, clipped), abs_tol=1e-6)


def test_calibration_error_is_the_weighted_gap_of_scikit_learns_curve() -> None:
    random = np.random.default_rng(5)
    scores = random.random(3_000)
    labels = (random.random(3_000) < scores**1.5).astype(int)
    share, mean = calibration_curve(labels, scores, n_bins=10)
    weight = np.bincount(np.minimum((scores * 10).astype(int), 9), minlength=10) / len(scores)
    found = of_all(ps.calibration_error(), list(zip(labels.tolist(), scores.tolist(), strict=True)))
    assert math.isclose(found, float((weight * np.abs(share - mean)).sum()), abs_tol=1e-8)
    assert found > 0.05


def test_one_class_has_an_area_of_a_half() -> None:
    assert of_all(ps.auc(), [(1, 0.3), (1, 0.4)]) == 0.5


@pytest.mark.parametrize(("label", "score"), [(2, 0.5), (1, 1.5), (0, -0.1), (1, math.nan)])
def test_numbers_that_are_no_pair_are_refused(label: int, score: float) -> None:
    with pytest.raises(PenstockError, match=r"a label is 0 or 1, and a score between 0 and 1; got .*; scale"):
        ps.scored(label, score)


def test_a_view_reads_a_label_and_a_score_and_passes_over_what_is_neither() -> None:
    """Of bools, whole numbers and floats; what is missing or out of range is not counted."""
    columns = (Field("user", "text", True), Field("bought", "bool", True), Field("p", "float", True))
    schema = Schema("shown", columns)
    view = View("V", ("user",), {"auc": ps.auc(ps.scored("bought", "p"))}, schema)
    fields = np.array(
        [(1, 1, 0.9), (1, 0, 0.2), (1, MISSING_INT, 0.5), (1, 1, np.nan), (1, 1, 1.5), (1, 0, -0.5), (1, 1, 0.0)],
        schema.dtype,
    )
    at = np.arange(len(fields))
    rows = Rows("shown", at, at, at, at, at.astype(np.uint64), fields)
    given = Plan([view]).inputs(rows, None)[view.version, "auc"]  # type: ignore[arg-type]
    assert given.counts.tolist() == [True, True, False, False, False, False, True]
    assert given.values[given.counts].tolist() == [ps.scored(1, 0.9), ps.scored(0, 0.2), 2.0]
