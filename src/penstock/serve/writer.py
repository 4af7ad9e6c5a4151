"""The one writer: takes what many clients send, commits it together, and makes it visible.

Group commit: while one batch is being synced, the next one gathers, so an fsync is shared by everything
that arrived meanwhile. A client is answered once its events are durable and in the store. Under load several
batches are shown together: bringing one event into the store takes nearly as long as bringing in ten.
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
from penstock.serve.faults import FAULTS
from penstock.types import Accepted, Log

_log = logging.getLogger("penstock.serve")
MOST = 5_000
MOST_WAITING = 4_096
"""Requests that wait to be committed at most."""
BACKFILL = 2_000
_LOOK = 0.1
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
    """Owns the log's and the store's writing side, on a thread of its own.

    Args:
        log, engine: what to write.
        clock: gives each event's arrival.
        look: called between batches, ten times a second at least.
    """

    def __init__(
        self,
        log: Log,
        engine: StreamEngine,
        clock: Clock,
        look: Callable[[], None],
    ) -> None:
        self._log = log
        self._engine = engine
        self._clock = clock
        self._look = look
        self._queue: deque[_Asked] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._away = False
        self._unshown: list[_Asked] = []
        self._from = self._to = 0  # the offsets of what is durable and not shown
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, events: Sequence[Accepted], *, shown: bool = True) -> Future[list[bool]]:
        """Resolves, once durable and visible, to which of the events were new (the others are duplicates).

        Args:
            shown: wait until they are visible; without it, only until they are durable, some milliseconds earlier.
        """
        future: Future[list[bool]] = Future()
        if not events:
            future.set_result([])
            return future
        with self._wake:
            if self._closing:
                raise UnavailableError("events are taken while the server runs", remedy="send them again after restart")
            if len(self._queue) >= MOST_WAITING:
                raise UnavailableError(
                    f"at most {MOST_WAITING:,} requests wait for the log", got="one more",
                    remedy="send them again after Retry-After seconds",
                )  # fmt: skip
            self._queue.append(_Asked(events, shown, future))
            self._wake.notify()
        return future

    def call(self, work: Callable[[], None]) -> None:
        """Runs `work` on the writer's thread, between batches."""
        with self._wake:
            self._calls.append(work)
            self._wake.notify()

    @property
    def waiting(self) -> int:
        """How many requests have not been committed yet."""
        return len(self._queue)

    def close(self) -> None:
        """Commits what was taken, then stops."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not (self._queue or self._calls or self._closing):
                    self._wake.wait(self._pause())
                batch = self._take()
                calls, self._calls = list(self._calls), deque()
                done = self._closing and not batch and not calls
            if not batch:
                self._show()
            if done:
                return
            for work in [self._look, *calls]:
                self._guard(work)
            if batch:
                self._commit(batch)
            elif self._engine.behind():
                if not self._keep_up(lambda: self._engine.step(BACKFILL)):
                    # A full disk stays full for a while: no use in trying thousands of times a second.
                    time.sleep(_LOOK)
            else:
                self._keep_up(self._engine.look)

    def _pause(self) -> float:
        """For how long there is nothing to do unless something comes."""
        if self._to:
            return max(0.0, self._due - time.monotonic())
        return 0.0 if self._engine.behind() else _LOOK

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
        if appended.end > appended.first:
            self._from = self._from if self._to else appended.first
            self._to = appended.end
        at = 0
        for asked in batch:
            asked.new = list(appended.new[at : at + len(asked.events)])
            at += len(asked.events)
            if not asked.shown:
                asked.future.set_result(asked.new)
            else:
                self._unshown.append(asked)
        if time.monotonic() >= self._due or not self._to:
            self._show()

    def _show(self) -> None:
        """Brings what is durable into the store, and answers those who wait for it."""
        first, end, waiting = self._from, self._to, self._unshown
        self._from, self._to, self._unshown = 0, 0, []
        if end:
            began = time.monotonic()
            self._keep_up(lambda: self._engine.apply(self._log.read(first, end), first, end))
            ended = time.monotonic()
            self._due = ended + min(_REST * (ended - began), _LONGEST)
        for asked in waiting:
            asked.future.set_result(asked.new)

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
            _log.exception("work between two batches failed")
