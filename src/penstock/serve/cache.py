"""Personal answers that may be given again, for as long as the app allows, and until the shopper does something."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from itertools import islice
from time import monotonic

from penstock.serve.fallback import Outcome

MOST = 10_000
"""Answers of one decision that are kept; the oldest goes first."""


class Cache:
    """Outcomes by what was asked. Any thread may use it.

    Args:
        seconds: how old an outcome may be; 0 keeps none.
        most: outcomes at most.
        elapsed: seconds on a clock that only goes forward.

    >>> from penstock.serve.fallback import Outcome
    >>> import numpy as np
    >>> cache, none = Cache(2.0), np.zeros(0, np.uint32)
    >>> cache.keep("ann", [7], Outcome("personal", 1, 2, none, none, none, none, none))
    >>> cache.of("ann", [7]).tier, cache.of("ann", [8]), cache.of("bob", [7])
    ('personal', None, None)
    """

    def __init__(self, seconds: float, *, most: int = MOST, elapsed: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._most = most
        self._elapsed = elapsed
        self._held: dict[Hashable, tuple[float, list[int], Outcome]] = {}
        self._lock = threading.Lock()

    def keep(self, asked: Hashable, editions: list[int], outcome: Outcome) -> None:
        """Remembers what was answered, and the editions of the shopper's features that it rests on."""
        if not self._seconds:
            return
        with self._lock:
            now = self._elapsed()
            self._held.pop(asked, None)
            self._held[asked] = (now, editions, outcome)
            # They stand in the order of their age.
            for old, (then, _, _) in list(islice(self._held.items(), 2)):
                if len(self._held) > self._most or now - then > self._seconds:
                    del self._held[old]

    def of(self, asked: Hashable, editions: list[int]) -> Outcome | None:
        """What was answered; None where that is too long ago, or the shopper's features have changed since."""
        if not self._seconds:
            return None
        with self._lock:
            held = self._held.get(asked)
        if held is None or held[1] != editions or self._elapsed() - held[0] > self._seconds:
            return None
        return held[2]
