"""Search end to end: a request's words reach training, serving and audit alike, and the shop window shows what was
decided."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from polars import col

import helpers
import penstock as ps
from penstock.audit import served
from penstock.clock import DAY, HOUR
from penstock.commands import served_audit
from penstock.demo.window import catalogue_of
from penstock.errors import DefinitionError
from penstock.learn import Fusion, Recipe, Replay, load
from penstock.learn.dataset import latest_texts
from penstock.releases import Release, read
from penstock.serve.decisions import impressions
from penstock.serve.server import BackgroundServer
from penstock.shop import pages
from penstock.shop.catalogue import Catalogue, Product
from serving import Client
from test_shop import Browser, Page

WORLD = ps.World(seed=3, shoppers=80, items=60, categories=6, days=4, sessions=5, searches=0.4)
PLAIN = replace(WORLD, searches=0.0)
NOVEL = "cheap walnut lamps please"
"""Words of which the log has never seen the whole, but parts."""

APP = (
    helpers.APP.replace(
        "    kind: str\n",
        "    kind: str\n    name: str | None = None\n    category: str | None = None\n    query: str | None = None\n",
    )
    + """

from polars import col


@app.view(on=Action, by=("query", "item"))
class Match:
    clicks = ps.count()


@app.decision("search", by="user", budget="10s", k=10, context=["query"])
class Search:
    candidates = [
        ps.lexical("query", fields={"name": 4, "category": 2}, k=30),
        ps.semantic("query", fields=["name", "category"], dims=16, k=10),
    ]
    rank = ps.LambdaRank(
        goal=(col("kind") == "view") & col("query").is_not_null(), trees=10, min_leaf=20, most_labels=150, labels="2d"
    )
    fallback = [ps.popular(window="7d", k=20, name="popular_all")]
"""
)


@cache
def _events() -> tuple[dict[str, Any], ...]:
    frame = WORLD.events().frame().join(WORLD.products["item", "name"], on="item", maintain_order="left")
    columns = ("id", "time", "user", "item", "kind", "name", "category", "query")
    rows = frame.select(columns).iter_rows(named=True)
    return tuple({"stream": "action", **row, "time": helpers.rfc3339(row["time"])} for row in rows)


def history() -> list[dict[str, Any]]:
    """The events of a simulated shop in which two views in five came from a search."""
    return list(_events())


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ps.App]:
    """Both decisions with a release in charge, and the shop's catalogue, which holds a product that no event names."""
    with helpers.load_app(tmp_path_factory.mktemp("search"), APP) as app:
        app.ingest(history())
        app.train("home")
        app.train("search")
        fresh = Product("p-new", "Walnut zeppelin", "lamps", "Nobody", 100)
        Catalogue([*catalogue_of(WORLD).products, fresh]).write(app.home)
        yield app


def released(app: ps.App) -> Release:
    found = read(app.registry.folder, str(app.decide("search", user="anyone", context={"query": "lamp"}).release))
    assert isinstance(found, Release)
    return found


def names(app: ps.App, query: str, user: str = "stranger", k: int = 10) -> list[str]:
    said = {product["item"]: product["name"] for product in WORLD.products.iter_rows(named=True)}
    return [said[item.id] for item in app.decide("search", user=user, context={"query": query}, k=k).items]


# Deciding


def test_a_search_answers_words_that_the_log_has_never_seen(app: ps.App) -> None:
    """The text of a request is read as it is: nothing of it needs a code; a word half typed finds what it begins."""
    assert app.open().log.strings.code(NOVEL) == 0
    answer = app.decide("search", user="stranger", context={"query": NOVEL})
    assert (answer.tier, answer.cause) == ("personal", None)
    assert "lamp" in names(app, NOVEL)[0] or "walnut" in names(app, NOVEL)[0]
    material = re.findall(r"\w+", names(app, "lamp")[0])[1]
    assert names(app, material[:3])
    assert all(material[:3] in name.lower() for name in names(app, material[:3], k=1))


@pytest.mark.parametrize("query", ["xyzzy plugh", "", "the of xyzzy", "¡!"])
def test_words_that_mean_nothing_here_are_answered_with_what_is_popular(app: ps.App, query: str) -> None:
    answer = app.decide("search", user="stranger", context={"query": query})
    assert (answer.tier, answer.cause) == ("popular", "candidates")
    assert answer.items


def test_a_request_without_words_is_answered_too(app: ps.App) -> None:
    assert app.decide("search", user="stranger").tier == "popular"


