"""What rankers show in the simulated shop, and what is clicked of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError

Clicks = Callable[
    [NDArray[np.int64], NDArray[np.int64], np.random.Generator],
    NDArray[np.bool_],
]


@dataclass(frozen=True)
class Impressions:
    """n sessions, each with a slate of k products.

    `query` `(n,) int64` is what was asked, `user` `(n,) int64` by whom; `ranker` `(n,) int64` says who ordered the
    slate, and `shuffled` `(n,) bool` whether chance then put it in another order. `slate` `(n, k) int64` are codes of
    products from the first position on, `clicked` `(n, k) bool` which of them were clicked.
    """

    query: NDArray[np.int64]
    user: NDArray[np.int64]
    ranker: NDArray[np.int64]
    shuffled: NDArray[np.bool_]
    slate: NDArray[np.int64]
    clicked: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.query)


def show(
    clicks: Clicks,
    users: NDArray[np.int64],
    candidates: NDArray[np.int64],
    scores: NDArray[np.float64],
    rng: np.random.Generator,
    sessions: int,
    positions: int,
    shuffled: float,
) -> Impressions:
    """See `World.impressions`; `clicks(users, slates, rng)` is what shoppers do."""
    if scores.shape[1:] != candidates.shape or len(users) != len(candidates) or positions > candidates.shape[1]:
        raise DefinitionError(
            "every query has a shopper, every candidate a score of each ranker, and every position a candidate",
            got=f"{len(users)} shoppers, candidates {candidates.shape}, scores {scores.shape}, {positions} positions",
            remedy="pass (queries,), (queries, c) and (rankers, queries, c), and at most c positions",
        )
    order = np.argsort(-scores, axis=2, kind="stable")[:, :, :positions]
    query, ranker = rng.integers(len(users), size=sessions), rng.integers(len(scores), size=sessions)
    slate = candidates[query[:, None], order[ranker, query]]
    mixed = rng.random(sessions) < shuffled
    slate[mixed] = rng.permuted(slate[mixed], axis=1)
    user = users[query]
    return Impressions(query, user, ranker, mixed, slate, clicks(user, slate, rng))
