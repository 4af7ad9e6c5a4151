"""The losses' slopes are the derivatives of their values, and a classifier says chances that hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from penstock.errors import DefinitionError, ReleaseError
from penstock.learn.classify import Classifier, ClassifierSpec, Logistic, load_classifier
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


SPECS: list[ClassifierSpec] = [Classifier(trees=40), Logistic()]
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: type(spec).__name__)


def log_odds(score: Any) -> Any:
    return np.log(score) - np.log1p(-score)


@each
@pytest.mark.parametrize("positive", [np.zeros(50, bool), np.ones(50, bool), np.zeros(0, bool)])
def test_rows_of_one_kind_are_refused(spec: ClassifierSpec, positive: Any) -> None:
    """Nothing can be told apart then, and the error says what to do."""
    with pytest.raises(DefinitionError, match="both kinds"):
        spec.fit(np.zeros((len(positive), 2), np.float32), positive)


@each
def test_rows_of_one_kind_but_for_what_weighs_nothing_are_refused(spec: ClassifierSpec) -> None:
    """A row of weight 0 is not there."""
    positive = np.arange(50) < 5
    with pytest.raises(DefinitionError, match="both kinds"):
        spec.fit(np.zeros((50, 2), np.float32), positive, weight=(~positive).astype(np.float64))


@each
@pytest.mark.parametrize("weight", [np.ones(49), np.r_[np.ones(49), -1], np.r_[np.ones(49), np.nan]])
def test_senseless_weights_are_refused(spec: ClassifierSpec, weight: Any) -> None:
    """One for each row, from 0 up."""
    with pytest.raises(DefinitionError, match="weighs"):
        spec.fit(np.zeros((50, 2), np.float32), np.arange(50) < 5, weight=weight)


@each
def test_chances_hold_for_the_whole_where_a_weighted_sample_was_learned_from(spec: ClassifierSpec) -> None:
    """All positives and a tenth of the others, weighing ten: the expected number of positives is that of all rows,
    which it is not without weights."""
    x, positive, _ = rows(40_000)
    asked, came, _ = rows(40_000, seed=2)
    kept = positive | (np.arange(len(x)) % 10 == 0)
    weight = np.where(positive, 1.0, 10.0)[kept]
    weighted = spec.fit(x[kept], positive[kept], weight=weight).score(asked).sum()
    plain = spec.fit(x[kept], positive[kept]).score(asked).sum()
    assert abs(weighted - came.sum()) < 0.08 * came.sum() < plain - came.sum()


@each
def test_a_row_that_weighs_two_is_a_row_that_stands_twice(spec: ClassifierSpec) -> None:
    """Fitted to doubled rows or to doubled weights, the chances are the same."""
    if isinstance(spec, Classifier):  # which counts rows, too, and draws some of them
        spec = Classifier(trees=40, min_leaf=1, rows=1.0, columns=1.0)
    x, positive, _ = rows(4_000)
    x[np.isnan(x)] = 0
    twice = np.arange(len(x)) % 3 == 0
    copies = np.r_[np.arange(len(x)), np.flatnonzero(twice)]
    weighed = spec.fit(x, positive, weight=np.where(twice, 2.0, 1.0)).score(x)
    doubled = spec.fit(x[copies], positive[copies]).score(x)
    # Cuts between bins and ends of tails are those of rows, not of weights.
    assert np.corrcoef(log_odds(weighed), log_odds(doubled))[0, 1] > 0.995
    assert weighed.sum() == pytest.approx(doubled.sum(), rel=0.01)


def test_balanced_trees_chances_hold() -> None:
    """Positives weigh twenty times as much while fitting, and still about as many are expected as come."""
    x, positive, _ = rows(40_000)
    asked, came, _ = rows(40_000, seed=2)
    assert Classifier(balance=20.0).fit(x, positive).score(asked).sum() == pytest.approx(came.sum(), rel=0.2)
    with pytest.raises(DefinitionError, match="more than nothing"):
        Classifier(balance=0)


@each
def test_a_saved_classifier_says_the_same_to_the_last_bit(spec: ClassifierSpec, tmp_path: Path) -> None:
    """Chances, contributions and importance, after its values went through JSON; nothing is a pickle."""
    x, positive, _ = rows(4_000)
    fitted = spec.fit(x, positive)
    again = load_classifier(tmp_path, json.loads(json.dumps(fitted.save(tmp_path))))
    assert fitted.score(x).tobytes() == again.score(x).tobytes()
    assert fitted.contributions(x[:99]).tobytes() == again.contributions(x[:99]).tobytes()
    assert fitted.importance.tobytes() == again.importance.tobytes()
    assert {path.suffix for path in tmp_path.iterdir()} <= {".txt", ".npy"}


@each
def test_rows_have_the_same_chance_alone_and_among_others(spec: ClassifierSpec) -> None:
    """One row, a few, many, none: to the last bit, whichever way is quickest for so many."""
    x, positive, _ = rows(2_000)
    x[::7, 1], x[::11, 2] = np.inf, -np.inf
    fitted = spec.fit(x, positive)
    whole = fitted.score(x)
    assert whole.shape == (2_000,)
    assert np.isfinite(whole).all()
    for size in (1, 3, 23, 24, 100):
        parts = [fitted.score(x[i : i + size]) for i in range(0, 600, size)]
        assert np.concatenate(parts)[:600].tobytes() == whole[:600].tobytes()
    assert fitted.score(x[:0]).shape == (0,)
    assert fitted.contributions(x[:0]).shape == (0, 4)


@each
def test_contributions_add_up_to_the_log_odds(spec: ClassifierSpec) -> None:
    """But for one constant, the same in all rows; and a column that tells nothing adds next to nothing."""
    x, positive, _ = rows()
    x = np.c_[x, np.random.default_rng(4).normal(size=len(x))].astype(np.float32)
    fitted = spec.fit(x, positive)
    found = fitted.contributions(x[:500])
    rest = log_odds(fitted.score(x[:500])) - found.sum(axis=1)
    assert np.ptp(rest) < 1e-6
    assert np.abs(found).mean(axis=0).argmax() == fitted.importance.argmax() == 0
    assert np.abs(found[:, 4]).mean() < 0.1 * np.abs(found[:, 0]).mean()
    assert fitted.importance[4] < 0.1 * fitted.importance[0]


def test_all_runs_of_the_trees_count_alike() -> None:
    """The log-odds of three runs are the mean of those of each run alone, and so are the contributions."""
    x, positive, _ = rows(4_000)
    three = Classifier(trees=30, bags=3, seed=5).fit(x, positive)
    alone = [Classifier(trees=30, bags=1, seed=5 + bag).fit(x, positive) for bag in range(3)]
    mean = np.mean([log_odds(one.score(x)) for one in alone], axis=0)
    np.testing.assert_allclose(log_odds(three.score(x)), mean, atol=1e-9)
    means = np.mean([one.contributions(x[:50]) for one in alone], axis=0)
    np.testing.assert_allclose(three.contributions(x[:50]), means, atol=1e-9)
    assert np.ptp([one.score(x)[0] for one in alone]) > 0


def test_logistic_regression_is_scikit_learns() -> None:
    """On the same prepared columns, weighted, the minimum is the oracle's."""
    x, positive, _ = rows(3_000)
    weight = np.random.default_rng(5).uniform(0.5, 4, len(x))
    fitted = Logistic(l2=3.0).fit(x, positive, weight=weight)
    columns = np.concatenate(fitted.parts(x), axis=1)
    oracle = LogisticRegression(C=1 / 3.0, tol=1e-10, max_iter=10_000).fit(columns, positive, sample_weight=weight)
    np.testing.assert_allclose(fitted.score(x), oracle.predict_proba(columns)[:, 1], rtol=1e-5)


