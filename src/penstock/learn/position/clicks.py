"""Clicks by position, and what was learned of how positions are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from penstock.errors import PenstockError
from penstock.types import Array

Floats = NDArray[np.float64]


class PositionError(PenstockError):
    """Clicks from which the examination of positions cannot be told."""


@dataclass(frozen=True, eq=False)
class Clicks:
    """n items that were shown, as (n,) columns.

    Args:
        session: the showing that each was part of, an integer code; a session has each position at most once.
        pair: what was asked and what was shown, an integer code: relevance is taken to be the same wherever it is.
        position: from 0, the first.
        clicked: what came of it.

    Raises:
        PositionError: columns of different lengths, none at all, or a position below 0.
    """

    session: NDArray[np.int64]
    pair: NDArray[np.int64]
    position: NDArray[np.int64]
    clicked: NDArray[np.bool_]

    def __post_init__(self) -> None:
        sizes = {len(self.session), len(self.pair), len(self.position), len(self.clicked)}
        if len(sizes) > 1 or 0 in sizes:
            raise PositionError(
                "what was shown has a session, a pair, a position and an outcome each, and there is some",
                got=f"columns of lengths {', '.join(map(str, sorted(sizes)))}", remedy="pass columns of equal length",
            )  # fmt: skip
        if self.position.min() < 0:
            raise PositionError("positions count from 0", got=str(self.position.min()), remedy="0 is the first")

    @classmethod
    def of_slates(cls, pair: NDArray[np.int64], clicked: NDArray[np.bool_]) -> Self:
        """Sessions of k items each, first position first: (n, k) pairs and outcomes."""
        sessions, width = pair.shape
        session = np.repeat(np.arange(sessions), width)
        return cls(session, pair.ravel(), np.tile(np.arange(width), sessions), clicked.ravel())

    def take(self, index: Array) -> Clicks:
        """Some of the rows."""
        return Clicks(self.session[index], self.pair[index], self.position[index], self.clicked[index])

    @property
    def positions(self) -> int:
        """How many positions there are, K."""
        return int(self.position.max()) + 1

    @cached_property
    def place(self) -> tuple[NDArray[np.int64], int]:
        """Each row's pair as a place among the P different ones, (n,), and P."""
        known, place = np.unique(self.pair, return_inverse=True)
        return place, len(known)

    @cached_property
    def table(self) -> tuple[Floats, Floats]:
        """How often each pair was shown and clicked at each position: (P, K) counts, twice."""
        (place, pairs), width = self.place, self.positions
        cell = place * width + self.position
        shown = np.bincount(cell, minlength=pairs * width)
        clicked = summed(cell, self.clicked, pairs * width)
        return shown.reshape(pairs, width).astype(np.float64), clicked.reshape(pairs, width)


@dataclass(frozen=True, eq=False)
class Examination:
    """How likely each of K positions is looked at, relative to the first.

    Attributes:
        probability: (K,), 1 at the first position; NaN where the data do not tell.
        error: (K,) standard errors, 0 at the first position.
        noise: (K,) how likely what is looked at, and would not be clicked for itself, is clicked because of where it
            stands (trust bias); None where it was not estimated.
        noise_error: (K,) its standard errors.
    """

    probability: Floats
    error: Floats
    noise: Floats | None = None
    noise_error: Floats | None = None

    def __len__(self) -> int:
        return len(self.probability)

    def interval(self, level: float = 0.95) -> Floats:
        """Bounds of each probability, (K, 2): symmetric in its logarithm.

        >>> Examination(np.array([1.0, 0.5]), np.array([0.0, 0.05])).interval().round(3).tolist()
        [[1.0, 1.0], [0.411, 0.608]]
        """
        reach = NormalDist().inv_cdf((1 + level) / 2) * self.error / self.probability
        return np.stack([self.probability * np.exp(-reach), self.probability * np.exp(reach)], axis=1)

    def known(self) -> Floats:
        """The probabilities, (K,), a position of which nothing is known taking that of the last known one above it."""
        last = np.maximum.accumulate(np.where(np.isnan(self.probability), 0, np.arange(len(self))))
        return self.probability[last]

    def falling(self) -> Examination:
        """The same, held to never rise from one position to the next: neighbours that do are averaged, by how well
        each is known (isotonic regression of the logarithms). Few clicks then give no absurd weights."""
        found = self.known()
        # The first is fixed: what stands out above it falls back to it.
        known = np.where(np.isnan(self.probability), 0.0, (found / np.maximum(self.error, 1e-9)) ** 2)
        level = _falling(np.minimum(np.log(found[1:]), 0.0), known[1:])
        return Examination(np.exp(np.r_[0.0, level]), self.error, self.noise, self.noise_error)

    def weights(self, position: NDArray[np.int64], most: float = np.inf) -> Floats:
        """One over the examination at positions (n,), at most `most`. Positions past the last count as the last.

        >>> Examination(np.array([1.0, 0.5]), np.zeros(2)).weights(np.array([0, 1, 7])).tolist()
        [1.0, 2.0, 2.0]
        """
        return np.minimum(1.0 / self.known()[np.minimum(position, len(self) - 1)], most)

    def gains(self, position: NDArray[np.int64], clicked: NDArray[np.bool_], most: float = np.inf) -> Floats:
        """Unbiased estimates (n,) of the relevance, relative to other rows', of what was shown at positions (n,).

        Clicks over examination; where noise was estimated, with the affine correction (clicked / examination − noise)
        / (1 − noise), which is below 0 for some (Vardasbi, Oosterhuis and de Rijke, "When inverse propensity scoring
        does not work", CIKM 2020). Losses that are linear in the gains take them: see `Pairwise(others="all")`.
        """
        found = clicked * self.weights(position, most)
        if self.noise is None:
            return found
        noise = self.noise[np.minimum(position, len(self) - 1)]
        return np.asarray((found - noise) / (1 - noise))


def summed(place: NDArray[np.int64], values: Array, size: int) -> Floats:
    """The sums (size,) of `values` (n,) by place (n,)."""
    return np.asarray(np.bincount(place, values, size), np.float64)


def _falling(level: Floats, weight: Floats) -> Floats:
    """The nearest sequence that never rises, (n,), by weighted squares: pool adjacent violators."""
    blocks: list[tuple[float, float, int]] = []
    for value, mass in zip(level.tolist(), weight.tolist(), strict=True):
        size = 1
        while blocks and blocks[-1][0] < value:
            before, more, count = blocks.pop()
            total = more + mass
            value = (before * more + value * mass) / total if total > 0 else min(before, value)
            mass, size = total, size + count
        blocks.append((value, mass, size))
    return np.array([value for value, _, size in blocks for _ in range(size)], np.float64)


def check_first(clicks: Floats) -> None:
    """Refuses clicks (K,) by position of which the first has none: it is what the others are relative to."""
    if not clicks[0] > 0:
        raise PositionError(
            "examination is relative to the first position", got="no click there",
            remedy="gather more clicks, or count positions from one that has some",
        )  # fmt: skip
