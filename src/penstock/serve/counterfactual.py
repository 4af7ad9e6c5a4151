"""What another policy would have earned, from logged decisions and what came of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.off_policy import Rounds, slates
from penstock.learn import Recipe, join_outcomes
from penstock.serve.decisions import Decided, impressions
from penstock.types import Micros, Rows, Strings

Policy = Callable[[Decided], NDArray[np.float64]]
"""From a logged decision to the chance (k,) with which another policy shows each item it showed, given those above it.

A policy that sorts the candidates and then explores is ``lambda one: rule.chances(Slate.of(one.items, order(one)),
one.shown)``, with ``rule = ps.explore(rate)`` and ``order`` giving positions in ``one.items``, best first. One that
explores otherwise what was ranked is ``lambda one: rule.chances(again.of(one), one.shown)``, with
`penstock.audit.Again`. It must sort all that it would find by itself: where it would show what was never a candidate,
no logged list has its weight, and the mean weight falls below 1.
"""


def weighed(
    decided: Sequence[Decided],
    policy: Policy,
    recipe: Recipe,
    rows: Mapping[str, Rows],
    strings: Strings,
    *,
    window: Micros,
    as_of: Micros,
    clip: float | None = None,
) -> Rounds | None:
    """Every item that logged decisions showed, weighed for `policy`, with its goal's outcome; shoppers are the groups.

    Answers of fallback tiers are passed over, and so are decisions whose window is still open.

    Args:
        window: how long after being shown an item the goal's event still counts, microseconds.
        as_of: the moment from which to look, microseconds: only events that had arrived by then count.
        clip: the largest weight; none by default.

    Returns:
        Rounds for `penstock.evaluate.off_policy.judge` with ips or snips, whose estimates are goals an item shown. None
        where no decision can be judged yet.
    """
    closed = [one for one in decided if one.digests and len(one.shown) and one.time + window <= as_of]
    if not closed:
        return None
    closed.sort(key=lambda one: (one.offset, one.time))
    shown = impressions(closed, recipe, strings)
    outcomes = join_outcomes(shown.flat(), recipe, rows, strings, window=window, as_of=as_of)
    return slates(
        outcomes.positive.astype(np.float64),
        np.concatenate([one.propensities for one in closed]).astype(np.float64),
        np.concatenate([policy(one) for one in closed]),
        shown.owner,
        group=shown.asks.key[shown.owner],
        clip=clip,
    )
