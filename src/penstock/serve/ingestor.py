"""The writing side of a running system: one log, one store, and the only process that writes to them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from penstock.clock import Clock
from penstock.engines import StreamEngine
from penstock.errors import PenstockError
from penstock.events import Rejection, SqliteLog
from penstock.features import View
from penstock.releases import Registry, recipe_of
from penstock.serve.writer import Writer
from penstock.types import Accepted, Progress, Store

_log = logging.getLogger("penstock.serve")


class Inlet(Protocol):
    """Where a server's events go: the ingestor itself, or a link to the process that it runs in."""

    def submit(self, events: Sequence[Accepted], *, shown: bool = True) -> Future[list[bool]]:
        """Resolves, once durable and visible, to which of the events were new (the others are duplicates).

        Args:
            shown: wait until they are visible; without it, only until they are durable.
        """

    def reject(self, rejections: Sequence[Rejection], source: str) -> None:
        """Keeps what was refused as dead letters, soon."""

    def look(self) -> None:
        """Says that the pointer to a champion has moved."""


class Ingestor:
    """Appends events to the log and keeps every view up to date that the app or a champion needs.

    Args:
        log: open for writing.
        store: open for writing; it catches up with the log first.
        registry: the champions, whose views are kept beside the app's.
        views: the app's own.
        clock: gives each event's arrival.
        progress: told while the store catches up.
    """

    def __init__(
        self,
        log: SqliteLog,
        store: Store,
        registry: Registry,
        views: Sequence[View],
        clock: Clock,
        progress: Progress | None = None,
    ) -> None:
        self._log = log
        self._registry = registry
        self._stamp = registry.stamp()
        clock.saw(log.newest)
        self._engine = StreamEngine(log, store, [*views, *self._champions_views()])
        # What no release can come back to goes.
        self._engine.keep_only(registry.kept_views() | {view.version for view in views})
        self._engine.catch_up(progress)
        self._writer = Writer(log, self._engine, clock, self._look)

    def submit(self, events: Sequence[Accepted], *, shown: bool = True) -> Future[list[bool]]:
        """See `Inlet`."""
        return self._writer.submit(events, shown=shown)

    def reject(self, rejections: Sequence[Rejection], source: str) -> None:
        """See `Inlet`."""
        kept = list(rejections)
        self._writer.call(lambda: self._log.reject(kept, source))

    def look(self) -> None:
        """See `Inlet`."""
        self._writer.call(self._look)

    def call(self, work: Callable[[], None]) -> None:
        """Runs `work` on the thread that applies and back-fills, between batches."""
        self._writer.call(work)

    def close(self) -> None:
        """Commits what was taken, then stops."""
        self._writer.close()

    def _look(self) -> None:
        if self._registry.stamp() != self._stamp:
            self._stamp = self._registry.stamp()
            self._engine.add(self._champions_views())

    def _champions_views(self) -> list[View]:
        out: list[View] = []
        for name in self._registry.champions().values():
            try:
                out += recipe_of(self._registry.folder, name).views
            except PenstockError as error:
                _log.error("the views of release %s are not kept up: %s", name, error)
        return out
