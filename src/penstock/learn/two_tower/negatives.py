"""What a query is compared with: items that are not to be pushed away, those that are less so, and the hardest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.learn.two_tower.network import Bags
from penstock.types import Array

_BLOCK = 512


def lists_by(key: Array, value: Array, size: int) -> Bags:
    """The different values that stand beside each key 0 … size - 1, ascending: the items known to be right for a query.

    >>> lists_by(np.array([1, 0, 1, 1]), np.array([7, 5, 7, 3]), 2).codes
    array([5, 3, 7])
    """
    pair = np.unique(np.stack([key, value], axis=1).astype(np.int64), axis=0)
    starts = np.searchsorted(pair[:, 0], np.arange(size + 1)).astype(np.int64)
    return Bags(starts, pair[:, 1])


def named(lists: Bags, of: Array, candidates: Array, items: int) -> NDArray[np.bool_]:
    """Which of `candidates` (m,) the list of each of `of` (n,) names, (n, m).

    Args:
        items: how many codes candidates have.
    """
    different, column = np.unique(candidates, return_inverse=True)
    place = np.full(items, -1, np.int64)
    place[different] = np.arange(len(different))
    part = lists.taken(of)
    row, at = np.repeat(np.arange(len(of)), np.diff(part.starts)), place[part.codes]
    there = at >= 0
    out = np.zeros((len(of), len(different)), bool)
    out[row[there], at[there]] = True
    return out[:, column]


def listed(lists: Bags, of: Array, own: Array) -> NDArray[np.bool_]:
    """Which of its own candidates (n, h) the list of each of `of` (n,) names, (n, h)."""
    part = lists.taken(of)
    row = np.repeat(np.arange(len(of)), np.diff(part.starts))
    out = np.zeros(own.shape, bool)
    for column in range(own.shape[1]):
        out[row[part.codes == own[row, column]], column] = True
    return out


def alike(items: Bags, least: float = 0.6, most: int = 20) -> Bags:
    """The other items that share most codes with each: the share of all codes of both that both have (Jaccard, 1901).

    Args:
        items: what is known of each item; the first code is its own id, and is left aside.
        least: items that share less are not alike; most: so many an item.

    Returns:
        The items alike of each, with the share as weight.

    >>> alike(Bags.of([[1, 8, 9], [2, 8, 9], [3, 7, 9]]), least=0.5).codes
    array([1, 0])
    """
    n = len(items)
    row = np.repeat(np.arange(n), np.diff(items.starts))
    own = np.zeros(len(items.codes), bool)
    own[items.starts[:-1][np.diff(items.starts) > 0]] = True
    row, code = row[~own], items.codes[~own]
    pair = np.unique(np.stack([row, code], axis=1), axis=0)
    row, code = pair[:, 0], np.unique(pair[:, 1], return_inverse=True)[1]
    many = np.zeros((n, int(code.max(initial=-1)) + 1), np.float32)
    many[row, code] = 1
    count = many.sum(axis=1)
    rows, others, shares = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for start in range(0, n, _BLOCK):
        mine = np.arange(start, min(start + _BLOCK, n))
        both = many[mine] @ many.T
        share = both / np.maximum(count[mine, None] + count - both, 1)
        share[mine - start, mine] = 0
        row, other = np.nonzero(share >= least)
        rows.append(row + start)
        others.append(other)
        shares.append(share[row, other])
    found, like, much = np.concatenate(rows), np.concatenate(others), np.concatenate(shares)
    order = np.lexsort((like, -much, found))
    found = found[order]
    kept = np.arange(len(found)) - np.searchsorted(found, found) < most
    starts = np.searchsorted(found[kept], np.arange(n + 1)).astype(np.int64)
    return Bags(starts, like[order][kept], much[order][kept])


def hardest(query: Array, item: Array, depth: int, known: Bags | None = None, skip: int = 0) -> NDArray[np.int64]:
    """The items that fit each query best and are not known to be right for it, (n, depth), in no order.

    Args:
        query: (n, d) and item: (m, d), as the towers give them.
        known: the items known to be right for each query; they are passed over.
        skip: so many of the best others are passed over as well: they may be right, and nobody knows (Xiong et al.,
            "Approximate nearest neighbor negative contrastive learning", ICLR 2021, take from the best 200).
    """
    n, m = len(query), len(item)
    depth = min(depth, m)
    skip = min(skip, m - depth)
    out = np.empty((n, depth), np.int64)
    for start in range(0, n, _BLOCK):
        mine = np.arange(start, min(start + _BLOCK, n))
        score = query[mine] @ item.T
        if known is not None:
            part = known.taken(mine)
            score[np.repeat(np.arange(len(mine)), np.diff(part.starts)), part.codes] = -np.inf
        first = np.argpartition(-score, depth + skip - 1, axis=1)[:, : depth + skip]
        if skip:
            order = np.argsort(-np.take_along_axis(score, first, axis=1), axis=1, kind="stable")[:, skip:]
            first = np.take_along_axis(first, order, axis=1)
        out[mine] = first
    return out


def best(query: Array, item: Array, k: int) -> NDArray[np.int64]:
    """The k items (m, d) that fit each query (n, d) best, (n, k), best first; of equal ones the lower number.

    >>> best(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0]]), 2)
    array([[1, 2]])
    """
    k = min(k, len(item))
    out = np.empty((len(query), k), np.int64)
    for start in range(0, len(query), _BLOCK):
        score = query[start : start + _BLOCK] @ item.T
        edge = -np.partition(-score, k - 1, axis=1)[:, k - 1]
        for i, line in enumerate(score):
            found = np.flatnonzero(line >= edge[i])
            out[start + i] = found[np.lexsort((found, -line[found]))][:k]
    return out
