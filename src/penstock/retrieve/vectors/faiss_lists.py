"""IVF with product quantisation and re-ranking, by faiss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Literal

import numpy as np

from penstock.registry import registered
from penstock.retrieve.vectors import faiss_library
from penstock.retrieve.vectors.base import FEW, Engine, Matrix, Metric, Searcher, State
from penstock.retrieve.vectors.faiss_library import Opened, faiss, measure
from penstock.retrieve.vectors.kmeans import kmeans

_SAMPLE = 1 << 16
"""Vectors at most from which codes are learned."""


@registered("vectors")
@dataclass(frozen=True)
class FaissLists(Engine):
    """Lists by k-means whose vectors are codes; after Jégou et al. (2011) and André et al., "Quick ADC" (2017).

    Args:
        count: of lists.
        codes: "pq" for 4 bits every two dimensions, scanned 32 vectors at a time; "sq8" for a byte a dimension;
            "flat" for float32.
        fine: what the best of "pq" are ranked anew by: "sq8" or "flat".
    """

    count: int = 1_000
    codes: Literal["pq", "sq8", "flat"] = "pq"
    fine: Literal["sq8", "flat"] = "sq8"

    extra = faiss_library.EXTRA

    @classmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        if n < FEW:
            return []
        count = min(2 * isqrt(n), 4_096)
        out = [cls(count, codes) for codes in ("sq8", "flat")]
        return [cls(count, "pq", "sq8"), cls(count, "pq", "flat"), *out] if d % 2 == 0 else out

    @classmethod
    def lacks(cls) -> str:
        return faiss_library.lacks()

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        d, library = vectors.d, faiss()
        centres = kmeans(vectors, min(self.count, len(vectors)), seed=seed)
        # Residuals are coded: what a vector differs by from its centre.
        codes = {"pq": f"PQ{d // 2}x4fsr", "sq8": "SQ8", "flat": "Flat"}[self.codes]
        fine = {"sq8": ",Refine(SQ8)", "flat": ",RFlat"}[self.fine] if self.codes == "pq" else ""
        # Codes are learned in many tiny steps, of which threads would only wait for one another.
        with faiss_library.threads(1):
            index = library.index_factory(d, f"IVF{len(centres)},{codes}{fine}", measure(vectors.metric))
            lists = library.downcast_index(library.extract_index_ivf(index))
            lists.quantizer.add(centres)
            if self.codes == "pq":
                lists.pq.cp.seed = seed + 1
            searched = lists.quantizer
            if vectors.metric == "ip":
                # A vector belongs to the centre that is nearest; a query asks for those that it points to.
                nearest = library.IndexFlatL2(d)
                nearest.add(centres)
                lists.quantizer = nearest
            index.train(vectors.sample(_SAMPLE, seed))
        with faiss_library.threads(threads):
            for _, block in vectors.blocks():
                index.add(block)
            lists.quantizer = searched
            return {"faiss": library.serialize_index(index)}

    def open(self, state: State, metric: Metric) -> Searcher:
        return Opened(np.asarray(state["faiss"]), metric, probes=None, keeps=self.codes == "pq")
