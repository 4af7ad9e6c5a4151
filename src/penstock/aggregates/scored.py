"""How good scores are: area under the curve, log loss and calibration error of pairs of a label and a score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.runs import run_of
from penstock.errors import DefinitionError, PenstockError
from penstock.registry import registered
from penstock.types import Array, Kind

_ROUNDS = 4.0  # what a float64 of this size leaves of a score is a multiple of 2**-50
_LEAST = 1e-9  # scores are at least so far from 0 and 1, where a logarithm is taken
_PER_NAT = 1_000_000
_PER_SCORE = 2**30
_LN_2 = 0.6931471805599453


@overload
def scored(label: bool | int, score: float) -> float: ...
@overload
def scored(label: str | pl.Expr, score: str | pl.Expr | float) -> pl.Expr: ...
@overload
def scored(label: bool | int, score: str | pl.Expr) -> pl.Expr: ...
def scored(label: str | pl.Expr | bool | int, score: str | pl.Expr | float) -> pl.Expr | float:
    """A label and a score as one value, which the aggregates of this module read: 2 label + score.

    The score is rounded to a multiple of 2**-50 first, so that equal scores stay equal beside either label.

    Args:
        label: 0 or 1, or a bool; or the field or expression that gives it.
        score: between 0 and 1; or the field or expression that gives it.

    Returns:
        A number for numbers. Otherwise a Polars expression, missing where the label is neither 0 nor 1, where the score
        is not between 0 and 1, and where either is missing.

    Raises:
        PenstockError: numbers that are no label or no score.

    >>> scored(True, 0.25)
    2.25
    """
    if isinstance(label, str | pl.Expr) or isinstance(score, str | pl.Expr):
        truth, chance = (_number(part) for part in (label, score))
        fits = truth.is_in([0.0, 1.0]) & chance.is_between(0.0, 1.0)
        return pl.when(fits).then(2.0 * truth + ((chance + _ROUNDS) - _ROUNDS))
    if label not in (0, 1) or not 0 <= score <= 1:
        raise PenstockError(
            "a label is 0 or 1, and a score between 0 and 1",
            got=f"{label!r} and {score!r}",
            remedy="scale the scores, by 1 / (1 + exp(-x)) for log odds",
        )
    return 2.0 * label + ((score + _ROUNDS) - _ROUNDS)


def _number(part: str | pl.Expr | float) -> pl.Expr:
    named = pl.col(part) if isinstance(part, str) else part if isinstance(part, pl.Expr) else pl.lit(part)
    return named.cast(pl.Float64, strict=False)


@dataclass(frozen=True, eq=False)
class _Scored(Aggregate):
    """Reads what `scored` gives; any other value counts nothing."""

    reads: ClassVar[tuple[Kind, ...]] = ("float",)
    timeless: ClassVar[bool] = True

    def merge(self, a: Array, b: Array) -> Array:
        return a + b

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        return np.asarray(np.add.reduceat(states, starts.astype(np.intp), axis=0)) if len(starts) else self.empty(0)

    def empty(self, n: int) -> Array:
        return np.zeros((n, *self.dtype.shape), np.int64)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(values)))


def _pairs(values: Array) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """The label and the score of each value, and whether it is a pair at all."""
    label = (values >= 2).astype(np.int64)
    score = values - 2.0 * label
    return label, score, (score >= 0) & (score <= 1)


def _plain_pairs(events: Sequence[Event]) -> list[tuple[int, float]]:
    pairs = [(1, value - 2.0) if value >= 2 else (0, value) for value, _, _ in events]
    return [(label, score) for label, score in pairs if 0 <= score <= 1]


@dataclass(frozen=True, eq=False)
class _Binned(_Scored):
    bins: int = 64

    most: ClassVar[int] = 4_096

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.bins <= self.most:
            raise DefinitionError(
                f"bins are between 1 and {self.most:,}", got=str(self.bins), remedy="leave it out, or name a number"
            )

    def _bin(self, score: NDArray[np.float64]) -> NDArray[np.int64]:
        return np.minimum((np.clip(score, 0.0, 1.0) * self.bins).astype(np.int64), self.bins - 1)

    def _plain_bin(self, score: float) -> int:
        return min(int(score * self.bins), self.bins - 1)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Auc(_Binned):
    """Area under the ROC curve of scores in equal bins: how often a positive scores above a negative, ties a half.

    State: 16 bins bytes (1,024 at the default of 64): a count a class and bin. What it gives is the exact area of the
    scores rounded down to their bins; from that of the scores themselves it differs by at most half of the share of
    pairs (positive, negative) that fall into one bin. 0.5 where one class is absent; no event gives NaN. At most 2**31
    events of a class.

    Args:
        column: what `scored` gives.
        bins: of equal width over scores from 0 to 1.

    Source: Hanley and McNeil, "The meaning and use of the area under a ROC curve" (1982).

    >>> a, t = Auc("pair"), np.zeros(4, np.int64)
    >>> pairs = np.array([scored(1, 0.9), scored(0, 0.2), scored(1, 0.4), scored(0, 0.6)])
    >>> a.value(a.collect(pairs, t, t.astype(np.uint64), np.array([0])), t[:1])
    array([0.75])
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(("<i8", (2, self.bins)))

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        states = self.empty(len(starts))
        label, score, fits = _pairs(values)
        np.add.at(states, (run_of(starts, len(values)), label, self._bin(score)), fits.astype(np.int64))
        return states

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        negative, positive = states[:, 0], states[:, 1]
        below = np.cumsum(negative, axis=1) - negative
        twice = (positive * (2 * below + negative)).sum(axis=1).astype(np.float64)
        pairs = 2.0 * (negative.sum(axis=1) * positive.sum(axis=1)).astype(np.float64)
        area = np.divide(twice, pairs, out=np.full(len(states), 0.5), where=pairs > 0)
        return np.where(states.any(axis=(1, 2)), area, np.nan)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        pairs = [(label, self._plain_bin(score)) for label, score in _plain_pairs(events)]
        positive = [place for label, place in pairs if label]
        negative = [place for label, place in pairs if not label]
        if not positive or not negative:
            return 0.5 if pairs else math.nan
        wins = sum(2 * (p > n) + (p == n) for p in positive for n in negative)
        return float(wins) / float(2 * len(positive) * len(negative))

    def exact(self, events: Sequence[Event], now: int) -> tuple[float, float] | None:
        pairs = _plain_pairs(events)
        both = [(p, n) for label, p in pairs if label for other, n in pairs if not other]
        if not both:
            return None
        area = sum((p > n) + 0.5 * (p == n) for p, n in both) / len(both)
        alike = sum(self._plain_bin(p) == self._plain_bin(n) for p, n in both) / len(both)
        return area, alike / 2


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class LogLoss(_Scored):
    """The mean of -ln of the probability that the score gave to what happened, in nats.

    State: 16 bytes, a total in millionths of a nat and a count. Scores are clipped to 1e-9 … 1 - 1e-9, so one event
    adds at most 20.8; of the clipped scores the mean is within 1e-6. No event gives NaN.

    Args:
        column: what `scored` gives.

    Source: Good, "Rational decisions" (1952).

    >>> l, t = LogLoss("pair"), np.zeros(2, np.int64)
    >>> l.value(l.collect(np.array([scored(1, 0.5), scored(0, 0.5)]), t, t.astype(np.uint64), np.array([0])), t[:1])
    array([0.693147])
    """

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(("<i8", (2,)))

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        label, score, fits = _pairs(values)
        chance = np.clip(np.where(label == 1, score, 1.0 - score), _LEAST, 1.0 - _LEAST)
        each = np.stack([np.rint(-_ln(chance) * _PER_NAT).astype(np.int64), np.ones(len(values), np.int64)], axis=1)
        return self.reduce(each * fits[:, None], starts)

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        total, count = states[:, 0].astype(np.float64), states[:, 1].astype(np.float64)
        mean = np.divide(total, count, out=np.full(len(states), np.nan), where=count > 0)
        return np.asarray(mean / _PER_NAT)

    def plain(self, events: Sequence[Event], now: int) -> Any:
        pairs = _plain_pairs(events)
        chances = [max(_LEAST, min(score if label else 1.0 - score, 1.0 - _LEAST)) for label, score in pairs]
        total = sum(round(-math.log(chance) * _PER_NAT) for chance in chances)
        return float(total) / len(pairs) / _PER_NAT if pairs else math.nan

    def exact(self, events: Sequence[Event], now: int) -> tuple[float, float] | None:
        pairs = _plain_pairs(events)
        chances = [max(_LEAST, min(score if label else 1.0 - score, 1.0 - _LEAST)) for label, score in pairs]
        return (-sum(map(math.log, chances)) / len(pairs), 1e-6) if pairs else None


