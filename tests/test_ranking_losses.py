"""Ranking losses equal their plain double loops, their slopes are derivatives, and weighted clicks are unbiased."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.learn.losses.ranking import LambdaPairwise, Lists, ListSoftmax, Pairwise, RankingLoss, objective
from penstock.registry import get, names

LOSSES: list[RankingLoss] = [
    Pairwise(), Pairwise(others="all"), LambdaPairwise(top=3), LambdaPairwise(top=3, others="all"),
    LambdaPairwise(top=3, normalised=True), ListSoftmax(),
]  # fmt: skip
EVERY = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def places(score: list[float]) -> list[int]:
    """Ranks from 1, equal scores in their order."""
    return [1 + sum(t > s or (t == s and j < i) for j, t in enumerate(score)) for i, s in enumerate(score)]


def plain(loss: RankingLoss, score: list[float], gain: list[float], weight: list[float]) -> float:
    """One list's loss, by its definition."""
    n = len(score)
    if isinstance(loss, ListSoftmax):
        whole = sum(math.exp(s) for s in score)
        return -sum(weight[i] * gain[i] * math.log(math.exp(score[i]) / whole) for i in range(n))
    assert isinstance(loss, Pairwise | LambdaPairwise)
    total = 0.0
    for i in range(n):
        for j in range(n):
            if i == j or (loss.others == "lower" and gain[i] <= gain[j]):
                continue
            worth = weight[i] * (gain[i] - gain[j] if loss.others == "lower" else gain[i])
            if isinstance(loss, LambdaPairwise):
                rate = [1 / math.log2(1 + p) if p <= loss.top else 0.0 for p in places(score)]
                worth *= abs(rate[i] - rate[j])
                if loss.normalised:
                    best = sum(g / math.log2(k + 2) for k, g in enumerate(sorted(gain, reverse=True)[: loss.top]))
                    worth *= 1 / best if best > 0 else 0.0
            total += worth * math.log1p(math.exp(score[j] - score[i]))
    return total


def draw(seed: int, lists: int = 6, ties: bool = False) -> tuple[np.ndarray, Lists]:
    rng = np.random.default_rng(seed)
    groups = rng.integers(1, 7, lists)
    n = int(groups.sum())
    gain = rng.choice([0.0, 0.0, 0.0, 0.3, 1.0, 3.0], n)
    score = rng.integers(0, 3, n).astype(float) if ties else rng.permutation(n) * 0.4 - 0.2 * n
    return score, Lists(gain, groups, rng.uniform(1, 9, n))


@EVERY
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
def test_each_list_has_the_loss_of_a_double_loop(loss: RankingLoss, seed: int, ties: bool) -> None:
    """Whatever the sizes of the lists, their gains, weights and equal scores."""
    score, lists = draw(seed, ties=ties)
    assert lists.weight is not None
    found = loss.value(score, lists)
    for r, (a, b) in enumerate(pairwise(np.r_[0, np.cumsum(lists.groups)].tolist())):
        want = plain(loss, score[a:b].tolist(), lists.gain[a:b].tolist(), lists.weight[a:b].tolist())
        assert found[r] == pytest.approx(want, rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), long=st.sampled_from([0, 100]))
def test_places_are_counted_within_each_list(seed: int, long: int) -> None:
    """Lists of like lengths and one that is far longer than the rest: the number of better rows, ties by order."""
    rng = np.random.default_rng(seed)
    groups = np.r_[rng.integers(1, 7, 6), rng.integers(1, 3) + long]
    score = rng.integers(0, 4, groups.sum()).astype(float)
    found = Lists(np.zeros(len(score)), groups).places(score)
    for a, b in pairwise(np.r_[0, np.cumsum(groups)].tolist()):
        assert (found[a:b] + 1).tolist() == places(score[a:b].tolist())


@EVERY
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_slopes_are_the_derivatives_of_the_loss(loss: RankingLoss, seed: int) -> None:
    """Gradient and Hessian's diagonal agree with central differences to 1e-5 where no two scores are equal."""
    score, lists = draw(seed)
    gradient, curvature = loss.slopes(score, lists)

    for i in range(len(score)):
        step = np.zeros(len(score))
        step[i] = 1e-5
        up, down = score + step, score - step
        slope = (loss.value(up, lists).sum() - loss.value(down, lists).sum()) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-5)
        bend = (loss.slopes(up, lists)[0][i] - loss.slopes(down, lists)[0][i]) / 2e-5
        assert curvature[i] == pytest.approx(bend, rel=1e-5, abs=1e-5)


