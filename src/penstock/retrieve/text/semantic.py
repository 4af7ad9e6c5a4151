"""Items whose own texts mean what the request's words mean, though they may have none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.retrieve.base import Documents, Found, Index, Query, Reader
from penstock.retrieve.text.analyse import Analyser
from penstock.retrieve.text.bm25 import MOST_TEXT, MOST_WORDS, Bm25, place_of, weights_of
from penstock.retrieve.text.latent import STEPS, Sparse, factored, nearest, rounded
from penstock.retrieve.text.lexical import check_fields
from penstock.types import Array

MOST_DIMS = 1_024
"""A space of more tells no more of words."""


@registered("source")
@dataclass(frozen=True)
class Semantic(Reader):
    """Items whose texts are near the request's words in a space where words of the same texts lie close (LSA).

    The space is made from the items' own texts at training. Score columns: the cosine, and the rank.

    Args:
        ask: the context field that holds the words, such as ``"query"``.
        fields: the text fields of the events that say what an item is, and what a word in each counts.
        dims: of the space.
        stems: whether words count without their English endings.
        seed: of the random start of the factorisation.

    >>> texts = ["oak desk lamp", "walnut desk lamp", "walnut night light", "oak night light", "wool rug", "silk rug"]
    >>> source = Semantic("query", fields=["name"], dims=3, k=2)
    >>> index = source.learn(Documents(np.arange(1, 7, dtype=np.uint32), {"name": texts}))
    >>> source.find(Query({}, {}, {"query": "rugs"}), index).items
    array([5, 6], dtype=uint32)
    """

    ask: str = "query"
    fields: Mapping[str, float] | Sequence[str] = field(default_factory=dict)
    k: int = 50
    name: str = ""
    dims: int = 128
    stems: bool = True
    seed: int = 1

    def __post_init__(self) -> None:
        check_fields(self.fields)
        if not 1 <= self.dims <= MOST_DIMS:
            raise DefinitionError(
                f"a space of meanings has from 1 to {MOST_DIMS:,} dimensions", got=f"dims={self.dims!r}",
                remedy="leave it out for 128",
            )  # fmt: skip

    @cached_property
    def _analyser(self) -> Analyser:
        return Analyser(stems=self.stems)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.label, f"{self.label}.rank")

    def asks(self) -> tuple[str, ...]:
        return (self.ask,)

    def reads(self) -> tuple[str, ...]:
        return tuple(weights_of(self.fields))

    def learn(self, documents: Documents) -> Index:
        """Arrays: ``items`` (N,) uint32, ``vectors`` (N, d) float32, and of the V words that stand in more than one
        text ``terms`` (V,) bytes, sorted, and ``ways`` (V, d) float64, what each adds to a query's vector."""
        fields = [(documents.texts[name], weight) for name, weight in weights_of(self.fields).items()]
        index = Bm25(self._analyser).build(fields)
        found = np.diff(index["starts"])
        shared = np.flatnonzero(found > 1)
        kept = np.repeat(found > 1, found)
        term = np.repeat(np.searchsorted(shared, np.arange(len(found))), found)[kept]
        doc = index["docs"][kept].astype(np.int64)
        weight = index["part"][kept] * index["idf"][shared][term]
        length = np.sqrt(np.bincount(doc, weights=weight**2, minlength=len(documents.items)))
        unit = (weight / np.maximum(length[doc], 1e-12)).astype(np.float32)
        shape = (len(documents.items), len(shared))
        matrix = Sparse(term, doc, unit, shape[::-1]).transposed()
        right = factored(matrix, self.dims, self.seed)[0]
        vectors = [rounded(vector) for vector in matrix.times(right).astype(np.float64)]
        return {
            "items": documents.items,
            "terms": index["terms"][shared],
            "ways": right * index["idf"][shared][:, None],
            "vectors": np.array(vectors, np.float32).reshape(len(vectors), right.shape[1]),
        }

    def find(self, query: Query, index: Index) -> Found:
        place, cosine = nearest(index["vectors"], self._meant(query, index), self.k)
        rank = np.arange(len(place), dtype=np.float64)
        return Found(index["items"][place], np.stack([cosine, rank], axis=1))

    def _meant(self, query: Query, index: Index) -> NDArray[np.float32]:
        """The vector of the request's words; of none that it knows, zeros."""
        meant = np.zeros(index["ways"].shape[1])
        for term, times in self._asked(query):
            at = place_of(index["terms"], term.encode())
            if at is not None:
                meant += times * index["ways"][at]
        return rounded(meant)

    def _asked(self, query: Query) -> Sequence[tuple[str, int]]:
        counts = Counter(self._analyser.terms(query.texts.get(self.ask, "")[:MOST_TEXT]))
        return list(counts.items())[:MOST_WORDS]

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        known = {term.decode(): at for at, term in enumerate(index["terms"].tolist())}
        meant = [0.0] * index["ways"].shape[1]
        for term, times in self._asked(query):
            if term in known:
                meant = [
                    own + times * more for own, more in zip(meant, index["ways"][known[term]].tolist(), strict=True)
                ]
        length = sqrt(sum(one * one for one in meant))
        whole = [round(one * (STEPS / length)) if length > 0 else 0 for one in meant]
        products: Array = index["vectors"].astype(np.int64) @ np.array(whole, np.int64)
        above = [(-value, place) for place, value in enumerate(products.tolist()) if value > 0]
        return {
            int(index["items"][place]): (-value / STEPS**2, float(rank))
            for rank, (value, place) in enumerate(sorted(above)[: self.k])
        }
