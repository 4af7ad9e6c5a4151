"""From logged rounds and a target policy to an estimate with its interval and its cautions."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.checks import EvaluationError
from penstock.evaluate.off_policy.cautions import Caution, cautions, effective, largest_share, mean_weight
from penstock.evaluate.off_policy.estimators import Estimator, Terms
from penstock.evaluate.off_policy.intervals import by_group, check_level, score_interval, unseen
from penstock.evaluate.off_policy.logged import Floats, Logged, Rounds, check_chances, clip_weights, finite, grouped
from penstock.evaluate.off_policy.rewards import RewardModel, Ridge, cross_fitted
from penstock.registry import get, name_of


class Estimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a target policy earns a round, as far as the log can tell.

    Attributes:
        value: NaN where an estimator divides by weights that are all 0.
        low, high: the interval's ends; infinite where nothing bounds it.
        ess: the weights' effective number of rounds; `rounds` how many there were, `groups` in how many groups.
        mean_weight: about 1 where the log can answer; `max_share` the largest weight's share of all;
            `clipped` the share that clipping or shrinking took.
        unsupported: the share of the target's choices that the log knows nothing of.
        warnings: why this estimate is not to be relied on; empty where nothing speaks against it.
    """

    estimator: str
    value: float
    low: float
    high: float
    level: float
    ess: float
    rounds: int
    groups: int
    mean_weight: float
    max_share: float
    clipped: float
    unsupported: float
    warnings: tuple[Caution, ...]


