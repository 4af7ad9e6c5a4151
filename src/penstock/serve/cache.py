"""Personal answers that may be given again, for as long as the app allows, and until the shopper does something."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from time import monotonic

from penstock.serve.aged import Aged
from penstock.serve.fallback import Outcome

MOST = 10_000
"""Answers of one decision that are kept; the oldest goes first."""


class Cache(Aged[Hashable, tuple[list[int], Outcome]]):
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
        super().__init__(most=most, age=seconds, elapsed=elapsed)

    def keep(self, asked: Hashable, editions: list[int], outcome: Outcome) -> None:
        """Remembers what was answered, and the editions of the shopper's features that it rests on."""
        if self._age:
            self.put(asked, (editions, outcome))

    def of(self, asked: Hashable, editions: list[int]) -> Outcome | None:
        """What was answered; None where that is too long ago, or the shopper's features have changed since."""
        held = self.get(asked) if self._age else None
        return held[1] if held is not None and held[0] == editions else None
