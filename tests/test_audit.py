"""The audit finds nothing on an honest run, and names the feature where a decision, an event or a kernel lies."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock import registry
from penstock.aggregates import Count
from penstock.audit import Audit, explain, served, shuffled
from penstock.audit.crash import MOMENTS, finish, start
from penstock.audit.served import recomputed
from penstock.clock import SECOND
from penstock.commands import BUILT_IN
from penstock.engines import NaiveEngine, StreamEngine
from penstock.errors import UnavailableError
from penstock.events import SqliteLog
from penstock.features import View
from penstock.features.view import Group
from penstock.learn import Recipe
from penstock.releases import Release, read
from penstock.retrieve import Found
from penstock.serve.decisions import DIGEST, logged
from penstock.stores import LmdbStore
from penstock.types import Accepted

ASKED = 60


def decide_often(app: ps.App) -> None:
    """Live events and decisions in turn, over HTTP-free but otherwise whole serving."""
    history = helpers.history()
    users = sorted({event["user"] for event in history})
    for i in range(ASKED):
        user = users[i % len(users)]
        event = {"stream": "action", "id": f"live-{i}", "time": helpers.next_time(history, 60.0 * (i + 1))}
        app.ingest([{**event, "user": user, "item": history[i]["item"], "kind": "view"}])
        app.decide("home", user=user)
    app.open().decisions.flush()


def audit(app: ps.App, *, log: Any = None) -> Audit:
    decided = logged(app.home / "decisions.sqlite")
    releases = {name: read(app.registry.folder, name) for name in app.registry.ids()}
    return served(log or app.open().log, decided, releases)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest run, closed."""
    folder = tmp_path_factory.mktemp("honest")
    with helpers.trained(folder) as app:
        decide_often(app)
    return folder


@pytest.fixture
def app(home: Path, tmp_path: Path) -> Iterator[ps.App]:
    """A copy of the honest run, free to be tampered with."""
    shutil.copytree(home / "home", tmp_path / "home")
    with helpers.load_app(tmp_path) as app:
        yield app


def test_an_honest_run_agrees_in_every_value(app: ps.App) -> None:
    found = audit(app)
    assert found.decisions == ASKED
    assert found.values >= 10_000
    assert found.mismatches == {}
    assert found.wrong == []
    assert found.stale == 0


def test_a_decision_is_explained_by_what_it_knew_then(app: ps.App) -> None:
    """Features agree with the digests, each source says the same item as its plain definition, and later events
    change nothing of it."""
    one = next(d for d in logged(app.home / "decisions.sqlite") if d.tier == "personal")
    release = read(app.registry.folder, str(one.release))
    log = app.open().log
    told = explain(one, release, log).values
    assert told["features_agree"] is True
    assert [item["item"] for item in told["items"]] == log.strings.texts(one.items[one.shown])
    first = told["items"][0]
    assert first["features"]["Shopper.actions"] == log_count(app, one)
    for item in told["items"]:
        by = {found["source"]: found["because"] for found in item["sources"]}
        place = one.items.tolist().index(log.strings.code(item["item"]))
        assert sum(1 << [s.label for s in release.recipe.sources].index(name) for name in by) == one.found_by[place]
        for index in [release.indexes["covisits"]] if "covisits" in by else []:
            # The item that led there has this one among its neighbours, and is the shopper's own.
            at = index["items"].tolist().index(log.strings.code(by["covisits"]))
            near = index["near"][index["starts"][at] : index["starts"][at + 1]]
            assert one.items[place] in near
    app.ingest([{**helpers.history()[0], "id": "after", "time": helpers.next_time(helpers.history(), 9e4)}])
    assert explain(one, release, log).values == told
    lie = replace(one, digests=bytes(len(one.digests)))
    assert explain(lie, release, log).values["features_agree"] is False
    assert "RECOMPUTED FEATURES DIFFER" in explain(lie, release, log).lines()


def log_count(app: ps.App, one: Any) -> int:
    """How many events of the decision's shopper the log holds below its offset."""
    log = app.open().log
    rows = log.read(0, one.offset)["action"]
    return int((rows.fields["user"] == log.strings.code(one.entity)).sum())


