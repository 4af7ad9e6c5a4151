"""Losses of a two-class model, with the gradients and curvatures that boosting asks for. One class a loss.

Scores are log-odds, s; a row's chance of being positive is p = 1 / (1 + exp(-s)).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.registry import registered

Floats = NDArray[np.float64]


class Loss(ABC):
    """What a model minimises, summed over rows; implementations are frozen dataclasses, registered as "loss"."""

    @abstractmethod
    def value(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> Floats:
        """The loss (n,) of each row.

        Args:
            score: (n,) log-odds.
            positive: (n,) what came.
            cost: (n,) what missing the row would cost, were it positive; looked at by losses that weigh costs.
        """

    @abstractmethod
    def slopes(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> tuple[Floats, Floats]:
        """The first and the second derivative of `value` in the score, (n,) each."""


@registered("loss")
@dataclass(frozen=True)
class LogLoss(Loss):
    """−log of the chance that was given to what came: its model is calibrated.

    >>> LogLoss().value(np.zeros(1), np.array([True]), np.ones(1)).round(4)
    array([0.6931])
    """

    def value(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> Floats:
        return np.logaddexp(0.0, np.where(positive, -score, score))

    def slopes(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> tuple[Floats, Floats]:
        p = chance(score)
        return p - positive, p * (1 - p)


@registered("loss")
@dataclass(frozen=True)
class Focal(Loss):
    """Log loss that counts rows less the surer the model is of them (Lin et al., "Focal loss for dense object
    detection", ICCV 2017): −a (1 − q)^focus log q, where q is the chance given to what came.

    Args:
        focus: 0 is log loss; higher looks more at what is hard.
        positives: the weight a of positive rows, from 0 to 1; that of others is 1 − a.

    >>> Focal(focus=2.0, positives=0.5).value(np.zeros(1), np.array([True]), np.ones(1)).round(4)
    array([0.0866])
    """

    focus: float = 2.0
    positives: float = 0.5

    def __post_init__(self) -> None:
        if not (self.focus >= 0 and 0 < self.positives < 1):
            raise DefinitionError(
                "focus is 0 or more, and the positives' weight between 0 and 1",
                got=f"focus={self.focus!r}, positives={self.positives!r}", remedy="focus=2.0, positives=0.5 are usual",
            )  # fmt: skip

    def value(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> Floats:
        weight, side = self._weight(positive), _side(positive)
        return weight * chance(-side * score) ** self.focus * np.logaddexp(0.0, -side * score)

    def slopes(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> tuple[Floats, Floats]:
        weight, side = self._weight(positive), _side(positive)
        right, wrong = chance(side * score), chance(-side * score)
        sure = -np.logaddexp(0.0, -side * score)  # log of `right`
        inner = self.focus * right * sure - wrong
        scale = weight * wrong**self.focus
        slope = side * scale * inner
        return slope, scale * right * (wrong * (self.focus * sure + self.focus + 1) - self.focus * inner)

    def _weight(self, positive: NDArray[np.bool_]) -> Floats:
        return np.where(positive, self.positives, 1 - self.positives)


@registered("loss")
@dataclass(frozen=True)
class ExpectedCost(Loss):
    """What acting on the chances would cost: a positive row's own cost times 1 − p, and `alarm` times p for another.

    As in example-dependent cost-sensitive learning (Höppner et al., "Instance-dependent cost-sensitive learning for
    detecting transfer fraud", EJOR 2022).

    Args:
        alarm: what it costs to take another row for a positive one, in the unit of the rows' costs.

    >>> ExpectedCost(alarm=2.0).value(np.zeros(2), np.array([True, False]), np.array([300.0, 300.0]))
    array([150.,   1.])
    """

    alarm: float = 1.0

    def __post_init__(self) -> None:
        if not self.alarm > 0:
            raise DefinitionError("an alarm costs more than nothing", got=f"alarm={self.alarm!r}", remedy="alarm=1.0")

    def value(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> Floats:
        return np.where(positive, cost * chance(-score), self.alarm * chance(score))

    def slopes(self, score: Floats, positive: NDArray[np.bool_], cost: Floats) -> tuple[Floats, Floats]:
        p, q = chance(score), chance(-score)
        slope = np.where(positive, -cost, self.alarm) * p * q
        return slope, slope * (q - p)


def chance(score: Floats) -> Floats:
    """The chance 1 / (1 + exp(-score)), (n,), without overflow.

    >>> chance(np.array([0.0, -1000.0]))
    array([0.5, 0. ])
    """
    small = np.exp(-np.abs(score))
    return np.asarray(np.where(score >= 0, 1.0, small) / (1.0 + small))


def _side(positive: NDArray[np.bool_]) -> Floats:
    return np.where(positive, 1.0, -1.0)
