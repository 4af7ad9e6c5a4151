"""What the window asks of the running system: events go in and lists come out, as they do over HTTP."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from penstock.errors import DefinitionError, PenstockError
from penstock.serve.replies import Refused, Waterfall, encode, refusal
from penstock.serve.requests import Answer, DecideRequest, Item, Reason
from penstock.serve.routes import Endpoints
from penstock.shop.catalogue import Catalogue, Product
from penstock.shop.visitors import Dates, Visitor

ASKED = 150
"""Items asked for, so that enough remain when those already looked at are shown apart."""
_KEPT = 5.0
"""Seconds for which counts of what is popular are kept; they change once an hour or so."""


@dataclass(frozen=True)
class Shown:
    """One product of a list, and what is known of why it is there.

    `because` is the product of the shopper's own that led most to it.
    """

    product: Product
    item: Item
    reasons: Sequence[Reason]
    because: Product | None

    @property
    def seen(self) -> bool:
        """Whether the shopper has looked at it before."""
        return any(reason.kind == "seen" for reason in self.reasons)


@dataclass(frozen=True)
class Slate:
    """A decision as the window shows it.

    Attributes:
        fresh: what the shopper has not looked at, best first.
        seen: what they have, best first.
        answer: the decision itself.
        click_ms: from the click's arrival until it was durable and visible; None where there was none.
    """

    fresh: Sequence[Shown]
    seen: Sequence[Shown]
    answer: Answer
    click_ms: float | None


class Desk:
    """Posts events and asks for decisions for the window.

    Args:
        endpoints: the server's own.
        catalogue: what is sold.

    Raises:
        DefinitionError: the app has no stream of shoppers' actions on items that a decision is about.
    """

    def __init__(self, endpoints: Endpoints, catalogue: Catalogue) -> None:
        described = endpoints.face.describe()
        self._endpoints = endpoints
        self._catalogue = catalogue
        self._decision: str = next(iter(described["decisions"]), "")
        self._by: str = described["decisions"][self._decision]["by"] if self._decision else ""
        self._searching = next(
            (
                (n, one["words"][0])
                for n, one in described["decisions"].items()
                if one["words"] and one["by"] == self._by
            ),
            None,
        )
        streams: Mapping[str, Sequence[Mapping[str, Any]]] = described["streams"]
        fields = {stream: {field["name"] for field in of} for stream, of in streams.items()}
        self._stream = next((s for s, of in fields.items() if {self._by, "item", "kind"} <= of), "")
        if not self._stream:
            raise DefinitionError(
                "a shop window needs a decision, and events with its shopper, an item and a kind",
                got="none such", remedy="add the fields, or take the catalogue out of the home folder",
            )  # fmt: skip
        self._fields = fields[self._stream]
        self._dates = Dates(endpoints.face.now)
        self._popular: tuple[float, Mapping[str, int]] = (float("-inf"), {})

    async def post(
        self, visitor: Visitor, products: Sequence[Product], kind: str, waterfall: Waterfall, query: str = ""
    ) -> float:
        """Takes down what a visitor did with some products, durably. Returns after how many milliseconds.

        Args:
            query: the words of the search that led there.

        Raises:
            Refused: the app does not take such an event.
        """
        began = perf_counter()
        # The date comes from the store where the clock follows the events.
        body = await self._endpoints.asking.read(
            lambda: encode([self._event(visitor, product, kind, query) for product in products])
        )
        parsed, _ = await self._endpoints.take(body, "shop", waterfall)
        if parsed.rejected:
            first = parsed.rejected[0]
            raise Refused(refusal(422, PenstockError(first.rule, got=first.got, remedy=first.remedy)))
        return (perf_counter() - began) * 1e3

    def _event(self, visitor: Visitor, product: Product, kind: str, query: str) -> dict[str, Any]:
        given = {
            "stream": self._stream,
            "id": f"shop-{secrets.token_hex(10)}",
            "time": self._dates.next(),
            self._by: visitor.user,
            "item": product.item,
            "kind": kind,
            "name": product.name,
            "category": product.category,
            "brand": product.brand,
            "price": f"{product.price / 100:.2f}",
            **({} if kind == "view" else {"quantity": 1}),
            **({self._searching[1]: query} if self._searching and query else {}),
        }
        known = {*self._fields, "stream", "id", "time"}
        return {name: value for name, value in given.items() if name in known and value}

    async def decide(self, visitor: Visitor, waterfall: Waterfall, click_ms: float | None = None) -> Slate:
        """Asks for a visitor's list, on a budget of its own that the click's sync does not use up."""
        return await self._ask(self._decision, DecideRequest(visitor.user, k=ASKED, why=True), waterfall, click_ms)

    async def search(self, visitor: Visitor, query: str, waterfall: Waterfall) -> Slate | None:
        """Asks for what a visitor's words mean; None where no decision reads words, or none that it knows is meant."""
        if self._searching is None:
            return None
        name, field = self._searching
        slate = await self._ask(name, DecideRequest(visitor.user, {field: query}, k=ASKED, why=True), waterfall)
        return slate if slate.answer.cause is None else None

    async def _ask(
        self, decision: str, request: DecideRequest, waterfall: Waterfall, click_ms: float | None = None
    ) -> Slate:
        own = Waterfall(None)
        answer = await self._endpoints.asking.ask(decision, request, own)
        assert isinstance(answer, Answer), "the shop window asks for lists"
        self._endpoints.asking.count(decision, answer, own)
        waterfall.add(answer.timings)
        shown = [
            Shown(self._catalogue.by_item[item.id], item, reasons, self._led(reasons))
            for item, reasons in zip(answer.items, answer.why or [[] for _ in answer.items], strict=True)
            if item.id in self._catalogue.by_item
        ]
        return Slate([s for s in shown if not s.seen], [s for s in shown if s.seen], answer, click_ms)

    def _led(self, reasons: Sequence[Reason]) -> Product | None:
        found = (self._catalogue.by_item.get(r.because) for r in reasons if r.because is not None)
        return next((product for product in found if product is not None), None)

    async def popular(self) -> Mapping[str, int]:
        """How often each item was lately touched."""
        taken, counts = self._popular
        if perf_counter() - taken > _KEPT:
            counts = await self._endpoints.asking.read(lambda: self._endpoints.face.popular(self._decision))
            self._popular = (perf_counter(), counts)
        return counts
