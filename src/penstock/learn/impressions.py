"""Impressions joined with what came of them: the training rows that a running system makes by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.features.columns import matches
from penstock.learn.position import Clicks
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

    @property
    def place(self) -> NDArray[np.int64]:
        """Each item's position in its answer, from 0, (n,)."""
        return np.arange(len(self.owner)) - np.searchsorted(self.owner, self.owner)

    def take(self, decisions: NDArray[np.int64]) -> Impressions:
        """Those of some decisions, by ascending places."""
        place = np.full(len(self.asks), -1)
        place[decisions] = np.arange(len(decisions))
        mine = place[self.owner] >= 0
        return Impressions(self.asks.take(decisions), place[self.owner[mine]], self.item[mine])

    def flat(self) -> Shown:
        """A row an item."""
        return Shown(self.asks.key[self.owner], self.item, self.asks.now[self.owner])

    def between(self, start: Micros, stop: Micros) -> Impressions:
        """Those of decisions with start ≤ now < stop, microseconds."""
        return self.take(np.flatnonzero((self.asks.now >= start) & (self.asks.now < stop)))

    def clicks(self, came: Outcomes) -> Clicks | None:
        """What the positions of these items tell: those whose outcome is final. A pair is a shopper and an item.

        Args:
            came: what came of each.

        Returns:
            None where nothing is final.
        """
        kept = np.flatnonzero(came.mature)
        if not len(kept):
            return None
        owner = self.owner[kept]
        pair = _pack(self.asks.key[owner], self.item[kept]).astype(np.int64)
        return Clicks(owner, pair, self.place[kept], came.positive[kept])


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
    arrival of the outcome, in microseconds, -1 where there is none. `gain` is what the best of the events that
    followed in time is worth, 1 for a single goal, 0 where there is none.
    """

    positive: NDArray[np.bool_]
    mature: NDArray[np.bool_]
    delay: NDArray[np.int64]
    gain: NDArray[np.float64]


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
    delay, gain = np.full(n, -1, np.int64), np.zeros(n)
    if part is not None and len(part) and n:
        worth = worths(recipe, part, strings)
        hit = (worth > 0) & (part.arrived <= as_of)
        hit &= (part.fields[recipe.by] != 0) & (part.fields[recipe.item] != 0)
        part, worth = part.take(np.flatnonzero(hit)), worth[hit]
        delay = _delays(shown, recipe, part, window)
        for level in np.unique(worth).tolist():
            reached = _delays(shown, recipe, part.take(np.flatnonzero(worth == level)), window) >= 0
            gain[reached] = level
    return Outcomes(delay >= 0, shown.time + window <= as_of, delay, gain)


def worths(recipe: Recipe, rows: Rows, strings: Strings) -> NDArray[np.float64]:
    """What each event is worth to the goal, (n,): 0 where it does not match."""
    out = np.zeros(len(rows))
    for goal, worth in recipe.rank.grades:
        out[matches(goal, rows, recipe.views[0].schema, strings)] = worth
    return out


def _delays(shown: Shown, recipe: Recipe, part: Rows, window: Micros) -> NDArray[np.int64]:
    """From each showing to the arrival of the first of these events that follows within `window`, -1 for none."""
    delay = np.full(len(shown.key), -1, np.int64)
    if len(part):
        pair = _pack(part.fields[recipe.by], part.fields[recipe.item])
        order = np.lexsort((part.time, pair))
        pair, time, arrived = pair[order], part.time[order], part.arrived[order]
        wanted = _pack(shown.key, shown.item)
        at = _after(pair, time, wanted, shown.time)
        inside = np.minimum(at, len(pair) - 1)
        found = (at < len(pair)) & (pair[inside] == wanted) & (time[inside] <= shown.time + window)
        delay[found] = (arrived[inside] - shown.time)[found]
    return delay


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
