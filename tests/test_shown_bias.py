"""A ranker that learns from what was shown undoes the bias of positions, and weighs several goals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.clock import HOUR, MINUTE, SECOND
from penstock.errors import DefinitionError
from penstock.learn import Asks, Impressions, LambdaRank, Recipe, Replay, examination, fit_trees, join_outcomes
from penstock.learn.position import PositionError
from penstock.learn.propensity import beside_trees
from penstock.learn.recipe import Candidates
from penstock.registry import from_spec, to_spec
from penstock.releases.training import train

WIDTH, DECISIONS = 8, 4_000
WORLD = ps.World(seed=4, shoppers=80, items=60, categories=6, days=2, sessions=5)


@dataclass
class Shop:
    """An app whose log holds a history, and what was viewed of simulated answers."""

    app: ps.App
    shown: Impressions
    relevance: np.ndarray

    @property
    def recipe(self) -> Recipe:
        return self.app.decisions["home"].recipe

    def ranked_by(self, **options: Any) -> Recipe:
        return replace(self.recipe, rank=replace(self.recipe.rank, **options))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Answers that put what costs much first, more or less; a click shows as a view 10 s later."""
    text = helpers.APP.replace("    kind: str\n", "    kind: str\n    price: ps.Money | None = None\n", 1)
    text = text.replace(
        'ps.distinct("user", precision=4)', 'ps.distinct("user", precision=4)\n    price = ps.max("price")'
    )
    with helpers.load_app(tmp_path_factory.mktemp("shop"), text) as app:
        yield simulated(app)


def simulated(app: ps.App) -> Shop:
    random = np.random.default_rng(0)
    frame = WORLD.events().frame().filter(kind="view")
    columns = (frame[name].to_list() for name in ("id", "time", "user", "item", "price"))
    history = [
        {"stream": "action", "id": id, "time": helpers.rfc3339(time), "user": user, "item": item, "kind": "view",
         "price": price / 100}
        for id, time, user, item, price in zip(*columns, strict=True)
    ]  # fmt: skip
    app.ingest(history)
    log = app.open().log
    end = log.newest
    # The same few products again and again to a shopper: what differs is where they stand.
    users = random.permutation(sorted({int(user[2:]) for user in frame["user"]}))
    menu = {user: random.choice(WORLD.items, WIDTH, replace=False) for user in users.tolist()}
    dear = WORLD.catalogue.list_dearness
    user, slates = random.choice(users, DECISIONS), np.zeros((DECISIONS, WIDTH), np.int64)
    for i, one in enumerate(user.tolist()):
        score = dear[menu[one]] + 0.35 * random.normal(size=WIDTH)
        slates[i] = menu[one][np.argsort(-score)]
    clicked = WORLD.clicks(user, slates, random)
    now = end + (1 + np.arange(DECISIONS)) * MINUTE // 4
    known = log.end + np.cumsum(clicked.sum(axis=1)) - clicked.sum(axis=1)
    app.ingest(
        [
            {"stream": "action", "id": f"click-{i}-{k}", "time": helpers.rfc3339(int(now[i]) + 10 * SECOND + k),
             "user": WORLD.crowd.id[user[i]], "item": WORLD.catalogue.id[slates[i, k]], "kind": "view",
             "price": int(WORLD.catalogue.price[slates[i, k]]) / 100}
            for i, k in np.argwhere(clicked).tolist()
        ]
    )  # fmt: skip
    codes = np.array([log.strings.code(id) for id in WORLD.catalogue.id], np.uint32)
    keys = np.array([log.strings.code(WORLD.crowd.id[one]) for one in user], np.uint32)
    shown = Impressions(Asks(keys, now, known, {}), np.repeat(np.arange(DECISIONS), WIDTH), codes[slates].ravel())
    return Shop(app, shown, WORLD.relevance(user[:, None], slates))


def opened(shop: Shop, recipe: Recipe) -> Replay:
    log = shop.app.open().log
    return Replay(recipe, log.read(0, log.end), log.strings)


