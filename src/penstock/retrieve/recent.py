"""What the shopper has seen before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.registry import registered
from penstock.retrieve.base import Found, Index, Query, Source, distinct


@registered("source")
@dataclass(frozen=True)
class Seen(Source):
    """The items of one of the shopper's lists, newest first; the score is 1 / (1 + position).

    Args:
        of: the list feature, such as ``"recent"``.

    >>> Seen("recent", k=2).find(Query({"recent": np.array([5, 6, 5], np.uint32)}, {}), {}).scores[:, 0]
    array([1. , 0.5])
    """

    of: str = "recent"
    k: int = 100
    name: str = ""

    def needs(self) -> tuple[str, ...]:
        return (self.of,)

    def find(self, query: Query, index: Index) -> Found:
        items = distinct(query.lists[self.of], self.k)
        return Found(np.array(items, np.uint32), 1.0 / (1.0 + np.arange(len(items), dtype=np.float64)).reshape(-1, 1))

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        scores: dict[int, tuple[float, ...]] = {}
        for code in query.lists[self.of].tolist():
            if code and code not in scores and len(scores) < self.k:
                scores[code] = (1.0 / (1.0 + len(scores)),)
        return scores
