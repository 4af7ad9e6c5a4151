"""The knobs of a simulated shop, checked once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from penstock.clock import DAY
from penstock.errors import DefinitionError
from penstock.simulator.names import DEPARTMENTS

MONDAY = 1_746_403_200_000_000
"""2025-05-05 00:00 UTC."""

_AT_LEAST: dict[str, float] = {
    "seed": 0,
    "shoppers": 1,
    "items": 2,
    "categories": 1,
    "days": 1,
    "start": 0,
    "tastes": 1,
    "sessions": 0.01,
    "views": 1,
    "zipf": 0,
    "position_bias": 0,
    "price_response": 0,
    "season": 0,
    "new_items": 0,
    "returns": 0,
    "drift": 0,
    "searches": 0,
    "trust": 0,
}
_AT_MOST: dict[str, float] = {
    "categories": len(DEPARTMENTS), "new_items": 0.9, "returns": 1, "drift": 1, "searches": 1, "trust": 1
}  # fmt: skip


@dataclass(frozen=True)
class Knobs:
    """What a simulated shop is like.

    Args:
        seed: two worlds with equal knobs give the same bytes (one machine, one NumPy version).
        shoppers, items, categories: how many; at most 24 categories.
        days: length of the span, in days from `start`.
        start: the first moment, in microseconds since 1970 UTC; a Monday midnight by default.
        tastes: dimensions of the latent taste vectors.
        sessions: mean sessions a shopper in the span; activity is log-normal around it.
        views: mean views a session.
        zipf: exponent of popularity against rank, within a category.
        position_bias: position k (from 0) of a slate is looked at with probability (1 + k)^-position_bias.
        price_response: how far the log-odds of a click or a purchase fall when the price grows by a factor e.
        season: strength of the day, week and year rhythms; 0 is flat, 1 a normal shop.
        new_items: share of the items that are launched inside the span.
        returns: share of the purchases that come back, some of them after the span.
        drift: from 0 (none) to 1: from `drift_day` on other products are put forward and other categories wanted.
        searches: share of the views that came from a search, whose words the view and what follows from it carry.
        drift_day: day of the change; the middle of the span by default.
        trust: a product looked at in position k (from 0) of a slate that would not have been clicked is clicked all
            the same with probability trust · (1 + k)^-2, because of where it stands.
    """

    seed: int = 7
    shoppers: int = 2_000
    items: int = 1_500
    categories: int = 24
    days: int = 14
    start: int = MONDAY
    tastes: int = 16
    sessions: float = 9.0
    views: float = 6.0
    zipf: float = 1.0
    position_bias: float = 1.0
    price_response: float = 1.0
    season: float = 1.0
    new_items: float = 0.1
    returns: float = 0.05
    drift: float = 0.0
    drift_day: int | None = None
    searches: float = 0.0
    trust: float = 0.0

    def __post_init__(self) -> None:
        for name, least in _AT_LEAST.items():
            value, most = getattr(self, name), _AT_MOST.get(name, np.inf)
            if not least <= value <= most:
                raise DefinitionError(
                    f"{name} is at least {least:g}" + (f" and at most {most:g}" if most < np.inf else ""),
                    got=repr(value),
                    remedy=f"give the world another {name}",
                    field=name,
                )
        if self.items < 2 * self.categories:
            raise DefinitionError(
                "every category has at least two items",
                got=f"{self.items} items in {self.categories} categories",
                remedy="ask for more items or fewer categories",
                field="items",
            )

    @property
    def end(self) -> int:
        """The moment after the last (microseconds)."""
        return self.start + self.days * DAY

    @property
    def change(self) -> int:
        """The day from which `drift` holds."""
        return self.days // 2 if self.drift_day is None else self.drift_day

    def rng(self, *stream: int) -> np.random.Generator:
        """A random stream of its own for each part of the world, so that one knob does not reshuffle the rest."""
        return np.random.default_rng([self.seed, *stream])
