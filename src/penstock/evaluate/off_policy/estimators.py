"""Estimators of what a policy would have earned, from rounds that another one logged. One class an estimator.

Each is what a base says of a round plus the weighed residual of its reward. With w the weight, r the reward, q what a
model expects of the logged action and Q what it expects of the target policy, the terms stand with each class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from penstock.errors import DefinitionError
from penstock.evaluate.off_policy.logged import Floats, Rounds
from penstock.registry import registered


class Terms(NamedTuple):
    """An estimate is mean(base) + mean(weight × residual); where `normalised`, that over mean(weight). (n,) each."""

    base: Floats
    weight: Floats
    residual: Floats
    normalised: bool = False


class Estimator(ABC):
    """Implementations are frozen dataclasses, registered as "estimator"; their parameters have defaults."""

    modelled: ClassVar[bool] = True
    """Whether it needs a reward model."""
    weighs: ClassVar[bool] = True
    """Whether it looks at the weights; one that does not is as good as its model, wherever that was fitted."""

    @abstractmethod
    def terms(self, rounds: Rounds) -> Terms:
        """What each round adds."""


@registered("estimator", "dm")
@dataclass(frozen=True)
class DirectMethod(Estimator):
    """Q: what the model expects of the target. Little variance, and all of the model's bias."""

    weighs: ClassVar[bool] = False

    def terms(self, rounds: Rounds) -> Terms:
        return Terms(rounds.modelled[1], np.zeros(len(rounds)), rounds.reward)


@registered("estimator", "ips")
@dataclass(frozen=True)
class InversePropensity(Estimator):
    """w r: rewards weighed by how much more often the target does what was logged; unbiased where both overlap.

    Source: Horvitz and Thompson, "A generalization of sampling without replacement", 1952.
    """

    modelled: ClassVar[bool] = False

    def terms(self, rounds: Rounds) -> Terms:
        return Terms(np.zeros(len(rounds)), rounds.weight, rounds.reward)


@registered("estimator", "snips")
@dataclass(frozen=True)
class SelfNormalised(Estimator):
    """sum(w r) / sum(w): stays within the rewards seen, whatever the weights; its bias vanishes as 1 / n.

    Source: Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning", 2015.
    """

    modelled: ClassVar[bool] = False

    def terms(self, rounds: Rounds) -> Terms:
        return Terms(np.zeros(len(rounds)), rounds.weight, rounds.reward, normalised=True)


@registered("estimator", "dr")
@dataclass(frozen=True)
class DoublyRobust(Estimator):
    """Q + w (r − q): the model, and its errors weighed; right where either of the two is.

    Source: Dudík, Langford and Li, "Doubly robust policy evaluation and learning", 2011.
    """

    def terms(self, rounds: Rounds) -> Terms:
        logged, target = rounds.modelled
        return Terms(target, rounds.weight, rounds.reward - logged)


@registered("estimator", "sndr")
@dataclass(frozen=True)
class SelfNormalisedDoublyRobust(Estimator):
    """Q + sum(w (r − q)) / sum(w): doubly robust, with the errors' weights normalised.

    Source: Thomas and Brunskill, "Data-efficient off-policy policy evaluation", 2016 (weighted doubly robust).
    """

    def terms(self, rounds: Rounds) -> Terms:
        logged, target = rounds.modelled
        return Terms(target, rounds.weight, rounds.reward - logged, normalised=True)


@registered("estimator", "switch_dr")
@dataclass(frozen=True)
class SwitchDoublyRobust(Estimator):
    """Q + w (r − q) where w ≤ τ, and Q alone where it is larger.

    Source: Wang, Agarwal and Dudík, "Optimal and adaptive off-policy evaluation in contextual bandits", 2017.

    Args:
        tau: the largest weight that is believed. By default that of 30 quantiles of the weights for which the estimated
            squared error is least: variance, plus the square of the most that what is left out can be wrong by.
    """

    tau: float | None = None

    def __post_init__(self) -> None:
        _check("tau", self.tau)

    def terms(self, rounds: Rounds) -> Terms:
        logged, target = rounds.modelled
        tau = self.tau if self.tau is not None else _least_error(rounds, _switched, _quantiles(rounds.weight))
        return Terms(target, _switched(rounds.weight, tau), rounds.reward - logged)


@registered("estimator", "dr_os")
@dataclass(frozen=True)
class OptimisticShrinkage(Estimator):
    """Q + w' (r − q) with w' = λ w / (w² + λ): large weights shrink towards 0, small ones hardly change.

    Source: Su, Dimakopoulou, Krishnamurthy and Dudík, "Doubly robust off-policy evaluation with shrinkage", 2020.

    Args:
        lam: from 0, the model alone, up to doubly robust. By default chosen as τ is for `SwitchDoublyRobust`.
    """

    lam: float | None = None

    def __post_init__(self) -> None:
        _check("lam", self.lam)

    def terms(self, rounds: Rounds) -> Terms:
        logged, target = rounds.modelled
        lam = self.lam if self.lam is not None else _least_error(rounds, _shrunk, _quantiles(rounds.weight) ** 2)
        return Terms(target, _shrunk(rounds.weight, lam), rounds.reward - logged)


def _switched(weight: Floats, tau: float) -> Floats:
    return np.where(weight <= tau, weight, 0.0)


def _shrunk(weight: Floats, lam: float) -> Floats:
    return lam * weight / (weight**2 + lam) if lam else np.zeros(len(weight))


def _quantiles(weight: Floats) -> Floats:
    return np.unique(np.quantile(weight, np.linspace(0.3, 1.0, 30)))


def _least_error(rounds: Rounds, change: Callable[[Floats, float], Floats], candidates: Floats) -> float:
    """The parameter of `change` with the least bound on the squared error, the largest such one."""
    logged, target = rounds.modelled
    worst = float(np.ptp(rounds.reward))
    best, least = float(candidates[-1]), np.inf
    for one in candidates[::-1].tolist():
        weight = change(rounds.weight, one)
        variance = float(np.var(target + weight * (rounds.reward - logged))) / len(rounds)
        lost = worst * float(np.mean(rounds.weight - weight))
        if variance + lost**2 < least:
            best, least = one, variance + lost**2
    return best


def _check(name: str, value: float | None) -> None:
    if value is not None and not value >= 0:
        raise DefinitionError(f"{name} is zero or more", got=str(value), remedy="leave it out to have it chosen")
