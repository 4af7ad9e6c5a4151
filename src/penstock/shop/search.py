"""Lexical search over a catalogue: SQLite's FTS5, ranked by BM25 and by what is popular lately."""

from __future__ import annotations

import re
import sqlite3
import unicodedata
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log1p
from typing import Literal

from penstock.shop.catalogue import Product

NAME, CATEGORY, BRAND = 4.0, 2.0, 1.0
"""What a word counts in each column."""
POPULAR = 0.5
"""By how much the most popular product's score is raised."""
MOST_TEXT, MOST_WORDS = 200, 8
_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Matches:
    """What a search found, best first.

    Attributes:
        by: "all" words of the query match each product, or "some" do, or none did and these are "popular".
        total: how many matched, of which `products` are the first.
    """

    by: Literal["all", "some", "popular"]
    products: Sequence[Product]
    total: int


class Search:
    """Finds products by the beginnings of words in name, category and brand. For one thread at a time.

    Args:
        products: what is searched.

    >>> shop = Search([Product("p-1", "Oak desk lamp", "lamps", "Dovetide", 4_995)])
    >>> shop.find("LAM oa", {}).by, shop.find('x" OR *', {}).by
    ('all', 'popular')
    """

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self._raise = _Raise(products)
        # The server's loop may run on another thread than the one that opened it, and is the only one to use it.
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._db.execute(
            "CREATE VIRTUAL TABLE words USING fts5(name, category, brand, content='', prefix='1 2 3', "
            "tokenize='unicode61 remove_diacritics 2')"
        )
        self._db.executemany(
            "INSERT INTO words (rowid, name, category, brand) VALUES (?, ?, ?, ?)",
            ((place, p.name, p.category, p.brand) for place, p in enumerate(products)),
        )
        self._db.create_function("raised", 1, self._raise)
        weakref.finalize(self, self._db.close)

    def find(self, text: str, popular: Mapping[str, int], k: int = 24) -> Matches:
        """The products that `text` asks for, whatever it holds.

        Args:
            text: as typed; every word is the beginning of one that must match.
            popular: how often each item was lately touched.
            k: at most so many.
        """
        self._raise.by(popular)
        words = query_words(text)
        if words:
            quoted = [f'"{word}" *' for word in words]
            found, total = self._match(" AND ".join(quoted), k)
            if found:
                return Matches("all", found, total)
            found, total = self._match(" OR ".join(quoted), k) if len(words) > 1 else ([], 0)
            if found:
                return Matches("some", found, total)
        return Matches("popular", by_popularity(self._products, popular)[:k], 0)

    def _match(self, query: str, k: int) -> tuple[list[Product], int]:
        total = int(self._db.execute("SELECT count(*) FROM words WHERE words MATCH ?", (query,)).fetchone()[0])
        # BM25 is below zero in FTS5, so that the best come first.
        rows = self._db.execute(
            f"SELECT rowid FROM words WHERE words MATCH ? "
            f"ORDER BY bm25(words, {NAME}, {CATEGORY}, {BRAND}) * raised(rowid), rowid LIMIT ?",
            (query, k),
        )
        return [self._products[place] for (place,) in rows], total


class _Raise:
    """By what factor a product's score is raised for being popular."""

    def __init__(self, products: Sequence[Product]) -> None:
        self._products = products
        self.by({})

    def by(self, popular: Mapping[str, int]) -> None:
        self._popular, self._most = popular, max(popular.values(), default=1)

    def __call__(self, place: int) -> float:
        count = self._popular.get(self._products[place].item, 0)
        return 1.0 + POPULAR * log1p(count) / log1p(self._most)


def query_words(text: str) -> list[str]:
    """The words of a text that was typed: letters and digits only, so that nothing in it is an operator.

    >>> query_words('chef\\'s "knife" OR *')
    ['chef', 's', 'knife', 'OR']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text[:MOST_TEXT]))[:MOST_WORDS]


def by_popularity(products: Sequence[Product], popular: Mapping[str, int]) -> list[Product]:
    """The products, those lately touched most often first."""
    return sorted(products, key=lambda product: -popular.get(product.item, 0))
