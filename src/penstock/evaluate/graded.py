"""Ranking metrics for lists with many, differently relevant items, with ties and truncation done right.

Scores tie, in trees most of all, and a list that is sorted in some order within a tie is measured by accident. Here
tied items stand in every order alike, and each metric is its expectation over these, exactly and without drawing
(McSherry and Najork, "Computing information retrieval performance measures efficiently in the presence of tied
scores", ECIR 2008); or, if asked, the worst order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.runs import run_lengths, run_of, run_starts
from penstock.evaluate.checks import EvaluationError, at_least_one, equal_lengths
from penstock.evaluate.intervals import Interval, ratio
from penstock.types import Array

Floats = NDArray[np.float64]
TiesBy = Literal["expected", "pessimistic", "optimistic"]
Gain = Literal["linear", "exponential"]


@dataclass(frozen=True, eq=False)
class Ranked:
    """Scored rows of n lists, sorted once for all metrics; made by `Ranked.of`.

    Args:
        names: (n,) the lists' names, in the order of every metric's result.
        grade: (rows,) list after list, best score first.
        place: (rows,) int64, from 1 in each list.
        owner: (rows,) int64, each row's list as a place in `names`.
        found: (rows,) bool, whether the row stands in the list at all.
        start, size: (blocks,) int64, the runs of rows that may stand in any order among themselves.
    """

    names: Array
    grade: Floats
    place: NDArray[np.int64]
    owner: NDArray[np.int64]
    found: NDArray[np.bool_]
    start: NDArray[np.int64]
    size: NDArray[np.int64]

    @classmethod
    def of(cls, scores: Array, grades: Array, lists: Array, *, ties: TiesBy = "expected") -> Self:
        """Sorts rows into their lists.

        Args:
            scores: (rows,) higher first. -inf says that the item was not in the list: it takes no place and is still
                part of what there was to find.
            grades: (rows,) how relevant each is: 0 is not at all, and none is negative. Bools do.
            lists: (rows,) which list each row belongs to.
            ties: ``expected`` (default): rows of equal score stand in every order alike; ``pessimistic``: the worst
                first, so that a model that scores everything alike earns little; ``optimistic``: the best first.

        Raises:
            EvaluationError: columns of different length or none, a score that is NaN or +inf, a grade that is
                negative or not finite.
        """
        equal_lengths(scores=scores, grades=grades, lists=lists)
        score, grade = np.asarray(scores, np.float64), np.asarray(grades, np.float64)
        if np.isnan(score).any() or (score == np.inf).any():
            raise EvaluationError(
                "a score is a number, or -inf where the item was not in the list",
                got=f"{int(np.isnan(score).sum())} NaN and {int((score == np.inf).sum())} +inf",
                remedy="check the model's output",
            )
        if not np.isfinite(grade).all() or (grade < 0).any():
            raise EvaluationError(
                "a grade is 0 for what is not relevant, and more for what is",
                got=f"grades from {grade.min()} to {grade.max()}",
                remedy="shift or clean the grades",
            )
        names, owner = np.unique(lists, return_inverse=True)
        inside = {"expected": np.zeros(1), "pessimistic": grade, "optimistic": -grade}[ties]
        order = np.lexsort((np.broadcast_to(inside, grade.shape), -score, owner))
        owner, score, grade = owner[order].astype(np.int64), score[order], grade[order]
        begin = run_starts(owner)
        place = np.arange(len(owner)) - begin[owner] + 1
        start = run_starts(owner, score) if ties == "expected" else np.arange(len(owner))
        return cls(names, grade, place, owner, score > -np.inf, start, run_lengths(start, len(owner)))

    def totals(self, values: Array) -> Floats:
        """Sums of (rows,) by list, (n,) float64."""
        return np.bincount(self.owner, weights=values, minlength=len(self.names)).astype(np.float64)

    def expected(self, values: Array) -> Floats:
        """The mean of (rows,) values over the rows that may stand in each one's place; (rows,) float64."""
        means = np.add.reduceat(values, self.start) / self.size
        return np.asarray(means[run_of(self.start, len(self.owner))])

    def reached(self, k: int | None) -> NDArray[np.bool_]:
        """Which rows stand in the first k places of their list; all that are in it where k is None."""
        return self.found if k is None else self.found & (self.place <= at_least_one(k))


