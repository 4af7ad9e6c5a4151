"""The proof on apps drawn at random: every engine on every store gives the same bytes, whatever happens on the way.

What happens: late events, batches cut anywhere, batches delivered twice, writes that fail halfway, and shards whose
number changes. The naive engine, which shares no kernel with the others, says what is right.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from penstock.audit import drawn
from penstock.audit.crash import Interrupted
from penstock.audit.disorder import Proof
from penstock.clock import HOUR
from penstock.engines import BatchEngine, NaiveEngine, StreamEngine
from penstock.engines.stream import entities
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.records import Tiles, decode, encode, fold, joined, merge_tiles
from penstock.stores import LmdbStore, MemoryStore
from penstock.types import Array, Progress, Rows, Store

SHARDS = (1, 7, 3)
"""How many workers share a stream, one after the other."""
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
        _prove(proof, drawn.views(random), rows, texts, random, stores, engines)
        proof.streams += 1
        if progress:
            progress(number + 1, apps)
    return proof


def _prove(
    proof: Proof, views: Sequence[View], rows: Rows, texts: drawn.Texts, random: np.random.Generator,
    stores: Mapping[str, Make], engines: Mapping[str, MakeEngine],
) -> None:  # fmt: skip
    log = RowsLog({rows.stream: rows}, texts)
    naive = NaiveEngine({rows.stream: rows}, views, texts)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lanes: dict[str, _Single | _Sharded] = {}
        for name, make in stores.items():
            store = stack.enter_context(closing(make(folder / name)))
            lanes[name] = _Single(log, store, views, random)
        lanes["shards"] = _Sharded(views, texts)
        known: dict[bytes, list[_Truth]] = {view.version: [] for view in views}
        done = 0
        for stop in [*sorted(random.integers(1, len(rows), _MOMENTS - 1).tolist()), len(rows)]:
            for lane in lanes.values():
                lane.go_on(rows, done, stop)
            done = stop
            newest = int(rows.time[:stop].max())
            now = newest + int(random.choice([0, 1, HOUR // 2, 26 * HOUR]))
            for view in views:
                keys = _keys(view, rows)
                truth = _Truth(keys, now, stop, naive.table(view, keys, now, stop))
                known[view.version].append(truth)
                for name, lane in lanes.items():
                    found = fold(view, lane.read(view, keys), np.full(len(keys), now))
                    _compare(proof, f"stream on {name}", view, truth.table, found)
        proof.crashes += sum(lane.crashes for lane in lanes.values())
        happened = {}
        for view in views:
            keys, now = _keys(view, rows), int(random.choice(rows.time))
            happened[view.version] = [_Truth(keys, now, len(rows), naive.table(view, keys, now, len(rows)))]
        for name, begin in engines.items():
            engine = stack.enter_context(begin(log))
            for view in views:
                _ask(proof, f"{name} as known", view, known[view.version], engine, as_known=True)
                _ask(proof, f"{name} as happened", view, happened[view.version], engine, as_known=False)
            if isinstance(engine, Filling):
                store = MemoryStore()
                engine.fill(store, views)
                for view in views:
                    last = known[view.version][-1]
                    found = fold(view, _read(store, view, last.keys), np.full(len(last.keys), last.now))
                    _compare(proof, f"a store filled by {name}", view, last.table, found)


@dataclass(frozen=True)
class _Truth:
    """What the naive engine says of some keys, at a time, from the events below an offset."""

    keys: NDArray[np.uint32]
    now: int
    known: int
    table: Mapping[str, Array]


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


def _keys(view: View, rows: Rows) -> NDArray[np.uint32]:
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


class _Torn(Exception):
    """A write that stopped halfway."""


def _tear() -> None:
    raise _Torn


class _Single:
    """One engine on one store, which fails, begins again from what the store holds, and hears batches twice."""

    def __init__(self, log: RowsLog, store: Store, views: Sequence[View], random: np.random.Generator) -> None:
        self._log, self._views, self._random = log, views, random
        self._store: Any = Interrupted(store, _tear)
        self._engine = StreamEngine(log, self._store, views)
        self.crashes = 0

    def go_on(self, rows: Rows, done: int, stop: int) -> None:
        """Takes the events below `stop`."""
        random = self._random
        while done < stop:
            end = min(stop, done + int(random.integers(1, 60)))
            self._store.next = random.random() < 0.2
            with suppress(_Torn):
                self._engine.apply(self._log.read(done, end), done, end)
            if self._store.next:
                # As after a crash: the engine knows no more than what the store holds.
                self._store.next = False
                self.crashes += 1
                self._engine = StreamEngine(self._log, self._store, self._views)
                while (held := self._engine.behind() - (self._log.end - end)) > 0:
                    self._engine.step(held)
            before = max(0, end - 20)
            self._engine.apply(self._log.read(before, end), before, end)
            done = end

    def read(self, view: View, keys: NDArray[np.uint32]) -> list[Tiles]:
        """The tiles of the entities of `keys`."""
        return _read(self._store, view, keys)


def _read(store: Store, view: View, keys: NDArray[np.uint32]) -> list[Tiles]:
    with store.snapshot() as snapshot:
        return decode(view, snapshot.get(view.version, [view.key(key) for key in keys.tolist()]))


class _Sharded:
    """Engines that share a stream event by event, each with a store of its own; their number changes on the way."""

    def __init__(self, views: Sequence[View], texts: drawn.Texts) -> None:
        self._views, self._texts = views, texts
        self._stores: list[Store] = [MemoryStore()]
        self._turn = 0
        self.crashes = 0

    def go_on(self, rows: Rows, done: int, stop: int) -> None:
        """Takes the events below `stop`, by as many workers as it is the turn of."""
        self._move(SHARDS[self._turn % len(SHARDS)])
        self._turn += 1
        n = len(self._stores)
        for shard, store in enumerate(self._stores):
            mine = rows.take(np.flatnonzero((rows.offset >= done) & (rows.offset < stop) & (rows.offset % n == shard)))
            engine = StreamEngine(RowsLog({rows.stream: rows}, self._texts), store, self._views)
            engine.apply({rows.stream: mine}, done, stop)

    def _move(self, n: int) -> None:
        """Hands all records to `n` new workers, whole, each to one of them."""
        stores: list[Store] = [MemoryStore() for _ in range(n)]
        kept: list[list[tuple[bytes, bytes, bytes]]] = [[] for _ in stores]
        for view in self._views:
            names = sorted({key for store in self._stores for key, _ in store.scan(view.version)})
            for place, (key, record) in enumerate(zip(names, self._records(view, names), strict=True)):
                kept[place % n].append((view.version, key, record))
        with self._stores[0].snapshot() as snapshot:
            offset = snapshot.offset
        newest = 0
        for store in self._stores:
            with store.snapshot() as snapshot:
                newest = max(newest, snapshot.newest)
        for store, records in zip(stores, kept, strict=True):
            store.write(records, {view.version: offset for view in self._views}, offset, newest)
        self._stores = stores

    def _records(self, view: View, names: Sequence[bytes]) -> list[bytes]:
        return encode(view, self._tiles(view, names), len(names)) if names else []

    def read(self, view: View, keys: NDArray[np.uint32]) -> list[Tiles]:
        """The tiles of the entities of `keys`, merged over all workers."""
        return self._tiles(view, [view.key(key) for key in keys.tolist()])

    def _tiles(self, view: View, names: Sequence[bytes]) -> list[Tiles]:
        whole: list[Tiles] | None = None
        for store in self._stores:
            with store.snapshot() as snapshot:
                part = decode(view, snapshot.get(view.version, names))
            if whole is None:
                whole = part
            else:
                pairs = zip(view.groups, whole, part, strict=True)
                whole = [merge_tiles(group, *joined(a, b)) for group, a, b in pairs]
        assert whole is not None
        return whole
