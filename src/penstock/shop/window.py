"""The shop window: the addresses under ``/shop``, on a server whose home folder holds a catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from msgspec.json import decode

from penstock.errors import NotFoundError, PenstockError
from penstock.serve.replies import Header, Refused, Reply, of_error
from penstock.serve.routes import Endpoints, Pages, Request, Route, note_of
from penstock.shop import views
from penstock.shop.catalogue import Catalogue, Product
from penstock.shop.desk import Desk, Slate
from penstock.shop.lists import Main
from penstock.shop.pictures import picture
from penstock.shop.search import MOST_TEXT, Search, by_popularity, query_words
from penstock.shop.visitors import MOST_IN_CART, PATH, Visitor
from penstock.web.answers import MAX_FORM, SAFE, form, header, page, same_site, to
from penstock.web.files import HTMX, Files

_STATIC = Path(__file__).parent / "static"
FOUND = 36
"""Products of a search or a department on one page."""


def pages(home: Path) -> tuple[Pages, ...]:
    """The shop window over a home folder's catalogue; none where it has none.

    Raises:
        DefinitionError: the catalogue breaks a rule.
    """
    catalogue = Catalogue.read(home)
    return () if catalogue is None else (lambda endpoints: Window(endpoints, catalogue).routes,)


class Window:
    """The pages of one shop.

    Args:
        endpoints: the server's own, by which events go in and lists come out.
        catalogue: what is sold.
    """

    def __init__(self, endpoints: Endpoints, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._desk = Desk(endpoints, catalogue)
        self._search = Search(catalogue.products)
        self._files = Files(f"{PATH}/static", [HTMX, _STATIC / "shop.css", _STATIC / "icon.svg"])
        pages = (
            Route("GET", PATH, self.home),
            Route("GET", f"{PATH}/search", self.search),
            Route("GET", f"{PATH}/category/{{name}}", self.category),
            Route("GET", f"{PATH}/item/{{item}}", self.item),
            Route("GET", f"{PATH}/picture/{{item}}", self.picture),
            Route("GET", f"{PATH}/cart", self.cart),
            Route("POST", f"{PATH}/view", self._own(self.view), MAX_FORM),
            Route("POST", f"{PATH}/cart", self._own(self.add), MAX_FORM),
            Route("POST", f"{PATH}/remove", self._own(self.remove), MAX_FORM),
            Route("POST", f"{PATH}/buy", self._own(self.buy), MAX_FORM),
            Route("POST", f"{PATH}/shopper", self._own(self.shopper), MAX_FORM),
        )
        self.routes: Sequence[Route] = (*(replace(r, answer=self._told(r.answer)) for r in pages), *self._files.routes)

    # Pages that only show

    async def home(self, request: Request) -> Reply:
        """The first page."""
        visitor = self._visitor(request)
        slate = await self._desk.decide(visitor, request.waterfall)
        return self._page(request, visitor, views.home(slate, self._catalogue), slate=slate)

    async def search(self, request: Request) -> Reply:
        """What a query finds, also while it is being typed."""
        given = form(request.query)
        query = given.get("q", "")[:MOST_TEXT]
        visitor = self._visitor(request)
        matches = self._search.find(query, await self._desk.popular(), len(self._catalogue.products))
        slate = await self._desk.search(visitor, _said(query), request.waterfall) if query_words(query) else None
        main = views.found(query, matches, slate, FOUND)
        return self._page(request, visitor, main, query=query, slate=slate)

    async def category(self, request: Request) -> Reply:
        """A department."""
        name = unquote(request.params[0])
        if name not in self._catalogue.by_category:
            raise NotFoundError("a department is one of the catalogue's", got=repr(name[:100]), remedy="see /shop")
        products = by_popularity(self._catalogue.by_category[name], await self._desk.popular())
        return self._page(request, self._visitor(request), views.department(name, products[:FOUND], len(products)))

    async def item(self, request: Request) -> Reply:
        """A product by its address; its own script takes the look down, so that a mere fetch is none."""
        visitor, product = self._visitor(request), self._product(unquote(request.params[0]))
        slate = await self._desk.decide(visitor, request.waterfall)
        main = views.product_page(product, slate, self._catalogue, visitor)
        return self._page(request, visitor, views.recorded(main, product), slate=slate)

    async def cart(self, request: Request) -> Reply:
        """What is in the cart."""
        visitor = self._visitor(request)
        slate = await self._desk.decide(visitor, request.waterfall)
        return self._page(request, visitor, views.cart_page(visitor, self._catalogue, slate), slate=slate)

    async def picture(self, request: Request) -> Reply:
        """A drawing of a product."""
        drawn = picture(self._product(unquote(request.params[0])))
        return Reply(200, drawn.encode(), b"image/svg+xml", ((b"cache-control", b"public, max-age=86400"), *SAFE))

    # What a visitor does: an event, then a new list

    async def view(self, request: Request) -> Reply:
        """A click on a product."""
        visitor, given = self._visitor(request), form(request.body)
        product = self._product(given.get("item", ""))
        query = _said(given.get("query", ""))
        took = await self._desk.post(visitor, [product], "view", request.waterfall, query)
        slate = await self._desk.decide(visitor, request.waterfall, took)
        before = given.get("shown", "").split()[:100]
        main = views.product_page(product, slate, self._catalogue, visitor, before=before, query=query)
        return self._done(request, visitor, main, f"{PATH}/item/{product.item}", slate)

    async def add(self, request: Request) -> Reply:
        """A product into the cart."""
        visitor, given = self._visitor(request), form(request.body)
        product = self._product(given.get("item", ""))
        query = _said(given.get("query", ""))
        took = await self._desk.post(visitor, [product], "cart", request.waterfall, query)
        place = self._catalogue.place[product.item]
        cart = tuple(dict.fromkeys([*visitor.cart, place]))[-MOST_IN_CART:]
        visitor = replace(visitor, cart=cart, fresh=True)
        slate = await self._desk.decide(visitor, request.waterfall, took)
        main = views.product_page(
            product, slate, self._catalogue, visitor, before=given.get("shown", "").split()[:100], note="Added."
        )
        return self._done(request, visitor, main, f"{PATH}/cart", slate)

    async def remove(self, request: Request) -> Reply:
        """A product out of the cart; the log knows no such event."""
        visitor, product = self._visitor(request), self._product(form(request.body).get("item", ""))
        place = self._catalogue.place[product.item]
        visitor = replace(visitor, cart=tuple(p for p in visitor.cart if p != place), fresh=True)
        slate = await self._desk.decide(visitor, request.waterfall)
        main = views.cart_page(visitor, self._catalogue, slate)
        return self._done(request, visitor, main, f"{PATH}/cart", slate)

    async def buy(self, request: Request) -> Reply:
        """All that is in the cart."""
        visitor = self._visitor(request)
        bought = [self._catalogue.products[place] for place in visitor.cart]
        took = await self._desk.post(visitor, bought, "buy", request.waterfall) if bought else None
        visitor = replace(visitor, cart=(), fresh=True)
        slate = await self._desk.decide(visitor, request.waterfall, took)
        main = views.cart_page(visitor, self._catalogue, slate, bought)
        return self._done(request, visitor, main, f"{PATH}/cart", slate)

    async def shopper(self, request: Request) -> Reply:
        """Somebody else: one whom the shop has never seen, or one of those whom the catalogue names."""
        user = form(request.body).get("user", "")
        if user and user not in self._catalogue.shoppers:
            raise NotFoundError("a shopper to step into is one that the catalogue names", got=repr(user[:100]),
                                remedy="see the switch on the page")  # fmt: skip
        visitor = Visitor(user) if user else Visitor.new()
        return to(PATH, *visitor.headers())

    # What they share

    def _own(self, answer: Callable[[Request], Awaitable[Reply]]) -> Callable[[Request], Awaitable[Reply]]:
        """The same, for posts of this server's own pages only."""

        async def checked(request: Request) -> Reply:
            same_site(request.headers)
            return await answer(request)

        return checked

    def _told(self, answer: Callable[[Request], Awaitable[Reply]]) -> Callable[[Request], Awaitable[Reply]]:
        """The same, with refusals that people can read."""

        async def told(request: Request) -> Reply:
            try:
                return await answer(request)
            except (PenstockError, Refused) as error:
                reply = error.reply if isinstance(error, Refused) else of_error(error)
                said = decode(reply.body)
                title = "This is not here" if reply.status == 404 else "That did not work"
                main = views.refusal(title, f"{said['error']}. {said['remedy']}.")
                return self._page(request, self._visitor(request), main, status=reply.status)

        return told

    def _visitor(self, request: Request) -> Visitor:
        return Visitor.of(request.headers, self._catalogue.shoppers, len(self._catalogue.products))

    def _product(self, item: str) -> Product:
        found = self._catalogue.by_item.get(item)
        if found is None:
            raise NotFoundError("a product is one of the catalogue's", got=repr(item[:100]), remedy="see /shop")
        return found

    def _done(self, request: Request, visitor: Visitor, main: Main, address: str, slate: Slate) -> Reply:
        if header(request.headers, b"hx-request"):
            return self._page(request, visitor, main, slate=slate)
        return to(address, *self._set(visitor))

    def _page(
        self,
        request: Request,
        visitor: Visitor,
        main: Main,
        *,
        query: str = "",
        slate: Slate | None = None,
        status: int = 200,
    ) -> Reply:
        partial = bool(header(request.headers, b"hx-request"))
        html = views.part(main, visitor) if partial else views.whole(main, visitor, self._catalogue, self._files, query)
        request.waterfall.lap("page")
        return page(html, *self._set(visitor), status=status, note=note_of(slate.answer) if slate else None)

    def _set(self, visitor: Visitor) -> tuple[Header, ...]:
        return visitor.headers() if visitor.fresh else ()


def _said(text: str) -> str:
    """Words as typed, as far as an event may hold them."""
    return text[:MOST_TEXT].replace("\0", " ")
