"""How vectors are held by the engines in NumPy: as float32, or as int8 with what that leaves as another int8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.vectors.base import Floats, Matrix, Metric, Scores, State, VectorError

Held = Literal["float32", "int16", "int8"]
"""float32; int8 with its remainder for ranking anew, 16 bits in all; int8 alone."""
_FULL = 127.0
_FINE = 256.0


class Storage(Protocol):
    """n vectors, scored a slice at a time. Scores are those of the metric, but for what depends on the query alone."""

    def scores(self, first: int, end: int, queries: Floats) -> Scores:
        """Scores (m, end - first) of the vectors first … end - 1 for queries (m, d), by the coarse codes."""

    def anew(self, rows: NDArray[np.int64], query: Floats) -> Scores:
        """Scores (r,) of the vectors at `rows` for a query (d,), as exact as they are held."""

    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The vectors (r, d) at `rows`."""


def stored(vectors: Matrix, held: Held, order: NDArray[np.int64] | None = None) -> dict[str, NDArray[np.generic]]:
    """Named arrays that hold `vectors`, rearranged by `order` (n,) where it is given.

    `vectors` (n, d) float32; or `codes` and `fine` (n, d) int8 and `scale` (n,) float32, a vector being
    (codes + fine / 256) * scale. For "l2", `squares` (n,) float32 of their lengths.
    """
    n, d = len(vectors), vectors.d
    at = np.arange(n) if order is None else order
    out: dict[str, NDArray[np.generic]] = {}
    if held == "float32":
        full = out["vectors"] = np.empty((n, d), np.float32)
    elif held in ("int16", "int8"):
        codes = out["codes"] = np.empty((n, d), np.int8)
        scale = out["scale"] = np.empty(n, np.float32)
        if held == "int16":
            fine = out["fine"] = np.empty((n, d), np.int8)
    else:
        raise VectorError(
            "vectors are held as float32, int16 or int8", got=repr(held), remedy="name one of these"
        )  # fmt: skip
    if vectors.metric == "l2":
        squares = out["squares"] = np.empty(n, np.float32)
    for first in range(0, n, 1 << 16):
        part = slice(first, min(first + (1 << 16), n))
        block = vectors.rows(part if order is None else at[part])
        if held == "float32":
            full[part] = block
        else:
            # A scale a vector: a long one costs the others nothing. The remainder may round up to half a step.
            steps = np.abs(block).max(axis=1) / _FULL
            steps[steps == 0] = 1.0
            scale[part] = steps
            scaled = block / steps[:, None]
            rough = np.rint(scaled)
            codes[part] = rough
            if held == "int16":
                fine[part] = np.clip(np.rint((scaled - rough) * _FINE), -128, 127)
        if vectors.metric == "l2":
            squares[part] = np.einsum("ij,ij->i", block, block)
    return out


def storage(state: State, metric: Metric) -> Storage:
    """What `stored` wrote, to be scored."""
    squares = state["squares"] if metric == "l2" else None
    if "vectors" in state:
        return _Whole(np.asarray(state["vectors"]), squares)
    return _Codes(np.asarray(state["codes"]), np.asarray(state["scale"]), state.get("fine"), squares)


@dataclass(frozen=True, eq=False)
class _Whole:
    vectors: Floats
    squares: Floats | None

    def scores(self, first: int, end: int, queries: Floats) -> Scores:
        if len(queries) == 1:
            found = (self.vectors[first:end] @ queries[0])[None]
        else:
            found = queries @ self.vectors[first:end].T
        return _less(found, None if self.squares is None else self.squares[first:end])

    def anew(self, rows: NDArray[np.int64], query: Floats) -> Scores:
        return _less(self.vectors[rows] @ query, None if self.squares is None else self.squares[rows])

    def take(self, rows: NDArray[np.int64]) -> Floats:
        return self.vectors[rows]


@dataclass(frozen=True, eq=False)
class _Codes:
    codes: NDArray[np.int8]
    scale: Floats
    fine: NDArray[np.int8] | None
    squares: Floats | None

    def scores(self, first: int, end: int, queries: Floats) -> Scores:
        # There is no product of int8 in NumPy that would be faster than making them floats.
        found = queries @ self.codes[first:end].astype(np.float32).T
        found *= self.scale[first:end]
        return _less(found, None if self.squares is None else self.squares[first:end])

    def anew(self, rows: NDArray[np.int64], query: Floats) -> Scores:
        return _less(self.take(rows) @ query, None if self.squares is None else self.squares[rows])

    def take(self, rows: NDArray[np.int64]) -> Floats:
        out = self.codes[rows].astype(np.float32)
        if self.fine is not None:
            out += self.fine[rows] * np.float32(1 / _FINE)
        out *= self.scale[rows][:, None]
        return out


def _less(products: Scores, squares: Floats | None) -> Scores:
    """For "l2", 2 q·x - |x|²: minus the squared distance, but for |q|²."""
    if squares is None:
        return products
    products *= 2
    products -= squares
    return products
