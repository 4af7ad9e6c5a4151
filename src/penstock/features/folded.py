"""Feature values as they were last folded, for as long as neither the record nor the moment changes them.

Most of what a decision reads has not changed since the decision before it. The store says which records have;
where it cannot, a record's bytes are compared. Either takes the place of decoding and folding, and nothing is
ever stale: what is read is what the snapshot holds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.features.assemble import EDITION, Read
from penstock.features.records import FOREVER, decode, merged
from penstock.features.view import View
from penstock.types import Array, Micros, Snapshot

MOST = 32_768
"""Entities of a view that are kept; with one more, all are let go."""
_NUMBERS = count(1)


class Folded:
    """Reads views from snapshots of one store, and keeps what it folded. Any thread may use it.

    Args:
        most: entities kept a view.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tables: dict[bytes, _Table] = {}
        self._commit = 0
        self._lock = threading.Lock()

    def reader(self, snapshot: Snapshot, now: Micros) -> Read:
        """How views are read at one moment of one snapshot."""

        def read(view: View, keys: NDArray[np.uint32], at: NDArray[np.int64]) -> Mapping[str, Array]:
            with self._lock:
                newest = self._catch_up(snapshot)
                table = self._tables.get(view.version)
                if table is None:
                    table = self._tables[view.version] = _Table(view, self._most)
                if len(keys) == 1 and view.by:
                    return table.read_one(snapshot, keys, now, newest=newest)
                return table.read(snapshot, keys, now, newest=newest)

        return read

    def _catch_up(self, snapshot: Snapshot) -> bool:
        """Marks what has changed since the newest snapshot so far; whether this one is as new."""
        if not snapshot.commit or snapshot.commit <= self._commit:
            return 0 < snapshot.commit == self._commit
        changed = snapshot.changed(self._commit) if self._commit else None
        self._commit = snapshot.commit
        if changed is None:
            for table in self._tables.values():
                table.doubt_all()
        else:
            for name in changed:
                known = self._tables.get(name[:8])
                if known is not None:
                    known.doubt(name[8:])
        return True


@dataclass(slots=True)
class _One:
    """What was folded of an entity that is asked for by itself: (1, …) values, or states where time changes them."""

    record: bytes | None
    values: Mapping[str, Array]
    since: Micros
    until: Micros
    edition: NDArray[np.int64]
    current: bool


