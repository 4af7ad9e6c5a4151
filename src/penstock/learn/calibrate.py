"""Chances that hold, made of chances that only rank: a line in log-odds, or isotonic regression, where they help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.runs import run_starts
from penstock.learn.losses import Floats, LogLoss, chance

_FEWEST = 20
"""With fewer rows of a kind than this, scores are left as they are: a curve through them would be noise."""
_SUREST = 1e-12
_FOLDS = 5
_STEPS = 50
_CLOSE = 1e-10


class Calibration(Protocol):
    """A rising curve from the chances that a model gives to chances that hold."""

    def of(self, score: Floats) -> Floats:
        """The chance of each score from 0 to 1, (n,) → (n,) float64, never lower for a higher score."""

    def save(self) -> dict[str, Any]:
        """What `load_calibration` needs, as JSON values."""


@dataclass(frozen=True)
class Line:
    """A rising line in log-odds (Platt, "Probabilistic outputs for support vector machines", 1999).

    Args:
        slope: below 1 where a model is too sure of itself.
        shift: what is added to all log-odds. As they are, both leave every score as it is.

    >>> Line(1.0, np.log(2)).of(np.array([0.5, 0.9])).round(3)
    array([0.667, 0.947])
    """

    slope: float = 1.0
    shift: float = 0.0

    @classmethod
    def fit(cls, score: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> Self:
        """The line of the least log loss, by Newton's method; see `calibrated` for the arguments.

        Half a squared distance from the line that changes nothing is added, which is as little as one row, so that
        there is such a line where scores tell all rows apart.
        """
        score, positive, weights = _counted(score, positive, weight)
        if _few(positive):
            return cls()
        design = np.stack([_log_odds(score), np.ones(len(score))], axis=1)
        plain = np.array([1.0, 0.0])
        loss, at, ones = LogLoss(), plain, np.ones(len(score))

        def height(at: Floats) -> float:
            return float(loss.value(design @ at, positive, ones) @ weights + ((at - plain) ** 2).sum() / 2)

        now = height(at)
        for _ in range(_STEPS):
            slope, curvature = loss.slopes(design @ at, positive, ones)
            gradient = design.T @ (slope * weights) + at - plain
            step = np.linalg.solve((design.T * (curvature * weights)) @ design + np.eye(2), gradient)
            while (then := height(at - step)) > now and np.abs(step).max() > _CLOSE:
                step /= 2
            at, now = at - step, then
            if np.abs(step).max() <= _CLOSE:
                break
        # A model that ranks the wrong way round is not mended by taking it for one that ranks.
        return cls(float(at[0]), float(at[1])) if at[0] > 0 else cls()

    def of(self, score: Floats) -> Floats:
        """See `Calibration`."""
        if (self.slope, self.shift) == (1.0, 0.0):
            return np.asarray(score, np.float64)
        return np.clip(chance(self.slope * _log_odds(score) + self.shift), _SUREST, 1 - _SUREST)

    def save(self) -> dict[str, Any]:
        """See `Calibration`."""
        return {"slope": self.slope, "shift": self.shift}


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising curve from scores to chances (Zadrozny and Elkan, "Transforming classifier scores into accurate
    multiclass probability estimates", KDD 2002), in log-odds straight between its points and level beyond them.

    Between points that are far apart, as they are where positives are few, a line from chance to chance would lie above
    what is nearly always a convex curve.

    Args:
        score: (points,) float64, ascending, from 0 to 1; anything, without `odds`.
        chance: (points,) float64, ascending, above 0 and below 1. Without a point, scores stay as they are.
        odds: whether scores are chances themselves, and compared by their log-odds.
    """

    score: Floats
    chance: Floats
    odds: bool = True

    @classmethod
    def fit(
        cls, score: Floats, positive: NDArray[np.bool_], weight: Floats | None = None, *, odds: bool = True
    ) -> Self:
        """Rows are pooled until the share of positives rises from one block to the next; a point is a block's centre.

        A block of one kind alone is given half a row of the other, so that nothing is taken for certain. With fewer
        than 20 rows of either kind, scores are left as they are. See `calibrated` for the arguments.
        """
        score, positive, weights = _counted(score, positive, weight)
        if _few(positive):
            return cls(np.zeros(0), np.zeros(0), odds)
        order = np.argsort(score, kind="stable")
        score, positive, weights = score[order], positive[order], weights[order]
        starts = run_starts(score)
        for_it, whole = np.add.reduceat(positive * weights, starts), np.add.reduceat(weights, starts)
        starts = starts[pooled(for_it / whole, whole)]
        for_it, whole = np.add.reduceat(positive * weights, starts), np.add.reduceat(weights, starts)
        centre = np.add.reduceat(score * weights, starts) / whole
        halves = weights[positive].mean() / 2, weights[~positive].mean() / 2
        return cls(centre, _unsure(for_it, whole, *halves), odds)

    def of(self, score: Floats) -> Floats:
        """See `Calibration`."""
        if not len(self.score):
            return np.asarray(score, np.float64)
        asked, known = (_log_odds(part) if self.odds else part for part in (score, self.score))
        return chance(np.interp(asked, known, _log_odds(self.chance)))

    def save(self) -> dict[str, Any]:
        """See `Calibration`."""
        return {"score": self.score.tolist(), "chance": self.chance.tolist(), "odds": self.odds}


