"""The Spark engine, on a real Spark of this machine: the same bytes as every other engine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

import penstock as ps
from penstock.audit import drawn, proof
from penstock.clock import DAY
from penstock.engines import BatchEngine, StreamEngine
from penstock.errors import UnavailableError
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.stores import MemoryStore
from penstock.types import Rows, Store

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from penstock.engines.spark import SparkEngine

BY_USER = View(
    "ByUser", ("user",),
    {
        "bought": ps.sum("price", where=pl.col("kind") == "buy"),
        "items": ps.distinct("item", window="1h"),
        "recent": ps.last("item", k=3),
        "mean": ps.mean("weight", unit=0.01, window="24h"),
    },
    drawn.SCHEMA,
)  # fmt: skip
OVERALL = View("Overall", (), {"n": ps.count(window="1h"), "top": ps.top_k("item", k=2, capacity=16)}, drawn.SCHEMA)


@pytest.fixture(scope="module")
def log() -> RowsLog:
    rows, texts = drawn.stream(np.random.default_rng(11), 600)
    return RowsLog({rows.stream: rows}, texts)


@contextmanager
def begun(session: SparkSession, log: RowsLog, *, spread: int = 1, chunk: int = 150) -> Iterator[SparkEngine]:
    from penstock.engines.spark import SparkEngine

    engine = SparkEngine(log, session, cells=4, spread=spread, chunk=chunk)
    try:
        yield engine
    finally:
        engine.close()


def rows_of(log: RowsLog) -> Rows:
    return log.read(0, log.end)["action"]


def held(store: Store, view: View) -> dict[bytes, bytes]:
    return dict(store.scan(view.version))


def test_random_apps_agree_with_the_oracle(spark: SparkSession) -> None:
    """To the byte, as known, as happened and in filled stores, with the events of each key over three of four cells."""
    found = proof.prove(
        apps=2, events=150, seed=3, stores={}, engines={"spark": lambda log: begun(spark, log, spread=3)}
    )
    assert found.mismatches == {}
    assert found.values > 1_000


@pytest.mark.parametrize("view", [BY_USER, OVERALL], ids=lambda view: view.name)
def test_values_are_those_of_the_batch_engine(spark: SparkSession, log: RowsLog, view: View) -> None:
    """For each event's own key and time, and for a key that no event has; whole keys in one cell, or none at all."""
    rows = rows_of(log)
    keys = np.stack([rows.fields[name] for name in view.by], axis=1) if view.by else np.zeros((len(rows), 0), np.uint32)
    keys = np.concatenate([keys, keys[-1:] + 10_000])
    now, known = np.append(rows.arrived, rows.arrived[-1]), np.append(rows.offset, log.end)
    batch = BatchEngine({rows.stream: rows}, log.strings)
    with begun(spark, log) as engine:
        for limit in (known, None):
            got, expected = engine.values(view, keys, now, limit), batch.values(view, keys, now, limit)
            assert {name: value.tobytes() for name, value in got.items()} == {
                name: value.tobytes() for name, value in expected.items()
            }
            assert got["recent" if view.by else "top"].any()


def test_the_stream_goes_on_from_a_store_that_spark_filled(spark: SparkSession, log: RowsLog) -> None:
    """It has then the records of a store that the stream built alone; what was there before is replaced."""
    rows = rows_of(log)
    alone, filled = MemoryStore(), MemoryStore()
    # Windows leave no tile behind: what a store keeps beyond them depends on when it was written.
    views = [View("ByUser", ("user",), {"recent": ps.last("item", k=3), "n": ps.count()}, drawn.SCHEMA)]
    StreamEngine(log, alone, views).catch_up()
    before = RowsLog({rows.stream: rows.take(slice(400))}, log.strings)
    StreamEngine(before, filled, views).step(100)
    with begun(spark, before) as engine:
        engine.fill(filled, views)
    going = StreamEngine(log, filled, views)
    assert going.behind() == 200
    going.catch_up()
    assert held(filled, views[0]) == held(alone, views[0]) != {}
    with filled.snapshot() as snapshot:
        assert (snapshot.offset, snapshot.newest) == (600, int(rows.time.max()))


