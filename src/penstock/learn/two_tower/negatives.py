"""What a query is compared with: items that are not to be pushed away, those that are less so, and the hardest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.learn.two_tower.network import Bags
from penstock.retrieve.base import places
from penstock.types import Array

_BLOCK = 512
_BYTES = 64 << 20
"""Of scores in memory at once: the more items there are, the fewer are compared with them at a time."""


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
    pair = np.unique(np.stack([row[~own], items.codes[~own]], axis=1), axis=0)
    edges = np.searchsorted(pair[:, 0], np.arange(n + 1))
    held = Bags(edges.astype(np.int64), pair[:, 1])
    parts = [np.zeros((0, 3))]
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        columns = np.unique(held.codes[edges[start] : edges[stop]])
        mine, found = _marked(held, start, stop, columns), np.zeros((0, 3))
        wide = max(1, _BYTES // (4 * max(len(columns), _BLOCK)))
        for begin in range(0, n if len(columns) else 0, wide):
            end = min(begin + wide, n)
            both = mine @ _marked(held, begin, end, columns).T
            count = np.diff(edges)
            share = both / np.maximum(count[start:stop, None] + count[begin:end] - both, 1)
            same = np.arange(max(start, begin), min(stop, end))
            share[same - start, same - begin] = 0
            one, other = np.nonzero(share >= least)
            new = np.stack([one + start, other + begin, share[one, other]], axis=1)
            found = _foremost(np.concatenate([found, new]), most)
        parts.append(found)
    found = np.concatenate(parts)
    starts = np.searchsorted(found[:, 0], np.arange(n + 1)).astype(np.int64)
    return Bags(starts, found[:, 1].astype(np.int64), found[:, 2].astype(np.float32))


def _marked(bags: Bags, start: int, stop: int, columns: Array) -> NDArray[np.float32]:
    """Which of the codes `columns` (ascending) the bags from `start` to `stop` have, as 0 and 1."""
    out = np.zeros((stop - start, len(columns)), np.float32)
    codes = bags.codes[bags.starts[start] : bags.starts[stop]]
    row = np.repeat(np.arange(stop - start), np.diff(bags.starts[start : stop + 1]))
    held, at = places(columns, codes)
    out[row[held], at] = 1
    return out


def _foremost(found: Array, most: int) -> Array:
    """Of rows (key, other, share) the `most` of each key with the largest share, keys ascending."""
    found = found[np.lexsort((found[:, 1], -found[:, 2], found[:, 0]))]
    return found[np.arange(len(found)) - np.searchsorted(found[:, 0], found[:, 0]) < most]


def _block(items: Array) -> int:
    """How many queries are compared with all items at a time."""
    return max(1, min(_BLOCK, _BYTES // max(1, len(items) * items.dtype.itemsize)))


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
    out, block = np.empty((n, depth), np.int64), _block(item)
    for start in range(0, n, block):
        mine = np.arange(start, min(start + block, n))
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
    out, block = np.empty((len(query), k), np.int64), _block(item)
    for start in range(0, len(query), block):
        score = query[start : start + block] @ item.T
        edge = -np.partition(-score, k - 1, axis=1)[:, k - 1]
        for i, line in enumerate(score):
            found = np.flatnonzero(line >= edge[i])
            out[start + i] = found[np.lexsort((found, -line[found]))][:k]
    return out
