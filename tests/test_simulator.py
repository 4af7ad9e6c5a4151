"""The simulated shop obeys the truth it states: by seed, in time, in tastes, prices, positions, launches and drift."""

from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest

from penstock.clock import DAY, HOUR
from penstock.errors import DefinitionError, NotFoundError
from penstock.simulator import KINDS, Traffic, World
from penstock.simulator.crowd import liking, liking_of
from penstock.simulator.names import DEPARTMENTS

VIEW, CART, BUY, RETURN = range(4)


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=11, shoppers=1_500, items=900, new_items=0.15, returns=0.2)


@pytest.fixture(scope="module")
def traffic(world: World) -> Traffic:
    return world.events()


@pytest.fixture(scope="module")
def frame(traffic: Traffic) -> pl.DataFrame:
    return traffic.frame()


def raw(traffic: Traffic) -> bytes:
    names = ("time", "user", "item", "kind", "price", "quantity", "session")
    return b"".join(getattr(traffic, name).tobytes() for name in names)


def views(traffic: Traffic) -> tuple[np.ndarray, np.ndarray]:
    seen = traffic.kind == VIEW
    return traffic.user[seen], traffic.item[seen]


def rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(x, kind="stable")) for x in (one, two)]
    return float(np.corrcoef(*ranks)[0, 1])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, two, other = (World(seed=s, shoppers=200, items=300, days=5).events() for s in (3, 3, 4))
    assert raw(one) == raw(two)
    assert one.frame().equals(two.frame())
    assert raw(one) != raw(other)


def test_one_knob_does_not_reshuffle_the_rest() -> None:
    """A world with returns has the very views, carts and purchases of the one without."""
    knobs = {"seed": 3, "shoppers": 200, "items": 300}
    plain, returning = World(**knobs, returns=0.0).events().frame(), World(**knobs, returns=0.5).events().frame()
    kept = returning.filter(pl.col("kind") != "return")
    assert len(returning) > len(kept)
    assert kept.drop("id").equals(plain.drop("id"))


def test_events_lie_in_the_span_in_order_with_ids_of_their_own(world: World, frame: pl.DataFrame) -> None:
    assert frame["time"].is_sorted()
    assert world.start <= frame["time"].min() <= frame["time"].max() < world.end
    assert frame["id"].n_unique() == len(frame)
    assert frame.null_count().sum_horizontal().item() == 0
    assert set(frame["kind"]) == set(KINDS)
    assert (frame["price"] > 0).all()
    assert ((frame["quantity"] > 0) == (frame["kind"] != "view")).all()


def test_columns_agree_with_the_products_and_the_prices_of_the_day(
    world: World, traffic: Traffic, frame: pl.DataFrame
) -> None:
    joined = frame.join(world.products, on="item", how="left", maintain_order="left", suffix="_listed")
    assert (joined["category"] == joined["category_listed"]).all()
    bought = traffic.kind != RETURN
    day = (traffic.time - world.start) // DAY
    priced = world.catalogue.prices[day, traffic.item]
    assert (traffic.price == priced)[traffic.kind == VIEW].all()
    assert (traffic.price == priced)[bought].mean() > 0.99  # a cart filled across midnight keeps its price


def test_a_world_of_a_size_has_about_that_many_events() -> None:
    for size in (30_000, 120_000):
        assert len(World.of_size(size).events()) == pytest.approx(size, rel=0.1)


