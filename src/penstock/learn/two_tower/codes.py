"""From what shoppers touched to what the towers read: items, their attributes, and what came before each event."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.learn.two_tower.network import Bags
from penstock.learn.two_tower.training import Pairs
from penstock.retrieve.base import History, places
from penstock.types import Array


def examples(past: History, lines: list[NDArray[np.int64]], recent: int, decay: float, most: int) -> tuple[Bags, Pairs]:
    """What shoppers had touched before each event, and the item of the event, oldest first.

    Args:
        lines: (n,) what each event is, as rows of the table: its item, which has row 1 and up, and its attributes.
        recent: how many events before to read; decay: what each older one counts.
        most: events at most, the newest.
    """
    n = len(past.item)
    at = np.arange(n)
    began = np.r_[True, past.owner[1:] != past.owner[:-1]][:n]
    since = at - np.maximum.accumulate(np.where(began, at, 0)) if n else at
    usable = np.flatnonzero((since > 0) & (lines[0] > 0) & (lines[0] != np.r_[0, lines[0]][:n]))
    usable = usable[np.argsort(past.time[usable], kind="stable")][-most:]
    codes, weights = [], []
    for part in lines:
        block = np.zeros((len(usable), recent), np.int64)
        for place in range(recent):
            there = since[usable] > place
            code = np.where(there, part[np.maximum(usable - 1 - place, 0)], 0)
            block[:, place] = np.where((block[:, :place] == code[:, None]).any(axis=1), 0, code)
        codes.append(block)
        weights.append(np.broadcast_to(decay ** np.arange(recent), block.shape))
    queries = bags(np.concatenate(codes, axis=1), np.concatenate(weights, axis=1).astype(np.float32))
    return queries, Pairs(np.arange(len(usable)), lines[0][usable] - 1)


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


def beside(past: History, part: History) -> NDArray[np.uint32]:
    """What another list feature counted of the same events: (n,) codes, 0 where it counted none.

    Events of one shopper at one moment are told apart by their order, where both features counted all of them.
    """
    _, moment = np.unique(np.r_[past.time, part.time], return_inverse=True)
    key = (np.r_[past.owner, part.owner].astype(np.uint64) << np.uint64(32)) | moment.astype(np.uint64)
    mine, theirs = key[: len(past.time)], key[len(past.time) :]
    out = np.zeros(len(mine), np.uint32)
    a, b = _paired(mine, theirs)
    out[a] = part.item[b]
    return out


def _paired(a: Array, b: Array) -> tuple[Array, Array]:
    """Places in `a` and in `b` of the keys that stand as often in one as in the other, in order."""
    keys, inverse = np.unique(np.r_[a, b], return_inverse=True)
    counts = [np.bincount(part, minlength=len(keys)) for part in (inverse[: len(a)], inverse[len(a) :])]
    good = counts[0] == counts[1]
    at = [np.flatnonzero(good[part]) for part in (inverse[: len(a)], inverse[len(a) :])]
    sides = [place[np.argsort(part[place], kind="stable")] for place, part in zip(at, (a, b), strict=True)]
    return sides[0], sides[1]
