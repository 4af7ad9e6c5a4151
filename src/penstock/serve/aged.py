"""Values in memory that are bounded in number and in age."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from itertools import islice
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Aged(Generic[K, V]):
    """Values by key, the longest unkept going first. Any thread may use it.

    Args:
        most: values at most.
        age: seconds after which a value is let go.
        elapsed: seconds on a clock that only goes forward.

    >>> aged = Aged(most=1, age=60.0)
    >>> aged.put("ann", 1); aged.put("bob", 2); aged.get("ann"), aged.get("bob")
    (None, 2)
    """

    def __init__(self, *, most: int, age: float, elapsed: Callable[[], float] = monotonic) -> None:
        self._most = most
        self._age = age
        self._elapsed = elapsed
        self._held: dict[K, tuple[float, V]] = {}
        self._lock = threading.Lock()

    def put(self, key: K, value: V) -> None:
        """Keeps a value from now on."""
        with self._lock:
            now = self._elapsed()
            self._held.pop(key, None)
            self._held[key] = (now, value)
            # They stand in the order of their age; two go for each that comes, so that none stays for long.
            for old, (then, _) in list(islice(self._held.items(), 2)):
                if len(self._held) > self._most or now - then > self._age:
                    del self._held[old]

    def get(self, key: K) -> V | None:
        """What was kept; None where that was too long ago, or never."""
        with self._lock:
            held = self._held.get(key)
        return held[1] if held is not None and self._elapsed() - held[0] <= self._age else None
