"""Bootstrap intervals that resample whole users, because one user's decisions are not independent.

Source: Field and Welsh, "Bootstrapping clustered data", 2007 (the cluster bootstrap, percentile intervals).
With few users (below about 30) percentile intervals are known to be somewhat too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError, equal_lengths
from penstock.types import Array

_CHUNK = 4_000_000  # drawn users held at a time: 32 MB


class Interval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mean with the bounds of its interval; no bounds where there are fewer than two users to resample."""

    mean: float
    low: float | None
    high: float | None


def bootstrap(values: Array, groups: Array, *, repeats: int = 500, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean of `values` (n,) with its interval, resampling the users in `groups` (n,).

    >>> bootstrap(np.array([1.0, 0.0, 1.0, 1.0]), np.array([7, 7, 8, 9]), seed=1).mean
    0.75
    """
    return bootstrap_columns(values[:, None], groups, repeats=repeats, level=level, seed=seed)[0]


def bootstrap_columns(
    values: Array, groups: Array, *, repeats: int = 500, level: float = 0.95, seed: int = 0
) -> list[Interval]:
    """The mean and interval of each column of `values` (n, m); all columns see the same resampled users."""
    drawn = resampled_means(values, groups, repeats=repeats, seed=seed)
    return [_interval(mean, column, level) for mean, column in zip(values.mean(0), drawn.T, strict=True)]


def paired(
    a: Array,
    b: Array,
    groups: Array,
    *,
    relative: bool = False,
    repeats: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """The difference mean(a) - mean(b), or with `relative` the change mean(a) / mean(b) - 1, with its interval.

    Args:
        a, b: (n,) values of two candidates on the same decisions: what they share cancels out, so the interval is
            tighter than two separate ones would suggest.
        groups: (n,) the user of each decision.

    Raises:
        EvaluationError: a relative change from a mean of 0.

    >>> paired(np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0]), np.array([1, 2, 3]), relative=True).mean
    -0.5
    """
    equal_lengths(a=a, b=b, groups=groups)
    both = np.stack([a, b], axis=1).astype(np.float64)
    mean = both.mean(0)
    if relative and mean[1] == 0:
        raise EvaluationError(
            "a relative change starts from a mean other than 0", got="0", remedy="ask for the plain difference"
        )
    drawn = resampled_means(both, groups, repeats=repeats, seed=seed)
    if not relative:
        return _interval(mean[0] - mean[1], drawn[:, 0] - drawn[:, 1], level)
    kept = drawn[drawn[:, 1] != 0]  # a resample in which b never hits has no ratio
    return _interval(mean[0] / mean[1] - 1, kept[:, 0] / kept[:, 1] - 1, level)


def ratio(
    part: Array, whole: Array, groups: Array, *, repeats: int = 500, level: float = 0.95, seed: int = 0
) -> Interval:
    """sum(part) / sum(whole) of columns (n,) with its interval, resampling the users in `groups` (n,).

    >>> ratio(np.array([1.0, 2.0]), np.array([2.0, 4.0]), np.array([7, 8])).mean
    0.5
    """
    both = np.stack([part, whole], axis=1).astype(np.float64)
    drawn = resampled_means(both, groups, repeats=repeats, seed=seed)
    total = both.sum(0)
    if total[1] == 0:
        raise EvaluationError("a ratio is of something", got="a sum of 0", remedy="leave such data out")
    kept = drawn[drawn[:, 1] != 0]
    return _interval(float(total[0] / total[1]), kept[:, 0] / kept[:, 1], level)


def p_value(
    a: Array, b: Array, groups: Array, *, fewest: int = 30, repeats: int = 2_000, seed: int = 0
) -> float | None:
    """How surely mean(a) - mean(b) of columns (n,) differs from 0: a two-sided randomisation test by user.

    If the two candidates are alike, either could have had any user's values; in each repeat the two change places for
    a random half of the users, and p is the share of repeats whose difference is as large (Smucker, Allan and
    Carterette, "A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007). It
    is not too small with few users either, where the bootstrap's is; one is added to numerator and denominator.

    Args:
        fewest: with fewer users than this nothing is tested, and the answer is None.
    """
    equal_lengths(a=a, b=b, groups=groups)
    names, user = np.unique(groups, return_inverse=True)
    if len(names) < fewest:
        return None
    sums = np.bincount(user, weights=np.asarray(a, np.float64) - np.asarray(b, np.float64))
    rng = np.random.default_rng(seed)
    least = abs(float(sums.sum())) * (1 - 1e-12)  # sums in another order differ in the last bits
    step, as_large = max(1, _CHUNK // len(names)), 0
    for done in range(0, repeats, step):
        signs = 2.0 * rng.integers(0, 2, (min(step, repeats - done), len(names)), np.int8) - 1.0
        as_large += int((np.abs(signs @ sums) >= least).sum())
    return (as_large + 1) / (repeats + 1)


def false_discovery(p: Sequence[float | None]) -> list[float | None]:
    """Benjamini and Hochberg's q-values, 1995: of all that are called at q ≤ 0.05, 5 % at most are wrong on average.

    A value that is None was not tested, and stays None.

    >>> false_discovery([0.01, None, 0.04, 0.5])
    [0.03, None, 0.06, 0.5]
    """
    there = [i for i, one in enumerate(p) if one is not None]
    tested = np.array([one for one in p if one is not None], np.float64)
    order = np.argsort(tested, kind="stable")
    scaled = tested[order] * len(tested) / np.arange(1, len(tested) + 1)
    out: list[float | None] = [None] * len(p)
    least = np.minimum.accumulate(scaled[::-1])[::-1]
    for at, value in zip(order.tolist(), least.tolist(), strict=True):
        out[there[at]] = min(1.0, value)
    return out


def resampled_means(values: Array, groups: Array, *, repeats: int = 500, seed: int = 0) -> NDArray[np.float64]:
    """The means of `values` (n, m) in `repeats` resamples of the users; (repeats, m), (0, m) for a single user.

    A resample draws as many users as there are, with replacement, and weighs all of a user's rows alike.
    """
    equal_lengths(values=values, groups=groups)
    if repeats < 1:
        raise EvaluationError("the bootstrap repeats at least once", got=str(repeats), remedy="500 is a good start")
    names, user = np.unique(groups, return_inverse=True)
    users = len(names)
    if users < 2:
        return np.empty((0, values.shape[1]))
    sums = np.stack([np.bincount(user, weights=column, minlength=users) for column in values.T], axis=1)
    totals = np.column_stack([sums, np.bincount(user, minlength=users)])
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // users)
    parts = []
    for done in range(0, repeats, step):
        rows = min(step, repeats - done)
        drawn = rng.integers(0, users, (rows, users)) + users * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        parts.append(weights.astype(np.float64) @ totals)
    weighed = np.concatenate(parts)
    means: NDArray[np.float64] = weighed[:, :-1] / weighed[:, -1:]
    return means


def _interval(mean: float, drawn: Array, level: float) -> Interval:
    if not 0 < level < 1:
        raise EvaluationError("a level lies between 0 and 1", got=str(level), remedy="0.95 is usual")
    if len(drawn) == 0:
        return Interval(float(mean), None, None)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high))
