"""Whether chances come true: the calibration curve, and one figure for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError, equal_lengths
from penstock.evaluate.layout import CalibrationBin
from penstock.types import Array


def calibration_bins(chance: Array, came: Array, bins: int = 10) -> list[CalibrationBin]:
    """Rows by rising chance, cut so that each bin expects as much to come true as any other.

    Bins of equal size would, where little comes true, say nothing of the chances that matter. Equal chances stay
    together, so there may be fewer bins.

    Args:
        chance: (n,) from 0 to 1.
        came: (n,) bool.

    >>> calibration_bins(np.array([0.2, 0.2, 0.6]), np.array([False, True, True]), 2)
    [CalibrationBin(predicted=0.2, observed=0.5, rows=2), CalibrationBin(predicted=0.6, observed=1.0, rows=1)]
    """
    equal_lengths(chance=chance, came=came)
    if not ((chance >= 0) & (chance <= 1)).all():
        raise EvaluationError(
            "a chance is from 0 to 1", got=f"{chance.min()} to {chance.max()}", remedy="calibrate scores first"
        )
    levels, which, sizes = np.unique(chance, return_inverse=True, return_counts=True)
    expected = np.cumsum(levels * sizes)
    total = expected[-1] or 1.0
    middle = (expected - levels * sizes / 2) / total
    bin_of = np.minimum((middle * bins).astype(np.int64), bins - 1)[which]
    rows = np.bincount(bin_of, minlength=bins)
    sums = [np.bincount(bin_of, weights=column, minlength=bins) for column in (chance, came)]
    return [CalibrationBin(float(sums[0][i] / rows[i]), float(sums[1][i] / rows[i]), int(rows[i]))
            for i in np.flatnonzero(rows).tolist()]  # fmt: skip


def calibration_error(bins: list[CalibrationBin]) -> float:
    """The expected calibration error: the mean over rows of the distance of chance and share in their bin.

    (Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.)

    >>> calibration_error([CalibrationBin(0.2, 0.5, 2), CalibrationBin(0.6, 1.0, 1)]).__round__(4)
    0.3333
    """
    size: NDArray[np.float64] = np.array([one.rows for one in bins], np.float64)
    distance = np.array([abs(one.predicted - one.observed) for one in bins])
    return float((size * distance).sum() / size.sum())
