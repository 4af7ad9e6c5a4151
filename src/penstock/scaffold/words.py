"""The words by which columns and their values are known."""

from __future__ import annotations

import re
from collections.abc import Mapping

Weights = Mapping[str, float]

USER: Weights = {
    "user": 5, "customer": 5, "visitor": 5, "shopper": 5, "client": 4, "member": 4, "buyer": 4, "uid": 4, "account": 3,
    "person": 3, "cookie": 2, "device": 2, "session": 1.5, "visit": 1.5, "email": 1, "name": -3, "agent": -6,
    "country": -6, "type": -6, "time": -6, "age": -6,
}  # fmt: skip
ITEM: Weights = {
    "sku": 6, "asin": 6, "stockcode": 6, "item": 5, "product": 5, "article": 4, "goods": 4, "offer": 2, "model": 2,
    "movie": 3, "book": 3, "song": 3, "content": 2, "code": 1, "name": -3, "title": -3, "description": -6,
    "category": -6, "type": -6, "brand": -6, "price": -6, "count": -6, "quantity": -6, "photography": -3, "group": -6,
}  # fmt: skip
CATEGORY: Weights = {
    "category": 6, "categories": 5, "subcategory": 4, "department": 5, "group": 4, "genre": 4, "section": 3, "class": 3,
    "cat": 3, "price": -6, "code": 0.5,
}  # fmt: skip
PRICE: Weights = {
    "price": 6, "unitprice": 6, "amount": 4, "revenue": 3, "value": 2, "cost": 2, "total": 2, "sales": 2, "eur": 2,
    "usd": 2, "id": -6, "quantity": -6, "type": -6,
}  # fmt: skip
KIND: Weights = {
    "action": 4, "kind": 4, "behavior": 4, "behaviour": 4, "event": 4, "activity": 3, "type": 2, "operation": 2,
    "interaction": 4, "id": -4, "time": -6, "date": -6, "category": -6, "product": -3, "item": -3,
}  # fmt: skip
TIME: Weights = {
    "timestamp": 5, "datetime": 5, "time": 4, "date": 4, "ts": 4, "created": 3, "at": 2, "when": 3, "day": 2,
    "start": -2, "end": -3, "updated": -1, "birth": -6, "session": -2, "registered": -4, "length": -6, "expires": -6,
    "duration": -6,
}  # fmt: skip
QUANTITY: Weights = {"quantity": 5, "qty": 5, "units": 3, "count": 2, "pieces": 3}
RECEIPT: Weights = {"invoice": 5, "order": 4, "transaction": 4, "receipt": 5, "basket": 3, "bill": 3}
EVENT_ID: Weights = {"eventid": 6, "uuid": 4, "guid": 4, "id": 1}
PLACE: Weights = {"order": 3, "sequence": 4, "seq": 4, "step": 3, "position": 3, "click": 2, "hit": 2}
MEASURES = frozenset(
    ("quantity", "qty", "units", "count", "number", "length", "duration", "age", "score", "rating", "stock", "weight",
     "discount", "tax", "share", "rate")
)  # fmt: skip
"""Names of whole numbers that are counted with; others are codes, and stay text."""

_ONLY_WHOLE = ("count", "part")
"""Words that begin others: a country is no count."""

KINDS = ("view", "cart", "fav", "buy", "return")
_EXACT = {
    "view": "view views viewed pv pageview detail details detailview productview viewitem viewproduct click clicks "
    "clicked clk visit browse open impression show",
    "cart": "cart addtocart addcart atc basket addtobasket add added incart cartadd shoppingcart",
    "fav": "fav favorite favourite favorites wishlist addtowishlist like liked save saved bookmark collect",
    "buy": "buy bought purchase purchased order ordered transaction sale sold checkout payment paid conversion "
    "placeorder completepurchase",
    "return": "return returned refund refunded back sendback",
}
_OF = {word: kind for kind, words in _EXACT.items() for word in words.split()}
_UNDO = ("remove", "delete", "unlike", "dislike", "undo", "cancel", "abandon")
_PARTS = (("return", "return"), ("refund", "return"), ("purchase", "buy"), ("wish", "fav"), ("favo", "fav"),
          ("cart", "cart"), ("basket", "cart"), ("order", "buy"), ("view", "view"), ("click", "view"))  # fmt: skip


def tokens(name: str) -> list[str]:
    """The words of a column's name, in lower case.

    >>> tokens("UnitPrice"), tokens("page 2 (clothing model)")
    (['unit', 'price'], ['page', '2', 'clothing', 'model'])
    """
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[\W_]+", apart.lower()) if word]


def fit(name: str, weights: Weights) -> float:
    """How well a column's name says that it is what `weights` knows; nothing known of it gives 0.

    >>> fit("visitorid", USER) > fit("session ID", USER) > fit("price", USER) == 0
    True
    """
    parts, joined = tokens(name), "".join(tokens(name))
    found, against = 0.0, 0.0
    for word, weight in weights.items():
        whole = joined in (word, f"{word}id", f"{word}s")
        inside = len(word) >= 4 and word in joined and word not in _ONLY_WHOLE
        if word not in parts and not whole and not inside:
            continue
        if weight < 0:
            against += weight
        else:
            found = max(found, weight + (1 if whole else 0))
    return found + against


def kind_of_word(word: str) -> str | None:
    """What a shop's word for an action means, if it is known.

    >>> [kind_of_word(word) for word in ("addtocart", "ORDER", "remove_from_cart", "product_view")]
    ['cart', 'buy', None, 'view']
    """
    plain = re.sub(r"[\W_]+", "", word.lower())
    if plain in _OF:
        return _OF[plain]
    if any(part in plain for part in _UNDO):
        return None
    return next((kind for part, kind in _PARTS if part in plain), None)


def identifier(text: str) -> str:
    """A text as a Python name in lower case.

    >>> identifier("page 1 (main category)"), identifier("2nd Price")
    ('page_1_main_category', 'n_2nd_price')
    """
    name = "_".join(tokens(text)).encode("ascii", "ignore").decode().strip("_") or "column"
    return f"n_{name}" if name[0].isdigit() else name