def test_a_digest_changed_in_the_decision_log_names_its_feature(app: ps.App) -> None:
    feature = "Interest.actions"
    release = read(app.registry.folder, app.registry.ids()[0])
    at = release.recipe.assembler.names.index(feature) * DIGEST
    one = logged(app.home / "decisions.sqlite")[7]
    lie = bytearray(one.digests)
    lie[at] ^= 1
    db = sqlite3.connect(app.home / "decisions.sqlite")
    with db:
        db.execute("UPDATE decisions SET digests = ? WHERE id = ?", (bytes(lie), one.id))
    db.close()
    found = audit(app)
    assert set(found.mismatches) == {feature}
    assert found.wrong == [one.id]


def test_scores_of_what_a_source_did_not_find_are_audited_by_its_plain_definition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where serving gives the other candidates scores that are off, the audit names the columns."""
    first = Found.first.__func__  # type: ignore[attr-defined]

    def off(cls: type[Found], k: int, known: Any, scores: Any) -> Found:
        found = first(cls, k, known, scores)
        return replace(found, others=lambda items: found.others(items) + 1e-9)

    text = helpers.APP.replace('ps.covisits("recent", k=20)', 'ps.covisits("recent", k=3)')
    with helpers.trained(tmp_path, text) as app:
        decide_often(app)
        assert audit(app).mismatches == {}
        monkeypatch.setattr(Found, "first", classmethod(off))
        app.decide("home", user=helpers.history()[0]["user"])
        app.open().decisions.flush()
        found = audit(app)
        assert set(found.mismatches) == {"covisits", "covisits.last", "covisits.rank"}
        assert len(found.wrong) == 1


def test_a_release_of_before_such_scores_is_served_and_audited_as_it_was_trained(tmp_path: Path) -> None:
    """Its written recipe does not say: a candidate has the scores of the sources that found it, and no others."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(helpers.history())
        decision = app.decisions["home"]
        old = replace(decision.recipe, others=False)
        spec = old.spec()
        del spec["others"]
        assert Recipe.from_spec(spec).others is False
        assert Recipe.from_spec(decision.recipe.spec()).others is True
        app.decisions["home"] = replace(decision, recipe=old)
        app.train()
        app.decisions["home"] = decision
        decide_often(app)
        found = audit(app)
        assert (found.decisions, found.mismatches) == (ASKED, {})
        one = logged(app.home / "decisions.sqlite")[-1]
        release = read(app.registry.folder, str(one.release))
        assert isinstance(release, Release)
        log = app.open().log
        naive = NaiveEngine(log.read(0, log.end), list(release.recipe.views), log.strings)
        scores = recomputed(one, release, naive, log.strings).scores
        covisits = [source.label for source in release.recipe.sources].index("covisits")
        column = release.recipe.assembler.scores.index("covisits")
        found_by = (one.found_by >> covisits) & 1 == 1
        np.testing.assert_array_equal(~np.isnan(scores[:, column]), found_by)
        assert not found_by.all()


def test_an_event_moved_in_time_is_found_in_what_depends_on_time(app: ps.App) -> None:
    log = app.open().log
    rows = log.read(0, log.end)
    part = rows["action"]
    one = logged(app.home / "decisions.sqlite")[-1]
    user = log.strings.code(one.entity)
    mine = np.flatnonzero((part.fields["user"] == user) & (part.offset < one.offset))[-1]
    part.time[mine] -= 2 * 3_600_000_000
    found = audit(app, log=Tampered(log, rows))
    assert "Shopper.since" in found.mismatches
    assert "Shopper.actions_1h" in found.mismatches
    assert "Shopper.actions" not in found.mismatches
    assert one.id in found.wrong


class Tampered:
    """A log whose rows were changed after the fact."""

    def __init__(self, log: Any, rows: Any) -> None:
        self.end, self.strings, self.erasures, self._rows = log.end, log.strings, log.erasures, rows

    def read(self, start: int, stop: int) -> Any:
        return self._rows


def test_a_kernel_that_is_off_by_one_while_serving_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "home", tmp_path / "home")
    (tmp_path / "home" / "decisions.sqlite").unlink()
    honest = Count.value
    with monkeypatch.context() as patch:
        patch.setattr(Count, "value", lambda self, states, now: honest(self, states, now) + 1)
        with helpers.load_app(tmp_path) as app:
            for _ in range(3):
                app.decide("home", user=helpers.history()[-1]["user"])
    with helpers.load_app(tmp_path) as app:
        found = audit(app)
    counts = {"Shopper.actions", "Shopper.actions_1h", "Product.actions", "Product.actions_1d", "Interest.actions"}
    assert counts <= set(found.mismatches)
    assert "Shopper.since" not in found.mismatches
    assert len(found.wrong) == 3


