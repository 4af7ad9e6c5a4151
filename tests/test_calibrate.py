"""Calibration is isotonic regression, as the oracle's, and makes of bad chances good ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from penstock.learn.calibrate import Isotonic, Line, calibrated, load_calibration, log_loss, pooled

Pairs = st.lists(st.tuples(st.integers(-5, 5), st.floats(0.1, 9)), min_size=1, max_size=60)


@given(pairs=Pairs)
def test_pooled_blocks_are_scikit_learns(pairs: list[tuple[int, float]]) -> None:
    """Each block's weighted mean is what the oracle says there, and the means rise."""
    value, weight = np.array(pairs, np.float64).T
    starts = pooled(value, weight)
    means = np.add.reduceat(value * weight, starts) / np.add.reduceat(weight, starts)
    wanted = IsotonicRegression().fit_transform(np.arange(len(value)), value, sample_weight=weight)
    np.testing.assert_allclose(np.repeat(means, np.diff(np.r_[starts, len(value)])), wanted, atol=1e-9)
    assert (np.diff(means) > -1e-12).all()


def scored(n: int, seed: int) -> tuple[Any, Any]:
    """Scores that rank well and say far too much, with what came."""
    random = np.random.default_rng(seed)
    score = random.random(n)
    return score, random.random(n) < score**4 / 2


def error(chance: Any, positive: Any) -> float:
    """Expected calibration error: the mean distance of chance and share in twenty groups of like chances."""
    parts = np.array_split(np.argsort(chance, kind="stable"), 20)
    return float(np.mean([abs(chance[part].mean() - positive[part].mean()) for part in parts]))


def test_calibration_error_falls() -> None:
    """On rows that neither fitted: from above 0.3 to what noise alone makes; and the order stays."""
    asked, came = scored(40_000, seed=2)
    chance = Isotonic.fit(*scored(40_000, seed=1)).of(asked)
    assert error(asked, came) > 0.3
    assert error(chance, came) < 0.012
    assert roc_auc_score(came, chance) == pytest.approx(roc_auc_score(came, asked), abs=0.002)


def test_a_point_is_the_oracles_at_the_centre_of_a_block() -> None:
    """Where a block holds both kinds, its chance is what scikit-learn says of any score in it."""
    score, positive = scored(5_000, seed=3)
    found = Isotonic.fit(score, positive)
    oracle = IsotonicRegression().fit(score, positive)
    np.testing.assert_allclose(found.chance[1:-1], oracle.predict(found.score[1:-1]), rtol=1e-9)


@given(seed=st.integers(0, 200), n=st.integers(60, 400), far=st.floats(0, 1), kind=st.sampled_from([Isotonic, Line]))
def test_chances_rise_and_are_never_certain(seed: int, n: int, far: float, kind: Any) -> None:
    """For scores of any size, those never seen too, by either curve."""
    random = np.random.default_rng(seed)
    score = random.integers(0, 12, n) / 11
    positive = (score > 0.5) if seed % 2 else random.random(n) < score
    chance = kind.fit(score, positive).of(np.sort(np.r_[score, far]))
    fitted = min(positive.sum(), (~positive).sum()) >= 20
    assert (np.diff(chance) >= 0).all()
    assert not fitted or ((chance > 0) & (chance < 1)).all()


def test_a_block_of_one_kind_is_as_sure_as_it_is_long() -> None:
    """Half a row of the other kind is added: 100 rows give 0.5 / 100.5, and three 3 / 3.5."""
    score = np.r_[np.zeros(100), np.full(60, 0.5), np.full(3, 1.0)]
    positive = np.r_[np.zeros(100, bool), np.arange(60) % 2 == 0, np.ones(3, bool)]
    np.testing.assert_allclose(Isotonic.fit(score, positive).of(np.arange(3) / 2), [0.5 / 100.5, 0.5, 3 / 3.5])


def test_a_weight_of_two_is_two_rows() -> None:
    """Whole weights and rows that stand as often give the same curve between its ends."""
    score, positive = scored(2_000, seed=4)
    times = np.arange(2_000) % 3
    weighed = Isotonic.fit(score, positive, times.astype(np.float64))
    stands = Isotonic.fit(np.repeat(score, times), np.repeat(positive, times))
    np.testing.assert_allclose(weighed.score, stands.score)
    np.testing.assert_allclose(weighed.chance[1:-1], stands.chance[1:-1])


