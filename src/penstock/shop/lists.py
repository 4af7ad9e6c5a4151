"""Lists of products as HTML, and under each decided one how it came about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote

from penstock.evaluate.markup import Markup, join, tag
from penstock.shop.catalogue import Product
from penstock.shop.desk import Shown, Slate

FIRST, BESIDE, SEEN = 12, 6, 6
"""Products in the list of the first page, in that beside something else, and among those looked at."""
STAGES: Mapping[str, str] = {
    "features": "features",
    "retrieve": "candidates",
    "score": "ranking",
    "rerank": "rules",
    "why": "reasons",
}
"""What people call the stages of a decision."""
_TIERS = {
    "personal": ("Chosen for you", "from what you looked at"),
    "segment": ("Popular with shoppers like you", "nothing of your own was known"),
    "popular": ("Popular now", "nothing of your own was known yet"),
    "default": ("Our selection", "nothing else was known yet"),
}


class Main(NamedTuple):
    """The main part of a page, its title, and the items of its decided list; None where it has no such list."""

    title: str
    html: Markup
    shown: Sequence[str] | None = None


def decided(
    title: str, above: Markup, slate: Slate, *, without: str = "", before: Sequence[str] = (), first: bool = False
) -> Main:
    """A main part that ends in the lists of one decision: what is new to the shopper, and what they have looked at.

    Args:
        title: of the page.
        above: what stands above the lists.
        without: an item that is on the page already.
        before: the items that the list showed before the click; others are marked as new.
        first: whether the lists are what the page is about.
    """
    fresh = [one for one in slate.fresh if one.product.item != without][: FIRST if first else BESIDE]
    seen = [one for one in slate.seen if one.product.item != without][:SEEN]
    heading = tag("h1" if first else "h2", _TIERS[slate.answer.tier][0])
    lists = [tag("section", heading, _slate(fresh, set(before)), how(slate, fresh), class_="decided", id="decided")]
    if seen:
        lists.append(tag("section", tag("h2", "You looked at"), _slate(seen, set()), class_="seen"))
    return Main(title, join(above, *lists), [one.product.item for one in fresh])


def _slate(shown: Sequence[Shown], before: set[str]) -> Markup:
    cells = [card(one.product, reason(one), new=bool(before) and one.product.item not in before) for one in shown]
    return tag("ul", *cells, class_="cards")


def cards(products: Sequence[Product], query: str = "") -> Markup:
    """A list of products without reasons; `query` are the words of the search that found them."""
    return tag("ul", *[card(product, query=query) for product in products], class_="cards")


def card(product: Product, note: str = "", *, new: bool = False, query: str = "") -> Markup:
    """One product in a list. It is a link, which a click turns into an event and a new list.

    Args:
        note: what stands under it.
        query: the words of the search that found it, which the event carries.
    """
    address = f"/shop/item/{quote(product.item, safe='')}"
    vals = {"item": product.item, **({"query": query} if query else {})}
    return tag(
        "li",
        tag(
            "a",
            tag("img", src=f"/shop/picture/{quote(product.item, safe='')}", alt="", width=100, height=100,
                loading="lazy"),
            tag("span", "new here", class_="new") if new else "",
            tag("b", product.name),
            tag("span", price(product.price), class_="price"),
            tag("small", note) if note else "",
            href=address, hx_post="/shop/view", hx_vals=json.dumps(vals), hx_target="#main",
            hx_push_url=address, hx_include="#shown", hx_swap="innerHTML show:window:top",
        ),
        data_item=product.item,
    )  # fmt: skip


def price(cents: int) -> str:
    """A price as a shop writes it.

    >>> price(129_500)
    '€1,295.00'
    """
    return f"€{cents // 100:,}.{cents % 100:02d}"


def reason(one: Shown) -> str:
    """Why a product is in its list, in a few words; nothing where nobody knows."""
    if one.item.propensity < 0.5:
        return "a try: drawn at random"
    if one.seen:
        return "you looked at it"
    if one.because is not None:
        return f"because you looked at {one.because.name}"
    return "popular now" if any(r.kind == "popular" for r in one.reasons) else ""


def how(slate: Slate, shown: Sequence[Shown], led: str | None = None) -> Markup:
    """How a list came about: tier, time, what led to it, and where the time went.

    Args:
        led: what it was made from, in place of what the tier says.
    """
    answer = slate.answer
    stages = {name: ms for name, ms in answer.timings.items() if name in STAGES}
    total = sum(stages.values())
    facts = [
        tag("li", tag("b", answer.tier), f" {led or _TIERS[answer.tier][1]}", class_="tier"),
        tag("li", "decided in ", tag("b", f"{total:.1f} ms")),
    ]
    if slate.click_ms is not None:
        facts.append(tag("li", "your click was on disk and known after ", tag("b", f"{slate.click_ms:.1f} ms")))
    own = list(dict.fromkeys(one.because.name for one in shown if one.because is not None))
    because = tag("p", "Because you looked at ", _and(own[:4]), ".", class_="because") if own else ""
    command = tag("p", "Its number in the decision log: ", tag("code", answer.decision_id), class_="id")
    return tag("aside", because, tag("ul", *facts), waterfall(stages), command, class_="how")


def _and(names: Sequence[str]) -> Markup:
    parts = [tag("b", name) for name in names]
    if len(parts) < 2:
        return join(*parts)
    return join(*[piece for part in parts[:-1] for piece in (part, ", ")][:-1], " and ", parts[-1])


def waterfall(stages: Mapping[str, float]) -> Markup:
    """Where a decision's time went: a bar, each stage as long as it took, and a legend with the same in words."""
    total = sum(stages.values()) or 1.0
    at, bars, legend = 0.0, [], []
    for name, ms in stages.items():
        width = 1000 * ms / total
        bars.append(tag("rect", x=f"{at:.1f}", y=0, width=f"{max(width, 1):.1f}", height=10, class_=f"stage-{name}"))
        at += width
        legend.append(tag("li", f"{STAGES[name]} ", tag("b", f"{ms:.1f}"), class_=f"stage-{name}"))
    bar = tag("svg", *bars, viewBox="0 0 1000 10", preserveAspectRatio="none", aria_hidden="true")
    return tag("figure", bar, tag("figcaption", tag("ul", *legend, tag("li", "milliseconds"))), class_="waterfall")
