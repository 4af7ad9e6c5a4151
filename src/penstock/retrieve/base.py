"""Candidate sources: from what is known of a shopper to a short list of items, each with scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.features.view import View
from penstock.registry import name_of
from penstock.types import Array

Listed = tuple[View, str]
"""A list feature: the view it is in, and its name there."""
EVERY = 2**31
"""As the `k` of a source: all that it knows."""
Index = Mapping[str, Array]
"""What a source learned from history: named arrays, saved in the release as .npy files."""


@dataclass(frozen=True)
class History:
    """Who touched what, in (owner, offset) order: columns of equal length n.

    `item` are the values of the list feature: items, or whatever else it lists. `offset` tells which events of two
    list features are the same; where it is absent, their places do.
    """

    owner: NDArray[np.uint32]
    item: NDArray[np.uint32]
    time: NDArray[np.int64]
    offset: NDArray[np.int64] | None = None

    @property
    def at(self) -> NDArray[np.int64]:
        """What tells which events of two list features are the same, (n,); it rises with each owner's events."""
        return np.arange(len(self.item)) if self.offset is None else self.offset

    def beside(self, other: History) -> NDArray[np.uint32]:
        """What another list feature holds of the same events, (n,); 0 where it counts an event not."""
        mine, theirs = self.at, other.at
        order = np.argsort(theirs)
        held, at = places(theirs[order], mine)
        out = np.zeros(len(self.item), np.uint32)
        out[held] = other.item[order[at]]
        return out


@dataclass(frozen=True)
class Query:
    """What a source may look at: the shopper's lists of codes by feature name, popularity lists, and what the request
    itself says, by context field, in its own words."""

    lists: Mapping[str, NDArray[np.uint32]]
    popular: Mapping[str, NDArray[np.uint32]]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """Items (n,) uint32, best first, and their scores (n, columns) float64.

    `others` gives the scores (m, columns) of further items (m,) that it does not propose, NaN where there are none.
    """

    items: NDArray[np.uint32]
    scores: NDArray[np.float64]
    others: Callable[[NDArray[np.uint32]], NDArray[np.float64]] | None = None

    @classmethod
    def first(cls, k: int, known: NDArray[np.uint32], scores: NDArray[np.float64]) -> Found:
        """The first k of all items (n,) that a source has scores (n, columns) for, best first; the rest are others."""

        def others(items: NDArray[np.uint32]) -> NDArray[np.float64]:
            order = np.argsort(known)
            held, at = places(known[order], items)
            out = np.full((len(items), scores.shape[1]), np.nan)
            out[held] = scores[order[at]]
            return out

        return cls(known[:k], scores[:k], others)


class Source(ABC):
    """One way to find candidates; implementations are frozen dataclasses, registered as "source".

    Attributes:
        k: at most so many items.
        name: the column prefix of its scores; the class's own by default. Two sources of one decision
            differ in name.
        goes_on: whether `fit` goes on from an earlier index, rather than beginning anew.
    """

    goes_on: ClassVar[bool] = False
    k: int
    name: str

    @property
    def label(self) -> str:
        return self.name or name_of(self)

    @property
    def costly(self) -> bool:
        """Whether training leaves it out of the release where the ranker is about as good without it."""
        return False

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the score columns that the ranker may use; the first one orders the list."""
        return (self.label,)

    def needs(self) -> tuple[str, ...]:
        """The list features of the shopper that it reads."""
        return ()

    def asks(self) -> tuple[str, ...]:
        """The context fields whose words it reads; they need not be known to the log."""
        return ()

    def check(self, lists: Mapping[str, Listed]) -> None:
        """Refuses list features in `needs` that it cannot read as they are defined, by name."""
        return None

    def fit(self, history: Mapping[str, History], earlier: Index | None = None) -> Index:
        """Learns its index from the events that each list feature in `needs` counts.

        Args:
            earlier: what it learned from the older part of the same history, to go on from where that is cheaper.
        """
        return {}

    def released(self, index: Index) -> Index:
        """The index as it lies in a release, with what makes finding quicker and is not worth it in training."""
        return index

    @abstractmethod
    def find(self, query: Query, index: Index) -> Found:
        """The candidates of one request."""

    def because(self, query: Query, index: Index, items: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Which of the shopper's own items led most to each of `items` (n,), 0 where the source cannot say."""
        return np.zeros(len(items), np.uint32)

    def vectors(self, index: Index, items: NDArray[np.uint32]) -> NDArray[np.float32] | None:
        """What the index knows items (n,) by: (n, width) of length 1, or 0 of an item it does not know.

        None where it is no matter of vectors.
        """
        return None

    def products(self, query: Query, index: Index, items: NDArray[np.uint32]) -> NDArray[np.float64] | None:
        """The vector that it looks for times those of items (n,), element by element: (n, width), 0 where unknown.

        Their sum is the items' score. None where it is no matter of vectors.
        """
        return None

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        """`find`, independently and in plain Python, as {item: scores}: the oracle of audits."""
        raise NotImplementedError

    def plain_others(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        """`Found.others` of every item that it tells of, in the same manner; nothing by default."""
        return {}


@dataclass(frozen=True)
class Documents:
    """What items say of themselves: `items` (n,) uint32 ascending, and each text field's n texts, "" where missing."""

    items: NDArray[np.uint32]
    texts: Mapping[str, Sequence[str]]


class Reader(Source):
    """A source that learns from the items' own texts, and so knows items that nobody has touched but once."""

    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """The text fields of the events that say what an item is; of each the newest counts."""

    @abstractmethod
    def learn(self, documents: Documents) -> Index:
        """Its index, in place of `fit`."""


def between(first: Array, end: Array) -> NDArray[np.int64]:
    """The numbers first[i] … end[i] - 1, one range after the other.

    >>> between(np.array([3, 9]), np.array([5, 10]))
    array([3, 4, 9])
    """
    length = end - first
    return np.asarray(np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length - first, length))


def places(known: Array, codes: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of `codes` (n,) are among the sorted `known`, and where there.

    >>> places(np.array([4, 7, 9]), np.array([9, 5, 4]))
    (array([0, 2]), array([2, 0]))
    """
    if not len(known):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    at = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    held = np.flatnonzero(known[at] == codes)
    return held, at[held]


def distinct(codes: NDArray[np.uint32], most: int) -> list[int]:
    """The first `most` different codes, in order, without the missing one.

    >>> distinct(np.array([7, 8, 7, 0, 9], np.uint32), 2)
    [7, 8]
    """
    return [code for code in dict.fromkeys(codes.tolist()) if code][:most]
