"""The vocabulary of the simulated shop: what its departments sell and how the products are called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STYLES = 3
"""Looks within a category; each has materials of its own, so that a name tells the look."""

QUERY_SHARE = (0.3, 0.25, 0.2, 0.1, 0.1, 0.05)
"""How often each way of asking for a product is taken, see `query_text`."""
QUERIES = len(QUERY_SHARE)

ADJECTIVES = (
    "Slim", "Classic", "Compact", "Everyday", "Modern", "Soft", "Bold", "Nordic",
    "Little", "Heritage", "Studio", "Garden", "Coastal", "Weekend", "City", "Quiet",
)  # fmt: skip

BRANDS = (
    "Aldermoor", "Bramblewick", "Casa Lume", "Dovetide", "Elmhollow", "Fernhythe", "Granholm", "Haldine",
    "Inletside", "Juniper & Rye", "Kestrelle", "Lindvale",
)  # fmt: skip


@dataclass(frozen=True)
class Department:
    """One category: nouns, two materials for each look, a middle price in cents, and whether it is used up."""

    name: str
    price: int
    materials: tuple[str, str, str, str, str, str]
    nouns: tuple[str, ...]
    consumable: bool = False


def _department(name: str, price: int, materials: str, nouns: str, *, consumable: bool = False) -> Department:
    first, second, third, fourth, fifth, sixth = materials.split(", ")
    return Department(name, price, (first, second, third, fourth, fifth, sixth), tuple(nouns.split(", ")), consumable)


# Two by two they go together: who looks at one of a pair also looks at the other.
DEPARTMENTS = (
    _department(
        "lamps", 5_900, "walnut, oak, brass, copper, linen, paper",
        "desk lamp, floor lamp, table lamp, pendant, wall light, reading lamp, clip lamp, night light",
    ),
    _department(
        "tables", 24_900, "walnut, oak, steel, glass, rattan, pine",
        "side table, coffee table, desk, console, bench, bedside table, folding table, trolley",
    ),
    _department(
        "chairs", 18_900, "beech, ash, leather, velvet, wicker, canvas",
        "armchair, stool, dining chair, rocking chair, lounge chair, bar stool, footstool, office chair",
    ),
    _department(
        "rugs", 12_900, "wool, cotton, silk, viscose, jute, sisal",
        "rug, runner, doormat, round rug, bedside rug, hallway mat, kitchen mat, kilim",
    ),
    _department(
        "bedding", 7_900, "cotton, percale, silk, satin, linen, flannel",
        "duvet cover, pillowcase, fitted sheet, throw, bedspread, quilt, blanket, bolster",
    ),
    _department(
        "towels", 2_900, "cotton, terry, bamboo, velour, waffle, linen",
        "bath towel, hand towel, bath mat, face cloth, beach towel, robe, hair wrap, sauna towel",
    ),
    _department(
        "cookware", 6_900, "cast-iron, carbon-steel, copper, steel, enamel, ceramic",
        "frying pan, saucepan, casserole, wok, roasting tin, griddle, stockpot, milk pan",
    ),
    _department(
        "knives", 5_400, "damascus, steel, ebony, rosewood, olive-wood, maple",
        "chef's knife, bread knife, paring knife, cleaver, santoku, carving knife, knife block, peeler",
    ),
    _department(
        "mugs", 1_900, "stoneware, earthenware, porcelain, bone-china, enamel, glass",
        "mug, espresso cup, teacup, tumbler, travel mug, milk jug, cappuccino cup, saucer set",
    ),
    _department(
        "coffee", 1_400, "Ethiopian, Kenyan, Colombian, Brazilian, decaf, Sumatran",
        "espresso beans, filter beans, ground coffee, drip bags, cold brew, coffee capsules, tasting box, house blend",
        consumable=True,
    ),
    _department(
        "tea", 1_100, "Assam, Ceylon, jasmine, sencha, peppermint, chamomile",
        "loose tea, tea bags, tea tin, iced tea, breakfast tea, evening tea, sampler, tea gift box",
        consumable=True,
    ),
    _department(
        "chocolate", 900, "Ecuador, Madagascar, hazelnut, almond, sea-salt, orange",
        "dark bar, milk bar, truffles, pralines, drinking chocolate, nibs, wafers, chocolate box",
        consumable=True,
    ),
    _department(
        "candles", 2_400, "beeswax, soy, amber, sandalwood, lavender, fig",
        "candle, pillar candle, tealights, taper candles, scented jar, travel candle, candle trio, wax melts",
        consumable=True,
    ),
    _department(
        "soaps", 1_200, "olive-oil, oatmeal, rose, bergamot, charcoal, cedar",
        "hand soap, soap bar, shampoo bar, body wash, shaving soap, hand balm, bath salts, soap refill",
        consumable=True,
    ),
    _department(
        "notebooks", 1_800, "kraft, recycled, leather, linen-bound, dotted, ruled",
        "notebook, journal, sketchbook, planner, pocket book, diary, guest book, memo pad",
    ),
    _department(
        "pens", 2_600, "brass, copper, resin, lacquer, cedar, bamboo",
        "fountain pen, ballpoint, rollerball, mechanical pencil, brush pen, pencil set, pen case, fineliner",
    ),
    _department(
        "backpacks", 8_900, "canvas, waxed-cotton, leather, suede, ripstop, nylon",
        "backpack, rucksack, tote, weekender, sling bag, laptop sleeve, duffel, messenger bag",
    ),
    _department(
        "wallets", 4_900, "calfskin, bridle-leather, cork, felt, aluminium, carbon",
        "wallet, card holder, coin purse, passport cover, key case, money clip, phone wallet, travel organiser",
    ),
    _department(
        "headphones", 14_900, "graphite, steel, walnut, ivory, coral, mint",
        "headphones, earbuds, sport earphones, studio headphones, kids' headphones, headset, neckband, sleep buds",
    ),
    _department(
        "speakers", 17_900, "graphite, aluminium, walnut, bamboo, fabric, felt",
        "speaker, soundbar, bookshelf speaker, shower speaker, radio, turntable, party speaker, subwoofer",
    ),
    _department(
        "jackets", 15_900, "wool, tweed, leather, denim, down, softshell",
        "jacket, parka, blazer, gilet, raincoat, overshirt, bomber, windbreaker",
    ),
    _department(
        "sneakers", 10_900, "leather, suede, canvas, hemp, mesh, knit",
        "sneakers, running shoes, trail shoes, high-tops, slip-ons, court shoes, walking shoes, loafers",
    ),
    _department(
        "scarves", 5_900, "cashmere, merino, silk, satin, cotton, gauze",
        "scarf, shawl, snood, bandana, wrap, beanie, mittens, headband",
    ),
    _department(
        "planters", 3_400, "terracotta, clay, zinc, concrete, seagrass, ceramic",
        "planter, flower pot, hanging pot, window box, vase, watering can, herb pot, plant stand",
    ),
)  # fmt: skip


def product_names(rng: np.random.Generator, department: Department, styles: np.ndarray) -> list[str]:
    """One distinct name a product, such as "Slim walnut desk lamp".

    Args:
        rng: the source of the choice.
        department: whose nouns and materials are used.
        styles: `(products,) int`, the look of each product, which decides its material.

    Returns:
        As many names as `styles`; once every combination is taken, the next round ends in "No. 2".
    """
    names = [""] * len(styles)
    per_style = len(department.materials) // STYLES
    for style in range(STYLES):
        chosen = [
            f"{adjective} {material} {noun}"
            for adjective in ADJECTIVES
            for material in department.materials[style * per_style : (style + 1) * per_style]
            for noun in department.nouns
        ]
        order = rng.permutation(len(chosen))
        for place, product in enumerate(np.flatnonzero(styles == style).tolist()):
            edition, index = divmod(place, len(chosen))
            names[product] = chosen[order[index]] + (f" No. {edition + 1}" if edition else "")
    return names


def query_text(name: str, category: str, kind: int) -> str:
    """What somebody types who wants such a product: one of `QUERIES` ways of naming it.

    >>> [query_text("Slim walnut desk lamp", "lamps", kind) for kind in range(QUERIES)]
    ['walnut desk lamp', 'desk lamp', 'walnut lamp', 'lamps', 'slim desk lamp', 'walnut des']
    """
    adjective, material, *noun = name.lower().partition(" no. ")[0].split()
    whole = " ".join(noun)
    ways = (f"{material} {whole}", whole, f"{material} {noun[-1]}", category, f"{adjective} {whole}")
    return (*ways, f"{material} {whole[:3]}")[kind]


def brand_name(category: int, style: int) -> str:
    """Who makes a category's products of one look; a maker is known for one look, in a few categories."""
    return BRANDS[(category // 2 * STYLES + style) % len(BRANDS)]
