"""Every vector is compared with the query: no training, no library, and the truth that others are held to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    padded,
)
from penstock.retrieve.vectors.storage import Storage, storage, stored

_BLOCK = 1 << 14
_QUERIES = 256
_AHEAD = 4
"""How many times k candidates are collected before the floor is raised."""


@registered("vectors")
@dataclass(frozen=True)
class Exact(Engine):
    """Compares a query with all vectors in float32, a block at a time: 4 d bytes a vector, recall 1."""

    @classmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        return [cls()]

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        return stored(vectors, "float32")

    def open(self, state: State, metric: Metric) -> Searcher:
        return Scan(storage(state, metric), len(state["vectors"]), metric, keeps=False)


@registered("vectors")
@dataclass(frozen=True)
class Int8(Engine):
    """Compares a query with all vectors in int8; the best are ranked anew with what int8 left.

    d bytes a vector and 4 for its scale, d more with `fine`. By itself slower than `Exact`, since NumPy has no
    product of int8; it is there for memory.

    Args:
        fine: keep the remainder, so that the result is that of 16 bits.
    """

    fine: bool = True

    @classmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        return [cls(), cls(fine=False)] if n >= FEW else []

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        return stored(vectors, "int16" if self.fine else "int8")

    def open(self, state: State, metric: Metric) -> Searcher:
        return Scan(storage(state, metric), len(state["codes"]), metric, keeps=self.fine)


class Scan(Searcher):
    """Goes through a storage from the first vector to the last."""

    def __init__(self, held: Storage, size: int, metric: Metric, keeps: bool) -> None:
        self._held, self.size, self.keeps = held, size, keeps
        self._far = metric == "l2"

    def search(self, queries: Floats, k: int, setting: Setting) -> tuple[Rows, Scores]:
        keep = min(max(k, setting.keep) if self.keeps else k, self.size)
        found = [self._some(queries[at : at + _QUERIES], k, keep) for at in range(0, len(queries), _QUERIES)]
        rows = np.concatenate([part[0] for part in found]) if found else np.zeros((0, k), np.int64)
        scores = np.concatenate([part[1] for part in found]) if found else np.zeros((0, k), np.float32)
        return padded(rows, scores, k)

    def take(self, rows: NDArray[np.int64]) -> Floats:
        return self._held.take(rows)

    def _some(self, queries: Floats, k: int, keep: int) -> tuple[Rows, Scores]:
        held = [_Top(keep) for _ in queries]
        floor = np.full(len(queries), -np.inf, np.float32)
        for first in range(0, self.size, _BLOCK):
            scores = self._held.scores(first, min(first + _BLOCK, self.size), queries)
            # Most blocks hold little that is above the best k so far.
            for i in np.flatnonzero((scores > floor[:, None]).any(axis=1) | (first == 0)).tolist():
                over = np.flatnonzero(scores[i] > floor[i])
                floor[i] = held[i].add(over + first, scores[i][over])
        pairs = [self._ranked(top, query, k) for top, query in zip(held, queries, strict=True)]
        return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])

    def _ranked(self, top: _Top, query: Floats, k: int) -> tuple[NDArray[np.int64], Scores]:
        rows, scores = top.best()
        if self.keeps:
            scores = self._held.anew(rows, query)
        order = best(scores, min(k, len(rows)))
        return rows[order], nearer(scores[order], query, self._far)


class _Top:
    """The best `keep` of what was added so far, of equal scores the lower row."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._rows: list[NDArray[np.int64]] = []
        self._scores: list[Scores] = []
        self._count = 0
        self._floor = -np.inf

    def add(self, rows: NDArray[np.int64], scores: Scores) -> float:
        """Adds rows above the floor, and gives the floor, which no row in the best has below it."""
        self._rows.append(rows)
        self._scores.append(scores)
        self._count += len(rows)
        if self._count >= _AHEAD * self._keep or (self._floor == -np.inf and self._count >= self._keep):
            self.best()
        return self._floor

    def best(self) -> tuple[NDArray[np.int64], Scores]:
        rows, scores = np.concatenate(self._rows), np.concatenate(self._scores)
        order = best(scores, self._keep)
        rows, scores = rows[order], scores[order]
        self._rows, self._scores, self._count = [rows], [scores], len(rows)
        if len(rows) == self._keep:
            self._floor = float(scores[-1])
        return rows, scores


def nearer(scores: Scores, query: Floats, far: bool) -> Scores:
    """Scores of a storage as those of the metric: for "l2" less |q|², never above 0."""
    return np.minimum(scores - np.float32(query @ query), 0) if far else scores
