"""One server under decisions and events: its throughput, its capacity, and its latency at a rate."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from benchmarks._serving import load
from benchmarks._serving.figures import LIMIT_MS, highest, percentile
from benchmarks._serving.load import Address, Measured
from benchmarks._serving.world import Feed, Shop

EVENTS_A_SECOND, EVENTS_A_POST = 500, 5
WANTED = b'"tier":"personal"'
_CLIENTS = 8


@dataclass
class Pooled:
    """What several runs at one rate saw, in milliseconds: of decisions and of posts of events."""

    ms: list[float] = field(default_factory=list)
    post_ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def add(self, decisions: Measured, posts: Measured) -> None:
        self.ms += decisions.ms
        self.lag_ms += decisions.lag_ms
        self.post_ms += posts.ms
        for found in (decisions, posts):
            self.errors.update(found.errors)


class Rig:
    """A running server, and the requests that it is measured with.

    Args:
        shop: whose shoppers are asked for.
        address: takes decisions; `posts` takes events.
    """

    def __init__(self, shop: Shop, address: Address, posts: Address) -> None:
        self._address = address
        self._posts = posts
        self._asks = shop.asks(1)
        self._feed = Feed(shop, EVENTS_A_SECOND)
        self._runs = 0

    def at(self, rate: float, seconds: float, into: Pooled | None = None) -> Pooled:
        """Decisions at random moments, `rate` a second, and events beside them."""
        self._runs += 1
        asks = load.Stream(self._address, self._asks, load.poisson(rate, seconds, self._runs), wanted=WANTED)
        pooled = into or Pooled()
        pooled.add(*load.drive([asks, self._events(seconds)]))
        return pooled

    def throughput(self, seconds: float) -> float:
        """Decisions a second where some clients ask again as soon as they are answered, events beside them."""
        moments = np.zeros(round(seconds * 5_000))
        asks = load.Stream(self._address, self._asks, moments, connections=_CLIENTS, wanted=WANTED)
        decisions, _ = load.drive([asks, self._events(seconds)], until=seconds)
        return len(decisions.ms) / seconds

    def takes(self, rate: float, seconds: float) -> bool:
        """Whether the server holds this rate: p99 within the limit, and no request failed."""
        found = self.at(rate, seconds)
        worst = percentile(found.ms, 0.99)
        return worst is not None and worst < LIMIT_MS and not found.errors

    def capacity(self, bound: float, seconds: float, steps: int) -> float:
        """The highest rate that it holds, sought around its throughput `bound`; 0 where it holds none."""
        return highest(lambda rate: self.takes(rate, seconds), bound, steps)

    def _events(self, seconds: float) -> load.Stream:
        rate = EVENTS_A_SECOND / EVENTS_A_POST
        moments = load.evenly(rate, seconds)
        posts = self._feed.posts(len(moments), EVENTS_A_POST)
        return load.Stream(self._posts, posts, moments, status=202, connections=8)
