"""How well scores tell two classes apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock.aggregates.runs import run_starts
from penstock.evaluate.checks import EvaluationError


def roc_auc(y_true: ArrayLike, y_score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Area under the ROC curve: how often a positive scores above a negative, ties counting a half.

    It is counted in integers and rounded once, from ranks in which ties share their average (Mann and Whitney, 1947).

    Args:
        y_true: (n,) labels, each 0 or 1, or bools.
        y_score: (n,) numbers, the higher the more likely a 1. Infinite ones have their place in the order.
        weight: (n,) how much each row counts; alike, where absent.

    Returns:
        0 to 1, and 0.5 where one class is absent.

    Raises:
        EvaluationError: the two differ in length, a label is neither 0 nor 1, or a score is NaN or no number.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    label, score = _column(y_true, "y_true"), _column(y_score, "y_score")
    if len(label) != len(score):
        raise EvaluationError(
            "there is a score for each label",
            got=f"{len(label)} labels and {len(score)} scores",
            remedy="pass y_true and y_score of the same length",
        )
    if not np.isin(label, (0, 1)).all():
        other = label[~np.isin(label, (0, 1))][0]
        raise EvaluationError("labels are 0 or 1", got=f"y_true with {other}", remedy="compare: y_true == positive")
    if np.isnan(score).any():
        missing = np.isnan(score)
        raise EvaluationError(
            "scores are numbers",
            got=f"NaN in {missing.sum()} places of y_score, first in {int(missing.argmax())}",
            remedy="leave these rows out",
        )
    order = np.argsort(score, kind="stable")
    starts = run_starts(score[order])
    if not len(starts):
        return 0.5
    each = np.ones(len(label), np.int64) if weight is None else _column(weight, "weight").astype(np.float64)
    positive, whole = (np.add.reduceat(part[order], starts) for part in (np.where(label, each, 0), each))
    negative = whole - positive
    below = np.cumsum(negative) - negative
    twice = (positive * (2 * below + negative)).sum().item()
    pairs = positive.sum().item() * negative.sum().item()
    return twice / (2 * pairs) if pairs else 0.5


def average_precision(y_true: ArrayLike, y_score: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The area under the precision-recall curve, as the mean precision at each positive; tied scores stand as one.

    Args:
        y_true: (n,) labels, each 0 or 1, or bools.
        y_score: (n,) numbers, the higher the more likely a 1.
        weight: (n,) how much each row counts; alike, where absent.

    Returns:
        0 to 1, and 0 where there is no positive.

    >>> average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]).__round__(4)
    0.8333
    """
    label, score = _column(y_true, "y_true"), _column(y_score, "y_score")
    each = np.ones(len(label)) if weight is None else _column(weight, "weight").astype(np.float64)
    order = np.argsort(-score, kind="stable")
    ends = np.append(run_starts(score[order])[1:], len(order)) - 1
    hit = np.cumsum(label[order] * each[order])[ends] if len(order) else np.zeros(0)
    if not len(hit) or not hit[-1]:
        return 0.0
    taken = np.cumsum(each[order])[ends]
    return float((np.diff(hit, prepend=0.0) * hit / taken).sum() / hit[-1])


def drawn_by_group(groups: NDArray[Any], repeats: int, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """Bootstrap samples of rows: whole groups (n,) drawn with replacement; positions of rows, `repeats` times."""
    random = np.random.default_rng(seed)
    names, which = np.unique(groups, return_inverse=True)
    for _ in range(repeats):
        times = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))
        yield np.repeat(np.arange(len(groups)), times[which])


def _column(values: ArrayLike, name: str) -> NDArray[Any]:
    """The values as an array of one dimension, of bools, integers or floats."""
    array = np.asarray(values)
    if array.dtype.kind == "O" or not array.size:
        with suppress(TypeError, ValueError):
            array = array.astype(np.float64)
    if array.dtype.kind not in "biuf" or array.ndim != 1:
        raise EvaluationError(
            f"{name} is a list of numbers",
            got=f"an array of {array.dtype}, {array.ndim} dimensions",
            remedy="pass one number for each row",
        )
    return array
