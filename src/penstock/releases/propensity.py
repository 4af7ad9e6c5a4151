"""The chance of the goal that a ranker's score stands for: its scores only order, and this says how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.calibration import calibration_bins, calibration_error
from penstock.evaluate.layout import CalibrationBin
from penstock.learn import Candidates, Dataset
from penstock.learn.calibrate import Isotonic
from penstock.types import Array

Score = Callable[[NDArray[np.float32], Candidates], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Propensity:
    """A map from scores to chances, and how it did on rows that it was not fitted on: their `chance` (rows,), by the
    map of the other half of users, in bins, and the expected calibration error."""

    map: Isotonic
    chance: NDArray[np.float64]
    bins: list[CalibrationBin]
    error: float


def propensity(score: Score, held: Dataset, users: Array, seed: int = 0) -> Propensity | None:
    """Fits the map on held-out rows, and draws its curve by two halves of users, each judged by the other's map.

    Args:
        score: of a model that did not learn from these rows.
        held: all candidates of held-out decisions, and which one came next.
        users: (requests,) who asked.

    Returns:
        None where fewer than 20 rows of either kind are in one of the halves: a curve through them would be noise.
    """
    edges = np.r_[0, np.cumsum(held.groups)]
    scores = np.concatenate(
        [np.zeros(0), *(score(held.rows[edges[i] : edges[i + 1]], one) for i, one in enumerate(held.candidates))]
    )
    names, who = np.unique(users, return_inverse=True)
    half = (np.random.default_rng(seed).permutation(len(names)) % 2 == 0)[who][held.owner]
    maps = [Isotonic.fit(scores[part], held.positive[part], odds=False) for part in (half, ~half)]
    if not all(len(one.score) for one in maps):
        return None
    chance = np.where(half, maps[1].of(scores), maps[0].of(scores))
    bins = calibration_bins(chance, held.positive)
    return Propensity(Isotonic.fit(scores, held.positive, odds=False), chance, bins, calibration_error(bins))
