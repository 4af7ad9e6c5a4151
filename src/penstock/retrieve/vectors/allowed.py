"""Which ids a search may answer with: a mask by id, or the ids themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.vectors.base import VectorError
from penstock.types import Array

Ids = NDArray[np.int64]


class Allowed(Protocol):
    """A set of ids."""

    @property
    def count(self) -> int:
        """How many ids it has; some may be of no vector."""

    def ids(self) -> Ids:
        """All of them (count,), ascending."""

    def has(self, ids: Ids) -> NDArray[np.bool_]:
        """Whether each of some ids is among them, in the shape of `ids`; -1 never is."""


@dataclass(frozen=True, eq=False)
class _Mask:
    mask: NDArray[np.bool_]

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.mask))

    def ids(self) -> Ids:
        return np.flatnonzero(self.mask)

    def has(self, ids: Ids) -> NDArray[np.bool_]:
        if not len(self.mask):
            return np.zeros(ids.shape, np.bool_)
        known = (ids >= 0) & (ids < len(self.mask))
        return known & self.mask[np.where(known, ids, 0)]


@dataclass(frozen=True, eq=False)
class _Chosen:
    chosen: Ids

    @property
    def count(self) -> int:
        return len(self.chosen)

    def ids(self) -> Ids:
        return self.chosen

    def has(self, ids: Ids) -> NDArray[np.bool_]:
        return np.isin(ids, self.chosen)


def allowing(what: Array | Iterable[int]) -> Allowed:
    """A mask by id, bool (any length; ids beyond it are not allowed), or ids.

    >>> allowing(np.array([False, True])).has(np.array([0, 1, 2]))
    array([False,  True, False])
    >>> allowing({7, 2}).ids()
    array([2, 7])

    Raises:
        VectorError: something else.
    """
    array: Array = what if isinstance(what, np.ndarray) else np.array(list(what) or np.zeros(0, np.int64))
    if array.ndim == 1 and array.dtype == np.bool_:
        return _Mask(array)
    if array.ndim == 1 and array.dtype.kind in "iu":
        found: Ids = np.unique(array.astype(np.int64))
        return _Chosen(found[found >= 0])
    raise VectorError(
        "what is allowed is a mask by id, or ids", got=f"{array.dtype} {array.shape}",
        remedy="pass an array of bool as long as the highest id, or of integers",
    )  # fmt: skip
