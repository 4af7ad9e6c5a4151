"""Two towers: one turns what asks into a vector of length 1, the other what is found; their product says how they fit.

A tower reads a bag of codes: an id, attributes, words, recent items. It takes the weighted mean of the codes' rows in a
table, adds what a small layer makes of it, and scales the sum to length 1 (Covington et al., "Deep neural networks for
YouTube recommendations", RecSys 2016; Yi et al., "Sampling-bias-corrected neural modeling for large corpus item
recommendations", RecSys 2019). An item nobody has touched has attributes, and so a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.autodiff import RowGradient, Tensor, operation, relu, sum_of_rows, unit
from penstock.retrieve.base import between
from penstock.types import Array

Side = Literal["query", "item"]
_SMALL = 0.1
"""How long a code's row is at first: an id that training never met then says next to nothing beside its attributes."""


@dataclass(frozen=True, eq=False)
class Bags:
    """Many bags of codes in one piece: those of bag i are at starts[i] … starts[i + 1] - 1.

    `starts` (n + 1,) and `codes` are int64; a code 0 is none. `weight`, of the codes' length, is what each code counts
    in its bag's mean; alike, where None.
    """

    starts: NDArray[np.int64]
    codes: NDArray[np.int64]
    weight: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Bags:
        """From lists of codes.

        >>> Bags.of([[3, 4], [], [5]]).taken(np.array([2, 0])).codes
        array([5, 3, 4])
        """
        starts = np.r_[0, np.cumsum([len(part) for part in lists], dtype=np.int64)].astype(np.int64)
        return cls(starts, np.array([code for part in lists for code in part], np.int64))

    def taken(self, which: Array) -> Bags:
        """Some of them (m,), in that order."""
        first, end = self.starts[which], self.starts[which + 1]
        at = between(first, end)
        starts = np.r_[0, np.cumsum(end - first)].astype(np.int64)
        return Bags(starts, self.codes[at], None if self.weight is None else self.weight[at])


@dataclass(frozen=True)
class Form:
    """The sizes of both towers.

    Args:
        query, item: how many codes each tower reads, 0 among them.
        width: of every vector.
        inner: width of the layer behind the mean; 0: none.
        shared: both read one table, so that a word, or an item, means the same on either side; `query` and `item` are
            then the same number.
    """

    query: int
    item: int
    width: int = 48
    inner: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        if min(self.query, self.item) < 2 or self.width < 1 or self.inner < 0:
            raise DefinitionError(
                "each tower reads two codes or more, 0 among them, into a vector", got=repr(self),
                remedy="count the codes from 0, and choose a width such as 48",
            )  # fmt: skip
        if self.shared and self.query != self.item:
            raise DefinitionError(
                "towers that share a table read the same codes", got=f"query={self.query}, item={self.item}",
                remedy="give both the larger number, or each a table of its own: shared=False",
            )  # fmt: skip

    def table(self, side: Side) -> str:
        """The name of the table that a tower reads."""
        return "code" if self.shared else side


def begin(form: Form, random: np.random.Generator, dtype: type[np.floating] = np.float32) -> dict[str, Array]:
    """Weights to start training from; row 0 of each table is zero and stays so."""
    tables = {"code": form.query} if form.shared else {"query": form.query, "item": form.item}
    weights = {}
    for name, size in tables.items():
        weights[name] = (random.normal(size=(size, form.width)) * _SMALL / np.sqrt(form.width)).astype(dtype)
        weights[name][0] = 0
    if form.inner:
        for side in ("query", "item"):
            into = random.normal(size=(form.width, form.inner)) / np.sqrt(form.width)
            back = random.normal(size=(form.inner, form.width)) * 0.5 / np.sqrt(form.inner)
            weights |= {f"{side}.in": into.astype(dtype), f"{side}.in_bias": np.zeros(form.inner, dtype)}
            weights |= {f"{side}.back": back.astype(dtype), f"{side}.back_bias": np.zeros(form.width, dtype)}
    return weights


def tower(form: Form, weights: Mapping[str, Tensor], side: Side, bags: Bags) -> Tensor:
    """The vectors (n, width) of n bags, each of length 1; zero where a bag has no code and there is no layer."""
    x = pooled(weights[form.table(side)], bags)
    if form.inner:
        inner = relu(x @ weights[f"{side}.in"] + weights[f"{side}.in_bias"])
        x = x + inner @ weights[f"{side}.back"] + weights[f"{side}.back_bias"]
    return unit(x)


def encode(form: Form, weights: Mapping[str, Array], side: Side, bags: Bags, block: int = 4096) -> Array:
    """What `tower` gives, as an array, in blocks of bags: for all queries, or a whole catalogue."""
    held = {name: Tensor(value) for name, value in weights.items()}
    parts = [
        tower(form, held, side, bags.taken(np.arange(start, min(start + block, len(bags))))).value
        for start in range(0, len(bags), block)
    ]
    return np.concatenate([np.zeros((0, form.width), weights[form.table(side)].dtype), *parts])


def pooled(table: Tensor, bags: Bags) -> Tensor:
    """The weighted mean of each bag's rows of a table (size, width), (n, width); zero for an empty bag.

    Code 0 has a row of zeros and counts in the mean: a bag whose id is not known is as long as one whose id is.
    """
    size = np.diff(bags.starts)
    dtype = table.value.dtype
    weight = np.ones(len(bags.codes)) if bags.weight is None else bags.weight.astype(np.float64)
    total = np.bincount(np.repeat(np.arange(len(size)), size), weights=weight, minlength=len(size))
    each = (weight / np.repeat(np.maximum(total, 1e-12), size) * (bags.codes > 0)).astype(dtype)
    summed = sum_of_rows(table.value, bags.starts, bags.codes, each)

    def push(g: Array) -> tuple[RowGradient]:
        return (RowGradient(bags.codes, np.repeat(g, size, axis=0) * each[:, None], table.shape),)

    return operation(summed, (table,), push)
