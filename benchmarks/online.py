"""Claim: 20 windowed features of one shopper and of 200 items are read in a millisecond, and nothing was written for
the reading: windows end at the moment that is asked for.

Feast reads 20 values that were made ready beforehand. Beside both stands the floor: the bare gets of the same keys.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import lmdb
import numpy as np
import polars as pl
from numpy.typing import NDArray

import penstock.aggregates as ps
from benchmarks import Result, circumstances
from benchmarks._peers import KEPT, SETUP
from benchmarks._serving.systems import PEERS, present, redis_server, redis_store
from penstock.aggregates import Aggregate
from penstock.audit.drawn import Texts, zipf
from penstock.clock import HOUR, SECOND
from penstock.engines import StreamEngine
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.folded import Folded
from penstock.stores import LmdbStore
from penstock.types import Field, Rows, Schema, Store

ITEMS, ASKED, FEATURES = 5_000, 200, 20
USERS = 2_000
SCHEMA = Schema(
    "action",
    (Field("user", "text", False), Field("item", "text", False), Field("kind", "text", False),
     Field("price", "money", False)),
)  # fmt: skip
_START = 1_700_000_000 * SECOND
_BUY, _VIEW = pl.col("kind") == "buy", pl.col("kind") == "view"


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--events", type=int, default=1_000_000, help="events in the store (default 1,000,000)")
    parser.add_argument("--requests", type=int, default=2_000, help="reads that are timed (default 2,000)")
    parser.add_argument("--no-peers", action="store_true", help="leave Feast out")


def features(list_of: str) -> dict[str, Aggregate]:
    """20 features over windows of 1 h, 24 h and 30 d."""
    found: dict[str, Aggregate] = {}
    for window in ("1h", "24h", "30d"):
        found[f"actions_{window}"] = ps.count(window=window)
        found[f"views_{window}"] = ps.count(window=window, where=_VIEW)
        found[f"buys_{window}"] = ps.count(window=window, where=_BUY)
        found[f"spend_{window}"] = ps.sum("price", window=window, where=_BUY)
        found[f"highest_{window}"] = ps.max("price", window=window)
    found["distinct_24h"] = ps.distinct(list_of, window="24h", precision=6)
    found["top_24h"] = ps.top_k(list_of, k=3, capacity=16, window="24h")
    found["last"] = ps.last(list_of, k=10)
    found["mean_24h"] = ps.mean("price", window="24h")
    found["since"] = ps.recency()
    assert len(found) == FEATURES
    return found


VIEWS = [
    View("Shopper", ("user",), features("item"), SCHEMA),
    View("Product", ("item",), features("user"), SCHEMA),
]


TEXTS = Texts(("view", "cart", "buy"))


def stream(events: int, days: float, seed: int) -> Rows:
    """Zipf-drawn users and items over some days, in order."""
    draw = np.random.default_rng(seed)
    time = _START + np.sort(draw.integers(0, int(days * 24 * HOUR), events))
    fields = np.zeros(events, SCHEMA.dtype)
    fields["kind"] = draw.choice([1, 2, 3], events, p=[0.8, 0.12, 0.08])
    fields["user"] = 10 + zipf(draw, USERS, events)
    fields["item"] = 10 + USERS + zipf(draw, ITEMS, events)
    fields["price"] = draw.integers(100, 20_000, events)
    tie = draw.integers(1, 2**63, events).astype(np.uint64)
    return Rows("action", np.arange(events), time, time, time, tie, fields)


def run(chosen: argparse.Namespace) -> Result:
    """Fills the store, then reads it between hops."""
    detail: dict[str, Any] = {
        **circumstances(),
        "events": chosen.events,
        "features": FEATURES,
        "entities": 1 + ASKED,
    }
    rows = stream(chosen.events, 30, 1)
    with tempfile.TemporaryDirectory() as folder:
        _say("fill LMDB")
        with closing(LmdbStore(Path(folder) / "store")) as store:
            log = RowsLog({rows.stream: rows}, TEXTS)
            StreamEngine(log, store, VIEWS).catch_up(progress=_progress)
            _say("read")
            detail |= _read("lmdb", store, rows, chosen.requests)
        if shutil.which("redis-server"):
            _say("fill and read Redis")
            with redis_store() as make, closing(make(Path(folder))) as held:
                StreamEngine(log, held, VIEWS).catch_up(progress=_progress)
                detail |= _read("redis", held, rows, chosen.requests)
        detail |= _told("lmdb_gets", _gets(Path(folder) / "store", chosen.requests))
    if not chosen.no_peers:
        if present("feast"):
            _say("feast on SQLite")
            detail |= {f"feast_sqlite_{name}": value for name, value in _feast().items()}
            _say("feast on Redis")
            with redis_server() as (port, _):
                detail |= {f"feast_redis_{name}": value for name, value in _feast(str(port)).items()}
        else:
            detail["absent"] = {"feast": SETUP}
    ours, peer = detail["lmdb_p50_ms"], detail.get("feast_sqlite_p50_ms")
    ratio = round(peer / ours, 1) if peer else None
    return Result(name="online", ours=ours, peer=peer, ratio=ratio, unit="ms p50", detail=detail)


def asked(requests: int) -> list[tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
    """A shopper and 200 different items a request, the popular ones more often."""
    draw = np.random.default_rng(7)
    weights = 1 / np.arange(1, ITEMS + 1)
    weights /= weights.sum()
    return [
        (
            (10 + zipf(draw, USERS, 1)).astype(np.uint32)[:, None],
            (10 + USERS + draw.choice(ITEMS, ASKED, replace=False, p=weights)).astype(np.uint32)[:, None],
        )
        for _ in range(requests)
    ]


def _read(name: str, store: Store, rows: Rows, requests: int) -> dict[str, float]:
    """As the server reads, which keeps what has not changed; and where nothing is kept."""
    folded = Folded()
    newest = int(rows.time[-1])
    every = asked(requests)
    kept, cold = [], []
    for i, (user, items) in enumerate(every):
        # Moments between the hops of the windows, later each time: no read finds its windows where the last one left.
        now = newest + i * 7 * SECOND
        kept.append(_timed(partial(_one, folded, store, now, user, items)))
    for i, (user, items) in enumerate(every[: requests // 4]):
        now = newest + i * 7 * SECOND
        cold.append(_timed(partial(_one, Folded(), store, now, user, items)))
    return {**_told(name, kept[len(kept) // 4 :]), **_told(f"{name}_cold", cold)}


def _one(folded: Folded, store: Store, now: int, user: NDArray[np.uint32], items: NDArray[np.uint32]) -> None:
    with store.snapshot() as snapshot:
        read = folded.reader(snapshot, now)
        for view, keys in zip(VIEWS, (user, items), strict=True):
            read(view, keys, np.zeros(len(keys), np.int64))


def _gets(path: Path, requests: int) -> list[float]:
    """The bare gets of the same keys: the floor."""
    env = lmdb.open(str(path), readonly=True, lock=False)
    user_view, item_view = (view.version for view in VIEWS)
    times = []
    for user, items in asked(requests // 4):
        keys = [user_view + int(user[0, 0]).to_bytes(4, "big")]
        keys += [item_view + code.to_bytes(4, "big") for code in items[:, 0].tolist()]

        def gets(keys: Sequence[bytes] = keys) -> None:
            with env.begin() as txn:
                b"".join([txn.get(key) or b"" for key in keys])

        times.append(_timed(gets))
    env.close()
    return times


def _feast(*redis_port: str) -> dict[str, float]:
    """Feast's `get_online_features` of 20 ready-made values of as many entities, in its own environment."""
    python = KEPT / "feast" / "bin" / "python"
    command = [str(python), str(PEERS / "feast_online.py"), str(ASKED), str(FEATURES), *redis_port]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _timed(work: Callable[[], object]) -> float:
    began = perf_counter()
    work()
    return (perf_counter() - began) * 1e3


def _told(name: str, ms: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.quantile(ms, (0.5, 0.99)).tolist()
    return {f"{name}_p50_ms": round(p50, 3), f"{name}_p99_ms": round(p99, 3)}


def _progress(done: int, total: int | None) -> None:
    print(f"\r{done:,} of {total or 0:,} events", end="" if done != total else "\n", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
