"""What a policy did and what came of it, and the same seen from another policy: rewards with weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError, equal_lengths
from penstock.types import Array

Floats = NDArray[np.float64]
_SLACK = 1e-3
"""How far chances may be from summing to 1: logs keep them as float32, or rounded."""


@dataclass(frozen=True, eq=False)
class Logged:
    """n rounds, in each of which a policy drew one of K actions; an item shown at one place of a list is a round.

    Args:
        action: (n,) whole numbers from 0.
        reward: (n,) finite numbers, such as 0 and 1 for clicks.
        propensity: (n,) the chance with which the logging policy took the action in this round, above 0, at most 1.
        context: (n, d) finite numbers known before the action, for reward models; none by default.
        position: (n,) whole numbers from 0, the place in a list; 0 everywhere by default.
        group: (n,) whatever belongs together, such as the shopper; rounds are independent by default.
        chances: (n, K) the logging policy's chance of every action, where it is known. With it, actions that it
            never takes are found without waiting for them.

    Raises:
        EvaluationError: columns of different length, a propensity or a number that cannot be.
    """

    action: NDArray[np.int64]
    reward: Floats
    propensity: Floats
    context: Floats | None = None
    position: NDArray[np.int64] | None = None
    group: Array | None = None
    chances: Floats | None = None

    def __post_init__(self) -> None:
        named = ("context", "position", "group", "chances")
        given = {name: getattr(self, name) for name in named if getattr(self, name) is not None}
        equal_lengths(action=self.action, reward=self.reward, propensity=self.propensity, **given)
        check_propensity(self.propensity)
        finite("a reward", self.reward)
        if self.context is not None:
            finite("a context", self.context)
        for name, column in (("an action", self.action), ("a position", self.position)):
            if column is not None and (column.dtype.kind not in "iu" or column.min() < 0):
                raise EvaluationError(
                    f"{name} is a whole number from 0", got=f"{column.dtype} from {column.min()}",
                    remedy="number them with np.unique(…, return_inverse=True)",
                )  # fmt: skip
        if self.chances is not None:
            check_chances("chances", self.chances, self.action)

    def __len__(self) -> int:
        return len(self.action)

    @property
    def places(self) -> NDArray[np.int64]:
        """(n,) the position of each round, 0 where there is none."""
        return np.zeros(len(self), np.int64) if self.position is None else self.position

    def take(self, index: Array) -> Logged:
        """The rounds at `index`, in its order."""

        def part(column: Array | None) -> Array | None:
            return None if column is None else column[index]

        return Logged(
            self.action[index], self.reward[index], self.propensity[index],
            part(self.context), part(self.position), part(self.group), part(self.chances),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rounds:
    """n logged rounds as a target policy sees them: all that an estimator is given.

    Attributes:
        reward: (n,) what came.
        weight: (n,) the target's chance of the logged action over the logging policy's.
        group: (n,) integers from 0, one a group of rounds that belong together.
        of_logged: (n,) what a reward model, fitted without the round's group, expects of the logged action.
        of_target: (n,) what it expects of the target policy in this round.
        refits: (folds,) the mean of `of_target` over all rounds by each fold's own model.
        unsupported: the share of the target's choices that the logging policy never makes, as far as is known.
        clipped: the share of the target's choices that clipping took from the weights.
    """

    reward: Floats
    weight: Floats
    group: NDArray[np.int64]
    of_logged: Floats | None = None
    of_target: Floats | None = None
    refits: Floats | None = None
    unsupported: float = 0.0
    clipped: float = 0.0

    def __len__(self) -> int:
        return len(self.reward)

    @property
    def modelled(self) -> tuple[Floats, Floats]:
        """`of_logged` and `of_target`.

        Raises:
            EvaluationError: there is no model.
        """
        if self.of_logged is None or self.of_target is None:
            raise EvaluationError(
                "this estimator needs a reward model and the target's chance of every action",
                got="weights alone", remedy="pass target (n, K) and model=, or take ips or snips",
            )  # fmt: skip
        return self.of_logged, self.of_target


def grouped(group: Array | None, n: int) -> NDArray[np.int64]:
    """Groups as integers from 0; each of n rounds its own where `group` is None."""
    if group is None:
        return np.arange(n)
    return np.unique(group, return_inverse=True)[1].reshape(n).astype(np.int64)


def clip_weights(weight: Floats, clip: float | None) -> tuple[Floats, float]:
    """Weights of at most `clip`, and the share of their sum that this took.

    >>> clip_weights(np.array([0.5, 1.0, 8.0]), 2.5)
    (array([0.5, 1. , 2.5]), 0.5789473684210527)
    """
    if clip is None:
        return weight, 0.0
    if not clip > 0:
        raise EvaluationError("weights are clipped at a number above 0", got=str(clip), remedy="20 is a start")
    cut = np.minimum(weight, clip)
    total = float(weight.sum())
    return cut, 1 - float(cut.sum()) / total if total else 0.0


def check_propensity(propensity: Floats) -> None:
    """Refuses chances of what happened that are 0, above 1 or not numbers."""
    good = (propensity > 0) & (propensity <= 1 + _SLACK)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise EvaluationError(
            "what was logged had a chance above 0 and at most 1", got=f"{propensity[at]} in round {at}",
            remedy="log the chance with which the action was drawn; without it nothing can be weighed",
        )  # fmt: skip


def check_chances(name: str, chances: Floats, action: NDArray[np.int64]) -> None:
    """Refuses a table (n, K) whose rows are not distributions over the actions."""
    if chances.ndim != 2 or chances.shape[1] <= action.max():
        raise EvaluationError(
            f"{name} has a column an action", got=f"shape {chances.shape}, actions up to {action.max()}",
            remedy="pass (n, K) chances in which K is the number of actions",
        )  # fmt: skip
    total = chances.sum(1)
    good = (chances >= 0).all(1) & (np.abs(total - 1) <= _SLACK)
    if not good.all():
        at = int(np.flatnonzero(~good)[0])
        raise EvaluationError(
            f"a row of {name} is a distribution: no chance below 0, and their sum is 1",
            got=f"sum {total[at]:.4g}, least {chances[at].min():.4g} in round {at}",
            remedy="divide each row by its sum",
        )  # fmt: skip


def finite(name: str, values: Array) -> None:
    """Refuses numbers that are NaN or infinite."""
    if not np.isfinite(values).all():
        raise EvaluationError(
            f"{name} is a finite number", got=f"{int((~np.isfinite(values)).sum())} that are not",
            remedy="drop those rounds, or say what stands for a missing value",
        )  # fmt: skip
