"""The one writer: takes what many clients send, commits it together, and makes it visible.

Group commit: while one batch is being synced, the next one gathers, so an fsync is shared by everything
that arrived meanwhile. A client is answered once its events are durable and in the store. Under load several
batches are shown together: bringing one event into the store takes nearly as long as bringing in ten.

Committing and showing are threads of their own, so that whoever waits for the disk alone, as a verdict on an event
does, does not wait for the store too; and a third one keeps the log's journal short, which an append would else do.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from penstock.clock import Clock
from penstock.engines import StreamEngine
from penstock.errors import PenstockError, StoreError, UnavailableError
from penstock.events import SqliteLog
from penstock.serve.faults import FAULTS
from penstock.types import Accepted

_log = logging.getLogger("penstock.serve")
MOST = 5_000
MOST_WAITING = 4_096
"""Requests at most that wait to be committed and shown."""
BACKFILL = 2_000
_LOOK = 0.1
_TIDY = 1.0
"""Seconds between two times that the log's journal is shortened."""
_REST = 1.5
"""Between two times that events are shown passes so many times what the last one took, or `_LONGEST` seconds."""
_LONGEST = 0.01


@dataclass
class _Asked:
    events: Sequence[Accepted]
    shown: bool
    future: Future[list[bool]]
    new: list[bool] = field(default_factory=list)


