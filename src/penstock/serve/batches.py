"""Work that may wait a moment: done in batches, on a thread of its own, so that no request does it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from penstock.serve.faults import FAULTS

T = TypeVar("T")
PAUSE = 0.1
"""Seconds for which what comes is gathered."""
MOST = 1_000
"""Entries of one batch."""
MOST_WAITING = 100_000
_log = logging.getLogger("penstock.serve")


class _Flush:
    """Stands behind what is to be taken by then."""

    def __init__(self, *, last: bool = False) -> None:
        self.last = last
        self.done = threading.Event()


class Batches(Generic[T]):
    """Gives `take` what was put, in order, some entries at a time; starts its thread with the first. Close it.

    Args:
        name: of the thread.
        take: called on that thread; what it raises is logged, and the next batch follows.
        most_waiting: entries that may wait; one more is not kept.
    """

    def __init__(self, name: str, take: Callable[[list[T]], None], *, most_waiting: int = MOST_WAITING) -> None:
        self._take = take
        self._most_waiting = most_waiting
        self._entries: SimpleQueue[T | _Flush] = SimpleQueue()
        self._hurry = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def put(self, entry: T, *, hurry: bool = False) -> bool:
        """Hands over an entry; whether it was kept. Never waits.

        Args:
            hurry: somebody waits for it, so that no more is gathered than what comes while the batch before is taken.
        """
        if self._entries.qsize() >= self._most_waiting:
            return False
        self._entries.put(entry)
        if hurry:
            self._hurry.set()
        if not self._thread.ident:
            self._start()
        return True

    def flush(self) -> None:
        """Returns once everything put so far was taken."""
        self._flush(_Flush())

    def close(self) -> None:
        """Takes what was put, then ends; what is put later is not taken."""
        self._flush(_Flush(last=True))
        if self._thread.ident:
            self._thread.join()

    def _flush(self, marker: _Flush) -> None:
        if self._thread.is_alive():
            self._entries.put(marker)
            self._hurry.set()
            # Another may have closed it meanwhile.
            while not marker.done.wait(PAUSE) and self._thread.is_alive():
                pass

    def _start(self) -> None:
        with self._lock:
            if not self._thread.ident:
                self._thread.start()

    def _run(self) -> None:
        going = True
        while going:
            entries = self._gather()
            batch = [entry for entry in entries if not isinstance(entry, _Flush)]
            try:
                if batch:
                    self._take(batch)
            except FAULTS:
                _log.exception("%d entries were lost", len(batch))
            for entry in entries:
                if isinstance(entry, _Flush):
                    going = going and not entry.last
                    entry.done.set()

    def _gather(self) -> list[T | _Flush]:
        entries = [self._entries.get()]
        # Where a whole batch waits already there is nothing to wait for.
        if not isinstance(entries[0], _Flush) and self._entries.qsize() < MOST:
            self._hurry.wait(PAUSE)
        # Before what waits is collected: whoever hurries afterwards is heard by the next batch.
        self._hurry.clear()
        try:
            while len(entries) < MOST:
                entries.append(self._entries.get_nowait())
        except Empty:
            return entries
        # Somebody may wait for what did not fit.
        self._hurry.set()
        return entries