class _Table:
    """The rows of one view's entities.

    A column holds values where they are timeless, and otherwise the states that give them. Of an entity that is
    asked for by itself, as the subject of a decision is, there is nothing to gather, and no columns are looked into.
    """

    def __init__(self, view: View, most: int) -> None:
        self._view = view
        self._most = most
        # Entities of a single key field, nearly all, are told by its code, which is found sooner than bytes are made.
        self._single = len(view.by) == 1
        self._places: dict[Any, int] = {}
        self._records: list[bytes | None] = []
        self._current = np.zeros(0, bool)  # as the newest snapshot has it
        # From when and until when a row holds; no row holds before it was folded.
        self._since = np.zeros(0, np.int64)
        self._until = np.zeros(0, np.int64)
        self._editions = np.zeros(0, np.int64)
        self._columns: dict[str, Array] = {}
        self._nothing: dict[str, Array] | None = None
        self._ones: dict[Any, _One] = {}
        self._moving = [(name, aggregate) for name, aggregate in view.features.items() if not aggregate.timeless]

    def doubt(self, name: bytes) -> None:
        """An entity's record may have changed."""
        entity = int.from_bytes(name, "big") if self._single else name
        place, one = self._places.get(entity), self._ones.get(entity)
        if place is not None:
            self._current[place] = False
        if one is not None:
            one.current = False

    def doubt_all(self) -> None:
        """Any record may have changed."""
        self._current[:] = False
        for one in self._ones.values():
            one.current = False

    def read_one(self, snapshot: Snapshot, key: NDArray[np.uint32], now: Micros, *, newest: bool) -> dict[str, Array]:
        """The values (1, …) of the entity of `key` (1, fields); `newest` as in `read`."""
        name = key.astype(">u4").tobytes()
        entity = int.from_bytes(name, "big") if self._single else name
        one = self._ones.get(entity)
        if one is None or not (newest and one.current and one.since <= now < one.until):
            (record,) = snapshot.get(self._view.version, [name])
            if one is None or record != one.record or not one.since <= now < one.until:
                if one is None and len(self._ones) >= self._most:
                    self._ones.clear()
                values, until = self._folded([record], now)
                one = self._ones[entity] = _One(record, values, now, until, np.array([next(_NUMBERS)]), newest)
            # Of an older snapshot nobody knows what has happened to it since.
            one.current = newest
        moment = np.array([now])
        moved = {name: aggregate.served(one.values[name], moment) for name, aggregate in self._moving}
        return {**one.values, **moved, EDITION: one.edition}

    def read(self, snapshot: Snapshot, keys: NDArray[np.uint32], now: Micros, *, newest: bool) -> dict[str, Array]:
        """The values of the entities of `keys` (n, fields), and the edition of each.

        Args:
            newest: whether no later snapshot has been read from.
        """
        entities: Sequence[Any] = keys[:, 0].tolist() if self._single else _names(keys)
        get = self._places.get
        places = [get(entity, -1) for entity in entities]
        if -1 in places:
            self._add(entities)
            places = [get(entity, -1) for entity in entities]
        at = np.array(places, np.int64)
        passed = (self._until[at] <= now) | (self._since[at] > now)
        unsure = np.flatnonzero(~self._current[at] | passed) if newest else np.arange(len(at))
        if len(unsure):
            self._renew(snapshot, keys[unsure], at[unsure], passed[unsure], now, newest)
        moment = np.full(len(at), now)
        values = {
            name: self._columns[name][at] if aggregate.timeless else aggregate.served(self._columns[name][at], moment)
            for name, aggregate in self._view.features.items()
        }
        return {**values, EDITION: self._editions[at]}

    def _renew(
        self,
        snapshot: Snapshot,
        keys: NDArray[np.uint32],
        at: NDArray[np.int64],
        passed: Array,
        now: Micros,
        newest: bool,
    ) -> None:
        """Folds those of the rows `at` whose records differ or whose time has passed."""
        found = snapshot.get(self._view.version, _names(keys))
        held = self._records
        pairs = zip(at.tolist(), found, passed.tolist(), strict=True)
        # By place, so that an entity that was asked for twice is folded once.
        changed = {place: record for place, record, over in pairs if over or held[place] != record}
        if changed:
            rows = list(changed)
            values_of, until = self._folded(list(changed.values()), now)
            for name, values in values_of.items():
                if name not in self._columns:
                    self._columns[name] = np.empty((len(self._since), *values.shape[1:]), values.dtype)
                self._columns[name][rows] = values
            self._since[rows], self._until[rows] = now, until
            self._editions[rows] = [next(_NUMBERS) for _ in rows]
            for place, record in changed.items():
                held[place] = record
        # Of an older snapshot nobody knows what has happened to it since.
        self._current[at] = newest

    def _folded(self, records: Sequence[bytes | None], now: Micros) -> tuple[Mapping[str, Array], Any]:
        """What columns hold for these records, (n, …), and until when, (n,) or one for all."""
        if not any(records):
            # Of most entities most views know nothing, which is the same for all of them.
            if self._nothing is None:
                self._nothing = self._fold([None], now)[0]
            return self._nothing, FOREVER
        values, until = self._fold(records, now)
        return values, int(until[0]) if len(until) == 1 else until

    def _fold(self, records: Sequence[bytes | None], now: Micros) -> tuple[dict[str, Array], NDArray[np.int64]]:
        moment = np.full(len(records), now)
        states, until = merged(self._view, decode(self._view, records), moment)
        values = {
            name: aggregate.served(states[name], moment) if aggregate.timeless else states[name]
            for name, aggregate in self._view.features.items()
        }
        return values, until

    def _add(self, entities: Sequence[Any]) -> None:
        """Makes rows for those that have none yet."""
        new = dict.fromkeys(entity for entity in entities if entity not in self._places)
        if len(self._places) + len(new) > self._most:
            self._places.clear()
            self._records.clear()
            self._since[:] = FOREVER
            new = dict.fromkeys(entities)
        begin = len(self._places)
        self._places.update(zip(new, range(begin, begin + len(new)), strict=True))
        self._records += [None] * len(new)
        if len(self._records) > len(self._since):
            grown = max(len(self._records), 64)
            self._current = np.concatenate([self._current, np.zeros(grown, bool)])
            self._since = np.concatenate([self._since, np.full(grown, FOREVER)])
            self._until = np.concatenate([self._until, np.zeros(grown, np.int64)])
            self._editions = np.concatenate([self._editions, np.zeros(grown, np.int64)])
            self._columns = {
                name: np.concatenate([column, np.empty((grown, *column.shape[1:]), column.dtype)])
                for name, column in self._columns.items()
            }


def _names(keys: NDArray[np.uint32]) -> list[bytes]:
    """The store's keys of entities (n, fields)."""
    n, width = keys.shape
    data, size = keys.astype(">u4").tobytes(), 4 * width
    return [data[i * size : (i + 1) * size] for i in range(n)]