def test_places_count_within_each_answer_and_follow_the_decisions_that_are_taken() -> None:
    """Places are from 0 in every answer, whatever their lengths, and stay so for some of the decisions."""
    asks = Asks(*(np.arange(3).astype(t) for t in (np.uint32, np.int64, np.int64)), {})
    shown = Impressions(asks, np.array([0, 0, 0, 1, 2, 2]), np.arange(6, dtype=np.uint32))
    assert shown.place.tolist() == [0, 1, 2, 0, 0, 1]
    some = shown.take(np.array([0, 2]))
    assert (some.place.tolist(), some.owner.tolist(), some.item.tolist()) == (
        [0, 1, 2, 0, 1],
        [0, 0, 0, 1, 1],
        [0, 1, 2, 4, 5],
    )
    assert shown.between(1, 3).item.tolist() == [3, 4, 5]


@pytest.mark.parametrize(("how", "within"), [("harvest", 0.1), ("em", 0.3)])
def test_examination_is_estimated_from_what_decisions_showed(shop: Shop, how: Any, within: float) -> None:
    """Near the simulator's, on average over positions, where click rates by position are off by far more. The click
    model is as good as the features tell relevance: they lack the shopper's taste."""
    recipe = shop.ranked_by(position_bias=how, examples="shown", window="12s")
    replay = opened(shop, recipe)
    as_of = int(replay.rows.arrived.max()) + HOUR
    found = examination(replay, shop.shown, replay.fit(int(shop.shown.asks.known[0])), as_of=as_of)
    assert found is not None
    truth = WORLD.examination(WIDTH)
    off = np.abs(found.probability / truth - 1)
    rows = {recipe.stream: replay.rows}
    came = join_outcomes(shop.shown.flat(), recipe, rows, replay.strings, window=12 * SECOND, as_of=as_of)
    rate = came.positive.reshape(-1, WIDTH).mean(axis=0)
    assert off.mean() < within
    assert off.mean() < 0.65 * np.abs(rate / rate[0] / truth - 1).mean()


def test_trees_beside_a_click_model_recover_examination_where_features_tell_relevance() -> None:
    """Items seen once each, better ones higher up: within a tenth, where click rates are off by far more."""
    random = np.random.default_rng(2)
    rows = random.normal(size=(20_000, WIDTH, 3)).astype(np.float32)
    order = np.argsort(-rows[:, :, 0] + random.normal(size=rows.shape[:2]), axis=1)
    rows = np.take_along_axis(rows, order[:, :, None], axis=1)
    relevance = 1 / (1 + np.exp(1 - rows[:, :, 0] - 0.5 * rows[:, :, 1]))
    truth = WORLD.examination(WIDTH)
    clicked = random.random(relevance.shape) < truth * relevance
    found = beside_trees(rows.reshape(-1, 3), np.tile(np.arange(WIDTH), len(rows)), clicked.ravel())
    np.testing.assert_allclose(found.probability, truth, rtol=0.1)
    rate = clicked.mean(axis=0)
    assert np.abs(rate / rate[0] / truth - 1).max() > 0.4


@pytest.mark.parametrize("first", ["not shown", "not clicked", "nothing"])
def test_trees_beside_a_click_model_need_clicks_at_the_first_position(first: str) -> None:
    """Where the first position was never shown or clicked, the others are relative to nothing: it is refused."""
    n = 0 if first == "nothing" else 400
    rows = np.random.default_rng(2).normal(size=(n, 3)).astype(np.float32)
    position = np.arange(n) % 4 + (first == "not shown")
    with pytest.raises(PositionError, match="relative to the first position"):
        beside_trees(rows, position, (np.arange(n) % 3 == 0) & (position > 0))


def rank_correlation(one: np.ndarray, two: np.ndarray) -> float:
    ranks = [np.argsort(np.argsort(x, axis=1), axis=1) for x in (one, two)]
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(*ranks, strict=True)]))


