"""Items whose own texts have the request's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.retrieve.base import Documents, Found, Index, Query, Reader
from penstock.retrieve.text.analyse import Analyser
from penstock.retrieve.text.bm25 import Bm25, weights_of


@registered("source")
@dataclass(frozen=True)
class Lexical(Reader):
    """Items that have words of the request in their texts, by BM25; those with every word come first.

    The last word may be the beginning of one, since it may still be being typed, and so may any word that no item has.
    Score columns: BM25, the share of the request's words that the item has, and the rank.

    Args:
        ask: the context field that holds the words, such as ``"query"``.
        fields: the text fields of the events that say what an item is, and what a word in each counts.
        k1, b: see `Bm25`.
        begun: whether words may be beginnings.
        stems: whether words count without their English endings.

    >>> source = Lexical("query", fields={"name": 2.0})
    >>> index = source.learn(Documents(np.array([7, 9], np.uint32), {"name": ["Oak desk", "Walnut lamp"]}))
    >>> source.find(Query({}, {}, {"query": "lamps of wal"}), index).items
    array([9], dtype=uint32)
    """

    ask: str = "query"
    fields: Mapping[str, float] | Sequence[str] = field(default_factory=dict)
    k: int = 150
    name: str = ""
    k1: float = 0.9
    b: float = 0.4
    begun: bool = True
    stems: bool = True

    def __post_init__(self) -> None:
        check_fields(self.fields)
        _ = self._engine

    @property
    def _engine(self) -> Bm25:
        return Bm25(Analyser(stems=self.stems), self.k1, self.b, self.begun, every_first=True)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.label, f"{self.label}.share", f"{self.label}.rank")

    def asks(self) -> tuple[str, ...]:
        return (self.ask,)

    def reads(self) -> tuple[str, ...]:
        return tuple(weights_of(self.fields))

    def learn(self, documents: Documents) -> Index:
        fields = [(documents.texts[name], weight) for name, weight in weights_of(self.fields).items()]
        return {"items": documents.items, **self._engine.build(fields)}

    def find(self, query: Query, index: Index) -> Found:
        hits = self._engine.find(index, query.texts.get(self.ask, ""), self.k)
        rank = np.arange(len(hits.place), dtype=np.float64)
        return Found(index["items"][hits.place], np.stack([hits.score, hits.share, rank], axis=1))

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        found = self._engine.plain(index, query.texts.get(self.ask, ""), self.k)
        return {
            int(index["items"][place]): (score, share, float(rank)) for rank, (place, score, share) in enumerate(found)
        }


def check_fields(fields: Mapping[str, float] | Sequence[str]) -> None:
    """Refuses no fields, and weights that are none."""
    if isinstance(fields, str) or not fields or not all(weight > 0 for weight in weights_of(fields).values()):
        raise DefinitionError(
            "a search names the text fields that say what an item is, each with a weight above 0", got=repr(fields),
            remedy='write fields={"name": 4, "category": 2}',
        )  # fmt: skip
