"""What fails inside is told, and neither loses nor doubles what was acknowledged."""

from __future__ import annotations

import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polars import col

import helpers
import penstock as ps
import penstock.stores.lmdb as lmdb_module
from penstock.engines import StreamEngine
from penstock.errors import DefinitionError, RequestError, StoreError, UnavailableError
from penstock.events import RowsLog, SqliteLog, schema_of
from penstock.features import View
from penstock.features.records import decode, fold
from penstock.learn import Recipe
from penstock.releases import Registry
from penstock.serve import follower
from penstock.serve.budget import Cost
from penstock.serve.definition import popularity_key
from penstock.stores import LmdbStore, MemoryStore
from penstock.types import Accepted


class Visit(ps.Event):
    user: str
    item: str


SCHEMA = schema_of(Visit)
VIEW = View("Visitor", ("user",), {"n": ps.count(), "recent": ps.last("item", k=3)}, SCHEMA)


class FullOnce(MemoryStore):
    """A real store whose disk is full for one write."""

    full = False

    def write(self, *args: object) -> None:  # type: ignore[override]
        if self.full:
            self.full = False
            raise StoreError("the feature store has room to write")
        super().write(*args)  # type: ignore[arg-type]


def log_of(path: Path, n: int) -> SqliteLog:
    log = SqliteLog(path / "log.sqlite", [SCHEMA])
    log.append([Accepted("visit", f"e{i}", 1_000_000 * (i + 1), ("ann", f"i{i}")) for i in range(n)], 10**15)
    return log


def test_a_failed_store_write_is_made_up_for_once(tmp_path: Path) -> None:
    """Events whose write failed stay unseen until a later step applies them, exactly once."""
    log = log_of(tmp_path, 5)
    store = FullOnce()
    engine = StreamEngine(log, store, [VIEW])
    store.full = True
    with pytest.raises(StoreError):
        engine.apply(log.read(0, 5), 0, 5)
    assert engine.behind() == 5
    engine.catch_up()
    key = np.array([[log.strings.code("ann")]], np.uint32)
    with store.snapshot() as snapshot:
        found = fold(VIEW, decode(VIEW, snapshot.get(VIEW.version, [VIEW.key(key[0])])), np.array([10**15]))
    assert found["n"].tolist() == [5.0]
    log.close()


def records(store: LmdbStore) -> dict[bytes, bytes]:
    return dict(store.scan(VIEW.version))


