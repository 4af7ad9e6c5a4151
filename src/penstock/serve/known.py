"""What this process last knew of shoppers, for answers that must not wait for the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

from penstock.serve.aged import Aged
from penstock.types import Array

MOST = 10_000
"""Shoppers of one decision that are remembered; the one longest unseen goes first."""
AGE = 600.0
"""Seconds for which what was known is used."""


class LastKnown(Aged[str, Mapping[str, Array]]):
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
        super().__init__(most=most, age=age, elapsed=elapsed)
        self.names = tuple(names)

    def keep(self, user: str, lists: Mapping[str, Array]) -> None:
        """Remembers what was just read of a shopper."""
        if self.names:
            self.put(user, {name: lists[name] for name in self.names if name in lists})

    def of(self, user: str) -> Mapping[str, Array]:
        """The lists as they were last read; none where that is too long ago, or never was."""
        return self.get(user) or {}
