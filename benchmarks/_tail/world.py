"""A shop whose relevance is known: queries of a Zipf law, items with attributes, titles and near-duplicates, and clicks
that follow popularity as well as relevance.

What makes rare queries hard here is what does so in shops: they use rarer words, a few clicks are all there is of them,
some of the clicks went astray, and among what matches their words much was never clicked on because nobody wants it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.learn.two_tower import Bags, Pairs

QUERIES, PRODUCTS, CLICKS, HELD = 2_000, 3_000, 40_000, 2_000
SIZES = {"category": 10, "type": 30, "brand": 80, "use": 50, "colour": 16, "seller": 60, "theme": 120}
"""How many values each attribute has."""
SAID = ("type", "brand", "use", "colour", "theme")
"""What queries say. A theme ("for camping") is no attribute of an item: only what was clicked tells it."""
WORDS = 5
"""Words for each value: titles say the first, frequent queries mostly so, rare ones any."""
UNSAID = 0.15
"""The share of attributes and words that an item's page lacks."""
THEMED = 0.25
"""The share of queries that ask for a theme."""
ZIPF = 1.0
POPULARITY = 0.5
"""The power of an item's popularity that clicks follow."""
WANTED, SAME_TYPE, SAME_CATEGORY = 1.0, 0.05, 0.002
"""An item's chance of a click, but for its popularity: one that is relevant, one of the type, one of the category."""
ASTRAY = 0.1
"""The share of clicks that go to whatever is popular."""
DEAD = 0.6
"""The share of the catalogue that is sold out, superseded or badly listed: relevant for nobody, and never clicked."""

Values = Mapping[str, NDArray[np.int64]]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class World:
    """`relevant` (queries, items) is the truth; `frequency` (queries,) is how often each is asked, 0: never.

    `clicks` and `held` are what shoppers clicked on; `codes` counts the codes of queries and of items.
    """

    queries: Bags
    items: Bags
    codes: tuple[int, int]
    relevant: NDArray[np.bool_]
    frequency: Floats
    clicks: Pairs
    held: Pairs


def world(seed: int) -> World:
    """Draws one."""
    random = np.random.default_rng(seed)
    values, category_of, popularity, dead = _catalogue(random)
    needs = _needs(random, values, popularity * ~dead)
    relevant = np.ones((QUERIES, len(dead)), bool)
    for name, need in needs.items():
        relevant &= (need[:, None] == values[name]) | (need[:, None] < 0)
    relevant &= ~dead
    frequency = np.where(relevant.any(axis=1), (np.arange(QUERIES) + 3.0) ** -ZIPF, 0.0)
    chance = np.zeros(relevant.shape, np.float32)
    category = np.where(needs["type"] < 0, -1, category_of[needs["type"]])
    chance[category[:, None] == values["category"]] = SAME_CATEGORY
    chance[needs["type"][:, None] == values["type"]] = SAME_TYPE
    chance[relevant] = WANTED
    clicks = _clicks(random, chance, popularity**POPULARITY * ~dead, frequency)
    items, queries, codes = _pages(random, values), *_asked(random, needs, len(dead))
    return World(
        queries, items, codes, relevant, frequency,
        Pairs(clicks.query[:CLICKS], clicks.item[:CLICKS]), Pairs(clicks.query[CLICKS:], clicks.item[CLICKS:]),
    )  # fmt: skip


