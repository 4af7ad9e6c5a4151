"""Who is forgotten is gone: no byte of the id is left in the home, and everything else is as if they had never been."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import helpers
import penstock as ps
from helpers import cli
from penstock import forget as forgetting
from penstock.audit import served
from penstock.clock import SECOND, EventsClock
from penstock.doctor.log import log as doctors_log
from penstock.engines import NaiveEngine, StreamEngine
from penstock.errors import RequestError
from penstock.events import Rejection, SqliteLog
from penstock.features import View
from penstock.releases import read
from penstock.serve.decisions import DECISIONS, logged
from penstock.shop.catalogue import Catalogue, Known, Product
from penstock.stores import LmdbStore, MemoryStore
from penstock.types import Accepted, Progress, Store

WHO = "person-to-forget"


def holding(home: Path, text: str) -> list[str]:
    """The files of a home that hold a text, in any of the ways in which one is written."""
    spelled = {text.encode(), text.encode("utf-16-le"), json.dumps(text)[1:-1].encode()}
    files = [path for path in home.rglob("*") if path.is_file()]
    return sorted(str(path.relative_to(home)) for path in files if any(word in path.read_bytes() for word in spelled))


@contextmanager
def untold(title: str) -> Iterator[Progress]:
    yield lambda done, total: None


def known(app: ps.App) -> forgetting.App:
    return forgetting.App(list(app.views.values()), [d.recipe for d in app.decisions.values()], app.clock)


def forget(app: ps.App, field: str, value: str) -> forgetting.Found:
    """What the command does, in process; the app is closed."""
    with closing(app.log(read_only=True)) as log:
        found = forgetting.find(app.home, log, known(app), field, value, lambda done, total: None)
    forgetting.forget(app.home, found, known(app), untold)
    return found


# Random streams

STREAMS = """
import penstock as ps
from polars import col

app = ps.App("random")


class Action(ps.Event):
    user: str
    item: str
    kind: str
    note: str | None = None
    price: ps.Money | None = None


@app.view(on=Action, by="user")
class Shopper:
    recent = ps.last("item", k=4)
    spend = ps.sum("price", window="1h")
    said = ps.latest("note")
    best = ps.top_k("item", k=2)


@app.view(on=Action, by="item")
class Product:
    buys = ps.count(where=col("kind") == "buy")
    shoppers = ps.distinct("user", precision=4)
    dearest = ps.max("price", window="1d")


@app.view(on=Action, by=("user", "item"))
class Interest:
    actions = ps.count(window="1h")
    since = ps.recency()


@app.view(on=Action)
class All:
    actions = ps.count()