def test_a_query_that_is_null_is_a_query_that_is_not_there(app: ps.App, server: BackgroundServer) -> None:
    """It is answered as the same request without it, in process and over HTTP."""
    answer = app.decide("search", user="stranger", context={"query": None})
    assert [item.id for item in answer.items] == [item.id for item in app.decide("search", user="stranger").items]
    with Client(server) as call:
        assert call("POST", "/v1/decide/search", {"user": "u", "context": {"query": None}}).status == 200


# Training


def test_a_label_sees_the_candidates_that_serving_would_have_found(app: ps.App) -> None:
    """For labels of the newest day: the same items and scores, to the bit, as the released sources find for the text
    that the event carried, asked as a server asks them."""
    release = released(app)
    log = app.open().log
    replay = Replay(release.recipe, log.read(0, log.end), log.strings)
    labels = replay.labels(log.newest - DAY, log.newest + 1)
    texts = [event["query"] for event in history() if event["kind"] == "view" and event["query"]]
    assert labels.asks.texts["query"].tolist() == texts[-len(labels) :]
    assert len(labels) > 50
    found = replay.candidates(labels, release.indexes)
    for place in range(0, len(labels), 7):
        user = log.strings.text(int(labels.asks.key[place]))
        asked = app.decide("search", user=user, context={"query": texts[-len(labels) :][place]}, k=60)
        assert {item.id for item in asked.items} == set(log.strings.texts(found[place].items))


def test_training_compares_each_source_their_fusion_and_the_ranker(app: ps.App) -> None:
    """And no past sessions, which know nothing of words; slices say how often the same words were searched for."""
    report = json.loads((app.registry.folder / released(app).id / "report.json").read_text())
    assert [row["name"] for row in report["candidates"]] == ["lexical", "semantic", "fusion", "lambdarank"]
    assert report["data"]["candidate_recall"] > 0.9
    assert "query frequency" in {row["slice"] for row in report["slices"]}


def test_fused_sources_are_ordered_by_their_reciprocal_ranks(app: ps.App, tmp_path: Path) -> None:
    """The sum of 1 / (60 + place) over the sources that found an item, also once it was written and loaded again."""
    release = released(app)
    log = app.open().log
    replay = Replay(release.recipe, log.read(0, log.end), log.strings)
    labels = replay.labels(log.newest - DAY, log.newest + 1)
    fused = load(tmp_path, json.loads(json.dumps(Fusion((0, 1)).save(tmp_path))))
    for one in replay.candidates(labels, release.indexes)[:20]:
        expected = [sum(1 / (61 + place) for place in row if not np.isnan(place)) for row in one.place.tolist()]
        np.testing.assert_allclose(fused.score(np.zeros((len(one.items), 0), np.float32), one), expected)


def test_what_was_shown_for_words_is_learned_from(app: ps.App) -> None:
    """Impressions carry the words themselves, so that decisions for words the log never saw are learned from, with the
    candidates' scores that serving gave them."""
    user = history()[-1]["user"]
    answer = app.decide("search", user=user, context={"query": NOVEL})
    bought = answer.items[1].id
    app.open().decisions.flush()
    decided = app.open().decisions.read(id=answer.decision_id)
    release = released(app)
    recipe = replace(release.recipe, rank=replace(release.recipe.rank, goal="buy"))
    log = app.open().log
    shown = impressions(decided, recipe, log.strings)
    assert shown.asks.context["query"].tolist() == [0]
    assert shown.asks.texts["query"].tolist() == [NOVEL]
    app.ingest([{"user": user, "item": bought, "kind": "buy", "time": helpers.next_time(history(), 60.0)}])
    replay = Replay(recipe, log.read(0, log.end), log.strings)
    data = replay.judge(shown, release.indexes, window=HOUR, as_of=log.newest + 2 * HOUR)
    assert data.positive.tolist() == [item.id == bought for item in answer.items]
    column = recipe.assembler.names.index("lexical")
    assert not np.isnan(data.rows[:, column]).all()


