"""Whole numbers of a unit, added in 128 bits: sums that no order or split changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.types import Array, Kind

LARGEST = float(2**62)
"""One absurd value must not stop the stream: it counts as this, and shows when the total is read."""


def needs_unit(kind: Kind, unit: float | None) -> bool:
    """Whether values of this kind cannot be whole numbers without a unit, and there is none."""
    return kind == "float" and (unit is None or not unit > 0)


def whole(values: Array, unit: float | None) -> NDArray[np.int64]:
    """Each value as a whole number: of `unit` where it is a float.

    >>> whole(np.array([0.25, -1.0]), 0.5).tolist(), whole(np.array([7]), None).tolist()
    ([0, -2], [7])
    """
    if values.dtype.kind != "f":
        return values.astype(np.int64, copy=False)
    return np.clip(np.rint(values / (unit or 1.0)), -LARGEST, LARGEST).astype(np.int64)


def whole_plain(value: float, unit: float | None) -> int:
    """The same of one value, in plain Python.

    >>> whole_plain(-1.0, 0.5), whole_plain(7, 0.5)
    (-2, 7)
    """
    if not isinstance(value, float) or unit is None:
        return int(value)
    return round(max(-LARGEST, min(value / unit, LARGEST)))


def added(low: Array, high: Array, more_low: Array, more_high: Array) -> tuple[Array, Array]:
    """The sums of integers of 128 bits, given as their low uint64 and high int64 halves."""
    total = low + more_low
    return total, high + more_high + (total < low)
