"""Percentiles, and the highest rate that a server takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

LIMIT_MS = 50.0


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed; None of nothing.

    >>> percentile([4.0, 1.0, 3.0, 2.0], 0.5)
    2.0
    """
    if not len(values):
        return None
    return float(np.quantile(values, share, method="inverted_cdf"))


def highest(takes: Callable[[float], bool], bound: float, steps: int) -> float:
    """The highest rate that `takes`, found by halving between 0.2 and 1.3 of `bound`; 0 where not even the least does.

    A rate that fails is tried once more: one pause of the machine is not the server's limit.
    """
    low, high = 0.2 * bound, 1.3 * bound
    if not (takes(low) or takes(low)):
        return 0.0
    for _ in range(steps):
        rate = (low + high) / 2
        if takes(rate) or takes(rate):
            low = rate
        else:
            high = rate
    return low


def told(values: Sequence[float], share: float) -> float | None:
    """A percentile rounded to a hundredth."""
    found = percentile(values, share)
    return None if found is None else round(found, 2)
