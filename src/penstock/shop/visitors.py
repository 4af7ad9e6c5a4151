"""Who is at the window: a shopper's id and cart, both in cookies, and the date of what they do."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from time import perf_counter

from penstock.serve.replies import Header
from penstock.types import Micros
from penstock.web.answers import cookie, cookies

SHOPPER, CART = "penstock_shopper", "penstock_cart"
PATH = "/shop"
MOST_IN_CART = 50
_OWN = re.compile(r"guest-[0-9a-f]{16}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Visitor:
    """A shopper, with the places in the catalogue of what is in the cart.

    `fresh` where the cookie is yet to be set.
    """

    user: str
    cart: tuple[int, ...] = ()
    fresh: bool = False

    @classmethod
    def of(cls, headers: Sequence[Header], known: Collection[str], products: int) -> Visitor:
        """Whose cookies these are. Nobody is taken for any shopper but a guest of this shop, or one of `known`.

        Args:
            known: shoppers whom anyone may step into.
            products: how many the catalogue has.
        """
        given = cookies(headers)
        user = given.get(SHOPPER, "")
        if not (_OWN.fullmatch(user) or user in known):
            return cls.new()
        parts = given.get(CART, "").split(".")[:MOST_IN_CART]
        cart = dict.fromkeys(int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 9)
        return cls(user, tuple(place for place in cart if place < products))

    @classmethod
    def new(cls) -> Visitor:
        """Somebody whom the shop has never seen."""
        return cls(f"guest-{secrets.token_hex(8)}", fresh=True)

    @property
    def guest(self) -> bool:
        return _OWN.fullmatch(self.user) is not None

    def headers(self) -> tuple[Header, ...]:
        """The cookies that make a browser this visitor's."""
        return (
            cookie(SHOPPER, self.user, PATH),
            cookie(CART, ".".join(map(str, self.cart)), PATH),
        )


class Dates:
    """Dates events so that each lies after all that decisions have seen, also where the clock follows the events.

    There, time would stand still between events: what has gone by on this machine since the newest one is added.

    Args:
        now: the moment by the app's clock.
        elapsed: seconds on a clock that only goes forward.
    """

    def __init__(self, now: Callable[[], Micros], elapsed: Callable[[], float] = perf_counter) -> None:
        self._now = now
        self._elapsed = elapsed
        self._newest = 0
        self._since = 0.0

    def next(self) -> str:
        """The date of an event that happens now, as events carry it."""
        now, elapsed = self._now(), self._elapsed()
        if now > self._newest:
            self._newest, self._since = now, elapsed
        date = self._newest + max(1, round((elapsed - self._since) * 1e6))
        return (_EPOCH + timedelta(microseconds=date)).isoformat()