class Writer:
    """Owns the log's and the store's writing side, on threads of its own.

    Args:
        log, engine: what to write.
        clock: gives each event's arrival.
        look: called between two times that events are shown, ten times a second at least.
    """

    def __init__(
        self,
        log: SqliteLog,
        engine: StreamEngine,
        clock: Clock,
        look: Callable[[], None],
    ) -> None:
        self._log = log
        self._engine = engine
        self._clock = clock
        self._look = look
        lock = threading.Lock()
        self._came = threading.Condition(lock)  # to commit
        self._kept = threading.Condition(lock)  # to show
        self._queue: deque[_Asked] = deque()
        self._committing = 0
        self._calls: deque[Callable[[], None]] = deque()
        self._unshown: list[_Asked] = []
        self._from = self._to = 0  # the offsets of what is durable and not shown
        self._shown = log.end
        self._due = 0.0
        self._away = False
        self._closing = self._committed = False
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=name, daemon=True)
            for name, work in (("writer", self._commit_all), ("shower", self._show_all), ("tidier", self._tidy))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, events: Sequence[Accepted], *, shown: bool = True) -> Future[list[bool]]:
        """Resolves, once durable and visible, to which of the events were new (the others are duplicates).

        Args:
            shown: wait until they are visible; without it, only until they are durable, some milliseconds earlier.
        """
        future: Future[list[bool]] = Future()
        if not events:
            future.set_result([])
            return future
        with self._came:
            if self._closing:
                raise UnavailableError("events are taken while the server runs", remedy="send them again after restart")
            if len(self._queue) + self._committing + len(self._unshown) >= MOST_WAITING:
                raise UnavailableError(
                    f"at most {MOST_WAITING:,} requests wait for the log", got="one more",
                    remedy="send them again after Retry-After seconds",
                )  # fmt: skip
            self._queue.append(_Asked(events, shown, future))
            self._came.notify()
        return future

    def call(self, work: Callable[[], None]) -> None:
        """Runs `work` on the thread that shows events, between two times."""
        with self._kept:
            self._calls.append(work)
            self._kept.notify()

    @property
    def waiting(self) -> int:
        """How many requests have not been committed yet."""
        return len(self._queue)

    @property
    def alive(self) -> bool:
        """Whether any of its threads runs."""
        return any(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """Commits and shows what was taken, then stops."""
        with self._came:
            self._closing = True
            self._came.notify()
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _commit_all(self) -> None:
        while True:
            with self._came:
                self._committing = 0
                # What is not shown is bounded: clients who wait for the disk alone would not slow down for it.
                self._came.wait_for(lambda: self._closing or (self._queue and self._to - self._from < MOST))
                batch = self._take()
                self._committing = len(batch)
                if not batch:
                    self._committed = True
                    self._kept.notify()
                    return
            self._commit(batch)

    def _take(self) -> list[_Asked]:
        batch: list[_Asked] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0].events) <= MOST):
            batch.append(self._queue.popleft())
            size += len(batch[-1].events)
        return batch

    def _commit(self, batch: list[_Asked]) -> None:
        events = [event for asked in batch for event in asked.events]
        try:
            arrived = []
            for event in events:
                self._clock.saw(event.time)
                arrived.append(self._clock.now())
            appended = self._log.append(events, arrived)
        except PenstockError as error:
            for asked in batch:
                asked.future.set_exception(error)
            return
        except FAULTS as error:  # a client must hear of it, whatever it is
            _log.exception("the log refused a batch")
            for asked in batch:
                asked.future.set_exception(UnavailableError("the log takes events", got=str(error), remedy="retry"))
            return
        at = 0
        for asked in batch:
            asked.new = list(appended.new[at : at + len(asked.events)])
            at += len(asked.events)
        with self._kept:
            if appended.end > appended.first:
                self._from = self._from if self._to else appended.first
                self._to = appended.end
            self._unshown += [asked for asked in batch if asked.shown]
            self._kept.notify()
        for asked in batch:
            if not asked.shown:
                asked.future.set_result(asked.new)

    def _show_all(self) -> None:
        while True:
            with self._kept:
                if not (self._calls or self._committed):
                    self._kept.wait(self._pause())
                calls, self._calls = list(self._calls), deque()
                first = end = 0
                waiting: list[_Asked] = []
                if self._committed or not self._to or time.monotonic() >= self._due:
                    first, end, waiting = self._from, self._to, self._unshown
                    self._from, self._to, self._unshown = 0, 0, []
                    self._came.notify()
                pending, done = bool(self._to), self._committed and not (end or waiting or calls)
            if done:
                return
            for work in [self._look, *calls]:
                self._guard(work)
            shown = self._show(first, end, waiting)
            if shown and self._behind():
                # Also while events come: a store that was away, or a new view, would else never get there.
                if not self._keep_up(lambda: self._engine.step(BACKFILL, self._shown)):
                    # A full disk stays full for a while: no use in trying thousands of times a second.
                    time.sleep(_LOOK)
            elif not (end or waiting or pending):
                self._keep_up(self._engine.look)

    def _pause(self) -> float:
        """For how long there is nothing to show unless something comes."""
        if self._to:
            return max(0.0, self._due - time.monotonic())
        return 0.0 if self._unshown or self._behind() else _LOOK

    def _behind(self) -> int:
        # What was appended and is not yet to be shown is not what the store lacks.
        return self._engine.behind(end=self._shown)

    def _show(self, first: int, end: int, waiting: Sequence[_Asked]) -> bool:
        """Brings what is durable into the store, and answers those who wait for it; whether the store took it."""
        taken = True
        if end:
            began = time.monotonic()
            taken = self._keep_up(lambda: self._engine.apply(self._log.read(first, end), first, end))
            ended = time.monotonic()
            self._due = ended + min(_REST * (ended - began), _LONGEST)
            self._shown = end
        for asked in waiting:
            asked.future.set_result(asked.new)
        return taken

    def _tidy(self) -> None:
        failed = False
        while not self._ended.wait(_TIDY):
            try:
                self._log.checkpoint()
            except FAULTS:
                # What keeps it from the disk stays for a while: said once.
                if not failed:
                    _log.exception("the log's journal could not be shortened")
                failed = True
            else:
                failed = False

    def _keep_up(self, work: Callable[[], None]) -> bool:
        """Whether the store took `work`; the log has what it did not, and it catches up by steps."""
        try:
            work()
        except StoreError as error:
            # What keeps a store away stays for a while: said once.
            if not self._away:
                _log.error("the store fell behind and will catch up: %s", error)
            self._away = True
        except FAULTS:
            _log.exception("the store fell behind and will catch up")
        else:
            self._away = False
            return True
        return False

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except FAULTS:
            _log.exception("work beside the events failed")
