"""From what shoppers touched to what the towers read: items, their attributes, and what came before each event."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.learn.two_tower.network import Bags
from penstock.learn.two_tower.training import Pairs
from penstock.retrieve.base import History, places
from penstock.types import Array


def examples(
    lists: Sequence[tuple[History, NDArray[np.int64]]], recent: int, decay: float, most: int
) -> tuple[Bags, Pairs]:
    """What shoppers had touched before each event, and the item of the event, oldest first.

    Each list is read as a request reads it: the newest of its own events, whether or not another list counts them.

    Args:
        lists: the events of each list feature, and what each is (n,) as rows of the table: first of items, which have
            row 1 and up, then of their attributes.
        recent: how many events before to read; decay: what each older one counts.
        most: events at most, the newest.
    """
    past, ids = lists[0]
    n = len(past.item)
    began = np.r_[True, past.owner[1:] != past.owner[:-1]][:n]
    usable = np.flatnonzero(~began & (ids > 0) & (ids != np.r_[0, ids][:n]))
    usable = usable[np.argsort(past.time[usable], kind="stable")][-most:]
    codes, weights = [], []
    for part, line in lists:
        first, end = _before(past, part, usable)
        block = np.zeros((len(usable), recent), np.int64)
        for place in range(recent):
            at = end - 1 - place
            code = np.where(at >= first, np.r_[line, 0][np.maximum(at, 0)], 0)
            block[:, place] = np.where((block[:, :place] == code[:, None]).any(axis=1), 0, code)
        codes.append(block)
        weights.append(np.broadcast_to(decay ** np.arange(recent), block.shape))
    queries = bags(np.concatenate(codes, axis=1), np.concatenate(weights, axis=1).astype(np.float32))
    return queries, Pairs(np.arange(len(usable)), ids[usable] - 1)


def _before(past: History, part: History, which: Array) -> tuple[Array, Array]:
    """Where in `part` the events lie that the same shopper had before some events of `past`: from, up to, (n,) each."""
    _, moment = np.unique(np.r_[past.at, part.at], return_inverse=True)
    key = (np.r_[past.owner, part.owner].astype(np.uint64) << np.uint64(32)) | moment.astype(np.uint64)
    mine, theirs = key[: len(past.item)][which], key[len(past.item) :]
    return np.searchsorted(part.owner, past.owner[which]), np.searchsorted(theirs, mine)


def packed(codes: Array, place: int) -> NDArray[np.uint64]:
    """Values of several attributes in one space: the attribute's place above the code; 0 stays 0."""
    return np.where(codes != 0, (np.uint64(place) << np.uint64(32)) | codes.astype(np.uint64), np.uint64(0))


def rows(known: NDArray[np.uint64], codes: NDArray[np.uint64], first: int) -> NDArray[np.int64]:
    """The rows of codes among the sorted `known`, the first of which has row `first`; 0 for what is not among them."""
    out = np.zeros(len(codes), np.int64)
    held, at = places(known, codes)
    out[held] = first + at
    return out


def bags(lines: NDArray[np.int64], weight: NDArray[np.float32] | None = None) -> Bags:
    """Rows of codes (n, w) as bags; zeros are left out, but for the first, which stands for an id."""
    there = lines > 0
    if weight is None:
        there[:, 0] = True
    starts = np.r_[0, np.cumsum(there.sum(axis=1))].astype(np.int64)
    return Bags(starts, lines[there], None if weight is None else weight[there])


def item_bags(item: NDArray[np.int64], attributes: list[NDArray[np.int64]], time: Array, items: int) -> Bags:
    """Of each item, numbered from 1, its id and the newest value of each attribute."""
    lines = np.zeros((items, 1 + len(attributes)), np.int64)
    lines[:, 0] = np.arange(1, items + 1)
    for column, part in enumerate(attributes, 1):
        there = np.flatnonzero((item > 0) & (part > 0))
        there = there[np.lexsort((part[there], time[there]))]
        lines[item[there] - 1, column] = part[there]  # the last one stays
    return bags(lines)