def load_calibration(saved: dict[str, Any]) -> Calibration:
    """The inverse of `Calibration.save`, to the last bit."""
    if "slope" in saved:
        return Line(float(saved["slope"]), float(saved["shift"]))
    score, height = (np.array(saved[name], np.float64) for name in ("score", "chance"))
    return Isotonic(score, height, bool(saved.get("odds", True)))


def calibrated(score: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> tuple[Calibration, Floats]:
    """The curve that makes the best of a model's scores, and what it is worth.

    None, a line in log-odds and isotonic regression are fitted to four fifths of the rows, in their order, and asked
    about the fifth, in turn. A curve is taken only if its log loss on rows that it was not fitted to is lower than that
    of simpler ones, and then fitted to all. Isotonic regression is so free that it has to gain more than a standard
    error.

    Args:
        score: (n,) the chances, 0 to 1, that a model gave to rows that it did not learn from, by time.
        positive: (n,) what came.
        weight: (n,) how much each row counts; 1 where absent.

    Returns:
        The curve, and (n,) what such a curve that had not seen it said of each row.
    """
    weights = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    curve: Calibration = Line()
    best = np.asarray(score, np.float64)
    for kind, errors in ((Line, 0.0), (Isotonic, 1.0)):
        said = np.empty(len(score))
        for part in np.array_split(np.arange(len(score)), _FOLDS):
            rest = np.ones(len(score), bool)
            rest[part] = False
            said[part] = kind.fit(score[rest], positive[rest], weights[rest]).of(score[part])
        gain = (_losses(best, positive) - _losses(said, positive)) * weights
        if gain.sum() > errors * np.sqrt(((gain - gain.mean()) ** 2).sum()):
            curve, best = kind.fit(score, positive, weights), said
    return curve, best


def log_loss(said: Floats, positive: NDArray[np.bool_], weight: Floats) -> float:
    """−log of the chance (n,) that was given to what came, the weighted mean; lower is better."""
    return float(np.average(_losses(said, positive), weights=weight)) if len(said) else 0.0


def _losses(said: Floats, positive: NDArray[np.bool_]) -> Floats:
    return np.asarray(-np.log(np.clip(np.where(positive, said, 1 - said), _SUREST, 1)))


def pooled(value: Floats, weight: Floats) -> NDArray[np.int64]:
    """Where the blocks of the isotonic regression of `value` (n,) begin, by pooling adjacent violators.

    The rising sequence nearest to it in weighted squares has in each block the block's weighted mean (Ayer et al.,
    "An empirical distribution function for sampling with incomplete information", 1955).

    >>> pooled(np.array([1.0, 3.0, 2.0, 4.0]), np.ones(4))
    array([0, 1, 3])
    """
    starts: list[int] = []
    sums: list[float] = []
    weights: list[float] = []
    for place, (one, counted) in enumerate(zip((value * weight).tolist(), weight.tolist(), strict=True)):
        start = place
        while sums and sums[-1] * counted >= one * weights[-1]:
            start, one, counted = starts.pop(), one + sums.pop(), counted + weights.pop()
        starts.append(start)
        sums.append(one)
        weights.append(counted)
    return np.array(starts, np.int64)


def _counted(
    score: Floats, positive: NDArray[np.bool_], weight: Floats | None
) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """The rows that weigh anything."""
    weights = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    there = weights > 0
    return np.asarray(score, np.float64)[there], positive[there], weights[there]


def _few(positive: NDArray[np.bool_]) -> bool:
    return min(int(positive.sum()), int((~positive).sum())) < _FEWEST


def _log_odds(score: Floats) -> Floats:
    kept = np.clip(score, _SUREST, 1 - _SUREST)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def _unsure(for_it: Floats, whole: Floats, half: Floats, other: Floats) -> Floats:
    """The blocks' shares of positives, of which the first and the last are kept off 0 and 1."""
    share = for_it / whole
    if share[0] == 0:
        share[0] = min(half / (whole[0] + half), share[1])
    if for_it[-1] == whole[-1]:
        share[-1] = max(whole[-1] / (whole[-1] + other), share[-2])
    return share
