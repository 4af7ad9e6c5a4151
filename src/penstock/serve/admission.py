"""How long requests wait before they are begun, so that too many are refused while that is still cheap."""

from __future__ import annotations

from collections.abc import Callable
from math import exp2
from time import perf_counter

from penstock.serve.replies import RETRY, Refused, refused

MOST_DELAY = 250.0
"""Milliseconds that a request may have waited before it is begun."""
LEAST_DELAY = 5.0
"""Milliseconds that any request may have waited, however little time its client gives."""
_SHARE = 1 / 16
_QUIET = 0.1
_HALVED = 0.5


class Admission:
    """A moving mean of what requests have waited, from when they were read until they were begun.

    What is read late has waited about as long before it was read; so the mean is added to what is known of each.

    Args:
        elapsed: seconds on a clock that only goes forward.

    >>> admission = Admission(lambda: 1.016)
    >>> round(admission.delay(1.0))
    17
    """

    def __init__(self, elapsed: Callable[[], float] = perf_counter) -> None:
        self._elapsed = elapsed
        self._mean = 0.0
        self._last = self._peaked = elapsed()
        self._peak = 0.0

    def delay(self, handed: float | None) -> float:
        """Milliseconds that a request has probably waited.

        Args:
            handed: when it was handed over to be answered; None where that is not known.
        """
        now = self._elapsed()
        queued_ms = 0.0 if handed is None else (now - handed) * 1e3
        if now - self._last > _QUIET:
            self._mean = 0.0
        self._last = now
        self._mean += (queued_ms - self._mean) * _SHARE
        return queued_ms + self._mean

    def late(self, ms: float) -> None:
        """Takes down that the event loop was so many milliseconds late with what was due."""
        self._peak, self._peaked = max(ms, self._lately), self._elapsed()

    @property
    def lag(self) -> float:
        """Milliseconds by which the event loop may be late with what is due."""
        # Requests that wait for one round of the loop wait for half of it on average.
        return max(2 * self._mean, self._lately)

    @property
    def _lately(self) -> float:
        return self._peak * exp2((self._peaked - self._elapsed()) / _HALVED)


def too_busy(delay: float, most: float) -> Refused:
    """What refuses a request that has waited `delay` milliseconds, where `most` are bearable."""
    return refused(
        429, f"a request waits at most {most:g} ms before it is begun", RETRY, got=f"{delay:.0f} ms",
        remedy="try again after Retry-After seconds",
    )  # fmt: skip
