"""The chance that one row is positive: boosted trees, averaged over runs that saw different rows and columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.losses import Floats, LogLoss, Loss, chance
from penstock.registry import registered

if TYPE_CHECKING:  # it takes two seconds to import
    import lightgbm

_LEAST = 1e-6
"""What boosting takes a curvature for at least: it divides by their sum, and losses need not be convex."""


@registered("classifier")
@dataclass(frozen=True, eq=False)
class Classifier:
    """Boosted trees (LightGBM) for a yes or no that is rare, fitted `bags` times and averaged.

    Args:
        loss: what the trees minimise.
        trees, leaves, learning_rate, min_leaf: of each run.
        columns, rows: the share of columns a tree and of rows a run of trees sees.
        l2: regularisation of the leaves.
        bags: runs, each with a seed of its own.
        seed: of every random draw.
    """

    loss: Loss = field(default_factory=LogLoss)
    trees: int = 300
    leaves: int = 7
    learning_rate: float = 0.03
    min_leaf: int = 20
    columns: float = 0.5
    rows: float = 0.7
    l2: float = 5.0
    bags: int = 3
    seed: int = 1

    def fit(
        self, rows: NDArray[np.float32], positive: NDArray[np.bool_], cost: Floats | None = None
    ) -> ChanceOfPositive:
        """Fits rows (n, features), NaN where unknown, to what came of them (n,).

        Args:
            cost: (n,) what missing each row would cost, for losses that weigh costs; 1 where absent.

        Raises:
            DefinitionError: all rows are positive, or none is.
        """
        import lightgbm

        share = float(np.mean(positive)) if len(positive) else 0.0
        if not 0 < share < 1:
            raise DefinitionError(
                "a classifier is fitted to rows of both kinds", got=f"{int(np.sum(positive))} positive of {len(rows)}",
                remedy="take rows from a longer time",
            )  # fmt: skip
        costs = np.ones(len(rows)) if cost is None else np.asarray(cost, np.float64)
        start = float(np.log(share / (1 - share)))

        def slopes(raw: Floats, data: lightgbm.Dataset) -> tuple[Floats, Floats]:
            slope, curvature = self.loss.slopes(raw, positive, costs)
            return slope, np.maximum(curvature, _LEAST)

        boosters = []
        for bag in range(self.bags):
            data = lightgbm.Dataset(rows, positive.astype(np.int8), init_score=np.full(len(rows), start))
            boosters.append(lightgbm.train(self._parameters(self.seed + bag) | {"objective": slopes}, data, self.trees))
        return ChanceOfPositive(boosters, start)

    def _parameters(self, seed: int) -> dict[str, Any]:
        return {
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf,
            # Curvatures are small where positives are rare: the number of rows and l2 are what holds a leaf back.
            "min_sum_hessian_in_leaf": 0.0,
            "feature_fraction": self.columns,
            "bagging_fraction": self.rows,
            "bagging_freq": 1,
            "lambda_l2": self.l2,
            "num_threads": 1,
            "seed": seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbose": -1,
        }


class ChanceOfPositive:
    """What `Classifier.fit` gives.

    Args:
        boosters: whose raw scores are log-odds above `start`.
    """

    def __init__(self, boosters: Sequence[lightgbm.Booster], start: float) -> None:
        self.boosters = boosters
        self.start = start

    def score(self, rows: NDArray[np.float32]) -> Floats:
        """The chance of each row (n, features), (n,) float64."""
        raw = [np.asarray(b.predict(rows, num_threads=1, raw_score=True)) for b in self.boosters]
        return np.asarray(np.mean([chance(self.start + one) for one in raw], axis=0))
