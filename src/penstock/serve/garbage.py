"""Keeps Python's garbage collector from walking through what lives long in the middle of a request.

A full collection walks through every container that the process has: with some hundred thousand kept features it takes
more than 60 ms, in which nobody is answered. Counted references free nearly everything; the collector is there for
cycles. So what has outlived the young generations is set aside, and cycles in it are looked for when nobody asks.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from time import perf_counter

from penstock.learn import prepare

_EVERY = 2.0
"""Seconds between two times that what outlived the young generations is set aside."""
_IDLE = 5.0
"""Seconds without a request after which a full collection is in nobody's way."""
_FULL = 600.0
"""Seconds between two of those at least."""
_AT_LAST = 3_600.0
"""Seconds after which one comes whoever asks: what was set aside in cycles must not grow without end."""


def settle() -> None:
    """Loads what will be needed, and sets all that there is aside. For a process that does nothing but serve."""
    prepare()
    gc.collect()
    gc.freeze()


class Collector:
    """Collects in a process that serves; after `settle`.

    Args:
        elapsed: seconds on a clock that only goes forward.
    """

    def __init__(self, elapsed: Callable[[], float] = perf_counter) -> None:
        self._elapsed = elapsed
        self._young = self._full = self._asked = elapsed()
        self._requests = 0

    def tick(self, requests: int) -> None:
        """To be called some times a second.

        Args:
            requests: how many there have been.
        """
        now = self._elapsed()
        if requests != self._requests:
            self._requests, self._asked = requests, now
        idle = now - self._asked >= _IDLE
        if now - self._full >= (_FULL if idle else _AT_LAST):
            self._full = now
            gc.unfreeze()
            gc.collect()
            gc.freeze()
        elif now - self._young >= _EVERY:
            self._young = now
            gc.collect(1)
            gc.freeze()
