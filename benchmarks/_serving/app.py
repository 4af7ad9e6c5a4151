"""The shop that is served: 36 features of shopper and item and 4 of the sources, 200 candidates, 300 trees."""

from typing import Literal

from polars import col

import penstock as ps

app = ps.App("bench")


class Action(ps.Event):
    """Something a shopper did with an item."""

    user: str
    item: str
    kind: Literal["view", "cart", "buy", "return"]
    category: str | None = None
    price: ps.Money | None = None


VIEW, CART, BUY = (col("kind") == kind for kind in ("view", "cart", "buy"))


@app.view(on=Action, by="user")
class Shopper:
    recent = ps.last("item", k=50)
    actions = ps.count()
    actions_1h = ps.count(window="1h")
    views_1h = ps.count(window="1h", where=VIEW)
    views_1d = ps.count(window="1d", where=VIEW)
    views_7d = ps.count(window="7d", where=VIEW)
    views = ps.count(where=VIEW)
    carts_1d = ps.count(window="1d", where=CART)
    carts_7d = ps.count(window="7d", where=CART)
    carts = ps.count(where=CART)
    buys_7d = ps.count(window="7d", where=BUY)
    buys = ps.count(where=BUY)
    spend_7d = ps.sum("price", window="7d", where=BUY)
    spend = ps.sum("price", where=BUY)
    mean_price_7d = ps.mean("price", window="7d")
    highest_price = ps.max("price")
    lowest_price = ps.min("price")
    items = ps.distinct("item", precision=6)
    since = ps.recency()


@app.view(on=Action, by="item")
class Product:
    actions = ps.count()
    actions_1h = ps.count(window="1h")
    views_1h = ps.count(window="1h", where=VIEW)
    views_1d = ps.count(window="1d", where=VIEW)
    views_7d = ps.count(window="7d", where=VIEW)
    views = ps.count(where=VIEW)
    carts_1d = ps.count(window="1d", where=CART)
    carts_7d = ps.count(window="7d", where=CART)
    carts = ps.count(where=CART)
    buys_7d = ps.count(window="7d", where=BUY)
    buys = ps.count(where=BUY)
    revenue_7d = ps.sum("price", window="7d", where=BUY)
    revenue = ps.sum("price", where=BUY)
    mean_price_7d = ps.mean("price", window="7d")
    highest_price = ps.max("price")
    lowest_price = ps.min("price")
    shoppers = ps.distinct("user", precision=6)
    since = ps.recency()


# So long a budget that no answer is cut short: every one must do the whole job.
@app.decision("home", by="user", budget="10s")
class Home:
    candidates = [ps.seen("recent", k=50), ps.covisits("recent", k=60), ps.popular(k=300)]
    most = 200
    rank = ps.LambdaRank(
        goal="view", trees=300, leaves=63, learning_rate=0.05, min_leaf=20, most_labels=1_500, tolerance=0.0
    )
    fallback = [ps.popular(k=50)]