def dcg_at(ranked: Ranked, k: int | None = None, *, gain: Gain = "linear") -> Floats:
    """The discounted cumulated gain of each list's first k places: the sum of gain / log2(place + 1); (n,) float64.

    Args:
        gain: ``linear``: the grade itself; ``exponential``: 2 ** grade - 1, which favours the highest grades.

    >>> dcg_at(Ranked.of(np.array([0.9, 0.8, 0.1]), np.array([0, 2, 2]), np.zeros(3)), 3).round(4).tolist()
    [2.2619]
    """
    return ranked.totals(np.where(ranked.reached(k), ranked.expected(_gains(ranked, gain)), 0.0) * _discount(ranked))


def ideal_dcg_at(ranked: Ranked, k: int | None = None, *, gain: Gain = "linear") -> Floats:
    """The most that `dcg_at` could be: with all of a list's rows, found or not, in the order of their grades."""
    gained = _gains(ranked, gain)
    best = gained[np.lexsort((-gained, ranked.owner))]
    counted = np.ones(len(best), bool) if k is None else ranked.place <= at_least_one(k)
    return ranked.totals(np.where(counted, best, 0.0) * _discount(ranked))


def ndcg_at(ranked: Ranked, k: int | None = None, *, gain: Gain = "linear") -> Floats:
    """The normalised discounted cumulated gain of each list's first k places (Järvelin and Kekäläinen, 2002).

    The ideal is cut after k places, too, so that the best list has 1 however many relevant items there are.

    Returns:
        (n,) float64; NaN where a list has nothing relevant.

    >>> ndcg_at(Ranked.of(np.array([0.5, 0.5]), np.array([1, 0]), np.zeros(2))).round(4).tolist()  # 1 or 0.6309
    [0.8155]
    """
    return _share(dcg_at(ranked, k, gain=gain), ideal_dcg_at(ranked, k, gain=gain))


def precision_at(ranked: Ranked, k: int) -> Floats:
    """The share of the first k places that hold something relevant (grade above 0); a shorter list wastes places.

    >>> precision_at(Ranked.of(np.array([0.9, 0.5, 0.5]), np.array([1, 1, 0]), np.zeros(3)), 2).tolist()
    [0.75]
    """
    return _relevant_in(ranked, k) / k


def recall_at(ranked: Ranked, k: int) -> Floats:
    """The share of each list's relevant rows that stand in its first k places; (n,), NaN where there is none.

    All of them stay in the denominator, even where they are more than k.
    """
    return _share(_relevant_in(ranked, k), ranked.totals(ranked.grade > 0))


def reciprocal_rank_at(ranked: Ranked, k: int | None = None) -> Floats:
    """One over the place of the first relevant row, 0 where it is past k; (n,), NaN where nothing is relevant.

    >>> reciprocal_rank_at(Ranked.of(np.array([0.5, 0.5]), np.array([1, 0]), np.zeros(2))).tolist()  # 1 or 1/2
    [0.75]
    """
    relevant = np.add.reduceat(((ranked.grade > 0) & ranked.found).astype(np.int64), ranked.start)
    some = np.flatnonzero(relevant)
    owner, at = np.unique(ranked.owner[ranked.start[some]], return_index=True)
    block = some[at]
    before, size, good = ranked.place[ranked.start[block]] - 1, ranked.size[block], relevant[block]
    most = np.iinfo(np.int64).max if k is None else at_least_one(k)
    value, alone = np.zeros(len(block)), np.ones(len(block))
    # Place j of a block of `size` has its first of `good` relevant rows with chance alone × good / (size - j + 1).
    for j in range(1, min(int((size - good + 1).max(initial=0)), most) + 1):
        left = np.maximum(size - j + 1, 1)
        chance = np.where(before + j <= most, alone * good / left, 0.0)
        value += np.where(j <= size - good + 1, chance / (before + j), 0.0)
        alone = alone * np.maximum(left - good, 0) / left
    out = np.where(ranked.totals(ranked.grade > 0) > 0, 0.0, np.nan)
    out[owner] = value
    return out


