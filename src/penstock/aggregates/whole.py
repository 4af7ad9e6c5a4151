"""Whole numbers of a unit, added in 128 bits: sums that no order or split changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.errors import OverflowedError
from penstock.types import Array, Kind

LARGEST = float(2**62)
"""One absurd value must not stop the stream: it counts as this, and shows when the total is read."""
WIDE = np.dtype([("low", "<u8"), ("high", "<i8")])
"""One integer of 128 bits."""
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


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


def summed(low: Array, high: Array, starts: NDArray[np.int64]) -> tuple[Array, Array]:
    """The sum of each run along the first axis, of integers of 128 bits; run i begins at starts[i], none is empty."""
    at = starts.astype(np.intp, copy=False)
    # Halves of 32 bits cannot overflow 64 in fewer than 2**32 numbers.
    small = np.add.reduceat(low & _LOW, at)
    large = np.add.reduceat(low >> _HALF, at) + (small >> _HALF)
    return (large << _HALF) | (small & _LOW), np.add.reduceat(high, at) + (large >> _HALF).astype(np.int64)


def floats(low: Array, high: Array) -> NDArray[np.float64]:
    """Integers of 128 bits as floats: rounded once where they fit into 64, else each half by itself.

    >>> floats(np.array([2**64 - 5], np.uint64), np.array([-1])).tolist()
    [-5.0]
    """
    narrow = low.astype(np.uint64).view(np.int64)
    halves = high.astype(np.float64) * 2.0**64 + low.astype(np.float64)
    return np.where(high == narrow >> 63, narrow.astype(np.float64), halves)


def floats_plain(value: int) -> float:
    """The same of one, in plain Python.

    >>> floats_plain(-5)
    -5.0
    """
    if -(2**63) <= value < 2**63:
        return float(value)
    return float(value >> 64) * 2.0**64 + float(value & (1 << 64) - 1)


def narrowed(low: Array, high: Array, what: str) -> NDArray[np.int64]:
    """Integers of 128 bits in 64.

    Args:
        what: they are, for the message.

    Raises:
        OverflowedError: one does not fit.

    >>> narrowed(np.array([2**64 - 5], np.uint64), np.array([-1]), "the total").tolist()
    [-5]
    """
    total = low.astype(np.uint64).view(np.int64)
    if np.any(high != total >> 63):
        raise OverflowedError(
            f"{what} stays within 63 bits when it is read", got="a larger one",
            remedy="declare a larger unit",
        )  # fmt: skip
    return total