def test_documents_are_what_the_newest_events_say(tmp_path: Path) -> None:
    """Of each field the newest text that is there; events without it, or of earlier times that come late, change
    nothing."""
    with helpers.load_app(tmp_path, APP) as app:
        at = helpers.rfc3339
        rows = [
            {"user": "u", "item": "a", "kind": "view", "name": "Old name", "category": "lamps", "time": at(10)},
            {"user": "u", "item": "a", "kind": "view", "name": "New name", "time": at(20)},
            {"user": "u", "item": "a", "kind": "view", "name": "Late name", "time": at(15)},
            {"user": "u", "item": "b", "kind": "view", "time": at(30)},
        ]
        app.ingest(rows)
        log = app.open().log
        documents = latest_texts(
            app.decisions["search"].recipe, log.read(0, log.end)["action"], log.strings, ["name", "category"]
        )
        assert log.strings.texts(documents.items) == ["a", "b"]
        assert documents.texts == {"name": ["New name", ""], "category": ["lamps", ""]}


# Audit


def test_served_searches_are_recomputed_to_the_last_bit(app: ps.App) -> None:
    """Known and novel words, for known and unknown shoppers: no value differs; with other words, the scores do."""
    users = [event["user"] for event in history()[-5:]]
    queries = [event["query"] for event in history() if event["query"]][-5:]
    for user in (*users, "stranger"):
        for query in (*queries, NOVEL, "walnut de"):
            app.decide("search", user=user, context={"query": query})
    runtime = app.open()
    runtime.decisions.flush()
    found = served_audit(app, runtime.log, 500, 0, None)
    assert found.decisions >= 40
    assert found.mismatches == {}
    release = released(app)
    one = next(d for d in runtime.decisions.read("search", audited=True) if d.context["query"] == NOVEL)
    lie = served(runtime.log, [replace(one, context={"query": "rug"})], {release.id: release})
    assert {"lexical", "lexical.share"} <= set(lie.mismatches)


# Definitions


def recipe_with(source: Any, context: list[str]) -> Recipe:
    app = ps.App("x")

    class Action(ps.Event):
        user: str
        item: str
        kind: str
        name: str | None = None
        price: ps.Money | None = None
        query: str | None = None

    @app.view(on=Action, by="user")
    class Shopper:
        actions = ps.count()

    @app.decision("search", by="user", context=context)
    class Search:
        candidates = (source,)
        rank = ps.LambdaRank(goal="view")

    return app.decisions["search"].recipe


def test_a_search_that_cannot_work_is_refused_where_it_is_defined() -> None:
    """Words that no request carries, fields that hold no text, no fields at all, and numbers out of range."""
    good = ps.lexical("query", fields=["name"])
    assert Recipe.from_spec(recipe_with(good, ["query"]).spec()).asks == ("query",)
    with pytest.raises(DefinitionError, match=r'context=\["?\'?query'):
        recipe_with(good, [])
    with pytest.raises(DefinitionError, match="text fields of the events"):
        recipe_with(ps.lexical("query", fields=["price"]), ["query"])
    for fields in ({}, "name", {"name": 0}):
        with pytest.raises(DefinitionError, match="weight above 0"):
            ps.lexical("query", fields=fields)
    with pytest.raises(DefinitionError, match="from 1 to"):
        ps.semantic("query", fields=["name"], dims=0)
    with pytest.raises(DefinitionError, match="k1 of 0 or more"):
        ps.lexical("query", fields=["name"], k1=-1.0)


def test_a_release_of_a_search_warms_up_with_words(app: ps.App) -> None:
    """As codes, so that it names nobody and nothing anybody typed."""
    release = released(app)
    texts = app.open().log.strings
    said = {texts.text(one["context"]["query"]) for one in release.warmup}
    assert said <= {event["query"] for event in history()}
    assert "" not in said
    assert not [text for text in said if text in (app.registry.folder / release.id / "warmup.json").read_text()]


# The simulated shop


def test_searches_change_nothing_else_of_the_simulated_shop() -> None:
    """Without them every byte is as before; with them a column more, for views about as often as asked."""
    some, none = WORLD.events().frame(), PLAIN.events().frame()
    assert some.drop("query").equals(none)
    assert "query" not in none.columns
    views = some.filter(col("kind") == "view")
    assert 0.35 < views["query"].is_not_null().mean() < 0.45  # type: ignore[operator]
    assert some.filter(col("kind") == "return")["query"].is_null().all()


def test_a_purchase_carries_the_words_of_its_view_and_they_name_the_product() -> None:
    """Every searched purchase follows a view of the same product by the same shopper for the same words, and each
    word begins one of the product's name or category."""
    frame = WORLD.events().frame().join(WORLD.products["item", "name"], on="item")
    searched = frame.filter(col("query").is_not_null())
    viewed = set(searched.filter(col("kind") == "view").select("user", "item", "query").iter_rows())
    bought = searched.filter(col("kind") == "buy")
    assert len(bought) > 5
    assert set(bought.select("user", "item", "query").iter_rows()) <= viewed
    for name, category, query in searched.select("name", "category", "query").unique().iter_rows():
        words = f"{name} {category}".lower().split()
        assert all(any(own.startswith(word) for own in words) for word in query.split()), (name, query)


