"""A shop's home page and search: what to show a shopper next, and what for the words they type.

This one file defines the whole system. Copy it, rename fields, and run
``penstock demo --app app.py --events FILE --mapping MAPPING``.
"""

from typing import Literal

from polars import col

import penstock as ps

app = ps.App("nextbest")


class Action(ps.Event):
    """Something a shopper did with an item."""

    user: str
    item: str
    kind: Literal["view", "cart", "fav", "buy", "return"]
    category: str | None = None
    price: ps.Money | None = None
    quantity: int | None = None
    country: str | None = None
    name: str | None = None
    brand: str | None = None
    query: str | None = None  # the words of the search that led here


CART, FAV, BUY = (col("kind") == kind for kind in ("cart", "fav", "buy"))


@app.view(on=Action, by="user")
class Shopper:
    recent = ps.last("item", k=100)
    categories = ps.last("category", k=30)
    country = ps.latest("country")
    actions_1h = ps.count(window="1h")
    actions_1d = ps.count(window="1d")
    actions = ps.count()
    since = ps.recency()
    mean_price = ps.mean("price", window="30d")


@app.view(on=Action, by="item")
class Product:
    category = ps.latest("category")
    actions_1d = ps.count(window="1d")
    actions = ps.count()
    buys = ps.count(where=BUY)
    shoppers = ps.distinct("user", precision=6)
    since = ps.recency()
    price = ps.max("price", window="30d")


@app.view(on=Action, by=("user", "item"))
class Interest:
    actions_1h = ps.count(window="1h")
    actions_1d = ps.count(window="1d")
    actions = ps.count()
    carts = ps.count(where=CART)
    favs = ps.count(where=FAV)
    buys = ps.count(where=BUY)
    since = ps.recency()


@app.view(on=Action, by=("user", "category"))
class Taste:
    actions_1h = ps.count(window="1h")
    actions = ps.count()
    since = ps.recency()


@app.decision("home", by="user", budget="50ms", context=["country"])
class Home:
    candidates = [
        ps.seen("recent", k=100),
        ps.covisits("recent", k=60),
        ps.covisits("recent", k=40, name="together", norm=0.0),
        ps.popular(by="category", of="categories", k=15),
        ps.popular(window="1d", k=10),
    ]
    rank = ps.LambdaRank(
        goal="view",
        request={
            "interest_share": col("Interest.actions") / (col("Taste.actions") + 1),
            "taste_share": col("Taste.actions_1h") / (col("Shopper.actions_1h") + 1),
            "same_category": col("Product.category") == col("Shopper.categories").arr.first(),
            "since_gap": col("Interest.since") - col("Shopper.since"),
            "price_ratio": col("Product.price") / col("Shopper.mean_price"),
            "hour": col("now").dt.hour(),
        },
    )
    rerank = [ps.explore(0.01, first=5)]
    fallback = [ps.popular(by="country", window="1d", k=50), ps.popular(window="1d", k=50, name="popular_all")]


@app.view(on=Action, by=("query", "item"))
class Match:
    """What came of an item before, after the same words."""

    clicks = ps.count()
    buys = ps.count(where=BUY)


TEXTS = {"name": 4, "category": 2, "brand": 1}


@app.decision("search", by="user", budget="50ms", context=["query"])
class Search:
    candidates = [ps.lexical("query", fields=TEXTS, k=150), ps.semantic("query", fields=TEXTS, k=50)]
    rank = ps.LambdaRank(
        goal=(col("kind") == "view") & col("query").is_not_null(),
        trees=60,
        most_labels=1_500,
    )
    rerank = [ps.explore(0.01, first=5)]
    fallback = [ps.popular(window="1d", k=50, name="popular_all")]
