"""A sample of a stream of any length, in bounded memory, that does not depend on the order of the stream."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.losses import Floats

_SLACK = 4
"""The buffer is longer than the sample by one part in so many: what comes in is sorted that rarely."""
_WORKING = 48
"""Bytes a row that sorting takes for a while."""


class StratifiedSample:
    """Of the positive and of the other rows, those with the smallest hashes (a bottom-k sample of each stratum;
    Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007).

    The same rows make the same sample, whatever order and pieces they come in, and samples of parts merge into that
    of the whole. Fraud is rare: positives are all kept while they are at most `positives`, and other rows have what
    is left of `most`. A row that is kept stands for `seen / kept` of its stratum's.

    Args:
        most: rows kept in all, at least 2. There are never more than 1.25 times as many in memory.
        positives: positive rows kept in all; half of `most` where absent.

    Attributes:
        seen: rows that came, (others, positives).

    >>> sample = StratifiedSample(most=4)
    >>> sample.add(np.zeros((9, 1), np.float32), np.arange(9) == 5, np.arange(9, dtype=np.uint64))
    >>> sample.positive, sample.weight.round(2)
    (array([False, False, False,  True]), array([2.67, 2.67, 2.67, 1.  ]))
    """

    def __init__(self, most: int, positives: int | None = None) -> None:
        self.most = most
        self.positives = most // 2 if positives is None else positives
        if not 0 < self.positives < most:
            raise DefinitionError(
                "a sample has room for rows of both kinds", got=f"most={most!r}, positives={positives!r}",
                remedy="most=1_000_000, and positives below it",
            )  # fmt: skip
        self.seen = np.zeros(2, np.int64)
        self._none_above = np.full(2, np.iinfo(np.uint64).max, np.uint64)
        self._room = most + max(1, most // _SLACK)
        self._rows = np.zeros((0, 0), np.float32)
        self._positive = np.zeros(0, bool)
        self._ids = np.zeros(0, np.uint64)
        self._kept = 0
        self._sorted = True

    @classmethod
    def of_memory(cls, limit: int, features: int) -> Self:
        """The largest sample of rows of so many features whose peak is below `limit` bytes, besides what is added."""
        room = limit // (4 * features + 9 + _WORKING)
        return cls(most=int(room * _SLACK // (_SLACK + 1)))

    def add(self, rows: NDArray[np.float32], positive: NDArray[np.bool_], ids: NDArray[np.uint64]) -> None:
        """Rows (n, features) and what came of them (n,).

        Args:
            ids: (n,) a hash of each row's name, evenly spread over 64 bits, such as an event's tie.

        Raises:
            DefinitionError: the lengths differ, or rows have another number of features than those before.
        """
        if not (rows.ndim == 2 and len(rows) == len(positive) == len(ids)):
            raise DefinitionError(
                "each row comes with its outcome and its hash", got=f"{rows.shape}, {len(positive)}, {len(ids)}",
                remedy="rows (n, features), positive (n,), ids (n,)",
            )  # fmt: skip
        several = np.bincount(positive.astype(np.int64), minlength=2)
        self._take(rows, positive, ids)
        self.seen += several

    def merge(self, other: StratifiedSample) -> None:
        """Makes this the sample of what came to either.

        Raises:
            DefinitionError: the two keep different numbers of rows.
        """
        if (self.most, self.positives) != (other.most, other.positives):
            raise DefinitionError(
                "samples that merge keep as many rows", got=f"most={self.most} and most={other.most}",
                remedy="make both with the same most and positives",
            )  # fmt: skip
        if other.seen.any():
            self._take(other.rows, other.positive, other.ids)
        self.seen += other.seen

    @property
    def rows(self) -> NDArray[np.float32]:
        """The kept rows (kept, features), by their hashes; good until more are added."""
        self._settle()
        return self._rows[: self._kept]

    @property
    def positive(self) -> NDArray[np.bool_]:
        """What came of them, (kept,)."""
        self._settle()
        return self._positive[: self._kept]

    @property
    def ids(self) -> NDArray[np.uint64]:
        """Their hashes, (kept,), ascending."""
        self._settle()
        return self._ids[: self._kept]

    @property
    def weight(self) -> Floats:
        """How many rows each stands for, (kept,): seen / kept of its stratum (Horvitz and Thompson, 1952)."""
        kept = np.bincount(self.positive.astype(np.int64), minlength=2)
        return np.asarray((self.seen / np.maximum(kept, 1))[self.positive.astype(np.int64)])

    def _take(self, rows: NDArray[np.float32], positive: NDArray[np.bool_], ids: NDArray[np.uint64]) -> None:
        if not len(self._rows):
            # Pages that no row was written to take no memory.
            self._rows = np.empty((self._room, rows.shape[1]), np.float32)
            self._positive, self._ids = np.empty(self._room, bool), np.empty(self._room, np.uint64)
        if rows.shape[1] != self._rows.shape[1]:
            raise DefinitionError(
                "rows have the features of those before", got=f"{rows.shape[1]} after {self._rows.shape[1]}",
                remedy="take one sample a recipe",
            )  # fmt: skip
        chosen = np.flatnonzero(ids <= self._none_above[positive.astype(np.int64)])
        while len(chosen):
            if self._kept == self._room:
                self._settle()
            now, chosen = np.split(chosen, [self._room - self._kept])
            # The bounds may have come down since.
            now = now[ids[now] <= self._none_above[positive[now].astype(np.int64)]]
            to = slice(self._kept, self._kept + len(now))
            self._rows[to], self._positive[to], self._ids[to] = rows[now], positive[now], ids[now]
            self._kept = to.stop
            self._sorted = False

    def _settle(self) -> None:
        """Drops what is not among the smallest hashes, and sorts the rest."""
        if self._sorted:
            return
        order = self._order()
        kept, room = _room(self._positive[order], self.most, self.positives)
        order = order[kept]
        self._kept = len(order)
        # A column at a time: a second copy of all rows would not be within the bound.
        for column in (self._ids, self._positive, *self._rows.T):
            column[: self._kept] = column[order]
        for stratum in (0, 1):
            own = self._ids[: self._kept][self._positive[: self._kept] == stratum]
            if len(own) == room[stratum]:
                self._none_above[stratum] = own[-1]
        self._sorted = True

    def _order(self) -> NDArray[np.int64]:
        """Positions by hash; rows of one hash by what they hold, so that the order they came in does not tell."""
        order = np.argsort(self._ids[: self._kept], kind="stable")
        ids = self._ids[order]
        again = ids[1:] == ids[:-1]
        tied = np.flatnonzero(np.r_[again, False] | np.r_[False, again])
        if len(tied):
            which = order[tied]
            bits = np.ascontiguousarray(self._rows[which]).view(np.uint32)
            order[tied] = which[np.lexsort((*bits.T, self._positive[which], self._ids[which]))]
        return order


def stratified(positive: NDArray[np.bool_], ids: NDArray[np.uint64], most: int) -> tuple[NDArray[np.int64], Floats]:
    """Which of n rows a `StratifiedSample` of so many keeps, before anything else of them is computed.

    Args:
        positive: (n,) what came of each.
        ids: (n,) a hash of each row's name, different for each.
        most: rows kept in all.

    Returns:
        Their places, ascending, and how many rows of its kind each stands for.

    >>> places, weight = stratified(np.arange(9) == 5, np.arange(9, dtype=np.uint64), most=4)
    >>> places, weight.round(2)
    (array([0, 1, 2, 5]), array([2.67, 2.67, 2.67, 1.  ]))
    """
    order = np.argsort(ids, kind="stable")
    kept, _ = _room(positive[order], most, most // 2)
    places = np.sort(order[kept])
    kind = positive[places].astype(np.int64)
    seen, held = (np.bincount(part.astype(np.int64), minlength=2) for part in (positive, kind))
    return places, (seen / np.maximum(held, 1))[kind]


def _room(positive: NDArray[np.bool_], most: int, positives: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows (n,), in the order of their hashes, are kept, and how many others and positives there may be."""
    room = np.array([most - min(int(positive.sum()), positives), positives])
    rank = np.where(positive, np.cumsum(positive), np.cumsum(~positive))
    return rank <= room[positive.astype(np.int64)], room