# The command line


def test_train_without_a_name_trains_every_decision_that_can_be(tmp_path: Path) -> None:
    """One without anything to learn from is named with the reason, and the others have their release."""
    with helpers.load_app(tmp_path, APP) as app:
        app.ingest({**event, "query": None} for event in history())
        home = app.home
    done = helpers.cli("train", "--app", tmp_path / "small.py", "--home", home, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["release"] == told["decisions"]["home"]["release"]
    assert "events match the goal" in told["decisions"]["search"]["passed_over"]
    alone = helpers.cli("train", "--decision", "search", "--app", tmp_path / "small.py", "--home", home)
    assert alone.returncode != 0
    assert "events match the goal" in alone.stderr


# The shop window


@pytest.fixture(scope="module")
def server(app: ps.App) -> Iterator[BackgroundServer]:
    with BackgroundServer(app.open(), pages=pages(app.home)) as running:
        yield running


@pytest.fixture
def browser(server: BackgroundServer) -> Iterator[Browser]:
    with Client(server) as call:
        yield Browser(call)


def test_the_search_box_shows_what_was_decided_in_its_order(app: ps.App, browser: Browser) -> None:
    """Products with every word come first, in the decision's order, and are counted; then those that come close."""
    browser.get("/shop")
    page = Page(browser.get("/shop/search?q=lamp").text.decode())
    answer = app.decide("search", user=browser.user, context={"query": "lamp"}, k=150)
    every = {
        p["item"] for p in WORLD.products.iter_rows(named=True) if "lamp" in f"{p['name']} {p['category']}".lower()
    }
    ordered = [item.id for item in answer.items]
    expected = [item for item in ordered if item in every] + ["p-new"] + [i for i in ordered if i not in every]
    assert page.items == expected[:36]
    assert f"{len(every) + 1} products for “lamp”" in page.text
    assert "from your words" in page.text


def test_a_product_that_no_event_has_named_is_found_all_the_same(browser: Browser) -> None:
    assert "p-new" in Page(browser.get("/shop/search?q=zepp").text.decode()).items


def test_a_click_on_a_result_carries_its_words_and_so_does_the_cart(app: ps.App, browser: Browser) -> None:
    """The event says which words led there: what the next training learns from."""
    found = browser.get(f"/shop/search?q={quote('table')}").text.decode()
    item = Page(found).items[0]
    assert "{&quot;item&quot;: &quot;" + item + "&quot;, &quot;query&quot;: &quot;table&quot;}" in found
    clicked = browser.post("/shop/view", {"item": item, "query": "table"})
    assert clicked.status == 200
    assert 'name="query" value="table"' in clicked.text.decode()
    browser.post("/shop/cart", {"item": item, "query": "table"})
    log = app.open().log
    rows = log.read(log.end - 2, log.end)["action"]
    assert log.strings.texts(rows.fields["query"]) == ["table", "table"]
    assert log.strings.texts(rows.fields["kind"]) == ["view", "cart"]
    assert log.strings.texts(rows.fields["name"])[0]


@pytest.mark.parametrize("text", ["", " ", '"', "AND", "name:x", "a*", "-", "😀", "\x00", "a\x00b", "'; --", "x" * 900])
def test_odd_words_over_http(browser: Browser, text: str) -> None:
    """There is a page with products for whatever is typed, and its first product can be clicked."""
    answer = browser.get(f"/shop/search?q={quote(text)}")
    assert answer.status == 200
    items = Page(answer.text.decode()).items
    assert items
    assert browser.post("/shop/view", {"item": items[0], "query": text}).status == 200


def test_words_of_other_kinds_are_refused_over_http(server: BackgroundServer) -> None:
    """Context that sources read is text: a number is told so, in the form of every refusal."""
    with Client(server) as call:
        answer = call("POST", "/v1/decide/search", {"user": "u", "context": {"query": 7}})
        assert answer.status == 422
        good = call("POST", "/v1/decide/search", {"user": "u", "context": {"query": "lamp"}})
    assert good.status == 200
    assert pl.DataFrame(json.loads(good.text)["items"])["score"].is_sorted(descending=True)
