"""What happens between scores and the slate: diversity, business rules, exploration. One class a rule."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Strings


@dataclass(frozen=True)
class Slate:
    """Candidates in order, best first.

    Attributes:
        items: (n,) codes of all candidates, as they were found.
        order: (m,) positions in `items`, best first; m ≥ k where there are enough.
        attributes: (n,) codes by name, such as ``category``.
        propensity: (m,) the chance with which the slate has this item at this place, given those above it.
    """

    items: NDArray[np.uint32]
    order: NDArray[np.int64]
    attributes: Mapping[str, NDArray[np.uint32]]
    propensity: NDArray[np.float64]

    def reordered(self, order: NDArray[np.int64]) -> Slate:
        """The same slate in another, deterministic order."""
        return Slate(self.items, order, self.attributes, np.ones(len(order)))

    def groups(self, field: str) -> NDArray[np.uint32]:
        """The attribute `field` of every candidate."""
        if field not in self.attributes:
            raise DefinitionError(
                "re-ranking by a field needs it as an attribute of the candidates",
                got=repr(field),
                remedy=f"add {field} = ps.latest({field!r}) to the view by item",
            )
        return self.attributes[field]


class Rule(ABC):
    """One step from slate to slate; implementations are frozen dataclasses, registered as "rule"."""

    @abstractmethod
    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        """The next slate; at least its first k places must be final."""


@registered("rule")
@dataclass(frozen=True)
class Diversify(Rule):
    """Spreads a field over the slate: each item already chosen of a group costs the group's others places.

    A greedy re-ranking in the manner of maximal marginal relevance (Carbonell and Goldstein, 1998), on ranks
    instead of scores, so that it does not depend on the model's scale.

    Args:
        field: an attribute of the items, such as ``"category"``.
        strength: places lost for each item of the same group above.
    """

    field: str
    strength: float = 0.5

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise DefinitionError("strength is zero or more", got=str(self.strength), remedy="0.5 is usual")

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        group = slate.groups(self.field)[slate.order]
        cost = np.arange(len(group), dtype=np.float64)
        chosen = np.empty(min(k, len(group)), np.int64)
        for place in range(len(chosen)):
            best = int(np.argmin(cost))
            chosen[place] = best
            if group[best]:
                cost[group == group[best]] += self.strength
            cost[best] = np.inf
        rest = np.setdiff1d(np.arange(len(group)), chosen, assume_unique=True)
        return slate.reordered(slate.order[np.r_[chosen, rest]])


@registered("rule")
@dataclass(frozen=True)
class Cap(Rule):
    """At most `most` items of one group in the slate, even where nothing takes the place of the others."""

    field: str
    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise DefinitionError(
                "a cap leaves at least one item of a group", got=f"most={self.most}", remedy="ps.block shows none"
            )

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        group = slate.groups(self.field)[slate.order].tolist()
        seen: dict[int, int] = {}
        keep = []
        for place, code in enumerate(group):
            seen[code] = seen.get(code, 0) + 1
            # What has no such value is no group.
            if not code or seen[code] <= self.most:
                keep.append(place)
        return slate.reordered(slate.order[np.array(keep, np.int64)])


@registered("rule")
@dataclass(frozen=True)
class Block(Rule):
    """Never shows items whose `field` (the item itself by default) is one of `values`.

    Fallback tiers know only the items themselves.
    """

    values: tuple[str, ...]
    field: str = "item"

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
        _check_place("place", self.place)

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        code = strings.code(self.item)
        if not code:
            return slate
        at = np.flatnonzero(slate.items == code)
        if not len(at):
            items = np.append(slate.items, np.uint32(code))
            grown = {name: np.append(codes, np.uint32(0)) for name, codes in slate.attributes.items()}
            slate, at = Slate(items, slate.order, grown, slate.propensity), np.array([len(items) - 1])
        others = slate.order[slate.order != at[0]]
        return slate.reordered(np.insert(others, min(self.place - 1, len(others)), at[0]))


@registered("rule")
@dataclass(frozen=True)
class Explore(Rule):
    """With a small chance at each place, shows a candidate drawn evenly from those left instead of the best.

    The propensity of every item shown is logged, so that estimators can weigh what was not shown.

    Args:
        rate: the chance, between 0 and 1.
        first: the first place (from 1) that explores.
    """

    rate: float
    first: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise DefinitionError("a chance is between 0 and 1", got=str(self.rate), remedy="0.02 is usual")
        _check_place("first", self.first)

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        left = slate.order.tolist()
        chosen: list[int] = []
        chance: list[float] = []
        for place in range(min(k, len(left))):
            rate = self.rate if place + 1 >= self.first else 0.0
            even = rate / len(left)
            at = draw.randrange(len(left)) if rate and draw.random() < rate else 0
            chance.append(1.0 - rate + even if at == 0 else even)
            chosen.append(left.pop(at))
        order = np.array([*chosen, *left], np.int64)
        return Slate(slate.items, order, slate.attributes, np.r_[chance, np.zeros(len(left))])

    def chances(self, order: NDArray[np.int64], shown: NDArray[np.int64]) -> NDArray[np.float64]:
        """The chance of showing `shown` (k,) place by place, each given those above it, had `order` (m,) come in.

        0 from the first place on that holds what is not in the order, or stood above already.

        >>> Explore(0.1).chances(np.array([7, 8]), np.array([8, 7])).tolist()
        [0.05, 1.0]
        """
        left = order.tolist()
        out = np.zeros(len(shown))
        for place, one in enumerate(shown.tolist()):
            if one not in left:
                break
            rate = self.rate if place + 1 >= self.first else 0.0
            out[place] = rate / len(left) + (1.0 - rate if left[0] == one else 0.0)
            left.remove(one)
        return out


def _check_place(name: str, place: int) -> None:
    if place < 1:
        raise DefinitionError("places count from 1", got=f"{name}={place}", remedy="1 is the first place")


def diversify(field: str, strength: float = 0.5) -> Diversify:
    """Spreads the values of `field` over the slate."""
    return Diversify(field, strength)


def cap(field: str, most: int) -> Cap:
    """At most `most` items with the same value of `field`."""
    return Cap(field, most)


def block(*values: str, field: str = "item") -> Block:
    """Never shows these items, or items with these values of `field`."""
    return Block(values, field)


def pin(item: str, place: int = 1) -> Pin:
    """Shows `item` at a fixed place, counted from 1."""
    return Pin(item, place)


def explore(rate: float, first: int = 1) -> Explore:
    """Shows something else with chance `rate` at each place from `first` on, and logs the propensities."""
    return Explore(rate, first)
