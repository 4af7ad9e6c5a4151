"""Vectors in lists by their nearest centre, of which a search reads the nearest few: IVF, in NumPy alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from penstock.registry import registered
from penstock.retrieve.vectors.base import (
    FEW,
    Engine,
    Floats,
    Matrix,
    Metric,
    Rows,
    Scores,
    Searcher,
    Setting,
    State,
    best,
)
from penstock.retrieve.vectors.exact import nearer
from penstock.retrieve.vectors.kmeans import kmeans, members
from penstock.retrieve.vectors.storage import Held, storage, stored


@registered("vectors")
@dataclass(frozen=True)
class Lists(Engine):
    """Lists by k-means, each of them contiguous; after Jégou et al., "Product quantization" (2011), without the codes.

    Args:
        count: of lists.
        held: how vectors are held: "float32", "int16" (int8, ranked anew by its remainder) or "int8".
    """

    count: int = 1_000
    held: Held = "float32"

    @classmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        if n < FEW:
            return []
        return [cls(isqrt(n)), cls(isqrt(n), "int16"), cls(isqrt(n), "int8")]

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        centres = kmeans(vectors, min(self.count, len(vectors)), seed=seed)
        nearest = members(vectors, len(centres), seed=seed)
        order = np.argsort(nearest, kind="stable")
        starts = np.searchsorted(nearest[order], np.arange(len(centres) + 1)).astype(np.int64)
        return {
            "centres": centres,
            "starts": starts,
            "order": order.astype(np.uint32 if len(order) < 1 << 32 else np.int64),
            **stored(vectors, self.held, order),
        }

    def open(self, state: State, metric: Metric) -> Searcher:
        return _Lists(state, metric, keeps=self.held == "int16")


class _Lists(Searcher):
    def __init__(self, state: State, metric: Metric, keeps: bool) -> None:
        self._held = storage(state, metric)
        self._centres, self._order = np.asarray(state["centres"]), np.asarray(state["order"])
        self._starts = np.asarray(state["starts"])
        self._half = np.einsum("ij,ij->i", self._centres, self._centres) / 2 if metric == "l2" else None
        self._far = metric == "l2"
        self._places: NDArray[np.int64] | None = None
        self.size, self.probes, self.keeps = len(self._order), len(self._centres), keeps

    def search(self, queries: Floats, k: int, setting: Setting) -> tuple[Rows, Scores]:
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        probes = min(max(setting.probes, 1), self.probes)
        keep = max(k, setting.keep) if self.keeps else k
        for i in range(len(queries)):
            query = queries[i : i + 1]
            near = self._centres @ query[0]
            if self._half is not None:
                near -= self._half
            lists = np.sort(np.argpartition(-near, probes - 1)[:probes]) if probes < self.probes else slice(None)
            first, end = self._starts[:-1][lists], self._starts[1:][lists]
            parts = zip(first.tolist(), end.tolist(), strict=True)
            found = np.concatenate([self._held.scores(a, b, query)[0] for a, b in parts])
            top = best(found, keep)
            # From places in what was scored to places in the storage.
            after = np.cumsum(end - first)
            part = np.searchsorted(after, top, side="right")
            place = top - after[part] + end[part]
            kept = found[top]
            if self.keeps:
                kept = self._held.anew(place, query[0])
                order = best(kept, k)
                place, kept = place[order], kept[order]
            rows[i, : len(place)] = self._order[place]
            scores[i, : len(place)] = nearer(kept, query[0], self._far)
        return rows, scores

    def take(self, rows: NDArray[np.int64]) -> Floats:
        if self._places is None:
            places = np.empty(self.size, np.int64)
            places[self._order] = np.arange(self.size)
            self._places = places
        return self._held.take(self._places[rows])

    def lists(self) -> tuple[Floats, NDArray[np.int64]]:
        nearest = np.empty(self.size, np.int64)
        nearest[self._order] = np.repeat(np.arange(self.probes), np.diff(self._starts))
        return self._centres, nearest
