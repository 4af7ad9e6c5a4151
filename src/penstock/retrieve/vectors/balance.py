"""How far the lists of an index have come from those that it was built with, and when to build it anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_UNEVEN = 1.3
_ADDED = 0.1
_GONE = 0.2


@dataclass(frozen=True)
class Balance:
    """Counts of an index, and of its lists where it has some.

    `imbalance` is how many times as many vectors an average search reads as it would in lists of equal length:
    lists · Σ length² / (Σ length)², as each list is read in proportion to its length. 1 is even.

    Attributes:
        size: vectors in the main part, deleted ones not counted.
        added: in the delta, which every search goes through.
        gone: deleted from the main part, where they still take up room and time.
        lists: 0 where there are none.
        built, now: the imbalance when it was built, and with what was added and deleted since.
        longest: length of the longest list now.
    """

    size: int
    added: int
    gone: int
    lists: int = 0
    built: float = 1.0
    now: float = 1.0
    longest: int = 0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it is time to merge; empty while it is not."""
        out = []
        if self.added > _ADDED * max(self.size, 1):
            out.append(f"{self.added:,} added vectors beside {self.size:,} are compared one by one")
        if self.gone > _GONE * max(self.size + self.gone, 1):
            out.append(f"{self.gone:,} of {self.size + self.gone:,} vectors are deleted, and still searched")
        if self.now > _UNEVEN * self.built:
            out.append(f"lists have become uneven: {self.now:.2f} times the even work, {self.built:.2f} when built")
        return tuple(out)

    @property
    def rebuild(self) -> bool:
        """Whether it is time to merge."""
        return bool(self.reasons)


def imbalance(lengths: NDArray[np.int64]) -> float:
    """The factor of `Balance` for lists of some lengths (l,).

    >>> imbalance(np.array([5, 5])), imbalance(np.array([10, 0]))
    (1.0, 2.0)
    """
    total = int(lengths.sum())
    return float(len(lengths) * (lengths.astype(np.float64) ** 2).sum() / total**2) if total else 1.0
