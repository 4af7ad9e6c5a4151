"""Chances made of scores come true on shoppers that they were not fitted on, and the curve says how nearly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import helpers
from penstock.evaluate import EvaluationError
from penstock.evaluate.calibration import calibration_bins, calibration_error
from penstock.learn import Candidates, Dataset
from penstock.releases import read
from penstock.releases.propensity import propensity
from penstock.releases.training import train

ROWS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60)


@given(ROWS, st.integers(1, 12))
def test_bins_hold_all_rows_and_their_figures_are_means(rows, bins):
    """What the bins expect and what came sum to that of the rows; bins rise; equal chances are in one bin."""
    chance, came = (np.array(column) for column in zip(*rows, strict=True))
    found = calibration_bins(chance / 20, came.astype(bool), bins)
    assert sum(one.rows for one in found) == len(rows)
    assert sum(one.rows * one.predicted for one in found) == pytest.approx(chance.sum() / 20)
    assert sum(one.rows * one.observed for one in found) == pytest.approx(came.sum())
    assert [one.predicted for one in found] == sorted({one.predicted for one in found})
    assert len(found) <= min(bins, len(set(chance.tolist())))


def test_each_bin_expects_as_much_as_any_other():
    """To a tenth, where chances hardly repeat and most are tiny."""
    chance = np.random.default_rng(1).beta(0.3, 20, 50_000)
    expected = [one.rows * one.predicted for one in calibration_bins(chance, chance > 2, 10)]
    assert len(expected) == 10
    assert min(expected) > 0.9 * max(expected)


def test_the_error_is_the_mean_distance_over_rows():
    """Of chances that are 0.1 too high throughout it is 0.1; of those that come true, next to nothing."""
    rng = np.random.default_rng(2)
    chance = rng.random(200_000) * 0.8 + 0.1
    came = rng.random(200_000) < chance
    assert calibration_error(calibration_bins(chance, came)) < 0.01
    assert calibration_error(calibration_bins(chance + 0.1, came)) == pytest.approx(0.1, abs=0.01)


def test_chances_beyond_their_range_are_refused():
    """Scores are no chances."""
    with pytest.raises(EvaluationError, match="a chance is from 0 to 1"):
        calibration_bins(np.array([0.2, 1.4]), np.array([True, False]))


def lists(n: int, width: int = 20, seed: int = 4) -> tuple[Dataset, np.ndarray]:
    """n requests of 80 shoppers whose first feature is the log-odds of each item, and nothing else tells of it."""
    rng = np.random.default_rng(seed)
    worth = rng.normal(-3.5, 1.2, n * width).astype(np.float32)
    positive = rng.random(n * width) < 1 / (1 + np.exp(-worth))
    owner = np.repeat(np.arange(n), width)
    one = Candidates(np.arange(width, dtype=np.uint32), np.zeros((width, 0)), np.zeros((width, 1)))
    gain, place = positive.astype(np.float64), np.full(n * width, -1)
    held = Dataset(worth[:, None], owner, positive, np.full(n, width), [one] * n, gain, place)
    return held, rng.integers(0, 80, n)


def score(rows: np.ndarray, candidates: Candidates) -> np.ndarray:
    """Orders by what the items are worth, on a scale of its own."""
    return np.asarray(7 * np.exp(rows[:, 0].astype(np.float64)) - 3)


def test_chances_of_scores_are_those_of_the_world_that_made_them():
    """Over scores from rare to common, to a fifth; and the error, from the other half of shoppers, is small."""
    found = propensity(score, *lists(4_000))
    assert found is not None
    worth = np.linspace(-5, -1, 9)
    truth = 1 / (1 + np.exp(-worth))
    chance = found.map.of(7 * np.exp(worth) - 3)
    assert (np.abs(chance / truth - 1) < 0.2).all()
    assert found.error < 0.005
    assert len(found.bins) == 10


def test_the_curve_is_of_shoppers_that_the_map_was_not_fitted_on():
    """Whatever a shopper took, their own chances stay; those of shoppers in the other half change."""
    held, users = lists(300)
    found = propensity(score, held, users)
    mine = users[held.owner] == users[0]
    other = propensity(score, replace(held, positive=np.where(mine, ~held.positive, held.positive)), users)
    assert found is not None
    assert other is not None
    assert (found.chance[mine] == other.chance[mine]).all()
    assert 0.2 < (found.chance != other.chance).mean() < 0.8


def test_too_few_outcomes_give_no_chances():
    """A curve through a handful would be noise."""
    assert propensity(score, *lists(6)) is None


def test_a_release_keeps_its_chances_and_its_report_their_curve(tmp_path: Path) -> None:
    """The map read back rises and stays within 0 and 1; the report has bins and one error."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(helpers.history())
        log, recipe = app.open().log, app.decisions["home"].recipe
        # The first source is taken, whatever it loses.
        recipe = replace(recipe, rank=replace(recipe.rank, tolerance=0.99))
        trained = train(recipe, log, tmp_path / "releases", app="small", log_id=log.id)
    release = read(tmp_path / "releases", trained.release)
    assert release.propensity is not None
    chance = release.propensity.of(np.linspace(-10, 10, 101))
    assert (np.diff(chance) >= 0).all()
    assert 0 < chance[0] < chance[-1] < 1
    assert trained.report["calibration"]
    assert 0 <= trained.report["calibration_error"] < 0.1
