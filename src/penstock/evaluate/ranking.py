"""Ranking metrics over ranked lists: who found the item that was really taken, and how far up.

One list is made for each decision. `ranks`, (n,) int64, is the 1-based rank of the single relevant item in
each of n lists, 0 where the list does not hold it. An item that was never retrieved counts as a miss and stays
in the denominator, so retrieval and ranking are measured together, never ranking alone.
Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", 2002.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError, at_least_one, equal_lengths
from penstock.types import Array

Ranks = NDArray[np.int64]
Ties = Literal["pessimistic", "average", "optimistic"]


def hits(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """1 for each list that holds its relevant item in the first k places, else 0; (n,) float64.

    >>> hits(np.array([1, 20, 21, 0]), 20).tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    return _within(ranks, k).astype(np.float64)


def reciprocal_ranks(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """1 / rank for each list, 0 past the first k places; (n,) float64.

    >>> reciprocal_ranks(np.array([1, 4, 21, 0]), 20).tolist()
    [1.0, 0.25, 0.0, 0.0]
    """
    return np.where(_within(ranks, k), 1.0 / np.maximum(ranks, 1), 0.0)


def gains(ranks: Ranks, k: int) -> NDArray[np.float64]:
    """The NDCG of each list, 1 / log2(rank + 1), 0 past the first k places; (n,) float64.

    With a single relevant item the ideal gain is 1, so no further division is needed.

    >>> gains(np.array([1, 3, 21, 0]), 20).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    return np.where(_within(ranks, k), 1.0 / np.log2(np.maximum(ranks, 1) + 1.0), 0.0)


def hit_rate(ranks: Ranks, k: int) -> float:
    """The share of lists with a hit in the first k places; equal to recall@k, as each list has one relevant item.

    >>> hit_rate(np.array([1, 20, 21, 0]), 20)
    0.5
    """
    return float(hits(ranks, k).mean())


def mrr(ranks: Ranks, k: int) -> float:
    """The mean reciprocal rank over all lists, truncated after k places."""
    return float(reciprocal_ranks(ranks, k).mean())


def ndcg(ranks: Ranks, k: int) -> float:
    """The mean normalised discounted cumulative gain over all lists, truncated after k places."""
    return float(gains(ranks, k).mean())


def rank_in_list(lists: Array, positive: Array) -> Ranks:
    """The rank of `positive` (n,) in `lists` (n, k), best first; 0 where absent. A code 0 pads and never matches.

    >>> rank_in_list(np.array([[7, 8, 9], [7, 8, 0], [7, 0, 0]]), np.array([9, 7, 0])).tolist()
    [3, 1, 0]
    """
    equal_lengths(lists=lists, positive=positive)
    if lists.shape[1] == 0:
        return np.zeros(len(lists), np.int64)
    found = (lists == positive[:, None]) & (positive[:, None] != 0)
    return np.where(found.any(1), found.argmax(1) + 1, 0).astype(np.int64)


def rank_of_positive(scores: Array, is_positive: Array, groups: Array, ties: Ties = "pessimistic") -> Ranks:
    """The rank of the positive row within each group of scored rows, higher scores first.

    Args:
        scores: (rows,) finite numbers.
        is_positive: (rows,) bool; at most one row of a group is true.
        groups: (rows,) the list that each row belongs to.
        ties: where the positive stands among rows of equal score. ``pessimistic`` (default): last, so a
            model that scores everything alike earns nothing; ``optimistic``: first; ``average``: in the
            middle, a half rounded up.

    Returns:
        One rank a group, in the order of `np.unique(groups)`; 0 where a group has no positive.

    >>> scores, positive = np.array([.9, .5, .5, .1, .4]), np.array([0, 1, 0, 0, 0], bool)
    >>> rank_of_positive(scores, positive, np.array([1, 1, 1, 1, 2])).tolist()
    [3, 0]
    """
    equal_lengths(scores=scores, is_positive=is_positive, groups=groups)
    names, group = np.unique(groups, return_inverse=True)
    positives = np.bincount(group[is_positive], minlength=len(names))
    if positives.max() > 1 or not np.isfinite(scores).all():
        raise EvaluationError(
            "a ranked list has finite scores and at most one positive row",
            got=f"{int(positives.max())} positives in one list, {int((~np.isfinite(scores)).sum())} scores not finite",
            remedy="give each decision a group of its own, and check the model's output",
        )
    target = np.full(len(names), np.inf)
    target[group[is_positive]] = scores[is_positive]
    better = np.bincount(group[scores > target[group]], minlength=len(names))
    level = np.bincount(group[scores == target[group]], minlength=len(names))
    first, last = better + 1, better + level
    rank = {"optimistic": first, "pessimistic": last, "average": (first + last + 1) // 2}[ties]
    return np.where(positives == 1, rank, 0).astype(np.int64)


def recall_at_k(lists: Array, relevant: Array, k: int) -> NDArray[np.float64]:
    """The share of each list's relevant items that stand in its first k places; for many relevant items a list.

    Args:
        lists: (n, width) codes, best first, 0 pads.
        relevant: (n, r) codes, 0 pads, repeats count once. All of them stay in the denominator, even where
            they are more than k.

    Returns:
        (n,) float64; NaN where a list has no relevant item.

    >>> recall_at_k(np.array([[1, 2, 3]]), np.array([[3, 1, 9, 9]]), 2).tolist()
    [0.3333333333333333]
    """
    at_least_one(k)
    equal_lengths(lists=lists, relevant=relevant)
    ordered = np.sort(relevant, axis=1)
    counted = ordered != 0
    counted[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    top = lists[:, :k]
    found = np.zeros(len(lists))
    for column in range(ordered.shape[1]):  # one column at a time keeps the memory at (n, k)
        found += counted[:, column] & (top == ordered[:, column, None]).any(1)
    total = counted.sum(1)
    return np.where(total > 0, found / np.maximum(total, 1), np.nan)


def goals_at(lists: Array, owner: Array, item: Array, k: int) -> NDArray[np.float64]:
    """How many of the items on which the goal followed stand in each list's first k places; (n,) float64.

    Of decisions that were asked for it is the goals a decision, such as purchases a search: unlike a rank of the next
    item, it counts all that came of one list.

    Args:
        lists: (n, width) codes, best first, 0 pads.
        owner, item: (m,) pairs of a list's place and a code; repeats count once.

    >>> goals_at(np.array([[1, 2, 3], [4, 5, 6]]), np.array([0, 0, 0, 1]), np.array([2, 1, 1, 6]), 2).tolist()
    [2.0, 0.0]
    """
    at_least_one(k)
    pairs = np.unique(np.stack([np.asarray(owner, np.int64), np.asarray(item, np.int64)], axis=1), axis=0)
    whose, wanted = pairs[:, 0], pairs[:, 1]
    found = (lists[whose, :k] == wanted[:, None]).any(axis=1) & (wanted != 0)
    return np.bincount(whose[found], minlength=len(lists)).astype(np.float64)


def coverage(lists: Array, catalogue_size: int) -> float:
    """The share of the catalogue that appears in any of the lists, (n, k) codes where 0 pads.

    >>> coverage(np.array([[1, 2], [1, 0]]), 10)
    0.2
    """
    if catalogue_size < 1:
        raise EvaluationError(
            "the catalogue has at least one item", got=str(catalogue_size), remedy="count the items the lists draw on"
        )
    return int(np.count_nonzero(np.unique(lists))) / catalogue_size


def _within(ranks: Ranks, k: int) -> NDArray[np.bool_]:
    at_least_one(k)
    equal_lengths(ranks=ranks)
    if ranks.dtype.kind not in "iu" or ranks.min() < 0:
        raise EvaluationError(
            "a rank is a whole number from 1, or 0 for an item that is not in the list",
            got=f"{ranks.dtype} from {ranks.min()}",
            remedy="compute ranks with rank_of_positive or rank_in_list",
        )
    return (ranks > 0) & (ranks <= k)
