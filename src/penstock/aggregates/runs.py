"""Neighbouring equal keys: where runs begin, whose each row is, and its place in its run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.types import Array


def run_starts(*keys: Array) -> NDArray[np.int64]:
    """Where a run of equal keys begins, for sorted key columns of equal length.

    >>> run_starts(np.array([3, 3, 5]), np.array([1, 2, 2])).tolist()
    [0, 1, 2]
    """
    n = len(keys[0])
    if n <= 1:
        return np.zeros(n, np.int64)
    new = np.empty(n, bool)
    new[0] = True
    np.not_equal(keys[0][1:], keys[0][:-1], out=new[1:])
    for key in keys[1:]:
        new[1:] |= key[1:] != key[:-1]
    return new.nonzero()[0]  # `np.flatnonzero` takes thrice as long for a few rows


def run_lengths(starts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How long each run is, of n rows in all.

    >>> run_lengths(np.array([0, 2]), 5).tolist()
    [2, 3]
    """
    lengths = np.empty(len(starts), np.int64)
    lengths[:-1] = starts[1:] - starts[:-1]
    lengths[-1:] = n - starts[-1:]
    return lengths


def run_of(starts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The number of each row's run.

    >>> run_of(np.array([0, 2]), 5).tolist()
    [0, 0, 1, 1, 1]
    """
    if len(starts) == n:
        return np.arange(n)
    return np.repeat(np.arange(len(starts)), run_lengths(starts, n))


def place_in_run(keys: Array) -> NDArray[np.int64]:
    """Each row's place within its run of equal keys.

    >>> place_in_run(np.array([7, 7, 9])).tolist()
    [0, 1, 0]
    """
    starts = run_starts(keys)
    return np.arange(len(keys)) - np.repeat(starts, run_lengths(starts, len(keys)))


def pairs(a: Array, b: Array) -> tuple[Array, NDArray[np.int64]]:
    """Two equally long arrays of states as runs of two, and where each begins: what `reduce` merges pair by pair.

    >>> pairs(np.array([1, 2]), np.array([3, 4]))
    (array([1, 3, 2, 4]), array([0, 2]))
    """
    n = len(a)
    return np.stack([a, b], axis=1).reshape(2 * n), np.arange(0, 2 * n, 2)
