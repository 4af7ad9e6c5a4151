"""Words and meaning together: candidates of several sources, fused by rank, or ordered by a ranker that is judged on
queries it has not seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks._search.judged import Judged
from penstock.learn import Candidates, Fusion, LambdaRank, Model, fit_trees
from penstock.retrieve import Documents, Found, Index, Lexical, Query, Reader, Semantic

FOLDS = 5
RANK = LambdaRank("", trees=100, leaves=7, learning_rate=0.05, min_leaf=100)
"""Small trees: some 650 queries to learn from are few."""


@dataclass(frozen=True)
class Candidate:
    """What one query found: `items` (n,) uint32; `rows` (n, features) float32; `place` (n, sources), NaN where absent;
    `positive` (n,) bool; and the milliseconds that finding took."""

    items: NDArray[np.uint32]
    rows: NDArray[np.float32]
    place: NDArray[np.float64]
    positive: NDArray[np.bool_]
    ms: float


class Hybrid:
    """The sources over one collection; an item's code is its document's place, from 1.

    Args:
        judged: the documents.
    """

    def __init__(self, judged: Judged) -> None:
        both = ("title", "text")
        self.sources: Sequence[Reader] = (
            Lexical("query", both, k=150, begun=False),
            Lexical("query", ("title",), k=1_000, name="title", begun=False),
            Semantic("query", both, k=1_000, dims=256),
        )
        self.judged = judged
        items = np.arange(1, len(judged.ids) + 1, dtype=np.uint32)
        documents = Documents(items, {"title": judged.titles, "text": judged.texts})
        self.seconds: dict[str, float] = {}
        self.indexes: dict[str, Index] = {}
        for source in self.sources:
            began = perf_counter()
            self.indexes[source.label] = source.learn(documents)
            self.seconds[source.label] = perf_counter() - began
        self.found = [self._find(i) for i in range(len(judged.queries))]

    def _find(self, number: int) -> Candidate:
        """The first 150 by words and the first 100 by meaning, with every source's columns."""
        began = perf_counter()
        query = Query({}, {}, {"query": self.judged.queries[number]})
        parts = {source.label: source.find(query, self.indexes[source.label]) for source in self.sources}
        items = np.array(
            list(dict.fromkeys([*parts["lexical"].items.tolist(), *parts["semantic"].items[:100].tolist()])), np.uint32
        )
        at = {label: _where(part, items) for label, part in parts.items()}
        columns = [_columns(part, at[label]) for label, part in parts.items()]
        place = np.stack([at[label] for label in ("lexical", "semantic")], axis=1)
        relevant = self.judged.relevant[number]
        positive = np.array([self.judged.ids[item - 1] in relevant for item in items.tolist()], bool)
        rows = np.concatenate(columns, axis=1).astype(np.float32)
        return Candidate(items, rows, place, positive, (perf_counter() - began) * 1e3)

    def vectors(self) -> list[list[str]]:
        """Each query's list by meaning alone."""
        order = [np.argsort(one.place[:, 1], kind="stable")[: np.count_nonzero(one.place[:, 1] >= 0)]
                 for one in self.found]  # fmt: skip
        return [self._ids(one, by) for one, by in zip(self.found, order, strict=True)]

    def fused(self) -> list[list[str]]:
        """Each query's list by reciprocal rank fusion of words and meaning."""
        return [self._ordered(one, Fusion((0, 1)))[0] for one in self.found]

    def ranked(self, seed: int = 0) -> tuple[list[list[str]], NDArray[np.float64]]:
        """Each query's list by a ranker that learned from the other folds; and the milliseconds, finding included."""
        fold = np.random.default_rng(seed).permutation(len(self.found)) % FOLDS
        out: list[list[str]] = [[]] * len(self.found)
        ms = np.zeros(len(self.found))
        for held in range(FOLDS):
            known = [one for one, f in zip(self.found, fold, strict=True) if f != held and one.positive.any()]
            model = fit_trees(
                RANK,
                np.concatenate([one.rows for one in known]),
                np.concatenate([one.positive for one in known]),
                np.array([len(one.items) for one in known]),
                [f"c{i}" for i in range(known[0].rows.shape[1])],
            )
            for i in np.flatnonzero(fold == held).tolist():
                out[i], took = self._ordered(self.found[i], model)
                ms[i] = self.found[i].ms + took
        return out, ms

    def _ordered(self, one: Candidate, model: Model) -> tuple[list[str], float]:
        began = perf_counter()
        scores = model.score(one.rows, Candidates(one.items, np.zeros((len(one.items), 0)), one.place))
        order = np.argsort(-scores, kind="stable")
        return self._ids(one, order), (perf_counter() - began) * 1e3

    def _ids(self, one: Candidate, order: NDArray[np.int64]) -> list[str]:
        return [self.judged.ids[item - 1] for item in one.items[order[:100]].tolist()]

    def figures(self) -> Mapping[str, float]:
        """Seconds to build each index."""
        return {label: round(seconds, 2) for label, seconds in self.seconds.items()}


def _where(part: Found, items: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The place of each item in a source's list, NaN where it is not there."""
    place = {item: float(at) for at, item in enumerate(part.items.tolist())}
    return np.array([place.get(item, np.nan) for item in items.tolist()])


def _columns(part: Found, at: NDArray[np.float64]) -> NDArray[np.float64]:
    """A source's columns for each item, and its score as a share of the best one's."""
    out = np.full((len(at), part.scores.shape[1] + 1), np.nan)
    there = np.flatnonzero(~np.isnan(at))
    if len(there):
        own = part.scores[at[there].astype(np.int64)]
        out[there] = np.c_[own, own[:, 0] / part.scores[0, 0]]
    return out
