"""Work that may wait a moment: done in batches, on a thread of its own, so that no request does it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
PAUSE = 0.1
"""Seconds for which what comes is gathered."""
MOST = 1_000
"""Entries of one batch."""
_log = logging.getLogger("penstock.serve")


class Batches(Generic[T]):
    """Gives `take` what was put, in order, some entries at a time; starts its thread with the first. Close it.

    Args:
        name: of the thread.
        take: called on that thread; what it raises is logged, and the next batch follows.
        most_waiting: entries that may wait; one more is not kept.
    """

    def __init__(self, name: str, take: Callable[[list[T]], None], *, most_waiting: int | None = None) -> None:
        self._take = take
        self._most_waiting = most_waiting
        self._entries: SimpleQueue[T | threading.Event] = SimpleQueue()
        self._hurry = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def put(self, entry: T) -> bool:
        """Hands over an entry; whether it was kept. Never waits."""
        if self._most_waiting is not None and self._entries.qsize() >= self._most_waiting:
            return False
        self._entries.put(entry)
        if not self._thread.ident:
            self._start()
        return True

    def flush(self) -> None:
        """Returns once everything put so far was taken."""
        if not self._thread.is_alive():
            return
        done = threading.Event()
        self._entries.put(done)
        self._hurry.set()
        done.wait()

    def close(self) -> None:
        """Takes what was put, then ends."""
        if self._thread.is_alive():
            self._closing = True
            self.flush()
            self._thread.join()

    def _start(self) -> None:
        with self._lock:
            if not self._thread.ident:
                self._thread.start()

    def _run(self) -> None:
        going = True
        while going:
            entries = self._gather()
            batch = [entry for entry in entries if not isinstance(entry, threading.Event)]
            going = not self._closing or len(batch) == len(entries)
            try:
                if batch:
                    self._take(batch)
            except Exception:
                _log.exception("%d entries were lost", len(batch))
            for entry in entries:
                if isinstance(entry, threading.Event):
                    entry.set()

    def _gather(self) -> list[T | threading.Event]:
        entries = [self._entries.get()]
        if not isinstance(entries[0], threading.Event):
            self._hurry.wait(PAUSE)
        self._hurry.clear()
        try:
            while len(entries) < MOST:
                entries.append(self._entries.get_nowait())
        except Empty:
            pass
        return entries
