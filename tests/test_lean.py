"""A costly source has to earn its place: the release is made without it where the ranker is about as good so."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.clock import DAY
from penstock.learn import Replay, dataset
from penstock.registry import from_spec
from penstock.releases import read
from penstock.releases.lean import lean, without
from penstock.releases.parts import label_part

SMALL = "width=8, epochs=1, length=10"
TEXT = helpers.APP.replace(
    'candidates = [ps.seen("recent", k=20),',
    f'candidates = [ps.seen("recent", k=20), ps.attention("recent", k=20, {SMALL}),',
)


def replayed(app: ps.App) -> Replay:
    log = app.open().log
    return Replay(app.decisions["home"].recipe, log.read(0, log.end), log.strings)


def test_rows_without_a_source_are_those_of_a_decision_that_never_had_it(tmp_path: Path) -> None:
    """Candidates, scores, places, features and labels are what the leaner recipe makes of the same log, to the bit."""
    with helpers.load_app(tmp_path, TEXT) as app:
        app.ingest(helpers.history())
        replay = replayed(app)
        recipe = replay.recipe
        leaner = lean(recipe)
        assert leaner is not None
        assert [source.label for source in leaner.sources] == ["seen", "covisits", "popular_1d"]
        end = int(replay.rows.time.max()) + 1
        span = (end - DAY, end)
        whole = label_part(replay, span, negatives=None)[1]
        wanted = label_part(replay.of(leaner), span, negatives=None)[1]
        found = without(whole, recipe, leaner)
        assert len(found.rows) < len(whole.rows)
        np.testing.assert_array_equal(found.groups, wanted.groups)
        for one, other in zip(found.candidates, wanted.candidates, strict=True):
            order, same = np.argsort(one.items), np.argsort(other.items)
            np.testing.assert_array_equal(one.items[order], other.items[same])
            np.testing.assert_array_equal(one.scores[order], other.scores[same])
            np.testing.assert_array_equal(one.place[order], other.place[same])
        by_item = [
            np.lexsort((np.concatenate([c.items for c in part.candidates]), part.owner)) for part in (found, wanted)
        ]
        np.testing.assert_array_equal(found.rows[by_item[0]], wanted.rows[by_item[1]])
        np.testing.assert_array_equal(found.positive[by_item[0]], wanted.positive[by_item[1]])


def test_what_a_costly_source_left_no_room_for_is_compared_without_it(tmp_path: Path) -> None:
    """Where a decision takes fewer candidates than its sources find, the ranker without the network is, to the bit, the
    one of an app that never had it."""
    few = "    most = 25\n"
    figures = []
    for number, text in enumerate((TEXT + few, helpers.APP + few)):
        (folder := tmp_path / str(number)).mkdir()
        with helpers.load_app(folder, text) as app:
            app.ingest(helpers.history())
            report = app.train(promote=False).report
        figures.append(next(one["scores"] for one in report["candidates"] if one["name"] == "lambdarank"))
    assert figures[0] == figures[1]


def test_seconds_to_learn_are_of_one_index_and_what_it_went_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock on which each fit takes a second: sources that begin anew take one however often they are fitted, a
    network as many as the fits that led to it."""
    with helpers.load_app(tmp_path, TEXT) as app:
        app.ingest(helpers.history())
        replay = replayed(app)
        monkeypatch.setattr(dataset, "perf_counter", itertools.count().__next__)
        end = app.open().log.end
        told: list[dict[str, float]] = []
        for before in (end // 4, end // 2, end):
            seconds: dict[str, float] = {}
            replay.fit(before, seconds)
            told.append(seconds)
        assert [one["attention"] for one in told] == [1, 2, 3]
        assert [one["covisits"] for one in told] == [1, 1, 1]
        again: dict[str, float] = {}
        replay.fit(end // 2, again)
        assert again == told[1]


def released(app: ps.App, tolerance: float) -> tuple[Any, Any]:
    decision = app.decisions["home"]
    rank = replace(decision.recipe.rank, tolerance=tolerance)
    app.decisions["home"] = replace(decision, recipe=replace(decision.recipe, rank=rank))
    trained = app.train()
    return trained, read(app.home / "releases", trained.release)


def test_a_source_that_brings_nothing_is_not_released(tmp_path: Path) -> None:
    """An untrained network loses nothing when it is left out, neither its scores nor its index are in the release, and
    the release answers."""
    with helpers.load_app(tmp_path, TEXT) as app:
        app.ingest(helpers.history())
        trained, release = released(app, 0.1)
        assert {"lambdarank", "lambdarank+attention"} <= {one["name"] for one in trained.report["candidates"]}
        assert trained.chosen != "lambdarank+attention"
        assert "attention" not in {source.label for source in release.recipe.sources}
        assert {"seen", "covisits", "popular_1d"} <= set(release.indexes)
        assert "attention" not in release.indexes
        assert app.decide("home", user="u1").items


ORDER = """
import penstock as ps

app = ps.App("order")


class Action(ps.Event):
    user: str
    item: str
    kind: str


@app.view(on=Action, by="user")
class Shopper:
    recent = ps.last("item", k=20)


@app.decision("home", by="user", budget="10s", k=10)
class Home:
    candidates = [
        ps.covisits("recent", k=20, recent=1, backward=0.0, steps=1),
        ps.attention("recent", k=20, width=16, epochs=30, length=10, rate=1e-2, batch=16),
    ]
    rank = ps.LambdaRank(goal="view", trees=10, min_leaf=5, valid="1d", labels="2d", tolerance=0.02)
    fallback = [ps.popular(window="7d", k=20, name="popular_all")]
"""


def test_a_source_that_alone_knows_what_comes_next_is_released(tmp_path: Path) -> None:
    """Where what follows depends on the two items before, pairs of items do not tell it, and the network does."""
    random = np.random.default_rng(3)
    events = []
    for step in range(1_500):
        first, second = (int(code) for code in random.integers(0, 4, 2))
        for place, item in enumerate((f"a{first}", f"b{second}", f"c{4 * first + second}")):
            time = 1_700_000_000 + step * 300 + place
            events.append({"id": f"{step}-{place}", "time": time, "user": f"u{step}", "item": item, "kind": "view"})
    with helpers.load_app(tmp_path, ORDER) as app:
        app.ingest(events)
        trained, release = released(app, 0.02)
        assert trained.chosen in ("lambdarank+attention", "attention")
        assert "attention" in {source.label for source in release.recipe.sources}


def test_what_is_always_wanted_is_no_question(tmp_path: Path) -> None:
    """With `always` there is nothing to leave out; nor where a rule needs its vectors, or a column reads its score."""
    with helpers.load_app(tmp_path, TEXT.replace(SMALL, f"{SMALL}, always=True")) as app:
        assert lean(app.decisions["home"].recipe) is None
        assert app.decisions["home"].wanted == frozenset()
    rule = TEXT.replace("    fallback =", '    rerank = [ps.rerank.mmr("item", vectors="attention")]\n    fallback =')
    (tmp_path / "rule").mkdir()
    with helpers.load_app(tmp_path / "rule", rule) as app:
        decision = app.decisions["home"]
        assert "attention" in decision.wanted
        assert lean(decision.recipe, decision.wanted) is None
        assert lean(decision.recipe) is not None
    reads = TEXT.replace("ps.LambdaRank(", 'ps.LambdaRank(request={"near": col("attention") > 0}, ').replace(
        "import penstock as ps", "import penstock as ps\nfrom polars import col"
    )
    (tmp_path / "other").mkdir()
    with helpers.load_app(tmp_path / "other", reads) as app:
        assert lean(app.decisions["home"].recipe) is None


@pytest.mark.parametrize("name", ["covisits", "seen", "popular", "session_neighbours", "similar"])
def test_plain_sources_are_not_costly(name: str) -> None:
    """Only what trains a network is."""
    assert not from_spec({"kind": "source", "type": name}).costly
    assert from_spec({"kind": "source", "type": "two_tower"}).costly
