"""Stream engines that are treated badly: they crash, hear batches twice, and share a stream by ever other numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.audit.crash import Interrupted
from penstock.engines import StreamEngine
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.records import Tiles, decode, encode, joined, merge_tiles
from penstock.stores import MemoryStore
from penstock.types import Rows, Store, Strings

SHARDS = (1, 7, 3)
"""How many workers share a stream, one after the other."""


class _Torn(Exception):
    """A write that stopped halfway."""


def _tear() -> None:
    raise _Torn


class Single:
    """One engine on one store, which fails, begins again from what the store holds, and hears batches twice.

    Args:
        most: batches are smaller than this.
    """

    def __init__(
        self, log: RowsLog, store: Store, views: Sequence[View], random: np.random.Generator, most: int
    ) -> None:
        self._log, self._views, self._random, self._most = log, views, random, most
        self._store: Any = Interrupted(store, _tear)
        self._engine = StreamEngine(log, self._store, views)
        self.crashes = 0

    def go_on(self, rows: Rows, done: int, stop: int) -> None:
        """Takes the events below `stop`."""
        random = self._random
        while done < stop:
            end = min(stop, done + int(random.integers(1, self._most)))
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
        return read_tiles(self._store, view, keys)


def read_tiles(store: Store, view: View, keys: NDArray[np.uint32]) -> list[Tiles]:
    with store.snapshot() as snapshot:
        return decode(view, snapshot.get(view.version, [view.key(key) for key in keys.tolist()]))


class Sharded:
    """Engines that share a stream event by event, each with a store of its own; their number changes on the way."""

    def __init__(self, views: Sequence[View], texts: Strings) -> None:
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
