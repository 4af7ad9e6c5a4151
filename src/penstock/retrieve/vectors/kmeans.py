"""Lloyd's k-means in NumPy: the centres that an index in lists is made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.vectors.base import Floats, Matrix, drawn

_CELLS = 1 << 24
"""Products of vectors and centres that are in memory at a time."""
PER_LIST = 64
"""Vectors a centre that training looks at; more change the centres little."""
_ROUNDS = 32
"""In how many rounds the first centres are drawn."""
_MOVED = 0.05
"""Share of the centres that may move elsewhere in one iteration."""
_BESIDE = 0.1
_UNEQUAL = 3.0
"""How many times the burden of a list that loses its centre another one must have, to be given it."""


def kmeans(vectors: Matrix, count: int, *, seed: int, iterations: int = 10) -> Floats:
    """`count` centres (count, d) float32 of a sample of the vectors; for "cosine" of length 1.

    The first ones are drawn far from one another (Arthur & Vassilvitskii, "k-means++", 2007, several a round). Lloyd's
    steps alone never part two clusters that share a centre, so between them a centre whose list is short and has little
    error moves to one that is long, or has much.
    """
    known: Floats | None = vectors.learned.get(("centres", count, seed))
    if known is not None:
        return known
    sample = vectors.sample(PER_LIST * count, seed)
    random = np.random.default_rng([seed, count])
    centres = _first(sample, count, random)
    for turn in range(iterations):
        nearest, error = assigned(sample, centres)
        size = np.bincount(nearest, minlength=count)
        order = np.argsort(nearest, kind="stable")
        filled = np.flatnonzero(size)
        start = np.cumsum(size) - size
        centres[filled] = np.add.reduceat(sample[order], start[filled], axis=0) / size[filled, None]
        if turn < iterations - 2:
            wrong = np.bincount(nearest, weights=error, minlength=count)
            # Long lists cost time, even where what is in them hardly differs.
            total: NDArray[np.float64] = wrong / max(float(wrong.sum()), 1e-30) + size / len(sample)
            low, high = np.argsort(total, kind="stable"), np.argsort(-total, kind="stable")
            most = max(1, int(_MOVED * count))
            some = min(most, count // 2)
            moves = int((total[high[:some]] > _UNEQUAL * total[low[:some]]).sum())
        else:
            high, low, moves = filled, np.flatnonzero(size == 0), int((size == 0).sum())
        for to, which in zip(high[np.arange(moves) % max(len(high), 1)], low[:moves], strict=True):
            if size[to]:
                # Beside its centre, not at a member: among many dimensions that is far from all others.
                off = _BESIDE * (sample[order[start[to] + random.integers(size[to])]] - centres[to])
                centres[which] = centres[to] + off
                centres[to] -= off
        if vectors.metric == "cosine":
            length = np.linalg.norm(centres, axis=1, keepdims=True)
            centres /= np.where(length > 0, length, 1)
    vectors.learned["centres", count, seed] = centres
    return centres


def members(vectors: Matrix, count: int, *, seed: int) -> NDArray[np.int32]:
    """The list (n,) of each vector: which of the centres that `kmeans` gives is nearest to it."""
    known = vectors.learned.get(("members", count, seed))
    if known is None:
        centres = kmeans(vectors, count, seed=seed)
        found = [assigned(block, centres)[0].astype(np.int32) for _, block in vectors.blocks()]
        known = vectors.learned["members", count, seed] = np.concatenate(found)
    return known


def _first(sample: Floats, count: int, random: np.random.Generator) -> Floats:
    """Centres among the sample, drawn with chances in proportion to the squared distance from those drawn before."""
    chosen = drawn(len(sample), max(1, count // _ROUNDS), int(random.integers(1 << 32)))
    held = [sample[chosen]]
    _, far = assigned(sample, held[0])
    left = count - len(chosen)
    while left > 0:
        some = min(left, max(1, count // _ROUNDS))
        far = np.maximum(far, 0) + 1e-12 * (float(far.max()) + 1e-30)
        chosen = random.choice(len(sample), some, replace=False, p=far / far.sum())
        held.append(sample[chosen])
        far = np.minimum(far, assigned(sample, held[-1])[1])
        left -= some
    return np.concatenate(held)[:count].copy()


def assigned(vectors: Floats, centres: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Which of `centres` (c, d) is nearest to each of `vectors` (n, d), the first of equal ones; and the squared
    distance.

    >>> assigned(np.array([[0.9], [0.0]], np.float32), np.array([[0], [1]], np.float32))[0]
    array([1, 0])
    """
    half = np.einsum("ij,ij->i", centres, centres) / 2
    nearest = np.empty(len(vectors), np.int64)
    error = np.empty(len(vectors), np.float64)
    step = max(1, _CELLS // len(centres))
    for first in range(0, len(vectors), step):
        part = vectors[first : first + step]
        score = part @ centres.T
        score -= half
        found = nearest[first : first + step] = np.argmax(score, axis=1)
        error[first : first + step] = np.einsum("ij,ij->i", part, part) - 2 * score[np.arange(len(part)), found]
    return nearest, error
