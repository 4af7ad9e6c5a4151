"""How long requests wait before they are begun, so that too many are refused while that is still cheap."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from penstock.serve.replies import RETRY, Refused, refused

MOST_DELAY = 250.0
"""Milliseconds that a request may have waited before it is begun."""
_SHARE = 1 / 16
_QUIET = 0.1


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
        self._last = elapsed()

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


def too_busy(delay: float, most: float) -> Refused:
    """What refuses a request that has waited `delay` milliseconds, where `most` are bearable."""
    return refused(
        429, f"a request waits at most {most:g} ms before it is begun", RETRY, got=f"{delay:.0f} ms",
        remedy="try again after Retry-After seconds",
    )  # fmt: skip
