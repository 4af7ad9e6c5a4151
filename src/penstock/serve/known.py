"""What this process last knew of shoppers, for answers that must not wait for the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import monotonic

from penstock.types import Array

MOST = 10_000
"""Shoppers of one decision that are remembered; the one longest unseen goes first."""
AGE = 600.0
"""Seconds for which what was known is used."""


class LastKnown:
    """Lists of codes by shopper. Any thread may use it.

    Args:
        names: of the lists that are kept.
        most: shoppers at most.
        age: seconds after which a shopper is unknown again.
        elapsed: seconds on a clock that only goes forward.

    >>> known = LastKnown(["bought"], most=1)
    >>> known.keep("ann", {"bought": [7], "seen": [8]}); known.of("ann")
    {'bought': [7]}
    >>> known.keep("bob", {"bought": []}); known.of("ann")
    {}
    """

    def __init__(
        self, names: list[str], *, most: int = MOST, age: float = AGE, elapsed: Callable[[], float] = monotonic
    ) -> None:
        self.names = tuple(names)
        self._most = most
        self._age = age
        self._elapsed = elapsed
        self._held: dict[str, tuple[float, Mapping[str, Array]]] = {}
        self._lock = threading.Lock()

    def keep(self, user: str, lists: Mapping[str, Array]) -> None:
        """Remembers what was just read of a shopper."""
        if not self.names:
            return
        kept = {name: lists[name] for name in self.names if name in lists}
        with self._lock:
            self._held.pop(user, None)
            self._held[user] = (self._elapsed(), kept)
            if len(self._held) > self._most:
                del self._held[next(iter(self._held))]

    def of(self, user: str) -> Mapping[str, Array]:
        """The lists as they were last read; none where that is too long ago, or never was."""
        with self._lock:
            held = self._held.get(user)
        return held[1] if held is not None and self._elapsed() - held[0] <= self._age else {}
