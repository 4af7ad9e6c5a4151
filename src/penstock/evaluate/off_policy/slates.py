"""Lists whose items were drawn one after the other, each with a chance given those above it, as decisions log them."""

from __future__ import annotations

import numpy as np

from penstock.evaluate.checks import EvaluationError, equal_lengths
from penstock.evaluate.off_policy.logged import Floats, Rounds, check_propensity, clip_weights, finite, grouped
from penstock.types import Array


def slates(
    reward: Floats,
    propensity: Floats,
    target: Floats,
    decision: Array,
    *,
    group: Array | None = None,
    clip: float | None = None,
) -> Rounds:
    """The items that were shown, weighed for a policy that would have shown them with other chances.

    An item's weight is the product of target over propensity for it and all above it. That is right where what a
    shopper does with an item may depend on those above it, but not on those below (McInerney et al., "Counterfactual
    evaluation of slate recommendations with sequential reward interactions", 2020). It grows quickly with the place, so
    that a log answers where lists differ in a few places, rarely where they differ in all.

    Args:
        reward: (n,) what came of each item shown; estimates are of its mean.
        propensity: (n,) the logged chance of each item at its place, given those above it, above 0.
        target: (n,) the target's chance of the same.
        decision: (n,) which list an item was shown in; a list's rows stand together, from its first place on.
        group: (n,) what belongs together, such as shoppers; by default each list for itself.
        clip: the largest weight; none by default.

    Returns:
        Rounds for `judge` with ips or snips.

    Raises:
        EvaluationError: columns of different length, a chance that cannot be, a list's rows apart from each other.

    >>> logged, target = np.array([0.5, 1.0, 0.5]), np.array([1.0, 0.5, 0.0])
    >>> slates(np.array([0.0, 1.0, 1.0]), logged, target, np.array([8, 8, 9])).weight.tolist()
    [2.0, 1.0, 0.0]
    """
    equal_lengths(reward=reward, propensity=propensity, target=target, decision=decision)
    if group is not None:
        equal_lengths(reward=reward, group=group)
    propensity, target = np.asarray(propensity, np.float64), np.asarray(target, np.float64)
    reward = np.asarray(reward, np.float64)
    check_propensity(propensity)
    finite("a reward", reward)
    if not ((target >= 0) & (target <= 1.001)).all():
        raise EvaluationError(
            "the target's chance of an item lies between 0 and 1", got=f"{target.min():.4g} to {target.max():.4g}",
            remedy="pass chances, not scores",
        )  # fmt: skip
    starts = np.flatnonzero(np.r_[True, decision[1:] != decision[:-1]])
    if len(starts) != len(np.unique(decision)):
        raise EvaluationError(
            "a list's rows stand together, from its first place on", got="a list in several parts",
            remedy="sort by decision and place",
        )  # fmt: skip
    weight = _running_product(target / propensity, starts)
    weight, clipped = clip_weights(weight, clip)
    return Rounds(reward, weight, grouped(decision if group is None else group, len(reward)), clipped=clipped)


def _running_product(ratio: Floats, starts: Array) -> Floats:
    """The product of `ratio` (n,) from its list's start on."""
    out = ratio.copy()
    sizes = np.diff(np.r_[starts, len(ratio)])
    for place in range(1, int(sizes.max())):
        at = starts[sizes > place] + place
        out[at] *= out[at - 1]
    return out
