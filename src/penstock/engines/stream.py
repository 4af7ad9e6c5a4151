"""The incremental engine: batches of the log merged into the store's records, exactly once.

Records and the offset they reflect move in one transaction, so a crash at any moment leaves a state
that is some prefix of the log, and `catch_up` continues from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates import Aggregate
from penstock.aggregates.runs import run_of, run_starts
from penstock.features.plan import Inputs, Plan
from penstock.features.records import Tiles, decode, encode, joined, merge_tiles
from penstock.features.view import TILE, Block, Group, View
from penstock.types import Array, Log, Progress, Rows, Snapshot, Store

BATCH = 20_000
_OF = b"\0of-log\0"  # where a view's version would stand: whose events the store holds


class StreamEngine:
    """Keeps the records of `views` in `store` up to date with `log`."""

    def __init__(self, log: Log, store: Store, views: Sequence[View] = ()) -> None:
        self._log = log
        self._store = store
        self._views: dict[bytes, View] = {}
        self._applied: dict[bytes, int] = {}
        self._plans: dict[str, Plan] = {}
        self._begin()
        self.add(views)

    def _begin(self) -> None:
        self._trust()
        with self._store.snapshot() as snapshot:
            self._newest = snapshot.newest
        held = self._store.views()
        self._applied = {version: held.get(version, 0) for version in self._applied}

    def look(self) -> None:
        """Begins again from what the store holds, where it is not what was written; `behind` says what it lacks.

        A store outside this process may lose what it held, or have taken a write of which no answer came.
        """
        with self._store.snapshot() as snapshot:
            same = self._left_so(snapshot, [*self._applied])
        if not same:
            self._begin()

    def _left_so(self, snapshot: Snapshot, versions: Sequence[bytes]) -> bool:
        return all(snapshot.applied(version) == self._applied[version] for version in versions)

    def _trust(self) -> None:
        """Empties a store that was built from another log, or from what has been erased since."""
        gone = len(self._log.erasures)
        mine = (f"{self._log.id}:{gone}" if gone else self._log.id).encode()
        with self._store.snapshot() as snapshot:
            held = snapshot.get(_OF, [b"log"])[0]
            offset, newest = snapshot.offset, snapshot.newest
        versions = self._store.views()
        if held not in (None, mine) or any(done > self._log.end for done in versions.values()):
            for version in versions:
                self._store.drop(version)
            held, offset, newest = None, 0, 0
        if held is None:
            self._store.write([(_OF, b"log", mine)], {}, offset, newest)

    def add(self, views: Sequence[View]) -> None:
        """Takes on further view versions; they answer once `behind` is 0 for them."""
        held = self._store.views()
        for view in views:
            self._views.setdefault(view.version, view)
            self._applied.setdefault(view.version, held.get(view.version, 0))
        self._plans = {}

    def keep_only(self, versions: set[bytes]) -> None:
        """Forgets and drops every view version that no release can come back to."""
        for version in [*self._store.views()]:
            if version not in versions:
                self._store.drop(version)
        self._views = {v: view for v, view in self._views.items() if v in versions}
        self._applied = {v: done for v, done in self._applied.items() if v in versions}
        self._plans = {}

    def behind(self, views: Sequence[View] | None = None, *, end: int | None = None) -> int:
        """How many of the log's events, below offset `end`, the slowest of `views` (all by default) has yet to see."""
        versions = list(self._applied) if views is None else [view.version for view in views]
        end = self._log.end if end is None else end
        return max((end - self._applied.get(version, 0) for version in versions), default=0)

    def catch_up(self, progress: Progress | None = None, batch: int = BATCH) -> None:
        """Applies everything that the log holds and the store does not."""
        total = self.behind()
        while (left := self.behind()) > 0:
            self.step(batch)
            if progress:
                progress(total - left + min(batch, left), total)
        if not self._views:
            self._store.write([], {}, self._log.end, self._log.newest)

    def step(self, batch: int = BATCH, end: int | None = None) -> None:
        """Moves the views that are furthest behind forward by at most `batch` events below `end`, in one commit."""
        if not self._applied:
            return
        first = min(self._applied.values())
        later = [done for done in self._applied.values() if done > first]
        stop = min([self._log.end if end is None else end, first + batch, *later])
        self._apply([v for v, done in self._applied.items() if done == first], self._log.read(first, stop), stop)

    def apply(self, rows: Mapping[str, Rows], first: int, end: int) -> None:
        """Applies events first … end - 1, just appended, to every view that is up to date with `first`."""
        self._apply([version for version, done in self._applied.items() if done == first], rows, end)

    def _apply(self, versions: list[bytes], rows: Mapping[str, Rows], end: int) -> None:
        records: list[tuple[bytes, bytes, bytes]] = []
        with self._store.snapshot() as snapshot:
            same = self._left_so(snapshot, versions)
            if same:
                for part in rows.values():
                    self._newest = max(self._newest, int(part.time.max(initial=0)))
                for stream, part in rows.items():
                    views = [self._views[v] for v in versions if self._views[v].stream == stream]
                    if views and len(part):
                        inputs = self._plan(stream).inputs(part, self._log.strings)
                        for view in views:
                            records.extend(_updates(view, part, inputs, snapshot, self._newest))
        if not same:
            self._begin()
            return
        moved = {**self._applied, **dict.fromkeys(versions, end)}
        # The records of views still being back-filled reflect less; `applied` says how much.
        offset = max(moved.values(), default=end)
        self._store.write(records, dict.fromkeys(versions, end), offset, self._newest)
        self._applied = moved  # only what the store took counts as seen

    def _plan(self, stream: str) -> Plan:
        if stream not in self._plans:
            self._plans[stream] = Plan([view for view in self._views.values() if view.stream == stream])
        return self._plans[stream]


