"""Intervals for weighted means whose terms are skewed, as rare rewards and large weights make them.

An estimate solves sum(a - θ b) = 0 over groups of rounds; the interval holds every θ at which the sum, studentised and
corrected for skewness, is no further from 0 than Student's t is in `level` of all cases. For a plain mean (b
constant) this is Hall's interval ("On the removal of skewness by transformation", JRSS B 1992); for a ratio it
is Fieller's ("Some problems in interval estimation", 1954) with the same correction, so neither resamples anything.

Where rewards are rare, hardly any of the few rounds with a large weight has one, and a log that happens to miss them
shows too little spread, with too low an estimate. `unseen` adds what such rounds would add.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError
from penstock.evaluate.off_policy.logged import Floats

_DOUBLINGS = 60
_HALVINGS = 80
_PRIOR = 4.0
"""How many typical residuals the rate of all rounds counts for, among rounds of like weight. With none, intervals of
95 % cover 90 where rewards are rare; with more, they are needlessly wide where weights and rewards go together."""


def by_group(values: Floats, group: NDArray[np.int64]) -> Floats:
    """The sum of `values` (n,) in each group, (groups,) float64."""
    return np.bincount(group, weights=values, minlength=int(group.max()) + 1).astype(np.float64)


def score_interval(
    a: Floats, b: Floats, *, level: float = 0.95, below: float = 0.0, above: float = 0.0
) -> tuple[float, float]:
    """The interval of θ = sum(a) / sum(b), from independent groups.

    Args:
        a, b: (groups,) what each group adds above and below.
        below, above: variance of θ that the groups do not show, such as `unseen` or a model's, for either end.

    Returns:
        Its ends, infinite where nothing bounds it: fewer than two groups, nothing that varies, or a sum of b that
        may as well be 0.

    >>> low, high = score_interval(np.array([0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]), np.ones(8))
    >>> round(low, 2), round(high, 2)  # skewed, so further above 0.25 than below
    (-0.01, 0.71)
    """
    check_level(level)
    groups = len(a)
    if groups < 2 or not b.sum() > 0:
        return -math.inf, math.inf
    centre = float(a.sum() / b.sum())
    scores = [_Score(a, b, groups, further) for further in (below, above)]
    steps = [score.spread(centre) for score in scores]
    if not min(steps) > 0:
        return -math.inf, math.inf
    wide = student((1 + level) / 2, _freedom(a - centre * b))
    return _end(scores[0], centre, -steps[0], wide), _end(scores[1], centre, steps[1], -wide)


def unseen(weight: Floats, residual: Floats, group: NDArray[np.int64]) -> tuple[float, float]:
    """The variance of mean(weight × residual) that rounds fail to show where residuals and large weights are both rare.

    Rounds whose weights are within a factor of 2 are looked at together. Their mean squared residual is shrunk towards
    that of the target policy in all, which counts as `_PRIOR` typical residuals; what this adds is returned, never less
    than 0. Residuals below 0 and above 0 are looked at apart: what was missed below makes an estimate too high, what
    was missed above makes it too low.

    Args:
        weight, residual: (n,).
        group: (n,) integers from 0. As far as the terms of a group go together, what is missing does so too.

    Returns:
        What is missing for the interval's lower end, and for its upper end.

    >>> weight = np.array([1.0] * 99 + [40.0])
    >>> click = np.zeros(100)
    >>> click[:10] = 1.0
    >>> low, high = unseen(weight, click, np.arange(100))
    >>> low, bool(high > 5 * np.var(weight * click) / 100)  # a click on the last round was as likely as on any
    (0.0, True)
    """
    pulled = weight > 0
    w, e = weight[pulled], residual[pulled]
    below, above = (_missing(w, part, len(weight)) for part in (np.minimum(e, 0.0), np.maximum(e, 0.0)))
    term = weight * residual - float(np.mean(weight * residual))
    sums, squares = by_group(term, group), float(np.dot(term, term))
    together = max(float(np.dot(sums, sums)) / squares, 1.0) if squares else 1.0
    return below * together, above * together


def _missing(w: Floats, residual: Floats, rounds: int) -> float:
    squared = residual**2
    total = float(np.dot(w, squared))
    if not total > 0:
        return 0.0
    typical = (total / float(np.dot(w, np.abs(residual)))) ** 2
    like = np.floor(np.log2(w)).astype(np.int64)
    like -= like.min()
    count, held, spread = (np.bincount(like, weights=part) for part in (np.ones(len(w)), squared, w * w))
    prior = _PRIOR * typical
    smooth = (held + prior) / (count + prior * float(w.sum()) / total)
    return max(float(np.dot(smooth, spread)) - float(np.dot(w * w, squared)), 0.0) / rounds**2


def student(chance: float, freedom: float) -> float:
    """The quantile of Student's t, from the normal one (Abramowitz and Stegun, 26.7.5); freedom below 3 counts as 3.

    >>> round(student(0.975, 10), 3), round(student(0.975, math.inf), 3)
    (2.228, 1.96)
    """
    z = NormalDist().inv_cdf(chance)
    n = max(freedom, 3.0)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return float(z + first / n + second / n**2 + third / n**3)


def _freedom(centred: Floats) -> float:
    """How well the variance of terms (groups,) is known, as degrees of freedom (Satterthwaite, 1946).

    What the variance's error shares with the mean's, the correction for skewness has taken care of.
    """
    squared = centred * centred
    second, third = float(squared.mean()), float((squared * centred).mean())
    rest = float((squared * squared).mean()) / second**2 - 1 - third**2 / second**3
    return 2 * len(centred) / rest if rest > 1e-9 else math.inf


class _Score:
    """The corrected score of θ, falling from one side of the estimate to the other; a few sums make it."""

    def __init__(self, a: Floats, b: Floats, groups: int, further: float) -> None:
        self._groups, self._further = groups, further
        self._a, self._b = float(a.mean()), float(b.mean())
        x, y = a - self._a, b - self._b
        # Moments of a - θ b are polynomials in θ.
        self._second = [float(np.mean(x * x)), float(np.mean(x * y)), float(np.mean(y * y))]
        self._third = [float(np.mean(p)) for p in (x * x * x, x * x * y, x * y * y, y * y * y)]

    def _variance(self, theta: float) -> float:
        xx, xy, yy = self._second
        seen = max(xx - 2 * theta * xy + theta * theta * yy, 0.0) * self._groups / (self._groups - 1)
        return seen + self._further * self._groups * self._b**2

    def spread(self, theta: float) -> float:
        """The standard error of the estimate."""
        return math.sqrt(self._variance(theta) / self._groups) / self._b

    def __call__(self, theta: float) -> float:
        variance = self._variance(theta)
        if not variance > 0:
            return 0.0
        xxx, xxy, xyy, yyy = self._third
        third = xxx - 3 * theta * xxy + 3 * theta**2 * xyy - theta**3 * yyy
        root = math.sqrt(self._groups)
        t = root * (self._a - theta * self._b) / math.sqrt(variance)
        bent = third / (variance * math.sqrt(variance)) / root
        return t + bent * (t * t / 3 + 1 / 6) + bent * bent * t**3 / 27


def _end(score: _Score, centre: float, step: float, aim: float) -> float:
    """Where the score, walking from `centre` in the direction of `step`, passes `aim`."""
    inside, outside = centre, centre + step
    side = math.copysign(1.0, aim)
    for _ in range(_DOUBLINGS):
        if side * (score(outside) - aim) >= 0:
            break
        inside, step = outside, 2 * step
        outside = centre + step
    else:
        return math.copysign(math.inf, step)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if side * (score(middle) - aim) >= 0:
            outside = middle
        else:
            inside = middle
    return outside


def check_level(level: float) -> None:
    """Refuses a level outside (0, 1)."""
    if not 0 < level < 1:
        raise EvaluationError("a level lies between 0 and 1", got=str(level), remedy="0.95 is usual")
