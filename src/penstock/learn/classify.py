"""The chance that one row is positive: boosted trees averaged over runs, or logistic regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError, ReleaseError
from penstock.learn.losses import Floats, LogLoss, Loss, chance
from penstock.learn.scorer import Scorer
from penstock.registry import registered

if TYPE_CHECKING:  # it takes two seconds to import
    import lightgbm

_LEAST = 1e-6
"""What boosting takes a curvature for at least: it divides by their sum, and losses need not be convex."""
_BLOCK = 1 << 16
_HALVINGS = 30
_CLOSE = 1e-9


class FittedClassifier(Protocol):
    """Says chances; the same rows in, the same numbers out, one by one or many at once."""

    def score(self, rows: NDArray[np.float32]) -> Floats:
        """The chance that each row (n, features) float32 is positive, (n,) float64."""

    def contributions(self, rows: NDArray[np.float32]) -> Floats:
        """What each feature adds to a row's log-odds against the average row, (n, features) float64."""

    @property
    def importance(self) -> Floats:
        """How much each feature matters in all, (features,) float64, 0 or more, on a scale of the model's own."""

    def save(self, folder: Path) -> dict[str, Any]:
        """Writes its files and gives what `load_classifier` needs, as JSON values."""


class ClassifierSpec(Protocol):
    """How a classifier is fitted; implementations are frozen dataclasses, registered as "classifier"."""

    def fit(
        self,
        rows: NDArray[np.float32],
        positive: NDArray[np.bool_],
        cost: Floats | None = None,
        weight: Floats | None = None,
    ) -> FittedClassifier:
        """Fits rows (n, features), NaN where unknown, to what came of them (n,).

        Args:
            cost: (n,) what missing each row would cost, for losses that weigh costs; 1 where absent.
            weight: (n,) how many rows each stands for, as where rows were sampled; 1 where absent.

        Raises:
            DefinitionError: all rows that weigh anything are positive, or none is; or a weight is no number from 0 up.
        """