def _catalogue(random: np.random.Generator) -> tuple[Values, NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Attributes of items, the category of each type, how popular each item is, and which are dead stock."""
    category_of = np.sort(random.integers(0, SIZES["category"], SIZES["type"]))
    share = (1 + np.arange(SIZES["type"])) ** -0.3
    kind = random.choice(SIZES["type"], PRODUCTS, p=share / share.sum())
    brands_of = random.integers(0, SIZES["brand"], (SIZES["category"], 12))
    brand = brands_of[category_of[kind], np.minimum(random.geometric(0.2, PRODUCTS) - 1, 11)]
    use, theme = random.integers(0, SIZES["use"], PRODUCTS), random.integers(0, SIZES["theme"], PRODUCTS)
    popular = random.lognormal(0.0, 1.3, PRODUCTS)
    # A third of the products come in two to five colours, which differ in nothing else.
    copies = np.where(random.random(PRODUCTS) < 0.33, random.integers(2, 6, PRODUCTS), 1)
    which = np.repeat(np.arange(PRODUCTS), copies)
    n = len(which)
    seller = random.integers(0, SIZES["seller"], n)
    fate = random.normal(size=SIZES["seller"])[seller] + random.normal(size=n)
    values = {
        "category": category_of[kind][which], "type": kind[which], "brand": brand[which], "use": use[which],
        "colour": random.integers(0, SIZES["colour"], n), "seller": seller, "theme": theme[which],
    }  # fmt: skip
    return values, category_of, popular[which] * random.lognormal(0.0, 0.5, n), fate > np.quantile(fate, 1 - DEAD)


def _needs(random: np.random.Generator, values: Values, popularity: Floats) -> Values:
    """What each query asks for, by attribute; -1 where it does not say. Every query is about some item there is."""
    about = random.choice(len(popularity), QUERIES, p=popularity**0.5 / (popularity**0.5).sum())
    themed = random.random(QUERIES) < THEMED
    says = {name: random.random(QUERIES) < share for name, share in (("brand", 0.8), ("use", 0.4), ("colour", 0.2))}
    says["brand"] |= ~says["use"]  # a type alone is no more than a shelf
    says = {name: part & ~themed for name, part in says.items()} | {"type": ~themed, "theme": themed}
    return {name: np.where(says[name], values[name][about], -1) for name in SAID}


def _clicks(random: np.random.Generator, chance: NDArray[np.float32], power: Floats, frequency: Floats) -> Pairs:
    many = CLICKS + HELD
    query = np.sort(random.choice(QUERIES, many, p=frequency / frequency.sum()))
    item = np.zeros(many, np.int64)
    for one in np.unique(query):
        mine = np.flatnonzero(query == one)
        wanted = chance[one] * power
        wanted = (1 - ASTRAY) * wanted / wanted.sum() + ASTRAY * power / power.sum()
        total = np.cumsum(wanted)
        item[mine] = np.minimum(np.searchsorted(total, random.random(len(mine)) * total[-1]), len(power) - 1)
    mixed = random.permutation(many)
    return Pairs(query[mixed], item[mixed])


def _first() -> tuple[dict[str, int], int, int]:
    """The first code of each attribute's values, that of words, and that of ids."""
    ends = np.cumsum([1, *SIZES.values()])
    values = int(ends[-1])
    return dict(zip(SIZES, ends[:-1].tolist(), strict=True)), values, values * (1 + WORDS)


def _word(name: str, value: NDArray[np.int64], which: NDArray[np.int64] | int) -> NDArray[np.int64]:
    first, words, _ = _first()
    return words + (first[name] + value) * WORDS + which


def _pages(random: np.random.Generator, values: Values) -> Bags:
    """Of each item its id, its attributes, and a title."""
    first, _, ids = _first()
    n = len(values["type"])
    told = [first[name] + values[name] for name in SIZES if name != "theme"]
    title = [_word(name, values[name], 0) for name in ("type", "brand", "use", "colour")]
    lines = np.stack([ids + np.arange(n), *told, *title], axis=1)
    there = np.array(random.random(lines.shape) >= UNSAID)
    there[:, 0] = True
    return Bags.of([line[said].tolist() for line, said in zip(lines, there, strict=True)])


def _asked(random: np.random.Generator, needs: Values, items: int) -> tuple[Bags, tuple[int, int]]:
    """Of each query its id and its words, and how many codes there are on either side."""
    ids = _first()[2]
    power = 2.0 - 1.5 * np.arange(QUERIES)[:, None] / QUERIES  # the rarer a query, the less usual its words
    share = np.cumsum(np.arange(1.0, WORDS + 1) ** -power, axis=1)
    lines = np.full((QUERIES, 1 + len(SAID)), -1, np.int64)
    lines[:, 0] = ids + np.arange(QUERIES)
    for column, name in enumerate(SAID, 1):
        which = (random.random((QUERIES, 1)) * share[:, -1:] > share).sum(axis=1)
        lines[:, column] = np.where(needs[name] < 0, -1, _word(name, needs[name], which))
    return Bags.of([line[line >= 0].tolist() for line in lines]), (ids + QUERIES, ids + items)
