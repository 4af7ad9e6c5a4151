"""Open Bandit data: impressions of an even draw and of Thompson sampling ("bts") on the same campaigns, by position.

The propensities of bts move from minute to minute, and only those of what was shown are logged. As a target it is what
it did over the week: the share of each item at each position, whose expectation is the mean of its propensities.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.evaluate.off_policy import Logged

POLICIES = ("random", "bts")
CAMPAIGNS = ("men", "women")


@dataclass(frozen=True, eq=False)
class Log:
    """One policy's impressions of a campaign, and how many items there were to show."""

    rounds: Logged
    actions: int


def read(folder: Path, policy: str, campaign: str) -> Log:
    """A file of the data; the context is the four features of the user, each value a column."""
    frame = pl.read_csv(folder / f"obd_{policy}_{campaign}.csv.gz")
    features = [f"user_feature_{number}" for number in range(4)]
    context = np.hstack([_columns(frame[name].to_numpy()) for name in features])
    rounds = Logged(
        frame["item_id"].to_numpy(), frame["click"].to_numpy().astype(np.float64), frame["propensity_score"].to_numpy(),
        context, frame["position"].to_numpy() - 1,
    )  # fmt: skip
    items = len(pl.read_csv(folder / f"obd_{policy}_{campaign}_items.csv"))
    return Log(rounds, items)


def chances(policy: str, of: Log, at: Logged) -> NDArray[np.float64]:
    """What `policy`, whose own log is `of`, would have done in the rounds of `at`: (n, K)."""
    if policy == "random":
        return np.full((len(at), of.actions), 1 / of.actions)
    shown = np.zeros((3, of.actions))
    np.add.at(shown, (of.rounds.places, of.rounds.action), 1.0)
    share: NDArray[np.float64] = shown / shown.sum(1, keepdims=True)
    return share[at.places]


def _columns(values: NDArray[np.str_]) -> NDArray[np.float64]:
    names, which = np.unique(values, return_inverse=True)
    found: NDArray[np.float64] = (which[:, None] == np.arange(len(names))).astype(np.float64)
    return found