def test_shoppers_beyond_one_block_are_simulated_too() -> None:
    """Blocks bound the memory: with more shoppers than one holds, sessions stay apart and everyone takes part."""
    traffic = World(shoppers=4_500, items=200, sessions=2, views=3).events()
    owners = pl.DataFrame({"session": traffic.session, "user": traffic.user}).group_by("session").n_unique()
    assert owners["user"].max() == 1
    assert np.bincount(traffic.user // 1_500).min() > 1_000


def test_names_are_distinct_and_belong_to_their_category() -> None:
    products = World(items=4_000).products
    assert products["name"].n_unique() == len(products)
    assert products["category"].n_unique() == 24
    nouns = {d.name: d.nouns for d in DEPARTMENTS}
    assert all(name.endswith(nouns[category]) for name, category in products.select("name", "category").iter_rows())
    crowded = World(items=2_000, categories=1).products["name"]
    assert crowded.n_unique() == len(crowded)


def test_nothing_happens_to_a_product_before_its_launch(world: World, frame: pl.DataFrame) -> None:
    new = world.products.filter(pl.col("launched") > world.start)
    assert 0.1 < len(new) / world.items < 0.2
    joined = frame.join(new.select("item", "launched"), on="item")
    assert joined["item"].n_unique() > 0.9 * len(new)
    assert (joined["time"] >= joined["launched"]).all()


def test_a_return_follows_a_purchase_of_the_same_shopper_and_product(frame: pl.DataFrame) -> None:
    counts = (
        frame.filter(pl.col("kind").is_in(["buy", "return"]))
        .with_columns(change=pl.when(pl.col("kind") == "buy").then("quantity").otherwise(-pl.col("quantity")))
        .with_columns(left=pl.col("change").cum_sum().over("user", "item"))
    )
    assert (counts["kind"] == "return").sum() > 50
    assert (counts["left"] >= 0).all()


def test_a_purchase_follows_a_cart_and_a_cart_a_view(traffic: Traffic) -> None:
    """In the order of time, each (session, product) has at any moment no more carts than views, buys than carts."""
    table = pl.DataFrame({"pair": traffic.session * 10_000 + traffic.item, "kind": traffic.kind})
    counts = table.select(
        *[(pl.col("kind") == kind).cast(pl.Int32).cum_sum().over("pair").alias(KINDS[kind]) for kind in (0, 1, 2)]
    )
    assert (counts["cart"] <= counts["view"]).all()
    assert (counts["buy"] <= counts["cart"]).all()


def test_clicks_fall_with_the_position_as_the_truth_says(world: World) -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(world.shoppers, size=40_000)
    slates = rng.integers(world.items, size=(40_000, 8))
    clicks = world.clicks(users, slates, rng)
    by_position = clicks.mean(axis=0)
    np.testing.assert_allclose(by_position / by_position[0], world.examination(8), rtol=0.12)
    truth = world.true_click_probability(users, slates)
    assert clicks.mean() == pytest.approx(truth.mean(), rel=0.02)
    weighted = (clicks / world.examination(8)).mean()  # inverse propensities undo the bias
    assert weighted == pytest.approx(world.relevance(users[:, None], slates).mean(), rel=0.03)


def test_without_position_bias_every_position_is_looked_at() -> None:
    np.testing.assert_array_equal(World(position_bias=0.0).examination(5), np.ones(5))


def test_impressions_show_each_rankers_best_and_are_clicked_as_the_truth_says(world: World) -> None:
    """Slates hold the highest scores in their order unless shuffled; clicks follow examination times relevance."""
    rng = np.random.default_rng(4)
    users, candidates = rng.integers(world.shoppers, size=30), rng.integers(world.items, size=(30, 12))
    scores = rng.normal(size=(2, 30, 12))
    seen = world.impressions(users, candidates, scores, rng, sessions=40_000, positions=6, shuffled=0.25)
    assert len(seen) == 40_000
    np.testing.assert_array_equal(seen.user, users[seen.query])
    assert seen.shuffled.mean() == pytest.approx(0.25, abs=0.01)
    for i in range(200):
        order = np.argsort(-scores[seen.ranker[i], seen.query[i]], kind="stable")[:6]
        want = candidates[seen.query[i], order]
        if seen.shuffled[i]:
            assert sorted(seen.slate[i]) == sorted(want)
        else:
            np.testing.assert_array_equal(seen.slate[i], want)
    truth = world.true_click_probability(seen.user, seen.slate)
    np.testing.assert_allclose(seen.clicked.mean(axis=0), truth.mean(axis=0), rtol=0.08)
    best = candidates[seen.query, np.argmax(scores, axis=2)[seen.ranker, seen.query]]
    first = (seen.slate[:, 0] == best)[seen.shuffled]
    assert first.mean() == pytest.approx(1 / 6, abs=0.02)  # chance, not the scores, says what stands first
    with pytest.raises(DefinitionError, match="every position a candidate"):
        world.impressions(users, candidates, scores, rng, sessions=1, positions=13)


def test_trust_adds_clicks_by_position_and_leaves_events_as_they_are(world: World) -> None:
    """What is looked at is clicked with relevance + (1 − relevance) · noise; the traffic has the same bytes."""
    trusting = dataclasses.replace(world, trust=0.4)
    np.testing.assert_allclose(trusting.trust_noise(3), [0.4, 0.1, 0.4 / 9])
    rng = np.random.default_rng(2)
    users, slates = rng.integers(world.shoppers, size=40_000), rng.integers(world.items, size=(40_000, 4))
    relevance = world.relevance(users[:, None], slates)
    want = world.examination(4) * (relevance + (1 - relevance) * trusting.trust_noise(4))
    np.testing.assert_allclose(trusting.true_click_probability(users, slates), want)
    np.testing.assert_allclose(trusting.clicks(users, slates, rng).mean(axis=0), want.mean(axis=0), rtol=0.08)
    small = World(seed=3, shoppers=50, items=100, days=2)
    assert raw(dataclasses.replace(small, trust=0.4).events()) == raw(small.events())


def test_a_shopper_answers_a_slate_by_id_as_the_truth_says(world: World, traffic: Traffic) -> None:
    rng = np.random.default_rng(1)
    shown = ["p-00003", "p-00200", "p-00890"]
    answers = [world.respond("u-00017", shown, world.start + 3 * DAY, rng) for _ in range(4_000)]
    rate = [np.mean([item in answer for answer in answers]) for item in shown]
    truth = world.true_click_probability(np.array([17]), np.array([[3, 200, 890]]), day=3)[0]
    np.testing.assert_allclose(rate, truth, atol=0.03)
    with pytest.raises(NotFoundError, match="p-99999"):
        world.respond("u-00017", ["p-99999"], world.start, rng)
    with pytest.raises(NotFoundError, match="shopper by its id"):
        world.respond("somebody", shown, world.start, rng)


def test_a_higher_price_lowers_relevance_by_the_stated_response() -> None:
    world = World(shoppers=100, items=200, price_response=1.4)
    day, item = np.argwhere(world.catalogue.prices < world.catalogue.price)[0]
    users = np.arange(world.shoppers)
    logit = [np.log(p / (1 - p)) for p in (world.relevance(users, item), world.relevance(users, item, day))]
    cut = np.log(world.catalogue.price[item] / world.catalogue.prices[day, item])
    np.testing.assert_allclose(logit[1] - logit[0], 1.4 * world.crowd.thrift * cut, rtol=1e-3, atol=1e-4)


def test_offers_sell_more_only_where_shoppers_respond_to_price() -> None:
    """Purchases a view, on offer against at list price: up with a response, level without."""
    lifts = {}
    for response in (0.0, 3.0):
        world = World(seed=5, shoppers=3_000, items=300, price_response=response)
        traffic = world.events()
        offered = traffic.price < world.catalogue.price[traffic.item]
        rate = [((traffic.kind == BUY) & on).sum() / ((traffic.kind == VIEW) & on).sum() for on in (offered, ~offered)]
        lifts[response] = rate[0] / rate[1]
    assert lifts[0.0] == pytest.approx(1.0, abs=0.2)
    assert lifts[3.0] > 1.3


def test_purchases_follow_the_stated_probability(world: World, traffic: Traffic) -> None:
    """Between the truth for first looks and for second ones, and far more often where the truth is higher."""
    users, items = views(traffic)
    truth = world.buy_probability(users, items)
    again = world.buy_probability(users, items, again=True)
    assert 0.85 * truth.mean() < (traffic.kind == BUY).sum() / len(users) < again.mean()
    pair = traffic.user * world.items + traffic.item
    bought = np.isin(pair[traffic.kind == VIEW], pair[traffic.kind == BUY])
    likely = truth > np.median(truth)
    assert bought[likely].mean() > 3 * bought[~likely].mean()


def test_taste_of_pairs_is_the_taste_of_the_table(world: World) -> None:
    users, items = np.array([0, 7, 1_499]), np.array([1, 450, 899])
    table = liking(world.catalogue, world.crowd, users)
    np.testing.assert_allclose(liking_of(world.catalogue, world.crowd, users, items), table[range(3), items], rtol=1e-4)


def test_evenings_and_weekends_are_busy_only_with_a_season() -> None:
    shares = {}
    for season in (0.0, 1.0):
        world = World(seed=2, shoppers=1_000, items=300, season=season)
        since = world.events().time - world.start
        hour, weekend = since // HOUR % 24, since // DAY % 7 >= 5
        evening = ((hour >= 18) & (hour < 22)).sum() / ((hour >= 1) & (hour < 5)).sum()
        shares[season] = (evening, weekend.mean() / (2 / 7))
    assert shares[0.0] == (pytest.approx(1.0, abs=0.25), pytest.approx(1.0, abs=0.08))
    assert shares[1.0][0] > 8
    assert shares[1.0][1] > 1.12


def test_drift_changes_popularity_from_its_day_on() -> None:
    """Popularity before and after `drift_day` go together without drift, hardly with it; before it nothing differs."""
    popular = {}
    for drift in (0.0, 1.0):
        traffic = (world := World(seed=9, items=400, drift=drift, drift_day=8)).events()
        late = traffic.time >= world.start + 8 * DAY
        popular[drift] = [np.bincount(traffic.item[part], minlength=400) for part in (~late, late)]
    assert rank_correlation(*popular[0.0]) > rank_correlation(*popular[1.0]) + 0.2
    assert rank_correlation(popular[0.0][0], popular[1.0][0]) > 0.95
    calm, stirred = (World(seed=9, drift=d, drift_day=8).catalogue.popularity for d in (0.0, 1.0))
    np.testing.assert_array_equal(calm[:8], stirred[:8])


def test_shoppers_come_back_to_what_they_saw_but_seldom_to_what_they_own(world: World, traffic: Traffic) -> None:
    """Two views in five are second looks; a product bought for keeps is looked at again less than half as often."""
    seen: set[tuple[int, int]] = set()
    owned: set[tuple[int, int]] = set()
    returns, owned_returns, total = 0, 0, 0
    durable = ~world.catalogue.consumable
    for user, item, kind in zip(traffic.user.tolist(), traffic.item.tolist(), traffic.kind.tolist(), strict=True):
        pair = (user, item)
        if kind == VIEW:
            total += 1
            returns += pair in seen
            owned_returns += pair in owned
            seen.add(pair)
        elif kind == BUY and durable[item]:
            owned.add(pair)
    assert 0.35 < returns / total < 0.5
    assert owned_returns / len(owned) < 0.5 * returns / len(seen)


def test_the_next_view_is_told_by_neighbours_tastes_and_popularity(world: World, traffic: Traffic) -> None:
    """Each source of signal beats chance by far: the known transitions, the known tastes, what is popular."""
    users, items = views(traffic)
    order = np.argsort(users, kind="stable")
    users, items = users[order], items[order]
    same = users[1:] == users[:-1]
    last, after = items[:-1][same], items[1:][same]
    slots = world.catalogue.neighbours.shape[1]
    moved = (world.catalogue.neighbours[last] == after[:, None]).any(axis=1).mean()
    assert moved > 10 * slots / world.items
    rng = np.random.default_rng(0)
    liked = liking_of(world.catalogue, world.crowd, users, items)
    assert (liked > liking_of(world.catalogue, world.crowd, users, rng.permutation(items))).mean() > 0.65
    counts = np.sort(np.bincount(items, minlength=world.items))[::-1]
    assert counts[:20].sum() / len(items) > 4 * 20 / world.items
    assert rank_correlation(np.bincount(items, minlength=world.items), world.catalogue.popularity.mean(axis=0)) > 0.5


@pytest.mark.parametrize(
    ("knob", "message"),
    [
        ({"shoppers": 0}, "shoppers is at least 1; got 0"),
        ({"categories": 25}, "categories is at least 1 and at most 24; got 25"),
        ({"returns": 1.5}, "returns is at least 0 and at most 1; got 1.5"),
        ({"drift": float("nan")}, "drift is at least 0"),
        ({"items": 30}, "every category has at least two items; got 30 items in 24 categories"),
    ],
)
def test_a_knob_out_of_range_is_refused_with_the_rule(knob: dict[str, float], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        dataclasses.replace(World(), **knob)


def test_the_smallest_world_is_still_a_world() -> None:
    tiny = World(shoppers=1, items=2, categories=1, days=1, tastes=1, sessions=0.01)
    assert len(tiny.events()) == len(tiny.events().frame())
