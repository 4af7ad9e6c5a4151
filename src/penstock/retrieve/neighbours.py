"""Item-to-item neighbours counted from what shoppers touched one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.clock import duration
from penstock.registry import registered
from penstock.retrieve.base import EVERY, Found, History, Index, Query, Source, between, distinct, places
from penstock.types import Array


@dataclass(frozen=True)
class _Neighbours(Source):
    """Items that go with the shopper's recent ones; scores add up, each older item counting less.

    Score columns: the decayed sum, the score with the newest item alone, and the rank by the sum.

    Args:
        of: the shopper's list feature whose events make the sequences, such as ``"recent"``.
        recent: how many of the newest different items to start from.
        decay: what each older one counts relative to the one before.
        span: items further apart in time than this are no pair.
        steps: nor are items further apart in the sequence than this.
        neighbours: how many to keep an item.
        norm: the power of both items' visits that divides a pair's weight: 0.5 makes scores cosines, 0 leaves
            plain counts, which favour what is popular.
        backward: what a pair counts for the later item's neighbours, relative to the earlier one's: 1 leaves the order
            aside, 0 looks only at what came after.
    """

    of: str = "recent"
    k: int = 60
    name: str = ""
    recent: int = 10
    decay: float = 0.8
    span: str = "1d"
    steps: int = 10
    neighbours: int = 40
    norm: float = 0.5
    backward: float = 1.0

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.label, f"{self.label}.last", f"{self.label}.rank")

    def needs(self) -> tuple[str, ...]:
        return (self.of,)

    def weight(self, step: int) -> float:
        """What a pair counts whose items are `step` places apart."""
        raise NotImplementedError

    def fit(self, history: Mapping[str, History], earlier: Index | None = None) -> Index:
        past = history[self.of]
        pairs = [self._pairs(past, step) for step in range(1, self.steps + 1)]
        source, target = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
        weight = np.concatenate([self._weights(step + 1, len(pair[0])) for step, pair in enumerate(pairs)])
        return _top_neighbours(source, target, weight, past.item, self.neighbours, self.norm)

    def _weights(self, step: int, n: int) -> Array:
        """Of n pairs, the first half of which look forward."""
        return np.repeat(self.weight(step) * np.array([1.0, self.backward]), n // 2)

    def _pairs(self, past: History, step: int) -> tuple[Array, Array]:
        a, b = slice(None, -step), slice(step, None)
        near = (
            (past.owner[a] == past.owner[b])
            & (past.time[b] - past.time[a] <= duration(self.span))
            & (past.item[a] != past.item[b])
        )
        first, second = past.item[a][near], past.item[b][near]
        return np.r_[first, second], np.r_[second, first]

    def find(self, query: Query, index: Index) -> Found:
        start = np.array(distinct(query.lists[self.of], self.recent), np.uint32)
        place, at = places(index["items"], start)
        first, end = index["starts"][at], index["starts"][at + 1]
        edge = between(first, end)
        if not len(edge):
            return Found.first(self.k, np.zeros(0, np.uint32), np.zeros((0, 3)))
        near, score = index["near"][edge], index["score"][edge]
        rank = np.repeat(place, end - first)
        found, inverse = np.unique(near, return_inverse=True)
        sums = np.bincount(inverse, weights=score * _powers(self.decay, self.recent)[rank], minlength=len(found))
        newest = np.zeros(len(found))
        newest[inverse[rank == 0]] = score[rank == 0]
        order = np.argsort(-sums, kind="stable")  # of equal ones the lower code, as they are found
        scores = np.stack([sums[order], newest[order], np.arange(len(order), dtype=np.float64)], axis=1)
        return Found.first(self.k, found[order], scores)

    def because(self, query: Query, index: Index, items: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """The recent item that passed on the largest score; of equal ones the newer."""
        start = np.array(distinct(query.lists[self.of], self.recent), np.uint32)
        place, at = places(index["items"], start)
        first, end = index["starts"][at], index["starts"][at + 1]
        edge = between(first, end)
        rank = np.repeat(place, end - first)
        passed = index["score"][edge] * _powers(self.decay, self.recent)[rank]
        order = np.lexsort((rank, -passed, index["near"][edge]))
        found, best = np.unique(index["near"][edge][order], return_index=True)
        led = np.zeros(len(items), np.uint32)
        held, known = places(found, items)
        led[held] = start[rank[order[best[known]]]]
        return led

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        sums: dict[int, float] = {}
        newest: dict[int, float] = {}
        known = {item: place for place, item in enumerate(index["items"].tolist())}
        for position, item in enumerate(distinct(query.lists[self.of], self.recent)):
            if item not in known:
                continue
            first, end = index["starts"][known[item]], index["starts"][known[item] + 1]
            for near, score in zip(index["near"][first:end].tolist(), index["score"][first:end].tolist(), strict=True):
                sums[near] = sums.get(near, 0.0) + score * _powers(self.decay, self.recent)[position]
                if position == 0:
                    newest[near] = score
        ranked = sorted(sums, key=lambda code: (-sums[code], code))[: self.k]
        return {code: (sums[code], newest.get(code, 0.0), float(rank)) for rank, code in enumerate(ranked)}

    def plain_others(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        return replace(self, k=EVERY).plain(query, index)


def _powers(decay: float, n: int) -> NDArray[np.float64]:
    return np.cumprod(np.append(1.0, np.full(n, decay)), dtype=np.float64)


@registered("source")
@dataclass(frozen=True)
class Covisits(_Neighbours):
    """Items visited close to one another: a pair d places apart counts d ** -0.5.

    By default scores are cosines: the pair's weight over the root of both items' visits. After Sarwar et al.,
    "Item-based collaborative filtering" (2001), on sequences instead of baskets.
    """

    def weight(self, step: int) -> float:
        return float(step**-0.5)


@registered("source")
@dataclass(frozen=True)
class Similar(_Neighbours):
    """Items that the same shoppers touch within a longer span, order and distance left aside."""

    k: int = 40
    span: str = "7d"
    steps: int = 30

    def weight(self, step: int) -> float:
        return 1.0


def _top_neighbours(
    source: Array, target: Array, weight: Array, items: Array, most: int, norm: float
) -> dict[str, Array]:
    known, visits = np.unique(items, return_counts=True)
    packed = (source.astype(np.uint64) << np.uint64(32)) | target
    pair, inverse = np.unique(packed, return_inverse=True)
    total = np.bincount(inverse, weights=weight, minlength=len(pair))
    pair, total = pair[total > 0], total[total > 0]
    a = np.searchsorted(known, (pair >> np.uint64(32)).astype(np.uint32))
    near = (pair & np.uint64(0xFFFFFFFF)).astype(np.uint32)
    score = total / ((visits[a] + 1.0) * (visits[np.searchsorted(known, near)] + 1.0)) ** norm
    order = np.lexsort((near, -score, a))
    a = a[order]
    first = np.searchsorted(a, np.arange(len(known) + 1))
    keep = np.arange(len(a)) - first[a] < most
    return {
        "items": known.astype(np.uint32),
        "starts": np.searchsorted(a[keep], np.arange(len(known) + 1)).astype(np.int64),
        "near": near[order][keep],
        "score": score[order][keep],
    }
