"""A linear model of rewards whose uncertainty is known: what LinUCB and linear Thompson sampling choose by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError, ReleaseError
from penstock.registry import fingerprint
from penstock.types import Array

Floats = NDArray[np.float64]
_GRID, _REWARD_GRID = 2.0**12, 2.0**10
_MOST, _MOST_REWARD = 32.0, 256.0
# Products of so many rows add up below 2**53, so that float64 adds them without rounding.
_BLOCK = 1 << 18
_NOISE = 0.25
"""The variance of rewards before any was seen, which then counts as one: no 0-or-1 reward varies more."""


@dataclass(frozen=True)
class LinearReward:
    """What a linear model of an item's reward sees: feature columns, and the product of a source's two vectors.

    Columns are compressed to sign(x) · log(1 + |x|), missing ones to 0, so that counts, seconds and prices are of one
    size; all are put to mean 0 and variance 1 once the rows are known.

    Args:
        columns: of the decision's feature matrix, by name; ``"score"`` is the ranker's score, in training that of a
            ranker that did not learn from the row.
        source: a candidate source with vectors: a network's last layer beside the columns ("neural-linear").
        penalty: of the ridge: so many rows without any reward are believed beforehand.
    """

    columns: tuple[str, ...] = ()
    source: str = ""
    penalty: float = 1.0

    def __post_init__(self) -> None:
        if not (self.columns or self.source) or not self.penalty > 0:
            raise DefinitionError(
                "a model of rewards sees columns or a source's vectors, and its penalty is more than 0",
                got=f"columns={self.columns!r}, source={self.source!r}, penalty={self.penalty!r}",
                remedy='columns=("score", "Product.buys")',
            )

    @property
    def key(self) -> str:
        """Names what is learned for it, in a release."""
        return fingerprint([list(self.columns), self.source, self.penalty])

    def inputs(self, columns: Sequence[Array], products: Array | None = None) -> Floats:
        """The rows of the model: 1, the columns, and the products; (n, d) float64.

        Args:
            columns: (n,) each, in order, as float32 or float64.
            products: (n, width) of the source, where the model has one.

        >>> LinearReward(("a", "b")).inputs([np.array([0.0, 1.0]), np.array([np.nan, -1e9])]).round(2).tolist()
        [[1.0, 0.0, 0.0], [1.0, 0.69, -20.72]]
        """
        n = len(columns[0]) if columns else len(products) if products is not None else 0
        wide = 0 if products is None else products.shape[1]
        out = np.empty((n, 1 + len(columns) + wide))
        out[:, 0] = 1.0
        for place, column in enumerate(columns, 1):
            # Training sees float32; so must serving.
            out[:, place] = column.astype(np.float32, copy=False)
        raw = out[:, 1 : 1 + len(columns)]
        raw[~np.isfinite(raw)] = 0.0
        np.copyto(raw, np.copysign(np.log1p(np.abs(raw)), raw))
        if products is not None:
            # Of unit vectors, whose products are small.
            out[:, 1 + len(columns) :] = products * np.sqrt(wide)
        return np.clip(np.rint(out * _GRID) / _GRID, -_MOST, _MOST, out=out)


@dataclass(frozen=True)
class Summary:
    """What rows (n, d) and their rewards (n,) come to: a mergeable summary, the same bytes in any order of merging.

    Rows and rewards are whole multiples of 2⁻¹² and 2⁻¹⁰, and their products are added up as integers: exact up to a
    hundred million rows.

    Attributes:
        squares: (d, d) int64, the sum of x xᵀ in units of 2⁻²⁴; the first column of x is 1, so that it counts rows.
        rewarded: (d,) int64, the sum of r x in units of 2⁻²².
        energy: (1,) int64, the sum of r² in units of 2⁻²⁰.

    >>> rows = np.array([[1.0, 2.0], [1.0, 4.0]])
    >>> both = Summary.of(rows, np.array([0.0, 1.0]))
    >>> both.count, both == Summary.of(rows[1:], np.ones(1)).merged(Summary.of(rows[:1], np.zeros(1)))
    (2, True)
    """

    squares: NDArray[np.int64]
    rewarded: NDArray[np.int64]
    energy: NDArray[np.int64]

    @classmethod
    def empty(cls, d: int) -> Summary:
        """Of no rows."""
        return cls(np.zeros((d, d), np.int64), np.zeros(d, np.int64), np.zeros(1, np.int64))

    @classmethod
    def of(cls, rows: Floats, reward: Floats) -> Summary:
        """Of rows as `LinearReward.inputs` gives them."""
        if np.abs(reward).max(initial=0.0) > _MOST_REWARD or np.isnan(reward).any():
            raise ReleaseError(
                f"a reward is between -{_MOST_REWARD:g} and {_MOST_REWARD:g}",
                got=str(float(reward[np.argmax(np.abs(reward))])), remedy="divide what goals are worth by a constant",
            )  # fmt: skip
        out = cls.empty(rows.shape[1])
        for begin in range(0, len(rows), _BLOCK):
            x = np.rint(rows[begin : begin + _BLOCK] * _GRID)
            r = np.rint(reward[begin : begin + _BLOCK] * _REWARD_GRID)
            parts = (x.T @ x, x.T @ r, np.array([r @ r]))
            out = out.merged(cls(*(part.astype(np.int64) for part in parts)))
        return out

    def merged(self, other: Summary) -> Summary:
        """Of the rows of both."""
        return Summary(
            self.squares + other.squares, self.rewarded + other.rewarded, self.energy + other.energy
        )  # fmt: skip

    @property
    def count(self) -> int:
        """How many rows it sums up."""
        return int(self.squares[0, 0] / _GRID**2)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Summary) and all(
            np.array_equal(mine, theirs)
            for mine, theirs in zip(self.arrays().values(), other.arrays().values(), strict=True)
        )

    def arrays(self) -> dict[str, Array]:
        """As a release keeps it."""
        return {"squares": self.squares, "rewarded": self.rewarded, "energy": self.energy}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Summary:
        return cls(*(np.array(arrays[name]) for name in ("squares", "rewarded", "energy")))


@dataclass(frozen=True)
class Posterior:
    """What a summary says of the model's weights: Bayesian ridge regression with the noise put in.

    The weights w of the rows z, put to mean 0 and variance 1, are normal with mean A⁻¹ b and covariance σ² A⁻¹, where
    A = λ I + Σ z zᵀ and b = Σ r z (Li et al., "A contextual-bandit approach to personalized news article
    recommendation", WWW 2010; Agrawal and Goyal, "Thompson sampling for contextual bandits with linear payoffs", ICML
    2013; over a network's last layer Riquelme, Tucker and Snoek, "Deep Bayesian bandits showdown", ICLR 2018). σ² is
    the residuals' mean square.

    Args:
        summary: of what was seen.
        penalty: λ.
    """

    summary: Summary
    penalty: float = 1.0

    @property
    def width(self) -> int:
        """Columns of a row."""
        return len(self.summary.rewarded)

    @cached_property
    def _solved(self) -> tuple[Floats, Floats, float]:
        """The mean (d,) and the square root of the covariance (d, d), both for rows as they come; and σ²."""
        d, n = self.width, self.summary.count
        squares = self.summary.squares / _GRID**2
        rewarded = self.summary.rewarded / (_GRID * _REWARD_GRID)
        centre, spread = np.zeros(d), np.ones(d)
        if n:
            centre[1:] = squares[0, 1:] / n
            variance = np.diag(squares)[1:] / n - centre[1:] ** 2
            # What never varied says nothing, and is left as it is.
            spread[1:] = np.sqrt(np.where(variance > 1e-6, variance, 1.0))
        # z = turn @ x, with the first column left 1.
        turn = np.diag(1.0 / spread)
        turn[1:, 0] = -centre[1:] / spread[1:]
        lower = np.linalg.cholesky(turn @ squares @ turn.T + self.penalty * np.eye(d))
        gain = turn @ rewarded
        half = np.linalg.solve(lower, gain)
        mean = np.linalg.solve(lower.T, half)
        energy = float(self.summary.energy[0]) / _REWARD_GRID**2
        noise = (max(energy - float(half @ half), 0.0) + _NOISE) / (n + 1)
        return turn.T @ mean, np.sqrt(noise) * np.linalg.solve(lower, turn).T, noise

    @property
    def noise(self) -> float:
        """The variance of rewards about what is expected."""
        return self._solved[2]

    def mean(self, rows: Floats) -> Floats:
        """The expected reward of rows (n, d), (n,)."""
        return np.asarray(rows @ self._solved[0])

    def deviation(self, rows: Floats) -> Floats:
        """The standard deviation of what is believed of each row's expected reward, (n,)."""
        spread = rows @ self._solved[1]
        return np.asarray(np.sqrt(np.einsum("ij,ij->i", spread, spread)))

    def drawn(self, rows: Floats, normals: NDArray[Any]) -> Floats:
        """Expected rewards (draws, n) under weights drawn from the posterior, given standard normals (draws, d)."""
        mean, root, _ = self._solved
        return np.asarray((mean + normals @ root.T) @ rows.T)
