"""Which column is the shopper, the item, the kind of action, the category and the price."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import polars as pl

from penstock.events.mapping import Source
from penstock.scaffold.words import (
    CATEGORY,
    ITEM,
    KIND,
    KINDS,
    PRICE,
    QUANTITY,
    RECEIPT,
    USER,
    Weights,
    fit,
    identifier,
    kind_of_word,
)  # fmt: skip

MOST_KINDS = 20
_AMOUNT = r"^[+-]?\d+(\.\d+)?$"
_COMMA = r"^[+-]?\d{1,3}(\.?\d{3})*(,\d+)?$"
_SIGNS = ("€", "$", "£", " ")


@dataclass(frozen=True)
class Found:
    """Where a field comes from, why, and what is unsure about it. `column` is None for a constant."""

    column: str | None
    source: Source
    why: str
    doubts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The column, where it is one."""
        return self.column or ""


F = TypeVar("F", Found, Found | None)


@dataclass
class Roles:
    """The columns that are not taken yet, and a finder for each field.

    Args:
        frame: the sample.
        headed: whether the names of its columns say anything.
        free: the columns that may still be taken.
    """

    frame: pl.DataFrame
    headed: bool
    free: list[str] = field(default_factory=list)

    def take(self, found: F) -> F:
        """Keeps a column from being found twice."""
        if found is not None and found.column in self.free:
            self.free.remove(found.column)
        return found

    def texts(self, name: str) -> pl.Series:
        """A column's present values as text."""
        return self.frame[name].drop_nulls().cast(pl.String)

    def best(self, weights: Weights, fits: Callable[[str], bool] = lambda name: True) -> tuple[str, float] | None:
        """The free column that the words fit best, and how well."""
        if not self.headed:
            return None
        scores = {name: fit(name, weights) for name in self.free if fits(name) and len(self.texts(name))}
        # Among equals the fuller column, then the first.
        ranked = sorted(scores, key=lambda name: (-scores[name], self.frame[name].null_count()))
        return (ranked[0], scores[ranked[0]]) if ranked and scores[ranked[0]] > 0 else None

    def kind(self) -> Found:
        """The kind of action: a column of few words, or what a file without one seems to hold."""
        scores = {name: self._kind_score(name) for name in self.free}
        name = max(scores, key=lambda one: scores[one], default=None)
        if name is not None and scores[name] >= 4:
            words = self.texts(name).value_counts(sort=True, name="n").get_column(name).to_list()
            counted = all(word.isdigit() for word in words)
            mapping, doubts = (_by_count(words), []) if counted else _by_word(words)
            if counted:
                doubts = ["numbers say nothing: the most frequent is taken as a view, then cart, then buy"]
            return Found(name, Source(column=name, map=mapping), f"{len(words)} different words", tuple(doubts))
        # A number that only counts within a visit is no receipt's.
        receipt = self.best(RECEIPT, lambda name: self._different(name) > len(self.frame) / 100)
        amount = self.best(QUANTITY, lambda name: self._numbers(name, r"^-?\d+(\.0+)?$"))
        if receipt and amount:
            back = f'TRY_CAST("{amount[0]}" AS DOUBLE) < 0'
            sql = f"CASE WHEN {back} THEN 'return' ELSE 'buy' END"
            why = f"{receipt[0]} and {amount[0]} look like lines of receipts; a negative quantity is a return"
            return Found(None, Source(sql=sql), why, ("no column says what was done",))
        kind = "buy" if receipt else "view"
        why = f"{receipt[0]} looks like a receipt" if receipt else "no column says what was done"
        return Found(None, Source(constant=kind), why, (f"every row is taken as a {kind}",))

    def item(self) -> Found | None:
        """The product: by name, else the column with the most different values."""
        named = self.best(ITEM, lambda name: self._different(name) > 1)
        if named:
            return self._identity(named[0], "named like a product", ())
        rest = [name for name in self.free if not self._numbers(name, r"^[+-]?\d*\.\d+$")]
        name = max(rest, key=self._different, default=None)
        if name is None or self._different(name) < 2:
            return None
        return self._identity(name, "the most different values", ("no name says product",))

    def user(self, item: str) -> Found | None:
        """The shopper: by name, else a column whose values repeat and do not follow from the item."""
        named = self.best(USER, lambda name: self._different(name) > 1)
        if named:
            thing = "a shopper" if fit(named[0], USER) >= 3 else "a session: shoppers are not known across sessions"
            doubts = () if fit(named[0], USER) >= 3 else ("no column names the shopper",)
            return self._identity(named[0], f"named like {thing}", doubts)
        rest = [n for n in self.free if self._different(n) > 1 and not self._follows(item, n) and not self._dates(n)]
        name = max(rest, key=self._different, default=None)
        return None if name is None else self._identity(name, "its values repeat", ("no name says shopper",))

    def category(self, item: str) -> Found | None:
        """The item's kind of goods: by name, else a column that follows from the item and groups items."""
        named = self.best(CATEGORY)
        if named:
            return Found(named[0], Source(column=named[0]), "named like a category")
        if self.headed:
            return None
        rest = [n for n in self.free if 1 < self._different(n) < 0.7 * self._different(item) and self._follows(item, n)]
        name = max(rest, key=self._different, default=None)
        why = "each item has one value of it, and many items share it"
        return None if name is None else Found(name, Source(column=name), why, ("no name says category",))

    def price(self) -> Found | None:
        """The amount of money: by name, and all of it numbers."""
        for pattern, comma in ((_AMOUNT, False), (_COMMA, True)):
            named = self.best(PRICE, lambda name, pattern=pattern: self._amounts(name, pattern))  # type: ignore[misc]
            if not named:
                continue
            name = named[0]
            signs = [sign for sign in _SIGNS if self.texts(name).str.contains(sign, literal=True).any()]
            if not signs and not comma:
                return Found(name, Source(column=name, round=True), "numbers, named like a price")
            sql = f'"{name}"'
            for sign in (*signs, *((".",) if comma else ())):
                sql = f"REPLACE({sql}, '{sign}', '')"
            sql = f"REPLACE({sql}, ',', '.')" if comma else sql
            return Found(name, Source(sql=sql, round=True), "amounts as people write them, named like a price")
        return None

    def type_of(self, name: str, measure: bool) -> str:
        """The Python type of a further column: text, unless it is surely something else."""
        texts = self.texts(name)
        if self.frame[name].dtype != pl.String:
            return "str"
        if len(texts) and texts.str.to_lowercase().is_in(["true", "false"]).all():
            return "bool"
        if measure and self._numbers(name, r"^[+-]?\d{1,18}(\.0+)?$"):
            return "int"
        return "float" if self._numbers(name, r"^[+-]?\d*\.\d+([eE][+-]?\d+)?$") else "str"

    def _identity(self, name: str, why: str, doubts: tuple[str, ...]) -> Found:
        if self._numbers(name, r"^\d+\.0$"):
            source = Source(sql=f"REPLACE(\"{name}\", '.0', '')")
            return Found(name, source, f"{why}; whole numbers that were saved as decimals", doubts)
        return Found(name, Source(column=name), why, doubts)

    def _kind_score(self, name: str) -> float:
        different = self._different(name)
        if not 0 < different <= MOST_KINDS or not isinstance(self.frame[name].dtype, pl.String):
            return 0.0
        words = self.texts(name).unique().to_list()
        known = sum(kind_of_word(word) is not None for word in words) / len(words)
        named = fit(name, KIND) if self.headed else 0.0
        if all(word.isdigit() for word in words):
            return named if different <= 6 else 0.0
        return 6 * known + max(named, 0.0) if known else (named if named > 4 else 0.0)

    def _different(self, name: str) -> int:
        return int(self.frame[name].drop_nulls().n_unique())

    def _numbers(self, name: str, pattern: str) -> bool:
        texts = self.texts(name)
        return bool(len(texts)) and bool(texts.str.contains(pattern).all())

    def _amounts(self, name: str, pattern: str) -> bool:
        texts = self.texts(name)
        for sign in _SIGNS:
            texts = texts.str.replace_all(sign, "", literal=True)
        return bool(len(texts)) and float(texts.str.contains(pattern).mean() or 0.0) >= 0.98  # type: ignore[arg-type]

    def _dates(self, name: str) -> bool:
        return self.frame[name].dtype != pl.String

    def _follows(self, item: str, name: str) -> bool:
        """Whether the items that occur again nearly always have the same value of `name`."""
        pairs = self.frame.select(a=pl.col(item), b=pl.col(name)).drop_nulls()
        again = pairs.group_by("a").agg(n=pl.len(), values=pl.col("b").n_unique()).filter(pl.col("n") > 1)
        return bool(len(again)) and float((again["values"] == 1).mean() or 0.0) >= 0.98  # type: ignore[arg-type]


def _by_count(words: list[str]) -> dict[str, str]:
    kinds = ["view", "cart", "buy"] if len(words) > 2 else ["view", "buy"]
    return {word: kinds[n] if n < len(kinds) else f"kind_{word}" for n, word in enumerate(words)}


def _by_word(words: list[str]) -> tuple[dict[str, str], list[str]]:
    out, own = {}, []
    for word in words:
        known = kind_of_word(word)
        out[word] = known or identifier(word)
        if known is None and out[word] not in KINDS:
            own.append(word)
    return out, [f"kinds of their own: {', '.join(own)}"] if own else []
