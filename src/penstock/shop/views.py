"""The window's pages as HTML: whole ones, and the part that a click replaces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote

from penstock.evaluate.markup import Markup, join, tag
from penstock.shop.catalogue import Catalogue, Product
from penstock.shop.desk import Slate
from penstock.shop.lists import Main, cards, decided, how, price
from penstock.shop.search import MOST_TEXT, Matches
from penstock.shop.visitors import Visitor
from penstock.web.files import Files

_SETTINGS = json.dumps(
    {
        # The page's policy allows no styles and scripts but files.
        "includeIndicatorStyles": False,
        "allowEval": False,
        "attributesToSettle": ["class"],
        # Going back asks anew, since lists change.
        "historyCacheSize": 0,
        "refreshOnHistoryMiss": True,
        # A refusal is a page, too.
        "responseHandling": [{"code": "204", "swap": False}, {"code": "...", "swap": True}],
    }
)


def whole(main: Main, visitor: Visitor, catalogue: Catalogue, files: Files, query: str = "") -> str:
    """A whole page around its main part."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="htmx-config", content=_SETTINGS),
        tag("title", main.title),
        tag("link", rel="icon", href=files["icon.svg"], type="image/svg+xml"),
        tag("link", rel="stylesheet", href=files["shop.css"]),
        tag("script", src=files["htmx.min.js"], defer="defer"),
    )
    body = tag(
        "body",
        tag("a", "Skip to the products", href="#main", class_="skip"),
        _header(visitor, catalogue, query),
        tag("main", main.html, id="main"),
        _shown(main.shown or ()),
        tag(
            "footer",
            tag("p", "Every list here is a decision of the running system, made from the clicks up to the last one."),
            tag("p", tag("a", "What the server knows of itself", href="/")),
        ),
    )
    return f'<!doctype html><html lang="en">{head}{body}</html>'


def part(main: Main, visitor: Visitor) -> str:
    """What a click replaces: the main part, the title, and the number at the cart."""
    shown = "" if main.shown is None else _shown(main.shown, swapped=True)
    return join(tag("title", main.title), main.html, _count(visitor, swapped=True), shown)


def _shown(items: Sequence[str], *, swapped: bool = False) -> Markup:
    """What the last list showed; it goes along with a click, so that the next list marks what is new."""
    given = " ".join(items)
    oob = "true" if swapped else None
    return tag("input", type="hidden", id="shown", name="shown", value=given, hx_swap_oob=oob)


def _header(visitor: Visitor, catalogue: Catalogue, query: str) -> Markup:
    search = tag(
        "form",
        tag("label", "Search", for_="q", class_="unseen"),
        tag(
            "input", id="q", name="q", type="search", value=query, maxlength=MOST_TEXT, autocomplete="off",
            placeholder=f"Search {len(catalogue.products):,} products",
        ),
        action="/shop/search", role="search", hx_get="/shop/search", hx_trigger="input changed delay:120ms, submit",
        hx_target="#main", hx_sync="this:replace", hx_replace_url="true",
    )  # fmt: skip
    return tag(
        "header",
        tag("a", tag("span", "pen", class_="mark"), "stock", class_="brand", href="/shop"),
        search,
        tag("nav", _switch(visitor, catalogue), tag("a", "Cart ", _count(visitor), href="/shop/cart", class_="cart")),
    )


def _count(visitor: Visitor, *, swapped: bool = False) -> Markup:
    number = str(len(visitor.cart)) if visitor.cart else ""
    return tag("span", number, id="count", hx_swap_oob="true" if swapped else None)


def _switch(visitor: Visitor, catalogue: Catalogue) -> Markup:
    """Who one is, and whom one may be instead."""
    others = [
        tag("button", tag("b", known.user), " ", tag("span", known.note), name="user", value=known.user)
        for known in catalogue.shoppers.values()
        if known.user != visitor.user
    ]
    who = "You: a guest" if visitor.guest else f"You: {visitor.user}"
    note = catalogue.shoppers[visitor.user].note if not visitor.guest else "known only by the clicks made here"
    return tag(
        "details",
        tag("summary", who),
        tag(
            "form",
            tag("p", visitor.user, tag("br"), note),
            tag("button", tag("b", "Be another shopper"), " ", tag("span", "whom nobody has seen yet"), name="user",
                value="", class_="main"),
            *([tag("p", "Or step into one of the past:"), *others] if others else []),
            method="post", action="/shop/shopper",
        ),
        class_="who",
    )  # fmt: skip


def home(slate: Slate, catalogue: Catalogue) -> Main:
    """The first page: the list for this shopper, and the departments."""
    departments = [
        tag("li", tag("a", category.title(), href=f"/shop/category/{quote(category, safe='')}"))
        for category in catalogue.by_category
    ]
    nav = tag("nav", tag("ul", *departments), class_="departments", aria_label="Departments")
    return decided("Shop", nav, slate, first=True)


