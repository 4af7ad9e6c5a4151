"""Popular items in a window, over all or by a group such as the category or the shopper's country."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.clock import HOUR, duration
from penstock.errors import DefinitionError
from penstock.features.columns import check_element_wise, matches
from penstock.features.view import hop_of
from penstock.registry import registered
from penstock.retrieve.base import Found, Index, Query, Source
from penstock.types import Array, Rows, Schema, Strings


@registered("source")
@dataclass(frozen=True, eq=False)
class Popular(Source):
    """The items with most events in a window that ends at the last full hop.

    It only proposes items: its scores are no features, since item views count more exactly.

    Args:
        window: how far back; none counts from the beginning.
        by: a text field that splits the counts: ``"category"``, ``"country"``.
        of: where `by` is set, the shopper's list feature (or attribute, or context field) that says which
            groups to take from, the first `groups` of it; `by` itself by default.
        where: an element-wise filter on the events that count.
    """

    window: str | None = None
    by: str | None = None
    of: str | None = None
    k: int = 20
    name: str = ""
    groups: int = 2
    where: pl.Expr | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            duration(self.window)
        if self.of is not None and self.by is None:
            raise DefinitionError(
                "popular items are taken from groups only where they are counted by one",
                got=f"of={self.of!r} without by",
                remedy='say by="category" too',
            )

    @property
    def label(self) -> str:
        return self.name or "_".join(filter(None, ["popular", self.by, self.window]))

    @property
    def columns(self) -> tuple[str, ...]:
        return ()

    def needs(self) -> tuple[str, ...]:
        return () if self.by is None else (self.of or self.by,)

    @property
    def hop(self) -> int:
        return HOUR if self.window is None else hop_of(duration(self.window))

    def find(self, query: Query, index: Index) -> Found:
        items = query.popular[self.label]
        return Found(items, np.zeros((len(items), 0)))

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        return dict.fromkeys(query.popular[self.label].tolist(), ())


class Popularity:
    """The counts behind one `Popular` source, kept up to date with the log in memory.

    Lists change at hops only, so what a day of traffic asks for is computed some dozens of times. Groups
    are codes of the field `by`; without one there is the single group 0.
    """

    def __init__(self, source: Popular, schema: Schema, item: str) -> None:
        self.source = source
        self._schema = schema
        self._item = item
        self._window = None if source.window is None else duration(source.window)
        self._tiles: dict[int, list[tuple[Array, Array]]] = {}
        self._lists: dict[int, NDArray[np.uint32]] = {}
        self._all: tuple[Array, Array] = _sum([])
        self._built: int | None = None
        if source.where is not None:
            check_element_wise(source.where, schema, source.label)

    @property
    def stream(self) -> str:
        return self._schema.stream

    def add(self, rows: Rows, strings: Strings) -> None:
        """Counts further events; lists are rebuilt when they begin a new hop."""
        tile = rows.time // self.source.hop
        newest = int(tile.max(initial=0))
        if self._built is not None and newest <= self._built:
            self._count(rows, tile, strings)
            return
        # What came after the event that began the hop waits for the next one, however events were batched.
        began = int(np.argmax(tile == newest)) + 1 if len(rows) else 0
        self._count(rows.take(slice(0, began)), tile[:began], strings)
        self._rebuild(newest)
        self._count(rows.take(slice(began, None)), tile[began:], strings)

    def _count(self, rows: Rows, tile: Array, strings: Strings) -> None:
        item = rows.fields[self._item]
        group = np.zeros(len(rows), np.uint32) if self.source.by is None else rows.fields[self.source.by]
        useful = item != 0
        if self.source.by is not None:
            useful = useful & (group != 0)
        if self.source.where is not None and len(rows):
            useful = useful & matches(self.source.where, rows, self._schema, strings)
        packed = (group.astype(np.uint64) << np.uint64(32)) | item
        for number in np.unique(tile[useful]).tolist():
            at = useful & (tile == number)
            self._tiles.setdefault(number, []).append(np.unique(packed[at], return_counts=True))

    def _rebuild(self, newest: int) -> None:
        first = None if self._window is None else newest - self._window // self.source.hop
        for number in [n for n in self._tiles if first is not None and n < first]:
            del self._tiles[number]
        done = [n for n in self._tiles if n < newest]
        keys, counts = _sum([part for number in done for part in self._tiles[number]])
        if self._window is None and done:
            for number in done:
                del self._tiles[number]
            self._tiles[min(done)] = [(keys, counts)]
        elif done:
            for number in done:
                self._tiles[number] = [_sum(self._tiles[number])]
        self._all = (keys, counts)
        group = (keys >> np.uint64(32)).astype(np.uint32)
        order = np.lexsort((keys, -counts, group))
        item = (keys[order] & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        groups, starts = np.unique(group[order], return_index=True)
        ends = np.r_[starts, len(order)][1:]
        self._lists = {
            g: item[a : min(b, a + self.source.k)]
            for g, a, b in zip(groups.tolist(), starts.tolist(), ends.tolist(), strict=True)
        }
        self._built = newest

    @property
    def counts(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """Every item in the lists' window and its events, over all groups; as old as the lists."""
        keys, counts = self._all
        items, inverse = np.unique((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), return_inverse=True)
        return items, np.bincount(inverse, weights=counts, minlength=len(items)).astype(np.int64)

    @property
    def lists(self) -> PopularLists:
        """The lists as they stand; later counting does not change them."""
        return PopularLists(self._lists, self.source.groups)


@dataclass(frozen=True)
class PopularLists:
    """Popular items by group code, as they stood at one moment."""

    by_group: Mapping[int, NDArray[np.uint32]]
    groups: int

    def items(self, groups: Sequence[int] = (0,)) -> NDArray[np.uint32]:
        """The items of the first groups that have any, each group in its own order."""
        found = [self.by_group[g] for g in dict.fromkeys(groups) if g in self.by_group][: self.groups]
        return np.concatenate(found) if found else np.zeros(0, np.uint32)


def _sum(parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    if len(parts) == 1:
        return parts[0]
    keys, inverse = np.unique(np.concatenate([p[0] for p in parts]), return_inverse=True)
    return keys, np.bincount(inverse, weights=np.concatenate([p[1] for p in parts]), minlength=len(keys)).astype(
        np.int64
    )
