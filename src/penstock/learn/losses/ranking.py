"""Losses of a ranker over whole lists, with the gradients and curvatures that boosting asks for. One class a loss.

All are computed for all lists at once. A pairwise loss costs time and memory in proportion to its pairs, which depend
on the gains alone and are listed once; a listwise one in proportion to the rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array

Floats = NDArray[np.float64]
Others = Literal["lower", "all"]
_WASTE = 4


@dataclass(frozen=True, eq=False)
class Lists:
    """What came of n rows in R lists, list after list.

    Args:
        gain: (n,) what each row was worth: 1 for a click and 0 for none, a grade, or a weighted gain.
        groups: (R,) rows of each list, none empty; they sum to n.
        weight: (n,) what a row's gain counts; 1 by default. Inverse propensities of examination undo position bias
            (Joachims, Swaminathan and Schnabel, "Unbiased learning-to-rank with biased feedback", WSDM 2017).

    Raises:
        DefinitionError: lengths that do not fit, or a gain or weight that is not finite.

    >>> Lists(np.array([1.0, 0.0, 0.0]), np.array([2, 1]), np.array([4.0, 1.0, 1.0])).worth.tolist()
    [4.0, 0.0, 0.0]
    """

    gain: Floats
    groups: NDArray[np.int64]
    weight: Floats | None = None

    def __post_init__(self) -> None:
        n, whole = len(self.gain), int(self.groups.sum())
        weights = n if self.weight is None else len(self.weight)
        if n != whole or weights != n or (len(self.groups) and self.groups.min() < 1):
            raise DefinitionError(
                "every list has a row, and every row a gain and a weight",
                got=f"{n} gains, {weights} weights, {len(self.groups)} lists of {whole} rows in all",
                remedy="pass the sizes of the lists that are not empty, in the order of the rows",
            )
        if not np.isfinite(self.worth).all():
            raise DefinitionError(
                "gains and weights are finite", got=f"{int((~np.isfinite(self.worth)).sum())} that are not",
                remedy="clip propensities from below before dividing by them",
            )  # fmt: skip

    @cached_property
    def worth(self) -> Floats:
        """Gain times weight, (n,)."""
        return self.gain.astype(np.float64) if self.weight is None else self.gain * self.weight

    @cached_property
    def owner(self) -> NDArray[np.int64]:
        """Each row's list, (n,)."""
        return np.repeat(np.arange(len(self.groups)), self.groups)

    @cached_property
    def start(self) -> NDArray[np.int64]:
        """Each list's first row, (R,)."""
        return np.cumsum(self.groups) - self.groups

    @cached_property
    def step(self) -> NDArray[np.int64]:
        """Each row's number in its list, from 0, (n,)."""
        return np.arange(len(self.gain)) - self.start[self.owner]

    def places(self, score: Array) -> NDArray[np.int64]:
        """Each row's place from 0 in its list by falling score, equal scores in the order of the rows, (n,)."""
        n, width = len(score), int(self.groups.max(initial=0))
        if len(self.groups) * width > _WASTE * n:
            place = np.empty(n, np.int64)
            place[np.lexsort((-score, self.owner))] = self.step
            return place
        # Many short sorts take a fraction of a long one.
        table = np.full((len(self.groups), width), np.inf)
        table[self.owner, self.step] = -score
        order, places = np.argsort(table, axis=1, kind="stable"), np.empty(table.shape, np.int64)
        np.put_along_axis(places, order, np.arange(width)[None], axis=1)
        return places[self.owner, self.step]

    def sums(self, values: Floats) -> Floats:
        """The sum of `values` (n,) over each list, (R,)."""
        return _summed(self.owner, values, len(self.groups))

    @cached_property
    def lower(self) -> Pairs:
        """Pairs whose first row has more gain; each is worth the difference, times the first row's weight."""
        found = self._against(np.flatnonzero(self.gain > self._least[self.owner]))
        kept = self.gain[found.first] > self.gain[found.other]
        first, other = found.first[kept], found.other[kept]
        weight = 1.0 if self.weight is None else self.weight[first]
        return Pairs(first, other, weight * (self.gain[first] - self.gain[other]))

    @cached_property
    def all(self) -> Pairs:
        """Each row that has a gain against all others of its list; each pair is worth the first row's gain times its
        weight."""
        return self._against(np.flatnonzero(self.worth))

    @cached_property
    def _least(self) -> Floats:
        return np.minimum.reduceat(self.gain.astype(np.float64), self.start) if len(self.gain) else np.zeros(0)

    def _against(self, rows: NDArray[np.int64]) -> Pairs:
        size = self.groups[self.owner[rows]]
        first = np.repeat(rows, size)
        step = np.arange(len(first)) - np.repeat(np.cumsum(size) - size, size)
        other = self.start[self.owner[first]] + step
        kept = other != first
        return Pairs(first[kept], other[kept], self.worth[first[kept]])