def test_a_store_lost_with_the_power_is_rebuilt_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another boot left open comes up empty, and the log gives every byte of it again."""
    log = log_of(tmp_path, 50)
    store = LmdbStore(tmp_path / "store")
    StreamEngine(log, store, [VIEW]).catch_up()
    before = records(store)
    # The end of the machine: what lies in the folder is all there is; nothing was closed.
    shutil.copytree(tmp_path / "store", tmp_path / "found")
    store.close()
    monkeypatch.setattr(lmdb_module, "_boot", lambda: b"another boot")
    with closing(LmdbStore(tmp_path / "found")) as found:
        assert found.rebuilt
        assert records(found) == {}
        engine = StreamEngine(log, found, [VIEW])
        assert engine.behind() == 50
        engine.catch_up()
        assert records(found) == before != {}
    with closing(LmdbStore(tmp_path / "found")) as again:
        assert not again.rebuilt
        assert records(again) == before
    log.close()


def test_one_process_writes_a_home(tmp_path: Path) -> None:
    """A second open app on the same home is refused with the remedy, and welcome once the first has closed."""
    app = Path(tmp_path / "app.py")
    app.write_text(
        "import penstock as ps\n"
        'app = ps.App("a")\n'
        "class Visit(ps.Event):\n    user: str\n    item: str\n"
        '@app.view(on=Visit, by="user")\nclass Visitor:\n    n = ps.count()\n'
    )
    first, second = ps.load(app), ps.load(app)
    first.home = second.home = tmp_path / "home"
    first.ingest([{"user": "ann", "item": "i1", "id": "1"}])
    with pytest.raises(UnavailableError, match="one process at a time writes a home folder"):
        second.ingest([{"user": "ann", "item": "i1", "id": "2"}])
    first.close()
    second.ingest([{"user": "ann", "item": "i1", "id": "2"}])
    assert second.features("Visitor", "ann")["n"] == 2
    second.close()


def test_a_torn_promotion_heals(tmp_path: Path) -> None:
    """What a crash left of a line never counts, not even after the next promotion."""
    for name in ("aaaa", "bbbb"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text('{"decision": "home", "views": {}}')
    registry = Registry(tmp_path)
    registry.promote("aaaa")
    with (tmp_path / "promotions.jsonl").open("a") as file:
        file.write('{"decision": "home", "relea')
    assert registry.champion("home") == "aaaa"
    registry.promote("bbbb")
    assert [line["release"] for line in registry.history()] == ["aaaa", "bbbb"]
    assert registry.rollback("home")["release"] == "aaaa"


def test_exploration_comes_last() -> None:
    """A rule after exploration would change the chances that it logs, so it is refused at definition."""
    app = ps.App("a")

    @app.view(on=Visit, by="user")
    class Visitor:
        recent = ps.last("item", k=3)

    with pytest.raises(DefinitionError, match="exploration comes last"):

        @app.decision("home", by="user")
        class Home:
            candidates = (ps.seen("recent"),)
            rank = ps.LambdaRank(goal=col("user") != "")
            rerank = (ps.explore(0.1), ps.block("i1"))


def test_popular_counts_are_told_apart_by_what_they_count() -> None:
    """Two sources of one label and different filters never share a count; equal ones do."""
    rank = ps.LambdaRank(goal=col("user") != "", views=(VIEW,))
    common = {"name": "home", "by": "user", "item": "item", "views": (VIEW,), "rank": rank}
    sources = [ps.popular(), ps.popular(where=col("user") == "ann"), ps.popular(where=col("user") == "ann")]
    keys = [popularity_key(source, Recipe(sources=(source,), **common)) for source in sources]
    assert keys[1] == keys[2] != keys[0]


def test_a_stall_is_forgotten() -> None:
    """A stage that once took a second is tried again after some requests that did without it."""
    cost = Cost()
    cost.add(1_000)
    assert cost.expected > 50
    for _ in range(200):
        cost.forget()
    assert cost.expected < 50


def test_an_absurd_number_does_not_stop_the_stream() -> None:
    """One float beyond the range of the sum's unit counts as the largest; the engine goes on."""
    total = ps.sum("w", unit=0.001)
    values = np.array([1e300, 2.0])
    states = total.lift(values, np.zeros(2, np.int64), np.zeros(2, np.uint64))
    now = np.zeros(2, np.int64)
    assert total.value(states, now).tolist() == [total.plain([(v, 0, 0)], 0) for v in values.tolist()]


def test_rows_in_memory_are_read_only(tmp_path: Path) -> None:
    """A log over rows refuses to append, and says where to."""
    with pytest.raises(UnavailableError, match="append to the SQLite log"):
        RowsLog({}, None).append([], 0)  # type: ignore[arg-type]


def test_a_store_of_another_log_is_emptied(tmp_path: Path) -> None:
    """Its codes mean other strings: no feature of a foreign entity is ever served, and new events count at once."""
    store = LmdbStore(tmp_path / "store")
    for name, users in (("first", ["a"] * 30 + ["b"]), ("second", ["z"])):
        with closing(SqliteLog(tmp_path / f"{name}.sqlite", [SCHEMA])) as log:
            events = [Accepted("visit", f"{name}-{n}", n, (user, "i")) for n, user in enumerate(users)]
            log.append(events, 100)
            engine = StreamEngine(log, store, [VIEW])
            engine.catch_up()
            with store.snapshot() as snapshot:
                keys = [VIEW.key([log.strings.code(user)]) for user in sorted(set(users))]
                found = fold(VIEW, decode(VIEW, snapshot.get(VIEW.version, keys)), np.full(len(keys), 200))
            assert found["n"].tolist() == [float(users.count(user)) for user in sorted(set(users))]
    store.close()


