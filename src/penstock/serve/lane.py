"""The deciding thread: what may wait for the store runs on it, so that the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
LOOKED_AT = 31
"""Jobs from whose durations the wait is reckoned."""
_LINGER = 5.0


class _Job:
    __slots__ = ("future", "handed", "loop", "waits", "work")

    def __init__(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.handed = perf_counter()
        self.waits = True


class Lane:
    """Runs one job after the other on a thread of its own, for callers that wait only so long.

    A job whose caller has given up is not begun; the result of one that had begun is dropped. Close it.
    """

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._since: float | None = None
        self._busy = 0.0
        self._durations: deque[float] = deque(maxlen=LOOKED_AT)
        self._median = 0.0
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)
        self._thread.start()

    async def run(self, work: Callable[[], T], within: float) -> T:
        """What `work` returns or raises.

        Args:
            work: called on the lane's thread, after all that was handed over before.
            within: seconds that the caller waits.

        Raises:
            TimeoutError: it has not ended by then.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, loop)
        with self._lock:
            self._waiting += 1
        self._jobs.put(job)
        expiry = loop.call_later(within, _settle, job.future, None, TimeoutError())
        try:
            found: T = await job.future
            return found
        finally:
            expiry.cancel()
            with self._lock:
                self._begin(job)

    @property
    def waiting(self) -> int:
        """Jobs that are not yet begun, and whose callers still wait."""
        return self._waiting

    @property
    def busy(self) -> float:
        """Seconds spent at work so far."""
        return self._busy

    @property
    def wait(self) -> float:
        """Seconds that a job handed over now would wait, going by the median of the last jobs.

        The running one is reckoned to take as long again where it has overrun.
        """
        with self._lock:
            ahead = self._waiting * self._median
            if self._since is not None:
                ahead += abs(self._median - (perf_counter() - self._since))
            return ahead

    def close(self) -> None:
        """Ends the thread after what was handed over; one that is stuck in a job is left to itself."""
        self._jobs.put(None)
        self._thread.join(_LINGER)

    def _begin(self, job: _Job) -> bool:
        """Counts a job out of those that wait; whether it was among them."""
        waited, job.waits = job.waits, False
        self._waiting -= waited
        return waited

    def _run(self) -> None:
        ended = 0.0
        while (job := self._jobs.get()) is not None:
            with self._lock:
                if job.future.done() or not self._begin(job):
                    continue
                # Also counts what passes between two jobs, while other threads hold the interpreter.
                self._since = since = max(job.handed, ended)
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:
                # The caller hears of it; this thread is the only one of its kind.
                error = raised
            ended = perf_counter()
            with self._lock:
                self._busy += ended - since
                self._durations.append(ended - since)
                self._median = sorted(self._durations)[len(self._durations) // 2]
                self._since = None
            # A loop that has ended waits for nothing.
            with suppress(RuntimeError):
                job.loop.call_soon_threadsafe(_settle, job.future, result, error)
            del job, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