@registered("classifier")
@dataclass(frozen=True, eq=False)
class Classifier:
    """Boosted trees (LightGBM) for a yes or no that is rare, fitted `bags` times; their log-odds are averaged.

    Args:
        loss: what the trees minimise.
        trees, leaves, learning_rate, min_leaf: of each run.
        columns, rows: the share of columns a tree and of rows a run of trees sees.
        l2: regularisation of the leaves.
        bags: runs, each with a seed of its own.
        balance: how many times as much positives weigh while fitting. The log-odds are shifted back by its logarithm
            (King and Zeng, "Logistic regression in rare events data", 2001), so that under log loss chances hold.
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
    balance: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.balance < np.inf:
            raise DefinitionError(
                "positives weigh more than nothing", got=f"balance={self.balance!r}", remedy="balance=1.0 is plain"
            )

    def fit(
        self,
        rows: NDArray[np.float32],
        positive: NDArray[np.bool_],
        cost: Floats | None = None,
        weight: Floats | None = None,
    ) -> FittedTrees:
        """See `ClassifierSpec.fit`."""
        import lightgbm

        weights = _weights(positive, weight)
        start = _log_odds(positive, weights)
        costs = np.ones(len(rows)) if cost is None else np.asarray(cost, np.float64)
        counted = np.where(positive, self.balance, 1.0) * weights

        # LightGBM leaves weights to the objective where that is a function.
        def slopes(raw: Floats, data: lightgbm.Dataset) -> tuple[Floats, Floats]:
            slope, curvature = self.loss.slopes(raw, positive, costs)
            return slope * counted, np.maximum(curvature, _LEAST) * counted

        boosters = []
        for bag in range(self.bags):
            before = np.full(len(rows), start + np.log(self.balance))
            data = lightgbm.Dataset(rows, positive.astype(np.int8), init_score=before)
            boosters.append(lightgbm.train(self._parameters(self.seed + bag) | {"objective": slopes}, data, self.trees))
        return FittedTrees(_joined([booster.model_to_string() for booster in boosters]), self.bags, start)

    def _parameters(self, seed: int) -> dict[str, Any]:
        return {
            "num_leaves": self.leaves,
            "learning_rate": self.learning_rate,
            "min_data_in_leaf": self.min_leaf,
            # Curvatures are small where positives are rare: the number of rows and l2 are what holds a leaf back.
            # Not 0: LightGBM counts a leaf's rows by its curvature, and fails on a leaf that it takes for empty.
            "min_sum_hessian_in_leaf": 1e-3,
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


class FittedTrees:
    """What `Classifier.fit` gives: the trees of all its runs as one model, walked in one call.

    Args:
        text: LightGBM's text of the trees; their sum over `bags`, above `start`, is the log-odds.
    """

    def __init__(self, text: str, bags: int, start: float) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_str=text)
        self.bags = bags
        self.start = start
        self._scorer = Scorer.of(self.booster)

    def score(self, rows: NDArray[np.float32]) -> Floats:
        """See `FittedClassifier.score`."""
        return chance(self.start + self._sum(rows) / self.bags)

    def _sum(self, rows: NDArray[np.float32]) -> Floats:
        """Of one row LightGBM's walk is the quicker, of many the scorer's; they are the same to the last bit."""
        if not len(rows):
            return np.zeros(0)
        if self._scorer is not None and self._scorer.takes(rows):
            return self._scorer.score(rows)
        return np.asarray(self.booster.predict(rows, num_threads=1, raw_score=True))

    def contributions(self, rows: NDArray[np.float32]) -> Floats:
        """TreeSHAP, the mean over runs (Lundberg et al., "Consistent individualized feature attribution for tree
        ensembles", 2018). With the mean of the log-odds, which is left out, they add up to a row's log-odds."""
        if not len(rows):
            return np.zeros(rows.shape)
        found = np.asarray(self.booster.predict(rows, num_threads=1, pred_contrib=True))
        return found[:, :-1] / self.bags

    @property
    def importance(self) -> Floats:
        """The total gain of each feature's splits, (features,)."""
        return np.asarray(self.booster.feature_importance("gain"), np.float64)

    def save(self, folder: Path) -> dict[str, Any]:
        """See `FittedClassifier.save`."""
        (folder / "model.txt").write_text(self.booster.model_to_string())
        return {"model": "classifier", "file": "model.txt", "bags": self.bags, "start": self.start}


@registered("classifier")
@dataclass(frozen=True)
class Logistic:
    """Logistic regression, fitted by Newton's method; it looks at no costs.

    Columns are clipped to what lies between the quantiles `tails` and 1 − `tails`, then drawn in: x becomes
    sign(x) log(1 + |x| / s), with s the spread of the column's middle half. Then they are standardised. What is missing
    counts as the mean, and where any was missing in training a further column says so.

    Args:
        l2: half of it times the sum of squared coefficients is added to the log loss of all rows.
        tails: the share of values to clip at each end.
        steps: at most so many of Newton's.
    """

    l2: float = 10.0
    tails: float = 0.001
    steps: int = 50

    def __post_init__(self) -> None:
        if not (self.l2 > 0 and 0 <= self.tails < 0.5 and self.steps > 0):
            raise DefinitionError(
                "l2 and steps are above 0, and tails from 0 to below 0.5",
                got=f"l2={self.l2!r}, tails={self.tails!r}, steps={self.steps!r}",
                remedy="l2=10.0, tails=0.001, steps=50 are usual",
            )  # fmt: skip

    def fit(
        self,
        rows: NDArray[np.float32],
        positive: NDArray[np.bool_],
        cost: Floats | None = None,
        weight: Floats | None = None,
    ) -> FittedLogistic:
        """See `ClassifierSpec.fit`."""
        weights = _weights(positive, weight)
        start = _log_odds(positive, weights)
        columns = self._columns(rows, weights)
        flat = FittedLogistic(columns, np.zeros(columns.shape[1]), np.zeros(columns.shape[1]), start)
        values, missing = flat.parts(rows)
        flagged = np.flatnonzero(np.isnan(rows).any(axis=0))
        design = np.concatenate([values, missing[:, flagged], np.ones((len(rows), 1))], axis=1)
        found = self._newton(design, positive, weights, start)
        width = columns.shape[1]
        of_missing = np.zeros(width)
        of_missing[flagged] = found[width:-1]
        return FittedLogistic(columns, found[:width], of_missing, float(found[-1]))

    def _columns(self, rows: NDArray[np.float32], weights: Floats) -> Floats:
        """What prepares the columns: (6, features), see `FittedLogistic`."""
        out = np.zeros((6, rows.shape[1]))
        out[2], out[4] = 1.0, 1.0
        for place, column in enumerate(rows.T):
            there = np.isfinite(column)
            out[5, place] = np.average(np.isnan(column), weights=weights)
            weight = weights[there]
            if not weight.sum():
                continue
            values = column[there].astype(np.float64)
            low, high = np.quantile(values, [self.tails, 1 - self.tails])
            values = np.clip(values, low, high)
            unit = _middle(values) or _spread(values, weight)
            values = _drawn_in(values, unit)
            out[:5, place] = low, high, unit, np.average(values, weights=weight), _spread(values, weight)
        return out

    def _newton(self, design: Floats, positive: NDArray[np.bool_], weights: Floats, start: float) -> Floats:
        """The coefficients (columns,) that minimise the penalised log loss; the last is the constant's."""
        loss, ones = LogLoss(), np.ones(len(design))
        ridge = np.full(design.shape[1], self.l2)
        ridge[-1] = 0.0
        coefficients = np.zeros(design.shape[1])
        coefficients[-1] = start

        def height(at: Floats) -> float:
            return float(loss.value(design @ at, positive, ones) @ weights + ridge @ at**2 / 2)

        now = height(coefficients)
        for _ in range(self.steps):
            slope, curvature = loss.slopes(design @ coefficients, positive, ones)
            gradient = design.T @ (slope * weights) + ridge * coefficients
            step = np.linalg.solve(_curved(design, curvature * weights) + np.diag(ridge), gradient)
            gain = float(gradient @ step)
            for _ in range(_HALVINGS):
                then = height(coefficients - step)
                if then <= now:
                    break
                step /= 2
            else:
                break
            coefficients, now = coefficients - step, then
            if gain <= _CLOSE * now:
                break
        return coefficients


class FittedLogistic:
    """What `Logistic.fit` gives.

    Args:
        columns: (6, features) float64 of each column: least and largest value, the unit in which it is drawn in,
            the mean and standard deviation of that, and the share of rows in which it was missing.
        coefficients: (features,) of the standardised columns.
        of_missing: (features,) of their being missing, 0 where none was.
        constant: the log-odds of the average row.
    """

    def __init__(self, columns: Floats, coefficients: Floats, of_missing: Floats, constant: float) -> None:
        self.columns = columns
        self.coefficients = coefficients
        self.of_missing = of_missing
        self.constant = constant

    def parts(self, rows: NDArray[np.float32]) -> tuple[Floats, Floats]:
        """The standardised values of rows (n, features), and how far each's being missing is from the mean: the same
        shape, each of mean 0 over the rows fitted to, but for infinite values."""
        low, high, unit, mean, scale, share = self.columns
        missing = np.isnan(rows)
        values = (_drawn_in(np.clip(rows.astype(np.float64), low, high), unit) - mean) / scale
        return np.where(missing, 0.0, values), missing - share

    def score(self, rows: NDArray[np.float32]) -> Floats:
        """See `FittedClassifier.score`."""
        return chance(self.constant + self.contributions(rows).sum(axis=1))

    def contributions(self, rows: NDArray[np.float32]) -> Floats:
        """Coefficient times deviation from the mean, of a value and of its being missing."""
        values, missing = self.parts(np.ascontiguousarray(rows))
        return values * self.coefficients + missing * self.of_missing

    @property
    def importance(self) -> Floats:
        """The standard deviation of what a value and its being missing add to the log-odds, summed, (features,)."""
        share = self.columns[5]
        return np.asarray(np.abs(self.coefficients) + np.abs(self.of_missing) * np.sqrt(share * (1 - share)))

    def save(self, folder: Path) -> dict[str, Any]:
        """See `FittedClassifier.save`."""
        np.save(folder / "logistic.npy", np.vstack([self.columns, self.coefficients, self.of_missing]), False)
        return {"model": "logistic", "file": "logistic.npy", "constant": self.constant}


def load_classifier(folder: Path, saved: dict[str, Any]) -> FittedClassifier:
    """The inverse of `FittedClassifier.save`: the scores are the same to the last bit.

    Raises:
        ReleaseError: the model is of a kind that is not known.
    """
    if saved["model"] == "classifier":
        return FittedTrees((folder / saved["file"]).read_text(), int(saved["bags"]), float(saved["start"]))
    if saved["model"] == "logistic":
        found = np.load(folder / saved["file"], allow_pickle=False)
        return FittedLogistic(found[:6], found[6], found[7], float(saved["constant"]))
    raise ReleaseError(
        "a release's classifier is one that this penstock can load", got=repr(saved["model"]),
        remedy="upgrade penstock",
    )  # fmt: skip


def _weights(positive: NDArray[np.bool_], weight: Floats | None) -> Floats:
    weights = np.ones(len(positive)) if weight is None else np.asarray(weight, np.float64)
    if weights.shape != positive.shape or not (np.isfinite(weights) & (weights >= 0)).all():
        raise DefinitionError(
            "each row weighs a number from 0 up", got=f"{weights.shape} weights of {len(positive)} rows",
            remedy="a weight is how many rows one stands for: seen / kept where rows were sampled",
        )  # fmt: skip
    return weights


def _log_odds(positive: NDArray[np.bool_], weights: Floats) -> float:
    """Of all rows taken together."""
    for_it, against = float(weights[positive].sum()), float(weights[~positive].sum())
    if not (for_it > 0 and against > 0):
        raise DefinitionError(
            "a classifier is fitted to rows of both kinds",
            got=f"{int(np.sum(positive))} positive of {len(positive)}", remedy="take rows from a longer time",
        )  # fmt: skip
    return float(np.log(for_it / against))


def _joined(texts: Sequence[str]) -> str:
    """The trees of several LightGBM models as the text of one, whose raw scores are the sums of theirs."""
    head, _, tail = texts[0].partition("\nTree=")
    # Where the sizes of the trees are not said, LightGBM reads them one after the other, and numbers them anew.
    said = "\n".join(line for line in head.split("\n") if not line.startswith("tree_sizes="))
    trees = [text.partition("\nTree=")[2].partition("\nend of trees")[0] for text in texts]
    return "\nTree=".join([said, *trees]) + "\nend of trees" + tail.partition("\nend of trees")[2]


def _drawn_in(values: Floats, unit: Floats | float) -> Floats:
    """A logarithm that goes on below zero: about x / unit near it."""
    return np.asarray(np.copysign(np.log1p(np.abs(values) / unit), values))


def _middle(values: Floats) -> float:
    """The standard deviation that a normal column with these quartiles has, whatever its tails."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) / 1.349


def _spread(values: Floats, weights: Floats) -> float:
    """The standard deviation, 1 where all are the same."""
    if np.ptp(values) == 0:
        return 1.0
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _curved(design: Floats, weights: Floats) -> Floats:
    """Xᵀ diag(weights) X of X (n, columns), a block of rows at a time, since a weighted copy of it is as large."""
    out = np.zeros((design.shape[1], design.shape[1]))
    for begin in range(0, len(design), _BLOCK):
        part = design[begin : begin + _BLOCK]
        out += part.T @ (part * weights[begin : begin + _BLOCK, None])
    return out