def test_a_store_that_has_seen_more_is_not_filled(spark: SparkSession, log: RowsLog) -> None:
    """Records of keys that have later events alone would stay, and their events be counted again."""
    rows = rows_of(log)
    view = View("ByUser", ("user",), {"n": ps.count()}, drawn.SCHEMA)
    store = MemoryStore()
    StreamEngine(log, store, [view]).catch_up()
    before = held(store, view)
    with begun(spark, RowsLog({rows.stream: rows.take(slice(400))}, log.strings)) as engine:
        engine._log = log  # as a log that has grown since the engine was made
        with pytest.raises(UnavailableError, match="a store that has seen 600 events, and 400 events"):
            engine.fill(store, [view])
    assert held(store, view) == before


def test_tiles_that_no_window_reaches_are_left_out(spark: SparkSession) -> None:
    """A filled store is no larger than what can be asked of it."""
    rows, texts = drawn.stream(np.random.default_rng(12), 60)
    rows.time[:30] -= 40 * DAY
    view = View("Days", ("user",), {"n": ps.count(window="7d")}, drawn.SCHEMA)
    log = RowsLog({rows.stream: rows}, texts)
    store = MemoryStore()
    # In files of their own: no worker sees what makes the old ones old.
    with begun(spark, log, chunk=30) as engine:
        engine.fill(store, [view])
    recent = MemoryStore()
    StreamEngine(RowsLog({rows.stream: rows.take(slice(30, 60))}, texts), recent, [view]).catch_up()
    assert held(store, view) == held(recent, view) != {}


def test_a_view_of_a_stream_without_events_has_the_values_of_none(spark: SparkSession, log: RowsLog) -> None:
    """Also where nothing is asked at all; a store that is filled so knows how far it is."""
    schema = ps.types.Schema("payment", drawn.SCHEMA.fields)
    view = View("Payments", ("user",), {"n": ps.count(), "mean": ps.mean("price", default=-1)}, schema)
    store = MemoryStore()
    with begun(spark, log) as engine:
        values = engine.values(view, np.ones((2, 1), np.uint32), np.zeros(2, np.int64), None)
        assert [value.tolist() for value in values.values()] == [[0, 0], [-1, -1]]
        nothing = engine.values(BY_USER, np.zeros((0, 1), np.uint32), np.zeros(0, np.int64), None)
        assert {len(value) for value in nothing.values()} == {0}
        engine.fill(store, [view])
    assert store.views()[view.version] == log.end


def test_only_words_that_expressions_spell_travel(spark: SparkSession, log: RowsLog) -> None:
    """Not a dictionary of every user; and an engine leaves no file behind."""
    from penstock.engines.spark.tasks import Task

    with begun(spark, log) as engine:
        task = engine._task(BY_USER)
        folder = Path(engine._temporary.name)
        assert len([*folder.rglob("*.parquet")]) == 4
        assert isinstance(task, Task)
        assert sorted(task.words.words.values()) == sorted(drawn.KINDS)
    assert not folder.exists()


def test_what_fails_on_a_worker_is_one_line(spark: SparkSession, log: RowsLog) -> None:
    """Which says what it was, and a store that was to be filled is as it was before."""
    store = MemoryStore()
    StreamEngine(log, store, [OVERALL]).catch_up()
    before = held(store, OVERALL)
    with begun(spark, log) as engine:
        for file in Path(engine._temporary.name).rglob("*.parquet"):
            file.write_bytes(b"no parquet")
        with pytest.raises(UnavailableError, match="Spark does the work to its end") as caught:
            engine.fill(store, [OVERALL])
    assert "\n" not in str(caught.value)
    assert held(store, OVERALL) == before != {}


def test_what_a_kernel_refuses_on_a_worker_is_said(spark: SparkSession) -> None:
    """A sum that is too large to be read is one on Spark, too."""
    rows, texts = drawn.stream(np.random.default_rng(11), 50)
    rows.fields["price"] = 2**62
    view = View("Sums", (), {"spent": ps.sum("price")}, drawn.SCHEMA)
    with begun(spark, RowsLog({rows.stream: rows}, texts)) as engine, pytest.raises(UnavailableError) as caught:
        engine.values(view, np.zeros((1, 0), np.uint32), rows.time[-1:], None)
    assert "OverflowedError" in str(caught.value)
    assert "price" in str(caught.value)


def test_without_java_one_is_told_what_to_install(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything of Spark is started."""
    from penstock.engines.spark import local_session

    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UnavailableError, match="default-jre-headless"):
        local_session()