def test_popular_items_count_once_though_reading_fails_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that raises halfway is tried again from where counting stands."""
    monkeypatch.setattr(follower, "_CHUNK", 2)
    with helpers.load_app(tmp_path) as app:
        runtime = app.open()
        read, reads = runtime.log.read, iter(range(1_000))

        def failing(start: int, stop: int) -> Any:
            if next(reads) == 2:
                raise UnavailableError("the log can be read", got="a failing disk", remedy="retry")
            return read(start, stop)

        monkeypatch.setattr(runtime.log, "read", failing)
        events = helpers.history()[:9]
        accepted = [runtime.intake.check(event) for event in events]
        runtime._inlet.submit(accepted).result()
        for _ in range(3):
            with suppress(UnavailableError):
                runtime._follower.follow()
        counts = runtime._follower._popularity.values()
        assert counts
        for one in counts:
            total = sum(int(n.sum()) for parts in one._tiles.values() for _, n in parts)
            assert total == len(events)


def test_a_release_whose_files_cannot_be_read_stops_neither_counting_nor_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system refuses to read them, not where they are damaged."""

    def denied(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    helpers.trained(tmp_path).close()
    monkeypatch.setattr("penstock.releases.bundle._digest", denied)
    with helpers.load_app(tmp_path) as app:
        runtime = app.open()
        event = {**helpers.history()[-1], "id": "after", "time": helpers.next_time(helpers.history(), 1)}
        app.ingest([event])
        runtime._follower.follow()
        assert set(runtime._follower._counted.values()) == {runtime.log.end}
        assert app.decide("home", user="u1").tier == "popular"


MISTAKES = {
    "a rule's field": (
        'rerank = [ps.diversify("categry")]',
        "latest value of the candidates; got 'categry'",
    ),
    "a request column": ('rank = ps.LambdaRank("view", request={"x": ps.col("Shoper.n")})', "did you mean Shopper.n"),
    "a group": (
        'fallback = [ps.popular(by="contry")]',
        "text field of the stream; got by='contry'; use one of",
    ),
    "a name": ('candidates = [ps.seen("recent", name="../x")]', "letters, digits and underscores; got '../x'"),
    "k": ("k=0", "k is from 1 to 500.*got k=0"),
    "context": ('context="country"', "context a list of fields; got .*context='country'"),
    "a context field": (
        'context=["country"]',
        "text fields of the events; got 'country' in home; use some of user, item",
    ),
    "two streams": ("", "views of home read one stream; got action, search; name those to use"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_an_app_file_is_told_when_it_is_read(tmp_path: Path, mistake: str) -> None:
    """Not when a training fails, nor by every decision falling back."""
    text, words = MISTAKES[mistake]
    option = f", {text}" if "context" in mistake or mistake == "k" else ""
    lines = {"candidates": 'candidates = [ps.seen("recent")]', "rank": 'rank = ps.LambdaRank("view")'}
    if not option and text:
        lines[text.split()[0]] = text.replace("ps.col", "pl.col")
    search = (
        "class Search(ps.Event):\n    user: str\n\n\n"
        '@app.view(on=Search, by="user")\nclass Searcher:\n    n = ps.count()\n'
        if mistake == "two streams"
        else ""
    )
    file = tmp_path / "app.py"
    file.write_text(
        "import polars as pl\nimport penstock as ps\n\napp = ps.App('shop')\n\n\n"
        "class Action(ps.Event):\n    user: str\n    item: str\n    kind: str\n\n\n"
        '@app.view(on=Action, by="user")\nclass Shopper:\n    recent = ps.last("item", k=9)\n    n = ps.count()\n\n\n'
        + search
        + f'@app.decision("home", by="user"{option})\nclass Home:\n'
        + "".join(f"    {line}\n" for line in lines.values())
    )
    with pytest.raises(DefinitionError, match=words):
        ps.load(file)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"user": ""}, "user is a text of 1 to 512 characters"),
        ({"user": 5}, "user is a text"),
        ({"user": "u", "k": -3}, "k is an integer from 1 to 500; got -3"),
        ({"user": "u", "budget_ms": -5}, "budget_ms is a number above 0"),
        ({"user": "u", "context": {"a": object()}}, "what JSON holds"),
        ({"user": "\ud800"}, "what JSON holds"),
    ],
)
def test_a_request_in_process_is_held_to_the_same_rules(tmp_path: Path, request_: dict[str, Any], words: str) -> None:
    with helpers.load_app(tmp_path) as app, pytest.raises(RequestError, match=words):
        app.decide("home", **request_)
