"""The proof on apps drawn at random: every engine on every store gives the same bytes, whatever happens on the way.

What happens: late events, batches cut anywhere, batches delivered twice, writes that fail halfway, and shards whose
number changes. The naive engine, which shares no kernel with the others, says what is right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.audit import drawn
from penstock.audit.disorder import Proof
from penstock.audit.lanes import Sharded, Single, read_tiles
from penstock.clock import HOUR
from penstock.engines import BatchEngine, NaiveEngine
from penstock.engines.stream import entities
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.records import fold
from penstock.stores import LmdbStore, MemoryStore
from penstock.types import Array, Progress, Rows, Store, Strings

Make = Callable[[Path], Store]
STORES: Mapping[str, Make] = {"memory": lambda path: MemoryStore(), "lmdb": LmdbStore}
_MOMENTS = 4


class PointInTime(Protocol):
    """An engine that is asked for many keys, times and offsets at once."""

    def values(
        self, view: View, keys: NDArray[np.uint32], now: NDArray[np.int64], known: NDArray[np.int64] | None
    ) -> dict[str, Array]: ...


@runtime_checkable
class Filling(Protocol):
    """An engine that makes whole stores."""

    def fill(self, store: Store, views: Sequence[View]) -> None: ...


MakeEngine = Callable[[RowsLog], AbstractContextManager[PointInTime]]
ENGINES: Mapping[str, MakeEngine] = {
    "batch": lambda log: nullcontext(BatchEngine(log.read(0, log.end), log.strings)),
}


def prove(
    *, apps: int = 20, events: int = 300, seed: int = 0, stores: Mapping[str, Make] = STORES,
    engines: Mapping[str, MakeEngine] = ENGINES, progress: Progress | None = None,
) -> Proof:  # fmt: skip
    """Draws apps and streams, and compares every engine and store with the naive engine, byte for byte.

    Args:
        apps: how many; each has a stream of `events` of its own.
        seed: of all draws.
        stores: to prove, by name; each makes an empty store in a folder.
        engines: to prove beside the naive and the stream engine, by name; each is made over a log.
        progress: told after each app.

    >>> prove(apps=1, events=60).mismatches
    Counter()
    """
    proof = Proof()
    for number in range(apps):
        random = np.random.default_rng([seed, number])
        rows, texts = drawn.stream(random, events)
        views = drawn.views(random)
        oracle = Oracle(partial(every_key, rows=rows), NaiveEngine({rows.stream: rows}, views, texts).table)
        prove_on(proof, views, rows, texts, [oracle], random, stores=stores, engines=engines)
        proof.streams += 1
        if progress:
            progress(number + 1, apps)
    return proof


@dataclass(frozen=True)
class Oracle:
    """What is right: of a view the entities to ask for, and their values at a time, from the events below an offset.

    An oracle that is one of the engines itself names it as `engine`, which is not held to it then.
    """

    keys: Callable[[View], NDArray[np.uint32]]
    table: Callable[[View, NDArray[np.uint32], int, int], Mapping[str, Array]]
    engine: str = ""


def prove_on(
    proof: Proof, views: Sequence[View], rows: Rows, texts: Strings, oracles: Sequence[Oracle],
    random: np.random.Generator, *, stores: Mapping[str, Make], engines: Mapping[str, MakeEngine], most: int = 60,
) -> None:  # fmt: skip
    """Compares every engine and store with each oracle on one stream, and counts in `proof`.

    Args:
        most: batches of the stream engine are smaller than this.
    """
    log = RowsLog({rows.stream: rows}, texts)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lanes: dict[str, Single | Sharded] = {}
        for name, make in stores.items():
            store = stack.enter_context(closing(make(folder / name)))
            lanes[name] = Single(log, store, views, random, most)
        lanes["shards"] = Sharded(views, texts)
        known: dict[bytes, list[_Truth]] = {view.version: [] for view in views}
        done = 0
        for stop in [*sorted(random.integers(1, len(rows), _MOMENTS - 1).tolist()), len(rows)]:
            for lane in lanes.values():
                lane.go_on(rows, done, stop)
            done = stop
            newest = int(rows.time[:stop].max())
            now = newest + int(random.choice([0, 1, HOUR // 2, 26 * HOUR]))
            for view, oracle in product(views, oracles):
                truth = _Truth.of(oracle, view, now, stop)
                known[view.version].append(truth)
                for name, lane in lanes.items():
                    found = fold(view, lane.read(view, truth.keys), np.full(len(truth.keys), now))
                    _compare(proof, f"stream on {name}", view, truth.table, found)
        proof.crashes += sum(lane.crashes for lane in lanes.values())
        happened = {}
        for view in views:
            now = int(random.choice(rows.time))
            happened[view.version] = [_Truth.of(oracle, view, now, len(rows)) for oracle in oracles]
        for name, begin in engines.items():
            engine = stack.enter_context(begin(log))
            for view in views:
                for how, truths in (("known", known[view.version]), ("happened", happened[view.version])):
                    others = [truth for truth in truths if truth.engine != name]
                    _ask(proof, f"{name} as {how}", view, others, engine, as_known=how == "known")
            if isinstance(engine, Filling):
                store = MemoryStore()
                engine.fill(store, views)
                for view in views:
                    for last in known[view.version][-len(oracles) :]:
                        found = fold(view, read_tiles(store, view, last.keys), np.full(len(last.keys), last.now))
                        _compare(proof, f"a store filled by {name}", view, last.table, found)


@dataclass(frozen=True)
class _Truth:
    """What an oracle says of some keys, at a time, from the events below an offset."""

    keys: NDArray[np.uint32]
    now: int
    known: int
    table: Mapping[str, Array]
    engine: str

    @classmethod
    def of(cls, oracle: Oracle, view: View, now: int, known: int) -> _Truth:
        keys = oracle.keys(view)
        return cls(keys, now, known, oracle.table(view, keys, now, known), oracle.engine)


def _ask(
    proof: Proof, lane: str, view: View, truths: Sequence[_Truth], engine: PointInTime, *, as_known: bool
) -> None:  # fmt: skip
    # All at once: an engine on many machines takes a while for any question.
    keys = np.concatenate([truth.keys for truth in truths])
    sizes = [len(truth.keys) for truth in truths]
    now = np.repeat([truth.now for truth in truths], sizes)
    known = np.repeat([truth.known for truth in truths], sizes) if as_known else None
    oracle = {name: np.concatenate([truth.table[name] for truth in truths]) for name in view.features}
    _compare(proof, lane, view, oracle, engine.values(view, keys, now, known))


def every_key(view: View, rows: Rows) -> NDArray[np.uint32]:
    """Every entity of a view that the stream names, and one that it never does."""
    if not view.by:
        return np.zeros((1, 0), np.uint32)
    codes = np.stack([rows.fields[name] for name in view.by], axis=1)
    known, _ = entities(codes[(codes != 0).all(axis=1)])
    return np.concatenate([known, np.full((1, len(view.by)), 2**32 - 1, np.uint32)])


def _compare(proof: Proof, lane: str, view: View, oracle: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    for name, expected in oracle.items():
        got = found[name].astype(expected.dtype)
        proof.values += len(expected)
        if got.tobytes() != expected.tobytes():
            rows = [a.tobytes() != b.tobytes() for a, b in zip(got, expected, strict=True)]
            kind = type(view.features[name]).__name__
            proof.mismatches[f"{lane}: {kind}"] += sum(rows) or len(expected)
