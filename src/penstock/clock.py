"""Time as an argument: nothing inside penstock reads a clock of its own."""

from __future__ import annotations

import re
import time
from typing import Protocol

from penstock.errors import DefinitionError

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_UNITS = {"ms": 1_000, "s": SECOND, "min": MINUTE, "m": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}


class Clock(Protocol):
    """Gives now, in microseconds since 1970 UTC."""

    def now(self) -> int: ...

    def saw(self, time_: int) -> None:
        """Hears the time of every event before it is appended."""


class SystemClock:
    """The machine's wall clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000

    def saw(self, time_: int) -> None:
        """The wall clock goes its own way."""


class EventsClock:
    """Now is the newest time that any accepted event carries, so a recorded day can be replayed.

    >>> clock = EventsClock()
    >>> clock.saw(5); clock.saw(3); clock.now()
    5
    """

    def __init__(self, start: int = 0) -> None:
        self._newest = start

    def saw(self, time_: int) -> None:
        """Moves now forward to `time_` (microseconds); a clock never goes back."""
        self._newest = max(self._newest, time_)

    def now(self) -> int:
        return self._newest


def duration(text: str | int) -> int:
    """A span such as ``"30s"``, ``"15min"``, ``"1h"``, ``"7d"`` in microseconds; integers pass through.

    >>> duration("1h"), duration("50ms")
    (3600000000, 50000)
    """
    if isinstance(text, int):
        return text
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)\s*", text)
    if match is None or float(match[1]) <= 0:
        raise DefinitionError(
            "a duration is a positive number and a unit",
            got=repr(text),
            remedy='write it like "50ms", "30s", "15min", "1h", "7d" or "2w"',
        )
    return round(float(match[1]) * _UNITS[match[2]])
