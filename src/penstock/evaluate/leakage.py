"""Columns that rank what came next first all by themselves, which an honest one hardly ever does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError, equal_lengths
from penstock.types import Array


def auc_within_lists(columns: Array, positive: Array, lists: Array) -> tuple[NDArray[np.float64], int]:
    """How often each column alone puts the positive row above another of its list, ties counting a half.

    A column that says the same of a whole list has 0.5, however much it tells of lists.

    Args:
        columns: (rows, m) numbers; NaN is below all others.
        positive: (rows,) bool; at most one row of a list is true.
        lists: (rows,) which list each row belongs to.

    Returns:
        (m,) float64, the mean over lists that have a positive row and another; 0.5 where there are none. And how
        many such lists there are.

    >>> columns = np.array([[3.0, 7.0], [1.0, 7.0], [2.0, np.nan]])
    >>> auc_within_lists(columns, np.array([True, False, False]), np.zeros(3))
    (array([1.  , 0.75]), 1)
    """
    equal_lengths(columns=columns, positive=positive, lists=lists)
    names, owner = np.unique(lists, return_inverse=True)
    size, marked = np.bincount(owner), np.bincount(owner[positive], minlength=len(names))
    if marked.max() > 1:
        raise EvaluationError(
            "a list has at most one positive row", got=f"{int(marked.max())}", remedy="name one row of each list"
        )
    useful = np.flatnonzero((marked == 1) & (size > 1))
    out = np.full(columns.shape[1], 0.5)
    if not len(useful):
        return out, 0
    where = np.zeros(len(names), np.int64)
    where[owner[positive]] = np.flatnonzero(positive)
    for at in range(columns.shape[1]):
        value = np.where(np.isnan(columns[:, at]), -np.inf, columns[:, at])
        target = value[where][owner]
        won = np.where(value < target, 1.0, np.where(value == target, 0.5, 0.0))
        won[positive] = 0.0
        mean = np.bincount(owner, weights=won, minlength=len(names))[useful] / (size[useful] - 1)
        out[at] = mean.mean()
    return out, len(useful)