def average_precision_at(
    ranked: Ranked, k: int | None = None, *, over: Literal["reachable", "all"] = "reachable"
) -> Floats:
    """The mean, over relevant rows, of the precision at their place; those past the first k places add 0.

    Args:
        over: ``reachable`` divides by how many relevant rows k places can hold, so that the best list has 1;
            ``all`` by how many there are, as trec_eval's map_cut does. Without k both are the same.

    Returns:
        (n,) float64; NaN where a list has nothing relevant.
    """
    good = (ranked.grade > 0) & ranked.found
    block = run_of(ranked.start, len(ranked.owner))
    relevant = np.add.reduceat(good.astype(np.float64), ranked.start)
    earlier = np.cumsum(relevant) - relevant
    first_of_list = run_starts(ranked.owner[ranked.start])
    earlier = earlier - np.repeat(earlier[first_of_list], run_lengths(first_of_list, len(ranked.start)))
    inside = ranked.place - ranked.place[ranked.start][block]
    size, mine = ranked.size[block], relevant[block]
    # Of the rows before it in its block, a relevant one expects this many to be relevant, too.
    beside = inside * (mine - 1) / np.maximum(size - 1, 1)
    each = mine / size * (earlier[block] + np.maximum(beside, 0.0) + 1) / ranked.place
    total = ranked.totals(ranked.grade > 0)
    most = total if k is None or over == "all" else np.minimum(total, at_least_one(k))
    return _share(ranked.totals(np.where(ranked.reached(k), each, 0.0)), most)


def ips_ndcg(
    scores: Array,
    clicks: Array,
    propensity: Array,
    lists: Array,
    k: int | None = None,
    *,
    most_weight: float | None = None,
    self_normalised: bool = True,
    users: Array | None = None,
    ties: TiesBy = "expected",
    **how: Any,
) -> Interval:
    """NDCG from clicks, each weighed by one over the chance that its item was looked at where it was shown.

    What stood high is clicked for that, so clicks taken as they are praise whatever orders like the ranker that was
    served. One over the examination propensity undoes it in expectation (Joachims, Swaminathan and Schnabel,
    "Unbiased learning-to-rank with biased feedback", WSDM 2017).

    Args:
        scores: (rows,) of the ranker that is judged, see `Ranked.of`.
        clicks: (rows,) 0 where there was none, else what it is worth.
        propensity: (rows,) the chance, above 0 and at most 1, that the item was looked at when it was shown; only
            read where there is a click.
        lists: (rows,) which list each row belongs to.
        most_weight: the most that one click weighs; it trades variance for a bias towards what was served.
        self_normalised: whether the sum of weighted gains is divided by the most it could be over all lists, so that
            the result is from 0 to 1 and large weights do less harm (Swaminathan and Joachims, NeurIPS 2015); else
            by the number of lists, those without a click included: an unbiased estimate of the mean DCG by relevance.
        users: (rows,) who asked; intervals resample them, and lists where absent.
        how: `repeats`, `level` and `seed` of the interval, see `paired`.

    >>> clicks, looked = np.array([1, 0, 0, 1]), np.array([1.0, 0.5, 1.0, 0.5])
    >>> by = {"lists": np.array([0, 0, 1, 1]), "scores": np.array([0.2, 0.1, 0.9, 0.3])}
    >>> round(ips_ndcg(clicks=clicks, propensity=looked, **by).mean, 4)  # (1 × 1 + 2 × 0.6309) / (1 + 2)
    0.754
    """
    equal_lengths(scores=scores, clicks=clicks, propensity=propensity, lists=lists)
    clicked = np.asarray(clicks, np.float64)
    chance = np.where(clicked > 0, np.asarray(propensity, np.float64), 1.0)
    if not ((chance > 0) & (chance <= 1)).all():
        raise EvaluationError(
            "a clicked item was looked at with a chance above 0 and at most 1",
            got=f"propensities from {chance.min()} to {chance.max()}",
            remedy="estimate examination first, and leave out places where it is 0",
        )
    weight = 1.0 / chance if most_weight is None else np.minimum(1.0 / chance, most_weight)
    ranked = Ranked.of(scores, clicked * weight, lists, ties=ties)
    gained, possible = dcg_at(ranked, k), ideal_dcg_at(ranked, k)
    if self_normalised and not possible.any():
        raise EvaluationError("there is a click", got="none in any list", remedy="take more lists")
    who = ranked.names
    if users is not None:
        equal_lengths(lists=lists, users=users)
        who = np.asarray(users)[np.unique(lists, return_index=True)[1]]
    return ratio(gained, possible if self_normalised else np.ones(len(gained)), who, **how)