def estimate(
    logged: Logged,
    target: Floats,
    by: str | Estimator = "dr",
    *,
    model: RewardModel | Floats | None = None,
    folds: int = 5,
    clip: float | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """The mean reward a round had the target policy acted instead of the logging one.

    Args:
        target: (n, K) the target's chance of each action in each round, at the round's position; or (n,) its chance of
            the logged action, which is enough for ips and snips.
        by: the estimator, or its name: dm, ips, snips, dr, sndr, switch_dr or dr_os.
        model: see `weigh`.
        clip: the largest weight; none by default, and what it takes is reported.
        level: of the interval. It covers chance, not a model's bias (dm) nor what clipping takes.

    Raises:
        EvaluationError: columns that do not fit, chances that are none, an estimator without its model.

    >>> logged = Logged(np.array([0, 1] * 50), np.array([0.0, 1.0, 0.0, 1.0, 1.0] * 20), np.full(100, 0.5))
    >>> found = estimate(logged, np.tile([0.25, 0.75], (100, 1)), "snips")
    >>> round(found.value, 3), round(found.low, 2), round(found.high, 2), found.ess
    (0.6, 0.49, 0.7, 80.0)
    >>> print(*found.warnings)  # doctest: +NORMALIZE_WHITESPACE
    the weights leave at least 100 effective rounds; got 80.0 of 100; log more rounds or more exploration,
    or ask about a policy closer to the logged one
    """
    chosen = get("estimator", by)() if isinstance(by, str) else by
    check_level(level)
    if not chosen.modelled:
        model = None
    elif model is None:
        model = Ridge()
    return judge(weigh(logged, target, model, folds=folds, clip=clip, seed=seed), chosen, level=level)


def weigh(
    logged: Logged,
    target: Floats,
    model: RewardModel | Floats | None = None,
    *,
    folds: int = 5,
    clip: float | None = None,
    seed: int = 0,
) -> Rounds:
    """The logged rounds as the target sees them, for several estimators to share.

    Args:
        target, clip: as in `estimate`.
        model: cross-fitted over `folds` folds of whole groups; or (n, K) expected rewards from elsewhere, in which no
            round's own reward may have had a part; or none, for weights alone.
    """
    target = np.asarray(target, np.float64)
    group = grouped(logged.group, len(logged))
    if target.ndim == 1:
        _same_length(target, logged)
        weight, clipped = clip_weights(_chance(target) / logged.propensity, clip)
        return Rounds(logged.reward, weight, group, clipped=clipped)
    _same_length(target, logged)
    check_chances("target", target, logged.action)
    rows = np.arange(len(logged))
    weight, clipped = clip_weights(target[rows, logged.action] / logged.propensity, clip)
    unsupported = _unsupported(logged, target)
    if model is None:
        return Rounds(logged.reward, weight, group, clipped=clipped, unsupported=unsupported)
    refits = None
    if isinstance(model, RewardModel):
        fitted = cross_fitted(model, logged, target.shape[1], folds=folds, seed=seed)
        values = fitted.values
        refits = np.array([np.mean(np.sum(target * expected(logged), axis=1)) for expected in fitted.by_fold])
    else:
        values = np.asarray(model, np.float64)
        if values.shape != target.shape:
            raise EvaluationError(
                "expected rewards have a row a round and a column an action",
                got=f"{values.shape}, target {target.shape}", remedy="pass (n, K), or a reward model",
            )  # fmt: skip
        finite("an expected reward", values)
    return Rounds(
        logged.reward, weight, group, values[rows, logged.action], np.sum(target * values, axis=1), refits,
        unsupported, clipped,
    )  # fmt: skip


def judge(rounds: Rounds, by: str | Estimator, *, level: float = 0.95) -> Estimate:
    """One estimator on rounds that `weigh` or `slates` made."""
    chosen: Estimator = get("estimator", by)() if isinstance(by, str) else by
    terms = chosen.terms(rounds)
    a, b, (below, above) = _equation(terms, rounds.group)
    model = 0.0 if chosen.weighs or rounds.refits is None else _jackknife(rounds.refits)
    low, high = score_interval(a, b, level=level, below=below + model, above=above + model)
    total, weights = float(b.sum()), float(rounds.weight.sum())
    clipped = rounds.clipped
    if chosen.weighs and weights:
        clipped = 1 - (1 - clipped) * float(terms.weight.sum()) / weights
    return Estimate(
        estimator=name_of(chosen),
        value=float(a.sum()) / total if total else math.nan,
        low=low,
        high=high,
        level=level,
        ess=effective(rounds.weight),
        rounds=len(rounds),
        groups=int(rounds.group.max()) + 1,
        mean_weight=mean_weight(rounds),
        max_share=largest_share(rounds.weight),
        clipped=clipped,
        unsupported=rounds.unsupported,
        warnings=cautions(rounds, chosen, clipped),
    )


def _equation(terms: Terms, group: NDArray[np.int64]) -> tuple[Floats, Floats, tuple[float, float]]:
    """Sums a, b by group so that the estimate θ has sum(a - θ b) = 0 and the terms vary as θ does; and `unseen`."""
    base, weight, residual, normalised = terms
    if not normalised:
        sums = by_group(base + weight * residual, group)
        return sums, by_group(np.ones(len(base)), group), unseen(weight, residual, group)
    middle, scale = float(base.mean()), float(weight.mean())
    if not scale > 0:
        return np.zeros(0), np.zeros(0), (0.0, 0.0)
    a = weight * residual + middle * weight + scale * (base - middle)
    centred = residual - float(np.dot(weight, residual)) / float(weight.sum())
    return by_group(a, group), by_group(weight, group), unseen(weight / scale, centred, group)


def _jackknife(refits: Floats) -> float:
    """The variance of what a model says, from refits that each leave out a fold (Quenouille, 1956)."""
    folds = len(refits)
    return float(np.sum((refits - refits.mean()) ** 2)) * (folds - 1) / folds


def _unsupported(logged: Logged, target: Floats) -> float:
    """The share of the target's choices that cannot have been logged, or never were."""
    if logged.chances is not None:
        if logged.chances.shape != target.shape:
            raise EvaluationError(
                "both policies choose among the same actions", got=f"{logged.chances.shape}, target {target.shape}",
                remedy="give an action that a policy never takes a chance of 0",
            )  # fmt: skip
        return float(np.sum(target, axis=1, where=logged.chances <= 0).mean())
    taken = np.bincount(logged.action, minlength=target.shape[1]) > 0
    return float(target[:, ~taken].sum(1).mean())


def _chance(target: Floats) -> Floats:
    if not ((target >= 0) & (target <= 1.001)).all():
        raise EvaluationError(
            "the target's chance of a logged action lies between 0 and 1",
            got=f"{target.min():.4g} to {target.max():.4g}", remedy="pass chances, not scores or weights",
        )  # fmt: skip
    return target


def _same_length(target: Floats, logged: Logged) -> None:
    if len(target) != len(logged):
        raise EvaluationError(
            "the target has chances for each logged round", got=f"{len(target)} for {len(logged)} rounds",
            remedy="ask the target policy at each logged context",
        )  # fmt: skip
