"""HNSW, by faiss: a graph of near neighbours in layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.registry import registered
from penstock.retrieve.vectors import faiss_library
from penstock.retrieve.vectors.base import FEW, Engine, Matrix, Metric, Searcher, Setting, State
from penstock.retrieve.vectors.faiss_library import Opened, faiss, measure

MOST = 1 << 13
"""The widest beam that is tried."""


@registered("vectors")
@dataclass(frozen=True)
class FaissGraph(Engine):
    """A navigable graph, searched greedily with a beam; after Malkov & Yashunin, "HNSW" (2016).

    It is built by one thread, since several make another graph each time: some twenty times as long as lists take.

    Args:
        links: of each vector in a layer; twice as many in the lowest.
        beam: how many are considered as a vector's neighbours when it is added.
        held: "sq8" for a byte a dimension, "flat" for float32.
    """

    links: int = 16
    beam: int = 100
    held: str = "sq8"

    extra = faiss_library.EXTRA
    heavy = True

    @classmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        return [cls(), cls(held="flat")] if n >= FEW else []

    @classmethod
    def lacks(cls) -> str:
        return faiss_library.lacks()

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        library = faiss()
        with faiss_library.threads(1):
            kind = measure(vectors.metric)
            if self.held == "sq8":
                index = library.IndexHNSWSQ(vectors.d, library.ScalarQuantizer.QT_8bit, self.links, kind)
            else:
                index = library.IndexHNSWFlat(vectors.d, self.links, kind)
            index.hnsw.efConstruction = self.beam
            index.hnsw.rng = library.RandomGenerator(seed + 1)
            if not index.is_trained:
                index.train(vectors.sample(100_000, seed))
            for _, block in vectors.blocks():
                index.add(block)
            return {"faiss": library.serialize_index(index)}

    def open(self, state: State, metric: Metric) -> Searcher:
        return _Graph(np.asarray(state["faiss"]), metric, probes=min(MOST, len(state["faiss"])), keeps=False)


class _Graph(Opened):
    def parameters(self, setting: Setting, k: int) -> Any:
        return self._library.SearchParametersHNSW(efSearch=max(k, min(setting.probes, self.probes)))