def sampled_rank_of_positive(
    scores: Array, is_positive: Array, lists: Array, negatives: int, *, seed: int = 0
) -> NDArray[np.int64]:
    """The rank of each list's positive row among itself and some of the others, drawn at random: not to be reported.

    Metrics of such ranks are not those of the lists: a hit rate at 10 among 100 drawn items is about that at some
    hundreds among all, AUC is the only one that stays, and two rankers may change places (Krichene and Rendle, "On
    sampled metrics for item recommendation", KDD 2020). It is here to compare with figures that were published so.
    All else in this project ranks every candidate.

    Args:
        scores: (rows,) finite; ties count against the positive.
        is_positive: (rows,) bool; at most one row of a list is true.
        lists: (rows,) which list each row belongs to.
        negatives: so many other rows are drawn, without replacement, or all where there are no more.

    Returns:
        One rank a list, in the order of `np.unique(lists)`; 0 where a list has no positive.
    """
    ranked = Ranked.of(scores, is_positive, lists, ties="pessimistic")
    positive = ranked.grade > 0
    if ranked.totals(positive).max() > 1:
        raise EvaluationError(
            "a list has at most one positive row",
            got=f"{int(ranked.totals(positive).max())}",
            remedy="name one row of each list",
        )
    drawn = np.random.default_rng(seed).random(len(positive))
    order = np.lexsort((drawn, positive, ranked.owner))  # a list's others come first, in an order drawn at random
    at = np.empty(len(order), np.int64)
    begin = run_starts(ranked.owner)
    at[order] = np.arange(len(order)) - begin[ranked.owner]
    kept = positive | (at < at_least_one(negatives))
    target = np.full(len(ranked.names), -1, np.int64)
    target[ranked.owner[positive]] = ranked.place[positive]
    ahead = ranked.totals(kept & ~positive & (ranked.place < target[ranked.owner]))
    return np.where(target > 0, ahead + 1, 0).astype(np.int64)


def _gains(ranked: Ranked, gain: Gain) -> Floats:
    return ranked.grade if gain == "linear" else np.exp2(ranked.grade) - 1.0


def _discount(ranked: Ranked) -> Floats:
    return np.asarray(1.0 / np.log2(ranked.place + 1.0))


def _relevant_in(ranked: Ranked, k: int) -> Floats:
    return ranked.totals(np.where(ranked.reached(k), ranked.expected((ranked.grade > 0).astype(np.float64)), 0.0))


def _share(part: Floats, whole: Floats) -> Floats:
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)
