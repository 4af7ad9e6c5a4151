"""The events of a simulated shop, as columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.clock import DAY
from penstock.simulator.browse import Walk, browse
from penstock.simulator.catalogue import Catalogue
from penstock.simulator.crowd import COUNTRIES, Crowd
from penstock.simulator.knobs import Knobs
from penstock.simulator.names import QUERIES, QUERY_SHARE, brand_name, query_text
from penstock.simulator.sessions import Plan, plan_visits

KINDS = ("view", "cart", "buy", "return")
VIEW, CART, BUY, RETURN = range(4)
_BLOCK = 2_048
_MEDIAN_RETURN = 3 * DAY


class Columns(NamedTuple):
    """Events as arrays of equal length; see `Traffic`."""

    time: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    kind: NDArray[np.int8]
    price: NDArray[np.int64]
    quantity: NDArray[np.int64]
    session: NDArray[np.int64]
    query: NDArray[np.int64]


@dataclass(frozen=True)
class Traffic:
    """Events in the order of time, n of them, as arrays of codes.

    `time` `(n,) int64` microseconds; `user`, `item` and `session` `(n,) int64` codes; `kind` `(n,) int8` places in
    `KINDS`; `price` `(n,) int64` cents a piece on that day; `quantity` `(n,) int64`, 0 for a view. A return carries
    the price, the quantity and the session of its purchase. `query` `(n,) int64` is 0 where no search led to it.
    """

    catalogue: Catalogue
    crowd: Crowd
    seed: int
    time: NDArray[np.int64]
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    kind: NDArray[np.int8]
    price: NDArray[np.int64]
    quantity: NDArray[np.int64]
    session: NDArray[np.int64]
    query: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.time)

    def frame(self) -> pl.DataFrame:
        """The same with readable text: id, time, user, item, kind, category, price, quantity, country; and query, where
        anybody searched."""
        names = self.catalogue.category_name[self.catalogue.category]
        countries = np.array(COUNTRIES, dtype=object)[self.crowd.country]
        number = pl.int_range(len(self), eager=True).cast(pl.String).str.zfill(9)
        frame = pl.DataFrame(
            {
                "id": f"sim{self.seed}-" + number,
                "time": self.time,
                "user": _texts(self.crowd.id, self.user),
                "item": _texts(self.catalogue.id, self.item),
                "kind": _texts(np.array(KINDS, dtype=object), self.kind),
                "category": _texts(names, self.item),
                "price": self.price,
                "quantity": self.quantity,
                "country": _texts(countries, self.user),
            }
        )
        return frame.with_columns(query=self._queries()) if self.query.any() else frame

    def _queries(self) -> pl.Series:
        """The words of each event's search, null where there was none."""
        known, place = np.unique(self.query, return_inverse=True)
        texts: list[str | None] = []
        for code in known.tolist():
            item, kind = divmod(code - 1, QUERIES)
            category = self.catalogue.category_name[self.catalogue.category[item]]
            texts.append(query_text(self.catalogue.name[item], category, kind) if code else None)
        return pl.Series(texts, dtype=pl.String).gather(place)


def products_frame(catalogue: Catalogue) -> pl.DataFrame:
    """One row a product: item, name, category, brand, price (cents), launched (microseconds)."""
    brands = map(brand_name, catalogue.category.tolist(), catalogue.style.tolist())
    return pl.DataFrame(
        {
            "item": catalogue.id.tolist(),
            "name": catalogue.name.tolist(),
            "category": catalogue.category_name[catalogue.category].tolist(),
            "brand": list(brands),
            "price": catalogue.price,
            "launched": catalogue.launched,
        }
    )


def simulate(knobs: Knobs, catalogue: Catalogue, crowd: Crowd) -> Traffic:
    """Lets the crowd loose on the catalogue, a block of shoppers at a time, so that memory stays bounded."""
    blocks: list[Columns] = []
    sessions = 0
    for block, start in enumerate(range(0, len(crowd), _BLOCK)):
        rng = knobs.rng(5, block)
        plan = plan_visits(rng, knobs, catalogue, crowd, np.arange(start, min(start + _BLOCK, len(crowd))))
        walk = browse(rng, knobs, catalogue, crowd, plan)
        # Searches have a random stream of their own: without them the rest is the same.
        blocks.append(_columns(rng, knobs, catalogue, plan, walk, sessions, _searches(knobs, block, walk)))
        sessions += int(plan.session.max(initial=-1)) + 1
    joined = Columns(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    order = np.lexsort((joined.kind, joined.item, joined.user, joined.time))
    return Traffic(catalogue, crowd, knobs.seed, **_take(joined, order)._asdict())


def _columns(
    rng: np.random.Generator, knobs: Knobs, catalogue: Catalogue, plan: Plan, walk: Walk, sessions: int,
    query: NDArray[np.int64],
) -> Columns:  # fmt: skip
    """Views, carts, purchases and returns of one block; each follows what it follows from."""
    carts, buys = np.flatnonzero(walk.carted), np.flatnonzero(walk.bought)
    cart_time = plan.time[carts] + _within(rng, plan.gap[carts], 0.2, 0.5)
    buy_time = plan.time[buys] + _within(rng, plan.gap[buys], 0.6, 0.9)
    quantity = np.zeros(len(plan.time), dtype=np.int64)
    bulk = np.where(catalogue.consumable[walk.item[carts]], 0.5, 0.92)
    quantity[carts] = np.minimum(rng.geometric(bulk), 12)
    back = np.flatnonzero(rng.random(len(buys)) < knobs.returns)
    wait = np.exp(0.6 * rng.standard_normal(len(back))) * _MEDIAN_RETURN
    return_time = buy_time[back] + wait.astype(np.int64)

    source = np.concatenate([np.arange(len(plan.time)), carts, buys, buys[back]])
    time = np.concatenate([plan.time, cart_time, buy_time, return_time])
    kind = np.repeat(np.arange(4, dtype=np.int8), [len(plan.time), len(carts), len(buys), len(back)])
    item = walk.item[source]
    columns = Columns(
        time=time,
        user=plan.shopper[plan.row[source]],
        item=item,
        kind=kind,
        price=catalogue.prices[plan.day[source], item],
        quantity=np.where(kind == VIEW, 0, quantity[source]),
        session=sessions + plan.session[source],
        query=np.where(kind == RETURN, 0, query[source]),
    )
    return _take(columns, time < knobs.end)


def _searches(knobs: Knobs, block: int, walk: Walk) -> NDArray[np.int64]:
    """What was searched for before each view, (views,): the product that was then looked at and a way of naming it."""
    rng = knobs.rng(7, block)
    searched = rng.random(len(walk.item)) < knobs.searches
    kind = rng.choice(QUERIES, size=len(walk.item), p=QUERY_SHARE)
    return np.where(searched, 1 + walk.item * QUERIES + kind, 0)


def _take(columns: Columns, index: NDArray[np.int64] | NDArray[np.bool_]) -> Columns:
    return Columns(**{name: column[index] for name, column in columns._asdict().items()})


def _within(rng: np.random.Generator, gap: NDArray[np.int64], low: float, high: float) -> NDArray[np.int64]:
    return (gap * rng.uniform(low, high, size=len(gap))).astype(np.int64)


def _texts(texts: NDArray[np.object_], codes: NDArray[np.integer]) -> pl.Series:
    return pl.Series(texts.tolist(), dtype=pl.String).gather(codes)
