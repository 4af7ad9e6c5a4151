"""Latent semantic analysis: texts as short vectors, in which words that stand in the same texts lie close.

Deerwester et al., "Indexing by latent semantic analysis" (1990), on BM25's weights, factored by a randomised truncated
SVD (Halko, Martinsson and Tropp, "Finding structure with randomness", 2011). The vectors are made from the shop's own
texts alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.text.bm25 import best
from penstock.types import Array

STEPS = 2_047
"""The length of vectors, which hold whole numbers: each sum on the way to the product of two is one that float32 holds,
so that it has the same bits in whatever order it is summed."""
_OVERSAMPLED, _POWERS = 16, 2
_NOTHING = 1e-4
"""Singular values below this share of the largest are taken for 0."""
_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix of n entries: `weight[i]` at (`row[i]`, `column[i]`), rows ascending, each pair once."""

    row: NDArray[np.int64]
    column: NDArray[np.int64]
    weight: NDArray[np.float32]
    shape: tuple[int, int]

    def transposed(self) -> Sparse:
        order = np.argsort(self.column, kind="stable")
        return Sparse(self.column[order], self.row[order], self.weight[order], self.shape[::-1])

    def times(self, dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """The product with (columns, d): (rows, d) float32."""
        out = np.zeros((self.shape[0], dense.shape[1]), np.float32)
        step = max(1, _AT_ONCE // max(dense.shape[1], 1))
        for low in range(0, len(self.row), step):
            at = slice(low, low + step)
            # A row that a cut parts is added twice, each time in part.
            first = np.flatnonzero(np.r_[True, np.diff(self.row[at]) != 0])
            out[self.row[at][first]] += np.add.reduceat(
                dense[self.column[at]] * self.weight[at][:, None], first, axis=0
            )
        return out


def factored(matrix: Sparse, dims: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The right singular vectors (terms, d) and singular values (d,) of the largest `dims`, or as many as there are."""
    random = np.random.default_rng(seed)
    width = min(dims + _OVERSAMPLED, *matrix.shape)
    back = matrix.transposed()
    basis = matrix.times(random.standard_normal((matrix.shape[1], width)).astype(np.float32))
    for _ in range(_POWERS):
        basis = matrix.times(_turned(back.times(_turned(basis)[0]))[0])
    right, values = _turned(back.times(_turned(basis)[0]))
    return np.ascontiguousarray(right[:, :dims]), values[:dims]


def _turned(columns: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The left singular vectors (n, r) of (n, d) columns and their values (r,), largest first, without those near 0.

    By the eigenvectors of the small square of the columns: a decomposition of the columns themselves is exacter than
    is needed here, and takes hundreds of steps at each of which the threads of the linear algebra wait for each other.
    """
    wide = columns.astype(np.float64)
    squares, vectors = np.linalg.eigh(wide.T @ wide)
    kept = np.flatnonzero(squares > _NOTHING**2 * max(float(squares.max(initial=0)), 1e-30))[::-1]
    values = np.sqrt(squares[kept])
    return (wide @ (vectors[:, kept] / values)).astype(np.float32), values.astype(np.float32)


def rounded(vector: Array) -> NDArray[np.float32]:
    """A vector (d,) at length `STEPS`, in whole numbers; zeros for no length."""
    # Summed one by one: the order of the sum is then the same everywhere.
    length = sqrt(sum(value * value for value in vector.tolist()))
    scaled = vector * (STEPS / length) if length > 0 else np.zeros(len(vector))
    return np.rint(scaled).astype(np.float32)


def nearest(
    vectors: NDArray[np.float32], wanted: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The k rows of (n, d) `rounded` vectors with the highest cosine to a rounded (d,), above 0, and the cosines.

    Every row is looked at; an index that looks at few of many goes here.
    """
    # Whole numbers of this size multiply and add without rounding, in any order. Not by `@`, whose threads would wait
    # for each other where others want the processor.
    product = np.einsum("nd,d->n", vectors, wanted).astype(np.float64)
    place = best(np.flatnonzero(product > 0), product, k)
    return place, product[place] / STEPS**2
