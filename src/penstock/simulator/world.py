"""A simulated shop with a known truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.clock import DAY
from penstock.errors import NotFoundError
from penstock.simulator.browse import BUY_LOGIT, SEEN_LOGIT
from penstock.simulator.catalogue import Catalogue, build_catalogue
from penstock.simulator.crowd import Crowd, build_crowd, liking_of
from penstock.simulator.impressions import Impressions, show
from penstock.simulator.knobs import Knobs
from penstock.simulator.traffic import Traffic, products_frame, simulate

_CLICK_LOGIT = -1.5
_EVENTS_PER_VIEW = 1.07


@dataclass(frozen=True)
class World(Knobs):
    """A shop whose shoppers' tastes, looks and purchases follow a known law; the arguments are those of `Knobs`.

    Shoppers and products are codes (places in `crowd` and `catalogue`) in all that takes arrays.

    >>> world = World(seed=7, shoppers=50, items=120, days=3)
    >>> world.products["name"][0], world.products["item"][0]
    ('Quiet linen floor lamp', 'p-00000')
    >>> traffic = world.events()
    >>> bool((traffic.time[1:] >= traffic.time[:-1]).all())
    True
    """

    @classmethod
    def of_size(cls, events: int, **knobs: Any) -> Self:
        """A world with about this many events (within a tenth from some 20,000 on): shoppers scale, and by default
        the catalogue with their square root."""
        world = cls(**knobs)
        shoppers = max(round(events / (world.sessions * world.views * _EVENTS_PER_VIEW)), 1)
        items = max(round(world.items * (shoppers / 2_000) ** 0.5), 2 * world.categories)
        return cls(**{"items": items, **knobs, "shoppers": shoppers})

    @cached_property
    def catalogue(self) -> Catalogue:
        """The products, as arrays."""
        return build_catalogue(self)

    @cached_property
    def crowd(self) -> Crowd:
        """The shoppers, as arrays, with their latent tastes."""
        return build_crowd(self)

    @property
    def products(self) -> pl.DataFrame:
        """The products for a shop window: item, name, category, brand, price (cents), launched (microseconds)."""
        return products_frame(self.catalogue)

    def events(self) -> Traffic:
        """All that happens in the span, in the order of time; the same bytes at each call."""
        return simulate(self, self.catalogue, self.crowd)

    def examination(self, positions: int) -> NDArray[np.float64]:
        """The probability that a shopper looks at position 0, 1, … of a slate: `(positions,) float64`."""
        return np.asarray((1.0 + np.arange(positions)) ** -self.position_bias)

    def trust_noise(self, positions: int) -> NDArray[np.float64]:
        """The probability that a product which is looked at, and would not be clicked for itself, is clicked because
        it stands in position 0, 1, … of a slate: `(positions,) float64`."""
        return np.asarray(self.trust * (1.0 + np.arange(positions)) ** -2.0)

    def relevance(
        self, users: NDArray[np.int64], items: NDArray[np.int64], day: int | None = None
    ) -> NDArray[np.float64]:
        """The probability that a shopper clicks a product once they look at it.

        Args:
            users, items: codes; they broadcast against each other.
            day: whose prices hold; list prices without it.
        """
        return _sigmoid(_CLICK_LOGIT + self._appeal(users, items, day))

    def buy_probability(
        self, users: NDArray[np.int64], items: NDArray[np.int64], day: int | None = None, *, again: bool = False
    ) -> NDArray[np.float64]:
        """The probability that a view becomes a purchase, at a first look or when they came back to it (`again`)."""
        return _sigmoid(BUY_LOGIT + SEEN_LOGIT * again + self._appeal(users, items, day))

    def true_click_probability(
        self, users: NDArray[np.int64], slates: NDArray[np.int64], day: int | None = None
    ) -> NDArray[np.float64]:
        """Examination times relevance, for `(n, k)` slates shown to `(n,)` shoppers: `(n, k) float64`. With `trust`,
        relevance + (1 − relevance) · noise takes the place of relevance."""
        relevance = self.relevance(np.asarray(users)[:, None], slates, day)
        if self.trust:
            relevance = relevance + (1 - relevance) * self.trust_noise(slates.shape[1])
        return self.examination(slates.shape[1]) * relevance

    def clicks(
        self,
        users: NDArray[np.int64],
        slates: NDArray[np.int64],
        rng: np.random.Generator,
        day: int | None = None,
    ) -> NDArray[np.bool_]:
        """What `(n,)` shoppers click in `(n, k)` slates: `(n, k) bool`, each position on its own."""
        return np.asarray(rng.random(slates.shape) < self.true_click_probability(users, slates, day))

    def impressions(
        self,
        users: NDArray[np.int64],
        candidates: NDArray[np.int64],
        scores: NDArray[np.float64],
        rng: np.random.Generator,
        *,
        sessions: int,
        positions: int = 10,
        shuffled: float = 0.0,
    ) -> Impressions:
        """Sessions in which rankers show slates, drawn evenly over queries and rankers, and what is clicked.

        Args:
            users: `(queries,)` who asks each query.
            candidates: `(queries, c)` the products among which each is answered.
            scores: `(rankers, queries, c)` what each ranker makes of them; the highest stand first.
            sessions: how many.
            positions: places of a slate, at most c.
            shuffled: the share of the sessions in which the slate's products are put in random order.
        """
        return show(self.clicks, users, candidates, scores, rng, sessions, positions, shuffled)

    def respond(self, user: str, shown: Sequence[str], now: int, rng: np.random.Generator) -> list[str]:
        """The products that the shopper clicks of those shown, by id, at the prices of `now` (microseconds).

        Raises:
            NotFoundError: a shopper or a product that this world does not have.
        """
        day = min(max((now - self.start) // DAY, 0), self.days - 1)
        slate = np.array([[_code(item, "product", self.items) for item in shown]], dtype=np.int64)
        clicked = self.clicks(np.array([_code(user, "shopper", self.shoppers)]), slate, rng, day)[0]
        return [item for item, hit in zip(shown, clicked.tolist(), strict=True) if hit]

    def _appeal(self, users: NDArray[np.int64], items: NDArray[np.int64], day: int | None) -> NDArray[np.float64]:
        users, items = np.asarray(users), np.asarray(items)
        dearness = self.catalogue.list_dearness[items] if day is None else self.catalogue.dearness[day, items]
        thrift = self.price_response * self.crowd.thrift[users]
        return np.asarray(liking_of(self.catalogue, self.crowd, users, items) - thrift * dearness)


def _code(text: str, what: str, count: int) -> int:
    """The place that an id such as "u-00017" names."""
    letter, _, number = text.partition("-")
    if letter == {"shopper": "u", "product": "p"}[what] and number.isdecimal() and int(number) < count:
        return int(number)
    raise NotFoundError(
        f"the simulated shop knows every {what} by its id",
        got=repr(text),
        remedy=f"take an id from the world's events; there are {count}",
    )


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-logit)))
