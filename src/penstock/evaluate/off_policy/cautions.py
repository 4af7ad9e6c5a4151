"""Where logged data cannot answer: each check says what is wrong with an estimate, with the figure and a remedy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import msgspec
import numpy as np

from penstock.evaluate.off_policy.estimators import Estimator
from penstock.evaluate.off_policy.intervals import by_group
from penstock.evaluate.off_policy.logged import Floats, Rounds
from penstock.registry import get, names, registered

CHECK = "off_policy_check"


class Caution(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule that an estimate breaks: `code` names the check, `got` what was found, `remedy` what can be done.

    >>> print(Caution("ess", "the weights leave at least 100 effective rounds", "12", "log more exploration"))
    the weights leave at least 100 effective rounds; got 12; log more exploration
    """

    code: str
    rule: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}; got {self.got}; {self.remedy}"


class Check(ABC):
    """Implementations are frozen dataclasses, registered as "off_policy_check"; their limits have defaults."""

    @abstractmethod
    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        """The caution, where there is a reason for one; `left_out` is the share of the weights that is not believed."""


def cautions(rounds: Rounds, estimator: Estimator, left_out: float = 0.0) -> tuple[Caution, ...]:
    """What every registered check says."""
    checks: list[Check] = [get(CHECK, name)() for name in names(CHECK)]
    found = (check.look(rounds, estimator, left_out) for check in checks)
    return tuple(one for one in found if one is not None)


def effective(weight: Floats) -> float:
    """Kish's effective sample size, (sum w)² / sum w²; 0 where nothing has weight.

    >>> effective(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    squares = float(np.dot(weight, weight))
    return float(weight.sum()) ** 2 / squares if squares else 0.0


@registered(CHECK)
@dataclass(frozen=True)
class Support(Check):
    """The target hardly ever does what the logging policy never does."""

    most: float = 0.01

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        if rounds.unsupported <= self.most:
            return None
        return Caution(
            "support", f"at most {self.most:.0%} of the target's choices are actions that the log knows nothing of",
            f"{rounds.unsupported:.1%}", "log a policy that takes them now and then: no estimator can fill this in",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class MeanWeight(Check):
    """Weights average 1, but for chance, if the propensities are right and everything the target does can occur."""

    far: float = 0.05
    errors: float = 4.0

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        mean = mean_weight(rounds)
        error = standard_error(rounds.weight - rounds.weight.mean(), rounds)
        if abs(mean - 1) <= max(self.far, self.errors * error):
            return None
        return Caution(
            "mean_weight", "the weights average 1", f"{mean:.3g}",
            "below 1 the target does what was never logged, above 1 the logged propensities are too small",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class EffectiveSize(Check):
    """Enough rounds are left once they are weighed."""

    least: float = 100.0

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        found = effective(rounds.weight)
        if not estimator.weighs or found >= self.least:
            return None
        return Caution(
            "ess", f"the weights leave at least {self.least:g} effective rounds", f"{found:.1f} of {len(rounds):,}",
            "log more rounds or more exploration, or ask about a policy closer to the logged one",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class LargestShare(Check):
    """No single round decides."""

    most: float = 0.05

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        found = largest_share(rounds.weight)
        if not estimator.weighs or found <= self.most:
            return None
        return Caution(
            "largest_share", f"one round has at most {self.most:.0%} of all weight", f"{found:.1%}",
            "take switch_dr or dr_os, clip the weights, or log more exploration",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class Rewarded(Check):
    """Enough rounds with an unusual reward stand behind the estimate, such as clicks among many that are none."""

    least: float = 15.0

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        unusual = np.abs(rounds.reward - np.median(rounds.reward)) * rounds.weight
        found = effective(by_group(unusual, rounds.group))
        if found >= self.least:
            return None
        return Caution(
            "rewarded", f"at least {self.least:g} effective rounds have a reward that is not the usual one",
            f"{found:.1f}", "log more rounds: intervals are too narrow with so few",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class Groups(Check):
    """Enough independent groups, such as shoppers, to tell how far an estimate may be off."""

    least: int = 30

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        found = int(rounds.group.max()) + 1
        if found >= self.least:
            return None
        return Caution(
            "groups", f"there are at least {self.least} independent groups", str(found),
            "log more of them: intervals are too narrow with so few",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class Clipped(Check):
    """Most of what the target does keeps its weight; of the rest, intervals do not cover how wrong the estimate is."""

    most: float = 0.05

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        if not estimator.weighs or left_out <= self.most:
            return None
        return Caution(
            "clipped", f"clipping and shrinking take at most {self.most:.0%} of the weights", f"{left_out:.1%}",
            "clip at a larger weight, or take dr, whose interval is wider and covers what this one does not",
        )  # fmt: skip


@registered(CHECK)
@dataclass(frozen=True)
class Model(Check):
    """An estimate by the model alone agrees with the rewards that were logged, weighed towards the target."""

    errors: float = 2.0

    def look(self, rounds: Rounds, estimator: Estimator, left_out: float) -> Caution | None:
        if estimator.weighs:
            return None
        residual = rounds.weight * (rounds.reward - rounds.modelled[0])
        off, error = float(residual.mean()), standard_error(residual - residual.mean(), rounds)
        if abs(off) <= self.errors * error:
            return None
        return Caution(
            "model", f"the model's errors, weighed, average 0 within {self.errors:g} standard errors",
            f"{off:.3g} with a standard error of {error:.2g}", "take dr or sndr, or a better reward model",
        )  # fmt: skip


def mean_weight(rounds: Rounds) -> float:
    """The mean of the weights before they were clipped."""
    mean = float(rounds.weight.mean())
    return mean / (1 - rounds.clipped) if rounds.clipped < 1 else mean


def largest_share(weight: Floats) -> float:
    """The largest weight's share of all."""
    total = float(weight.sum())
    return float(weight.max()) / total if total else 1.0


def standard_error(centred: Floats, rounds: Rounds) -> float:
    """Of a mean whose terms, centred, are (n,): groups are independent, rounds within one need not be."""
    sums = by_group(centred, rounds.group)
    groups = len(sums)
    return float(np.sqrt(np.dot(sums, sums) * groups / max(groups - 1, 1))) / len(centred)
