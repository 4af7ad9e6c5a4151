"""The products of the simulated shop: names, prices, popularity, and what is looked at after what."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from penstock.clock import DAY
from penstock.simulator.knobs import Knobs
from penstock.simulator.names import DEPARTMENTS, STYLES, product_names

_SIMILAR, _COMPLEMENTS = 7, 3
_DISCOUNTS = np.array([0.1, 0.2, 0.3])
_ON_OFFER = 0.08


@dataclass(frozen=True)
class Catalogue:
    """All products, as columns of length `items`; a product's place is its code.

    `vector` is `(items, tastes) float32` of unit length, `prices` `(days, items) int64` in cents (list prices with
    offers drawn at random), `popularity` `(days, items) float64`, each row summing to 1 and 0 before launch;
    `neighbours` `(items, slots) int64` are the products a shopper moves on to, with probability `transition`
    `(slots,)`; `first` `(categories + 1,)` bounds each category's products.
    """

    id: NDArray[np.object_]
    name: NDArray[np.object_]
    category: NDArray[np.int64]
    category_name: NDArray[np.object_]
    style: NDArray[np.int64]
    consumable: NDArray[np.bool_]
    price: NDArray[np.int64]
    launch_day: NDArray[np.int64]
    launched: NDArray[np.int64]
    quality: NDArray[np.float32]
    vector: NDArray[np.float32]
    style_vector: NDArray[np.float32]  # (categories, STYLES, tastes)
    first: NDArray[np.int64]
    prices: NDArray[np.int64]
    dearness: NDArray[np.float32]  # (days, items): log of the price over the category's median
    list_dearness: NDArray[np.float32]  # (items,): the same at list prices
    popularity: NDArray[np.float64]
    fashion: NDArray[np.float64]  # (days, categories): log-odds that drift adds to the shoppers' interest
    neighbours: NDArray[np.int64]
    transition: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.id)


def build_catalogue(knobs: Knobs) -> Catalogue:
    """Draws the products of the world that `knobs` describe."""
    rng = knobs.rng(1)
    items, categories = knobs.items, knobs.categories
    category = np.arange(items) * categories // items
    first = np.searchsorted(category, np.arange(categories + 1))
    style = rng.integers(STYLES, size=items)
    style_vector = _unit(rng.standard_normal((categories, STYLES, knobs.tastes)))
    vector = _unit(style_vector[category, style] + 0.8 * rng.standard_normal((items, knobs.tastes)) / knobs.tastes**0.5)
    name = [n for c in range(categories) for n in product_names(rng, DEPARTMENTS[c], style[first[c] : first[c + 1]])]
    launch_day = _launch_days(rng, knobs, first)
    before = rng.integers(1, 2 * 365, size=items)
    quality = 0.3 * rng.standard_normal(items)
    price = _list_prices(rng, category, style)
    prices = _daily_prices(knobs, price)
    median = np.array([np.median(price[low:high]) for low, high in pairwise(first)])
    return Catalogue(
        id=np.array([f"p-{i:05d}" for i in range(items)], dtype=object),
        name=np.array(name, dtype=object),
        category=category,
        category_name=np.array([d.name for d in DEPARTMENTS[:categories]], dtype=object),
        style=style,
        consumable=np.array([d.consumable for d in DEPARTMENTS])[category],
        price=price,
        launch_day=launch_day,
        launched=knobs.start + DAY * np.where(launch_day > 0, launch_day, -before),
        quality=quality.astype(np.float32),
        vector=vector,
        style_vector=style_vector,
        first=first,
        prices=prices,
        dearness=np.log(prices / median[category]).astype(np.float32),
        list_dearness=np.log(price / median[category]).astype(np.float32),
        popularity=_popularity(knobs, category, launch_day),
        fashion=_fashion(knobs),
        neighbours=_neighbours(vector, first),
        transition=np.concatenate([0.75 * _share(_SIMILAR), 0.25 * _share(_COMPLEMENTS)]),
    )


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), dtype=np.float32)


def _launch_days(rng: np.random.Generator, knobs: Knobs, first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The day each product goes on sale, at midnight; 0 for those on sale from the start."""
    new = rng.random(knobs.items) < knobs.new_items
    day = rng.integers(1, max(knobs.days, 2), size=knobs.items)
    new[first[1:] - 1] = False  # every category sells something from the first day on
    return np.where(new & (knobs.days > 1), day, 0)


