"""Several goals at once, and lists whose chances still hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.losses.binary import Floats, chance
from penstock.registry import registered


@registered("goals_loss")
@dataclass(frozen=True)
class Goals:
    """A weighted sum of log losses, one a goal: the chances of each hold by themselves, whatever the others weigh.

    `value` and `slopes` take scores (n, goals) as log-odds and labels (n, goals), in the order of `weights`; a label
    that is not known, NaN, counts nothing (as the buys of what was not yet due).

    Args:
        weights: what each goal counts: {"click": 1.0, "cart": 3.0, "buy": 10.0}.

    >>> Goals({"click": 1.0, "buy": 4.0}).value(np.zeros((1, 2)), np.array([[1.0, 0.0]])).round(4)
    array([3.4657])
    """

    weights: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights.values()) < 0 or max(self.weights.values()) <= 0:
            raise DefinitionError(
                "goals weigh 0 or more, and one of them more", got=repr(dict(self.weights)),
                remedy='write {"click": 1.0, "buy": 10.0}',
            )  # fmt: skip

    def value(self, scores: Floats, labels: Floats) -> Floats:
        """The loss (n,) of each row."""
        each = np.logaddexp(0.0, scores) - np.nan_to_num(labels) * scores
        return np.asarray((each * self._counted(labels)).sum(axis=1))

    def slopes(self, scores: Floats, labels: Floats) -> tuple[Floats, Floats]:
        """First and second derivatives in each score, (n, goals) each."""
        p, counted = chance(scores), self._counted(labels)
        return (p - np.nan_to_num(labels)) * counted, p * (1 - p) * counted

    def worth(self, scores: Floats) -> Floats:
        """What a row is worth, (n,): the goals' chances times their weights."""
        return np.asarray(chance(scores) @ self._each)

    @property
    def _each(self) -> Floats:
        return np.array(list(self.weights.values()), np.float64)

    def _counted(self, labels: Floats) -> Floats:
        return np.where(np.isnan(labels), 0.0, self._each)


@registered("goals_loss")
@dataclass(frozen=True)
class CalibratedList:
    """Log loss and a listwise softmax that agree with one another: the second is over chances, not over scores.

    A softmax over scores s leaves their level open, and pulls chances away from what log loss wants. Over
    log(1 / (1 + exp(−s))), with each label as it is, both have their least where the chances are right (Bai et al.,
    "Regression compatible listwise objectives for calibrated ranking with binary relevance", CIKM 2023).

    `value` and `slopes` take scores and labels (lists, width), and which places are filled, (lists, width).

    Args:
        share: of the listwise part, from 0 to 1.

    >>> full = np.ones((1, 2), bool)
    >>> CalibratedList(share=1.0).value(np.zeros((1, 2)), np.array([[1.0, 0.0]]), full).round(4)
    array([0.6931])
    """

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise DefinitionError("a share is from 0 to 1", got=repr(self.share), remedy="0.5 is usual")

    def value(self, scores: Floats, labels: Floats, filled: NDArray[np.bool_]) -> Floats:
        """The loss (lists,) of each list."""
        scores, right = np.where(filled, scores, 0.0), np.where(filled, labels, 0.0)
        single = np.where(filled, np.logaddexp(0.0, scores), 0.0) - right * scores
        listed = -right * _log_shares(scores, filled)
        return np.asarray(((1 - self.share) * single + self.share * listed).sum(axis=1))

    def slopes(self, scores: Floats, labels: Floats, filled: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """First and second derivatives in each score, (lists, width) each; the second leaves out what mixes two."""
        scores, right = np.where(filled, scores, 0.0), np.where(filled, labels, 0.0)
        p, q = chance(scores), chance(-scores)
        came = right.sum(axis=1, keepdims=True)
        part = np.where(filled, np.exp(_log_shares(scores, filled)), 0.0)
        first = came * part * q - right * q
        second = right * p * q + came * (part * q * (q - p) - (part * q) ** 2)
        single = (1 - self.share) * filled
        return single * (p - right) + self.share * first, single * p * q + self.share * second


def _log_shares(scores: Floats, filled: NDArray[np.bool_]) -> Floats:
    """The logarithm of each chance's share in those of its list, (lists, width); 0 where none is filled.

    In logarithms throughout, since chances of scores below -745 are 0, and their shares are not.
    """
    log_p = np.where(filled, -np.logaddexp(0.0, -scores), -np.inf)
    top = log_p.max(axis=1, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    raised = np.exp(log_p - top).sum(axis=1, keepdims=True)
    return np.where(filled, log_p - top - np.log(np.where(raised > 0, raised, 1.0)), 0.0)
