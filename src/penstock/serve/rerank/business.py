"""Rules that a shop sets by hand: what is never shown, where something stands, how much of what a slate holds."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.serve.rerank.base import Floats, Reads, Rule, Slate, by_rest, check_place
from penstock.types import Strings

_MOST_PRICES = 100
"""Prices tried of a limit; some ten are usual."""


@registered("rule")
@dataclass(frozen=True)
class Cap(Rule):
    """At most `most` items of one group in the slate, even where nothing takes the place of the others.

    Args:
        field: an attribute of the items.
        most: items of a group.
        first: only among so many first places; what is too many then comes right after them. All places, by default.
    """

    field: str
    most: int
    first: int | None = None

    def __post_init__(self) -> None:
        if self.most < 1:
            raise DefinitionError(
                "a cap leaves at least one item of a group", got=f"most={self.most}", remedy="ps.block shows none"
            )
        _check_first(self.first)

    def reads(self) -> Reads:
        return Reads((self.field,))

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        group = slate.groups(self.field)[slate.order].tolist()
        seen: dict[int, int] = {}
        keep: list[int] = []
        late: list[int] = []
        for place, code in enumerate(group):
            if self.first is not None and len(keep) >= self.first:
                late.append(place)
                continue
            seen[code] = seen.get(code, 0) + 1
            # What has no such value is no group.
            (keep if not code or seen[code] <= self.most else late).append(place)
        if self.first is not None and len(keep) >= self.first:
            keep += late
        return slate.reordered(slate.order[np.array(keep, np.int64)])

    def holds(self, slate: Slate, k: int, strings: Strings) -> bool:
        group = slate.groups(self.field)[slate.order[: min(k, self.first or k)]]
        return bool(np.unique(group[group > 0], return_counts=True)[1].max(initial=0) <= self.most)


@registered("rule")
@dataclass(frozen=True)
class AtLeast(Rule):
    """At least `count` items of one value among the first places, as many as there are where there are fewer.

    Of all such slates it takes the one whose items stood highest: the best of the value come up to where the window
    still has room, and the lowest others go down to right behind it; each keep their order.

    Args:
        field: an attribute of the items, such as ``"brand"``.
        value: which.
        count: how many items.
        first: among so many first places; among all of the slate, by default.
    """

    field: str
    value: str
    count: int = 1
    first: int | None = None

    def __post_init__(self) -> None:
        _check_first(self.first)
        if not 1 <= self.count <= (self.first or self.count):
            raise DefinitionError(
                "at least one item is asked for, and no more than there are places",
                got=f"count={self.count}, first={self.first}", remedy='at_least("brand", "own", 2, first=10)',
            )  # fmt: skip

    def reads(self) -> Reads:
        return Reads((self.field,))

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        order, window = slate.order, min(k, self.first or k)
        mine = self._mine(slate, strings)[order]
        wanted = np.flatnonzero(mine)[: min(self.count, window)]
        low = int((wanted >= window).sum())
        if not low:
            return slate
        others = np.flatnonzero(~mine[:window])
        stays = np.setdiff1d(np.arange(window), others[len(others) - low :], assume_unique=True)
        return slate.reordered(by_rest(order, np.r_[stays, wanted[len(wanted) - low :]]))

    def holds(self, slate: Slate, k: int, strings: Strings) -> bool:
        window = min(k, self.first or k)
        return int(self._mine(slate, strings)[slate.order[:window]].sum()) >= self.count

    def _mine(self, slate: Slate, strings: Strings) -> NDArray[np.bool_]:
        code = strings.code(self.value)
        return np.asarray(slate.groups(self.field) == code) & bool(code)


@registered("rule")
@dataclass(frozen=True)
class Within(Rule):
    """A sum over the first places that is at most, or at least, so much: a budget, or a margin to be earned.

    It swaps items for others further down so that little of the model's score is lost: their sum falls short of the
    best possible by less than what the two items of a single swap differ in score (the Lagrangian relaxation, whose
    solutions on both sides of the limit differ by one swap). Items keep their order. What has no finite value of the
    column is taken for the worst of all. Where no slate is within the limit: of a floor the highest sum there is; of a
    ceiling fewer items than were asked for, the best so many as fit.

    Args:
        column: a feature column, such as ``"Product.price"``.
        limit: what the sum is held to.
        floor: whether it is to be at least that; at most, by default.
        first: over so many first places; over all of the slate, by default.
    """

    column: str
    limit: float
    floor: bool = False
    first: int | None = None

    def __post_init__(self) -> None:
        _check_first(self.first)

    def reads(self) -> Reads:
        return Reads(columns=(self.column, "score"))

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        order, window = slate.order, min(k, self.first or k, len(slate.order))
        cost, limit = self._costs(slate)
        cost = cost[order]
        if cost[:window].sum() <= limit:
            return slate
        value = slate.relevance()[order]
        cheapest = np.sort(cost)[:window]
        if self.floor:
            limit = max(limit, float(cheapest.sum()))
        # So many of the cheapest fit; what lowers the sum may stand among them.
        within = np.flatnonzero(np.cumsum(cheapest) <= limit + _slack(limit))
        fits = int(within[-1]) + 1 if len(within) else 0
        chosen = _best(value, cost, fits, limit)
        if fits < window:
            return replace(slate.reordered(order[chosen]), cut=(*slate.cut, self))
        return slate.reordered(by_rest(order, chosen))

    def holds(self, slate: Slate, k: int, strings: Strings) -> bool:
        window = min(k, self.first or k)
        cost, limit = self._costs(slate)
        total = float(cost[slate.order[:window]].sum())
        return total <= limit + _slack(limit) and self not in slate.cut

    def _costs(self, slate: Slate) -> tuple[Floats, float]:
        """What each candidate takes of the limit, (n,), and the limit."""
        sign = -1.0 if self.floor else 1.0
        cost, limit = sign * slate.column(self.column), sign * self.limit
        known = np.isfinite(cost)
        return np.where(known, cost, cost[known].max() if known.any() else 0.0), limit


def _best(value: Floats, cost: Floats, count: int, limit: float) -> NDArray[np.int64]:
    """The places of `count` items whose costs are within the limit, their value almost the most; ascending."""

    def taken(price: float) -> NDArray[np.int64]:
        # Of those worth the same at this price the cheaper come first.
        return np.lexsort((cost, price * cost - value))[:count]

    if not count:
        return np.zeros(0, np.int64)
    most = limit + _slack(limit)
    over = taken(0.0)
    if cost[over].sum() <= most:
        return np.sort(over)
    # The price at which a slate over the limit and one within it are worth the same, until no slate is worth more.
    under = np.lexsort((-value, cost))[:count]
    for _ in range(_MOST_PRICES):
        price = float((value[over].sum() - value[under].sum()) / (cost[over].sum() - cost[under].sum()))
        worth = value - price * cost
        middle = taken(price)
        if worth[middle].sum() <= worth[over].sum() + 1e-12 * count:
            break
        if cost[middle].sum() > most:
            over = middle
        else:
            under = middle
    # Both are worth the most at that price, as is whatever lies between: as many items as fit are swapped.
    back = np.setdiff1d(over, under, assume_unique=True)
    gone = np.setdiff1d(under, over, assume_unique=True)
    fits = np.flatnonzero(cost[under].sum() + np.cumsum(cost[back] - cost[gone]) <= most)
    swaps = int(fits[-1]) + 1 if len(fits) else 0
    return np.sort(np.r_[np.setdiff1d(under, gone[:swaps], assume_unique=True), back[:swaps]])


def _slack(limit: float) -> float:
    """What rounding may add to a sum."""
    return 1e-9 * max(1.0, abs(limit))


@registered("rule")
@dataclass(frozen=True)
class Block(Rule):
    """Never shows items whose `field` (the item itself by default) is one of `values`.

    Fallback tiers know only the items themselves.
    """

    values: tuple[str, ...]
    field: str = "item"

    def reads(self) -> Reads:
        return Reads(() if self.field == "item" else (self.field,))

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        blocked = np.array([code for code in map(strings.code, self.values) if code], np.uint32)
        codes = slate.items if self.field == "item" else slate.groups(self.field)
        return slate.reordered(slate.order[~np.isin(codes[slate.order], blocked)])


@registered("rule")
@dataclass(frozen=True)
class Pin(Rule):
    """Shows one item at a fixed place (1 is the first), found or not."""

    item: str
    place: int = 1

    def __post_init__(self) -> None:
        check_place("place", self.place)

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        code = strings.code(self.item)
        if not code:
            return slate
        at = np.flatnonzero(slate.items == code)
        if not len(at):
            slate, at = slate.grown(code), np.array([len(slate.items)])
        others = slate.order[slate.order != at[0]]
        return slate.reordered(np.insert(others, min(self.place - 1, len(others)), at[0]))


def _check_first(first: int | None) -> None:
    if first is not None:
        check_place("first", first)


def cap(field: str, most: int, first: int | None = None) -> Cap:
    """At most `most` items with the same value of `field`, among the first so many places or all."""
    return Cap(field, most, first)


def at_least(field: str, value: str, count: int = 1, first: int | None = None) -> AtLeast:
    """At least `count` items with this value of `field` among the first so many places, or all."""
    return AtLeast(field, value, count, first)


def within(column: str, *, most: float | None = None, least: float | None = None, first: int | None = None) -> Within:
    """The sum of a feature column over the first so many places, or all, is at most or at least so much."""
    if most is not None and least is None:
        return Within(column, most, False, first)
    if least is not None and most is None:
        return Within(column, least, True, first)
    raise DefinitionError("a sum has one limit", got=f"most={most}, least={least}", remedy="within(column, most=100.0)")


def block(*values: str, field: str = "item") -> Block:
    """Never shows these items, or items with these values of `field`."""
    return Block(values, field)


def pin(item: str, place: int = 1) -> Pin:
    """Shows `item` at a fixed place, counted from 1."""
    return Pin(item, place)