@pytest.fixture
def built_in(tmp_path: Path) -> Iterator[ps.App]:
    """The app that comes along, with simulated events."""
    with helpers.load_app(tmp_path, BUILT_IN.read_text()) as app:
        app.ingest(helpers.history())
        yield app


def views_of(app: ps.App) -> list[View]:
    return list(app.views.values())


def test_disorder_duplicates_and_crashes_change_nothing_in_the_app_that_comes_along(built_in: ps.App) -> None:
    """Every stream goes through a kill -9, and the log drops what is delivered again: the same bytes all the same."""
    found = shuffled(views_of(built_in), built_in.open().log, streams=7)
    assert (found.streams, found.crashes) == (7, 7)
    assert found.duplicates > 500
    assert found.values > 20_000
    assert found.mismatches == {}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_crash_is_a_kill_that_leaves_what_it_says(built_in: ps.App, tmp_path: Path, moment: str) -> None:
    """The process ends by signal 9; the log has its last batch, the store only where it came to commit it."""
    views, event = views_of(built_in), Accepted("action", "e", SECOND, ("u", "i", "view", *[None] * 7))
    assert len(event.values) == len(views[0].schema.fields)
    batches = [[(replace(event, id=f"{n}"), SECOND)] for n in range(4)]
    process = start(tmp_path, views, batches, moment)
    finish(process, tmp_path)
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "store" / "open-since-boot").exists()
    with closing(SqliteLog(tmp_path / "log.sqlite")) as log, closing(LmdbStore(tmp_path / "store")) as store:
        assert log.end == 4
        assert not store.rebuilt
        with store.snapshot() as snapshot:
            assert snapshot.offset == (4 if moment == "applied" else 3)


def test_a_log_that_does_not_drop_duplicates_is_found(built_in: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SqliteLog, "_claim", lambda self, db, hashes, first: [True] * len(hashes))
    found = shuffled(views_of(built_in), built_in.open().log, streams=2)
    assert found.duplicates == 0
    assert {"log.action", "Shopper.actions", "Product.actions"} <= set(found.mismatches)


@pytest.mark.parametrize("shift", [-20, 20], ids=["applies a batch twice", "leaves a batch out"])
def test_an_engine_that_goes_on_from_the_wrong_offset_after_a_crash_is_found(
    built_in: ps.App, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    honest = StreamEngine.add

    def add(self: StreamEngine, views: list[View]) -> None:
        honest(self, views)
        self._applied = {version: max(0, done + shift) for version, done in self._applied.items()}

    monkeypatch.setattr(StreamEngine, "add", add)
    # An engine that looks at its store first would notice by itself.
    monkeypatch.setattr(StreamEngine, "_left_so", lambda *asked: True)
    found = shuffled(views_of(built_in), built_in.open().log, streams=1)
    assert {"Shopper.actions", "Product.actions"} <= set(found.mismatches)
    assert not any(name.startswith("log.") for name in found.mismatches)


OWN = """
from dataclasses import dataclass

import penstock as ps
from penstock.registry import registered

app = ps.App("own")


@registered("aggregate")
@dataclass(frozen=True)
class Tally(type(ps.count())):
    pass


class Action(ps.Event):
    user: str
    item: str
    kind: str


@app.view(on=Action, by="user")
class Shopper:
    actions = Tally()
"""


def test_an_app_with_an_aggregate_of_its_own_is_crashed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that is killed loads the app's file; where it cannot, that is said and nothing counts as proved."""
    monkeypatch.setitem(registry._KINDS, "aggregate", dict(registry._KINDS["aggregate"]))
    with helpers.load_app(tmp_path, OWN, name="own.py") as app:
        app.ingest(helpers.history()[:300])
        found = shuffled(views_of(app), app.open().log, streams=1)
        assert (found.crashes, found.mismatches) == (1, {})
        (tmp_path / "own.py").unlink()
        with pytest.raises(UnavailableError, match=r"comes as far as its crash; got .*own\.py.*; define aggregates"):
            shuffled(views_of(app), app.open().log, streams=1)


def test_a_window_that_begins_a_tile_too_early_is_found(built_in: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Group.oldest
    monkeypatch.setattr(Group, "oldest", lambda self, now: honest(self, now) - 1)
    found = shuffled(views_of(built_in), built_in.open().log, streams=2)
    assert "Shopper.actions_1h" in found.mismatches
    assert "Shopper.actions" not in found.mismatches