def test_outcomes_weighed_by_examination_rank_nearer_to_the_truth(shop: Shop, tmp_path: Path) -> None:
    """Trained on the same answers, scores of what was shown go with the true relevance more than without weights; the
    report says how outcomes were weighed."""
    near, importance = {}, {}
    for bias in (None, "harvest"):
        recipe = shop.ranked_by(
            position_bias=bias, examples="shown", window="12s", trees=40, valid="2h", labels="20h", tolerance=0.0,
            min_leaf=50,
        )  # fmt: skip
        log = shop.app.open().log
        replay = opened(shop, recipe)
        indexes = replay.fit(int(shop.shown.asks.known[0]))
        as_of = int(replay.rows.arrived.max())
        data = replay.judge(shop.shown, indexes, window=12 * SECOND, as_of=as_of)
        looked = examination(replay, shop.shown, indexes, as_of=as_of) if bias else None
        weight = looked.weights(data.place, recipe.rank.most_weight) if looked else None
        trees = fit_trees(recipe.rank, data.rows, data.gain, data.groups, recipe.assembler.names, weight)
        whole = replay.judge(shop.shown, indexes, window=12 * SECOND, as_of=as_of + HOUR, every=True)
        none = Candidates(*(np.zeros(0),) * 3)  # type: ignore[arg-type]
        near[bias] = rank_correlation(trees.score(whole.rows, none).reshape(-1, WIDTH), shop.relevance)
        report = train(recipe, log, tmp_path, app="small", log_id=log.id, shown=shop.shown, study=True).report
        compared = {one["name"]: one["scores"]["mrr"]["mean"] for one in report["candidates"]}
        # A study fits the very ranker that was compared, weights and all.
        assert report["learning_curve"][-1]["value"] == pytest.approx(compared["lambdarank"])
        assert any("position is looked at" in note for note in report["notes"]) == (bias is not None)
        importance[bias] = [feature["importance"] for feature in report["features"]]
    assert near["harvest"] > near[None] + 0.05
    assert importance["harvest"] != importance[None]  # the run itself weighed them too


def test_rankers_are_compared_on_outcomes_that_none_of_them_has_learned_from(shop: Shop, tmp_path: Path) -> None:
    """A decision just before the newest span teaches what had come of it by then: what came later within its window is
    what rankers are judged by."""
    recipe = shop.ranked_by(examples="shown", window="6h", trees=5, valid="2h", labels="4h", tolerance=0.0)
    log = shop.app.open().log
    replay = opened(shop, recipe)
    rows, asks = replay.rows, shop.shown.asks
    newest = int(rows.time.max()) + 1 - 2 * HOUR
    viewed: dict[tuple[int, int], list[int]] = {}
    view = log.strings.code("view")
    for kind, user, item, time in zip(
        rows.fields["kind"], rows.fields["user"], rows.fields["item"], rows.time, strict=True
    ):
        if kind == view:
            viewed.setdefault((user, item), []).append(time)
    edges = np.searchsorted(shop.shown.owner, np.arange(DECISIONS + 1))

    def came(before: int) -> int:
        """Decisions of the older spans of which something had come before a moment."""
        found = 0
        for i in np.flatnonzero((asks.now >= newest - 4 * HOUR) & (asks.now < newest)).tolist():
            items, now = shop.shown.item[edges[i] : edges[i + 1]], asks.now[i]
            found += any(
                now < time <= now + 6 * HOUR and time < before
                for item in items
                for time in viewed.get((asks.key[i], item), ())
            )
        return found

    report = train(recipe, log, tmp_path, app="small", log_id=log.id, shown=shop.shown).report
    assert report["data"]["train_labels"] == came(newest) < came(newest + 2 * HOUR)