@EVERY
def test_extreme_scores_neither_overflow_nor_lose_the_gradient(loss: RankingLoss) -> None:
    """Scores a thousand apart give finite numbers, and a wrongly ordered pair its whole pull."""
    lists = Lists(np.array([1.0, 0.0]), np.array([2]))
    with np.errstate(over="raise", invalid="raise"):
        gradient, curvature = loss.slopes(np.array([-1000.0, 1000.0]), lists)
        assert np.isfinite(loss.value(np.array([-1000.0, 1000.0]), lists)).all()
    assert gradient[0] == -gradient[1] < -0.3
    assert np.isfinite(curvature).all()


@pytest.mark.parametrize("loss", [Pairwise(others="all"), ListSoftmax()], ids=repr)
def test_clicks_weighed_by_inverse_propensity_have_the_loss_of_the_true_relevance(loss: RankingLoss) -> None:
    """Averaged over all outcomes of four looked-at rows, each by its probability; without weights it is another."""
    look, relevant = np.array([1.0, 0.5, 0.3, 0.2]), np.array([0.2, 0.9, 0.5, 0.4])
    score, groups = np.array([0.3, -0.5, 1.0, 0.0]), np.array([4])
    weighed = naive = 0.0
    for number in range(16):
        click = np.array([number >> i & 1 for i in range(4)], float)
        chance = np.prod(np.where(click == 1, look * relevant, 1 - look * relevant))
        weighed += chance * loss.value(score, Lists(click, groups, 1 / look))[0]
        naive += chance * loss.value(score, Lists(click, groups))[0]
    truth = loss.value(score, Lists(relevant, groups))[0]
    assert weighed == pytest.approx(truth, rel=1e-12)
    assert abs(naive - truth) > 0.2 * truth


@pytest.mark.parametrize("loss", [Pairwise(others="all"), ListSoftmax()], ids=repr)
def test_showings_of_a_list_may_be_added_up(loss: RankingLoss) -> None:
    """Three showings as three lists pull as one list with the sums of their weighted gains does."""
    rng = np.random.default_rng(3)
    score, clicks, weight = rng.normal(size=5), rng.integers(0, 2, (3, 5)).astype(float), rng.uniform(1, 4, (3, 5))
    apart = loss.slopes(np.tile(score, 3), Lists(clicks.ravel(), np.full(3, 5), weight.ravel()))
    at_once = loss.slopes(score, Lists((clicks * weight).sum(0), np.array([5])))
    for one, other in zip(apart, at_once, strict=True):
        np.testing.assert_allclose(one.reshape(3, 5).sum(0), other, rtol=1e-12, atol=1e-12)


@EVERY
def test_lightgbm_learns_with_each_loss_as_its_objective(loss: RankingLoss) -> None:
    """A hundred lists whose relevance is one of three columns are put almost in that column's order."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(1_000, 3)).astype(np.float32)
    lists = Lists(np.where(rows[:, 1] > 0.5, 1.0, 0.0), np.full(100, 10))
    data = lightgbm.Dataset(rows, lists.gain)
    settings = {"objective": objective(loss, lists), "min_data_in_leaf": 20, "verbose": -1, "num_threads": 1}
    score = np.asarray(lightgbm.train(settings, data, 20).predict(rows))
    above = [score[p] > score[o] for p, o in zip(lists.lower.first, lists.lower.other, strict=True)]
    assert np.mean(above) > 0.98


def test_a_curvature_that_vanishes_is_kept_above_nothing() -> None:
    """Lists without gain have no curvature, which LightGBM would divide by."""
    lists = Lists(np.zeros(4), np.array([4]))
    gradient, curvature = objective(Pairwise(), lists)(np.zeros(4), None)
    assert gradient.tolist() == [0, 0, 0, 0]
    assert (curvature > 0).all()


def test_no_rows_have_no_loss() -> None:
    """An empty set of lists is answered with nothing, by every loss."""
    for loss in LOSSES:
        empty = Lists(np.zeros(0), np.zeros(0, np.int64))
        assert len(loss.value(np.zeros(0), empty)) == 0
        assert [len(part) for part in loss.slopes(np.zeros(0), empty)] == [0, 0]


def test_every_registered_ranking_loss_is_held_to_its_plain_form() -> None:
    """A new class joins LOSSES, or this fails."""
    assert {get("ranking_loss", name) for name in names("ranking_loss")} == {type(loss) for loss in LOSSES}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lists(np.zeros(3), np.array([2])), "3 gains, 3 weights, 1 lists of 2 rows"),
        (lambda: Lists(np.zeros(2), np.array([2, 0])), "every list has a row"),
        (lambda: Lists(np.ones(1), np.ones(1, np.int64), np.array([np.inf])), "finite"),
        (lambda: Pairwise(others="some"), "others='some'"),  # type: ignore[arg-type]
        (lambda: LambdaPairwise(top=0), "one place or more"),
    ],
)
def test_what_is_no_list_is_refused_with_the_rule(make: Callable[[], object], message: str) -> None:
    """Lengths, infinite weights and unknown options are named."""
    with pytest.raises(DefinitionError, match=message):
        make()
