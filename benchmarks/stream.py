"""Claim: events become windowed features in a durable store at ten times the rate at which river keeps them in memory.

Count and sum over exact windows of 1 h and 24 h a key, Zipf keys, in batches of 1,000 into LMDB; then ten aggregates
with sketches, and single events. Beside it, on the same events: river and a dict of tiles, neither of them durable.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import penstock.aggregates as ps
from benchmarks import Result, circumstances
from benchmarks._peers import SETUP, interpreter
from benchmarks._serving.systems import PEERS
from penstock.aggregates import Aggregate
from penstock.audit.drawn import Texts, zipf
from penstock.clock import HOUR, MINUTE, SECOND
from penstock.engines import StreamEngine
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.stores import LmdbStore
from penstock.types import Field, Rows, Schema

SCHEMA = Schema("action", (Field("key", "text", False), Field("item", "text", False), Field("price", "money", False)))
KEYS, BATCH = 100_000, 1_000
FOUR: dict[str, Aggregate] = {
    f"{name}_{window}": made
    for window in ("1h", "24h")
    for name, made in (("count", ps.count(window=window)), ("sum", ps.sum("price", window=window)))
}
TEN: dict[str, Aggregate] = {
    **FOUR,
    "highest_24h": ps.max("price", window="24h"),
    "mean_24h": ps.mean("price", window="24h"),
    "items": ps.distinct("item", window="24h", precision=6),
    "top": ps.top_k("item", k=3, capacity=8, window="24h"),
    "recent": ps.last("item", k=10),
    "since": ps.recency(),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--events", type=int, default=1_000_000, help="of the stream (default 1,000,000)")
    parser.add_argument("--singles", type=int, default=2_000, help="events applied one by one (default 2,000)")


def run(chosen: argparse.Namespace) -> Result:
    """Every system on the same events, one after the other."""
    rows = events(chosen.events + chosen.singles)
    many = rows.take(slice(0, chosen.events))
    detail: dict[str, Any] = {
        **circumstances(),
        "events": chosen.events,
        "batch": BATCH,
    }
    for name, features in (("", FOUR), ("ten_", TEN)):
        _say(f"{len(features)} aggregates")
        with tempfile.TemporaryDirectory() as folder, closing(LmdbStore(Path(folder))) as store:
            log = RowsLog({rows.stream: rows}, Texts(()))
            engine = StreamEngine(log, store, [View("Key", ("key",), features, SCHEMA)])
            began = perf_counter()
            _apply(engine, log, 0, chosen.events, BATCH)
            detail[f"{name}events_per_s"] = round(chosen.events / (perf_counter() - began))
            times = [_apply(engine, log, at, at + 1, 1) for at in range(chosen.events, len(rows))]
            p50, p99 = (np.quantile(times, (0.5, 0.99)) * 1e3).tolist()
            detail |= {f"{name}single_p50_ms": round(p50, 3), f"{name}single_p99_ms": round(p99, 3)}
    _say("a dict of tiles")
    detail["dict_events_per_s"] = round(_dict_of_tiles(many))
    python = interpreter("river")
    if python is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "events.npy"
            plain = np.empty(len(many), [("key", "<u4"), ("price", "<i8"), ("time", "<i8")])
            plain["key"], plain["price"], plain["time"] = many.fields["key"], many.fields["price"], many.time
            np.save(path, plain)
            _say("river")
            command = [str(python), str(PEERS / "river_stream.py"), str(path), "200000"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            detail["river_events_per_s"] = json.loads(done.stdout.splitlines()[-1])["events_per_s"]
    else:
        detail["absent"] = {"river": SETUP}
    ours, peer = detail["events_per_s"], detail.get("river_events_per_s")
    return Result(
        name="stream", ours=ours, peer=peer, ratio=round(ours / peer, 1) if peer else None, unit="events/s",
        detail=detail,
    )  # fmt: skip


def events(n: int) -> Rows:
    """Zipf keys, one event every 86 ms: a day and more for a million."""
    draw = np.random.default_rng(5)
    time = 1_700_000_000 * SECOND + np.arange(n) * 86_400
    fields = np.zeros(n, SCHEMA.dtype)
    fields["key"] = 10 + zipf(draw, KEYS, n)
    fields["item"] = 10 + KEYS + draw.integers(5_000, size=n)
    fields["price"] = draw.integers(100, 20_000, n)
    return Rows("action", np.arange(n), time, time, time, draw.integers(1, 2**63, n).astype(np.uint64), fields)


def _apply(engine: StreamEngine, log: RowsLog, start: int, end: int, size: int) -> float:
    """Seconds that the events [start, end) take in batches, reading them apart."""
    taken = 0.0
    for at in range(start, end, size):
        part = log.read(at, min(end, at + size))
        began = perf_counter()
        engine.apply(part, at, min(end, at + size))
        taken += perf_counter() - began
        if size > 1 and at % 100_000 == 0:
            print(f"\r{at:,} events", end="", file=sys.stderr, flush=True)
    return taken


def _dict_of_tiles(rows: Rows) -> float:
    """Events a second of what one would write by hand: two dicts of counts and sums by key and tile."""
    hours: dict[tuple[int, int], list[int]] = {}
    days: dict[tuple[int, int], list[int]] = {}
    columns = zip(rows.fields["key"].tolist(), rows.fields["price"].tolist(), rows.time.tolist(), strict=True)
    began = perf_counter()
    for key, price, time in columns:
        for held, at in ((hours, (key, time // (5 * MINUTE))), (days, (key, time // HOUR))):
            tile = held.get(at)
            if tile is None:
                held[at] = [1, price]
            else:
                tile[0] += 1
                tile[1] += price
    return len(rows) / (perf_counter() - began)


def _say(text: str) -> None:
    print(f"\n{text}", file=sys.stderr, flush=True)
