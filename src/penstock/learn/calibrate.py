"""Chances that hold, made of scores that only rank: isotonic regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.runs import run_starts
from penstock.learn.losses import Floats

_FEWEST = 20
"""With fewer rows of a kind than this, scores are left as they are: a curve through them would be noise."""


@dataclass(frozen=True, eq=False)
class Isotonic:
    """A rising curve from scores to chances (Zadrozny and Elkan, "Transforming classifier scores into accurate
    multiclass probability estimates", KDD 2002), straight between its points and level beyond them.

    Args:
        score: (points,) float64, ascending.
        chance: (points,) float64, ascending, above 0 and below 1. Without a point, scores stay as they are.
    """

    score: Floats
    chance: Floats

    @classmethod
    def fit(cls, score: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> Self:
        """Rows are pooled until the share of positives rises from one block to the next; a point is a block's centre.

        A block of one kind alone is given half a row of the other, so that nothing is taken for certain. With fewer
        than 20 rows of either kind, scores are left as they are.

        Args:
            score: (n,) what a model said of rows that it did not learn from.
            positive: (n,) what came.
            weight: (n,) how much each row counts; 1 where absent.
        """
        weights = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
        there = weights > 0
        score, positive, weights = np.asarray(score, np.float64)[there], positive[there], weights[there]
        if min(positive.sum(), (~positive).sum()) < _FEWEST:
            return cls(np.zeros(0), np.zeros(0))
        order = np.argsort(score, kind="stable")
        score, positive, weights = score[order], positive[order], weights[order]
        starts = run_starts(score)
        for_it, whole = np.add.reduceat(positive * weights, starts), np.add.reduceat(weights, starts)
        starts = starts[pooled(for_it / whole, whole)]
        for_it, whole = np.add.reduceat(positive * weights, starts), np.add.reduceat(weights, starts)
        centre = np.add.reduceat(score * weights, starts) / whole
        return cls(centre, _unsure(for_it, whole, weights[positive].mean() / 2, weights[~positive].mean() / 2))

    def of(self, score: Floats) -> Floats:
        """The chance of each score, (n,) → (n,) float64, never lower for a higher score."""
        if not len(self.score):
            return np.asarray(score, np.float64)
        return np.interp(score, self.score, self.chance)

    def save(self) -> dict[str, list[float]]:
        """The points, as JSON values."""
        return {"score": self.score.tolist(), "chance": self.chance.tolist()}

    @classmethod
    def load(cls, saved: dict[str, Any]) -> Self:
        """The inverse of `save`, to the last bit."""
        return cls(np.array(saved["score"], np.float64), np.array(saved["chance"], np.float64))


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


def _unsure(for_it: Floats, whole: Floats, half: Floats, other: Floats) -> Floats:
    """The blocks' shares of positives, of which the first and the last are kept off 0 and 1."""
    share = for_it / whole
    if share[0] == 0:
        share[0] = min(half / (whole[0] + half), share[1])
    if for_it[-1] == whole[-1]:
        share[-1] = max(whole[-1] / (whole[-1] + other), share[-2])
    return share
