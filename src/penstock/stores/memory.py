"""The store for tests, notebooks and batch jobs: a dictionary."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock

from penstock.stores.changes import KEPT, NAMED


class MemoryStore:
    """Keeps records in this process; `snapshot` holds writers off for as long as it lives."""

    def __init__(self) -> None:
        self._records: dict[bytes, dict[bytes, bytes]] = {}
        self._applied: dict[bytes, int] = {}
        self._lock = RLock()
        self.offset = 0
        self.newest = 0
        self.commit = 0
        self._changed: deque[set[bytes] | None] = deque(maxlen=KEPT)

    @contextmanager
    def snapshot(self) -> Iterator[MemoryStore]:
        with self._lock:
            yield self

    def get(self, view: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        records = self._records.get(view, {})
        return [records.get(key) for key in keys]

    def applied(self, view: bytes) -> int:
        return self._applied.get(view, 0)

    def changed(self, since: int) -> set[bytes] | None:
        behind = self.commit - since
        if not 0 <= behind <= len(self._changed):
            return None
        named: set[bytes] = set()
        for names in list(self._changed)[len(self._changed) - behind :]:
            if names is None:
                return None
            named |= names
        return named

    def write(
        self, records: Iterable[tuple[bytes, bytes, bytes]], applied: Mapping[bytes, int], offset: int, newest: int
    ) -> None:
        whole = list(records)  # all or nothing, where the source of records fails midway
        with self._lock:
            for view, key, record in whole:
                self._records.setdefault(view, {})[key] = record
            self._applied.update(applied)
            self.offset, self.newest = offset, newest
            self.commit += 1
            self._changed.append({view + key for view, key, _ in whole} if len(whole) <= NAMED else None)

    def scan(self, view: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._lock:
            yield from sorted(self._records.get(view, {}).items())

    def views(self) -> dict[bytes, int]:
        return dict(self._applied)

    def sizes(self) -> dict[bytes, tuple[int, int]]:
        with self._lock:
            return {
                view: (len(records), sum(len(view) + len(key) + len(record) for key, record in records.items()))
                for view, records in self._records.items()
            }

    def drop(self, view: bytes) -> None:
        with self._lock:
            self._records.pop(view, None)
            self._applied.pop(view, None)
            self.commit += 1
            self._changed.append(None)

    def close(self) -> None:
        """Nothing to release."""