@pytest.mark.parametrize("flip", [False, True])
def test_too_few_of_a_kind_leave_scores_as_they_are(flip: bool) -> None:
    """Nineteen make no curve, twenty do."""
    score = np.linspace(0.2, 0.7, 500)
    few, enough = ((score > score[-n - 1]) ^ flip for n in (19, 20))
    assert Isotonic.fit(score, few).of(score).tobytes() == score.tobytes()
    assert Isotonic.fit(score, enough).of(score).tobytes() != score.tobytes()


def rare(n: int, seed: int, times: float = 1.0) -> tuple[Any, Any, Any]:
    """Chances as of a good model, what came, and the chances with odds that many times too high."""
    random = np.random.default_rng(seed)
    true = 1 / (1 + np.exp(-random.normal(-5, 2, n)))
    return true, random.random(n) < true, true * times / (1 + true * (times - 1))


def test_a_line_is_a_logistic_regression_on_the_log_odds() -> None:
    """Weighted, as scikit-learn's without a penalty; so the chances of the rows that it was fitted to add up."""
    _, came, said = rare(50_000, 1, times=8.0)
    weight = np.random.default_rng(2).integers(1, 4, len(said)).astype(float)
    line = Line.fit(said, came, weight)
    odds = np.log(said / (1 - said))[:, None]
    oracle = LogisticRegression(C=np.inf, tol=1e-8).fit(odds, came, sample_weight=weight)
    assert line.slope == pytest.approx(oracle.coef_[0, 0], abs=0.002)
    assert line.shift == pytest.approx(oracle.intercept_[0], abs=0.01)
    assert line.slope == pytest.approx(1, abs=0.03)
    assert line.shift == pytest.approx(-np.log(8), abs=0.1)
    assert weight @ line.of(said) == pytest.approx(weight @ came, rel=0.001)


def test_a_model_that_ranks_the_wrong_way_round_is_left_alone() -> None:
    """A falling line would make a rule of its errors."""
    true, came, _ = rare(20_000, 3)
    assert Line.fit(1 - true, came) == Line()


@pytest.mark.parametrize("times", [1.0, 5.0])
def test_chances_are_not_overstated_and_never_worse_than_without(times: float) -> None:
    """Over forty models, calibrated on 4,000 rows of which some 70 are positive: on other rows log loss is hardly above
    that of the scores where those hold, and far below it where they do not; and as many come as are expected."""
    expected, came, loss, plain = [], [], [], []
    judged, outcome, said = rare(100_000, 99, times)
    for seed in range(40):
        _, positive, score = rare(4_000, seed, times)
        curve, _ = calibrated(score, positive)
        chance = curve.of(said)
        expected.append(chance.sum())
        came.append(judged.sum())
        loss.append(log_loss(chance, outcome, np.ones(len(outcome))))
        plain.append(log_loss(said, outcome, np.ones(len(outcome))))
    assert np.sum(expected) / np.sum(came) == pytest.approx(1, abs=0.04)
    assert np.mean(loss) < np.mean(plain) * (1.003 if times == 1 else 0.8)


def test_what_is_said_of_a_curve_is_said_of_rows_that_it_did_not_see() -> None:
    """Other outcomes of a fifth of the rows leave what is said of these rows as it was."""
    _, positive, score = rare(30_000, 5, times=6.0)
    _, said = calibrated(score, positive)
    other = positive.copy()
    other[6_000:12_000] = np.roll(other[6_000:12_000], 1)
    curve, again = calibrated(score, other)
    assert again[6_000:12_000].tobytes() == said[6_000:12_000].tobytes()
    assert again[:6_000].tobytes() != said[:6_000].tobytes() != score[:6_000].tobytes()
    assert curve != Line()


def test_the_simplest_curve_that_helps_is_taken() -> None:
    """None where scores hold, a line where the odds are wrong by a power, isotonic regression where no line fits."""
    _, positive, score = rare(40_000, 7)
    assert calibrated(score, positive)[0] == Line()
    _, positive, score = rare(40_000, 7, times=20.0)
    assert isinstance(calibrated(score, positive)[0], Line)
    assert isinstance(calibrated(*scored(40_000, seed=1))[0], Isotonic)


def test_a_saved_curve_is_the_same_to_the_last_bit() -> None:
    """Through JSON and back, with points and without."""
    score, positive = scored(3_000, seed=5)
    for curve in (
        Isotonic.fit(score, positive), Isotonic.fit(score[:9], positive[:9]), Line.fit(score, positive), Line(),
    ):  # fmt: skip
        again = load_calibration(json.loads(json.dumps(curve.save())))
        assert again.of(score).tobytes() == curve.of(score).tobytes()
