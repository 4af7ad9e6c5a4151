"""The losses' slopes are the derivatives of their values, and a classifier says chances that hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from penstock.errors import DefinitionError
from penstock.learn.classify import Classifier
from penstock.learn.losses import ExpectedCost, Focal, LogLoss, Loss, chance

LOSSES = [LogLoss(), Focal(0.0, 0.5), Focal(), Focal(0.7, 0.9), Focal(3.0, 0.2), ExpectedCost(), ExpectedCost(4.0)]
Scores = st.lists(st.floats(-12, 12), min_size=1, max_size=30)


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@given(scores=Scores, data=st.data())
def test_slopes_are_the_first_and_second_derivative_of_the_value(loss: Loss, scores: list[float], data: Any) -> None:
    """Central differences of the value, and of the slope, come to the analytic ones."""
    score = np.array(scores)
    positive = np.array(data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))))
    cost = np.array(data.draw(st.lists(st.floats(0, 500), min_size=len(scores), max_size=len(scores))))
    step = 1e-4
    slope, curvature = loss.slopes(score, positive, cost)
    above, below = (loss.value(score + side * step, positive, cost) for side in (1, -1))
    scale = 1 + cost
    np.testing.assert_allclose((above - below) / (2 * step) / scale, slope / scale, atol=1e-7)
    above, below = (loss.slopes(score + side * step, positive, cost)[0] for side in (1, -1))
    np.testing.assert_allclose((above - below) / (2 * step) / scale, curvature / scale, atol=1e-7)


@given(scores=Scores)
def test_log_loss_is_scikit_learns(scores: list[float]) -> None:
    """The mean of the values equals the oracle's."""
    score = np.array([*scores, 0.5, -0.5])
    positive = np.arange(len(score)) % 2 == 0
    wanted = log_loss(positive, chance(score), labels=[False, True])
    assert LogLoss().value(score, positive, score).mean() == pytest.approx(wanted, rel=1e-6)


def test_focal_loss_without_focus_is_half_of_log_loss() -> None:
    """Lin et al.: focus 0 leaves weighted log loss."""
    score, positive = np.linspace(-9, 9, 50), np.arange(50) % 3 == 0
    half = LogLoss().value(score, positive, score) / 2
    np.testing.assert_allclose(Focal(0.0, 0.5).value(score, positive, score), half, rtol=1e-12)


@pytest.mark.parametrize("far", [-800.0, 800.0])
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_scores_far_out_give_finite_slopes(loss: Loss, far: float) -> None:
    """No overflow, whichever way a model is wrong."""
    for positive in (False, True):
        found = loss.slopes(np.array([far]), np.array([positive]), np.ones(1))
        assert np.isfinite(np.concatenate(found)).all()


def rows(n: int = 20_000, seed: int = 1) -> tuple[Any, Any, Any]:
    """Rare positives with known chances."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4))
    p = chance(2 * x[:, 0] + x[:, 1] * x[:, 2] - 5)
    x[random.random(x.shape) < 0.05] = np.nan
    return x.astype(np.float32), random.random(n) < p, p


def test_a_classifiers_chances_hold() -> None:
    """Fitted with log loss, its mean chance is the share of positives in every tenth of new rows, within noise."""
    x, positive, _ = rows()
    asked, came, p = rows(seed=2)
    score = Classifier().fit(x, positive).score(asked)
    assert roc_auc_score(came, score) > roc_auc_score(came, p) - 0.03
    for part in np.array_split(np.argsort(score), 10):
        off = 4 * np.sqrt(max(float(score[part].sum()), 1.0))
        assert abs(score[part].sum() - came[part].sum()) <= off


def test_a_classifier_is_the_same_every_time() -> None:
    """One seed, one model."""
    x, positive, _ = rows(2_000)
    first, again = (Classifier(trees=20).fit(x, positive).score(x) for _ in range(2))
    assert first.tobytes() == again.tobytes()


def test_costs_move_a_model_to_what_is_dear() -> None:
    """Of two rows alike but for a column that says what they cost, the dearer one gets the higher chance."""
    random = np.random.default_rng(3)
    dear = random.random(8_000) < 0.5
    x = np.stack([dear, random.normal(size=8_000)], axis=1).astype(np.float32)
    positive = random.random(8_000) < 0.1
    cost = np.where(dear, 30.0, 0.1)
    low, high = Classifier(loss=ExpectedCost(alarm=1.0), trees=150).fit(x, positive, cost).score(
        np.array([[0, 0], [1, 0]], np.float32)
    )  # fmt: skip
    assert low < 0.1 < 0.5 < high


@pytest.mark.parametrize("positive", [np.zeros(50, bool), np.ones(50, bool), np.zeros(0, bool)])
def test_rows_of_one_kind_are_refused(positive: Any) -> None:
    """Nothing can be told apart then, and the error says what to do."""
    with pytest.raises(DefinitionError, match="both kinds"):
        Classifier().fit(np.zeros((len(positive), 2), np.float32), positive)


@pytest.mark.parametrize(
    "make",
    [lambda: Focal(focus=-1), lambda: Focal(positives=1.0), lambda: ExpectedCost(alarm=0), lambda: ExpectedCost(-1)],
)
def test_senseless_losses_are_refused(make: Any) -> None:
    """At definition, with what came and what is usual."""
    with pytest.raises(DefinitionError):
        make()
