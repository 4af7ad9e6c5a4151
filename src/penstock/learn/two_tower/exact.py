"""What fits best, to the bit: scores and steps whose result does not depend on who adds them up."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.base import Index, places
from penstock.retrieve.vectors import Vectors
from penstock.types import Array

ITEM_GRID, QUERY_GRID = 2048.0, 4096.0
"""Vectors are rounded to multiples of 1/2048 and 1/4096. A product of two of length 1 is then a sum of multiples of
2⁻²³ that stays below 2: float32 holds every partial sum, and the score is exact in whatever order it is added up."""


def scores_of(index: Index, vector: NDArray[np.float32], at: Array | None = None) -> NDArray[np.float32]:
    """How well every item of the index fits, or those at some places (n,)."""
    vectors = index["vectors"] if at is None else index["vectors"][at]
    return np.asarray(vectors @ vector + np.float32(0))  # no negative zero


def nearest(
    index: Index, vector: NDArray[np.float32], k: int, without: NDArray[np.uint32], near: Vectors | None = None
) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """The k items whose vectors fit best, and how well; of equal ones the lower code.

    Args:
        without: codes that are passed over.
        near: an index over the same vectors. It finds most of them sooner, and scores stay exact: what is found is
            compared anew. Without it all items are.
    """
    if near is not None:
        found, _ = near.search(vector[None], k + len(without))
        at = np.sort(np.searchsorted(index["items"], found[0][found[0] >= 0]))
        at = at[~np.isin(index["items"][at], without)]
        scores = scores_of(index, vector, at)
        order = np.argsort(-scores, kind="stable")[:k]
        return index["items"][at[order]], scores[order]
    scores = scores_of(index, vector)
    held, at = places(index["items"], without)
    scores[at] = -np.inf
    k = min(k, len(scores) - len(held))
    if k < 1:
        return np.zeros(0, np.uint32), np.zeros(0, np.float32)
    edge = -np.partition(-scores, k - 1)[k - 1]
    found = np.flatnonzero(scores >= edge)  # rises, as codes do
    found = found[np.argsort(-scores[found], kind="stable")][:k]
    return index["items"][found], scores[found]


def grid(vectors: Array, fine: float) -> NDArray[np.float32]:
    """Vectors rounded to multiples of 1 / `fine`, as float32, which holds them exactly."""
    return (np.rint(vectors.astype(np.float64) * fine) / fine).astype(np.float32)


def through(x: Array, matrix: Array, bias: Array) -> Array:
    """x (d,) times a matrix (d, e), plus a bias (e,), in float64 and line by line: the order in which it is added."""
    out = bias.astype(np.float64)
    for value, line in zip(x.tolist(), matrix.astype(np.float64), strict=True):
        out = out + line * value
    return out


def plain_through(x: list[float], matrix: Array, bias: Array) -> list[float]:
    """`through` in plain Python, to the bit."""
    out: list[float] = bias.tolist()
    for value, line in zip(x, matrix.tolist(), strict=True):
        out = [have + part * value for have, part in zip(out, line, strict=True)]
    return out
