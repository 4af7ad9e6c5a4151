"""The naive, stream and batch engines give the same bytes for the same question, whatever order events came in."""

from __future__ import annotations

import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock.aggregates as ps
from penstock.audit.drawn import SCHEMA, Texts, stream
from penstock.clock import DAY, HOUR, MINUTE, SECOND
from penstock.engines import BatchEngine, NaiveEngine, StreamEngine, windows
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.records import decode, fold
from penstock.stores import LmdbStore, MemoryStore
from penstock.stores.redis import RedisStore
from penstock.types import MISSING_INT, Rows
from redis_server import RedisServer

TEXTS = Texts(["view", "buy", *[f"u{i}" for i in range(4)], *[f"i{i}" for i in range(12)]])
START = 1_700_000_000 * SECOND


BUY = pl.col("kind") == "buy"
FEATURES = {
    "n": ps.count(),
    "n_10min": ps.count(window="10min"),
    "buys_1h": ps.count(window="1h", where=BUY),
    "spend_1h": ps.sum("price", window="1h"),
    "spend": ps.sum(pl.col("price") * 2, where=BUY),
    "weight": ps.sum("weight", unit=0.01, window="2h"),
    "mean": ps.mean("price", window="1h", default=-1.0),
    "mean_weight": ps.mean("weight", unit=0.001),
    "low": ps.min("weight", window="1h"),
    "high": ps.max("price"),
    "since": ps.recency(window="2h", default=1e9),
    "recent": ps.last("item", k=3),
    "recent_buys": ps.last("item", k=2, window="1h", where=BUY),
    "item": ps.latest("item"),
    "top": ps.top_k("item", k=2, capacity=4, window="1h"),
    "tops": ps.top_k("item", k=3),
    "items": ps.distinct("item", window="1h", precision=4),
    "prices": ps.distinct("price"),
    "often": ps.frequent("item", k=2, capacity=4, window="1h"),
    "drawn": ps.sample("item", k=3, window="2h"),
    "auc": ps.auc(ps.scored(BUY, pl.col("weight").abs() / 1e6), bins=5),
    "loss": ps.log_loss(ps.scored(BUY, pl.col("weight").abs() / 1e6), window="1h"),
    "bracket": ps.histogram("price", edges=(0, 250.5, 500), window="1h"),
    "fresh": ps.decayed_sum("price", half_life="1h"),
    "spent_per_event": ps.ratio(ps.sum("price", where=BUY), ps.count(), window="1h"),
    "kinds_of_items": ps.ratio(ps.distinct("item"), ps.mean("weight", unit=0.01), where=BUY, default=0.0),
    "visits": ps.sessions(gap="10min", span="2h"),
    "had": ps.members("item", capacity=5, window="10min"),
    "off": ps.calibration_error(ps.scored(BUY, pl.col("weight").abs() / 1e6), window="2h"),
}
VIEWS = [
    View("Shopper", ("user",), FEATURES, SCHEMA),
    View("Pair", ("user", "item"), {"n": ps.count(), "n_1h": ps.count(window="1h")}, SCHEMA),
    View("All", (), {"n_1h": ps.count(window="1h", where=BUY), "top": ps.top_k("item", k=3)}, SCHEMA),
]


