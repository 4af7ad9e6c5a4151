"""Losses of one item among many, of several goals and of lists: slopes against differences, and what each is for."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.learn.autodiff import Tensor, concat, gradcheck, gradients, rows
from penstock.learn.losses import (
    CalibratedList,
    ChoiceLoss,
    ContrastiveMargin,
    Goals,
    SampledSoftmax,
    catalogue,
    chance,
    false_negatives,
    log_expected,
    loss_of,
    softmax_over,
    softmax_over_sample,
)

CHOICES = [SampledSoftmax(), SampledSoftmax(0.1), ContrastiveMargin(), ContrastiveMargin(0.1, 3.0)]
_STEP = 1e-5


def differences(value: Any, scores: Any) -> Any:
    """Central differences of a loss (n,) in its scores (n, m)."""
    out = np.zeros_like(scores)
    for at in np.ndindex(scores.shape):
        ends = []
        for side in (_STEP, -_STEP):
            moved = scores.copy()
            moved[at] += side
            ends.append(value(moved)[at[0]])
        out[at] = (ends[0] - ends[1]) / (2 * _STEP)
    return out


def close(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, atol=1e-5 * max(1.0, float(np.abs(wanted).max())))


@pytest.mark.parametrize("loss", CHOICES, ids=repr)
@given(st.integers(0, 10_000), st.booleans(), st.booleans())
def test_slopes_and_curvatures_are_derivatives(loss: ChoiceLoss, seed: int, drawn: bool, masked: bool) -> None:
    """First and second derivatives agree with differences to 1e-5, with `log_q` and `hidden` or without."""
    random = np.random.default_rng(seed)
    scores = random.uniform(-0.9, 0.9, (3, 5))
    scores[np.abs(scores - getattr(loss, "margin", 9.0)) < 1e-3] += 0.01  # where it has a corner
    target = random.integers(0, 5, 3)
    more = {
        "log_q": random.normal(size=5) if drawn else None,
        "hidden": random.random((3, 5)) < 0.3 if masked else None,
    }
    first, second = loss.slopes(scores, target, **more)
    close(first, differences(lambda s: loss.value(s, target, **more), scores))
    slope = np.stack([
        differences(lambda s, i=i: loss.slopes(s, target, **more)[0][:, i], scores)[:, i] for i in range(5)
    ], axis=1)  # fmt: skip
    close(second, slope)


def test_a_sample_with_its_correction_comes_to_the_full_softmax() -> None:
    """The mean gradient over samples drawn by popularity is near that over all items; without `log_q` it is not."""
    random = np.random.default_rng(0)
    m, k = 60, 400
    share = np.arange(1, m + 1) ** -1.0
    share /= share.sum()
    scores = random.normal(size=(1, m))
    full = SampledSoftmax().slopes(scores, np.array([5]))[0][0]

    def mean(corrected: bool) -> Any:
        total = np.zeros(m)
        for _ in range(600):
            drawn = random.choice(m, k, p=share)
            columns = np.r_[5, drawn]
            log_q = np.r_[0.0, log_expected(share[drawn], k)] if corrected else None
            hidden = np.r_[False, drawn == 5][None]
            slope = SampledSoftmax().slopes(scores[:, columns], np.array([0]), log_q=log_q, hidden=hidden)[0][0]
            np.add.at(total, columns, slope)
        return total / 600

    assert np.abs(mean(True) - full).max() < 0.01
    assert np.abs(mean(False) - full).max() > 0.05


def test_a_hidden_candidate_is_not_pushed() -> None:
    """What is right as well has no slope, and a target is never hidden."""
    for loss in CHOICES:
        hidden = np.array([[True, True, False]])
        slope = loss.slopes(np.full((1, 3), 0.6), np.array([0]), hidden=hidden)[0][0]
        assert np.sign(slope).tolist() == [-1.0, 0.0, 1.0]


def test_a_margin_stops_pushing_what_is_far() -> None:
    """A negative below the margin has no slope; one above has."""
    slope = ContrastiveMargin(margin=0.4).slopes(np.array([[0.9, 0.39, 0.41]]), np.array([0]))[0][0]
    assert slope.tolist() == [-1.0, 0.0, 0.5]


def test_false_negatives_are_found() -> None:
    """The same item, the same group, and what is listed as right; never a query's own place."""
    item, group = np.array([1, 2, 3, 2]), np.array([5, 5, 6, 7])
    wanted = [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert false_negatives(item, group).astype(int).tolist() == wanted
    also = np.array([[3, 0], [0, 0], [1, 2], [0, 0]])
    wanted = [[0, 0, 1, 0], [0, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]]
    assert false_negatives(item, also=also).astype(int).tolist() == wanted


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_softmax_over_a_catalogue_is_the_plain_one(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block it has the value and the gradients of a softmax over all items at once, to 1e-6."""
    monkeypatch.setattr(catalogue, "_BLOCK", 3)
    random = np.random.default_rng(1)
    query, table, target = random.normal(size=(8, 4)), random.normal(size=(6, 4)), random.integers(0, 6, 8)

    def plain(q: Any, t: Any) -> float:
        logits = 2.0 * q @ t.T
        sure = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(-((1 - smoothing) * sure[np.arange(8), target] + smoothing * sure.mean(axis=1)).mean())

    found = softmax_over(Tensor(query), Tensor(table), target, scale=2.0, smoothing=smoothing)
    assert float(found.value) == pytest.approx(plain(query, table), abs=1e-12)
    gradcheck(
        lambda q, t: softmax_over(q, t, target, scale=2.0, smoothing=smoothing), query, table, tolerance=1e-6
    )  # fmt: skip


def test_the_softmax_over_a_sample_is_the_sampled_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks it has value and gradients of `SampledSoftmax` over the same products, hits among the sample too."""
    monkeypatch.setattr(catalogue, "_BLOCK", 3)
    random = np.random.default_rng(4)
    target, drawn = random.integers(0, 6, 8), random.integers(0, 6, 10)
    table, query, log_q = random.normal(size=(6, 4)), random.normal(size=(8, 4)), random.normal(size=10)
    assert (drawn == target[:, None]).any()

    def found(q: Tensor, t: Tensor) -> Tensor:
        return softmax_over_sample(q, rows(t, target), rows(t, drawn), (target, drawn), log_q, scale=2.0)

    def plain(q: Tensor, t: Tensor) -> Tensor:
        own = (q * rows(t, target)).sum(axis=1, keepdims=True)
        scores = concat([own, q @ rows(t, drawn).T], axis=1) * 2.0
        hidden = np.concatenate([np.zeros((8, 1), bool), drawn == target[:, None]], axis=1)
        return loss_of(SampledSoftmax(), scores, np.zeros(8, np.int64), log_q=np.r_[0.0, log_q], hidden=hidden)

    one, other = Tensor(query), Tensor(table)
    assert float(found(one, other).value) == pytest.approx(float(plain(one, other).value), abs=1e-12)
    for a, b in zip(
        gradients(found(one, other), [one, other]), gradients(plain(one, other), [one, other]), strict=True
    ):
        np.testing.assert_allclose(*(g if isinstance(g, np.ndarray) else g.dense() for g in (a, b)), atol=1e-12)
    gradcheck(found, query, table, tolerance=1e-6)


def test_blocks_are_smaller_the_more_items_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 queries by 200,000 items, 51 MB of logits, no more than a few are in memory at once."""
    monkeypatch.setattr(catalogue, "_BYTES", 4 << 20)
    random = np.random.default_rng(1)
    query, table = (Tensor(random.normal(size=(n, 2)).astype(np.float32)) for n in (64, 200_000))
    at = np.arange(64)
    tracemalloc.start()
    try:
        softmax_over(query, table, at)
        softmax_over_sample(query, rows(table, at), table, (at, np.arange(200_000)), np.zeros(200_000))
        assert tracemalloc.get_traced_memory()[1] < 30 << 20
    finally:
        tracemalloc.stop()


def test_losses_weigh_rows_in_a_graph() -> None:
    """`loss_of` is the weighted mean, and its gradient that of differences."""
    random = np.random.default_rng(2)
    scores, target, weight = random.normal(size=(3, 4)), np.array([0, 3, 1]), np.array([1.0, 0.0, 2.0])
    gradcheck(lambda s: loss_of(SampledSoftmax(), s, target, weight=weight), scores, tolerance=1e-7)
    tensor = Tensor(scores)
    found = loss_of(SampledSoftmax(), tensor, target, weight=weight)
    each = SampledSoftmax().value(scores, target)
    assert float(found.value) == pytest.approx((each[0] + 2 * each[2]) / 3)
    assert not np.asarray(gradients(found, [tensor])[0])[1].any()


@given(st.integers(0, 10_000))
def test_slopes_of_goals_and_lists_are_derivatives(seed: int) -> None:
    """First derivatives agree with differences, second ones as well, with unknown labels and unfilled places."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(3, 4)) * 2
    labels = (random.random((3, 4)) < 0.4).astype(np.float64)
    goals = Goals({"a": 1.0, "b": 0.0, "c": 3.0, "d": 0.5})
    known = np.where(random.random((3, 4)) < 0.2, np.nan, labels)
    filled = random.random((3, 4)) < 0.8
    listed = CalibratedList(0.7)
    for value, slopes in (
        (lambda s: goals.value(s, known), lambda s: goals.slopes(s, known)),
        (lambda s: listed.value(s, labels, filled), lambda s: listed.slopes(s, labels, filled)),
    ):
        first, second = slopes(scores)
        close(first, differences(value, scores))
        for i in range(4):
            close(second[:, i], differences(lambda s, i=i, f=slopes: f(s)[0][:, i], scores)[:, i])


def test_chances_hold_beside_a_list_that_is_calibrated() -> None:
    """At the true chances the mean slope of either part is zero, where a softmax over scores pulls at them."""
    random = np.random.default_rng(3)
    true = np.array([0.02, 0.2, 0.5])
    scores = np.tile(np.log(true / (1 - true)), (200_000, 1))
    labels = (random.random(scores.shape) < true).astype(np.float64)
    filled = np.ones(scores.shape, bool)
    for share in (0.0, 1.0):
        assert np.abs(CalibratedList(share).slopes(scores, labels, filled)[0].mean(axis=0)).max() < 0.005
    softmax = np.exp(scores[0]) / np.exp(scores[0]).sum()
    assert np.abs(true.sum() * softmax - true).max() > 0.05


def test_worth_is_what_the_goals_weigh() -> None:
    """A buy of weight 10 at a chance of a half is worth 5."""
    assert Goals({"click": 1.0, "buy": 10.0}).worth(np.array([[-99.0, 0.0]])) == pytest.approx([5.0])
    assert chance(np.zeros(1)) == 0.5


def test_settings_that_mean_nothing_are_refused() -> None:
    """With a remedy each."""
    for wrong in (
        lambda: SampledSoftmax(0.0), lambda: ContrastiveMargin(1.5), lambda: Goals({}), lambda: Goals({"a": -1.0}),
        lambda: CalibratedList(2.0),
    ):  # fmt: skip
        with pytest.raises(DefinitionError):
            wrong()
