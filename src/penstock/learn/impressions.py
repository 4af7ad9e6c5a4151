"""Impressions joined with what came of them: the training rows that a running system makes by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.features.columns import matches
from penstock.learn.recipe import Recipe
from penstock.types import Array, Micros, Rows, Strings


@dataclass(frozen=True)
class Asks:
    """R moments of decision, by ascending `known`: (R,) columns.

    `key` is who asked, `now` the moment, `known` the log offset below which events were known then; `context` has
    the codes of the fields that the request carried, and `texts` (R,) str of those whose words a source reads.
    """

    key: NDArray[np.uint32]
    now: NDArray[np.int64]
    known: NDArray[np.int64]
    context: Mapping[str, NDArray[np.uint32]]
    texts: Mapping[str, NDArray[np.object_]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.key)

    def take(self, index: Array) -> Asks:
        context = {name: codes[index] for name, codes in self.context.items()}
        texts = {name: said[index] for name, said in self.texts.items()}
        return Asks(self.key[index], self.now[index], self.known[index], context, texts)

    def said(self, i: int) -> dict[str, str]:
        """The words of request i, by context field."""
        return {name: said[i] for name, said in self.texts.items()}


@dataclass(frozen=True)
class Impressions:
    """What R decisions showed: `item` (n,), each with its decision's place `owner` (n,), ascending."""

    asks: Asks
    owner: NDArray[np.int64]
    item: NDArray[np.uint32]

    def flat(self) -> Shown:
        """A row an item."""
        return Shown(self.asks.key[self.owner], self.item, self.asks.now[self.owner])

    def between(self, start: Micros, stop: Micros) -> Impressions:
        """Those of decisions with start ≤ now < stop, microseconds."""
        kept = (self.asks.now >= start) & (self.asks.now < stop)
        place = np.cumsum(kept) - 1
        mine = kept[self.owner]
        return Impressions(self.asks.take(np.flatnonzero(kept)), place[self.owner[mine]], self.item[mine])


@dataclass(frozen=True)
class Shown:
    """n items that decisions showed, as (n,) columns: the shopper, the item, and when it was shown."""

    key: NDArray[np.uint32]
    item: NDArray[np.uint32]
    time: NDArray[np.int64]


@dataclass(frozen=True)
class Outcomes:
    """What came of each item shown, as (n,) columns.

    `positive`: the goal followed inside the attribution window and had arrived by the time asked about.
    `mature`: the window had closed by then, so that a negative is one. `delay` is from showing to the
    arrival of the outcome, in microseconds, -1 where there is none.
    """

    positive: NDArray[np.bool_]
    mature: NDArray[np.bool_]
    delay: NDArray[np.int64]


def join_outcomes(
    shown: Shown, recipe: Recipe, rows: Mapping[str, Rows], strings: Strings, *, window: Micros, as_of: Micros
) -> Outcomes:
    """Joins items shown with the goal's events of the same shopper and item that follow within `window`.

    Only events that had arrived by `as_of` count: asked again later, late labels are there. The first
    following event is the outcome; several impressions before it all get it.

    Args:
        window: how long after being shown an item an event still counts as its outcome, microseconds.
        as_of: the moment of training, microseconds.
    """
    n = len(shown.key)
    part = rows.get(recipe.stream)
    delay = np.full(n, -1, np.int64)
    if part is not None and len(part) and n:
        hit = matches(recipe.rank.filter, part, recipe.views[0].schema, strings) & (part.arrived <= as_of)
        hit &= (part.fields[recipe.by] != 0) & (part.fields[recipe.item] != 0)
        part = part.take(np.flatnonzero(hit))
        pair = _pack(part.fields[recipe.by], part.fields[recipe.item])
        order = np.lexsort((part.time, pair))
        pair, time, arrived = pair[order], part.time[order], part.arrived[order]
        wanted = _pack(shown.key, shown.item)
        at = _after(pair, time, wanted, shown.time)
        inside = np.minimum(at, max(len(pair) - 1, 0))
        if len(pair):
            found = (at < len(pair)) & (pair[inside] == wanted) & (time[inside] <= shown.time + window)
            delay[found] = (arrived[inside] - shown.time)[found]
    return Outcomes(delay >= 0, shown.time + window <= as_of, delay)


def _pack(a: Array, b: Array) -> NDArray[np.uint64]:
    return (a.astype(np.uint64) << np.uint64(32)) | b


def _after(pair: Array, time: Array, wanted: Array, shown: Array) -> NDArray[np.int64]:
    """For each (wanted, shown) the first place in the sorted (pair, time) with the same pair and a later time."""
    # Rows and questions sorted together: a question's place is the number of rows before it.
    n = len(pair)
    asks = np.r_[np.zeros(n, bool), np.ones(len(wanted), bool)]
    order = np.lexsort((asks, np.r_[time, shown], np.r_[pair, wanted]))
    before = np.cumsum(~asks[order])
    out = np.empty(len(wanted), np.int64)
    out[order[asks[order]] - n] = before[asks[order]]
    return out