@dataclass(frozen=True, eq=False)
class Pairs:
    """m pairs of rows of one list: `first` (m,) should stand above `other` (m,), at a price of `worth` (m,)."""

    first: NDArray[np.int64]
    other: NDArray[np.int64]
    worth: Floats


class RankingLoss(ABC):
    """What a ranker minimises, summed over lists; implementations are frozen dataclasses, registered as
    "ranking_loss"."""

    @abstractmethod
    def value(self, score: Floats, lists: Lists) -> Floats:
        """The loss (R,) of each list at the scores (n,), of which higher is better."""

    @abstractmethod
    def slopes(self, score: Floats, lists: Lists) -> tuple[Floats, Floats]:
        """The first derivative of the summed loss in each score, and the second (the Hessian's diagonal), (n,) each."""


@registered("ranking_loss")
@dataclass(frozen=True)
class Pairwise(RankingLoss):
    """log(1 + exp(other − first)) of each pair, times what the pair is worth (RankNet; Burges et al., ICML 2005).

    Args:
        others: the pairs. ``"lower"``: rows with more gain against rows with less. ``"all"``: every row that has a
            gain against all others of its list, whatever theirs. That one is linear in the gains: with inverse
            propensities as weights its expectation over clicks is the loss at the true relevance (Joachims et al.,
            2017), and the gains of several showings of a list may be added up beforehand.

    >>> lists = Lists(np.array([1.0, 0.0]), np.array([2]))
    >>> Pairwise().value(np.zeros(2), lists).round(4).tolist()
    [0.6931]
    >>> Pairwise().slopes(np.zeros(2), lists)[0].tolist()
    [-0.5, 0.5]
    """

    others: Others = "lower"

    def __post_init__(self) -> None:
        _known(self.others)

    def value(self, score: Floats, lists: Lists) -> Floats:
        pairs = lists.lower if self.others == "lower" else lists.all
        return _values(score, lists, pairs, pairs.worth)

    def slopes(self, score: Floats, lists: Lists) -> tuple[Floats, Floats]:
        pairs = lists.lower if self.others == "lower" else lists.all
        return _slopes(score, pairs, pairs.worth)


@registered("ranking_loss")
@dataclass(frozen=True)
class LambdaPairwise(RankingLoss):
    """The pairwise loss, each pair weighed by what exchanging its rows would change in DCG@top (LambdaRank; Burges,
    2010): |1 / log2(1 + rank) − 1 / log2(1 + rank')|, where a rank past `top` counts nothing.

    With inverse propensities as weights it follows an unbiased estimate of DCG (Hu et al., "Unbiased LambdaMART",
    WWW 2019). Ranks are those at the scores given, equal scores in the order of the rows; derivatives hold them fixed.

    Args:
        top: places that count.
        others: the pairs, see `Pairwise`.
        normalised: divide a list's loss by its best DCG@top, gains unweighted: NDCG. Clicks leave it out: a divisor
            that depends on them would undo their weights.

    >>> lists = Lists(np.array([0.0, 1.0]), np.array([2]))
    >>> LambdaPairwise().value(np.array([0.0, 0.0]), lists).round(4).tolist()  # log 2 · (1 − 1 / log2 3)
    [0.2558]
    """

    top: int = 20
    others: Others = "lower"
    normalised: bool = False

    def __post_init__(self) -> None:
        _known(self.others)
        if self.top < 1:
            raise DefinitionError("one place or more counts", got=f"top={self.top!r}", remedy="top=20")

    def value(self, score: Floats, lists: Lists) -> Floats:
        pairs = lists.lower if self.others == "lower" else lists.all
        return _values(score, lists, pairs, self._worth(score, lists, pairs))

    def slopes(self, score: Floats, lists: Lists) -> tuple[Floats, Floats]:
        pairs = lists.lower if self.others == "lower" else lists.all
        return _slopes(score, pairs, self._worth(score, lists, pairs))

    def _worth(self, score: Floats, lists: Lists, pairs: Pairs) -> Floats:
        rate = self._discount(score, lists)
        worth = pairs.worth * np.abs(rate[pairs.first] - rate[pairs.other])
        if self.normalised:
            best = lists.sums(lists.gain * self._discount(lists.gain, lists))
            share = np.divide(1.0, best, out=np.zeros(len(best)), where=best > 0)
            worth *= share[lists.owner[pairs.first]]
        return np.asarray(worth)

    def _discount(self, score: Array, lists: Lists) -> Floats:
        """What each row's place counts, (n,)."""
        place = lists.places(score)
        return np.where(place < self.top, 1.0 / np.log2(place + 2.0), 0.0)


