"""A shop whose relevance is known: queries of a Zipf law, items with attributes, words and near-duplicates, and clicks
that follow popularity as well as relevance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.learn.two_tower import Bags, Pairs

QUERIES, PRODUCTS, CLICKS = 2_000, 3_000, 40_000
TYPES, CATEGORIES, BRANDS, USES, COLOURS = 30, 10, 80, 50, 16
WORDS = 5
"""Words for each value; titles say the first, queries any."""
POPULARITY = 0.5
"""The power of an item's popularity that clicks follow."""
WANTED, SAME_TYPE, SAME_CATEGORY = 1.0, 0.05, 0.002
"""What an item's chance of a click is by how it fits."""
ASTRAY = 0.1
"""The share of clicks that go to whatever is popular."""
THEMES, THEMED = 120, 0.25
"""A quarter of the queries ask for a theme, which no attribute of an item tells: only what was clicked does."""
SELLERS, DEAD = 60, 0.55
"""More than half of a catalogue is sold out, superseded or badly listed: shoppers pass it over, and it is relevant for nobody."""


@dataclass(frozen=True, eq=False)
class World:
    """`relevant` (queries, items) is the truth; `frequency` (queries,) is how often each is asked.

    `clicks` and `held` are what shoppers clicked on; `wanted` holds the relevant items of each query.
    """

    queries: Bags
    items: Bags
    codes: tuple[int, int]
    relevant: NDArray[np.bool_]
    frequency: NDArray[np.float64]
    clicks: Pairs
    held: Pairs


def world(seed: int) -> World:
    """Draws one."""
    random = np.random.default_rng(seed)
    values = _catalogue(random)
    n = len(values["type"])
    offsets = np.cumsum([1, CATEGORIES, TYPES, BRANDS, USES, COLOURS, SELLERS, THEMES])
    order = ("category", "type", "brand", "use", "colour", "seller", "theme")
    attribute = {name: offsets[i] + values[name] for i, name in enumerate(order[:-1])}
    sizes = int(offsets[-1])
    # Items: own id, attributes, and a title of one word a value, one of which is missing or beside the point at times.
    titles = [sizes + (attribute[name] - 1) * WORDS for name in ("type", "brand", "use", "colour")]
    words = sizes + (sizes - 1) * WORDS
    columns = [words + np.arange(n), *attribute.values(), *titles]
    lines = np.stack(columns, axis=1)
    unsaid = random.random(lines.shape) < 0.15
    unsaid[:, 0] = False
    unsaid[:, 2] = False
    items = Bags.of([line[~out].tolist() for line, out in zip(lines, unsaid, strict=True)])
    queries, needs, frequency = _queries(random, values)
    relevant = np.ones((QUERIES, n), bool)
    for name, need in needs.items():
        relevant &= (need[:, None] == values[name]) | (need[:, None] < 0)
    relevant &= ~values["dead"]
    kept = relevant.any(axis=1)
    frequency = np.where(kept, frequency, 0.0)
    asked = []
    for i in range(QUERIES):
        line = [words + n + i]
        for name in ("type", "brand", "use", "colour", "theme"):
            if needs[name][i] >= 0:
                at = offsets[order.index(name)] + needs[name][i]
                line.append(
                    sizes + (at - 1) * WORDS + int(random.choice(WORDS, p=_share(0.5 + 1.5 * (1 - i / QUERIES))))
                )
        asked.append(line)
    chance = np.full((QUERIES, n), 0.0, np.float32)
    category = np.where(needs["type"] < 0, -1, values["category_of"][needs["type"]])
    chance[category[:, None] == values["category"]] = SAME_CATEGORY
    chance[needs["type"][:, None] == values["type"]] = SAME_TYPE
    chance[relevant] = WANTED
    power = values["popularity"] ** POPULARITY * ~values["dead"]
    chance *= power.astype(np.float32)
    chance /= np.maximum(chance.sum(axis=1, keepdims=True), 1e-12)
    chance = (1 - ASTRAY) * chance + ASTRAY * (power / power.sum()).astype(np.float32)
    many = CLICKS + CLICKS // 20
    query = np.sort(random.choice(QUERIES, many, p=frequency / frequency.sum()))
    total = np.cumsum(chance.astype(np.float64), axis=1)
    item = np.array(
        [np.searchsorted(total[q], u * total[q, -1]) for q, u in zip(query, random.random(many), strict=True)]
    )
    mixed = random.permutation(many)
    query, item = query[mixed], np.minimum(item, n - 1)[mixed]
    return World(
        Bags.of(asked), items, (words + n + QUERIES, words + n), relevant, frequency,
        Pairs(query[:CLICKS], item[:CLICKS]), Pairs(query[CLICKS:], item[CLICKS:]),
    )  # fmt: skip


def _share(power: float) -> NDArray:
    share = np.arange(1.0, WORDS + 1) ** -power
    return share / share.sum()


def _catalogue(random: np.random.Generator) -> dict[str, NDArray]:
    category_of = np.sort(random.integers(0, CATEGORIES, TYPES))
    share = (1 + np.arange(TYPES)) ** -0.3
    kind = random.choice(TYPES, PRODUCTS, p=share / share.sum())
    brands_of = random.integers(0, BRANDS, (CATEGORIES, 12))
    brand = brands_of[category_of[kind], np.minimum(random.geometric(0.2, PRODUCTS) - 1, 11)]
    use = random.integers(0, USES, PRODUCTS)
    popular = random.lognormal(0.0, 1.3, PRODUCTS)
    # A third of the products come in two to five colours, which differ in nothing else.
    copies = np.where(random.random(PRODUCTS) < 0.33, random.integers(2, 6, PRODUCTS), 1)
    which = np.repeat(np.arange(PRODUCTS), copies)
    seller = random.integers(0, SELLERS, len(which))
    fate = random.normal(size=SELLERS)[seller] + random.normal(size=len(which))
    return {
        "dead": fate > np.quantile(fate, 1 - DEAD), "seller": seller,
        "type": kind[which], "category": category_of[kind][which], "brand": brand[which], "use": use[which],
        "colour": random.integers(0, COLOURS, len(which)), "theme": random.integers(0, THEMES, PRODUCTS)[which], "category_of": category_of,
        "popularity": popular[which] * random.lognormal(0.0, 0.5, len(which)),
    }  # fmt: skip


def _queries(random: np.random.Generator, values: dict[str, NDArray]) -> tuple[None, dict[str, NDArray], NDArray]:
    n = len(values["type"])
    rank = np.arange(QUERIES)
    # What is asked often says little; what is asked rarely says more. Every query is about some item there is.
    asked = values["popularity"] ** 0.5 * ~values["dead"]
    about = random.choice(n, QUERIES, p=asked / asked.sum())
    needs = {"type": values["type"][about]}
    for name, much in (("brand", 0.8), ("use", 0.4), ("colour", 0.2)):
        says = random.random(QUERIES) < much
        needs[name] = np.where(says, values[name][about], -1)
    themed = random.random(QUERIES) < THEMED
    for name in needs:
        needs[name][themed] = -1
    needs["theme"] = np.where(themed, values["theme"][about], -1)
    vague = ~themed & (needs["brand"] < 0) & (needs["use"] < 0)
    needs["brand"][vague] = values["brand"][about][vague]
    frequency = (rank + 3.0) ** -0.9
    return None, needs, frequency
