"""A column that knows the future is named, whichever way it came to know, and honest ones are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from penstock.learn import Asks, Labels, Replay
from penstock.printing import Printer
from penstock.releases.leaks import alone, changing
from penstock.retrieve import Index

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

    def fit(
        self, before: int, seconds: dict[str, float] | None = None, kept: Mapping[str, Index] | None = None
    ) -> dict[str, Index]:
        return super().fit(int(self.rows.offset[-1]) + 1, seconds, kept)


def test_features_that_change_with_what_happens_later_are_named(app: ps.App) -> None:
    """Where views are read a day late, features of shopper and product are among them; of an honest log none is."""
    assert changing(*opened(app)) == []
    found = {leak.name: leak for leak in changing(*opened(app, Peeking))}
    assert {"Shopper.actions", "Product.actions"} <= set(found)
    assert all(leak.check == "changes" and 0 < leak.figure <= 1 for leak in found.values())


def test_sources_that_learn_from_what_happens_later_are_named(app: ps.App) -> None:
    """Co-visits, which have an index, and not those that have none."""
    replay, labels = opened(app, Hoarding)
    found = {leak.name for leak in changing(replay, labels)}
    assert "covisits" in found
    assert not {"seen", "Shopper.actions"} & found
    # A source whose index is given is not fitted, and so not found out.
    assert changing(replay, labels, replay.fit(0)) == []


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


WISHES = helpers.APP.replace("import penstock as ps", "import penstock as ps\nfrom polars import col").replace(
    "class Interest:", 'class Interest:\n    wishes = ps.count(where=col("kind") == "wish")'
)


def backdated(wishes: bool) -> list[dict[str, object]]:
    """The history, in whose last day each shopper takes one item that they never took before.

    With `wishes` a job has written down afterwards that they had wished for it, amid what they did before.
    """
    history = helpers.history()
    last = history[-1]["time"][:10]
    before: dict[str, list[dict[str, str]]] = {}
    for event in history:
        if event["time"][:10] < last:
            before.setdefault(event["user"], []).append(event)
    items = sorted({event["item"] for event in history})
    out: list[dict[str, object]] = [event for events in before.values() for event in events]
    for at, (user, events) in enumerate(before.items()):
        seen = {event["item"] for event in events}
        item = [item for item in items if item not in seen][at % 5]
        time = f"{last}T23:59:59.{at:06}Z"
        out.append({**events[0], "id": f"taken-{at}", "item": item, "kind": "view", "time": time})
        if wishes:
            time = events[max(len(events) - 8, 0)]["time"]  # recent enough to be a candidate
            out.append({**events[0], "id": f"wish-{at}", "item": item, "kind": "wish", "time": time, "user": user})
    return sorted(out, key=lambda event: str(event["time"]))


@pytest.mark.parametrize("wishes", [False, True])
def test_training_names_a_feature_of_what_was_filled_in_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wishes: bool
) -> None:
    """In the report, on its page, and in what the command prints; of the same history without it nothing is said."""
    with helpers.load_app(tmp_path, WISHES) as app:
        app.ingest(backdated(wishes))
        found = app.train(promote=False)
        page = (app.home / "releases" / found.release / "report.html").read_text()
    named = [leak["name"] for leak in found.report["leaks"]]
    assert named == (["Interest.wishes"] if wishes else [])
    assert ("May know the future" in page) == wishes
    Printer().comparison(found.report)
    said = "Interest.wishes alone ranks the item that came next above" in capsys.readouterr().out
    assert said == wishes


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
