"""A column that knows the future is named, whichever way it came to know, and honest ones are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import helpers
import penstock as ps
from penstock.clock import DAY, EventsClock
from penstock.commands import BUILT_IN
from penstock.evaluate import EvaluationError, roc_auc
from penstock.evaluate.leakage import auc_within_lists
from penstock.features.assemble import Read
from penstock.learn import Asks, Labels, Recipe, Replay
from penstock.printing import Printer
from penstock.registry import registered
from penstock.releases.leaks import alone, changing
from penstock.releases.training import train
from penstock.retrieve import Index, Query
from penstock.retrieve.base import Found, Source

CELL = st.one_of(st.just(float("nan")), st.sampled_from([-1.0, 0.0, 0.5, 2.0]))


@given(st.lists(st.lists(CELL, min_size=1, max_size=5), min_size=1, max_size=6), st.data())
def test_the_auc_of_a_column_is_the_mean_of_the_auc_in_each_list(lists, data):
    """Missing values are below all others; lists without a positive or without another row are passed over."""
    picks = [data.draw(st.one_of(st.none(), st.integers(0, len(one) - 1))) for one in lists]
    column = np.array([value for one in lists for value in one])
    owner = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    positive = np.array([i == pick for one, pick in zip(lists, picks, strict=True) for i in range(len(one))])
    useful = [i for i, one in enumerate(lists) if picks[i] is not None and len(one) > 1]
    low = np.nan_to_num(column, nan=-9.0)
    plain = [roc_auc(positive[owner == i], low[owner == i]) for i in useful]
    found, count = auc_within_lists(np.stack([column, -low], axis=1), positive, owner)
    assert count == len(useful)
    assert found.tolist() == pytest.approx([np.mean(plain), 1 - np.mean(plain)] if plain else [0.5, 0.5])


def test_two_positives_of_a_list_are_refused():
    """The message says so."""
    with pytest.raises(EvaluationError, match="at most one positive"):
        auc_within_lists(np.ones((2, 1)), np.ones(2, bool), np.zeros(2))


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ps.App]:
    with helpers.load_app(tmp_path_factory.mktemp("leaks")) as app:
        app.ingest(helpers.history())
        yield app


def opened(app: ps.App, kind: type[Replay] = Replay) -> tuple[Replay, Labels]:
    """The log, opened in this way, and the labels of its last day."""
    log = app.open().log
    replay = kind(app.decisions["home"].recipe, log.read(0, log.end), log.strings)
    labels = replay.labels(log.newest - DAY, log.newest + 1)
    return replay, labels.take(np.arange(0, len(labels), 3))


class Peeking(Replay):
    """Reads views as they are a day after each moment, with all that is known by then."""

    def read(self, asks: Asks) -> Read:
        end = int(self.rows.offset[-1]) + 1
        return super().read(replace(asks, now=asks.now + DAY, known=np.full(len(asks), end)))


class Hoarding(Replay):
    """Fits sources on the whole log, whatever is asked for."""

    def fit(self, before: int, seconds: dict[str, float] | None = None) -> dict[str, Index]:
        return super().fit(int(self.rows.offset[-1]) + 1, seconds)


def test_features_that_change_with_what_happens_later_are_named(app: ps.App) -> None:
    """Where views are read a day late, features of shopper and product are among them; of an honest log none is."""
    assert changing(*opened(app)) == []
    found = {leak.name: leak for leak in changing(*opened(app, Peeking))}
    assert {"Shopper.actions", "Product.actions"} <= set(found)
    assert all(leak.check == "changes" and 0 < leak.figure <= 1 for leak in found.values())


def test_sources_that_learn_from_what_happens_later_are_named(app: ps.App) -> None:
    """Co-visits, which have an index, and not those that have none."""
    found = {leak.name for leak in changing(*opened(app, Hoarding))}
    assert "covisits" in found
    assert not {"seen", "Shopper.actions"} & found


def test_a_column_that_ranks_alone_is_named_and_its_mirror_and_no_noise(app: ps.App) -> None:
    """Of a dataset with the answer planted in one column and its opposite in another."""
    replay, labels = opened(app)
    held = replay.build(labels, replay.fit(int(labels.asks.known[0])))
    names = replay.recipe.assembler.names
    assert alone(held, names) == []
    random = np.random.default_rng(2)
    rows = held.rows.copy()
    rows[:, 1] = held.positive + random.normal(0, 0.1, len(rows))
    rows[:, 2] = -rows[:, 1]
    rows[:, 3] = held.positive * 0.5 + random.normal(0, 1, len(rows))
    assert [leak.name for leak in alone(replace(held, rows=rows), names)] == [names[1], names[2]]
    few = held.owner < 20
    assert alone(replace(held, rows=rows).keep(few), names) == []


TABLE: dict[int, int] = {}


@registered("source")
@dataclass(frozen=True)
class Backfilled(Source):
    """What a job wrote down afterwards: the item that each shopper took on the last day."""

    k: int = 1
    name: str = ""

    def find(self, query: Query, index: Mapping[str, np.ndarray]) -> Found:
        item = TABLE.get(int(query.lists["user"][0]), 0)
        return Found(np.array([item][: item > 0], np.uint32), np.ones((int(item > 0), 1)))


def last_day_of_one_item_each() -> list[dict[str, object]]:
    """The history, in whose last day each shopper takes one item only, which they never took before."""
    history = helpers.history()
    last = history[-1]["time"][:10]
    taken: dict[str, str] = {}
    seen = {(event["user"], event["item"]) for event in history if event["time"][:10] < last}
    items = sorted({event["item"] for event in history})
    out = []
    for event in history:
        if event["time"][:10] == last:
            if event["user"] in taken:
                continue
            free = [item for item in items if (event["user"], item) not in seen]
            taken[event["user"]] = free[len(taken) % len(free)]
            event = {**event, "item": taken[event["user"]], "kind": "view"}
        out.append(event)
    return out


def test_training_names_a_source_that_was_filled_in_afterwards(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """In the report, in its notes for people, on the page, and in what the command prints; without it nothing is."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(last_day_of_one_item_each())
        log = app.open().log
        recipe: Recipe = app.decisions["home"].recipe
        recipe = replace(recipe, rank=replace(recipe.rank, valid="1d", labels="2d"))
        rows = log.read(0, log.end)["action"]
        final = rows.time > log.newest - log.newest % DAY
        TABLE.update(zip(rows.fields["user"][final].tolist(), rows.fields["item"][final].tolist(), strict=True))
        honest = train(recipe, log, tmp_path / "a", app="small", log_id=log.id)
        leaky = replace(recipe, sources=(*recipe.sources, Backfilled()))
        found = train(leaky, log, tmp_path / "b", app="small", log_id=log.id)
        TABLE.clear()
    assert honest.report["leaks"] == []
    assert [leak["name"] for leak in found.report["leaks"] if leak["check"] == "alone"] == ["backfilled"]
    page = (tmp_path / "b" / found.release / "report.html").read_text()
    assert "May know the future" in page
    Printer().comparison(found.report)
    assert "backfilled alone ranks the item that came next above" in capsys.readouterr().out


def test_the_app_that_comes_along_raises_no_alarm(tmp_path: Path) -> None:
    """Over a simulated shop, where shoppers come back to what they saw."""
    app = ps.load(BUILT_IN)
    app.clock = EventsClock()
    app.home = tmp_path
    frame = ps.World(seed=5, shoppers=60, items=50, categories=5, days=4, sessions=4).events().frame()
    columns = ("id", "user", "item", "kind", "category", "country")
    with app:
        app.ingest(
            {**{name: row[name] for name in columns}, "time": helpers.rfc3339(row["time"])}
            for row in frame.iter_rows(named=True)
        )
        report = app.train().report
    assert report["leaks"] == []
    assert {part["slice"] for part in report["slices"]} >= {"country", "item frequency", "user activity"}