@registered("ranking_loss")
@dataclass(frozen=True)
class ListSoftmax(RankingLoss):
    """−Σ worth · log of the row's share in the softmax of its list's scores (ListNet's top-one form; Cao et al.,
    ICML 2007). It is linear in the gains: with inverse propensities as weights its expectation over clicks is the
    loss at the true relevance, as with `Pairwise(others="all")`.

    >>> lists = Lists(np.array([1.0, 0.0]), np.array([2]))
    >>> ListSoftmax().value(np.zeros(2), lists).round(4).tolist()
    [0.6931]
    """

    def value(self, score: Floats, lists: Lists) -> Floats:
        high, _, total = self._parts(score, lists)
        return lists.sums(lists.worth) * (np.log(total) + high) - lists.sums(lists.worth * score)

    def slopes(self, score: Floats, lists: Lists) -> tuple[Floats, Floats]:
        _, raised, total = self._parts(score, lists)
        share = raised / total[lists.owner]
        whole = lists.sums(lists.worth)[lists.owner]
        return whole * share - lists.worth, whole * share * (1 - share)

    @staticmethod
    def _parts(score: Floats, lists: Lists) -> tuple[Floats, Floats, Floats]:
        if not len(score):
            return np.zeros(0), np.zeros(0), np.zeros(0)
        high = np.maximum.reduceat(score, lists.start)
        raised = np.exp(score - high[lists.owner])
        return high, raised, lists.sums(raised)


def objective(loss: RankingLoss, lists: Lists, least: float = 1e-6) -> Callable[[Any, Any], tuple[Floats, Floats]]:
    """The loss as LightGBM's `objective`: ``lightgbm.train({"objective": objective(loss, lists), …}, data)``, with
    the rows of `data` in the order of `lists`.

    Args:
        least: curvatures below this count as this, since LightGBM divides by their sums.
    """

    def slopes(score: Floats, data: Any) -> tuple[Floats, Floats]:
        gradient, curvature = loss.slopes(np.asarray(score, np.float64), lists)
        return gradient, np.maximum(curvature, least)

    return slopes


def _values(score: Floats, lists: Lists, pairs: Pairs, worth: Floats) -> Floats:
    each = worth * np.logaddexp(0.0, score[pairs.other] - score[pairs.first])
    return _summed(lists.owner[pairs.first], each, len(lists.groups))


def _slopes(score: Floats, pairs: Pairs, worth: Floats) -> tuple[Floats, Floats]:
    gap = score[pairs.first] - score[pairs.other]
    small = np.exp(-np.abs(gap))
    wrong = np.where(gap >= 0, small, 1.0) / (1.0 + small)
    pull, bend = worth * wrong, worth * wrong * (1 - wrong)
    n = len(score)
    gradient = _summed(pairs.other, pull, n) - _summed(pairs.first, pull, n)
    return gradient, _summed(pairs.other, bend, n) + _summed(pairs.first, bend, n)


def _summed(place: NDArray[np.int64], values: Floats, size: int) -> Floats:
    return np.asarray(np.bincount(place, values, size), np.float64)


def _known(others: str) -> None:
    if others not in ("lower", "all"):
        raise DefinitionError(
            "a row is held against rows of lower gain, or against all others", got=f"others={others!r}",
            remedy='write others="lower" or others="all"',
        )  # fmt: skip