def test_logistic_regression_learns_from_what_is_missing() -> None:
    """Where a value is missing more often in positives, a row without it gets the higher chance."""
    random = np.random.default_rng(6)
    positive = random.random(8_000) < 0.1
    x = random.normal(size=(8_000, 2)).astype(np.float32)
    x[random.random(8_000) < np.where(positive, 0.5, 0.1), 0] = np.nan
    low, high = Logistic().fit(x, positive).score(np.array([[0, 0], [np.nan, 0]], np.float32))
    assert high == pytest.approx(0.05 / (0.05 + 0.09), abs=0.05)
    assert low == pytest.approx(0.05 / (0.05 + 0.81), abs=0.03)


def test_logistic_regression_bears_columns_of_every_kind() -> None:
    """One value for all, none at all, infinite ones, a few huge ones, one that tells everything."""
    random = np.random.default_rng(7)
    positive = random.random(3_000) < 0.2
    odd = np.where(random.random(3_000) < 0.01, np.inf, 1.0)
    heavy = np.where(random.random(3_000) < 0.01, 1e30, random.normal(size=3_000) + 3 * positive)
    x = np.stack([np.full(3_000, 0.1), np.full(3_000, np.nan), odd, heavy], axis=1).astype(np.float32)
    found = Logistic().fit(x, positive).score(x)
    assert roc_auc_score(positive, found) > 0.95
    sure = Logistic().fit(positive[:, None].astype(np.float32), positive).score(np.array([[0], [1]], np.float32))
    assert 0 < sure[0] < 0.02 < 0.95 < sure[1] < 1


def test_a_classifier_of_another_kind_is_not_loaded(tmp_path: Path) -> None:
    """The error names the kind."""
    with pytest.raises(ReleaseError, match="forest"):
        load_classifier(tmp_path, {"model": "forest"})


@pytest.mark.parametrize(
    "make",
    [lambda: Focal(focus=-1), lambda: Focal(positives=1.0), lambda: ExpectedCost(alarm=0), lambda: ExpectedCost(-1)],
)
def test_senseless_losses_are_refused(make: Any) -> None:
    """At definition, with what came and what is usual."""
    with pytest.raises(DefinitionError):
        make()


@pytest.mark.parametrize("make", [lambda: Logistic(l2=0), lambda: Logistic(tails=0.5), lambda: Logistic(steps=0)])
def test_senseless_regressions_are_refused(make: Any) -> None:
    """At definition, with what came and what is usual."""
    with pytest.raises(DefinitionError, match="l2 and steps"):
        make()