def _list_prices(rng: np.random.Generator, category: NDArray[np.int64], style: NDArray[np.int64]) -> NDArray[np.int64]:
    middle = np.array([d.price for d in DEPARTMENTS])[category] * np.array([0.9, 1.3, 0.85])[style]
    rough = middle * np.exp(0.35 * rng.standard_normal(len(category)))
    return np.asarray(np.maximum(np.rint(rough / 50) * 50, 100) - 5, dtype=np.int64)


def _daily_prices(knobs: Knobs, price: NDArray[np.int64]) -> NDArray[np.int64]:
    """Prices with offers drawn independently of demand, so that the response to price can be identified."""
    rng = knobs.rng(2)
    shape = (knobs.days, knobs.items)
    cut = np.where(rng.random(shape) < _ON_OFFER, rng.choice(_DISCOUNTS, size=shape), 0.0)
    return np.asarray(np.rint(price * (1 - cut)), dtype=np.int64)


def _popularity(knobs: Knobs, category: NDArray[np.int64], launch_day: NDArray[np.int64]) -> NDArray[np.float64]:
    """Zipf within a category, a random walk from day to day, a push at launch, and the drift asked for."""
    rng = knobs.rng(3)
    day = np.arange(knobs.days)[:, None]
    before, after = (_log_zipf(rng, category, knobs.zipf) for _ in range(2))
    changed = (1 - knobs.drift) * before + knobs.drift * after
    walk = 0.12 * np.cumsum(rng.standard_normal((knobs.days, knobs.items)), axis=0)
    age = day - launch_day
    push = np.where((launch_day > 0) & (age >= 0), np.exp(-np.maximum(age, 0) / 4.0), 0.0)
    weight = np.exp(np.where(day >= knobs.change, changed, before) + walk + push) * (age >= 0)
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _fashion(knobs: Knobs) -> NDArray[np.float64]:
    turn = knobs.drift * knobs.rng(6).standard_normal(knobs.categories)
    return np.where(np.arange(knobs.days)[:, None] >= knobs.change, turn, 0.0)


def _log_zipf(rng: np.random.Generator, category: NDArray[np.int64], exponent: float) -> NDArray[np.float64]:
    order = np.lexsort((rng.random(len(category)), category))
    rank = np.empty(len(category))
    rank[order] = np.arange(len(category)) - np.searchsorted(category, category[order]) + 1
    return np.asarray(-exponent * np.log(rank))


def _neighbours(vector: NDArray[np.float32], first: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most alike products of the same category, then those of the category that goes with it."""
    categories = len(first) - 1
    table = np.empty((len(vector), _SIMILAR + _COMPLEMENTS), dtype=np.int64)
    for c in range(categories):
        partner = min(c ^ 1, categories - 1)
        own, other = np.arange(first[c], first[c + 1]), np.arange(first[partner], first[partner + 1])
        alike = vector[own] @ vector[own].T
        np.fill_diagonal(alike, -np.inf)
        table[own, :_SIMILAR] = own[_best(alike, min(_SIMILAR, len(own) - 1), _SIMILAR)]
        fitting = vector[own] @ vector[other].T
        table[own, _SIMILAR:] = other[_best(fitting, min(_COMPLEMENTS, len(other)), _COMPLEMENTS)]
    return table


def _best(score: NDArray[np.float32], kept: int, slots: int) -> NDArray[np.int64]:
    """The columns of the `kept` highest scores of each row, repeated until they fill the slots."""
    return np.argsort(-score, axis=1, kind="stable")[:, np.arange(slots) % kept]


def _share(n: int) -> NDArray[np.float64]:
    weight = 0.7 ** np.arange(n)
    return np.asarray(weight / weight.sum())
