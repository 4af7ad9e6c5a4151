"""BM25 over documents of weighted fields: an inverted index in named arrays, and one query at a time.

Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond" (2009), in Lucene's form:

    score(q, d) = Σ_t  idf(t) · tf / (tf + k1 · (1 − b + b · length / mean length)),
    idf(t) = ln(1 + (N − n + ½) / (n + ½))

A document of several fields counts as one text in which each word stands as often as its field weighs (Robertson,
Zaragoza and Taylor, "Simple BM25 extension to multiple weighted fields", 2004).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import log1p

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.retrieve.base import Index, between
from penstock.retrieve.text.analyse import Analyser
from penstock.types import Array

MOST_TEXT, MOST_WORDS = 4_096, 64
"""Of a query: characters, and different words. What comes after is not looked at."""
BEGUN = 0.7
"""What a word that only begins with the query's counts, relative to one that is it."""


@dataclass(frozen=True)
class Hits:
    """Documents found, best first.

    `place` (n,) int64 are places in the index; `score` (n,) float64; `share` (n,) float64 is the part of the query's
    words that each document has.
    """

    place: NDArray[np.int64]
    score: NDArray[np.float64]
    share: NDArray[np.float64]


@dataclass(frozen=True)
class Bm25:
    """How documents are read and scored; the index itself is `build`'s named arrays, which `find` may map from disk.

    Arrays of an index of N documents: ``terms`` (V,) bytes, sorted, with ``idf`` (V,) float64; the postings of term t
    lie in starts[t]:starts[t + 1] of ``docs`` (int32, ascending) and ``part`` (float32, the second factor above);
    ``words`` (W,) bytes, sorted, are the texts' own words, each with its term's place ``stem`` (W,) int32; ``size``
    (1,) int64 is N.

    Args:
        analyser: reads documents and queries.
        k1: how soon more of the same word adds nothing; 0 asks only whether it is there.
        b: how far long documents count as long, from 0 to 1.
        begun: whether a query may hold beginnings of words: its last word is one, and so is any that no document has.
            Those that are the word itself count more.
        every_first: documents that have every word of the query come before all others.

    >>> index = Bm25().build([(["Oak desk lamp", "Walnut desk", "Lamp oil"], 1.0)])
    >>> Bm25(begun=True).find(index, "LAM oa", 2).place.tolist()
    [0, 2]
    """

    analyser: Analyser = field(default_factory=Analyser)
    k1: float = 0.9
    b: float = 0.4
    begun: bool = False
    every_first: bool = False

    def __post_init__(self) -> None:
        if not (self.k1 >= 0 and 0 <= self.b <= 1):
            raise DefinitionError(
                "BM25 takes k1 of 0 or more, and b from 0 to 1", got=f"k1={self.k1!r}, b={self.b!r}",
                remedy="leave them out for 0.9 and 0.4",
            )  # fmt: skip

    def build(self, fields: Sequence[tuple[Sequence[str], float]]) -> dict[str, Array]:
        """The index of N documents.

        Args:
            fields: the N texts of each field, and what a word in it counts.
        """
        size = len(fields[0][0]) if fields else 0
        known: dict[str, int] = {}
        docs, words, weights = [], [], []
        for texts, weight in fields:
            if len(texts) != size or not weight > 0:
                raise DefinitionError(
                    "each field has a text for every document, and a weight above 0",
                    got=f"{len(texts)} texts for {size} documents, weight {weight!r}",
                    remedy="give an empty text where a document has none",
                )
            read = [[known.setdefault(word, len(known)) for word in self.analyser.words(text)] for text in texts]
            lengths = np.fromiter(map(len, read), np.int64, size)
            docs.append(np.repeat(np.arange(size), lengths))
            words.append(np.fromiter((word for one in read for word in one), np.int64, int(lengths.sum())))
            weights.append(np.full(len(docs[-1]), float(weight)))
        return self._index(size, list(known), *map(_joined, (docs, words, weights)))

    def _index(
        self, size: int, words: Sequence[str], doc: Array, word: Array, weight: NDArray[np.float64]
    ) -> dict[str, Array]:
        telling = [word for word in words if self.analyser.counts(word)]
        texts = np.array([word.encode() for word in telling] or [b""], "S")[: len(telling)]
        stems = np.array([self.analyser.term(word).encode() for word in telling] or [b""], "S")[: len(telling)]
        terms, stem = np.unique(stems, return_inverse=True)
        order = np.argsort(texts)
        term_of = np.full(len(words), -1, np.int64)
        term_of[[i for i, word in enumerate(words) if self.analyser.counts(word)]] = stem
        term = term_of[word] if len(word) else word
        doc, term, weight = doc[term >= 0], term[term >= 0], weight[term >= 0]
        length = np.bincount(doc, weights=weight, minlength=size)
        pair, inverse = np.unique(term * np.int64(max(size, 1)) + doc, return_inverse=True)
        count = np.bincount(inverse, weights=weight, minlength=len(pair))
        term, doc = np.divmod(pair, max(size, 1))
        share = length / max(float(length.mean()), 1e-12) if size else length
        part = count / (count + self.k1 * (1 - self.b + self.b * share[doc]))
        found = np.bincount(term, minlength=len(terms))
        return {
            "terms": terms,
            "idf": np.array([_idf(size, n) for n in found.tolist()], np.float64),
            "starts": np.r_[0, np.cumsum(found)].astype(np.int64),
            "docs": doc.astype(np.int32),
            "part": part.astype(np.float32),
            "words": texts[order],
            "stem": stem[order].astype(np.int32),
            "size": np.array([size], np.int64),
        }

    def find(self, index: Index, text: str, k: int) -> Hits:
        """The k best documents for a query; of equal ones the earlier. None match where no word does."""
        size = int(index["size"][0])
        score, having, asked = np.zeros(size), np.zeros(size, np.int32), 0
        for word, times, begins in self._asked(text):
            docs, values = self._word(index, word, begins)
            score[docs] += times * values
            having[docs] += 1
            # A stop word at the end that begins nothing is but a stop word.
            asked += bool(len(docs)) or self.analyser.counts(word)
        found = np.flatnonzero(having)
        every = having[found] == asked if self.every_first else np.zeros(len(found), bool)
        first = best(found[every], score, k)
        place = np.r_[first, best(found[~every], score, k - len(first))]
        return Hits(place, score[place], having[place] / max(asked, 1))

    def _asked(self, text: str) -> list[tuple[str, int, bool]]:
        """The query's different words, how often each stands there, and whether it may be but a beginning."""
        words = self.analyser.words(text[:MOST_TEXT])
        telling = [w for at, w in enumerate(words, 1) if self.analyser.counts(w) or (self.begun and at == len(words))]
        counts = Counter(telling)
        return [(w, n, self.begun and w == words[-1]) for w, n in list(counts.items())[:MOST_WORDS]]

    def _word(self, index: Index, word: str, begins: bool) -> tuple[Array, NDArray[np.float64]]:
        """The documents that have a word, and what it adds to each one's score."""
        size = int(index["size"][0])
        exact = place_of(index["terms"], self.analyser.term(word).encode())
        docs, part = np.zeros(0, np.int32), np.zeros(0, np.float32)
        if exact is not None:
            at = slice(int(index["starts"][exact]), int(index["starts"][exact + 1]))
            docs, part = index["docs"][at], index["part"][at]
        own = part.astype(np.float64) * (float(index["idf"][exact]) if exact is not None else 0.0)
        if not (begins or (self.begun and exact is None)):
            return docs, own
        low, high = _range(index["words"], word.encode())
        more = np.unique(index["stem"][low:high])
        posted = between(index["starts"][more], index["starts"][more + 1])
        longest = np.zeros(size, np.float32)
        np.maximum.at(longest, index["docs"][posted], index["part"][posted])
        there = longest > 0
        there[docs] = True
        having = np.flatnonzero(there)
        values = longest[having].astype(np.float64) * (BEGUN * _idf(size, len(having)))
        place = np.searchsorted(having, docs)
        values[place] = np.maximum(values[place], own)
        return having, values

    def plain(self, index: Index, text: str, k: int) -> list[tuple[int, float, float]]:
        """`find`, independently and in plain Python: (place, score, share) of each document, best first."""
        size = int(index["size"][0])
        terms, words = [t.decode() for t in index["terms"].tolist()], [w.decode() for w in index["words"].tolist()]
        starts = index["starts"].tolist()

        def postings(term: int) -> dict[int, float]:
            at = slice(starts[term], starts[term + 1])
            return dict(zip(index["docs"][at].tolist(), index["part"][at].tolist(), strict=True))

        asked = 0
        score: dict[int, float] = {}
        having: dict[int, int] = {}
        for word, times, begins in self._asked(text):
            term = self.analyser.term(word)
            own = postings(terms.index(term)) if term in terms else {}
            value = {doc: part * float(index["idf"][terms.index(term)]) for doc, part in own.items()}
            if begins or (self.begun and term not in terms):
                longest: dict[int, float] = {}
                stems = {int(stem) for w, stem in zip(words, index["stem"], strict=True) if w.startswith(word)}
                for stem in stems:
                    for doc, part in postings(stem).items():
                        longest[doc] = max(part, longest.get(doc, 0.0))
                every = own.keys() | longest.keys()
                rare = BEGUN * _idf(size, len(every))
                value = {doc: max(longest.get(doc, 0.0) * rare, value.get(doc, 0.0)) for doc in every}
            for doc, one in value.items():
                score[doc] = score.get(doc, 0.0) + times * one
                having[doc] = having.get(doc, 0) + 1
            asked += bool(value) or self.analyser.counts(word)
        first = {doc: self.every_first and n == asked for doc, n in having.items()}
        best = sorted(score, key=lambda doc: (not first[doc], -score[doc], doc))[:k]
        return [(doc, score[doc], having[doc] / asked) for doc in best]