def _ln(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The natural logarithm by +, -, × and ÷ alone, so that every processor gives the same bits."""
    part, exponent = np.frexp(x)
    small = part < math.sqrt(0.5)
    part, exponent = np.where(small, 2.0 * part, part), np.where(small, exponent - 1, exponent)
    s = (part - 1.0) / (part + 1.0)
    square = s * s
    series = np.zeros_like(s)
    for k in range(23, 0, -2):
        series = series * square + 1.0 / k
    return np.asarray(exponent * _LN_2 + 2.0 * s * series)


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class CalibrationError(_Binned):
    """Expected calibration error: by bin, the mean score beside the share of positives, weighed by events.

    State: 24 bins bytes (240 at the default of 10): events, positives, and scores in units of 2**-30, a bin. Exact for
    these bins but for the rounding of scores, at most 2**-31. No event gives NaN.

    Args:
        column: what `scored` gives.
        bins: of equal width over scores from 0 to 1.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning" (2015).

    >>> c, t = CalibrationError("pair"), np.zeros(4, np.int64)
    >>> pairs = np.array([scored(1, 0.75), scored(1, 0.75), scored(1, 0.75), scored(0, 0.75)])
    >>> c.value(c.collect(pairs, t, t.astype(np.uint64), np.array([0])), t[:1])
    array([0.])
    """

    bins: int = 10

    most: ClassVar[int] = 256

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(("<i8", (3, self.bins)))

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        states = self.empty(len(starts))
        label, score, fits = _pairs(values)
        owner, place = run_of(starts, len(values))[fits], self._bin(score)[fits]
        whole = np.rint(score[fits] * _PER_SCORE).astype(np.int64)
        for row, part in enumerate((np.ones(len(owner), np.int64), label[fits], whole)):
            np.add.at(states[:, row], (owner, place), part)
        return states

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        off = np.abs(states[:, 1] * _PER_SCORE - states[:, 2]).sum(axis=1).astype(np.float64)
        every = (states[:, 0].sum(axis=1) * _PER_SCORE).astype(np.float64)
        return np.asarray(np.divide(off, every, out=np.full(len(states), np.nan), where=every > 0))

    def plain(self, events: Sequence[Event], now: int) -> Any:
        pairs = _plain_pairs(events)
        off: dict[int, int] = {}
        for label, score in pairs:
            place = self._plain_bin(score)
            off[place] = off.get(place, 0) + label * _PER_SCORE - round(score * _PER_SCORE)
        return float(sum(map(abs, off.values()))) / float(len(pairs) * _PER_SCORE) if pairs else math.nan