def test_several_goals_give_each_item_the_worth_of_the_best_that_came(shop: Shop) -> None:
    """Next events carry their kind's worth; of what was shown, a purchase after a view counts as a purchase."""
    goals = {"buy": 1.0, "view": 0.1, "cart": 0.3}
    recipe = shop.ranked_by(goal=goals)
    replay = opened(shop, recipe)
    rows = replay.rows
    kinds = np.array(["view", "cart", "buy", "other"])[np.arange(len(rows)) % 4]
    fields = rows.fields.copy()
    replay.strings.code("view")
    intern = {kind: 900_000 + i for i, kind in enumerate(("view", "cart", "buy", "other"))}

    class Words:
        def text(self, code: int) -> str:
            return next((kind for kind, own in intern.items() if own == code), "")

        def code(self, text: str) -> int:
            return intern.get(text, 0)

        def texts(self, codes: Any) -> list[str]:
            return [self.text(int(code)) for code in codes]

    fields["kind"] = [intern[kind] for kind in kinds.tolist()]
    replay = Replay(recipe, {recipe.stream: replace(rows, fields=fields)}, Words())
    labels = replay.labels(int(rows.time.min()), int(rows.time.max()) + 1)
    worth = [goals.get(kind, 0.0) for kind in kinds.tolist()]
    assert labels.gain.tolist() == [one for one in worth if one]
    flat = shop.shown.flat()
    as_of = int(rows.arrived.max()) + HOUR
    came = join_outcomes(flat, recipe, {recipe.stream: replay.rows}, Words(), window=6 * HOUR, as_of=as_of)
    several = 0
    for i in range(0, len(flat.key), 97):
        after = (rows.time > flat.time[i]) & (rows.time <= flat.time[i] + 6 * HOUR)
        after &= (rows.fields["user"] == flat.key[i]) & (rows.fields["item"] == flat.item[i])
        followed = {worth[j] for j in np.flatnonzero(after).tolist()} - {0.0}
        several += len(followed) > 1
        assert came.gain[i] == max(followed, default=0.0)
        assert came.positive[i] == (came.gain[i] > 0)
    assert several > 20


def test_what_is_worth_more_on_average_is_put_first() -> None:
    """Some items are always viewed, others are bought once in five times: what a view is worth decides, with and
    without weights."""
    random = np.random.default_rng(1)
    kind = random.integers(3, size=4_000)
    rows = np.eye(3)[kind].astype(np.float32)
    viewed, bought = kind == 0, (kind == 1) & (random.random(len(kind)) < 0.2)
    groups, none = np.full(400, 10), Candidates(*(np.zeros(0),) * 3)  # type: ignore[arg-type]
    for view, first in ((0.05, 1), (0.6, 0)):
        gain = np.maximum(viewed * view, bought * 1.0)
        rank = LambdaRank(goal={"view": view, "buy": 1.0}, trees=30, min_leaf=20)
        for weight in (None, np.ones(len(rows))):
            score = fit_trees(rank, rows, gain, groups, ["a", "b", "c"], weight).score(rows, none)
            assert np.argmax([score[kind == each].mean() for each in range(3)]) == first


def test_a_ranker_of_several_goals_is_written_down_and_read_again() -> None:
    """Its definition survives JSON values; a goal of one kind and a filter stay what they were."""
    rank = LambdaRank(goal={"view": 0.1, "buy": 1.0}, examples="shown", position_bias="em")
    again = from_spec(to_spec(rank))
    assert (again.goal, again.position_bias) == ({"view": 0.1, "buy": 1.0}, "em")
    assert [worth for _, worth in again.grades] == [0.1, 1.0]
    assert [worth for _, worth in LambdaRank(goal="view").grades] == [1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"position_bias": "harvest"}, 'examples="shown"'),
        ({"position_bias": "guess", "examples": "shown"}, "position_bias='guess'"),
        ({"most_weight": 0.5}, "weighs 1 or more"),
        ({"goal": {"view": 0.0}}, "worth, more than nothing"),
        ({"goal": {}}, "several goals"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    """Each with what to write instead."""
    with pytest.raises(DefinitionError, match=message):
        LambdaRank(**{"goal": "view", **options})