"""
USERS = (WHO, "ann", "bob", "person-to-forget-not")
events = st.lists(
    st.tuples(
        st.sampled_from(USERS), st.sampled_from(["i1", "i2", "i3", "only-mine"]), st.sampled_from(["view", "buy"]),
        st.sampled_from([None, "a note", "something-said-in-private"]), st.none() | st.integers(0, 10_000),
        st.integers(0, 7_200), st.integers(0, 1_000),
    ),
    min_size=1, max_size=60,
)  # fmt: skip


def appended(app: ps.App, drawn: list[tuple[Any, ...]], kept: list[int], segment: int = 16) -> None:
    """Events at places `kept`, with ids and arrivals that their place gives them; the first ones archived."""
    accepted = [
        Accepted("action", f"e{i}", (1_000_000 + drawn[i][5]) * SECOND, drawn[i][:5]) for i in kept
    ]  # fmt: skip
    arrived = [event.time + drawn[i][6] * SECOND for event, i in zip(accepted, kept, strict=True)]
    schemas = [view.schema for view in app.views.values()][:1]
    with closing(SqliteLog(app.home / "log.sqlite", schemas, segment=segment)) as log:
        log.append(accepted, arrived)
        log.archive(log.end // 2)


def keys_of(view: View, app: ps.App, store: Store) -> set[str]:
    """The keys that a store holds of a view, as text."""
    texts = app.open().log.strings.texts
    return {",".join(texts(np.frombuffer(key, ">u4").astype(np.uint32))) for key, _ in store.scan(view.version)}


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(drawn=events)
def test_all_others_are_as_if_they_had_been_the_only_ones(drawn: list[tuple[Any, ...]]) -> None:
    """Store and features equal those of a system that was only ever given the others' events, by the stream engine
    and by the naive one; the store is that of a rebuild, to the byte; and no byte of the person is left."""
    drawn = [*drawn, (WHO, "i1", "view", "something-said-in-private", 5, 7_300, 0)]
    others = [i for i, event in enumerate(drawn) if event[0] != WHO]
    with TemporaryDirectory() as folder:
        (Path(folder) / "random.py").write_text(STREAMS)
        app, other = ps.load(Path(folder) / "random.py"), ps.load(Path(folder) / "random.py")
        app.home, other.home = Path(folder) / "home", Path(folder) / "other"
        app.clock, other.clock = EventsClock(), EventsClock()
        appended(app, drawn, list(range(len(drawn))))
        app.open()
        app.close()
        app.clock = EventsClock()
        appended(other, drawn, others)
        found = forget(app, "user", WHO)
        assert sum(found.events.values()) == len(drawn) - len(others)
        said = any(drawn[i][3] == "something-said-in-private" for i in others)
        left = holding(app.home, "something-said-in-private")
        assert bool(left) == said
        assert not [name for name in holding(app.home, WHO) if not any(drawn[i][0].startswith(WHO) for i in others)]
        with app, other:
            log, store = app.open().log, app.open().store
            assert log.newest == other.open().log.newest
            assert log.strings.code(WHO) == 0
            rows = other.open().log.read(0, other.open().log.end)
            naive = NaiveEngine(rows, list(other.views.values()), other.open().log.strings)
            rebuilt = MemoryStore()
            StreamEngine(log, rebuilt, list(app.views.values())).catch_up()
            for name, view in app.views.items():
                assert dict(store.scan(view.version)) == dict(rebuilt.scan(view.version))
                keys = keys_of(view, app, store)
                assert keys == keys_of(other.views[name], other, other.open().store)
                for key in keys:
                    mine = app.features(name, key)
                    assert mine == other.features(name, key)
                    codes = tuple(other.open().log.strings.code(part) for part in key.split(",") if view.by)
                    plain = naive.value(other.views[name], codes, other.open().log.newest, None)
                    for feature, value in plain.items():
                        if isinstance(mine[feature], float):
                            assert mine[feature] == value


# A whole home


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.py and a home: events, a release, decisions of many, dead letters, a shop window."""
    folder = tmp_path_factory.mktemp("whole")
    history = [
        {**event, "user": WHO} if event["user"] == helpers.history()[0]["user"] else event
        for event in helpers.history()
    ]
    with helpers.trained(folder, events=history) as app:
        for i, user in enumerate([WHO, *sorted({event["user"] for event in history} - {WHO})][:12]):
            when = helpers.next_time(history, 60.0 * (i + 1))
            app.ingest([{"user": user, "item": history[i]["item"], "kind": "view", "time": when}])
            app.decide("home", user=user)
        app.open().decisions.flush()
        letters = [f'{{"user": "{WHO}", "kind": 7}}', f'{{"user": "{WHO}ten", "kind": 7}}', '{"user": "x"}']
        rejections = [Rejection(i, "kind", "kind is text", "7", "quote it", raw) for i, raw in enumerate(letters)]
        app.open().submit(app.open().parse(b"[]"), "http")
        app._runtime._inlet._log.reject(rejections, "http")  # type: ignore[union-attr]
        products = [Product(f"p{i}", "a thing", "things", "", 100) for i in range(2)]
        Catalogue(products, [Known(WHO, "likes things"), Known("u-00001", "likes all")]).write(app.home)
    return folder


@pytest.fixture
def shop(whole: Path, tmp_path: Path) -> Path:
    """A copy, free to forget in."""
    shutil.copytree(whole, tmp_path / "shop")
    return tmp_path / "shop"


