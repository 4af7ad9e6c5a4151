"""The audit finds nothing on an honest run, and names the feature where a decision, an event or a kernel lies."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.audit import Audit, logged, served, shuffled
from penstock.commands import BUILT_IN
from penstock.features import View
from penstock.features.view import Group
from penstock.releases import read
from penstock.serve.decisions import DIGEST

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
        self.end, self.strings, self._rows = log.end, log.strings, rows

    def read(self, start: int, stop: int) -> Any:
        return self._rows


def test_a_kernel_that_is_off_by_one_while_serving_is_named(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(home / "home", tmp_path / "home")
    (tmp_path / "home" / "decisions.sqlite").unlink()
    with helpers.load_app(tmp_path) as app:
        aggregate = type(app.views["Shopper"].features["actions"])
        honest = aggregate.value
        with monkeypatch.context() as patch:
            patch.setattr(aggregate, "value", lambda self, states, now: honest(self, states, now) + 1)
            user = helpers.history()[-1]["user"]
            for _ in range(3):
                app.decide("home", user=user)
            app.open().decisions.flush()
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
    found = shuffled(views_of(built_in), built_in.open().log, streams=3)
    assert found.streams == 3
    assert found.values > 10_000
    assert found.mismatches == {}


def test_a_window_that_begins_a_tile_too_early_is_found(built_in: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Group.oldest
    monkeypatch.setattr(Group, "oldest", lambda self, now: honest(self, now) - 1)
    found = shuffled(views_of(built_in), built_in.open().log, streams=2)
    assert "Shopper.actions_1h" in found.mismatches
    assert "Shopper.actions" not in found.mismatches
