"""What reward to expect of each action, for estimators that lean on a model; fitted so that no round meets itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.evaluate.checks import EvaluationError
from penstock.evaluate.off_policy.logged import Floats, Logged, grouped
from penstock.registry import registered

Expected = Callable[[Logged], Floats]
"""From n rounds to (n, K): the expected reward of every action in each round, at its position."""


class RewardModel(ABC):
    """Implementations are frozen dataclasses, registered as "reward_model"."""

    @abstractmethod
    def fit(self, seen: Logged, actions: int) -> Expected:
        """What `seen` teaches of `actions` actions."""


@registered("reward_model")
@dataclass(frozen=True)
class Means(RewardModel):
    """The mean reward of the position plus what the action adds to it, shrunk towards nothing; no context.

    Args:
        strength: how many rounds of an action outweigh half of the shrinkage.
    """

    strength: float = 100.0

    def __post_init__(self) -> None:
        _not_negative("strength", self.strength)

    def fit(self, seen: Logged, actions: int) -> Expected:
        overall = float(seen.reward.mean())
        count = np.bincount(seen.places)
        sums = np.bincount(seen.places, weights=seen.reward)
        base = np.append((sums + self.strength * overall) / np.maximum(count + self.strength, 1e-12), overall)
        left = np.bincount(seen.action, weights=seen.reward - base[seen.places], minlength=actions)
        taken = np.bincount(seen.action, minlength=actions)
        added = left / np.maximum(taken + self.strength, 1e-12)

        def expected(rounds: Logged) -> Floats:
            found: Floats = base[np.minimum(rounds.places, len(base) - 1), None] + added
            return found

        return expected


@registered("reward_model")
@dataclass(frozen=True)
class Ridge(RewardModel):
    """Least squares on the context, the action, the position, and the context times the action.

    Context columns are standardised. All but the mean is shrunk, so that an action that was never taken is expected to
    do as the others do. What is expected stays within the rewards seen.

    Args:
        penalty: on each squared coefficient, in rounds.
        interactions: whether the context tells each action something of its own; (d + 1) × K coefficients.
    """

    penalty: float = 10.0
    interactions: bool = True

    def __post_init__(self) -> None:
        _not_negative("penalty", self.penalty)

    def fit(self, seen: Logged, actions: int) -> Expected:
        context = _context(seen)
        middle = context.mean(0)
        scale = np.where((spread := context.std(0)) > 0, spread, 1.0)
        places = int(seen.places.max()) + 1
        lowest, highest = float(seen.reward.min()), float(seen.reward.max())
        d, own = context.shape[1], context.shape[1] if self.interactions else 0

        def shared(rounds: Logged) -> Floats:
            """(n, 1 + d + places): what does not depend on the action."""
            where = (np.minimum(rounds.places, places - 1)[:, None] == np.arange(places)).astype(np.float64)
            return np.hstack([np.ones((len(rounds), 1)), (_context(rounds) - middle) / scale, where])

        common = shared(seen)
        width = common.shape[1]
        gram = np.zeros((width + actions * (1 + own),) * 2)
        aim = np.zeros(len(gram))
        gram[:width, :width], aim[:width] = common.T @ common, common.T @ seen.reward
        for action in range(actions):  # of an action's own columns only its own rounds have any
            rows = seen.action == action
            at, part = slice(width + action * (1 + own), width + (action + 1) * (1 + own)), common[rows]
            gram[:width, at] = part.T @ part[:, : 1 + own]
            gram[at, :width] = gram[:width, at].T
            gram[at, at] = gram[: 1 + own, at]
            aim[at] = part[:, : 1 + own].T @ seen.reward[rows]
        gram[np.diag_indices_from(gram)] += self.penalty + 1e-9
        gram[0, 0] -= self.penalty
        found = np.linalg.solve(gram, aim)
        base, rest = found[:width], found[width:].reshape(actions, 1 + own)

        def expected(rounds: Logged) -> Floats:
            if _context(rounds).shape[1] != d:
                raise EvaluationError("a model meets the context it was fitted on", got=f"{d} columns then",
                                      remedy="pass the same columns")  # fmt: skip
            common = shared(rounds)
            every: Floats = (common @ base)[:, None] + common[:, : 1 + own] @ rest.T
            return np.clip(every, lowest, highest)

        return expected


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a model expects: `values` (n, K), each row from a fit without its group; and the fit of each fold."""

    values: Floats
    by_fold: tuple[Expected, ...]


def cross_fitted(model: RewardModel, logged: Logged, actions: int, *, folds: int = 5, seed: int = 0) -> Fitted:
    """Fits the model once a fold, on the other folds; groups stay whole.

    Without this the model has seen the very rewards whose residuals correct it, and doubly robust estimates are
    biased (Chernozhukov et al., "Double/debiased machine learning", 2018).
    """
    values = np.empty((len(logged), actions))
    fits = []
    for held in _folds(logged, folds, seed):
        expected = model.fit(logged.take(~held), actions)
        values[held] = expected(logged.take(held))
        fits.append(expected)
    return Fitted(values, tuple(fits))


def _folds(logged: Logged, folds: int, seed: int) -> Iterator[NDArray[np.bool_]]:
    group = grouped(logged.group, len(logged))
    groups = int(group.max()) + 1
    if not 2 <= folds <= groups:
        raise EvaluationError(
            "a reward model is fitted on at least 2 folds, each with a group of its own",
            got=f"{folds} folds of {groups} groups", remedy="pass folds=2 or more, or estimate with ips or snips",
        )  # fmt: skip
    fold = np.random.default_rng(seed).permutation(groups) % folds
    for one in range(folds):
        yield fold[group] == one


def _context(rounds: Logged) -> Floats:
    return np.zeros((len(rounds), 0)) if rounds.context is None else np.asarray(rounds.context, np.float64)


def _not_negative(name: str, value: float) -> None:
    if not value >= 0:
        raise DefinitionError(f"{name} is zero or more", got=str(value), remedy="leave it out for the default")
