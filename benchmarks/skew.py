"""Claim: whatever disorder events come in, every engine on every store gives the same bytes; and this proof is sharp,
since it catches each of ten deliberate defects.

Random apps over random streams, see `penstock.audit.proof`; then the same with one defect after the other.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import Result, _scale, circumstances
from benchmarks._serving.systems import redis_store
from penstock.aggregates import Last, Sum
from penstock.audit import proof as proving
from penstock.audit.disorder import Proof
from penstock.engines import stream
from penstock.engines.opening import local_spark
from penstock.errors import UnavailableError
from penstock.features import records
from penstock.features.plan import Inputs, Plan
from penstock.features.view import TILE, Group
from penstock.stores import LmdbStore, MemoryStore

Defect = Callable[[], Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--apps", type=int, default=400, help="random apps to prove (default 400)")
    parser.add_argument("--events", type=int, default=300, help="events of each (default 300)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--spark-apps", type=int, default=20, help="random apps that Spark takes part in (default 20)")
    parser.add_argument("--scale", type=int, default=0, help="then also one stream of so many events, such as 10000000")
    parser.add_argument("--retail", type=Path, help="then also Online Retail (UCI), from its CSV file")


def run(chosen: argparse.Namespace) -> Result:
    """Proves, then breaks penstock ten times."""
    before = circumstances()
    began = time.monotonic()
    with ExitStack() as opened:
        stores = dict(proving.STORES)
        if shutil.which("redis-server"):
            stores["redis"] = opened.enter_context(redis_store())
        proof = proving.prove(
            apps=chosen.apps, events=chosen.events, seed=chosen.seed, stores=stores, progress=_progress
        )
        seconds = time.monotonic() - began
        engines = dict(proving.ENGINES)
        on_spark: Proof | None = None
        try:
            engines["spark"] = opened.enter_context(local_spark())
        except UnavailableError as error:
            print(f"without Spark: {error}", file=sys.stderr)
        else:
            on_spark = proving.prove(
                apps=chosen.spark_apps, events=chosen.events, seed=chosen.seed + 1, stores={}, engines=engines,
                progress=_progress,
            )  # fmt: skip
            proof.add(on_spark)
        at_scale: dict[str, Any] = {}
        streams: dict[str, Any] = {}
        if chosen.scale:
            streams["generated"] = lambda: _scale.generated(chosen.scale)
        if chosen.retail:
            streams["online_retail"] = lambda: _scale.retail(chosen.retail)
        for name, make in streams.items():
            found, at_scale[name] = _large(name, make, stores, engines)
            proof.add(found)
    caught = {name: sum(broken(name, seed=chosen.seed).mismatches.values()) for name in DEFECTS}
    return Result(
        name="skew",
        ours=float(sum(proof.mismatches.values())),
        peer=None,
        ratio=None,
        unit="mismatches",
        detail={
            **before,
            "mismatches": sum(proof.mismatches.values()),
            "by_lane": dict(proof.mismatches),
            "values": proof.values,
            "apps": proof.streams,
            "torn_writes": proof.crashes,
            "engines": ["naive", "stream", *engines],
            "values_with_spark": on_spark.values if on_spark else None,
            "at_scale": at_scale,
            "stores": [*stores, "shards 1 → 7 → 3"],
            "seconds": round(seconds, 1),
            "mutations": len(DEFECTS),
            "mutations_caught": sum(found > 0 for found in caught.values()),
            "found_by_mutation": caught,
        },
    )


def _large(
    name: str, make: Callable[[], Any], stores: Mapping[str, Any], engines: Mapping[str, Any]
) -> tuple[Proof, dict[str, Any]]:  # fmt: skip
    """One large stream on every engine and store, and what is to be told of it."""
    print(f"{name}: every engine and store on one stream", file=sys.stderr, flush=True)
    began = time.monotonic()
    rows, texts, views = make()
    found = _scale.prove(rows, texts, views, stores=stores, engines=engines)
    told = {
        "events": len(rows), "values": found.values, "mismatches": sum(found.mismatches.values()),
        "torn_writes": found.crashes, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip
    print(f"{name}: {told}", file=sys.stderr, flush=True)
    return found, told


def broken(name: str, *, apps: int = 30, seed: int = 0) -> Proof:
    """What the proof finds while the defect `name` is in place; it stops at the first app that shows it."""
    found = Proof()
    with DEFECTS[name]():
        for number in range(apps):
            found = proving.prove(apps=1, seed=seed + number)
            if found.mismatches:
                break
    return found


@contextmanager
def _replaced(owner: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """`owner.name` as `change` makes it of what stands there."""
    kept = getattr(owner, name)
    setattr(owner, name, change(kept))
    try:
        yield
    finally:
        setattr(owner, name, kept)


def _window_edge() -> Any:
    """A window leaves its oldest tile out."""
    return _replaced(Group, "oldest", lambda old: lambda self, now: old(self, now) + (self.window is not None))


def _late_dropped() -> Any:
    """An event that is more than an hour late is dropped."""

    def change(old: Any) -> Any:
        def apply(self: Any, rows: Any, first: int, end: int) -> None:
            kept = {s: part.take(np.flatnonzero(part.arrived - part.time < 3_600_000_000)) for s, part in rows.items()}
            old(self, kept, first, end)

        return apply

    return _replaced(stream.StreamEngine, "apply", change)


def _counted_twice() -> Any:
    """A batch that is delivered again counts again."""

    def change(old: Any) -> Any:
        def apply(self: Any, rows: Any, first: int, end: int) -> None:
            self._apply(list(self._applied), rows, end)

        return apply

    return _replaced(stream.StreamEngine, "apply", change)


def _crash_forgotten() -> Any:
    """Of a write that fails halfway the first half stays."""

    def change(old: Any) -> Any:
        def write(self: Any, rows: Any, applied: Any, offset: int, newest: int) -> None:
            kept = []
            try:
                for row in rows:
                    kept.append(row)  # noqa: PERF402 - what came before the failure is to stay
            except Exception:
                with self.snapshot() as snapshot:
                    old(self, kept, {}, snapshot.offset, snapshot.newest)
                raise
            old(self, kept, applied, offset, newest)

        return write

    return _replaced(MemoryStore, "write", change)


def _tile_overwritten() -> Any:
    """Of two tiles of one number the later one replaces the earlier, instead of being merged with it."""

    def change(old: Any) -> Any:
        def merge_tiles(group: Any, owner: Any, tiles: Any) -> Any:
            order = np.lexsort((tiles[TILE], owner))
            owner, tiles = owner[order], tiles[order]
            last = np.flatnonzero(np.r_[(owner[1:] != owner[:-1]) | (tiles[TILE][1:] != tiles[TILE][:-1]), True])
            return records.Tiles(tiles[last], owner[last])

        return merge_tiles

    return _replaced(stream, "merge_tiles", change)


def _missing_counted() -> Any:
    """An event without the column counts as one with the value 0."""

    def change(old: Any) -> Any:
        def inputs(self: Any, rows: Any, strings: Any) -> Any:
            found = old(self, rows, strings)
            return {
                key: Inputs(np.ones_like(part.counts), np.where(part.counts, part.values, 0).astype(part.values.dtype))
                if part.values.dtype.names is None
                else part
                for key, part in found.items()
            }

        return inputs

    # The naive engine and the stream's plan are one; only the engine under test may see the defect.
    return _replaced(stream, "Plan", lambda old: type("Broken", (Plan,), {"inputs": change(Plan.inputs)}))


def _order_of_arrival() -> Any:
    """Of two values the one that came last is the last, whenever it happened."""

    def change(old: Any) -> Any:
        return lambda self, values, time, tie, starts: old(self, values, time * 0 + 1, tie, starts)

    return _replaced(Last, "collect", change)


def _wrong_sign() -> Any:
    """A sum takes amounts for positive."""

    def change(old: Any) -> Any:
        return lambda self, values, time, tie, starts: old(self, np.abs(values), time, tie, starts)

    return _replaced(Sum, "collect", change)


def _keys_mixed() -> Any:
    """Two entities share a record."""

    def change(old: Any) -> Any:
        def entities(codes: Any) -> Any:
            return old(codes // 2 * 2) if codes.shape[1] else old(codes)

        return entities

    return _replaced(stream, "entities", change)


def _record_lost() -> Any:
    """A store loses the last record of a large write."""

    def change(old: Any) -> Any:
        def write(self: Any, rows: Any, applied: Any, offset: int, newest: int) -> None:
            held = list(rows)
            old(self, held[:-1] if len(held) > 5 else held, applied, offset, newest)

        return write

    return _replaced(LmdbStore, "write", change)


DEFECTS: Mapping[str, Defect] = {
    "a window's edge is off by one": _window_edge,
    "late events are dropped": _late_dropped,
    "a batch delivered twice counts twice": _counted_twice,
    "half of a torn write stays": _crash_forgotten,
    "a tile is overwritten": _tile_overwritten,
    "missing values count": _missing_counted,
    "the order of arrival decides": _order_of_arrival,
    "a sum loses its sign": _wrong_sign,
    "two keys share a record": _keys_mixed,
    "a record is lost": _record_lost,
}


def _progress(done: int, total: int | None) -> None:
    if done % 20 == 0 or done == total:
        print(f"\r{done:,} of {total or 0:,} apps", end="" if done != total else "\n", file=sys.stderr, flush=True)
