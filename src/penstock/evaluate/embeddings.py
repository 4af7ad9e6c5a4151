"""The health of embeddings: whether they use their space, and whether any two can be told apart."""

from __future__ import annotations

import numpy as np

from penstock.evaluate.checks import EvaluationError
from penstock.types import Array

_BLOCK = 256
_ALIKE = 0.99


def embedding_health(vectors: Array, *, sample: int = 2_000, seed: int = 0) -> dict[str, float]:
    """How much vectors (n, d) differ from one another; those of length 0 are left out.

    Args:
        sample: so many, drawn at random, are looked at.

    Returns:
        anisotropy: the mean cosine of two of them: 0 where they point everywhere, 1 where all point one way
        (Ethayarajh, "How contextual are contextualized word representations?", EMNLP 2019). collision: the share of
        vectors whose nearest neighbour's cosine is above 0.99.

    >>> embedding_health(np.eye(3))
    {'anisotropy': 0.0, 'collision': 0.0}
    """
    length = np.linalg.norm(vectors, axis=1)
    there = np.flatnonzero(length > 0)
    if len(there) < 2:
        raise EvaluationError(
            "there are at least two vectors that point somewhere", got=str(len(there)), remedy="pass (n, d) vectors"
        )
    every = vectors[there] / length[there, None]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(there))[:sample])
    n = len(chosen)
    together = every[chosen].sum(axis=0)
    nearest = np.empty(n)
    for start in range(0, n, _BLOCK):
        like = every[chosen[start : start + _BLOCK]] @ every.T
        like[np.arange(len(like)), chosen[start : start + _BLOCK]] = -1.0
        nearest[start : start + _BLOCK] = like.max(axis=1)
    # The sum over pairs is that of all, less each vector with itself.
    anisotropy = (float(together @ together) - n) / (n * (n - 1))
    return {"anisotropy": anisotropy, "collision": float((nearest > _ALIKE).mean())}