def product_page(
    product: Product,
    slate: Slate,
    catalogue: Catalogue,
    visitor: Visitor,
    *,
    before: Sequence[str] = (),
    note: str = "",
    query: str = "",
) -> Main:
    """One product, and what may come next.

    Args:
        query: the words of the search that led here; they go along into the cart.
    """
    place = catalogue.place[product.item]
    in_cart = place in visitor.cart
    button = (
        tag("a", "In your cart", href="/shop/cart", class_="button quiet")
        if in_cart
        else tag("button", "Add to cart", class_="button")
    )
    above = tag(
        "article",
        tag("img", src=f"/shop/picture/{quote(product.item, safe='')}", alt="", width=100, height=100),
        tag(
            "div",
            tag("p", tag("a", product.category.title(), href=f"/shop/category/{quote(product.category, safe='')}"),
                class_="above"),
            tag("h1", product.name, tabindex="-1", autofocus="autofocus"),
            tag("p", f"by {product.brand}", class_="maker") if product.brand else "",
            tag("p", price(product.price), class_="price"),
            tag(
                "form",
                tag("input", type="hidden", name="item", value=product.item),
                tag("input", type="hidden", name="query", value=query) if query else "",
                button,
                tag("span", note, role="status"),
                method="post", action="/shop/cart", hx_post="/shop/cart", hx_target="#main", hx_include="#shown",
            ),
        ),
        class_="product",
    )  # fmt: skip
    return decided(product.name, above, slate, without=product.item, before=before)


def recorded(main: Main, product: Product) -> Main:
    """The page of a product that was opened by its address: the look is taken down once the page is there."""
    looked = tag("div", hx_post="/shop/view", hx_vals=json.dumps({"item": product.item}), hx_trigger="load",
                 hx_target="#main")  # fmt: skip
    return main._replace(html=join(main.html, looked))


def found(query: str, matches: Matches, slate: Slate | None, most: int) -> Main:
    """What a search found.

    Args:
        matches: the products that have its words.
        slate: what a decision makes of the words; without one, matches are shown as they are.
        most: products on the page.
    """
    if slate is not None and slate.fresh:
        return _decided_search(query, matches, slate, most)
    if matches.by == "all":
        title = _counted(query, matches)
    elif matches.by == "some":
        title = f"Nothing has all of “{query}”; these have some of it"
    elif query.strip():
        title = f"Nothing found for “{query}”; this is popular now"
    else:
        title = "Popular now"
    note = "" if matches.by == "popular" else "Best match first; among equals, what is popular now."
    shown = cards(matches.products[:most], "" if matches.by == "popular" else query)
    parts = [tag("h1", title), tag("p", note, class_="note") if note else "", shown]
    return Main(title, tag("section", *parts, class_="found"))


def _counted(query: str, matches: Matches) -> str:
    return f"{matches.total:,} {'product' if matches.total == 1 else 'products'} for “{query}”"


def _decided_search(query: str, matches: Matches, slate: Slate, most: int) -> Main:
    """Products in the decision's order: those with every word, which are counted, and then those that come close."""
    ordered = [one.product for one in slate.fresh]
    every = {product.item for product in matches.products} if matches.by == "all" else set()
    asked = [product for product in ordered if product.item in every]
    # The catalogue may hold products that no event has named yet, so that no decision can know them.
    known = {product.item for product in asked}
    asked = [*asked, *(product for product in matches.products if product.item in every - known)][:most]
    close = [product for product in ordered if product.item not in every][: max(most - len(asked), 0)]
    title = _counted(query, matches) if asked else f"Nothing has all of “{query}”; these come closest"
    parts = [tag("h1", title), cards(asked, query) if asked else ""]
    if close:
        parts += [tag("h2", "Close to it") if asked else "", cards(close, query)]
    return Main(title, join(tag("section", *parts, class_="found"), how(slate, slate.fresh, "from your words")))


def department(category: str, products: Sequence[Product], total: int) -> Main:
    """The products of a category, or the first of them where there are many."""
    title = tag("h1", category.title())
    more = "" if len(products) == total else f"; here are {len(products)}"
    note = tag("p", f"{total:,} products, popular ones first{more}.", class_="note")
    return Main(category.title(), tag("section", title, note, cards(products), class_="found"))


def cart_page(visitor: Visitor, catalogue: Catalogue, slate: Slate, bought: Sequence[Product] = ()) -> Main:
    """What is in the cart, or what was just bought."""
    products = [catalogue.products[place] for place in visitor.cart]
    rows = [
        tag(
            "li",
            tag("img", src=f"/shop/picture/{quote(p.item, safe='')}", alt="", width=100, height=100),
            tag("a", p.name, href=f"/shop/item/{quote(p.item, safe='')}"),
            tag("span", price(p.price), class_="price"),
            tag(
                "form",
                tag("input", type="hidden", name="item", value=p.item),
                tag("button", "Remove", aria_label=f"Remove {p.name}", class_="plain"),
                method="post", action="/shop/remove", hx_post="/shop/remove", hx_target="#main",
            ),
        )
        for p in products
    ]  # fmt: skip
    if bought:
        number = "One product is" if len(bought) == 1 else f"{len(bought)} products are"
        text = f"{number} yours, for {price(sum(p.price for p in bought))}. This window takes no money."
        main = join(tag("h1", "Thank you", tabindex="-1", autofocus="autofocus"), tag("p", text, role="status"))
    elif products:
        total = tag("p", "Total ", tag("b", price(sum(p.price for p in products))), class_="total")
        buy = tag("form", total, tag("button", "Buy", class_="button"), method="post", action="/shop/buy",
                  hx_post="/shop/buy", hx_target="#main")  # fmt: skip
        main = join(tag("h1", "Your cart", tabindex="-1", autofocus="autofocus"), tag("ul", *rows), buy)
    else:
        main = join(tag("h1", "Your cart", tabindex="-1", autofocus="autofocus"), tag("p", "It is empty."))
    return decided("Cart", tag("section", main, class_="basket"), slate)


def refusal(title: str, text: str) -> Main:
    """What a visitor is told where something cannot be."""
    back = tag("a", "Back to the shop", href="/shop", class_="button quiet")
    return Main(title, tag("section", tag("h1", title), tag("p", text, class_="note"), back, class_="found"))
