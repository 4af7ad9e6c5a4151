"""The simulated shop's catalogue, for the shop window."""

from __future__ import annotations

import numpy as np

from penstock.shop.catalogue import Catalogue, Known, Product
from penstock.simulator import World

KNOWN = 4


def catalogue_of(world: World) -> Catalogue:
    """The products of a simulated shop, and some of its busiest shoppers, each fond of something else."""
    columns = ("item", "name", "category", "brand", "price")
    products = [Product(*row) for row in world.products.select(columns).iter_rows()]
    crowd, names = world.crowd, world.catalogue.category_name
    known: dict[int, Known] = {}
    for shopper in np.argsort(-crowd.activity, kind="stable").tolist():
        first, second = np.argsort(-crowd.interest[shopper], kind="stable")[:2].tolist()
        if len(known) < KNOWN:
            note = f"fond of {names[first]} and {names[second]}"
            known.setdefault(first, Known(str(crowd.id[shopper]), note))
    return Catalogue(products, list(known.values()))