def best(found: NDArray[np.int64], score: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """The k of `found` (n,) ascending places with the highest of `score`, best first; of equal ones the lower place.

    >>> best(np.array([0, 2, 3]), np.array([0.5, 9.0, 0.7, 0.5]), 2)
    array([2, 0])
    """
    if len(found) > k:
        own = score[found]
        least = -np.partition(-own, k - 1)[k - 1] if k else np.inf
        above = found[own > least]
        # Many documents that have the same words score the same.
        found = np.r_[above, found[own == least][: k - len(above)]]
    return found[np.lexsort((found, -score[found]))]


def _joined(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _idf(size: int, having: int) -> float:
    return log1p((size - having + 0.5) / (having + 0.5))


def place_of(known: Array, text: bytes) -> int | None:
    """Where `text` stands among sorted texts, if it does."""
    if len(text) > known.itemsize:
        return None
    at = int(np.searchsorted(known, np.array(text, known.dtype)))
    return at if at < len(known) and known[at] == text else None


def _range(known: Array, text: bytes) -> tuple[int, int]:
    """Which of the sorted texts begin with `text`."""
    if len(text) > known.itemsize:
        return 0, 0
    low = int(np.searchsorted(known, np.array(text, known.dtype)))
    if len(text) == known.itemsize:
        return low, low + int(low < len(known) and known[low] == text)
    # No byte of UTF-8 is as high.
    return low, int(np.searchsorted(known, np.array(text + b"\xff", known.dtype)))


def weights_of(fields: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """Fields by what a word in each counts; 1 where nothing is said."""
    return {name: float(w) for name, w in fields.items()} if isinstance(fields, Mapping) else dict.fromkeys(fields, 1.0)
