"""What shoppers look at and buy: one vectorised step for all shoppers at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.simulator.catalogue import Catalogue
from penstock.simulator.crowd import Crowd, liking
from penstock.simulator.knobs import Knobs
from penstock.simulator.sessions import Plan

BUY_LOGIT, CART_LOGIT, SEEN_LOGIT = -5.8, -4.8, 0.8
"""Log-odds of a purchase and of a cart on a view of an average product; what a second look adds to a purchase."""

_RETURN, _RETURN_AT_OPENING, _MOVE = 0.22, 0.3, 0.4
_CONSIDERED = 6
_WANDER = 0.12
_STYLE_PULL = 1.5
_REMEMBERED = 8


@dataclass(frozen=True)
class Walk:
    """The product of each view of a plan, whether it was bought or put in the cart, `(views,)` each."""

    item: NDArray[np.int64]
    bought: NDArray[np.bool_]
    carted: NDArray[np.bool_]


def browse(rng: np.random.Generator, knobs: Knobs, catalogue: Catalogue, crowd: Crowd, plan: Plan) -> Walk:
    """Walks the shoppers of `plan` through the shop.

    At each step a shopper goes back to a product seen before (more gladly to one they like), moves on to a
    neighbour of the current one, or takes the most appealing of a few that the shop puts forward. What they bought
    lately and do not use up, they pass over for something popular.
    """
    views = len(plan.time)
    score = liking(catalogue, crowd, plan.shopper)
    response = knobs.price_response * crowd.thrift[plan.shopper][plan.row]
    fresh, spare = _fresh(rng, catalogue, plan, score, response)
    chance = rng.random(views)
    back = chance < np.where(plan.opening, _RETURN_AT_OPENING, _RETURN)
    move = ~back & ~plan.opening & (chance < _RETURN + _MOVE)
    lags = rng.random((2, views))
    tolerance = rng.logistic(size=(2, views)).astype(np.float32)
    slot = rng.choice(catalogue.neighbours.shape[1], size=views, p=catalogue.transition)

    item, bought = fresh.copy(), np.zeros(views, dtype=bool)
    dearness = catalogue.dearness.ravel()
    edges = plan.edges.tolist()
    owned = np.full((len(plan.shopper), _REMEMBERED), -1)
    purchases = np.zeros(len(plan.shopper), dtype=np.int64)
    for step in range(len(edges) - 1):
        low, high = edges[step], edges[step + 1]
        now, rows = slice(low, high), np.arange(high - low)
        again = np.zeros(high - low, dtype=bool)
        if step:
            last = item[edges[step - 1] : edges[step - 1] + high - low]
            aside = catalogue.neighbours[last, slot[now]]
            lag = np.minimum(1 + (step ** lags[:, now]).astype(np.int64), step)
            one, two = item[plan.edges[step - lag] + rows]
            known = np.where(score[rows, one] - score[rows, two] > tolerance[0, now], one, two)
            wanted = np.where(back[now], known, aside)
            possible = (back[now] | move[now]) & (catalogue.launch_day[wanted] <= plan.day[now])
            chosen = np.where(possible, wanted, item[now])
            done = (owned[: high - low] == chosen[:, None]).any(axis=1) & ~catalogue.consumable[chosen]
            item[now] = np.where(done, spare[now], chosen)
            again = possible & back[now] & ~done
        chosen = item[now]
        odds = score[rows, chosen] - response[now] * dearness[plan.day[now] * len(catalogue) + chosen]
        buyers = np.flatnonzero(BUY_LOGIT + odds + SEEN_LOGIT * again > tolerance[1, now])
        bought[low + buyers] = True
        owned[buyers, purchases[buyers] % _REMEMBERED] = chosen[buyers]
        purchases[buyers] += 1
    odds = score[plan.row, item] - response * dearness[plan.day * len(catalogue) + item]
    return Walk(item, bought, bought | (CART_LOGIT + odds > rng.logistic(size=views)))


def _fresh(
    rng: np.random.Generator,
    catalogue: Catalogue,
    plan: Plan,
    score: NDArray[np.float32],
    response: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The best liked of a few products drawn by the day's popularity, mostly from the category in mind; and the last
    of those few."""
    views, items = len(plan.time), len(catalogue)
    ladder = np.concatenate([np.zeros((len(catalogue.popularity), 1)), np.cumsum(catalogue.popularity, axis=1)], axis=1)
    wander = rng.random(views) < _WANDER
    from_item = np.where(wander, 0, catalogue.first[plan.category])
    to_item = np.where(wander, items, catalogue.first[plan.category + 1])
    low, high = ladder[plan.day, from_item], ladder[plan.day, to_item]
    rungs = (ladder[:, 1:] + 2.0 * np.arange(len(ladder))[:, None]).ravel()
    best = seen = np.zeros(views, np.int64)
    best_appeal = np.full(views, -np.inf)
    for _ in range(_CONSIDERED):
        height = 2.0 * plan.day + low + (high - low) * rng.random(views)
        seen = np.minimum(np.searchsorted(rungs, height, side="right") - plan.day * items, to_item - 1)
        appeal = score[plan.row, seen] - response * catalogue.dearness[plan.day, seen]
        appeal += _STYLE_PULL * (catalogue.style[seen] == plan.style) + rng.gumbel(size=views)
        best = np.where(appeal > best_appeal, seen, best)
        best_appeal = np.maximum(appeal, best_appeal)
    return best, seen
