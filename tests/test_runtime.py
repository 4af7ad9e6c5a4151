"""A running system reflects a click at once, swaps releases without a restart, and answers from a lower tier
whatever fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import helpers
import penstock as ps
from penstock.releases import Registry, read
from penstock.releases.training import train
from penstock.serve.decisions import Decided, DecisionLog
from penstock.serve.requests import Answer, DecideRequest
from penstock.serve.runtime import Runtime


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    """A release in charge over the history."""
    with helpers.trained(tmp_path) as app:
        yield app


def known_user() -> str:
    return str(helpers.history()[-1]["user"])


def click(name: str, seconds: float, item: str, user: str | None = None) -> dict[str, Any]:
    time = helpers.next_time(helpers.history(), seconds)
    return {"stream": "action", "id": name, "time": time, "user": user or known_user(), "item": item, "kind": "view"}


def last_decided(app: ps.App) -> Decided:
    log = app.open().decisions
    log.flush()
    return log.read()[-1]


def shown(answer: Answer) -> list[str]:
    return [item.id for item in answer.items]


def serving(app: ps.App) -> str | None:
    """The release that answers once everything that was asked of the writer is done."""
    app.open().refresh(wait=True)
    return app.decide("home", user=known_user()).release


# Events


def test_a_click_is_in_the_next_decision_and_in_the_features(app: ps.App) -> None:
    user = "fresh-user"
    assert app.features("Shopper", user)["actions"] == 0
    item = helpers.history()[0]["item"]
    assert app.ingest([click("c1", 1, item, user)]) == 1
    assert app.features("Shopper", user) == {"recent": [item], "actions": 1.0, "actions_1h": 1.0, "since": 0.0}
    answer = app.decide("home", user=user, k=50)
    assert answer.tier == "personal"
    assert item in shown(answer)
    assert last_decided(app).offset == app.open().log.end


def test_an_event_in_a_decision_is_durable_and_not_in_its_own_features(app: ps.App) -> None:
    app.decide("home", user=known_user())
    without = last_decided(app)
    end = app.open().log.end
    app.decide("home", user=known_user(), event=click("given", 1, helpers.history()[0]["item"]))
    given = last_decided(app)
    # Its moment and its features are those of the decision before it, to the byte.
    assert (given.digests, given.offset, given.time) == (without.digests, without.offset, without.time)
    assert given.items.tolist() == without.items.tolist()
    assert app.open().log.end == end + 1
    app.decide("home", user=known_user())
    assert last_decided(app).digests != without.digests
    app.close()
    assert app.open().log.end == end + 1


def test_a_repeated_id_counts_once_across_a_restart(app: ps.App) -> None:
    event = click("twice", 1, "p-00001", "repeater")
    assert app.ingest([event, event]) == 1
    assert app.ingest([event]) == 0
    app.close()
    app.open()
    assert app.ingest([event]) == 0
    assert app.features("Shopper", "repeater")["actions"] == 1


# Releases


def second_release(app: ps.App) -> str:
    app.ingest([click("between", 1, "p-00001")])
    return app.train(promote=False).release


def test_promote_and_rollback_swap_the_release_of_a_running_system(app: ps.App) -> None:
    first = serving(app)
    second = second_release(app)
    assert second != first
    assert serving(app) == first
    runtime = app.open()
    runtime.promote(second)
    assert serving(app) == second
    runtime.rollback(second)
    assert serving(app) == first


def test_a_pointer_moved_by_another_process_is_noticed(app: ps.App) -> None:
    first, second = serving(app), second_release(app)
    assert helpers.cli("release", "promote", second, "--home", app.home).returncode == 0
    assert serving(app) == second
    assert helpers.cli("release", "rollback", "home", "--home", app.home).returncode == 0
    assert serving(app) == first


def test_a_pointer_that_moves_back_while_a_release_loads_leaves_the_old_one_in_charge(
    app: ps.App, tmp_path: Path
) -> None:
    first = serving(app)
    runtime = app.open()
    (tmp_path / "changed.py").write_text(helpers.APP.replace('window="1h"', 'window="2h"'))
    recipe = ps.load(tmp_path / "changed.py").decisions["home"].recipe
    folder = app.home / "releases"
    second = train(recipe, runtime.log, folder, app="small", log_id=runtime.log.id).release
    with held(runtime):
        runtime.registry.promote(second)
        runtime._follower.follow()
        assert runtime.ready() == (
            False,
            {"behind": 0, "loading": [second], "without_release": [], "rules_left_out": {}},
        )
        runtime.registry.rollback("home")
    assert serving(app) == first
    assert runtime.ready()[1]["loading"] == []


@contextmanager
def held(runtime: Runtime) -> Iterator[None]:
    """Keeps the writer's thread busy for as long as the block lasts."""
    busy, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        busy.set()
        go_on.wait()

    runtime._inlet.call(wait)
    busy.wait()
    try:
        yield
    finally:
        go_on.set()