def entities(codes: NDArray[np.uint32]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Distinct keys (m, f) among codes (n, f), and for each row the position of its key."""
    n, width = codes.shape
    if width == 0:
        return codes[:1], np.zeros(n, np.int64)
    if width <= 2:
        packed = codes[:, 0].astype(np.uint64)
        if width == 2:
            packed = (packed << np.uint64(32)) | codes[:, 1]
        elif n and int(codes.max()) < 2 * n:  # a table of all codes is smaller than what sorting would take
            held = np.zeros(int(codes.max()) + 1, bool)
            held[codes[:, 0]] = True
            return np.flatnonzero(held).astype(np.uint32)[:, None], (np.cumsum(held) - 1)[codes[:, 0]]
        _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    else:
        _, first, inverse = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    return codes[first], inverse.reshape(-1)


def key_codes(view: View, rows: Rows) -> NDArray[np.uint32]:
    """The key of every row, (n, len(by)) codes."""
    columns = [rows.fields[field] for field in view.by]
    return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0), np.uint32)


@dataclass(frozen=True)
class _Batch:
    """Events sorted by (owner, time), and so by the tiles of every group, with what each feature makes of them."""

    owner: NDArray[np.int64]
    time: NDArray[np.int64]
    tie: NDArray[np.uint64]
    inputs: Mapping[str, Inputs]


def _collected(group: Group, batch: _Batch) -> Tiles:
    """A batch's events merged into one tile an owner and number."""
    number = group.tile(batch.time)
    starts = run_starts(batch.owner, number)
    tiles = np.empty(len(starts), group.blocked)
    tiles[TILE] = number[starts]
    for block in group.blocks:
        if len(block.features) > 1:
            states = _lifted(block, batch)
            tiles[block.field] = states if len(starts) == len(states) else block.aggregate.reduce(states, starts)
        else:
            (name,) = block.features
            tiles[block.field] = _states(block.aggregate, batch, batch.inputs[name], starts)
    return Tiles(tiles.view(group.dtype), batch.owner[starts])


def _states(aggregate: Aggregate, batch: _Batch, given: Inputs, starts: NDArray[np.int64]) -> Array:
    """One aggregate's state of each run of events."""
    if given.counts.all():
        return aggregate.collect(given.values, batch.time, batch.tie, starts)
    states = aggregate.empty(len(starts))
    if given.counts.any():
        at = given.counts.nonzero()[0]
        mine = run_of(starts, len(batch.time))[at]
        firsts = run_starts(mine)
        states[mine[firsts]] = aggregate.collect(given.values[at], batch.time[at], batch.tie[at], firsts)
    return states


def _lifted(block: Block, batch: _Batch) -> Array:
    """A state of every event and feature, (n, m); the empty one where the event does not count."""
    states = np.empty((len(batch.time), len(block.features)), block.aggregate.dtype)
    for i, (name, aggregate) in enumerate(block.features.items()):
        given = batch.inputs[name]
        if given.counts.all():
            states[:, i] = aggregate.lift(given.values, batch.time, batch.tie)
            continue
        states[:, i] = aggregate.empty(1)
        if given.counts.any():
            at = given.counts.nonzero()[0]
            states[at, i] = aggregate.lift(given.values[at], batch.time[at], batch.tie[at])
    return states


def _updates(
    view: View, rows: Rows, inputs: Mapping[tuple[bytes, str], Inputs], snapshot: Snapshot, newest: int
) -> Iterator[tuple[bytes, bytes, bytes]]:
    mine = {name: inputs[view.version, name] for name in view.features}
    codes = key_codes(view, rows)
    counting = {id(part): part.counts for part in mine.values()}
    useful = np.logical_or.reduce([*counting.values()]) & (codes != 0).all(axis=1)
    index = np.flatnonzero(useful)
    if not len(index):
        return
    distinct, owner = entities(codes[index])
    keys = [row.tobytes() for row in distinct.astype(">u4")]
    batch = _sorted(rows, index, owner, mine)
    merged = []
    for group, old in zip(view.groups, decode(view, snapshot.get(view.version, keys)), strict=True):
        part = merge_tiles(group, *joined(old, _collected(group, batch)))
        if group.window is not None:
            live = part.tiles[TILE] >= group.oldest(newest)
            part = part if live.all() else Tiles(part.tiles[live], part.owner[live])
        merged.append(part)
    for key, record in zip(keys, encode(view, merged, len(keys)), strict=True):
        yield view.version, key, record


def _sorted(rows: Rows, index: NDArray[np.int64], owner: NDArray[np.int64], inputs: Mapping[str, Inputs]) -> _Batch:
    """The events at `index`, each one's owner beside it, as a batch."""
    order = np.lexsort((rows.time[index], owner))
    at = index[order]
    # Many features share what they read.
    taken = {id(part): Inputs(part.counts[at], part.values[at]) for part in inputs.values()}
    shared = {name: taken[id(part)] for name, part in inputs.items()}
    return _Batch(owner[order], rows.time[at], rows.tie[at], shared)
