"""Time as an argument: nothing inside penstock reads a clock of its own."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
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

    def latest(self, after: int = 0) -> int:
        """The latest time that an event may carry; one in the same body before it is dated `after`."""


class SystemClock:
    """The machine's wall clock, which here never goes back.

    Set back, it runs at half speed until the wall has caught up: time goes on, and the excess is worked off.

    Args:
        future: how far ahead of it an event may be dated; clocks of senders differ a little.
        wall: nanoseconds since 1970 UTC.
        elapsed: nanoseconds on a clock that only goes forward.

    >>> wall = iter([7_000_000, 3_000_000])
    >>> elapsed = iter([0, 0, 10_000])
    >>> clock = SystemClock(wall=lambda: next(wall), elapsed=lambda: next(elapsed))
    >>> clock.now(), clock.now()
    (7000, 7005)
    """

    def __init__(
        self,
        *,
        future: str | int = "5min",
        wall: Callable[[], int] = time.time_ns,
        elapsed: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._future = duration(future)
        self._wall = wall
        self._elapsed = elapsed
        self._lock = threading.Lock()
        self._newest = 0
        self._at = elapsed()

    def now(self) -> int:
        with self._lock:
            wall, elapsed = self._wall(), self._elapsed()
            half = (elapsed - self._at) // 2
            if wall >= self._newest + half:
                self._newest, self._at = wall, elapsed
            else:
                # The odd nanosecond counts the next time.
                self._newest, self._at = self._newest + half, self._at + 2 * half
            return self._newest // 1_000

    def saw(self, time_: int) -> None:
        """The wall clock goes its own way."""

    def latest(self, after: int = 0) -> int:
        """A moment ahead of now, whatever came before."""
        return self.now() + self._future


class EventsClock:
    """Now is the newest time that any accepted event carries, so a recorded day can be replayed.

    Args:
        start: the time of the newest event so far, 0 for none.
        future: how far ahead of the newest event the next one may be dated. It spans any pause of the shop, and
            keeps one absurd date from moving the clock, which never goes back.
        wall: bounds the first event of all, which has none before it.

    >>> clock = EventsClock(future="1d")
    >>> clock.saw(5); clock.saw(3); clock.now()
    5
    >>> clock.latest() == 5 + DAY
    True
    """

    def __init__(self, start: int = 0, *, future: str | int = "30d", wall: Clock | None = None) -> None:
        self._newest = start
        self._future = duration(future)
        self._wall: Clock = wall or SystemClock()

    def saw(self, time_: int) -> None:
        """Moves now forward to `time_` (microseconds); a clock never goes back."""
        self._newest = max(self._newest, time_)

    def now(self) -> int:
        return self._newest

    def latest(self, after: int = 0) -> int:
        """So far beyond the newest event; an event that is still on its way into the log counts."""
        newest = max(self._newest, after)
        return newest + self._future if newest else self._wall.latest()


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