def test_a_changed_view_is_back_filled_beside_the_old_one_which_answers_meanwhile(app: ps.App, tmp_path: Path) -> None:
    first = serving(app)
    assert first is not None
    old = app.views["Shopper"].version
    runtime = app.open()
    # Another process trains a release whose Shopper counts two hours, over the same log.
    with_change = helpers.APP.replace('window="1h"', 'window="2h"')
    file = tmp_path / "changed.py"
    file.write_text(with_change)
    with held(runtime):
        done = helpers.cli("train", "--app", file, "--home", app.home, "--json")
        assert done.returncode == 0, done.stderr
        runtime._follower.follow()
        assert app.decide("home", user=known_user()).release == first
    second = str(Registry(app.home / "releases").champion("home"))
    new = next(v for v in read(app.home / "releases", second).recipe.views if v.name == "Shopper").version
    assert new != old
    assert serving(app) == second
    assert runtime.store.views()[new] == runtime.log.end
    assert app.decide("home", user=known_user()).tier == "personal"
    # Both are kept up to date and kept over a restart, since a rollback may come.
    app.ingest([click("both", 1, "p-00001")])
    assert runtime.store.views()[new] == runtime.store.views()[old] == runtime.log.end
    app.close()
    runtime = app.open()
    assert {old, new} <= set(runtime.store.views())
    assert serving(app) == second
    assert Registry(app.home / "releases").rollback("home")["release"] == first
    assert serving(app) == first
    # Once neither an app nor a champion, past or present, needs it, its tiles go.
    app.close()
    (app.home / "releases" / "promotions.jsonl").unlink()
    runtime = app.open()
    assert new not in runtime.store.views()
    assert old in runtime.store.views()


def test_a_damaged_release_is_refused_and_the_one_before_stays(app: ps.App) -> None:
    first, second = serving(app), second_release(app)
    defaults = app.home / "releases" / second / "defaults.npy"
    defaults.write_bytes(defaults.read_bytes()[:-1] + b"x")
    app.open().promote(second)
    assert serving(app) == first


def test_a_system_whose_only_release_is_damaged_starts_and_answers(app: ps.App) -> None:
    first = serving(app)
    app.close()
    (app.home / "releases" / str(first) / "recipe.json").write_text("{}")
    app.open()
    answer = app.decide("home", user=known_user())
    assert (answer.tier, answer.release) == ("popular", None)
    assert len(answer.items) == 10
    assert app.open().ready()[1]["without_release"] == ["home"]


def test_a_release_of_another_log_is_not_taken(app: ps.App, tmp_path: Path) -> None:
    release = serving(app)
    other = tmp_path / "other"
    other.mkdir()
    with helpers.load_app(other) as stranger:
        stranger.ingest(helpers.history())
        (stranger.home / "releases").mkdir()
        (app.home / "releases" / str(release)).rename(stranger.home / "releases" / str(release))
        stranger.open().promote(str(release))
        assert serving(stranger) is None


# Tiers


def test_an_unknown_shopper_gets_what_is_popular(app: ps.App) -> None:
    answer = app.decide("home", user="never-seen")
    assert answer.tier == "popular"
    assert len(answer.items) == 10
    assert answer.release is not None


def test_a_budget_that_is_gone_gives_the_fallback(app: ps.App) -> None:
    assert app.decide("home", user=known_user()).tier == "personal"
    answer = app.decide("home", user=known_user(), budget_ms=0.001)
    assert answer.tier == "popular"
    assert len(answer.items) == 10
    assert last_decided(app).digests == b""
    # What was spent in a queue is gone as well, of the decision's own budget of 10 s too.
    assert app.open().decide("home", DecideRequest(known_user()), 9_999.9).tier == "popular"


def test_a_store_that_raises_gives_the_fallback_and_is_counted(
    app: ps.App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = app.open()
    decider = runtime._decider("home")

    def broken() -> Any:
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(runtime.store, "snapshot", broken)
        answer = app.decide("home", user=known_user())
    assert answer.tier == "popular"
    assert len(answer.items) == 10
    assert decider.failures == 1
    assert "the disk is gone" in caplog.text
    assert app.decide("home", user=known_user()).tier == "personal"


def test_without_a_release_what_is_popular_answers_and_without_events_nothing(tmp_path: Path) -> None:
    with helpers.load_app(tmp_path) as app:
        nothing = app.decide("home", user="u")
        assert (nothing.tier, nothing.items, nothing.release) == ("default", [], None)
        app.ingest(helpers.history())
        answer = app.decide("home", user=known_user())
        assert (answer.tier, answer.release) == ("popular", None)
        assert len(answer.items) == 10


def test_what_is_left_out_is_never_shown(tmp_path: Path) -> None:
    """On no tier that can read features."""
    text = helpers.APP + "    leave_out = ['recent']\n"
    with helpers.trained(tmp_path, text) as app:
        for user in sorted({event["user"] for event in helpers.history()})[:20]:
            recent = set(app.features("Shopper", user)["recent"])
            answer = app.decide("home", user=user, k=100)
            assert answer.tier == "personal"
            assert answer.items
            assert recent.isdisjoint(shown(answer)), user
            hurried = app.decide("home", user=user, k=100, budget_ms=0.001)
            assert hurried.tier == "popular"
            assert hurried.items
            assert recent.isdisjoint(shown(hurried)), user


def test_every_answer_is_logged_with_what_was_shown(app: ps.App) -> None:
    answer = app.decide("home", user=known_user(), k=7)
    app.close()
    log = DecisionLog(app.home / "decisions.sqlite")
    found = log.read(id=answer.decision_id)
    log.close()
    assert len(found) == 1
    held_log = app.log()
    texts = held_log.strings.texts(found[0].items[found[0].shown])
    held_log.close()
    assert texts == shown(answer)
    assert found[0].tier == answer.tier


def test_an_unknown_decision_or_view_names_those_there_are(app: ps.App) -> None:
    with pytest.raises(ps.PenstockError, match="home"):
        app.open().decide("none", DecideRequest("u"))
    with pytest.raises(ps.PenstockError, match="Shopper"):
        app.features("None", "u")
    with pytest.raises(ps.PenstockError, match="user, item"):
        app.features("Interest", "u")