def run(shop: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return cli("forget", *more, "--app", shop / "small.py", "--home", shop / "home")


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def test_nothing_of_a_person_is_left_and_the_releases_that_knew_them_are_named(shop: Path) -> None:
    home = shop / "home"
    # The short name is that of another person, whose dead letter stays.
    assert {"log.sqlite", "decisions.sqlite", "catalogue/shoppers.csv"} <= set(holding(home, WHO))
    would = told(run(shop, f"user={WHO}", "--dry-run", "--json"))
    done = told(run(shop, f"user={WHO}", "--yes", "--json"))
    assert {**would, "dry_run": False} == {key: value for key, value in done.items() if key != "segments"}
    assert done["events"] > 10
    assert (done["rejects"], done["decisions"], done["known_shopper"]) == (1, 1, True)
    assert done["records"]["Shopper"] == 1
    assert done["records"]["Interest"] > 1
    assert [(one["decision"], one["champion"]) for one in done["releases"]] == [("home", True)]
    with closing(sqlite3.connect(home / "log.sqlite")) as db:
        assert [row[0] for row in db.execute("SELECT raw FROM rejects ORDER BY number")] == [
            f'{{"user": "{WHO}ten", "kind": 7}}', '{"user": "x"}',
        ]  # fmt: skip
        db.execute("DELETE FROM rejects")
        db.commit()
        db.execute("VACUUM")
    assert holding(home, WHO) == []
    assert all(one.entity != WHO for one in logged(home / DECISIONS))
    assert "u-00001" in (home / "catalogue" / "shoppers.csv").read_text()


def test_the_audit_tells_what_an_erasure_changed_and_still_finds_a_lie(shop: Path) -> None:
    """Values that depended on what is gone are passed over; the others are compared, and later decisions wholly."""
    told(run(shop, f"user={WHO}", "--yes", "--json"))
    done = cli("audit", "--app", shop / "small.py", "--home", shop / "home", "--json")
    found = told(done)
    assert found["audit_decisions"] == 11
    assert found["audit_changed_by_erasure"] > 0
    assert found["audit_values_lost_by_erasure"] > 0
    assert found["audit_values"] > 0
    assert found["audit_mismatches"] == 0
    with helpers.load_app(shop) as app:
        user = helpers.history()[-1]["user"]
        app.decide("home", user=user)
        app.open().decisions.flush()
        decided = logged(app.home / DECISIONS)
        releases = {name: read(app.registry.folder, name) for name in app.registry.ids()}
        late = [one for one in decided if one.entity == user and not app.open().log.erasures[0].concerns(one.offset)]
        assert len(late) == 1
        assert served(app.open().log, late, releases).changed == 0
        assert served(app.open().log, late, releases).mismatches == {}
        late[0].__dict__["digests"] = bytes(len(late[0].digests))
        assert served(app.open().log, late, releases).mismatches


def test_a_decision_that_an_erasure_changed_is_explained_as_such(shop: Path) -> None:
    told(run(shop, f"user={WHO}", "--yes", "--json"))
    one = logged(shop / "home" / DECISIONS)[-1]
    done = cli("explain", one.id, "--app", shop / "small.py", "--home", shop / "home")
    assert done.returncode == 0, done.stderr
    assert "erased since" in done.stdout or "recomputed features agree" in done.stdout
    assert "DIFFER" not in done.stdout


def test_serving_and_training_go_on_and_the_person_may_come_back_as_a_stranger(shop: Path) -> None:
    told(run(shop, f"user={WHO}", "--yes", "--json"))
    with helpers.load_app(shop) as app:
        assert app.features("Shopper", WHO)["actions"] == 0
        assert app.decide("home", user="u-00001").tier == "personal"
        codes = app.open().log.strings
        with closing(sqlite3.connect(app.home / "log.sqlite")) as db:
            (most,) = db.execute("SELECT max(code) FROM strings").fetchone()
        app.ingest([{"user": WHO, "item": helpers.history()[0]["item"], "kind": "view"}])
        assert app.features("Shopper", WHO)["actions"] == 1
        assert codes.code(WHO) == most + 1
        trained = app.train()
        manifest = app.registry.manifest(trained.release)
        assert manifest["data"]["until"] == app.open().log.end
        assert app.decide("home", user=WHO).release == trained.release
        assert holding(app.registry.folder, "u-00001") == []


STEPS = ["drop", "leave_out", "erase", "scour", "rewrite", "_rebuild", "end"]
KILLED = """
import os, signal, sys
import penstock.forget.run as run
setattr(run, sys.argv.pop(1), lambda *given, **named: os.kill(os.getpid(), signal.SIGKILL))
from penstock.cli import main
main()
"""


@pytest.mark.parametrize("step", STEPS)
def test_killed_before_any_step_the_same_command_finishes(shop: Path, step: str) -> None:
    """kill -9, then a server that starts in between, then the same command: nothing is left, the store is right."""
    home, file = shop / "home", shop / "small.py"
    with closing(sqlite3.connect(home / "log.sqlite", isolation_level=None)) as db:
        db.execute("DELETE FROM rejects")
    command = ["forget", f"user={WHO}", "--yes", "--app", str(file), "--home", str(home)]
    killed = subprocess.run([sys.executable, "-c", KILLED, step, *command], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert forgetting.begun(home / "log.sqlite")
    with helpers.load_app(shop) as app:
        runtime = app.open()
        rows = runtime.log.read(0, runtime.log.end)
        view = app.views["Product"]
        naive = NaiveEngine(rows, [view], runtime.log.strings)
        for item in sorted({event["item"] for event in helpers.history()})[:20]:
            expected = naive.value(view, (runtime.log.strings.code(item),), runtime.log.newest, None)
            assert app.features("Product", item)["actions"] == expected["actions"]
    with closing(SqliteLog(home / "log.sqlite", read_only=True)) as log:
        assert [one.remedy for one in doctors_log(log) if one.state == "wrong"] == [
            "penstock forget FIELD=VALUE once more, with the server stopped"
        ]
    told(run(shop, f"user={WHO}", "--yes", "--json"))
    assert holding(home, WHO) == []
    assert not forgetting.begun(home / "log.sqlite")
    with closing(SqliteLog(home / "log.sqlite", read_only=True)) as log:
        assert {one.state for one in doctors_log(log)} == {"ok"}


def test_archived_events_go_too(shop: Path) -> None:
    """Segments that hold any of them are written anew, and the old files are gone."""
    home = shop / "home"
    with closing(SqliteLog(home / "log.sqlite", segment=500)) as log:
        assert log.archive(1_500) == 1_500
        before = {stream: len(rows) for stream, rows in log.read(0, log.end).items()}
        code = log.strings.code(WHO)
    files = set((home / "log-archive").iterdir())
    done = told(run(shop, f"user={WHO}", "--yes", "--json"))
    assert 0 < done["events_archived"] <= done["events"]
    assert done["segments"] >= 1
    after = set((home / "log-archive").iterdir())
    assert len(after) == len(files) == 3
    assert len(after - files) == done["segments"]
    with closing(SqliteLog(home / "log.sqlite")) as log:
        rows = log.read(0, log.end)["action"]
        assert len(rows) == before["action"] - done["events"]
        assert not (rows.fields["user"] == code).any()


def test_a_text_that_others_hold_too_stays_and_is_told(shop: Path) -> None:
    """The same word as an item: its events are of others, and item ids stay for the releases that show them."""
    with helpers.load_app(shop) as app:
        app.ingest([{"user": "u-00001", "item": WHO, "kind": "view"}, {"user": WHO, "item": "rare", "kind": "view"}])
    done = told(run(shop, f"user={WHO}", "--yes", "--json"))
    assert done["named_elsewhere"] == {"action.item": 1}
    assert done["item_ids_kept"] == 1
    with helpers.load_app(shop) as app:
        assert app.features("Product", WHO)["actions"] == 1
        assert app.features("Shopper", WHO)["actions"] == 0
        assert app.open().log.strings.code("rare") > 0


def test_beside_a_server_only_the_dry_run_works(shop: Path) -> None:
    with helpers.server(shop / "small.py", shop / "home") as server:
        refused = run(shop, f"user={WHO}", "--yes")
        assert refused.returncode == 1
        assert "stop the server" in refused.stderr
        assert told(run(shop, f"user={WHO}", "--dry-run", "--json"))["events"] > 10
        assert server("GET", f"/v1/features/Shopper/{WHO}")["features"]["actions"] > 10


def test_mistakes_are_one_line_and_erase_nothing(shop: Path) -> None:
    before = (shop / "home" / "log.sqlite").read_bytes()
    for words, remedy in (
        (["user"], "user=ID"),
        (["user="], "user=ID"),
        (["kind=view"], "use one of item=ID, user=ID"),
        (["user=nobody", "--yes"], "spelling"),
        (["user=nobody", "--dry-run"], "spelling"),
        ([f"user={WHO}"], "--yes"),
    ):
        done = run(shop, *words)
        assert done.returncode == 1
        assert remedy in done.stderr.splitlines()[-1], done.stderr
        assert "Traceback" not in done.stderr
    assert (shop / "home" / "log.sqlite").read_bytes() == before
    assert WHO.encode() in before


def test_it_asks_before_it_erases(shop: Path) -> None:
    command = [sys.executable, "-m", "penstock.cli", "forget", f"user={WHO}"]
    command += ["--app", str(shop / "small.py"), "--home", str(shop / "home")]
    no = subprocess.run(command, input="n\n", capture_output=True, text=True, check=False)
    assert no.returncode == 1
    assert "erase it? [y/N]" in no.stderr
    assert "nothing was erased" in no.stderr
    yes = subprocess.run(command, input="y\n", capture_output=True, text=True, check=False)
    assert yes.returncode == 0, yes.stderr
    assert f"erased user={WHO}" in yes.stdout


def test_a_store_from_before_an_erasure_is_not_trusted(tmp_path: Path) -> None:
    """Whoever opens it builds it anew, so that no crash in between can leave what is gone in a feature."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(helpers.history()[:200])
    who = helpers.history()[0]["user"]
    shutil.copytree(app.home / "store", tmp_path / "old")
    forget(app, "user", who)
    shutil.rmtree(app.home / "store")
    shutil.copytree(tmp_path / "old", app.home / "store")
    with helpers.load_app(tmp_path) as app:
        log = app.open().log
        fresh = LmdbStore(tmp_path / "fresh")
        StreamEngine(log, fresh, list(app.views.values())).catch_up()
        for view in app.views.values():
            assert dict(app.open().store.scan(view.version)) == dict(fresh.scan(view.version))
        fresh.close()


def test_an_entity_is_named_by_a_field_that_keys_something() -> None:
    with pytest.raises(RequestError, match="FIELD=VALUE"):
        forgetting.entity("user=x", forgetting.App([], [], EventsClock()))