def rows_of(events: list[tuple[int, int, int, int, int, int | None, float | None]]) -> Rows:
    """(seconds, delay, user, item, buy, price, weight) → rows in arrival order."""
    arrived = [START + (t + delay) * SECOND for t, delay, *_ in events]
    order = np.argsort(np.array(arrived), kind="stable") if events else np.zeros(0, int)
    fields = np.zeros(len(events), SCHEMA.dtype)
    for i, (_, _, user, item, buy, price, weight) in enumerate(events):
        fields[i] = (
            3 + user,
            7 + item if item >= 0 else 0,
            2 if buy else 1,
            MISSING_INT if price is None else price,
            np.nan if weight is None else weight,
        )
    time = np.array([START + t * SECOND for t, *_ in events], np.int64)
    tie = np.arange(len(events), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    at = np.array(arrived, np.int64)
    return Rows("action", np.arange(len(events)), time[order], time[order], at[order], tie[order], fields[order])


EVENT = st.tuples(
    st.integers(0, 4 * 3600),
    st.sampled_from([0, 0, 0, 5, 700, 4000]),
    st.integers(0, 3),
    st.integers(-1, 11),
    st.integers(0, 1),
    st.none() | st.integers(-(2**40), 2**40),
    st.none() | st.floats(-1e6, 1e6, allow_nan=False),
)


def stream_value(view: View, log: RowsLog, store: object, known: int, keys: np.ndarray, now: int) -> dict:
    with store.snapshot() as snapshot:  # type: ignore[attr-defined]
        assert snapshot.applied(view.version) == known
        records = snapshot.get(view.version, [view.key(key) for key in keys.tolist()])
    return fold(view, decode(view, records), np.full(len(keys), now))


def same(a: dict, b: dict) -> None:
    assert list(a) == list(b)
    for name in a:
        assert a[name].tobytes() == np.asarray(b[name], a[name].dtype).tobytes(), (name, a[name], b[name])


STORES = {
    "memory": lambda request: lambda path: MemoryStore(),
    "lmdb": lambda request: LmdbStore,
    "redis": lambda request: in_redis(request.getfixturevalue("redis_server")),
}


def in_redis(server: RedisServer):
    return lambda path: RedisStore(server.url, name=str(path), timeout=20)


@pytest.fixture(scope="module", params=STORES)
def make(request: pytest.FixtureRequest):
    return STORES[request.param](request)


@settings(max_examples=25, deadline=None)
@given(events=st.lists(EVENT, min_size=1, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_stream_naive_and_batch_agree_at_every_cut(
    make, tmp_path_factory: pytest.TempPathFactory, events: list, cuts: list
) -> None:
    """At any offset the three engines give equal bytes, with late events, missing values and any batching."""
    rows = rows_of(events)
    log = RowsLog({"action": rows}, TEXTS)
    store = make(tmp_path_factory.mktemp("store"))
    engine = StreamEngine(log, store, VIEWS)
    naive = NaiveEngine({"action": rows}, VIEWS, TEXTS)
    batch = BatchEngine({"action": rows}, TEXTS)
    at = 0
    for stop in sorted({min(cut, len(events)) for cut in cuts} | {len(events)}):
        engine.apply(log.read(at, stop), at, stop)
        at = stop
        if not stop:
            continue
        newest = int(rows.time[:stop].max())
        for now in (newest, newest + 3, newest + 50 * MINUTE, newest + 3 * HOUR):
            for view in VIEWS:
                keys = np.array(
                    [[3 + u] for u in range(4)]
                    if view.by == ("user",)
                    else [[3 + u, 7 + i] for u in range(4) for i in range(12)]
                    if view.by
                    else [[]],
                    np.uint32,
                ).reshape(-1 if view.by else 1, len(view.by))
                oracle = naive.table(view, keys, now, stop)
                same(oracle, stream_value(view, log, store, stop, keys, now))
                n = len(keys)
                same(oracle, batch.values(view, keys, np.full(n, now), np.full(n, stop)))
    store.close()


@settings(max_examples=20, deadline=None)
@given(events=st.lists(EVENT, min_size=2, max_size=80))
def test_batch_answers_each_row_as_known_at_its_own_offset(events: list) -> None:
    """A training row sees exactly the events below its offset, in one call for all rows."""
    rows = rows_of(events)
    naive = NaiveEngine({"action": rows}, VIEWS, TEXTS)
    batch = BatchEngine({"action": rows}, TEXTS)
    known = np.arange(len(events))
    now = np.maximum.accumulate(rows.time)
    keys = rows.fields["user"].reshape(-1, 1)
    got = batch.values(VIEWS[0], keys, now, known)
    for i in range(len(events)):
        same(naive.table(VIEWS[0], keys[i : i + 1], int(now[i]), i), {name: v[i : i + 1] for name, v in got.items()})


@pytest.mark.parametrize("states", [1, 7, 400])
def test_rows_may_be_cut_anywhere(states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many rows of few entities, in no order, as known and as happened: which are made together changes no value."""
    random = np.random.default_rng(6)
    rows, texts = stream(random, 400, users=5)
    oracle = NaiveEngine({rows.stream: rows}, VIEWS[:1], texts)
    users = np.unique(rows.fields["user"])
    moments = [(int(stop), int(rows.time[: stop + 1].max())) for stop in random.integers(0, 400, 12)]
    keys = np.tile(users, len(moments)).reshape(-1, 1).astype(np.uint32)
    known, now = (np.repeat([moment[i] for moment in moments], len(users)) for i in (0, 1))
    order = random.permutation(len(keys))
    monkeypatch.setattr(windows, "_STATES", states)
    batch = BatchEngine({rows.stream: rows}, texts)
    for asked in (known, None):
        got = batch.values(VIEWS[0], keys[order], now[order], None if asked is None else asked[order])
        for at, (stop, moment) in enumerate(moments):
            mine = np.argsort(order)[at * len(users) : (at + 1) * len(users)]
            wanted = oracle.table(VIEWS[0], keys[order][mine], moment, stop if asked is not None else len(rows))
            same(wanted, {name: values[mine] for name, values in got.items()})


def test_values_are_made_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four times as many rows do not take more memory for states of 4 kB: a slice of them, and a number a row."""
    rows, texts = stream(np.random.default_rng(8), 300)
    view = View("Wide", ("user",), {"items": ps.distinct("item", precision=12)}, SCHEMA)
    users = np.unique(rows.fields["user"])
    monkeypatch.setattr(windows, "_BYTES", 1 << 20)
    peaks = []
    for n in (1_000, 4_000):
        keys = np.resize(users, n).reshape(-1, 1).astype(np.uint32)
        batch = BatchEngine({rows.stream: rows}, texts)
        tracemalloc.start()
        batch.values(view, keys, np.full(n, int(rows.time.max())), np.resize(np.arange(300), n))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4_000 * 500 < 4 * peaks[0]


def test_a_view_that_counts_no_event_answers_for_every_key() -> None:
    rows, texts = stream(np.random.default_rng(7), 20)
    view = View("None", ("user",), {"n": ps.count(where=pl.col("price") > 10**9), "last": ps.last("item", k=2)}, SCHEMA)
    none = View("None", ("user",), {"n": ps.count(where=pl.col("price") > 10**9)}, SCHEMA)
    keys = np.array([[5], [99]], np.uint32)
    batch = BatchEngine({rows.stream: rows}, texts)
    for known in (np.array([20, 0]), None):
        assert batch.values(none, keys, np.full(2, int(rows.time.max())), known)["n"].tolist() == [0.0, 0.0]
        assert batch.values(view, keys, np.full(2, int(rows.time.max())), known)["n"].tolist() == [0.0, 0.0]


def test_a_new_view_is_filled_beside_the_old_without_touching_it(tmp_path) -> None:
    """A changed view starts from the log's beginning and ends equal to one that was there from the start."""
    rng = np.random.default_rng(3)
    events = [
        (int(t), 0, int(u), int(i), int(b), int(p), None)
        for t, u, i, b, p in zip(
            np.sort(rng.integers(0, 9000, 300)), rng.integers(0, 4, 300), rng.integers(0, 12, 300),
            rng.integers(0, 2, 300), rng.integers(0, 999, 300), strict=True,
        )
    ]  # fmt: skip
    rows = rows_of(events)
    log = RowsLog({"action": rows}, TEXTS)
    store = LmdbStore(tmp_path)
    engine = StreamEngine(log, store, VIEWS)
    engine.catch_up(batch=70)
    changed = View("Shopper", ("user",), {**FEATURES, "extra": ps.count(window="30min")}, SCHEMA)
    assert changed.version != VIEWS[0].version
    engine.add([changed])
    assert engine.behind([changed]) == 300
    assert engine.behind(VIEWS) == 0
    while engine.behind():
        engine.step(64)
    keys = np.array([[3], [4], [5], [6]], np.uint32)
    now = int(rows.time.max())
    got = stream_value(changed, log, store, 300, keys, now)
    same(NaiveEngine({"action": rows}, [changed], TEXTS).table(changed, keys, now, 300), got)
    engine.keep_only({changed.version})
    assert list(store.views()) == [changed.version]
    store.close()


def test_a_long_history_of_many_entities_is_read_as_it_happened() -> None:
    """Microseconds of a hundred years times a hundred thousand runs of events are more than 63 bits hold."""
    random = np.random.default_rng(4)
    rows, texts = stream(random, 100_000, users=50_000)
    rows.time[:] = np.linspace(0, 100 * 365 * DAY, len(rows)).astype(np.int64)
    view = View("Users", ("user",), {"n": ps.count(), "since": ps.recency()}, SCHEMA)
    codes = np.unique(rows.fields["user"])
    now = int(rows.time[60_000])
    keys = codes[:, None].astype(np.uint32)
    found = BatchEngine({rows.stream: rows}, texts).values(view, keys, np.full(len(keys), now), None)
    happened = rows.time <= now
    expected = np.bincount(np.searchsorted(codes, rows.fields["user"][happened]), minlength=len(codes))
    last = np.full(len(codes), np.nan)
    last[np.searchsorted(codes, rows.fields["user"][happened])] = rows.time[happened]
    assert found["n"].tolist() == expected.tolist()
    np.testing.assert_array_equal(found["since"], (now - last) / SECOND)
